// What the plots of a report are drawn from: one entry of `trajectories`.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "core/error.h"
#include "evaluation/report/report.h"

namespace percept::evaluation {

namespace {

using Eigen::Index;
constexpr Index kMostFrames = 20000, kStretches = 10000, kPathFrames = 200;
constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();
constexpr double kBand = 1.6448536269514722;  // standard deviations on each side of a normal's middle 90 %

/// Six significant digits: what a plot can show, a third of the bytes.
Value rounded(double v) {
  return std::isfinite(v) ? Value(std::strtod(fmt::format("{:.6g}", v).c_str(), nullptr)) : Value();
}

Value row_value(const Eigen::MatrixXd& m, Index row, Index first, Index n) {
  Value list = Value::array();
  list.as_array().reserve(static_cast<std::size_t>(n));
  for (Index k = first; k < first + n; ++k) list.push_back(rounded(m(row, k)));
  return list;
}

/// Mean over `window` frames around each, of those that are there.
Eigen::RowVectorXd running_mean(const Eigen::RowVectorXd& v, Index window) {
  const Index n = v.size(), before = window / 2;
  Eigen::RowVectorXd out(n);
  double sum = 0;
  Index count = 0, first = 0, end = 0;
  for (Index k = 0; k < n; ++k) {
    for (; end < std::min(n, k - before + window); ++end)
      if (!std::isnan(v(end))) {
        sum += v(end);
        ++count;
      }
    for (; first < k - before; ++first)
      if (!std::isnan(v(first))) {
        sum -= v(first);
        --count;
      }
    out(k) = count > 0 ? sum / static_cast<double>(count) : kMissing;
  }
  return out;
}

/// First frame of the n frames in which the truth moves most; the jump from segment to segment does not count.
Index liveliest_window(const Eigen::MatrixXd& truth, const std::vector<Index>& starts, Index n) {
  Index best = 0;
  double sum = 0, most = -1;
  auto step = [&](Index k) {
    if (k == 0 || std::find(starts.begin(), starts.end(), k) != starts.end()) return 0.0;
    const double d = (truth.col(k) - truth.col(k - 1)).norm();
    return std::isnan(d) ? 0.0 : d;
  };
  for (Index k = 0; k < truth.cols(); ++k) {
    sum += step(k);
    if (k >= n) sum -= step(k - n);
    if (k >= n - 1 && sum > most * (1 + 1e-9)) {
      most = sum;
      best = k - n + 1;
    }
  }
  return best;
}

/// Smallest and largest value of each stretch, in the order they come; a stretch is two columns. Row 0 is x.
Eigen::MatrixXd reduce(const Eigen::MatrixXd& m) {
  const Index length = (m.cols() + kStretches - 1) / kStretches, stretches = (m.cols() + length - 1) / length;
  Eigen::MatrixXd out(m.rows(), 2 * stretches);
  for (Index s = 0; s < stretches; ++s) {
    const Index first = s * length, end = std::min(first + length, m.cols());
    out(0, 2 * s) = m(0, first);
    out(0, 2 * s + 1) = m(0, first + (end - first) / 2);
    for (Index row = 1; row < m.rows(); ++row) {
      Index low = -1, high = -1;
      for (Index k = first; k < end; ++k) {
        if (std::isnan(m(row, k))) continue;
        if (low < 0 || m(row, k) < m(row, low)) low = k;
        if (high < 0 || m(row, k) > m(row, high)) high = k;
      }
      out(row, 2 * s) = low < 0 ? kMissing : m(row, std::min(low, high));
      out(row, 2 * s + 1) = low < 0 ? kMissing : m(row, std::max(low, high));
    }
  }
  return out;
}

}  // namespace

Value trajectory(const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded, const Eigen::MatrixXd& covariance,
                 const TrajectoryOptions& options) {
  const Index outputs = truth.rows(), frames = truth.cols();
  const bool band = covariance.size() > 0;
  auto check = [&](const char* field, const Eigen::MatrixXd& m, Index rows) {
    if (m.rows() != rows || m.cols() != frames)
      throw DataError("trajectory", field, fmt::format("{} rows x {} frames", rows, frames),
                      fmt::format("{} x {}", m.rows(), m.cols()));
  };
  check("decoded", decoded, outputs);
  if (band) check("covariance", covariance, outputs * outputs);
  if (options.starts.empty() || options.starts[0] != 0)
    throw DataError("trajectory", "starts", "a first segment that starts at 0", "none");
  if (outputs < 1 || frames < 1)
    throw DataError("trajectory", "truth", "at least one output and one frame",
                    fmt::format("{} x {}", outputs, frames));

  // rows: x, then truth, decoded, low, high of each output, then error and its running mean;
  // a column without values parts two segments
  const Index holes = static_cast<Index>(options.starts.size()) - 1, per_output = band ? 4 : 2;
  const Index error_row = 1 + per_output * outputs, window = std::max<Index>(5, frames / 50);
  Eigen::MatrixXd all = Eigen::MatrixXd::Constant(error_row + 2, frames + holes, kMissing);
  const Eigen::RowVectorXd error = (truth - decoded).colwise().norm();
  const Eigen::RowVectorXd mean = running_mean(error, window);
  const double step = options.rate_hz > 0 ? 1 / options.rate_hz : 1;
  std::size_t segment = 0;
  Index at = 0;
  for (Index k = 0; k < frames; ++k, ++at) {
    while (segment + 1 < options.starts.size() && options.starts[segment + 1] == k) {
      all(0, at) = all(0, at - 1) + step / 2;
      ++at;
      ++segment;
    }
    const bool clocks = segment < options.segment_times.size();
    all(0, at) = (clocks ? options.segment_times[segment] + static_cast<double>(k - options.starts[segment]) * step
                         : options.start_s + static_cast<double>(k) * step);
    for (Index i = 0; i < outputs; ++i) {
      const Index row = 1 + per_output * i;
      all(row, at) = truth(i, k);
      all(row + 1, at) = decoded(i, k);
      if (!band) continue;
      const double half = kBand * std::sqrt(covariance(i * outputs + i, k));  // NaN where the variance is negative
      all(row + 2, at) = decoded(i, k) - half;
      all(row + 3, at) = decoded(i, k) + half;
    }
    all(error_row, at) = error(k);
    all(error_row + 1, at) = mean(k);
  }
  auto name = [&](Index i) {
    const auto u = static_cast<std::size_t>(i);
    return u < options.outputs.size() ? options.outputs[u] : fmt::format("output {}", i + 1);
  };

  Value v = Value::object({{"name", options.name},
                           {"unit", options.unit.empty() ? "1" : options.unit},
                           {"x_label", options.rate_hz > 0 ? "time [s]" : "item"},
                           {"frames", frames},
                           {"error_window", window}});
  const bool reduced = frames > kMostFrames;
  if (outputs >= 2) {
    const Index n = std::min(frames, options.path_frames > 0 ? options.path_frames : kPathFrames);
    const Index first = options.path_first >= 0 ? std::min(options.path_first, frames - n)
                                                : liveliest_window(truth.topRows(2), options.starts, n);
    const bool velocity =
        options.unit.find("/s") != std::string::npos || (name(0).starts_with("v") && name(1).starts_with("v"));
    Value path = Value::object(
        {{"frames", n}, {"step", step}, {"step_unit", options.rate_hz > 0 ? "s" : ""}, {"summed", velocity}});
    for (auto [key, m] : {std::pair{"true", &truth}, {"decoded", &decoded}})
      if (reduced) path[key] = Value::array({row_value(*m, 0, first, n), row_value(*m, 1, first, n)});
    // columns that part segments come before it
    const Index column =
        first + std::count_if(options.starts.begin() + 1, options.starts.end(), [&](Index s) { return s <= first; });
    path["first"] = column;
    path["x"] = all(0, column);
    v["path"] = std::move(path);
  }
  if (reduced) {
    all = reduce(all);
    v["reduced"] =
        fmt::format("{} frames are drawn as the smallest and largest value of {} stretches", frames, all.cols() / 2);
  }
  v["x"] = row_value(all, 0, 0, all.cols());
  Value list = Value::array();
  for (Index i = 0; i < outputs; ++i) {
    const Index row = 1 + per_output * i;
    Value o = Value::object({{"name", name(i)}});
    o["true"] = row_value(all, row, 0, all.cols());
    o["decoded"] = row_value(all, row + 1, 0, all.cols());
    if (band) {
      o["low"] = row_value(all, row + 2, 0, all.cols());
      o["high"] = row_value(all, row + 3, 0, all.cols());
    }
    list.push_back(std::move(o));
  }
  v["outputs"] = std::move(list);
  v["error"] = row_value(all, error_row, 0, all.cols());
  v["error_mean"] = row_value(all, error_row + 1, 0, all.cols());
  return v;
}

}  // namespace percept::evaluation
