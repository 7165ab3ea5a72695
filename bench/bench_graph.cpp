/// What the graph itself costs: the same prepared stages run by Graph::push and by calling their process() in turn,
/// block by block in one loop, so that both see the same machine. Counters: ns a frame and node on either side, their
/// difference (graph_ns) and its share of the direct time (share).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "core/graph.h"
#include "numerics/random.h"
#include "preprocessing/stages.h"

namespace percept {
namespace {

using Clock = std::chrono::steady_clock;

class Identity final : public Typed<Identity> {
 public:
  struct Params {
    static constexpr auto fields() { return std::tuple{}; }
  };
  explicit Identity(Params) {}
  StreamFormat prepare(const StreamFormat& in, Context&) override { return in; }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    for (Index k = 0; k < in.frames; ++k)
      std::memcpy(out.frame(k), in.frame(k), static_cast<std::size_t>(in.rows) * sizeof(T));
    return in.frames;
  }
  void reset() noexcept override {}
  Traits traits() const override { return {.real_time = true}; }
};

Registry stages() {
  Registry registry;
  registry.add(preprocessing_stages());
  auto identity = stage_info<Identity>("identity", "bench", "Copies.");
  identity.samples = [] { return std::vector<Sample>(1); };
  registry.add(std::move(identity));
  return registry;
}

double median(std::vector<double>& v) {
  const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
  std::nth_element(v.begin(), middle, v.end());
  return *middle;
}

/// Times both sides in turn; `b` is the block that both of them take.
template <class ByGraph, class ByHand>
void compare(benchmark::State& state, Block& b, Index nodes, ByGraph by_graph, ByHand by_hand) {
  // a sample is many blocks, for one block of one frame is shorter than the clock can tell
  const Index block = b.x.frames, repeats = std::max<Index>(1, 2000 / block);
  const auto time = [&](auto& run) {
    const auto start = Clock::now();
    for (Index r = 0; r < repeats; ++r) {
      run();
      b.first_frame += block;
    }
    return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
  };
  by_graph();
  by_hand();
  const double per = static_cast<double>(repeats * block * nodes);
  std::vector<double> graph_ns, direct_ns, difference;
  bool graph_first = true;
  for (auto _ : state) {
    double g, d;
    if (graph_first) g = time(by_graph), d = time(by_hand);
    else d = time(by_hand), g = time(by_graph);
    graph_first = !graph_first;
    state.SetIterationTime(g * 1e-9);
    graph_ns.push_back(g / per);
    direct_ns.push_back(d / per);
    difference.push_back((g - d) / per);
  }
  const double by_stages = median(direct_ns), own = median(difference);
  state.counters["pushed_ns"] = median(graph_ns);
  state.counters["direct_ns"] = by_stages;
  state.counters["graph_ns"] = own;
  state.counters["share"] = own / by_stages;
}

struct Input {
  Input(Index rows, Index block) : x(static_cast<std::size_t>(rows * block)) {
    const KeyedRandom random(1, "bench");
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(random.normal(static_cast<std::int64_t>(i)));
    b.x = ConstFrames(x.data(), Scalar::f32, rows, block, rows);
  }
  std::vector<float> x;
  Block b;
};

/// A stage by itself, with a buffer for what it gives.
struct Direct {
  Direct(const Registry& registry, const char* use, const Value& params, StreamFormat in)
      : stage(registry.at(use, "bench").make(params, nullptr, "bench")) {
    Context context;
    format = stage->prepare(in, context);
    edge.resize(static_cast<std::size_t>(format.size() * format.max_frames));
    rows = format.size();
  }
  Block run(Block b) noexcept {
    Output out;
    out.y = MutableFrames(edge.data(), Scalar::f32, rows, format.max_frames, rows);
    const Index n = stage->process(b, out);
    b.x = ConstFrames(out.y).slice(0, n);
    return b;
  }
  std::unique_ptr<Stage> stage;
  StreamFormat format;
  Index rows = 0;
  std::vector<float> edge;
};

NodeSpec node(std::string name, const char* use, std::vector<std::string> from, const Value& params) {
  NodeSpec n;
  n.name = std::move(name);
  n.use = use;
  n.from = std::move(from);
  n.params = params;
  return n;
}

void chain(benchmark::State& state, const char* use, Value params) {
  const Index nodes = state.range(0), rows = state.range(1), block = state.range(2);
  const Registry registry = stages();
  StreamFormat format = time_format(rows, 1000, Scalar::f32);
  format.max_frames = block;
  std::vector<NodeSpec> specs;
  std::vector<Direct> direct;
  for (Index i = 0; i < nodes; ++i) {
    specs.push_back(node("node_" + std::to_string(i), use, {}, params));
    direct.emplace_back(registry, use, params, format);
    format = direct.back().format;
  }
  Graph graph(registry, {{"input", time_format(rows, 1000, Scalar::f32)}}, specs, Scalar::f32, block, {});
  double reached = 0;  // both sides hand their result to a sink
  const SinkFn sink = [&](const Block& b) { reached += *static_cast<const float*>(b.x.data); };
  graph.on_output(static_cast<int>(nodes), sink);
  Input input(rows, block);
  compare(
      state, input.b, nodes, [&] { graph.push(0, input.b); },
      [&] {
        Block b = input.b;
        for (auto& stage : direct) b = stage.run(b);
        sink(b);
      });
  benchmark::DoNotOptimize(reached);
}

/// Two branches and a stage on both: the join is the graph's, so by hand it is a copy of either branch.
void join(benchmark::State& state, const char* use, Value params) {
  const Index rows = state.range(0), block = state.range(1);
  const Registry registry = stages();
  StreamFormat format = time_format(rows, 1000, Scalar::f32);
  format.max_frames = block;
  Direct left(registry, use, params, format), right(registry, use, params, format);
  StreamFormat both = time_format(2 * rows, 1000, Scalar::f32);
  both.max_frames = block;
  Direct last(registry, use, params, both);
  std::vector<float> joined(static_cast<std::size_t>(2 * rows * block));
  Graph graph(registry, {{"input", time_format(rows, 1000, Scalar::f32)}},
              {node("left", use, {"input"}, params), node("right", use, {"input"}, params),
               node("last", use, {"left", "right"}, params)},
              Scalar::f32, block, {});
  double reached = 0;
  const SinkFn sink = [&](const Block& b) { reached += *static_cast<const float*>(b.x.data); };
  graph.on_output(3, sink);
  Input input(rows, block);
  compare(
      state, input.b, 3, [&] { graph.push(0, input.b); },
      [&] {
        Block b = input.b;
        const MutableFrames room(joined.data(), Scalar::f32, 2 * rows, block, 2 * rows);
        copy_frames(left.run(b).x, room.part(0, rows));
        copy_frames(right.run(b).x, room.part(rows, rows));
        b.x = room;
        sink(last.run(b));
      });
  benchmark::DoNotOptimize(reached);
}

const Value kFir = Value::object({{"pass", "low"}, {"high_hz", 40.0}, {"transition_hz", 100.0}});  // 33 taps
BENCHMARK_CAPTURE(chain, identity, "identity", Value::table())
    ->ArgNames({"nodes", "rows", "block"})
    ->UseManualTime()
    ->Args({8, 32, 1})
    ->Args({8, 32, 1000});
BENCHMARK_CAPTURE(chain, fir, "fir", kFir)
    ->ArgNames({"nodes", "rows", "block"})
    ->UseManualTime()
    ->Args({8, 32, 1})
    ->Args({8, 32, 1000});
BENCHMARK_CAPTURE(join, identity, "identity", Value::table())
    ->ArgNames({"rows", "block"})
    ->UseManualTime()
    ->Args({32, 1})
    ->Args({32, 1000});
BENCHMARK_CAPTURE(join, fir, "fir", kFir)
    ->ArgNames({"rows", "block"})
    ->UseManualTime()
    ->Args({32, 1})
    ->Args({32, 1000});

}  // namespace
}  // namespace percept

BENCHMARK_MAIN();
