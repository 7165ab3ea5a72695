#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "preprocessing/rows.h"

namespace percept {
namespace {
/// Sets bad rows to NaN. A row found bad is NaN from the frame that shows it on, and good again once it has been fine
/// for recover_s; each change is an event that names the row.
class MaskRows final : public Typed<MaskRows> {
 public:
  struct Params {
    std::vector<std::string> rows;
    std::vector<std::int64_t> indices;
    double flat_s = 0, max_abs = 0, recover_s = 1;
    static constexpr auto fields() {
      return std::tuple{field("rows", &Params::rows, "", "Names of rows that are NaN throughout."),
                        field("indices", &Params::indices, "", "The same by position, the first row being 0.", 0, 1e9),
                        field("flat_s", &Params::flat_s, "s",
                              "A row that keeps one value for so long is bad; 0: not looked for.", 0, 1e9),
                        field("max_abs", &Params::max_abs, "input unit",
                              "A row farther from zero than this is bad; 0: not looked for.", 0),
                        field("recover_s", &Params::recover_s, "s",
                              "How long a bad row must be fine to count as good again.", 0, 1e9)};
    }
  };
  explicit MaskRows(Params p) : p_(std::move(p)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "mask_rows");
    const auto size = static_cast<std::size_t>(in.size());
    const auto names = in.row_names();
    masked_.assign(size, 0);
    for (auto& name : p_.rows) {
      auto at = std::find(names.begin(), names.end(), name);
      require(at != names.end(), context, "rows", "\"" + name + "\"", "a row of the input" + did_you_mean(name, names));
      masked_[static_cast<std::size_t>(at - names.begin())] = 1;
    }
    for (auto i : p_.indices) {
      require(i >= 0 && i < in.size(), context, "indices", fmt::format("{}", i), fmt::format("0 to {}", size - 1));
      masked_[static_cast<std::size_t>(i)] = 1;
    }
    auto frames = [&](double s) { return static_cast<std::int64_t>(std::ceil(s * in.rate_hz - 1e-9)); };
    flat_frames_ = p_.flat_s > 0 ? std::max<std::int64_t>(frames(p_.flat_s), 1) : 0;
    recover_frames_ = std::max<std::int64_t>(frames(p_.recover_s), 1);
    start_s_ = in.start_s;
    rate_hz_ = in.rate_hz;
    flat_ = Label::of("bad_row_flat");
    range_ = Label::of("bad_row_range");
    good_ = Label::of("good_row");
    last_.resize(size);
    same_.resize(size);
    fine_.resize(size);
    bad_.resize(size);
    untold_.resize(4 * size);
    lost_ = &context.counter("events_lost");
    reset();
    StreamFormat out = in;
    std::size_t row = 0;
    for (auto& part : out.parts) {
      const auto n = static_cast<std::size_t>(part.size());
      for (std::size_t r = 0; r < part.rows.size() && part.rows.size() == n; ++r)
        if (masked_[row + r]) part.rows[r].good = false;
      row += n;
    }
    return out;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output& o, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames; ++t, ++seen_) {
      for (std::size_t r = 0; r < masked_.size(); ++r) {
        const T x = in.frame(t)[r];
        if (!masked_[r] && !std::isnan(x)) look(r, static_cast<double>(x));
        out.frame(t)[r] = masked_[r] || bad_[r] ? std::numeric_limits<T>::quiet_NaN() : x;
      }
      tell(o);
    }
    return in.frames;
  }
  Index flush(Output& o) noexcept override {
    tell(o);
    return 0;
  }
  void reset() noexcept override {
    std::fill(last_.begin(), last_.end(), std::numeric_limits<double>::quiet_NaN());
    std::fill(same_.begin(), same_.end(), 0);
    std::fill(fine_.begin(), fine_.end(), 0);
    std::fill(bad_.begin(), bad_.end(), 0);
    std::fill(untold_.begin(), untold_.end(), Event{});
    n_untold_ = 0;
    seen_ = events_ = 0;
  }
  void visit_state(StateVisitor& v) noexcept override {
    v("last", last_);
    v("same", same_);
    v("fine", fine_);
    v("bad", bad_);
    v("untold", untold_);
    v("n_untold", n_untold_);
    v("seen", seen_);
    v("events", events_);
  }
  Traits traits() const override { return {.causal = true, .real_time = true, .memory_frames = Traits::kDecaying}; }

 private:
  /// One value of one row; a missing one tells nothing and is not looked at.
  void look(std::size_t r, double x) noexcept {
    same_[r] = x == last_[r] ? same_[r] + 1 : 0;
    last_[r] = x;
    const bool range = p_.max_abs > 0 && std::abs(x) > p_.max_abs, flat = flat_frames_ > 0 && same_[r] >= flat_frames_;
    if (range || flat) {
      fine_[r] = 0;
      if (!bad_[r]) note(r, range ? range_ : flat_, x);
      bad_[r] = 1;
    } else if (bad_[r] && ++fine_[r] >= recover_frames_) {
      bad_[r] = 0;
      note(r, good_, x);
    }
  }
  void note(std::size_t r, Label label, double x) noexcept {
    if (n_untold_ == untold_.size()) {
      lost_->add();
      return;
    }
    Event& e = untold_[n_untold_++];
    e = {};
    e.onset_s = start_s_ + static_cast<double>(seen_) / rate_hz_;
    e.value = x;
    e.id = events_++;
    e.label = label;
    e.row = static_cast<std::int32_t>(r);
  }
  /// An artefact on all rows at once can be more than there is room for: the rest comes with the next frames.
  void tell(Output& o) noexcept {
    std::size_t n = 0;
    for (; n < n_untold_ && o.n_events < o.event_room; ++n) o.emit(untold_[n]);
    if (n == 0) return;
    std::move(untold_.begin() + static_cast<std::ptrdiff_t>(n),
              untold_.begin() + static_cast<std::ptrdiff_t>(n_untold_), untold_.begin());
    n_untold_ -= n;
  }

  Params p_;
  std::vector<std::uint8_t> masked_;
  std::int64_t flat_frames_ = 0, recover_frames_ = 1;
  double start_s_ = 0, rate_hz_ = 1;
  Label flat_, range_, good_;
  std::vector<double> last_;               ///< newest value of each row
  std::vector<std::int64_t> same_, fine_;  ///< frames it has kept that value; frames it has been fine while bad
  std::vector<std::uint8_t> bad_;
  std::vector<Event> untold_;  ///< not given yet: the first n_untold_
  std::size_t n_untold_ = 0;
  std::int64_t seen_ = 0, events_ = 0;
  Counter* lost_ = nullptr;
};
}  // namespace

StageInfo info_mask_rows() {
  auto i = stage_info<MaskRows>(
      "mask_rows", "preprocessing",
      "Bad rows become NaN: those named, and those found flat or out of range while the stream runs. Events "
      "bad_row_flat, bad_row_range and good_row tell which row (Event::row) changed when, with the value it had.");
  i.real_time = true;
  i.samples = [] {
    Sample s;
    s.params = Value::object(
        {{"indices", Value(std::vector<std::int64_t>{1})}, {"flat_s", 0.1}, {"max_abs", 2.5}, {"recover_s", 0.05}});
    s.fill = [](std::int64_t frame, std::span<double> x) {
      // row 2 holds still for half a second of every second, the others wander
      for (std::size_t r = 0; r < x.size(); ++r)
        x[r] = r == 2 && frame % 100 < 50
                   ? 1.0
                   : 3 * std::sin(0.37 * static_cast<double>(frame) * static_cast<double>(r + 1));
    };
    return both_scalars(s);
  };
  return i;
}

}  // namespace percept
