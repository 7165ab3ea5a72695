#include <fmt/format.h>

#include <cmath>

#include "preprocessing/rows.h"

namespace percept {
namespace {
/// y = sum_p weight_p part_p / sum_p weight_p, value by value.
class Average final : public Typed<Average> {
 public:
  struct Params {
    std::vector<double> weights;
    static constexpr auto fields() {
      return std::tuple{field("weights", &Params::weights, "",
                              "One a part, in the order of `from`; they are divided by their sum. Empty: all the same.",
                              0.0, 1e9)};
    }
  };
  explicit Average(Params p) : p_(std::move(p)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_frames(in, context, "average");
    const auto parts = in.parts.size();
    for (auto& part : in.parts)
      require(part.size() == in.parts[0].size(), context, "from", in.describe(), "parts of one size");
    require(p_.weights.empty() || p_.weights.size() == parts, context, "weights",
            fmt::format("{} numbers", p_.weights.size()), fmt::format("one for each of {} parts", parts));
    double sum = 0;
    for (double w : p_.weights) sum += w;
    require(p_.weights.empty() || sum > 0, context, "weights", "0", "at least one above zero");
    weights_.assign(parts, 1.0 / static_cast<double>(parts));
    for (std::size_t i = 0; i < p_.weights.size(); ++i) weights_[i] = p_.weights[i] / sum;
    StreamFormat out = in;
    out.parts = {in.parts[0]};
    out.parts[0].name = "mean";
    return out;
  }
  template <class T>
  Index run(const Block& b, FrameSpan<const T> in, Output& o, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      T* y = out.frame(t);
      for (Index r = 0; r < out.rows; ++r) {
        double sum = 0;
        for (std::size_t p = 0; p < weights_.size(); ++p)
          sum += weights_[p] * static_cast<double>(x[static_cast<Index>(p) * out.rows + r]);
        y[r] = static_cast<T>(sum);
      }
    }
    if (o.keys) std::copy(b.keys.begin(), b.keys.end(), o.keys);
    return in.frames;
  }
  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  Params p_;
  std::vector<double> weights_;
};
}  // namespace

StageInfo info_average() {
  auto i = stage_info<Average>("average", "preprocessing",
                               "Weighted mean of parts of one size, value by value: two reconstructions blended. Where "
                               "one is NaN, so is the mean.");
  i.real_time = true;
  i.samples = [] {
    Sample s;
    s.format.parts = {Part{"a", {2, 2}, "1", {}, {}}, Part{"b", {4}, "1", {}, {}}};
    auto all = both_scalars(s);
    s.params = Value::object({{"weights", Value(std::vector<double>{1, 3})}});
    for (auto& each : both_scalars(s)) all.push_back(each);
    return all;
  };
  return i;
}

}  // namespace percept
