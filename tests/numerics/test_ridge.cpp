#include <gmock/gmock.h>

#include <Eigen/Dense>
#include <cmath>
#include <set>

#include "core/error.h"
#include "numerics/random.h"
#include "numerics/ridge.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

struct Problem {
  MatrixXd x, y;
};

Problem problem(Index features, Index frames, Index targets = 2) {
  const KeyedRandom r(9, "ridge");
  Problem p{MatrixXd(features, frames), MatrixXd(targets, frames)};
  for (Index t = 0; t < frames; ++t) {
    for (Index i = 0; i < features; ++i) p.x(i, t) = 2.0 + r.normal(t, static_cast<std::uint64_t>(i));
    for (Index k = 0; k < targets; ++k)
      p.y(k, t) = 5.0 + p.x(k % features, t) - 0.5 * p.x((k + 1) % features, t) +
                  static_cast<double>(1 + 20 * k) * r.normal(t, static_cast<std::uint64_t>(1000 + k));
  }
  return p;
}

/// The textbook solution, features and frames written out.
MatrixXd textbook(const MatrixXd& x, const MatrixXd& y, double alpha) {
  return (y * x.transpose()) * (x * x.transpose() + alpha * MatrixXd::Identity(x.rows(), x.rows())).inverse();
}

TEST(Ridge, PrimalAndDualEqualTheTextbook) {
  for (const auto& [features, frames] : {std::pair<Index, Index>{5, 60}, {40, 15}})
    for (const bool intercept : {false, true}) {
      const Problem p = problem(features, frames);
      const RidgeFit fit = fit_ridge(p.x, p.y, {.alphas = {3.0}, .intercept = intercept}, "ridge");
      const VectorXd xm = intercept ? VectorXd(p.x.rowwise().mean()) : VectorXd(VectorXd::Zero(features));
      const VectorXd ym = intercept ? VectorXd(p.y.rowwise().mean()) : VectorXd(VectorXd::Zero(2));
      const MatrixXd w = textbook(p.x.colwise() - xm, p.y.colwise() - ym, 3.0);
      EXPECT_LT((fit.weights - w).cwiseAbs().maxCoeff(), 1e-9);
      EXPECT_LT((fit.intercept - (ym - w * xm)).cwiseAbs().maxCoeff(), 1e-9);
      EXPECT_LT((fit.predict(p.x) - ((w * p.x).colwise() + fit.intercept)).cwiseAbs().maxCoeff(), 1e-9);
      EXPECT_EQ(fit.error.size(), 0);
    }
}

TEST(Ridge, ZeroIsLeastSquares) {
  const Problem p = problem(5, 60);
  MatrixXd with_one(6, 60);
  with_one << p.x, Eigen::RowVectorXd::Ones(60);
  const MatrixXd b = with_one.transpose().colPivHouseholderQr().solve(p.y.transpose()).transpose();
  const RidgeFit fit = fit_ridge(p.x, p.y, {.alphas = {0.0}}, "ridge");
  EXPECT_LT((fit.weights - b.leftCols(5)).cwiseAbs().maxCoeff(), 1e-10);
  EXPECT_LT((fit.intercept - b.col(5)).cwiseAbs().maxCoeff(), 1e-10);
}

TEST(Ridge, LeaveOneOutEqualsLeavingOneOut) {
  for (const auto& [features, frames] : {std::pair<Index, Index>{4, 25}, {30, 12}})
    for (const bool intercept : {false, true}) {
      const Problem p = problem(features, frames);
      const std::vector<double> alphas = {0.5, 5, 50};
      const RidgeFit fit = fit_ridge(p.x, p.y, {.alphas = alphas, .intercept = intercept}, "ridge");
      for (std::size_t a = 0; a < alphas.size(); ++a) {
        VectorXd error = VectorXd::Zero(2);
        for (Index out = 0; out < frames; ++out) {
          std::vector<Index> rest;
          for (Index t = 0; t < frames; ++t)
            if (t != out) rest.push_back(t);
          const RidgeFit without = fit_ridge(p.x(Eigen::all, rest), p.y(Eigen::all, rest),
                                             {.alphas = {alphas[a]}, .intercept = intercept}, "ridge");
          error += (p.y.col(out) - without.predict(p.x.col(out)).col(0)).cwiseAbs2();
        }
        error /= static_cast<double>(frames);
        EXPECT_LT((fit.error.row(static_cast<Index>(a)).transpose() - error).cwiseAbs().maxCoeff(),
                  1e-8 * error.maxCoeff());
      }
    }
}

TEST(Ridge, FoldErrorsEqualFittingWithoutTheFold) {
  const Problem p = problem(6, 50);
  const auto folds = inner_folds({}, 50, 5);
  const std::vector<double> alphas = {0.0, 10.0};
  const RidgeFit fit = fit_ridge(p.x, p.y, {.alphas = alphas, .folds = folds}, "ridge");
  for (std::size_t a = 0; a < 2; ++a) {
    VectorXd error = VectorXd::Zero(2);
    for (int fold = 0; fold < 5; ++fold) {
      std::vector<Index> train, test;
      for (Index t = 0; t < 50; ++t) (folds[static_cast<std::size_t>(t)] == fold ? test : train).push_back(t);
      EXPECT_EQ(test.size(), 10u);
      const RidgeFit f = fit_ridge(p.x(Eigen::all, train), p.y(Eigen::all, train), {.alphas = {alphas[a]}}, "ridge");
      error += (p.y(Eigen::all, test) - f.predict(p.x(Eigen::all, test))).rowwise().squaredNorm();
    }
    EXPECT_LT((fit.error.row(static_cast<Index>(a)).transpose() - error / 50).cwiseAbs().maxCoeff(),
              1e-9 * error.maxCoeff());
  }
}

TEST(Ridge, ChoosesTheSmallestError) {
  const Problem p = problem(8, 40);
  const std::vector<double> alphas = {0.01, 1, 100, 1e4};
  const RidgeFit own = fit_ridge(p.x, p.y, {.alphas = alphas, .per_target = true}, "ridge");
  for (Index k = 0; k < 2; ++k) {
    Index best = 0;
    own.error.col(k).minCoeff(&best);
    EXPECT_EQ(own.alpha(k), alphas[static_cast<std::size_t>(best)]);
    const RidgeFit alone = fit_ridge(p.x, p.y.row(k), {.alphas = {own.alpha(k)}}, "ridge");
    EXPECT_LT((own.weights.row(k) - alone.weights).cwiseAbs().maxCoeff(), 1e-12);
  }
  EXPECT_NE(own.alpha(0), own.alpha(1)) << "the second target is much noisier";
  const RidgeFit joint = fit_ridge(p.x, p.y, {.alphas = alphas}, "ridge");
  EXPECT_EQ(joint.alpha(0), joint.alpha(1));
}

TEST(Ridge, ZeroIsNeverChosenWhereItHasNoAnswer) {
  const Problem p = problem(40, 20);
  EXPECT_GT(fit_ridge(p.x, p.y, {.alphas = {0.0, 10.0}}, "ridge").alpha(0), 0);
  const auto folds = inner_folds({}, 20, 4);
  EXPECT_GT(fit_ridge(p.x, p.y, {.alphas = {0.0, 10.0}, .folds = folds}, "ridge").alpha(0), 0);
}

TEST(Ridge, Refuses) {
  const Problem p = problem(5, 60);
  EXPECT_THROW(fit_ridge(p.x, p.y.leftCols(59), {}, "ridge"), DataError);
  EXPECT_THROW(fit_ridge(p.x, p.y, {.alphas = {-1.0}}, "ridge"), ConfigError);
  EXPECT_THROW(fit_ridge(p.x, p.y, {.alphas = {}}, "ridge"), ConfigError);
  try {
    fit_ridge(p.x.leftCols(5), p.y.leftCols(5), {}, "ridge");
    FAIL();
  } catch (const DataError& e) {
    EXPECT_THAT(e.what(), ::testing::AllOf(::testing::HasSubstr("offset (6)"), ::testing::HasSubstr("alpha > 0"),
                                           ::testing::HasSubstr("found 5")));
  }
  MatrixXd twice = p.x;
  twice.row(1) = twice.row(0);
  EXPECT_THROW(fit_ridge(twice, p.y, {}, "ridge"), DataError);
  EXPECT_NO_THROW(fit_ridge(twice, p.y, {.alphas = {1.0}}, "ridge"));
  twice(0, 0) = NAN;
  EXPECT_THROW(fit_ridge(twice, p.y, {.alphas = {1.0}}, "ridge"), DataError);
  const std::vector<std::int32_t> one_fold(60, 0);
  EXPECT_THROW(fit_ridge(p.x, p.y, {.alphas = {1.0, 2.0}, .folds = one_fold}, "ridge"), DataError);
}

TEST(InnerFolds, KeepGroupsWhole) {
  const std::vector<std::int32_t> groups = {7, 7, 3, 3, 3, 9, 9, 7, 1};
  const auto folds = inner_folds(groups, 9, 3);
  for (std::size_t i = 0; i < 9; ++i)
    for (std::size_t j = 0; j < 9; ++j)
      if (groups[i] == groups[j]) {
        EXPECT_EQ(folds[i], folds[j]);
      }
  EXPECT_EQ(std::set<std::int32_t>(folds.begin(), folds.end()).size(), 3u);
  const auto stretches = inner_folds({}, 10, 5);
  EXPECT_THAT(stretches, ::testing::ElementsAre(0, 0, 1, 1, 2, 2, 3, 3, 4, 4));
}

}  // namespace
}  // namespace percept
