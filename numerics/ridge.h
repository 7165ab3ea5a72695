/// Multi-target ridge regression, primal or dual, whichever is smaller.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/stream.h"

namespace percept {

struct RidgeOptions {
  std::vector<double> alphas = {0.0};        ///< penalty on the squared weights; more than one: chosen by error
  bool intercept = true;                     ///< the intercept is not penalised
  bool per_target = false;                   ///< an alpha for each target
  std::span<const std::int32_t> folds = {};  ///< fold of each frame, for the choice; empty: leave one out
  bool one_unit = false;                     ///< targets are of one kind, as pixels are: see fit_ridge
};

struct RidgeFit {
  Eigen::MatrixXd weights;    ///< targets x features
  Eigen::VectorXd intercept;  ///< of each target; zero without
  Eigen::VectorXd alpha;      ///< of each target
  Eigen::MatrixXd error;      ///< mean squared error left out, alphas x targets; empty for one alpha
  Eigen::MatrixXd predict(const Eigen::MatrixXd& x) const;
};

/// x: features x frames, y: targets x frames, both finite. Without folds the choice is by leave-one-out.
/// With one alpha for all, the errors are summed over targets in units of each target's variance, or of one_unit as they
/// are: a pixel that is hardly ever lit counts for little.
/// Throws DataError naming `where`: no frames, dependent features or fewer frames than features at alpha = 0, a fold
/// that holds everything; ConfigError for a negative alpha.
RidgeFit fit_ridge(const Eigen::MatrixXd& x, const Eigen::MatrixXd& y, const RidgeOptions& options,
                   const std::string& where);

/// Fold of each frame: whole groups dealt to folds in order of appearance when there are at least two groups, else
/// `folds` contiguous stretches of equal length. Time series need this: neighbours of a left-out frame know it.
std::vector<std::int32_t> inner_folds(std::span<const std::int32_t> groups, Index frames, Index folds);

}  // namespace percept
