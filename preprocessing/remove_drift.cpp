#include <cmath>
#include <limits>

#include "numerics/denormals.h"
#include "preprocessing/rows.h"

namespace percept {
namespace {
/// y = x - m, then m += a (x - m), with a = 1 - exp(-1 / (time_constant_s rate)).
class RemoveDrift final : public Typed<RemoveDrift> {
 public:
  struct Params {
    double time_constant_s = 30, min_norm = 0;
    std::string initial = "first";
    static constexpr auto fields() {
      return std::tuple{
          field("time_constant_s", &Params::time_constant_s, "s", "What changes more slowly than this is taken off.",
                1e-6, 1e9),
          field(
              "min_norm", &Params::min_norm, "input unit",
              "Only frames that are longer than this, as vectors of their rows, move the mean: of a velocity those in "
              "which the user moves the cursor. 0: every frame.",
              0.0),
          choice("initial", &Params::initial,
                 "What the mean starts from: first (the row's first value) or zero (for a velocity).", "first|zero")};
    }
  };
  explicit RemoveDrift(Params p) : p_(std::move(p)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "remove_drift");
    require(p_.min_norm == 0 || in.parts.size() == 1, context, "from", in.describe(),
            "one part, whose length min_norm is about (\"node.mean\" takes one of several)");
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
      bool moves = true;
      if (p_.min_norm > 0) {
        double square = 0;
        for (Index r = 0; r < in.rows; ++r) square += static_cast<double>(x[r]) * static_cast<double>(x[r]);
        moves = square > p_.min_norm * p_.min_norm;  // never where a row is missing
      }
      for (Index r = 0; r < in.rows; ++r) {
        const auto value = static_cast<double>(x[r]);
        if (!usable(value)) {
          y[r] = std::numeric_limits<T>::quiet_NaN();
          continue;
        }
        if (std::isnan(mean_[r])) mean_[r] = value;
        const double away = value - mean_[r];
        y[r] = static_cast<T>(away);
        if (moves) mean_[r] += alpha_ * away;
      }
    }
    return in.frames;
  }
  void reset() noexcept override {
    mean_.setConstant(p_.initial == "zero" ? 0 : std::numeric_limits<double>::quiet_NaN());
  }
  void visit_state(StateVisitor& v) noexcept override { v("mean", mean_); }
  Traits traits() const override {
    return {.causal = true, .real_time = true, .per_row = p_.min_norm == 0, .memory_frames = Traits::kDecaying};
  }

 private:
  Params p_;
  double alpha_ = 1;
  Eigen::VectorXd mean_;  ///< one a row; NaN before its first value
};
}  // namespace

StageInfo info_remove_drift() {
  auto i = stage_info<RemoveDrift>(
      "remove_drift", "preprocessing",
      "Takes a slow mean of the frames before off each row: drift of a signal, or bias of a decoded velocity "
      "(initial = \"zero\", min_norm: a low speed). A missing value is NaN and leaves the mean as it was.");
  i.paper =
      "Jarosiewicz et al., Virtual typing by people with tetraplegia using a self-calibrating intracortical "
      "brain-computer interface, Science Translational Medicine 7, 2015 (bias correction)";
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    for (const double min_norm : {0.0, 1.5}) {
      Sample s;
      s.format = time_format(2, 100.0);
      s.params = Value::object(
          {{"time_constant_s", 0.3}, {"min_norm", min_norm}, {"initial", min_norm > 0 ? "zero" : "first"}});
      for (auto& each : both_scalars(s)) all.push_back(each);
    }
    return all;
  };
  return i;
}

}  // namespace percept
