/// Drift removal: a high-pass of one pole, the running example of docs/adding-a-stage.md.
#include <cmath>

#include "core/registry.h"

namespace percept {
namespace {

/// y[t] = x[t] - m[t], where the slow mean m moves by (x - m) / (time_constant * rate) a frame. Rows do not mix.
/// A missing value (NaN) stays missing and leaves the mean as it was.
class Drift final : public Typed<Drift> {
 public:
  struct Params {
    double time_constant_s = 10.0;
    static constexpr auto fields() {
      return std::tuple{field("time_constant_s", &Params::time_constant_s, "s",
                              "What changes more slowly than this is removed.", 1e-3, 1e6)};
    }
  };
  explicit Drift(Params params) : params_(params) {}

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "drift");
    const double frames = params_.time_constant_s * in.rate_hz;
    require(frames >= 1, context, "time_constant_s", std::to_string(params_.time_constant_s),
            "at least one frame, " + std::to_string(1 / in.rate_hz) + " s");
    gain_ = 1 / frames;
    mean_.setZero(in.size());
    return in;
  }

  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    for (Index k = 0; k < in.frames; ++k) {
      const T* x = in.frame(k);
      T* y = out.frame(k);
      for (Index row = 0; row < in.rows; ++row) {
        const double value = x[row];
        if (std::isfinite(value)) mean_[row] += gain_ * (value - mean_[row]);
        y[row] = static_cast<T>(value - mean_[row]);
      }
    }
    return in.frames;
  }

  void reset() noexcept override { mean_.setZero(); }
  void visit_state(StateVisitor& visit) noexcept override { visit("mean", mean_); }
  Traits traits() const override { return {.real_time = true, .per_row = true, .memory_frames = Traits::kDecaying}; }

 private:
  Params params_;
  double gain_ = 0;
  Eigen::VectorXd mean_;  ///< one a row, in the input's unit
};

}  // namespace

StageInfo info_drift() {
  StageInfo info = stage_info<Drift>("drift", "preprocessing", "Removes slow drift: a high-pass of one pole.");
  info.real_time = true;
  info.samples = [] {
    Sample sample;
    sample.params = Value::object({{"time_constant_s", 0.5}});
    return std::vector{sample};
  };
  return info;
}

}  // namespace percept
