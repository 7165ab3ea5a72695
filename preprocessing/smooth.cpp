#include <cmath>
#include <limits>

#include "numerics/denormals.h"
#include "preprocessing/rows.h"

namespace percept {
namespace {
/// m += a (x - m), y = m, with a = 1 - exp(-1 / (time_constant_s rate)); m starts as the row's first value.
class Smooth final : public Typed<Smooth> {
 public:
  struct Params {
    double time_constant_s = 0.1;
    static constexpr auto fields() {
      return std::tuple{field("time_constant_s", &Params::time_constant_s, "s",
                              "After so long a step is followed to 63 %. A slow change comes late by as much, which is "
                              "not taken off the clock.",
                              1e-6, 1e9)};
    }
  };
  explicit Smooth(Params p) : p_(p) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "smooth");
    alpha_ = -std::expm1(-1 / (p_.time_constant_s * in.rate_hz));
    mean_.resize(in.size());
    reset();
    return in;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    const FlushDenormals scope;
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      T* y = out.frame(t);
      for (Index r = 0; r < in.rows; ++r) {
        const auto value = static_cast<double>(x[r]);
        if (usable(value)) mean_[r] = std::isnan(mean_[r]) ? value : mean_[r] + alpha_ * (value - mean_[r]);
        y[r] = usable(value) ? static_cast<T>(mean_[r]) : std::numeric_limits<T>::quiet_NaN();
      }
    }
    return in.frames;
  }
  void reset() noexcept override { mean_.setConstant(std::numeric_limits<double>::quiet_NaN()); }
  void visit_state(StateVisitor& v) noexcept override { v("mean", mean_); }
  Traits traits() const override {
    return {.causal = true, .real_time = true, .per_row = true, .memory_frames = Traits::kDecaying};
  }

 private:
  Params p_;
  double alpha_ = 1;
  Eigen::VectorXd mean_;  ///< one a row; NaN before its first value
};
}  // namespace

StageInfo info_smooth() {
  auto i =
      stage_info<Smooth>("smooth", "preprocessing",
                         "Exponential smoothing, for a decoded velocity or a rate. A missing value is NaN and leaves "
                         "the mean as it was.");
  i.real_time = true;
  i.samples = [] {
    Sample s;
    s.params = Value::object({{"time_constant_s", 0.2}});
    return both_scalars(s);
  };
  return i;
}

}  // namespace percept
