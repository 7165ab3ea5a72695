/// How long packets took, in fixed bins: adding never allocates nor blocks, and may be read while it is written.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace percept {

/// Log-spaced bins, 16 to an octave, from 16 ns to 18 minutes: a quantile is at most 1/16 too large, never too small.
class LatencyHistogram {
 public:
  void add(std::int64_t nanoseconds) noexcept;
  std::int64_t count() const noexcept;
  /// The time [s] that a share q of the packets did not exceed; 0 when there were none.
  double quantile_s(double q) const noexcept;
  double max_s() const noexcept;
  /// Upper edge [s] and number of every bin from the first to the last that is not empty, so many to an octave
  /// (1, 2, 4, 8 or 16).
  std::vector<std::pair<double, std::int64_t>> bins(std::size_t to_an_octave) const;
  void clear() noexcept;

 private:
  static constexpr std::size_t kOctaves = 36;
  std::array<std::atomic<std::int64_t>, kOctaves * 16> bins_{};
  std::atomic<std::int64_t> max_ns_{0};
};

}  // namespace percept
