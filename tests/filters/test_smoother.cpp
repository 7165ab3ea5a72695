#include "filters/smoother.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/filters/common.h"

namespace percept {
namespace {

using namespace testing;
using ::testing::HasSubstr;

/// Filtered posteriors of one model, and what smoothing them has to give.
struct Path {
  static constexpr Index kFrames = 25, kStates = 2, kRows = 5;
  KalmanModel m = random_model(kStates, kRows);
  MatrixXd x = 2 * normals(kRows, kFrames, "x");
  MatrixXd filtered{kStates * (kStates + 1), kFrames};

  Path() {
    x.col(9).setConstant(std::numeric_limits<double>::quiet_NaN());
    x(1, 4) = std::numeric_limits<double>::quiet_NaN();
    Kalman kalman(m, false, "test");
    for (Index t = 0; t < kFrames; ++t) {
      kalman.step(x.col(t).data());
      filtered.col(t) << kalman.mean(), kalman.covariance().reshaped();
    }
  }
  /// The joint Gaussian of every state up to frame `last`, given every frame up to there: mean and covariance of one.
  VectorXd batch(Index frame, Index last) const {
    const Index d = kStates, n = last + 1;
    MatrixXd precision = MatrixXd::Zero(n * d, n * d);
    VectorXd information = VectorXd::Zero(n * d);
    const MatrixXd g = m.gamma.inverse();
    precision.topLeftCorner(d, d) += m.v0.inverse();
    for (Index t = 1; t < n; ++t) {
      precision.block(t * d, t * d, d, d) += g;
      precision.block((t - 1) * d, (t - 1) * d, d, d) += m.a.transpose() * g * m.a;
      precision.block(t * d, (t - 1) * d, d, d) -= g * m.a;
      precision.block((t - 1) * d, t * d, d, d) -= m.a.transpose() * g;
    }
    for (Index t = 0; t < n; ++t) {
      std::vector<Index> seen;
      for (Index i = 0; i < kRows; ++i)
        if (std::isfinite(x(i, t))) seen.push_back(i);
      if (seen.empty()) continue;
      const MatrixXd c = m.c(seen, Eigen::all), r = MatrixXd(m.r(seen, seen)).inverse();
      precision.block(t * d, t * d, d, d) += c.transpose() * r * c;
      information.segment(t * d, d) += c.transpose() * r * VectorXd(x.col(t)(seen));
    }
    const MatrixXd covariance = precision.inverse();
    VectorXd out(d * (d + 1));
    out << (covariance * information).segment(frame * d, d),
        MatrixXd(covariance.block(frame * d, frame * d, d, d)).reshaped();
    return out;
  }
  Model model(const std::string& stage) const {
    Model fitted = *stage_row(filters_stages(), stage).samples().front().model;
    fitted.set("A", m.a);
    fitted.set("Gamma", m.gamma);
    fitted.set("z_mean", VectorXd::Zero(kStates));
    return fitted;
  }
  StreamFormat format() const {
    StreamFormat f = named_format({"x", "y"}, 100);
    f.start_s = 3;
    f.parts[0].name = "mean";
    f.parts.push_back({"covariance", {2, 2}, "1", {}, {}});
    return f;
  }
};

TEST(Smoother, RtsIsTheBatchPosterior) {
  const Path path;
  const Model model = path.model("rts");
  auto stage = stage_row(filters_stages(), "rts").make(Value::table(), &model, "rts");
  const Collected out = run_stage(*stage, {path.format(), path.filtered}, {.block = 7});
  ASSERT_EQ(out.frames(), Path::kFrames);
  EXPECT_EQ(out.format.start_s, 3);
  for (Index t = 0; t < Path::kFrames; ++t)
    EXPECT_LT((out.matrix().col(t) - path.batch(t, Path::kFrames - 1)).cwiseAbs().maxCoeff(), 1e-12) << t;
  EXPECT_GT((out.matrix() - path.filtered).leftCols(20).cwiseAbs().maxCoeff(), 0.05) << "smoothing should matter";
}

TEST(Smoother, FixedLagIsTheBatchPosteriorOfItsLag) {
  const Path path;
  const Model model = path.model("fixed_lag_smoother");
  constexpr Index kLag = 6;
  auto stage = stage_row(filters_stages(), "fixed_lag_smoother").make(Value::object({{"lag_s", 0.06}}), &model, "lag");
  const Collected out = run_stage(*stage, {path.format(), path.filtered}, {.block = 4});
  ASSERT_EQ(out.frames(), Path::kFrames + kLag);
  EXPECT_NEAR(out.format.start_s, 3 - 0.06, 1e-12) << "the latency is in the clock";
  EXPECT_NEAR(stage->traits().latency_s, 0.06, 1e-12);
  for (Index k = 0; k < kLag; ++k) EXPECT_TRUE(out.matrix().col(k).array().isNaN().all()) << k;
  for (Index t = 0; t < Path::kFrames; ++t)
    EXPECT_LT((out.matrix().col(t + kLag) - path.batch(t, std::min(t + kLag, Path::kFrames - 1))).cwiseAbs().maxCoeff(),
              1e-12)
        << t;
}

// a missing posterior is a prediction, so a filter that says nothing for a frame changes nothing
TEST(Smoother, AMissingFrameIsPredicted) {
  const Path path;
  const Model model = path.model("rts");
  const StageInfo info = stage_row(filters_stages(), "rts");
  MatrixXd holed = path.filtered;
  holed.col(9).setConstant(std::numeric_limits<double>::quiet_NaN());  // nothing was seen there anyway
  auto a = info.make(Value::table(), &model, "rts"), b = info.make(Value::table(), &model, "rts");
  const MatrixXd whole = run_stage(*a, {path.format(), path.filtered}).matrix();
  EXPECT_LT((run_stage(*b, {path.format(), holed}).matrix() - whole).cwiseAbs().maxCoeff(), 1e-12);
  holed.leftCols(2).setConstant(std::numeric_limits<double>::quiet_NaN());
  b->reset();
  const MatrixXd late = run_stage(*b, {path.format(), holed}).matrix();
  EXPECT_TRUE(late.leftCols(2).array().isNaN().all());
  EXPECT_LT((late.rightCols(20) - whole.rightCols(20)).cwiseAbs().maxCoeff(), 1e-12);
}

// behind a fitted filter: looking ahead lowers the error, more lag lowers it further
TEST(Smoother, LowersTheErrorOfAFilter) {
  const Index frames = 3000;
  const KeyedRandom random(9, "smoother");
  MatrixXd z(2, frames), x(6, frames);
  const MatrixXd c = normals(6, 2, "c");
  for (Index t = 0; t < frames; ++t) {
    for (Index k = 0; k < 2; ++k)
      z(k, t) = (t ? 0.95 * z(k, t - 1) : 0.0) + 0.3 * random.normal(t, static_cast<std::uint64_t>(k));
    for (Index i = 0; i < 6; ++i)
      x(i, t) = c.row(i).dot(z.col(t)) + 2 * random.normal(t, static_cast<std::uint64_t>(2 + i));
  }
  const StreamFormat xf = named_format({"a", "b", "c", "d", "e", "f"}, 10), zf = named_format({"vx", "vy"}, 10);
  const TrainingMatrix data{x.leftCols(2000), z.leftCols(2000), {}, {}, {}};
  const StageInfo kalman = stage_row(filters_stages(), "kalman");
  const Model filter = fit_stage(kalman, Value::table(), xf, zf, data);
  const Collected filtered = run_stage(*kalman.make(Value::table(), &filter, "kalman"), {xf, x.rightCols(1000)});
  const auto error = [&](const char* name, const Value& params, Index lag) {
    const StageInfo info = stage_row(filters_stages(), name);
    const Model m = fit_stage(info, params, filtered.format, zf, data);
    const MatrixXd out = run_stage(*info.make(params, &m, name), {filtered.format, filtered.matrix()}).matrix();
    return nrmse(z.rightCols(1000), out.topRows(2).middleCols(lag, 1000));
  };
  const double none = nrmse(z.rightCols(1000), filtered.matrix().topRows(2));
  const double one = error("fixed_lag_smoother", Value::object({{"lag_s", 0.1}}), 1);
  const double five = error("fixed_lag_smoother", Value::object({{"lag_s", 0.5}}), 5);
  const double all = error("rts", Value::table(), 0);
  EXPECT_LT(one, none);
  EXPECT_LT(five, one);
  EXPECT_LT(all, 0.9 * none);
  EXPECT_LT(all, five);
}

TEST(Smoother, RefusesAnEdgeWithoutAPosterior) {
  const Path path;
  const Model model = path.model("rts");
  Context context;
  context.node = "smooth";
  EXPECT_THAT(
      message_of([&] {
        stage_row(filters_stages(), "rts").make(Value::table(), &model, "rts")->prepare(time_format(2, 100), context);
      }),
      HasSubstr("an edge with the parts \"mean\" {2} and \"covariance\" {2, 2}, such as kalman gives"));
  const Model lagged = path.model("fixed_lag_smoother");
  EXPECT_THAT(message_of([&] {
                stage_row(filters_stages(), "fixed_lag_smoother")
                    .make(Value::object({{"lag_s", 0.001}}), &lagged, "lag")
                    ->prepare(path.format(), context);
              }),
              HasSubstr("smooth.lag_s = 0.001 s: expected 1 to 1000000 frames of 0.01 s"));
}

}  // namespace
}  // namespace percept
