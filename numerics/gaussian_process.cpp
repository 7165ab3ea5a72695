#include "numerics/gaussian_process.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/error.h"
#include "numerics/cholesky.h"
#include "numerics/linalg.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
const double kLog2Pi = std::log(2 * std::numbers::pi);

[[noreturn]] void not_positive_definite(const std::string& where) {
  throw DataError(where, "kernel matrix", "a positive definite matrix",
                  "one that is singular to working precision: the noise is too small for frames that repeat");
}

}  // namespace

double log_marginal_likelihood(const Kernel& kernel, const GaussianProcess& gp, const MatrixXd& x, const VectorXd& y,
                               VectorXd* gradient) {
  const Index n = x.cols();
  MatrixXd c = kernel.lower_covariance(gp.theta, x);
  c.diagonal().array() += gp.noise;
  if (!factorise(c)) return kNan;
  MatrixXd alpha = y;
  factor_solve(c, alpha);
  const double value = -0.5 * (alpha.col(0).dot(y) + factor_log_det(c) + static_cast<double>(n) * kLog2Pi);
  if (gradient) {
    factor_to_inverse(c);
    c *= -0.5;
    c += 0.5 * alpha * alpha.transpose();
    gradient->resize(kernel.size() + 1);
    gradient->head(kernel.size()) = kernel.gradient(gp.theta, x, c);
    (*gradient)(kernel.size()) = gp.noise * c.trace();
  }
  return value;
}

GaussianProcessFit fit_gaussian_process(const Kernel& kernel, const MatrixXd& x, const VectorXd& y,
                                        const GaussianProcessOptions& options, const std::string& where) {
  const Index n = x.cols(), inputs = x.rows();
  const VectorXd mean = x.rowwise().mean();
  VectorXd variance = (x.colwise() - mean).rowwise().squaredNorm() / static_cast<double>(n);
  const double variance_y = y.squaredNorm() / static_cast<double>(n);
  const Index varying = (variance.array() > 1e-24 * mean.array().square()).count();
  if (varying == 0 || variance.maxCoeff() <= 0)
    throw DataError(where, "inputs", "frames that differ", fmt::format("{} times the same frame", n));
  if (!(variance_y > 0)) throw DataError(where, "target", "values that vary", "a constant");
  const double typical = variance.sum() / static_cast<double>(varying);
  for (double& v : variance) v = v > 1e-12 * typical ? v : typical;  // a row without spread has no length of its own

  GaussianProcessFit best;
  best.log_marginal = -std::numeric_limits<double>::infinity();
  const Index few = std::min<Index>(n, 300);
  std::vector<Index> some;
  for (Index i = 0; i < few; ++i) some.push_back(i * n / few);
  const MatrixXd few_x = x(Eigen::all, some);
  const VectorXd few_y = y(some);
  for (const double distance2 : {1.0, 4.0, 16.0})
    for (const double noise : {0.05, 0.2, 0.5}) {
      if (options.check_cancel) options.check_cancel();
      const VectorXd weights = distance2 / (2 * static_cast<double>(inputs)) * variance.cwiseInverse();
      GaussianProcess gp{kernel.start(weights, (1 - noise) * variance_y), noise * variance_y};
      const double value = log_marginal_likelihood(kernel, gp, few_x, few_y);
      if (value > best.log_marginal) best.gp = gp, best.log_marginal = value;
    }
  if (!std::isfinite(best.log_marginal)) not_positive_definite(where);

  const double strength = options.prior_sd > 0 ? 1 / (options.prior_sd * options.prior_sd) : 0;
  const auto at = [&](const VectorXd& p) { return GaussianProcess{p.head(kernel.size()), std::exp(p(kernel.size()))}; };
  const auto f = [&](const VectorXd& p, VectorXd& gradient) {
    if (options.check_cancel) options.check_cancel();
    const double value = log_marginal_likelihood(kernel, at(p), x, y, &gradient);
    if (!std::isfinite(value)) return kNan;
    gradient *= -1;
    const VectorXd apart = kernel.deviations(p.head(kernel.size()));
    gradient.head(kernel.size()) += strength * apart;
    return 0.5 * strength * apart.squaredNorm() - value;
  };
  VectorXd start(kernel.size() + 1);
  start << best.gp.theta, std::log(best.gp.noise);
  const MinimumNd m = minimise_lbfgs(f, start, {.iterations = options.iterations, .tolerance = 1e-7});
  best.gp = at(m.x);
  best.log_marginal = 0.5 * strength * kernel.deviations(best.gp.theta).squaredNorm() - m.value;
  best.iterations = m.iterations;
  best.evaluations = m.evaluations;
  best.converged = m.converged;
  return best;
}

GaussianPosterior exact_posterior(const Kernel& kernel, const GaussianProcess& gp, const MatrixXd& x, const VectorXd& y,
                                  bool reduction, const std::string& where) {
  GaussianPosterior out;
  MatrixXd c = kernel.lower_covariance(gp.theta, x);
  c.diagonal().array() += gp.noise;
  if (!factorise(c)) not_positive_definite(where);
  MatrixXd alpha = y;
  factor_solve(c, alpha);
  out.weights = alpha;
  out.log_likelihood = -0.5 * (out.weights.dot(y) + factor_log_det(c) + static_cast<double>(x.cols()) * kLog2Pi);
  if (reduction) {
    out.reduction.setIdentity(x.cols(), x.cols());
    factor_whiten(c, out.reduction);
  }
  return out;
}

GaussianPosterior sparse_posterior(const Kernel& kernel, const GaussianProcess& gp, const MatrixXd& points,
                                   const MatrixXd& x, const VectorXd& y, bool reduction, const std::string& where) {
  constexpr Index kColumns = 1024;
  const Index m = points.cols(), n = x.cols();
  MatrixXd root = kernel.covariance(gp.theta, points, points);
  root.diagonal().array() += 1e-8 * root.diagonal().mean();
  if (!factorise(root)) not_positive_definite(where);
  // a = L⁻¹ K_mn, K_mm = L Lᵀ
  MatrixXd b = MatrixXd::Zero(m, m), ay = MatrixXd::Zero(m, 1);
  for (Index first = 0; first < n; first += kColumns) {
    const Index block = std::min(kColumns, n - first);
    MatrixXd a = kernel.covariance(gp.theta, points, x.middleCols(first, block));
    factor_whiten(root, a);
    b += gram(a);
    ay += a * y.segment(first, block);
  }
  const double explained = b.trace(), inside = kernel.variances(gp.theta, x).sum();
  b /= gp.noise;
  b.diagonal().array() += 1;
  MatrixXd factor = b;
  if (!factorise(factor)) not_positive_definite(where);

  GaussianPosterior out;
  const auto count = static_cast<double>(n);
  MatrixXd whitened = ay / gp.noise;
  factor_whiten(factor, whitened);
  out.log_likelihood = -0.5 * (count * (kLog2Pi + std::log(gp.noise)) + factor_log_det(factor) +
                               y.squaredNorm() / gp.noise - whitened.squaredNorm() + (inside - explained) / gp.noise);
  MatrixXd weights = ay / gp.noise;
  factor_solve(factor, weights);
  factor_unwhiten(root, weights);
  out.weights = weights;
  if (reduction) {
    // K_mm⁻¹ - (K_mm + K_mn K_nm / noise)⁻¹ = L⁻ᵀ (1 - b⁻¹) L⁻¹; its root keeps the digits that the difference loses
    const Eigensystem e = eigensystem(b);
    MatrixXd half = e.vectors * (1 - e.values.array().max(1.0).inverse()).sqrt().matrix().asDiagonal();
    factor_unwhiten(root, half);
    out.reduction = half.transpose();
  }
  return out;
}

std::vector<Index> spread_points(const MatrixXd& x, Index m, const KeyedRandom& random) {
  const Index n = x.cols();
  std::vector<Index> chosen;
  VectorXd nearest = VectorXd::Constant(n, 1.0);  // the first is drawn from all alike
  while (static_cast<Index>(chosen.size()) < std::min(m, n)) {
    const double total = nearest.sum();
    if (!(total > 0)) break;
    double rest = total * random.uniform(static_cast<std::int64_t>(chosen.size()));
    Index pick = -1;
    for (Index i = 0; i < n; ++i) {
      if (nearest(i) > 0) pick = i;
      rest -= nearest(i);
      if (rest < 0 && pick == i) break;
    }
    const VectorXd d = (x.colwise() - x.col(pick)).colwise().squaredNorm();
    nearest = chosen.empty() ? d : VectorXd(nearest.cwiseMin(d));
    nearest(pick) = 0;
    chosen.push_back(pick);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace percept
