/// The loop of stages that draw an image for each frame.
#pragma once

#include <algorithm>
#include <exception>
#include <limits>

#include "core/context.h"
#include "core/stream.h"

namespace percept::diffusion {

/// Each frame becomes what draw(key) returns for it (a column), whatever its neighbours are; key: its item's, or its
/// number. complete(k) reads frame k and says whether nothing of it is missing: else it is NaN and counted as missing. One
/// whose draw throws, because a number is not finite or no memory is left, is NaN and counted as failed.
template <class T, class Complete, class Draw>
Index draw_frames(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out, Counter& missing,
                  Counter& failed, Complete complete, Draw draw) noexcept {
  for (Index k = 0; k < in.frames; ++k) {
    auto y = out.eigen().col(k);
    y.setConstant(std::numeric_limits<T>::quiet_NaN());
    if (!complete(k)) {
      missing.add();
      continue;
    }
    try {
      y = draw(block.keys.empty() ? block.first_frame + k : block.keys[static_cast<std::size_t>(k)]).template cast<T>();
    } catch (const std::exception&) {
      failed.add();
    }
  }
  if (output.keys) std::copy(block.keys.begin(), block.keys.end(), output.keys);
  return in.frames;
}

}  // namespace percept::diffusion
