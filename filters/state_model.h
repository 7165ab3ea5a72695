/// Fitting of linear-Gaussian state models from training blocks, without holding the recording in memory.
#pragma once

#include <Eigen/Core>
#include <string>
#include <vector>

#include "core/model.h"

namespace percept {

enum class Observations { none, diagonal, full };

/// Sums over the training frames without a missing value, n of them; z: d targets, x: channels.
struct StateSums {
  Index frames = 0, pairs = 0, dropped = 0;
  Eigen::VectorXd z_mean, x_mean;  ///< of the frames
  Eigen::MatrixXd z_scatter;       ///< about the mean, d x d
  // about the mean with center, else about 0
  Eigen::MatrixXd zz, xz;                           ///< d x d, channels x d
  Eigen::MatrixXd xx;                               ///< channels x channels, or channels x 1: its diagonal
  Eigen::MatrixXd next_last, last_last, next_next;  ///< Σ z_t z_{t-1}ᵀ, Σ z_{t-1} z_{t-1}ᵀ, Σ z_t z_tᵀ over pairs
};

/// Two passes over the data. A frame with NaN in z (or in x, where it is used) is left out, and no pair goes across it
/// or across the start of a segment. Throws DataError when a target is missing or constant, or no frames are left.
StateSums state_sums(const Data& data, bool center, Observations observations, Context& context);

/// z_t = A z_{t-1} + N(0, gamma) by least squares; gamma is divided by the frames. s: covariance of z (n - 1).
struct StateModel {
  Eigen::MatrixXd a, gamma, s;
};
/// Throws DataError when there are too few pairs or the outputs are linearly dependent.
StateModel state_model(const StateSums& sums, const Context& context);

}  // namespace percept
