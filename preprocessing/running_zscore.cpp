#include <cmath>
#include <limits>

#include "preprocessing/rows.h"

namespace percept {
namespace {
/// Exponentially weighted mean and variance of the frames before this one:
///   d = x - m,  m += a d,  v = (1 - a) (v + a d^2)      with a = max(1 / (frames seen), alpha)
/// so that they start as the plain mean and variance. A NaN frame changes nothing.
class RunningZScore final : public Typed<RunningZScore> {
 public:
  struct Params {
    double time_constant_s = 30;
    static constexpr auto fields() {
      return std::tuple{field("time_constant_s", &Params::time_constant_s, "s",
                              "How far back the mean and the spread reach.", 1e-6, 1e9)};
    }
  };
  explicit RunningZScore(Params p) : p_(p) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "running_zscore");
    alpha_ = -std::expm1(-1 / (p_.time_constant_s * in.rate_hz));
    mean_.resize(in.size());
    variance_.resize(in.size());
    seen_.resize(in.size());
    reset();
    StreamFormat out = in;
    for (auto& part : out.parts) {
      part.unit = "1";
      for (auto& c : part.rows) c.unit = "";
    }
    return out;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames; ++t)
      for (Index r = 0; r < in.rows; ++r) {
        const auto x = static_cast<double>(in.frame(t)[r]);
        const double d = x - mean_[r];
        out.frame(t)[r] =
            static_cast<T>(variance_[r] > 0 ? d / std::sqrt(variance_[r]) : std::numeric_limits<double>::quiet_NaN());
        if (!std::isfinite(x)) continue;
        seen_[r] += 1;
        const double a = std::max(1 / seen_[r], alpha_);
        mean_[r] += a * d;
        variance_[r] = (1 - a) * (variance_[r] + a * d * d);
      }
    return in.frames;
  }
  void reset() noexcept override {
    mean_.setZero();
    variance_.setZero();
    seen_.setZero();
  }
  void visit_state(StateVisitor& v) noexcept override {
    v("mean", mean_);
    v("variance", variance_);
    v("seen", seen_);
  }
  Traits traits() const override {
    return {.causal = true, .real_time = true, .per_row = true, .memory_frames = Traits::kDecaying};
  }

 private:
  Params p_;
  double alpha_ = 0;
  Eigen::VectorXd mean_, variance_, seen_;  ///< one a row [input unit, its square, frames]
};
}  // namespace

StageInfo info_running_zscore() {
  auto i = stage_info<RunningZScore>(
      "running_zscore", "preprocessing",
      "z-score against the exponentially weighted mean and spread of the frames before. NaN until a row has had two "
      "different values.");
  i.paper = "Finch, Incremental calculation of weighted mean and variance, University of Cambridge, 2009";
  i.real_time = true;
  i.samples = [] {
    Sample s;
    s.params = Value::object({{"time_constant_s", 0.5}});
    return both_scalars(s);
  };
  return i;
}

}  // namespace percept
