/// The clock of a device against the steady clock of this machine: offset and drift, followed while packets come.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace percept {

/// This machine's steady clock (CLOCK_MONOTONIC) [ns]. Everything live is timed on it.
std::int64_t steady_ns() noexcept;

/// One look at both clocks.
struct ClockSample {
  double device_s = 0;        ///< on the device's clock
  std::int64_t local_ns = 0;  ///< on the steady clock of this machine; 0: there is no sample
  /// Known uncertainty, to both sides. Negative: local_ns is when something arrived that the device stamped, so it may
  /// be late by any delay and is never early.
  double error_s = -1;
};

/// local = local_s + (device - device_s) (1 + drift). The device's stamp can always be had back from the corrected one.
struct ClockLine {
  double device_s = 0, local_s = 0, drift = 0;
  double to_local(double device) const noexcept { return local_s + (device - device_s) * (1 + drift); }
  double to_device(double local) const noexcept { return device_s + (local - local_s) / (1 + drift); }
  bool operator==(const ClockLine&) const = default;
};

/// Follows one device clock. Nothing here allocates or waits.
///
/// Delays only ever make a receive time late, so the earliest sample of each window of a second is taken (the clock
/// filter of NTP: Mills, IEEE Trans. Commun. 39 (1991) 1482), and a line is laid through the last minute of them by
/// least squares with Huber weights and a prior of 100 ppm on the drift. Without samples the line is held: it goes on
/// with its drift while uncertainty_s() grows. A step of the device's clock is told from a delay: a sample that is too
/// early cannot be a delay, and one that is too late is a step only when all others of a window are, too.
class ClockModel {
 public:
  struct Options {
    double window_s = 1;  ///< of one window
    double jump_s = 0.1;  ///< a deviation beyond this is a step of the clock, or a delay
    double hold_s = 3;    ///< without a sample for so long the line is being held
  };
  ClockModel() : ClockModel(Options{}) {}
  explicit ClockModel(Options options) : options_(options) {}

  void observe(const ClockSample& sample) noexcept;
  bool known() const noexcept { return known_; }
  /// Changes once a window, and at a step.
  const ClockLine& line() const noexcept { return line_; }
  /// Rises with each change of the line.
  std::int64_t version() const noexcept { return version_; }

  /// Spread of the samples about the line [s].
  double residual_s() const noexcept { return residual_s_; }
  /// How far off a corrected time may be (one standard deviation), at a time of the device [s]: grows in hold-over.
  double uncertainty_s(double device_s) const noexcept;
  /// Whether the line is held at a local time, because no sample came.
  bool holding(std::int64_t local_ns) const noexcept {
    return known_ && static_cast<double>(local_ns - last_ns_) * 1e-9 > options_.hold_s;
  }
  std::int64_t jumps() const noexcept { return jumps_; }
  double last_jump_s() const noexcept { return last_jump_s_; }  ///< local minus device, what it changed by

 private:
  static constexpr int kPoints = 60;
  struct Point {
    double device_s = 0, offset_s = 0, weight = 1;
  };
  void suspect(double deviation, const ClockSample& sample) noexcept;
  void jump(double by) noexcept;
  void close_window() noexcept;
  void fit() noexcept;

  Options options_;
  ClockLine line_;
  bool known_ = false;
  std::int64_t version_ = 0, last_ns_ = 0;
  std::array<Point, kPoints> points_{};
  int n_points_ = 0, next_point_ = 0;
  // the window that is open
  bool window_ = false;
  double window_start_s_ = 0, best_ = 0;
  Point best_point_;
  // samples that do not fit the line
  int suspects_ = 0;
  std::int64_t suspect_start_ns_ = 0;
  double suspect_start_s_ = 0, suspect_least_ = 0, suspect_last_ = 0;
  double residual_s_ = 0, spread_s_ = kFirstSpread, slope_sd_ = kDriftPrior, centre_s_ = 0;
  std::int64_t jumps_ = 0;
  double last_jump_s_ = 0;

  static constexpr double kDriftPrior = 1e-4;
  static constexpr double kFirstSpread = 1e-3;
};

}  // namespace percept
