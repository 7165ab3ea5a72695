/// Replays a recording's stream as a device would send it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/recording.h"
#include "numerics/random.h"
#include "realtime/source.h"

namespace percept {

struct ReplayOptions {
  Index packet = 1;                      ///< frames in a packet
  std::uint64_t random = 0;              ///< not 0: packets of 1 ... `packet` frames, keyed by this
  double speed = 0;                      ///< 1: as it was recorded, 2: twice as fast; 0: as fast as it is taken
  std::function<bool()> cancelled = {};  ///< may be empty
};

/// The whole stream packet by packet, in order; a packet's counter is the number of its first frame, its events are
/// those whose onset its end has passed (those left at the end of the stream come with the last).
/// Paced, a packet is given at the time its last frame would have been recorded, counted from start(); when the taker
/// is late, the packet's received_ns is when it was due. Ends when the recording cannot be read any further: trouble()
/// says why.
class ReplaySource final : public Source {
 public:
  /// Throws ConfigError for a stream without a clock or options out of range.
  ReplaySource(Recording recording, const std::string& stream, const ReplayOptions& options);
  const SourceInfo& info() const override { return info_; }
  const StreamFormat& format() const override { return format_; }
  void start() override;
  Got poll(Packet& packet, std::int64_t timeout_ns) noexcept override;
  void stop() noexcept override { stopped_ = true; }
  bool real_time() const override { return false; }  // a file is read
  SourceCounts counts() const override;
  std::string trouble() const override { return failed_ ? failure_ : std::string(); }

 private:
  bool load(std::int64_t first, Index frames) noexcept;

  Recording recording_;
  Stream stream_;
  ReplayOptions options_;
  SourceInfo info_;
  StreamFormat format_;
  KeyedRandom random_;
  std::vector<std::byte> room_;
  Index chunk_ = 0;
  std::int64_t at_ = 0, loaded_first_ = 0, loaded_end_ = 0, start_ns_ = 0;
  std::size_t next_event_ = 0;
  std::string failure_;
  std::atomic<bool> stopped_{false}, failed_{false};
  std::atomic<std::int64_t> packets_{0};
};

/// Gives the whole stream to `take`, on this thread, as ReplaySource does. Returns the number of packets. Throws
/// ConfigError as that does, DataError when the recording cannot be read, Interrupted when cancelled.
std::int64_t replay(const Recording& recording, const std::string& stream, const ReplayOptions& options,
                    const std::function<void(const Packet&)>& take);

}  // namespace percept
