#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "preprocessing/iir.h"
#include "preprocessing/rows.h"

namespace percept {
namespace {
/// The filter of `iir` over the recording and then over what comes out, backwards. Beyond its ends the recording is
/// turned about its end points, 2 x[0] - x[k], for so long that the filter has forgotten where it began.
class IirZeroPhase final : public Typed<IirZeroPhase> {
 public:
  using Params = IirParams;
  explicit IirZeroPhase(Params p) : p_(std::move(p)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "iir_zero_phase");
    const auto sections = iir_sections(p_, in.rate_hz, context);
    kernel_.prepare(sections, kTile, true);
    beyond_ = frames_to_forget(sections);
    rows_ = in.size();
    room_ = in.max_frames;
    held_ = &context.counter("held");
    reset();
    return in;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T>) noexcept {
    auto& kept = std::get<std::vector<T>>(kept_);
    for (Index k = 0; k < in.frames; ++k) kept.insert(kept.end(), in.frame(k), in.frame(k) + rows_);
    return 0;
  }
  Index flush(Output& o) noexcept override {
    return o.y.scalar == Scalar::f32 ? give(o.y.as<float>()) : give(o.y.as<double>());
  }
  void reset() noexcept override {
    std::get<std::vector<float>>(kept_).clear();
    std::get<std::vector<double>>(kept_).clear();
    given_ = 0;
  }
  Traits traits() const override { return {.causal = false, .per_row = true, .memory_frames = Traits::kAllFrames}; }

 private:
  static constexpr Index kTile = 16;  ///< rows of one pass over the recording

  /// Until the slowest pole has faded to a thousandth; at least three times the length of the sections in a row.
  static Index frames_to_forget(const std::vector<Biquad>& sections) {
    double slowest = 0;
    for (const Biquad& s : sections) {
      const double square = s.a1 * s.a1 / 4 - s.a2;
      slowest = std::max(slowest, square < 0 ? std::sqrt(s.a2) : std::abs(s.a1) / 2 + std::sqrt(square));
    }
    const double fade = slowest > 0 ? std::log(1e-3) / std::log(slowest) : 0;
    return std::max(static_cast<Index>(std::min(std::ceil(fade), 1e9)),
                    3 * (2 * static_cast<Index>(sections.size()) + 1));
  }

  /// The first call puts the filtered recording in the place of the recording; every call gives the next piece of it.
  template <class T>
  Index give(FrameSpan<T> out) noexcept {
    auto& kept = std::get<std::vector<T>>(kept_);
    const Index frames = static_cast<Index>(kept.size()) / rows_;
    if (given_ == 0 && frames > 0)
      for (Index row = 0; row < rows_; row += kTile) filter(kept.data() + row, frames, std::min(kTile, rows_ - row));
    const Index n = std::min(room_, frames - given_);
    copy_frames(FrameSpan<const T>{kept.data() + given_ * rows_, rows_, n, rows_}, out.slice(0, n));
    given_ += n;
    return n;
  }

  template <class T>
  void filter(T* x, Index frames, Index rows) noexcept {
    const Index before = std::min(beyond_, frames - 1), all = frames + 2 * before;
    std::vector<double> tile(static_cast<std::size_t>(all * kTile), 0.0);
    for (Index k = 0; k < all; ++k) {
      const Index at = k - before, end = at < 0 ? 0 : frames - 1;
      for (Index r = 0; r < rows; ++r) {
        const auto value = [&](Index t) { return static_cast<double>(x[t * rows_ + r]); };
        tile[static_cast<std::size_t>(k * kTile + r)] =
            at >= 0 && at < frames ? value(at) : 2 * value(end) - value(2 * end - at);
      }
    }
    std::int64_t missing = 0;
    for (Index t = 0; t < frames; ++t)
      for (Index r = 0; r < rows; ++r) missing += !usable(static_cast<double>(x[t * rows_ + r]));
    held_->add(missing);
    const FrameSpan<double> forwards{tile.data(), kTile, all, kTile};
    const FrameSpan<double> backwards{tile.data() + (all - 1) * kTile, kTile, all, -kTile};
    for (const auto& way : {forwards, backwards}) {
      kernel_.reset();
      kernel_.run(FrameSpan<const double>{way.data, way.rows, way.frames, way.stride}, way);
    }
    for (Index t = 0; t < frames; ++t)
      for (Index r = 0; r < rows; ++r)
        x[t * rows_ + r] = static_cast<T>(tile[static_cast<std::size_t>((before + t) * kTile + r)]);
  }

  Params p_;
  IirKernel kernel_;
  Index beyond_ = 0, rows_ = 0, room_ = 0;
  std::tuple<std::vector<float>, std::vector<double>> kept_;  ///< the recording; the edge's scalar picks one
  Index given_ = 0;                                           ///< frames that flush() has given
  Counter* held_ = nullptr;
};
}  // namespace

StageInfo info_iir_zero_phase() {
  auto i = stage_info<IirZeroPhase>("iir_zero_phase", "preprocessing",
                                    "The filter of iir forwards and backwards: no delay at any frequency, twice the "
                                    "loss in dB, whole recordings only. A "
                                    "missing value is NaN, in the filter it is the one before and, backwards, the one "
                                    "after; it is counted as 'held'.");
  i.paper =
      "Gustafsson, Determining the initial states in forward-backward filtering, IEEE Transactions on Signal "
      "Processing "
      "44, 1996";
  i.causal_twin = "iir";
  i.samples = [] {
    std::vector<Sample> all;
    for (const Index rows : {Index{3}, Index{19}}) {
      Sample s;
      s.format = time_format(rows, 100.0);
      s.params = Value::object({{"low_hz", 5.0}, {"high_hz", 20.0}, {"order", rows == 3 ? 2 : 3}});
      for (auto& each : both_scalars(s)) all.push_back(each);
    }
    return all;
  };
  return i;
}

}  // namespace percept
