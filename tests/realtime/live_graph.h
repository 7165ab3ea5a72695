/// A small live graph with models, a recording to run through it, and what its nodes gave.
#pragma once

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/runner.h"
#include "decoders/stages.h"
#include "filters/stages.h"
#include "numerics/random.h"
#include "preprocessing/stages.h"
#include "realtime/live_runner.h"

namespace percept::live_test {

/// Causal, but makes no promise about its time.
class Slow final : public Stage {
 public:
  using Params = NoParams;
  explicit Slow(Params) {}
  StreamFormat prepare(const StreamFormat& in, Context&) override { return in; }
  Index process(const Block& b, Output& o) noexcept override {
    copy_frames(b.x, o.y.slice(0, b.x.frames));
    return b.x.frames;
  }
  void reset() noexcept override {}
};

inline const Registry& registry() {
  static const Registry all = [] {
    Registry r;
    r.add(preprocessing_stages());
    r.add(filters_stages());
    r.add(decoders_stages());
    auto slow = stage_info<Slow>("slow", "tests", "Hands on what it gets.");
    slow.samples = [] { return std::vector{Sample{}}; };
    r.add(slow);
    return r;
  }();
  return all;
}

/// The tiny model that the registry brings for a stage; its input has five rows at 100 Hz.
inline std::shared_ptr<const Model> sample_model(const std::string& stage) {
  return registry().at(stage, "test").samples().front().model;
}

inline NodeSpec node(std::string name, std::string use, std::vector<std::string> from, Value params = Value::table()) {
  NodeSpec n;
  n.name = std::move(name);
  n.use = use;
  n.from = std::move(from);
  n.params = std::move(params);
  if (registry().at(use, "test").trained) n.model = sample_model(use);
  return n;
}

/// Two branches of different latency and memory, joined, with an epoch for each event.
inline std::vector<NodeSpec> nodes() {
  auto all = std::vector{
      node("scaled", "zscore", {"spikes"}),
      node("filtered", "kalman", {"scaled"}),
      node("linear", "ridge", {"scaled"}),
      node("past", "lag", {"linear.mean"}, Value::object({{"lags", 3}})),
      node("smooth", "fir", {"filtered.mean"},
           Value::object({{"pass", "low"}, {"high_hz", 10.0}, {"transition_hz", 20.0}})),
      node("both", "running_zscore", {"past", "smooth"}),
      node("cut", "epochs", {"both"}, Value::object({{"start_s", -0.1}, {"stop_s", 0.2}})),
  };
  return all;
}

inline Recording recording(Index frames = 1000) {
  const KeyedRandom random(11, "live test");
  Eigen::MatrixXd x(5, frames);
  for (Index t = 0; t < frames; ++t)
    for (Index i = 0; i < 5; ++i)
      x(i, t) = random.normal(t, static_cast<std::uint64_t>(i)) + std::sin(0.05 * static_cast<double>(t));
  Recording r;
  r.streams = {memory_stream("spikes", x, 100.0, 2.0)};
  for (int i = 0; i < 8; ++i) r.events.push_back({.onset_s = 2.503 + 1.13 * i, .id = i, .label = Label::of("go")});
  return r;
}

/// Everything a node gave, as bytes.
struct Taken {
  std::vector<std::byte> bytes;
  std::vector<std::int64_t> keys;
  std::vector<Event> events;
  std::int64_t frames = 0;
  SinkFn sink() {
    return [this](const Block& b) {
      for (Index t = 0; t < b.x.frames; ++t) {
        const auto frame = b.x.slice(t, 1);
        const auto* p = static_cast<const std::byte*>(frame.data);
        bytes.insert(bytes.end(), p, p + static_cast<std::size_t>(b.x.rows) * bytes_of(b.x.scalar));
      }
      keys.insert(keys.end(), b.keys.begin(), b.keys.end());
      events.insert(events.end(), b.events.begin(), b.events.end());
      frames += b.x.frames;
    };
  }
  double value(std::int64_t frame, Index row, Index rows) const {
    double v;
    std::memcpy(&v, bytes.data() + static_cast<std::size_t>((frame * rows + row) * 8), 8);
    return v;
  }
  bool operator==(const Taken&) const = default;
};
using Outputs = std::map<std::string, Taken>;

inline Outputs offline(const Recording& r, Scalar precision, const std::vector<NodeSpec>& specs) {
  Outputs out;
  std::map<std::string, SinkFn> sinks;
  for (auto& n : specs) sinks[n.name] = out[n.name].sink();
  RunOptions options;
  options.precision = precision;
  options.block = 300;
  options.tokens = 3;
  options.threads = 2;
  run_offline(registry(), r, specs, options, sinks);
  return out;
}

}  // namespace percept::live_test
