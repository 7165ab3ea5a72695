/// How well an image agrees with what a linear decoder makes of a response, by the decoder's errors.
#pragma once

#include <Eigen/Core>
#include <string>
#include <vector>

#include "core/stream.h"

namespace percept {

/// decoded = decode(response) estimates coordinates z of the image with errors of covariance C that were measured on
/// frames left out. Both are kept in units in which C is the identity:
///     log p(decoded | image) = -|decode(response) - whiten z|² / 2
struct DecoderLikelihood {
  std::vector<Index> voxels;      ///< rows of the responses that are used: those with a weight above zero
  Eigen::VectorXd response_mean;  ///< of these
  Eigen::MatrixXd gain;           ///< coordinates x used voxels
  Eigen::VectorXd offset;         ///< decode(response) = offset + gain (response - response_mean)
  Eigen::MatrixXd whiten;         ///< coordinates x coordinates, lower triangular
  double penalty = 0;             ///< of the ridge, in units of the kernel's mean diagonal

  Eigen::VectorXd decode(const Eigen::VectorXd& response) const { return offset + gain * (response - response_mean); }
};

/// Ridge regression from responses (voxels x frames), each row times its weight, to coordinates (k x frames); the
/// penalty with the least squared error on frames left out one at a time, in units of each coordinate's variance.
/// Throws DataError naming `where` when there are fewer than 3 frames, no weight is above zero, or a coordinate is
/// constant.
DecoderLikelihood fit_decoder_likelihood(const Eigen::MatrixXd& responses, const Eigen::VectorXd& weights,
                                         const Eigen::MatrixXd& coordinates, const std::string& where);

}  // namespace percept
