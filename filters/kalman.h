/// Kalman filter for decoding (Wu et al., Neural Computation 18, 2006, 80) in information form:
/// CᵀR⁻¹ and CᵀR⁻¹C are computed once, so that a step costs (states x channels) + states³, never channels³.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>
#include <vector>

#include "core/stage.h"
#include "numerics/linalg.h"

namespace percept {

/// z_t = A z_{t-1} + N(0, gamma), x_t = C z_t + N(0, R); d states, n channels.
struct KalmanModel {
  Eigen::MatrixXd a, gamma;  ///< d x d
  Eigen::MatrixXd c;         ///< n x d
  Eigen::MatrixXd r;         ///< n x n, or n x 1: the diagonal of a diagonal R
  Eigen::MatrixXd v0;        ///< d x d, covariance before the first frame; its mean is 0
};

/// What happened in one step of a filter.
struct StepReport {
  bool missing = false;   ///< nothing was seen: the step only predicted
  bool partial = false;   ///< some rows were left out of the update
  bool fallback = false;  ///< DKF: Q⁻¹ - S⁻¹ was not positive definite
  bool repaired = false;  ///< a covariance was repaired
};

/// The recursion in double. step() allocates nothing and throws nothing.
///
/// Missing rows are left out exactly, also when R is full: with P = R⁻¹ and m the missing rows, minimising over x_m
/// gives the information CᵀPC - W_m P_mm⁻¹ W_mᵀ and the weights W_o - W_m P_mm⁻¹ P_mo on the rest (W = CᵀP). They are
/// kept until the set of missing rows changes; a change costs |m|³/3 + d |m| n with a full R, d² n with a diagonal one.
class Kalman {
 public:
  /// steady_state: the predicted covariance is held at the fixed point of the Riccati recursion throughout.
  /// Throws DataError naming `where` for matrices of wrong size, not finite, R or v0 not positive definite, and when
  /// the recursion has no fixed point.
  Kalman(const KalmanModel& model, bool steady_state, const std::string& where);

  Index states() const { return d_; }
  Index channels() const { return n_; }
  /// x: n values. The first step is an update of (0, v0), each later one a prediction and an update.
  StepReport step(const double* x) noexcept;
  /// The same given CᵀR⁻¹x of a frame without missing rows (d values).
  StepReport step_information(const double* h) noexcept;
  const Eigen::VectorXd& mean() const { return mean_; }
  /// Symmetric positive definite.
  const Eigen::MatrixXd& covariance() const { return covariance_; }
  void reset() noexcept;
  void visit_state(StateVisitor& visitor) noexcept;
  /// CᵀR⁻¹ (d x n) and CᵀR⁻¹C.
  const Eigen::MatrixXd& weights() const { return weights_; }
  const Eigen::MatrixXd& information() const { return information_; }

 private:
  void leave_out(const double* x) noexcept;
  StepReport update(const double* h, const Eigen::MatrixXd& information, bool complete) noexcept;
  StepReport finish(StepReport report) noexcept;
  void predict() noexcept;

  Index d_, n_;
  bool steady_;
  Eigen::MatrixXd a_, gamma_, c_, v0_;
  Eigen::MatrixXd precision_;  ///< R⁻¹, n x n, or its diagonal
  Eigen::MatrixXd weights_, information_;
  Eigen::MatrixXd steady_predicted_, steady_covariance_;
  // state
  Eigen::VectorXd mean_;
  Eigen::MatrixXd covariance_;
  std::uint8_t started_ = 0;
  // of the set of missing rows seen last; empty at first
  std::vector<std::uint8_t> missing_;
  std::vector<Index> missing_rows_;
  Eigen::MatrixXd partial_weights_, partial_information_, missing_factor_, missing_map_;
  // room
  Eigen::VectorXd predicted_mean_, h_, innovation_, frame_;
  Eigen::MatrixXd predicted_, factor_, core_, core_inverse_, work_, work2_;
  SpdRepair repair_;
};

/// The fixed point M = A (M⁻¹ + L)⁻¹ Aᵀ + gamma of the predicted covariance, by doubling; L = CᵀR⁻¹C.
/// Throws DataError naming `where` when there is none.
Eigen::MatrixXd steady_covariance(const Eigen::MatrixXd& a, const Eigen::MatrixXd& gamma,
                                  const Eigen::MatrixXd& information, const std::string& where);
/// The covariance S = A S Aᵀ + gamma. Throws DataError naming `where` when A is not stable.
Eigen::MatrixXd stationary_covariance(const Eigen::MatrixXd& a, const Eigen::MatrixXd& gamma, const std::string& where);

/// Many frames at once, for experiments: CᵀR⁻¹X is one matrix product, so a result may differ from step() in its last
/// bits, which is why the stage does not use it. x: n x T; means: d x T; covariances (may be null): d*d x T.
void filter_batch(Kalman& filter, const Eigen::MatrixXd& x, Eigen::MatrixXd& means, Eigen::MatrixXd* covariances);

}  // namespace percept
