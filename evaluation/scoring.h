/// From fitted folds to numbers: what was decoded beside the truth, and the controls that stand beside every score.
#pragma once

#include <Eigen/Core>
#include <memory>
#include <string>
#include <vector>

#include "evaluation/experiment.h"
#include "evaluation/metrics.h"
#include "evaluation/split.h"

namespace percept::evaluation {

/// One fold of a split with what was fitted on its training rows.
struct FoldRun {
  Fold fold;
  std::shared_ptr<const Experiment> experiment;
  Fitted fitted;
};

/// The test frames of one score under one split, of all its folds.
struct Pooled {
  std::string node;   ///< what is scored
  TargetSpec target;  ///< what it is compared with
  std::string part;   ///< of the node's frame
  FrameAxis axis;
  Eigen::MatrixXd truth, decoded, covariance;  ///< on the axis; NaN where nothing was tested
  std::vector<RowRange> tests;                 ///< in frames of the axis, rising
  std::vector<std::string> outputs;            ///< names
  std::vector<Index> shape;                    ///< of the target where it is one part: {28, 28} of an image
  std::string unit;
  std::vector<std::string> levels;  ///< of its categories
  StreamFormat frame_format;        ///< of items: all that the node gives, and
  Eigen::MatrixXd frames;           ///< it for each test item, in the order of axis.keys
  std::vector<Index> order;         ///< of items: frame k came as frame order[k] of the folds one after the other
};

/// The controls that are asked for, or those of the axis: time, trial, past and shuffled with a clock; of items mean,
/// class (where the score names the category), no_brain and shuffled.
std::vector<std::string> controls_of(const ScoreSpec& score, Axis axis);

/// What is compared with the target: the part asked for, else "mean", else the first. Throws ConfigError.
std::string scored_part(const ScoreSpec& score, const StreamFormat& format);
/// These rows of what was decoded.
Eigen::MatrixXd rows_of(const Decoded& decoded, const std::string& part);
/// The target of the score, else that of the node. Throws ConfigError when there is none.
TargetSpec scored_target(const ScoreSpec& score, const Experiment& experiment, const std::string& node);
/// The node of the score, else the last.
std::string scored_node(const ScoreSpec& score, const Pipeline& pipeline);

/// Applies each fold's pipeline once to its test rows; one entry a score, in order.
/// Throws ConfigError when outputs and targets do not fit, DataError when a fold gives no frame.
std::vector<Pooled> pool(const std::vector<ScoreSpec>& scores, const std::vector<FoldRun>& folds);

/// One control: scored like the decoder.
struct Control {
  std::string key;            ///< in result.json: "time", "without_time", ...
  std::string name, kind;     ///< as the report has them
  std::string doc;            ///< a sentence for the reader
  std::string absent;         ///< why there is none; "" when there is
  std::vector<Score> scores;  ///< one a metric
};

/// The controls of each score, in the order of its `confounds`. Every shuffled fit serves all scores, and nothing that
/// happens in one is counted. decoded_scores: what the decoder reached, one list a score.
std::vector<std::vector<Control>> audit(const std::vector<ScoreSpec>& scores, const std::vector<Pooled>& pooled,
                                        const std::vector<std::vector<Score>>& decoded_scores,
                                        const std::vector<FoldRun>& folds, const EngineOptions& options,
                                        std::uint64_t seed);

}  // namespace percept::evaluation
