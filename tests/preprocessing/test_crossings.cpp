/// level_crossings and threshold_crossings.
#include <algorithm>

#include "numerics/random.h"
#include "tests/preprocessing/support.h"

namespace percept::testing {
namespace {

using ::testing::HasSubstr;

Value level(double at, double bin_s, double refractory_s, double most_missing = 0) {
  return Value::object(
      {{"level", at}, {"bin_s", bin_s}, {"refractory_s", refractory_s}, {"most_missing", most_missing}});
}

TEST(LevelCrossings, CountsDescentsToTheLevel) {
  Eigen::MatrixXd x = Eigen::MatrixXd::Zero(10, 40);
  for (Index t : {0, 1, 3, 12, 13, 25}) x(0, t) = -6;  // frame 0 comes from nowhere
  x(1, 5) = -5;                                        // reaches it
  x(1, 7) = -4.999;
  x(2, 5) = 9;                                  // the other side
  for (Index t = 8; t < 32; ++t) x(9, t) = -7;  // stays: one crossing
  StreamFormat f = time_format(10, 1000);
  f.start_s = 2;
  f.parts[0].unit = "V";
  const auto y = apply("level_crossings", level(-5, 0.01, 0), f, x);
  ASSERT_EQ(y.frames(), 4);
  EXPECT_DOUBLE_EQ(y.format.rate_hz, 100);
  EXPECT_DOUBLE_EQ(y.format.start_s, 2.0045);
  EXPECT_EQ(y.format.parts[0].unit, "1");
  Eigen::MatrixXd expected = Eigen::MatrixXd::Zero(10, 4);
  expected.row(0) << 1, 1, 1, 0;
  expected(1, 0) = 1;
  expected(9, 0) = 1;
  EXPECT_EQ(y.matrix(), expected);

  Eigen::MatrixXd upwards = Eigen::MatrixXd::Zero(10, 4);
  upwards(2, 0) = 1;
  EXPECT_EQ(apply("level_crossings", level(5, 0.01, 0), f, x).matrix(), upwards);
}

TEST(LevelCrossings, WaitsForTheRefractoryTimeAfterOneThatCounts) {
  Eigen::MatrixXd x = Eigen::MatrixXd::Zero(1, 30);
  for (Index t : {2, 4, 6, 8, 10, 12, 21}) x(0, t) = -6;
  // a crossing at 2 counts, 4 and 6 come within 5 frames of it, 8 counts, 10 and 12 do not, 21 does
  const auto y = apply("level_crossings", level(-5, 0.03, 0.005), time_format(1, 1000), x);
  ASSERT_EQ(y.frames(), 1);
  EXPECT_EQ(y.frame(0)[0], 3);
  // 4 frames: at 2, 6, 10, 21
  EXPECT_EQ(apply("level_crossings", level(-5, 0.03, 0.004), time_format(1, 1000), x).frame(0)[0], 4);
  // over the joint of two bins as well
  EXPECT_EQ(apply("level_crossings", level(-5, 0.01, 0.005), time_format(1, 1000), x).matrix(),
            Eigen::RowVector3d(2, 0, 1));
}

TEST(LevelCrossings, SaysWhatItMayOfABinWithMissingFrames) {
  Eigen::MatrixXd x = Eigen::MatrixXd::Zero(9, 20);
  x(3, 4) = x(3, 6) = x(3, 8) = -6;
  x(3, 5) = kNaN;  // between two values beyond: no crossing is made of it
  x(3, 7) = kNaN;
  x(8, 14) = -6;
  x.col(12).setConstant(kNaN);
  const auto strict = apply("level_crossings", level(-5, 0.01, 0), time_format(9, 1000), x);
  EXPECT_TRUE(std::isnan(strict.frame(0)[3]));
  EXPECT_EQ(strict.frame(0)[8], 0);
  EXPECT_TRUE(std::isnan(strict.frame(1)[8]));
  const auto lenient = apply("level_crossings", level(-5, 0.01, 0, 0.2), time_format(9, 1000), x);
  EXPECT_DOUBLE_EQ(lenient.frame(0)[3], 1 / 0.8);
  EXPECT_DOUBLE_EQ(lenient.frame(1)[8], 1 / 0.9);
  EXPECT_EQ(lenient.frame(1)[3], 0);
  EXPECT_THAT(refusal("level_crossings", level(0, 0.01, 0), time_format(9, 1000)),
              HasSubstr("node.level = 0: expected a level above or below zero"));
  EXPECT_THAT(refusal("level_crossings", level(-5, 0.0105, 0), time_format(9, 1000)),
              HasSubstr("node.bin_s = 0.0105 s: expected a whole number of frames"));
}

// 2001 values: the median is one of them, here found by sorting
TEST(ThresholdCrossings, KnowsTheNoiseByItsMedian) {
  const auto f = named(time_format(5, 1000), {"a", "b", "c", "d", "e"});
  Eigen::MatrixXd x = wave(5, 2001);
  x.row(1) *= 1e-6;
  x.row(2).setConstant(kNaN);
  x.row(3).tail(1500).setZero();
  x.row(4).head(300).setConstant(kNaN);
  x.row(4).tail(1).setConstant(1e150);  // no measurement
  x(4, 1000) = kNaN;                    // 1699 are left
  const Model m = fit("threshold_crossings", Value::table(), f, x.cast<float>().cast<double>());
  const Eigen::VectorXd noise = m.vector("noise", 5);
  EXPECT_TRUE(std::isnan(noise[2]));  // never there
  EXPECT_TRUE(std::isnan(noise[3]));  // silent most of the time
  for (const Index r : {0, 1, 4}) {
    std::vector<double> sorted;
    for (Index t = 0; t < 2001; ++t)
      if (std::abs(x(r, t)) < 1e100) sorted.push_back(std::abs(static_cast<float>(x(r, t))));
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(noise[r], sorted[(sorted.size() - 1) / 2] / 0.6745) << r;
  }
  // in double to 25 bits of the fraction
  const Model d = fit("threshold_crossings", Value::table(), f, x);
  EXPECT_NEAR(d.vector("noise")[0], noise[0], 1e-7 * noise[0]);
  EXPECT_THAT(
      message_of<DataError>([&] { fit("threshold_crossings", Value::table(), f, Eigen::MatrixXd::Zero(5, 9)); }),
      HasSubstr("a row that is not silent"));
}

TEST(ThresholdCrossings, CountsInNoiseLevelsOfEachRowByName) {
  const auto f = named(time_format(3, 1000), {"a", "b", "c"});
  Eigen::MatrixXd train(3, 3);
  train << 0.6745, -0.6745, 0.6745,  // noise 1
      -6.745, 6.745, 6.745,          // noise 10
      0, 0, 0;                       // no noise: no threshold
  const Value params = Value::object({{"threshold", -4.0}, {"bin_s", 0.01}, {"refractory_s", 0.0}});
  const Model m = fit("threshold_crossings", params, f, train);
  Eigen::MatrixXd x = Eigen::MatrixXd::Zero(3, 10);
  x.col(3).setConstant(-5);
  x.col(6).setConstant(-50);
  const auto turned = named(time_format(3, 1000), {"c", "b", "a"});
  const auto y = apply("threshold_crossings", params, turned, x, &m);
  ASSERT_EQ(y.frames(), 1);
  EXPECT_TRUE(std::isnan(y.frame(0)[0]));
  EXPECT_EQ(y.frame(0)[1], 1);
  EXPECT_EQ(y.frame(0)[2], 2);
  EXPECT_THAT(message_of<ConfigError>([&] {
                apply("threshold_crossings", params, named(time_format(3, 1000), {"c", "b", "x"}), x, &m);
              }),
              HasSubstr("'a'"));
  EXPECT_THAT(message_of<ConfigError>([&] {
                apply("threshold_crossings", Value::object({{"threshold", 0.0}}), f, x, &m);
              }),
              HasSubstr("node.threshold = 0: expected a threshold above or below zero"));
}

/// Broadband at 30 kHz: noise, hum of the mains that all channels share, and spikes of 12 noise levels that last half a
/// millisecond, never nearer than 1 ms to the border of a bin of 20 ms. counts: of each channel and bin.
Eigen::MatrixXd broadband(Index channels, Index bins, const char* purpose, Eigen::MatrixXd& counts) {
  const KeyedRandom random(3, purpose);
  const Index length = 600;
  Eigen::MatrixXd x(channels, bins * length);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = random.normal(i);
  for (Index t = 0; t < x.cols(); ++t) x.col(t).array() += 40 * std::sin(2 * M_PI * 50 * static_cast<double>(t) / 3e4);
  counts = Eigen::MatrixXd::Zero(channels, bins);
  for (Index b = 0; b < bins; ++b)
    for (Index c = 0; c < channels; ++c)
      for (Index place = 0; place < 5; ++place) {
        if (random.normal(-1 - place - 5 * (c + channels * b)) < 0.5) continue;
        counts(c, b) += 1;
        const Index at = b * length + 40 + 100 * place + 16 * c;  // no two channels at once
        for (Index k = 0; k < 15; ++k) {
          const double phase = 2 * M_PI * static_cast<double>(k) / 15;
          x(c, at + k) -= 12 * std::sin(phase) * (k < 8 ? 1 : 0.4);
        }
      }
  return x;
}

TEST(ThresholdCrossings, FindTheSpikesOfBroadband) {
  Eigen::MatrixXd known, unused;
  const auto f = time_format(8, 30000, Scalar::f32);
  const Value band = Value::object({{"low_hz", 300.0}, {"high_hz", 6000.0}, {"order", 2}});
  const Value params = Value::object({{"threshold", -5.5}, {"bin_s", 0.02}});
  const auto filtered = [&](const Eigen::MatrixXd& x) {
    return apply("iir", band, f, apply("common_average", Value::table(), f, x).matrix()).matrix();
  };
  const Model m = fit("threshold_crossings", params, f, filtered(broadband(8, 20, "train", unused)));
  const Eigen::MatrixXd x = broadband(8, 50, "test", known);
  const Eigen::MatrixXd counted = apply("threshold_crossings", params, f, filtered(x), &m).matrix();
  EXPECT_GT(known.sum(), 400);
  EXPECT_EQ(counted, known);
  // and their number is what the power of the band says
  const Eigen::MatrixXd power = apply("band_power", Value::object({{"bin_s", 0.02}}), f,
                                      apply("iir", Value::object({{"low_hz", 300.0}, {"high_hz", 1000.0}}), f,
                                            apply("common_average", Value::table(), f, x).matrix())
                                          .matrix())
                                    .matrix();
  ASSERT_EQ(power.cols(), 50);
  const Eigen::ArrayXXd a = power.array() - power.mean(), b = known.array() - known.mean();
  EXPECT_GT((a * b).sum() / std::sqrt(a.square().sum() * b.square().sum()), 0.9);
}

}  // namespace
}  // namespace percept::testing
