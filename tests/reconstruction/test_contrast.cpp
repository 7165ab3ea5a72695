#include <gmock/gmock.h>

#include <Eigen/Dense>
#include <cmath>

#include "core/error.h"
#include "numerics/random.h"
#include "reconstruction/image/contrast.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

VectorXd picture(Index height, Index width) {
  const KeyedRandom random(3, "contrast");
  VectorXd x(height * width);
  for (Index i = 0; i < x.size(); ++i) x(i) = random.uniform(i);
  return x;
}

/// Mirrored at the edges: ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ...
Index mirrored(Index at, Index n) {
  while (at < 0 || at >= n) at = at < 0 ? -1 - at : 2 * n - 1 - at;
  return at;
}

/// The Gaussian average of f about pixel (y, x), by its definition.
template <class F>
double average(Index y, Index x, Index height, Index width, double sd, F&& f) {
  const auto reach = static_cast<Index>(std::ceil(4 * sd));
  double sum = 0, total = 0;
  for (Index i = -reach; i <= reach; ++i)
    for (Index j = -reach; j <= reach; ++j) {
      const double w = std::exp(-static_cast<double>(i * i + j * j) / (2 * sd * sd));
      sum += w * f(mirrored(y + i, height), mirrored(x + j, width));
      total += w;
    }
  return sum / total;
}

TEST(ContrastFeatures, EqualTheirDefinition) {
  const Index height = 5, width = 8;  // smaller than the windows reach
  const ContrastOptions o{.window_sd_px = 0.9, .power = 0.7, .pool_sd_px = 0.6, .stride = 2};
  const ContrastFeatures features(height, width, o);
  ASSERT_EQ(features.rows(), 3);
  ASSERT_EQ(features.columns(), 4);
  ASSERT_EQ(features.size(), 12);
  ASSERT_EQ(features.pixels(), 40);
  const VectorXd image = picture(height, width);
  const auto pixel = [&](Index i, Index j) { return image(i * width + j); };
  const auto contrast = [&](Index y, Index x) {
    const double mean = average(y, x, height, width, o.window_sd_px, pixel);
    const double variance =
        average(y, x, height, width, o.window_sd_px, [&](Index i, Index j) { return std::pow(pixel(i, j) - mean, 2); });
    return std::pow(variance + 1e-4, o.power / 2) - std::pow(1e-4, o.power / 2);
  };
  const VectorXd f = features(image);
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 4; ++j)
      EXPECT_NEAR(f(i * 4 + j), average(2 * i, 2 * j, height, width, o.pool_sd_px, contrast), 1e-12) << i << " " << j;
  MatrixXd two(40, 2);
  two << image, VectorXd::Constant(40, 0.3);
  EXPECT_EQ(features.each(two).col(0), f);
  EXPECT_LT(features.each(two).col(1).cwiseAbs().maxCoeff(), 1e-12);  // of a constant image
}

TEST(ContrastFeatures, GradientIsTheSlope) {
  const ContrastFeatures features(7, 6, {});
  const VectorXd image = picture(7, 6);
  VectorXd by_feature(features.size());
  for (Index k = 0; k < by_feature.size(); ++k) by_feature(k) = std::cos(static_cast<double>(k));
  const VectorXd gradient = features.gradient(image, by_feature);
  const double h = 1e-6;
  for (Index i = 0; i < image.size(); ++i) {
    VectorXd up = image, down = image;
    up(i) += h, down(i) -= h;
    const double slope = by_feature.dot(features(up) - features(down)) / (2 * h);
    EXPECT_NEAR(gradient(i), slope, 1e-7 * gradient.cwiseAbs().maxCoeff()) << i;
  }
}

TEST(ContrastFeatures, RefusesWhatCannotBe) {
  EXPECT_EQ(testing::message_of<Error>([] { ContrastFeatures(0, 28); }),
            "contrast of 0 x 28 pixels, window 0.8, power 0.5, pooling 0.7, stride 2: expected all above zero");
}

}  // namespace
}  // namespace percept
