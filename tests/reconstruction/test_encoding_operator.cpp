#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/SVD>
#include <cmath>

#include "numerics/random.h"
#include "reconstruction/diffusion/encoding_operator.h"
#include "tests/support/errors.h"
#include "tests/support/random.h"

namespace percept::diffusion {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using ::percept::testing::message_of;
using ::percept::testing::normals;

constexpr Index kSide = 8, kPixels = kSide * kSide;

MatrixXd images(Index count, const char* name) {
  return (0.5 + 0.2 * normals(kPixels, count, name).array()).cwiseMax(0.02).cwiseMin(0.98).matrix();
}
/// Of rank 5, as few voxels leave it.
MatrixXd information(const ContrastFeatures& f) {
  const MatrixXd w = normals(5, f.size(), "weights");
  return w.transpose() * w;
}

// -½ |A(x) - y|² differs between images as the likelihood does: l . f - f' information f / 2
TEST(EncodingOperator, IsTheLikelihoodOfTheEncodingModel) {
  const ContrastFeatures features(kSide, kSide);
  const MatrixXd m = information(features);
  EncodingOperator op(features, m, 0, 1);
  EXPECT_EQ(op.inputs(), kPixels);
  EXPECT_EQ(op.outputs(), 5);
  const MatrixXd x = images(4, "x");
  const VectorXd l = m * normals(features.size(), 1, "l");
  const VectorXd y = op.measurement_of_linear() * l;
  Batch a;
  op.apply(x.cast<float>(), a);
  const auto mine = [&](Index k) { return -(a.col(k).cast<double>() - y).squaredNorm() / 2; };
  const auto theirs = [&](Index k) {
    const VectorXd f = features(x.col(k));
    return l.dot(f) - f.dot(m * f) / 2;
  };
  for (Index k = 1; k < 4; ++k) {
    EXPECT_GT(std::abs(theirs(k) - theirs(0)), 0.1);
    EXPECT_NEAR(mine(k) - mine(0), theirs(k) - theirs(0), 1e-3 * (1 + y.squaredNorm())) << k;
  }
}

TEST(EncodingOperator, GradientIsTheSlopeAndTheNormBoundsIt) {
  const ContrastFeatures features(kSide, kSide);
  EncodingOperator op(features, information(features), 0, 1);
  const MatrixXd x = images(2, "x");
  const Batch v = normals(5, 2, "v").cast<float>();
  Batch gradient;
  op.pull_back(x.cast<float>(), v, gradient);
  const auto value = [&](const VectorXd& image, Index k) {
    // in double, as the operator does inside, so that a small step can be seen
    const MatrixXd root = op.root();
    return v.col(k).cast<double>().dot(root * features(image));
  };
  for (Index k = 0; k < 2; ++k)
    for (Index i = 0; i < kPixels; i += 7) {
      VectorXd up = x.col(k), down = up;
      up(i) += 1e-5;
      down(i) -= 1e-5;
      const double slope = (value(up, k) - value(down, k)) / 2e-5;
      EXPECT_NEAR(gradient(i, k), slope, 1e-4 * (1 + std::abs(slope))) << k << " " << i;
    }
  for (Index k = 0; k < 2; ++k) EXPECT_LE(gradient.col(k).norm(), op.norm() * v.col(k).norm());
}

// A sampler's images leave the range a little; what is shown does not.
TEST(EncodingOperator, SeesImagesInsideTheRange) {
  const ContrastFeatures features(kSide, kSide);
  EncodingOperator op(features, information(features), 0, 1);
  MatrixXd x = images(1, "x");
  x(3) = 1;
  x(9) = 0;
  MatrixXd outside = x;
  outside(3) = 1.7;
  outside(9) = -0.4;
  Batch a, b, gradient;
  op.apply(x.cast<float>(), a);
  op.apply(outside.cast<float>(), b);
  EXPECT_EQ(a, b);
  op.pull_back(outside.cast<float>(), normals(5, 1, "v").cast<float>(), gradient);
  EXPECT_EQ(gradient(3), 0);
  EXPECT_EQ(gradient(9), 0);
  EXPECT_NE(gradient(4), 0);
}

TEST(EncodingOperator, SaysWhatItCannotUse) {
  const ContrastFeatures features(kSide, kSide);
  EXPECT_EQ(message_of([&] { EncodingOperator(features, MatrixXd::Identity(3, 3), 0, 1); }),
            "diffusion.information = 3 x 3: expected 16 x 16, one a feature");
  EXPECT_EQ(message_of([&] { EncodingOperator(features, MatrixXd::Zero(16, 16), 0, 1); }),
            "diffusion.information = none: expected an encoding model that sees the image");
}

}  // namespace
}  // namespace percept::diffusion
