#include "filters/adaptive_kalman.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/filters/common.h"

namespace percept {
namespace {

using namespace testing;
using ::testing::HasSubstr;

/// A population whose preferred directions turn and whose baselines rise: `turn` [rad] in all.
struct Drifting {
  static constexpr Index kRows = 16, kTrain = 2000, kFrames = 8000;
  MatrixXd z{2, kFrames}, x{kRows, kFrames}, last_weights{kRows, 3};
  StreamFormat xf = time_format(kRows, 10), zf = named_format({"vx", "vy"}, 10);

  explicit Drifting(double turn) {
    const KeyedRandom random(21, "drift");
    for (Index t = 0; t < kFrames; ++t) {
      for (Index k = 0; k < 2; ++k)
        z(k, t) = (t ? 0.95 * z(k, t - 1) : 0.0) + 0.3 * random.normal(t, static_cast<std::uint64_t>(k));
      const double share = static_cast<double>(std::max<Index>(0, t - kTrain)) / static_cast<double>(kFrames - kTrain);
      for (Index i = 0; i < kRows; ++i) {
        // each its own way, so that no turn of the state explains it
        const double angle = 2 * M_PI * static_cast<double>(i) / kRows + turn * share * (i % 2 ? 1 : -1);
        last_weights.row(i) << std::cos(angle), std::sin(angle), 3 + 2 * turn * share * random.normal(-1 - i);
        x(i, t) = last_weights(i, 0) * z(0, t) + last_weights(i, 1) * z(1, t) + last_weights(i, 2) +
                  random.normal(t, static_cast<std::uint64_t>(2 + i));
      }
    }
  }
  double error(const std::string& name, const Value& params, bool with_target = false) const {
    const StageInfo info = stage_row(filters_stages(), name);
    StreamFormat in = xf;
    MatrixXd frames = x;
    if (with_target) {
      in.parts.push_back({"truth", {2}, "1", {}, {}});
      frames.conservativeResize(kRows + 2, kFrames);
      frames.bottomRows(2) = z;
    }
    const Model m = fit_stage(info, params, in, zf, {frames.leftCols(kTrain), z.leftCols(kTrain), {}, {}, {}});
    const MatrixXd out = run_stage(*info.make(params, &m, name), {in, frames}).matrix();
    return nrmse(z.rightCols(2000), out.topRows(2).rightCols(2000));
  }
};

TEST(AdaptiveKalman, WithoutForgettingItIsTheKalmanFilter) {
  const Drifting data(0);
  const StageInfo info = stage_row(filters_stages(), "adaptive_kalman");
  const Model m =
      fit_stage(info, Value::table(), data.xf, data.zf, {data.x.leftCols(2000), data.z.leftCols(2000), {}, {}, {}});
  const StageInfo plain = stage_row(filters_stages(), "kalman");
  const Value diagonal = Value::object({{"noise", "diagonal"}});
  const Model k =
      fit_stage(plain, diagonal, data.xf, data.zf, {data.x.leftCols(2000), data.z.leftCols(2000), {}, {}, {}});
  MatrixXd x = data.x.middleCols(2000, 300);
  x.col(50).setConstant(std::numeric_limits<double>::quiet_NaN());
  x(3, 60) = std::numeric_limits<double>::quiet_NaN();
  AdaptiveKalman filter(
      {m.matrix("A"), m.matrix("Gamma"), m.matrix("V0"), m.matrix("ff"), m.matrix("xf"), m.vector("xx")}, 1, "test");
  const MatrixXd wanted = run_stage(*plain.make(diagonal, &k, "kalman"), {data.xf, x}).matrix();
  for (Index t = 0; t < x.cols(); ++t) {
    filter.step(x.col(t).data(), nullptr);
    ASSERT_LT((filter.mean() + m.vector("z_mean") - wanted.col(t).head(2)).cwiseAbs().maxCoeff(), 1e-10) << t;
    ASSERT_LT((filter.covariance().reshaped() - wanted.col(t).tail(4)).cwiseAbs().maxCoeff(), 1e-10) << t;
  }
}

// with a target, W after each frame solves the weighted least squares over every frame so far
TEST(AdaptiveKalman, WeightsAreWeightedLeastSquares) {
  const Index d = 2, n = 3, frames = 40;
  const double keep = 0.93;
  AdaptiveModel m;
  const KalmanModel k = random_model(d, n);
  m.a = k.a;
  m.gamma = k.gamma;
  m.v0 = k.v0;
  m.ff = spd(d + 1, "ff");
  const MatrixXd w0 = normals(n, d + 1, "w");
  m.xf = w0 * m.ff;
  m.xx = (w0 * m.ff * w0.transpose()).diagonal() + VectorXd::Ones(n);
  AdaptiveKalman filter(m, keep, "test");
  EXPECT_LT((filter.weights() - w0).cwiseAbs().maxCoeff(), 1e-12);
  EXPECT_LT((filter.noise() - VectorXd::Ones(n)).cwiseAbs().maxCoeff(), 1e-12);
  const MatrixXd z = normals(d, frames, "z"), x = normals(n, frames, "x");
  for (Index t = 0; t < frames; ++t) filter.step(x.col(t).data(), z.col(t).data());
  MatrixXd ff = std::pow(keep, frames) * m.ff, xf = std::pow(keep, frames) * m.xf;
  for (Index t = 0; t < frames; ++t) {
    VectorXd f(d + 1);
    f << z.col(t), 1;
    const double weight = (1 - keep) * std::pow(keep, frames - 1 - t);
    ff += weight * f * f.transpose();
    xf += weight * x.col(t) * f.transpose();
  }
  EXPECT_LT((filter.weights() - xf * ff.inverse()).cwiseAbs().maxCoeff(), 1e-11);
}

TEST(AdaptiveKalman, FollowsADriftThatAFixedFilterLoses) {
  const Drifting data(1.2);
  const Value params = Value::object({{"half_life_s", 40.0}});
  const double fixed = data.error("kalman", Value::object({{"noise", "diagonal"}}));
  const double decoded = data.error("adaptive_kalman", params);
  const double taught =
      data.error("adaptive_kalman", Value::object({{"half_life_s", 40.0}, {"target_part", "truth"}}), true);
  EXPECT_LT(decoded, 0.85 * fixed);
  EXPECT_LT(taught, 0.4 * fixed);
  const Drifting still(0);
  EXPECT_LT(still.error("adaptive_kalman", params),
            1.1 * still.error("kalman", Value::object({{"noise", "diagonal"}})));
}

TEST(AdaptiveKalman, RefusesWhatItCannotUse) {
  const Drifting data(0);
  const StageInfo info = stage_row(filters_stages(), "adaptive_kalman");
  const auto message = [&](MatrixXd x, const Value& params) {
    return message_of([&] {
      fit_stage(info, params, data.xf, data.zf, {std::move(x), data.z.leftCols(100), {}, {}, {}});
    });
  };
  MatrixXd x = data.x.leftCols(100);
  EXPECT_EQ(message(x, Value::table()), "");
  EXPECT_THAT(message(x, Value::object({{"target_part", "truth"}})),
              HasSubstr("adaptive_kalman.target_part = \"truth\": expected a part of the input with 2 values"));
  x.row(4).setConstant(2);
  EXPECT_THAT(message(x, Value::table()), HasSubstr("channel 4: expected noise over the training frames"));
}

}  // namespace
}  // namespace percept
