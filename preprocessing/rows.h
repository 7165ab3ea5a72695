/// What several stages of this folder share: rows by name, and the samples of the registry.
#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "core/registry.h"

namespace percept {

/// Zero for a number, NaN for what stages that remember must keep out of their state: NaN, infinities, and what is farther
/// from zero than 1e100, which is no measurement and whose square overflows. For sums over many numbers at once.
template <class T, int N>
EIGEN_ALWAYS_INLINE Eigen::Array<T, N, 1> unusable(const Eigen::Array<T, N, 1>& x) {
  if constexpr (std::is_same_v<T, float>) return x - x;  // none is so large
  const Eigen::Array<T, N, 1> huge = x * static_cast<T>(std::numeric_limits<double>::max() / 1e100);
  return huge - huge;
}
inline bool usable(double x) { return unusable(Eigen::Array<double, 1, 1>(x))[0] == 0; }

/// One entry a row of the whole frame: named ("part.name" when there are several parts), with its unit.
std::vector<Channel> channels_of(const StreamFormat& format);

/// The unit that all rows have in common, "1" where they differ.
std::string common_unit(const std::vector<Channel>& rows);

/// Gives the rows `kept` of every frame, in that order.
template <class T>
Index take_rows(const std::vector<Index>& kept, const Block& b, FrameSpan<const T> in, Output& o,
                FrameSpan<T> out) noexcept {
  for (Index t = 0; t < in.frames; ++t)
    for (std::size_t r = 0; r < kept.size(); ++r) out.frame(t)[r] = in.frame(t)[kept[r]];
  if (o.keys) std::copy(b.keys.begin(), b.keys.end(), o.keys);
  return in.frames;
}

/// For stages that take both axes: throws ConfigError unless there are rows and, in time, a rate.
void require_frames(const StreamFormat& in, const Context& context, const char* stage);

/// The sample once in f32 and once in f64.
std::vector<Sample> both_scalars(Sample sample);

}  // namespace percept
