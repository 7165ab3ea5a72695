#include "realtime/task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numbers>
#include <set>

#include "core/error.h"
#include "realtime/task_metrics.h"
#include "tests/support/alloc.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;

constexpr double kBin = 0.05;

Value task_params(const char* use, std::initializer_list<std::pair<std::string, Value>> more) {
  Value v = Value::object({{"use", use}});
  for (auto& [key, value] : more) v[key] = value;
  return v;
}

/// A cursor that goes straight to the target, so much a frame, and what the task told.
struct Walker {
  explicit Walker(Task& t) : task(t) {}
  void frame(bool click = false, bool stopped = false, float assist = 0) {
    if (const TaskTarget* target = task.target()) {
      const double dx = target->x - x, dy = target->y - y, far = std::hypot(dx, dy);
      if (far > 0) {
        const double way = std::min(speed * kBin, far);
        x += way * dx / far;
        y += way * dy / far;
      }
      shown.push_back(target->number);
    }
    const auto r =
        task.step({.t_s = at++ * kBin, .x = x, .y = y, .click = click, .stopped = stopped, .assist = assist});
    for (auto& e : r.events) events.push_back(e);
    if (r.jump) x = r.x, y = r.y;
  }
  Task& task;
  double x = 0, y = 0, speed = 0.2;
  int at = 0;
  std::vector<int> shown;
  std::vector<Event> events;
};

// out and back, every target once in a block, each held for hold_s; the times are those of a straight walk
TEST(Task, CentreOutGoesOutAndBack) {
  Task task(task_params("centre_out",
                        {{"targets", 4}, {"distance", 0.08}, {"radius", 0.015}, {"hold_s", 0.2}, {"pause_s", 0.1}}),
            "live.task");
  EXPECT_EQ(task.extent(), 0.08 + 0.015);
  Walker w(task);
  while (task.log().all().size() < 17) w.frame();
  std::map<int, int> reached;
  const auto trials = task.log().all();
  for (std::size_t i = 0; i < 17; ++i) {
    const Trial& t = trials[i];
    EXPECT_EQ(t.outcome, Outcome::acquired);
    if (i % 2 == 0) {
      EXPECT_EQ(t.target.number, 0);
    } else {
      ++reached[t.target.number];
      EXPECT_NEAR(std::hypot(t.target.x, t.target.y), 0.08, 1e-12);
    }
    if (i < 2) continue;
    // 80 mm to go, 15 mm the radius, 10 mm a frame: inside after 7 frames; the first frame shows the target
    EXPECT_NEAR(t.entered_s - t.shown_s, 7 * kBin, 1e-9) << i;
    EXPECT_NEAR(t.end_s - t.shown_s, (7 + 4) * kBin, 1e-9) << i;
    EXPECT_NEAR(t.path, 0.07, 1e-9);
    EXPECT_EQ(t.entries, 1);
    EXPECT_NEAR(t.shown_s - trials[i - 1].end_s, 0.1, 1e-9) << "the pause";
  }
  EXPECT_THAT(reached, ElementsAre(std::pair{1, 2}, std::pair{2, 2}, std::pair{3, 2}, std::pair{4, 2}));
  std::map<std::string, int> told;
  for (auto& e : w.events) ++told[e.label.text()];
  EXPECT_EQ(told["trial_start"], 17);
  EXPECT_EQ(told["target_shown"], 17);
  EXPECT_EQ(told["acquired"], 17);
  EXPECT_EQ(told.size(), 3u);
  const Event last = w.events.back();
  EXPECT_NEAR(last.value, 7 * kBin, 1e-9) << "time to the target";
  EXPECT_EQ(last.id, 16);
  EXPECT_NEAR(last.onset_s, trials[16].end_s, 1e-12);

  const TaskFigures f = task_figures(trials.subspan(2), task, 200);
  EXPECT_EQ(f.success.value, 1);
  EXPECT_EQ(f.success.n, 15);
  EXPECT_NEAR(f.time_to_target.value, 0.35, 1e-9);
  EXPECT_NEAR(f.time_to_target.low, 0.35, 1e-9);
  EXPECT_NEAR(f.path_efficiency.value, 1, 1e-9);
  // a cursor that stands in the middle of the last target has 80 mm to go, 15 from a target's far side none
  EXPECT_NEAR(f.bit_rate.value, std::log2(0.08 / 0.03 + 1) / 0.55, 1e-6);
  EXPECT_TRUE(std::isnan(f.throughput.value));
}

TEST(Task, TheSeedSaysTheOrder) {
  const auto order = [](std::int64_t seed) {
    Task task(task_params("centre_out", {{"seed", seed}, {"back", "jump"}}), "t");
    Walker w(task);
    std::vector<int> numbers;
    while (task.log().all().size() < 16) w.frame();
    for (auto& t : task.log().all()) numbers.push_back(t.target.number);
    EXPECT_EQ(std::set<int>(numbers.begin(), numbers.begin() + 8).size(), 8u) << "each once in a block";
    return numbers;
  };
  EXPECT_EQ(order(1), order(1));
  EXPECT_NE(order(1), order(2));
}

// who passes through a target has not held it
TEST(Task, LeavingBeginsTheHoldAnew) {
  Task task(
      task_params("centre_out", {{"back", "jump"}, {"targets", 1}, {"hold_s", 0.2}, {"limit_s", 2}, {"pause_s", 0}}),
      "t");
  const auto step = [&](int k, double x) { return task.step({.t_s = k * kBin, .x = x, .y = 0}).events.size(); };
  step(0, 0);
  ASSERT_NE(task.target(), nullptr);
  for (int k = 1; k <= 3; ++k) step(k, 0.08);
  EXPECT_NEAR(task.held_s(), 0.1, 1e-9);
  step(4, 0.2);
  EXPECT_EQ(task.held_s(), 0);
  for (int k = 5; k <= 8; ++k) step(k, 0.08);
  EXPECT_TRUE(task.log().all().empty());
  step(9, 0.08);
  ASSERT_EQ(task.log().all().size(), 1u);
  const Trial t = task.log().all()[0];
  EXPECT_EQ(t.outcome, Outcome::acquired);
  EXPECT_EQ(t.entries, 2);
  EXPECT_NEAR(t.entered_s, 5 * kBin, 1e-9);
  EXPECT_NEAR(t.path, 0.08 + 0.12 + 0.12, 1e-9);
}

TEST(Task, TimeRunsOutAndTheOperatorAborts) {
  Task task(task_params("centre_out", {{"back", "jump"}, {"limit_s", 1}, {"pause_s", 0.1}}), "t");
  Walker w(task);
  w.speed = 0;
  for (int k = 0; k <= 20; ++k) w.frame();
  ASSERT_EQ(task.log().all().size(), 1u);
  EXPECT_EQ(task.log().all()[0].outcome, Outcome::late);
  EXPECT_TRUE(std::isnan(task.log().all()[0].entered_s));
  EXPECT_EQ(w.events.back().label.text(), "failed");
  EXPECT_NEAR(w.events.back().value, 1, 1e-9);
  for (int k = 0; k < 5; ++k) w.frame();
  ASSERT_NE(task.target(), nullptr);
  w.frame(false, true);
  EXPECT_EQ(task.target(), nullptr);
  EXPECT_EQ(task.phase(), Task::Phase::waiting);
  EXPECT_EQ(w.events.back().label.text(), "aborted");
  for (int k = 0; k < 5; ++k) w.frame(false, true);
  EXPECT_EQ(task.target(), nullptr);
  w.frame();
  EXPECT_NE(task.target(), nullptr);
  const TaskFigures f = task_figures(task.log().all(), task, 0);
  EXPECT_EQ(f.success.n, 1) << "an aborted trial is none";
  EXPECT_EQ(f.success.value, 0);
  EXPECT_EQ(f.bit_rate.value, 0);
  EXPECT_TRUE(std::isnan(f.time_to_target.value));
  EXPECT_EQ(f.time_to_target.n, 0);
}

TEST(Task, WaitsForTheStartAndEndsAfterSoManyTrials) {
  Task task(task_params("centre_out", {{"wait_for_start", true}, {"trials", 3}}), "t");
  Walker w(task);
  for (int k = 0; k < 40; ++k) w.frame();
  EXPECT_TRUE(w.events.empty());
  EXPECT_EQ(task.phase(), Task::Phase::waiting);
  task.start(true);
  for (int k = 0; k < 400; ++k) w.frame();
  EXPECT_EQ(task.phase(), Task::Phase::done);
  EXPECT_EQ(task.log().all().size(), 3u);
}

// conditions in shuffled order, each with `targets` trials that count and one that leads there; a ring's neighbours are
// as far apart as a chord over half of it
TEST(Task, FittsHasEveryCondition) {
  Task task(
      task_params("fitts",
                  {{"targets", 5}, {"distances", Value::array({0.06, 0.12})}, {"widths", Value::array({0.02, 0.04})}}),
      "t");
  Walker w(task);
  while (task.log().all().size() < 4 * 6) w.frame();
  std::map<int, int> counted;
  for (std::size_t i = 0; i < 24; ++i) {
    const Trial& t = task.log().all()[i];
    EXPECT_EQ(t.target.counted, i % 6 != 0);
    if (!t.target.counted) continue;
    ++counted[t.target.condition];
    const double diameter = t.target.condition < 2 ? 0.06 : 0.12;
    EXPECT_EQ(t.target.half, t.target.condition % 2 ? 0.02 : 0.01);
    const Trial& before = task.log().all()[i - 1];
    EXPECT_NEAR(std::hypot(t.target.x - before.target.x, t.target.y - before.target.y),
                diameter * std::sin(std::numbers::pi * 3 / 5), 1e-12);
  }
  EXPECT_THAT(counted, ElementsAre(std::pair{0, 5}, std::pair{1, 5}, std::pair{2, 5}, std::pair{3, 5}));
}

TEST(Task, RandomTargetsKeepTheirDistanceAndTheirRoom) {
  Task task(task_params("fitts", {{"layout", "random"},
                                  {"targets", 8},
                                  {"distances", Value::array({0.05, 0.09})},
                                  {"widths", Value::array({0.02})},
                                  {"reach", 0.1}}),
            "t");
  Walker w(task);
  while (task.log().all().size() < 500) w.frame();
  const auto trials = task.log().all();
  for (std::size_t i = 1; i < trials.size(); ++i) {
    const TaskTarget &a = trials[i - 1].target, &b = trials[i].target;
    EXPECT_LE(std::max(std::abs(b.x), std::abs(b.y)) + b.half, 0.1 + 1e-12);
    if (b.counted) {
      EXPECT_NEAR(std::hypot(b.x - a.x, b.y - a.y), b.condition == 0 ? 0.05 : 0.09, 1e-12);
    }
  }
}

// ISO 9241-9 on paper: one condition; ways of 0.09, 0.1 and 0.11 to targets 0.1 away in 1 s
TEST(Task, ThroughputTakesTheEffectiveWidth) {
  Task task(task_params("fitts", {{"select", "dwell"}}), "t");
  std::vector<Trial> trials(3);
  for (int i = 0; i < 3; ++i) {
    Trial& t = trials[static_cast<std::size_t>(i)];
    t.target = {.x = 0.1, .y = 0, .half = 0.02};
    t.end_x = 0.09 + 0.01 * i;
    t.end_y = 0.003;  // beside the line: does not count
    t.entered_s = 1;
    t.end_s = 1.5;
    t.path = 0.2;
    t.entry_x = 0.08;
  }
  const TaskFigures f = task_figures(trials, task, 0);
  EXPECT_NEAR(f.throughput.value, std::log2(0.1 / (4.133 * 0.01) + 1), 1e-12);
  EXPECT_NEAR(f.path_efficiency.value, 0.4, 1e-12);
  EXPECT_NEAR(f.bit_rate.value, std::log2(0.1 / 0.04 + 1) / 1.5, 1e-12);
  EXPECT_TRUE(std::isnan(f.throughput.low));
}

TEST(Task, AnyKeyOfTheGridCanBeSelected) {
  Task task(task_params("grid", {{"keys", 3}, {"side", 0.3}, {"hold_s", 0.1}, {"pause_s", 0.2}}), "t");
  EXPECT_EQ(task.keys(), 3);
  int at = 0;
  const auto stay = [&](double x, double y, int frames) {
    for (int k = 0; k < frames; ++k) task.step({.t_s = at++ * kBin, .x = x, .y = y});
  };
  stay(0.5, 0.5, 1);  // outside
  ASSERT_NE(task.target(), nullptr);
  EXPECT_TRUE(task.target()->square);
  const TaskTarget first = *task.target();
  // another key
  stay(first.x > 0.05 ? first.x - 0.1 : first.x + 0.1, first.y, 3);
  ASSERT_EQ(task.log().all().size(), 1u);
  EXPECT_EQ(task.log().all()[0].outcome, Outcome::wrong);
  int right = 0;
  for (std::size_t n = 2; n < 12; ++n) {
    while (!task.target()) stay(0.5, 0.5, 1);
    const TaskTarget t = *task.target();
    stay(t.x + 0.04, t.y - 0.04, 3);
    ASSERT_EQ(task.log().all().size(), n);
    EXPECT_EQ(task.log().all()[n - 1].outcome, Outcome::acquired);
    EXPECT_NE(task.log().all()[n - 2].target.number, t.number) << "never the same again";
    ++right;
  }
  double time_s = 0;
  for (auto& t : task.log().all()) time_s += t.end_s - t.shown_s + 0.2;
  EXPECT_NEAR(task_figures(task.log().all(), task, 0).bit_rate.value, std::log2(8) * (right - 1) / time_s, 1e-12);
  // between keys and outside nothing is selected
  while (!task.target()) stay(0.5, 0.5, 1);
  stay(0.5, 0.5, 20);
  EXPECT_EQ(task.log().all().size(), 11u);
}

TEST(Task, AClickSelectsWhatIsUnderTheCursor) {
  Task task(task_params("centre_out", {{"select", "click"}, {"back", "jump"}, {"targets", 1}, {"pause_s", 0}}), "t");
  const auto step = [&](int k, double x, bool click) { task.step({.t_s = k * kBin, .x = x, .y = 0, .click = click}); };
  step(0, 0, false);
  step(1, 0.08, true);
  ASSERT_EQ(task.log().all().size(), 1u);
  EXPECT_EQ(task.log().all()[0].outcome, Outcome::acquired);
  step(2, 0.08, true);  // still the same click
  step(3, 0.08, true);
  EXPECT_EQ(task.log().all().size(), 1u);
  step(4, 0.0, false);
  step(5, 0.0, true);
  ASSERT_EQ(task.log().all().size(), 2u);
  EXPECT_EQ(task.log().all()[1].outcome, Outcome::wrong);
}

// trials with help are told but not measured
TEST(Task, HelpIsNoMeasure) {
  Task task(task_params("centre_out", {{"pause_s", 0}}), "t");
  Walker w(task);
  while (task.log().all().size() < 10) w.frame(false, false, task.log().all().size() < 4 ? 0.5F : 0.F);
  const Value report = task_report(task, 50, true);
  EXPECT_EQ(report.at("trials").as_integer(), 10);
  EXPECT_EQ(report.at("assisted").as_integer(), 4);
  EXPECT_EQ(report.at("measured").as_integer(), 6);
  EXPECT_EQ(report.at("success").at("n").as_integer(), 6);
  EXPECT_EQ(report.at("each").at("outcome").size(), 10u);
  EXPECT_FALSE(report.contains("throughput"));
}

// intervals: 95 % of resampled means of zeros and ones, p = .5, n = 100
TEST(Task, IntervalsAreThoseOfResampledTrials) {
  Task task(task_params("centre_out", {}), "t");
  std::vector<Trial> trials(100);
  for (std::size_t i = 0; i < 100; ++i) {
    trials[i].outcome = i % 2 ? Outcome::acquired : Outcome::late;
    trials[i].end_s = 1;
    trials[i].target = {.x = 0.1, .half = 0.05};
  }
  const TaskFigures f = task_figures(trials, task, 2000);
  EXPECT_EQ(f.success.value, 0.5);
  // standard error .05; a percentile of 2000 draws is known to .003
  EXPECT_NEAR(f.success.low, 0.5 - 1.96 * 0.05, 0.012);
  EXPECT_NEAR(f.success.high, 0.5 + 1.96 * 0.05, 0.012);
}

TEST(Task, AllocatesNothing) {
  if (!testing::AllocationCounter::available()) GTEST_SKIP() << "allocations cannot be counted under a sanitizer";
  for (const char* use : {"centre_out", "fitts", "grid"}) {
    Task task(task_params(use, {}), "t");
    double x = 0, y = 0;
    const testing::AllocationCounter counter;
    for (int k = 0; k < 20000; ++k) {
      if (const TaskTarget* t = task.target()) x += 0.3 * (t->x - x), y += 0.3 * (t->y - y);
      task.step({.t_s = k * kBin, .x = x, .y = y});
    }
    EXPECT_EQ(counter.count(), 0) << use;
    EXPECT_GT(task.log().all().size(), 500u);
  }
}

TEST(Task, RefusesWhatCannotBe) {
  const auto refusal = [](Value params) { return message_of<ConfigError>([&] { Task(params, "live.task"); }); };
  EXPECT_THAT(refusal(Value::table()), AllOf(HasSubstr("live.task.use"), HasSubstr("one of centre_out, fitts, grid")));
  EXPECT_THAT(refusal(Value::object({{"use", 3}})), HasSubstr("live.task.use"));
  EXPECT_THAT(refusal(task_params("center_out", {})), HasSubstr("did you mean 'centre_out'?"));
  EXPECT_THAT(refusal(task_params("grid", {{"targets", 3}})), HasSubstr("targets"));
  EXPECT_THAT(refusal(task_params("centre_out", {{"targets", 0}})), HasSubstr("live.task.targets"));
  EXPECT_THAT(refusal(task_params("centre_out", {{"radius", 0.1}})),
              HasSubstr("live.task.radius = 0.1: expected less than the distance, which is 0.08"));
  EXPECT_THAT(refusal(task_params("centre_out", {{"hold_s", 9}})),
              HasSubstr("live.task.hold_s = 9: expected less than limit_s, which is 8"));
  EXPECT_THAT(refusal(task_params("fitts", {{"targets", 8}})), HasSubstr("an odd number of places on the ring"));
  EXPECT_THAT(refusal(task_params("fitts", {{"widths", Value::array()}})),
              HasSubstr("live.task.widths = []: expected at least one"));
  EXPECT_THAT(refusal(task_params("fitts", {{"layout", "random"}, {"distances", Value::array({0.3})}})),
              HasSubstr("live.task.distances = 0.3: expected at most 0.08:"));
  EXPECT_THAT(refusal(task_params("grid", {{"select", "look"}})), HasSubstr("live.task.select"));
}

}  // namespace
}  // namespace percept
