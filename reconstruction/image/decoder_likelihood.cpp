#include "reconstruction/image/decoder_likelihood.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "numerics/cholesky.h"
#include "numerics/linalg.h"
#include "reconstruction/gaussian.h"

namespace percept {

using Eigen::MatrixXd;
using Eigen::RowVectorXd;
using Eigen::VectorXd;

DecoderLikelihood fit_decoder_likelihood(const MatrixXd& responses, const VectorXd& weights,
                                         const MatrixXd& coordinates, const std::string& where) {
  const Index n = responses.cols(), k = coordinates.rows();
  if (n < 3) throw DataError(where, "training frames", "at least 3", std::to_string(n));
  DecoderLikelihood out;
  for (Index v = 0; v < weights.size(); ++v)
    if (weights(v) > 0) out.voxels.push_back(v);
  if (out.voxels.empty()) throw DataError(where, "voxels", "one that the images explain on frames left out", "none");
  out.response_mean = responses(out.voxels, Eigen::all).rowwise().mean();
  const MatrixXd x =
      weights(out.voxels).asDiagonal() * (responses(out.voxels, Eigen::all).colwise() - out.response_mean);
  const VectorXd mean = coordinates.rowwise().mean();
  const MatrixXd y = (coordinates.colwise() - mean).transpose();  // frames x coordinates
  const RowVectorXd power = y.colwise().squaredNorm();
  for (Index c = 0; c < k; ++c)
    if (!(power(c) > 0))
      throw DataError(where, fmt::format("coordinate {} of the target", c), "values that vary over the training frames",
                      fmt::format("the constant {}", mean(c)));

  const MatrixXd kernel = product(x.transpose(), x);
  const double scale = kernel.trace() / static_cast<double>(n);
  Eigensystem e = eigensystem(kernel / scale);
  e.values = e.values.cwiseMax(0.0);
  MatrixXd left_out, dual;
  double least = HUGE_VAL;
  for (const double penalty : {0.03, 0.1, 0.3, 1.0, 3.0, 10.0}) {
    const MatrixXd inverse =
        e.vectors * (e.values.array() + penalty).inverse().matrix().asDiagonal() * e.vectors.transpose();
    const MatrixXd solution = product(inverse, y);
    const Eigen::ArrayXd left = penalty * inverse.diagonal().array() - 1 / static_cast<double>(n);
    const MatrixXd residual = left.inverse().matrix().asDiagonal() * (penalty * solution);
    const double error = (residual.colwise().squaredNorm().array() / power.array()).sum();
    if (!(error < least)) continue;
    least = error;
    left_out = residual;
    dual = solution / scale;
    out.penalty = penalty;
  }
  // shrunk as a correlation, since coordinates differ in size
  const VectorXd sd = (left_out.colwise().squaredNorm() / static_cast<double>(n)).cwiseSqrt().transpose();
  for (Index c = 0; c < k; ++c)
    if (!(sd(c) > 0))
      throw DataError(where, fmt::format("coordinate {} of the target", c), "errors of the decoder",
                      "values that are decoded exactly");
  ShrunkCovariance errors = shrunk_covariance(sd.cwiseInverse().asDiagonal() * left_out.transpose());
  if (!factorise(errors.covariance))
    throw DataError(where, "covariance of the decoder's errors", "a positive definite matrix", "one that is not");
  out.whiten = sd.cwiseInverse().asDiagonal();
  factor_whiten(errors.covariance, out.whiten);
  out.gain = product(out.whiten, product(dual.transpose(), MatrixXd(x.transpose()))) * weights(out.voxels).asDiagonal();
  out.offset = out.whiten * mean;
  return out;
}

}  // namespace percept
