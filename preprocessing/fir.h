/// Finite impulse response filters: design of the taps, and the kernel that every FIR stage of this folder runs.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "core/params.h"
#include "core/stage.h"

namespace percept {

/// A taper of n points, symmetric: hamming | hann | blackman.
Eigen::VectorXd taper(const std::string& window, Index n);

/// Windowed-sinc taps of a linear-phase filter of odd length n. pass: low (up to high_hz), high (from low_hz),
/// band (low_hz to high_hz), stop (all but low_hz to high_hz). The edges are the -6 dB points. The gain is exactly 1 at
/// 0 Hz (low, stop), at half the rate (high) or at the middle of the band (band).
/// Oppenheim and Schafer, Discrete-Time Signal Processing, chapter 7.
Eigen::VectorXd windowed_sinc(const std::string& pass, double low_hz, double high_hz, double rate_hz,
                              const std::string& window, Index n);

/// The odd length that gives transitions of this width: 3.3 (hamming), 3.1 (hann) or 5.5 (blackman) rate / transition.
Index windowed_sinc_length(double transition_hz, double rate_hz, const std::string& window);

/// What a user says of a FIR filter.
struct FirParams {
  std::string pass = "band";
  double low_hz = 1, high_hz = 40, transition_hz = 1;
  std::string window = "hamming";
  std::vector<double> taps;
  static constexpr auto fields() {
    return std::tuple{
        choice("pass", &FirParams::pass,
               "What is kept: low (up to high_hz), high (from low_hz), band (between them), stop (all but the band).",
               "low|high|band|stop"),
        field("low_hz", &FirParams::low_hz, "Hz", "Lower edge, where the gain is one half; not used by low.", 0.0, 1e9),
        field("high_hz", &FirParams::high_hz, "Hz", "Upper edge, where the gain is one half; not used by high.", 0.0,
              1e9),
        field("transition_hz", &FirParams::transition_hz, "Hz",
              "Width from pass to stop around each edge; the length of the kernel follows from it.", 1e-9, 1e9),
        choice("window", &FirParams::window, "Taper of the kernel: stop band at -53, -44 or -74 dB.",
               "hamming|hann|blackman"),
        field("taps", &FirParams::taps, "",
              "The kernel itself, in place of a design: an odd number, symmetric or antisymmetric about the middle.")};
  }
};

/// The taps for a stream of this rate. Throws ConfigError when an edge is not below half the rate, the edges cross,
/// the kernel would be longer than half a million taps, or given taps have no linear phase.
Eigen::VectorXd fir_taps(const FirParams& p, double rate_hz, const Context& context);

/// Direct form y[t] = sum_j taps[j] x[t - j], summed in double in the order j = 0, 1, ... for every output, so that no
/// bit depends on how the input was cut. What was before the first frame is NaN, and so is every output that needs it.
class FirKernel {
 public:
  void prepare(const Eigen::VectorXd& taps, Index rows);
  void reset() noexcept;
  void visit_state(StateVisitor& v) noexcept {
    v("history", buffer_);
    v("end", end_);
    v("phase", phase_);
  }
  /// Takes all of `in` and writes the outputs of frames 0, keep, 2 keep, ... of the stream; returns how many.
  /// With no room (out.data == nullptr) it only remembers.
  template <class T>
  Index run(FrameSpan<const T> in, FrameSpan<T> out, Index keep = 1) noexcept {
    const Index memory = static_cast<Index>(taps_.size()) - 1;
    Index written = 0;
    for (Index done = 0; done < in.frames;) {
      const Index n = std::min(kChunk, in.frames - done);
      if (end_ + n > capacity_) {
        std::memmove(buffer_.data(), buffer_.data() + (end_ - memory) * stride_,
                     static_cast<std::size_t>(memory * stride_) * sizeof(double));
        end_ = memory;
      }
      for (Index k = 0; k < n; ++k) {
        double* to = buffer_.data() + (end_ + k) * stride_;
        const T* from = in.frame(done + k);
        for (Index r = 0; r < rows_; ++r) to[r] = static_cast<double>(from[r]);
      }
      const Index first = (keep - phase_) % keep;
      if (out.data) {
        // row tile by row tile, so that the tile's history stays in the nearest cache for the whole chunk
        Index row = 0;
        for (; row + 16 <= stride_ && row < rows_; row += 16) tile<16>(row, first, n, keep, out, written);
        for (; row < rows_; row += 4) tile<4>(row, first, n, keep, out, written);
        if (first < n) written += (n - first + keep - 1) / keep;
      }
      phase_ = (phase_ + n) % keep;
      end_ += n;
      done += n;
    }
    return written;
  }

 private:
  static constexpr Index kChunk = 64;

  template <int N, class T>
  void tile(Index row, Index first, Index n, Index keep, FrameSpan<T> out, Index written) const noexcept {
    using Lanes = Eigen::Array<double, N, 1>;
    const Index width = std::min<Index>(N, rows_ - row);
    for (Index k = first; k < n; k += keep, ++written) {
      const double* x = buffer_.data() + (end_ + k) * stride_ + row;
      Lanes sum = taps_[0] * Eigen::Map<const Lanes>(x);
      for (std::size_t j = 1; j < taps_.size(); ++j) {
        x -= stride_;
        sum += taps_[j] * Eigen::Map<const Lanes>(x);
      }
      T* y = out.frame(written) + row;
      for (Index r = 0; r < width; ++r) y[r] = static_cast<T>(sum[r]);
    }
  }

  std::vector<double> taps_;
  Index rows_ = 0, stride_ = 0, capacity_ = 0;
  std::vector<double> buffer_;  ///< frames of `stride_` doubles; the newest is end_ - 1
  Index end_ = 0, phase_ = 0;   ///< phase_: frames seen, modulo keep
};

}  // namespace percept
