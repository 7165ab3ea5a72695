#include "realtime/simulator_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "core/error.h"

namespace percept {

SimulatorSource::SimulatorSource(const Params& params, const SimulatorOptions& options, const std::string& where)
    : simulator_(params, where), options_(options) {
  if (!(options.speed >= 0 && std::isfinite(options.speed)))
    throw ConfigError(where + ".speed", fmt::format("{}", options.speed), "a factor above zero, or 0 for no pacing");
  const Recording recording = simulator_.recording();
  format_ = recording.stream("activity", where).format;
  format_.scalar = Scalar::f64;
  format_.max_frames = 1;
  events_ = recording.events;
  counts_.resize(static_cast<std::size_t>(format_.size()));
  info_ = {.name = "activity",
           .kind = "simulator",
           .device = fmt::format("{} simulated units, seed {}", params.channels, params.seed),
           .clock = "bins of the simulator"};
}

Source::Got SimulatorSource::poll(Packet& packet, std::int64_t timeout_ns) noexcept {
  if (at_ >= simulator_.frames() || stopped_.load(std::memory_order_relaxed)) return Got::ended;
  packet = {};
  if (options_.speed > 0) {
    const double due_s = static_cast<double>(at_ + 1) / format_.rate_hz / options_.speed;
    const std::int64_t due_ns = start_ns_ + static_cast<std::int64_t>(due_s * 1e9), now_ns = steady_ns();
    if (due_ns > now_ns) {
      std::this_thread::sleep_for(std::chrono::nanoseconds(std::min(due_ns - now_ns, timeout_ns)));
      if (due_ns - now_ns > timeout_ns) return Got::nothing;
    }
    packet.received_ns = due_ns > now_ns ? steady_ns() : due_ns;
    packet.clock = {.device_s = due_s, .local_ns = packet.received_ns, .error_s = -1};
  }
  if (intent_) {
    const auto v = intent_(at_, simulator_.time_of(at_));
    simulator_.counts(at_, v[0], v[1], counts_);
  } else {
    simulator_.counts(at_, counts_);
  }
  packet.x = ConstFrames(counts_.data(), Scalar::f64, format_.size(), 1, format_.size());
  packet.counter = at_;
  ++at_;
  // in a closed loop the task says what happens, not the recording
  if (!intent_) {
    const std::size_t first = next_event_;
    while (next_event_ < events_.size() &&
           (at_ == simulator_.frames() || events_[next_event_].onset_s < format_.time_of(at_)))
      ++next_event_;
    packet.events = std::span(events_).subspan(first, next_event_ - first);
  }
  packets_.fetch_add(1, std::memory_order_relaxed);
  return Got::packet;
}

SourceCounts SimulatorSource::counts() const {
  SourceCounts counts;
  counts.packets = packets_.load(std::memory_order_relaxed);
  return counts;
}

}  // namespace percept
