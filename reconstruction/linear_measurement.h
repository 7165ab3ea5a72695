/// What a target shows itself as in rows that were measured or decoded: rows = B target + b + noise, by ridge regression,
/// with the noise of frames that the regression has not seen.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <vector>

#include "core/context.h"
#include "core/model.h"

namespace percept {

struct LinearMeasurement {
  Eigen::MatrixXd weights;         ///< B: rows x target values
  Eigen::VectorXd x_mean, y_mean;  ///< of rows and of target values: x - x_mean = B (y - y_mean) + noise
  Eigen::MatrixXd noise;           ///< covariance, rows x rows, or rows x 1 when it is diagonal; positive definite
  double alpha = 0;                ///< ridge penalty
  double noise_weight = 1;         ///< of independence in the noise's correlations
  Index frames = 0, dropped = 0;
};

struct LinearMeasurementOptions {
  std::vector<double> alphas;  ///< of several the best on inner folds is taken
  Index inner_folds = 5;       ///< for that choice and for the noise: contiguous stretches, or whole groups
  bool correlated = true;      ///< noise shrunk towards independence (Ledoit, Wolf 2004); else independent
};

/// Frames with missing values are left out. Throws DataError naming the node: too many target values or rows, too few
/// frames, a constant row or target, a row without noise.
/// `centred`, when given, becomes the target values of the frames that were used, less their mean.
LinearMeasurement fit_linear_measurement(const Data& data, const LinearMeasurementOptions& options,
                                         const Context& context, Eigen::MatrixXd* centred = nullptr);

}  // namespace percept
