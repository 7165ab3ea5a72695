#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "numerics/optimise.h"

namespace percept {
namespace {

using Eigen::VectorXd;

TEST(Minimise1d, FindsTheDeeperOfTwoValleys) {
  // minima near -1 (value about -0.9) and 2 (about -2)
  const auto f = [](double x) {
    return -0.9 * std::exp(-4 * (x + 1) * (x + 1)) - 2 * std::exp(-4 * (x - 2) * (x - 2));
  };
  const Minimum1d m = minimise_1d(f, -3, 4, 1e-8, 15);
  EXPECT_NEAR(m.x, 2, 1e-7);
  EXPECT_NEAR(m.value, -2, 1e-12);
  EXPECT_LT(m.evaluations, 40);
}

TEST(Minimise1d, TakesTheEdgeOfAFallingFunction) {
  EXPECT_NEAR(minimise_1d([](double x) { return -x; }, 0, 1, 1e-6).x, 1, 1e-5);
  EXPECT_NEAR(minimise_1d([](double x) { return x; }, 0, 1, 1e-6).x, 0, 1e-5);
}

TEST(Minimise1d, WalksAroundWhatIsNotFinite) {
  const auto f = [](double x) { return x < 0.4 ? std::numeric_limits<double>::quiet_NaN() : (x - 0.5) * (x - 0.5); };
  EXPECT_NEAR(minimise_1d(f, 0, 1, 1e-6).x, 0.5, 1e-5);
  EXPECT_THROW(minimise_1d([](double) { return std::nan(""); }, 0, 1, 1e-6), Error);
}

TEST(MinimiseLbfgs, ReachesTheMinimumOfRosenbrock) {
  const auto f = [](const VectorXd& x, VectorXd& g) {
    double sum = 0;
    g.setZero();
    for (Index i = 0; i + 1 < x.size(); ++i) {
      const double a = x(i + 1) - x(i) * x(i), b = 1 - x(i);
      sum += 100 * a * a + b * b;
      g(i) += -400 * a * x(i) - 2 * b;
      g(i + 1) += 200 * a;
    }
    return sum;
  };
  const MinimumNd m = minimise_lbfgs(f, VectorXd::Constant(8, -1.2), {.iterations = 500, .tolerance = 1e-14});
  EXPECT_TRUE(m.converged);
  EXPECT_LT(m.value, 1e-9);
  EXPECT_LT((m.x.array() - 1).abs().maxCoeff(), 1e-4);
}

TEST(MinimiseLbfgs, StaysWhereTheFunctionIsFinite) {
  // -log x + x: the minimum 1 at x = 1, infinite at and below 0
  const auto f = [](const VectorXd& x, VectorXd& g) {
    g(0) = 1 - 1 / x(0);
    return x(0) > 0 ? x(0) - std::log(x(0)) : std::nan("");
  };
  const MinimumNd m = minimise_lbfgs(f, VectorXd::Constant(1, 8.0), {.iterations = 100, .tolerance = 1e-14});
  EXPECT_NEAR(m.x(0), 1, 1e-6);
  EXPECT_THROW(minimise_lbfgs(f, VectorXd::Constant(1, -1.0)), Error);
  const MinimumNd none = minimise_lbfgs(f, VectorXd::Constant(1, 8.0), {.iterations = 0});
  EXPECT_EQ(none.x(0), 8);
  EXPECT_FALSE(none.converged);
}

}  // namespace
}  // namespace percept
