/// What the tests of this folder share.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "core/graph.h"
#include "decoders/stages.h"
#include "filters/stages.h"
#include "numerics/random.h"
#include "preprocessing/stages.h"
#include "tests/support/errors.h"

namespace percept::testing {

inline const Registry& registry() {
  static const Registry all = [] {
    Registry r;
    r.add(preprocessing_stages());
    r.add(filters_stages());
    r.add(decoders_stages());
    return r;
  }();
  return all;
}

inline Eigen::MatrixXd noise(Index rows, Index frames, std::uint64_t seed = 1) {
  const KeyedRandom random(seed, "noise");
  Eigen::MatrixXd x(rows, frames);
  for (Index t = 0; t < frames; ++t)
    for (Index r = 0; r < rows; ++r) x(r, t) = random.normal(t, static_cast<std::uint64_t>(r));
  return x;
}

inline NodeSpec node(std::string name, std::string use, std::vector<std::string> from, Value params = Value::table()) {
  NodeSpec n;
  n.name = std::move(name);
  n.use = std::move(use);
  n.from = std::move(from);
  n.params = std::move(params);
  return n;
}

/// fir with these taps.
inline NodeSpec fir(std::string name, std::string from, const std::vector<double>& taps) {
  return node(std::move(name), "fir", {std::move(from)}, Value::object({{"taps", Value(taps)}}));
}

inline Event event_at(double onset_s, std::int64_t id, const char* label = "go") {
  Event e;
  e.onset_s = onset_s;
  e.id = id;
  e.label = Label::of(label);
  return e;
}

/// Everything that came out of one edge.
struct Caught {
  Index rows = 0;
  std::vector<double> values;
  std::vector<std::int64_t> keys;
  std::vector<Event> events;
  std::int64_t next = 0;  ///< of the time axis: the frame that has to come next
  bool gap = false;

  SinkFn sink() {
    return [this](const Block& b) {
      rows = b.x.rows;
      gap = gap || (b.keys.empty() && b.first_frame != next);
      next = b.first_frame + b.x.frames;
      const Eigen::MatrixXd x = to_matrix(b.x);
      values.insert(values.end(), x.data(), x.data() + x.size());
      keys.insert(keys.end(), b.keys.begin(), b.keys.end());
      events.insert(events.end(), b.events.begin(), b.events.end());
    };
  }
  Eigen::MatrixXd matrix() const {
    return Eigen::Map<const Eigen::MatrixXd>(values.data(), rows, rows ? static_cast<Index>(values.size()) / rows : 0);
  }
};

/// Bit for bit; "" when they are the same.
inline std::string different(const Caught& a, const Caught& b) {
  if (a.gap || b.gap) return "frames are not consecutive";
  if (a.rows != b.rows || a.values.size() != b.values.size())
    return std::to_string(a.values.size()) + " values against " + std::to_string(b.values.size());
  for (std::size_t i = 0; i < a.values.size(); ++i)
    if (std::memcmp(&a.values[i], &b.values[i], sizeof(double)) != 0 &&
        !(a.values[i] != a.values[i] && b.values[i] != b.values[i]))
      return "value " + std::to_string(i) + ": " + std::to_string(a.values[i]) + " against " +
             std::to_string(b.values[i]);
  if (a.keys != b.keys) return "keys";
  return "";
}

}  // namespace percept::testing
