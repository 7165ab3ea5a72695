#include "realtime/channel_health.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace percept {

const char* name_of(ChannelState state) {
  static constexpr const char* kNames[] = {"good", "missing", "flat", "saturated", "by hand"};
  return kNames[static_cast<int>(state)];
}

ChannelHealth::ChannelHealth(const StreamFormat& format, const Params& p)
    : states_(static_cast<std::size_t>(format.size())) {
  const auto frames = [&](double seconds) {
    return static_cast<std::int32_t>(std::min(std::max(1.0, std::ceil(seconds * format.rate_hz - 1e-6)), 2147483647.0));
  };
  if (p.flat_s > 0) flat_frames_ = frames(p.flat_s);
  if (p.missing_s > 0) missing_frames_ = frames(p.missing_s);
  recover_frames_ = frames(p.recover_s);
  limit_ = p.amplitude_limit > 0 ? static_cast<float>(std::min(p.amplitude_limit, 3e38))
                                 : std::numeric_limits<float>::infinity();
  watches_ = flat_frames_ > 0 || missing_frames_ > 0 || p.amplitude_limit > 0;
  for (auto* counter : {&missing_, &flat_, &over_, &good_}) counter->resize(states_.size());
  last_.assign(states_.size(), std::numeric_limits<double>::quiet_NaN());
  by_hand_.resize(states_.size());
}

template <class T>
void ChannelHealth::look(FrameSpan<const T> x) noexcept {
  const auto n = static_cast<std::size_t>(x.rows);
  const bool flat_counts = flat_frames_ > 0;
  const T limit = static_cast<T>(limit_);
  for (Index k = 0; k < x.frames; ++k) {
    const T* frame = x.frame(k);
    // without a branch, so that the compiler takes several rows at once; saturation must not wrap
    for (std::size_t i = 0; i < n; ++i) {
      const T v = frame[i];
      const bool missing = !(v == v), over = std::abs(v) > limit;
      const bool flat = flat_counts && static_cast<double>(v) == last_[i];
      last_[i] = static_cast<double>(v);
      const auto next = [](std::int32_t count, bool holds) { return holds ? count + (count < (1 << 30) ? 1 : 0) : 0; };
      missing_[i] = next(missing_[i], missing);
      flat_[i] = next(flat_[i], flat);
      over_[i] = std::max(over_[i], static_cast<std::int32_t>(over));  // until it is looked at below
      good_[i] = next(good_[i], !missing && !over && !flat);
    }
  }
}

bool ChannelHealth::check(ConstFrames x) noexcept {
  if (x.rows != rows()) return false;
  if (watches_) {
    if (x.scalar == Scalar::f32) look(x.as<float>());
    else look(x.as<double>());
  }
  bool changed = false;
  for (std::size_t i = 0; i < states_.size(); ++i) {
    auto state = static_cast<ChannelState>(states_[i].load(std::memory_order_relaxed));
    const auto was = state;
    if (by_hand_[i]) state = ChannelState::by_hand;
    else if (over_[i] > 0) state = ChannelState::saturated;
    else if (missing_frames_ > 0 && missing_[i] >= missing_frames_) state = ChannelState::missing;
    else if (flat_frames_ > 0 && flat_[i] >= flat_frames_) state = ChannelState::flat;
    else if (state == ChannelState::by_hand || good_[i] >= recover_frames_) state = ChannelState::good;
    over_[i] = 0;
    if (state == was) continue;
    states_[i].store(static_cast<std::uint8_t>(state), std::memory_order_relaxed);
    changed = true;
  }
  return changed;
}

void ChannelHealth::by_hand(Index row, bool out) noexcept {
  if (row >= 0 && row < rows()) by_hand_[static_cast<std::size_t>(row)] = out ? 1 : 0;
}

Index ChannelHealth::bad() const noexcept {
  return static_cast<Index>(
      std::count_if(states_.begin(), states_.end(), [](auto& s) { return s.load(std::memory_order_relaxed) != 0; }));
}

}  // namespace percept
