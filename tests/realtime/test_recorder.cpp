#include "realtime/recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <limits>
#include <thread>

#include "core/error.h"
#include "io/session.h"
#include "realtime/replay.h"
#include "tests/realtime/live_graph.h"
#include "tests/support/alloc.h"
#include "tests/support/data.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using namespace live_test;
using testing::AllocationCounter;
using ::testing::HasSubstr;
using testing::message_of;
namespace fs = std::filesystem;

fs::path session() { return testing::temporary_folder() / "live.session"; }

/// The graph of the tests behind a recorder: all its nodes are outputs.
struct Recorded {
  explicit Recorded(const fs::path& file, LiveOptions options, RecorderOptions recorder_options = {},
                    const std::vector<NodeSpec>& specs = nodes())
      : runner(registry(), {{"spikes", recording().streams[0].format}}, specs, options) {
    std::vector<Recorder::StreamInfo> outputs;
    for (auto& n : specs)
      if (runner.format(n.name).axis == Axis::time) outputs.push_back({n.name, runner.format(n.name)});
    recorder = std::make_unique<Recorder>(file, Value::object({{"name", "test"}}),
                                          std::vector<Recorder::StreamInfo>{{"spikes", recording().streams[0].format}},
                                          outputs, 1, recorder_options);
    for (std::size_t i = 0; i < outputs.size(); ++i)
      runner.on_output(outputs[i].name, [this, i, sink = out[outputs[i].name].sink()](const Block& b) {
        sink(b);
        recorder->output(0, static_cast<int>(i), b, 7, 8, false);
      });
    runner.on_step([this](const LiveStep& s) { recorder->step(0, s); });
    runner.on_event([this](const Event& e) { recorder->event(0, e); });
  }
  void push(const Packet& p) {
    recorder->packet(0, number, 0, p, 0);
    if (const Fate fate = runner.push(p); fate != Fate::used) recorder->fate(0, number, fate);
    ++number;
  }
  LiveRunner runner;
  std::unique_ptr<Recorder> recorder;
  Outputs out;
  std::int64_t number = 0;
};

/// Runs the recording again offline, from its partition.
Outputs again(const Recording& r, Scalar precision, const std::vector<NodeSpec>& specs, const Outputs& like) {
  Outputs out;
  std::map<std::string, SinkFn> sinks;
  for (auto& [name, taken] : like) sinks[name] = out[name].sink();
  RunOptions options;
  options.precision = precision;
  run_offline(registry(), r, specs, options, sinks);
  return out;
}

// loss, duplicates, another order, masks, a swap, posted events, packets of any size: all of it is repeated
TEST(Recorder, ARecordedSessionRunsAgainBitForBit) {
  const Recording r = recording();
  for (Scalar precision : {Scalar::f32, Scalar::f64}) {
    const fs::path file = session();
    auto swapped = std::make_shared<Model>(*sample_model("kalman"));
    swapped->set("C", 1.1 * swapped->matrix("C"));
    swapped->save(file.parent_path() / "swap_1");
    Recorded live(file, {.precision = precision, .block = 16, .hold_packets = 3});
    const KeyedRandom random(7, "faults");
    std::vector<std::byte> kept;
    Packet late;
    std::int64_t n = 0;
    replay(r, "spikes", {.packet = 23, .random = 9}, [&](const Packet& p) {
      ++n;
      if (n == 20) {
        live.recorder->model(1, "filtered", "swap_1");
        live.runner.swap("filtered", swapped);
      }
      if (n == 12) live.runner.mask(0, 2, true);
      if (n == 30) live.runner.mask(0, 2, false);
      if (n == 25) live.runner.post({.onset_s = 5.5, .value = 3, .label = Label::of("cue")});
      if (p.events.empty() && random.uniform(n) < 0.1) return;                     // lost
      if (p.events.empty() && random.uniform(n, 1) < 0.2 && late.x.frames == 0) {  // comes one later
        kept.assign(static_cast<const std::byte*>(p.x.data),
                    static_cast<const std::byte*>(p.x.data) + static_cast<std::size_t>(5 * p.x.frames) * 8);
        late = p;
        late.x = ConstFrames(kept.data(), p.x.scalar, 5, p.x.frames, 5);
        return;
      }
      live.push(p);
      if (random.uniform(n, 2) < 0.1) live.push(p);  // twice
      if (late.x.frames) live.push(late);
      late = {};
    });
    live.runner.finish();
    const LiveCounts counts = live.runner.counts();
    ASSERT_GT(counts.missing_frames, 0);
    ASSERT_GT(counts.reordered_packets, 0);
    ASSERT_GT(counts.duplicate_packets, 0);
    ASSERT_EQ(counts.swaps, 1);
    EXPECT_EQ(live.recorder->close(Value::object({{"finished", true}})), "");
    EXPECT_EQ(live.recorder->counts().lost_records, 0);

    const Recording back = io::open_session(file);
    ASSERT_TRUE(back.partition);
    EXPECT_TRUE(back.meta.at("live").at("complete").as_bool());
    const auto fate = [&](const char* name) {
      return back.meta.at("live").at("not_used_at_once").at(name).as_integer();
    };
    EXPECT_EQ(fate("duplicate"), counts.duplicate_packets);
    EXPECT_EQ(fate("late"), counts.late_packets);
    const Outputs second = again(back, precision, nodes(), live.out);
    for (auto& [name, taken] : live.out) {
      EXPECT_GT(taken.frames, 0);
      EXPECT_TRUE(taken.bytes == second.at(name).bytes) << name << " " << name_of(precision);
      if (back.find("live_" + name)) {
        EXPECT_EQ(back.stream("live_" + name, "test").frames(), taken.frames) << name;
      }
    }
    // and without what happened in between it would not be the same
    Recording plain = back;
    plain.partition = {};
    plain.events.clear();
    const Outputs other = again(plain, precision, nodes(), live.out);
    EXPECT_FALSE(live.out.at("filtered").bytes == other.at("filtered").bytes);
  }
}

TEST(Recorder, NeitherAllocatesNorWaitsOnTheLoopsThread) {
  if (!AllocationCounter::available()) GTEST_SKIP() << "allocations cannot be counted under a sanitizer";
  const Recording r = recording();
  Recorded live(session(), {.precision = Scalar::f32, .block = 16}, {}, {node("scaled", "zscore", {"spikes"})});
  live.out["scaled"].bytes.reserve(1 << 20);
  live.out["scaled"].events.reserve(100);
  std::int64_t allocations = 0;
  replay(r, "spikes", {.packet = 40, .random = 3}, [&](const Packet& p) {
    AllocationCounter counter;
    live.push(p);
    allocations += counter.count();
  });
  EXPECT_EQ(allocations, 0);
}

// a ring that is too small, or a disk that is: the loop goes on, and every lost record is counted and told
TEST(Recorder, WhatFindsNoRoomIsCountedAndTold) {
  const Recording r = recording();
  const fs::path file = session();
  Recorded live(file, {.precision = Scalar::f64, .block = 16}, {.lane_bytes = 8192, .write_s = 30, .sync_s = 30},
                {node("scaled", "zscore", {"spikes"})});
  std::int64_t packets = 0, frames = 0;
  replay(r, "spikes", {.packet = 10}, [&](const Packet& p) {
    live.push(p);
    ++packets;
    frames += p.x.frames;
  });
  live.runner.finish();
  const RecorderCounts counts = live.recorder->counts();
  EXPECT_GT(counts.lost_records, 100);
  EXPECT_EQ(live.out.at("scaled").frames, 1000) << "the decoder is not disturbed";
  EXPECT_EQ(live.recorder->close(Value::object({{"finished", true}})), "");
  const Recording back = io::open_session(file);
  const Value& lost = back.meta.at("live").at("lost");
  EXPECT_EQ(lost.at("records").as_integer(), counts.lost_records);
  EXPECT_EQ(lost.at("bytes").as_integer(), counts.lost_bytes);
  EXPECT_EQ(lost.at("packets").as_integer() + back.meta.at("live").at("packets").as_integer(), packets);
  EXPECT_EQ(lost.at("frames").as_integer() + back.meta.at("live").at("frames").as_integer(), frames);
  EXPECT_FALSE(back.partition) << "it cannot be repeated";
  ASSERT_FALSE(back.warnings().empty());
}

// in a process of its own, since the limit would hold for every file
TEST(Recorder, AFullDiskHoldsNothingUpAndIsTriedAgain) {
  const fs::path file = session();
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const Recording r = recording();
    Recorded live(file, {.precision = Scalar::f64, .block = 16}, {.write_s = 0.002, .sync_s = 0.004});
    const rlimit full{6000, RLIM_INFINITY}, more{1 << 24, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &full);
    bool in_trouble = false;
    replay(r, "spikes", {.packet = 10}, [&](const Packet& p) {
      live.push(p);
      if (p.counter == 500) {
        for (int k = 0; k < 2000 && live.recorder->counts().trouble.empty(); ++k)
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        in_trouble = !live.recorder->counts().trouble.empty();
        ::setrlimit(RLIMIT_FSIZE, &more);
      }
    });
    live.runner.finish();
    const bool closed = live.recorder->close(Value::object({{"finished", true}})).empty();
    ::_exit(!in_trouble ? 2 : !closed ? 3 : live.recorder->counts().lost_records > 0 ? 4 : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  ASSERT_EQ(WEXITSTATUS(status), 0);
  const Recording back = io::open_session(file);
  EXPECT_TRUE(back.meta.at("live").at("complete").as_bool());
  EXPECT_EQ(back.streams[0].frames(), 1000);
}

// killed at any moment it loses at most what was handed over in the last 100 ms
TEST(Recorder, AKilledSessionKeepsAllButTheLastTenthOfASecond) {
  const Recording r = recording();
  for (int round = 0; round < 3; ++round) {
    const fs::path file = session();
    int told[2];
    ASSERT_EQ(::pipe(told), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      Recorded live(file, {.precision = Scalar::f64, .block = 16});
      replay(r, "spikes", {.packet = 1, .speed = 4}, [&](const Packet& p) {
        live.push(p);
        const std::array<std::int64_t, 2> mark{p.counter, steady_ns()};
        if (::write(told[1], mark.data(), sizeof mark) != sizeof mark) ::_exit(1);
      });
      ::_exit(0);
    }
    ::close(told[1]);
    std::vector<std::array<std::int64_t, 2>> marks;
    std::array<std::int64_t, 2> mark{};
    while (::read(told[0], mark.data(), sizeof mark) == sizeof mark) {
      marks.push_back(mark);
      // counted from the first frame: a program takes long to start under a sanitizer
      if (marks.size() > 20 && mark[1] - marks.front()[1] > (300 + 170 * round) * std::int64_t{1'000'000}) break;
    }
    ::kill(child, SIGKILL);
    const std::int64_t killed = steady_ns();
    while (::read(told[0], mark.data(), sizeof mark) == sizeof mark) marks.push_back(mark);
    ::close(told[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    std::int64_t safe = 0;
    for (auto& m : marks)
      if (m[1] < killed - 100'000'000) safe = m[0] + 1;
    ASSERT_GT(safe, 10);
    io::repair_session(file);
    const Recording back = io::open_session(file);
    EXPECT_GE(back.streams[0].frames(), safe);
    EXPECT_EQ(back.streams[0].matrix().leftCols(safe), r.streams[0].matrix().leftCols(safe));
    EXPECT_FALSE(back.meta.at("live").at("complete").as_bool());
    ASSERT_TRUE(back.partition);
    EXPECT_FALSE(back.partition->finished);
  }
}

TEST(Recorder, RefusesAFileThatIsThere) {
  const fs::path file = session();
  { Recorded live(file, {}); }
  EXPECT_THAT(message_of<DataError>([&] { Recorded live(file, {}); }), HasSubstr("a new file"));
}

}  // namespace
}  // namespace percept
