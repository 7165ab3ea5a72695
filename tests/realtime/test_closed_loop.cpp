#include "realtime/closed_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "io/session.h"
#include "realtime/live_loop.h"
#include "realtime/simulator_source.h"
#include "tests/realtime/live_bench.h"
#include "tests/support/alloc.h"
#include "tests/support/data.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using namespace live_test;
using ::testing::HasSubstr;
using testing::message_of;
namespace fs = std::filesystem;

constexpr double kStep = 0.05;

StreamFormat velocity_format(std::vector<std::string> names = {"vx", "vy"}) {
  StreamFormat f = time_format(static_cast<Index>(names.size()), 1 / kStep, Scalar::f64, "mean");
  for (auto& n : names)
    f.parts[0].rows.push_back({.name = n, .kind = "velocity", .unit = "m/s", .position = {}, .good = true});
  return f;
}
Value centre_out() {
  return Value::object({{"use", "centre_out"}, {"back", "jump"}, {"targets", 1}, {"pause_s", 0.1}});
}

TEST(ClosedLoop, VelocityIsAddedUpAndHeldStill) {
  ClosedLoop loop({.decoded = velocity_format(), .cursor = {.gain = 2}, .task = centre_out()});
  const double v[] = {0.1, -0.05};
  for (int k = 0; k < 4; ++k) loop.step(k, k * kStep, v, Hold::none);
  EXPECT_NEAR(loop.state().x, 4 * 2 * 0.1 * kStep, 1e-12);
  EXPECT_NEAR(loop.state().y, -4 * 2 * 0.05 * kStep, 1e-12);
  for (int k = 4; k < 8; ++k) loop.step(k, k * kStep, v, Hold::old_data);
  EXPECT_NEAR(loop.state().x, 0.04, 1e-12);
  const double nothing[] = {std::nan(""), 0.1};
  loop.step(8, 8 * kStep, nothing, Hold::none);
  EXPECT_NEAR(loop.state().x, 0.04, 1e-12);
  EXPECT_EQ(loop.limit(), 1.5 * 0.095);
  for (int k = 9; k < 60; ++k) loop.step(k, k * kStep, v, Hold::none);
  EXPECT_LE(loop.state().x, loop.limit());
  // the frames that are recorded name what they are
  const auto r = loop.step(60, 60 * kStep, v, Hold::none);
  const auto names = loop.format().row_names();
  ASSERT_EQ(names.size(), r.frame.size());
  EXPECT_EQ(names[0], "cursor_x");
  EXPECT_EQ(r.frame[0], loop.state().x);
  EXPECT_EQ(names[4], "target_x");
  EXPECT_EQ(names[9], "vx");
  EXPECT_EQ(loop.format().part_offset("intended"), 9);
  EXPECT_NEAR(r.frame[4], 0.08, 1e-12);
}

TEST(ClosedLoop, PositionIsTakenAsItIs) {
  ClosedLoop loop(
      {.decoded = velocity_format({"px", "py"}), .cursor = {.control = "position", .gain = 0.5}, .task = centre_out()});
  const double p[] = {0.1, -0.04};
  loop.step(0, 0, p, Hold::none);
  EXPECT_EQ(loop.state().x, 0.05);
  EXPECT_EQ(loop.state().y, -0.02);
  EXPECT_NEAR(loop.state().vx, 0.05 / kStep, 1e-12);
}

// of the session's click decoder, or of a decoded row that rises above its threshold; none while the output is held
TEST(ClosedLoop, ClicksSelect) {
  Value params = centre_out();
  params["select"] = "click";
  ClosedLoop decoder({.decoded = velocity_format(), .task = params, .clicks = true});
  ClosedLoop row({.decoded = velocity_format({"vx", "vy", "press"}), .cursor = {.click = "press"}, .task = params});
  const double stands[] = {0, 0, 0}, pressed[] = {0, 0, 0.7};
  for (int k = 0; k < 5; ++k) {
    decoder.step(k, k * kStep, stands, Hold::none);
    row.step(k, k * kStep, stands, Hold::none);
  }
  decoder.step(5, 5 * kStep, stands, Hold::old_data, true);
  row.step(5, 5 * kStep, pressed, Hold::old_data);
  EXPECT_TRUE(decoder.task().log().all().empty());
  EXPECT_TRUE(row.task().log().all().empty());
  decoder.step(6, 6 * kStep, stands, Hold::none, true);
  row.step(6, 6 * kStep, pressed, Hold::none);
  ASSERT_EQ(decoder.task().log().all().size(), 1u);
  EXPECT_EQ(decoder.task().log().all()[0].outcome, Outcome::wrong) << "the cursor is in the middle";
  EXPECT_EQ(row.task().log().all().size(), 1u);
}

TEST(ClosedLoop, TheEmergencyStopAbortsTheTrial) {
  ClosedLoop loop({.decoded = velocity_format(), .task = centre_out()});
  const double v[] = {0, 0};
  loop.step(0, 0, v, Hold::none);
  EXPECT_TRUE(loop.state().target);
  const auto r = loop.step(1, kStep, v, Hold::emergency);
  ASSERT_EQ(r.events.size(), 1u);
  EXPECT_EQ(r.events[0].label.text(), "aborted");
  EXPECT_FALSE(loop.state().target);
}

// --- the whole loop with the simulator ---------------------------------------------------------------------------------

SimulatorSource::Params population(double duration_s) {
  return {.channels = 40,
          .rate_hz = 20,
          .duration_s = duration_s,
          .seed = 3,
          .max_hz = 40,
          .dead_fraction = 0,
          .distance_m = 0.08};
}

/// Fits the stages one below the other as a recording without a split would, and gives their models.
std::vector<LiveRunner::NewModel> fit_stages(const Recording& r, const std::vector<NodeSpec>& specs, double lag_s) {
  std::vector<LiveRunner::NewModel> models;
  Stream x = r.streams[0];
  const Stream& y = r.streams[1];
  for (auto& n : specs) {
    TrainingMatrix m;
    const Eigen::MatrixXd all = x.matrix(), target = y.matrix();
    m.x.resize(all.rows(), all.cols());
    m.y.resize(target.rows(), all.cols());
    Index frames = 0;
    for (Index k = 0; k < all.cols(); ++k) {
      const auto at = y.format.nearest_frame(x.format.time_of(k) + lag_s);
      if (at < 0 || at >= target.cols()) continue;
      m.x.col(frames) = all.col(k);
      m.y.col(frames) = target.col(at);
      m.keys.push_back(k);
      m.groups.push_back(0);
      ++frames;
    }
    m.x.conservativeResize(Eigen::NoChange, frames);
    m.y.conservativeResize(Eigen::NoChange, frames);
    m.segment_starts = {0};
    Context context;
    context.node = n.name;
    auto model = std::make_shared<const Model>(registry()
                                                   .at(n.use, "test")
                                                   .make_fitter(n.params, "test")
                                                   ->fit(MemoryData(x.format, y.format, std::move(m)), context));
    models.push_back({n.name, model});
    // what it gives is the next one's input
    NodeSpec one = n;
    one.model = model;
    one.from = {x.name};
    Recording in;
    in.streams = {x};
    Eigen::MatrixXd out;
    StreamFormat format;
    RunOptions options;
    options.precision = Scalar::f64;
    std::vector<Eigen::MatrixXd> blocks;
    format = run_offline(registry(), in, {one}, options,
                         {{n.name, [&](const Block& b) { blocks.push_back(to_matrix(b.x)); }}})
                 .at(n.name);
    out.resize(blocks.front().rows(), x.frames());
    Index at = 0;
    for (auto& b : blocks) {
      out.middleCols(at, b.cols()) = b;
      at += b.cols();
    }
    x = {.name = n.name, .format = format, .samples = std::make_shared<MemorySource>(out), .keys = {}};
  }
  return models;
}

std::vector<NodeSpec> stages() {
  return {node("scaled", "zscore", {"activity"}),
          node("decoded", "kalman", {"scaled"}, Value::object({{"regularisation", 0.001}}))};
}

struct Outcomes {
  Value report;
  std::vector<std::vector<double>> states;
  std::vector<double> cursor;
};

/// A session in which the model user steers, from a decoder that was fitted on recorded reaches. calibrate: begins with a
/// calibration, in lockstep.
Outcomes session(double seconds, bool calibrate, const fs::path& folder = {},
                 SimulatorSource::Params units = population(0), bool time_allocations = false,
                 std::int64_t* allocations = nullptr) {
  units.duration_s = seconds;
  auto specs = stages();
  SimulatorSource::Params recorded = units;
  recorded.duration_s = 120;
  recorded.change_s = 0;
  recorded.change_fraction = 0;
  const Recording all = data::ReachSimulator(recorded).recording();
  Recording open;
  open.streams = {all.stream("activity", "t"), all.stream("velocity", "t")};
  const auto fitted = fit_stages(open, specs, 0.1);
  for (std::size_t i = 0; i < specs.size(); ++i) specs[i].model = fitted[i].model;

  auto source = std::make_unique<SimulatorSource>(units, SimulatorOptions{.speed = 0});
  LiveRunner runner(registry(), {{"activity", source->format()}}, specs, {.precision = Scalar::f64});
  ClosedLoop::Setup what{.decoded = runner.format("decoded"),
                         .task = Value::object({{"use", "centre_out"}, {"seed", 5}}),
                         .user = ModelUser::Params{}};
  if (calibrate) what.calibration = CalibrationParams{.at_s = {0}, .assist = {1, 0.5}, .block_s = 15, .refit_s = 5};
  ClosedLoop task(what);
  source->drive([&](std::int64_t frame, double t_s) { return task.intend(frame, t_s); });
  std::unique_ptr<Recorder> recorder;
  if (!folder.empty())
    recorder = std::make_unique<Recorder>(
        folder / "live.session", Value::table(), std::vector<Recorder::StreamInfo>{{"activity", source->format()}},
        std::vector<Recorder::StreamInfo>{{"decoded", runner.format("decoded")}, {"task", task.format()}}, 1);
  std::unique_ptr<Calibrator> calibrator;
  if (calibrate) {
    StreamFormat target = runner.format("decoded");
    target.parts = {decoded_part(target)};
    target.parts[0].name = "velocity";
    calibrator = std::make_unique<Calibrator>(
        Calibrator::Setup{.runner = &runner,
                          .from = "activity",
                          .frames = runner.format("activity"),
                          .target = target,
                          .target_name = "velocity",
                          .lag_s = 0.1,
                          .fit = [specs](const Recording& r) { return fit_stages(r, specs, 0.1); },
                          .params = *what.calibration,
                          .recorder = recorder.get(),
                          .folder = folder,
                          .lockstep = true});
    runner.on_output("activity", [&](const Block& b) { calibrator->frames(b); });
    task.fit_with(calibrator.get());
  }
  Outcomes out;
  std::vector<Kept::State> states;
  LiveLoop::Setup setup;
  setup.sources.push_back(std::move(source));
  setup.runner = &runner;
  setup.node = "decoded";
  setup.real_time.enable = false;
  setup.guard.max_age_s = 0;  // a machine that is held up is not what is tested
  setup.task = &task;
  setup.recorder = recorder.get();
  if (!time_allocations) setup.outlets.push_back(std::make_unique<Kept>(states));
  LiveLoop loop(std::move(setup));
  const testing::AllocationCounter counter;
  loop.run();
  if (allocations) *allocations = counter.count();
  out.report = loop.report();
  for (auto& s : states) out.states.push_back(s.value);
  out.cursor = {loop.state().task.x, loop.state().task.y};
  if (recorder) {
    EXPECT_EQ(recorder->close(out.report), "");
  }
  return out;
}

// a person who sees the cursor steers it to the targets, and the session is the same again
TEST(ClosedLoop, AModelUserReachesTargets) {
  const Outcomes a = session(120, false);
  const Value& t = a.report.at("task");
  EXPECT_GT(t.at("success").at("value").as_number(), 0.9);
  EXPECT_GT(t.at("measured").as_integer(), 30);
  EXPECT_LT(t.at("time_to_target_s").at("value").as_number(), 2);
  const double efficiency = t.at("path_efficiency").at("value").as_number();
  EXPECT_GT(efficiency, 0.5);
  EXPECT_LE(efficiency, 1);
  EXPECT_FALSE(t.at("bit_rate").at("low").is_null());
  const Outcomes b = session(120, false);
  ASSERT_EQ(a.states.size(), 2400u);
  EXPECT_EQ(a.states, b.states);
  EXPECT_EQ(to_json(t), to_json(b.report.at("task")));
}

// events of the task are in the recording, on the graph's clock, and the cursor is a stream beside the decoded state
TEST(ClosedLoop, TheTaskIsRecorded) {
  const fs::path folder = testing::temporary_folder() / "session";
  fs::create_directories(folder);
  const Outcomes a = session(60, false, folder);
  const Recording r = io::open_session(folder / "live.session");
  ASSERT_TRUE(r.partition);
  std::map<std::string, std::int64_t> told;
  for (auto& e : r.events) ++told[e.label.text()];
  const Value& t = a.report.at("task");
  EXPECT_EQ(told["acquired"], t.at("acquired").as_integer());
  EXPECT_EQ(told["failed"], t.at("late").as_integer());
  EXPECT_GE(told["target_shown"], t.at("trials").as_integer());
  const Eigen::MatrixXd cursor = r.stream("live_task", "t").matrix();
  ASSERT_EQ(cursor.cols(), 1200);
  EXPECT_EQ(cursor(0, 1199), a.cursor[0]);
  EXPECT_EQ(cursor(1, 1199), a.cursor[1]);
  // the trial's end is where the recorded cursor is in the recorded target
  const auto& format = r.stream("live_task", "t").format;
  int looked = 0;
  for (auto& e : r.events)
    if (e.label.text() == "acquired") {
      const auto k = format.nearest_frame(e.onset_s);
      EXPECT_LE(std::hypot(cursor(0, k) - cursor(4, k - 1), cursor(1, k) - cursor(5, k - 1)), cursor(6, k - 1) + 1e-12);
      ++looked;
    }
  EXPECT_GT(looked, 5);
  // the graph was told of them, so that a stage may act on them, offline as live
  bool acted = false;
  for (auto& action : r.partition->actions) acted = acted || action.event.label.text() == "acquired";
  EXPECT_TRUE(acted);
}

// with help that decreases the decoder is fitted anew; the session runs again bit for bit across every swap
TEST(ClosedLoop, CalibrationIsRepeatedBitForBit) {
  const fs::path folder = testing::temporary_folder() / "session";
  fs::create_directories(folder);
  const Outcomes a = session(60, true, folder);
  const Value& c = a.report.at("task").at("calibration");
  EXPECT_EQ(c.at("fits").as_integer(), 6) << "every 5 s of 2 x 15 s";
  EXPECT_EQ(c.at("failed").as_integer(), 0);
  EXPECT_EQ(c.at("models").size(), 12u) << "both stages";
  EXPECT_GT(a.report.at("task").at("assisted").as_integer(), 5);
  EXPECT_GT(a.report.at("task").at("measured").as_integer(), 5);
  std::set<std::string> digests;
  for (auto& m : c.at("models").as_array()) {
    const Model saved =
        Model::load(folder / "swaps" / std::to_string(m.at("swap").as_integer()) / m.at("node").as_string());
    EXPECT_EQ(saved.digest(), m.at("digest").as_string());
    EXPECT_EQ(saved.meta.at("calibration").at("to_s").as_number(), m.at("to_s").as_number());
    digests.insert(saved.digest());
  }
  EXPECT_EQ(digests.size(), 12u);

  const Recording r = io::open_session(folder / "live.session");
  int swaps = 0;
  std::set<std::int64_t> steps;
  for (auto& action : r.partition->actions)
    if (action.kind == LivePartition::Action::Kind::swap) {
      ++swaps;
      steps.insert(action.step);
    }
  EXPECT_EQ(swaps, 12);
  EXPECT_EQ(steps.size(), 6u) << "both models of a fit between the same two blocks";
  auto specs = stages();
  SimulatorSource::Params recorded = population(120);
  const Recording all = data::ReachSimulator(recorded).recording();
  Recording open;
  open.streams = {all.stream("activity", "t"), all.stream("velocity", "t")};
  const auto fitted = fit_stages(open, specs, 0.1);
  for (std::size_t i = 0; i < specs.size(); ++i) specs[i].model = fitted[i].model;
  Taken second;
  RunOptions options;
  options.precision = Scalar::f64;
  run_offline(registry(), r, specs, options, {{"decoded", second.sink()}});
  const Eigen::MatrixXd live = r.stream("live_decoded", "t").matrix();
  ASSERT_EQ(second.frames, live.cols());
  EXPECT_EQ(std::memcmp(second.bytes.data(), live.data(), second.bytes.size()), 0);
  // and again from the start: swaps and all
  EXPECT_EQ(a.states, session(60, true).states);
}

// half of the units take other directions: the decoder loses, and a calibration finds them
TEST(ClosedLoop, CalibrationFindsOtherDirections) {
  auto units = population(0);
  units.change_s = 0.01;
  units.change_fraction = 0.9;
  const double lost = session(60, false, {}, units).report.at("task").at("bit_rate").at("value").as_number();
  const double found = session(90, true, {}, units).report.at("task").at("bit_rate").at("value").as_number();
  EXPECT_GT(found, 1.5 * lost);
}

// what was decoded, steered and told is done without a single allocation; the recorder's ring and the trials' room are there
TEST(ClosedLoop, TheLoopAllocatesNothing) {
  if (!testing::AllocationCounter::available()) GTEST_SKIP() << "allocations cannot be counted under a sanitizer";
  std::int64_t some = 0, more = 0;
  session(20, false, {}, population(0), true, &some);
  session(80, false, {}, population(0), true, &more);
  EXPECT_EQ(some, more) << "what starting takes, and nothing a frame";
}

TEST(ClosedLoop, RefusesWhatDoesNotFit) {
  const auto refusal = [](ClosedLoop::Setup s) { return message_of<ConfigError>([&] { ClosedLoop{std::move(s)}; }); };
  EXPECT_THAT(refusal({.decoded = velocity_format({"a", "b"}), .task = centre_out()}),
              HasSubstr("live.cursor.rows = \"vx\": expected rows of the output: a, b"));
  EXPECT_THAT(refusal({.decoded = velocity_format(), .cursor = {.rows = {"vx"}}, .task = centre_out()}),
              HasSubstr("live.cursor.rows = 1 rows: expected two"));
  EXPECT_THAT(refusal({.decoded = velocity_format(), .cursor = {.limit = 0.05}, .task = centre_out()}),
              HasSubstr("live.cursor.limit = 0.05: expected at least 0.095"));
  Value click = centre_out();
  click["select"] = "click";
  EXPECT_THAT(refusal({.decoded = velocity_format(), .task = click}), HasSubstr("expected something that clicks"));
  EXPECT_THAT(refusal({.decoded = velocity_format(), .cursor = {.click = "c"}, .task = click}),
              HasSubstr("live.cursor.click"));
  EXPECT_THAT(refusal({.decoded = velocity_format({"px", "py"}),
                       .cursor = {.control = "position"},
                       .task = centre_out(),
                       .calibration = CalibrationParams{}}),
              HasSubstr("live.cursor.control"));
  EXPECT_THAT(
      refusal(
          {.decoded = velocity_format({"vx", "vy", "grip"}), .task = centre_out(), .calibration = CalibrationParams{}}),
      HasSubstr("live.calibration = \"grip\""));
  EXPECT_THAT(
      refusal({.decoded = velocity_format(), .task = centre_out(), .calibration = CalibrationParams{.assist = {}}}),
      HasSubstr("live.calibration.assist"));
}

}  // namespace
}  // namespace percept
