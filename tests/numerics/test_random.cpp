#include <gmock/gmock.h>

#include <cmath>
#include <vector>

#include "numerics/random.h"

namespace percept {
namespace {

using Words = std::array<std::uint32_t, 4>;

TEST(Philox, PublishedAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  constexpr std::uint32_t f = 0xffffffffu;
  EXPECT_EQ(philox({f, f, f, f}, {f, f}), (Words{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
}

TEST(KeyedRandom, SameQuestionSameAnswer) {
  const KeyedRandom a(7, "car"), b(7, "car");
  for (std::int64_t key : {std::int64_t{0}, std::int64_t{-3}, std::int64_t{1} << 40})
    for (std::uint64_t draw : {0u, 9u}) EXPECT_EQ(a.uniform(key, draw), b.uniform(key, draw));
}

TEST(KeyedRandom, SeedPurposeKeyAndDrawEachCount) {
  const double base = KeyedRandom(7, "car").uniform(5, 2);
  EXPECT_NE(base, KeyedRandom(8, "car").uniform(5, 2));
  EXPECT_NE(base, KeyedRandom(7, "cat").uniform(5, 2));
  EXPECT_NE(base, KeyedRandom(7, "car").uniform(6, 2));
  EXPECT_NE(base, KeyedRandom(7, "car").uniform(5, 3));
  EXPECT_NE(base, KeyedRandom(7, "car").uniform(5 + (std::int64_t{1} << 32), 2));
}

TEST(KeyedRandom, UniformHasTheRightMoments) {
  const KeyedRandom r(1, "uniform");
  const int n = 100000;
  double sum = 0, squares = 0;
  for (int i = 0; i < n; ++i) {
    const double u = r.uniform(i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    squares += u * u;
  }
  EXPECT_NEAR(sum / n, 0.5, 0.004);
  EXPECT_NEAR(squares / n, 1.0 / 3, 0.004);
}

TEST(KeyedRandom, NormalHasTheRightMoments) {
  const KeyedRandom r(1, "normal");
  const int n = 100000;
  double m1 = 0, m2 = 0, m4 = 0, neighbours = 0, before = 0;
  for (int i = 0; i < n; ++i) {
    const double v = r.normal(i);
    ASSERT_TRUE(std::isfinite(v));
    m1 += v;
    m2 += v * v;
    m4 += v * v * v * v;
    neighbours += v * before;
    before = v;
  }
  EXPECT_NEAR(m1 / n, 0, 0.015);
  EXPECT_NEAR(m2 / n, 1, 0.02);
  EXPECT_NEAR(m4 / n, 3, 0.15);
  EXPECT_NEAR(neighbours / n, 0, 0.015);
}

TEST(KeyedRandom, ManyNormalsAtOnceHaveTheRightMoments) {
  const KeyedRandom r(1, "normals");
  const std::size_t n = 400000;
  std::vector<float> v(n);
  r.normals(5, 100, v);
  // lags 1 to 3 stay inside one draw, 4 does not
  double m1 = 0, m2 = 0, m4 = 0, tail = 0, lagged[5] = {};
  for (std::size_t i = 0; i < n; ++i) {
    ASSERT_TRUE(std::isfinite(v[i]));
    m1 += v[i];
    m2 += double{v[i]} * v[i];
    m4 += std::pow(double{v[i]}, 4);
    tail += std::abs(v[i]) > 3;
    for (std::size_t lag = 1; lag < 5 && lag <= i; ++lag) lagged[lag] += double{v[i]} * v[i - lag];
  }
  // four standard errors each; P(|v| > 3) = .0026998
  EXPECT_NEAR(m1 / n, 0, 0.0064);
  EXPECT_NEAR(m2 / n, 1, 0.009);
  EXPECT_NEAR(m4 / n, 3, 0.062);
  EXPECT_NEAR(tail / n, 0.0026998, 0.00033);
  for (std::size_t lag = 1; lag < 5; ++lag) EXPECT_NEAR(lagged[lag] / n, 0, 0.0064) << lag;
}

TEST(KeyedRandom, ManyNormalsAreKeyedByDraw) {
  const KeyedRandom r(1, "normals");
  std::vector<float> all(14), some(5), other(4);
  r.normals(5, 100, all);
  r.normals(5, 101, some);  // begins at the second draw
  EXPECT_EQ(std::vector<float>(all.begin() + 4, all.begin() + 9), some);
  r.normals(6, 100, other);
  EXPECT_NE(std::vector<float>(all.begin(), all.begin() + 4), other);
}

TEST(KeyedRandom, BelowIsUniformAndInRange) {
  const KeyedRandom r(1, "below");
  std::vector<int> seen(7);
  for (int i = 0; i < 70000; ++i) {
    const auto k = r.below(7, i);
    ASSERT_GE(k, 0);
    ASSERT_LT(k, 7);
    ++seen[static_cast<std::size_t>(k)];
  }
  for (const int s : seen) EXPECT_NEAR(s, 10000, 400);
  EXPECT_EQ(r.below(1, 3), 0);
  // larger than 32 bits: the upper half is reached too
  const std::int64_t n = std::int64_t{1} << 50;
  int high = 0;
  for (int i = 0; i < 1000; ++i) {
    const auto k = r.below(n, i);
    ASSERT_GE(k, 0);
    ASSERT_LT(k, n);
    high += k >= n / 2;
  }
  EXPECT_NEAR(high, 500, 80);
}

TEST(KeyedRandom, PoissonHasTheRightMoments) {
  const KeyedRandom r(1, "poisson");
  for (const double mean : {0.3, 4.0, 29.0, 60.0}) {
    const int n = 40000;
    double m1 = 0, m2 = 0;
    for (int i = 0; i < n; ++i) {
      const auto k = static_cast<double>(r.poisson(mean, i));
      ASSERT_GE(k, 0);
      m1 += k;
      m2 += k * k;
    }
    m1 /= n;
    EXPECT_NEAR(m1, mean, 5 * std::sqrt(mean / n)) << mean;
    EXPECT_NEAR(m2 / n - m1 * m1, mean, 0.05 * mean + 0.01) << mean;
  }
  EXPECT_EQ(r.poisson(0, 1), 0);
  EXPECT_EQ(r.poisson(-1, 1), 0);
}

}  // namespace
}  // namespace percept
