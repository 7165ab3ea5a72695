#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "preprocessing/rows.h"

namespace percept {
namespace {
/// One function applied to every number.
class Transform final : public Typed<Transform> {
 public:
  struct Params {
    std::string function = "sqrt";
    double low = 0, high = 1;
    static constexpr auto fields() {
      return std::tuple{choice("function", &Params::function,
                               "sqrt (steadies the variance of counts), log1p (natural logarithm of 1 + x), abs, "
                               "square, or clip (to the range from low to high).",
                               "sqrt|log1p|abs|square|clip"),
                        field("low", &Params::low, "input unit", "What clip gives for anything below."),
                        field("high", &Params::high, "input unit", "What clip gives for anything above.")};
    }
  };
  explicit Transform(Params p) : p_(std::move(p)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_frames(in, context, "transform");
    require(p_.low < p_.high, context, "low", fmt::format("{}", p_.low), fmt::format("less than high ({})", p_.high));
    undefined_ = &context.counter("undefined");
    StreamFormat out = in;
    for (auto& part : out.parts) {
      part.unit = unit_of(part.unit);
      for (auto& c : part.rows)
        if (!c.unit.empty()) c.unit = unit_of(c.unit);
    }
    return out;
  }
  template <class T>
  Index run(const Block& b, FrameSpan<const T> in, Output& o, FrameSpan<T> out) noexcept {
    if (p_.function == "sqrt") apply(in, out, [](double x) { return std::sqrt(x); });
    else if (p_.function == "log1p") apply(in, out, [](double x) { return std::log1p(x); });
    else if (p_.function == "abs") apply(in, out, [](double x) { return std::abs(x); });
    else if (p_.function == "square") apply(in, out, [](double x) { return x * x; });
    else apply(in, out, [this](double x) { return x < p_.low ? p_.low : x > p_.high ? p_.high : x; });
    if (o.keys) std::copy(b.keys.begin(), b.keys.end(), o.keys);
    return in.frames;
  }
  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true, .per_row = true}; }

 private:
  std::string unit_of(const std::string& unit) const {
    if (p_.function == "abs" || p_.function == "clip" || unit == "1") return unit;
    return p_.function == "square" ? unit + "^2" : p_.function == "sqrt" ? unit + "^0.5" : "1";
  }
  template <class T, class F>
  void apply(FrameSpan<const T> in, FrameSpan<T> out, F f) noexcept {
    for (Index t = 0; t < in.frames; ++t)
      for (Index r = 0; r < in.rows; ++r) {
        const T x = in.frame(t)[r];
        double y = f(static_cast<double>(x));
        // sqrt(-1), log1p(-1): no number, and counted
        if (!std::isfinite(y) && std::isfinite(x)) {
          y = std::numeric_limits<double>::quiet_NaN();
          undefined_->add();
        }
        out.frame(t)[r] = static_cast<T>(y);
      }
  }
  Params p_;
  Counter* undefined_ = nullptr;
};
}  // namespace

StageInfo info_transform() {
  auto i = stage_info<Transform>(
      "transform", "preprocessing",
      "sqrt, log1p, abs, square or clip of every number. Where the function is not defined the result is "
      "NaN and is counted as 'undefined'.");
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    for (const char* function : {"sqrt", "log1p", "abs", "square", "clip"}) {
      Sample s;
      s.params = Value::object({{"function", function}});
      for (auto& each : both_scalars(s)) all.push_back(each);
    }
    return all;
  };
  return i;
}

}  // namespace percept
