/// Puts the packets of one input into the order of the device's counter, and says of each what became of it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/context.h"
#include "realtime/source.h"

namespace percept {

/// What became of a packet.
enum class Fate : std::uint8_t {
  used,       ///< its frames were given on at once, but for leading ones that were known
  held,       ///< it is ahead of one that is still expected, and waits for that one
  duplicate,  ///< all of its frames had come before
  late,       ///< some of its frames had been given as missing before it came, the others had come
  refused     ///< of another shape than the input, or its counter is impossible
};
const char* name_of(Fate fate);

/// Exact: every packet is counted in one of used, duplicate, late, refused (or is still held), every frame index is
/// counted in frames or missing_frames.
struct SequenceCounts {
  std::int64_t packets = 0, frames = 0;       ///< used, missing frames not counted
  std::int64_t gaps = 0, missing_frames = 0;  ///< the counter jumped, or an expected packet was given up: NaN frames
  std::int64_t reordered_packets = 0;         ///< of those used: came after one that is behind them
  std::int64_t duplicate_packets = 0, late_packets = 0, refused_packets = 0;
  std::int64_t repeated_frames = 0;  ///< leading frames of used packets that were known: dropped
  std::int64_t restarts = 0;         ///< the counter began anew, and the input went on from there
  std::int64_t lost_events = 0;      ///< came with what was dropped, or found no room
  SequenceCounts& operator+=(const SequenceCounts& other);
};

/// Frame k of the input is the device's frame first + k; what does not come is given as missing, so that the clock
/// holds. One thread; counts() from any. Allocates nothing once prepared.
class Sequencer {
 public:
  struct Options {
    std::int64_t max_gap = 0;             ///< frames; a counter further ahead is impossible
    Index hold = 0;                       ///< packets that may wait for an earlier one; 0: what is not there is missing
    std::optional<std::int64_t> first{};  ///< counter of frame 0; not set: that of the first packet
  };
  /// Is given every frame index once, in order.
  class Taker {
   public:
    virtual ~Taker() = default;
    virtual void missing(std::int64_t first_frame, std::int64_t frames) noexcept = 0;
    /// serial: the packet's number in order of arrival; skipped: its leading frames that were known.
    virtual void frames(std::int64_t first_frame, ConstFrames x, std::span<const Event> events, std::int64_t serial,
                        Index skipped) noexcept = 0;
  };

  Sequencer(const StreamFormat& format, Options options);

  /// One packet of format.size() rows. serial: its number in order of arrival, handed to the taker.
  Fate push(const Packet& packet, std::int64_t serial, Taker& taker) noexcept;
  /// What is expected before the packets that wait is given up: it is missing, and they go on.
  void release(Taker& taker) noexcept;
  /// The next frames are given as missing, though nothing behind them came yet.
  void give_up(std::int64_t frames, Taker& taker) noexcept;

  /// Index of the frame that is expected next.
  std::int64_t next() const noexcept { return next_; }
  /// The device's counter of frame 0, once something came.
  bool started() const noexcept { return started_; }
  std::int64_t first_counter() const noexcept { return first_; }
  /// Packets that wait for an earlier one.
  Index held() const noexcept { return n_held_; }
  SequenceCounts counts() const;

  /// A packet that is nobody's: counted as refused.
  void refuse(const Packet& packet) noexcept;

 private:
  struct Slot {
    std::vector<std::byte> bytes;
    std::vector<Event> events;
    Scalar scalar = Scalar::f32;
    Index frames = 0;
    std::int64_t at = 0, serial = 0;
    bool taken = false, reordered = false;
  };
  struct Range {
    std::int64_t begin = 0, end = 0;
  };
  Fate drop(Fate fate, const Packet& packet, std::int64_t serial, Taker& taker) noexcept;
  bool restarts(const Packet& packet) noexcept;
  void give(const Packet& packet, std::int64_t at, std::int64_t serial, Taker& taker) noexcept;
  void give_held(Taker& taker) noexcept;
  void declare_missing(std::int64_t frames, Taker& taker) noexcept;
  void remember(Range range) noexcept;
  bool take_from_missing(std::int64_t begin, std::int64_t end) noexcept;
  Slot* earliest() noexcept;
  Slot* free_slot(Index frames) noexcept;
  std::span<const Event> in_recording_time(const Packet& packet, std::int64_t at) noexcept;

  StreamFormat format_;
  Options options_;
  std::int64_t first_ = 0, next_ = 0;
  bool started_ = false;
  std::vector<Slot> slots_;
  Index n_held_ = 0;
  // what was given as missing of late, so that a packet that comes after all is told from a duplicate
  static constexpr std::size_t kRanges = 64;
  std::array<Range, kRanges> missing_{};
  std::size_t next_range_ = 0;
  std::int64_t forgotten_ = 0;  ///< before this frame, ranges have been forgotten
  // dropped packets that follow each other: a device that began to count anew
  std::int64_t run_ = 0, run_first_ = 0, run_next_ = 0, run_start_ns_ = 0;
  std::int64_t run_late_ = 0, run_duplicates_ = 0;
  std::int64_t last_used_ns_ = 0;
  std::array<Event, 256> events_{};
  Counter packets_, frames_, gaps_, missing_frames_, reordered_, duplicates_, late_, refused_, repeated_, restarts_,
      lost_events_;
};

}  // namespace percept
