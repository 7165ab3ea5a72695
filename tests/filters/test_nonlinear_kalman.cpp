#include "filters/nonlinear_kalman.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/filters/common.h"

namespace percept {
namespace {

using namespace testing;
using ::testing::HasSubstr;

Observation linear_observation(const MatrixXd& c) {
  return {VectorXd::Zero(c.rows()), c, MatrixXd(0, c.cols()), VectorXd(0), MatrixXd(c.rows(), 0)};
}

NonlinearOptions options_of(NonlinearFilter kind) {
  NonlinearOptions options;
  options.kind = kind;
  return options;
}
NonlinearOptions unscented(double alpha, double beta, double kappa) {
  NonlinearOptions options = options_of(NonlinearFilter::unscented);
  options.alpha = alpha;
  options.beta = beta;
  options.kappa = kappa;
  return options;
}
NonlinearOptions ensemble(Index members) {
  NonlinearOptions options = options_of(NonlinearFilter::ensemble);
  options.members = members;
  return options;
}

MatrixXd with_holes(MatrixXd x) {
  x.col(7).setConstant(std::numeric_limits<double>::quiet_NaN());
  x(2, 11) = x(0, 12) = x(3, 12) = std::numeric_limits<double>::quiet_NaN();
  return x;
}

// on a linear model every one of them is the Kalman filter; missing rows and frames included
TEST(NonlinearKalman, OnALinearModelTheyAreTheKalmanFilter) {
  const KalmanModel m = random_model(3, 6);
  const MatrixXd x = with_holes(normals(6, 60, "x") * 2);
  const struct {
    NonlinearOptions options;
    double tolerance;
  } cases[] = {
      {options_of(NonlinearFilter::extended), 1e-12},
      // alpha = 1e-3 puts the points 1e-3 from the mean and divides by its square
      {options_of(NonlinearFilter::unscented), 1e-8},
      {unscented(1, 0, 1), 1e-12},
      // the sampling error of 20000 members is about 1 / 140 of the spread
      {ensemble(20000), 0.03},
  };
  for (auto& c : cases) {
    Kalman kalman(m, false, "test");
    NonlinearKalman filter(m.a, m.gamma, m.v0, m.r, linear_observation(m.c), c.options, "test");
    double mean = 0, covariance = 0;
    for (Index t = 0; t < x.cols(); ++t) {
      const StepReport a = kalman.step(x.col(t).data()), b = filter.step(x.col(t).data());
      EXPECT_EQ(a.missing, b.missing);
      EXPECT_EQ(a.partial, b.partial);
      mean = std::max(mean, (filter.mean() - kalman.mean()).cwiseAbs().maxCoeff());
      covariance = std::max(covariance, (filter.covariance() - kalman.covariance()).cwiseAbs().maxCoeff());
    }
    EXPECT_LT(mean, c.tolerance) << static_cast<int>(c.options.kind);
    EXPECT_LT(covariance, c.tolerance) << static_cast<int>(c.options.kind);
  }
}

// filtered means and covariances of the published comparison, which used this network from velocity to channels
TEST(NonlinearKalman, ReferenceWithTheReferencesObservationNetwork) {
  std::filesystem::path folder, x_file, z_file;
  PERCEPT_NEED_DATA(folder, "bci/reference");
  PERCEPT_NEED_DATA(x_file, "bci/flint_run1/x.csv");
  PERCEPT_NEED_DATA(z_file, "bci/flint_run1/z.csv");
  const MatrixXd all_x = read_reference(x_file).transpose(), all_z = read_reference(z_file).transpose();
  const MatrixXd x = all_x.middleCols(5000, 1000), z = all_z.middleCols(5000, 1000);
  const auto plain = [&](const char* name) { return read_reference(folder / name); };
  const MatrixXd scale = plain("obsnn_outscale.csv");
  const VectorXd offset = scale.row(0).transpose(), gain = scale.row(1).transpose();
  Observation h;
  h.in = plain("obsnn_W1.csv");
  h.bias = plain("obsnn_b1.csv").reshaped();
  h.out = gain.asDiagonal() * plain("obsnn_W2.csv");
  h.offset = gain.cwiseProduct(VectorXd(plain("obsnn_b2.csv").reshaped())) + offset;
  h.linear = MatrixXd::Zero(10, 2);
  for (const bool sigma : {false, true}) {
    NonlinearKalman filter(plain("A.csv"), plain("Gamma.csv"), plain("S.csv"), plain("obsnn_Lambda.csv"), h,
                           options_of(sigma ? NonlinearFilter::unscented : NonlinearFilter::extended), "test");
    const MatrixXd wanted = posterior_rows(read_reference(folder / (sigma ? "ukf.csv" : "ekf.csv"), 1));
    MatrixXd mean(2, 1000);
    double off = 0;
    for (Index t = 0; t < 1000; ++t) {
      filter.step(x.col(t).data());
      mean.col(t) = filter.mean();
      off = std::max(off, (filter.mean() - wanted.col(t).head(2)).cwiseAbs().maxCoeff());
      off = std::max(off, (filter.covariance().reshaped() - wanted.col(t).tail(4)).cwiseAbs().maxCoeff());
    }
    EXPECT_LT(off, sigma ? 1e-7 : 1e-10);
    EXPECT_NEAR(nrmse(z, mean), sigma ? .764631447317 : .759969862772, sigma ? 1e-5 : 1e-9);
    EXPECT_NEAR(maae(z, mean), sigma ? .883434809468 : .888998278356, sigma ? 1e-5 : 1e-9);
  }
}

// fitted here: h(z) by keyed tanh units instead of the reference's trained network; units and penalty by five folds of
// the training rows
TEST(NonlinearKalman, FittedOnTheReferencesRecording) {
  std::filesystem::path x_file, z_file;
  PERCEPT_NEED_DATA(x_file, "bci/flint_run1/x.csv");
  PERCEPT_NEED_DATA(z_file, "bci/flint_run1/z.csv");
  const MatrixXd x = read_reference(x_file).transpose(), z = read_reference(z_file).transpose();
  const StreamFormat xf = time_format(10, 10), zf = named_format({"vx", "vy"}, 10);
  for (const char* name : {"ekf", "ukf", "enkf"}) {
    const StageInfo info = stage_row(filters_stages(), name);
    const Model m = fit_stage(info, Value::table(), xf, zf, {x.leftCols(5000), z.leftCols(5000), {}, {}, {}});
    auto stage = info.make(Value::table(), &m, name);
    const MatrixXd out = run_stage(*stage, {xf, x.middleCols(5000, 1000)}).matrix();
    const double error = nrmse(z.middleCols(5000, 1000), out.topRows(2));
    EXPECT_LT(error, std::string(name) == "ekf" ? .764970 : .769631) << name << ": no worse than the reference + .005";
  }
}

// channels that see only the speed and a saturated velocity: the linear filter is blind to half of it
TEST(NonlinearKalman, StagesFollowWhatALinearFilterCannot) {
  const Index frames = 4000;
  const KeyedRandom random(3, "nonlinear");
  MatrixXd z(2, frames), x(6, frames);
  for (Index t = 0; t < frames; ++t) {
    for (Index k = 0; k < 2; ++k)
      z(k, t) = (t ? 0.95 * z(k, t - 1) : 0.0) + 0.3 * random.normal(t, static_cast<std::uint64_t>(k));
    for (Index i = 0; i < 6; ++i) {
      const double angle = M_PI / 3 * static_cast<double>(i),
                   along = std::cos(angle) * z(0, t) + std::sin(angle) * z(1, t);
      x(i, t) = std::tanh(4 * along - 1) + std::tanh(2 * along + 1) +
                0.2 * random.normal(t, static_cast<std::uint64_t>(2 + i));
    }
  }
  const StreamFormat xf = named_format({"a", "b", "c", "d", "e", "f"}, 10), zf = named_format({"vx", "vy"}, 10);
  const auto error = [&](const std::string& name, const Value& params) {
    const StageInfo info = stage_row(filters_stages(), name);
    const Model m = fit_stage(info, params, xf, zf, {x.leftCols(3000), z.leftCols(3000), {}, {}, {}}, 700);
    auto stage = info.make(params, &m, name);
    const MatrixXd out = run_stage(*stage, {xf, x.rightCols(1000)}).matrix();
    return nrmse(z.rightCols(1000), out.topRows(2));
  };
  const double linear = error("kalman", Value::table());
  const Value units = Value::object({{"units", 40}, {"regularisation", 1e-3}});
  EXPECT_NEAR(error("ekf", Value::object({{"units", 0}})), linear, 1e-9);
  EXPECT_LT(error("ekf", units), 0.9 * linear);
  EXPECT_LT(error("ukf", units), 0.9 * linear);
  EXPECT_LT(error("enkf", units), 0.95 * linear);
}

TEST(NonlinearKalman, RefusesWhatIsNoModel) {
  const KalmanModel m = random_model(2, 3);
  const auto message = [&](const MatrixXd& r, const Observation& h, NonlinearOptions options) {
    return message_of([&] { NonlinearKalman(m.a, m.gamma, m.v0, r, h, options, "test"); });
  };
  EXPECT_EQ(message(m.r, linear_observation(m.c), {}), "");
  EXPECT_THAT(message(-m.r, linear_observation(m.c), {}), HasSubstr("R: expected a positive definite matrix"));
  EXPECT_THAT(message(m.r, linear_observation(MatrixXd::Zero(2, 2)), {}), HasSubstr("offset: expected 3 x 1"));
  EXPECT_THAT(message(m.r, linear_observation(m.c), ensemble(1)), HasSubstr("members: expected at least 2"));
  EXPECT_THAT(message(m.r, linear_observation(m.c), unscented(1, 2, -2)), HasSubstr("kappa: expected more than minus"));
}

}  // namespace
}  // namespace percept
