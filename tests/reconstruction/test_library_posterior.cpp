#include <gmock/gmock.h>

#include <Eigen/Dense>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "reconstruction/image/library_posterior.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

/// A soft bar at an angle.
VectorXd bar(Index height, Index width, double angle) {
  VectorXd x(height * width);
  for (Index i = 0; i < height; ++i)
    for (Index j = 0; j < width; ++j) {
      const double y = static_cast<double>(i) - static_cast<double>(height - 1) / 2;
      const double z = static_cast<double>(j) - static_cast<double>(width - 1) / 2;
      x(i * width + j) = std::exp(-std::pow(y * std::cos(angle) + z * std::sin(angle), 2) / 4);
    }
  return x;
}

/// 0.2 + 0.01 row + 0.02 column
VectorXd ramp(Index height, Index width) {
  VectorXd x(height * width);
  for (Index i = 0; i < height; ++i)
    for (Index j = 0; j < width; ++j)
      x(i * width + j) = 0.2 + 0.01 * static_cast<double>(i) + 0.02 * static_cast<double>(j);
  return x;
}

constexpr DeformOptions kNothing{.rotation = 0, .scale = 0, .shear = 0, .shift_px = 0, .bend_px = 0};

TEST(Deformation, OfNothingIsTheImage) {
  const VectorXd image = bar(9, 12, 0.4);
  const VectorXd same = Deformation(9, 12, kNothing)(image, KeyedRandom(1, "deform"), 3, 1);
  EXPECT_LT((same - image).cwiseAbs().maxCoeff(), 1e-14);
  EXPECT_EQ(Deformation(9, 12, DeformOptions{}.times(0))(image, KeyedRandom(1, "deform"), 3, 1), same);
}

// Cubic convolution is exact on a plane, so a shifted ramp tells by how much; away from the edges.
TEST(Deformation, ShiftsByTheSpreadThatWasAsked) {
  DeformOptions o = kNothing;
  o.shift_px = 0.5;
  const Deformation shift(12, 12, o);
  const VectorXd image = ramp(12, 12);
  const KeyedRandom random(1, "deform");
  const int n = 4000;
  double sum = 0, squares = 0;
  for (int k = 0; k < n; ++k) {
    const VectorXd d = shift(image, random, k, 1) - image;
    EXPECT_NEAR(d(5 * 12 + 5), d(6 * 12 + 7), 1e-12);
    sum += d(5 * 12 + 5);
    squares += d(5 * 12 + 5) * d(5 * 12 + 5);
  }
  const double variance = 0.25 * (0.01 * 0.01 + 0.02 * 0.02);
  EXPECT_NEAR(sum / n, 0, 5 * std::sqrt(variance / n));
  EXPECT_NEAR(squares / n, variance, 5 * variance * std::sqrt(2.0 / n));
}

TEST(Deformation, RotationKeepsTheSlopeAndTurnsIt) {
  DeformOptions o = kNothing;
  o.rotation = 0.2;
  const VectorXd turned = Deformation(21, 21, o)(ramp(21, 21), KeyedRandom(1, "deform"), 7, 1);
  const auto at = [&](Index i, Index j) { return turned(i * 21 + j); };
  const double down = at(11, 10) - at(10, 10), right = at(10, 11) - at(10, 10);
  EXPECT_NEAR(down * down + right * right, 0.01 * 0.01 + 0.02 * 0.02, 1e-12);
  EXPECT_GT(std::abs(std::atan2(down, right) - std::atan2(0.01, 0.02)), 0.01);
  EXPECT_NEAR(at(10, 10), 0.2 + 0.1 + 0.2, 1e-12);  // about the middle
}

// Of many bent ramps, the displacement times the slope has the spread that was asked, on average over the image.
TEST(Deformation, BendsByTheSpreadThatWasAsked) {
  DeformOptions o = kNothing;
  o.bend_px = 0.3;
  o.bend_every_px = 4;
  const Deformation bend(15, 15, o);
  const VectorXd image = ramp(15, 15);
  const KeyedRandom random(2, "deform");
  double squares = 0;
  const int n = 600;
  for (int k = 0; k < n; ++k) {
    const VectorXd d = bend(image, random, k, 1) - image;
    for (Index i = 4; i < 11; ++i)
      for (Index j = 4; j < 11; ++j) squares += d(i * 15 + j) * d(i * 15 + j) / 49;
  }
  EXPECT_NEAR(squares / n, 0.09 * (0.01 * 0.01 + 0.02 * 0.02), 0.1 * 0.09 * 0.0005);
}

TEST(Deformation, IsKeyedAndStaysInRange) {
  const Deformation deform(28, 28, DeformOptions{}.times(3));
  const VectorXd image = (bar(28, 28, 0.3).array() > 0.5).cast<double>();
  const KeyedRandom random(1, "deform");
  const VectorXd once = deform(image, random, 5, 1);
  EXPECT_EQ(once, deform(image, random, 5, 1));
  EXPECT_NE(once, deform(image, random, 5, 2));
  EXPECT_NE(once, deform(image, random, 6, 1));
  EXPECT_GE(once.minCoeff(), 0);
  EXPECT_LE(once.maxCoeff(), 1);
}

TEST(Deformation, RefusesWhatCannotBe) {
  EXPECT_EQ(
      testing::message_of<Error>([] { Deformation(28, 28, DeformOptions{}.times(-1)); }),
      "deformation of 28 x 28 pixels, control points every 7 px, least spread -0.4: expected sizes above zero and "
      "spreads not below");
}

TEST(PriorImages, CopiesFollowTheOriginals) {
  MatrixXd images(81, 2);
  images << bar(9, 9, 0.1), bar(9, 9, 0.9);
  const ContrastFeatures features(9, 9);
  const Deformation deform(9, 9);
  const KeyedRandom random(4, "copies");
  const PriorImages p = prior_images(images, features, 2, deform, random);
  ASSERT_EQ(p.images.cols(), 6);
  EXPECT_EQ(p.images.leftCols(2), images.cast<float>());
  const VectorXd copy = deform(images.col(1), random, 1, 2);
  EXPECT_EQ(p.images.col(5), copy.cast<float>());
  EXPECT_EQ(p.features.col(5), features(copy));
  EXPECT_EQ(p.features.col(0), features(images.col(0)));
}

TEST(LibraryPosterior, WeightsWithoutOverflow) {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  const VectorXd w = normalised((VectorXd(5) << 1000, 1000 + std::log(3), nan, -inf, -5000).finished());
  EXPECT_LT((w - (VectorXd(5) << 0.25, 0.75, 0, 0, 0).finished()).cwiseAbs().maxCoeff(), 1e-12);
  EXPECT_EQ(normalised(VectorXd::Constant(3, nan)), VectorXd::Zero(3));
}

TEST(LibraryPosterior, HeaviestInOrder) {
  const VectorXd w = (VectorXd(6) << 0.2, 0.3, 1e-9, 0.2, 0.25, 0.05).finished();
  const Heaviest three = heaviest(w, 3);
  EXPECT_THAT(three.index, ::testing::ElementsAre(1, 4, 0));
  EXPECT_NEAR(three.weight(0), 0.3 / 0.75, 1e-15);
  EXPECT_EQ(heaviest(w, 100).index.size(), 5u);  // without the one that weighs nothing
  EXPECT_TRUE(heaviest(VectorXd::Zero(3), 2).index.empty());
}

TEST(SsimOptimal, ClimbsFromTheMeanToATop) {
  const Index height = 13, width = 14, n = 5;
  MatrixXd images(height * width, n);
  for (Index k = 0; k < n; ++k) images.col(k) = bar(height, width, 0.4 * static_cast<double>(k));
  const VectorXd weights = (VectorXd(n) << 0.3, 0.25, 0.2, 0.15, 0.1).finished(), mean = images * weights;
  const Ssim ssim(height, width);
  const ExpectedSsim expected(ssim, images, weights);
  VectorXd gradient;
  const auto worth = [&](const VectorXd& x, double mse_weight) {
    double sum = expected.value(x, gradient);
    for (Index k = 0; k < n; ++k)
      sum -= mse_weight * weights(k) * (x - images.col(k)).squaredNorm() / static_cast<double>(x.size());
    return sum;
  };
  const VectorXd best = ssim_optimal(ssim, images, weights, 3, 300);
  const double top = worth(best, 3);
  EXPECT_GT(top, worth(mean, 3) + 0.01);
  const KeyedRandom random(1, "near");
  for (int k = 0; k < 20; ++k) {  // nothing near it, in the range of the images, is better
    VectorXd x = best;
    for (Index i = 0; i < x.size(); ++i) x(i) += 0.01 * random.normal(k, static_cast<std::uint64_t>(i));
    EXPECT_LT(worth(x.cwiseMax(images.minCoeff()).cwiseMin(images.maxCoeff()), 3), top);
  }
  EXPECT_GE(best.minCoeff(), images.minCoeff());
  EXPECT_LE(best.maxCoeff(), images.maxCoeff());
  EXPECT_LT((ssim_optimal(ssim, images, weights, 1e9, 300) - mean).cwiseAbs().maxCoeff(), 1e-4);
}

TEST(SsimOptimal, OfOneImageIsThatImage) {
  const VectorXd image = bar(12, 12, 0.5);
  EXPECT_LT((ssim_optimal(Ssim(12, 12), image, VectorXd::Ones(1), 0, 100) - image).cwiseAbs().maxCoeff(), 1e-9);
}

}  // namespace
}  // namespace percept
