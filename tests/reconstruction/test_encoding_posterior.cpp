#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "numerics/random.h"
#include "reconstruction/image/image_library.h"
#include "reconstruction/stages.h"
#include "tests/reconstruction/rings.h"
#include "tests/support/driver.h"
#include "tests/support/errors.h"

namespace percept::encoding_posterior_test {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using testing::correlation;
using ::testing::HasSubstr;
using testing::message_of;
using testing::with_library;
using testing::World;

const StageInfo& info() {
  static const auto all = reconstruction_stages();
  return *std::find_if(all.begin(), all.end(), [](auto& i) { return i.name == "encoding_posterior"; });
}

Value small(std::vector<double> beta = {0.1, 0.3, 1}, std::vector<double> delta = {0.0}) {
  return Value::object({{"voxels", 40},
                        {"deformed_copies", 1},
                        {"beta", Value(beta)},
                        {"delta", Value(delta)},
                        {"components", 8},
                        {"samples", 3},
                        {"ssim_images", 30}});
}

Model fit(const World& w, Context context, const MatrixXd& x, const MatrixXd& y, const Value& params = small()) {
  return info().make_fitter(params, "node")->fit(MemoryData(w.voxels, w.images, {x, y, {}, {}, {}}), context);
}

/// Rows x frames.
MatrixXd apply(const Model& model, const MatrixXd& frames) {
  const auto stage = info().make(small(), &model, "node");
  return testing::run_stage(*stage, {.format = item_format({World::kVoxels}), .frames = frames}).matrix();
}

class EncodingPosterior : public ::testing::Test {
 protected:
  static constexpr Index kTrain = 60, kTest = 20;
  World world;
  MatrixXd library = World::rings(1000, 400), seen = World::rings(0, kTrain), held = World::rings(kTrain, kTest);
  MatrixXd all = (MatrixXd(World::kPixels, kTrain + kTest) << seen, held).finished();
  MatrixXd responses = world.responses(all, 0.03);
  MatrixXd train = responses.leftCols(kTrain), test = responses.rightCols(kTest);
};

TEST_F(EncodingPosterior, FindsImagesThatWereNeverShown) {
  const Model model = fit(world, with_library(library), train, seen);
  const MatrixXd out = apply(model, test);
  ASSERT_EQ(out.rows(), 2 * World::kPixels + 3 * World::kPixels + World::kPixels + 2);
  const MatrixXd mean = out.topRows(World::kPixels), sd = out.middleRows(World::kPixels, World::kPixels),
                 best = out.middleRows(5 * World::kPixels, World::kPixels);
  const VectorXd images = out.row(6 * World::kPixels), bits = out.row(6 * World::kPixels + 1);
  double found = 0, prior = 0, expected = 0, got = 0;
  const VectorXd average = library.rowwise().mean();
  for (Index t = 0; t < kTest; ++t) {
    found += correlation(mean.col(t), held.col(t)) / kTest;
    prior += correlation(average, held.col(t)) / kTest;
    expected += sd.col(t).squaredNorm() / kTest;
    got += (mean.col(t) - held.col(t)).squaredNorm() / kTest;
    EXPECT_GE(images(t), 1 - 1e-6);
    EXPECT_GE(bits(t), -1e-9);
    EXPECT_LE(std::exp2(bits(t)) * (1 + 1e-6), 800 * (1 + 1e-3));
    EXPECT_LE(images(t), std::exp2(bits(t)) * (1 + 1e-6)) << "the entropy counts no fewer than the squared weights";
  }
  EXPECT_GT(found, 0.9);
  EXPECT_LT(prior, 0.75);
  EXPECT_LT(got, 3 * expected) << "the spread is of the size of the error";
  EXPECT_GT(got, expected / 3);
  EXPECT_GE(best.minCoeff(), 0);
  // a sample is an image of the library, or a copy
  const MatrixXd samples = out.middleRows(2 * World::kPixels, World::kPixels);
  Index known = 0;
  for (Index t = 0; t < kTest; ++t)
    known += (library.colwise() - samples.col(t)).cwiseAbs().colwise().maxCoeff().minCoeff() < 1e-6;
  EXPECT_GT(known, 0);
}

TEST_F(EncodingPosterior, ResponsesOfOthersTellNothing) {
  MatrixXd shuffled(train.rows(), kTrain);
  for (Index t = 0; t < kTrain; ++t) shuffled.col(t) = train.col((t + 17) % kTrain);
  const Model model = fit(world, with_library(library), shuffled, seen);
  const MatrixXd out = apply(model, test);
  const VectorXd average = library.rowwise().mean();
  double found = 0, prior = 0;
  for (Index t = 0; t < kTest; ++t) {
    found += correlation(out.col(t).head(World::kPixels), held.col(t)) / kTest;
    prior += correlation(average, held.col(t)) / kTest;
  }
  EXPECT_LT(found, prior + 0.1);
}

TEST_F(EncodingPosterior, PowersAreChosenOnFoldsLeftOut) {
  EXPECT_EQ(fit(world, with_library(library), train, seen, small({1e-4, 0.3})).number("beta"), 0.3);
  const Model both = fit(world, with_library(library), train, seen, small({1e-4}, {0, 0.3}));
  EXPECT_EQ(both.number("delta"), 0.3) << "where the encoder has no say, the decoder must";
  const MatrixXd out = apply(both, test);
  double found = 0;
  for (Index t = 0; t < kTest; ++t) found += correlation(out.col(t).head(World::kPixels), held.col(t)) / kTest;
  EXPECT_GT(found, 0.75);
}

TEST_F(EncodingPosterior, AFrameWithAMissingVoxelIsMissing) {
  const Model model = fit(world, with_library(library), train, seen);
  const auto used = static_cast<Index>(model.vector("voxels")(0));
  MatrixXd broken = test;
  broken(used, 3) = std::numeric_limits<double>::quiet_NaN();
  const MatrixXd out = apply(model, broken);
  EXPECT_TRUE(out.col(3).array().isNaN().all());
  EXPECT_TRUE(out.col(2).allFinite());
}

TEST_F(EncodingPosterior, GivesTheSsimEstimateWhereItIsAskedFor) {
  const Model model = fit(world, with_library(library), train, seen);
  Value params = small();
  params["ssim_iterations"] = std::int64_t{0};
  const auto stage = info().make(params, &model, "node");
  const auto without = testing::run_stage(*stage, {.format = world.voxels, .frames = test});
  const auto has = [](const StreamFormat& f) {
    return std::any_of(f.parts.begin(), f.parts.end(), [](auto& p) { return p.name == "ssim_optimal"; });
  };
  EXPECT_FALSE(has(without.format));
  EXPECT_EQ(without.matrix().topRows(5 * World::kPixels), apply(model, test).topRows(5 * World::kPixels));
}

TEST_F(EncodingPosterior, SaysWhatIsWrong) {
  Context none;
  none.node = "node";
  EXPECT_THAT(message_of<ConfigError>([&] { fit(world, none, train, seen); }), HasSubstr("node.prior"));
  EXPECT_THAT(message_of<DataError>([&] {
                fit(world, with_library(MatrixXd::Random(12 * 12, 5).cwiseAbs(), {12, 12}), train, seen);
              }),
              HasSubstr("node: target: expected images of 144 values, as in the prior, found 256 values"));
  EXPECT_THAT(message_of<DataError>([&] { fit(world, with_library(library), train.leftCols(9), seen.leftCols(9)); }),
              HasSubstr("node: training frames: expected at least 10, found 9"));
  MatrixXd constant = train;
  constant.row(7).setConstant(2);
  EXPECT_THAT(message_of<DataError>([&] { fit(world, with_library(library), constant, seen); }),
              HasSubstr("expected values that vary over the training frames, found the constant 2"));
  Model model = fit(world, with_library(library), train, seen);
  model.set("voxels", VectorXd(model.vector("voxels").array() + 0.5));
  EXPECT_THAT(message_of<DataError>([&] { info().make(small(), &model, "node"); }),
              HasSubstr("voxels: expected rows 0 to 59"));
}

}  // namespace
}  // namespace percept::encoding_posterior_test
