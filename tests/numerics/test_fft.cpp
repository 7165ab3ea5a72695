#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "numerics/fft.h"
#include "numerics/random.h"
#include "tests/support/errors.h"

namespace percept::testing {
namespace {

std::vector<double> noise(Index n, const char* name) {
  const KeyedRandom random(1, name);
  std::vector<double> x(static_cast<std::size_t>(n));
  for (std::size_t k = 0; k < x.size(); ++k) x[k] = random.normal(static_cast<std::int64_t>(k));
  return x;
}

TEST(RealFft, IsTheSumThatDefinesIt) {
  for (const Index n : {1, 2, 7, 12, 30}) {
    RealFft fft(n);
    const auto x = noise(n, "x");
    std::copy(x.begin(), x.end(), fft.signal().begin());
    fft.forward();
    ASSERT_EQ(static_cast<Index>(fft.spectrum().size()), n / 2 + 1);
    for (Index k = 0; k <= n / 2; ++k) {
      std::complex<double> sum = 0;
      for (Index t = 0; t < n; ++t)
        sum += x[static_cast<std::size_t>(t)] *
               std::polar(1.0, -2 * M_PI * static_cast<double>(k * t) / static_cast<double>(n));
      EXPECT_NEAR(std::abs(fft.spectrum()[static_cast<std::size_t>(k)] - sum), 0, 1e-13) << n << " " << k;
    }
    fft.backward();
    for (Index t = 0; t < n; ++t)
      EXPECT_NEAR(fft.signal()[static_cast<std::size_t>(t)], x[static_cast<std::size_t>(t)], 1e-14);
  }
  EXPECT_EQ(message_of([] { RealFft(0); }), "length of a Fourier transform: expected 1 to 2^31 - 1, found 0");
}

TEST(RealFft, FastLengthsHaveSmallFactorsOnly) {
  EXPECT_EQ(fast_fft_length(0), 1);
  EXPECT_EQ(fast_fft_length(7), 8);
  EXPECT_EQ(fast_fft_length(1001), 1024);
  EXPECT_EQ(fast_fft_length(1025), 1080);
}

TEST(LongConvolution, EqualsTheDirectSumWhateverTheLengths) {
  for (const Index taps : {1, 2, 33, 700}) {
    const auto kernel = noise(taps, "kernel");
    LongConvolution convolution(Eigen::Map<const Eigen::VectorXd>(kernel.data(), taps));
    for (const Index outputs : {0, 1, 100, 1023, 5000}) {
      const auto x = noise(outputs + taps - 1, "x");
      std::vector<double> y(static_cast<std::size_t>(outputs));
      convolution.run(x, y);
      for (Index t = 0; t < outputs; ++t) {
        double sum = 0;
        for (Index j = 0; j < taps; ++j)
          sum += kernel[static_cast<std::size_t>(j)] * x[static_cast<std::size_t>(t + taps - 1 - j)];
        ASSERT_NEAR(y[static_cast<std::size_t>(t)], sum, 1e-12) << taps << " taps, output " << t;
      }
    }
  }
}

TEST(LongConvolution, AMissingValueIsMissingExactlyWhereItsTapsReach) {
  const Index taps = 50, outputs = 3000;
  const auto kernel = noise(taps, "kernel");
  auto x = noise(outputs + taps - 1, "x");
  const auto clean = x;
  LongConvolution convolution(Eigen::Map<const Eigen::VectorXd>(kernel.data(), taps));
  std::vector<double> expected(static_cast<std::size_t>(outputs)), y = expected;
  convolution.run(clean, expected);
  const std::vector<Index> missing{0, 1000, 1020, 2000, outputs + taps - 2};
  for (const Index k : missing) x[static_cast<std::size_t>(k)] = k == 2000 ? INFINITY : NAN;
  convolution.run(x, y);
  for (Index t = 0; t < outputs; ++t) {
    const bool reached = std::any_of(missing.begin(), missing.end(), [&](Index k) { return t <= k && k < t + taps; });
    ASSERT_EQ(std::isnan(y[static_cast<std::size_t>(t)]), reached) << t;
    if (!reached) {
      ASSERT_NEAR(y[static_cast<std::size_t>(t)], expected[static_cast<std::size_t>(t)], 1e-12) << t;
    }
  }
}

}  // namespace
}  // namespace percept::testing
