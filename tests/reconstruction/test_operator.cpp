/// Forward operators against plain matrices.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "numerics/linalg.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/operator.h"
#include "tests/support/errors.h"

namespace percept::diffusion {
namespace {

using ::percept::testing::message_of;

Batch numbers(Index rows, Index items, const char* purpose) {
  const KeyedRandom random(4, purpose);
  Batch x(rows, items);
  for (Index k = 0; k < items; ++k)
    for (Index i = 0; i < rows; ++i) x(i, k) = static_cast<float>(random.normal(k, static_cast<std::uint64_t>(i)));
  return x;
}

/// What the operator does to each unit vector.
Eigen::MatrixXd matrix_of(Operator& op) {
  Batch y;
  op.apply(Batch::Identity(op.inputs(), op.inputs()), y);
  return y.cast<double>();
}

/// Every capability of a spectral operator against its matrix.
void expect_whole(Operator& op) {
  const Eigen::MatrixXd a = matrix_of(op);
  ASSERT_EQ(a.rows(), op.outputs());
  const Batch x = numbers(op.inputs(), 3, "x"), y = numbers(op.outputs(), 3, "y"), z = numbers(op.inputs(), 3, "z");
  const double tolerance = 2e-5 * (1 + a.norm());  // single precision, some hundred sums
  Batch out, c;
  op.adjoint(y, out);
  EXPECT_LT((out.cast<double>() - a.transpose() * y.cast<double>()).norm(), tolerance);
  op.pull_back(x, y, out);
  EXPECT_LT((out.cast<double>() - a.transpose() * y.cast<double>()).norm(), tolerance);
  const double largest = std::sqrt(eigensystem(a.transpose() * a).values.maxCoeff());
  EXPECT_NEAR(op.norm(), largest, 1e-5 * largest);
  for (const double rho : {0.1, 10.0}) {
    op.prox(z, y, rho, out);
    const Eigen::MatrixXd normal = a.transpose() * a + rho * Eigen::MatrixXd::Identity(a.cols(), a.cols());
    const Eigen::MatrixXd expected =
        spd_inverse(normal, "test", "normal matrix") * (a.transpose() * y.cast<double>() + rho * z.cast<double>());
    EXPECT_LT((out.cast<double>() - expected).norm(), tolerance);
  }
  // A x from the parts, the smallest solution, and a range that is orthonormal
  op.to_range(x, c);
  ASSERT_EQ(c.rows(), op.singular_values().size());
  Batch seen, back;
  op.apply(x, out);
  op.seen(out, seen);
  EXPECT_LT((seen - op.singular_values().asDiagonal() * c).norm(), tolerance);
  op.from_range(c, back);
  op.to_range(back, seen);
  EXPECT_LT((seen - c).norm(), tolerance);
  op.pseudo_inverse(out, seen);  // of A x: the projection of x on the range
  EXPECT_LT((seen - back).norm(), 10 * tolerance);
}

TEST(Operators, MaskIsWhole) {
  MaskOperator mask(7, {5, 0, 3});
  expect_whole(mask);
  Batch y;
  mask.apply(Eigen::VectorXf::LinSpaced(7, 0, 6), y);
  EXPECT_EQ(y, (Batch(3, 1) << 5, 0, 3).finished());
  MaskOperator all = MaskOperator::identity(4);
  expect_whole(all);
  EXPECT_EQ(message_of([] {
              MaskOperator(7, {5, 5});
            }),
            "diffusion.mask = 5: expected each value of the image at most once, 0 to 6");
}

TEST(Operators, MatrixIsWholeWhateverItsShapeAndRank) {
  MatrixOperator wide(numbers(4, 9, "a").cast<double>()), tall(numbers(9, 4, "a").cast<double>());
  expect_whole(wide);
  expect_whole(tall);
  MatrixOperator poor(numbers(6, 2, "a").cast<double>() * numbers(2, 8, "b").cast<double>());
  EXPECT_EQ(poor.singular_values().size(), 2);
  expect_whole(poor);
  EXPECT_EQ(message_of([] { MatrixOperator(Eigen::MatrixXd::Zero(2, 3)); }),
            "diffusion.operator = a matrix of 2 x 3: expected finite entries that are not all zero");
}

// Rows and columns are treated alike up to the order in memory, which unequal sides would show.
TEST(Operators, SeparableIsTheKroneckerProductOfEachChannel) {
  const Eigen::MatrixXd r = block_mean_matrix(6, 2) * blur_matrix(6, 1.0), c = blur_matrix(4, 0.7);
  SeparableOperator op(r, c, 2);
  EXPECT_EQ(op.inputs(), 2 * 6 * 4);
  EXPECT_EQ(op.outputs(), 2 * 3 * 4);
  expect_whole(op);
  const Eigen::MatrixXd a = matrix_of(op);
  for (Index k = 0; k < 2; ++k)
    for (Index i = 0; i < 3; ++i)
      for (Index j = 0; j < 4; ++j)
        for (Index u = 0; u < 6; ++u)
          for (Index v = 0; v < 4; ++v)
            EXPECT_NEAR(a((k * 3 + i) * 4 + j, (k * 6 + u) * 4 + v), r(i, u) * c(j, v), 1e-6);
  EXPECT_EQ(a.block(0, 24, 12, 24).norm(), 0);  // channels do not mix
}

TEST(Operators, BlurAndBlocksKeepTheMean) {
  const Eigen::MatrixXd blur = blur_matrix(9, 1.5);
  EXPECT_LT((blur.rowwise().sum() - Eigen::VectorXd::Ones(9)).norm(), 1e-12);
  EXPECT_LT((blur.colwise().sum() - Eigen::RowVectorXd::Ones(9)).norm(), 1e-12);  // the reflection keeps it too
  EXPECT_NEAR(blur(4, 5) / blur(4, 4), std::exp(-0.5 / 2.25), 2e-3);  // what is reflected back adds a little
  EXPECT_EQ(block_mean_matrix(4, 2), (Eigen::MatrixXd(2, 4) << 0.5, 0.5, 0, 0, 0, 0, 0.5, 0.5).finished());
  EXPECT_EQ(message_of([] { block_mean_matrix(9, 2); }), "diffusion.factor = 2: expected a divisor of 9");
  EXPECT_EQ(message_of([] { blur_matrix(9, 0); }), "diffusion.blur = 0: expected above 0 and at most 1000 pixels");
}

TEST(Operators, FunctionsCanWhatTheyAreGiven) {
  const auto apply = [](const Batch& x, Batch& y) { y = x.array().square(); };
  FunctionOperator box(3, 3, {.apply = apply}, 1);
  EXPECT_EQ(box.capabilities().text(), "nothing");
  EXPECT_EQ(box.capabilities().lacking({.gradient = true, .prox = true}), "gradient, prox");
  Batch g;
  EXPECT_EQ(message_of([&] { box.pull_back(g, g, g); }), "diffusion: this operator has no gradient");
  EXPECT_EQ(message_of([&] { box.singular_values(); }), "diffusion: this operator has no singular values");
  FunctionOperator smooth(
      3, 3,
      {.apply = apply,
       .pull_back = [](const Batch& x, const Batch& v, Batch& out) { out = 2 * x.array() * v.array(); }},
      1);
  EXPECT_EQ(smooth.capabilities().text(), "gradient");
  smooth.pull_back(Batch::Constant(3, 1, 2), Batch::Ones(3, 1), g);
  EXPECT_EQ(g, Batch::Constant(3, 1, 4));
  FunctionOperator linear(3, 3, {.apply = apply, .adjoint = [](const Batch& y, Batch& x) { x = 5 * y; }}, 1);
  EXPECT_EQ(linear.capabilities().text(), "gradient, linear");
  linear.pull_back(g, Batch::Ones(3, 1), g);
  EXPECT_EQ(g, Batch::Constant(3, 1, 5));
  EXPECT_EQ(message_of([] { FunctionOperator(3, 3, {}, 1); }), "diffusion.operator: expected a function y = A(x)");
}

/// Two latents to a {2, 2} image: tanh of a matrix.
class Tanh final : public Autoencoder {
 public:
  std::vector<Index> image_shape() const override { return {2, 2}; }
  std::vector<Index> latent_shape() const override { return {2}; }
  void encode(const Batch& image, Batch& latent) override { latent = image.topRows(2); }
  void decode(const Batch& latent, Batch& image) override { image = (weights() * latent).array().tanh(); }
  bool has_gradient() const override { return true; }
  void pull_back(const Batch& latent, Batch& image, const Cotangent& cotangent, Batch& gradient) override {
    Batch v;
    decode(latent, image);
    cotangent(image, v);
    gradient = weights().transpose() * (v.array() * (1 - image.array().square())).matrix();
  }
  static Eigen::MatrixXf weights() { return (Eigen::MatrixXf(4, 2) << 1, 0.5f, -0.3f, 2, 0, 1, 0.7f, -1).finished(); }
};

TEST(Operators, DecodedIsTheChain) {
  const Batch b = numbers(3, 4, "b");
  DecodedOperator op(std::make_shared<MatrixOperator>(b.cast<double>()), std::make_shared<Tanh>());
  EXPECT_EQ(op.inputs(), 2);
  EXPECT_EQ(op.capabilities().text(), "gradient");
  const Batch z = numbers(2, 1, "z"), v = numbers(3, 1, "v");
  Batch y, g, up, down;
  op.apply(z, y);
  EXPECT_LT((y - b * (Tanh::weights() * z).array().tanh().matrix()).norm(), 1e-5f);
  op.pull_back(z, v, g);
  for (Index i = 0; i < 2; ++i) {
    op.apply(z + 0.01f * Batch::Identity(2, 2).col(i), up);
    op.apply(z - 0.01f * Batch::Identity(2, 2).col(i), down);
    EXPECT_NEAR(g(i), (up - down).cwiseProduct(v).sum() / 0.02f, 3e-3);
  }
  // tanh has the slope 1 at 0
  const Eigen::MatrixXd at_zero = (b * Tanh::weights()).cast<double>();
  EXPECT_NEAR(op.norm(), std::sqrt(eigensystem(at_zero.transpose() * at_zero).values.maxCoeff()), 0.01 * op.norm());
  EXPECT_EQ(message_of([] {
              DecodedOperator(std::make_shared<MaskOperator>(MaskOperator::identity(3)), std::make_shared<Tanh>());
            }),
            "diffusion.operator = 3 values: expected 4 values, as the autoencoder's images");
}

}  // namespace
}  // namespace percept::diffusion
