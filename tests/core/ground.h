/// A graph with branches, a join of three latencies, a resampler and epochs, and its input: what every runner must
/// carry the same way.
#pragma once

#include <algorithm>

#include "core/recording.h"
#include "tests/core/support.h"

namespace percept::testing {

/// slow (latency 40 frames), fast (3) and raw (0) joined, the join decimated, epochs of that.
inline std::vector<NodeSpec> ground_nodes() {
  std::vector<double> slow(81, 1.0 / 81), fast{0.1, 0.1, 0.2, 0.2, 0.2, 0.1, 0.1};
  return {fir("slow", "x", slow),
          fir("fast", "x", fast),
          node("raw", "transform", {"x"}, Value::object({{"function", "abs"}})),
          node("joined", "running_zscore", {"slow", "fast", "raw"}, Value::object({{"time_constant_s", 2.0}})),
          node("slower", "decimate", {"joined"}, Value::object({{"factor", 5}, {"half_length", 2}})),
          node("epochs", "epochs", {"slower"}, Value::object({{"start_s", -0.1}, {"stop_s", 0.3}, {"late_s", 0.5}}))};
}
inline const std::vector<std::string> kGroundEdges{"slow", "joined", "slower", "epochs"};

inline Recording ground_recording(Index frames) {
  Recording r;
  r.streams = {memory_stream("x", noise(3, frames), 250, 0.02)};
  const KeyedRandom random(3, "events");
  double t = 0.5;
  for (std::int64_t id = 0; t < static_cast<double>(frames) / 250; ++id) {
    r.events.push_back(event_at(t, id));
    t += 0.2 + 0.5 * random.uniform(id);
  }
  return r;
}

/// Pushes frames [first, last) in blocks; random: sizes 1 ... block. late: markers come so many frames after onset.
inline void push_all(Graph& graph, const Recording& r, Index block, Index first, Index last, bool random = false,
                     Index late = 0) {
  const Eigen::MatrixXd x = r.streams[0].matrix();
  const auto& f = r.streams[0].format;
  const KeyedRandom sizes(9, "sizes");
  auto given_by = [&](Index frame) {  // events that have come once so many frames were given
    std::size_t n = 0;
    while (n < r.events.size() && r.events[n].onset_s < f.time_of(frame - late)) ++n;
    return n;
  };
  for (Index at = first; at < last;) {
    const Index n = std::min(last - at, random ? 1 + sizes.below(block, at) : block);
    Block b;
    b.x = ConstFrames(x.data() + at * x.rows(), Scalar::f64, x.rows(), n, x.rows());
    b.first_frame = at;
    const auto from = given_by(at);
    b.events = std::span(r.events).subspan(from, given_by(at + n) - from);
    graph.push(0, b);
    at += n;
  }
}

}  // namespace percept::testing
