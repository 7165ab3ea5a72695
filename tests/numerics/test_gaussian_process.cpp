#include <gmock/gmock.h>

#include <Eigen/Dense>
#include <cmath>

#include "core/error.h"
#include "numerics/cholesky.h"
#include "numerics/gaussian_process.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr KernelShape kAllShapes[] = {KernelShape::squared_exponential, KernelShape::rational_quadratic,
                                      KernelShape::matern32, KernelShape::linear, KernelShape::multi_kernel};

MatrixXd normal_matrix(Index rows, Index columns, const char* purpose) {
  const KeyedRandom r(6, purpose);
  MatrixXd m(rows, columns);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = r.normal(i);
  return m;
}

/// theta that differs in every entry.
VectorXd random_theta(const Kernel& k) { return 0.3 * normal_matrix(k.size(), 1, "theta"); }

double by_hand(KernelShape shape, const VectorXd& w, double s2, double a, const VectorXd& x, const VectorXd& y) {
  double r2 = 0, inner = 0, each = 0;
  for (Index i = 0; i < x.size(); ++i) {
    r2 += w(i) * std::pow(x(i) - y(i), 2);
    inner += w(i) * x(i) * y(i);
    each += std::exp(-0.5 * w(i) * std::pow(x(i) - y(i), 2)) / static_cast<double>(x.size());
  }
  switch (shape) {
    case KernelShape::squared_exponential:
      return s2 * std::exp(-0.5 * r2);
    case KernelShape::rational_quadratic:
      return s2 * std::pow(1 + r2 / (2 * a), -a);
    case KernelShape::matern32:
      return s2 * (1 + std::sqrt(3 * r2)) * std::exp(-std::sqrt(3 * r2));
    case KernelShape::linear:
      return s2 * inner;
    case KernelShape::multi_kernel:
      return s2 * each;
  }
  return 0;
}

TEST(Kernel, ValuesAreTheFormulas) {
  const MatrixXd x = normal_matrix(6, 7, "x"), z = normal_matrix(6, 5, "z");
  for (const KernelShape shape : kAllShapes) {
    const Kernel k({shape}, KernelLengths::rows, {6});
    const VectorXd theta = random_theta(k), w = k.weights(theta);
    const double s2 = std::exp(theta(6)), a = k.size() > 7 ? std::exp(theta(7)) : 0;
    const MatrixXd c = k.covariance(theta, x, z);
    KernelRow row(k, theta, z);
    for (Index i = 0; i < 7; ++i) {
      const VectorXd xi = x.col(i);
      row.look(xi.data(), 1);
      const VectorXd of_row = row.row();
      for (Index j = 0; j < 5; ++j) {
        EXPECT_NEAR(c(i, j), by_hand(shape, w, s2, a, xi, z.col(j)), 1e-13);
        EXPECT_NEAR(of_row(j), c(i, j), 1e-13);
      }
      EXPECT_NEAR(row.variance(), k.covariance(theta, xi, xi)(0, 0), 1e-13);
      EXPECT_NEAR(k.variances(theta, xi)(0), row.variance(), 1e-13);
    }
  }
}

TEST(Kernel, TheLowerHalfIsThatOfTheWhole) {
  const MatrixXd x = normal_matrix(6, 150, "x");  // more than two blocks of columns
  for (const KernelShape shape : kAllShapes) {
    const Kernel k({shape, KernelShape::linear}, KernelLengths::rows, {6});
    const VectorXd theta = random_theta(k);
    const MatrixXd whole = k.covariance(theta, x, x), lower = k.lower_covariance(theta, x);
    EXPECT_LT((lower - MatrixXd(whole.triangularView<Eigen::Lower>())).cwiseAbs().maxCoeff(), 1e-13);
    EXPECT_LT((whole - whole.transpose()).cwiseAbs().maxCoeff(), 1e-13);
    const VectorXd weights = normal_matrix(150, 1, "weights");
    EXPECT_LT((k.sums(theta, x, weights, x) - whole * weights).cwiseAbs().maxCoeff(), 1e-11);
  }
}

TEST(Kernel, WeightsOfAxesAreSumsOfTheirEntries) {
  const Kernel k({KernelShape::linear}, KernelLengths::axes, {2, 3});
  EXPECT_THAT(k.names(), ElementsAre("log_weight.0.0", "log_weight.0.1", "log_weight.1.0", "log_weight.1.1",
                                     "log_weight.1.2", "linear.log_variance"));
  VectorXd theta(6);
  theta << 1, 2, 0.1, 0.2, 0.3, 0;
  const VectorXd log_w = k.weights(theta).array().log();
  VectorXd wanted(6);
  wanted << 1.1, 1.2, 1.3, 2.1, 2.2, 2.3;
  EXPECT_LT((log_w - wanted).cwiseAbs().maxCoeff(), 1e-14);
  VectorXd apart(6);
  apart << -0.5, 0.5, -0.1, 0, 0.1, 0;
  EXPECT_LT((k.deviations(theta) - apart).cwiseAbs().maxCoeff(), 1e-14);
  // weights that are sums are found again
  EXPECT_LT((k.weights(k.start(k.weights(theta), 1.0)) - k.weights(theta)).cwiseAbs().maxCoeff(), 1e-12);
}

TEST(GaussianProcess, LikelihoodIsThatOfTheNormalDistribution) {
  const MatrixXd x = normal_matrix(3, 9, "x");
  const VectorXd y = normal_matrix(9, 1, "y");
  const Kernel k({KernelShape::squared_exponential}, KernelLengths::one, {3});
  const GaussianProcess gp{random_theta(k), 0.3};
  MatrixXd c = k.covariance(gp.theta, x, x);
  c.diagonal().array() += 0.3;
  const double wanted = -0.5 * (y.dot(c.inverse() * y) + std::log(c.determinant()) + 9 * std::log(2 * M_PI));
  EXPECT_NEAR(log_marginal_likelihood(k, gp, x, y), wanted, 1e-11);
}

// every kernel, every way to share lengths, alone and in a sum: against differences of the likelihood
TEST(GaussianProcess, GradientIsThatOfTheLikelihood) {
  const MatrixXd x = normal_matrix(6, 25, "x");
  const VectorXd y = normal_matrix(25, 1, "y");
  std::vector<std::vector<KernelShape>> sums = {{KernelShape::rational_quadratic, KernelShape::linear},
                                                {KernelShape::multi_kernel, KernelShape::squared_exponential},
                                                {std::begin(kAllShapes), std::end(kAllShapes)}};
  for (const KernelShape s : kAllShapes) sums.push_back({s});
  for (const auto& shapes : sums)
    for (const KernelLengths lengths : {KernelLengths::one, KernelLengths::rows, KernelLengths::axes}) {
      const Kernel k(shapes, lengths, {2, 3});
      VectorXd p(k.size() + 1), gradient;
      p << random_theta(k), std::log(0.2);
      const auto value = [&](const VectorXd& q, VectorXd* g = nullptr) {
        return log_marginal_likelihood(k, {q.head(k.size()), std::exp(q(k.size()))}, x, y, g);
      };
      value(p, &gradient);
      for (Index i = 0; i < p.size(); ++i) {
        VectorXd step = VectorXd::Zero(p.size());
        step(i) = 1e-5;
        EXPECT_NEAR(gradient(i), (value(p + step) - value(p - step)) / 2e-5,
                    1e-6 * std::max(1.0, std::abs(gradient(i))))
            << (i < k.size() ? k.names()[static_cast<std::size_t>(i)] : "noise");
      }
    }
}

/// y = sin(2 x0) + 0.5 x1 + noise of sd 0.1; x2 says nothing.
struct Wave {
  MatrixXd x;
  VectorXd y;
};
Wave wave_of(Index n, const char* purpose) {
  Wave w{normal_matrix(3, n, purpose), VectorXd(n)};
  const VectorXd noise = normal_matrix(n, 1, "noise");
  for (Index i = 0; i < n; ++i) w.y(i) = std::sin(2 * w.x(0, i)) + 0.5 * w.x(1, i) + 0.1 * noise(i);
  return w;
}

TEST(GaussianProcess, FindsNoiseAndWhichInputMatters) {
  const Wave w = wave_of(300, "wave"), test = wave_of(100, "test");
  const Kernel k({KernelShape::squared_exponential, KernelShape::linear}, KernelLengths::rows, {3});
  const GaussianProcessFit fit = fit_gaussian_process(k, w.x, w.y, {.iterations = 100}, "gp");
  EXPECT_NEAR(std::sqrt(fit.gp.noise), 0.1, 0.01);
  const VectorXd weights = k.weights(fit.gp.theta);
  EXPECT_LT(weights(2), 1e-2 * weights(0));
  EXPECT_NEAR(fit.log_marginal, log_marginal_likelihood(k, fit.gp, w.x, w.y), 1e-8);
  VectorXd gradient;
  log_marginal_likelihood(k, fit.gp, w.x, w.y, &gradient);
  EXPECT_LT(gradient.cwiseAbs().maxCoeff(), 0.5) << "log-likelihood per unit of the logarithm of a parameter";
  const GaussianPosterior p = exact_posterior(k, fit.gp, w.x, w.y, false, "gp");
  const VectorXd mean = k.covariance(fit.gp.theta, test.x, w.x) * p.weights;
  EXPECT_LT((mean - test.y).norm() / std::sqrt(100.0), 0.13);
  // with a narrow prior the lengths stay alike
  const VectorXd alike =
      k.weights(fit_gaussian_process(k, w.x, w.y, {.iterations = 100, .prior_sd = 0.01}, "gp").gp.theta);
  EXPECT_LT(alike.maxCoeff(),
            1.5 * alike.minCoeff() * w.x.rowwise().squaredNorm().maxCoeff() / w.x.rowwise().squaredNorm().minCoeff());
}

TEST(GaussianProcess, PosteriorIsTheConditionalNormal) {
  const Wave w = wave_of(40, "wave");
  const Kernel k({KernelShape::rational_quadratic}, KernelLengths::rows, {3});
  const GaussianProcess gp{random_theta(k), 0.05};
  const MatrixXd x = normal_matrix(3, 6, "new");
  MatrixXd c = k.covariance(gp.theta, w.x, w.x);
  c.diagonal().array() += 0.05;
  const MatrixXd cross = k.covariance(gp.theta, w.x, x), inverse = c.inverse();
  const GaussianPosterior p = exact_posterior(k, gp, w.x, w.y, true, "gp");
  EXPECT_LT((cross.transpose() * p.weights - cross.transpose() * inverse * w.y).cwiseAbs().maxCoeff(), 1e-11);
  EXPECT_LT((p.reduction.transpose() * p.reduction - inverse).cwiseAbs().maxCoeff(), 1e-9);
  EXPECT_NEAR(p.log_likelihood, log_marginal_likelihood(k, gp, w.x, w.y), 1e-10);
}

TEST(GaussianProcess, SparseWithEveryFrameIsExactAndItsBoundRises) {
  const Wave w = wave_of(80, "wave");
  const Kernel k({KernelShape::squared_exponential, KernelShape::linear}, KernelLengths::one, {3});
  const GaussianProcess gp{k.start(VectorXd::Constant(3, 0.5), 1.0), 0.05};
  const GaussianPosterior exact = exact_posterior(k, gp, w.x, w.y, true, "gp"),
                          all = sparse_posterior(k, gp, w.x, w.x, w.y, true, "gp");
  const MatrixXd cross = k.covariance(gp.theta, w.x, normal_matrix(3, 10, "new"));
  const auto reduced = [&](const MatrixXd& r) { return VectorXd((r * cross).colwise().squaredNorm()); };
  EXPECT_LT((cross.transpose() * (exact.weights - all.weights)).cwiseAbs().maxCoeff(), 1e-4);
  EXPECT_LT((reduced(exact.reduction) - reduced(all.reduction)).cwiseAbs().maxCoeff(), 1e-5);
  EXPECT_NEAR(all.log_likelihood, exact.log_likelihood, 1e-3);
  double before = -1e300;
  for (const Index m : {5, 20, 50}) {
    const auto p = sparse_posterior(k, gp, w.x.leftCols(m), w.x, w.y, false, "gp");
    EXPECT_GT(p.log_likelihood, before);
    EXPECT_LT(p.log_likelihood, exact.log_likelihood);
    before = p.log_likelihood;
  }
}

TEST(GaussianProcess, SpreadPointsAreDifferentAndKeyed) {
  MatrixXd x = normal_matrix(2, 50, "x");
  x.rightCols(25) = x.leftCols(25);
  const KeyedRandom random(3, "points");
  const auto points = spread_points(x, 10, random);
  EXPECT_EQ(points.size(), 10u);
  EXPECT_TRUE(std::is_sorted(points.begin(), points.end()));
  EXPECT_EQ(points, spread_points(x, 10, random));
  EXPECT_NE(points, spread_points(x, 10, KeyedRandom(4, "points")));
  EXPECT_EQ(spread_points(x, 50, random).size(), 25u) << "every point twice";
}

TEST(GaussianProcess, RefusesWhatHasNoLikelihood) {
  const Wave w = wave_of(30, "wave");
  const Kernel k({KernelShape::squared_exponential}, KernelLengths::one, {3});
  const auto message = [](const auto& f) -> std::string {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const MatrixXd same = w.x.col(0).replicate(1, 30);
  EXPECT_THAT(message([&] { fit_gaussian_process(k, same, w.y, {}, "gp"); }), HasSubstr("gp: inputs"));
  EXPECT_THAT(message([&] { fit_gaussian_process(k, w.x, VectorXd::Zero(30), {}, "gp"); }), HasSubstr("gp: target"));
  const GaussianProcess noiseless{VectorXd::Zero(2), 0.0};
  EXPECT_TRUE(std::isnan(log_marginal_likelihood(k, noiseless, same, w.y)));
  EXPECT_THAT(message([&] { exact_posterior(k, noiseless, same, w.y, false, "gp"); }),
              HasSubstr("gp: kernel matrix: expected a positive definite matrix"));
}

TEST(Cholesky, InPlaceThroughLapack) {
  const MatrixXd half = normal_matrix(6, 9, "half"), a = half * half.transpose();
  MatrixXd factor = a;
  ASSERT_TRUE(factorise(factor));
  MatrixXd b = half, white = half;
  factor_solve(factor, b);
  EXPECT_LT((a * b - half).cwiseAbs().maxCoeff(), 1e-11);
  factor_whiten(factor, white);
  EXPECT_LT((white.transpose() * white - half.transpose() * a.inverse() * half).cwiseAbs().maxCoeff(), 1e-10);
  EXPECT_NEAR(factor_log_det(factor), std::log(a.determinant()), 1e-10);
  factor_unwhiten(factor, white);
  EXPECT_LT((white - b).cwiseAbs().maxCoeff(), 1e-10);
  factor_to_inverse(factor);
  EXPECT_LT((factor - a.inverse()).cwiseAbs().maxCoeff(), 1e-10);
  MatrixXd indefinite = -a;
  EXPECT_FALSE(factorise(indefinite));
  MatrixXd nan = MatrixXd::Constant(3, 3, NAN);
  EXPECT_FALSE(factorise(nan));
}

}  // namespace
}  // namespace percept
