/// Nadaraya-Watson regression: a mean of the training targets, weighted by a Gaussian of the distance.
/// Nadaraya, Theory of Probability and its Applications 9 (1964) 141; Watson, Sankhya A 26 (1964) 359.
#pragma once

#include <Eigen/Core>
#include <string>

#include "core/stream.h"
#include "numerics/wide.h"

namespace percept {

/// Weights of the points at one input: exp(-|x - x_i|² / 2 h²) divided by their sum, through log-sum-exp, so that they
/// are a proper mean however far x is from every point.
class KernelWeights {
 public:
  /// points: inputs x points, at least one; bandwidth h > 0, in the unit of the inputs.
  KernelWeights(const Eigen::MatrixXd& points, double bandwidth);
  /// At up to wide::kTogether inputs, one after another in x, whole ones. Allocates nothing.
  void look(const double* x, Index frames) noexcept;
  /// At one input, whose rows that are NaN are left out of the distance: that is the regression of the same kernel
  /// density with those rows integrated out.
  void look_partly(const double* x) noexcept;
  /// At the f-th input of the last call, one a point; until the next call.
  Eigen::Map<const Eigen::VectorXd> weights(Index f = 0) const {
    return Eigen::Map<const Eigen::VectorXd>(weights_.col(f).data(), points_);
  }
  Index points() const { return points_; }
  Index inputs() const { return inputs_; }

 private:
  void weigh(Index frame) noexcept;

  Index points_, inputs_;
  double scale_;             ///< -1 / 2 h²
  Eigen::VectorXd packed_;   ///< points as numerics/wide.h wants them
  Eigen::MatrixXd weights_;  ///< points, padded, x frames
};

/// The regression at every column of x (inputs x n): targets x n. points: inputs x m, targets: t x m.
Eigen::MatrixXd kernel_regression(const Eigen::MatrixXd& points, const Eigen::MatrixXd& targets, double bandwidth,
                                  const Eigen::MatrixXd& x);

struct Bandwidth {
  double bandwidth = 0;
  double error = 0;     ///< mean squared leave-one-out error, over targets and frames
  int evaluations = 0;  ///< bandwidths tried
};

/// The bandwidth with the smallest leave-one-out error. x: inputs x frames, y: targets x frames, at least three frames.
/// Looked for between a twentieth of the median distance to the nearest other frame and three times the spread of x.
/// Throws DataError naming `where` when all frames are the same point, or there are fewer than three.
Bandwidth leave_one_out_bandwidth(const Eigen::MatrixXd& x, const Eigen::MatrixXd& y, const std::string& where);
/// Mean squared leave-one-out error of one bandwidth, over targets and frames.
double leave_one_out_error(const Eigen::MatrixXd& x, const Eigen::MatrixXd& y, double bandwidth);

}  // namespace percept
