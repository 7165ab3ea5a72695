/// The denoisers in closed form against sums over many images, and as models.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "tests/reconstruction/analytic.h"
#include "tests/support/errors.h"

namespace percept::diffusion {
namespace {

using ::percept::testing::message_of;
using testing::covariance_of;
using testing::gaussian_prior;
using testing::mixture_prior;

// E[x0 | x] of a mixture by its definition: densities with full matrices.
TEST(MixtureDenoiser, IsTheConditionalMean) {
  const GaussianMixture g = mixture_prior();
  MixtureDenoiser denoiser(g);
  const Batch x = Batch::Random(6, 4) * 1.5f;
  for (const double sigma : {0.05, 0.6, 20.0}) {
    Batch x0;
    denoiser.denoise(x, sigma, x0);
    for (Index k = 0; k < 4; ++k) {
      Eigen::VectorXd sum = Eigen::VectorXd::Zero(6);
      double total = 0;
      for (auto& c : g.components) {
        const Eigen::MatrixXd noisy = covariance_of(c) + sigma * sigma * Eigen::MatrixXd::Identity(6, 6);
        const Eigen::MatrixXd inverse = spd_inverse(noisy, "test", "covariance");
        const Eigen::VectorXd away = x.col(k).cast<double>() - c.mean;
        const double p =
            c.weight * std::exp(-0.5 * away.dot(inverse * away)) / std::sqrt(eigensystem(noisy).values.prod());
        sum += p * (c.mean + covariance_of(c) * inverse * away);
        total += p;
      }
      EXPECT_LT((x0.col(k).cast<double>() - sum / total).norm(), 1e-5) << sigma;
    }
  }
}

TEST(MixtureDenoiser, PullsBackItsDerivative) {
  MixtureDenoiser denoiser(mixture_prior());
  const Batch x = Batch::Random(6, 2), w = Batch::Random(6, 2);
  Batch x0, g, up, down;
  const double sigma = 0.7;
  denoiser.pull_back(
      x, sigma, x0, [&](const Batch&, Batch& v) { v = w; }, g);
  for (Index i = 0; i < 12; ++i) {
    Batch a = x, b = x;
    a.data()[i] += 0.01f;
    b.data()[i] -= 0.01f;
    denoiser.denoise(a, sigma, up);
    denoiser.denoise(b, sigma, down);
    EXPECT_NEAR(g.data()[i], (up - down).cwiseProduct(w).sum() / 0.02f, 1e-3);
  }
}

// A basis that leaves directions out, with their variance in `rest`, is the full matrix.
TEST(MixtureDenoiser, FewDirectionsAreEnough) {
  GaussianMixture few = mixture_prior();
  for (auto& c : few.components) {
    c.basis = c.basis.rightCols(2).eval();
    c.variances = c.variances.tail(2).eval();
    c.rest = 0.07;
  }
  GaussianMixture full = few;
  for (auto& c : full.components) {
    const auto label = c.label;
    c = GaussianMixture::component(c.weight, c.mean, covariance_of(c), label);
  }
  MixtureDenoiser a(few), b(full);
  const Batch x = Batch::Random(6, 5);
  Batch x0, y0;
  a.denoise(x, 0.4, x0);
  b.denoise(x, 0.4, y0);
  EXPECT_LT((x0 - y0).norm(), 1e-5f);
}

TEST(MixtureDenoiser, AClassLeavesTheOthersOut) {
  const GaussianMixture g = mixture_prior();
  MixtureDenoiser told(g, {1, 0});
  GaussianMixture only = g;
  only.components.erase(only.components.begin());
  only.components[0].weight = 1;
  MixtureDenoiser one(only);
  const Batch x = Batch::Random(6, 4);
  Batch x0, y0;
  told.denoise(x, 0.5, x0);  // each class stands for two neighbours
  one.denoise(x, 0.5, y0);
  EXPECT_EQ(x0.leftCols(2), y0.leftCols(2));
  EXPECT_GT((x0.rightCols(2) - y0.rightCols(2)).norm(), 0.01f);
  EXPECT_EQ(message_of([&] { MixtureDenoiser(g, {2}); }),
            "diffusion.class = 2: expected a class that a component of the mixture has");
}

TEST(GaussianMixture, ComesBackFromAModel) {
  GaussianMixture g = mixture_prior();
  g.components[0].basis.resize(6, 0);
  g.components[0].variances.resize(0);
  g.components[0].rest = 0.2;
  const Model m = g.model();
  const GaussianMixture back = GaussianMixture::from(m, "m");
  EXPECT_EQ(back.model(), m);
  EXPECT_EQ(back.shape, g.shape);
  EXPECT_EQ(back.components[1].label, 1);

  const auto broken = [&](auto&& change) {
    Model b = m;
    change(b);
    return message_of([&] { GaussianMixture::from(b, "m"); });
  };
  EXPECT_EQ(broken([](Model& b) { b.set("1.weight", 0.5); }), "m: weights: expected a sum of 1, found 1.1");
  EXPECT_EQ(broken([](Model& b) { b.set("1.variances", Eigen::VectorXd::Constant(6, -1)); }),
            "m: component 1: expected finite values, a weight and variances not below zero, found others");
  EXPECT_EQ(broken([](Model& b) { b.set("1.basis", Eigen::MatrixXd::Ones(6, 6)); }),
            "m: component 1: expected a basis of orthonormal columns, found another");
  EXPECT_EQ(broken([](Model& b) { b.meta["shape"] = "x"; }),
            "m: shape: expected a list of sizes, found something else");
  EXPECT_EQ(broken([](Model& b) {
              b.meta["shape"] = Value(std::vector<Index>{1 << 20, 1 << 20});
            }),
            "m: shape: expected at most 16777216 values, found more");
  EXPECT_EQ(broken([](Model& b) { b.meta["components"] = std::int64_t{0}; }),
            "m: components: expected an integer in [1, 10000], found 0");
  EXPECT_EQ(broken([](Model& b) { b.meta["labels"] = Value::array(); }),
            "m: labels: expected a list of 2, found something else");
  EXPECT_NE(broken([](Model& b) { b.tensors().erase("1.mean"); }), "");
  EXPECT_NE(broken([](Model& b) { b.meta["stage"] = "other"; }), "");
}

}  // namespace
}  // namespace percept::diffusion
