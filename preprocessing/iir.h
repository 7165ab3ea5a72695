/// Recursive filters as second-order sections: design, and the kernel that runs them over all rows.
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "core/params.h"
#include "core/stage.h"
#include "numerics/wide.h"

namespace percept {

/// One section, (b0 + b1 / z + b2 / z^2) / (1 + a1 / z + a2 / z^2).
struct Biquad {
  double b0 = 1, b1 = 0, b2 = 0, a1 = 0, a2 = 0;
  /// Both poles inside the unit circle.
  bool stable() const { return std::abs(a2) < 1 && std::abs(a1) < 1 + a2; }
};

/// A filter of the given family from its analog prototype, by the bilinear transform with pre-warped edges, so that the
/// gain at the edges is exactly that of the prototype. family: butterworth (-3 dB at the edges), chebyshev1 (-ripple_db
/// there, and not more in the pass band), chebyshev2 (-stop_db there, and at least that in the stop band). pass: low (up
/// to high_hz), high (from low_hz), band, stop. A band has twice the order: `order` poles on each side.
/// Each pole pair has the zeros nearest to it, and the pair nearest to the unit circle comes last.
/// Oppenheim and Schafer, Discrete-Time Signal Processing, sections 6.3, 6.9 and 7.1 and appendix B.
std::vector<Biquad> iir_design(const std::string& family, const std::string& pass, Index order, double low_hz,
                               double high_hz, double ripple_db, double stop_db, double rate_hz);

/// Zero at one frequency, -3 dB at half the width on either side of it, 1 at 0 Hz and at half the rate.
/// Orfanidis, Introduction to Signal Processing, 1996, section 11.3.
Biquad notch(double at_hz, double width_hz, double rate_hz);

/// What a user says of a recursive filter.
struct IirParams {
  std::string pass = "band", family = "butterworth";
  std::int64_t order = 4;
  double low_hz = 1, high_hz = 40, ripple_db = 0.5, stop_db = 40;
  std::vector<double> notch_hz;
  double width_hz = 2;
  std::vector<double> sections;
  static constexpr auto fields() {
    return std::tuple{
        choice("pass", &IirParams::pass,
               "What is kept: low (up to high_hz), high (from low_hz), band (between them), stop (all but the band), "
               "notch (all but narrow bands about notch_hz).",
               "low|high|band|stop|notch"),
        choice("family", &IirParams::family,
               "butterworth (flat, -3 dB at the edges), chebyshev1 (steeper, ripples in the pass band) or chebyshev2 "
               "(steeper, ripples in the stop band, whose edges are given).",
               "butterworth|chebyshev1|chebyshev2"),
        field("order", &IirParams::order, "",
              "Poles of the low-pass that the filter is made of; band and stop have twice as many.", 1, 16),
        field("low_hz", &IirParams::low_hz, "Hz", "Lower edge; not used by low.", 0.0, 1e9),
        field("high_hz", &IirParams::high_hz, "Hz", "Upper edge; not used by high.", 0.0, 1e9),
        field("ripple_db", &IirParams::ripple_db, "dB", "chebyshev1: loss in the pass band, at most.", 1e-6, 60.0),
        field("stop_db", &IirParams::stop_db, "dB", "chebyshev2: loss in the stop band, at least.", 1e-6, 300.0),
        field("notch_hz", &IirParams::notch_hz, "Hz",
              "notch: the frequencies that are taken out, such as those of the mains, [50, 100, 150].", 0.0, 1e9),
        field("width_hz", &IirParams::width_hz, "Hz", "notch: width of each gap, between its -3 dB points.", 1e-9, 1e9),
        field("sections", &IirParams::sections, "",
              "The filter itself, in place of a design: b0, b1, b2, a0, a1, a2 of each second-order section.")};
  }
};

/// The sections for a stream of this rate. Throws ConfigError when an edge is not below half the rate, the edges cross,
/// the numbers are not six a section, or the filter would not be stable.
std::vector<Biquad> iir_sections(const IirParams& p, double rate_hz, const Context& context);

/// Runs sections one after the other over each row (transposed direct form II, in double). A missing value holds the
/// row's last one in the filter and is NaN in the output. Before a row's first value the filter is at rest at zero, or at
/// that value (`steady`): it answers to what the row differs from it, and its gain for constants is added.
class IirKernel {
 public:
  void prepare(const std::vector<Biquad>& sections, Index rows, bool steady);
  void reset() noexcept;
  void visit_state(StateVisitor& v) noexcept {
    v("delays", delays_);
    v("held", held_);
    v("first", first_);
    v("started", started_);
  }
  /// Writes as many frames as it takes; returns how many values were missing.
  std::int64_t run(FrameSpan<const float> in, FrameSpan<float> out) noexcept;
  std::int64_t run(FrameSpan<const double> in, FrameSpan<double> out) noexcept;

 private:
  static constexpr Index kTile = wide::kPack;  ///< rows that are filtered side by side
  static constexpr Index kChunk = 32;          ///< frames of them at a time
  using Lanes = Eigen::Array<double, kTile, 1>;

  template <class T>
  std::int64_t filter(FrameSpan<const T> in, FrameSpan<T> out) noexcept;
  template <class T>
  bool load(FrameSpan<const T> in, Index row) noexcept;
  template <class T>
  std::int64_t load_with_gaps(FrameSpan<const T> in, Index row) noexcept;

  Index sections_ = 0;
  std::vector<double> coefficients_;  ///< b0, b1, b2, a1, a2 of each
  Index rows_ = 0;
  bool steady_ = true;
  double gain_ = 1;                    ///< for constants
  std::vector<double> delays_;         ///< tile by tile: the two of each section, of kTile rows
  std::vector<double> held_, first_;   ///< the last value less the first, and the first; one a row
  std::vector<std::uint8_t> started_;  ///< the row has had a value
  std::vector<double> work_;           ///< a tile of a chunk of frames
  std::vector<std::uint8_t> there_;    ///< of each of its values
};

}  // namespace percept
