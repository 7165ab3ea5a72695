#include "realtime/task_metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "numerics/random.h"

namespace percept {

namespace {
constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

double time_of(const Trial& t, bool click) { return (click ? t.end_s : t.entered_s) - t.shown_s; }

/// The mean of f over trials; f is NaN where a trial has no such figure.
template <class F>
double mean_over(std::span<const Trial* const> trials, F f, std::int64_t* n = nullptr) {
  double sum = 0;
  std::int64_t count = 0;
  for (const Trial* t : trials)
    if (const double v = f(*t); std::isfinite(v)) {
      sum += v;
      ++count;
    }
  if (n) *n = count;
  return count ? sum / static_cast<double>(count) : kUndefined;
}

double efficiency_of(const Trial& t) {
  if (t.outcome != Outcome::acquired || !(t.path > 0)) return kUndefined;
  return std::hypot(t.entry_x - t.start_x, t.entry_y - t.start_y) / t.path;
}

double bit_rate_of(std::span<const Trial* const> trials, const Task& task) {
  double bits = 0, time_s = 0;
  std::int64_t right = 0, wrong = 0;
  for (const Trial* t : trials) {
    time_s += t->end_s - t->shown_s;
    right += t->outcome == Outcome::acquired;
    wrong += t->outcome == Outcome::wrong;
    const double distance = std::hypot(t->target.x - t->start_x, t->target.y - t->start_y);
    if (t->outcome == Outcome::acquired) bits += std::log2(distance / (2 * t->target.half) + 1);
  }
  if (task.keys() > 0) {
    const double n = static_cast<double>(task.keys()) * task.keys();
    bits = std::log2(n - 1) * static_cast<double>(std::max<std::int64_t>(right - wrong, 0));
    time_s += task.trial_params().pause_s * static_cast<double>(trials.size());
  }
  return time_s > 0 ? bits / time_s : kUndefined;
}

double throughput_of(std::span<const Trial* const> trials, bool click, int conditions) {
  double sum = 0;
  int defined = 0;
  std::vector<double> error;
  for (int c = 0; c < conditions; ++c) {
    error.clear();
    double way = 0, time_s = 0, mean = 0;
    for (const Trial* t : trials) {
      // a wrong click ends a movement too
      if (t->target.condition != c || (t->outcome != Outcome::acquired && t->outcome != Outcome::wrong)) continue;
      const double x = t->target.x - t->start_x, y = t->target.y - t->start_y, distance = std::hypot(x, y);
      if (!(distance > 0)) continue;
      const double along = ((t->end_x - t->start_x) * x + (t->end_y - t->start_y) * y) / distance;
      error.push_back(along - distance);
      mean += error.back();
      way += along;
      time_s += time_of(*t, click || t->outcome == Outcome::wrong);
    }
    const auto n = static_cast<double>(error.size());
    if (error.size() < 3 || !(time_s > 0)) continue;
    mean /= n;
    double square = 0;
    for (double e : error) square += (e - mean) * (e - mean);
    const double width = 4.133 * std::sqrt(square / (n - 1));
    if (!(width > 0) || !(way > 0)) continue;
    sum += std::log2(way / n / width + 1) / (time_s / n);
    ++defined;
  }
  return defined ? sum / defined : kUndefined;
}

Value to_value(const TaskFigure& f) {
  const auto number = [](double x) { return std::isfinite(x) ? Value(x) : Value(); };
  return Value::object({{"value", number(f.value)}, {"low", number(f.low)}, {"high", number(f.high)}, {"n", f.n}});
}

bool measured(const Trial& t) { return t.target.counted && t.outcome != Outcome::aborted && t.assist == 0; }
}  // namespace

TaskFigures task_figures(std::span<const Trial> trials, const Task& task, std::int64_t resamples) {
  std::vector<const Trial*> used;
  int conditions = 0;
  for (auto& t : trials)
    if (measured(t)) {
      used.push_back(&t);
      conditions = std::max(conditions, t.target.condition + 1);
    }
  const bool click = task.trial_params().select == "click", fitts = task.use() == "fitts";
  const auto acquired = [](const Trial& t) { return t.outcome == Outcome::acquired ? 1.0 : 0.0; };
  const auto seconds = [&](const Trial& t) { return t.outcome == Outcome::acquired ? time_of(t, click) : kUndefined; };
  using Sample = std::span<const Trial* const>;
  const auto all_of = [&](Sample s) {
    return std::array<double, 5>{mean_over(s, acquired), mean_over(s, seconds), mean_over(s, efficiency_of),
                                 bit_rate_of(s, task), fitts ? throughput_of(s, click, conditions) : kUndefined};
  };
  TaskFigures figures;
  const std::array<TaskFigure*, 5> to{&figures.success, &figures.time_to_target, &figures.path_efficiency,
                                      &figures.bit_rate, &figures.throughput};
  const auto n = static_cast<std::int64_t>(used.size());
  const auto values = all_of(used);
  for (std::size_t i = 0; i < to.size(); ++i) *to[i] = {values[i], kUndefined, kUndefined, n};
  mean_over(Sample(used), seconds, &figures.time_to_target.n);
  mean_over(Sample(used), efficiency_of, &figures.path_efficiency.n);
  if (!fitts) figures.throughput.n = 0;
  if (n < 2 || resamples < 1) return figures;

  const KeyedRandom random(static_cast<std::uint64_t>(task.trial_params().seed), "task figures");
  std::array<std::vector<double>, 5> drawn;
  std::vector<const Trial*> sample(used.size());
  for (std::int64_t r = 0; r < resamples; ++r) {
    for (std::size_t k = 0; k < sample.size(); ++k) sample[k] = used[static_cast<std::size_t>(random.below(n, r, k))];
    const auto v = all_of(sample);
    for (std::size_t i = 0; i < v.size(); ++i)
      if (std::isfinite(v[i])) drawn[i].push_back(v[i]);
  }
  for (std::size_t i = 0; i < to.size(); ++i) {
    auto& d = drawn[i];
    if (!std::isfinite(to[i]->value) || d.size() < 2) continue;
    std::sort(d.begin(), d.end());
    const auto at = [&](double p) {
      return d[static_cast<std::size_t>(std::llround(p * static_cast<double>(d.size() - 1)))];
    };
    to[i]->low = at(0.025);
    to[i]->high = at(0.975);
  }
  return figures;
}

Value task_report(const Task& task, std::int64_t resamples, bool each) {
  const auto trials = task.log().all();
  std::array<std::int64_t, 4> by_outcome{};
  std::int64_t assisted = 0, counted = 0;
  for (auto& t : trials) {
    ++by_outcome[static_cast<std::size_t>(t.outcome)];
    assisted += t.assist > 0;
    counted += measured(t);
  }
  Value r = Value::object({{"use", task.use()}, {"trials", static_cast<std::int64_t>(trials.size())}});
  for (std::size_t i = 0; i < by_outcome.size(); ++i) r[name_of(static_cast<Outcome>(i))] = by_outcome[i];
  r["assisted"] = assisted;
  r["measured"] = counted;
  if (task.log().lost() > 0) r["trials_without_room"] = task.log().lost();
  const TaskFigures f = task_figures(trials, task, resamples);
  r["success"] = to_value(f.success);
  r["time_to_target_s"] = to_value(f.time_to_target);
  r["path_efficiency"] = to_value(f.path_efficiency);
  r["bit_rate"] = to_value(f.bit_rate);
  if (task.use() == "fitts") r["throughput"] = to_value(f.throughput);
  if (!each) return r;
  Value list = Value::table();
  const auto column = [&](const char* name, auto f_of) {
    Value all = Value::array();
    for (auto& t : trials) {
      const double v = f_of(t);
      all.push_back(std::isfinite(v) ? Value(v) : Value());
    }
    list[name] = std::move(all);
  };
  column("target", [](const Trial& t) { return static_cast<double>(t.target.number); });
  column("counted", [](const Trial& t) { return t.target.counted ? 1.0 : 0.0; });
  column("shown_s", [](const Trial& t) { return t.shown_s; });
  column("entered_s", [](const Trial& t) { return t.entered_s; });
  column("end_s", [](const Trial& t) { return t.end_s; });
  column("distance", [](const Trial& t) { return std::hypot(t.target.x - t.start_x, t.target.y - t.start_y); });
  column("width", [](const Trial& t) { return 2 * t.target.half; });
  column("path", [](const Trial& t) { return t.path; });
  column("entries", [](const Trial& t) { return static_cast<double>(t.entries); });
  column("assist", [](const Trial& t) { return static_cast<double>(t.assist); });
  column("fits", [](const Trial& t) { return static_cast<double>(t.fits); });
  Value outcomes = Value::array();
  for (auto& t : trials) outcomes.push_back(name_of(t.outcome));
  list["outcome"] = std::move(outcomes);
  r["each"] = std::move(list);
  return r;
}

}  // namespace percept
