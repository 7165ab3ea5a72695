/// The graph's own join of several edges into one frame of several parts. Internal to core/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/stage.h"

namespace percept {

/// Buffers frames of each input until every input has the frame of the same time (or the same key).
/// Time edges are aligned by clock; the buffer holds the difference of the latencies plus a block.
class Join {
 public:
  /// Checks the inputs and returns the joined format. `names` of the inputs become part names where they would clash.
  /// Throws ConfigError naming `where`.
  StreamFormat prepare(const std::vector<StreamFormat>& inputs, const std::vector<std::string>& names, bool nearest,
                       const std::string& where);
  /// Takes what input i gave in this step.
  void take(std::size_t i, ConstFrames x, std::span<const std::int64_t> keys);
  /// Moves up to max_frames joined frames out; returns how many.
  Index give(MutableFrames out, std::int64_t* keys);
  void reset();
  std::int64_t dropped() const { return dropped_; }
  /// Buffers have no fixed size, so their state is saved as bytes rather than through a StateVisitor.
  void save(std::vector<std::byte>& out) const;
  void restore(std::span<const std::byte>& in);

 private:
  struct Ring {
    Index rows = 0, capacity = 0, head = 0, count = 0, bytes_per_frame = 0;
    std::int64_t skip = 0, to_skip = 0;  ///< frames before the joined start, dropped
    std::vector<std::byte> data;
    std::vector<std::int64_t> keys;
    void grow(Index n);
    void drop(Index n);
    void move_to(MutableFrames out);  ///< the oldest out.frames frames, which it holds
  };
  std::vector<Ring> rings_;
  Axis axis_ = Axis::time;
  Scalar scalar_ = Scalar::f64;
  std::int64_t dropped_ = 0;
};

}  // namespace percept
