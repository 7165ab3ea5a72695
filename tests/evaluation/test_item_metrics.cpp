/// Metrics of images and categories: against scikit-image, and against what can be counted on paper.
#include "evaluation/item_metrics.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "evaluation/audit.h"
#include "evaluation/bootstrap.h"
#include "evaluation/metrics.h"
#include "numerics/random.h"
#include "tests/support/errors.h"

namespace percept::evaluation::item_metrics_test {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using ::testing::HasSubstr;
using testing::message_of;

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

/// f(x, y) of every pixel, row after row.
template <class F>
VectorXd picture(Index height, Index width, F f) {
  VectorXd image(height * width);
  for (Index y = 0; y < height; ++y)
    for (Index x = 0; x < width; ++x) image(y * width + x) = f(static_cast<double>(x), static_cast<double>(y));
  return image;
}
VectorXd waves(Index height, Index width) {
  return picture(height, width, [](double x, double y) { return 0.5 + 0.5 * std::sin(0.3 * x + 0.7 * y); });
}
VectorXd other_waves(Index height, Index width) {
  return picture(height, width, [](double x, double y) { return 0.5 + 0.4 * std::sin(0.33 * x + 0.66 * y + 0.2); });
}

// numpy 2 and scikit-image 0.26.0 on the same two formulas: corrcoef, mean squared error, peak_signal_noise_ratio and
// structural_similarity with data_range = 1 (gaussian_weights, sigma 1.5, no sample covariance; win_size 7; win_size 11)
TEST(ItemMetrics, AgreeWithScikitImage) {
  struct Case {
    Index height, width;
    std::vector<std::pair<const char*, double>> expected;
  };
  const std::vector<Case> cases{{28,
                                 28,
                                 {{"pcc", 0.9189588119603447},
                                  {"mse", 0.021267558732372748},
                                  {"psnr", 16.722823591761614},
                                  {"ssim_gaussian", 0.9245662602251031},
                                  {"ssim_uniform7", 0.9176509921225945},
                                  {"ssim_uniform11", 0.9302094016432407}}},
                                {13,
                                 20,
                                 {{"pcc", 0.9443441786513053},
                                  {"mse", 0.016154990376846548},
                                  {"psnr", 17.9169329634542},
                                  {"ssim_gaussian", 0.9258763140505797},
                                  {"ssim_uniform7", 0.9286142568181969},
                                  {"ssim_uniform11", 0.931224922602731}}}};
  for (auto& c : cases)
    for (auto& [metric, expected] : c.expected) {
      const auto s = score(metric, waves(c.height, c.width), other_waves(c.height, c.width), {c.height, c.width});
      EXPECT_NEAR(s.values[0], expected, 1e-12) << metric << " " << c.height;
    }
}

TEST(ItemMetrics, AColourImageIsTheMeanOverItsPlanes) {
  const VectorXd a = waves(12, 12), b = other_waves(12, 12);
  VectorXd both(288), same(288);
  both << a, a;
  same << a, b;
  const double one = score("ssim_gaussian", a, b, {12, 12}).values[0];
  EXPECT_NEAR(score("ssim_gaussian", both, same, {2, 12, 12}).values[0], (1 + one) / 2, 1e-12);
}

TEST(ItemMetrics, TheScoreIsTheMeanOverItemsWithTheirSpread) {
  MatrixXd truth(2, 4), decoded(2, 4);
  truth << 0, 0, 0, 0, 1, 1, 1, 1;
  decoded << 0, 0.2, kMissing, 0.4, 1, 1, 1, 1;
  const auto s = score("mse", truth, decoded);
  EXPECT_EQ(s.frames, 3);
  EXPECT_EQ(s.missing, 1);
  EXPECT_NEAR(s.values[0], (0 + 0.02 + 0.08) / 3, 1e-15);
  EXPECT_NEAR(s.items[1], 0.02, 1e-15);
  EXPECT_TRUE(std::isnan(s.items[2]));
  // sum of squares about 1/30: (1/30)^2 + (1/75)^2 + (7/150)^2, over 2
  EXPECT_NEAR(s.sd(), std::sqrt((1.0 / 900 + 1.0 / 5625 + 49.0 / 22500) / 2), 1e-15);
  EXPECT_TRUE(std::isnan(score("rmse", truth, decoded).sd())) << "not of items";
}

/// Three values an item; the truths are three directions, one of them twice.
struct Four {
  MatrixXd truth = (MatrixXd(3, 4) << 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0).finished();
  MatrixXd decoded = truth;
};

TEST(ItemMetrics, IdentificationCountsOtherImagesOnly) {
  Four f;
  EXPECT_EQ(score("identification", f.truth, f.decoded).values[0], 1) << "an equal truth is no distractor";
  f.decoded.col(1) =
      f.truth.col(0);  // two distractors are the same image as that, one correlates as its own truth does
  const auto s = score("identification", f.truth, f.decoded);
  EXPECT_NEAR(s.items[1], 0.5 / 3, 1e-15);
  EXPECT_NEAR(s.values[0], (3 + 0.5 / 3) / 4, 1e-15);
  const VectorXd ranks = identification_ranks(f.truth, f.decoded);
  EXPECT_NEAR(ranks(0), 1, 1e-15);
  EXPECT_NEAR(ranks(1), 1 + 2.5, 1e-15);
}

TEST(ItemMetrics, Top1IsTheChanceAgainstDistractorsDrawnWithoutReplacement) {
  constexpr Index kItems = 12;
  const KeyedRandom random(1, "top1");
  MatrixXd truth(30, kItems), decoded(30, kItems);
  for (Index k = 0; k < kItems; ++k)
    for (Index i = 0; i < 30; ++i) {
      truth(i, k) = random.normal(k, static_cast<std::uint64_t>(i));
      decoded(i, k) = truth(i, k) + 3 * random.normal(k, static_cast<std::uint64_t>(100 + i));
    }
  // all pairs of distractors, written out
  auto correlation = [&](Index d, Index t) {
    const VectorXd a = decoded.col(d).array() - decoded.col(d).mean(), b = truth.col(t).array() - truth.col(t).mean();
    return a.dot(b) / a.norm() / b.norm();
  };
  double sum = 0, pairwise = 0;
  for (Index k = 0; k < kItems; ++k) {
    double won = 0, drawn = 0;
    for (Index i = 0; i < kItems; ++i)
      for (Index j = i + 1; j < kItems; ++j) {
        if (i == k || j == k) continue;
        drawn += 1;
        won += correlation(k, k) > correlation(k, i) && correlation(k, k) > correlation(k, j);
      }
    sum += won / drawn;
    for (Index i = 0; i < kItems; ++i) pairwise += i != k && correlation(k, k) > correlation(k, i);
  }
  EXPECT_NEAR(score("top1_3way", truth, decoded).values[0], sum / kItems, 1e-12);
  EXPECT_NEAR(score("top1_2way", truth, decoded).values[0], pairwise / kItems / (kItems - 1), 1e-12);
  EXPECT_NEAR(score("identification", truth, decoded).values[0], pairwise / kItems / (kItems - 1), 1e-12);
  const auto too_many = score("top1_50way", truth, decoded);
  EXPECT_TRUE(std::isnan(too_many.values[0]));
  EXPECT_THAT(too_many.reasons[0], HasSubstr("there are only 11 other different items"));
}

TEST(ItemMetrics, AccuracyIsOfCategories) {
  const MatrixXd truth = (MatrixXd(1, 5) << 6, 9, 6, 9, kMissing).finished(),
                 decoded = (MatrixXd(1, 5) << 6, 9, 9, 9, 6).finished();
  EXPECT_EQ(score("accuracy", truth, decoded).values[0], 0.75);
  EXPECT_THAT(message_of<ConfigError>([] { score("accuracy", MatrixXd::Zero(2, 3), MatrixXd::Zero(2, 3)); }),
              HasSubstr("accuracy: expected a target of 1 output, found 2"));
}

TEST(ItemMetrics, WhatHasNoValueSaysWhy) {
  Four f;
  f.decoded.col(2).setConstant(0.5);
  auto s = score("pcc", f.truth, f.decoded);
  EXPECT_TRUE(std::isnan(s.values[0]));
  EXPECT_EQ(s.reasons[0], "item 3: what was decoded is constant");
  EXPECT_EQ(score("identification", f.truth, f.decoded).reasons[0], "item 3: what was decoded is constant");
  EXPECT_EQ(score("psnr", f.truth, f.truth).reasons[0], "item 1: it was decoded exactly");
  EXPECT_THAT(message_of<DataError>([&] { score("psnr", MatrixXd(2 * f.truth), f.decoded); }),
              HasSubstr("truth: item 0: expected values from 0 to 1 for psnr, found 0 to 2"));
  EXPECT_THAT(message_of<ConfigError>([&] { score("ssim_gaussian", f.truth, f.decoded); }),
              HasSubstr("ssim_gaussian: expected a target of images of at least 11 x 11 pixels, found {}"));
  EXPECT_THAT(message_of<ConfigError>([&] {
                score("ssim_uniform7", f.truth, f.decoded, {1, 3});
              }),
              HasSubstr("at least 7 x 7 pixels, found {1, 3}"));
  EXPECT_THAT(message_of<ConfigError>([] { metric_info("top1_1way"); }), HasSubstr("expected one of rmse"));
  EXPECT_THAT(message_of<ConfigError>([] { metric_info("ssim_gausian"); }), HasSubstr("did you mean 'ssim_gaussian'"));
}

TEST(ItemMetrics, IntervalsResampleItems) {
  constexpr Index kItems = 400;
  const KeyedRandom random(2, "items");
  MatrixXd truth = MatrixXd::Zero(1, kItems), decoded(1, kItems);
  for (Index k = 0; k < kItems; ++k) decoded(0, k) = random.normal(k);
  const auto s = score("mse", truth, decoded);
  BootstrapOptions options;
  options.block_frames = 1;
  const auto b = bootstrap(s, truth, decoded, {0}, options);
  const double error = s.sd() / std::sqrt(static_cast<double>(kItems));  // of a mean
  EXPECT_NEAR(b.headline.high - b.headline.low, 2 * 1.96 * error, 0.1 * 2 * 1.96 * error);
  EXPECT_LT(b.headline.low, s.values[0]);
  EXPECT_GT(b.headline.high, s.values[0]);
}

TEST(ItemMetrics, PairingsAtRandomGiveAnHonestP) {
  constexpr Index kItems = 20;
  const KeyedRandom random(3, "pairing");
  MatrixXd truth(40, kItems), good(40, kItems), blind(40, kItems);
  for (Index k = 0; k < kItems; ++k)
    for (Index i = 0; i < 40; ++i) {
      truth(i, k) = random.normal(k, static_cast<std::uint64_t>(i));
      blind(i, k) = random.normal(k, static_cast<std::uint64_t>(100 + i));
      good(i, k) = truth(i, k) + blind(i, k);
    }
  for (const char* metric : {"pcc", "mse", "identification", "mean_r"}) {
    EXPECT_LT(pairing_null(metric, truth, good, {}, 99, 1).p, 0.02) << metric;
    EXPECT_GT(pairing_null(metric, truth, blind, {}, 99, 1).p, 0.05) << metric;
  }
  // all pairings of three items: the null holds what the permuted columns score
  const auto null = pairing_null("mse", truth.leftCols(3), good.leftCols(3), {}, 50, 1);
  for (double v : null.values) {
    std::vector<Index> order{0, 1, 2};
    bool found = false;
    do
      found =
          found || std::abs(score("mse", MatrixXd(truth(Eigen::all, order)), good.leftCols(3)).values[0] - v) < 1e-12;
    while (std::next_permutation(order.begin(), order.end()));
    EXPECT_TRUE(found) << v;
  }
}

}  // namespace
}  // namespace percept::evaluation::item_metrics_test
