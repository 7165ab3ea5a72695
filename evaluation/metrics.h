/// Metrics: how near what was decoded is to the truth. Of a trajectory: functions of sums over its frames, or medians. Of
/// items (images, categories): the mean over the frames of a value of each (item_metrics.h).
/// Every matrix is outputs x frames. A frame with NaN in the truth or in what was decoded is left out and counted.
#pragma once

#include <Eigen/Core>
#include <span>
#include <string>
#include <vector>

#include "core/stream.h"
#include "core/value.h"

namespace percept::evaluation {

/// A row of the table of metrics.
struct MetricInfo {
  enum class Kind {
    sums,    ///< a function of frame_sums()
    median,  ///< of frame_errors()
    item     ///< mean of what ItemScorer gives
  };
  std::string name;
  std::string unit;  ///< "1", "rad", "dB", or "target" when it is the unit of the target
  std::string doc;   ///< definition
  bool lower_is_better = true;
  bool per_output = false;  ///< one number an output, else one for all
  Index outputs = 0;        ///< how many outputs it needs; 0: any
  Kind kind = Kind::sums;
};

/// rmse, nrmse, maae, r2, r, mean_r, median_error, and item_metrics().
const std::vector<MetricInfo>& metrics();
/// A metric in the target's unit may say it, as in "median_error_px": the unit is then part of its name, and required.
/// "top1_10way" may have any other number.
/// Throws ConfigError "where = NAME: expected one of rmse, ... (did you mean ...)".
const MetricInfo& metric_info(const std::string& name, const std::string& where = "metrics");
/// Throws ConfigError "where = NAME: expected a target of 2 outputs (x, y), found 4".
void require_outputs(const MetricInfo& info, Index outputs, const std::string& where = "metrics");
/// Throws ConfigError "where = NAME: expected a target of images of at least 11 x 11 pixels, found {100}".
void require_shape(const MetricInfo& info, const std::vector<Index>& shape, const std::string& where = "metrics");
/// Throws ConfigError unless the target has the unit that the metric's name says.
void require_unit(const MetricInfo& info, const std::string& target_unit, const std::string& where = "metrics");

/// One metric on one set of frames.
struct Score {
  MetricInfo info;
  std::vector<double> values;        ///< one, or one an output; NaN only where `reasons` says why
  std::vector<std::string> reasons;  ///< "" where the value is defined
  Index frames = 0;                  ///< scored
  Index missing = 0;                 ///< left out: NaN in the truth or in what was decoded
  std::vector<double> items;         ///< of an item metric: the value of each frame, NaN where left out or undefined
  /// Of an item metric: standard deviation of the items' values (divided by one less than their number). NaN for others.
  double sd() const;
  /// The single number that is compared and ranked: the value, or the mean over the outputs. NaN when one is undefined.
  double headline() const;
  bool better(double a, double b) const { return info.lower_is_better ? a < b : a > b; }
};

/// Throws ConfigError for an unknown metric or one that needs another number of outputs, DataError when the shapes
/// differ or a value is infinite. No scored frame: every value is NaN with a reason. shape: of one frame of the target,
/// for metrics of images; empty: one axis.
Score score(const std::string& metric, const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded,
            const std::vector<Index>& shape = {});

/// What every metric is made of: numbers of each frame whose sums over any set of frames give the metric. A bootstrap
/// or a permutation needs only sums. First row: 1 when the frame is scored, 0 when it is left out (then all are 0).
Eigen::MatrixXd frame_sums(const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded);
/// The metric of summed frame_sums. `outputs` as in the matrices. Writes one value (NaN: undefined) an output or one.
void finish_metric(const MetricInfo& info, Index outputs, std::span<const double> sums, std::span<double> values);

/// Distance between truth and decoded in each frame, over all outputs; NaN where the frame is left out.
std::vector<double> frame_errors(const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded);
/// Of the values that are not NaN, reordering them; NaN when there are none.
double median_of(std::vector<double>& values);

/// The columns of `ranges` (closed) side by side: for scoring and for several test segments.
Eigen::MatrixXd gather(const Eigen::MatrixXd& m, const std::vector<std::pair<std::int64_t, std::int64_t>>& ranges);
/// First gathered column of each range: 0 for the first.
std::vector<Index> segment_starts(const std::vector<std::pair<std::int64_t, std::int64_t>>& ranges);

}  // namespace percept::evaluation
