/// Frames on disk while a run lasts: what is larger than memory. Internal to core/ and evaluation/.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/recording.h"

namespace percept {

/// An anonymous temporary file of frames, written in order and read anywhere. Small ones stay in memory.
class Spool final : public SampleSource {
 public:
  /// folder "" = the system's temporary folder. Throws DataError when the disk is full or cannot be written.
  Spool(Index rows, Scalar scalar, const std::string& folder, std::size_t memory_bytes = 64u << 20);
  ~Spool() override;
  void append(ConstFrames x);
  std::int64_t frames() const override { return frames_; }
  void read(std::int64_t first, MutableFrames out) const override;
  Index rows() const { return rows_; }
  Scalar scalar() const { return scalar_; }

 private:
  void spill();
  Index rows_;
  Scalar scalar_;
  std::string folder_;
  std::size_t memory_bytes_;
  std::int64_t frames_ = 0;
  std::vector<std::byte> memory_;
  int file_ = -1;
};

}  // namespace percept
