/// Encoding models of voxels that each see a part of the image.
///
/// The response of a voxel is linear in features that lie on a grid over the image. The prior variance of a feature's
/// weight is a Gaussian bump over the grid, the voxel's receptive field, or the same everywhere. The posterior mean of
/// the weights is then kernel ridge regression whose kernel sees the image through the bump. Which bump, and which
/// penalty, is decided by the evidence (marginal likelihood) of the voxel's training responses, and by that of its
/// neighbours, which see nearly the same place.
/// Gaussian process regression: Rasmussen, Williams, 2006, chapter 5. Receptive fields: Dumoulin, Wandell, NeuroImage 39
/// (2008) 647. Priors that localise weights: Park, Pillow, PLoS Computational Biology 7 (2011) e1002219.
#pragma once

#include <Eigen/Core>
#include <Eigen/SparseCore>
#include <string>
#include <vector>

#include "core/stream.h"

namespace percept {

/// Receptive fields over a grid of rows x columns features that are `pitch_px` apart: the whole image, and for each sd
/// one field every `step_px` in both directions, centred in the image. Fields x features, largest value near one.
Eigen::MatrixXd receptive_fields(Index rows, Index columns, double pitch_px, const std::vector<double>& sds_px,
                                 double step_px);

/// Weight exp(-distance² / 2 sd²) of every pair of voxels nearer than 4 sd, zero between a voxel and itself.
/// positions_m: 3 x voxels.
Eigen::SparseMatrix<double> voxel_neighbours(const Eigen::MatrixXd& positions_m, double sd_m);

struct FieldEncoderOptions {
  std::vector<double> penalties = {0.5, 1, 2, 4, 8, 16, 32, 64, 128};  ///< in units of the kernel's mean diagonal
  double neighbour_weight = 1;  ///< of the neighbours' log evidence beside the voxel's own
};

struct FieldEncoder {
  Eigen::VectorXd feature_mean, response_mean;
  Eigen::MatrixXd weights;    ///< voxels x features: response = response_mean + weights (features - feature_mean)
  Eigen::MatrixXd left_out;   ///< voxels x frames: response less what the other frames predict for it
  Eigen::VectorXd explained;  ///< 1 - mean squared left_out / that of the mean of the other frames
  std::vector<Index> field;   ///< of each voxel: row of the fields
  Eigen::VectorXd penalty;    ///< of each voxel
  Eigen::MatrixXd
      evidence;  ///< fields x voxels: log evidence, averaged over penalties, less that of a constant response
};

/// features: p x frames, responses: voxels x frames, both finite; neighbours: voxels x voxels, or empty.
/// left_out is exact for the chosen field and penalty: no model is fitted twice.
/// Throws DataError naming `where` when there are fewer than 3 frames, a voxel is constant, or no field sees a feature
/// that varies; ConfigError without a penalty.
FieldEncoder fit_field_encoder(const Eigen::MatrixXd& features, const Eigen::MatrixXd& responses,
                               const Eigen::MatrixXd& fields, const Eigen::SparseMatrix<double>& neighbours,
                               const FieldEncoderOptions& options, const std::string& where);

}  // namespace percept
