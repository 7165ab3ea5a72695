/// The stage encoding_diffusion, with a prior that was trained on rings. In the program of the LibTorch module.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "reconstruction/diffusion/image_prior.h"
#include "reconstruction/stages.h"
#include "tests/reconstruction/rings.h"
#include "tests/support/driver.h"
#include "tests/support/errors.h"

namespace percept::encoding_diffusion_test {
namespace {

using diffusion::ImagePrior;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using testing::correlation;
using ::testing::HasSubstr;
using testing::message_of;
using testing::with_library;
using testing::World;

const StageInfo& info(const char* name = "encoding_diffusion") {
  static const auto all = reconstruction_stages();
  return *std::find_if(all.begin(), all.end(), [&](auto& i) { return i.name == name; });
}

Context with_priors() {
  static const auto drawn = [] {
    const Value p = Value::object({{"channels", 16}, {"blocks", 1}, {"steps", 500}, {"learning_rate", 5e-3}});
    TrainingMatrix t;
    t.x = World::rings(1000, 600);
    t.y.resize(0, t.x.cols());
    Context context;
    return std::make_shared<Model>(
        info("diffusion_prior").make_fitter(p, "prior")->fit(MemoryData(World().images, {}, std::move(t)), context));
  }();
  Context context = with_library(World::rings(1000, 400));
  context.priors.push_back({"drawn", ImagePrior::kStage, drawn});
  return context;
}

Value params() {
  return Value::object({{"voxels", 40},
                        {"deformed_copies", 0},
                        {"beta", Value(std::vector<double>{0.1, 0.3, 1})},
                        {"levels", 8},
                        {"moves", 40},
                        {"samples", 8}});
}

constexpr Index kTrain = 60, kTest = 10;
struct Data {
  World world;
  MatrixXd seen = World::rings(0, kTrain), held = World::rings(kTrain, kTest);
  MatrixXd train = world.responses(seen, 0.03), test;
  Data() {
    MatrixXd all(World::kPixels, kTrain + kTest);
    all << seen, held;
    test = world.responses(all, 0.03).rightCols(kTest);
  }
};

Model fit(const Data& d, const Value& p = params(), Context context = with_priors()) {
  return info().make_fitter(p, "node")->fit(MemoryData(d.world.voxels, d.world.images, {d.train, d.seen, {}, {}, {}}),
                                            context);
}
MatrixXd apply(const Model& m, const MatrixXd& x, const Value& p = params()) {
  const auto stage = info().make(p, &m, "node");
  return testing::run_stage(*stage, {.format = item_format({x.rows()}), .frames = x}).matrix();
}

TEST(EncodingDiffusion, DrawsRingsThatWereNeverShown) {
  const Data d;
  const Model m = fit(d);
  const MatrixXd y = apply(m, d.test);
  ASSERT_EQ(y.rows(), (2 + 8) * World::kPixels + 1);
  const VectorXd average = World::rings(1000, 400).rowwise().mean();
  double found = 0, prior = 0, expected = 0, got = 0;
  for (Index t = 0; t < kTest; ++t) {
    const VectorXd mean = y.col(t).head(World::kPixels), sd = y.col(t).segment(World::kPixels, World::kPixels);
    found += correlation(mean, d.held.col(t)) / kTest;
    prior += correlation(average, d.held.col(t)) / kTest;
    expected += sd.squaredNorm() / kTest;
    got += (mean - d.held.col(t)).squaredNorm() / kTest;
  }
  EXPECT_GT(found, 0.85);
  EXPECT_LT(prior, 0.75);
  EXPECT_LT(got, 4 * expected) << "the spread is of the size of the error";
  EXPECT_GT(got, expected / 4);
  EXPECT_GT(y.bottomRows(1).minCoeff(), 0) << "the trajectory of every image varies";
}

TEST(EncodingDiffusion, OfOtherResponsesItDrawsOtherRings) {
  const Data d;
  const MatrixXd y = apply(fit(d), d.test);
  double own = 0, other = 0;
  for (Index t = 0; t < kTest; ++t) {
    own += correlation(y.col(t).head(World::kPixels), d.held.col(t)) / kTest;
    other += correlation(y.col(t).head(World::kPixels), d.held.col((t + 3) % kTest)) / kTest;
  }
  EXPECT_GT(own, other + 0.2);
}

// the mean over the pool is that of many samples of it, up to their chance
TEST(EncodingDiffusion, WithoutMovesThePoolItselfIsThePosterior) {
  const Data d;
  const Model m = fit(d);
  constexpr Index kSamples = 100;
  Value p = params();
  p["moves"] = 0;
  p["pool"] = 1500;
  p["samples"] = kSamples;
  const MatrixXd y = apply(m, d.test, p);
  double found = 0, expected = 0, got = 0;
  for (Index t = 0; t < kTest; ++t) {
    const VectorXd mean = y.col(t).head(World::kPixels), sd = y.col(t).segment(World::kPixels, World::kPixels);
    found += correlation(mean, d.held.col(t)) / kTest;
    expected += sd.squaredNorm() / kTest;
    got += (mean - d.held.col(t)).squaredNorm() / kTest;
    const MatrixXd samples =
        y.col(t).segment(2 * World::kPixels, kSamples * World::kPixels).reshaped(World::kPixels, kSamples);
    EXPECT_LT((samples.rowwise().mean() - mean).squaredNorm(), 3 * sd.squaredNorm() / kSamples) << t;
  }
  EXPECT_GT(found, 0.85);
  EXPECT_LT(got, 4 * expected) << "the spread is of the size of the error";
  EXPECT_GT(got, expected / 4);
  EXPECT_GT(y.bottomRows(1).minCoeff(), 0) << "the trajectory of every image varies";
  p["pool"] = 0;
  EXPECT_EQ(message_of([&] { apply(m, d.test, p); }),
            "stage.moves = 0: expected moves of a chain, or a pool that is weighed");
}

TEST(EncodingDiffusion, AResponseThatNoImageExplainsFails) {
  const Data d;
  Value p = params();
  p["moves"] = 0;
  MatrixXd x = d.test.leftCols(2);
  x.col(1).setConstant(1e300);
  const MatrixXd y = apply(fit(d), x, p);
  EXPECT_TRUE(y.col(0).allFinite());
  EXPECT_TRUE(y.col(1).array().isNaN().all());
}

TEST(EncodingDiffusion, AFrameWithAMissingVoxelIsMissing) {
  const Data d;
  const Model m = fit(d);
  Value p = params();
  p["moves"] = 2;
  MatrixXd x = d.test.leftCols(3);
  x(static_cast<Index>(m.vector("voxels")(0)), 1) = std::numeric_limits<double>::quiet_NaN();
  const MatrixXd y = apply(m, x, p);
  EXPECT_TRUE(y.col(1).array().isNaN().all());
  EXPECT_TRUE(y.col(0).allFinite() && y.col(2).allFinite());
}

TEST(EncodingDiffusion, SaysWhatItCannotUse) {
  const Data d;
  EXPECT_EQ(message_of([&] { fit(d, params(), with_library(World::rings(1000, 5))); }),
            "node.prior: expected a prior of diffusion_prior, whose images are drawn, and one of image_library, by "
            "which the power of the likelihood is chosen");
  Context other = with_library(MatrixXd::Random(12 * 12, 5).cwiseAbs(), {12, 12});
  other.priors.push_back(with_priors().priors.back());
  EXPECT_EQ(message_of([&] { fit(d, params(), other); }),
            "node.prior = {12, 12}: expected images of the same shape, {16, 16}");
  Model m = fit(d);
  m.set("beta", 0.0);
  EXPECT_EQ(
      message_of([&] { info().make(params(), &m, "node"); }).substr(0, 80),
      std::string("model of encoding_diffusion: beta, lowest, highest: expected beta above zero, a range of image")
          .substr(0, 80));
  m = fit(d);
  m.meta.erase("prior");
  EXPECT_EQ(message_of([&] { info().make(params(), &m, "node"); }),
            "model of encoding_diffusion: prior: expected a model of diffusion_prior, found none");
}

}  // namespace
}  // namespace percept::encoding_diffusion_test
