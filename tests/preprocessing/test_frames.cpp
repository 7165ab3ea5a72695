/// Stages that change which frames there are, or what is in one: lag, bin, mask_rows, common_average, band_power,
/// transform.
#include "tests/preprocessing/support.h"

namespace percept::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Lag, StacksEarlierFramesAndNamesThem) {
  const Eigen::MatrixXd x = wave(2, 6);
  const auto y = apply("lag", Value::object({{"lags", 2}}), named(time_format(2, 100), {"a", "b"}), x);
  EXPECT_THAT(y.format.row_names(), ElementsAre("a", "b", "a[t-1]", "b[t-1]", "a[t-2]", "b[t-2]"));
  EXPECT_THAT(y.format.parts[0].shape, ElementsAre(3, 2));
  EXPECT_EQ(y.format.start_s, 0);
  ASSERT_EQ(y.frames(), 6);
  for (Index t = 0; t < 6; ++t)
    for (Index lag = 0; lag <= 2; ++lag)
      for (Index r = 0; r < 2; ++r) {
        const double v = y.frame(t)[2 * lag + r];
        if (lag > t) EXPECT_TRUE(std::isnan(v));
        else EXPECT_EQ(v, x(r, t - lag));
      }
}

TEST(Lag, TakesEveryNthFrameBefore) {
  const Eigen::MatrixXd x = wave(2, 12);
  const auto y = apply("lag", Value::object({{"lags", 2}, {"step", 4}}), named(time_format(2, 100), {"a", "b"}), x);
  EXPECT_THAT(y.format.row_names(), ElementsAre("a", "b", "a[t-4]", "b[t-4]", "a[t-8]", "b[t-8]"));
  EXPECT_THAT(y.format.parts[0].shape, ElementsAre(3, 2));
  ASSERT_EQ(y.frames(), 12);
  for (Index t = 0; t < 12; ++t)
    for (Index lag = 0; lag <= 2; ++lag)
      for (Index r = 0; r < 2; ++r) {
        const double v = y.frame(t)[2 * lag + r];
        if (4 * lag > t) EXPECT_TRUE(std::isnan(v));
        else EXPECT_EQ(v, x(r, t - 4 * lag));
      }
}

TEST(Lag, HoldsTheFirstFrameWhereAskedTo) {
  const Eigen::MatrixXd x = wave(2, 6);
  const auto y =
      apply("lag", Value::object({{"lags", 2}, {"before", "hold"}}), named(time_format(2, 100), {"a", "b"}), x);
  ASSERT_EQ(y.frames(), 6);
  for (Index t = 0; t < 6; ++t)
    for (Index lag = 0; lag <= 2; ++lag)
      for (Index r = 0; r < 2; ++r) EXPECT_EQ(y.frame(t)[2 * lag + r], x(r, std::max<Index>(0, t - lag)));
}

TEST(Lag, TellsRowsOfTwoPartsApart) {
  StreamFormat f = named(time_format(1, 100, Scalar::f64, "power"), {"a"});
  f.parts.push_back(named(time_format(1, 100, Scalar::f64, "counts"), {"a"}).parts[0]);
  const auto y = apply("lag", Value::object({{"lags", 1}}), f, wave(2, 3));
  EXPECT_THAT(y.format.row_names(), ElementsAre("power.a", "counts.a", "power.a[t-1]", "counts.a[t-1]"));
}

TEST(Bin, SumsMeansAndCounts) {
  Eigen::MatrixXd x(2, 7);
  x << 1, 0, 2, 3, 0, 0, 9,  //
      1, 2, kNaN, kNaN, kNaN, kNaN, 9;
  auto run = [&](const char* statistic) {
    return apply("bin", Value::object({{"bin_s", 0.03}, {"statistic", statistic}}), time_format(2, 100), x);
  };
  const auto sum = run("sum"), mean = run("mean"), count = run("count");
  ASSERT_EQ(sum.frames(), 2);  // the seventh frame fills no bin
  EXPECT_NEAR(sum.format.rate_hz, 100.0 / 3, 1e-12);
  EXPECT_DOUBLE_EQ(sum.format.start_s, 0.01);  // centre of frames 0, 1, 2
  EXPECT_EQ(sum.frame(0)[0], 3);
  EXPECT_EQ(sum.frame(1)[0], 3);
  EXPECT_EQ(mean.frame(0)[0], 1);
  EXPECT_EQ(count.frame(0)[0], 2);
  EXPECT_EQ(count.frame(1)[0], 1);
  EXPECT_TRUE(std::isnan(sum.frame(0)[1]));
  EXPECT_TRUE(std::isnan(count.frame(0)[1]));
  EXPECT_EQ(mean.frame(0)[1], 1.5);
  EXPECT_TRUE(std::isnan(mean.frame(1)[1]));
}

TEST(Bin, RefusesABinThatIsNoWholeNumberOfFrames) {
  EXPECT_THAT(refusal("bin", Value::object({{"bin_s", 0.025}}), time_format(2, 100)),
              ::testing::AllOf(HasSubstr("node.bin_s = 0.025 s"), HasSubstr("frames of 0.01 s")));
  EXPECT_THAT(refusal("bin", Value::object({{"bin_s", 0.001}}), time_format(2, 100)), HasSubstr("node.bin_s"));
}

TEST(MaskRows, MasksByNameAndPosition) {
  const Eigen::MatrixXd x = wave(3, 4);
  const Value params =
      Value::object({{"rows", Value(std::vector<std::string>{"b"})}, {"indices", Value(std::vector<std::int64_t>{2})}});
  const auto y = apply("mask_rows", params, named(time_format(3, 100), {"a", "b", "c"}), x);
  for (Index t = 0; t < 4; ++t) {
    EXPECT_EQ(y.frame(t)[0], x(0, t));
    EXPECT_TRUE(std::isnan(y.frame(t)[1]));
    EXPECT_TRUE(std::isnan(y.frame(t)[2]));
  }
  EXPECT_TRUE(y.format.parts[0].rows[0].good);
  EXPECT_FALSE(y.format.parts[0].rows[1].good);
  EXPECT_THAT(refusal("mask_rows", Value::object({{"rows", Value(std::vector<std::string>{"chan_1"})}}),
                      named(time_format(2, 100), {"chan1", "chan2"})),
              ::testing::AllOf(HasSubstr("node.rows = \"chan_1\""), HasSubstr("did you mean 'chan1'")));
  EXPECT_THAT(
      refusal("mask_rows", Value::object({{"indices", Value(std::vector<std::int64_t>{2})}}), time_format(2, 100)),
      HasSubstr("node.indices = 2: expected 0 to 1"));
}

TEST(MaskRows, FindsFlatAndWildRowsAndLetsThemRecover) {
  StageInput in{.format = time_format(2, 100), .frames = wave(2, 40)};
  in.format.start_s = 5;
  in.frames.row(0).segment(10, 6).setConstant(0.5);  // flat from its third repeat on: frames 13 to 15
  in.frames(1, 20) = -8;
  auto stage = make("mask_rows", Value::object({{"flat_s", 0.03}, {"max_abs", 4.0}, {"recover_s", 0.02}}));
  const auto y = run_stage(*stage, in, {}, {}, context_of());
  for (Index t = 0; t < 40; ++t) {
    EXPECT_EQ(std::isnan(y.frame(t)[0]), t >= 13 && t <= 16) << t;  // fine at 16, for 0.02 s at 17
    EXPECT_EQ(std::isnan(y.frame(t)[1]), t == 20 || t == 21) << t;
  }
  ASSERT_EQ(y.events.size(), 4u);
  auto expect = [&](std::size_t i, double onset, int row, const char* label, double value) {
    EXPECT_DOUBLE_EQ(y.events[i].onset_s, onset);
    EXPECT_EQ(y.events[i].row, row);
    EXPECT_EQ(y.events[i].label.text(), label);
    EXPECT_EQ(y.events[i].value, value);
    EXPECT_EQ(y.events[i].id, static_cast<std::int64_t>(i));
  };
  expect(0, 5.13, 0, "bad_row_flat", 0.5);
  expect(1, 5.17, 0, "good_row", in.frames(0, 17));
  expect(2, 5.20, 1, "bad_row_range", -8);
  expect(3, 5.22, 1, "good_row", in.frames(1, 22));
}

TEST(MaskRows, TellsOfEveryRowEvenWhereThereIsLittleRoom) {
  auto stage = make("mask_rows", Value::object({{"max_abs", 1.0}, {"recover_s", 10.0}}));
  auto c = context_of();
  StreamFormat f = time_format(9, 100);
  f.max_frames = 1;
  stage->prepare(f, c);
  Eigen::VectorXd x = Eigen::VectorXd::Constant(9, 2.0), y(9);
  std::vector<int> rows;
  std::int64_t lost = 0;
  auto drain = [&](auto&& call) {
    std::vector<Event> room(4);
    Output o;
    o.y = MutableFrames(y.data(), Scalar::f64, 9, 1, 9);
    o.events = room.data();
    o.event_room = 4;
    call(o);
    for (Index i = 0; i < o.n_events; ++i) rows.push_back(room[static_cast<std::size_t>(i)].row);
    lost += o.lost_events;
  };
  for (int t = 0; t < 2; ++t)
    drain([&](Output& o) {
      stage->process({.x = ConstFrames(x.data(), Scalar::f64, 9, 1, 9), .first_frame = t, .keys = {}, .events = {}}, o);
    });
  drain([&](Output& o) { EXPECT_EQ(stage->flush(o), 0); });
  EXPECT_THAT(rows, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8));
  EXPECT_EQ(lost, 0);
}

TEST(CommonAverage, IsOverTheGoodRowsThatAreThere) {
  Eigen::MatrixXd x(4, 2);
  x << 1, 1,    //
      2, kNaN,  //
      6, kNaN,  //
      100, 50;
  StreamFormat f = named(time_format(4, 100), {"a", "b", "c", "d"});
  f.parts[0].rows[3].good = false;
  const auto y = apply("common_average", Value::table(), f, x).matrix();
  EXPECT_EQ(y.col(0), Eigen::Vector4d(-2, -1, 3, 97));
  EXPECT_TRUE(y.col(1).array().isNaN().all());  // one row against itself says nothing
  f.parts[0].rows[1].unit = "V";
  EXPECT_THAT(refusal("common_average", Value::table(), f), HasSubstr("row 'b' in V"));
  EXPECT_THAT(refusal("common_average", Value::table(), time_format(1, 100)), HasSubstr("at least two"));
}

TEST(CommonAverage, StaysWithinItsGroup) {
  Eigen::MatrixXd x(7, 2);
  x << 1, 1,      //
      2, 2,       //
      9, kNaN,    //
      -10, -10,   //
      -30, kNaN,  //
      -20, kNaN,  //
      5, 5;
  StreamFormat f = named(time_format(7, 100), {"a", "b", "c", "d", "e", "f", "g"});
  const char* kinds[] = {"m1", "m1", "m1", "pmd", "pmd", "pmd", "m1"};
  for (std::size_t r = 0; r < 7; ++r) f.parts[0].rows[r].kind = kinds[r];
  const auto by_kind = apply("common_average", Value::object({{"groups", "kind"}}), f, x).matrix();
  Eigen::VectorXd expected(7);
  expected << -3.25, -2.25, 4.75, 10, -10, 0, 0.75;
  EXPECT_EQ(by_kind.col(0), expected);
  EXPECT_NEAR(by_kind(6, 1), 5 - 8.0 / 3, 1e-15);
  EXPECT_TRUE(std::isnan(by_kind(3, 1)));  // the only one left of its group

  const auto median =
      apply("common_average", Value::object({{"groups", "kind"}, {"statistic", "median"}}), f, x).matrix();
  expected << -2.5, -1.5, 5.5, 10, -10, 0, 1.5;  // about (2 + 5) / 2 and -20
  EXPECT_EQ(median.col(0), expected);
  EXPECT_EQ(median(6, 1), 3);  // of 1, 2, 5

  x(6, 0) = 200;
  EXPECT_THAT(refusal("common_average", Value::object({{"group_rows", 3}}), f),
              HasSubstr("node.groups = 1 good rows from 'g' to 'g': expected at least two"));
  const auto cut = apply("common_average", Value::object({{"group_rows", 4}}), f, x).matrix();
  expected << 0.5, 1.5, 8.5, -10.5, -80, -70, 150;
  EXPECT_EQ(cut.col(0), expected);
  f.parts[0].rows[2].kind = "";
  EXPECT_THAT(refusal("common_average", Value::object({{"groups", "kind"}}), f),
              HasSubstr("node.groups = \"kind\", and row 'c' has none: expected rows that have kinds"));
}

TEST(CommonAverage, TakesPartsForThemselves) {
  StreamFormat f = time_format(2, 100, Scalar::f64, "left");
  f.parts.push_back(time_format(3, 100, Scalar::f64, "right").parts[0]);
  f.parts[1].unit = "V";  // averaged by itself, it may have its own
  Eigen::MatrixXd x(5, 1);
  x << 1, 3, 10, 20, 60;
  Eigen::VectorXd expected(5);
  expected << -1, 1, -20, -10, 30;
  EXPECT_EQ(apply("common_average", Value::object({{"groups", "part"}}), f, x).matrix(), expected);
  EXPECT_THAT(refusal("common_average", Value::table(), f), HasSubstr("rows of one unit"));
}

// so many rows that they are summed in lanes; the missing ones are summed one by one
TEST(CommonAverage, OfManyRowsIsTheirMean) {
  Eigen::MatrixXd x = wave(261, 3);
  x(77, 1) = kNaN;
  x(78, 1) = 1e200;
  const auto y = apply("common_average", Value::table(), time_format(261, 100), x).matrix();
  for (Index t = 0; t < 3; ++t) {
    double sum = 0, n = 0;
    for (Index r = 0; r < 261; ++r)
      if (std::abs(x(r, t)) < 1e100) sum += x(r, t), n += 1;
    EXPECT_EQ(n, t == 1 ? 259 : 261);
    for (Index r = 0; r < 261; ++r) {
      if (t == 1 && (r == 77 || r == 78)) continue;
      EXPECT_NEAR(y(r, t), x(r, t) - sum / n, 1e-12) << r << " " << t;
    }
  }
}

TEST(BandPower, IsTheMeanSquareOfWhatIsThere) {
  Eigen::MatrixXd x = wave(10, 65);
  x(2, 21) = kNaN;
  x.row(9).segment(40, 20).setConstant(kNaN);
  x.row(4).setZero();
  StreamFormat f = time_format(10, 1000);
  f.parts[0].unit = "V";
  f.start_s = 5;
  Counters counters;
  auto run = [&](const char* scale) {
    auto stage = make("band_power", Value::object({{"bin_s", 0.02}, {"scale", scale}}));
    return run_stage(*stage, {.format = f, .frames = x}, {.block = 7}, {}, context_of(&counters));
  };
  const auto power = run("power"), root = run("root");
  EXPECT_EQ(counters.get("node", "undefined").value(), 0);
  const auto log = run("log");
  EXPECT_EQ(counters.get("node", "undefined").value(), 3);  // row 4 is silent in three bins
  EXPECT_EQ(power.format.parts[0].unit, "V^2");
  EXPECT_EQ(root.format.parts[0].unit, "V");
  EXPECT_EQ(log.format.parts[0].unit, "1");
  EXPECT_DOUBLE_EQ(power.format.rate_hz, 50);
  EXPECT_DOUBLE_EQ(power.format.start_s, 5.0095);  // the middle of frames 0 ... 19
  ASSERT_EQ(power.frames(), 3);                    // five frames fill no bin
  for (Index bin = 0; bin < 3; ++bin)
    for (Index r = 0; r < 10; ++r) {
      double sum = 0, n = 0;
      for (Index t = 20 * bin; t < 20 * bin + 20; ++t)
        if (!std::isnan(x(r, t))) sum += x(r, t) * x(r, t), n += 1;
      if (n == 0) {
        EXPECT_TRUE(std::isnan(power.frame(bin)[r]));
        EXPECT_EQ(r, 9);
        continue;
      }
      EXPECT_NEAR(power.frame(bin)[r], sum / n, 1e-13);
      EXPECT_NEAR(root.frame(bin)[r], std::sqrt(sum / n), 1e-13);
      if (r == 4) EXPECT_TRUE(std::isnan(log.frame(bin)[r]));
      else EXPECT_NEAR(log.frame(bin)[r], std::log(sum / n), 1e-12);
    }
}

// a tone of amplitude a has power a^2 / 2, times the gain of a Butterworth filter: 1 / (1 + u^(2 order)) with
// u = (w^2 - low high) / (w (high - low)), frequencies as tan(pi f / rate)
TEST(BandPower, AfterAFilterIsThatOfTheBand) {
  Eigen::MatrixXd x(1, 60000);
  for (Index t = 0; t < 60000; ++t) x(0, t) = 3 * std::sin(2 * M_PI * 600 * static_cast<double>(t) / 30000);
  for (const auto& [low, high] : {std::pair{300.0, 1000.0}, std::pair{2000.0, 6000.0}}) {
    const auto band =
        apply("iir", Value::object({{"low_hz", low}, {"high_hz", high}}), time_format(1, 30000), x).matrix();
    const auto y = apply("band_power", Value::object({{"bin_s", 0.02}}), time_format(1, 30000), band);
    ASSERT_EQ(y.frames(), 100);
    const auto warped = [](double hz) { return std::tan(M_PI * hz / 30000); };
    const double w = warped(600), l = warped(low), h = warped(high), u = (w * w - l * h) / (w * (h - l));
    const double expected = 4.5 / (1 + std::pow(u, 8));  // the bin is twelve whole periods
    EXPECT_NEAR(y.frame(99)[0], expected, 1e-9 * expected) << low;
  }
}

TEST(BandPower, RunningMeanForgetsExponentially) {
  const double rate = 100, tau = 0.5, a = 1 - std::exp(-1 / (tau * rate));
  Eigen::MatrixXd x = Eigen::MatrixXd::Constant(1, 900, 2);
  x.row(0).tail(300).setConstant(1);
  x(0, 700) = kNaN;
  const auto y =
      apply("band_power", Value::object({{"bin_s", 0.0}, {"time_constant_s", tau}}), time_format(1, rate), x);
  EXPECT_EQ(y.format.rate_hz, rate);
  ASSERT_EQ(y.frames(), 900);
  for (Index t = 0; t < 600; ++t) EXPECT_NEAR(y.frame(t)[0], 4, 1e-12);
  for (Index t = 600; t < 900; ++t) {
    if (t == 700) EXPECT_TRUE(std::isnan(y.frame(t)[0]));
    else EXPECT_NEAR(y.frame(t)[0], 1 + 3 * std::pow(1 - a, static_cast<double>(t - 599 - (t > 700))), 1e-12) << t;
  }
  EXPECT_THAT(refusal("band_power", Value::object({{"bin_s", 0.0}}), time_format(1, rate)),
              HasSubstr("node.bin_s = 0 s: expected a length, or a time_constant_s"));
  EXPECT_THAT(refusal("band_power", Value::object({{"bin_s", 0.015}}), time_format(1, rate)),
              HasSubstr("node.bin_s = 0.015 s: expected a whole number of frames of 0.01 s"));
}

TEST(Transform, AppliesTheFunctionAndCountsWhatHasNoValue) {
  Eigen::MatrixXd x(1, 3);
  x << 4, -1, kNaN;
  StreamFormat f = time_format(1, 100);
  f.parts[0].unit = "V";
  auto first = [&](const char* function) {
    return apply("transform", Value::object({{"function", function}}), f, x).frame(0)[0];
  };
  EXPECT_EQ(first("sqrt"), 2);
  EXPECT_EQ(first("square"), 16);
  EXPECT_EQ(first("abs"), 4);
  EXPECT_EQ(first("log1p"), std::log(5.0));
  EXPECT_EQ(apply("transform", Value::object({{"function", "square"}}), f, x).format.parts[0].unit, "V^2");
  for (const char* function : {"sqrt", "log1p"}) {
    Counters counters;
    auto stage = make("transform", Value::object({{"function", function}}));
    const auto y = run_stage(*stage, {.format = f, .frames = x}, {}, {}, context_of(&counters));
    EXPECT_TRUE(std::isnan(y.frame(1)[0]));
    EXPECT_TRUE(std::isnan(y.frame(2)[0]));
    EXPECT_EQ(counters.get("node", "undefined").value(), 1) << function;  // -1; a missing value is not an error
  }
}

}  // namespace
}  // namespace percept::testing
