/// The clock of stages that make one frame of every n: frames [j n, (j + 1) n) become frame j, which stands for their
/// centre; what is not full at the end of the recording is left out.
#pragma once

#include <algorithm>

#include "core/stage.h"

namespace percept {

struct Bins {
  Index length = 1;      ///< frames in one
  double latency_s = 0;  ///< from the centre to the last frame

  /// Takes the format of the input to that of the output. Throws ConfigError unless bin_s is a whole number of frames.
  void prepare(double bin_s, StreamFormat& format, const Context& context);

  /// Gives `add` each piece of the input that lies in one bin, and calls `full` after the last piece of a bin;
  /// `filled` is the state: frames that are in the bin so far.
  template <class T, class Add, class Full>
  void cut(FrameSpan<const T> in, Index& filled, Add add, Full full) const noexcept {
    for (Index done = 0; done < in.frames;) {
      const Index n = std::min(length - filled, in.frames - done);
      add(in.slice(done, n));
      filled += n;
      done += n;
      if (filled < length) continue;
      full();
      filled = 0;
    }
  }
};

}  // namespace percept
