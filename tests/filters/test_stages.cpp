#include <gmock/gmock.h>

#include "tests/filters/common.h"

namespace percept {
namespace {

using namespace percept::testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

StageInfo row(const std::string& name) {
  static const std::vector<StageInfo> table = filters_stages();
  return stage_row(table, name);
}

TrainingMatrix training(Index channels, Index frames) {
  const KeyedRandom random(8, "training");
  TrainingMatrix t{MatrixXd(channels, frames), MatrixXd(2, frames), {}, {}, {}};
  for (Index k = 0; k < frames; ++k) {
    for (Index i = 0; i < 2; ++i)
      t.y(i, k) = 10.0 + (k ? 0.9 * (t.y(i, k - 1) - 10.0) : 0.0) + random.normal(k, static_cast<std::uint64_t>(i));
    for (Index i = 0; i < channels; ++i)
      t.x(i, k) = 50.0 + static_cast<double>(1 + i % 3) * t.y(i % 2, k) +
                  2 * random.normal(k, static_cast<std::uint64_t>(10 + i));
  }
  return t;
}

const std::vector<std::string> kChannels = {"u1", "u2", "u3", "u4"};

Model fitted(const std::string& stage, const Value& params, TrainingMatrix data) {
  return fit_stage(row(stage), params, named_format(kChannels, 10), named_format({"vx", "vy"}, 10, "m/s"),
                   std::move(data));
}
Model fitted(const std::string& stage, const Value& params = Value::table()) {
  return fitted(stage, params, training(4, 500));
}

TEST(KalmanStage, SaysWhatItGives) {
  const Model m = fitted("kalman");
  EXPECT_EQ(m.meta.at("stage").as_string(), "kalman");
  EXPECT_EQ(m.meta.at("version").as_integer(), 1);
  EXPECT_TRUE(m.meta.at("params").contains("regularisation"));
  EXPECT_EQ(m.input_rows(), kChannels);
  EXPECT_EQ(m.meta.at("output_rows").size(), 2u);
  EXPECT_EQ(m.meta.at("dropped_frames").as_integer(), 0);
  auto stage = row("kalman").make(Value::table(), &m, "kalman");
  Context context;
  const StreamFormat out = stage->prepare(named_format(kChannels, 10), context);
  ASSERT_EQ(out.parts.size(), 2u);
  EXPECT_EQ(out.parts[0].name, "mean");
  EXPECT_EQ(out.parts[0].rows[0].name, "vx");
  EXPECT_EQ(out.parts[0].unit, "m/s");
  EXPECT_EQ(out.parts[1].name, "covariance");
  EXPECT_EQ(out.parts[1].shape, (std::vector<Index>{2, 2}));
  EXPECT_EQ(out.rate_hz, 10);
}

TEST(KalmanStage, CentringBringsTheOffsetBack) {
  TrainingMatrix t = training(4, 500);
  const MatrixXd x = t.x, y = t.y;
  const Model m = fitted("kalman", Value::table(), t);
  auto stage = row("kalman").make(Value::table(), &m, "kalman");
  const MatrixXd out = run_stage(*stage, {named_format(kChannels, 10), x}).matrix();
  EXPECT_NEAR(out.row(0).mean(), y.row(0).mean(), 0.1);
  EXPECT_LT((out.topRows(2) - y).squaredNorm(), 0.3 * (y.colwise() - y.rowwise().mean()).squaredNorm());
}

TEST(KalmanStage, ChannelsAreMatchedByName) {
  const Model m = fitted("kalman");
  const MatrixXd x = training(4, 60).x;
  auto stage = row("kalman").make(Value::table(), &m, "kalman");
  const MatrixXd wanted = run_stage(*stage, {named_format(kChannels, 10), x}).matrix();
  const std::vector<Index> order = {2, 0, 3, 1};
  const MatrixXd mixed = run_stage(*stage, {named_format({"u3", "u1", "u4", "u2"}, 10), x(order, Eigen::all)}).matrix();
  EXPECT_EQ(mixed, wanted);
  const MatrixXd unnamed = run_stage(*stage, {time_format(4, 10), x}).matrix();
  EXPECT_EQ(unnamed, wanted);
}

TEST(KalmanStage, RefusesAnotherEdge) {
  const Model m = fitted("kalman");
  const auto refusal = [&](const StreamFormat& f) {
    return message_of([&] {
      Context context;
      context.node = "kf";
      row("kalman").make(Value::table(), &m, "kf")->prepare(f, context);
    });
  };
  EXPECT_THAT(refusal(named_format({"u1", "u2", "u3", "u5"}, 10)),
              AllOf(HasSubstr("kf.from"), HasSubstr("no channel 'u4'")));
  EXPECT_THAT(refusal(named_format({"u1", "u2", "u3"}, 10)), HasSubstr("3 channels: expected the 4 channels"));
  EXPECT_THAT(refusal(named_format(kChannels, 20)), HasSubstr("20 Hz: expected 10 Hz"));
  EXPECT_THAT(refusal(item_format({4})), HasSubstr("kf"));
  EXPECT_THAT(message_of([&] { row("kalman").make(Value::table(), nullptr, "kf"); }), HasSubstr("a fitted model"));
  const Model other = fitted("dkf");
  EXPECT_THAT(message_of([&] { row("kalman").make(Value::table(), &other, "kf"); }),
              HasSubstr("expected kalman, found dkf"));
}

TEST(KalmanStage, CountsMissingAndLeavesNoNaN) {
  const Model m = fitted("kalman");
  StageInput input{named_format(kChannels, 10), training(4, 60).x};
  input.frames.col(20).setConstant(NAN);
  input.frames(1, 30) = NAN;
  input.frames(1, 31) = NAN;
  Counters counters;
  Context context;
  context.node = "kf";
  context.counters = &counters;
  auto stage = row("kalman").make(Value::table(), &m, "kf");
  const Collected out = run_stage(*stage, input, {.block = 7}, {}, context);
  EXPECT_TRUE(out.matrix().allFinite());
  EXPECT_EQ(counters.get("kf", "missing").value(), 1);
  EXPECT_EQ(counters.get("kf", "partly_missing").value(), 2);
  EXPECT_EQ(counters.get("kf", "covariance_repaired").value(), 0);
  EXPECT_GT(out.matrix()(2, 20), out.matrix()(2, 19)) << "a gap makes it less certain";
}

TEST(KalmanFitter, LeavesFramesWithHolesOut) {
  TrainingMatrix t = training(4, 500);
  t.x(2, 100) = NAN;
  t.y(0, 200) = NAN;
  const Model m = fitted("kalman", Value::table(), t);
  EXPECT_EQ(m.meta.at("dropped_frames").as_integer(), 2);
  EXPECT_EQ(m.meta.at("frames").as_integer(), 498);
  EXPECT_EQ(m.meta.at("pairs").as_integer(), 495);
  for (const auto& [name, tensor] : m.tensors()) EXPECT_TRUE(m.matrix(name).allFinite()) << name;
}

TEST(KalmanFitter, NoiseAndRegularisation) {
  const Model full = fitted("kalman"), diagonal = fitted("kalman", Value::object({{"noise", "diagonal"}}));
  EXPECT_EQ(diagonal.matrix("R").cols(), 1);
  EXPECT_LT((diagonal.matrix("R") - full.matrix("R").diagonal()).cwiseAbs().maxCoeff(), 1e-9);
  const Model more = fitted("kalman", Value::object({{"regularisation", 0.5}}));
  const MatrixXd added = more.matrix("R") - full.matrix("R");
  EXPECT_LT((added - 0.5 * full.matrix("R").diagonal().mean() * MatrixXd::Identity(4, 4)).cwiseAbs().maxCoeff(), 1e-9);
  const Model stationary = fitted("kalman", Value::object({{"initial_covariance", "stationary"}}));
  const MatrixXd a = stationary.matrix("A"), v = stationary.matrix("V0");
  EXPECT_LT((v - a * v * a.transpose() - stationary.matrix("Gamma")).cwiseAbs().maxCoeff(), 1e-10);
}

TEST(KalmanFitter, RefusesWhatCannotBeFitted) {
  const auto refusal = [&](TrainingMatrix t, const Value& params = Value::table()) {
    return message_of([&] { fitted("kalman", params, std::move(t)); });
  };
  EXPECT_THAT(refusal(training(4, 6)),
              AllOf(HasSubstr("at least 7 for 4 channels and 2 outputs"), HasSubstr("diagonal"), HasSubstr("found 6")));
  EXPECT_EQ(refusal(training(4, 6), Value::object({{"noise", "diagonal"}})), "");
  TrainingMatrix t = training(4, 500);
  t.x.row(2).setConstant(3.0);
  EXPECT_THAT(refusal(t), AllOf(HasSubstr("channel 'u3'"), HasSubstr("regularisation")));
  EXPECT_THAT(refusal(t, Value::object({{"noise", "diagonal"}})), HasSubstr("channel 'u3'"));
  EXPECT_EQ(refusal(t, Value::object({{"regularisation", 0.01}})), "");
  t = training(4, 500);
  t.x.row(2) = t.x.row(0);
  EXPECT_THAT(refusal(t), AllOf(HasSubstr("R"), HasSubstr("regularisation"), HasSubstr("singular")));
  EXPECT_EQ(refusal(t, Value::object({{"noise", "diagonal"}})), "");
  t = training(4, 500);
  t.y.row(1).setZero();
  EXPECT_THAT(refusal(t), HasSubstr("target 'vy'"));
  EXPECT_THAT(refusal(training(4, 500), Value::object({{"noise", "loud"}})), HasSubstr("one of full, diagonal"));
}

StreamFormat estimates(const std::vector<std::string>& names = {"vx", "vy"}) {
  StreamFormat f = named_format(names, 10, "m/s");
  f.parts[0].name = "mean";
  f.parts.push_back({"covariance", {2, 2}, "(m/s)^2", {}, {}});
  return f;
}

TEST(DkfStage, RefusesAnEdgeWithoutAnEstimate) {
  const Model m = fitted("dkf");
  const auto refusal = [&](const StreamFormat& f) {
    return message_of([&] {
      Context context;
      context.node = "dkf";
      row("dkf").make(Value::table(), &m, "dkf")->prepare(f, context);
    });
  };
  EXPECT_EQ(refusal(estimates()), "");
  EXPECT_THAT(refusal(named_format({"vx", "vy"}, 10)),
              AllOf(HasSubstr("dkf.from"), HasSubstr("\"mean\" {2} and \"covariance\" {2, 2}")));
  EXPECT_THAT(refusal(estimates({"vx", "vz"})), HasSubstr("no channel 'vy'"));
  StreamFormat fast = estimates();
  fast.rate_hz = 50;
  EXPECT_THAT(refusal(fast), HasSubstr("50 Hz"));
}

TEST(DkfStage, OutputsAreMatchedByNameAndCentred) {
  const Model m = fitted("dkf");
  const MatrixXd noise = normals(2, 40, "noise");
  MatrixXd x(6, 40), swapped(6, 40);
  for (Index t = 0; t < 40; ++t) {
    x.col(t) << 10 + noise(0, t), 10 + noise(1, t), 1.0, 0.2, 0.2, 0.5;
    swapped.col(t) << x(1, t), x(0, t), 0.5, 0.2, 0.2, 1.0;
  }
  auto stage = row("dkf").make(Value::table(), &m, "dkf");
  const MatrixXd wanted = run_stage(*stage, {estimates(), x}).matrix();
  EXPECT_EQ(run_stage(*stage, {estimates({"vy", "vx"}), swapped}).matrix(), wanted);
  EXPECT_NEAR(wanted.row(0).mean(), 10, 1.0);
  // the first frame is taken as it is
  EXPECT_LT((wanted.col(0) - x.col(0)).cwiseAbs().maxCoeff(), 1e-12);
}

TEST(DkfStage, CountsWhatHappens) {
  const Model m = fitted("dkf");
  StageInput input{estimates(), MatrixXd(6, 20)};
  for (Index t = 0; t < 20; ++t) input.frames.col(t) << 10, 10, 1.0, 0, 0, 1.0;
  input.frames.col(5).setConstant(NAN);
  input.frames(0, 6) = NAN;
  input.frames(2, 8) = -1;    // not positive definite
  input.frames(2, 10) = 1e4;  // less certain than knowing nothing
  Counters counters;
  Context context;
  context.node = "dkf";
  context.counters = &counters;
  auto stage = row("dkf").make(Value::table(), &m, "dkf");
  const MatrixXd out = run_stage(*stage, input, {}, {}, context).matrix();
  EXPECT_TRUE(out.allFinite());
  EXPECT_EQ(counters.get("dkf", "missing").value(), 2);
  EXPECT_EQ(counters.get("dkf", "covariance_repaired").value(), 1);
  EXPECT_EQ(counters.get("dkf", "fallback").value(), 1);
}

TEST(DkfFitter, LearnsFromTheTargetAlone) {
  TrainingMatrix t = training(4, 500);
  const Model m = fitted("dkf", Value::table(), t);
  t.x.setConstant(NAN);
  EXPECT_EQ(fitted("dkf", Value::table(), t), m);
}

TEST(FilterStages, SamplesRunInAnyPartitionWithTheSameBitsAndWithoutAllocating) {
  for (const StageInfo& info : filters_stages())
    for (const Sample& sample : info.samples()) {
      SCOPED_TRACE(info.name + " " + to_json(sample.params));
      StageInput input = input_of(sample, sample.format.scalar);
      input.frames.col(100).setConstant(NAN);
      input.frames(0, 200) = NAN;
      auto stage = info.make(sample.params, sample.model.get(), info.name);
      const Collected whole = run_stage(*stage, input);
      // a filter predicts where its input is missing, what has no memory says that its frame is missing, unless it is to
      // do without a row, and what looks ahead starts with frames from before the recording
      const MatrixXd y = whole.matrix();
      const Traits traits = stage->traits();
      const Index before = std::llround(traits.latency_s * sample.format.rate_hz);
      const bool without_row = !traits.per_frame || sample.params.get("missing", "") == "row";
      for (Index k = 0; k < y.cols(); ++k)
        EXPECT_EQ(y.col(k).array().isFinite().all(),
                  k >= before && (k != 100 || traits.memory_frames != 0) && (k != 200 || without_row))
            << k;
      for (const Partition& p : {Partition{.block = 1}, Partition{.block = 37}, Partition{.block = 64, .random = 5}}) {
        stage->reset();
        StageDriver driver(*stage, input, p, {.input_gap = 3, .output_gap = 1, .offset = 1});
        driver.run();
        driver.flush();
        EXPECT_EQ(difference(whole, driver.output()), "");
        EXPECT_TRUE(driver.allocations() == 0 || !info.real_time);
        EXPECT_TRUE(driver.breaches().empty());
      }
    }
}

}  // namespace
}  // namespace percept
