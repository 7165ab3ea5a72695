#include "realtime/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <set>
#include <thread>
#include <vector>

#include "core/error.h"

namespace percept {
namespace {

using ::testing::HasSubstr;

Recording ramp(Index frames) {
  Recording r;
  Eigen::MatrixXd x(2, frames);
  for (Index t = 0; t < frames; ++t) x.col(t) << static_cast<double>(t), -static_cast<double>(t);
  r.streams = {memory_stream("spikes", x, 1000.0, 5.0)};
  for (int i = 0; i < 6; ++i) r.events.push_back({.onset_s = 5.0 + 0.0105 * i, .id = i, .label = Label::of("go")});
  return r;
}

struct Seen {
  std::vector<Index> sizes;
  std::vector<double> values;
  std::vector<std::int64_t> events;
  std::vector<double> delay_s;
};

Seen run(const Recording& r, ReplayOptions options) {
  Seen seen;
  const Stream& stream = r.streams[0];
  const auto packets = replay(r, "spikes", options, [&](const Packet& p) {
    EXPECT_EQ(p.counter, static_cast<std::int64_t>(seen.values.size()));
    const Eigen::MatrixXd x = to_matrix(p.x);
    for (Index t = 0; t < x.cols(); ++t) {
      seen.values.push_back(x(0, t));
      EXPECT_EQ(x(1, t), -x(0, t));
    }
    seen.sizes.push_back(p.x.frames);
    const double begin_s = stream.format.time_of(p.counter), end_s = stream.format.time_of(p.counter + p.x.frames);
    for (auto& e : p.events) {
      seen.events.push_back(e.id);
      if (p.counter + p.x.frames < stream.frames()) {
        EXPECT_LT(e.onset_s, end_s);
        EXPECT_GE(e.onset_s, begin_s);
      }
    }
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    if (p.received_ns)
      seen.delay_s.push_back(std::chrono::duration<double>(now).count() - static_cast<double>(p.received_ns) * 1e-9);
  });
  EXPECT_EQ(packets, static_cast<std::int64_t>(seen.sizes.size()));
  return seen;
}

TEST(Replay, GivesEveryFrameAndEventOnceInOrder) {
  const Recording r = ramp(9001);  // more than is read ahead at once
  for (const ReplayOptions& options :
       {ReplayOptions{}, ReplayOptions{.packet = 7}, ReplayOptions{.packet = 50, .random = 9},
        ReplayOptions{.packet = 6000}, ReplayOptions{.packet = 100000}}) {
    const Seen seen = run(r, options);
    ASSERT_EQ(seen.values.size(), 9001u);
    for (std::size_t i = 0; i < seen.values.size(); ++i) ASSERT_EQ(seen.values[i], static_cast<double>(i));
    EXPECT_THAT(seen.events, ::testing::ElementsAre(0, 1, 2, 3, 4, 5));
    for (Index n : seen.sizes) EXPECT_LE(n, options.packet);
  }
  const auto sizes = run(r, {.packet = 50, .random = 9}).sizes;
  EXPECT_GT(std::set<Index>(sizes.begin(), sizes.end()).size(), 40u) << "sizes should vary";
  EXPECT_EQ(sizes, run(r, {.packet = 50, .random = 9}).sizes);
}

TEST(Replay, EventsPastTheEndComeWithTheLastPacket) {
  Recording r = ramp(10);
  EXPECT_THAT(run(r, {.packet = 4}).events, ::testing::ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(Replay, PacesByTheClock) {
  const Recording r = ramp(100);
  const auto start = std::chrono::steady_clock::now();
  const Seen seen = run(r, {.packet = 10, .speed = 2});
  EXPECT_GE(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 0.05);
  EXPECT_EQ(seen.delay_s.size(), 10u);
}

TEST(Replay, ASlowTakerSeesItsOwnDelay) {
  const Recording r = ramp(20);
  std::vector<double> delay_s;
  replay(r, "spikes", {.packet = 1, .speed = 1}, [&](const Packet& p) {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    delay_s.push_back(std::chrono::duration<double>(now).count() - static_cast<double>(p.received_ns) * 1e-9);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  });
  // packet k is due at k + 1 ms and cannot be taken before 5 k ms
  EXPECT_GE(delay_s.back(), 19 * 0.004 - 0.001);
}

TEST(Replay, RefusesWhatCannotBe) {
  Recording r = ramp(20);
  auto message = [&](const std::string& stream, ReplayOptions o) -> std::string {
    try {
      replay(r, stream, o, [](const Packet&) {});
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(message("spike", {}), HasSubstr("did you mean 'spikes'"));
  EXPECT_THAT(message("spikes", {.packet = 0}), HasSubstr("replay.packet = 0: expected at least one frame"));
  EXPECT_THAT(message("spikes", {.speed = -1}), HasSubstr("replay.speed = -1"));
  EXPECT_THAT(message("spikes", {.speed = std::nan("")}), HasSubstr("replay.speed = nan"));
  r.streams[0].format = item_format({2});
  EXPECT_THAT(message("spikes", {}), HasSubstr("a stream with a clock, found"));
  EXPECT_THROW(replay(ramp(20), "spikes", {.cancelled = [] { return true; }}, [](const Packet&) {}), Interrupted);
}

}  // namespace
}  // namespace percept
