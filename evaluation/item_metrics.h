/// Metrics with one value a frame, whose score is the mean over the frames: how near one decoded image is to the true
/// one, or whether one category is right. Matrices are values x frames, as in metrics.h.
#pragma once

#include <Eigen/Core>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/stream.h"

namespace percept::evaluation {

struct MetricInfo;

/// A value that does not exist; a reason stands beside it.
inline constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

/// The rows of the table of metrics that are of this kind.
const std::vector<MetricInfo>& item_metrics();
/// "top1_50way" and the like, which say in their name among how many images is chosen.
std::optional<MetricInfo> top1_metric(const std::string& name);
/// How many pixels a side of an image must have; 0: the metric is not of images.
Index least_side(const MetricInfo& info);

struct ItemValues {
  Eigen::VectorXd values;  ///< NaN where the frame is left out, or the value is undefined
  Index undefined = -1;    ///< the first frame that is not left out but has no value; -1: none
  std::string reason;      ///< why
};
/// Scores items in any pairing; what no pairing changes is worked out once.
class ItemScorer {
 public:
  /// shape: of one frame, last index fastest; empty: one axis. truth and decoded have to outlive it. Throws ConfigError
  /// for a shape that the metric cannot take, DataError where the truth of an image is outside [0, 1] and the metric
  /// depends on the range.
  ItemScorer(const MetricInfo& info, const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded,
             const std::vector<Index>& shape);
  ~ItemScorer();
  /// decoded.col(k) against truth.col(order[k]) (order empty: k). Frames with NaN in either are left out, and are no
  /// distractors.
  ItemValues values(std::span<const Index> order = {}) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Place of the true image among all different ones by pixel correlation with the decoded one, 1 being the best; ties
/// count half. NaN where it is left out or undefined.
Eigen::VectorXd identification_ranks(const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded);

}  // namespace percept::evaluation
