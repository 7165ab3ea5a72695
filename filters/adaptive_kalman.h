/// Kalman filter whose observation model follows a drifting population: recursive least squares with forgetting, from
/// its own decoded states (recursive expectation-maximisation, since a decoded state is uncertain) or from a target.
/// After Dangi, Gowda, Heliot, Carmena, Neural Computation 26 (2014) 1811.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>

#include "core/stage.h"
#include "filters/kalman.h"
#include "numerics/linalg.h"

namespace percept {

/// x_t = W [z_t; 1] + N(0, diag(r)), with W and r from running averages over frames of f fᵀ, x fᵀ and x², f = [z; 1].
struct AdaptiveModel {
  Eigen::MatrixXd a, gamma, v0;  ///< d x d
  Eigen::MatrixXd ff;            ///< (d + 1) x (d + 1): mean of f fᵀ over the training frames
  Eigen::MatrixXd xf;            ///< n x (d + 1)
  Eigen::VectorXd xx;            ///< n
};

/// step() allocates nothing and throws nothing; it costs n (d + 1)².
class AdaptiveKalman {
 public:
  /// forgetting: weight of the averages so far in each frame, in (0, 1]; 1 never adapts.
  /// Throws DataError naming `where` for matrices of wrong size, not finite or not positive definite, and channels
  /// without noise.
  AdaptiveKalman(const AdaptiveModel& model, double forgetting, const std::string& where);

  Index states() const { return a_.rows(); }
  Index channels() const { return xx0_.size(); }
  /// x: n values; those that are not finite are left out, and leave their row of W as it is.
  /// target: d values to adapt from, or nullptr: from what was decoded. Where a value of it is not finite, nothing
  /// adapts.
  StepReport step(const double* x, const double* target) noexcept;
  const Eigen::VectorXd& mean() const { return mean_; }
  const Eigen::MatrixXd& covariance() const { return covariance_; }
  /// n x (d + 1), as adapted so far.
  const Eigen::MatrixXd& weights() const { return w_; }
  const Eigen::VectorXd& noise() const { return r_; }
  void reset() noexcept;
  void visit_state(StateVisitor& visitor) noexcept;

 private:
  void adapt(const double* x, const double* target) noexcept;
  /// W and r of the averages; false when f fᵀ is singular, W and r are then as before.
  bool solve() noexcept;

  double forgetting_;
  Eigen::MatrixXd a_, gamma_, v0_, ff0_, xf0_;
  Eigen::VectorXd xx0_, least_noise_;
  // state
  Eigen::VectorXd mean_;
  Eigen::MatrixXd covariance_;
  std::uint8_t started_ = 0;
  Eigen::MatrixXd ff_, xf_, w_;
  Eigen::VectorXd xx_, r_;
  // room
  Eigen::VectorXd predicted_mean_, h_, innovation_;
  Eigen::MatrixXd predicted_, information_, inverse_, factor_, work_, frame_ff_, ff_inverse_, ff_factor_;
  SpdRepair repair_;
};

}  // namespace percept
