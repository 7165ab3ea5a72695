/// What the tests of this folder share.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>

#include "preprocessing/stages.h"
#include "tests/support/driver.h"
#include "tests/support/errors.h"

namespace percept::testing {

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

inline const Registry& stages() {
  static const Registry all = [] {
    Registry r;
    r.add(preprocessing_stages());
    return r;
  }();
  return all;
}

inline std::unique_ptr<Stage> make(const std::string& name, Value params = Value::table(),
                                   const Model* model = nullptr) {
  return stages().at(name, "test").make(params, model, "node");
}

inline Context context_of(Counters* counters = nullptr) {
  Context c;
  c.node = "node";
  c.counters = counters;
  return c;
}

/// What the stage makes of x in one block.
inline Collected apply(const std::string& name, const Value& params, const StreamFormat& format,
                       const Eigen::MatrixXd& x, const Model* model = nullptr) {
  auto stage = make(name, params, model);
  const StageInput in{.format = format, .frames = x};
  return run_stage(*stage, in, {}, {}, context_of());
}

inline Model fit(const std::string& name, const Value& params, const StreamFormat& format, const Eigen::MatrixXd& x) {
  TrainingMatrix t;
  t.x = x;
  t.y.resize(0, x.cols());
  for (Index k = 0; k < x.cols(); ++k) t.keys.push_back(k);
  t.groups.assign(t.keys.size(), 0);
  t.segment_starts = {0};
  const MemoryData data(format, StreamFormat{}, t, 7);
  auto c = context_of();
  return stages().at(name, "test").make_fitter(params, "node")->fit(data, c);
}

/// The message with which prepare() refuses.
inline std::string refusal(const std::string& name, const Value& params, const StreamFormat& format) {
  return message_of<ConfigError>([&] {
    auto c = context_of();
    make(name, params)->prepare(format, c);
  });
}

/// Any numbers that do not repeat soon.
inline Eigen::MatrixXd wave(Index rows, Index frames) {
  Eigen::MatrixXd x(rows, frames);
  for (Index t = 0; t < frames; ++t)
    for (Index r = 0; r < rows; ++r) {
      const auto k = static_cast<double>(t), i = static_cast<double>(r + 1);
      x(r, t) =
          std::sin(0.71 * k * i) + 0.3 * std::cos(0.037 * k + i) + 0.01 * static_cast<double>((t * 7919 + r) % 101);
    }
  return x;
}

inline StreamFormat named(StreamFormat format, const std::vector<std::string>& names) {
  for (auto& n : names) {
    Channel c;
    c.name = n;
    format.parts[0].rows.push_back(c);
  }
  return format;
}

}  // namespace percept::testing
