/// 95 % intervals of scores of a time series: moving-block bootstrap (Kuensch, Annals of Statistics 17 (1989) 1217).
/// The block length comes from the autocorrelation (Politis, White, Econometric Reviews 23 (2004) 53, with the
/// correction of Patton, Politis, White, same journal 28 (2009) 372) unless it is given.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/value.h"
#include "evaluation/metrics.h"

namespace percept::evaluation {

struct Interval {
  double low = 0, high = 0;  ///< NaN, NaN when too few resamples define the value
};

struct BootstrapOptions {
  Index block_frames = 0;  ///< 0: from the autocorrelation
  Index resamples = 1000;
  double level = 0.95;
  std::uint64_t seed = 0;
  std::string purpose = "bootstrap";  ///< names the stream of random numbers
};

struct Bootstrap {
  std::vector<Interval> intervals;  ///< one a value
  Interval headline;                ///< of the mean over the values
  Index block_frames = 0, resamples = 0;
  Index undefined = 0;  ///< resamples left out because a value was undefined in them
  std::string method;   ///< a sentence for the reader
};

/// Frames [first, first + count) of one resample; they may overlap.
using FrameBlock = std::pair<Index, Index>;

/// Percentile intervals of values that are a function of resampled frames. starts: first frame of each uninterrupted
/// segment; no block crosses one. block_frames must be >= 1 (see automatic_block). `statistic` gets the blocks of one
/// resample, as many frames in all as there are, and writes `values` numbers.
Bootstrap bootstrap_blocks(Index frames, const std::vector<Index>& starts, Index values,
                           const std::function<void(std::span<const FrameBlock>, std::span<double> values)>& statistic,
                           const BootstrapOptions& options);

/// Percentile intervals of values that are a function of sums over frames.
/// per_frame: statistics x frames. `finish` gets the sums of one resample and writes `values` numbers.
Bootstrap bootstrap_sums(const Eigen::MatrixXd& per_frame, const std::vector<Index>& starts, Index values,
                         const std::function<void(std::span<const double> sums, std::span<double> values)>& finish,
                         const BootstrapOptions& options);

/// Of one metric; the block length from the error (each output, and the squared error of the frame; the longest).
Bootstrap bootstrap(const Score& score, const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded,
                    const std::vector<Index>& starts = {0}, const BootstrapOptions& options = {});

/// Block length for these series (series x frames; NaN taken as the mean of its row): the longest over the rows.
/// At least 1, at most min(3 sqrt(n), n / 3).
Index automatic_block(const Eigen::MatrixXd& series);
/// First lag from which the autocorrelation stays insignificant (|rho| < 2 sqrt(log10(n) / n) over max(5, sqrt(log10
/// n)) lags): the longest over the rows. At least 1.
Index decorrelation_frames(const Eigen::MatrixXd& series);

/// {"name", "value", "low", "high", "unit", "lower_is_better", "doc", "frames", "missing", "sd"?, "reason"?,
///  "interval"?, "outputs": [{"name", "value", "low", "high", "reason"?}]?}: what a report's score holds (see report/report.h).
/// A NaN becomes null beside its reason. `bootstrap` may be nullptr. output_names: one an output, or empty.
Value to_value(const Score& score, const Bootstrap* bootstrap = nullptr,
               const std::vector<std::string>& output_names = {});

}  // namespace percept::evaluation
