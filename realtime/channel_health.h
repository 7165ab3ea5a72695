/// Watches every channel of an input while it runs, and says which cannot be used.
#pragma once

#include <atomic>
#include <cstdint>
#include <tuple>
#include <vector>

#include "core/params.h"
#include "core/stream.h"

namespace percept {

/// What is wrong with a channel.
enum class ChannelState : std::uint8_t {
  good,
  missing,    ///< NaN for missing_s: the device gives nothing
  flat,       ///< one value for flat_s: an electrode that is open or shorted, an amplifier that is off
  saturated,  ///< beyond amplitude_limit: a movement, a stimulator, an amplifier at its end
  by_hand     ///< the operator took it out
};
const char* name_of(ChannelState state);

/// One thread; states may be read by any. Allocates nothing once made.
///
/// A channel is bad from the frame in which a limit is passed, and good again once it was inside all of them for
/// recover_s. A bad channel is masked: the graph gets NaN in its place, while the recorder keeps what came. Kalman and
/// its relatives leave a missing row out of the update and grow more uncertain; a map behind `impute` gets its
/// conditional mean; without either, a frame with a missing row gives no output.
class ChannelHealth {
 public:
  struct Params {
    double amplitude_limit = 0, flat_s = 0, missing_s = 0.1, recover_s = 1;
    static constexpr auto fields() {
      return std::tuple{
          field("amplitude_limit", &Params::amplitude_limit, "unit of the input",
                "A channel whose magnitude is beyond this is masked; 0: not looked at.", 0, 1e300),
          field("flat_s", &Params::flat_s, "s",
                "A channel that gives one value for so long is masked; 0: not looked at (counts may well be zero).", 0,
                3600),
          field("missing_s", &Params::missing_s, "s", "A channel that is NaN for so long is masked; 0: not looked at.",
                0, 3600),
          field("recover_s", &Params::recover_s, "s", "A masked channel is used again after so long inside all limits.",
                0, 3600)};
    }
  };
  ChannelHealth(const StreamFormat& format, const Params& params);

  /// Looks at the frames of one packet, in either scalar. True when a channel's state changed.
  bool check(ConstFrames x) noexcept;
  /// The operator takes a channel out, or hands it back to the limits. On the thread of check().
  void by_hand(Index row, bool out) noexcept;
  bool usable(Index row) const noexcept { return state(row) == ChannelState::good; }
  ChannelState state(Index row) const noexcept {
    return static_cast<ChannelState>(states_[static_cast<std::size_t>(row)].load(std::memory_order_relaxed));
  }
  Index rows() const noexcept { return static_cast<Index>(states_.size()); }
  Index bad() const noexcept;

 private:
  template <class T>
  void look(FrameSpan<const T> x) noexcept;

  bool watches_ = false;
  float limit_ = 0;
  std::int32_t flat_frames_ = 0, missing_frames_ = 0, recover_frames_ = 0;
  // by row: how many frames in a row
  std::vector<std::int32_t> missing_, flat_, over_, good_;
  std::vector<double> last_;
  std::vector<std::uint8_t> by_hand_;
  std::vector<std::atomic<std::uint8_t>> states_;
};

}  // namespace percept
