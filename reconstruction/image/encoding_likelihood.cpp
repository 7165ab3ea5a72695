#include "reconstruction/image/encoding_likelihood.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "numerics/cholesky.h"
#include "numerics/linalg.h"

namespace percept {

using Eigen::MatrixXd;
using Eigen::VectorXd;

VectorXd EncodingLikelihood::quadratic(const MatrixXd& features) const {
  return product(information, features).cwiseProduct(features).colwise().sum().transpose() / 2;
}

EncodingLikelihood encoding_likelihood(const FieldEncoder& encoder, Index voxels, double independence,
                                       const std::string& where) {
  EncodingLikelihood out;
  out.voxels.resize(static_cast<std::size_t>(encoder.weights.rows()));
  std::iota(out.voxels.begin(), out.voxels.end(), 0);
  std::stable_sort(out.voxels.begin(), out.voxels.end(),
                   [&](Index a, Index b) { return encoder.explained(a) > encoder.explained(b); });
  out.voxels.resize(static_cast<std::size_t>(std::min(voxels, encoder.weights.rows())));
  const MatrixXd residual = encoder.left_out(out.voxels, Eigen::all);
  const VectorXd sd = (residual.rowwise().squaredNorm() / static_cast<double>(residual.cols())).cwiseSqrt();
  for (Index k = 0; k < sd.size(); ++k)
    if (!(sd(k) > 0))
      throw DataError(where, fmt::format("voxel {}", out.voxels[static_cast<std::size_t>(k)]),
                      "noise around the encoding model", "a response that the images explain exactly");
  out.response_mean = encoder.response_mean(out.voxels);
  MatrixXd noise =
      (1 - independence) / static_cast<double>(residual.cols()) * gram(sd.cwiseInverse().asDiagonal() * residual);
  noise.diagonal().array() += independence;
  MatrixXd whitened = sd.cwiseInverse().asDiagonal() * encoder.weights(out.voxels, Eigen::all);
  if (!factorise(noise))
    throw DataError(where, "covariance of the noise", "a positive definite matrix", "one that is not");
  factor_whiten(noise, whitened);
  const MatrixXd transposed = whitened.transpose();
  out.information = gram(transposed);
  MatrixXd twice = whitened;
  factor_unwhiten(noise, twice);
  out.gain = twice.transpose() * sd.cwiseInverse().asDiagonal();
  out.centre = out.information * encoder.feature_mean;
  return out;
}

}  // namespace percept
