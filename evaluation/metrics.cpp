#include "evaluation/metrics.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <numbers>

#include "core/error.h"
#include "evaluation/item_metrics.h"

namespace percept::evaluation {

namespace {

constexpr const char* kNoFrame = "no frame has both a truth and a decoded value";

// rows of frame_sums
constexpr Index kScored = 0, kAngle = 1, kFirst = 2, kPerOutput = 7;
enum : Index { kError2, kTruth2, kTruth, kTruthC2, kDecoded, kDecodedC2, kProduct };  // kTruth on: centred

void check(const Eigen::MatrixXd& m, const char* name) {
  for (Index k = 0; k < m.cols(); ++k)
    for (Index i = 0; i < m.rows(); ++i)
      if (std::isinf(m(i, k)))
        throw DataError(name, fmt::format("output {} of frame {}", i, k), "a finite number, or NaN for missing",
                        "infinity");
}

void require_same_shape(const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded) {
  if (truth.rows() != decoded.rows() || truth.cols() != decoded.cols())
    throw DataError("decoded", "shape",
                    fmt::format("{} outputs x {} frames as in the truth", truth.rows(), truth.cols()),
                    fmt::format("{} x {}", decoded.rows(), decoded.cols()));
  check(truth, "truth");
  check(decoded, "decoded");
}

bool scored(const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded, Index k) {
  for (Index i = 0; i < truth.rows(); ++i)
    if (std::isnan(truth(i, k)) || std::isnan(decoded(i, k))) return false;
  return truth.rows() > 0;
}

/// Sum of squares about the mean; 0 when it is rounding only.
double spread(double sum, double sum2, double n) {
  const double s = sum2 - sum * sum / n;
  return s > 1e-10 * sum2 ? s : 0.0;
}

}  // namespace

const std::vector<MetricInfo>& metrics() {
  static const std::vector<MetricInfo> table = [] {
    std::vector<MetricInfo> all = {
        {"rmse", "target", "Root of the mean squared error over every output and frame.", true, false, 0},
        {"nrmse", "1", "rmse divided by the root mean square of the truth: 1 is what decoding zero would score.", true,
         false, 0},
        {"maae", "rad",
         "Mean absolute difference of direction: of atan2(second output, first output), wrapped to [0, pi].", true,
         false, 2},
        {"r2", "1", "1 - SSE / SST, with the mean of the scored frames: 0 is what their mean would score.", false, true,
         0},
        {"r", "1", "Pearson correlation of truth and decoded.", false, true, 0},
        {"mean_r", "1", "Pearson correlation of truth and decoded, averaged over the outputs.", false, false, 0},
        {"median_error", "target", "Median over the frames of the distance between truth and decoded.", true, false, 0,
         MetricInfo::Kind::median},
    };
    const auto& items = item_metrics();
    all.insert(all.end(), items.begin(), items.end());
    all.push_back(*top1_metric("top1_10way"));
    return all;
  }();
  return table;
}

const MetricInfo& metric_info(const std::string& name, const std::string& where) {
  std::vector<std::string> names;
  for (auto& m : metrics()) {
    if (m.name == name) return m;
    names.push_back(m.name);
  }
  static const auto with_unit = [] {  // references to them are given away
    std::map<std::string, MetricInfo> all;
    for (auto& m : metrics())
      for (const char* unit : {"px", "m", "cm", "mm", "m/s", "cm/s"})
        if (m.kind == MetricInfo::Kind::median) {
          MetricInfo named = m;
          named.name += fmt::format("_{}", unit);
          named.unit = unit;
          all[named.name] = named;
        }
    return all;
  }();
  if (const auto found = with_unit.find(name); found != with_unit.end()) return found->second;
  if (const auto top1 = top1_metric(name)) {
    static std::mutex mutex;
    static std::map<std::string, MetricInfo> all;
    const std::lock_guard lock(mutex);
    return all.emplace(name, *top1).first->second;
  }
  throw ConfigError(where, name, fmt::format("one of {}{}", fmt::join(names, ", "), did_you_mean(name, names)));
}

void require_outputs(const MetricInfo& info, Index outputs, const std::string& where) {
  if (outputs < 1) throw ConfigError(where, info.name, "at least one output, found 0");
  if (info.outputs > 0 && outputs != info.outputs)
    throw ConfigError(
        where, info.name,
        fmt::format("a target of {}, found {}",
                    info.outputs == 1 ? "1 output" : fmt::format("{} outputs (x, y)", info.outputs), outputs));
}

void require_shape(const MetricInfo& info, const std::vector<Index>& shape, const std::string& where) {
  const Index side = least_side(info);
  if (side == 0) return;
  if (shape.size() < 2 || shape[shape.size() - 1] < side || shape[shape.size() - 2] < side)
    throw ConfigError(
        where, info.name,
        fmt::format("a target of images of at least {0} x {0} pixels, found {{{1}}}", side, fmt::join(shape, ", ")));
}

void require_unit(const MetricInfo& info, const std::string& target_unit, const std::string& where) {
  if (info.kind == MetricInfo::Kind::median && info.unit != "target" && info.unit != target_unit)
    throw ConfigError(where, info.name, fmt::format("a target in {}, found one in {}", info.unit, target_unit));
}

double Score::headline() const {
  double sum = 0;
  for (double v : values) sum += v;
  return values.empty() ? kUndefined : sum / static_cast<double>(values.size());
}

Eigen::MatrixXd frame_sums(const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded) {
  require_same_shape(truth, decoded);
  const Index outputs = truth.rows(), frames = truth.cols();
  Eigen::MatrixXd s = Eigen::MatrixXd::Zero(kFirst + kPerOutput * outputs, frames);
  Eigen::VectorXd truth_mean = Eigen::VectorXd::Zero(outputs), decoded_mean = truth_mean;
  double n = 0;
  for (Index k = 0; k < frames; ++k)
    if (scored(truth, decoded, k)) {
      s(kScored, k) = 1;
      truth_mean += truth.col(k);
      decoded_mean += decoded.col(k);
      ++n;
    }
  if (n == 0) return s;
  truth_mean /= n;
  decoded_mean /= n;
  for (Index k = 0; k < frames; ++k) {
    if (s(kScored, k) == 0) continue;
    if (outputs == 2) {
      const double d = std::abs(std::atan2(decoded(1, k), decoded(0, k)) - std::atan2(truth(1, k), truth(0, k)));
      s(kAngle, k) = std::min(d, 2 * std::numbers::pi - d);
    }
    for (Index i = 0; i < outputs; ++i) {
      const double z = truth(i, k), d = decoded(i, k), zc = z - truth_mean(i), dc = d - decoded_mean(i);
      double* row = &s(kFirst + kPerOutput * i, k);
      row[kError2] = (z - d) * (z - d);
      row[kTruth2] = z * z;
      row[kTruth] = zc;
      row[kTruthC2] = zc * zc;
      row[kDecoded] = dc;
      row[kDecodedC2] = dc * dc;
      row[kProduct] = zc * dc;
    }
  }
  return s;
}

void finish_metric(const MetricInfo& info, Index outputs, std::span<const double> sums, std::span<double> values) {
  const double n = sums[kScored];
  std::fill(values.begin(), values.end(), kUndefined);
  if (n < 1) return;
  auto of = [&](Index output, Index what) {
    return sums[static_cast<std::size_t>(kFirst + kPerOutput * output + what)];
  };
  auto total = [&](Index what) {
    double t = 0;
    for (Index i = 0; i < outputs; ++i) t += of(i, what);
    return t;
  };
  auto correlation = [&](Index i) {
    const double z = spread(of(i, kTruth), of(i, kTruthC2), n), d = spread(of(i, kDecoded), of(i, kDecodedC2), n);
    if (z == 0 || d == 0) return kUndefined;
    const double product = of(i, kProduct) - of(i, kTruth) * of(i, kDecoded) / n;
    return std::clamp(product / std::sqrt(z) / std::sqrt(d), -1.0, 1.0);
  };
  if (info.name == "rmse") {
    values[0] = std::sqrt(total(kError2) / (n * static_cast<double>(outputs)));
  } else if (info.name == "nrmse") {
    if (total(kTruth2) > 0) values[0] = std::sqrt(total(kError2) / total(kTruth2));
  } else if (info.name == "maae") {
    values[0] = sums[kAngle] / n;
  } else if (info.name == "r2") {
    for (Index i = 0; i < outputs; ++i)
      if (const double z = spread(of(i, kTruth), of(i, kTruthC2), n); z > 0)
        values[static_cast<std::size_t>(i)] = 1 - of(i, kError2) / z;
  } else if (info.name == "r") {
    for (Index i = 0; i < outputs; ++i) values[static_cast<std::size_t>(i)] = correlation(i);
  } else {  // mean_r
    double sum = 0;
    for (Index i = 0; i < outputs; ++i) sum += correlation(i);
    values[0] = sum / static_cast<double>(outputs);
  }
}

std::vector<double> frame_errors(const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded) {
  std::vector<double> error(static_cast<std::size_t>(truth.cols()));
  for (Index k = 0; k < truth.cols(); ++k) error[static_cast<std::size_t>(k)] = (truth.col(k) - decoded.col(k)).norm();
  return error;
}

double median_of(std::vector<double>& values) {
  std::erase_if(values, [](double v) { return std::isnan(v); });
  if (values.empty()) return kUndefined;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return values.size() % 2 ? *middle : 0.5 * (*middle + *std::max_element(values.begin(), middle));
}

double Score::sd() const {
  double n = 0, mean = 0, squares = 0;  // Welford
  for (double v : items) {
    if (std::isnan(v)) continue;
    const double step = v - mean;
    mean += step / ++n;
    squares += step * (v - mean);
  }
  return n > 1 ? std::sqrt(squares / (n - 1)) : kUndefined;
}

namespace {
Score item_score(Score s, const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded,
                 const std::vector<Index>& shape) {
  require_same_shape(truth, decoded);
  const ItemValues items = ItemScorer(s.info, truth, decoded, shape).values();
  s.items.assign(items.values.begin(), items.values.end());
  s.values = {kUndefined};
  s.reasons = {""};
  double sum = 0;
  for (Index k = 0; k < truth.cols(); ++k) {
    if (!scored(truth, decoded, k)) continue;
    ++s.frames;
    sum += items.values(k);
  }
  s.missing = truth.cols() - s.frames;
  if (s.frames == 0) s.reasons[0] = kNoFrame;
  else if (items.undefined >= 0) s.reasons[0] = fmt::format("item {}: {}", items.undefined + 1, items.reason);
  else s.values[0] = sum / static_cast<double>(s.frames);
  return s;
}
}  // namespace

Score score(const std::string& metric, const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded,
            const std::vector<Index>& shape) {
  Score s;
  s.info = metric_info(metric);
  const Index outputs = truth.rows();
  require_outputs(s.info, outputs);
  if (s.info.kind == MetricInfo::Kind::item) return item_score(std::move(s), truth, decoded, shape);
  const Eigen::MatrixXd per_frame = frame_sums(truth, decoded);
  const Eigen::VectorXd sums = per_frame.rowwise().sum();
  s.frames = static_cast<Index>(sums[kScored]);
  s.missing = truth.cols() - s.frames;
  s.values.resize(s.info.per_output ? static_cast<std::size_t>(outputs) : 1);
  s.reasons.resize(s.values.size());
  if (s.info.kind == MetricInfo::Kind::median) {
    auto errors = frame_errors(truth, decoded);
    s.values[0] = median_of(errors);
  } else {
    finish_metric(s.info, outputs, {sums.data(), static_cast<std::size_t>(sums.size())}, s.values);
  }

  auto constant = [&](Index i) -> std::string {
    const double* row = &sums[kFirst + kPerOutput * i];
    const double n = sums[kScored];
    if (spread(row[kTruth], row[kTruthC2], n) == 0) return "the truth is constant";
    return spread(row[kDecoded], row[kDecodedC2], n) == 0 ? "what was decoded is constant" : "";
  };
  for (std::size_t v = 0; v < s.values.size(); ++v) {
    if (std::isfinite(s.values[v])) continue;
    if (s.frames == 0) s.reasons[v] = kNoFrame;
    else if (s.info.name == "nrmse" && std::isnan(s.values[v])) s.reasons[v] = "the truth is zero everywhere";
    else if (s.info.per_output) s.reasons[v] = constant(static_cast<Index>(v));
    else
      for (Index i = 0; i < outputs && s.reasons[v].empty(); ++i) s.reasons[v] = constant(i);
    if (s.reasons[v].empty()) s.reasons[v] = "the numbers are too large for double precision";
    s.values[v] = kUndefined;
  }
  return s;
}

Eigen::MatrixXd gather(const Eigen::MatrixXd& m, const std::vector<std::pair<std::int64_t, std::int64_t>>& ranges) {
  Index n = 0;
  for (auto& [first, last] : ranges) n += last - first + 1;
  Eigen::MatrixXd out(m.rows(), n);
  Index at = 0;
  for (auto& [first, last] : ranges) {
    if (first < 0 || last < first || last >= m.cols())
      throw DataError("frames", fmt::format("{}..{}", first, last), fmt::format("a range inside 0..{}", m.cols() - 1),
                      "");
    out.middleCols(at, last - first + 1) = m.middleCols(first, last - first + 1);
    at += last - first + 1;
  }
  return out;
}

std::vector<Index> segment_starts(const std::vector<std::pair<std::int64_t, std::int64_t>>& ranges) {
  std::vector<Index> starts;
  Index at = 0;
  for (auto& [first, last] : ranges) {
    starts.push_back(at);
    at += last - first + 1;
  }
  return starts;
}

}  // namespace percept::evaluation
