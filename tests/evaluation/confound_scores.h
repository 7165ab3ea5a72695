/// What the confounds of a recording score by themselves, and what is left without them.
#pragma once

#include <Eigen/Core>
#include <string>
#include <vector>

#include "evaluation/audit.h"

namespace percept::evaluation {

/// The test score of the confounds alone.
inline Score score_confounds(const std::string& metric, const Confounds& confounds, const Eigen::MatrixXd& truth,
                             const std::vector<RowRange>& train, const std::vector<RowRange>& test) {
  return score(metric, gather(truth, test), fit_confounds(confounds, truth, train).predict(gather(confounds.x, test)));
}
/// The test score with what the confounds explain subtracted from both sides.
inline Score score_after_removal(const std::string& metric, const Confounds& confounds, const Eigen::MatrixXd& truth,
                                 const Eigen::MatrixXd& decoded, const std::vector<RowRange>& train,
                                 const std::vector<RowRange>& test) {
  const Eigen::MatrixXd guess = fit_confounds(confounds, truth, train).predict(gather(confounds.x, test));
  return score(metric, gather(truth, test) - guess, gather(decoded, test) - guess);
}

}  // namespace percept::evaluation
