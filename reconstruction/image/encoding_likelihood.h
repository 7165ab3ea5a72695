/// How well an image explains a response, by an encoding model and the covariance of its errors.
#pragma once

#include <Eigen/Core>
#include <string>
#include <vector>

#include "core/stream.h"
#include "reconstruction/image/receptive_fields.h"

namespace percept {

/// response ~ N(mean + W (f - feature_mean), C) of the chosen voxels, with f the features of the image. As a function of
/// the image its logarithm is quadratic in the features, so that is all that is kept:
///     log p(response | f) = l . f - f' information f / 2 + a constant of the response
/// with l = linear(response).
struct EncodingLikelihood {
  std::vector<Index> voxels;      ///< rows of the responses that are used, best first
  Eigen::VectorXd response_mean;  ///< of the chosen voxels
  Eigen::MatrixXd gain;           ///< W' C^-1: features x chosen voxels
  Eigen::MatrixXd information;    ///< W' C^-1 W: features x features
  Eigen::VectorXd centre;         ///< information feature_mean

  /// l, of a response of the chosen voxels.
  Eigen::VectorXd linear(const Eigen::VectorXd& response) const { return gain * (response - response_mean) + centre; }
  /// f' information f / 2 of each column.
  Eigen::VectorXd quadratic(const Eigen::MatrixXd& features) const;
};

/// Of the `voxels` voxels that the encoder explains best (left out), or fewer when there are fewer. C is the covariance
/// of what the encoder leaves out, as a correlation mixed with `independence` times the identity, in (0, 1]. The weight
/// of Ledoit and Wolf (shrunk_covariance) is not taken: it makes C best where frames are few, not its inverse, which
/// needs more.
/// Throws DataError naming `where` when a chosen voxel is explained exactly.
EncodingLikelihood encoding_likelihood(const FieldEncoder& encoder, Index voxels, double independence,
                                       const std::string& where);

}  // namespace percept
