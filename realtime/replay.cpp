#include "realtime/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "core/error.h"
#include "numerics/random.h"

namespace percept {

std::int64_t replay(const Recording& recording, const std::string& name, const ReplayOptions& options,
                    const std::function<void(const Packet&)>& take) {
  using clock = std::chrono::steady_clock;
  const Stream& stream = recording.stream(name, "replay");
  const StreamFormat& format = stream.format;
  if (format.axis != Axis::time || !(format.rate_hz > 0))
    throw ConfigError("replay", "\"" + name + "\"", "a stream with a clock, found " + format.describe());
  if (options.packet < 1) throw ConfigError("replay.packet", fmt::format("{}", options.packet), "at least one frame");
  if (!(options.speed >= 0 && std::isfinite(options.speed)))
    throw ConfigError("replay.speed", fmt::format("{}", options.speed), "a factor above zero, or 0 for no pacing");

  const KeyedRandom random(options.random, "replay");
  const std::int64_t total = stream.frames();
  // a file is read some packets ahead, so that the disk is asked rarely
  const Index chunk = std::max<Index>(options.packet, 4096);
  std::vector<std::byte> room(static_cast<std::size_t>(chunk * format.size()) * bytes_of(format.scalar));
  const MutableFrames frames(room.data(), format.scalar, format.size(), chunk, format.size());
  std::int64_t loaded_first = 0, loaded_end = 0;

  const auto start = clock::now();
  std::size_t next_event = 0;
  std::int64_t packets = 0;
  for (std::int64_t at = 0; at < total; ++packets) {
    if (options.cancelled && options.cancelled()) throw Interrupted();
    const Index wanted = options.random ? 1 + random.below(options.packet, at) : options.packet;
    const Index n = std::min<Index>(wanted, total - at);
    if (at + n > loaded_end) {
      loaded_first = at;
      loaded_end = std::min<std::int64_t>(at + chunk, total);
      stream.samples->read(at, frames.slice(0, loaded_end - at));
    }
    Packet packet;
    packet.x = ConstFrames(frames).slice(at - loaded_first, n);
    packet.counter = at;
    at += n;
    const std::size_t first_event = next_event;
    while (next_event < recording.events.size() &&
           (at == total || recording.events[next_event].onset_s < format.time_of(at)))
      ++next_event;
    packet.events = std::span(recording.events).subspan(first_event, next_event - first_event);
    if (options.speed > 0) {
      const auto due = start + std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(
                                   static_cast<double>(at) / format.rate_hz / options.speed));
      const bool late = clock::now() > due;
      std::this_thread::sleep_until(due);
      const auto received = late ? due : clock::now();
      packet.received_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(received.time_since_epoch()).count();
    }
    take(packet);
  }
  return packets;
}

}  // namespace percept
