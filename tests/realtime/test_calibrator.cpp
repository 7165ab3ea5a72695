#include "realtime/calibrator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <functional>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "tests/realtime/live_graph.h"

namespace percept {
namespace {

using namespace live_test;
using ::testing::HasSubstr;

/// A runner with a Kalman filter on five rows at 100 Hz, and a calibrator whose fit the test gives.
struct Bench {
  explicit Bench(Calibrator::Fit fit, bool lockstep = true, CalibrationParams params = {})
      : runner(registry(), {{"spikes", recording().streams[0].format}},
               {node("scaled", "zscore", {"spikes"}), node("filtered", "kalman", {"scaled"})},
               {.precision = Scalar::f64}) {
    StreamFormat target = time_format(2, 100.0, Scalar::f64, "velocity");
    target.start_s = 2;
    calibrator = std::make_unique<Calibrator>(Calibrator::Setup{.runner = &runner,
                                                                .from = "spikes",
                                                                .frames = runner.format("spikes"),
                                                                .target = target,
                                                                .target_name = "velocity",
                                                                .lag_s = 0.03,
                                                                .fit = std::move(fit),
                                                                .params = params,
                                                                .lockstep = lockstep});
    runner.on_output("spikes", [this](const Block& b) { calibrator->frames(b); });
  }
  void frame(std::int64_t t, std::int64_t counter = -1) {
    const Eigen::VectorXd x = recording().streams[0].matrix().col(t % 1000);
    runner.push({.x = ConstFrames(x.data(), Scalar::f64, 5, 1, 5), .counter = counter < 0 ? t : counter});
    const double meant[] = {static_cast<double>(t), -1};
    calibrator->intended(t, meant);
  }
  bool in_time(const std::function<bool()>& holds) {
    for (int k = 0; k < 2000; ++k) {
      if (holds()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }
  LiveRunner runner;
  std::unique_ptr<Calibrator> calibrator;
};

// frames and intentions since begin(), on their clocks; a frame that did not come is missing
TEST(Calibrator, HandsOverWhatCameSinceItBegan) {
  std::vector<Recording> given;
  Bench bench([&](const Recording& r) {
    given.push_back(r);
    return std::vector<LiveRunner::NewModel>{{"filtered", sample_model("kalman")}};
  });
  for (int t = 0; t < 40; ++t) bench.frame(t);
  bench.calibrator->begin(2.1);  // frame 10
  for (int t = 40; t < 60; ++t)
    if (t != 50) bench.frame(t);
  ASSERT_TRUE(bench.calibrator->ask());
  bench.calibrator->settle();
  ASSERT_EQ(given.size(), 1u);
  const Stream& x = given[0].stream("spikes", "t");
  const Stream& y = given[0].stream("velocity", "t");
  EXPECT_NEAR(x.format.start_s, 2.1, 1e-9);
  EXPECT_EQ(x.frames(), 50);
  const Eigen::MatrixXd all = recording().streams[0].matrix();
  EXPECT_EQ(x.matrix().col(0), all.col(10));
  EXPECT_EQ(x.matrix().col(49), all.col(59));
  EXPECT_TRUE(x.matrix().col(40).array().isNaN().all()) << "the runner gave it as missing";
  EXPECT_NEAR(y.format.start_s, 2.1 + 0.03, 1e-9) << "where the stages look for it";
  EXPECT_EQ(y.matrix()(0, 0), 10);
  EXPECT_TRUE(std::isnan(y.matrix()(0, 40)));
  EXPECT_EQ(y.matrix()(0, 41), 51);
  const Value report = bench.calibrator->report();
  EXPECT_EQ(report.at("fits").as_integer(), 1);
  EXPECT_EQ(report.at("lost_frames").as_integer(), 0);
  EXPECT_EQ(report.at("models").as_array().at(0).at("frames").as_integer(), 50);
  EXPECT_EQ(bench.runner.counts().swaps, 0) << "with the next packet";
  bench.frame(60);
  EXPECT_EQ(bench.runner.counts().swaps, 1);
}

TEST(Calibrator, ForgetsWhatIsOlderThanItsWindow) {
  std::int64_t frames = 0;
  Bench bench(
      [&](const Recording& r) {
        frames = r.streams[0].frames();
        return std::vector<LiveRunner::NewModel>{};
      },
      true, CalibrationParams{.window_s = 1});
  for (int t = 0; t < 500; ++t) bench.frame(t);
  bench.calibrator->ask();
  bench.calibrator->settle();
  EXPECT_EQ(frames, 101) << "both ends of a second";
}

// the decoder that is in use stays, and who asks is told why
TEST(Calibrator, AFitThatFailsLeavesTheDecoder) {
  int calls = 0;
  Bench bench([&](const Recording&) -> std::vector<LiveRunner::NewModel> {
    if (++calls == 1) throw DataError("kalman", "training frames", "at least 8", "2");
    if (calls == 2) return {{"scaled", sample_model("zscore")}, {"filtered", nullptr}};
    return {{"filtered", sample_model("kalman")}};
  });
  for (int t = 0; t < 20; ++t) bench.frame(t);
  bench.calibrator->ask();
  bench.calibrator->settle();
  Value report = bench.calibrator->report();
  EXPECT_EQ(report.at("failed").as_integer(), 1);
  EXPECT_EQ(report.at("fits").as_integer(), 0);
  EXPECT_THAT(report.at("trouble").as_string(), HasSubstr("at least 8"));
  bench.frame(20);
  EXPECT_EQ(bench.runner.counts().swaps, 0);
  bench.calibrator->ask();
  bench.calibrator->settle();
  EXPECT_EQ(bench.calibrator->report().at("failed").as_integer(), 2);
  bench.frame(21);
  EXPECT_EQ(bench.runner.counts().swaps, 0) << "all or none";
  bench.calibrator->ask();
  bench.calibrator->settle();
  report = bench.calibrator->report();
  EXPECT_EQ(report.at("fits").as_integer(), 1);
  EXPECT_FALSE(report.contains("trouble"));
  bench.frame(22);
  EXPECT_EQ(bench.runner.counts().swaps, 1);
}

// in time nobody waits: who asks while a fit is worked on is told that it was not taken
TEST(Calibrator, NeverHoldsTheLoop) {
  std::atomic<bool> go{false}, began{false};
  Bench bench(
      [&](const Recording&) {
        began = true;
        while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return std::vector<LiveRunner::NewModel>{{"filtered", sample_model("kalman")}};
      },
      false);
  for (int t = 0; t < 20; ++t) bench.frame(t);
  EXPECT_TRUE(bench.calibrator->ask());
  EXPECT_TRUE(bench.in_time([&] { return began.load(); }));
  EXPECT_FALSE(bench.calibrator->ask());
  bench.calibrator->settle();
  EXPECT_EQ(bench.calibrator->fits(), 0) << "it is still being worked on";
  // what finds no room meanwhile is counted: the ring holds 30 s and a little
  for (int t = 20; t < 20 + 3200; ++t) bench.frame(t);
  EXPECT_GT(bench.calibrator->report().at("lost_frames").as_integer(), 0);
  go = true;
  EXPECT_TRUE(bench.in_time([&] { return bench.calibrator->fits() == 1; }));
  EXPECT_TRUE(bench.in_time([&] { return bench.calibrator->ask(); }));
  bench.calibrator->stop();
  bench.calibrator->stop();
}

}  // namespace
}  // namespace percept
