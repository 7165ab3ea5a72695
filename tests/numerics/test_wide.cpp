#include "numerics/wide.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "numerics/random.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kInfinity = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();

MatrixXd normal_matrix(Index rows, Index cols, const char* purpose) {
  const KeyedRandom random(7, purpose);
  MatrixXd m(rows, cols);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = random.normal(i);
  return m;
}

VectorXd exponents() {
  VectorXd x = VectorXd::LinSpaced(4001, -708, 709);
  x.head(2000) /= 500;
  return x;
}

TEST(Wide, ExponentialIsExactToTheLastDigitsAndEndsInZero) {
  const VectorXd x = exponents();
  VectorXd y = x;
  wide::exponential(y.data(), y.size(), 1);
  long double worst = 0;
  for (Index i = 0; i < x.size(); ++i) {
    const long double wanted = std::exp(static_cast<long double>(x(i)));
    worst = std::max(worst, std::abs((y(i) - wanted) / wanted));
  }
  EXPECT_LT(worst, 3e-16L);
  VectorXd edges{{-kInfinity, -708.5, -1e300, kNan, 0, -0.0, 1e-300}};
  wide::exponential(edges.data(), edges.size(), 2.5);
  EXPECT_EQ(edges.head(3), VectorXd::Zero(3));
  EXPECT_TRUE(std::isnan(edges(3)));
  EXPECT_EQ(edges.tail(3), VectorXd::Constant(3, 2.5));
  VectorXd moved{{3, 5, kInfinity}};
  wide::exponential(moved.data(), 3, 2, -0.5, 3);
  EXPECT_EQ(moved(0), 2);
  EXPECT_DOUBLE_EQ(moved(1), 2 * std::exp(-1));
  EXPECT_EQ(moved(2), 0);
}

// against sums in long double: n roundings of numbers of order one
TEST(Wide, ProductsSumsAndDistancesAreThoseOfTheirDefinitions) {
  for (const Index n : {1, 2, 7, 31, 32, 77, 1000}) {
    const VectorXd a = normal_matrix(n, 1, "a"), b = normal_matrix(n, 1, "b");
    long double dot = 0, sum = 0;
    for (Index i = 0; i < n; ++i) dot += static_cast<long double>(a(i)) * b(i), sum += a(i);
    const double most = 1e-15 * static_cast<double>(n);
    EXPECT_NEAR(wide::dot(a.data(), b.data(), n), static_cast<double>(dot), most);
    EXPECT_NEAR(wide::sum(a.data(), n), static_cast<double>(sum), most);
    EXPECT_EQ(wide::least(a.data(), n), a.minCoeff());
  }
  const VectorXd x = normal_matrix(9, 1, "x");
  for (const Index rows : {1, 3, 8, 21, 64, 85}) {
    const MatrixXd w = normal_matrix(rows, 9, "w");
    VectorXd out(rows);
    wide::product(w.data(), rows, 9, x.data(), out.data());
    EXPECT_LT((out - w.lazyProduct(x)).cwiseAbs().maxCoeff(), 1e-14);
  }
  for (const Index count : {1, 16, 37}) {
    const MatrixXd points = normal_matrix(5, count, "points"), frames = normal_matrix(5, 19, "frames");
    const VectorXd packed = wide::packed(points);
    MatrixXd out(wide::packs(count) * wide::kPack, 19);
    wide::distances2(packed.data(), wide::packs(count), 5, frames.data(), 19, out.data());
    for (Index f = 0; f < 19; ++f)
      for (Index k = 0; k < count; ++k)
        ASSERT_NEAR(out(k, f), (points.col(k) - frames.col(f)).squaredNorm(), 1e-13) << count << ", " << f;
    VectorXd known = frames.col(4);
    known(1) = known(3) = kNan;
    wide::known_distances2(packed.data(), wide::packs(count), 5, known.data(), out.data());
    for (Index k = 0; k < count; ++k) {
      const VectorXd away = points.col(k) - frames.col(4);
      ASSERT_NEAR(out(k, 0), away(0) * away(0) + away(2) * away(2) + away(4) * away(4), 1e-13);
    }
  }
}

/// Six sections of which none is like another, stable.
VectorXd sections_of(Index n) {
  VectorXd c = 0.2 * normal_matrix(5 * n, 1, "sections");
  for (Index s = 0; s < n; ++s) c(5 * s) += 1;
  return c;
}

// row by row in the order that the header gives, and cut anywhere
TEST(Wide, SectionsFilterEachRowOnItsOwn) {
  for (const Index n : {1, 2, 3, 4, 6}) {
    const VectorXd c = sections_of(n);
    const MatrixXd x = normal_matrix(wide::kPack, 40, "x");
    MatrixXd whole = x, cut = x, expected = x;
    MatrixXd delays = MatrixXd::Zero(wide::kPack, 2 * n), rest = delays, d = delays;
    wide::second_order_sections(c.data(), n, delays.data(), whole.data(), 40);
    for (const Index first : {0, 1, 18})
      wide::second_order_sections(c.data(), n, rest.data(), cut.col(first).data(),
                                  (first == 0   ? 1
                                   : first == 1 ? 18
                                                : 40) -
                                      first);
    for (Index k = 0; k < 40; ++k)
      for (Index r = 0; r < wide::kPack; ++r)
        for (Index s = 0; s < n; ++s) {
          const double *b = c.data() + 5 * s, in = expected(r, k), y = b[0] * in + d(r, 2 * s);
          d(r, 2 * s) = (b[1] * in + d(r, 2 * s + 1)) - b[3] * y;
          d(r, 2 * s + 1) = b[2] * in - b[4] * y;
          expected(r, k) = y;
        }
    EXPECT_EQ(whole, expected) << n;
    EXPECT_EQ(cut, expected) << n;
    EXPECT_EQ(delays, d) << n;
    EXPECT_EQ(rest, d) << n;
  }
}

TEST(Wide, FramesDoNotKnowOfEachOther) {
  const MatrixXd points = normal_matrix(6, 50, "points"), frames = normal_matrix(6, 19, "frames");
  const VectorXd packed = wide::packed(points);
  MatrixXd together(64, 19), alone(64, 19), known(64, 19);
  wide::distances2(packed.data(), 4, 6, frames.data(), 19, together.data());
  for (Index f = 0; f < 19; ++f) {
    wide::distances2(packed.data(), 4, 6, frames.col(f).data(), 1, alone.col(f).data());
    wide::known_distances2(packed.data(), 4, 6, frames.col(f).data(), known.col(f).data());
  }
  EXPECT_EQ(together, alone);
  EXPECT_EQ(together, known);
}

TEST(Wide, EveryProcessorGivesTheSameBits) {
  const MatrixXd points = normal_matrix(11, 53, "points"), frames = normal_matrix(11, 13, "frames"),
                 w = normal_matrix(77, 11, "w");
  const VectorXd packed = wide::packed(points), long_one = normal_matrix(1003, 1, "long");
  VectorXd partly = frames.col(0);
  partly(2) = kNan;
  const auto all = [&](const wide::Loops& loops) {
    VectorXd out(77 + 3 + 4001 + 64 * 13 + 64 + 48 * wide::kPack);
    double* to = out.data();
    loops.product(w.data(), 77, 11, frames.data(), to);
    to += 77;
    *to++ = loops.dot(long_one.data(), long_one.data() + 1, 1002);
    *to++ = loops.sum(long_one.data(), 1003);
    *to++ = loops.least(long_one.data(), 1003);
    const VectorXd x = exponents();
    std::copy(x.begin(), x.end(), to);
    loops.exponential(to, 4001, 0.7, 0.9, -0.1);
    to += 4001;
    loops.distances2(packed.data(), 4, 11, frames.data(), 13, to);
    loops.known_distances2(packed.data(), 4, 11, partly.data(), to + 64 * 13);
    to += 64 * 13 + 64;
    const MatrixXd filtered = normal_matrix(wide::kPack, 48, "filtered");
    std::copy_n(filtered.data(), filtered.size(), to);
    for (const Index n : {1, 3, 6}) {
      MatrixXd delays = MatrixXd::Zero(wide::kPack, 2 * n);
      loops.second_order_sections(sections_of(n).data(), n, delays.data(), to, 48);
    }
    return out;
  };
  const VectorXd wanted = all(*wide::loops_of(16));
  EXPECT_TRUE(wanted.allFinite());
  for (const int bytes : {32, 64}) {
    const wide::Loops* loops = wide::loops_of(bytes);
    if (loops) {
      EXPECT_EQ(all(*loops), wanted) << bytes;
    }
  }
  EXPECT_EQ(wide::loops_of(8), nullptr);
}

}  // namespace
}  // namespace percept
