/// Where live frames come from: the one interface of every device, network stream, file and simulator.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "core/stream.h"
#include "realtime/clock.h"

namespace percept {

struct RealTimeParams;

/// What a device hands over at once. Its three stamps are kept as they came: the device's count and time, when it
/// arrived here, and what the clock model makes of them; the model's line is kept beside it, so that the correction can
/// be undone.
struct Packet {
  ConstFrames x = {};                  ///< of either scalar
  std::int64_t counter = 0;            ///< the device's count of the first frame
  std::span<const Event> events = {};  ///< one that comes late keeps its true onset
  std::int64_t received_ns = 0;  ///< steady clock when it arrived, so that waiting counts as latency; 0: at push()
  double device_s = std::numeric_limits<double>::quiet_NaN();  ///< the device's time of the last frame; NaN: none
  ClockSample clock = {};                                      ///< what this packet tells of the device's clock
  /// Onsets count from the packet's first frame, since the device does not know the recording's time; else they are
  /// recording time.
  bool events_from_packet = false;
};

/// What a source says of itself before it starts.
struct SourceInfo {
  std::string name;    ///< of its stream: the input of the graph
  std::string kind;    ///< "udp", "lsl", ...
  std::string device;  ///< who sends, in words: "UDP port 51000", "EEG (BioSemi) on host a"
  std::string clock;   ///< what the stamps count, in words: "frames of the device"
};

/// What a source took and did not hand on. What is missing in between, the sequencer finds (realtime/sequencer.h).
struct SourceCounts {
  std::int64_t packets = 0;         ///< handed over
  std::int64_t malformed = 0;       ///< not a packet at all: refused
  std::int64_t foreign = 0;         ///< of another format than the one announced: refused
  std::int64_t lost_in_system = 0;  ///< the operating system says that it had no room for so many
  std::int64_t lost_events = 0;     ///< more at once than there is room for
  std::int64_t infinite = 0;        ///< infinite numbers, which became NaN
  std::int64_t reconnects = 0;
};

/// A stream of packets. Made by a function that throws when the source cannot be had; after that nothing throws.
/// The format is announced before start() and never changes: what comes in another format is refused and counted.
class Source {
 public:
  enum class Got : std::uint8_t {
    packet,
    nothing,  ///< nothing came in time
    ended     ///< nothing will come any more
  };
  virtual ~Source() = default;
  virtual const SourceInfo& info() const = 0;
  /// The clock is the nominal one; max_frames is the largest packet; frames come in `scalar`.
  virtual const StreamFormat& format() const = 0;
  /// From now on packets are taken. Throws DataError or ConfigError.
  virtual void start() {}
  /// The next packet, waiting no longer than timeout_ns (0: not at all). What it points to stays until the next call.
  virtual Got poll(Packet& packet, std::int64_t timeout_ns) noexcept = 0;
  /// A thread of its own, if it has one, gets a real-time priority where permitted; after start().
  virtual void raise(const RealTimeParams&) noexcept {}
  /// Ends a poll() that waits, and every later one, from any thread.
  virtual void stop() noexcept = 0;
  /// poll() neither allocates nor takes longer than it is told: it may run on the real-time thread itself.
  virtual bool real_time() const = 0;
  /// Any thread.
  virtual SourceCounts counts() const = 0;
  /// Why nothing comes, in a sentence, where the source knows; any thread, not from the real-time one.
  virtual std::string trouble() const { return {}; }
};

}  // namespace percept
