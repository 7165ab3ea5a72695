#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "preprocessing/rows.h"

namespace percept {
namespace {
/// y[t] = (x[t], x[t-s], ..., x[t-k s]). Frame t stays frame t; what was before the first one is NaN, or that one again.
class Lag final : public Typed<Lag> {
 public:
  struct Params {
    std::int64_t lags = 5, step = 1;
    std::string before = "missing";
    static constexpr auto fields() {
      return std::tuple{
          field("lags", &Params::lags, "frames", "How many earlier frames are put under each frame.", 1, 10000),
          field("step", &Params::step, "frames",
                "From one to the next of them: with windows that overlap, their length takes each value once.", 1,
                10000),
          choice(
              "before", &Params::before,
              "What stands for frames before the first one, of the recording or after a reset: NaN (missing), or the "
              "first frame again (hold).",
              "missing|hold")};
    }
  };
  explicit Lag(Params p) : p_(p) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "lag");
    rows_ = in.size();
    frames_ = static_cast<Index>(p_.lags * p_.step) + 1;
    history_.resize(static_cast<std::size_t>(rows_ * frames_));
    reset();
    const auto now = channels_of(in);
    Part part{.name = in.parts.size() == 1 ? in.parts[0].name : "x",
              .shape = {static_cast<Index>(p_.lags) + 1, rows_},
              .unit = common_unit(now),
              .rows = now,
              .levels = {}};
    for (std::int64_t lag = 1; lag <= p_.lags; ++lag)
      for (auto c : now) {
        c.name += fmt::format("[t-{}]", lag * p_.step);
        part.rows.push_back(std::move(c));
      }
    StreamFormat out = in;
    out.parts = {std::move(part)};
    return out;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames; ++t) {
      if (!started_ && p_.before == "hold")
        for (Index f = 0; f < frames_; ++f) std::copy_n(in.frame(t), rows_, history_.data() + f * rows_);
      started_ = true;
      newest_ = (newest_ + 1) % frames_;
      std::copy_n(in.frame(t), rows_, history_.data() + newest_ * rows_);
      T* to = out.frame(t);
      for (Index lag = 0; lag < frames_; lag += static_cast<Index>(p_.step)) {
        const double* from = history_.data() + (newest_ - lag + (lag > newest_ ? frames_ : 0)) * rows_;
        for (Index r = 0; r < rows_; ++r) *to++ = static_cast<T>(from[r]);
      }
    }
    return in.frames;
  }
  void reset() noexcept override {
    std::fill(history_.begin(), history_.end(), std::numeric_limits<double>::quiet_NaN());
    newest_ = 0;
    started_ = false;
  }
  void visit_state(StateVisitor& v) noexcept override {
    v("history", history_);
    v("newest", newest_);
    v("started", started_);
  }
  Traits traits() const override { return {.causal = true, .real_time = true, .memory_frames = frames_ - 1}; }

 private:
  Params p_;
  Index rows_ = 0, frames_ = 0;
  std::vector<double> history_;  ///< a ring of `frames_` frames
  Index newest_ = 0;
  bool started_ = false;
};
}  // namespace

StageInfo info_lag() {
  auto i = stage_info<Lag>(
      "lag", "preprocessing",
      "Lag embedding: each frame with the frames before it stacked under it, shape {lags + 1, rows}, rows named "
      "ch1, ch1[t-1], ch1[t-2]. Frames keep their number and time.");
  i.real_time = true;
  i.samples = [] {
    Sample every, third;
    every.params = Value::object({{"lags", 3}});
    third.params = Value::object({{"lags", 2}, {"step", 3}});
    auto all = both_scalars(every);
    for (auto& s : both_scalars(third)) all.push_back(std::move(s));
    third.params["before"] = "hold";
    for (auto& s : both_scalars(third)) all.push_back(std::move(s));
    return all;
  };
  return i;
}

}  // namespace percept
