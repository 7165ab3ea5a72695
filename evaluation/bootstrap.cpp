#include "evaluation/bootstrap.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "numerics/random.h"

namespace percept::evaluation {

namespace {

/// Autocovariance at lags 0 ... max_lag of one series, its mean removed, NaN as the mean; divided by n.
std::vector<double> autocovariance(const Eigen::VectorXd& series, Index max_lag) {
  const Index n = series.size();
  double sum = 0, present = 0;
  for (double v : series)
    if (!std::isnan(v)) {
      sum += v;
      ++present;
    }
  Eigen::VectorXd c(n);
  for (Index k = 0; k < n; ++k) c(k) = std::isnan(series(k)) ? 0 : series(k) - sum / present;
  std::vector<double> r(static_cast<std::size_t>(max_lag) + 1);
  for (Index lag = 0; lag <= max_lag; ++lag)
    r[static_cast<std::size_t>(lag)] = c.head(n - lag).dot(c.tail(n - lag)) / static_cast<double>(n);
  return r;
}

/// The lag after which the autocorrelation stays insignificant, as Politis and White choose it; 0 for a constant.
Index last_significant_lag(const std::vector<double>& r, Index n) {
  if (r[0] <= 0) return 0;
  const double threshold = 2 * std::sqrt(std::log10(static_cast<double>(n)) / static_cast<double>(n));
  const Index run = std::max<Index>(5, static_cast<Index>(std::sqrt(std::log10(static_cast<double>(n)))));
  const auto lags = static_cast<Index>(r.size()) - 1;
  Index quiet = 0;
  for (Index lag = 1; lag <= lags; ++lag) {
    quiet = std::abs(r[static_cast<std::size_t>(lag)] / r[0]) < threshold ? quiet + 1 : 0;
    if (quiet == run) return lag - run;
  }
  return lags - quiet;
}

Index longest_lag(Index n) {
  return std::min<Index>(n - 1, std::max<Index>(20, static_cast<Index>(10 * std::sqrt(n))));
}

Index block_of(const Eigen::VectorXd& series) {
  const Index n = series.size();
  if (n < 4) return 1;
  const auto r = autocovariance(series, longest_lag(n));
  if (r[0] <= 0) return 1;
  const Index m = std::min<Index>(std::max<Index>(1, 2 * last_significant_lag(r, n)), static_cast<Index>(r.size()) - 1);
  double g = 0, spectrum = r[0];  // weighted sums over lags -m ... m of the flat-top window
  for (Index lag = 1; lag <= m; ++lag) {
    const double t = static_cast<double>(lag) / static_cast<double>(m);
    const double w = t <= 0.5 ? 1 : 2 * (1 - t);
    g += 2 * w * static_cast<double>(lag) * r[static_cast<std::size_t>(lag)];
    spectrum += 2 * w * r[static_cast<std::size_t>(lag)];
  }
  const double d = 4.0 / 3.0 * spectrum * spectrum;
  const double limit = std::min(3 * std::sqrt(static_cast<double>(n)), static_cast<double>(n) / 3);
  const double b = d > 0 ? std::cbrt(2 * g * g / d * static_cast<double>(n)) : limit;
  return std::max<Index>(1, static_cast<Index>(std::ceil(std::min(b, limit))));
}

/// Percentile of sorted numbers, linear between them.
double percentile(const std::vector<double>& sorted, double p) {
  const double at = p * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<std::size_t>(at);
  const auto high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (at - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

Interval interval_of(std::vector<double> v, double level) {
  std::sort(v.begin(), v.end());
  return {percentile(v, (1 - level) / 2), percentile(v, (1 + level) / 2)};
}

}  // namespace

Index automatic_block(const Eigen::MatrixXd& series) {
  Index longest = 1;
  for (Index i = 0; i < series.rows(); ++i) longest = std::max(longest, block_of(series.row(i)));
  return longest;
}

Index decorrelation_frames(const Eigen::MatrixXd& series) {
  Index longest = 1;
  const Index n = series.cols();
  for (Index i = 0; i < series.rows() && n >= 4; ++i)
    longest = std::max(longest, last_significant_lag(autocovariance(series.row(i), longest_lag(n)), n) + 1);
  return longest;
}

Bootstrap bootstrap_blocks(Index frames, const std::vector<Index>& starts, Index values,
                           const std::function<void(std::span<const FrameBlock>, std::span<double>)>& statistic,
                           const BootstrapOptions& options) {
  if (options.block_frames < 1)
    throw ConfigError("bootstrap.block_frames", fmt::format("{}", options.block_frames), "at least 1");
  if (options.resamples < 20)
    throw ConfigError("bootstrap", fmt::format("{}", options.resamples), "at least 20 resamples");
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  Bootstrap result;
  result.block_frames = std::min(options.block_frames, std::max<Index>(frames, 1));
  result.resamples = options.resamples;
  result.intervals.assign(static_cast<std::size_t>(values), {nan, nan});
  result.headline = {nan, nan};
  const auto how = result.block_frames == 1 ? std::string("with frames resampled one by one")
                                            : fmt::format("by moving blocks of {} frames", result.block_frames);
  result.method = fmt::format("{:g} % interval {}, {} resamples", 100 * options.level, how, options.resamples);
  if (frames == 0) return result;

  // every place where a block may start; a segment shorter than a block is one block
  std::vector<FrameBlock> blocks;
  for (std::size_t s = 0; s < starts.size(); ++s) {
    const Index first = starts[s], end = s + 1 < starts.size() ? starts[s + 1] : frames;
    const Index length = std::min(result.block_frames, end - first);
    for (Index at = first; length > 0 && at + length <= end; ++at) blocks.emplace_back(at, length);
  }
  const KeyedRandom random(options.seed, options.purpose);
  std::vector<std::vector<double>> found(static_cast<std::size_t>(values));
  std::vector<double> headlines, value(static_cast<std::size_t>(values));
  std::vector<FrameBlock> drawn;
  for (Index b = 0; b < options.resamples; ++b) {
    drawn.clear();
    std::uint64_t draw = 0;
    for (Index taken = 0; taken < frames; taken += drawn.back().second) {
      const auto [at, length] =
          blocks[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(blocks.size()), b, draw++))];
      drawn.emplace_back(at, std::min(length, frames - taken));
    }
    statistic(drawn, value);
    if (!std::all_of(value.begin(), value.end(), [](double v) { return std::isfinite(v); })) {
      ++result.undefined;
      continue;
    }
    double mean = 0;
    for (std::size_t i = 0; i < value.size(); ++i) {
      found[i].push_back(value[i]);
      mean += value[i] / static_cast<double>(values);
    }
    headlines.push_back(mean);
  }
  if (2 * result.undefined > options.resamples) {
    result.method += fmt::format("; undefined in {} of them, so no interval", result.undefined);
    return result;
  }
  if (result.undefined > 0) result.method += fmt::format(", {} of them left out as undefined", result.undefined);
  for (std::size_t i = 0; i < found.size(); ++i) result.intervals[i] = interval_of(found[i], options.level);
  result.headline = interval_of(headlines, options.level);
  return result;
}

Bootstrap bootstrap_sums(const Eigen::MatrixXd& per_frame, const std::vector<Index>& starts, Index values,
                         const std::function<void(std::span<const double>, std::span<double>)>& finish,
                         const BootstrapOptions& options) {
  const Index frames = per_frame.cols(), rows = per_frame.rows();
  Eigen::MatrixXd until(rows, frames + 1);  // sums before each frame: a block is one difference
  until.col(0).setZero();
  for (Index k = 0; k < frames; ++k) until.col(k + 1) = until.col(k) + per_frame.col(k);
  Eigen::VectorXd sums(rows);
  return bootstrap_blocks(
      frames, starts, values,
      [&](std::span<const FrameBlock> blocks, std::span<double> out) {
        sums.setZero();
        for (auto& [at, n] : blocks) sums += until.col(at + n) - until.col(at);
        finish({sums.data(), static_cast<std::size_t>(rows)}, out);
      },
      options);
}

Bootstrap bootstrap(const Score& score, const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded,
                    const std::vector<Index>& starts, const BootstrapOptions& options) {
  BootstrapOptions chosen = options;
  if (options.block_frames == 0) {
    Eigen::MatrixXd error(truth.rows() + 1, truth.cols());
    error.topRows(truth.rows()) = truth - decoded;
    error.bottomRows(1) = error.topRows(truth.rows()).colwise().squaredNorm();
    chosen.block_frames = automatic_block(error);
  }
  Bootstrap result;
  if (score.info.kind == MetricInfo::Kind::item) {
    // sums over the items of one, and of their values; what is left out counts for nothing
    Eigen::MatrixXd sums = Eigen::MatrixXd::Zero(2, truth.cols());
    for (Index k = 0; k < truth.cols(); ++k)
      if (const double v = score.items[static_cast<std::size_t>(k)]; !std::isnan(v)) sums.col(k) << 1, v;
    result = bootstrap_sums(
        sums, starts, 1, [](std::span<const double> s, std::span<double> values) { values[0] = s[1] / s[0]; }, chosen);
  } else if (score.info.kind == MetricInfo::Kind::median) {
    const auto error = frame_errors(truth, decoded);
    std::vector<double> taken;
    result = bootstrap_blocks(
        truth.cols(), starts, 1,
        [&](std::span<const FrameBlock> blocks, std::span<double> values) {
          taken.clear();
          for (auto& [at, n] : blocks) taken.insert(taken.end(), error.begin() + at, error.begin() + at + n);
          values[0] = median_of(taken);
        },
        chosen);
  } else {
    result = bootstrap_sums(
        frame_sums(truth, decoded), starts, static_cast<Index>(score.values.size()),
        [&](std::span<const double> sums, std::span<double> values) {
          finish_metric(score.info, truth.rows(), sums, values);
        },
        chosen);
  }
  if (options.block_frames == 0) result.method += "; the length is from the autocorrelation of the error";
  else if (options.block_frames > 1) result.method += "; the length was given";
  return result;
}

Value to_value(const Score& score, const Bootstrap* bootstrap, const std::vector<std::string>& output_names) {
  auto number = [](double v) { return std::isfinite(v) ? Value(v) : Value(); };
  auto put = [&](Value& into, double v, const Interval* interval, const std::string& reason) {
    into["value"] = number(v);
    if (interval) {
      into["low"] = number(interval->low);
      into["high"] = number(interval->high);
    }
    if (!reason.empty()) into["reason"] = reason;
  };
  Value v = Value::object({{"name", score.info.name}});
  std::string reason;
  for (auto& r : score.reasons)
    if (reason.empty()) reason = r;
  put(v, score.headline(), bootstrap ? &bootstrap->headline : nullptr, reason);
  v["unit"] = score.info.unit;
  v["lower_is_better"] = score.info.lower_is_better;
  v["doc"] = score.info.doc;
  v["frames"] = score.frames;
  v["missing"] = score.missing;
  if (const double sd = score.sd(); std::isfinite(sd)) v["sd"] = sd;
  if (bootstrap) v["interval"] = bootstrap->method;
  if (score.info.per_output) {
    Value outputs = Value::array();
    for (std::size_t i = 0; i < score.values.size(); ++i) {
      Value o = Value::object({{"name", i < output_names.size() ? output_names[i] : fmt::format("output {}", i + 1)}});
      put(o, score.values[i], bootstrap ? &bootstrap->intervals[i] : nullptr, score.reasons[i]);
      outputs.push_back(std::move(o));
    }
    v["outputs"] = std::move(outputs);
  }
  return v;
}

}  // namespace percept::evaluation
