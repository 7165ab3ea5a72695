/// The stages image_autoencoder and latent_diffusion. In the program of the LibTorch module.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/image_autoencoder.h"
#include "reconstruction/diffusion/image_prior.h"
#include "reconstruction/stages.h"
#include "tests/support/contract.h"
#include "tests/support/data.h"
#include "tests/support/driver.h"
#include "tests/support/errors.h"

namespace percept::image_autoencoder_test {
namespace {

using namespace diffusion;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using ::testing::HasSubstr;
using testing::message_of;

const StageInfo& info(const char* name) {
  static const auto all = reconstruction_stages();
  return *std::find_if(all.begin(), all.end(), [&](auto& i) { return i.name == name; });
}

constexpr Index kHeight = 9, kWidth = 10, kPixels = kHeight * kWidth;

/// A bright blob at a place of its own on grey: two numbers say what an image is.
MatrixXd blobs(Index images, const char* name = "blobs") {
  const KeyedRandom random(3, name);
  MatrixXd m(kPixels, images);
  for (Index k = 0; k < images; ++k) {
    const double y = 2 + 5 * random.uniform(k, 0), x = 2 + 6 * random.uniform(k, 1);
    for (Index i = 0; i < kPixels; ++i) {
      const double dy = static_cast<double>(i / kWidth) - y, dx = static_cast<double>(i % kWidth) - x;
      m(i, k) = 100 + 50 * std::exp(-(dy * dy + dx * dx) / 4);
    }
  }
  return m;
}
StreamFormat format() { return item_format({kHeight, kWidth}, Scalar::f64, "image"); }

Value params(std::vector<std::pair<std::string, Value>> more = {}) {
  Value p = Value::object({{"channels", 8}, {"latent", 2}, {"steps", 400}, {"learning_rate", 1e-2}, {"report", 50}});
  for (auto& [key, value] : more) p[key] = std::move(value);
  return p;
}
Model fit(const MatrixXd& images, const Value& p, Context context = {}, const StreamFormat& x = format()) {
  context.node = "latents";
  TrainingMatrix t;
  t.x = images;
  t.y.resize(0, images.cols());
  StreamFormat none;
  none.axis = x.axis;
  return info("image_autoencoder").make_fitter(p, "latents")->fit(MemoryData(x, none, std::move(t)), context);
}
const Model& trained() {
  static const Model model = fit(blobs(200), params());
  return model;
}
MatrixXd applied(const char* direction, const StreamFormat& in, const MatrixXd& x) {
  const auto stage = info("image_autoencoder").make(params({{"direction", direction}}), &trained(), "latents");
  return run_stage(*stage, testing::StageInput{in, x}).matrix();
}

TEST(ImageAutoencoder, ImagesItNeverSawComeBack) {
  const MatrixXd unseen = blobs(40, "other blobs");
  const MatrixXd back = applied("both", format(), unseen);
  const double variance = (unseen.array() - unseen.mean()).square().mean();
  EXPECT_LT((back - unseen).squaredNorm() / static_cast<double>(unseen.size()), 0.1 * variance);

  const MatrixXd latents = applied("encode", format(), unseen);
  EXPECT_EQ(latents.rows(), 2 * 3 * 3) << "9 x 10 pixels in patches of two, halved once";
  EXPECT_NEAR(std::sqrt(latents.array().square().mean()), 1, 0.15);
  const MatrixXd decoded = applied("decode", item_format({2, 3, 3}), latents);
  EXPECT_LT((decoded - back).cwiseAbs().maxCoeff(), 1e-3);
  EXPECT_LT(trained().meta.at("training").as_array()[0].at("loss").as_number(), 0.15);
}

TEST(ImageAutoencoder, ItsGradientIsThatOfTheDecoder) {
  ImageAutoencoder autoencoder(trained());
  autoencoder.open(1);
  Batch z, image, gradient, plus, minus;
  autoencoder.encode(blobs(2).cast<float>(), z);
  const Batch weight = Batch::Random(kPixels, 2);
  autoencoder.pull_back(
      z, image, [&](const Batch&, Batch& v) { v = weight; }, gradient);
  Batch same;
  autoencoder.decode(z, same);
  EXPECT_LT((image - same).cwiseAbs().maxCoeff(), 1e-3F);
  const float step = 1e-2F;
  for (const Index i : {0, 7, 17}) {
    Batch there = z;
    there(i, 1) += step;
    autoencoder.decode(there, plus);
    there(i, 1) -= 2 * step;
    autoencoder.decode(there, minus);
    const float slope = weight.cwiseProduct(plus - minus).sum() / (2 * step);
    EXPECT_NEAR(gradient(i, 1), slope, 0.02F * gradient.col(1).cwiseAbs().maxCoeff());
  }
}

TEST(ImageAutoencoder, AnInterruptedTrainingGoesOnToTheSameBits) {
  const auto p = params({{"steps", 60}, {"report", 20}});
  const Model whole = fit(blobs(40), p);
  Context context;
  context.checkpoint = testing::temporary_folder() / "checkpoint";
  std::filesystem::create_directories(context.checkpoint);
  int asked = 0;
  context.cancelled = [&] { return ++asked > 30; };
  EXPECT_THROW(fit(blobs(40), p, context), Interrupted);
  context.cancelled = {};
  EXPECT_EQ(testing::model_difference(fit(blobs(40), p, context), whole), "");
}

TEST(ImageAutoencoder, WhatItCannotUseIsRefused) {
  EXPECT_THAT(message_of<DataError>([] { fit(MatrixXd::Constant(kPixels, 30, 7), params()); }),
              HasSubstr("latents: training images: expected images that differ, or have a pattern, found one constant "
                        "value"));
  EXPECT_THAT(message_of<ConfigError>([] { fit(blobs(30), params(), {}, item_format({kPixels})); }),
              HasSubstr("expected one image a frame"));
  EXPECT_THAT(message_of<ConfigError>([] {
                fit(blobs(30), params({{"channels", 12}}));
              }),
              HasSubstr("latents.channels = 12: expected a multiple of 8"));
  EXPECT_THAT(message_of<ConfigError>([] {
                applied("encode", item_format({5, 5}), MatrixXd::Ones(25, 1));
              }),
              HasSubstr("expected images of the shape it was trained on, {9, 10}"));
  EXPECT_THAT(message_of<ConfigError>([] { applied("decode", format(), blobs(1)); }),
              HasSubstr("expected latents of the shape it was trained on, {2, 3, 3}"));
  Model other = trained();
  other.tensors().erase("encoder.input.bias");
  EXPECT_THAT(message_of<DataError>([&] { ImageAutoencoder broken(other); }),
              HasSubstr("model of image_autoencoder: encoder.input.bias: expected an array {8}, found none"));
}

// --- latent_diffusion -----------------------------------------------------------------------------------------------

/// A prior of the latents of the blobs that is told where along the width the blob is.
const Model& latent_prior() {
  static const Model model = [] {
    const MatrixXd images = blobs(200);
    TrainingMatrix t;
    t.x = applied("encode", format(), images);
    t.y.resize(1, images.cols());
    for (Index k = 0; k < images.cols(); ++k) t.y(0, k) = KeyedRandom(3, "blobs").uniform(k, 1);
    Context context;
    context.node = "drawn";
    const Value p = Value::object({{"channels", 16},
                                   {"blocks", 1},
                                   {"multipliers", Value(std::vector<std::int64_t>{1})},
                                   {"patch", 1},
                                   {"steps", 1000},
                                   {"learning_rate", 1e-2},
                                   {"condition", "target"}});
    return info("diffusion_prior")
        .make_fitter(p, "drawn")
        ->fit(MemoryData(item_format({2, 3, 3}), item_format({1}, Scalar::f64, "place"), std::move(t)), context);
  }();
  return model;
}

/// z, place and an image, the parts of one frame.
StreamFormat joined() {
  StreamFormat f = item_format({1});
  f.parts = {Part{"z", {2, 3, 3}, "1", {}, {}}, Part{"c", {1}, "1", {}, {}},
             Part{"picture", {kHeight, kWidth}, "1", {}, {}}};
  return f;
}
Value how(std::vector<std::string> inputs, std::vector<std::pair<std::string, Value>> more = {}) {
  Value p = Value::object({{"inputs", Value(inputs)}, {"levels", 12}, {"samples", 3}});
  for (auto& [key, value] : more) p[key] = std::move(value);
  return p;
}
testing::Collected drawn(const Value& p, const MatrixXd& frames) {
  Context context;
  context.node = "together";
  context.priors = {{"latents", "image_autoencoder", std::make_shared<Model>(trained())},
                    {"drawn", "diffusion_prior", std::make_shared<Model>(latent_prior())}};
  StreamFormat none;
  none.axis = Axis::item;
  const Model m =
      info("latent_diffusion")
          .make_fitter(p, "together")
          ->fit(MemoryData(joined(), none, TrainingMatrix{frames, MatrixXd(0, frames.cols()), {}, {}, {}}), context);
  const auto stage = info("latent_diffusion").make(p, &m, "together");
  return run_stage(*stage, testing::StageInput{joined(), frames});
}
/// Three of the blobs: their latents, places and pixels.
MatrixXd three() {
  const MatrixXd images = blobs(3), z = applied("encode", format(), images);
  MatrixXd frames(z.rows() + 1 + kPixels, 3);
  for (Index k = 0; k < 3; ++k) frames(z.rows(), k) = KeyedRandom(3, "blobs").uniform(k, 1);
  frames.topRows(z.rows()) = z;
  frames.bottomRows(kPixels) = images;
  return frames;
}
MatrixXd part(const testing::Collected& c, const char* name) {
  const Index at = c.format.part_offset(name);
  for (auto& p : c.format.parts)
    if (p.name == name) return c.matrix().middleRows(at, p.size());
  return {};
}

TEST(LatentDiffusion, StrengthZeroGivesBackWhatItBeginsFrom) {
  const MatrixXd images = blobs(3);
  const double variance = (images.array() - images.mean()).square().mean();
  for (const auto& inputs :
       {std::vector<std::string>{"latent", "off", "off"}, {"off", "off", "image"}, {"latent", "off", "image"}}) {
    const auto c = drawn(how(inputs, {{"strength", 0.0}}), three());
    EXPECT_LT((part(c, "initial") - images).squaredNorm() / static_cast<double>(images.size()), 0.15 * variance);
    EXPECT_LT((part(c, "mean") - part(c, "initial")).cwiseAbs().maxCoeff(), 1e-2);
    EXPECT_LT(part(c, "sd").maxCoeff(), 1e-2);
  }
}

TEST(LatentDiffusion, AnInputThatIsOffIsNotLookedAt) {
  MatrixXd changed = three();
  changed.topRows(18).setConstant(std::nan(""));
  const Value p = how({"off", "embedding", "image"}, {{"strength", 0.5}});
  EXPECT_EQ(testing::difference(drawn(p, three()), drawn(p, changed)), "");
  // and one that is on is
  changed = three();
  changed.row(18).array() += 0.5;
  EXPECT_NE(testing::difference(drawn(p, three()), drawn(p, changed)), "");
  // a missing value of it makes the frame a missing one
  changed = three();
  changed(18, 1) = std::nan("");
  const MatrixXd mean = part(drawn(p, changed), "mean");
  EXPECT_TRUE(mean.col(1).array().isNaN().all());
  EXPECT_TRUE(mean.col(0).allFinite() && mean.col(2).allFinite());
}

TEST(LatentDiffusion, TheEmbeddingDecidesWhereTheBlobIsDrawn) {
  MatrixXd told = three();
  told.row(18) << 0.1, 0.5, 0.9;  // from left to right
  const auto c = drawn(how({"off", "embedding", "off"}, {{"samples", 12}, {"levels", 20}}), told);
  EXPECT_LT(c.format.part_offset("initial"), 0) << "it begins from noise";
  const MatrixXd light = part(c, "mean").array() - 100;
  VectorXd middle(3);
  for (Index k = 0; k < 3; ++k) {
    double sum = 0, moment = 0;
    for (Index i = 0; i < kPixels; ++i) {
      const double w = std::max(0.0, light(i, k));
      sum += w;
      moment += w * static_cast<double>(i % kWidth);
    }
    middle(k) = moment / sum;
  }
  EXPECT_LT(middle(0) + 1, middle(1));
  EXPECT_LT(middle(1) + 1, middle(2));
}

TEST(LatentDiffusion, WhatDoesNotFitIsRefused) {
  EXPECT_THAT(message_of<ConfigError>([] {
                drawn(how({"latent", "embedding"}), three());
              }),
              HasSubstr("inputs = [latent, embedding]: expected a word for each part that comes in"));
  EXPECT_THAT(message_of<ConfigError>([] {
                drawn(how({"latent", "embeding", "image"}), three());
              }),
              HasSubstr("inputs = \"embeding\": expected latent, image, embedding or off"));
  EXPECT_THAT(message_of<ConfigError>([] {
                drawn(how({"latent", "off", "latent"}), three());
              }),
              HasSubstr("expected each word but off once"));
  EXPECT_THAT(message_of<ConfigError>([] {
                drawn(how({"image", "off", "off"}), three());
              }),
              HasSubstr("expected image of {9, 10}"));
  EXPECT_THAT(message_of<ConfigError>([] {
                drawn(how({"off", "off", "off"}), three());
              }),
              HasSubstr("inputs = all of them off: expected at least one of them on"));
  Context context;
  context.node = "together";
  context.priors = {{"latents", "image_autoencoder", std::make_shared<Model>(trained())}};
  EXPECT_THAT(message_of<ConfigError>([&] {
                info("latent_diffusion")
                    .make_fitter(how({"latent"}), "together")
                    ->fit(MemoryData(joined(), {}, TrainingMatrix{}), context);
              }),
              HasSubstr("expected a prior of image_autoencoder, and one of diffusion_prior trained on its latents"));
  UnetShape pixels;
  pixels.image = {8, 8};
  context.priors.push_back({"drawn", "diffusion_prior", std::make_shared<Model>(untrained_prior(pixels))});
  EXPECT_THAT(
      message_of<ConfigError>([&] {
        info("latent_diffusion")
            .make_fitter(how({"latent"}), "together")
            ->fit(MemoryData(joined(), {}, TrainingMatrix{}), context);
      }),
      HasSubstr("a diffusion_prior of {8, 8}: expected one of the latents of the image_autoencoder, {2, 3, 3}"));
}

}  // namespace
}  // namespace percept::image_autoencoder_test
