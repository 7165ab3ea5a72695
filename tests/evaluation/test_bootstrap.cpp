#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "evaluation/bootstrap.h"
#include "numerics/random.h"
#include "tests/support/data.h"

namespace percept::evaluation {
namespace {

/// Normal numbers with this autocorrelation from frame to frame.
Eigen::MatrixXd autoregressive(Index rows, Index frames, double a, std::uint64_t seed) {
  const KeyedRandom random(seed, "test");
  Eigen::MatrixXd m(rows, frames);
  for (Index i = 0; i < rows; ++i)
    for (Index k = 0; k < frames; ++k) {
      const double e = random.normal(k, static_cast<std::uint64_t>(i));
      m(i, k) = k == 0 ? e / std::sqrt(1 - a * a) : a * m(i, k - 1) + e;
    }
  return m;
}

TEST(Bootstrap, BlockLengthFollowsTheAutocorrelation) {
  EXPECT_LE(automatic_block(autoregressive(1, 2000, 0.0, 1)), 4);
  const Index strong = automatic_block(autoregressive(1, 2000, 0.9, 2));
  // for this process: g = 2 a / ((1 - a)^2 (1 - a^2)), S = 1 / (1 - a)^2, so b = (2 n g^2 / (4/3 S^2))^(1/3) = 64.6
  EXPECT_GT(strong, 35);
  EXPECT_LT(strong, 110);
  EXPECT_EQ(automatic_block(Eigen::MatrixXd::Constant(2, 500, 3.0)), 1);
  EXPECT_LE(automatic_block(autoregressive(1, 60, 0.99, 3)), 20);
  EXPECT_GT(decorrelation_frames(autoregressive(1, 5000, 0.9, 4)),
            decorrelation_frames(autoregressive(1, 5000, 0.0, 4)));
}

TEST(Bootstrap, IntervalsCoverTheTrueMeanSquareError) {
  // the error is autoregressive: intervals that took frames for independent would cover about 60 %
  constexpr int kRuns = 300;
  const double truth = std::sqrt(1 / (1 - 0.8 * 0.8));
  int blocks = 0, independent = 0;
  BootstrapOptions options;
  options.resamples = 300;
  for (int run = 0; run < kRuns; ++run) {
    const Eigen::MatrixXd error = autoregressive(1, 1000, 0.8, 100 + static_cast<std::uint64_t>(run)), zero = 0 * error;
    const Score s = score("rmse", zero, error);
    options.seed = static_cast<std::uint64_t>(run);
    options.block_frames = 0;
    const Interval chosen = bootstrap(s, zero, error, {0}, options).headline;
    blocks += chosen.low <= truth && truth <= chosen.high;
    options.block_frames = 1;
    const Interval naive = bootstrap(s, zero, error, {0}, options).headline;
    independent += naive.low <= truth && truth <= naive.high;
  }
  EXPECT_GT(blocks, 0.87 * kRuns);
  EXPECT_LT(independent, 0.75 * kRuns);
}

TEST(Bootstrap, RealDecodingHasAStatedInterval) {
  std::filesystem::path z_file, kalman;
  PERCEPT_NEED_DATA(z_file, "bci/flint_run1/z.csv");
  PERCEPT_NEED_DATA(kalman, "bci/reference/kalman.csv");
  const Eigen::MatrixXd truth = testing::read_reference(z_file).middleRows(5000, 1000).transpose();
  const Eigen::MatrixXd decoded = testing::read_reference(kalman, 1).leftCols(2).transpose();
  for (auto& info : metrics()) {
    if (info.kind == MetricInfo::Kind::item) continue;  // of images and categories
    const Score s = score(info.name, truth, decoded);
    const Bootstrap b = bootstrap(s, truth, decoded);
    ASSERT_EQ(b.intervals.size(), s.values.size());
    for (std::size_t i = 0; i < s.values.size(); ++i) {
      EXPECT_LT(b.intervals[i].low, s.values[i]) << info.name;
      EXPECT_GT(b.intervals[i].high, s.values[i]) << info.name;
    }
    EXPECT_EQ(b.undefined, 0);
    EXPECT_EQ(b.method, "95 % interval by moving blocks of " + std::to_string(b.block_frames) +
                            " frames, 1000 resamples; the length is from the autocorrelation of the error");
  }
}

TEST(Bootstrap, SameSeedSameNumbersAndBlocksStayInTheirSegment) {
  const Eigen::MatrixXd truth = autoregressive(2, 400, 0.5, 9), decoded = autoregressive(2, 400, 0.5, 10);
  const Score s = score("r2", truth, decoded);
  BootstrapOptions options;
  options.seed = 3;
  const Bootstrap a = bootstrap(s, truth, decoded, {0}, options), b = bootstrap(s, truth, decoded, {0}, options);
  EXPECT_EQ(a.headline.low, b.headline.low);
  EXPECT_EQ(a.intervals[1].high, b.intervals[1].high);
  options.seed = 4;
  EXPECT_NE(a.headline.low, bootstrap(s, truth, decoded, {0}, options).headline.low);

  // two segments of equal length, the block as long as a segment: a resample holds whole segments only
  Eigen::MatrixXd ones(1, 20);
  ones << Eigen::RowVectorXd::Zero(10), Eigen::RowVectorXd::Ones(10);
  options.block_frames = 10;
  bool whole = true;
  bootstrap_sums(
      ones, {0, 10}, 1,
      [&](std::span<const double> sums, std::span<double> v) {
        whole = whole && std::fmod(sums[0], 10) == 0;
        v[0] = sums[0];
      },
      options);
  EXPECT_TRUE(whole);
}

TEST(Bootstrap, UndefinedResamplesAreSaidNotHidden) {
  Eigen::MatrixXd truth = Eigen::MatrixXd::Zero(1, 100);
  const Eigen::MatrixXd decoded = Eigen::MatrixXd::Random(1, 100);
  truth(0, 50) = 1;
  BootstrapOptions options;
  options.resamples = 50;
  const Score s = score("r", truth, decoded);
  options.block_frames = 100;  // every resample is the whole series
  EXPECT_EQ(bootstrap(s, truth, decoded, {0}, options).undefined, 0);
  options.block_frames = 1;  // one resample in e does not see the only frame that differs
  const Bootstrap some = bootstrap(s, truth, decoded, {0}, options);
  EXPECT_GT(some.undefined, 0);
  EXPECT_LT(some.undefined, 50);
  EXPECT_NE(some.method.find("left out as undefined"), std::string::npos);
  const Eigen::MatrixXd constant = Eigen::MatrixXd::Zero(1, 100);
  const Score undefined = score("r", constant, decoded);
  const Bootstrap b = bootstrap(undefined, constant, decoded, {0}, options);
  EXPECT_EQ(b.undefined, 50);
  EXPECT_TRUE(std::isnan(b.headline.low));
  EXPECT_TRUE(to_value(undefined, &b).at("low").is_null());
  EXPECT_NE(b.method.find("undefined in 50 of them, so no interval"), std::string::npos);
}

TEST(Bootstrap, OfAMedianIsThatOfTheResampledFrames) {
  // distances 1 ... 101 in an order without memory: the median's interval by the binomial, 51 +- 1.96 sqrt(101) / 2
  Eigen::MatrixXd truth = Eigen::MatrixXd::Zero(2, 101), decoded = truth;
  for (Index k = 0; k < 101; ++k) decoded(k % 2, k) = static_cast<double>((k * 37) % 101 + 1);
  BootstrapOptions options;
  options.block_frames = 1;
  options.resamples = 4000;
  const Score s = score("median_error", truth, decoded);
  EXPECT_EQ(s.values, std::vector<double>{51});
  const Bootstrap b = bootstrap(s, truth, decoded, {0}, options);
  EXPECT_NEAR(b.headline.low, 51 - 9.8, 2);
  EXPECT_NEAR(b.headline.high, 51 + 9.8, 2);
  EXPECT_EQ(b.undefined, 0);
}

TEST(Bootstrap, RefusesTooFewResamples) {
  BootstrapOptions options;
  options.block_frames = 1;
  options.resamples = 5;
  try {
    bootstrap_sums(
        Eigen::MatrixXd::Ones(1, 5), {0}, 1, [](auto, auto) {}, options);
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_STREQ(e.what(), "bootstrap = 5: expected at least 20 resamples");
  }
}

}  // namespace
}  // namespace percept::evaluation
