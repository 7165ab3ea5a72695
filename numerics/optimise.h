/// Small minimisers for fitting: one variable (Brent), and many with a gradient (limited-memory BFGS).
#pragma once

#include <Eigen/Core>
#include <functional>

namespace percept {

struct Minimum1d {
  double x = 0, value = 0;
  int evaluations = 0;
};

/// The smallest f(x) on [low, high]: `grid` >= 3 equally spaced points first, since f may have several minima, then
/// Brent's golden section with parabolas around the best of them, until x is known to `tolerance`. A value that is not
/// finite counts as infinite. Brent, Algorithms for Minimization without Derivatives, 1973.
/// Throws Error when no value on the grid is finite.
Minimum1d minimise_1d(const std::function<double(double)>& f, double low, double high, double tolerance, int grid = 9);

/// Value and gradient at x; a value that is not finite says that x cannot be used.
using GradientFn = std::function<double(const Eigen::VectorXd& x, Eigen::VectorXd& gradient)>;

struct LbfgsOptions {
  int iterations = 100;
  int memory = 12;            ///< steps remembered
  double tolerance = 1e-6;    ///< stops when an iteration lowers the value by less than this share of max(1, |value|)
  double largest_step = 2.0;  ///< no entry of x moves further in one iteration
};

struct MinimumNd {
  Eigen::VectorXd x;
  double value = 0;
  int iterations = 0, evaluations = 0;
  bool converged = false;  ///< the tolerance was met before the iterations ran out
};

/// Limited-memory BFGS with a backtracking line search (Nocedal, Wright, Numerical Optimization, 2006, chapter 7); the
/// result is never worse than the start. Throws Error when the value at the start is not finite.
MinimumNd minimise_lbfgs(const GradientFn& f, Eigen::VectorXd start, const LbfgsOptions& options = {});

}  // namespace percept
