#include <gtest/gtest.h>

#include <Eigen/Cholesky>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "evaluation/calibration.h"
#include "numerics/random.h"
#include "tests/support/data.h"

namespace percept::evaluation {
namespace {

TEST(ChiSquare, EqualsTablesAndItsClosedForm) {
  EXPECT_NEAR(chi_square_quantile(0.9, 1), 2.705543454095404, 1e-9);
  EXPECT_NEAR(chi_square_quantile(0.95, 10), 18.307038053275146, 1e-9);
  EXPECT_NEAR(chi_square_quantile(0.5, 100), 99.33412923598846, 1e-8);
  for (double p : {0.01, 0.5, 0.68, 0.9, 0.999}) {
    EXPECT_NEAR(chi_square_quantile(p, 2), -2 * std::log1p(-p), 1e-10);  // exact with two degrees of freedom
    EXPECT_NEAR(chi_square_cdf(chi_square_quantile(p, 7), 7), p, 1e-12);
  }
  EXPECT_EQ(chi_square_cdf(-1, 3), 0);
  EXPECT_THROW(chi_square_quantile(1, 2), Error);
}

struct Posterior {
  Eigen::MatrixXd truth, mean, covariance;
};
/// Errors drawn from N(0, spread² C) while C is what the posterior says.
Posterior draw(Index frames, double spread) {
  const KeyedRandom random(5, "test");
  Eigen::Matrix3d c;
  c << 2, 0.5, 0.1, 0.5, 1, -0.2, 0.1, -0.2, 0.3;
  const Eigen::Matrix3d l = c.llt().matrixL();
  Posterior p{Eigen::MatrixXd(3, frames), Eigen::MatrixXd(3, frames), Eigen::MatrixXd(9, frames)};
  for (Index k = 0; k < frames; ++k) {
    const double scale = 1 + static_cast<double>(k % 7);
    Eigen::Vector3d e;
    for (Index i = 0; i < 3; ++i) e(i) = random.normal(k, static_cast<std::uint64_t>(i));
    p.mean.col(k).setConstant(static_cast<double>(k));
    p.truth.col(k) = p.mean.col(k) + spread * std::sqrt(scale) * l * e;
    const Eigen::Matrix3d scaled = scale * c;
    p.covariance.col(k) = Eigen::Map<const Eigen::VectorXd>(scaled.data(), 9);
  }
  return p;
}

TEST(Calibration, AnHonestCovarianceIsCalibrated) {
  const Posterior p = draw(6000, 1);
  const Calibration c = calibrate(p.truth, p.mean, p.covariance);
  EXPECT_TRUE(c.calibrated);
  EXPECT_EQ(c.verdict, "calibrated");
  ASSERT_EQ(c.levels.size(), 5u);
  for (auto& l : c.levels) {
    EXPECT_NEAR(l.observed, l.nominal, 0.025) << l.nominal;  // four standard errors
    EXPECT_LE(l.interval.low, l.observed);
    EXPECT_GE(l.interval.high, l.observed);
  }
  EXPECT_NEAR(c.mean_distance2, 3, 0.13);
  EXPECT_EQ(c.frames, 6000);
}

TEST(Calibration, TooSmallAndTooLargeCovariancesAreNamed) {
  const Posterior small = draw(2000, 1.6), large = draw(2000, 0.5);
  EXPECT_EQ(calibrate(small.truth, small.mean, small.covariance).verdict, "overconfident");
  EXPECT_EQ(calibrate(large.truth, large.mean, large.covariance).verdict, "underconfident");
}

TEST(Calibration, MissingAndBrokenFramesAreCounted) {
  Posterior p = draw(1000, 1);
  p.truth(1, 10) = std::numeric_limits<double>::quiet_NaN();
  p.covariance(4, 11) = std::numeric_limits<double>::quiet_NaN();
  p.covariance.col(12).setConstant(-1);
  const Calibration c = calibrate(p.truth, p.mean, p.covariance);
  EXPECT_EQ(c.missing, 2);
  EXPECT_EQ(c.frames, 998);
  EXPECT_EQ(c.bad_covariances, 1);
  EXPECT_TRUE(std::isfinite(c.mean_distance2));
  p.covariance.setZero();
  const Calibration broken = calibrate(p.truth, p.mean, p.covariance);
  EXPECT_EQ(broken.verdict, "unknown");
  EXPECT_FALSE(broken.calibrated);
  EXPECT_TRUE(to_value(broken).at("mean_distance2").is_null());
  try {
    calibrate(p.truth, p.mean, p.covariance.topRows(6));
    FAIL();
  } catch (const DataError& e) {
    EXPECT_STREQ(e.what(), "calibration: covariance: expected 9 rows x 1000 frames, found 6 x 1000");
  }
}

TEST(Calibration, OfTheRealKalmanFilter) {
  std::filesystem::path z_file, kalman;
  PERCEPT_NEED_DATA(z_file, "bci/flint_run1/z.csv");
  PERCEPT_NEED_DATA(kalman, "bci/reference/kalman.csv");
  const Eigen::MatrixXd truth = testing::read_reference(z_file).middleRows(5000, 1000).transpose();
  const Eigen::MatrixXd posterior = testing::read_reference(kalman, 1).transpose();
  Eigen::MatrixXd covariance(4, 1000);
  covariance << posterior.row(2), posterior.row(3), posterior.row(3), posterior.row(4);
  const Calibration c = calibrate(truth, posterior.topRows(2), covariance);
  // by hand for two outputs: inside p means d2 <= -2 log(1 - p)
  int inside = 0;
  for (Index k = 0; k < 1000; ++k) {
    const double a = posterior(2, k), b = posterior(3, k), d = posterior(4, k);
    const double x = truth(0, k) - posterior(0, k), y = truth(1, k) - posterior(1, k);
    inside += (d * x * x - 2 * b * x * y + a * y * y) / (a * d - b * b) <= -2 * std::log(0.1);
  }
  EXPECT_DOUBLE_EQ(c.levels[3].observed, inside / 1000.0);
  EXPECT_EQ(c.bad_covariances, 0);
}

}  // namespace
}  // namespace percept::evaluation
