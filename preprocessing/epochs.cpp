#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "preprocessing/rows.h"

namespace percept {
namespace {
/// Time to items. The event's frame is the one nearest to its onset, e; the epoch is frames e + first ... e + last - 1,
/// where first and last are start_s and stop_s in frames, rounded.
class Epochs final : public Typed<Epochs> {
 public:
  struct Params {
    std::vector<std::string> labels;
    double start_s = -0.2, stop_s = 0.8;
    std::vector<double> baseline_s;
    double late_s = 0;
    std::int64_t overlap = 8;
    static constexpr auto fields() {
      return std::tuple{
          field("labels", &Params::labels, "", "Events that make an epoch; empty: all."),
          field("start_s", &Params::start_s, "s", "Start of the epoch, from the onset.", -1e6, 1e6),
          field("stop_s", &Params::stop_s, "s", "End of the epoch, from the onset; the frame there is not in it.", -1e6,
                1e6),
          field(
              "baseline_s", &Params::baseline_s, "s",
              "Two times from the onset, inside the epoch: the mean of the frames between them, NaN left out, is taken "
              "off each row. Empty: nothing is taken off.",
              -1e6, 1e6),
          field("late_s", &Params::late_s, "s",
                "How late a marker may arrive; every epoch waits for so long. Later ones are counted as "
                "'events_too_late'.",
                0.0, 1e6),
          field(
              "overlap", &Params::overlap, "",
              "The most epochs that one frame may be in; room is kept for so many. More are counted as 'epochs_lost'.",
              1, 100000)};
    }
  };
  explicit Epochs(Params p) : p_(std::move(p)) {}

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "epochs");
    auto frames = [&](double s) { return static_cast<std::int64_t>(std::llround(s * in.rate_hz)); };
    first_ = frames(p_.start_s);
    last_ = frames(p_.stop_s);
    require(last_ > first_, context, "stop_s", fmt::format("{} s", p_.stop_s),
            fmt::format("at least one frame of {} s after start_s = {} s", 1 / in.rate_hz, p_.start_s));
    require(p_.baseline_s.empty() || p_.baseline_s.size() == 2, context, "baseline_s",
            fmt::format("{} numbers", p_.baseline_s.size()), "none or two");
    if (!p_.baseline_s.empty()) {
      baseline_first_ = frames(p_.baseline_s[0]) - first_;
      baseline_last_ = frames(p_.baseline_s[1]) - first_;
      require(baseline_first_ >= 0 && baseline_first_ < baseline_last_ && baseline_last_ <= last_ - first_, context,
              "baseline_s", fmt::format("[{}, {}]", p_.baseline_s[0], p_.baseline_s[1]),
              fmt::format("at least one frame inside [{}, {}]", p_.start_s, p_.stop_s));
    }
    labels_.clear();
    for (auto& label : p_.labels) labels_.push_back(Label::of(label));
    // an event in time comes with the frame after its onset at the latest, so nothing is due before that
    wait_ = std::max<std::int64_t>(last_, 2) + static_cast<std::int64_t>(std::ceil(p_.late_s * in.rate_hz));
    start_s_ = in.start_s;
    rate_hz_ = in.rate_hz;
    rows_ = in.size();
    samples_ = static_cast<Index>(last_ - first_);
    room_ = std::min<Index>(in.max_frames, (p_.overlap * in.max_frames + samples_ - 1) / samples_ + p_.overlap);
    // what cannot be given in one call waits for the next
    ring_frames_ = static_cast<Index>(wait_ - first_) + 2 * in.max_frames + p_.overlap;
    require(std::max(ring_frames_, room_ * samples_) < (Index{1} << 30) / rows_, context, "stop_s",
            fmt::format("{} s", p_.stop_s),
            fmt::format("epochs that fit in memory, {} at a time of {} frames x {} rows are too many", room_, samples_,
                        rows_));
    const auto ring = static_cast<std::size_t>(ring_frames_ * rows_);
    floats_.assign(in.scalar == Scalar::f32 ? ring : 0, 0);
    doubles_.assign(in.scalar == Scalar::f64 ? ring : 0, 0);
    waiting_.resize(static_cast<std::size_t>(p_.overlap * (ring_frames_ / samples_ + 2)) + 1024);
    outside_ = &context.counter("epochs_outside");
    late_ = &context.counter("events_too_late");
    lost_ = &context.counter("epochs_lost");
    reset();
    const auto rows = channels_of(in);
    StreamFormat out = item_format({samples_, rows_}, in.scalar, in.parts.size() == 1 ? in.parts[0].name : "x");
    out.parts[0].unit = common_unit(rows);
    out.max_frames = room_;
    return out;
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& o, FrameSpan<T> out) noexcept {
    Index written = 0;
    for (auto& e : block.events) add(e);
    give(o, out, written);
    for (Index t = 0; t < in.frames; ++t) {
      T* ring = store<T>();
      while (n_waiting_ && waiting_[0].first <= seen_ - ring_frames_) drop();
      std::memcpy(ring + (seen_ % ring_frames_) * rows_, in.frame(t), static_cast<std::size_t>(rows_) * sizeof(T));
      ++seen_;
      if (n_waiting_ && waiting_[0].due <= seen_) give(o, out, written);
    }
    return written;
  }
  Index flush(Output& o) noexcept override {
    // the markers' time of grace ends with the stream
    std::size_t whole = 0;
    for (std::size_t i = 0; i < n_waiting_; ++i)
      if (waiting_[i].first + samples_ <= seen_) {
        waiting_[whole] = waiting_[i];
        waiting_[whole++].due = seen_;
      } else {
        outside_->add();
      }
    n_waiting_ = whole;
    Index written = 0;
    if (o.y.scalar == Scalar::f32) give(o, o.y.as<float>(), written);
    else give(o, o.y.as<double>(), written);
    return written;
  }
  void reset() noexcept override {
    seen_ = 0;
    n_waiting_ = 0;
    newest_key_ = std::numeric_limits<std::int64_t>::min();
    std::fill(waiting_.begin(), waiting_.end(), Waiting{});
  }
  void visit_state(StateVisitor& v) noexcept override {
    v("floats", floats_);
    v("doubles", doubles_);
    v("waiting", waiting_);
    v("n_waiting", n_waiting_);
    v("seen", seen_);
    v("newest_key", newest_key_);
  }
  Traits traits() const override {
    return {.causal = true,
            .real_time = true,
            .latency_s = static_cast<double>(wait_) / rate_hz_,
            .memory_frames = static_cast<Index>(wait_ - first_)};
  }

 private:
  struct Waiting {
    std::int64_t first = 0, due = 0, key = 0;  ///< its first frame; how many frames must have come; the event's id
    auto operator<=>(const Waiting&) const = default;  // NOLINT(modernize-use-nullptr): said of the compiler's own code
  };
  template <class T>
  T* store() noexcept {
    if constexpr (std::is_same_v<T, float>) return floats_.data();
    else return doubles_.data();
  }
  /// Puts an event in its place by time, then id; so late ones change nothing.
  void add(const Event& e) noexcept {
    if (!labels_.empty() && std::find(labels_.begin(), labels_.end(), e.label) == labels_.end()) return;
    const double at = (e.onset_s - start_s_) * rate_hz_;
    if (!(std::abs(at) < 1e15)) return outside_->add();
    const auto frame = static_cast<std::int64_t>(std::llround(at));
    const Waiting w{frame + first_, frame + wait_, e.id};
    if (w.first < 0) return outside_->add();
    if (w.due <= seen_ || w.key <= newest_key_) return late_->add();
    if (n_waiting_ == waiting_.size()) return lost_->add();
    auto end = waiting_.begin() + static_cast<std::ptrdiff_t>(n_waiting_);
    auto place = std::lower_bound(waiting_.begin(), end, w);
    std::move_backward(place, end, end + 1);
    *place = w;
    ++n_waiting_;
  }
  void drop() noexcept {
    lost_->add();
    pop(1);
  }
  void pop(std::size_t n) noexcept {
    std::move(waiting_.begin() + static_cast<std::ptrdiff_t>(n),
              waiting_.begin() + static_cast<std::ptrdiff_t>(n_waiting_), waiting_.begin());
    n_waiting_ -= n;
  }
  /// Gives the epochs that are due, as far as there is room.
  template <class T>
  void give(Output& o, FrameSpan<T> out, Index& written) noexcept {
    std::size_t done = 0;
    for (; done < n_waiting_ && waiting_[done].due <= seen_ && written < room_; ++done) {
      const Waiting& w = waiting_[done];
      if (w.key <= newest_key_) {  // keys rise; ids that do not follow the onsets cannot be kept
        late_->add();
        continue;
      }
      T* y = out.frame(written);
      const T* ring = store<T>();
      for (Index k = 0; k < samples_; ++k)
        std::memcpy(y + k * rows_, ring + ((w.first + k) % ring_frames_) * rows_,
                    static_cast<std::size_t>(rows_) * sizeof(T));
      if (baseline_last_ > 0) take_baseline(y);
      o.keys[written++] = newest_key_ = w.key;
    }
    if (done) pop(done);
  }
  template <class T>
  void take_baseline(T* y) const noexcept {
    for (Index r = 0; r < rows_; ++r) {
      double sum = 0, n = 0;
      for (Index k = baseline_first_; k < baseline_last_; ++k)
        if (const auto x = static_cast<double>(y[k * rows_ + r]); !std::isnan(x)) {
          sum += x;
          n += 1;
        }
      // no baseline at all: 0 / 0, and the row is NaN
      for (Index k = 0; k < samples_; ++k)
        y[k * rows_ + r] = static_cast<T>(static_cast<double>(y[k * rows_ + r]) - sum / n);
    }
  }

  Params p_;
  std::vector<Label> labels_;
  std::int64_t first_ = 0, last_ = 0, wait_ = 0;  ///< frames from the event: epoch's start and end, and when it is due
  Index baseline_first_ = 0, baseline_last_ = 0;  ///< samples of the epoch; last 0: none
  double start_s_ = 0, rate_hz_ = 1;
  Index rows_ = 0, samples_ = 0, room_ = 0, ring_frames_ = 0;
  Counter *outside_ = nullptr, *late_ = nullptr, *lost_ = nullptr;
  std::vector<float> floats_;  ///< ring of the newest frames, in the scalar of the edge
  std::vector<double> doubles_;
  std::vector<Waiting> waiting_;  ///< the first n_waiting_ count, in order
  std::size_t n_waiting_ = 0;
  std::int64_t seen_ = 0, newest_key_ = 0;
};
}  // namespace

StageInfo info_epochs() {
  auto i = stage_info<Epochs>("epochs", "preprocessing",
                              "One item of {samples, rows} for each event, keyed by the event's id. Onsets are "
                              "rounded to the nearest frame. An epoch that is not wholly inside the recording is "
                              "left out and counted as 'epochs_outside'.");
  i.real_time = true;
  i.samples = [] {
    Sample s;
    s.params = Value::object({{"labels", Value(std::vector<std::string>{"go"})},
                              {"start_s", -0.1},
                              {"stop_s", 0.2},
                              {"baseline_s", Value(std::vector<double>{-0.1, 0.0})},
                              {"late_s", 0.3}});
    for (std::int64_t k = 0; k < 30; ++k) {
      Event e;
      e.onset_s = 0.013 + 0.2 * static_cast<double>(k);
      e.id = k;
      e.label = Label::of(k % 3 == 2 ? "stop" : "go");
      s.events.push_back(e);
    }
    return both_scalars(s);
  };
  return i;
}

}  // namespace percept
