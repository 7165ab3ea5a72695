#include <gmock/gmock.h>

#include <Eigen/Dense>
#include <cmath>

#include "core/error.h"
#include "numerics/kernel_regression.h"
#include "numerics/random.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

struct Cloud {
  MatrixXd x, y;
};

/// y = sin of the first input plus noise.
Cloud cloud(Index frames, double noise = 0.1) {
  const KeyedRandom r(4, "cloud");
  Cloud c{MatrixXd(2, frames), MatrixXd(1, frames)};
  for (Index t = 0; t < frames; ++t) {
    c.x.col(t) << 100 + 3 * r.uniform(t, 0), 5 + 0.3 * r.uniform(t, 1);
    c.y(0, t) = std::sin(2 * c.x(0, t)) + noise * r.normal(t, 2);
  }
  return c;
}

double textbook(const Cloud& c, const VectorXd& x, double h, Index without = -1) {
  double sum = 0, weights = 0;
  for (Index i = 0; i < c.x.cols(); ++i) {
    if (i == without) continue;
    const double w = std::exp(-(x - c.x.col(i)).squaredNorm() / (2 * h * h));
    sum += w * c.y(0, i);
    weights += w;
  }
  return sum / weights;
}

TEST(KernelRegression, IsTheWeightedMean) {
  const Cloud c = cloud(301), other = cloud(40);
  const MatrixXd y = kernel_regression(c.x, c.y, 0.2, other.x);
  KernelWeights weights(c.x, 0.2);
  for (Index t = 0; t < 40; ++t) {
    const double wanted = textbook(c, other.x.col(t), 0.2);
    EXPECT_NEAR(y(0, t), wanted, 1e-11);
    const VectorXd x = other.x.col(t);
    weights.look(x.data(), 1);
    const VectorXd w = weights.weights();
    EXPECT_NEAR(w.sum(), 1, 1e-14);
    EXPECT_NEAR(w.dot(c.y.row(0)), wanted, 1e-12);
  }
}

// exp of the distances alone would be 0 / 0 there
TEST(KernelRegression, FarFromEveryPointTakesTheNearest) {
  const Cloud c = cloud(50);
  MatrixXd x(2, 1);
  x << 1e5, 0;
  Index nearest = 0;
  (c.x.colwise() - x.col(0)).colwise().squaredNorm().minCoeff(&nearest);
  EXPECT_DOUBLE_EQ(kernel_regression(c.x, c.y, 0.1, x)(0, 0), c.y(0, nearest));
  KernelWeights weights(c.x, 0.1);
  weights.look(x.data(), 1);
  EXPECT_DOUBLE_EQ(weights.weights()(nearest), 1);
}

TEST(KernelRegression, LeaveOneOutErrorIsOfThePointsLeftOut) {
  const Cloud c = cloud(270);
  double sum = 0;
  for (Index t = 0; t < 270; ++t) {
    const double e = textbook(c, c.x.col(t), 0.3, t) - c.y(0, t);
    sum += e * e;
  }
  EXPECT_NEAR(leave_one_out_error(c.x, c.y, 0.3), sum / 270, 1e-12);
}

TEST(KernelRegression, BandwidthMinimisesTheError) {
  const Cloud c = cloud(400);
  const Bandwidth b = leave_one_out_bandwidth(c.x, c.y, "map");
  for (const double factor : {0.2, 0.8, 0.97, 1.03, 1.25, 5.0})
    EXPECT_LT(b.error, leave_one_out_error(c.x, c.y, factor * b.bandwidth)) << factor;
  EXPECT_DOUBLE_EQ(b.error, leave_one_out_error(c.x, c.y, b.bandwidth));
  EXPECT_LT(b.evaluations, 40);
}

TEST(KernelRegression, BandwidthOfRepeatedFramesAndRefusals) {
  Cloud c = cloud(100);
  for (Index t = 0; t < 100; t += 2) c.x.col(t) = c.x.col(t + 1);  // every frame twice
  EXPECT_GT(leave_one_out_bandwidth(c.x, c.y, "map").bandwidth, 0);
  c.x.colwise() = Eigen::Vector2d(0.1, 0.7);
  try {
    leave_one_out_bandwidth(c.x, c.y, "map");
    ADD_FAILURE() << "identical frames have no bandwidth";
  } catch (const DataError& e) {
    EXPECT_STREQ(e.what(), "map: inputs: expected frames that differ, found 100 times the same frame");
  }
  EXPECT_THROW(leave_one_out_bandwidth(c.x.leftCols(2), c.y.leftCols(2), "map"), DataError);
}

}  // namespace
}  // namespace percept
