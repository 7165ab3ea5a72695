/// Gaussian process regression of one output with zero mean: marginal likelihood, hyperparameters, exact and sparse
/// posterior. Rasmussen, Williams, Gaussian Processes for Machine Learning, 2006.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "numerics/kernel.h"
#include "numerics/optimise.h"
#include "numerics/random.h"

namespace percept {

/// Hyperparameters of one output: those of the kernel, and the variance of the noise.
struct GaussianProcess {
  Eigen::VectorXd theta;
  double noise = 0;
};

/// log p(y | x); x: inputs x n, y: n. `gradient`, where asked for: with respect to theta, then to log noise.
/// NaN when the covariance is not positive definite.
double log_marginal_likelihood(const Kernel& kernel, const GaussianProcess& gp, const Eigen::MatrixXd& x,
                               const Eigen::VectorXd& y, Eigen::VectorXd* gradient = nullptr);

struct GaussianProcessOptions {
  int iterations = 60;                      ///< of L-BFGS
  double prior_sd = 0;                      ///< see fit_gaussian_process; 0: no prior
  std::function<void()> check_cancel = {};  ///< called before each evaluation; may throw
};

struct GaussianProcessFit {
  GaussianProcess gp;
  double log_marginal = 0;  ///< of the frames it was optimised on, without the prior
  int iterations = 0, evaluations = 0;
  bool converged = false;
};

/// Maximises the marginal likelihood, plus a normal prior on how far the log weights of inputs lie apart (its standard
/// deviation is prior_sd; a weight is 1 / length²). Starts at the best of a grid on at most 300 of the frames: a mean
/// weighted square distance between frames of 1, 4 and 16 with equal shares of the inputs, times a noise of 0.05, 0.2
/// and 0.5 of the variance of y.
/// x: inputs x n, y: n. Throws DataError naming `where` when x or y do not vary or no start has a likelihood.
GaussianProcessFit fit_gaussian_process(const Kernel& kernel, const Eigen::MatrixXd& x, const Eigen::VectorXd& y,
                                        const GaussianProcessOptions& options, const std::string& where);

/// What prediction needs: mean = weightsᵀ k, variance of the output without noise = k(x, x) - |reduction k|², where k
/// are the covariances of x with the points.
struct GaussianPosterior {
  Eigen::VectorXd weights;
  Eigen::MatrixXd reduction;  ///< empty unless asked for
  double log_likelihood = 0;  ///< exact: log marginal likelihood; sparse: its lower bound
};

/// Given every frame (which are the points). Time n³ / 3, memory n². Throws DataError naming `where` when the covariance
/// is not positive definite.
GaussianPosterior exact_posterior(const Kernel& kernel, const GaussianProcess& gp, const Eigen::MatrixXd& x,
                                  const Eigen::VectorXd& y, bool reduction, const std::string& where);
/// Given the frames through m inducing points (inputs x m): Titsias, AISTATS 2009. Time n m², memory m².
GaussianPosterior sparse_posterior(const Kernel& kernel, const GaussianProcess& gp, const Eigen::MatrixXd& points,
                                   const Eigen::MatrixXd& x, const Eigen::VectorXd& y, bool reduction,
                                   const std::string& where);

/// Up to m columns of x that lie far from each other: each is drawn with a chance proportional to its square distance to
/// the nearest one drawn before (the seeding of k-means++, Arthur, Vassilvitskii, SODA 2007). Fewer when x has fewer
/// different columns. Rising.
std::vector<Index> spread_points(const Eigen::MatrixXd& x, Index m, const KeyedRandom& random);

}  // namespace percept
