/// Does the posterior covariance tell the truth? Coverage of its ellipsoids on test frames.
#pragma once

#include <Eigen/Core>
#include <string>
#include <vector>

#include "core/value.h"
#include "evaluation/bootstrap.h"

namespace percept::evaluation {

/// Chi-square distribution with `dof` >= 1 degrees of freedom.
double chi_square_cdf(double x, Index dof);
/// p in (0, 1); throws Error otherwise.
double chi_square_quantile(double p, Index dof);

struct CoverageLevel {
  double nominal = 0;   ///< 0.5, 0.68, 0.8, 0.9, 0.95
  double observed = 0;  ///< fraction of the scored frames whose truth lies inside
  Interval interval;    ///< 95 %, moving blocks
};

struct Calibration {
  std::vector<CoverageLevel> levels;
  double mean_distance2 = 0;  ///< mean squared Mahalanobis distance; `outputs` when calibrated
  Interval distance2_interval;
  Index outputs = 0, frames = 0, missing = 0;
  Index bad_covariances = 0;  ///< not positive definite: outside at every level, no distance
  bool calibrated = false;    ///< 85 to 95 % of the frames lie inside the 90 % ellipsoid
  std::string verdict;        ///< "calibrated", "overconfident", "underconfident", "unknown"
  std::string method;         ///< how the intervals were made
};

/// truth, mean: outputs x frames; covariance: outputs^2 x frames (one matrix a column). starts as in bootstrap.h.
/// NaN in any of the three leaves the frame out. Throws DataError when shapes differ.
Calibration calibrate(const Eigen::MatrixXd& truth, const Eigen::MatrixXd& mean, const Eigen::MatrixXd& covariance,
                      const std::vector<Index>& starts = {0}, const BootstrapOptions& options = {});

/// The entry of a report (see report/report.h).
Value to_value(const Calibration& calibration);

}  // namespace percept::evaluation
