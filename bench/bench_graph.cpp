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

void chain(benchmark::State& state, const char* use, Value params) {
  const Index nodes = state.range(0), rows = state.range(1), block = state.range(2);
  const Registry registry = stages();
  const StreamFormat in = time_format(rows, 1000, Scalar::f32);
  std::vector<NodeSpec> specs;
  for (Index i = 0; i < nodes; ++i) {
    NodeSpec n;
    n.name = "node_" + std::to_string(i);
    n.use = use;
    n.params = params;
    specs.push_back(std::move(n));
  }
  Graph graph(registry, {{"input", in}}, specs, Scalar::f32, block, {});
  double reached = 0;  // both sides hand their result to a sink
  const SinkFn sink = [&](const Block& b) { reached += *static_cast<const float*>(b.x.data); };
  graph.on_output(static_cast<int>(nodes), sink);

  // the other side: stages and a buffer an edge
  std::vector<std::unique_ptr<Stage>> direct;
  std::vector<std::vector<float>> edges;
  StreamFormat format = in;
  format.max_frames = block;
  for (Index i = 0; i < nodes; ++i) {
    Context context;
    direct.push_back(registry.at(use, "bench").make(params, nullptr, "bench"));
    format = direct.back()->prepare(format, context);
    edges.emplace_back(static_cast<std::size_t>(rows * format.max_frames));
  }

  std::vector<float> x(static_cast<std::size_t>(rows * block));
  const KeyedRandom random(1, "bench");
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(random.normal(static_cast<std::int64_t>(i)));
  Block b;
  b.x = ConstFrames(x.data(), Scalar::f32, rows, block, rows);
  const auto by_graph = [&] { graph.push(0, b); };
  const auto by_hand = [&] {
    Block step = b;
    for (Index i = 0; i < nodes; ++i) {
      Output out;
      out.y = MutableFrames(edges[static_cast<std::size_t>(i)].data(), Scalar::f32, rows, block, rows);
      const Index n = direct[static_cast<std::size_t>(i)]->process(step, out);
      step.x = ConstFrames(out.y).slice(0, n);
    }
    sink(step);
  };

  // a sample is many blocks, for one block of one frame is shorter than the clock can tell
  const Index repeats = std::max<Index>(1, 2000 / block);
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
  benchmark::DoNotOptimize(reached);
  const double by_stages = median(direct_ns), own = median(difference);
  state.counters["pushed_ns"] = median(graph_ns);
  state.counters["direct_ns"] = by_stages;
  state.counters["graph_ns"] = own;
  state.counters["share"] = own / by_stages;
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

}  // namespace
}  // namespace percept

BENCHMARK_MAIN();
