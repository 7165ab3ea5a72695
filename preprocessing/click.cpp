#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "preprocessing/rows.h"

namespace percept {
namespace {
/// A row is pressed once its level has been at the threshold or above for hold_s, and released below threshold -
/// hysteresis. The frame that presses it is the click. Within refractory_s of a click there is no other.
class Click final : public Typed<Click> {
 public:
  struct Params {
    double threshold = 0.5, hysteresis = 0, hold_s = 0.1, refractory_s = 0.5;
    static constexpr auto fields() {
      return std::tuple{
          field("threshold", &Params::threshold, "input unit", "The level that has to be reached."),
          field("hysteresis", &Params::hysteresis, "input unit",
                "A press ends when the level falls below the threshold by more than this.", 0, 1e300),
          field("hold_s", &Params::hold_s, "s", "For so long, without a break, before it is a click.", 0, 3600),
          field("refractory_s", &Params::refractory_s, "s", "No other click for so long after one.", 0, 3600)};
    }
  };
  explicit Click(Params p) : p_(p) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "click");
    require(in.parts.size() == 1, context, "from", in.describe(),
            "one part (\"node.probability\" takes one of several)");
    require(std::isfinite(p_.threshold), context, "threshold", fmt::format("{}", p_.threshold), "a number");
    const auto frames = [&](double s) {
      return static_cast<std::int64_t>(std::ceil(std::min(s * in.rate_hz, 1e15) - 1e-9));
    };
    hold_ = std::max<std::int64_t>(frames(p_.hold_s), 1);
    refractory_ = frames(p_.refractory_s);
    rows_.resize(static_cast<std::size_t>(in.size()));
    reset();
    StreamFormat out = in;
    Part click = in.parts[0];
    click.unit = "1";
    for (auto& r : click.rows) r.unit.clear();
    click.levels.clear();
    Part pressed = click;
    click.name = "click";
    pressed.name = "pressed";
    out.parts = {click, pressed};
    return out;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    const double release = p_.threshold - p_.hysteresis;
    const auto n = static_cast<Index>(rows_.size());
    for (Index t = 0; t < in.frames; ++t)
      for (Index i = 0; i < n; ++i) {
        Row& r = rows_[static_cast<std::size_t>(i)];
        const auto level = static_cast<double>(in.frame(t)[i]);
        const bool missing = std::isnan(level);
        bool click = false;
        if (r.since < refractory_) ++r.since;
        if (r.pressed) {
          if (missing || level < release) r.pressed = 0;
        } else {
          r.above = !missing && level >= p_.threshold ? std::min(r.above + 1, hold_) : 0;
          click = r.above >= hold_ && r.since >= refractory_;
        }
        if (click) r = {.above = 0, .since = 0, .pressed = 1};
        const T nothing = std::numeric_limits<T>::quiet_NaN();
        out.frame(t)[i] = missing ? nothing : static_cast<T>(click);
        out.frame(t)[n + i] = missing ? nothing : static_cast<T>(r.pressed);
      }
    return in.frames;
  }
  void reset() noexcept override {
    for (auto& r : rows_) r = {.above = 0, .since = refractory_, .pressed = 0};
  }
  void visit_state(StateVisitor& v) noexcept override { v("rows", rows_); }
  Traits traits() const override { return {.causal = true, .real_time = true, .memory_frames = Traits::kDecaying}; }

 private:
  struct Row {
    std::int64_t above = 0;    ///< frames that the level has been there
    std::int64_t since = 0;    ///< frames since the click, up to refractory_
    std::int64_t pressed = 0;  ///< 0 or 1
  };
  Params p_;
  std::int64_t hold_ = 1, refractory_ = 0;
  std::vector<Row> rows_;
};
}  // namespace

StageInfo info_click() {
  auto i = stage_info<Click>("click", "preprocessing",
                             "A click where a level, such as a classifier's probability or the power of a band, is "
                             "held: parts click (1 in the "
                             "frame that clicks, else 0) and pressed (1 from there on until the level is let go). A "
                             "missing level is NaN, begins no "
                             "click and ends a press.");
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    for (const double hold_s : {0.0, 0.03}) {
      Sample s;
      s.format = time_format(2, 100.0);
      s.params = Value::object({{"threshold", 0.3}, {"hysteresis", 0.4}, {"hold_s", hold_s}, {"refractory_s", 0.05}});
      for (auto& each : both_scalars(s)) all.push_back(each);
    }
    return all;
  };
  return i;
}

}  // namespace percept
