#include "realtime/latency.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "numerics/random.h"

namespace percept {
namespace {

TEST(LatencyHistogram, QuantilesAreNeverTooSmallAndAtMostASixteenthTooLarge) {
  const KeyedRandom random(3, "latency");
  LatencyHistogram h;
  std::vector<double> all;
  for (int i = 0; i < 5000; ++i) {
    const double ns = std::floor(std::exp(4 + 14 * random.uniform(i)));  // 55 ns to 65 ms
    h.add(static_cast<std::int64_t>(ns));
    all.push_back(ns * 1e-9);
  }
  std::sort(all.begin(), all.end());
  EXPECT_EQ(h.count(), 5000);
  EXPECT_DOUBLE_EQ(h.max_s(), all.back());
  for (double q : {0.0, 0.01, 0.5, 0.99, 0.999, 1.0}) {
    const double truth = all[static_cast<std::size_t>(std::max(1.0, std::ceil(q * 5000))) - 1];
    EXPECT_GE(h.quantile_s(q), truth) << q;
    EXPECT_LE(h.quantile_s(q), truth * (1 + 1.0 / 16) + 1e-15) << q;
  }
}

TEST(LatencyHistogram, TakesAnyTimeAndForgets) {
  LatencyHistogram h;
  EXPECT_EQ(h.quantile_s(0.5), 0);
  h.add(-5);
  h.add(0);
  EXPECT_LE(h.quantile_s(1), 17e-9);
  h.add(std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(h.count(), 3);
  EXPECT_DOUBLE_EQ(h.quantile_s(1), h.max_s());
  h.clear();
  EXPECT_EQ(h.count(), 0);
  EXPECT_EQ(h.max_s(), 0);
}

}  // namespace
}  // namespace percept
