#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/Dense>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "reconstruction/gaussian.h"
#include "reconstruction/image/image_library.h"
#include "reconstruction/stages.h"
#include "tests/support/driver.h"
#include "tests/support/errors.h"
#include "tests/support/random.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using ::testing::HasSubstr;
using testing::normals;

MatrixXd spd(Index n, const char* name) {
  const MatrixXd a = normals(n, n + 5, name);
  return a * a.transpose() / static_cast<double>(n);
}

/// Conditioning of the joint Gaussian of (z, x) by the textbook formula, with plain inverses.
struct Conditioned {
  MatrixXd gain, covariance;
};
Conditioned condition(const MatrixXd& s, const MatrixXd& b, const MatrixXd& r) {
  const MatrixXd cross = s * b.transpose();
  const MatrixXd inverse = (b * cross + r).fullPivLu().inverse();
  return {cross * inverse, s - cross * inverse * cross.transpose()};
}

TEST(GaussianPosterior, IsTheConditionalOfTheJointGaussian) {
  struct Size {
    Index d, n;
  };
  for (const Size& z : {Size{7, 23}, Size{23, 7}, Size{12, 12}, Size{1, 5}, Size{5, 1}}) {
    const MatrixXd s = spd(z.d, "prior"), b = normals(z.n, z.d, "encoding"), full = spd(z.n, "noise");
    const VectorXd diagonal = full.diagonal();
    for (const bool is_full : {true, false}) {
      const Conditioned truth = condition(s, b, is_full ? full : MatrixXd(diagonal.asDiagonal()));
      const GaussianPosterior p = gaussian_posterior(s, b, is_full ? full : MatrixXd(diagonal), "test");
      EXPECT_LT((p.gain - truth.gain).cwiseAbs().maxCoeff(), 1e-10) << z.d << " " << z.n;
      EXPECT_LT((p.sd - truth.covariance.diagonal().cwiseSqrt()).cwiseAbs().maxCoeff(), 1e-10) << z.d << " " << z.n;
    }
  }
}

TEST(GaussianPosterior, SingularCovariancesAreRefused) {
  const MatrixXd good = spd(3, "prior"), bad = MatrixXd::Zero(3, 3);
  auto message = [](const MatrixXd& s, const MatrixXd& b, const MatrixXd& r) -> std::string {
    try {
      gaussian_posterior(s, b, r, "node");
    } catch (const DataError& e) {
      return e.what();
    }
    return "";
  };
  const MatrixXd wide = normals(4, 3, "b"), narrow = MatrixXd::Zero(3, 3);
  EXPECT_THAT(message(bad, wide, spd(4, "noise")),
              HasSubstr("node: prior covariance: expected a positive definite matrix"));
  EXPECT_THAT(message(good, wide, MatrixXd::Zero(4, 4)), HasSubstr("node: noise covariance"));
  EXPECT_THAT(message(good, wide, VectorXd::Zero(4)), HasSubstr("node: noise variances: expected values above zero"));
  EXPECT_THAT(message(good, narrow, bad), HasSubstr("node: covariance of the brain rows"));
}

// weight and matrix written out term by term
TEST(ShrunkCovariance, IsLedoitWolf) {
  const Index p = 6, n = 9;
  MatrixXd x = normals(p, n, "shrink");
  x.row(0) *= 3;
  x.row(1) = 0.5 * x.row(0) + x.row(1);
  x.colwise() -= x.rowwise().mean().eval();
  const MatrixXd s = x * x.transpose() / n;
  const double m = s.trace() / p;
  const double d2 = (s - m * MatrixXd::Identity(p, p)).squaredNorm();
  double b2 = 0;
  for (Index k = 0; k < n; ++k) b2 += (x.col(k) * x.col(k).transpose() - s).squaredNorm() / (n * n);
  ASSERT_LT(b2, d2);
  const ShrunkCovariance c = shrunk_covariance(x);
  EXPECT_NEAR(c.weight, b2 / d2, 1e-12);
  EXPECT_LT((c.covariance - (1 - b2 / d2) * s - b2 / d2 * m * MatrixXd::Identity(p, p)).cwiseAbs().maxCoeff(), 1e-12);

  const ShrunkCovariance one = shrunk_covariance(MatrixXd::Ones(4, 1));  // nothing is known of directions
  EXPECT_GE(one.weight, 0);
  EXPECT_LE(one.weight, 1);
}

/// Smooth images seen by rows with correlated noise.
struct World {
  static constexpr Index kSide = 6, kPixels = kSide * kSide;
  Index rows;
  MatrixXd prior_root, encoding, noise_root;
  explicit World(Index n) : rows(n), prior_root(kPixels, kPixels) {
    MatrixXd s(kPixels, kPixels);
    for (Index a = 0; a < kPixels; ++a)
      for (Index b = 0; b < kPixels; ++b) {
        const double dx = static_cast<double>(a % kSide - b % kSide), dy = static_cast<double>(a / kSide - b / kSide);
        s(a, b) = 0.04 * std::exp(-(dx * dx + dy * dy) / 4) + (a == b ? 0.001 : 0.0);
      }
    prior_root = s.llt().matrixL();
    encoding = normals(n, kPixels, "world encoding");
    noise_root = (spd(n, "world noise") + 0.5 * MatrixXd::Identity(n, n)).llt().matrixL();
  }
  /// Frames [first, first + count): {brain, images}
  std::pair<MatrixXd, MatrixXd> draw(Index count, std::uint64_t seed) const {
    MatrixXd y = prior_root * normals(kPixels, count, "image", seed);
    MatrixXd x = (encoding * y + noise_root * normals(rows, count, "brain", seed)).array() + 10;
    y.array() += 0.5;
    return {x, y};
  }
};

StageInfo info() {
  const auto all = reconstruction_stages();
  return *std::find_if(all.begin(), all.end(), [](auto& i) { return i.name == "gaussian_posterior"; });
}
StreamFormat images(Axis axis = Axis::item) {
  StreamFormat f = item_format({World::kSide, World::kSide}, Scalar::f64, "image");
  if (axis == Axis::time) f.axis = Axis::time, f.rate_hz = 10;
  return f;
}
Model fit(const StreamFormat& x_format, const StreamFormat& y_format, MatrixXd x, MatrixXd y,
          const Value& params = Value::table()) {
  Context context;
  context.node = "recon";
  return info()
      .make_fitter(params, "recon")
      ->fit(MemoryData(x_format, y_format, {std::move(x), std::move(y), {}, {}, {}}), context);
}

TEST(GaussianPosteriorStage, ItsSpreadPredictsItsError) {
  constexpr Index kTrain = 3000, kTest = 2000;
  for (const Index rows : {20, 60})  // dual, primal
    for (const char* noise : {"shrunk", "diagonal"}) {
      const World world(rows);
      auto [x, y] = world.draw(kTrain, 1);
      const Model model = fit(item_format({rows}), images(), x, y, Value::object({{"noise", noise}}));
      auto [x_test, y_test] = world.draw(kTest, 2);
      auto stage = info().make(Value::object({{"noise", noise}}), &model, "recon");
      const auto out = testing::run_stage(*stage, {.format = item_format({rows}), .frames = x_test});
      ASSERT_EQ(out.format.parts.size(), 2u);
      EXPECT_EQ(out.format.parts[0].name, "mean");
      EXPECT_EQ(out.format.parts[1].name, "sd");
      EXPECT_EQ(out.format.parts[0].shape, (std::vector<Index>{6, 6}));
      EXPECT_EQ(out.format.parts[1].shape, (std::vector<Index>{6, 6}));
      const MatrixXd mean = out.matrix().topRows(World::kPixels), sd = out.matrix().bottomRows(World::kPixels);
      const Eigen::ArrayXXd z = (y_test - mean).array() / sd.array();
      const double error = std::sqrt((y_test - mean).squaredNorm() / static_cast<double>(y_test.size()));
      EXPECT_LT(error, 0.9 * 0.2) << "should be closer than the prior mean, whose error is 0.2";
      if (std::string(noise) == "diagonal") continue;  // the noise is correlated: only the right model knows its error
      // variance of z of one pixel: sqrt(2 / kTest) of sampling, and parameters fitted on kTrain frames add up to
      // (pixels + rows) / kTrain to the error
      const double fitted = static_cast<double>(World::kPixels + rows) / kTrain, sampled = std::sqrt(2.0 / kTest);
      for (Index k = 0; k < World::kPixels; ++k) {
        const double variance = z.row(k).square().mean();
        EXPECT_GT(variance, 1 - fitted - 4.5 * sampled) << rows << " rows, pixel " << k;
        EXPECT_LT(variance, 1 + 2 * fitted + 4.5 * sampled) << rows << " rows, pixel " << k;
      }
      EXPECT_NEAR(z.square().mean(), 1, fitted + 4 * sampled) << rows;
    }
}

// the fitted stage comes near the best there is: the conditional of the true world
TEST(GaussianPosteriorStage, ComesNearTheTruePosterior) {
  const World world(40);
  auto [x, y] = world.draw(4000, 3);
  const Model model = fit(time_format(40, 10.0), images(Axis::time), x, y);
  auto [x_test, y_test] = world.draw(1000, 4);
  auto stage = info().make(Value::table(), &model, "recon");
  const auto out = testing::run_stage(*stage, {.format = time_format(40, 10.0), .frames = x_test}, {.block = 7});
  EXPECT_EQ(out.format.rate_hz, 10);
  const Conditioned truth = condition(world.prior_root * world.prior_root.transpose(), world.encoding,
                                      world.noise_root * world.noise_root.transpose());
  const VectorXd x_mean = world.encoding * VectorXd::Constant(World::kPixels, 0.0) + VectorXd::Constant(40, 10.0);
  const MatrixXd best = (truth.gain * (x_test.colwise() - x_mean)).array() + 0.5;
  const double ours = (out.matrix().topRows(World::kPixels) - y_test).squaredNorm(),
               least = (best - y_test).squaredNorm();
  EXPECT_LT(ours, 1.1 * least);
  const VectorXd sd = out.matrix().bottomRows(World::kPixels).col(0);
  EXPECT_LT(((sd.array() / truth.covariance.diagonal().array().sqrt()) - 1).abs().maxCoeff(), 0.1);
}

Model fit_with_library(const MatrixXd& x, const MatrixXd& y, const MatrixXd& library) {
  auto images_model = std::make_shared<Model>();
  images_model->meta = Value::object({{"stage", "image_library"}, {"version", 1}});
  images_model->meta["image_shape"] = Value(std::vector<Index>{World::kSide, World::kSide});
  store_images(*images_model, library);
  Context context;
  context.node = "recon";
  context.priors = {{"lib", "image_library", images_model}};
  return info()
      .make_fitter(Value::table(), "recon")
      ->fit(MemoryData(item_format({x.rows()}), images(), {x, y, {}, {}, {}}), context);
}

TEST(GaussianPosteriorStage, ALibraryTellsWhatTargetsAreLike) {
  const World world(40);
  auto [x, y] = world.draw(60, 5);
  auto [unused, library] = world.draw(3000, 6);
  auto [x_test, y_test] = world.draw(500, 7);
  auto error = [&, &x_test = x_test, &y_test = y_test](const Model& model) {
    auto stage = info().make(Value::table(), &model, "recon");
    const auto out = testing::run_stage(*stage, {.format = item_format({40}), .frames = x_test});
    return (out.matrix().topRows(World::kPixels) - y_test).squaredNorm();
  };
  const Model with = fit_with_library(x, y, library), without = fit(item_format({40}), images(), x, y);
  // with sixty frames for 36 pixels the covariance of the training targets is poor
  EXPECT_LT(error(with), 0.97 * error(without));
  EXPECT_LT((with.vector("y_mean") - library.rowwise().mean()).cwiseAbs().maxCoeff(), 1e-7);
  // the training targets as library: the same posterior, to the precision of the stored images
  const Model same = fit_with_library(x, y, y);
  EXPECT_LT((same.matrix("gain") - without.matrix("gain")).cwiseAbs().maxCoeff(), 1e-5);
  EXPECT_LT((same.vector("sd") - without.vector("sd")).cwiseAbs().maxCoeff(), 1e-5);
  EXPECT_LT((same.vector("x_mean") - without.vector("x_mean")).cwiseAbs().maxCoeff(), 1e-5);
  EXPECT_THAT(testing::message_of<ConfigError>([&, &x = x, &y = y] {
                auto small = std::make_shared<Model>();
                small->meta = Value::object({{"stage", "image_library"}, {"version", 1}});
                small->meta["image_shape"] = Value(std::vector<Index>{2, 2});
                store_images(*small, MatrixXd::Random(4, 3));
                Context context;
                context.node = "recon";
                context.priors = {{"lib", "image_library", small}};
                info()
                    .make_fitter(Value::table(), "recon")
                    ->fit(MemoryData(item_format({40}), images(), {x, y, {}, {}, {}}), context);
              }),
              HasSubstr("recon.prior = images of 4 values: expected images of the target's 36"));
}

TEST(GaussianPosteriorStage, AMissingRowMakesTheFrameMissing) {
  const World world(20);
  auto [x, y] = world.draw(200, 5);
  const Model model = fit(item_format({20}), images(), x, y);
  auto stage = info().make(Value::table(), &model, "recon");
  x(7, 3) = std::numeric_limits<double>::quiet_NaN();
  const auto out = testing::run_stage(*stage, {.format = item_format({20}), .frames = x});
  EXPECT_TRUE(out.matrix().col(3).array().isNaN().all());
  EXPECT_TRUE(out.matrix().col(2).allFinite());
  EXPECT_TRUE(out.matrix().col(4).allFinite());
}

TEST(GaussianPosteriorStage, RefusesWhatCannotBeFitted) {
  const World world(20);
  auto [x, y] = world.draw(60, 6);
  auto message = [&](const MatrixXd& a, const MatrixXd& b, const Value& params = Value::table()) -> std::string {
    try {
      fit(item_format({a.rows()}), images(), a, b, params);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message(x, y), "");
  EXPECT_THAT(message(x.leftCols(9), y.leftCols(9)),
              HasSubstr("recon: training frames: expected at least 10, two a fold, found 9"));
  MatrixXd flat = x;
  flat.row(4).setConstant(2);
  EXPECT_THAT(message(flat, y), HasSubstr("recon: row 'x[4]': expected values that vary"));
  EXPECT_THAT(message(x, MatrixXd::Ones(y.rows(), y.cols())), HasSubstr("recon: target: expected values that vary"));
  EXPECT_THAT(message(x, y, Value::object({{"noise", "none"}})), HasSubstr("shrunk"));
  const MatrixXd exact = world.encoding * y;
  EXPECT_THAT(message(exact, y, Value::object({{"alpha", 0.0}})), HasSubstr("a row that the target explains exactly"));
  EXPECT_THAT(message(MatrixXd(10001, 0), MatrixXd(36, 0)), HasSubstr("recon: brain rows: expected at most 10000"));
  // a model whose shape is not that of its arrays
  Model broken = fit(item_format({20}), images(), x, y);
  broken.meta["output_shape"] = Value(std::vector<Index>{6, 5});
  EXPECT_THROW(info().make(Value::table(), &broken, "recon"), DataError);
  broken = fit(item_format({20}), images(), x, y);
  broken.meta["input_rows"] = Value(std::vector<std::string>{"a", "b"});
  EXPECT_THROW(info().make(Value::table(), &broken, "recon"), DataError);
}

}  // namespace
}  // namespace percept
