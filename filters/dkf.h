/// Discriminative Kalman filter: Burkhart, Brandman, Franco, Hochberg, Harrison, Neural Computation 32 (2020) 969.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>

#include "core/stage.h"
#include "filters/kalman.h"
#include "numerics/linalg.h"

namespace percept {

/// z_t = A z_{t-1} + N(0, gamma), stationary covariance s; all d x d.
struct DkfModel {
  Eigen::MatrixXd a, gamma, s;
};

/// What a step does when Q⁻¹ - S⁻¹ is not positive definite (an eigenvalue of S Q⁻¹ is at most 1 + 1e-6).
enum class DkfFallback {
  robust,         ///< drops S⁻¹ for this step (Burkhart, PhD thesis, 2019)
  inflate,        ///< takes Q⁻¹ + S⁻¹ for Q⁻¹, in the mean too (the published script)
  clip,           ///< Q v = λ S v with λ cut at 1
  always_robust,  ///< drops S⁻¹ in every step: the robust DKF
};

/// The recursion in double, given f(x) and Q(x) of each frame. step() allocates nothing and throws nothing.
class Dkf {
 public:
  /// Throws DataError naming `where` for matrices of wrong size, not finite, or s not positive definite.
  Dkf(const DkfModel& model, DkfFallback fallback, const std::string& where);

  Index states() const { return d_; }
  /// f: d values, q: d x d values. The first frame seen is taken as it is; a frame with a value that is not finite is
  /// missing and only predicts (before the first: mean 0, covariance s). A q that is not positive definite is repaired.
  StepReport step(const double* f, const double* q) noexcept;
  const Eigen::VectorXd& mean() const { return mean_; }
  /// Symmetric positive definite.
  const Eigen::MatrixXd& covariance() const { return covariance_; }
  void reset() noexcept;
  void visit_state(StateVisitor& visitor) noexcept;

 private:
  void clip() noexcept;

  Index d_;
  DkfFallback fallback_;
  Eigen::MatrixXd a_, gamma_, s_, s_inverse_, s_factor_inverse_;
  // state
  Eigen::VectorXd mean_;
  Eigen::MatrixXd covariance_;
  std::uint8_t started_ = 0;
  // room
  Eigen::VectorXd predicted_mean_, information_, values_;
  Eigen::MatrixXd q_, q_inverse_, predicted_, predicted_inverse_, posterior_inverse_, work_, factor_, vectors_;
  SpdRepair repair_;
};

}  // namespace percept
