/// A cursor, its task and the person who steers it: what closes the loop from decoded states back to the activity.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/params.h"
#include "core/stream.h"
#include "realtime/calibrator.h"
#include "realtime/model_user.h"
#include "realtime/output_guard.h"
#include "realtime/task.h"

namespace percept {

/// How decoded states move the cursor.
struct CursorParams {
  std::string control = "velocity", click{};
  std::vector<std::string> rows{};
  double gain = 1, limit = 0, click_above = 0.5;
  static constexpr auto fields() {
    return std::tuple{
        choice("control", &CursorParams::control,
               "velocity: the decoded rows are added up to a position; position: they are it.", "velocity|position"),
        field("rows", &CursorParams::rows, "",
              "Names of the two decoded rows, across and up; left out: vx and vy, or px and py."),
        field("gain", &CursorParams::gain, "1", "On the decoded rows.", 0, 1e9),
        field("limit", &CursorParams::limit, "unit of the cursor",
              "The cursor stays inside a square around zero of twice this side; 0: 1.5 times what the task needs.", 0,
              1e9),
        field("click", &CursorParams::click, "",
              "Name of a decoded row that clicks; the click decoder of [live] does so by itself."),
        field("click_above", &CursorParams::click_above, "unit of that row",
              "A click begins where it rises above this.")};
  }
};

/// What the closed loop shows: plain data.
struct ClosedLoopState {
  bool there = false;  ///< there is a task at all
  Task::Phase phase = Task::Phase::waiting;
  double x = 0, y = 0, vx = 0, vy = 0;
  bool target = false;
  TaskTarget shown;
  double held_s = 0;
  double assist = 0;
  bool calibrating = false;
  std::int32_t fits = 0;
  // of trials that count and had no help, since the last calibration
  std::int64_t acquired = 0, late = 0, wrong = 0;
  double bit_rate = 0, last_time_s = 0;
};

/// One for a session. step() belongs to the loop's thread and allocates nothing.
///
/// Cursor: velocity rows, times the gain and help (below), are added up frame by frame; while the output is held it stands.
/// Assisted calibration (Velliste et al., Nature 453 (2008) 1098): with share a of help the cursor moves by
///     (1 - a) decoded + a speed min(|d| / w, 1) d / |d|,   d from the cursor to the target, w its width.
/// What the user intended, for fitting anew: to go straight to the target as the help does (Brandman et al., J. Neural
/// Eng. 15 (2018) 026007), or the cursor's own velocity turned towards the target, and zero in it (ReFIT, Gilja et al.,
/// Nat. Neurosci. 15 (2012) 1752). The target is the one that was seen by then; not known while the output is held and
/// before anything was seen.
class ClosedLoop {
 public:
  struct Setup {
    StreamFormat decoded;  ///< of the decoded node
    CursorParams cursor = {};
    Value task = Value::table();
    bool clicks = false;  ///< the session has a click decoder ([live] click)
    std::optional<ModelUser::Params> user = {};
    std::optional<CalibrationParams> calibration = {};
    std::string where = "live";
  };
  /// Throws ConfigError.
  explicit ClosedLoop(Setup setup);

  /// One frame of decoded rows, as the guard lets them out.
  struct Result {
    std::span<const Event> events;
    std::span<const double> frame;  ///< of the stream that is recorded
    bool done = false;              ///< as many trials as were asked for
  };
  /// clicked: by the session's click decoder, since the frame before.
  Result step(std::int64_t frame, double t_s, const double* rows, Hold hold, bool clicked = false) noexcept;
  /// What the model user intends, if there is one.
  std::array<double, 2> intend(std::int64_t frame, double t_s) noexcept;
  bool has_user() const noexcept { return user_.has_value(); }

  /// Of the stream "task", by parts: cursor (cursor_x, cursor_y, cursor_vx, cursor_vy), target (target_x, target_y,
  /// target_half, target_number), assist, and intended: the decoded rows of velocity, with a calibration. NaN: none. In a
  /// recorded session target = "live_task.intended" fits a decoder to it.
  const StreamFormat& format() const { return format_; }
  const Task& task() const { return task_; }
  Task& task() { return task_; }
  const CursorParams& cursor() const { return cursor_; }
  double limit() const noexcept { return limit_; }
  const ClosedLoopState& state() const noexcept { return state_; }
  const std::optional<CalibrationParams>& calibration() const { return calibration_; }
  /// Fits while the loop runs; none: recalibrate() does nothing.
  void fit_with(Calibrator* calibrator) noexcept { calibrator_ = calibrator; }

  /// Any thread: begins a calibration, with help as `assist` says, on data from now on.
  void recalibrate() noexcept { calibrate_.store(true, std::memory_order_release); }
  /// Figures and counts. Any thread; with `whole` intervals and each trial too.
  Value report(bool whole) const;

 private:
  double help(double t_s) noexcept;
  double help_speed(const TaskTarget& target, double distance) const noexcept;
  void count(const Trial& trial) noexcept;

  CursorParams cursor_;
  Task task_;
  std::optional<ModelUser> user_;
  std::optional<CalibrationParams> calibration_;
  Calibrator* calibrator_ = nullptr;
  StreamFormat format_;
  double dt_s_ = 0, limit_ = 0;
  std::array<Index, 2> rows_{};
  Index click_ = -1, n_rows_ = 0;
  std::vector<Index> position_rows_;  ///< of the decoded rows: where the cursor is, for fitting; -1: another
  std::vector<double> label_, frame_;
  ClosedLoopState state_;
  std::atomic<bool> calibrate_{false};
  double calibration_began_s_ = 0, next_fit_s_ = 0, shown_since_s_ = 0;
  bool asks_ = false;  ///< for a fit, once the frame is with the calibrator
  bool had_target_ = false;
  TaskTarget seen_;  ///< the target that the user acts on
  bool sees_ = false;
  double counted_time_s_ = 0, counted_bits_ = 0;
  std::size_t trials_seen_ = 0, next_at_ = 0;
};

}  // namespace percept
