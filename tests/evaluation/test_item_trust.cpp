/// Whether a decoder's own doubt tells its error.
#include "evaluation/item_trust.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "numerics/random.h"

namespace percept::evaluation::item_trust_test {
namespace {

using Eigen::MatrixXd;

constexpr Index kPixels = 12, kItems = 200;

/// Items whose errors have the standard deviation that is told times `factor`; `known`: it differs between items.
Pooled items(double factor, bool known) {
  const KeyedRandom random(1, "trust");
  Pooled p;
  p.shape = {3, 4};
  p.frame_format = item_format({3, 4}, Scalar::f64, "mean");
  p.frame_format.parts.push_back(p.frame_format.parts[0]);
  p.frame_format.parts[1].name = "sd";
  p.truth = p.decoded = MatrixXd(kPixels, kItems);
  p.frames = MatrixXd(2 * kPixels, kItems);
  for (Index k = 0; k < kItems; ++k) {
    p.axis.keys.push_back(k);
    const double sd = 0.1 + random.uniform(k), told = known ? sd : 0.1 + random.uniform(k, 1);
    for (Index i = 0; i < kPixels; ++i) {
      p.truth(i, k) = random.normal(k, static_cast<std::uint64_t>(10 + i));
      p.decoded(i, k) = p.truth(i, k) + factor * sd * random.normal(k, static_cast<std::uint64_t>(100 + i));
      p.frames(i, k) = p.decoded(i, k);
      p.frames(kPixels + i, k) = told;
    }
  }
  p.axis.count = kItems;
  return p;
}

TEST(ItemTrust, RankCorrelationIsSpearmans) {
  // scipy.stats.spearmanr: ties share the mean of their ranks
  EXPECT_NEAR(rank_correlation({1, 2, 2, 4, 5}, {2, 1, 4, 4, 3}), 0.3947368421052632, 1e-15);
  EXPECT_NEAR(rank_correlation({1, 2, 3}, {10, 100, 1000}), 1, 1e-15);
  EXPECT_NEAR(rank_correlation({1, 2, NAN, 3}, {3, 2, 9, 1}), -1, 1e-15);
  EXPECT_TRUE(std::isnan(rank_correlation({1, 1, 1}, {1, 2, 3})));
  EXPECT_TRUE(std::isnan(rank_correlation({1, 2}, {1, 2})));
}

TEST(ItemTrust, DoubtThatKnowsTheErrorIsTold) {
  const auto knows = item_trust(items(1, true)), guesses = item_trust(items(1, false)),
             proud = item_trust(items(2, true));
  EXPECT_GT(knows.told.at("spread").rank_correlation, 0.7);
  EXPECT_LT(knows.told.at("spread").p, 0.002);
  EXPECT_GT(knows.told.at("spread").interval.low, 0.5);
  EXPECT_LT(std::abs(guesses.told.at("spread").rank_correlation), 0.2);
  EXPECT_GT(guesses.told.at("spread").p, 0.01);
  // squared error over variance: 1 where the doubt is right, 4 where errors are twice as large; 2400 values
  EXPECT_NEAR(knows.error_to_spread, 1, 0.1);
  EXPECT_NEAR(proud.error_to_spread, 4, 0.4);
  ASSERT_EQ(knows.reliability.size(), 10u);
  for (auto& [sd, rmse] : knows.reliability) EXPECT_NEAR(rmse / sd, 1, 0.2);
  EXPECT_LT(knows.reliability.front().first, knows.reliability.back().first);
}

TEST(ItemTrust, MeasuresAreOneAnItem) {
  auto p = items(1, true);
  const auto t = item_trust(p);
  EXPECT_NEAR(t.values.at("rmse")[3], std::sqrt((p.truth.col(3) - p.decoded.col(3)).squaredNorm() / kPixels), 1e-15);
  EXPECT_NEAR(t.values.at("spread")[3], p.frames(kPixels, 3), 1e-15);
  EXPECT_EQ(t.values.at("identification_rank").size(), static_cast<std::size_t>(kItems));
  // a flag of the node
  p.frame_format.parts[1] = Part{"hallucination", {1}, "1", {}, {}};
  p.frames.conservativeResize(kPixels + 1, kItems);
  for (Index k = 0; k < kItems; ++k) p.frames(kPixels, k) = -t.values.at("rmse")[static_cast<std::size_t>(k)];
  const auto flagged = item_trust(p);
  EXPECT_NEAR(flagged.told.at("hallucination").rank_correlation, -1, 1e-12);
  EXPECT_EQ(flagged.told.at("hallucination").p, 1);
  EXPECT_FALSE(flagged.values.contains("spread"));
  EXPECT_TRUE(std::isnan(flagged.error_to_spread));
}

TEST(ItemTrust, TheMosaicHasOneRangeForTruthAndDecoded) {
  auto p = items(0, true);
  p.truth.setConstant(0.5);
  p.truth(0, 0) = 0;
  p.decoded = 2 * p.truth;
  p.decoded(1, 1) = std::numeric_limits<double>::quiet_NaN();
  const Value m = mosaic("name", p);
  EXPECT_EQ(m.at("count").as_integer(), 120);
  EXPECT_EQ(m.at("of").as_integer(), kItems);
  ASSERT_EQ(m.at("rows").size(), 3u);
  // 0, 128 and 128 of the truth; 0, 255, 255 of what was decoded
  EXPECT_EQ(m.at("rows").as_array()[0].at("pixels").as_string().substr(0, 4), "AICA");
  EXPECT_EQ(m.at("rows").as_array()[1].at("pixels").as_string().substr(0, 4), "AP//");
}

}  // namespace
}  // namespace percept::evaluation::item_trust_test
