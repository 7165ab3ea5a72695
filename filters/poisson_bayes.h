/// Position from spike counts by Bayes' rule over a grid, with independent Poisson units (Zhang, Ginzburg, McNaughton,
/// Sejnowski, J. Neurophysiol. 79, 1998, 1017), and a random walk as prior of movement (Brown, Frank, Tang, Quirk,
/// Wilson, J. Neurosci. 18, 1998, 7411).
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>
#include <vector>

#include "core/stage.h"

namespace percept {

/// Cells along each of one or two axes; cell (i, j) is at origin + (i, j) * cell, number i + j * cells(0).
struct PositionGrid {
  Eigen::VectorXd origin;    ///< centre of the first cell, one value an axis
  double cell = 1;           ///< side of a cell, in the position's unit
  std::vector<Index> cells;  ///< along each axis
  Index axes() const { return origin.size(); }
  Index size() const;
  /// Centre of a cell along one axis.
  double at(Index number, Index axis) const;
  /// The cell of a position, -1 outside.
  Index cell_of(const double* position) const;
};

/// values (one a cell) convolved with a Gaussian of this standard deviation in cells, cut at four; nothing comes from
/// outside the grid. Weights sum to one along an unbounded axis.
void smooth_on_grid(const PositionGrid& grid, double sd_cells, Eigen::VectorXd& values, Eigen::VectorXd& work) noexcept;

struct PlaceModel {
  PositionGrid grid;
  Eigen::MatrixXd expected;  ///< units x cells: counts expected in one frame, above 0; anything outside the support
  Eigen::VectorXd prior;     ///< one a cell, sums to one, 0 outside the support
};

/// The recursion. step() allocates nothing and throws nothing.
class PoissonBayes {
 public:
  /// walk_sd: standard deviation of the movement from frame to frame along each axis, in the position's unit; 0: every
  /// frame alone. jump: share of the belief that goes back to the prior in each frame of a walk.
  /// Throws DataError naming `where` for sizes that do not fit, rates not above 0 or a prior that is none.
  PoissonBayes(PlaceModel model, double walk_sd, double jump, const std::string& where);

  Index axes() const { return model_.grid.axes(); }
  Index units() const { return model_.expected.rows(); }
  /// counts: one a unit; one that is not finite or below 0 is left out. False when nothing was seen: the belief is then
  /// the prediction.
  bool step(const double* counts) noexcept;
  /// Of the belief after the last step: mean, covariance (a cell's own width with it), and centre of the likeliest cell.
  const Eigen::VectorXd& mean() const { return mean_; }
  const Eigen::MatrixXd& covariance() const { return covariance_; }
  const Eigen::VectorXd& likeliest() const { return likeliest_; }
  const Eigen::VectorXd& belief() const { return belief_; }
  void reset() noexcept;
  void visit_state(StateVisitor& visitor) noexcept;

 private:
  PlaceModel model_;
  double walk_cells_, jump_;
  std::vector<Index> support_;
  Eigen::MatrixXd log_expected_, expected_;  ///< units x support
  Eigen::VectorXd total_;                    ///< summed over units, one a cell of the support
  Eigen::VectorXd leaving_;                  ///< share of a walk from a cell that stays in the support
  // state
  Eigen::VectorXd belief_;  ///< one a cell of the grid
  // room and results
  Eigen::VectorXd spread_, work_, score_, mean_, likeliest_;
  Eigen::MatrixXd covariance_;
};

}  // namespace percept
