/// Posteriors in closed form, and how far draws are from them.
#pragma once

#include <Eigen/Core>
#include <cmath>

#include "numerics/linalg.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/analytic.h"
#include "reconstruction/diffusion/sampler.h"

namespace percept::diffusion::testing {

struct Moments {
  Eigen::VectorXd mean;
  Eigen::MatrixXd covariance;
};

inline Moments moments_of(const Batch& draws) {
  const Eigen::MatrixXd x = draws.cast<double>();
  Moments m;
  m.mean = x.rowwise().mean();
  const Eigen::MatrixXd off = x.colwise() - m.mean;
  m.covariance = off * off.transpose() / static_cast<double>(x.cols() - 1);
  return m;
}

inline Eigen::MatrixXd covariance_of(const GaussianMixture::Component& c) {
  const Index n = c.mean.size();
  return c.basis * c.variances.asDiagonal() * c.basis.transpose() +
         c.rest * (Eigen::MatrixXd::Identity(n, n) - c.basis * c.basis.transpose());
}

/// A mixture after y = A x + sd n was seen: each component's conditional, weighed by how likely it made y.
inline GaussianMixture posterior(const GaussianMixture& prior, const Eigen::MatrixXd& a, const Eigen::VectorXd& y,
                                 double sd) {
  GaussianMixture out{prior.shape, {}};
  Eigen::VectorXd log_weight(static_cast<Index>(prior.components.size()));
  for (const auto& c : prior.components) {
    const Eigen::MatrixXd s = covariance_of(c);
    const Eigen::MatrixXd seen = a * s * a.transpose() + sd * sd * Eigen::MatrixXd::Identity(a.rows(), a.rows());
    const Eigen::MatrixXd inverse = spd_inverse(seen, "test", "covariance of what is seen");
    const Eigen::VectorXd off = y - a * c.mean;
    const Eigen::MatrixXd gain = s * a.transpose() * inverse;
    log_weight(static_cast<Index>(out.components.size())) =
        std::log(c.weight) - 0.5 * off.dot(inverse * off) - 0.5 * eigensystem(seen).values.array().log().sum();
    out.components.push_back(GaussianMixture::component(1, c.mean + gain * off, s - gain * a * s, c.label));
  }
  log_weight = (log_weight.array() - log_weight.maxCoeff()).exp();
  log_weight /= log_weight.sum();
  for (std::size_t k = 0; k < out.components.size(); ++k) out.components[k].weight = log_weight(static_cast<Index>(k));
  return out;
}

inline Moments moments_of(const GaussianMixture& g) {
  Moments m{Eigen::VectorXd::Zero(elements(g.shape)), Eigen::MatrixXd::Zero(elements(g.shape), elements(g.shape))};
  for (const auto& c : g.components) m.mean += c.weight * c.mean;
  for (const auto& c : g.components)
    m.covariance += c.weight * (covariance_of(c) + (c.mean - m.mean) * (c.mean - m.mean).transpose());
  return m;
}

/// Relative errors: |mean - true| / |true mean|, and the same of covariances in the Frobenius norm.
struct Off {
  double mean, covariance;
};
inline Off off(const Moments& found, const Moments& truth) {
  return {(found.mean - truth.mean).norm() / truth.mean.norm(),
          (found.covariance - truth.covariance).norm() / truth.covariance.norm()};
}

/// Six values of about the size of image values in [-1, 1], correlated, with standard deviations from 0.2 to 0.9.
inline GaussianMixture gaussian_prior() {
  const KeyedRandom random(11, "prior");
  Eigen::MatrixXd f(6, 6);
  Eigen::VectorXd mean(6);
  for (Index i = 0; i < 6; ++i) {
    mean(i) = 0.4 + 0.3 * random.normal(i, 100);
    for (Index k = 0; k < 6; ++k) f(i, k) = 0.22 * random.normal(i, static_cast<std::uint64_t>(k));
  }
  return {{2, 3}, {GaussianMixture::component(1, mean, f * f.transpose() + 0.03 * Eigen::MatrixXd::Identity(6, 6))}};
}

/// Two of them, apart, of different shape and weight.
inline GaussianMixture mixture_prior() {
  GaussianMixture g = gaussian_prior();
  auto& first = g.components[0];
  first.weight = 0.6;
  auto second = GaussianMixture::component(0.4, first.mean + Eigen::VectorXd::LinSpaced(6, 1.0, -0.6),
                                           0.4 * covariance_of(first).reverse().eval(), 1);
  g.components.push_back(second);
  return g;
}

/// Three mixtures of the six values.
inline Eigen::MatrixXd measuring_matrix() {
  const KeyedRandom random(12, "operator");
  Eigen::MatrixXd a(3, 6);
  for (Index i = 0; i < 3; ++i)
    for (Index k = 0; k < 6; ++k) a(i, k) = 0.5 * random.normal(i, static_cast<std::uint64_t>(k));
  return a;
}

}  // namespace percept::diffusion::testing
