#include "realtime/clock.h"

#include <algorithm>
#include <chrono>

namespace percept {

namespace {
constexpr double kLeastSpread = 2e-5;  ///< what a scheduler adds to any receive time [s]
constexpr double kWander = 1e-7;       ///< by which a crystal's drift changes while nobody looks
constexpr double kHuber = 1.5;
}  // namespace

std::int64_t steady_ns() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void ClockModel::observe(const ClockSample& sample) noexcept {
  if (sample.local_ns == 0 || !std::isfinite(sample.device_s)) return;
  const double local_s = static_cast<double>(sample.local_ns) * 1e-9;
  last_ns_ = sample.local_ns;
  if (!known_) {
    known_ = true;
    line_ = {sample.device_s, local_s, 0};
    centre_s_ = sample.device_s;
    ++version_;
  }
  const double deviation = local_s - line_.to_local(sample.device_s);
  if (std::abs(deviation) > options_.jump_s) return suspect(deviation, sample);
  suspects_ = 0;

  if (n_points_ == 0 && deviation < 0) {  // until there is a window, the earliest so far is the best guess
    line_.local_s += deviation;
    ++version_;
  }
  if (window_ && !(sample.device_s < window_start_s_ + options_.window_s)) close_window();
  const bool receive = sample.error_s < 0;
  const double rank = receive ? deviation : sample.error_s;
  if (!window_ || rank < best_) {
    if (!window_) window_start_s_ = sample.device_s;
    window_ = true;
    best_ = rank;
    const double error = std::max(receive ? spread_s_ : sample.error_s, kLeastSpread);
    best_point_ = {sample.device_s, local_s - sample.device_s, receive ? 1 : (spread_s_ * spread_s_) / (error * error)};
  }
}

void ClockModel::suspect(double deviation, const ClockSample& sample) noexcept {
  // a run of samples that deviate to one side; a change of side begins another
  if (suspects_ > 0 && (deviation > 0) != (suspect_last_ > 0)) suspects_ = 0;
  if (suspects_ == 0) {
    suspect_start_s_ = sample.device_s;
    suspect_start_ns_ = sample.local_ns;
    suspect_least_ = deviation;
  }
  ++suspects_;
  suspect_least_ = std::min(suspect_least_, deviation);
  const bool agree = std::abs(deviation - suspect_last_) < options_.jump_s;
  suspect_last_ = deviation;
  // what waited somewhere and comes at once spans much time of the device, but little here
  const bool may_be_delay = sample.error_s < 0 && deviation > 0;
  const bool long_enough = sample.device_s >= suspect_start_s_ + options_.window_s &&
                           static_cast<double>(sample.local_ns - suspect_start_ns_) * 1e-9 >= options_.window_s;
  if (suspects_ > 1 && (may_be_delay ? long_enough : agree)) jump(suspect_least_);
}

void ClockModel::jump(double by) noexcept {
  // local minus device grew: the past is kept as the device would have stamped it on its new time
  for (int i = 0; i < n_points_; ++i) {
    points_[static_cast<std::size_t>(i)].device_s -= by;
    points_[static_cast<std::size_t>(i)].offset_s += by;
  }
  line_.device_s -= by;
  centre_s_ -= by;
  window_ = false;
  suspects_ = 0;
  ++jumps_;
  last_jump_s_ = by;
  ++version_;
}

void ClockModel::close_window() noexcept {
  points_[static_cast<std::size_t>(next_point_)] = best_point_;
  next_point_ = (next_point_ + 1) % kPoints;
  n_points_ = std::min(n_points_ + 1, kPoints);
  window_ = false;
  fit();
}

void ClockModel::fit() noexcept {
  const auto n = static_cast<std::size_t>(n_points_);
  // offsets are small differences of large numbers: take one of them off
  const double reference = points_[0].offset_s;
  std::array<double, kPoints> robust, size;
  robust.fill(1);
  double spread = std::max(spread_s_, kLeastSpread), centre = 0, mean = 0, slope = 0, squares = 0, weights = 0;
  for (int round = 0; round < 4; ++round) {
    weights = centre = mean = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double w = robust[i] * points_[i].weight;
      weights += w;
      centre += w * points_[i].device_s;
      mean += w * (points_[i].offset_s - reference);
    }
    centre /= weights;
    mean /= weights;
    double cross = 0;
    squares = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double w = robust[i] * points_[i].weight, d = points_[i].device_s - centre;
      cross += w * d * (points_[i].offset_s - reference - mean);
      squares += w * d * d;
    }
    squares += spread * spread / (kDriftPrior * kDriftPrior);
    slope = cross / squares;
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double r = points_[i].offset_s - reference - mean - slope * (points_[i].device_s - centre);
      size[i] = std::abs(r);
      sum += robust[i] * points_[i].weight * r * r;
    }
    residual_s_ = std::sqrt(sum / weights);
    if (n < 4) break;  // too few to say which of them is off
    std::array<double, kPoints> sorted = size;
    std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(n / 2),
                     sorted.begin() + static_cast<std::ptrdiff_t>(n));
    spread = std::max(1.4826 * sorted[n / 2], kLeastSpread);
    for (std::size_t i = 0; i < n; ++i) robust[i] = size[i] <= kHuber * spread ? 1 : kHuber * spread / size[i];
  }
  spread_s_ = spread;
  slope_sd_ = spread / std::sqrt(squares);
  centre_s_ = centre;
  line_ = {centre, centre + reference + mean, slope};
  ++version_;
}

double ClockModel::uncertainty_s(double device_s) const noexcept {
  const double away = device_s - centre_s_;
  const double latest =
      n_points_ ? points_[static_cast<std::size_t>((next_point_ + kPoints - 1) % kPoints)].device_s : centre_s_;
  const double held = std::max(0.0, device_s - latest);
  const double mean = spread_s_ / std::sqrt(static_cast<double>(std::max(n_points_, 1)));
  return std::sqrt(mean * mean + slope_sd_ * slope_sd_ * away * away + kWander * kWander * held * held);
}

}  // namespace percept
