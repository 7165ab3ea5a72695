/// Replays a recording's stream as a device would send it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/recording.h"
#include "realtime/live_runner.h"

namespace percept {

struct ReplayOptions {
  Index packet = 1;                      ///< frames in a packet
  std::uint64_t random = 0;              ///< not 0: packets of 1 ... `packet` frames, keyed by this
  double speed = 0;                      ///< 1: as it was recorded, 2: twice as fast; 0: as fast as it is taken
  std::function<bool()> cancelled = {};  ///< may be empty
};

/// Gives the whole stream packet by packet, in order, on this thread; a packet's counter is the number of its first frame,
/// its events are those whose onset its end has passed (those left at the end of the stream come with the last).
/// Paced, a packet is given at the time its last frame would have been recorded; when the taker is late, the packet's
/// received_ns is when it was due. Returns the number of packets. Throws ConfigError for a stream without a clock or
/// options out of range, DataError when the recording cannot be read, Interrupted when cancelled.
std::int64_t replay(const Recording& recording, const std::string& stream, const ReplayOptions& options,
                    const std::function<void(const Packet&)>& take);

}  // namespace percept
