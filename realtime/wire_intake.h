/// What the sources share that take percept's own packets: from a WirePacket to a Packet of the announced format.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <string>
#include <vector>

#include "realtime/labels.h"
#include "realtime/source.h"
#include "realtime/wire.h"

namespace percept {

/// Allocates nothing after prepare(). One thread; counts and trouble() from any.
class WireIntake {
 public:
  explicit WireIntake(const std::vector<std::string>& labels) : labels_(labels) {}

  /// Frames of `first`'s shape, rate and type; max_frames: the most in one packet.
  void prepare(const WirePacket& first, const std::string& stream, Index max_frames);
  void prepare(Index rows, double rate_hz, Scalar scalar, const std::string& stream, Index max_frames);
  const StreamFormat& format() const { return format_; }

  /// True when frames came that are of the announced format: they are in `packet` until the next call. Events are kept
  /// for the next packet with frames.
  bool take(const WirePacket& wire, std::int64_t received_ns, Packet& packet) noexcept;
  void count_malformed() noexcept { malformed_.fetch_add(1, std::memory_order_relaxed); }
  SourceCounts counts() const;
  std::string trouble() const;

 private:
  struct Waiting {
    Event event{};
    std::int64_t counter = 0;
  };
  Labels labels_;
  StreamFormat format_;
  std::vector<std::byte> room_;
  std::array<Waiting, 64> waiting_{};
  std::size_t n_waiting_ = 0;
  std::array<Event, 64> events_{};
  std::atomic<std::int64_t> packets_{0}, malformed_{0}, foreign_{0}, lost_events_{0}, infinite_{0};
  // the last packet of another format; foreign_since_ is 0 once one of the announced came
  std::atomic<std::int64_t> foreign_rows_{0}, foreign_since_{0};
  std::atomic<double> foreign_rate_{0};
};

}  // namespace percept
