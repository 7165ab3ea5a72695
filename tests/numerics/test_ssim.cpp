#include <gmock/gmock.h>

#include <Eigen/Dense>
#include <cmath>

#include "core/error.h"
#include "numerics/random.h"
#include "numerics/ssim.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

/// Pixels in [0, 1], neighbours alike.
VectorXd picture(Index height, Index width, std::int64_t key) {
  const KeyedRandom random(3, "ssim");
  VectorXd x(height * width);
  for (Index i = 0; i < height; ++i)
    for (Index j = 0; j < width; ++j)
      x(i * width + j) = 0.5 +
                         0.3 * std::sin(0.7 * static_cast<double>(i) + random.normal(key, 1)) *
                             std::cos(0.5 * static_cast<double>(j) + random.normal(key, 2)) +
                         0.05 * random.normal(key, static_cast<std::uint64_t>(10 + i * width + j));
  return x;
}

/// The definition, window by window.
double by_definition(const VectorXd& a, const VectorXd& b, Index height, Index width, const SsimOptions& o) {
  double sum = 0;
  Index n = 0;
  for (Index top = 0; top + o.width <= height; ++top)
    for (Index left = 0; left + o.width <= width; ++left, ++n) {
      double total = 0, ma = 0, mb = 0, va = 0, vb = 0, c = 0;
      const auto weigh = [&](Index i, Index j) {
        if (o.window == SsimOptions::Window::uniform) return 1.0;
        const double di = static_cast<double>(i - o.width / 2), dj = static_cast<double>(j - o.width / 2);
        return std::exp(-(di * di + dj * dj) / (2 * o.sd_px * o.sd_px));
      };
      for (int round = 0; round < 2; ++round) {
        for (Index i = 0; i < o.width; ++i)
          for (Index j = 0; j < o.width; ++j) {
            const double w = weigh(i, j), x = a((top + i) * width + left + j), y = b((top + i) * width + left + j);
            if (round == 0) {
              total += w, ma += w * x, mb += w * y;
            } else {
              va += w * (x - ma) * (x - ma) / total, vb += w * (y - mb) * (y - mb) / total;
              c += w * (x - ma) * (y - mb) / total;
            }
          }
        if (round == 0) ma /= total, mb /= total;
      }
      if (o.unbiased) va *= total / (total - 1), vb *= total / (total - 1), c *= total / (total - 1);
      const double c1 = std::pow(0.01 * o.range, 2), c2 = std::pow(0.03 * o.range, 2);
      sum += (2 * ma * mb + c1) * (2 * c + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
    }
  return sum / static_cast<double>(n);
}

std::vector<SsimOptions> windows() {
  return {{},
          {.width = 5, .sd_px = 0.8, .range = 255},
          {.window = SsimOptions::Window::uniform, .width = 7},
          {.window = SsimOptions::Window::uniform, .width = 7, .unbiased = true}};
}

TEST(Ssim, EqualsItsDefinition) {
  const Index height = 13, width = 17;
  const VectorXd a = picture(height, width, 1), b = picture(height, width, 2);
  for (const auto& o : windows()) {
    const Ssim ssim(height, width, o);
    EXPECT_NEAR(ssim(a, b), by_definition(a, b, height, width, o), 1e-12) << o.width;
    EXPECT_NEAR(ssim(a, a), 1, 1e-12);
    EXPECT_EQ(ssim(a, b), ssim(b, a));
  }
}

// Two constant images have no structure: what is left is the comparison of brightness.
TEST(Ssim, OfConstantImagesIsTheirBrightness) {
  const Ssim ssim(11, 11);
  const VectorXd a = VectorXd::Constant(121, 0.5), b = VectorXd::Constant(121, 0.25);
  EXPECT_NEAR(ssim(a, b), (2 * 0.5 * 0.25 + 1e-4) / (0.25 + 0.0625 + 1e-4), 1e-12);
}

TEST(Ssim, MissingPixelIsMissing) {
  VectorXd a = picture(12, 12, 1);
  a(5) = std::nan("");
  EXPECT_TRUE(std::isnan(Ssim(12, 12)(a, picture(12, 12, 2))));
}

TEST(Ssim, ExpectationAndItsGradient) {
  const Index height = 12, width = 15, n = 4;
  MatrixXd images(height * width, n);
  for (Index k = 0; k < n; ++k) images.col(k) = picture(height, width, k);
  const VectorXd weights = (VectorXd(n) << 0.1, 0.4, 0.2, 0.3).finished(), x = picture(height, width, 99);
  for (const auto& o : windows()) {
    const Ssim ssim(height, width, o);
    const ExpectedSsim expected(ssim, images, weights);
    VectorXd gradient, ignored;
    const double value = expected.value(x, gradient);
    double sum = 0;
    for (Index k = 0; k < n; ++k) sum += weights(k) * ssim(x, images.col(k));
    EXPECT_NEAR(value, sum, 1e-12);
    ASSERT_EQ(gradient.size(), x.size());
    const double h = 1e-5;  // error of the central difference about h² times the third derivative
    for (Index i = 0; i < x.size(); i += 7) {
      VectorXd up = x, down = x;
      up(i) += h, down(i) -= h;
      const double slope = (expected.value(up, ignored) - expected.value(down, ignored)) / (2 * h);
      EXPECT_NEAR(gradient(i), slope, 1e-6 * gradient.cwiseAbs().maxCoeff()) << i << " of " << o.width;
    }
  }
}

TEST(Ssim, RefusesWhatCannotBe) {
  EXPECT_EQ(testing::message_of<Error>([] { Ssim(10, 28); }),
            "SSIM: an image of 10 x 28 pixels is smaller than the window of 11 x 11");
  EXPECT_EQ(testing::message_of<Error>([] { Ssim(28, 28, {.width = 4}); }),
            "SSIM: a window of 4 pixels, sd 1.5, range 1: expected an odd width and numbers above zero");
  EXPECT_EQ(testing::message_of<Error>([] { ExpectedSsim(Ssim(11, 11), MatrixXd(121, 2), VectorXd(3)); }),
            "SSIM: 2 images of 121 pixels and 3 weights: expected images of 11 x 11, each with a weight");
}

}  // namespace
}  // namespace percept
