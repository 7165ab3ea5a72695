/// The graph, pushed block by block as the live runner does.
#include <cmath>
#include <limits>
#include <memory>

#include "tests/core/ground.h"
#include "tests/support/alloc.h"

namespace percept::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr Index kFrames = 20000;

std::unique_ptr<Graph> graph_of(const Recording& r, std::vector<NodeSpec> nodes, Index block,
                                Scalar precision = Scalar::f64) {
  std::vector<InputSpec> inputs;
  for (auto& s : r.streams) inputs.push_back({s.name, s.format});
  return std::make_unique<Graph>(registry(), inputs, std::move(nodes), precision, block, Context{});
}

struct Ground {
  std::unique_ptr<Graph> graph;
  std::vector<Caught> caught{kGroundEdges.size()};
  Ground(const Recording& r, Index block, Scalar precision = Scalar::f64)
      : graph(graph_of(r, ground_nodes(), block, precision)) {
    for (std::size_t i = 0; i < kGroundEdges.size(); ++i)
      graph->on_output(graph->index_of(kGroundEdges[i]), caught[i].sink());
  }
};

void expect_same(const std::vector<Caught>& a, const std::vector<Caught>& b, const std::string& what) {
  for (std::size_t i = 0; i < a.size(); ++i)
    EXPECT_EQ(different(a[i], b[i]), "") << what << ", edge " << kGroundEdges[i];
}

class AnyPartition : public ::testing::TestWithParam<Scalar> {};
TEST_P(AnyPartition, GivesTheSameBits) {
  const auto r = ground_recording(kFrames);
  Ground whole(r, kFrames, GetParam());
  push_all(*whole.graph, r, kFrames, 0, kFrames);
  whole.graph->flush();
  ASSERT_GT(whole.caught[3].keys.size(), 100u);
  for (Index block : {1, 37, 10007}) {
    Ground g(r, block, GetParam());
    push_all(*g.graph, r, block, 0, kFrames);
    g.graph->flush();
    expect_same(whole.caught, g.caught, "blocks of " + std::to_string(block));
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(whole.caught[i].events, g.caught[i].events) << block;
  }
  Ground random(r, 300, GetParam());
  push_all(*random.graph, r, 300, 0, kFrames, true);
  random.graph->flush();
  expect_same(whole.caught, random.caught, "random blocks");
  for (Index block : {1, 37}) {
    Ground late(r, block, GetParam());
    push_all(*late.graph, r, block, 0, kFrames, false, 60);
    late.graph->flush();
    expect_same(whole.caught, late.caught, "late markers");
  }
}
INSTANTIATE_TEST_SUITE_P(Graph, AnyPartition, ::testing::Values(Scalar::f32, Scalar::f64));

TEST(Graph, EveryEventCrossesAJoinOnce) {
  const auto r = ground_recording(5000);
  Ground g(r, 37);
  push_all(*g.graph, r, 37, 0, 5000);
  g.graph->flush();
  const auto& joined = g.caught[1].events;
  const double end = g.graph->format(g.graph->index_of("joined")).time_of(g.caught[1].next);
  std::size_t expected = 0;
  for (auto& e : r.events) expected += e.onset_s < end;
  ASSERT_EQ(joined.size(), expected);
  for (std::size_t i = 0; i < joined.size(); ++i) {
    EXPECT_EQ(joined[i].id, static_cast<std::int64_t>(i));
    EXPECT_EQ(joined[i].onset_s, r.events[i].onset_s);
  }
}

TEST(Graph, AnEmptyBlockMayBringALateMarker) {
  const auto r = ground_recording(2000);
  Ground with(r, 10), without(r, 10);
  push_all(*with.graph, r, 10, 0, 2000);
  Recording quiet = r;
  quiet.events.clear();
  for (std::size_t i = 0; i < r.events.size(); ++i) {
    const Index from = i ? r.streams[0].format.nearest_frame(r.events[i - 1].onset_s) + 10 : 0;
    const Index to = std::min<Index>(2000, r.streams[0].format.nearest_frame(r.events[i].onset_s) + 10);
    push_all(*without.graph, quiet, 10, from, to);
    Block b;
    b.x = ConstFrames(nullptr, Scalar::f64, 3, 0, 3);
    b.first_frame = to;
    b.events = std::span(r.events).subspan(i, 1);
    if (i % 2) without.graph->push(0, b);
    else without.graph->push(std::span(&b, 1));
  }
  push_all(*without.graph, quiet, 10, r.streams[0].format.nearest_frame(r.events.back().onset_s) + 10, 2000);
  with.graph->flush();
  without.graph->flush();
  ASSERT_GT(with.caught[3].keys.size(), 5u);
  EXPECT_EQ(different(with.caught[3], without.caught[3]), "");
}

/// x[k] = k: a symmetric kernel that sums to one gives the time of its frame again.
TEST(Graph, AJoinOfThreeLatenciesIsAlignedToTheFrame) {
  Recording r;
  Eigen::MatrixXd ramp(1, 2000);
  for (Index k = 0; k < 2000; ++k) ramp(0, k) = static_cast<double>(k);
  r.streams = {memory_stream("x", ramp, 100, 5.0)};
  std::vector<double> far(201, 0.0);
  far.front() = far.back() = 0.5;
  const std::vector<NodeSpec> nodes{
      fir("near", "x", {0.25, 0.5, 0.25}), fir("far", "x", far),
      node("join", "transform", {"far", "x", "near"}, Value::object({{"function", "abs"}}))};
  for (Index block : {1, 37, 2000}) {
    auto g = graph_of(r, nodes, block);
    Caught c;
    const int i = g->index_of("join");
    g->on_output(i, c.sink());
    push_all(*g, r, block, 0, 2000);
    g->flush();
    EXPECT_DOUBLE_EQ(g->latency_s(i), 1.0);
    EXPECT_EQ(g->memory_frames(i), 200);
    const auto y = c.matrix();
    ASSERT_EQ(y.rows(), 3);
    ASSERT_EQ(y.cols(), 1900) << block;  // from the latest start, that of x, to the end of the slowest branch
    int numbers = 0;
    for (Index k = 0; k < y.cols(); ++k) {
      const double frame = (g->format(i).time_of(k) - 5.0) * 100;
      EXPECT_NEAR(y(1, k), frame, 1e-9);
      for (Index row : {0, 2})
        if (!std::isnan(y(row, k))) {
          EXPECT_EQ(y(row, k), y(1, k)) << "row " << row << ", frame " << k;
          ++numbers;
        }
    }
    EXPECT_GT(numbers, 3500);
  }
}

/// A bump 100 ms after each marker, through FIR, decimation and epochs.
TEST(Graph, AnEvokedPeakStaysWhereItIs) {
  const Index frames = 30000;
  Recording r;
  r.streams = {memory_stream("x", Eigen::MatrixXd::Zero(1, frames), 1000, 0.25)};
  const std::vector<NodeSpec> nodes{
      node("low", "fir", {"x"}, Value::object({{"pass", "low"}, {"high_hz", 30.0}, {"transition_hz", 10.0}})),
      node("slower", "decimate", {"low"}, Value::object({{"factor", 4}})),
      node("epochs", "epochs", {"slower"}, Value::object({{"start_s", -0.1}, {"stop_s", 0.4}}))};
  const auto clock = graph_of(r, nodes, 100)->format(2);
  Eigen::MatrixXd x = Eigen::MatrixXd::Zero(1, frames);
  for (std::int64_t k = 200; k < 6500; k += 150 + k % 7) {
    r.events.push_back(event_at(clock.time_of(k), static_cast<std::int64_t>(r.events.size())));
    for (Index t = 0; t < frames; ++t) {
      const double d = r.streams[0].format.time_of(t) - (clock.time_of(k) + 0.1);
      if (std::abs(d) < 0.1) x(0, t) += std::exp(-0.5 * d * d / 1e-4);
    }
  }
  r.streams[0] = memory_stream("x", x, 1000, 0.25);
  auto g = graph_of(r, nodes, 64);
  Caught c;
  g->on_output(g->index_of("epochs"), c.sink());
  push_all(*g, r, 64, 0, frames);
  g->flush();
  ASSERT_GT(c.keys.size(), 30u);
  const Eigen::VectorXd mean = c.matrix().rowwise().mean();
  Index at = 0;
  mean.maxCoeff(&at);
  EXPECT_EQ(at, 50);  // (0.1 + 0.1) s at 250 Hz
  // the vertex of the parabola through the three highest samples
  const double offset = 0.5 * (mean[at - 1] - mean[at + 1]) / (mean[at - 1] - 2 * mean[at] + mean[at + 1]);
  EXPECT_LT(std::abs(offset) / 250, 1e-9) << "s";
}

TEST(Graph, ASwapInMidStreamIsTheTruth) {
  const auto r = ground_recording(3000);
  const Eigen::MatrixXd x = r.streams[0].matrix();
  const std::vector<double> a{0.25, 0.5, 0.25}, b{-1, 4, -1};
  const auto params = [](double s) { return Value::object({{"time_constant_s", s}}); };
  auto run = [&](const std::vector<double>& taps, double seconds, const std::function<void(Graph&)>& at_1500) {
    auto g = graph_of(r, {fir("f", "x", taps), node("z", "running_zscore", {"f"}, params(seconds))}, 37);
    std::pair<Caught, Caught> out;
    g->on_output(g->index_of("f"), out.first.sink());
    g->on_output(g->index_of("z"), out.second.sink());
    push_all(*g, r, 37, 0, 1480);
    at_1500(*g);
    push_all(*g, r, 37, 1480, 3000);
    return out;
  };
  auto nothing = [](Graph&) {};
  const auto old = run(a, 1, nothing).first.matrix(), fresh = run(b, 1, nothing).first.matrix();
  const auto swapped =
      run(a, 1, [&](Graph& g) {
        g.swap(g.index_of("f"), registry().at("fir", "").make(Value::object({{"taps", Value(b)}}), nullptr, "f"));
        EXPECT_EQ(g.swaps_done(), 0);  // between two blocks, not before
      }).first.matrix();
  ASSERT_EQ(swapped.cols(), 3000);
  EXPECT_EQ(swapped.middleCols(2, 1478), old.middleCols(2, 1478));
  EXPECT_EQ(swapped.rightCols(1520), fresh.rightCols(1520));  // a kernel's state is the input alone
  EXPECT_NE(old.rightCols(1520), fresh.rightCols(1520));

  // a recursion: the same by hand, with the state copied between two stages
  const auto z = run(a, 1, [&](Graph& g) {
    g.swap(g.index_of("z"), registry().at("running_zscore", "").make(params(0.1), nullptr, "z"));
  });
  auto first = registry().at("running_zscore", "").make(params(1), nullptr, "z");
  auto second = registry().at("running_zscore", "").make(params(0.1), nullptr, "z");
  Context context;
  StreamFormat f = time_format(3, 250, Scalar::f64);
  f.max_frames = 3000;
  first->prepare(f, context);
  second->prepare(f, context);
  const Eigen::MatrixXd in = z.first.matrix();
  Caught truth;
  Eigen::MatrixXd y(3, 3000);
  auto feed = [&](Stage& s, Index from, Index n) {
    Block block;
    block.x = ConstFrames(in.data() + 3 * from, Scalar::f64, 3, n, 3);
    Output o;
    o.y = MutableFrames(y.data() + 3 * from, Scalar::f64, 3, n, 3);
    EXPECT_EQ(s.process(block, o), n);
  };
  feed(*first, 0, 1480);
  std::vector<std::byte> scratch(state_bytes(*first));
  ASSERT_TRUE(copy_state(*first, *second, scratch));
  feed(*second, 1480, 1520);
  Block all;
  all.x = ConstFrames(y.data(), Scalar::f64, 3, 3000, 3);
  truth.sink()(all);
  EXPECT_EQ(different(z.second, truth), "");
  EXPECT_NE(different(z.second, run(a, 1, nothing).second), "");
}

/// Carries one number under a name of its own.
struct Named final : Stage {
  explicit Named(const char* n) : name(n) {}
  StreamFormat prepare(const StreamFormat& in, Context&) override { return in; }
  Index process(const Block&, Output&) noexcept override { return 0; }
  void reset() noexcept override { value = 0; }
  void visit_state(StateVisitor& v) noexcept override { v(name, value); }
  const char* name;
  double value = 0;
};

TEST(Graph, RefusesASwapWhoseStateIsOfTheSameSizeButAnother) {
  Named mean("mean"), variance("variance");
  EXPECT_EQ(state_bytes(mean), state_bytes(variance));
  EXPECT_NE(state_signature(mean), state_signature(variance));
  const auto r = ground_recording(100);
  auto g = graph_of(r, {node("z", "running_zscore", {"x"})}, 37);
  EXPECT_THAT(message_of<ConfigError>([&] { g->swap(g->index_of("z"), std::make_unique<Named>("mean")); }),
              HasSubstr("z: expected a stage whose state has the same arrays"));
  EXPECT_EQ(g->swaps_done(), 0);
}

TEST(Graph, RefusesASwapThatChangesTheEdge) {
  const auto r = ground_recording(100);
  auto g = graph_of(r, {fir("f", "x", {0.25, 0.5, 0.25})}, 37);
  auto make = [&](std::vector<double> taps) {
    return registry().at("fir", "").make(Value::object({{"taps", Value(taps)}}), nullptr, "f");
  };
  EXPECT_THAT(message_of<ConfigError>([&] {
                g->swap(1, make({0.2, 0.2, 0.2, 0.2, 0.2}));
              }),
              HasSubstr("f: expected a stage that gives"));
  EXPECT_THAT(message_of<ConfigError>([&] { g->swap(0, make({1})); }),
              HasSubstr("x: expected a node that can be swapped"));
  g->swap(1, make({0, 1, 0}));
  push_all(*g, r, 37, 0, 37);
  EXPECT_EQ(g->swaps_done(), 1);
}

std::string graph_refusal(const Recording& r, std::vector<NodeSpec> nodes) {
  return message_of<ConfigError>([&] { graph_of(r, std::move(nodes), 10); });
}

TEST(Graph, RefusesBadJoins) {
  Recording r;
  r.streams = {memory_stream("x", noise(2, 10), 100), memory_stream("slow", noise(2, 10), 50),
               memory_stream("off", noise(2, 10), 100, 0.004)};
  Stream items = memory_stream("items", noise(2, 3), 100);
  items.format = item_format({2});
  items.keys = {1, 2, 3};
  r.streams.push_back(items);
  auto join = [&](const char* a, const char* b) { return node("j", "transform", {a, b}); };
  EXPECT_EQ(graph_refusal(r, {join("x", "slow")}),
            "j.from: expected inputs of one rate, but 'x' has 100 Hz and 'slow' 50 Hz");
  EXPECT_EQ(graph_refusal(r, {join("x", "off")}),
            "j.from: expected inputs on one clock, but 'x' is 0.004 s off the frames of 'off' (align = \"nearest\" "
            "allows it)");
  EXPECT_THAT(graph_refusal(r, {join("x", "items")}),
              HasSubstr("j.from: expected inputs of one axis, but 'x' carries"));
  auto near = join("x", "off");
  near.align = "nearest";
  EXPECT_NO_THROW(graph_of(r, {near}, 10));
}

TEST(Graph, AlignNearestTakesTheNearestFrame) {
  Recording r;
  Eigen::MatrixXd ramp(1, 100);
  for (Index k = 0; k < 100; ++k) ramp(0, k) = static_cast<double>(k);
  r.streams = {memory_stream("a", ramp, 100), memory_stream("b", ramp, 100, 0.053)};
  auto j = node("j", "transform", {"a", "b"}, Value::object({{"function", "abs"}}));
  j.align = "nearest";
  auto g = graph_of(r, {j}, 100);
  Caught c;
  g->on_output(2, c.sink());
  Block b[2];
  for (auto& one : b) one.x = ConstFrames(ramp.data(), Scalar::f64, 1, 100, 1);
  g->push(b);
  const auto y = c.matrix();
  ASSERT_EQ(y.cols(), 95);
  EXPECT_EQ(y(0, 0), 5);  // 0.05 s is the nearest to 0.053 s
  EXPECT_EQ(y(1, 0), 0);
  EXPECT_EQ(y(0, 94) - y(1, 94), 5);
}

TEST(Graph, RefusesWhatIsNoGraph) {
  const auto r = ground_recording(10);
  EXPECT_EQ(graph_refusal(r, {node("a", "lag", {"b"}), node("b", "lag", {"a"})}),
            "stage.from: expected a graph without loops, but these wait for each other: a, b");
  EXPECT_EQ(graph_refusal(r, {node("a", "lag", {"a"})}),
            "stage.from: expected a graph without loops, but these wait for each other: a");
  EXPECT_EQ(graph_refusal(r, {node("aa", "lag", {"x"}), node("b", "lag", {"ab"})}),
            "b.from = \"ab\": expected a node or an input: x, aa, b (did you mean 'aa'?)");
  EXPECT_EQ(graph_refusal(r, {node("a", "lagg", {"x"})}),
            "a.use = \"lagg\": expected a known stage (percept stages lists them) (did you mean 'lag'?)");
  EXPECT_EQ(graph_refusal(r, {node("a", "lag", {"x"}), node("a", "lag", {"x"})}),
            "a: expected a name of its own: there are two nodes called 'a' (name = \"...\")");
  EXPECT_EQ(graph_refusal(r, {node("x", "lag", {"x"})}),
            "x: expected a name of its own: there are two nodes called 'x' (name = \"...\")");
  EXPECT_EQ(graph_refusal(r, {node("a", "lag", {"x.mean"})}), "a.from = \"x.mean\": expected a part of 'x': x");
  EXPECT_THAT(graph_refusal(r, {node("a", "ridge", {"x"})}), HasSubstr("a fitted model"));
  auto placed = fir("low", "x", {1, 2});
  placed.where = "a.toml: low";
  EXPECT_THAT(graph_refusal(r, {placed}), ::testing::StartsWith("a.toml: low.taps"));
}

TEST(Graph, OneMayTakeAPart) {
  const StageInfo& kalman = registry().at("kalman", "test");
  const Sample sample = kalman.samples()[0];
  Recording r;
  r.streams = {memory_stream("x", noise(sample.format.size(), 300), sample.format.rate_hz)};
  r.streams[0].format.parts = sample.format.parts;
  auto k = node("k", "kalman", {"x"}, sample.params);
  k.model = sample.model;
  auto g = graph_of(r, {k, node("part", "transform", {"k.covariance"}, Value::object({{"function", "square"}}))}, 50);
  Caught whole, part;
  g->on_output(g->index_of("k"), whole.sink());
  g->on_output(g->index_of("part"), part.sink());
  push_all(*g, r, 50, 0, 300);
  const auto& f = g->format(g->index_of("k"));
  const Index offset = f.part_offset("covariance");
  ASSERT_EQ(offset, 2);
  ASSERT_EQ(part.rows, 4);
  EXPECT_EQ(part.matrix(), Eigen::MatrixXd(whole.matrix().bottomRows(4).array().square()));
  EXPECT_GT(part.matrix().minCoeff(), 0);
}

TEST(Graph, ItemsJoinByKeyAndCountTheDropped) {
  auto items = [](const char* name, std::vector<std::int64_t> keys) {
    Eigen::MatrixXd x(1, static_cast<Index>(keys.size()));
    for (Index k = 0; k < x.cols(); ++k) x(0, k) = static_cast<double>(keys[static_cast<std::size_t>(k)]);
    Stream s = memory_stream(name, x, 1);
    s.format = item_format({1});
    s.keys = std::move(keys);
    return s;
  };
  Recording r;
  r.streams = {items("a", {1, 2, 4, 7, 9, 10}), items("b", {2, 3, 4, 9, 11, 12})};
  auto g = graph_of(r, {node("j", "transform", {"a", "b"}, Value::object({{"function", "square"}}))}, 2);
  Caught c;
  g->on_output(2, c.sink());
  const Eigen::MatrixXd x[2] = {r.streams[0].matrix(), r.streams[1].matrix()};
  for (Index at = 0; at < 6; at += 2) {
    Block b[2];
    for (std::size_t i = 0; i < 2; ++i) {
      b[i].x = ConstFrames(x[i].data() + at, Scalar::f64, 1, 2, 1);
      b[i].first_frame = at;
      b[i].keys = std::span(r.streams[i].keys).subspan(static_cast<std::size_t>(at), 2);
    }
    g->push(b);
  }
  g->flush();
  EXPECT_THAT(c.keys, ElementsAre(2, 4, 9));
  EXPECT_THAT(c.values, ElementsAre(4, 4, 16, 16, 81, 81));
  EXPECT_EQ(g->dropped_items(), 4);  // 1, 3, 7 and 10; 11 and 12 might still find a partner
}

TEST(Graph, AStateSavedInTheMiddleContinues) {
  const auto r = ground_recording(6000);
  Ground whole(r, 37), first(r, 37), second(r, 37);
  push_all(*whole.graph, r, 37, 0, 3034);
  push_all(*first.graph, r, 37, 0, 3034);
  const auto state = first.graph->save_state();
  for (auto& c : whole.caught) {
    const auto next = c.next;
    c = {};
    c.next = next;
  }
  for (std::size_t i = 0; i < 4; ++i) second.caught[i].next = whole.caught[i].next;
  push_all(*second.graph, ground_recording(500), 37, 0, 500);  // whatever it did before is forgotten
  for (std::size_t i = 0; i < 4; ++i) second.caught[i] = whole.caught[i];
  second.graph->restore_state(state);
  push_all(*whole.graph, r, 37, 3034, 6000);
  push_all(*second.graph, r, 37, 3034, 6000);
  whole.graph->flush();
  second.graph->flush();
  ASSERT_GT(whole.caught[3].keys.size(), 10u);
  expect_same(whole.caught, second.caught, "restored");
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(whole.caught[i].events, second.caught[i].events);
}

TEST(Graph, RefusesTheStateOfAnother) {
  const auto r = ground_recording(1000);
  Ground g(r, 37);
  push_all(*g.graph, r, 37, 0, 1000);
  const auto state = g.graph->save_state();
  auto other = graph_of(r, {fir("f", "x", {0.25, 0.5, 0.25})}, 37);
  EXPECT_THROW(other->restore_state(state), Error);
  for (std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{40}, state.size() / 2, state.size() - 1})
    EXPECT_THROW(g.graph->restore_state({state.begin(), state.begin() + static_cast<std::ptrdiff_t>(n)}), Error) << n;
  auto longer = state;
  longer.push_back(std::byte{0});
  EXPECT_EQ(message_of<Error>([&] { g.graph->restore_state(longer); }), "state of another graph");
}

TEST(Graph, ResetEqualsNew) {
  const auto r = ground_recording(4000);
  Ground fresh(r, 37), used(r, 37);
  push_all(*used.graph, r, 37, 0, 2222);
  used.graph->reset();
  for (auto& c : used.caught) c = {};
  for (auto* g : {&fresh, &used}) {
    push_all(*g->graph, r, 37, 0, 4000);
    g->graph->flush();
  }
  expect_same(fresh.caught, used.caught, "after reset");
}

// --- starting anew at events ----------------------------------------------------------------------------------------

NodeSpec anew(NodeSpec n, const char* label = "trial") {
  n.reset = label;
  return n;
}
NodeSpec lag1(const char* name, std::vector<std::string> from) {
  return node(name, "lag", std::move(from), Value::object({{"lags", 1}}));
}

/// x[k] = k at 10 Hz from 0.05 s, and these events.
Recording counting(Index frames, std::vector<Event> events) {
  Recording r;
  r.streams = {memory_stream("x", Eigen::RowVectorXd::LinSpaced(frames, 0, static_cast<double>(frames - 1)), 10, 0.05)};
  r.events = std::move(events);
  return r;
}

/// The frames whose earlier frame is missing: those the stage saw first.
std::vector<Index> fresh_frames(const Caught& c) {
  std::vector<Index> all;
  const Eigen::MatrixXd y = c.matrix();
  for (Index k = 0; k < y.cols(); ++k) {
    EXPECT_EQ(y(0, k), static_cast<double>(k));
    if (std::isnan(y(1, k))) all.push_back(k);
    else EXPECT_EQ(y(1, k), static_cast<double>(k - 1));
  }
  return all;
}

TEST(GraphReset, IsBeforeTheFirstFrameAtOrAfterTheOnsetForAnyCut) {
  // on a frame up to rounding, between two, two for one frame, another label
  const auto r = counting(100, {event_at(0.05 + 2.0, 0, "trial"), event_at(0.05 + 3.0000000001, 1, "trial"),
                                event_at(0.05 + 3.9999999999, 2, "trial"), event_at(5.06, 3, "trial"),
                                event_at(7.01, 4, "trial"), event_at(7.02, 5, "trial"), event_at(8.05, 6, "go")});
  for (Index block : {1, 3, 10, 37, 100})
    for (bool random : {false, true}) {
      Counters counters;
      Context context;
      context.counters = &counters;
      Graph g(registry(), {{"x", r.streams[0].format}}, {anew(lag1("lag", {"x"}))}, Scalar::f64, block, context);
      Caught caught;
      g.on_output(1, caught.sink());
      push_all(g, r, block, 0, 100, random);
      EXPECT_THAT(fresh_frames(caught), ElementsAre(0, 20, 30, 40, 51, 70)) << block;
      EXPECT_EQ(caught.events, [&] {
        auto all = r.events;
        for (auto& e : all) e.origin = 0;
        return all;
      }()) << "the events travel on";
      EXPECT_EQ(counters.get("lag", "resets").value(), 5);
      EXPECT_EQ(counters.get("lag", "late_resets").value(), 0);
    }
}

TEST(GraphReset, ALateEventResetsBeforeTheNextFrameAndIsCounted) {
  const auto r = counting(40, {event_at(1.05, 0, "trial")});
  Counters counters;
  Context context;
  context.counters = &counters;
  Graph g(registry(), {{"x", r.streams[0].format}}, {anew(lag1("lag", {"x"}))}, Scalar::f64, 5, context);
  Caught caught;
  g.on_output(1, caught.sink());
  push_all(g, r, 5, 0, 40, false, 12);  // it comes with frames 20 to 24
  EXPECT_THAT(fresh_frames(caught), ElementsAre(0, 20));
  EXPECT_EQ(counters.get("lag", "late_resets").value(), 1);
}

TEST(GraphReset, OnlyTheNodeThatSaysSoAndOnItsOwnClock) {
  // behind a filter of latency 3 the event comes later, and meets the same frame of recording time
  Recording r = counting(60, {event_at(3.05, 0, "trial")});
  const std::vector<NodeSpec> nodes{fir("late", "x", {0, 0, 0, 1, 0, 0, 0}), anew(lag1("fresh", {"late"})),
                                    lag1("going_on", {"late"}), anew(lag1("joined", {"going_on", "x"}))};
  for (Index block : {1, 7, 60}) {
    auto g = graph_of(r, nodes, block);
    Caught fresh, going_on, joined;
    g->on_output(g->index_of("fresh"), fresh.sink());
    g->on_output(g->index_of("going_on"), going_on.sink());
    g->on_output(g->index_of("joined"), joined.sink());
    push_all(*g, r, block, 0, 60);
    g->flush();
    const auto& f = g->format(g->index_of("fresh"));
    const Index at = f.nearest_frame(3.05);
    EXPECT_NEAR(f.time_of(at), 3.05, 1e-9);
    EXPECT_TRUE(std::isnan(fresh.matrix()(1, at)));
    EXPECT_EQ(fresh.matrix()(1, at + 1), fresh.matrix()(0, at));
    EXPECT_EQ(going_on.matrix()(1, at), going_on.matrix()(0, at - 1));
    const Index joint = g->format(g->index_of("joined")).nearest_frame(3.05);
    EXPECT_TRUE(std::isnan(joined.matrix()(3, joint))) << "behind a join too";
    EXPECT_FALSE(std::isnan(joined.matrix()(3, joint + 1)));
  }
}

TEST(GraphReset, IsPartOfASavedStateAndGoneAfterAReset) {
  const auto r = counting(20, {event_at(0.99, 0, "trial")});  // between frame 9 and 10
  const std::vector<NodeSpec> nodes{anew(lag1("lag", {"x"}))};
  auto g = graph_of(r, nodes, 10);
  push_all(*g, r, 10, 0, 10);
  const auto state = g->save_state();
  auto restored = graph_of(r, nodes, 10);
  Caught caught, again;
  restored->on_output(1, caught.sink());
  restored->restore_state(state);
  caught.next = 10;
  push_all(*restored, r, 10, 10, 20);
  EXPECT_TRUE(std::isnan(caught.matrix()(1, 0)));
  g->reset();
  g->on_output(1, again.sink());
  push_all(*g, counting(20, {}), 10, 0, 20);
  EXPECT_THAT(fresh_frames(again), ElementsAre(0));
}

TEST(GraphReset, RefusesWhatCannotStartAnew) {
  const auto r = counting(20, {});
  auto refusal = [&](NodeSpec n) { return message_of<ConfigError>([&] { graph_of(r, {anew(std::move(n))}, 10); }); };
  EXPECT_EQ(refusal(fir("n", "x", {0.2, 0.6, 0.2})),
            "n.reset = \"trial\": expected no reset, since 'fir' holds frames back for 0.1 s, which would be lost");
  EXPECT_EQ(refusal(node("n", "fir_zero_phase", {"x"}, Value::object({{"taps", Value(std::vector<double>{1, 2, 1})}}))),
            "n.reset = \"trial\": expected no reset, since 'fir_zero_phase' looks ahead");
  EXPECT_EQ(refusal(node("n", "transform", {"x"}, Value::object({{"function", "abs"}}))),
            "n.reset = \"trial\": expected no reset, since 'transform' remembers nothing");
  EXPECT_EQ(refusal(node("n", "epochs", {"x"})),
            "n.reset = \"trial\": expected no reset, since 'epochs' works on items, which have no clock");
}

TEST(GraphReset, AllocatesNothing) {
  if (!AllocationCounter::available()) GTEST_SKIP() << "allocations cannot be counted here";
  std::vector<Event> events;
  for (std::int64_t k = 0; k < 20; ++k) events.push_back(event_at(0.4 + 0.93 * static_cast<double>(k), k, "trial"));
  const auto r = counting(200, events);
  auto g = graph_of(r, {anew(lag1("lag", {"x"}))}, 10);
  const Eigen::MatrixXd x = r.streams[0].matrix();
  const AllocationCounter counter;
  for (Index at = 0, e = 0; at < 200; at += 10) {
    Block b;
    b.x = ConstFrames(x.data() + at, Scalar::f64, 1, 10, 1);
    b.first_frame = at;
    Index n = 0;
    while (e + n < 20 && events[static_cast<std::size_t>(e + n)].onset_s < r.streams[0].format.time_of(at + 10)) ++n;
    b.events = std::span(events).subspan(static_cast<std::size_t>(e), static_cast<std::size_t>(n));
    e += n;
    g->push(0, b);
  }
  EXPECT_EQ(counter.count(), 0);
}

TEST(Graph, PushAllocatesNothing) {
  if (!AllocationCounter::available()) GTEST_SKIP() << "allocations cannot be counted here";
  const auto r = ground_recording(4000);
  auto g = graph_of(r, ground_nodes(), 37, Scalar::f32);
  std::int64_t frames = 0;
  g->on_output(g->index_of("slower"), [&](const Block& b) { frames += b.x.frames; });
  std::vector<float> x(3 * 37);
  const KeyedRandom random(1, "x");
  std::int64_t allocations = 0;
  std::size_t next = 0;
  for (std::int64_t at = 0; at + 37 <= 4000; at += 37) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(random.normal(at, i));
    const std::size_t from = next;
    while (next < r.events.size() && r.events[next].onset_s < r.streams[0].format.time_of(at + 37)) ++next;
    Block b;
    b.x = ConstFrames(x.data(), Scalar::f32, 3, 37, 3);
    b.first_frame = at;
    b.events = std::span(r.events).subspan(from, next - from);
    AllocationCounter counter;
    g->push(0, b);
    allocations += counter.count();
  }
  EXPECT_GT(frames, 700);
  EXPECT_EQ(allocations, 0);
}

}  // namespace
}  // namespace percept::testing
