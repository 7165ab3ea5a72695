#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "numerics/fft.h"
#include "preprocessing/fir.h"
#include "preprocessing/rows.h"

namespace percept {
namespace {
constexpr int kVersion = 2;
constexpr Index kLongKernel = 128;  ///< taps from which transforms are faster than sums; 20 times at 3300

/// The kernel of `fir` centred on each frame. Collects the recording, then filters it: a short kernel by sums, a long
/// one by Fourier transforms.
class FirZeroPhase final : public Typed<FirZeroPhase> {
 public:
  struct Params : FirParams {
    std::string edge = "nan";
    static constexpr auto fields() {
      return std::tuple_cat(
          FirParams::fields(),
          std::tuple{
              choice("edge", &Params::edge,
                     "What lies beyond the ends of the recording: nan (the outputs that need it are NaN), or reflect "
                     "(the recording turned about its end point, 2 x[0] - x[k], as far as it goes).",
                     "nan|reflect")});
    }
  };
  explicit FirZeroPhase(Params p) : p_(std::move(p)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "fir_zero_phase");
    const auto taps = fir_taps(p_, in.rate_hz, context);
    long_.reset();
    if (taps.size() >= kLongKernel) long_.emplace(taps);
    else kernel_.prepare(taps, in.size());
    rows_ = in.size();
    std::get<Kept<float>>(kept_).edge.resize(static_cast<std::size_t>(rows_));
    std::get<Kept<double>>(kept_).edge.resize(static_cast<std::size_t>(rows_));
    half_ = (taps.size() - 1) / 2;
    room_ = in.max_frames;
    reset();
    return in;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T>) noexcept {
    auto& kept = std::get<Kept<T>>(kept_).frames;
    for (Index k = 0; k < in.frames; ++k) kept.insert(kept.end(), in.frame(k), in.frame(k) + rows_);
    return 0;
  }
  Index flush(Output& o) noexcept override {
    if (long_) return o.y.scalar == Scalar::f32 ? transform(o.y.as<float>()) : transform(o.y.as<double>());
    return o.y.scalar == Scalar::f32 ? filter(o.y.as<float>()) : filter(o.y.as<double>());
  }
  void reset() noexcept override {
    kernel_.reset();
    std::get<Kept<float>>(kept_).frames.clear();
    std::get<Kept<double>>(kept_).frames.clear();
    fed_ = 0;
  }
  Traits traits() const override { return {.causal = false, .per_row = true, .memory_frames = Traits::kAllFrames}; }

 private:
  template <class T>
  struct Kept {
    std::vector<T> frames;  ///< the recording, frame after frame
    std::vector<T> edge;    ///< one frame from beyond its ends
  };
  /// The recording with half a kernel before and after it goes through the kernel; the first output is the one whose
  /// kernel is centred on frame 0.
  template <class T>
  Index filter(FrameSpan<T> out) noexcept {
    auto& [kept, edge] = std::get<Kept<T>>(kept_);
    const Index frames = static_cast<Index>(kept.size()) / rows_;
    Index written = 0;
    while (fed_ < frames + 2 * half_ && written < room_) {
      const Index at = fed_ - half_;  // in the recording
      const bool quiet = fed_ < 2 * half_;
      FrameSpan<const T> x{edge.data(), rows_, 1, rows_};
      if (at >= 0 && at < frames)
        x = {kept.data() + at * rows_, rows_, std::min(frames - at, quiet ? 2 * half_ - fed_ : room_ - written), rows_};
      else beyond(kept, frames, at, edge);
      written += kernel_.run(x, quiet ? FrameSpan<T>{} : out.slice(written, x.frames));
      fed_ += x.frames;
    }
    return written;
  }
  /// The first call puts the filtered recording in the place of the recording; every call gives the next piece of it.
  template <class T>
  Index transform(FrameSpan<T> out) noexcept {
    auto& [kept, edge] = std::get<Kept<T>>(kept_);
    const Index frames = static_cast<Index>(kept.size()) / rows_;
    if (fed_ == 0 && frames > 0) {
      constexpr Index kTile = 8;  // rows of one pass over the recording: a cache line of doubles
      const Index extended = frames + 2 * half_;
      std::vector<double> x(static_cast<std::size_t>(extended * kTile)), y(static_cast<std::size_t>(frames));
      for (Index row = 0; row < rows_; row += kTile) {
        const Index n = std::min(kTile, rows_ - row);
        for (Index k = 0; k < extended; ++k) {
          const Index at = k - half_;
          const T* from = edge.data();
          if (at >= 0 && at < frames) from = kept.data() + at * rows_;
          else beyond(kept, frames, at, edge);
          for (Index r = 0; r < n; ++r)
            x[static_cast<std::size_t>(r * extended + k)] = static_cast<double>(from[row + r]);
        }
        for (Index r = 0; r < n; ++r) {
          long_->run({x.data() + r * extended, static_cast<std::size_t>(extended)}, y);
          for (Index k = 0; k < frames; ++k)
            kept[static_cast<std::size_t>(k * rows_ + row + r)] = static_cast<T>(y[static_cast<std::size_t>(k)]);
        }
      }
    }
    const Index n = std::min(room_, frames - fed_);
    copy_frames(FrameSpan<const T>{kept.data() + fed_ * rows_, rows_, n, rows_}, out.slice(0, n));
    fed_ += n;
    return n;
  }
  template <class T>
  void beyond(const std::vector<T>& kept, Index frames, Index at, std::vector<T>& edge) const noexcept {
    const Index end = at < 0 ? 0 : frames - 1, mirror = 2 * end - at;
    if (p_.edge == "nan" || mirror < 0 || mirror >= frames) {
      std::fill(edge.begin(), edge.end(), std::numeric_limits<T>::quiet_NaN());
      return;
    }
    const T *about = kept.data() + end * rows_, *from = kept.data() + mirror * rows_;
    for (std::size_t r = 0; r < edge.size(); ++r)
      edge[r] = static_cast<T>(2 * static_cast<double>(about[r]) - static_cast<double>(from[r]));
  }

  Params p_;
  FirKernel kernel_;
  std::optional<LongConvolution> long_;  ///< in place of kernel_
  Index rows_ = 0, half_ = 0, room_ = 0;
  std::tuple<Kept<float>, Kept<double>> kept_;  ///< the edge's scalar picks one
  Index fed_ = 0;                               ///< frames that went into kernel_, or were given by long_
};
}  // namespace

StageInfo info_fir_zero_phase() {
  auto i = stage_info<FirZeroPhase>("fir_zero_phase", "preprocessing",
                                    "The filter of fir with its kernel centred on each frame: no delay, every frame "
                                    "answered, whole recordings only.");
  i.version = kVersion;
  i.paper = "Oppenheim and Schafer, Discrete-Time Signal Processing, chapter 7";
  i.causal_twin = "fir";
  i.samples = [] {
    Sample s;
    s.params = Value::object({{"pass", "low"}, {"high_hz", 20.0}, {"transition_hz", 10.0}});
    auto all = both_scalars(s);
    s.params["edge"] = "reflect";
    for (auto& r : both_scalars(s)) all.push_back(r);
    s.params["transition_hz"] = 1.5;  // a long kernel
    for (auto& r : both_scalars(s)) all.push_back(r);
    return all;
  };
  return i;
}

}  // namespace percept
