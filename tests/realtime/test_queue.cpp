#include "realtime/queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <map>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "core/runner.h"
#include "filters/stages.h"
#include "numerics/random.h"
#include "preprocessing/stages.h"
#include "realtime/live_runner.h"
#include "realtime/replay.h"
#include "tests/support/alloc.h"

namespace percept {
namespace {

using testing::AllocationCounter;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// What the test's own stages tell the test; the frames they saw, in order.
struct Watch {
  std::atomic<std::int64_t> calls{0};
  std::atomic<bool> hold{false};  ///< process() waits while this is set
  std::mutex mutex;
  std::vector<double> seen;
  void wait_for_call(std::int64_t n) const {
    for (std::int64_t c = calls; c < n; c = calls) calls.wait(c);
  }
  void release() {
    hold = false;
    hold.notify_all();
  }
  void clear() {
    calls = 0;
    hold = false;
    seen.clear();
  }
};
Watch& watch() {
  static Watch w;
  return w;
}

/// Hands frames on as slowly as the test wants. Causal, not real-time; with `state` it counts as one with a state.
class Held final : public Stage {
 public:
  struct Params {
    bool state = true;
    static constexpr auto fields() { return std::tuple{field("state", &Params::state, "", "Has a state.")}; }
  };
  explicit Held(Params p) : params_(p) {}
  StreamFormat prepare(const StreamFormat& in, Context&) override { return in; }
  Index process(const Block& b, Output& o) noexcept override {
    auto& w = watch();
    ++w.calls;
    w.calls.notify_all();
    w.hold.wait(true);
    copy_frames(b.x, o.y.slice(0, b.x.frames));
    const Eigen::MatrixXd x = to_matrix(b.x);
    std::lock_guard lock(w.mutex);
    for (Index k = 0; k < x.cols(); ++k) w.seen.push_back(x(0, k));
    return b.x.frames;
  }
  void reset() noexcept override {}
  Traits traits() const override { return {.per_frame = !params_.state}; }

 private:
  Params params_;
};

const Registry& stages_here() {
  static const Registry all = [] {
    Registry r;
    r.add(preprocessing_stages());
    r.add(filters_stages());
    auto held = stage_info<Held>("held", "tests", "Waits when told to.");
    held.samples = [] { return std::vector{Sample{}}; };
    r.add(held);
    return r;
  }();
  return all;
}

NodeSpec made(std::string name, std::string use, std::vector<std::string> from, std::string queue = "",
              Index blocks = 16, Value params = Value::table()) {
  NodeSpec n;
  n.name = std::move(name);
  n.use = use;
  n.from = std::move(from);
  n.queue = std::move(queue);
  n.queue_blocks = blocks;
  n.params = std::move(params);
  const auto& info = stages_here().at(use, "test");
  if (info.trained) n.model = info.samples().front().model;
  return n;
}

Recording noise(Index frames, Index rows = 5) {
  const KeyedRandom random(11, "queue test");
  Eigen::MatrixXd x(rows, frames);
  for (Index t = 0; t < frames; ++t)
    for (Index i = 0; i < rows; ++i) x(i, t) = random.normal(t, static_cast<std::uint64_t>(i));
  Recording r;
  r.streams = {memory_stream("spikes", x, 100.0, 2.0)};
  for (int i = 0; i < 8; ++i)
    r.events.push_back(
        {.onset_s = 2.003 + 0.01 * static_cast<double>(frames) / 8 * i, .id = i, .label = Label::of("go")});
  return r;
}

/// Everything a node gave. Read it when the runner has finished.
struct Given {
  std::vector<double> values;  ///< frame after frame
  std::vector<Event> events;
  std::vector<std::int64_t> event_frames;  ///< the frame of the edge that was last when the event came
  std::int64_t frames = 0;
  bool in_order = true;
  SinkFn sink() {
    return [this](const Block& b) {
      in_order &= b.first_frame == frames;
      const Eigen::MatrixXd x = to_matrix(b.x);
      values.insert(values.end(), x.data(), x.data() + x.size());
      frames += b.x.frames;
      for (auto& e : b.events) {
        events.push_back(e);
        event_frames.push_back(frames - 1);
      }
    };
  }
};

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!(a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])))) return false;
  return true;
}

/// Frames 0, 1, 2, ... of one row, each worth its number.
struct Ramp {
  std::int64_t counter = 0;
  std::vector<double> x = std::vector<double>(64);
  Packet packet(Index frames, std::span<const Event> events = {}) {
    for (Index k = 0; k < frames; ++k) x[static_cast<std::size_t>(k)] = static_cast<double>(counter + k);
    const Packet p{.x = ConstFrames(x.data(), Scalar::f64, 1, frames, 1), .counter = counter, .events = events};
    counter += frames;
    return p;
  }
};

RunOptions in_blocks_of(Index block) {
  RunOptions options;
  options.precision = Scalar::f64;
  options.block = block;
  return options;
}

std::unique_ptr<LiveRunner> one_row(std::vector<NodeSpec> nodes, Index block = 4) {
  return std::make_unique<LiveRunner>(stages_here(), std::vector<InputSpec>{{"x", time_format(1, 100.0)}},
                                      std::move(nodes), LiveOptions{.precision = Scalar::f64, .block = block});
}

TEST(BlockQueue, GivesEveryBlockInOrder) {
  BlockQueue queue(time_format(1, 100.0), QueuePolicy::block, 3, "q");
  std::thread taker([&] {
    BlockQueue::Taken taken;
    for (std::int64_t k = 0; k < 20000; ++k) {
      ASSERT_TRUE(queue.next(taken));
      ASSERT_EQ(taken.lost_frames, 0);
      ASSERT_EQ(taken.block.x.as<double>().data[0], static_cast<double>(k));
      ASSERT_EQ(taken.block.first_frame, k);
      ASSERT_EQ(taken.block.events.size(), 1u);
      ASSERT_EQ(taken.block.events[0].id, k);
    }
    EXPECT_FALSE(queue.next(taken));
  });
  for (std::int64_t k = 0; k < 20000; ++k) {
    const double x = static_cast<double>(k);
    const Event e{.id = k};
    queue.push({.x = ConstFrames(&x, Scalar::f64, 1, 1, 1), .first_frame = k, .keys = {}, .events = {&e, 1}}, 0);
  }
  queue.close();
  taker.join();
  EXPECT_EQ(queue.counts().blocks, 20000);
  EXPECT_EQ(queue.counts().lost_blocks, 0);
  EXPECT_EQ(queue.lost_events(), 0);
}

// a pusher that never waits beside a taker: what is taken and what is told as lost is everything, in order
TEST(BlockQueue, TakenAndLostAreEverything) {
  for (QueuePolicy policy : {QueuePolicy::drop_oldest, QueuePolicy::newest}) {
    BlockQueue queue(time_format(1, 100.0), policy, 3, "q");
    std::int64_t taken_frames = 0, lost_frames = 0, events = 0;
    std::atomic<std::int64_t> taken_events{0};
    std::thread taker([&] {
      BlockQueue::Taken taken;
      std::int64_t frame = 0;
      while (queue.next(taken)) {
        ASSERT_EQ(taken.block.first_frame, frame + taken.lost_frames);
        ASSERT_EQ(taken.block.x.as<double>().data[0], static_cast<double>(taken.block.first_frame));
        for (auto& e : taken.lost_events) {
          ASSERT_EQ(e.id, events++);
          ASSERT_LT(e.id, taken.block.first_frame);
        }
        for (auto& e : taken.block.events) {
          ASSERT_EQ(e.id, events++);
          ASSERT_EQ(e.id, taken.block.first_frame);
        }
        lost_frames += taken.lost_frames;
        taken_frames += taken.block.x.frames;
        taken_events = events;
        frame = taken.block.first_frame + 1;
        if (frame % 7 == 0) std::this_thread::yield();
      }
    });
    constexpr std::int64_t kFrames = 20000;
    for (std::int64_t k = 0; k < kFrames; ++k) {
      const double x = static_cast<double>(k);
      const Event e{.id = k};
      if (k == kFrames - 1) queue.wait_for_room();  // the last is taken
      // one event in each block is more than a stuck queue has room for, so the taker is given time now and then
      while (k % 200 == 0 && taken_events.load() < k) std::this_thread::yield();
      queue.push({.x = ConstFrames(&x, Scalar::f64, 1, 1, 1), .first_frame = k, .keys = {}, .events = {&e, 1}}, 0);
    }
    queue.close();
    taker.join();
    EXPECT_EQ(taken_frames + lost_frames, kFrames);
    EXPECT_EQ(lost_frames, queue.counts().lost_frames);
    EXPECT_EQ(lost_frames, queue.counts().lost_blocks);
    EXPECT_EQ(events, kFrames);
    EXPECT_EQ(queue.lost_events(), 0);
  }
}

TEST(BlockQueue, EventsThatFindNoRoomAreCounted) {
  BlockQueue queue(time_format(1, 100.0), QueuePolicy::newest, 1, "q");
  const double x = 0;
  for (std::int64_t k = 0; k < 1000; ++k) {
    const Event e{.id = k};
    queue.push({.x = ConstFrames(&x, Scalar::f64, 1, 1, 1), .first_frame = k, .keys = {}, .events = {&e, 1}}, 0);
  }
  BlockQueue::Taken taken;
  ASSERT_TRUE(queue.next(taken));
  EXPECT_EQ(static_cast<std::int64_t>(taken.lost_events.size() + taken.block.events.size()),
            1000 - queue.lost_events());
  EXPECT_EQ(queue.lost_events(), 1000 - 3 * 256);
  EXPECT_EQ(taken.lost_frames, 999);
}

TEST(LiveQueue, BlockLosesNothingAndGivesTheBitsOfTheOfflineRun) {
  const Recording r = noise(1000);
  for (Index blocks : {1, 16}) {
    const std::vector specs{
        made("scaled", "zscore", {"spikes"}),
        made("filtered", "kalman", {"scaled"}, "block", blocks),
        made("past", "lag", {"filtered.mean"}, "", 16, Value::object({{"lags", 3}})),
        // a queue below a queue, of a join
        made("both", "running_zscore", {"past", "filtered.mean"}, "block", blocks),
        made("cut", "epochs", {"both"}, "", 16, Value::object({{"start_s", -0.1}, {"stop_s", 0.2}})),
    };
    std::map<std::string, Given> truth, out;
    std::map<std::string, SinkFn> sinks;
    for (auto& n : specs) sinks[n.name] = truth[n.name].sink();
    run_offline(stages_here(), r, specs, in_blocks_of(300), sinks);

    LiveRunner live(stages_here(), {{"spikes", r.streams[0].format}}, specs, {.precision = Scalar::f64, .block = 32});
    for (auto& n : specs) live.on_output(n.name, out[n.name].sink());
    const auto packets = replay(r, "spikes", {.packet = 40, .random = 4}, [&](const Packet& p) { live.push(p); });
    live.finish();
    EXPECT_EQ(live.counts().packets, packets);
    for (auto& n : specs) {
      EXPECT_GT(truth[n.name].frames, 0);
      EXPECT_TRUE(out[n.name].in_order) << n.name;
      EXPECT_TRUE(same_bits(out[n.name].values, truth[n.name].values)) << n.name;
      EXPECT_EQ(out[n.name].events, truth[n.name].events) << n.name;
    }
    const auto counts = live.counts();
    ASSERT_EQ(counts.queues.size(), 2u);
    EXPECT_EQ(counts.queues[0].node, "filtered");
    EXPECT_EQ(counts.queues[1].node, "both");
    for (auto& q : counts.queues) {
      EXPECT_EQ(q.frames, 1000);
      EXPECT_EQ(q.lost_frames, 0);
    }
    EXPECT_EQ(counts.lost_events, 0);
  }
}

// depth 3, packets of 2 frames: the held stage has packet 0, 7 to 9 wait in the end, 1 to 6 are lost
TEST(LiveQueue, DropOldestLosesTheOldestAndCountsThem) {
  watch().clear();
  auto live = one_row({made("slow", "held", {"x"}, "drop_oldest", 3), made("after", "lag", {"slow"})});
  Given slow, after;
  live->on_output("slow", slow.sink());
  live->on_output("after", after.sink());
  Ramp ramp;
  watch().hold = true;
  live->push(ramp.packet(2));
  watch().wait_for_call(1);
  const Event early{.onset_s = 0.03, .id = 1, .label = Label::of("go")};  // in packet 1, frame 3
  const Event late{.onset_s = 0.15, .id = 2, .label = Label::of("go")};   // in packet 7, frame 15
  for (int i = 1; i < 10; ++i) {
    if (i == 1) live->push(ramp.packet(2, {&early, 1}));
    else if (i == 7) live->push(ramp.packet(2, {&late, 1}));
    else live->push(ramp.packet(2));
  }
  const auto counts = live->counts();
  ASSERT_EQ(counts.queues.size(), 1u);
  EXPECT_EQ(counts.queues[0].node, "slow");
  EXPECT_EQ(counts.queues[0].blocks, 10);
  EXPECT_EQ(counts.queues[0].frames, 20);
  EXPECT_EQ(counts.queues[0].lost_blocks, 6);
  EXPECT_EQ(counts.queues[0].lost_frames, 12);
  EXPECT_EQ(counts.packets, 10);
  watch().release();
  live->finish();
  EXPECT_EQ(live->counts().queues[0].lost_frames, 12) << "nothing is lost while it finishes";
  EXPECT_EQ(live->counts().lost_events, 0);

  ASSERT_EQ(slow.frames, 20);
  EXPECT_TRUE(slow.in_order);
  for (std::size_t k = 0; k < 20; ++k) {
    if (k < 2 || k >= 14) EXPECT_EQ(slow.values[k], static_cast<double>(k));
    else EXPECT_TRUE(std::isnan(slow.values[k])) << k;
  }
  EXPECT_EQ(watch().seen.size(), 20u) << "a stage with a state runs on the missing frames too";
  ASSERT_EQ(slow.events.size(), 2u);
  EXPECT_EQ(slow.events[0].id, 1);
  EXPECT_GE(slow.event_frames[0], 3);
  EXPECT_LT(slow.event_frames[0], 14) << "the event comes with the frames that stand for the lost ones";
  EXPECT_EQ(slow.events[1].id, 2);
  EXPECT_EQ(slow.event_frames[1], 15);
  EXPECT_EQ(after.frames, 20);
}

TEST(LiveQueue, NewestRunsOnlyTheNewest) {
  watch().clear();
  auto live = one_row({made("slow", "held", {"x"}, "newest", 16, Value::object({{"state", false}}))});
  Given slow;
  live->on_output("slow", slow.sink());
  Ramp ramp;
  watch().hold = true;
  live->push(ramp.packet(2));
  watch().wait_for_call(1);
  for (int i = 1; i < 10; ++i) live->push(ramp.packet(2));
  EXPECT_EQ(live->counts().queues[0].lost_blocks, 8);
  EXPECT_EQ(live->counts().queues[0].lost_frames, 16);
  watch().release();
  live->finish();
  EXPECT_THAT(watch().seen, ElementsAre(0, 1, 18, 19)) << "a stage without a state is not run on what was lost";
  ASSERT_EQ(slow.frames, 20);
  for (std::size_t k = 0; k < 20; ++k) {
    if (k < 2 || k >= 18) EXPECT_EQ(slow.values[k], static_cast<double>(k));
    else EXPECT_TRUE(std::isnan(slow.values[k])) << k;
  }
}

// a filter behind the queue gives what it gives offline on a recording where the lost frames are missing
TEST(LiveQueue, AFilterPredictsOverWhatWasLost) {
  watch().clear();
  const Recording r = noise(200);
  const std::vector specs{made("slow", "held", {"spikes"}, "drop_oldest", 2), made("filtered", "kalman", {"slow"})};
  LiveRunner live(stages_here(), {{"spikes", r.streams[0].format}}, specs, {.precision = Scalar::f64, .block = 8});
  Given slow, filtered;
  live.on_output("slow", slow.sink());
  live.on_output("filtered", filtered.sink());
  std::int64_t packets = 0;
  replay(r, "spikes", {.packet = 8}, [&](const Packet& p) {
    if (packets == 5) {
      while (watch().calls < 5) std::this_thread::yield();
      watch().hold = true;
    }
    live.push(p);
    if (++packets == 15) watch().release();
  });
  live.finish();
  EXPECT_GT(live.counts().queues[0].lost_frames, 0);
  Recording holed = r;
  ASSERT_EQ(slow.frames, 200);
  holed.streams = {memory_stream("spikes", Eigen::Map<Eigen::MatrixXd>(slow.values.data(), 5, 200), 100.0, 2.0)};
  Given truth;
  run_offline(stages_here(), holed, {made("filtered", "kalman", {"spikes"})}, in_blocks_of(50),
              {{"filtered", truth.sink()}});
  EXPECT_TRUE(same_bits(filtered.values, truth.values));
  EXPECT_EQ(filtered.events, truth.events);
}

TEST(LiveQueue, PushAllocatesNothing) {
  if (!AllocationCounter::available()) GTEST_SKIP() << "allocations cannot be counted under a sanitizer";
  const Recording r = noise(1000);
  for (const char* queue : {"block", "drop_oldest", "newest"}) {
    LiveRunner live(stages_here(), {{"spikes", r.streams[0].format}},
                    {made("scaled", "zscore", {"spikes"}), made("filtered", "kalman", {"scaled"}, queue)},
                    {.block = 16});
    std::int64_t allocations = 0;
    replay(r, "spikes", {.packet = 40, .random = 3}, [&](const Packet& p) {
      AllocationCounter counter;
      live.push(p);
      allocations += counter.count();
    });
    live.finish();
    EXPECT_EQ(allocations, 0) << queue;
    EXPECT_EQ(live.counts().queues[0].frames, 1000);
  }
}

TEST(LiveQueue, AModelBehindAQueueIsSwapped) {
  const Recording r = noise(400);
  auto other = std::make_shared<Model>(*stages_here().at("kalman", "test").samples().front().model);
  other->set("C", 1.3 * other->matrix("C"));
  const std::vector specs{made("scaled", "zscore", {"spikes"}), made("filtered", "kalman", {"scaled"}, "block")};
  LiveRunner live(stages_here(), {{"spikes", r.streams[0].format}}, specs, {.precision = Scalar::f64, .block = 16});
  std::vector<Event> told;
  std::atomic<std::int64_t> out_frames{0};
  Given out;
  live.on_output("filtered", [&, sink = out.sink()](const Block& b) {
    sink(b);
    out_frames += b.x.frames;
    out_frames.notify_all();
  });
  const auto here = std::this_thread::get_id();
  live.on_event([&](const Event& e) {
    EXPECT_EQ(std::this_thread::get_id(), here);
    told.push_back(e);
  });
  const Eigen::MatrixXd x = r.streams[0].matrix();
  constexpr Index kSwap = 237;
  for (Index t = 0; t < 400; ++t) {
    if (t == kSwap) {
      for (std::int64_t n = out_frames; n < kSwap; n = out_frames) out_frames.wait(n);
      live.swap("filtered", other);
    }
    live.push({.x = ConstFrames(x.data() + 5 * t, Scalar::f64, 5, 1, 5), .counter = t});
  }
  live.finish();
  EXPECT_EQ(live.counts().swaps, 1);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].label.text(), "swap filtered");
  EXPECT_NEAR(told[0].onset_s, 2.0 + kSwap / 100.0, 1e-12);

  // the truth: the same swap in a runner without a queue
  auto plain = specs;
  plain[1].queue.clear();
  LiveRunner truth(stages_here(), {{"spikes", r.streams[0].format}}, plain, {.precision = Scalar::f64, .block = 16});
  Given expected;
  truth.on_output("filtered", expected.sink());
  for (Index t = 0; t < 400; ++t) {
    if (t == kSwap) truth.swap("filtered", other);
    truth.push({.x = ConstFrames(x.data() + 5 * t, Scalar::f64, 5, 1, 5), .counter = t});
  }
  EXPECT_TRUE(same_bits(out.values, expected.values));
}

TEST(LiveQueue, WhatIsHeldBackComesAtTheEnd) {
  watch().clear();
  auto live = one_row({made("bins", "bin", {"x"}, "newest", 16, Value::object({{"bin_s", 0.05}})),
                       made("slow", "held", {"bins"}, "drop_oldest", 1)},
                      64);
  Given slow;
  live->on_output("slow", slow.sink());
  Ramp ramp;
  live->push(ramp.packet(52));
  live->finish();
  EXPECT_EQ(slow.frames, 10);
  live->push(ramp.packet(1));
  EXPECT_EQ(live->counts().refused_packets, 1);
  live->finish();
  EXPECT_EQ(slow.frames, 10);
}

TEST(LiveQueue, ARunnerMayBeDroppedWhileItsQueuesAreFull) {
  watch().clear();
  watch().hold = true;
  Ramp ramp;
  std::int64_t seen = 0;
  {
    auto live = one_row({made("slow", "held", {"x"}, "drop_oldest", 2), made("next", "held", {"slow"}, "block", 1)});
    live->on_output("next", [&](const Block&) { ++seen; });
    for (int i = 0; i < 20; ++i) live->push(ramp.packet(4));
    watch().wait_for_call(1);
    watch().release();
  }
  EXPECT_LE(seen, 20);
  EXPECT_EQ(ramp.counter, 80);
}

TEST(LiveQueue, RefusesWhatCannotBe) {
  auto message = [&](std::vector<NodeSpec> specs) -> std::string {
    try {
      one_row(std::move(specs));
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(
      message({made("slow", "held", {"x"})}),
      HasSubstr("expected a real-time stage: this one may allocate or take unbounded time (queue = \"newest\""));
  EXPECT_EQ(message({made("slow", "held", {"x"}, "newest")}), "");
  EXPECT_EQ(message({made("first", "lag", {"x"}, "newest"), made("slow", "held", {"first"})}), "");
  EXPECT_THAT(message({made("slow", "held", {"x"}, "newst")}),
              HasSubstr("slow.queue = \"newst\": expected block, drop_oldest or newest"));
  EXPECT_THAT(message({made("slow", "held", {"x"}, "block", 0)}), HasSubstr("slow.queue_blocks = 0"));
  EXPECT_THAT(message({made("a", "lag", {"x"}), made("b", "lag", {"x"}, "newest"), made("both", "lag", {"a", "b"})}),
              HasSubstr("both.from: expected inputs of one thread when live, but 'a' comes from no queue and 'b' from "
                        "the queue of 'b'"));
  EXPECT_THAT(message({made("b", "lag", {"x"}, "newest"), made("both", "lag", {"b", "x"}, "newest")}),
              HasSubstr("inputs of one thread"));
  EXPECT_THAT(message({made("z", "fir_zero_phase", {"x"}, "newest", 16,
                            Value::object({{"pass", "low"}, {"high_hz", 10.0}, {"transition_hz", 20.0}}))}),
              HasSubstr("a causal stage when live: \"fir\""));
}

}  // namespace
}  // namespace percept
