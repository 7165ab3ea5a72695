#include "realtime/closed_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"
#include "realtime/task_metrics.h"

namespace percept {

namespace {
constexpr double kNoValue = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t kTaskRows = 11;
constexpr std::int64_t kResamples = 1000;

Index find_row(const std::vector<std::string>& names, const std::string& wanted, const std::string& where) {
  const auto at = std::find(names.begin(), names.end(), wanted);
  if (at == names.end())
    throw ConfigError(where, "\"" + wanted + "\"",
                      fmt::format("rows of the output: {}{}", fmt::join(names, ", "), did_you_mean(wanted, names)));
  return at - names.begin();
}
}  // namespace

ClosedLoop::ClosedLoop(Setup setup)
    : cursor_(setup.cursor), task_(setup.task, setup.where + ".task"), calibration_(setup.calibration) {
  const std::string cursor = setup.where + ".cursor";
  const auto names = decoded_rows(setup.decoded);
  n_rows_ = static_cast<Index>(names.size());
  const bool velocity = cursor_.control == "velocity";
  if (cursor_.rows.empty())
    cursor_.rows = velocity ? std::vector<std::string>{"vx", "vy"} : std::vector<std::string>{"px", "py"};
  if (cursor_.rows.size() != 2)
    throw ConfigError(cursor + ".rows", fmt::format("{} rows", cursor_.rows.size()), "two: across and up");
  for (std::size_t i = 0; i < 2; ++i) rows_[i] = find_row(names, cursor_.rows[i], cursor + ".rows");
  if (!cursor_.click.empty()) click_ = find_row(names, cursor_.click, cursor + ".click");
  if (task_.trial_params().select == "click" && click_ < 0 && !setup.clicks)
    throw ConfigError(setup.where + ".task.select", "\"click\"",
                      "something that clicks: a stage as click in [live], or a row as click in [live.cursor]");
  limit_ = cursor_.limit > 0 ? cursor_.limit : 1.5 * task_.extent();
  if (limit_ < task_.extent())
    throw ConfigError(cursor + ".limit", fmt::format("{}", limit_),
                      fmt::format("at least {}: the task has targets there", task_.extent()));
  dt_s_ = 1 / setup.decoded.rate_hz;
  if (setup.user) user_.emplace(*setup.user, setup.decoded.rate_hz, setup.where + ".user");
  if (calibration_) {
    const std::string where = setup.where + ".calibration";
    if (!velocity) throw ConfigError(cursor + ".control", "\"position\"", "velocity: it is what calibration knows");
    if (!(cursor_.gain > 0))
      throw ConfigError(cursor + ".gain", fmt::format("{}", cursor_.gain), "above zero to calibrate");
    if (calibration_->assist.empty())
      throw ConfigError(where + ".assist", "[]", "one share for each block; [0] is a block without help");
    for (Index i = 0; i < n_rows_; ++i) {
      const std::string& name = names[static_cast<std::size_t>(i)];
      if (i != rows_[0] && i != rows_[1] && name != "px" && name != "py")
        throw ConfigError(where, "\"" + name + "\"",
                          "a decoder of velocity, perhaps with px and py: what is meant by another row is not known");
      position_rows_.push_back(name == "px" ? 0 : name == "py" ? 1 : -1);
    }
    std::sort(calibration_->at_s.begin(), calibration_->at_s.end());
  }
  label_.assign(static_cast<std::size_t>(n_rows_), kNoValue);
  frame_.assign(kTaskRows, kNoValue);
  format_ = time_format(0, setup.decoded.rate_hz, Scalar::f64, "task");
  format_.start_s = setup.decoded.start_s;
  format_.parts.clear();
  const auto add = [&](const char* part, const std::vector<std::string>& rows) {
    Part p{.name = part, .shape = {static_cast<Index>(rows.size())}, .unit = "1", .rows = {}, .levels = {}};
    for (auto& name : rows) p.rows.push_back({.name = name, .kind = "task", .unit = "", .position = {}, .good = true});
    format_.parts.push_back(std::move(p));
  };
  add("cursor", {"cursor_x", "cursor_y", "cursor_vx", "cursor_vy"});
  add("target", {"target_x", "target_y", "target_half", "target_number"});
  add("assist", {"assist"});
  add("intended", cursor_.rows);  // as the decoder names them: what it may be fitted to again
  state_.there = true;
}

/// The share of help in this frame.
double ClosedLoop::help(double t_s) noexcept {
  if (!calibration_) return 0;
  const auto anew = [&] {
    state_.acquired = state_.late = state_.wrong = 0;
    state_.bit_rate = counted_time_s_ = counted_bits_ = 0;
  };
  bool begins = calibrate_.exchange(false, std::memory_order_acq_rel);
  for (; next_at_ < calibration_->at_s.size() && t_s >= calibration_->at_s[next_at_] - 1e-9; ++next_at_) begins = true;
  if (begins && calibrator_) {
    state_.calibrating = true;
    calibration_began_s_ = t_s;
    next_fit_s_ = t_s + calibration_->refit_s;
    calibrator_->begin(t_s);
    anew();
  }
  if (!state_.calibrating) return 0;
  const auto block =
      static_cast<std::size_t>(std::max(0.0, (t_s - calibration_began_s_ + 1e-9) / calibration_->block_s));
  const bool over = block >= calibration_->assist.size();
  if (over || t_s >= next_fit_s_ - 1e-9) {
    // the last one sees everything; in lockstep it is always possible
    if (calibrator_->idle()) {
      asks_ = true;
      next_fit_s_ = t_s + calibration_->refit_s;
      if (over) state_.calibrating = false;
    }
    if (!state_.calibrating) anew();
  }
  return over ? 0 : calibration_->assist[block];
}

/// Full speed as far as a target's width away, then less in proportion.
double ClosedLoop::help_speed(const TaskTarget& target, double distance) const noexcept {
  return calibration_->speed * std::min(distance / (2 * target.half), 1.0);
}

void ClosedLoop::count(const Trial& t) noexcept {
  if (!t.target.counted || t.outcome == Outcome::aborted || t.assist > 0) return;
  state_.acquired += t.outcome == Outcome::acquired;
  state_.late += t.outcome == Outcome::late;
  state_.wrong += t.outcome == Outcome::wrong;
  counted_time_s_ += t.end_s - t.shown_s;
  if (task_.keys() > 0) {
    counted_time_s_ += task_.trial_params().pause_s;
    counted_bits_ = std::log2(static_cast<double>(task_.keys()) * task_.keys() - 1) *
                    static_cast<double>(std::max<std::int64_t>(state_.acquired - state_.wrong, 0));
  } else if (t.outcome == Outcome::acquired) {
    const double distance = std::hypot(t.target.x - t.start_x, t.target.y - t.start_y);
    counted_bits_ += std::log2(distance / (2 * t.target.half) + 1);
  }
  state_.bit_rate = counted_time_s_ > 0 ? counted_bits_ / counted_time_s_ : 0;
  if (t.outcome == Outcome::acquired) state_.last_time_s = t.entered_s - t.shown_s;
}

ClosedLoop::Result ClosedLoop::step(std::int64_t frame, double t_s, const double* rows, Hold hold,
                                    bool clicked) noexcept {
  const double share = help(t_s);
  const double across = rows[rows_[0]], up = rows[rows_[1]];
  const bool moves = hold == Hold::none && std::isfinite(across) && std::isfinite(up);
  const TaskTarget* target = task_.target();
  if (target && !had_target_) shown_since_s_ = t_s;
  had_target_ = target != nullptr;
  const double x = state_.x, y = state_.y;
  double vx = 0, vy = 0;
  if (cursor_.control == "position") {
    if (moves) {
      state_.x = std::clamp(cursor_.gain * across, -limit_, limit_);
      state_.y = std::clamp(cursor_.gain * up, -limit_, limit_);
      vx = (state_.x - x) / dt_s_;
      vy = (state_.y - y) / dt_s_;
    }
  } else if (moves) {
    vx = cursor_.gain * across;
    vy = cursor_.gain * up;
    if (share > 0) {
      double help_x = 0, help_y = 0;
      if (target) {
        const double dx = target->x - x, dy = target->y - y, far = std::hypot(dx, dy);
        const double speed = help_speed(*target, far);
        if (far > 0) help_x = speed * dx / far, help_y = speed * dy / far;
      }
      vx = (1 - share) * vx + share * help_x;
      vy = (1 - share) * vy + share * help_y;
    }
    state_.x = std::clamp(x + vx * dt_s_, -limit_, limit_);
    state_.y = std::clamp(y + vy * dt_s_, -limit_, limit_);
  }
  // what was meant while the cursor was at (x, y): the target that was seen by then
  if (target && calibration_ && t_s - shown_since_s_ >= calibration_->see_s - 1e-9) {
    seen_ = *target;
    sees_ = true;
  }
  double meant_x = kNoValue, meant_y = kNoValue;
  if (sees_ && moves) {
    const double dx = seen_.x - x, dy = seen_.y - y, far = std::hypot(dx, dy);
    const bool own_speed = calibration_->intention == "refit";
    const double speed = own_speed ? std::hypot(vx, vy) : help_speed(seen_, far);
    const bool there = (own_speed && seen_.contains(x, y)) || !(far > 0);
    meant_x = there ? 0 : speed * dx / far / cursor_.gain;
    meant_y = there ? 0 : speed * dy / far / cursor_.gain;
  }
  if (calibrator_) {
    const bool known = std::isfinite(meant_x);
    for (std::size_t i = 0; i < label_.size(); ++i)
      label_[i] = !known || position_rows_[i] < 0 ? kNoValue : position_rows_[i] == 0 ? x : y;
    label_[static_cast<std::size_t>(rows_[0])] = meant_x;
    label_[static_cast<std::size_t>(rows_[1])] = meant_y;
    calibrator_->intended(frame, label_.data());
    // with this frame, not with or without it as the threads go
    if (std::exchange(asks_, false)) calibrator_->ask();
    state_.fits = calibrator_->fits();
  }

  const bool click = hold == Hold::none && (clicked || (click_ >= 0 && rows[click_] > cursor_.click_above));
  const auto result = task_.step({.t_s = t_s,
                                  .x = state_.x,
                                  .y = state_.y,
                                  .click = click,
                                  .stopped = hold == Hold::emergency,
                                  .assist = static_cast<float>(share),
                                  .fits = state_.fits});
  if (result.jump || hold == Hold::emergency) sees_ = false;
  if (result.jump) {
    state_.x = result.x;
    state_.y = result.y;
  }
  for (const auto all = task_.log().all(); trials_seen_ < all.size(); ++trials_seen_) count(all[trials_seen_]);
  state_.vx = vx;
  state_.vy = vy;
  state_.phase = task_.phase();
  state_.assist = share;
  state_.held_s = task_.held_s();
  const TaskTarget* next = task_.target();
  state_.target = next != nullptr;
  if (next) state_.shown = *next;
  if (user_)
    user_->see({.t_s = t_s,
                .x = state_.x,
                .y = state_.y,
                .vx = vx,
                .vy = vy,
                .target = next != nullptr,
                .target_x = next ? next->x : 0,
                .target_y = next ? next->y : 0,
                .jump = result.jump});
  const double none = kNoValue;
  const std::array<double, kTaskRows> row{state_.x,
                                          state_.y,
                                          vx,
                                          vy,
                                          next ? next->x : none,
                                          next ? next->y : none,
                                          next ? next->half : none,
                                          next ? next->number : none,
                                          share,
                                          meant_x,
                                          meant_y};
  std::copy(row.begin(), row.end(), frame_.begin());
  return {result.events, frame_, task_.phase() == Task::Phase::done};
}

std::array<double, 2> ClosedLoop::intend(std::int64_t frame, double t_s) noexcept {
  if (calibrator_) calibrator_->settle();
  return user_ ? user_->intend(frame, t_s) : std::array<double, 2>{};
}

Value ClosedLoop::report(bool whole) const {
  Value r = task_report(task_, whole ? kResamples : 0, whole);
  if (calibrator_) r["calibration"] = calibrator_->report();
  return r;
}

}  // namespace percept
