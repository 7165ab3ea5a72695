/// The stage diffusion_prior: its training, its samples, and what it refuses. In the program of the LibTorch module.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/analytic.h"
#include "reconstruction/diffusion/image_prior.h"
#include "reconstruction/diffusion/sampler.h"
#include "reconstruction/stages.h"
#include "tests/support/data.h"
#include "tests/support/driver.h"
#include "tests/support/errors.h"

namespace percept::diffusion_prior_test {
namespace {

using namespace diffusion;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using ::testing::HasSubstr;
using testing::message_of;
using ::testing::StartsWith;

const StageInfo& info() {
  static const auto all = reconstruction_stages();
  return *std::find_if(all.begin(), all.end(), [](auto& i) { return i.name == "diffusion_prior"; });
}

constexpr Index kSide = 4, kPixels = kSide * kSide;

/// A chessboard of +-1.
VectorXd chessboard() {
  VectorXd board(kPixels);
  for (Index i = 0; i < kPixels; ++i) board(i) = i % 2 == (i / kSide) % 2 ? 1 : -1;
  return board;
}
/// 10 + height x chessboard, one image a height.
MatrixXd boards(const VectorXd& heights) { return (chessboard() * heights.transpose()).array() + 10; }
/// 3, -3, 3, -3, ...
VectorXd signs(Index images) {
  VectorXd h(images);
  for (Index k = 0; k < images; ++k) h(k) = k % 2 == 0 ? 3 : -3;
  return h;
}
/// How high the chessboard stands in an image, and how far the rest of the image is from 10 (root mean square).
struct Found {
  VectorXd height, rest;
};
Found found_in(const Batch& images) {
  const MatrixXd off = images.cast<double>().array() - 10;
  Found f;
  f.height = off.transpose() * chessboard() / static_cast<double>(kPixels);
  f.rest = (off - chessboard() * f.height.transpose()).colwise().norm() / std::sqrt(static_cast<double>(kPixels));
  return f;
}

Value params(std::vector<std::pair<std::string, Value>> more = {}) {
  Value p = Value::object({{"channels", 8},
                           {"blocks", 1},
                           {"multipliers", Value(std::vector<std::int64_t>{1, 2})},
                           {"patch", 1},
                           {"steps", 800},
                           {"learning_rate", 1e-2},
                           {"weight_average", 0.95},
                           {"report", 50}});
  for (auto& [key, value] : more) p[key] = std::move(value);
  return p;
}

Model fit(const MatrixXd& images, const Value& p, const StreamFormat& x, const MatrixXd& target = {},
          const StreamFormat& y = {}, Context context = {}) {
  context.node = "prior";
  TrainingMatrix t;
  t.x = images;
  t.y = target.cols() > 0 ? target : MatrixXd(0, images.cols());
  return info().make_fitter(p, "prior")->fit(MemoryData(x, y, std::move(t)), context);
}
StreamFormat format() { return item_format({kSide, kSide}, Scalar::f64, "image"); }
StreamFormat labels(std::vector<std::string> names) {
  StreamFormat y = item_format({1}, Scalar::f64, "label");
  y.parts[0].levels = std::move(names);
  return y;
}
MatrixXd codes(Index images) {
  MatrixXd c(1, images);
  for (Index k = 0; k < images; ++k) c(0, k) = static_cast<double>(k % 2);
  return c;
}

Batch drawn(const Model& model, Index samples, const Condition& condition = {}, double guidance = 1) {
  const ImagePrior prior(model);
  const auto denoiser = prior.denoiser(1, condition, guidance);
  const auto sampler = make_sampler(
      "heun", Value::object({{"steps", 18}, {"sigma_max", 80 * prior.scale()}, {"sigma_min", 0.002 * prior.scale()}}),
      "test");
  Task task;
  task.denoiser = denoiser.get();
  task.keys = {0};
  task.samples = samples;
  return draw(*sampler, task).x;
}

const Model& trained() {
  static const Model model = fit(boards(signs(64)), params(), format());
  return model;
}

TEST(DiffusionPrior, SamplesAreLikeTheImagesItLearntFrom) {
  const Model& m = trained();
  const Value& curve = m.meta.at("loss_curve").as_array()[0];
  const auto training = curve.at("training").as_array();
  ASSERT_EQ(training.size(), 16u);
  EXPECT_EQ(curve.at("steps").as_array()[15].as_integer(), 800);
  EXPECT_LT(training.back().as_number(), 0.3 * training.front().as_number());
  EXPECT_EQ(m.meta.at("images").as_integer(), 61);  // 64 less 5 %
  EXPECT_EQ(m.meta.at("validation_images").as_integer(), 3);

  constexpr Index kSamples = 200;
  const Found f = found_in(drawn(m, kSamples));
  EXPECT_LT(f.rest.norm() / std::sqrt(static_cast<double>(kSamples)), 0.3);
  EXPECT_LT((f.height.cwiseAbs().array() - 3).square().mean(), 0.3 * 0.3);
  // half of each, within four standard deviations of a binomial (50 of 200 would be a half that is not there)
  EXPECT_NEAR(static_cast<double>((f.height.array() > 0).count()), kSamples / 2.0, 4 * std::sqrt(kSamples / 4.0));
}

TEST(DiffusionPrior, DrawsWhatItIsTold) {
  constexpr Index kSamples = 40;
  const Model m = fit(boards(signs(64)), params({{"condition", "target"}, {"condition_dropout", 0.3}}), format(),
                      codes(64), labels({"up", "down"}));
  EXPECT_EQ(to_json(m.meta.at("classes")), R"(["up","down"])");
  for (const std::int64_t label : {0, 1})
    for (const double guidance : {1.0, 2.0}) {
      const Found f = found_in(drawn(m, kSamples, {{label}, {}}, guidance));
      EXPECT_NEAR(f.height.mean(), label == 0 ? 3 : -3, 0.3) << label << " " << guidance;
    }
  EXPECT_LT(std::abs(found_in(drawn(m, 100)).height.mean()), 3 * 4 / std::sqrt(100.0)) << "told nothing: either";
  EXPECT_THAT(message_of([&] { ImagePrior(m).denoiser(1, {{2}, {}}); }), HasSubstr("2"));
}

// heights of -3 to 3 are told in another unit, beside a number that is always the same
TEST(DiffusionPrior, DrawsWhatAnEmbeddingSays) {
  const VectorXd heights = VectorXd::LinSpaced(64, -3, 3);
  MatrixXd told(2, 64);
  told.row(0) = 100 * heights.transpose().array() + 500;
  told.row(1).setConstant(7);
  const Model m =
      fit(boards(heights), params({{"condition", "target"}}), format(), told, item_format({2}, Scalar::f64, "depth"));
  EXPECT_EQ(m.vector("embedding_sd")(1), 1);
  for (const double height : {-2.0, 0.0, 2.0}) {
    Condition c;
    c.embedding.resize(2, 1);
    c.embedding << static_cast<float>(100 * height + 500), 7;
    const Found f = found_in(drawn(m, 40, c));
    EXPECT_NEAR(f.height.mean(), height, 0.4) << height;
  }
}

// the same bits as without an interruption
TEST(DiffusionPrior, AnInterruptedTrainingGoesOn) {
  const Value p = params({{"steps", 12}, {"report", 5}});
  const Model whole = fit(boards(signs(20)), p, format());
  Context context;
  context.checkpoint = testing::temporary_folder() / "diffusion_prior";
  int steps = 0, stop = 7;
  context.progress = [&](double done, std::string_view what) {
    EXPECT_THAT(std::string(what), HasSubstr("of 12: loss "));
    EXPECT_GT(done, 0);
    if (++steps == stop) throw Interrupted();
  };
  EXPECT_THROW(fit(boards(signs(20)), p, format(), {}, {}, context), Interrupted);
  steps = stop = 0;
  EXPECT_TRUE(fit(boards(signs(20)), p, format(), {}, {}, context) == whole);
  EXPECT_EQ(steps, 5);
  Context other;
  other.seed = 1;
  EXPECT_FALSE(fit(boards(signs(20)), p, format(), {}, {}, other) == whole);
}

// strength 0 gives the image back, a little moves a noisy board towards a clean one, all makes one of any sign
TEST(DiffusionPrior, AppliedItMakesImagesMoreLikeThoseItKnows) {
  const KeyedRandom random(5, "noise");
  MatrixXd noisy = boards(signs(20));
  for (Index k = 0; k < noisy.cols(); ++k)
    for (Index i = 0; i < kPixels; ++i) noisy(i, k) += random.normal(k, static_cast<std::uint64_t>(i));
  const auto apply = [&](double strength, const MatrixXd& images) {
    const auto stage = info().make(params({{"strength", strength}}), &trained(), "node");
    return testing::run_stage(*stage, {.format = format(), .frames = images}).matrix();
  };
  EXPECT_LT((apply(0, noisy) - noisy).cwiseAbs().maxCoeff(), 1e-5);
  const auto off = [&](const MatrixXd& images) { return (images - boards(signs(20))).squaredNorm() / noisy.size(); };
  EXPECT_GT(off(noisy), 0.8);
  EXPECT_LT(off(apply(0.4, noisy)), 0.3);
  const Found f = found_in(apply(1, noisy).cast<float>());
  EXPECT_LT((f.height.cwiseAbs().array() - 3).square().mean(), 0.5 * 0.5);
  EXPECT_GT((f.height - signs(20)).cwiseAbs().maxCoeff(), 5) << "nothing is left of the image it began with";

  MatrixXd holed = noisy;
  holed(3, 1) = std::numeric_limits<double>::quiet_NaN();
  const MatrixXd y = apply(0.4, holed);
  EXPECT_TRUE(y.col(1).array().isNaN().all());
  EXPECT_TRUE(y.col(0).isApprox(apply(0.4, noisy).col(0)));
}

TEST(DiffusionPrior, TheFitSaysWhatItCannotLearnFrom) {
  const auto message = [&](const MatrixXd& images, const Value& p = params({{"steps", 2}}),
                           const StreamFormat& x = format(), const MatrixXd& target = {},
                           const StreamFormat& y = {}) { return message_of([&] { fit(images, p, x, target, y); }); };
  const MatrixXd good = boards(signs(20));
  EXPECT_EQ(message(MatrixXd::Constant(kPixels, 20, 4)),
            "prior: training images: expected images that differ, or have a pattern, found one constant value");
  EXPECT_EQ(message(good.leftCols(2)), "prior: training images: expected at least 3, 1 of them held out, found 2");
  MatrixXd holed = good;
  holed.rightCols(19).row(0).setConstant(std::numeric_limits<double>::quiet_NaN());
  EXPECT_THAT(message(holed), HasSubstr("expected at least 3, 1 of them held out, found 1"));
  EXPECT_EQ(message(good, params(), item_format({kPixels})),
            "prior.from = " + item_format({kPixels}).describe() +
                ": expected one image a frame, {height, width} or {channels, height, width}");
  EXPECT_THAT(message(good, params({{"channels", 12}})), StartsWith("prior.channels = 12: expected a multiple of 8"));
  EXPECT_THAT(message(good, params({{"multipliers", Value(std::vector<std::int64_t>{1, 1, 1, 1, 1})}})),
              StartsWith("prior.multipliers = 5 levels"));
  const Value conditional = params({{"steps", 2}, {"condition", "target"}});
  EXPECT_EQ(message(good, conditional), "prior.condition = \"target\": expected a target, or labels of the images");
  EXPECT_EQ(message(good, conditional, format(), 2 * codes(20), labels({"up", "down"})),
            "prior: target: expected categories from 0 to 1, found 2");
}

TEST(DiffusionPrior, AModelOfSomethingElseIsRefused) {
  const auto message = [](const std::function<void(Model&)>& change) {
    Model m = trained();
    change(m);
    return message_of([&] { info().make(params(), &m, "node"); });
  };
  EXPECT_EQ(message([](Model&) {}), "");
  EXPECT_EQ(message([](Model& m) { m.meta["stage"] = "ridge"; }),
            "model: stage: expected diffusion_prior, found ridge");
  EXPECT_EQ(message([](Model& m) { m.meta["version"] = 9; }), "model of diffusion_prior: version: expected 1, found 9");
  EXPECT_EQ(message([](Model& m) { m.meta.erase("network"); }),
            "model of diffusion_prior: network: expected the shape of a network, found none");
  EXPECT_EQ(message([](Model& m) { m.meta["network"]["channels"] = 16; }),
            "model of diffusion_prior: input.weights: expected {16, 1, 3, 3} in float (is it a model of another "
            "architecture?), found {8, 1, 3, 3}");
  EXPECT_EQ(
      message([](Model& m) { m.set("image_sd", 0.0); }),
      "model of diffusion_prior: image_mean, image_sd: expected finite numbers, image_sd above zero, found 10, 0");
  EXPECT_THAT(message([](Model& m) { m.set("image_mean", MatrixXd(VectorXd::Zero(2))); }), HasSubstr("image_mean"));

  const auto stage = info().make(params(), &trained(), "node");
  Context context;
  context.node = "node";
  const MatrixXd wide = MatrixXd::Zero(kPixels, 1);
  EXPECT_EQ(
      message_of([&] {
        testing::run_stage(*stage, {.format = item_format({2, 8}), .frames = wide}, {}, {}, context);
      }),
      "node.from = " + item_format({2, 8}).describe() + ": expected images of the shape it was trained on, {4, 4}");

  Model told = fit(boards(signs(20)), params({{"steps", 1}, {"condition", "target"}}), format(), codes(20),
                   item_format({1}, Scalar::f64, "depth"));
  told.set("embedding_sd", MatrixXd(VectorXd::Zero(1)));
  EXPECT_EQ(message_of([&] { ImagePrior{told}; }),
            "model of diffusion_prior: embedding_sd: expected values above zero, found zero or less");
}

// N(offset + scale mean, scale² covariance) is N(mean, covariance) in other numbers
TEST(RescaledDenoiser, IsTheDenoiserOfTheRescaledPrior) {
  const double scale = 2.5;
  VectorXd mean(3), offset(3);
  mean << 0.3, -0.2, 0.1;
  offset << 4, 5, -6;
  MatrixXd covariance(3, 3);
  covariance << 0.5, 0.2, 0, 0.2, 0.4, -0.1, 0, -0.1, 0.3;
  const auto gaussian = [](const VectorXd& m, const MatrixXd& c) {
    return std::make_shared<MixtureDenoiser>(GaussianMixture{{1, 3}, {GaussianMixture::component(1, m, c)}});
  };
  RescaledDenoiser rescaled(gaussian(mean, covariance), offset.cast<float>(), scale);
  const auto expected = gaussian(offset + scale * mean, scale * scale * covariance);
  EXPECT_EQ(rescaled.shape(), (std::vector<Index>{1, 3}));
  EXPECT_EQ(rescaled.evaluations(), 1);
  EXPECT_TRUE(rescaled.has_gradient());
  Batch x(3, 2), a, b, ga, gb;
  x << 1, 5, 2, 7, 3, -9;
  for (const double sigma : {0.1, 1.0, 30.0}) {
    rescaled.denoise(x, sigma, a);
    expected->denoise(x, sigma, b);
    EXPECT_LT((a - b).cwiseAbs().maxCoeff(), 1e-4) << sigma;
    const Cotangent cotangent = [](const Batch& out, Batch& v) { v = out.array() * out.array(); };
    rescaled.pull_back(x, sigma, a, cotangent, ga);
    expected->pull_back(x, sigma, b, cotangent, gb);
    EXPECT_LT((a - b).cwiseAbs().maxCoeff(), 1e-4) << sigma;
    EXPECT_LT((ga - gb).cwiseAbs().maxCoeff(), 1e-3) << sigma;
  }
  const auto inner = gaussian(mean, covariance);
  EXPECT_EQ(message_of([&] { RescaledDenoiser(inner, Eigen::VectorXf::Zero(2), 1); }),
            "diffusion.offset = 2 values: expected one for each of 3");
  EXPECT_EQ(message_of([&] { RescaledDenoiser(inner, Eigen::VectorXf::Zero(3), 0); }),
            "diffusion.scale = 0: expected a number above zero");
}

}  // namespace
}  // namespace percept::diffusion_prior_test
