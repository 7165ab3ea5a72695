/// Kalman filters for channels that are not linear in the state: extended (linearised at the prediction), unscented
/// (Julier and Uhlmann, Proc. IEEE 92, 2004, 401) and ensemble (Evensen, J. Geophys. Res. 99, 1994, 10143; perturbed
/// observations after Burgers, van Leeuwen, Evensen, Mon. Weather Rev. 126, 1998, 1719).
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>

#include "core/stage.h"
#include "filters/kalman.h"
#include "numerics/linalg.h"
#include "numerics/random.h"

namespace percept {

/// h(z) = offset + linear z + out tanh(in z + bias): d states, n channels, u units (none: linear).
struct Observation {
  Eigen::VectorXd offset;  ///< n
  Eigen::MatrixXd linear;  ///< n x d
  Eigen::MatrixXd in;      ///< u x d
  Eigen::VectorXd bias;    ///< u
  Eigen::MatrixXd out;     ///< n x u
};

enum class NonlinearFilter : std::uint8_t { extended, unscented, ensemble };

struct NonlinearOptions {
  NonlinearFilter kind = NonlinearFilter::extended;
  double alpha = 1e-3, beta = 2, kappa = 0;  ///< of the unscented filter's points
  Index members = 100;                       ///< of the ensemble
  std::uint64_t seed = 0;                    ///< of the ensemble
  std::string node = {};                     ///< its random numbers are keyed by (seed, node, frame, draw)
};

/// z_t = A z_{t-1} + N(0, gamma), x_t = h(z_t) + N(0, R). The first step is an update of (0, v0), each later one a
/// prediction and an update, as Kalman's. step() allocates nothing and throws nothing; it costs n² d + n³ / 3
/// (ensemble: n² members), with n channels.
class NonlinearKalman {
 public:
  /// r: n x n. Throws DataError naming `where` for matrices of wrong size, not finite or not positive definite.
  NonlinearKalman(const Eigen::MatrixXd& a, const Eigen::MatrixXd& gamma, const Eigen::MatrixXd& v0,
                  const Eigen::MatrixXd& r, Observation observation, NonlinearOptions options,
                  const std::string& where);

  Index states() const { return a_.rows(); }
  Index channels() const { return r_.rows(); }
  /// x: n values; those that are not finite are left out.
  StepReport step(const double* x) noexcept;
  const Eigen::VectorXd& mean() const { return mean_; }
  const Eigen::MatrixXd& covariance() const { return covariance_; }
  void reset() noexcept;
  void visit_state(StateVisitor& visitor) noexcept;

 private:
  void observe(const double* z, double* x) noexcept;
  void predict() noexcept;
  void spread_points() noexcept;
  void moments() noexcept;

  NonlinearOptions options_;
  Eigen::MatrixXd a_, gamma_, v0_, r_;
  Observation h_;
  Index points_ = 0;
  double mean_weight_ = 0, centre_weight_ = 0,
         weight_ = 0;  ///< of the points: first in the mean, first in the covariance, others
  Eigen::MatrixXd gamma_factor_, r_factor_;
  KeyedRandom random_;
  // state
  Eigen::VectorXd mean_;
  Eigen::MatrixXd covariance_;
  std::int64_t frame_ = 0;
  Eigen::MatrixXd ensemble_;  ///< d x members
  // room
  Eigen::VectorXd hidden_, expected_, innovation_, predicted_mean_;
  Eigen::MatrixXd predicted_, work_, z_points_, x_points_, jacobian_, noise_;
  Eigen::MatrixXd zx_, xx_, gain_;
  SpdRepair repair_;
};

}  // namespace percept
