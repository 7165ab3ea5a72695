#include <gmock/gmock.h>

#include <Eigen/QR>
#include <cmath>
#include <numbers>
#include <set>

#include "core/error.h"
#include "data/simulator.h"
#include "tests/support/alloc.h"

namespace percept::data {
namespace {
using ::testing::HasSubstr;

using Params = ReachSimulator::Params;

/// Units that never reach zero rate, without any noise but Poisson's.
Params quiet() {
  Params p;
  p.channels = 40;
  p.rate_hz = 20;
  p.duration_s = 1500;
  p.baseline_hz = 40;
  p.depth_hz = 10;
  p.speed_hz = 5;
  p.shared_noise = p.drift = p.dead_fraction = 0;
  return p;
}

Eigen::MatrixXd stream(const Recording& r, const char* name) { return r.stream(name, "test").matrix(); }

/// Smallest difference of two angles.
double apart(double a, double b) { return std::abs(std::remainder(a - b, 2 * std::numbers::pi)); }

double deviation(const std::vector<double>& v) {
  double mean = 0, square = 0;
  for (double x : v) mean += x / static_cast<double>(v.size());
  for (double x : v) square += (x - mean) * (x - mean) / static_cast<double>(v.size() - 1);
  return std::sqrt(square);
}

TEST(ReachSimulator, SameSeedSameBitsOtherSeedOther) {
  Params p;
  p.duration_s = 20;
  p.tuning_walk_rad = 1;
  p.private_noise = 0.2;
  const Recording a = ReachSimulator(p).recording(), b = ReachSimulator(p).recording();
  EXPECT_EQ(stream(a, "activity"), stream(b, "activity"));
  EXPECT_EQ(stream(a, "kinematics"), stream(b, "kinematics"));
  EXPECT_EQ(a.events, b.events);
  EXPECT_EQ(a.tables, b.tables);
  p.seed = 2;
  const Recording c = ReachSimulator(p).recording();
  EXPECT_NE(stream(a, "activity"), stream(c, "activity"));
  EXPECT_NE(stream(a, "kinematics"), stream(c, "kinematics"));
  EXPECT_NE(a.tables, c.tables);
}

TEST(ReachSimulator, AnyBlocksGiveTheWhole) {
  Params p;
  p.duration_s = 40;
  p.channels = 20;
  p.private_noise = 0.2;
  p.tuning_walk_rad = 1;
  p.change_s = 20;
  p.change_fraction = 0.3;
  const Recording r = ReachSimulator(p).recording();
  for (auto& s : r.streams) {
    const Eigen::MatrixXd whole = s.matrix();
    for (Index block : {1, 37, 999}) {
      Eigen::MatrixXd parts(whole.rows(), whole.cols());
      // from the end to the beginning: nothing may depend on what was read before
      for (Index end = whole.cols(); end > 0; end -= std::min(end, block)) {
        const Index n = std::min(end, block);
        s.samples->read(end - n, FrameSpan<double>{parts.col(end - n).data(), parts.rows(), n, parts.rows()});
      }
      EXPECT_EQ(parts, whole) << s.name << " in blocks of " << block;
    }
    Eigen::MatrixXf narrow(whole.rows(), whole.cols());
    s.samples->read(0, MutableFrames(FrameSpan<float>{narrow.data(), narrow.rows(), narrow.cols(), narrow.rows()}));
    EXPECT_EQ(narrow, whole.cast<float>());
    const FrameSpan<float> one{narrow.data(), narrow.rows(), 1, narrow.rows()};
    EXPECT_THROW(s.samples->read(s.frames(), one), DataError);
  }
}

TEST(ReachSimulator, AnySizeNeedsNoMemory) {
  Params p;
  p.channels = 256;
  p.rate_hz = 100;
  p.duration_s = 50000;  // 5.1 GB of counts
  const Recording r = ReachSimulator(p).recording();
  const Stream& s = r.stream("activity", "test");
  EXPECT_EQ(s.frames(), 5000000);
  Eigen::MatrixXf last(256, 10);
  s.samples->read(s.frames() - 10, MutableFrames(FrameSpan<float>{last.data(), 256, 10, 256}));
  EXPECT_GT(last.sum(), 0);
}

TEST(ReachSimulator, HandMovesAsAHand) {
  const ReachSimulator sim(quiet());
  const double step = 1e-5;
  double fastest = 0;
  for (double t = 0.013; t < 60; t += 0.0371) {
    const auto before = sim.hand(t - step), now = sim.hand(t), after = sim.hand(t + step);
    EXPECT_NEAR(now.vx, (after.px - before.px) / (2 * step), 1e-6);
    EXPECT_NEAR(now.vy, (after.py - before.py) / (2 * step), 1e-6);
    fastest = std::max(fastest, std::hypot(now.vx, now.vy));
  }
  EXPECT_NEAR(fastest, sim.reference_speed(), 0.2 * sim.reference_speed());
  for (std::int64_t block = -2; block < 20; ++block) {
    std::set<int> targets;
    for (std::int64_t k = 8 * block; k < 8 * block + 8; ++k) {
      const auto t = sim.trial(k);
      targets.insert(t.target);
      const auto there = sim.hand(t.reach_end_s);
      EXPECT_NEAR(there.px, 0.08 * std::cos(t.target * std::numbers::pi / 4), 1e-12);
      EXPECT_NEAR(there.py, 0.08 * std::sin(t.target * std::numbers::pi / 4), 1e-12);
      EXPECT_LT(t.back_end_s, static_cast<double>(k + 1) * 2);
      EXPECT_EQ(sim.hand(t.back_end_s).px, 0);
    }
    EXPECT_EQ(targets.size(), 8u) << "every target once in each eight trials";
  }
}

TEST(ReachSimulator, EventsAreTheTrials) {
  Params p = quiet();
  p.duration_s = 60;
  const ReachSimulator sim(p);
  const Recording r = sim.recording();
  ASSERT_EQ(r.events.size(), 60u);
  for (std::size_t i = 0; i < r.events.size(); ++i) {
    const auto t = sim.trial(static_cast<std::int64_t>(i / 2));
    const Event& e = r.events[i];
    EXPECT_EQ(e.id, static_cast<std::int64_t>(i));
    EXPECT_EQ(e.value, t.target);
    EXPECT_EQ(e.onset_s, i % 2 ? t.reach_end_s : t.go_s);
    EXPECT_EQ(e.label.text(), i % 2 ? "reach_end" : "target_" + std::to_string(t.target));
    EXPECT_GE(e.onset_s, i ? r.events[i - 1].onset_s : 0);
  }
}

TEST(ReachSimulator, RegressionFindsTheTuningOfTheTable) {
  const ReachSimulator sim(quiet());
  const Recording r = sim.recording();
  const Eigen::MatrixXd counts = stream(r, "activity");
  const Index n = counts.cols();
  Eigen::MatrixXd design(n, 4);
  for (Index k = 0; k < n; ++k) {
    const auto h = sim.hand(r.streams[0].format.time_of(k) + sim.params().lag_s);
    design.row(k) << 1, std::hypot(h.vx, h.vy), h.vx, h.vy;
  }
  design.rightCols(3) /= sim.reference_speed();
  const Eigen::MatrixXd fit = design.colPivHouseholderQr().solve(counts.transpose()) * 20;  // counts a bin to 1/s
  const Table& truth = *r.table("units");
  // standard errors are about 0.3, 0.7 and 0.5 per second
  for (Index i = 0; i < 40; ++i) {
    const auto u = static_cast<std::size_t>(i);
    const double baseline = truth.find("baseline_hz")->numbers[u], depth = truth.find("depth_hz")->numbers[u];
    EXPECT_NEAR(fit(0, i), baseline, 1.5);
    EXPECT_NEAR(fit(1, i), truth.find("speed_hz")->numbers[u], 3.5);
    EXPECT_NEAR(std::hypot(fit(2, i), fit(3, i)), depth, 2.5);
    EXPECT_LT(apart(std::atan2(fit(3, i), fit(2, i)), truth.find("direction_rad")->numbers[u]), 2.5 / depth);
  }
}

TEST(ReachSimulator, CountsArePoisson) {
  const ReachSimulator sim(quiet());
  Eigen::MatrixXd counts(40, 20000);
  for (Index k = 0; k < counts.cols(); ++k)
    sim.counts(k, 0, 0, std::span<double>(counts.col(k).data(), 40));  // a hand at rest: the same rate always
  for (Index i = 0; i < 40; ++i) {
    const double mean = counts.row(i).mean();
    const double variance = (counts.row(i).array() - mean).square().sum() / (20000 - 1);
    EXPECT_NEAR(mean, sim.units()[static_cast<std::size_t>(i)].baseline_hz / 20, 5 * std::sqrt(mean / 20000));
    EXPECT_NEAR(variance / mean, 1, 0.06);  // six standard errors of sqrt(2 / 20000)
  }
}

TEST(ReachSimulator, NoiseWidensAsStated) {
  for (bool shared : {false, true}) {
    Params p = quiet();
    p.baseline_hz = 200;
    (shared ? p.shared_noise : p.private_noise) = 0.5;
    const ReachSimulator sim(p);
    Eigen::MatrixXd counts(40, 20000);
    for (Index k = 0; k < counts.cols(); ++k) sim.counts(k, 0, 0, std::span<double>(counts.col(k).data(), 40));
    const Eigen::VectorXd mean = counts.rowwise().mean();
    const Eigen::MatrixXd centred = counts.colwise() - mean;
    const double widening = std::exp(0.25) - 1;  // variance of a log-normal gain with mean 1
    double correlation = 0;
    for (Index i = 0; i < 40; ++i) {
      const double m = sim.units()[static_cast<std::size_t>(i)].baseline_hz / 20;
      EXPECT_NEAR(mean(i), m, 0.03 * m);
      EXPECT_NEAR(centred.row(i).squaredNorm() / 20000, m + m * m * widening, 0.15 * m * m * widening);
      if (i) correlation += centred.row(i).dot(centred.row(0)) / (centred.row(i).norm() * centred.row(0).norm()) / 39;
    }
    if (shared) EXPECT_GT(correlation, 0.5);
    else EXPECT_NEAR(correlation, 0, 0.02);
  }
}

TEST(ReachSimulator, DeadChannelsAreSilent) {
  Params p = quiet();
  p.duration_s = 60;
  p.dead_fraction = 0.25;
  const Recording r = ReachSimulator(p).recording();
  const Eigen::VectorXd total = stream(r, "activity").rowwise().sum();
  const Column& dead = *r.table("units")->find("dead");
  int n = 0;
  for (Index i = 0; i < 40; ++i) {
    const bool is_dead = dead.numbers[static_cast<std::size_t>(i)] == 1;
    n += is_dead;
    EXPECT_EQ(total(i) == 0, is_dead) << i;
  }
  EXPECT_EQ(n, 10);
}

TEST(ReachSimulator, BaselinesDriftSlowly) {
  Params p = quiet();
  p.channels = 1000;
  p.drift = 0.1;
  p.drift_s = 100;
  const ReachSimulator sim(p);
  std::vector<double> start(1000), soon(1000), later(1000), change_soon, change_later;
  sim.rates(0, 0, 0, start);
  sim.rates(20, 0, 0, soon);  // a second
  sim.rates(20 * 1000, 0, 0, later);
  for (std::size_t i = 0; i < 1000; ++i) {
    const double base = sim.units()[i].baseline_hz;
    change_soon.push_back((soon[i] - start[i]) / base);
    change_later.push_back((later[i] - start[i]) / base);
  }
  EXPECT_NEAR(deviation(change_later), 0.1 * std::sqrt(2), 0.02);
  EXPECT_NEAR(deviation(change_soon), 0.01 * 0.1 * std::sqrt(2), 0.0002);  // a hundredth of the way between two knots
}

TEST(ReachSimulator, TuningWandersAndJumps) {
  Params p = quiet();
  p.channels = 1000;
  p.tuning_walk_rad = 1;
  const ReachSimulator walking(p);
  std::vector<double> turned;
  for (Index i = 0; i < 1000; ++i) turned.push_back(walking.direction(i, 900) - walking.direction(i, 0));
  EXPECT_NEAR(deviation(turned), 0.5, 0.06);  // a quarter of an hour: half of an hour's spread

  p.tuning_walk_rad = 0;
  p.change_s = 700;
  p.change_fraction = 0.3;
  const ReachSimulator jumping(p);
  int changed = 0;
  std::vector<double> before(1000), after(1000);
  const auto at = static_cast<std::int64_t>(700 * 20);
  jumping.rates(at - 1, 0.1, 0.05, before);
  jumping.rates(at, 0.1, 0.05, after);
  for (std::size_t i = 0; i < 1000; ++i) {
    const bool changes = jumping.units()[i].changed_direction_rad != jumping.units()[i].direction_rad;
    EXPECT_EQ(before[i] != after[i], changes);
    changed += changes;
  }
  EXPECT_EQ(changed, 300);
}

TEST(ReachSimulator, ActivityLeadsTheHandByTheLag) {
  Params p = quiet();
  p.lag_s = 0.15;
  const ReachSimulator sim(p);
  std::vector<double> counts(40), lagged(40), level(40);
  bool moved = false;
  for (std::int64_t k = 0; k < 400; ++k) {
    const auto h = sim.hand(sim.time_of(k) + 0.15), now = sim.hand(sim.time_of(k));
    sim.counts(k, counts);
    sim.counts(k, h.vx, h.vy, lagged);
    sim.counts(k, now.vx, now.vy, level);
    EXPECT_EQ(counts, lagged);
    moved = moved || counts != level;
  }
  EXPECT_TRUE(moved);
}

TEST(ReachSimulator, CountsAllocateNothing) {
  if (!testing::AllocationCounter::available()) GTEST_SKIP() << "this build cannot count allocations";
  Params p = quiet();
  p.tuning_walk_rad = p.private_noise = p.drift = 0.2;
  const ReachSimulator sim(p);
  std::vector<double> out(40);
  testing::AllocationCounter allocations;
  for (std::int64_t k = 0; k < 1000; ++k) sim.counts(k, out);
  EXPECT_EQ(allocations.count(), 0);
}

TEST(Simulators, NoiseIsWhiteAndBlockwise) {
  NoiseParams p;
  p.channels = 3;
  p.duration_s = 20;
  p.spread = 2;
  const Recording r = noise_recording(p);
  const Stream& s = r.streams.at(0);
  const Eigen::MatrixXd m = s.matrix();
  ASSERT_EQ(m.cols(), 20000);
  EXPECT_NEAR(m.mean(), 0, 0.05);
  EXPECT_NEAR(std::sqrt(m.squaredNorm() / static_cast<double>(m.size())), 2, 0.05);
  EXPECT_NEAR((m.leftCols(19999).array() * m.rightCols(19999).array()).mean(), 0, 0.1);
  EXPECT_NEAR((m.row(0).array() * m.row(1).array()).mean(), 0, 0.2);
  Eigen::VectorXd one(3);
  s.samples->read(12345, MutableFrames(FrameSpan<double>{one.data(), 3, 1, 3}));
  EXPECT_EQ(one, m.col(12345));
}

std::string refusal(const char* name, const Value& params) {
  try {
    simulate(name, params, "input");
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

TEST(Simulators, BadParametersAreRefused) {
  EXPECT_THAT(refusal("reech", Value::table()), HasSubstr("expected one of reach, noise (did you mean 'reach'?)"));
  EXPECT_THAT(refusal("reach", Value::object({{"chanels", 3}})), HasSubstr("did you mean 'channels'?"));
  EXPECT_THAT(refusal("reach", Value::object({{"rate_hz", 0.0}})),
              HasSubstr("input.rate_hz = 0 Hz: expected a value in"));
  EXPECT_THAT(refusal("reach", Value::object({{"reach_s", 1.0}})),
              HasSubstr("input.trial_s = 2: expected at least 3 s for reaches of 1 s"));
  EXPECT_THAT(refusal("reach", Value::object({{"rate_hz", 1}, {"duration_s", 0.5}})), HasSubstr("at least one bin"));
  EXPECT_THAT(refusal("reach", Value::object({{"duration_s", 1e6}, {"channels", 16384}, {"drift_s", 1}})),
              HasSubstr("input.drift: expected a shorter recording"));
  EXPECT_THAT(refusal("noise", Value::object({{"rate_hz", 1}, {"duration_s", 0.5}})), HasSubstr("at least one frame"));
  EXPECT_EQ(simulate("reach", Value::object({{"channels", 7}, {"duration_s", 1}})).streams[0].format.size(), 7);
  EXPECT_EQ(simulators().at(0).params.at(0).key, "channels");
}

}  // namespace
}  // namespace percept::data
