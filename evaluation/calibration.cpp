#include "evaluation/calibration.h"

#include <fmt/format.h>

#include <Eigen/Cholesky>
#include <cmath>
#include <limits>
#include <unsupported/Eigen/SpecialFunctions>

#include "core/error.h"

namespace percept::evaluation {

double chi_square_cdf(double x, Index dof) {
  if (!(x > 0)) return 0;
  if (std::isinf(x)) return 1;
  return Eigen::numext::igamma(static_cast<double>(dof) / 2, x / 2);
}

double chi_square_quantile(double p, Index dof) {
  if (!(p > 0 && p < 1) || dof < 1)
    throw Error(fmt::format("chi-square quantile: expected p in (0, 1) and dof >= 1, found p = {}, dof = {}", p, dof));
  double low = 0, high = static_cast<double>(dof) + 10;
  while (chi_square_cdf(high, dof) < p) high *= 2;
  for (int i = 0; i < 200 && low < high; ++i) {  // halving, to the last bit
    const double middle = 0.5 * (low + high);
    if (middle == low || middle == high) break;
    (chi_square_cdf(middle, dof) < p ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

Calibration calibrate(const Eigen::MatrixXd& truth, const Eigen::MatrixXd& mean, const Eigen::MatrixXd& covariance,
                      const std::vector<Index>& starts, const BootstrapOptions& options) {
  constexpr double kNominal[] = {0.5, 0.68, 0.8, 0.9, 0.95};
  constexpr Index kLevels = std::size(kNominal), kJudged = 3;
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const Index d = truth.rows(), frames = truth.cols();
  auto shape = [&](const Eigen::MatrixXd& m, Index rows, const char* name) {
    if (m.rows() != rows || m.cols() != frames)
      throw DataError("calibration", name, fmt::format("{} rows x {} frames", rows, frames),
                      fmt::format("{} x {}", m.rows(), m.cols()));
  };
  if (d < 1) throw DataError("calibration", "truth", "at least one output", "none");
  shape(mean, d, "mean");
  shape(covariance, d * d, "covariance");

  // rows: inside each level; scored; positive definite; squared distance. Summed by the bootstrap.
  constexpr Index kScored = kLevels, kPositive = kLevels + 1, kDistance = kLevels + 2;
  Eigen::MatrixXd per_frame = Eigen::MatrixXd::Zero(kLevels + 3, frames);
  Eigen::MatrixXd distance = Eigen::MatrixXd::Constant(1, frames, nan);
  Eigen::VectorXd error(d);
  Calibration c;
  c.outputs = d;
  double radius2[kLevels];
  for (Index l = 0; l < kLevels; ++l) radius2[l] = chi_square_quantile(kNominal[l], d);
  for (Index k = 0; k < frames; ++k) {
    if (truth.col(k).hasNaN() || mean.col(k).hasNaN() || covariance.col(k).hasNaN()) {
      ++c.missing;
      continue;
    }
    ++c.frames;
    per_frame(kScored, k) = 1;
    const Eigen::LLT<Eigen::MatrixXd> llt(Eigen::Map<const Eigen::MatrixXd>(covariance.col(k).data(), d, d));
    error = truth.col(k) - mean.col(k);
    double d2 = nan;
    if (llt.info() == Eigen::Success) d2 = llt.matrixL().solve(error).squaredNorm();
    if (!std::isfinite(d2)) {
      ++c.bad_covariances;
      continue;
    }
    distance(0, k) = d2;
    per_frame(kPositive, k) = 1;
    per_frame(kDistance, k) = d2;
    for (Index l = 0; l < kLevels; ++l) per_frame(l, k) = d2 <= radius2[l] ? 1 : 0;
  }
  auto finish = [&](std::span<const double> sums, std::span<double> values) {
    for (std::size_t l = 0; l < kLevels; ++l) values[l] = sums[l] / sums[kScored];
    values[kLevels] = sums[kDistance] / sums[kPositive];
  };
  const Eigen::VectorXd sums = per_frame.rowwise().sum();
  std::vector<double> values(kLevels + 1);
  finish({sums.data(), static_cast<std::size_t>(sums.size())}, values);
  if (c.frames == 0 || sums[kPositive] == 0) {
    c.verdict = "unknown";
    c.method = c.frames == 0 ? "no frame has a truth, a mean and a covariance" : "no covariance is positive definite";
    c.mean_distance2 = nan;
    c.distance2_interval = {nan, nan};
    for (Index l = 0; l < kLevels; ++l) c.levels.push_back({kNominal[l], c.frames == 0 ? nan : 0.0, {nan, nan}});
    return c;
  }
  BootstrapOptions chosen = options;
  if (chosen.block_frames == 0) chosen.block_frames = automatic_block(distance);
  const Bootstrap b = bootstrap_sums(per_frame, starts, kLevels + 1, finish, chosen);
  for (std::size_t l = 0; l < kLevels; ++l) c.levels.push_back({kNominal[l], values[l], b.intervals[l]});
  c.mean_distance2 = values[kLevels];
  c.distance2_interval = b.intervals[kLevels];
  c.method = b.method;
  const double judged = c.levels[kJudged].observed;
  c.calibrated = judged >= 0.85 && judged <= 0.95;
  c.verdict = c.calibrated ? "calibrated" : judged < 0.85 ? "overconfident" : "underconfident";
  return c;
}

Value to_value(const Calibration& c) {
  auto number = [](double v) { return std::isfinite(v) ? Value(v) : Value(); };
  Value levels = Value::array();
  for (auto& l : c.levels)
    levels.push_back(Value::object({{"nominal", l.nominal},
                                    {"observed", number(l.observed)},
                                    {"low", number(l.interval.low)},
                                    {"high", number(l.interval.high)}}));
  return Value::object({{"levels", levels},
                        {"mean_distance2", number(c.mean_distance2)},
                        {"distance2_low", number(c.distance2_interval.low)},
                        {"distance2_high", number(c.distance2_interval.high)},
                        {"outputs", c.outputs},
                        {"frames", c.frames},
                        {"missing", c.missing},
                        {"bad_covariances", c.bad_covariances},
                        {"calibrated", c.calibrated},
                        {"verdict", c.verdict},
                        {"method", c.method}});
}

}  // namespace percept::evaluation
