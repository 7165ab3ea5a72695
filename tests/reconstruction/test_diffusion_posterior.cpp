/// The stage diffusion_posterior, with a prior that was trained on boards of two kinds. In the program of the LibTorch
/// module.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/image_prior.h"
#include "reconstruction/stages.h"
#include "tests/support/driver.h"
#include "tests/support/errors.h"

namespace percept::diffusion_posterior_test {
namespace {

using diffusion::ImagePrior;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using ::testing::HasSubstr;
using testing::message_of;

const StageInfo& info(const char* name = "diffusion_posterior") {
  static const auto all = reconstruction_stages();
  return *std::find_if(all.begin(), all.end(), [&](auto& i) { return i.name == name; });
}

constexpr Index kSide = 4, kPixels = kSide * kSide, kRows = 6;

StreamFormat images() { return item_format({kSide, kSide}, Scalar::f64, "image"); }
VectorXd chessboard() {
  VectorXd board(kPixels);
  for (Index i = 0; i < kPixels; ++i) board(i) = i % 2 == (i / kSide) % 2 ? 1 : -1;
  return board;
}
/// 10 + height x chessboard.
MatrixXd boards(const VectorXd& heights) { return (chessboard() * heights.transpose()).array() + 10; }
/// 3 or -3, by chance.
VectorXd signs(Index count, std::int64_t key) {
  const KeyedRandom random(4, "sign");
  VectorXd h(count);
  for (Index k = 0; k < count; ++k) h(k) = random.uniform(key, static_cast<std::uint64_t>(k)) < 0.5 ? 3 : -3;
  return h;
}
/// Rows 1 to 6 times the height, and noise of this standard deviation for a height of one, half of it common to all
/// rows: with all rows a height is known to within `sd` sqrt(...) computed below.
struct Rows {
  MatrixXd noise;  ///< covariance
  explicit Rows(double sd) {
    const VectorXd gain = VectorXd::LinSpaced(kRows, 1, kRows);
    noise = sd * sd * (MatrixXd::Identity(kRows, kRows) + 0.5 * MatrixXd::Ones(kRows, kRows));
    gain_ = gain;
  }
  MatrixXd of(const VectorXd& heights, std::int64_t key) const {
    const KeyedRandom random(6, "rows");
    const MatrixXd factor = noise.llt().matrixL();
    MatrixXd x = (gain_ * heights.transpose()).array() + 20;
    for (Index k = 0; k < x.cols(); ++k) {
      VectorXd z(kRows);
      for (Index i = 0; i < kRows; ++i) z(i) = random.normal(1000 * key + k, static_cast<std::uint64_t>(i));
      x.col(k) += factor * z;
    }
    return x;
  }
  /// Log odds of +3 against -3 for rows x.
  VectorXd log_odds(const MatrixXd& x) const {
    return 6 * (x.array() - 20).matrix().transpose() * noise.llt().solve(gain_);
  }

 private:
  VectorXd gain_;
};

Context with_prior() {
  static const auto prior = [] {
    const Value p = Value::object({{"channels", 8},
                                   {"blocks", 1},
                                   {"multipliers", Value(std::vector<std::int64_t>{1, 2})},
                                   {"patch", 1},
                                   {"steps", 800},
                                   {"learning_rate", 1e-2},
                                   {"weight_average", 0.95}});
    VectorXd even(64);
    for (Index k = 0; k < 64; ++k) even(k) = k % 2 == 0 ? 3 : -3;
    TrainingMatrix t;
    t.x = boards(even);
    t.y.resize(0, 64);
    Context context;
    return std::make_shared<Model>(
        info("diffusion_prior").make_fitter(p, "prior")->fit(MemoryData(images(), {}, std::move(t)), context));
  }();
  Context context;
  context.node = "node";
  context.priors = {{"boards", ImagePrior::kStage, prior}};
  return context;
}

Model fit(const MatrixXd& x, const MatrixXd& y, const Value& p = Value::table(), Context context = with_prior(),
          const StreamFormat& target = images()) {
  TrainingMatrix t;
  t.x = x;
  t.y = y;
  return info().make_fitter(p, "node")->fit(MemoryData(item_format({x.rows()}), target, std::move(t)), context);
}

MatrixXd apply(const Model& m, const MatrixXd& x, const Value& p) {
  const auto stage = info().make(p, &m, "node");
  return testing::run_stage(*stage, {.format = item_format({x.rows()}), .frames = x}).matrix();
}
VectorXd height_of(const MatrixXd& image) {
  return (image.array() - 10).matrix().transpose() * chessboard() / static_cast<double>(kPixels);
}

// noise as it was made becomes independent noise of variance one, in every direction that is kept
TEST(DiffusionPosterior, WhitensTheNoiseOfFramesItHasNotSeen) {
  const Rows rows(2);
  const VectorXd heights = signs(2000, 1);
  const Model m = fit(rows.of(heights, 1), boards(heights));
  const MatrixXd seen = m.matrix("seen");
  const MatrixXd left = seen * rows.noise * seen.transpose();
  EXPECT_LT((left - MatrixXd::Identity(left.rows(), left.cols())).cwiseAbs().maxCoeff(), 0.1);
  EXPECT_EQ(seen.rows(), 1) << "the boards differ in one direction";
}

TEST(DiffusionPosterior, DrawsWhatTheRowsSay) {
  const Rows rows(1);
  const VectorXd heights = signs(200, 1), held = signs(10, 2);
  const MatrixXd x = rows.of(heights, 1), tested = rows.of(held, 2);
  for (const char* sampler : {"ddnm", "diffpir", "dps", "daps", "pcn"}) {
    const Value p = Value::object(
        {{"sampler", sampler}, {"levels", sampler == std::string("pcn") ? 8 : 30}, {"samples", 4}, {"moves", 30}});
    const MatrixXd y = apply(fit(x, boards(heights), p), tested, p);
    ASSERT_EQ(y.rows(), (2 + 4) * kPixels + 1) << sampler;
    EXPECT_LT((height_of(y.topRows(kPixels)) - held).cwiseAbs().maxCoeff(), 1) << sampler;
    EXPECT_LT(y.middleRows(kPixels, kPixels).mean(), 0.5) << sampler;
    MatrixXd mean = MatrixXd::Zero(kPixels, y.cols());
    for (Index s = 0; s < 4; ++s) mean += y.middleRows((2 + s) * kPixels, kPixels) / 4;
    EXPECT_LT((mean - y.topRows(kPixels)).cwiseAbs().maxCoeff(), 1e-9) << sampler;
    MatrixXd square = MatrixXd::Zero(kPixels, y.cols());
    for (Index s = 0; s < 4; ++s)
      square += (y.middleRows((2 + s) * kPixels, kPixels) - mean).array().square().matrix() / 3;
    EXPECT_LT((square.cwiseSqrt() - y.middleRows(kPixels, kPixels)).cwiseAbs().maxCoeff(), 1e-9) << sampler;
  }
}

// of samples drawn for rows that leave the sign open, the share that is positive is the posterior probability
TEST(DiffusionPosterior, SamplesAreAsUncertainAsTheRows) {
  const Rows rows(12);
  const VectorXd heights = signs(2000, 1), held = signs(30, 2);
  const Value p = Value::object({{"sampler", "pcn"}, {"levels", 8}, {"samples", 12}, {"kept", 1}, {"moves", 30}});
  const MatrixXd tested = rows.of(held, 2);
  const MatrixXd y = apply(fit(rows.of(heights, 1), boards(heights), p), tested, p);
  VectorXd positive = VectorXd::Zero(30);
  for (Index s = 0; s < 12; ++s)
    positive.array() += (height_of(y.middleRows((2 + s) * kPixels, kPixels)).array() > 0).cast<double>() / 12;
  const VectorXd expected = (1 + (-rows.log_odds(tested)).array().exp()).inverse();
  EXPECT_GT((expected.array() * (1 - expected.array())).mean(), 0.05) << "the test has to leave something open";
  EXPECT_NEAR((positive - expected).mean(), 0, 0.1);
  EXPECT_LT((positive - expected).squaredNorm() / 30, 0.03);
}

// chains that begin among draws of the prior that explain the rows need hardly move
TEST(DiffusionPosterior, ChainsBeginWhereTheRowsSay) {
  const Rows rows(1);
  const VectorXd heights = signs(200, 1), held = signs(10, 2);
  Value p = Value::object({{"sampler", "pcn"}, {"levels", 8}, {"samples", 4}, {"moves", 1}, {"pool", 64}});
  const Model m = fit(rows.of(heights, 1), boards(heights), p);
  const MatrixXd x = rows.of(held, 2), y = apply(m, x, p);
  EXPECT_LT((height_of(y.topRows(kPixels)) - held).cwiseAbs().maxCoeff(), 1);
  p["pool"] = 0;
  EXPECT_GT((height_of(apply(m, x, p).topRows(kPixels)) - held).cwiseAbs().maxCoeff(), 1);
}

TEST(DiffusionPosterior, SaysWhatItCannotUse) {
  const Rows rows(1);
  Context alone;
  alone.node = "node";
  const VectorXd heights = signs(40, 1);
  const MatrixXd x = rows.of(heights, 1), y = boards(heights);
  EXPECT_EQ(message_of([&] { fit(x, y, Value::table(), alone); }),
            "node.prior: expected a prior of diffusion_prior: the images that are drawn");
  EXPECT_THAT(message_of([&] {
                fit(x, y, Value::table(), with_prior(), item_format({2, 8}, Scalar::f64, "image"));
              }),
              HasSubstr("node: target: expected images of the prior's shape, {4, 4}, found "));
  EXPECT_EQ(message_of([&] { fit(x.leftCols(9), y.leftCols(9)); }),
            "node: training frames: expected at least 10, two a fold, found 9");
  Model m = fit(x, y);
  m.meta.erase("prior");
  EXPECT_EQ(message_of([&] { info().make(Value::table(), &m, "node"); }),
            "model of diffusion_posterior: prior: expected a model of diffusion_prior, found none");
  m = fit(x, y);
  m.meta["prior"]["network"]["channels"] = 16;
  EXPECT_THAT(message_of([&] { info().make(Value::table(), &m, "node"); }), HasSubstr("another architecture"));
  m = fit(x, y);
  m.meta["input_rows"] = Value(std::vector<std::string>{"a"});
  EXPECT_EQ(message_of([&] { info().make(Value::table(), &m, "node"); }),
            "model of diffusion_posterior: input_rows: expected 6 names, found 1");
}

TEST(DiffusionPosterior, AFrameWithAMissingRowIsMissing) {
  const Rows rows(1);
  const VectorXd heights = signs(40, 1);
  const Value p = Value::object({{"levels", 5}, {"samples", 2}});
  const Model m = fit(rows.of(heights, 1), boards(heights), p);
  MatrixXd x = rows.of(signs(3, 2), 2);
  x(2, 1) = std::numeric_limits<double>::quiet_NaN();
  const MatrixXd y = apply(m, x, p);
  EXPECT_TRUE(y.col(1).array().isNaN().all());
  EXPECT_TRUE(y.col(0).allFinite() && y.col(2).allFinite());
}

}  // namespace
}  // namespace percept::diffusion_posterior_test
