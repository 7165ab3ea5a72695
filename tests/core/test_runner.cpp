/// The offline runner: the same graph with several blocks in flight.
#include "core/runner.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>

#include "tests/core/ground.h"
#include "tests/support/data.h"

namespace percept::testing {
namespace {

using ::testing::HasSubstr;

RunOptions options(Index block, int threads, int tokens = 4) {
  RunOptions o;
  o.precision = Scalar::f64;
  o.block = block;
  o.threads = threads;
  o.tokens = tokens;
  return o;
}

struct Result {
  std::vector<Caught> caught{kGroundEdges.size()};
  std::map<std::string, StreamFormat> formats;
};

Result run(const Recording& r, RunOptions o) {
  Result result;
  std::map<std::string, SinkFn> sinks;
  for (std::size_t i = 0; i < kGroundEdges.size(); ++i) sinks[kGroundEdges[i]] = result.caught[i].sink();
  result.formats = run_offline(registry(), r, ground_nodes(), o, sinks);
  return result;
}

/// Every edge of the ground, for each of these blocks and several threads and tokens, against a serial push.
void expect_same_bits(Index frames, std::initializer_list<Index> blocks) {
  const auto r = ground_recording(frames);
  Graph graph(registry(), {{"x", r.streams[0].format}}, ground_nodes(), Scalar::f64, 37, Context{});
  std::vector<Caught> serial(kGroundEdges.size());
  for (std::size_t i = 0; i < serial.size(); ++i) graph.on_output(graph.index_of(kGroundEdges[i]), serial[i].sink());
  push_all(graph, r, 37, 0, frames);
  graph.flush();
  ASSERT_FALSE(serial[3].keys.empty());
  for (Index block : blocks)
    for (auto [threads, tokens] : {std::pair{1, 1}, {2, 2}, {2, 3}, {2, 8}}) {
      const auto result = run(r, options(block, threads, tokens));
      for (std::size_t i = 0; i < serial.size(); ++i) {
        EXPECT_EQ(different(serial[i], result.caught[i]), "")
            << block << " " << threads << " " << tokens << " " << kGroundEdges[i];
        EXPECT_EQ(serial[i].events, result.caught[i].events) << block << " " << threads << " " << kGroundEdges[i];
        StreamFormat expected = graph.format(graph.index_of(kGroundEdges[i])),
                     given = result.formats.at(kGroundEdges[i]);
        expected.max_frames = given.max_frames;
        EXPECT_EQ(expected, given);
      }
    }
}
TEST(Runner, ThreadsTokensAndBlocksChangeNoBit) {
  expect_same_bits(21000, {37, 4096, 10007});
  expect_same_bits(1000, {1});
}

TEST(Runner, InputsOfTwoRatesAdvanceTogether) {
  Recording r;
  Eigen::MatrixXd fast(1, 3000), slow(1, 300);
  for (Index k = 0; k < 3000; ++k) fast(0, k) = static_cast<double>(k);
  for (Index k = 0; k < 300; ++k) slow(0, k) = static_cast<double>(10 * k);
  r.streams = {memory_stream("fast", fast, 1000, 1.0), memory_stream("slow", slow, 100, 1.0)};
  const std::vector<NodeSpec> nodes{
      node("thin", "decimate", {"fast"}, Value::object({{"factor", 10}, {"anti_alias", false}})),
      node("j", "transform", {"thin", "slow"}, Value::object({{"function", "abs"}}))};
  for (int threads : {1, 2}) {
    Caught c;
    run_offline(registry(), r, nodes, options(64, threads), {{"j", c.sink()}});
    ASSERT_EQ(c.matrix().cols(), 300);
    EXPECT_EQ(c.matrix().row(0), c.matrix().row(1));
  }
}

TEST(Runner, AWholeRecordingStageInRowTilesEqualsTheDirectOne) {
  // 40 rows of 200 000 frames: tiles of 13 rows, each above its share of memory and so on disk
  const Index frames = 200000;
  const std::vector<double> taps{0.1, 0.2, 0.4, 0.2, 0.1};
  Recording r;
  r.streams = {memory_stream("x", noise(40, frames), 250, 0.5)};
  const auto zero = node("zero", "fir_zero_phase", {"x"}, Value::object({{"taps", Value(taps)}}));
  const auto after = node("after", "transform", {"zero"}, Value::object({{"function", "abs"}}));
  Caught tiled, last;
  const auto folder = temporary_folder();
  auto o = options(4096, 2);
  o.spool = folder.string();
  const auto formats = run_offline(registry(), r, {zero, after}, o, {{"zero", tiled.sink()}, {"after", last.sink()}});
  EXPECT_EQ(formats.at("zero").start_s, 0.5);
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  Graph graph(registry(), {{"x", r.streams[0].format}}, {zero}, Scalar::f64, 4096, Context{});
  Caught direct;
  graph.on_output(1, direct.sink());
  push_all(graph, r, 4096, 0, frames);
  graph.flush();
  ASSERT_EQ(direct.next, frames);
  EXPECT_EQ(different(tiled, direct), "");
  EXPECT_EQ(last.matrix().rightCols(1000).leftCols(900), direct.matrix().rightCols(1000).leftCols(900).cwiseAbs());
}

TEST(Runner, ABlockOfManyRowsHasFewerFrames) {
  struct Zeros final : SampleSource {
    std::int64_t frames() const override { return 10; }
    void read(std::int64_t, MutableFrames out) const override {
      most = std::max(most, out.frames);
      for (Index k = 0; k < out.frames; ++k)
        std::memset(out.slice(k, 1).data, 0, static_cast<std::size_t>(out.rows) * bytes_of(out.scalar));
    }
    mutable Index most = 0;
  };
  const Index rows = kBlockBytes / 4 / 3;  // three frames in f32, one in f64
  Recording r;
  const auto zeros = std::make_shared<Zeros>();
  r.streams.push_back({"x", time_format(rows, 1.0), zeros, {}});
  for (auto [precision, frames] : {std::pair(Scalar::f32, Index{3}), {Scalar::f64, Index{1}}}) {
    zeros->most = 0;
    RunOptions o;
    o.precision = precision;
    std::int64_t given = 0;
    run_offline(registry(), r, {}, o, {{"x", [&](const Block& b) {
                                          EXPECT_LE(b.x.frames, frames);
                                          given += b.x.frames;
                                        }}});
    EXPECT_EQ(zeros->most, frames);
    EXPECT_EQ(given, 10);
  }
}

TEST(Runner, ACancelledRunThrowsInterrupted) {
  const auto r = ground_recording(20000);
  for (int threads : {1, 2}) {
    std::atomic<int> asked{0};
    auto o = options(100, threads);
    o.cancelled = [&] { return ++asked > 5; };
    Caught c;
    EXPECT_THROW(run_offline(registry(), r, ground_nodes(), o, {{"joined", c.sink()}}), Interrupted);
    EXPECT_LT(c.next, 2000);
  }
}

TEST(Runner, WhatASinkThrowsComesOut) {
  const auto r = ground_recording(20000);
  for (int threads : {1, 2}) {
    int calls = 0;
    auto sink = [&](const Block& b) {
      ++calls;
      if (b.first_frame > 1000) throw std::runtime_error("the disk is full");
    };
    EXPECT_EQ(message_of<std::runtime_error>([&] {
                run_offline(registry(), r, ground_nodes(), options(100, threads), {{"joined", sink}});
              }),
              "the disk is full");
    EXPECT_LT(calls, 20);  // and no sink is called after it
  }
}

TEST(Runner, AnErrorOfTheSourceComesOut) {
  struct Broken final : SampleSource {
    std::int64_t frames() const override { return 5000; }
    void read(std::int64_t first, MutableFrames) const override {
      if (first > 1000) throw DataError("x.bin", "frames", "readable data", "a hole");
    }
  };
  auto r = ground_recording(100);
  r.streams[0].samples = std::make_shared<Broken>();
  for (int threads : {1, 2}) {
    Caught c;
    EXPECT_EQ(message_of<DataError>([&] {
                run_offline(registry(), r, ground_nodes(), options(100, threads), {{"slow", c.sink()}});
              }),
              "x.bin: frames: expected readable data, found a hole");
  }
}

TEST(Runner, RunsOnlyWhatIsWantedAndNamesWhatIsNotThere) {
  const auto r = ground_recording(300);
  auto nodes = ground_nodes();
  nodes.push_back(node("broken", "ridge", {"x"}));  // has no model, and nobody asks for it
  Caught c;
  run_offline(registry(), r, nodes, {}, {{"fast", c.sink()}});
  EXPECT_EQ(c.next, 300);
  EXPECT_THAT(message_of<ConfigError>([&] {
                run_offline(registry(), r, nodes, {}, {{"none", c.sink()}});
              }),
              HasSubstr("none: expected a node or stream to take frames from"));
  EXPECT_EQ(input_names(r, nodes), std::vector<std::string>{"x"});
  EXPECT_EQ(edge_format(registry(), r, nodes, {}, "slower").rate_hz, 50);
  Caught input;
  run_offline(registry(), r, {}, options(100, 1), {{"x", input.sink()}});
  EXPECT_EQ(input.matrix(), r.streams[0].matrix());
}

TEST(Runner, DroppedItemsAreCountedAndProgressEndsAtOne) {
  auto items = [](const char* name, std::int64_t step) {
    Stream s = memory_stream(name, noise(1, 100), 1);
    s.format = item_format({1});
    for (std::int64_t k = 0; k < 100; ++k) s.keys.push_back(step * k);
    return s;
  };
  Recording r;
  r.streams = {items("a", 2), items("b", 3)};
  Counters counters;
  double last = 0;
  auto o = options(7, 2);
  o.counters = &counters;
  o.progress = [&](double f, std::string_view) {
    EXPECT_GE(f, last);
    last = f;
  };
  Caught c;
  run_offline(registry(), r, {node("j", "transform", {"a", "b"}, Value::object({{"function", "abs"}}))}, o,
              {{"j", c.sink()}});
  EXPECT_EQ(last, 1.0);
  ASSERT_EQ(c.keys.size(), 34u);  // 0, 6, ..., 198
  EXPECT_EQ(c.keys.back(), 198);
  EXPECT_GT(counters.get("graph", "dropped_items").value(), 90);
}

}  // namespace
}  // namespace percept::testing
