#include <gmock/gmock.h>

#include <Eigen/Dense>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "reconstruction/gaussian.h"
#include "reconstruction/image/decoder_likelihood.h"
#include "reconstruction/image/encoding_likelihood.h"
#include "tests/support/errors.h"
#include "tests/support/random.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using testing::normals;

/// An encoder of 6 voxels and 4 features with made-up parts.
FieldEncoder encoder() {
  FieldEncoder e;
  e.feature_mean = normals(4, 1, "feature mean");
  e.response_mean = normals(6, 1, "response mean");
  e.weights = normals(6, 4, "weights");
  e.left_out = normals(6, 20, "left out");
  e.explained = (VectorXd(6) << 0.1, 0.5, 0.2, 0.4, 0.5, -0.3).finished();
  return e;
}

TEST(EncodingLikelihood, EqualsTheNormalDensity) {
  const FieldEncoder e = encoder();
  const EncodingLikelihood l = encoding_likelihood(e, 4, 0.7, "encoder");
  ASSERT_THAT(l.voxels, ::testing::ElementsAre(1, 4, 3, 2));  // of equals the first
  const MatrixXd residual = e.left_out(l.voxels, Eigen::all);
  const VectorXd sd = (residual.rowwise().squaredNorm() / 20).cwiseSqrt();
  MatrixXd c = 0.3 * (residual * residual.transpose() / 20);
  c.diagonal() += 0.7 * sd.cwiseAbs2();
  const VectorXd response = VectorXd(normals(6, 1, "response"))(l.voxels);
  const auto log_density = [&](const VectorXd& f) {
    const VectorXd d = response - e.response_mean(l.voxels) - e.weights(l.voxels, Eigen::all) * (f - e.feature_mean);
    return -d.dot(c.ldlt().solve(d)) / 2;
  };
  const MatrixXd f = normals(4, 5, "features");
  const VectorXd relative = f.transpose() * l.linear(response) - l.quadratic(f);
  for (Index k = 1; k < 5; ++k)
    EXPECT_NEAR(relative(k) - relative(0), log_density(f.col(k)) - log_density(f.col(0)), 1e-9) << k;
}

TEST(EncodingLikelihood, RefusesAVoxelWithoutNoise) {
  FieldEncoder e = encoder();
  e.left_out.row(3).setZero();
  EXPECT_EQ(testing::message_of<DataError>([&] { encoding_likelihood(e, 6, 0.7, "encoder"); }),
            "encoder: voxel 3: expected noise around the encoding model, found a response that the images explain "
            "exactly");
}

TEST(DecoderLikelihood, EqualsRidgeAndTheCovarianceOfItsErrors) {
  const Index n = 25;
  const MatrixXd z = normals(3, n, "coordinates");
  const MatrixXd responses = normals(8, 3, "mixing") * z + 0.8 * normals(8, n, "noise");
  const VectorXd weights = (VectorXd(8) << 1, 0.5, 0, 2, 1, 1, 0, 0.3).finished();
  const DecoderLikelihood d = fit_decoder_likelihood(responses, weights, z, "decoder");
  ASSERT_THAT(d.voxels, ::testing::ElementsAre(0, 1, 3, 4, 5, 7));
  const MatrixXd x = weights(d.voxels).asDiagonal() * responses(d.voxels, Eigen::all);
  const MatrixXd centred = x.colwise() - x.rowwise().mean();
  const double scale = centred.squaredNorm() / static_cast<double>(n);
  const auto predict = [&](const std::vector<Index>& frames, double penalty, const VectorXd& at) {
    const MatrixXd some = x(Eigen::all, frames), target = z(Eigen::all, frames);
    const MatrixXd a = some.colwise() - some.rowwise().mean();
    const MatrixXd gram = a * a.transpose() + penalty * scale * MatrixXd::Identity(6, 6);
    const MatrixXd b = gram.ldlt().solve(a * (target.colwise() - target.rowwise().mean()).transpose());
    return VectorXd(target.rowwise().mean() + b.transpose() * (at - some.rowwise().mean()));
  };
  std::vector<Index> all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  const auto errors = [&](double penalty) {
    MatrixXd e(3, n);
    for (Index t = 0; t < n; ++t) {
      std::vector<Index> others = all;
      others.erase(others.begin() + t);
      e.col(t) = z.col(t) - predict(others, penalty, x.col(t));
    }
    return e;
  };
  const VectorXd power = (z.colwise() - z.rowwise().mean()).rowwise().squaredNorm();
  const auto loss = [&](double penalty) {
    return (errors(penalty).rowwise().squaredNorm().array() / power.array()).sum();
  };
  for (const double other : {0.03, 0.1, 0.3, 1.0, 3.0, 10.0}) EXPECT_LE(loss(d.penalty), loss(other) + 1e-12) << other;

  const MatrixXd e = errors(d.penalty);
  const VectorXd sd = (e.rowwise().squaredNorm() / static_cast<double>(n)).cwiseSqrt();
  const MatrixXd r = shrunk_covariance(sd.cwiseInverse().asDiagonal() * e).covariance;
  const MatrixXd precision = (sd.asDiagonal() * r * sd.asDiagonal()).inverse();
  EXPECT_LT((d.whiten.transpose() * d.whiten - precision).cwiseAbs().maxCoeff(),
            1e-8 * precision.cwiseAbs().maxCoeff());
  const VectorXd response = normals(8, 1, "response");
  const VectorXd expected = d.whiten * predict(all, d.penalty, weights(d.voxels).cwiseProduct(response(d.voxels)));
  EXPECT_LT((d.decode(response(d.voxels)) - expected).cwiseAbs().maxCoeff(), 1e-8);
}

TEST(DecoderLikelihood, RefusesWhatCannotBeFitted) {
  const MatrixXd responses = normals(4, 10, "responses");
  MatrixXd z = normals(2, 10, "z");
  const auto fit = [&](Index frames, const VectorXd& weights) {
    fit_decoder_likelihood(responses.leftCols(frames), weights, z.leftCols(frames), "decoder");
  };
  EXPECT_EQ(testing::message_of<DataError>([&] { fit(2, VectorXd::Ones(4)); }),
            "decoder: training frames: expected at least 3, found 2");
  EXPECT_EQ(testing::message_of<DataError>([&] { fit(10, VectorXd::Zero(4)); }),
            "decoder: voxels: expected one that the images explain on frames left out, found none");
  z.row(1).setConstant(0.5);
  EXPECT_EQ(
      testing::message_of<DataError>([&] { fit(10, VectorXd::Ones(4)); }),
      "decoder: coordinate 1 of the target: expected values that vary over the training frames, found the constant "
      "0.5");
}

}  // namespace
}  // namespace percept
