#include <fmt/format.h>

#include <cmath>

#include "preprocessing/rows.h"

namespace percept {
namespace {
/// y = gain x, shortened to max_norm.
class Gain final : public Typed<Gain> {
 public:
  struct Params {
    std::vector<double> gain = {1.0};
    double max_norm = 0;
    static constexpr auto fields() {
      return std::tuple{
          field("gain", &Params::gain, "", "One factor for all rows, or one a row."),
          field("max_norm", &Params::max_norm, "input unit",
                "The longest that a frame may be, as a vector of its rows: a longer one keeps its direction. "
                "For a velocity it is the top speed. 0: no limit.",
                0.0)};
    }
  };
  explicit Gain(Params p) : p_(std::move(p)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_frames(in, context, "gain");
    require(in.parts.size() == 1, context, "from", in.describe(), "one part (\"node.mean\" takes one of several)");
    const auto given = static_cast<Index>(p_.gain.size());
    require(given == 1 || given == in.size(), context, "gain", fmt::format("{} numbers", given),
            fmt::format("one, or {}, one a row", in.size()));
    gain_.resize(in.size());
    for (Index r = 0; r < in.size(); ++r) gain_[r] = p_.gain[given == 1 ? 0 : static_cast<std::size_t>(r)];
    return in;
  }
  template <class T>
  Index run(const Block& b, FrameSpan<const T> in, Output& o, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      T* y = out.frame(t);
      double square = 0;  // of the rows that are there
      for (Index r = 0; r < in.rows && p_.max_norm > 0; ++r)
        if (const double v = gain_[r] * static_cast<double>(x[r]); usable(v)) square += v * v;
      const double norm = std::sqrt(square), shorter = norm > p_.max_norm ? p_.max_norm / norm : 1;
      for (Index r = 0; r < in.rows; ++r) {
        const double v = gain_[r] * static_cast<double>(x[r]);
        y[r] = static_cast<T>(p_.max_norm > 0 ? shorter * v : v);
      }
    }
    if (o.keys) std::copy(b.keys.begin(), b.keys.end(), o.keys);
    return in.frames;
  }
  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  Params p_;
  Eigen::VectorXd gain_;  ///< one a row
};
}  // namespace

StageInfo info_gain() {
  auto i =
      stage_info<Gain>("gain", "preprocessing",
                       "Multiplies rows by a factor, and limits how long the vector of a frame may be: speed gain and "
                       "top speed of a decoded velocity.");
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    for (const double max_norm : {0.0, 2.0}) {
      Sample s;
      s.format = time_format(2, 100.0);
      s.params = Value::object({{"gain", Value(std::vector<double>{1.5, -0.5})}, {"max_norm", max_norm}});
      for (auto& each : both_scalars(s)) all.push_back(each);
    }
    return all;
  };
  return i;
}

}  // namespace percept
