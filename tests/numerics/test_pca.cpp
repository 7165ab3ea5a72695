#include <gmock/gmock.h>

#include <Eigen/Dense>
#include <cmath>

#include "core/error.h"
#include "numerics/pca.h"
#include "numerics/random.h"

namespace percept {
namespace {

using Eigen::MatrixXd;

MatrixXd data(Index rows, Index frames) {
  const KeyedRandom r(5, "pca");
  MatrixXd m(rows, frames);
  for (Index t = 0; t < frames; ++t)
    for (Index i = 0; i < rows; ++i)
      m(i, t) = 3.0 * static_cast<double>(i) +
                (1.0 + static_cast<double>(i % 4)) * r.normal(t, static_cast<std::uint64_t>(i)) +
                2.0 * r.normal(t, 1000);
  return m;
}

class PcaShape : public ::testing::TestWithParam<std::pair<Index, Index>> {};

TEST_P(PcaShape, EqualsTheSingularValues) {
  const auto [rows, frames] = GetParam();
  const MatrixXd x = data(rows, frames);
  const Index k = 4;
  const Pca p = fit_pca(x, k, "pca");
  const MatrixXd centred = x.colwise() - x.rowwise().mean();
  const Eigen::JacobiSVD<MatrixXd> svd(centred, Eigen::ComputeThinU);
  EXPECT_LT((p.mean - x.rowwise().mean()).cwiseAbs().maxCoeff(), 1e-12);
  EXPECT_LT((p.components * p.components.transpose() - MatrixXd::Identity(k, k)).cwiseAbs().maxCoeff(), 1e-10);
  for (Index i = 0; i < k; ++i) {
    const double s = svd.singularValues()(i);
    EXPECT_NEAR(p.variance(i), s * s / static_cast<double>(frames - 1), 1e-9 * p.variance(0));
    EXPECT_NEAR(std::abs(p.components.row(i).dot(svd.matrixU().col(i))), 1, 1e-8);
    Index at = 0;
    p.components.row(i).cwiseAbs().maxCoeff(&at);
    EXPECT_GT(p.components(i, at), 0) << "sign rule";
  }
  EXPECT_NEAR(p.total_variance, centred.squaredNorm() / static_cast<double>(frames - 1), 1e-9 * p.total_variance);
  EXPECT_LE(p.explained().sum(), 1 + 1e-12);
}
INSTANTIATE_TEST_SUITE_P(PrimalAndDual, PcaShape,
                         ::testing::Values(std::pair<Index, Index>{8, 60}, std::pair<Index, Index>{50, 12}));

TEST(Pca, AllComponentsExplainEverything) { EXPECT_NEAR(fit_pca(data(6, 40), 6, "pca").explained().sum(), 1, 1e-12); }

TEST(Pca, RefusesWhatItCannotDo) {
  EXPECT_THROW(fit_pca(data(6, 40), 7, "pca"), ConfigError);
  EXPECT_THROW(fit_pca(data(6, 4), 4, "pca"), ConfigError);
  EXPECT_THROW(fit_pca(data(6, 40), 0, "pca"), ConfigError);
  EXPECT_THROW(fit_pca(MatrixXd::Ones(3, 10), 2, "pca"), DataError);
  EXPECT_THROW(fit_pca(MatrixXd::Ones(3, 1), 1, "pca"), DataError);
  MatrixXd hole = data(6, 40);
  hole(2, 3) = NAN;
  EXPECT_THROW(fit_pca(hole, 2, "pca"), DataError);
  MatrixXd flat = MatrixXd::Zero(20, 6);  // two dimensions of variance in a dual problem
  flat.row(0) = data(1, 6);
  flat.row(1) = data(2, 6).row(1);
  EXPECT_THROW(fit_pca(flat, 4, "pca"), ConfigError);
}

}  // namespace
}  // namespace percept
