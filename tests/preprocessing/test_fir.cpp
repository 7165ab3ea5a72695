#include "preprocessing/fir.h"

#include "core/runner.h"
#include "tests/preprocessing/support.h"

namespace percept::testing {
namespace {

using ::testing::HasSubstr;

void expect_near(const Eigen::VectorXd& found, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(found.size(), static_cast<Index>(expected.size()));
  for (Index k = 0; k < found.size(); ++k) EXPECT_NEAR(found[k], expected[static_cast<std::size_t>(k)], tolerance) << k;
}

// SciPy 1.17: firwin(9, 15, fs=100), firwin(9, 15, fs=100, pass_zero=False, window='hann'),
// firwin(11, [5, 20], fs=100, pass_zero=False, window='blackman'), firwin(11, [5, 20], fs=100, pass_zero=True)
TEST(WindowedSinc, EqualsScipyFirwin) {
  expect_near(windowed_sinc("low", 0, 15, 100, "hamming", 9),
              {-0.004086370034955041, 0.007688553214683217, 0.0892604556967457, 0.2433312342481741, 0.3276122537507039,
               0.2433312342481741, 0.0892604556967457, 0.007688553214683217, -0.004086370034955041},
              1e-12);
  expect_near(windowed_sinc("high", 15, 0, 100, "hann", 9),
              {0.0, -0.004812001910026321, -0.0758458276330551, -0.2202793046816162, 0.7015090420828252,
               -0.2202793046816162, -0.0758458276330551, -0.004812001910026321, 0.0},
              1e-12);
  expect_near(windowed_sinc("band", 5, 20, 100, "blackman", 11),
              {1.4732212203298286e-18, -0.010149836458142143, -0.04961700279766266, 1.1797139542582324e-17,
               0.28940414329412406, 0.5002520243494406, 0.28940414329412406, 1.1797139542582324e-17,
               -0.04961700279766266, -0.010149836458142143, 1.4732212203298286e-18},
              1e-12);
  expect_near(windowed_sinc("stop", 5, 20, 100, "hamming", 11),
              {0.010063130922070437, 0.050201473302964136, 0.11650607068197483, -7.482069552283404e-17,
               -0.36833257252644985, 1.3831237952388813, -0.36833257252644985, -7.482069552283404e-17,
               0.11650607068197483, 0.050201473302964136, 0.010063130922070437},
              1e-12);
}

TEST(Fir, KeepsASineOfThePassBandInPlaceAndInSize) {
  const double rate = 500;
  Eigen::MatrixXd x(1, 2000);
  auto sine = [&](double t) { return std::sin(2 * M_PI * 20 * t); };
  for (Index k = 0; k < x.cols(); ++k)
    x(0, k) = sine(static_cast<double>(k) / rate) + std::sin(2 * M_PI * 120 * static_cast<double>(k) / rate);
  const auto y = apply("fir", Value::object({{"low_hz", 5.0}, {"high_hz", 60.0}, {"transition_hz", 8.0}}),
                       time_format(1, rate), x);
  const Index memory = windowed_sinc_length(8, rate, "hamming") - 1;
  EXPECT_DOUBLE_EQ(y.format.start_s, -static_cast<double>(memory) / 2 / rate);
  ASSERT_EQ(y.frames(), x.cols());
  for (Index k = 0; k < memory; ++k) ASSERT_TRUE(std::isnan(y.frame(k)[0])) << k;
  for (Index k = memory; k < y.frames(); ++k) ASSERT_NEAR(y.frame(k)[0], sine(y.format.time_of(k)), 5e-3) << k;
}

TEST(Fir, ConvolvesInDirectForm) {
  const Eigen::MatrixXd x = wave(37, 400);  // rows that fill tiles of 16, of 4 and part of one
  const std::vector<double> taps{-0.25, 0.1, 0.5, 0.1, -0.25};
  const auto y = apply("fir", Value::object({{"taps", Value(taps)}}), time_format(37, 100), x);
  for (Index t = 4; t < x.cols(); ++t)
    for (Index r = 0; r < x.rows(); ++r) {
      double sum = 0;
      for (Index j = 0; j < 5; ++j) sum += taps[static_cast<std::size_t>(j)] * x(r, t - j);
      ASSERT_EQ(y.frame(t)[r], sum) << t << " " << r;
    }
}

TEST(Fir, IsNaNWhileANaNIsUnderTheKernelAndThenForgetsIt) {
  Eigen::MatrixXd x = wave(2, 60);
  const Value params = Value::object({{"taps", Value(std::vector<double>{0.25, 0.5, 0.25})}});
  const auto clean = apply("fir", params, time_format(2, 100), x);
  x(1, 30) = kNaN;
  const auto y = apply("fir", params, time_format(2, 100), x);
  for (Index t = 2; t < 60; ++t) {
    EXPECT_EQ(y.frame(t)[0], clean.frame(t)[0]);
    if (t >= 30 && t <= 32) EXPECT_TRUE(std::isnan(y.frame(t)[1])) << t;
    else EXPECT_EQ(y.frame(t)[1], clean.frame(t)[1]) << t;
  }
}

TEST(Fir, RefusesWhatItCannotDo) {
  const auto f = time_format(2, 100);
  EXPECT_THAT(refusal("fir", Value::object({{"high_hz", 50.0}}), f),
              ::testing::AllOf(HasSubstr("node.high_hz = 50 Hz"), HasSubstr("half the rate, 50 Hz")));
  EXPECT_THAT(refusal("fir", Value::object({{"low_hz", 0.0}}), f), HasSubstr("node.low_hz = 0 Hz"));
  EXPECT_THAT(refusal("fir", Value::object({{"low_hz", 30.0}, {"high_hz", 20.0}}), f),
              HasSubstr("less than high_hz = 20 Hz"));
  EXPECT_THAT(refusal("fir", Value::object({{"transition_hz", 1e-4}}), f), HasSubstr("node.transition_hz = 0.0001 Hz"));
  EXPECT_THAT(refusal("fir", Value::object({{"taps", Value(std::vector<double>{1, 1})}}), f),
              HasSubstr("node.taps = 2 numbers: expected an odd number"));
  EXPECT_THAT(refusal("fir", Value::object({{"taps", Value(std::vector<double>{1, 2, 3})}}), f),
              HasSubstr("neither symmetry"));
  EXPECT_THAT(refusal("fir", Value::object({{"taps", Value(std::vector<double>{1, kNaN, 1})}}), f),
              HasSubstr("finite number"));
  EXPECT_EQ(refusal("fir", Value::object({{"taps", Value(std::vector<double>{1, 0, -1})}}), f), "");
}

TEST(FirZeroPhase, IsFirWithoutItsDelay) {
  const Eigen::MatrixXd x = wave(5, 300);
  const Value params = Value::object({{"pass", "low"}, {"high_hz", 10.0}, {"transition_hz", 10.0}});
  const auto causal = apply("fir", params, time_format(5, 100), x),
             centred = apply("fir_zero_phase", params, time_format(5, 100), x);
  const Index half = (windowed_sinc_length(10, 100, "hamming") - 1) / 2;
  EXPECT_EQ(centred.format.start_s, 0);
  ASSERT_EQ(centred.frames(), 300);
  for (Index k = 0; k < 300; ++k)
    for (Index r = 0; r < 5; ++r)
      if (k < half || k >= 300 - half) ASSERT_TRUE(std::isnan(centred.frame(k)[r])) << k;
      else ASSERT_EQ(centred.frame(k)[r], causal.frame(k + half)[r]) << k;
}

TEST(FirZeroPhase, ALongKernelGivesWhatFirGives) {
  Eigen::MatrixXd x = wave(11, 900);
  x(3, 500) = NAN;
  const Value params = Value::object({{"pass", "band"}, {"low_hz", 2.0}, {"high_hz", 20.0}, {"transition_hz", 2.0}});
  const auto causal = apply("fir", params, time_format(11, 100), x),
             centred = apply("fir_zero_phase", params, time_format(11, 100), x);
  const Index half = (windowed_sinc_length(2, 100, "hamming") - 1) / 2;
  ASSERT_GT(2 * half + 1, 150);
  ASSERT_EQ(centred.frames(), 900);
  Index answered = 0;
  for (Index k = half; k < 900 - half; ++k)
    for (Index r = 0; r < 11; ++r) {
      const double y = centred.frame(k)[r], expected = causal.frame(k + half)[r];
      ASSERT_EQ(std::isnan(y), std::isnan(expected)) << k << " " << r;
      if (std::isnan(y)) continue;
      ASSERT_NEAR(y, expected, 1e-12) << k << " " << r;
      ++answered;
    }
  EXPECT_EQ(answered, 11 * (900 - 2 * half) - (2 * half + 1));
}

TEST(FirZeroPhase, ReflectionKeepsAStraightLineToTheEnds) {
  Eigen::MatrixXd x(1, 80);
  for (Index k = 0; k < 80; ++k) x(0, k) = 3 - 0.25 * static_cast<double>(k);
  const Value params =
      Value::object({{"pass", "low"}, {"high_hz", 10.0}, {"transition_hz", 10.0}, {"edge", "reflect"}});
  const auto y = apply("fir_zero_phase", params, time_format(1, 100), x);
  ASSERT_EQ(y.frames(), 80);
  for (Index k = 0; k < 80; ++k) EXPECT_NEAR(y.frame(k)[0], x(0, k), 1e-12) << k;
}

TEST(FirZeroPhase, RunsInTilesOfRowsOffline) {
  // so long that the runner cannot take all rows at once
  const Eigen::MatrixXd x = wave(24, 150000);
  const Value params =
      Value::object({{"pass", "low"}, {"high_hz", 100.0}, {"transition_hz", 100.0}, {"edge", "reflect"}});
  const Eigen::MatrixXd whole = apply("fir_zero_phase", params, time_format(24, 1000), x).matrix();
  Recording recording;
  recording.streams.push_back(memory_stream("lfp", x, 1000));
  NodeSpec node;
  node.name = node.where = node.use = "fir_zero_phase";
  node.from = {"lfp"};
  node.params = params;
  RunOptions options;
  options.precision = Scalar::f64;
  options.block = 10007;
  Index frames = 0;
  bool same = true;
  run_offline(stages(), recording, {node}, options, {{"fir_zero_phase", [&](const Block& b) {
                                                        const auto y = to_matrix(b.x);
                                                        same = same && y == whole.middleCols(frames, y.cols());
                                                        frames += y.cols();
                                                      }}});
  EXPECT_EQ(frames, 150000);
  EXPECT_TRUE(same);
}

TEST(FirZeroPhase, ARecordingShorterThanTheKernelIsNaN) {
  const Value params =
      Value::object({{"pass", "low"}, {"high_hz", 10.0}, {"transition_hz", 10.0}, {"edge", "reflect"}});
  const auto y = apply("fir_zero_phase", params, time_format(1, 100), wave(1, 5));
  ASSERT_EQ(y.frames(), 5);
  for (Index k = 0; k < 5; ++k) EXPECT_TRUE(std::isnan(y.frame(k)[0]));
}

// SciPy 1.17: k = arange(600); x = sin(2 pi 3.1 k / 250) + 0.5 cos(2 pi 47 k / 250) + 0.01 ((7919 k) % 101)
// decimate(x, 5, ftype='fir', zero_phase=True)[40:46]
TEST(Decimate, EqualsScipyDecimate) {
  Eigen::MatrixXd x(1, 600);
  for (Index t = 0; t < 600; ++t) {
    const auto k = static_cast<double>(t);
    x(0, t) = std::sin(2 * M_PI * 3.1 * k / 250) + 0.5 * std::cos(2 * M_PI * 47 * k / 250) +
              0.01 * static_cast<double>((t * 7919) % 101);
  }
  const std::vector<double> scipy{0.595998060962517,    0.1360051799512272,  -0.1430885018127333,
                                  -0.39438640938710795, -0.4717234153726256, -0.4387021017498508};
  const auto y = apply("decimate", Value::object({{"factor", 5}}), time_format(1, 250), x);
  EXPECT_EQ(y.format.rate_hz, 50);
  EXPECT_DOUBLE_EQ(y.format.start_s, -10.0 / 50);  // half_length new frames
  ASSERT_EQ(y.frames(), 120);
  for (Index k = 0; k < 6; ++k) {
    EXPECT_NEAR(y.frame(50 + k)[0], scipy[static_cast<std::size_t>(k)], 1e-12);
    EXPECT_NEAR(y.format.time_of(50 + k), static_cast<double>(40 + k) / 50, 1e-12);
  }
}

TEST(Decimate, RefusesAKernelThatNobodyWants) {
  EXPECT_THAT(refusal("decimate", Value::object({{"factor", 30000}}), time_format(1, 3e4)),
              HasSubstr("node.factor = 30000: expected at most 25000"));
}

TEST(Decimate, WithoutFilterKeepsEveryNthFrame) {
  const Eigen::MatrixXd x = wave(3, 25);
  const auto y = apply("decimate", Value::object({{"factor", 4}, {"anti_alias", false}}), time_format(3, 100), x);
  EXPECT_EQ(y.format.start_s, 0);
  EXPECT_EQ(y.format.rate_hz, 25);
  ASSERT_EQ(y.frames(), 7);
  for (Index k = 0; k < 7; ++k) EXPECT_EQ(y.matrix().col(k), x.col(4 * k));
}

}  // namespace
}  // namespace percept::testing
