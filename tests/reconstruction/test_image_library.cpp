#include "reconstruction/image/image_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "numerics/pca.h"
#include "reconstruction/stages.h"
#include "tests/support/driver.h"
#include "tests/support/errors.h"
#include "tests/support/random.h"

namespace percept::image_library_test {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using ::testing::HasSubstr;
using testing::message_of;
using testing::normals;

constexpr Index kPixels = 12, kImages = 40;

const StageInfo& info() {
  static const auto all = reconstruction_stages();
  return *std::find_if(all.begin(), all.end(), [](auto& i) { return i.name == "image_library"; });
}

Model fit(const MatrixXd& images, Context context = {}, const Value& params = Value::table()) {
  context.node = "node";
  const StreamFormat format = item_format({3, 4}, Scalar::f64, "image");
  return info()
      .make_fitter(params, "node")
      ->fit(MemoryData(format, StreamFormat{}, {images, MatrixXd(0, images.cols()), {}, {}, {}}), context);
}

testing::Collected apply(const Model& model, const MatrixXd& frames, std::int64_t nearest,
                         std::vector<Index> shape = {3, 4}) {
  const auto stage = info().make(Value::object({{"nearest", nearest}}), &model, "node");
  return testing::run_stage(*stage, {.format = item_format(std::move(shape)), .frames = frames});
}

/// The nearest by sorting all distances.
std::vector<Index> nearest(const MatrixXd& places, const VectorXd& place, Index k) {
  std::vector<Index> order(static_cast<std::size_t>(places.cols()));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](Index a, Index b) {
    return (places.col(a) - place).squaredNorm() < (places.col(b) - place).squaredNorm();
  });
  order.resize(static_cast<std::size_t>(k));
  return order;
}

TEST(ImageLibrary, AveragesTheNearestImages) {
  const MatrixXd images = normals(kPixels, kImages, "library"), asked = normals(kPixels, 7, "asked");
  const MatrixXd kept = images.cast<float>().cast<double>();  // as the model keeps them
  for (const Index k : {Index{1}, Index{5}, kImages}) {
    const auto y = apply(fit(images), asked, k);
    ASSERT_EQ(y.format.parts.size(), 2u);
    EXPECT_EQ(y.format.parts[0].name, "mean");
    EXPECT_EQ(y.format.parts[0].shape, (std::vector<Index>{3, 4}));
    EXPECT_EQ(y.format.parts[1].name, "sd");
    for (Index t = 0; t < asked.cols(); ++t) {
      const MatrixXd chosen = kept(Eigen::all, nearest(kept, asked.col(t), k));
      const VectorXd mean = chosen.rowwise().mean();
      const VectorXd sd = ((chosen.colwise() - mean).rowwise().squaredNorm() / static_cast<double>(k)).cwiseSqrt();
      EXPECT_LT((Eigen::Map<const VectorXd>(y.frame(t), kPixels) - mean).cwiseAbs().maxCoeff(), 1e-12) << k << " " << t;
      EXPECT_LT((Eigen::Map<const VectorXd>(y.frame(t) + kPixels, kPixels) - sd).cwiseAbs().maxCoeff(), 1e-12);
    }
  }
}

TEST(ImageLibrary, LooksAmongTheComponentsOfAPcaPrior) {
  const MatrixXd images = normals(kPixels, kImages, "library"), asked = normals(kPixels, 7, "asked");
  const Pca pca = fit_pca(images, 3, "test");
  for (const bool whiten : {false, true}) {
    auto components = std::make_shared<Model>();
    components->meta["params"] = Value::object({{"whiten", whiten}});
    components->set("components", pca.components);
    components->set("mean", MatrixXd(pca.mean));
    components->set("variance", MatrixXd(pca.variance));
    Context context;
    context.priors = {{"lib", "image_library", std::make_shared<Model>(fit(images))}, {"pcs", "pca", components}};
    const Model model = fit(asked, context);  // the training rows of the fold are not looked at
    const MatrixXd kept = images.cast<float>().cast<double>();
    const VectorXd scale = whiten ? VectorXd(pca.variance.cwiseSqrt().cwiseInverse()) : VectorXd::Ones(3);
    const MatrixXd to_features = scale.asDiagonal() * pca.components;
    const MatrixXd places = to_features * (kept.colwise() - pca.mean),
                   features = to_features * (asked.colwise() - pca.mean);
    const auto by_image = apply(model, asked, 4), by_features = apply(model, features, 4, {3});
    for (Index t = 0; t < asked.cols(); ++t) {
      const VectorXd mean = kept(Eigen::all, nearest(places, features.col(t), 4)).rowwise().mean();
      for (const auto* y : {&by_image, &by_features})
        EXPECT_LT((Eigen::Map<const VectorXd>(y->frame(t), kPixels) - mean).cwiseAbs().maxCoeff(), 1e-12) << t;
    }
  }
}

TEST(ImageLibrary, KeepsBytesWhereTheImagesAreBytes) {
  MatrixXd bytes(kPixels, kImages);
  for (Index i = 0; i < bytes.size(); ++i)
    bytes.data()[i] = static_cast<double>(static_cast<float>((i * 7 % 256) / 255.0));
  const Model small = fit(bytes), large = fit(bytes.array() + 0.001);
  EXPECT_EQ(small.tensors().at("images").data.size(), static_cast<std::size_t>(kPixels * kImages));
  EXPECT_EQ(large.tensors().at("images").data.size(), static_cast<std::size_t>(4 * kPixels * kImages));
  EXPECT_LT((read_image_library(small).images - bytes).cwiseAbs().maxCoeff(), 1e-7);
  EXPECT_LT((read_image_library(large).images.array() - 0.001 - bytes.array()).abs().maxCoeff(), 1e-7);
}

TEST(ImageLibrary, MissingPixels) {
  MatrixXd images = normals(kPixels, kImages, "library");
  images(3, 5) = std::numeric_limits<double>::quiet_NaN();
  const Model model = fit(images);
  EXPECT_EQ(read_image_library(model).images.cols(), kImages - 1);
  EXPECT_EQ(model.meta.at("left_out").as_integer(), 1);
  MatrixXd asked = normals(kPixels, 2, "asked");
  asked(0, 1) = std::numeric_limits<double>::quiet_NaN();
  const auto y = apply(model, asked, 3);
  EXPECT_TRUE(std::isfinite(y.frame(0)[0]));
  for (Index i = 0; i < 2 * kPixels; ++i) EXPECT_TRUE(std::isnan(y.frame(1)[i]));
}

TEST(ImageLibrary, WhatCannotBeUsedIsRefused) {
  const Model model = fit(normals(kPixels, kImages, "library"));
  EXPECT_THAT(message_of<ConfigError>([&] { apply(model, MatrixXd::Ones(5, 1), 3, {5}); }),
              HasSubstr("expected images of 12 values, as in the library"));
  EXPECT_THAT(message_of<ConfigError>([&] { apply(model, MatrixXd::Ones(kPixels, 1), kImages + 1); }),
              HasSubstr("nearest = 41: expected at most the 40 images of the library"));
  Context context;
  context.priors = {{"pcs", "pca", std::make_shared<Model>()}};
  EXPECT_THAT(message_of<ConfigError>([&] { fit(normals(kPixels, 3, "x"), context); }),
              HasSubstr("node.prior: expected a prior of image_library"));
  EXPECT_THAT(
      message_of<DataError>([&] { fit(MatrixXd::Constant(kPixels, 2, std::numeric_limits<double>::quiet_NaN())); }),
      HasSubstr("node: images: expected at least one without missing pixels, found none"));
  Model broken = model;
  broken.meta["image_shape"] = Value(std::vector<std::int64_t>{5, 5});
  EXPECT_THAT(message_of<DataError>([&] { read_image_library(broken); }),
              HasSubstr("image_shape: expected a shape of 12 values, found {5, 5}"));
}

}  // namespace
}  // namespace percept::image_library_test
