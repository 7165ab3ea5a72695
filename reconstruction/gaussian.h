/// Linear-Gaussian Bayes: what the target was, given brain = B (target - m) + b + noise and a Gaussian prior over targets.
#pragma once

#include <Eigen/Core>
#include <string>

#include "core/stream.h"

namespace percept {

/// Covariance of the columns of x, shrunk towards (mean variance) x identity by the weight that minimises the expected
/// squared error (Ledoit, Wolf, J. Multivariate Analysis 88 (2004) 365); positive definite unless all rows are constant.
struct ShrunkCovariance {
  Eigen::MatrixXd covariance;  ///< divided by the number of columns
  double weight = 0;           ///< of the identity, in [0, 1]
};
/// x: rows x frames, finite, with the mean of each row already taken off; at least one frame.
ShrunkCovariance shrunk_covariance(const Eigen::MatrixXd& x);

/// The posterior of z ~ N(0, prior) after x = B z + N(0, noise) was seen: mean gain x, standard deviation sd.
struct GaussianPosterior {
  Eigen::MatrixXd gain;  ///< d x n
  Eigen::VectorXd sd;    ///< of each element of z: the same whatever x is
};
/// prior: d x d, encoding B: n x d, noise: n x n, or n x 1 when it is diagonal; both positive definite.
/// Works with d x d matrices where d < n (primal), else with n x n (dual).
/// Throws DataError naming `where` when a covariance is not positive definite.
GaussianPosterior gaussian_posterior(const Eigen::MatrixXd& prior, const Eigen::MatrixXd& encoding,
                                     const Eigen::MatrixXd& noise, const std::string& where);

}  // namespace percept
