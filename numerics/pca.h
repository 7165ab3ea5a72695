/// Principal components.
#pragma once

#include <Eigen/Core>
#include <string>

#include "core/stream.h"

namespace percept {

struct Pca {
  Eigen::VectorXd mean;        ///< of each row
  Eigen::MatrixXd components;  ///< k x rows, orthonormal, by falling variance
  Eigen::VectorXd variance;    ///< of each component (divided by frames - 1)
  double total_variance = 0;   ///< of all rows together
  /// variance / total_variance
  Eigen::VectorXd explained() const { return variance / total_variance; }
};

/// x: rows x frames, finite; k components, k <= min(rows, frames - 1).
/// Sign: the entry of largest size in a component is positive (the first of equals).
/// Throws ConfigError when k is too large, DataError when fewer than two frames or no variance.
Pca fit_pca(const Eigen::MatrixXd& x, Index k, const std::string& where);

}  // namespace percept
