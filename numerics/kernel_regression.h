/// Nadaraya-Watson regression: a mean of the training targets, weighted by a Gaussian of the distance.
/// Nadaraya, Theory of Probability and its Applications 9 (1964) 141; Watson, Sankhya A 26 (1964) 359.
#pragma once

#include <Eigen/Core>
#include <string>

#include "core/stream.h"

namespace percept {

/// Weights of the points at one input: exp(-|x - x_i|² / 2 h²) divided by their sum, through log-sum-exp, so that they
/// are a proper mean however far x is from every point.
class KernelWeights {
 public:
  /// points: inputs x points, at least one; bandwidth h > 0, in the unit of the inputs.
  KernelWeights(const Eigen::MatrixXd& points, double bandwidth);
  /// For x (inputs). Inputs that are NaN are left out of the distance: that is the regression of the same kernel density
  /// with those inputs integrated out. Allocates nothing; the reference holds until the next call.
  const Eigen::VectorXd& at(const double* x) noexcept;
  Index points() const { return points_.rows(); }
  Index inputs() const { return points_.cols(); }

 private:
  Eigen::MatrixXd points_;  ///< points x inputs, so that a loop runs over points
  double scale_;            ///< -1 / 2 h²
  Eigen::VectorXd weights_;
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
