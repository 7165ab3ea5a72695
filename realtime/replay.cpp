#include "realtime/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "core/error.h"

namespace percept {

ReplaySource::ReplaySource(Recording recording, const std::string& name, const ReplayOptions& options)
    : recording_(std::move(recording)), stream_(recording_.stream(name, "replay")), options_(options),
      format_(stream_.format), random_(options.random, "replay") {
  if (format_.axis != Axis::time || !(format_.rate_hz > 0))
    throw ConfigError("replay", "\"" + name + "\"", "a stream with a clock, found " + format_.describe());
  if (options.packet < 1) throw ConfigError("replay.packet", fmt::format("{}", options.packet), "at least one frame");
  if (!(options.speed >= 0 && std::isfinite(options.speed)))
    throw ConfigError("replay.speed", fmt::format("{}", options.speed), "a factor above zero, or 0 for no pacing");
  format_.max_frames = options.packet;
  info_ = {.name = name,
           .kind = "replay",
           .device = options.speed > 0 ? fmt::format("{} at speed {}", recording_.name, options.speed)
                                       : fmt::format("{} as fast as it is taken", recording_.name),
           .clock = "frames of the recording"};
  // a file is read some packets ahead, so that the disk is asked rarely
  chunk_ = std::max<Index>(options.packet, 4096);
  room_.resize(static_cast<std::size_t>(chunk_ * format_.size()) * bytes_of(format_.scalar));
}

void ReplaySource::start() { start_ns_ = steady_ns(); }

bool ReplaySource::load(std::int64_t first, Index frames) noexcept {
  if (first >= loaded_first_ && first + frames <= loaded_end_) return true;
  const std::int64_t end = std::min<std::int64_t>(first + chunk_, stream_.frames());
  try {
    stream_.samples->read(first, MutableFrames(room_.data(), format_.scalar, format_.size(),
                                               static_cast<Index>(end - first), format_.size()));
  } catch (const std::exception& e) {
    failure_ = e.what();
    failed_ = true;
    return false;
  }
  loaded_first_ = first;
  loaded_end_ = end;
  return true;
}

Source::Got ReplaySource::poll(Packet& packet, std::int64_t timeout_ns) noexcept {
  const std::int64_t total = stream_.frames();
  if (at_ >= total || stopped_ || failed_) return Got::ended;
  const Index wanted = options_.random ? 1 + random_.below(options_.packet, at_) : options_.packet;
  const Index n = std::min<Index>(wanted, total - at_);
  packet = {};
  if (options_.speed > 0) {
    const double due_s = static_cast<double>(at_ + n) / format_.rate_hz / options_.speed;
    const std::int64_t due_ns = start_ns_ + static_cast<std::int64_t>(due_s * 1e9), now_ns = steady_ns();
    if (due_ns > now_ns) {
      std::this_thread::sleep_for(std::chrono::nanoseconds(std::min(due_ns - now_ns, timeout_ns)));
      if (due_ns - now_ns > timeout_ns) return Got::nothing;
    }
    packet.received_ns = due_ns > now_ns ? steady_ns() : due_ns;
    packet.clock = {.device_s = due_s, .local_ns = packet.received_ns, .error_s = -1};
  }
  if (!load(at_, n)) return Got::ended;
  packet.x = ConstFrames(room_.data(), format_.scalar, format_.size(), chunk_, format_.size())
                 .slice(static_cast<Index>(at_ - loaded_first_), n);
  packet.counter = at_;
  at_ += n;
  const std::size_t first_event = next_event_;
  while (next_event_ < recording_.events.size() &&
         (at_ == total || recording_.events[next_event_].onset_s < format_.time_of(at_)))
    ++next_event_;
  packet.events = std::span(recording_.events).subspan(first_event, next_event_ - first_event);
  packets_.fetch_add(1, std::memory_order_relaxed);
  return Got::packet;
}

SourceCounts ReplaySource::counts() const {
  SourceCounts counts;
  counts.packets = packets_.load(std::memory_order_relaxed);
  return counts;
}

std::int64_t replay(const Recording& recording, const std::string& name, const ReplayOptions& options,
                    const std::function<void(const Packet&)>& take) {
  ReplaySource source(recording, name, options);
  source.start();
  for (Packet packet;;) {
    if (options.cancelled && options.cancelled()) throw Interrupted();
    switch (source.poll(packet, 100'000'000)) {
      case Source::Got::packet:
        take(packet);
        break;
      case Source::Got::nothing:
        break;
      case Source::Got::ended:
        if (!source.trouble().empty())
          throw DataError("replay", name, "a recording that can be read", source.trouble());
        return source.counts().packets;
    }
  }
}

}  // namespace percept
