#include "realtime/live_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <thread>

#include "core/error.h"
#include "numerics/random.h"
#include "realtime/replay.h"
#include "tests/realtime/live_graph.h"
#include "tests/support/alloc.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using namespace live_test;

using testing::AllocationCounter;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;

void expect_same(const Outputs& a, const Outputs& b, const std::string& what) {
  for (auto& [name, taken] : a) {
    EXPECT_GT(taken.frames, 0) << name << ": nothing is tested";
    EXPECT_TRUE(taken == b.at(name)) << what << ": " << name;
  }
}

TEST(LiveRunner, GivesTheBitsOfTheOfflineRun) {
  const Recording r = recording();
  for (Scalar precision : {Scalar::f32, Scalar::f64}) {
    const Outputs truth = offline(r, precision, nodes());
    for (const ReplayOptions& how :
         {ReplayOptions{.packet = 1}, ReplayOptions{.packet = 40, .random = 4}, ReplayOptions{.packet = 500}}) {
      LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, nodes(), {.precision = precision, .block = 32});
      Outputs out;
      for (auto& n : nodes()) live.on_output(n.name, out[n.name].sink());
      const auto packets = replay(r, "spikes", how, [&](const Packet& p) { live.push(p); });
      live.finish();
      expect_same(truth, out, std::string(name_of(precision)) + ", packets of " + std::to_string(how.packet));
      EXPECT_EQ(live.counts().packets, packets);
      EXPECT_EQ(live.counts().frames, 1000);
      EXPECT_EQ(live.counts().gaps, 0);
      EXPECT_EQ(live.counts().lost_events, 0);
      EXPECT_EQ(live.latency().count(), packets);
      EXPECT_GT(live.latency().quantile_s(0.5), 0);
      EXPECT_LE(live.latency().quantile_s(0.999), live.latency().max_s());
    }
  }
}

TEST(LiveRunner, StartsAnewAtEventsAsTheOfflineRunDoes) {
  const Recording r = recording();
  ASSERT_GT(r.events.size(), 2u);
  auto with_reset = nodes();
  int stateful = 0;
  for (auto& n : with_reset)
    if (n.use == "lag" || n.use == "kalman") {
      n.reset = r.events[0].label.text();
      ++stateful;
    }
  ASSERT_GT(stateful, 0);
  const Outputs truth = offline(r, Scalar::f64, with_reset), plain = offline(r, Scalar::f64, nodes());
  for (const ReplayOptions& how : {ReplayOptions{.packet = 1}, ReplayOptions{.packet = 40, .random = 4}}) {
    LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, with_reset, {.precision = Scalar::f64, .block = 32});
    Outputs out;
    for (auto& n : with_reset) live.on_output(n.name, out[n.name].sink());
    replay(r, "spikes", how, [&](const Packet& p) { live.push(p); });
    live.finish();
    expect_same(truth, out, "packets of " + std::to_string(how.packet));
  }
  for (auto& n : with_reset) {
    EXPECT_TRUE(n.reset.empty() || truth.at(n.name) != plain.at(n.name)) << n.name << " was never reset";
  }
}

TEST(LiveRunner, LostPacketsAreNaNFramesCountedExactly) {
  const Recording r = recording();
  const KeyedRandom random(5, "loss");
  Recording holed = r;
  Eigen::MatrixXd x = r.streams[0].matrix();

  LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, nodes(),
                  {.precision = Scalar::f64, .block = 16, .first_counter = 0});
  Outputs out;
  std::vector<Event> told;
  for (auto& n : nodes()) live.on_output(n.name, out[n.name].sink());
  live.on_event([&](const Event& e) { told.push_back(e); });
  std::int64_t lost = 0, gaps = 0, packets = 0, end = 0;
  bool before = true;
  replay(r, "spikes", {.packet = 9, .random = 2}, [&](const Packet& p) {
    // the first packet and every fifth or so are lost, and a long stretch; none that brings an event, nor the last
    const bool drop = p.events.empty() && p.counter + p.x.frames < 1000 &&
                      (p.counter == 0 || random.uniform(p.counter) < 0.2 || (p.counter > 320 && p.counter < 390));
    if (!drop) {
      live.push(p);
      ++packets;
    } else {
      lost += p.x.frames;
      gaps += before || p.counter == 0;
      x.middleCols(p.counter, p.x.frames).setConstant(std::numeric_limits<double>::quiet_NaN());
    }
    before = !drop;
    end = p.counter + p.x.frames;
  });
  live.finish();
  ASSERT_EQ(end, 1000);
  ASSERT_GT(gaps, 10);
  EXPECT_EQ(live.counts().packets, packets);
  EXPECT_EQ(live.counts().missing_frames, lost);
  EXPECT_EQ(live.counts().gaps, gaps);
  EXPECT_EQ(live.counts().frames, 1000 - lost);
  EXPECT_EQ(live.counts().lost_events, 0);

  ASSERT_EQ(static_cast<std::int64_t>(told.size()), gaps);
  EXPECT_EQ(told[0].label.text(), "gap");
  EXPECT_EQ(told[0].onset_s, 2.0);
  double told_frames = 0;
  for (auto& e : told) told_frames += e.value;
  EXPECT_EQ(told_frames, static_cast<double>(lost));

  // the same as a recording in which these frames are NaN: later frames and events keep their place
  holed.streams = {memory_stream("spikes", x, 100.0, 2.0)};
  expect_same(offline(holed, Scalar::f64, nodes()), out, "after losses");
}

TEST(LiveRunner, LateAndRepeatedPacketsAreDroppedAndCounted) {
  const Recording r = recording(100);
  const auto specs = std::vector{node("scaled", "zscore", {"spikes"})};
  const Outputs truth = offline(r, Scalar::f64, specs);
  LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, specs, {.precision = Scalar::f64, .block = 8});
  Outputs out;
  live.on_output("scaled", out["scaled"].sink());
  const Eigen::MatrixXd x = r.streams[0].matrix();
  const Event e{.onset_s = 2.05, .label = Label::of("go")};
  constexpr std::int64_t kStart = 1000000;  // a device counts from when it was switched on
  auto push = [&](std::int64_t first, Index n, std::span<const Event> events = {}) {
    live.push(
        {.x = ConstFrames(x.data() + 5 * first, Scalar::f64, 5, n, 5), .counter = kStart + first, .events = events});
  };
  push(0, 10, {&e, 1});
  push(0, 10, {&e, 1});  // a duplicate
  push(2, 5);            // long known
  push(5, 10, {&e, 1});  // half of it known
  push(15, 85);
  EXPECT_EQ(live.counts().duplicate_packets, 2);
  EXPECT_EQ(live.counts().repeated_frames, 5);
  EXPECT_EQ(live.counts().lost_events, 2);
  EXPECT_EQ(live.counts().packets, 3);
  EXPECT_EQ(live.counts().frames, 100);
  EXPECT_EQ(live.counts().gaps, 0);
  EXPECT_EQ(truth.at("scaled").bytes, out["scaled"].bytes);
  EXPECT_EQ(out["scaled"].events.size(), 1u);

  push(100, 0);                                                                            // nothing in it
  live.push({.x = ConstFrames(x.data(), Scalar::f64, 4, 1, 5), .counter = kStart + 100});  // too few rows
  live.push({.x = ConstFrames(x.data(), Scalar::f64, 5, 1, 5), .counter = kStart + 100}, 1);
  live.push({.x = ConstFrames(x.data(), Scalar::f64, 5, 1, 5), .counter = kStart + 100}, -1);
  push(100 + 60 * 100 + 1, 1);  // a minute and a frame ahead
  for (auto counter : {std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min()})
    live.push({.x = ConstFrames(x.data(), Scalar::f64, 5, 1, 5), .counter = counter});
  EXPECT_EQ(live.counts().refused_packets, 7);
  EXPECT_EQ(live.counts().gaps, 0);
  push(0, 1, {&e, 1});
  EXPECT_EQ(live.counts().duplicate_packets, 3);
  EXPECT_EQ(live.counts().packets, 3);
}

TEST(LiveRunner, AllocatesNothingInPush) {
  if (!AllocationCounter::available()) GTEST_SKIP() << "allocations cannot be counted under a sanitizer";
  const Recording r = recording();
  for (Scalar precision : {Scalar::f32, Scalar::f64}) {
    LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, nodes(),
                    {.precision = precision, .block = 16, .first_counter = 0});
    std::int64_t seen = 0, allocations = 0, pushes = 0;
    live.on_output("cut", [&](const Block& b) { seen += b.x.frames; });
    live.on_event([&](const Event&) { ++seen; });
    replay(r, "spikes", {.packet = 40, .random = 3}, [&](const Packet& p) {
      if (++pushes % 7 == 1) return;  // lost, the first one too
      if (pushes == 20) {
        auto other = std::make_shared<Model>(*sample_model("kalman"));
        other->set("C", 1.1 * other->matrix("C"));
        live.swap("filtered", other);
      }
      if (pushes == 22) live.mask(0, 1, true);
      if (pushes == 24) live.post({.onset_s = 3});
      AllocationCounter counter;
      live.push(p);
      allocations += counter.count();
    });
    EXPECT_EQ(allocations, 0) << name_of(precision);
    EXPECT_GT(seen, 5);
    EXPECT_EQ(live.counts().swaps, 1);
  }
}

// what a masked row gives is what it would give had the device sent NaN there
TEST(LiveRunner, AMaskedRowIsMissingFromTheNextBlockOn) {
  const Recording r = recording(100);
  Eigen::MatrixXd x = r.streams[0].matrix();
  const auto specs = std::vector{node("scaled", "zscore", {"spikes"}), node("filtered", "kalman", {"scaled"})};
  LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, specs, {.precision = Scalar::f64, .block = 8});
  Outputs out;
  std::vector<Event> told;
  for (auto& n : specs) live.on_output(n.name, out[n.name].sink());
  live.on_event([&](const Event& e) { told.push_back(e); });
  for (Index t = 0; t < 100; ++t) {
    if (t == 30) std::thread([&] { live.mask(0, 2, true); }).join();
    if (t == 40) live.mask(0, 4, true);
    if (t == 60) live.mask(0, 2, false);
    live.push({.x = ConstFrames(x.data() + 5 * t, Scalar::f64, 5, 1, 5), .counter = t});
  }
  live.finish();
  ASSERT_EQ(told.size(), 3u);
  EXPECT_EQ(told[0].label.text(), "mask");
  EXPECT_EQ(told[0].row, 2);
  EXPECT_NEAR(told[0].onset_s, 2.3, 1e-12);
  EXPECT_EQ(told[1].row, 4);
  EXPECT_EQ(told[2].label.text(), "unmask");
  EXPECT_NEAR(told[2].onset_s, 2.6, 1e-12);

  Recording masked = r;
  x.row(2).segment(30, 30).setConstant(std::numeric_limits<double>::quiet_NaN());
  x.row(4).tail(60).setConstant(std::numeric_limits<double>::quiet_NaN());
  masked.streams = {memory_stream("spikes", x, 100.0, 2.0)};
  masked.events.clear();
  expect_same(offline(masked, Scalar::f64, specs), out, "masked");
  for (Index row : {-1, 5})
    EXPECT_THAT(message_of<ConfigError>([&] { live.mask(0, row, true); }), HasSubstr("a row from 0 to 4"));
  EXPECT_THAT(message_of<ConfigError>([&] { live.mask(1, 0, true); }), HasSubstr("an input from 0 to 0"));
}

TEST(LiveRunner, EventsFromOutsideComeWithTheNextBlock) {
  const Recording r = recording(100);
  const Eigen::MatrixXd x = r.streams[0].matrix();
  LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, {node("scaled", "zscore", {"spikes"})},
                  {.precision = Scalar::f64, .block = 8});
  Outputs out;
  live.on_output("scaled", out["scaled"].sink());
  const Event own{.onset_s = 2.051, .id = 1, .label = Label::of("go")};
  for (Index t = 0; t < 10; ++t) {
    if (t == 5) {
      EXPECT_TRUE(live.post({.onset_s = 2.05, .id = 7, .label = Label::of("target")}));
    }
    live.push({.x = ConstFrames(x.data() + 5 * t, Scalar::f64, 5, 1, 5),
               .counter = t,
               .events = t == 5 ? std::span(&own, 1) : std::span<const Event>()});
  }
  ASSERT_EQ(out["scaled"].events.size(), 2u);
  EXPECT_EQ(out["scaled"].events[0].id, 1);
  EXPECT_EQ(out["scaled"].events[1].id, 7);
  int taken = 0;
  while (live.post({.onset_s = 2})) ++taken;
  EXPECT_EQ(taken, 64);
}

// every frame is in one step, steps are told before their outputs, and pieces and missing frames say what they are
TEST(LiveRunner, TellsEveryStep) {
  const Recording r = recording(100);
  const Eigen::MatrixXd x = r.streams[0].matrix();
  LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, {node("scaled", "zscore", {"spikes"})},
                  {.precision = Scalar::f64, .block = 8});
  std::vector<LiveStep> steps;
  std::vector<std::size_t> outputs_at;
  live.on_step([&](const LiveStep& s) { steps.push_back(s); });
  live.on_output("scaled", [&](const Block&) { outputs_at.push_back(steps.size()); });
  const auto push = [&](std::int64_t first, Index n) {
    return live.push({.x = ConstFrames(x.data() + 5 * first, Scalar::f64, 5, n, 5), .counter = first});
  };
  EXPECT_EQ(push(0, 3), Fate::used);
  EXPECT_EQ(push(0, 3), Fate::duplicate);
  EXPECT_EQ(push(2, 11), Fate::used);  // one frame is known; ten in two pieces
  EXPECT_EQ(push(16, 4), Fate::used);  // three are missing
  live.give_up(2);
  const std::vector<std::array<std::int64_t, 4>> truth{
      // first, frames, packet, offset
      {0, 3, 0, 0}, {3, 8, 2, 1}, {11, 2, 2, 9}, {13, 3, -1, 0}, {16, 4, 3, 0}, {20, 2, -1, 0}};
  ASSERT_EQ(steps.size(), truth.size());
  for (std::size_t i = 0; i < truth.size(); ++i) {
    EXPECT_EQ(steps[i].first_frame, truth[i][0]) << i;
    EXPECT_EQ(steps[i].frames, truth[i][1]) << i;
    EXPECT_EQ(steps[i].packet, truth[i][2]) << i;
    EXPECT_EQ(steps[i].offset, truth[i][3]) << i;
    EXPECT_EQ(outputs_at[i], i + 1);
  }
  EXPECT_EQ(live.next_frame(0), 22);
  EXPECT_EQ(live.first_counter(0), 0);
}

TEST(LiveRunner, EveryNodeIsTimed) {
  const Recording r = recording(100);
  const std::vector specs{node("scaled", "zscore", {"spikes"}), node("filtered", "kalman", {"scaled"})};
  auto queued = specs;
  queued[1].queue = "block";
  for (auto& nodes : {specs, queued}) {
    LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, nodes, {.block = 8, .time_nodes = true});
    replay(r, "spikes", {.packet = 4}, [&](const Packet& p) { live.push(p); });
    live.finish();
    ASSERT_EQ(live.node_times().size(), 2u);
    EXPECT_EQ(live.node_times()[0].node, "scaled");
    EXPECT_EQ(live.node_times()[1].node, "filtered");
    for (auto& t : live.node_times()) {
      EXPECT_EQ(t.took->count(), 25) << t.node;
      EXPECT_GT(t.took->max_s(), 0);
    }
  }
}

TEST(LiveRunner, SwapInMidStreamEqualsTheTruth) {
  const Recording r = recording();
  auto other = std::make_shared<Model>(*sample_model("kalman"));
  other->set("C", 1.3 * other->matrix("C"));
  const auto specs = std::vector{node("scaled", "zscore", {"spikes"}), node("filtered", "kalman", {"scaled"})};
  auto with_other = specs;
  with_other[1].model = other;

  // the truth: the state of the first graph handed to one made with the other model
  constexpr Index kSwap = 437;
  const Eigen::MatrixXd x = r.streams[0].matrix();
  auto block = [&](Index first, Index n) {
    return Block{
        .x = ConstFrames(x.data() + 5 * first, Scalar::f64, 5, n, 5), .first_frame = first, .keys = {}, .events = {}};
  };
  Graph a(registry(), {{"spikes", r.streams[0].format}}, specs, Scalar::f64, 1000, {});
  Graph b(registry(), {{"spikes", r.streams[0].format}}, with_other, Scalar::f64, 1000, {});
  Taken truth, unswapped;
  a.on_output(a.index_of("filtered"), truth.sink());
  a.push(0, block(0, kSwap));
  b.restore_state(a.save_state());
  b.on_output(b.index_of("filtered"), truth.sink());
  b.push(0, block(kSwap, 1000 - kSwap));

  LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, specs, {.precision = Scalar::f64, .block = 16});
  Taken out;
  std::vector<Event> told;
  live.on_output("filtered", out.sink());
  live.on_event([&](const Event& e) { told.push_back(e); });
  for (Index t = 0; t < 1000; ++t) {
    // a model may be made ready by another thread
    if (t == kSwap) std::thread([&] { EXPECT_EQ(live.swap("filtered", other), 1); }).join();
    live.push({.x = block(t, 1).x, .counter = t});
  }
  EXPECT_TRUE(out == truth);
  EXPECT_EQ(live.counts().swaps, 1);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].label.text(), "swap filtered");
  EXPECT_EQ(told[0].id, 1);
  EXPECT_NEAR(told[0].onset_s, 2.0 + kSwap / 100.0, 1e-12);

  LiveRunner plain(registry(), {{"spikes", r.streams[0].format}}, specs, {.precision = Scalar::f64, .block = 1000});
  plain.on_output("filtered", unswapped.sink());
  plain.push({.x = block(0, 1000).x, .counter = 0});
  EXPECT_FALSE(out == unswapped) << "the other model should matter";
}

// models that were fitted together are put in between the same two packets; one that was overtaken never runs
TEST(LiveRunner, ModelsAreSwappedTogether) {
  const Recording r = recording(100);
  const Eigen::MatrixXd x = r.streams[0].matrix();
  LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, nodes(), {.precision = Scalar::f64, .block = 16});
  std::vector<Event> told;
  live.on_event([&](const Event& e) { told.push_back(e); });
  const auto push = [&](Index t) {
    const Eigen::VectorXd frame = x.col(t);
    live.push({.x = ConstFrames(frame.data(), Scalar::f64, 5, 1, 5), .counter = t});
  };
  for (Index t = 0; t < 10; ++t) push(t);
  std::vector<std::pair<std::int64_t, std::string>> announced;
  const auto announce = [&](std::int64_t number, const LiveRunner::NewModel& m) {
    announced.emplace_back(number, m.node);
  };
  EXPECT_EQ(live.swap("linear", sample_model("ridge")), 1);
  EXPECT_EQ(live.swap({{"scaled", sample_model("zscore")}, {"filtered", sample_model("kalman")}}, announce), 2);
  EXPECT_EQ(live.swap({{"filtered", sample_model("kalman")}}), 4);
  EXPECT_THAT(announced, ElementsAre(std::pair{std::int64_t{2}, "scaled"}, std::pair{std::int64_t{3}, "filtered"}));
  EXPECT_TRUE(told.empty());
  push(10);
  ASSERT_EQ(told.size(), 3u);
  std::map<std::string, std::int64_t> numbers;
  for (auto& e : told) {
    numbers[e.label.text()] = e.id;
    EXPECT_NEAR(e.onset_s, 2.1, 1e-12);
  }
  EXPECT_THAT(numbers,
              ElementsAre(std::pair{"swap filtered", 4}, std::pair{"swap linear", 1}, std::pair{"swap scaled", 2}));
  push(11);
  EXPECT_EQ(told.size(), 3u);
  EXPECT_THAT(message_of<ConfigError>([&] {
                live.swap({{"scaled", sample_model("zscore")}, {"past", sample_model("zscore")}});
              }),
              HasSubstr("a node with a model"));
  // all or none
  push(12);
  EXPECT_EQ(told.size(), 3u);

  auto queued = nodes();
  queued[1].queue = "block";
  LiveRunner two(registry(), {{"spikes", r.streams[0].format}}, {queued[0], queued[1]}, {.precision = Scalar::f64});
  EXPECT_THAT(message_of<ConfigError>([&] {
                two.swap({{"scaled", sample_model("zscore")}, {"filtered", sample_model("kalman")}});
              }),
              HasSubstr("nodes of one thread"));
}

// what the thread of push() tells comes to the graph with the next block, and at the end to whoever listens
TEST(LiveRunner, TellsTheGraphOfEventsWithoutALock) {
  const Recording r = recording(10);
  const Eigen::MatrixXd x = r.streams[0].matrix();
  LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, {node("scaled", "zscore", {"spikes"})},
                  {.precision = Scalar::f64});
  std::vector<std::string> with_blocks, at_the_end;
  live.on_step([&](const LiveStep& s) {
    for (auto& e : s.events) with_blocks.push_back(e.label.text());
  });
  live.on_event([&](const Event& e) { at_the_end.push_back(e.label.text()); });
  const auto push = [&](Index t) {
    const Eigen::VectorXd frame = x.col(t);
    live.push({.x = ConstFrames(frame.data(), Scalar::f64, 5, 1, 5), .counter = t});
  };
  push(0);
  EXPECT_TRUE(live.tell({.onset_s = 2.0, .label = Label::of("a")}));
  EXPECT_TRUE(live.post({.onset_s = 2.0, .label = Label::of("b")}));
  EXPECT_TRUE(with_blocks.empty());
  push(1);
  EXPECT_THAT(with_blocks, ElementsAre("a", "b"));
  int fit = 0;
  while (live.tell({.onset_s = 2.01, .label = Label::of("c")})) ++fit;
  EXPECT_EQ(fit, 64);
  EXPECT_EQ(live.counts().lost_events, 1);
  live.finish();
  EXPECT_EQ(at_the_end.size(), 64u);
  EXPECT_EQ(with_blocks.size(), 2u);
}

TEST(LiveRunner, ModelsMayBeSwappedWhileItRuns) {
  const Recording r = recording(100);
  const Eigen::MatrixXd x = r.streams[0].matrix();
  LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, nodes(), {.precision = Scalar::f64, .block = 16});
  std::int64_t told = 0;
  live.on_event([&](const Event&) { ++told; });
  std::atomic<bool> done = false;
  std::thread other([&] {
    for (int i = 0; i < 20; ++i) live.swap(i % 2 ? "filtered" : "linear", sample_model(i % 2 ? "kalman" : "ridge"));
    done = true;
  });
  std::int64_t counter = 0;
  for (bool last = false; !last; ++counter) {
    last = done;  // one more packet after the last swap
    live.push({.x = ConstFrames(x.data() + 5 * (counter % 100), Scalar::f64, 5, 1, 5), .counter = counter});
  }
  other.join();
  EXPECT_GE(live.counts().swaps, 2) << "the last model of each node is always taken";
  EXPECT_LE(live.counts().swaps, 20);
  EXPECT_EQ(told, live.counts().swaps);
  EXPECT_EQ(live.counts().frames, counter);
}

TEST(LiveRunner, RefusesAWrongSwap) {
  const Recording r = recording(10);
  LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, nodes(), {.precision = Scalar::f64});
  auto message = [&](const std::string& name, std::shared_ptr<const Model> model) -> std::string {
    try {
      live.swap(name, model);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(message("past", sample_model("ridge")), HasSubstr("a node with a model"));
  EXPECT_THAT(message("spikes", sample_model("ridge")), HasSubstr("a node with a model"));
  EXPECT_THAT(message("lineer", sample_model("ridge")), HasSubstr("did you mean 'linear'"));
  EXPECT_THAT(message("linear", sample_model("kalman")), HasSubstr("ridge"));
  EXPECT_THAT(message("linear", nullptr), HasSubstr("a fitted model"));
  EXPECT_EQ(live.counts().swaps, 0);
}

TEST(LiveRunner, RefusesWhatIsNotCausalRealTimeOrClocked) {
  const Recording r = recording(10);
  auto message = [&](std::vector<NodeSpec> specs, LiveOptions o = {},
                     StreamFormat f = time_format(5, 100.0)) -> std::string {
    try {
      LiveRunner live(registry(), {{"spikes", f}}, std::move(specs), o);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  auto zero_phase = node("smooth", "fir_zero_phase", {"spikes"},
                         Value::object({{"pass", "low"}, {"high_hz", 10.0}, {"transition_hz", 20.0}}));
  zero_phase.where = "a.toml:3: smooth";
  EXPECT_EQ(message({zero_phase}),
            "a.toml:3: smooth.use = \"fir_zero_phase\": expected a causal stage when live: \"fir\"");
  EXPECT_THAT(message({node("late", "slow", {"spikes"})}),
              HasSubstr("late.use = \"slow\": expected a real-time stage"));
  EXPECT_EQ(message({node("late", "slow", {"spikes"})}, {.require_real_time = false}), "");
  EXPECT_THAT(message({node("late", "slow", {"spikes"})}, {.require_real_time = false}, item_format({5})),
              HasSubstr("a stream with a clock"));
  EXPECT_THAT(message({}, {.max_gap_s = -1}), HasSubstr("max_gap_s = -1"));
  EXPECT_THAT(message({}, {.max_gap_s = std::nan("")}), HasSubstr("max_gap_s = nan"));
  LiveRunner live(registry(), {{"spikes", r.streams[0].format}}, {node("scaled", "zscore", {"spikes"})}, {});
  EXPECT_THROW(live.on_output("scalded", {}), ConfigError);
  EXPECT_THROW(live.format("scalded"), ConfigError);
  EXPECT_EQ(live.format("scaled").size(), 5);
}

TEST(LiveRunner, EachInputHasItsOwnCounter) {
  const KeyedRandom random(2, "two inputs");
  Eigen::MatrixXd x(5, 60), y(2, 60);
  for (Index t = 0; t < 60; ++t) {
    for (Index i = 0; i < 5; ++i) x(i, t) = random.normal(t, static_cast<std::uint64_t>(i));
    for (Index i = 0; i < 2; ++i) y(i, t) = random.normal(t, static_cast<std::uint64_t>(10 + i));
  }
  auto both = node("both", "lag", {"x", "y"}, Value::object({{"lags", 1}}));
  LiveRunner live(registry(), {{"x", time_format(5, 100.0)}, {"y", time_format(2, 100.0)}}, {both},
                  {.precision = Scalar::f64, .block = 4});
  Taken out;
  live.on_output("both", out.sink());
  for (Index t = 0; t < 60; ++t) {
    if (t != 30) live.push({.x = ConstFrames(x.data() + 5 * t, Scalar::f64, 5, 1, 5), .counter = 100 + t}, 0);
    live.push({.x = ConstFrames(y.data() + 2 * t, Scalar::f64, 2, 1, 2), .counter = 7000 + t}, 1);
  }
  ASSERT_EQ(out.frames, 60);
  EXPECT_EQ(live.counts().missing_frames, 1);
  for (Index t = 0; t < 60; ++t) {
    if (t != 30) EXPECT_EQ(out.value(t, 4, 14), x(4, t));
    else EXPECT_TRUE(std::isnan(out.value(t, 4, 14)));
    EXPECT_EQ(out.value(t, 5, 14), y(0, t));
  }
}

}  // namespace
}  // namespace percept
