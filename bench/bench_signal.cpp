/// From broadband to decoder features: what a packet of 1 ms takes. 30 kHz, float32, each packet timed by itself; the
/// median and the 99th percentile are what a live loop feels. Beside the chains, each stage by itself.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "bench/each_step.h"
#include "core/graph.h"
#include "numerics/random.h"
#include "preprocessing/stages.h"
#include "tests/support/alloc.h"

namespace percept {
namespace {

constexpr double kRate = 30000;
constexpr Index kPacket = 30, kPackets = 20;

NodeSpec node(const char* use, Value params) {
  NodeSpec n;
  n.name = n.use = use;
  n.params = std::move(params);
  return n;
}

/// Packets of white noise with a common part, as electrodes on one ground have it.
void packets(benchmark::State& state, const std::vector<NodeSpec>& nodes) {
  const Index rows = state.range(0);
  Registry registry;
  registry.add(preprocessing_stages());
  Graph graph(registry, {{"input", time_format(rows, kRate, Scalar::f32)}}, nodes, Scalar::f32, kPacket, {});
  double reached = 0;
  graph.on_output(static_cast<int>(nodes.size()), [&](const Block& b) {
    if (b.x.frames > 0) reached += *static_cast<const float*>(b.x.data);
  });
  const KeyedRandom random(1, "bench");
  std::vector<float> x(static_cast<std::size_t>(rows * kPacket * kPackets));
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto frame = static_cast<std::int64_t>(i) / rows;
    x[i] = static_cast<float>(10 * random.normal(static_cast<std::int64_t>(i)) + 20 * random.normal(-1 - frame));
  }
  Block b;
  Index at = 0;
  const auto push = [&] {
    b.x = ConstFrames(x.data() + at * rows * kPacket, Scalar::f32, rows, kPacket, rows);
    graph.push(0, b);
    b.first_frame += kPacket;
    at = (at + 1) % kPackets;
  };
  push();
  const testing::AllocationCounter allocations;
  for (Index i = 0; i < 5 * kPackets; ++i) push();
  state.counters["allocations"] = static_cast<double>(allocations.count());
  each_step(state, push);
  benchmark::DoNotOptimize(reached);
}

const NodeSpec kReference = node("common_average", Value::table());
const NodeSpec kBand = node("iir", Value::object({{"low_hz", 300.0}, {"high_hz", 1000.0}, {"order", 4}}));
const NodeSpec kSpikes = node("iir", Value::object({{"low_hz", 300.0}, {"high_hz", 6000.0}, {"order", 2}}));
const NodeSpec kCrossings = node("level_crossings", Value::object({{"level", -40.0}, {"bin_s", 0.02}}));
const NodeSpec kPower = node("band_power", Value::object({{"bin_s", 0.02}}));

#define PERCEPT_PACKETS(name, ...) \
  BENCHMARK_CAPTURE(packets, name, std::vector<NodeSpec>{__VA_ARGS__})->ArgName("channels")->UseManualTime()->Arg(1024)
PERCEPT_PACKETS(spike_band_power, kReference, kBand, kPower)->Arg(192);
PERCEPT_PACKETS(spike_counts, kReference, kSpikes, kCrossings)->Arg(192);
PERCEPT_PACKETS(common_average, kReference);
PERCEPT_PACKETS(common_median, node("common_average", Value::object({{"statistic", "median"}})));
PERCEPT_PACKETS(iir, kBand);
PERCEPT_PACKETS(band_power, kPower);
PERCEPT_PACKETS(level_crossings, kCrossings);

}  // namespace
}  // namespace percept

BENCHMARK_MAIN();
