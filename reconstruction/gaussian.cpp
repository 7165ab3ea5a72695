#include "reconstruction/gaussian.h"

#include <Eigen/Cholesky>

#include <algorithm>

#include "core/error.h"
#include "numerics/linalg.h"

namespace percept {

using Eigen::MatrixXd;
using Eigen::VectorXd;

ShrunkCovariance shrunk_covariance(const MatrixXd& x) {
  const double n = static_cast<double>(x.cols()), p = static_cast<double>(x.rows());
  ShrunkCovariance out{gram(x) / n, 0};
  const double mean = out.covariance.trace() / p;
  const double squared = out.covariance.squaredNorm();
  const double spread = squared - p * mean * mean;  // |S - mean I|^2
  const double error = (x.colwise().squaredNorm().array().square().sum() / n - squared) / n;
  out.weight = spread > 0 ? std::clamp(error / spread, 0.0, 1.0) : 1.0;
  out.covariance *= 1 - out.weight;
  out.covariance.diagonal().array() += out.weight * mean;
  return out;
}

namespace {
/// The lower Cholesky factor.
Eigen::LLT<MatrixXd> factor(const MatrixXd& a, const std::string& where, const char* name) {
  Eigen::LLT<MatrixXd> llt(a);
  if (llt.info() != Eigen::Success) throw DataError(where, name, "a positive definite matrix", "one that is not");
  return llt;
}
}  // namespace

GaussianPosterior gaussian_posterior(const MatrixXd& prior, const MatrixXd& encoding, const MatrixXd& noise,
                                     const std::string& where) {
  const Index n = encoding.rows(), d = encoding.cols();
  const bool diagonal = noise.cols() == 1;
  if (diagonal && !(noise.minCoeff() > 0))
    throw DataError(where, "noise variances", "values above zero", "zero or less");
  GaussianPosterior out;
  if (d < n) {
    // with prior = L L': covariance = L (I + L' B' R^-1 B L)^-1 L', whose middle is never singular
    const MatrixXd l = factor(prior, where, "prior covariance").matrixL();
    MatrixXd scaled;  // R^-1 B L
    const MatrixXd seen = product(encoding, l);
    if (diagonal) scaled = noise.col(0).cwiseInverse().asDiagonal() * seen;
    else scaled = factor(noise, where, "noise covariance").solve(seen);
    MatrixXd middle = product(seen.transpose(), scaled);
    middle.diagonal().array() += 1;
    const auto solver = factor(middle, where, "posterior precision");
    out.gain = product(l, solver.solve(scaled.transpose()));
    const MatrixXd root = solver.matrixL().solve(MatrixXd(l.transpose()));
    out.sd = root.colwise().norm();
  } else {
    // covariance = S - S B' (B S B' + R)^-1 B S
    const MatrixXd common = product(encoding, prior);  // B S
    MatrixXd seen = product(common, encoding.transpose());
    if (diagonal) seen.diagonal() += noise.col(0);
    else seen += noise;
    const auto solver = factor(seen, where, "covariance of the brain rows");
    out.gain = solver.solve(common).transpose();
    const MatrixXd root = solver.matrixL().solve(common);
    out.sd = (prior.diagonal() - root.colwise().squaredNorm().transpose()).cwiseMax(0.0).cwiseSqrt();
  }
  return out;
}

}  // namespace percept
