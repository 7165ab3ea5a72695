/// iir and iir_zero_phase.
#include "preprocessing/iir.h"

#include <complex>
#include <cstring>

#include "core/runner.h"
#include "tests/preprocessing/support.h"

namespace percept::testing {
namespace {

using ::testing::HasSubstr;

/// k = arange(400); x = sin(2 pi 3.1 k / 250) + 0.5 cos(2 pi 47 k / 250) + 0.01 ((7919 k) % 101)
Eigen::MatrixXd two_tones() {
  Eigen::MatrixXd x(1, 400);
  for (Index t = 0; t < 400; ++t) {
    const auto k = static_cast<double>(t);
    x(0, t) = std::sin(2 * M_PI * 3.1 * k / 250) + 0.5 * std::cos(2 * M_PI * 47 * k / 250) +
              0.01 * static_cast<double>((t * 7919) % 101);
  }
  return x;
}

Value designed(const char* family, std::int64_t order, const char* pass, double low, double high) {
  return Value::object({{"family", family}, {"order", order}, {"pass", pass}, {"low_hz", low}, {"high_hz", high}});
}

double gain_at(const std::vector<Biquad>& sections, double hz, double rate_hz) {
  const std::complex<double> w = std::polar(1.0, -2 * M_PI * hz / rate_hz);
  std::complex<double> h = 1;
  for (const Biquad& s : sections) h *= (s.b0 + s.b1 * w + s.b2 * w * w) / (1.0 + s.a1 * w + s.a2 * w * w);
  return std::abs(h);
}

// SciPy 1.17, x as above, S = scipy.signal, every filter with fs=250 and output='sos':
// S.sosfilt(sos, x)[[0, 7, 50, 399]] and S.sosfilt(sos, x, zi=S.sosfilt_zi(sos) * x[0])[0][[0, 7, 50, 399]]
TEST(Iir, EqualsScipy) {
  struct Case {
    Value params;
    std::vector<double> zero, steady;
  };
  auto with = [](Value params, const char* key, Value v) {
    params[key] = std::move(v);
    return params;
  };
  const std::vector<Case> cases{
      // butter(4, [8, 30], 'band')
      {designed("butterworth", 4, "band", 8, 30),
       {0.001555951802293009, 0.011546246440136729, -0.040985043218715426, 0.013012935411951997},
       {0.0, 0.021333942458379343, -0.06761006150382418, 0.013012934505713773}},
      // butter(5, 20, 'low')
      {designed("butterworth", 5, "low", 1, 20),
       {0.00024471804306733485, 0.33759503372725824, 0.19851641639734277, -0.18882314202065414},
       {0.5, 0.5306177960865411, 0.19836419449780432, -0.18882314202065414}},
      // butter(3, 5, 'high')
      {designed("butterworth", 3, "high", 5, 40),
       {0.4409190992872072, 0.2520650977286077, -0.42148490248355197, 0.9004618111135807},
       {0.0, 0.31964916052511644, -0.43943924413219093, 0.9004618111103255}},
      // butter(2, [45, 55], 'stop')
      {designed("butterworth", 2, "stop", 45, 55),
       {0.4185445952831723, 1.1752970261955311, -0.39681426293946154, 0.2858188413547767},
       {0.5, 1.1809698800707027, -0.39671410227243736, 0.28581884135477675}},
      // butter(3, [2, 110], 'band'), so wide that two poles are real
      {designed("butterworth", 3, "band", 2, 110),
       {0.3250528624526069, 0.8442934836723578, -1.0837387467147748, 1.902869651905446},
       {0.0, 0.6702431852438638, -0.9913105617432056, 1.902843771370411}},
      // cheby1(4, .5, [8, 30], 'band')
      {designed("chebyshev1", 4, "band", 8, 30),
       {0.0007710229760760371, 0.022692962192007116, -0.0285333666715266, 0.05135309258012382},
       {0.0, 0.010082003662493167, -0.070367737818373, 0.05132144320097083}},
      // cheby1(5, 1, 20, 'low')
      {with(designed("chebyshev1", 5, "low", 1, 20), "ripple_db", 1.0),
       {4.9983275055155226e-05, 0.1594740134835808, 0.35528019585288695, -0.2806666503601947},
       {0.5, 0.5141341373752306, 0.3497868820799666, -0.28066664737462504}},
      // cheby1(4, 3, 20, 'high')
      {with(designed("chebyshev1", 4, "high", 20, 40), "ripple_db", 3.0),
       {0.16833035171628274, -0.1977929150078147, -0.7122655200158023, 0.30065900695433684},
       {0.0, -0.25251719944253337, -0.7090890339860004, 0.3006590058682823}},
      // cheby2(5, 40, 20, 'low')
      {designed("chebyshev2", 5, "low", 1, 20),
       {0.004731665685778089, 0.20969082110760315, 0.30749943616764797, -0.2725807521017598},
       {0.5, 0.5376345420487454, 0.31353112672829736, -0.27258075210176536}},
      // cheby2(4, 30, [8, 30], 'band')
      {with(designed("chebyshev2", 4, "band", 8, 30), "stop_db", 30.0),
       {0.016280430783210623, 0.07666841021393744, 0.015091443966199415, 0.020849529147215672},
       {0.015811388300841625, 0.07162542699353912, 0.027536964581066546, 0.020849688007748654}},
      // cheby2(3, 30, [45, 55], 'stop')
      {with(designed("chebyshev2", 3, "stop", 45, 55), "stop_db", 30.0),
       {0.31414698266894014, 1.1223583110651958, -0.4068013784960936, 0.32731530316806},
       {0.5, 1.1393670004074412, -0.40613468476594894, 0.32731530316806}},
      // cheby2(5, 60, 5, 'high')
      {with(designed("chebyshev2", 5, "high", 5, 40), "stop_db", 60.0),
       {0.321497383956472, -0.1498417532193047, -0.8227049768210162, 0.7237850073195148},
       {0.0, -0.12668694514223292, -0.8237109631628708, 0.7237850073195151}},
      // b, a = iirnotch(50, 25, fs=250)
      {Value::object({{"pass", "notch"}, {"notch_hz", Value(std::vector<double>{50.0})}, {"width_hz", 2.0}}),
       {0.487739195375267, 1.1707562426476956, -0.608102892318902, 1.0351883344263022},
       {0.5, 1.1709316882008243, -0.6046403786292458, 1.035187751503341}}};
  const Index at[] = {0, 7, 50, 399};
  for (const Case& c : cases) {
    const std::string what = to_json(c.params);
    const auto zero = apply("iir", with(c.params, "initial", "zero"), time_format(1, 250), two_tones());
    const auto steady = apply("iir", c.params, time_format(1, 250), two_tones());
    ASSERT_EQ(zero.frames(), 400) << what;
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(zero.frame(at[i])[0], c.zero[i], 1e-11) << what << " " << at[i];
      EXPECT_NEAR(steady.frame(at[i])[0], c.steady[i], 1e-11) << what << " " << at[i];
    }
  }
}

// the definition of each family, at the rate and with the edges of spikes
TEST(Iir, HasTheGainOfItsFamilyAtTheEdges) {
  const double rate = 30000, low = 300, high = 1000, tolerance = 1e-9;
  for (const Index order : {1, 2, 3, 4, 7, 8}) {
    for (const char* pass : {"low", "high", "band", "stop"}) {
      const auto butterworth = iir_design("butterworth", pass, order, low, high, 0, 0, rate);
      const auto first = iir_design("chebyshev1", pass, order, low, high, 0.5, 0, rate);
      const auto second = iir_design("chebyshev2", pass, order, low, high, 0, 40, rate);
      const bool two = std::strlen(pass) == 4 && std::strcmp(pass, "high") != 0;
      EXPECT_EQ(static_cast<Index>(butterworth.size()), two ? order : (order + 1) / 2) << pass << order;
      for (const double edge : {low, high}) {
        if ((edge == low && std::strcmp(pass, "low") == 0) || (edge == high && std::strcmp(pass, "high") == 0))
          continue;
        EXPECT_NEAR(gain_at(butterworth, edge, rate), std::sqrt(0.5), tolerance) << pass << order << " " << edge;
        EXPECT_NEAR(gain_at(first, edge, rate), std::pow(10, -0.5 / 20), tolerance) << pass << order << " " << edge;
        EXPECT_NEAR(gain_at(second, edge, rate), std::pow(10, -40.0 / 20), tolerance) << pass << order << " " << edge;
      }
    }
  }
  // 0.5 dB of ripple and no more inside, 40 dB and no less outside
  for (double f = 300; f <= 1000; f += 7)
    EXPECT_GE(gain_at(iir_design("chebyshev1", "band", 5, low, high, 0.5, 0, rate), f, rate),
              std::pow(10, -0.5 / 20) - tolerance);
  for (double f = 1; f < 300; f += 7)
    EXPECT_LE(gain_at(iir_design("chebyshev2", "band", 5, low, high, 0, 40, rate), f, rate), 0.01 + tolerance);
}

TEST(Iir, NotchesLieWhereTheyAreAskedFor) {
  const std::vector<Biquad> n{notch(50, 2, 1000), notch(150, 2, 1000)};
  EXPECT_NEAR(gain_at(n, 50, 1000), 0, 1e-12);
  EXPECT_NEAR(gain_at(n, 150, 1000), 0, 1e-12);
  EXPECT_NEAR(gain_at({n[0]}, 51, 1000), std::sqrt(0.5), 0.01);  // the -3 dB points lie nearly symmetrically
  EXPECT_NEAR(gain_at({n[0]}, 49, 1000), std::sqrt(0.5), 0.01);
  EXPECT_NEAR(gain_at(n, 0, 1000), 1, 1e-12);
  EXPECT_NEAR(gain_at(n, 500, 1000), 1, 1e-12);
}

TEST(Iir, SaysNothingOfAnOffset) {
  const Eigen::MatrixXd x = Eigen::MatrixXd::Constant(3, 50, 4200.1);
  const auto band = apply("iir", designed("butterworth", 4, "band", 8, 30), time_format(3, 250), x);
  const auto low = apply("iir", designed("butterworth", 4, "low", 8, 30), time_format(3, 250), x);
  for (Index t = 0; t < 50; ++t) {
    EXPECT_EQ(band.frame(t)[1], 0) << t;  // not a transient that has to fade
    EXPECT_NEAR(low.frame(t)[1], 4200.1, 1e-9) << t;
  }
}

TEST(Iir, HoldsWhatIsMissingAndCountsIt) {
  // two tiles of rows and a part of one; the second is whole but for one frame
  Eigen::MatrixXd x = wave(35, 300), held = x;
  auto lose = [&](Index r, Index t, double value) {
    x(r, t) = value;
    held(r, t) = t > 0 ? held(r, t - 1) : 0;
  };
  std::int64_t lost = 0;
  for (Index t = 100; t < 130; ++t, ++lost) lose(3, t, kNaN);
  for (Index r = 0; r < 35; ++r, ++lost) lose(r, 200, kNaN);
  lose(34, 250, std::numeric_limits<double>::infinity());
  lose(34, 251, -1e101);  // no measurement, and its square would overflow
  lost += 2;
  const Value params = designed("butterworth", 4, "band", 8, 30);
  Counters counters;
  auto stage = make("iir", params);
  const auto y = run_stage(*stage, {.format = time_format(35, 250), .frames = x}, {}, {}, context_of(&counters));
  const auto expected = apply("iir", params, time_format(35, 250), held);
  for (Index t = 0; t < 300; ++t)
    for (Index r = 0; r < 35; ++r) {
      const bool missing = !(std::abs(x(r, t)) < 1e100);
      if (missing) EXPECT_TRUE(std::isnan(y.frame(t)[r])) << t << " " << r;
      else EXPECT_EQ(y.frame(t)[r], expected.frame(t)[r]) << t << " " << r;
    }
  EXPECT_EQ(counters.get("node", "held").value(), lost);
}

TEST(Iir, ARowBeginsWithItsFirstValue) {
  Eigen::MatrixXd x = wave(2, 100);
  x.row(1).head(37).setConstant(kNaN);
  for (const char* initial : {"steady", "zero"}) {
    Value params = designed("butterworth", 3, "low", 8, 30);
    params["initial"] = initial;
    const auto y = apply("iir", params, time_format(2, 250), x);
    const auto late = apply("iir", params, time_format(1, 250), x.row(1).tail(63));
    for (Index t = 0; t < 100; ++t) {
      if (t < 37) EXPECT_TRUE(std::isnan(y.frame(t)[1])) << t;
      else EXPECT_EQ(y.frame(t)[1], late.frame(t - 37)[0]) << t << " " << initial;
    }
  }
}

/// Whether any array of the state has a number too small for the normal range.
class Subnormal final : public StateVisitor {
 public:
  void raw(const char* name, void* data, std::size_t bytes) noexcept override {
    if (std::strcmp(name, "delays") != 0) return;
    for (std::size_t i = 0; i < bytes / sizeof(double); ++i) {
      const double v = static_cast<double*>(data)[i];
      found = found || (v != 0 && !std::isnormal(v));
      moved = moved || v != 0;
    }
  }
  bool found = false, moved = false;
};

// a silent row would fade into subnormal numbers, which take the processor a hundred times longer
TEST(Iir, FadesToZeroWithoutSubnormalNumbers) {
  auto stage = make("iir", designed("butterworth", 2, "band", 8, 30));
  Eigen::MatrixXd x = Eigen::MatrixXd::Zero(1, 20000);
  x(0, 1) = 1;
  const StageInput in{.format = time_format(1, 250), .frames = x};
  StageDriver driver(*stage, in, {.block = 100});
  bool found = false, moved = false;
  for (Index t = 0; t < 20000; t += 100) {
    driver.push(t, 100);
    Subnormal now;
    stage->visit_state(now);
    found = found || now.found;
    moved = moved || now.moved;
  }
  EXPECT_TRUE(moved);
  EXPECT_FALSE(found);
  EXPECT_EQ(driver.output().frame(19999)[0], 0);
}

TEST(Iir, TakesSectionsAsTheyAre) {
  // butter(2, 20, fs=250, output='sos'), scaled by 2 throughout
  const auto s = iir_design("butterworth", "low", 2, 0, 20, 0, 0, 250);
  ASSERT_EQ(s.size(), 1u);
  const Value params = Value::object(
      {{"sections", Value(std::vector<double>{2 * s[0].b0, 2 * s[0].b1, 2 * s[0].b2, 2.0, 2 * s[0].a1, 2 * s[0].a2})}});
  const auto a = apply("iir", params, time_format(2, 250), wave(2, 80));
  const auto b = apply("iir", designed("butterworth", 2, "low", 1, 20), time_format(2, 250), wave(2, 80));
  EXPECT_EQ(a.matrix(), b.matrix());
}

TEST(Iir, RefusesWhatCannotBe) {
  auto refuse = [](Value params) { return refusal("iir", params, time_format(2, 250)); };
  EXPECT_THAT(refuse(designed("butterworth", 4, "band", 8, 125)),
              HasSubstr("node.high_hz = 125 Hz: expected an edge between 0 and half the rate, 125 Hz"));
  EXPECT_THAT(refuse(designed("butterworth", 4, "high", 0, 125)), HasSubstr("node.low_hz = 0 Hz"));
  EXPECT_THAT(refuse(designed("butterworth", 4, "band", 30, 8)),
              HasSubstr("node.low_hz = 30 Hz: expected less than high_hz = 8 Hz"));
  EXPECT_THAT(refuse(Value::object({{"pass", "notch"}})),
              HasSubstr("node.notch_hz = []: expected at least one frequency"));
  EXPECT_THAT(refuse(Value::object({{"pass", "notch"}, {"notch_hz", Value(std::vector<double>{150.0})}})),
              HasSubstr("node.notch_hz = 150 Hz: expected a frequency between 0 and half the rate, 125 Hz"));
  EXPECT_THAT(
      refuse(Value::object({{"pass", "notch"}, {"notch_hz", Value(std::vector<double>{50.0})}, {"width_hz", 120.0}})),
      HasSubstr("node.width_hz = 120 Hz: expected a gap about 50 Hz that lies between 0 and half the rate"));
  EXPECT_THAT(refuse(Value::object({{"sections", Value(std::vector<double>{1.0, 2.0})}})),
              HasSubstr("node.sections = 2 numbers: expected six a section"));
  EXPECT_THAT(refuse(Value::object({{"sections", Value(std::vector<double>{1.0, 0.0, 0.0, 0.0, 0.0, 0.0})}})),
              HasSubstr("node.sections = a0 = 0 in section 1"));
  EXPECT_THAT(refuse(Value::object({{"sections", Value(std::vector<double>{1.0, 0.0, 0.0, 1.0, -2.0, 1.0})}})),
              HasSubstr("node.sections = section 1 is not stable"));
  EXPECT_THAT(refusal("iir", designed("butterworth", 16, "high", 1e-14, 1), time_format(1, 3e4)),
              HasSubstr("node.low_hz = a filter whose poles are not inside the unit circle"));
  EXPECT_THAT(refusal("iir", Value::table(), item_format({4})), HasSubstr("node"));
}

// SciPy 1.17, x as above: scipy.signal.sosfiltfilt(sos, x, padlen=n)[[0, 7, 200, 399]], where n are the frames until the
// slowest pole has faded to 1e-3
TEST(IirZeroPhase, EqualsScipy) {
  struct Case {
    Value params;
    std::vector<double> expected;
  };
  const Index at[] = {0, 7, 200, 399};
  for (const Case& c : {
           // butter(2, [8, 30], 'band', fs=250), padlen=68
           Case{designed("butterworth", 2, "band", 8, 30),
                {0.00010407870588738377, -0.006117043258723438, -0.051805280230138195, 3.729209357183905e-05}},
           // butter(3, 20, 'low', fs=250), padlen=29
           Case{designed("butterworth", 3, "low", 1, 20),
                {0.5000596890665592, 0.9510600495133743, 0.5976044337210341, 1.1553778560141947}},
       }) {
    const auto y = apply("iir_zero_phase", c.params, time_format(1, 250), two_tones());
    ASSERT_EQ(y.frames(), 400);
    EXPECT_EQ(y.format.start_s, 0);
    for (std::size_t i = 0; i < 4; ++i)
      EXPECT_NEAR(y.frame(at[i])[0], c.expected[i], 1e-11) << to_json(c.params) << " " << at[i];
  }
}

TEST(IirZeroPhase, HasNoSideInTime) {
  Eigen::MatrixXd x = Eigen::MatrixXd::Zero(18, 501);
  x.col(250).setOnes();
  x(17, 100) = x(17, 400) = kNaN;
  const auto y = apply("iir_zero_phase", designed("butterworth", 2, "band", 8, 30), time_format(18, 250), x).matrix();
  EXPECT_GT(y(3, 250), 0.05);
  for (Index k = 1; k <= 250; ++k) {
    EXPECT_NEAR(y(3, 250 - k), y(3, 250 + k), 1e-12) << k;
    EXPECT_EQ(y(16, 250 + k), y(3, 250 + k));  // in the second tile of rows
  }
  EXPECT_TRUE(std::isnan(y(17, 100)) && std::isnan(y(17, 400)));
  EXPECT_NEAR(y(17, 250), y(3, 250), 1e-12);
  EXPECT_NEAR(y(17, 99), y(17, 401), 1e-12);
  // a single frame has nothing beyond it
  const auto one = apply("iir_zero_phase", designed("butterworth", 2, "low", 8, 30), time_format(1, 250),
                         Eigen::MatrixXd::Constant(1, 1, 3));
  ASSERT_EQ(one.frames(), 1);
  EXPECT_NEAR(one.frame(0)[0], 3, 1e-12);
}

TEST(IirZeroPhase, RunsInTilesOfRowsOffline) {
  const Eigen::MatrixXd x = wave(24, 150000);  // so long that the runner cannot take all rows at once
  const Value params = designed("butterworth", 2, "low", 8, 100);
  const Eigen::MatrixXd whole = apply("iir_zero_phase", params, time_format(24, 1000), x).matrix();
  Recording recording;
  recording.streams.push_back(memory_stream("lfp", x, 1000));
  NodeSpec node;
  node.name = node.where = node.use = "iir_zero_phase";
  node.from = {"lfp"};
  node.params = params;
  RunOptions options;
  options.precision = Scalar::f64;
  options.block = 10007;
  Index frames = 0;
  bool same = true;
  run_offline(stages(), recording, {node}, options, {{"iir_zero_phase", [&](const Block& b) {
                                                        const auto y = to_matrix(b.x);
                                                        same = same && y == whole.middleCols(frames, y.cols());
                                                        frames += y.cols();
                                                      }}});
  EXPECT_EQ(frames, 150000);
  EXPECT_TRUE(same);
}

}  // namespace
}  // namespace percept::testing
