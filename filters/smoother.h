/// Smoothing of a filter's posterior by a linear state model, backwards in time: Rauch, Tung, Striebel, AIAA Journal 3
/// (1965) 1445.
#pragma once

#include <Eigen/Core>
#include <string>

#include "core/stage.h"
#include "numerics/linalg.h"

namespace percept {

/// One posterior: d values of the mean, then d x d of the covariance.
///
/// With filtered (m, P), M = A P Aᵀ + gamma, and smoothed (m', P') of the next frame:
/// G = P Aᵀ M⁻¹, m + G (m' - A m), P + G (P' - M) Gᵀ.
class Smoother {
 public:
  /// Throws DataError naming `where` for matrices of wrong size or not finite.
  Smoother(const Eigen::MatrixXd& a, const Eigen::MatrixXd& gamma, const std::string& where);

  Index states() const { return a_.rows(); }
  Index size() const { return a_.rows() * (a_.rows() + 1); }
  /// filtered becomes smoothed, given the smoothed posterior of the next frame. Allocates nothing.
  /// False when M is not positive definite: filtered is then left as it is.
  bool step_back(double* filtered, const double* next) noexcept;
  /// next = A m, A P Aᵀ + gamma: what a frame without a posterior of its own stands for.
  void predict(const double* filtered, double* next) noexcept;

 private:
  Eigen::MatrixXd a_, gamma_;
  Eigen::MatrixXd p_, predicted_, inverse_, factor_, gain_, change_, work_;
  Eigen::VectorXd mean_, off_;
};

}  // namespace percept
