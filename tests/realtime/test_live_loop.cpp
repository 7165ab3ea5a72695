#include "realtime/live_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "io/session.h"
#include "realtime/replay.h"
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

/// Mean of the posterior of every frame, from the offline run.
std::vector<double> offline_means(const Recording& r, Index frames, Index& rows) {
  const Outputs out = offline(r, Scalar::f64, decoder());
  const Taken& t = out.at("decoded");
  rows = static_cast<Index>(t.bytes.size()) / 8 / t.frames;
  std::vector<double> all(t.bytes.size() / 8);
  std::memcpy(all.data(), t.bytes.data(), t.bytes.size());
  all.resize(static_cast<std::size_t>(frames * rows));
  return all;
}

TEST(LiveLoop, SendsOutWhatTheOfflineRunGives) {
  for (bool real_time : {true, false}) {  // asked directly, and through a thread
    LoopBench bench(one(std::vector<Scripted::Act>(200), real_time));
    LiveLoop& loop = bench.make();
    loop.run();
    Index rows = 0;
    const auto truth = offline_means(recording(), 200, rows);
    ASSERT_EQ(bench.states.size(), 200u);
    for (std::size_t k = 0; k < 200; ++k) {
      EXPECT_EQ(bench.states[k].frame, static_cast<std::int64_t>(k));
      EXPECT_EQ(bench.states[k].hold, Hold::none);
      for (std::size_t i = 0; i < bench.states[k].value.size(); ++i)
        EXPECT_EQ(bench.states[k].value[i], truth[k * static_cast<std::size_t>(rows) + i]);
    }
    const Value report = loop.report();
    EXPECT_EQ(report.at("decoded_frames").as_integer(), 200);
    EXPECT_EQ(report.at("inputs").at("spikes").at("packets").as_integer(), 200);
    EXPECT_EQ(report.at("latency").at("count").as_integer(), 200);
    EXPECT_TRUE(report.at("finished").as_bool());
    EXPECT_EQ(report.at("outputs").as_array().at(0).at("sent").as_integer(), 200);
  }
}

// silence: the cursor is frozen within the limit and says why, and goes on with the first packet
TEST(LiveLoop, TheWatchdogFreezesTheOutput) {
  std::vector<Scripted::Act> acts(20);
  acts.push_back({.packet = false, .wait_ms = 300});
  acts.resize(30);
  LoopBench bench(one(acts));
  bench.setup.guard.max_age_s = 0.1;
  LiveLoop& loop = bench.make();
  std::thread thread([&] { loop.run(); });
  thread.join();
  std::vector<std::size_t> held;
  for (std::size_t i = 0; i < bench.states.size(); ++i)
    if (bench.states[i].hold != Hold::none) held.push_back(i);
  ASSERT_EQ(held.size(), 1u) << "told once";
  EXPECT_EQ(held[0], 20u);
  EXPECT_EQ(bench.states[20].hold, Hold::old_data);
  EXPECT_EQ(bench.states[20].received_ns, 0) << "no packet is behind it";
  EXPECT_EQ(bench.states[20].value, bench.states[19].value);
  EXPECT_GE(bench.states.size(), 29u);
  EXPECT_EQ(bench.states.back().hold, Hold::none);
  EXPECT_EQ(loop.report().at("holds").as_integer(), 1);
}

// a device that repeats itself, or whose stamps run ahead, is as silent as one that sends nothing
TEST(LiveLoop, PacketsThatCannotBeUsedDoNotKeepTheWatchdogQuiet) {
  for (bool ahead : {false, true}) {
    std::vector<Scripted::Act> acts(20);
    if (ahead)
      for (auto& a : acts) a.device_s = [](std::int64_t now_ns) { return static_cast<double>(now_ns) * 1e-9 + 60; };
    for (int k = 0; k < 60; ++k) {
      Scripted::Act again;
      again.wait_ms = 5;
      again.packet = !ahead;
      again.counter = 19;
      acts.push_back(again);
    }
    LoopBench bench(one(acts));
    bench.setup.guard.max_age_s = 0.1;
    LiveLoop& loop = bench.make();
    loop.run();
    EXPECT_EQ(bench.states.back().hold, Hold::old_data) << ahead;
    EXPECT_EQ(loop.report().at("decoded_frames").as_integer(), 20);
  }
}

TEST(LiveLoop, TheEmergencyStopHoldsUntilItIsReleased) {
  LiveLoop* loop = nullptr;
  std::vector<Scripted::Act> acts(40);
  acts[10].before = [&] { loop->emergency(true); };
  acts[11].wait_ms = 30;  // the loop looks at it
  acts[25].before = [&] { loop->emergency(false); };
  acts[26].wait_ms = 30;
  LoopBench bench(one(acts));
  loop = &bench.make();
  loop->run();
  // the next look at it is 5 ms later at most: the frames that came in between may still have gone out
  std::size_t first = 0;
  while (first < bench.states.size() && bench.states[first].hold == Hold::none) ++first;
  ASSERT_LE(first, 12u);
  const auto frozen = bench.states[first].value;
  for (auto& s : bench.states)
    if (s.hold == Hold::emergency) {
      EXPECT_EQ(s.value, frozen);
    }
  EXPECT_EQ(bench.states.back().hold, Hold::none);
  EXPECT_NE(bench.states.back().value, frozen);
  EXPECT_FALSE(loop->emergency());
}

// a channel that goes bad is masked from the next packet on, and the bits are those of a recording with NaN there
TEST(LiveLoop, BadChannelsAreMasked) {
  std::vector<Scripted::Act> acts(120);
  for (std::size_t k = 30; k < 60; ++k) acts[k].change = [](Eigen::VectorXd& x) { x(2) = 1e6; };
  LiveLoop* loop = nullptr;
  acts[70].before = [&] { EXPECT_TRUE(loop->mask(0, 4, true)); };
  acts[70].wait_ms = 30;
  LoopBench bench(one(acts));
  bench.setup.health.amplitude_limit = 100;
  bench.setup.health.recover_s = 0.05;
  loop = &bench.make();
  EXPECT_FALSE(loop->mask(0, 5, true));
  EXPECT_FALSE(loop->mask(1, 0, true));
  loop->run();
  Recording r = recording(120);
  Eigen::MatrixXd x = recording().streams[0].matrix().leftCols(120);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  x.row(2).segment(30, 34).setConstant(nan);  // until it was inside the limits for five frames
  x.row(4).segment(70, 50).setConstant(nan);
  r.streams = {memory_stream("spikes", x, 100.0, 2.0)};
  Index rows = 0;
  const auto truth = offline_means(r, 120, rows);
  ASSERT_EQ(bench.states.size(), 120u);
  for (std::size_t k = 0; k < 120; ++k)
    EXPECT_EQ(bench.states[k].value[0], truth[k * static_cast<std::size_t>(rows)]) << k;
  const Value bad = loop->report().at("inputs").at("spikes").at("bad_channels");
  ASSERT_EQ(bad.size(), 1u);
  EXPECT_EQ(bad.as_table()[0].second.as_string(), "by hand");
}

// a click goes out with the state of its frame, once; while the output is held it is kept back and counted
TEST(LiveLoop, ClicksGoOutWithTheStatesUnlessTheyAreHeld) {
  LiveLoop* loop = nullptr;
  std::vector<Scripted::Act> acts(80);
  const auto press = [](int rows) { return [rows](Eigen::VectorXd& x) { x.head(rows).setConstant(100); }; };
  acts[20].change = acts[21].change = press(1);
  acts[35].before = [&] { loop->emergency(true); };
  acts[35].wait_ms = acts[50].wait_ms = 30;  // the loop looks at it
  acts[40].change = press(1);
  acts[50].before = [&] { loop->emergency(false); };
  acts[60].change = press(2);
  auto specs = decoder();
  specs.insert(specs.begin(), node("press", "click", {"spikes"},
                                   Value::object({{"threshold", 50.0}, {"hold_s", 0.0}, {"refractory_s", 0.1}})));
  const fs::path file = testing::temporary_folder() / "live.session";
  LoopBench bench(one(acts), {.precision = Scalar::f64}, specs);
  bench.setup.click = "press";
  Recorder recorder(file, Value::object({{"name", "clicks"}}), {{"spikes", bench.runner.format("spikes")}},
                    {{"decoded", bench.runner.format("decoded")}}, 1);
  bench.setup.recorder = &recorder;
  loop = &bench.make();
  loop->run();
  EXPECT_EQ(recorder.close(loop->report()), "");
  std::map<std::int64_t, Index> clicks;
  for (auto& s : bench.states)
    if (s.clicks > 0) clicks[s.frame] += s.clicks;
  EXPECT_EQ(clicks, (std::map<std::int64_t, Index>{{20, 1}, {60, 2}}));
  EXPECT_EQ(loop->report().at("clicks").as_integer(), 3);
  EXPECT_EQ(loop->report().at("held_clicks").as_integer(), 1);
  EXPECT_EQ(loop->state().clicks, 3);
  std::vector<double> recorded;
  for (auto& e : io::open_session(file).events)
    if (e.label.text() == "click") recorded.push_back(e.value);
  EXPECT_EQ(recorded, (std::vector<double>{1, 2}));
}

// from its arrival until it is taken, and each stage
TEST(LiveLoop, TellsWhatEachStageTook) {
  LoopBench bench(one(std::vector<Scripted::Act>(50)), {.precision = Scalar::f64, .time_nodes = true});
  LiveLoop& loop = bench.make();
  loop.run();
  const Value report = loop.report();
  EXPECT_EQ(report.at("waited").at("count").as_integer(), 50);
  for (const char* stage : {"scaled", "decoded"}) {
    const Value& t = report.at("nodes").at(stage);
    EXPECT_EQ(t.at("count").as_integer(), 50) << stage;
    EXPECT_LE(t.at("p50_s").as_number(), t.at("p99.9_s").as_number());
    EXPECT_LE(t.at("max_s").as_number(), report.at("latency").at("max_s").as_number());
  }
}

TEST(LiveLoop, AnEarlierPacketIsWaitedForNoLongerThanItIsSaid) {
  std::vector<Scripted::Act> acts(20);
  acts[10].counter = 12;  // 10 and 11 do not come
  acts[11].wait_ms = 60;
  LoopBench bench(one(acts), {.precision = Scalar::f64, .hold_packets = 4});
  bench.setup.loop.wait_s = 0.02;
  LiveLoop& loop = bench.make();
  loop.run();
  const Value input = loop.report().at("inputs").at("spikes");
  EXPECT_EQ(input.at("missing_frames").as_integer(), 2);
  EXPECT_EQ(input.at("gaps").as_integer(), 1);
  EXPECT_EQ(input.at("packets").as_integer(), 20);
  EXPECT_EQ(bench.states.back().frame, 21);
}

// what a device sends while the loop is held is not lost, and the recording is complete and can be repeated
TEST(LiveLoop, RecordsWhatItDoes) {
  const fs::path file = testing::temporary_folder() / "live.session";
  std::vector<Scripted::Act> acts(300);
  acts[100].counter = 120;
  acts[150].counter = 5;  // late
  acts[151].counter = 171;
  for (std::size_t k = 200; k < 230; ++k) acts[k].change = [](Eigen::VectorXd& x) { x(1) = -1e9; };
  LoopBench bench(one(acts));
  bench.setup.health.amplitude_limit = 1000;
  bench.setup.health.recover_s = 0.1;
  Recorder recorder(file, Value::object({{"name", "loop"}}), {{"spikes", bench.runner.format("spikes")}},
                    {{"decoded", bench.runner.format("decoded")}}, 1);
  bench.setup.recorder = &recorder;
  LiveLoop& loop = bench.make();
  loop.run();
  Value end = loop.report();
  EXPECT_EQ(recorder.close(end), "");
  const Recording back = io::open_session(file);
  EXPECT_TRUE(back.meta.at("live").at("complete").as_bool());
  EXPECT_EQ(back.meta.at("live").at("packets").as_integer(), 300);
  ASSERT_TRUE(back.partition);
  Taken second;
  RunOptions options;
  options.precision = Scalar::f64;
  run_offline(registry(), back, decoder(), options, {{"decoded", second.sink()}});
  Taken first;
  const Stream& live = back.stream("live_decoded", "test");
  const Eigen::MatrixXd m = live.matrix();
  ASSERT_EQ(second.frames, live.frames());
  EXPECT_EQ(std::memcmp(second.bytes.data(), m.data(), second.bytes.size()), 0);
  std::map<std::string, int> labels;
  for (auto& e : back.events) ++labels[e.label.text()];
  EXPECT_EQ(labels["mask"], 1);
  EXPECT_EQ(labels["unmask"], 1);
  EXPECT_GE(labels["gap"], 1);
}

TEST(LiveLoop, SeveralSourcesRunThroughOneLoop) {
  std::vector<std::unique_ptr<Source>> sources;
  ReplayOptions fast{.packet = 10};
  Recording a = recording(), b = recording();
  b.streams[0].name = "field";
  sources.push_back(std::make_unique<ReplaySource>(a, "spikes", fast));
  sources.push_back(std::make_unique<ReplaySource>(b, "field", fast));
  auto specs = std::vector{node("scaled", "zscore", {"spikes"}), node("other", "zscore", {"field"}),
                           node("decoded", "running_zscore", {"scaled", "other"})};
  LoopBench bench(std::move(sources), {.precision = Scalar::f64}, specs);
  LiveLoop& loop = bench.make();
  loop.run();
  EXPECT_EQ(bench.states.size(), 1000u);
  EXPECT_EQ(loop.report().at("inputs").at("field").at("frames").as_integer(), 1000);
}

TEST(LiveLoop, StopsWhenItIsTold) {
  std::vector<Scripted::Act> acts(10);
  acts.push_back({.packet = false, .wait_ms = 600'000});
  LoopBench bench(one(acts));
  LiveLoop& loop = bench.make();
  std::thread thread([&] { loop.run(); });
  while (loop.state().frames < 10) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(loop.running());
  loop.stop();
  thread.join();
  EXPECT_FALSE(loop.running());
}

TEST(LiveLoop, RefusesWhatDoesNotFit) {
  const auto refusal = [](const std::function<void(LoopBench&)>& change, std::vector<NodeSpec> specs = decoder()) {
    LoopBench bench(one(std::vector<Scripted::Act>(1)), {.precision = Scalar::f64}, std::move(specs));
    change(bench);
    return message_of<ConfigError>([&] { bench.make(); });
  };
  EXPECT_THAT(refusal([](LoopBench& b) { b.setup.sources.clear(); }), HasSubstr("one for each of 1 inputs"));
  auto queued = decoder();
  queued[1].queue = "newest";
  EXPECT_THAT(refusal([](LoopBench&) {}, queued), HasSubstr("behind a queue"));
  EXPECT_THAT(refusal([](LoopBench& b) { b.setup.click = "scaled"; }),
              ::testing::AllOf(HasSubstr("live.click"), HasSubstr("a stage `click` on the real-time thread")));
  EXPECT_THAT(refusal([](LoopBench& b) { b.setup.guard.low = {1, 2, 3, 4, 5, 6, 7, 8, 9}; }),
              HasSubstr("live.guard.low"));
}

}  // namespace
}  // namespace percept
