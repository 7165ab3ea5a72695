/// From a packet to the decoded state, inside the program: what LiveRunner::push() takes, each packet by itself. bench/live.py
/// adds the ways in and out.
#include <benchmark/benchmark.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bench/each_step.h"
#include "decoders/stages.h"
#include "filters/stages.h"
#include "numerics/random.h"
#include "preprocessing/stages.h"
#include "realtime/live_runner.h"
#include "tests/support/alloc.h"

namespace percept {
namespace {

using Eigen::MatrixXd;

Registry stages() {
  Registry r;
  r.add(preprocessing_stages());
  r.add(decoders_stages());
  r.add(filters_stages());
  return r;
}

NodeSpec node(const char* use, Value params = Value::table()) {
  NodeSpec n;
  n.name = n.use = use;
  n.params = std::move(params);
  return n;
}

/// Fits a stage on columns of x (and y).
std::shared_ptr<const Model> fitted(const Registry& registry, const char* use, const Value& params,
                                    const StreamFormat& format, const MatrixXd& x, const StreamFormat& target,
                                    const MatrixXd& y) {
  TrainingMatrix m;
  m.x = x;
  m.y = y;
  for (Index k = 0; k < x.cols(); ++k) {
    m.keys.push_back(k);
    m.groups.push_back(static_cast<std::int32_t>(k * 5 / x.cols()));
  }
  m.segment_starts = {0};
  Context context;
  context.node = use;
  return std::make_shared<Model>(
      registry.at(use, "bench").make_fitter(params, "bench")->fit(MemoryData(format, target, std::move(m)), context));
}

/// zscore, a linear map with its covariance and the discriminative Kalman filter over four states, fitted on generated
/// features: behind `features`, whose output has so many rows at so many bins a second.
std::vector<NodeSpec> decoder(const Registry& registry, Index rows, double rate_hz, std::vector<NodeSpec> features) {
  const Index frames = 3000, states = 4;
  const KeyedRandom random(1, "bench");
  MatrixXd y = MatrixXd::Zero(states, frames), x(rows, frames);
  for (Index t = 0; t < frames; ++t)
    for (Index i = 0; i < states; ++i)
      y(i, t) = (t ? 0.95 * y(i, t - 1) : 0) + random.normal(t, static_cast<std::uint64_t>(i));
  for (Index i = 0; i < rows; ++i)
    for (Index t = 0; t < frames; ++t)
      x(i, t) = 5 + y(i % states, t) + 3 * random.normal(t, static_cast<std::uint64_t>(100 + i));
  const StreamFormat format = time_format(rows, rate_hz), target = time_format(states, rate_hz, Scalar::f64, "state");
  NodeSpec scaled = node("zscore"),
           map = node("ridge", Value::object({{"alpha", Value::array({10.0})}, {"covariance", "holdout"}})),
           filter = node("dkf");
  scaled.model = fitted(registry, "zscore", scaled.params, format, x, {}, {});
  map.model = fitted(registry, "ridge", map.params, format, x, target, y);
  StreamFormat mapped = time_format(states, rate_hz, Scalar::f64, "mean");
  Part covariance;
  covariance.name = "covariance";
  covariance.shape = {states, states};
  mapped.parts.push_back(covariance);
  MatrixXd f(states + states * states, frames);
  f.topRows(states) = y;
  f.bottomRows(states * states) =
      Eigen::Map<const Eigen::VectorXd>(MatrixXd(MatrixXd::Identity(states, states)).data(), states * states)
          .replicate(1, frames);
  filter.model = fitted(registry, "dkf", filter.params, mapped, f, target, y);
  for (auto& n : {scaled, map, filter}) features.push_back(n);
  return features;
}

void each_packet(benchmark::State& state, const StreamFormat& in, Index frames, const std::vector<NodeSpec>& nodes,
                 const Registry& registry) {
  LiveOptions options;
  options.block = frames;
  LiveRunner live(registry, {{"input", in}}, nodes, options);
  double reached = 0;
  std::int64_t decoded = 0;
  live.on_output(nodes.back().name, [&](const Block& b) {
    decoded += b.x.frames;
    if (b.x.frames > 0) reached += *static_cast<const float*>(b.x.data);
  });
  constexpr Index kPackets = 20;
  const KeyedRandom random(2, "bench");
  std::vector<float> x(static_cast<std::size_t>(in.size() * frames * kPackets));
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(5 + 3 * random.normal(static_cast<std::int64_t>(i)));
  Index at = 0;
  std::int64_t counter = 0;
  const auto push = [&] {
    Packet p;
    p.x = ConstFrames(x.data() + at * in.size() * frames, Scalar::f32, in.size(), frames, in.size());
    p.counter = counter;
    counter += frames;
    at = (at + 1) % kPackets;
    live.push(p);
  };
  for (int k = 0; k < 50; ++k) push();
  const testing::AllocationCounter allocations;
  for (int k = 0; k < 1000; ++k) push();
  state.counters["allocations"] = static_cast<double>(allocations.count());
  each_step(state, push);
  if (decoded == 0 || std::isnan(reached)) state.SkipWithError("nothing was decoded");
}

void counts_192(benchmark::State& state) {
  const Registry registry = stages();
  each_packet(state, time_format(192, 50.0, Scalar::f32), 1, decoder(registry, 192, 50, {}), registry);
}
BENCHMARK(counts_192)->UseManualTime();

/// Packets of 1 ms of 30 kHz; every twentieth ends a bin and is decoded.
void broadband_1024(benchmark::State& state) {
  const Registry registry = stages();
  const std::vector<NodeSpec> features{
      node("common_average"), node("iir", Value::object({{"low_hz", 300.0}, {"high_hz", 1000.0}, {"order", 4}})),
      node("band_power", Value::object({{"bin_s", 0.02}, {"scale", "root"}}))};
  each_packet(state, time_format(1024, 30000.0, Scalar::f32), 30, decoder(registry, 1024, 50, features), registry);
}
BENCHMARK(broadband_1024)->UseManualTime();

}  // namespace
}  // namespace percept

BENCHMARK_MAIN();
