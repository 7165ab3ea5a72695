/// Each law is shown to fail on a stage broken on purpose, and on nothing else: five healthy little stages of different
/// kinds keep all laws, and each fault put into one of them breaks the law it should.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <ostream>
#include <set>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "core/error.h"
#include "core/registry.h"
#include "tests/support/alloc.h"
#include "tests/support/contract.h"

namespace percept::testing {
namespace {

enum class Fault {
  none,
  // partition
  forgets_at_block_start,
  ignores_stride,
  misses_late_events,
  // state
  state_not_visited,
  state_grows,
  reset_incomplete,
  // missing
  poisoned,
  infinite,
  invents,
  breaks_clock,
  // real_time
  allocates,
  denies_real_time,
  // delivery
  too_many_frames,
  leaves_row_unwritten,
  writes_outside,
  changes_scalar,
  keys_fall,
  foreign_keys,
  event_of_no_row,
  wrong_error,
  nameless_error,
  takes_any_rate,
  prepares_once,
  takes_any_rows,
  // causality
  hides_latency,
  looks_ahead,
  // independence
  mixes_rows,
  depends_on_order,
  // anew
  counts_from_the_recording,
  // declaration
  undocumented,
  default_out_of_range,
  takes_unknown_keys,
  unchecked_range,
  no_model_needed
};

double bad(Fault f, Fault which, double yes, double no) { return f == which ? yes : no; }

/// Time, recursive, row by row: takes the running mean off, and tells of values far from it.
class Drift final : public Typed<Drift> {
 public:
  struct Params {
    double time_constant_s = 0.2;
    static constexpr auto fields() {
      return std::tuple{
          field("time_constant_s", &Params::time_constant_s, "s", "Drift slower than this is taken off.", 1e-3, 1e6)};
    }
  };
  Drift(Params p, Fault f) : p_(p), fault_(f) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    if (fault_ == Fault::wrong_error && in.axis != Axis::time) throw std::runtime_error(context.node + ": no items");
    Context used = context;
    if (fault_ == Fault::nameless_error) used.node = "";
    StreamFormat checked = in;
    if (fault_ == Fault::takes_any_rate) checked.rate_hz = 100;
    require_time(checked, used, "drift");
    alpha_ = std::min(1.0, 1.0 / (p_.time_constant_s * in.rate_hz));
    start_ = in.start_s;
    rate_ = in.rate_hz;
    spikes_ = 0;
    if (fault_ != Fault::prepares_once || mean_.size() != in.size()) mean_.setZero(in.size());
    StreamFormat out = in;
    if (fault_ == Fault::hides_latency) out.start_s -= 1 / in.rate_hz;
    if (fault_ == Fault::too_many_frames) out.max_frames = std::max<Index>(1, in.max_frames - 1);
    if (fault_ == Fault::changes_scalar) out.scalar = Scalar::f64;
    return out;
  }
  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& out, FrameSpan<T> y) noexcept {
    if (fault_ == Fault::forgets_at_block_start) mean_.setZero();
    if (fault_ == Fault::ignores_stride) in.stride = in.rows;
    if (fault_ == Fault::allocates) mean_ = Eigen::VectorXd(mean_ + mean_) / 2;
    for (Index k = 0; k < in.frames; ++k) {
      for (Index r = 0; r < in.rows; ++r) {
        const double v = static_cast<double>(in.frame(k)[r]);
        double z = v - mean_[r];
        if (std::isfinite(v) || fault_ == Fault::poisoned) mean_[r] += alpha_ * z;
        if (std::isnan(v) && fault_ == Fault::infinite) z = 1 / 0.0;
        if (fault_ == Fault::looks_ahead) z += 0.1 * static_cast<double>(in.frame(in.frames - 1)[r]);
        if (fault_ == Fault::counts_from_the_recording) z += 1e-3 * static_cast<double>(block.first_frame + k);
        if (fault_ == Fault::mixes_rows && r > 0) z -= 0.1 * mean_[r - 1];
        if (z > 2)
          out.emit({start_ + static_cast<double>(block.first_frame + k) / rate_,
                    0,
                    z,
                    ++spikes_,
                    {},
                    static_cast<std::int32_t>(fault_ == Fault::event_of_no_row ? in.rows : r),
                    -1});
        if (fault_ != Fault::leaves_row_unwritten || r > 0) write(y, k, r, z);
      }
      if (fault_ == Fault::writes_outside) write(y, k, in.rows, 0.0);
    }
    return in.frames;
  }
  void reset() noexcept override {
    if (fault_ != Fault::reset_incomplete) mean_.setZero();
    spikes_ = 0;
  }
  void visit_state(StateVisitor& v) noexcept override {
    if (fault_ != Fault::state_not_visited) v("mean", mean_);
    v("spikes", spikes_);
  }
  Traits traits() const override {
    return {.causal = true,
            .real_time = fault_ != Fault::denies_real_time,
            .per_row = true,
            .memory_frames = Traits::kDecaying};
  }

 private:
  template <class T>
  void write(FrameSpan<T> y, Index k, Index r, double z) const noexcept {
    if (fault_ == Fault::changes_scalar) reinterpret_cast<double*>(y.data)[k * y.stride + r] = z;
    else y.frame(k)[r] = static_cast<T>(z);
  }
  Params p_;
  Fault fault_;
  double alpha_ = 0, start_ = 0, rate_ = 1;
  Eigen::VectorXd mean_;
  std::int64_t spikes_ = 0;
};

/// Items, frame by frame: a multiple of the input.
class Scale final : public Typed<Scale> {
 public:
  struct Params {
    double factor = 2;
    static constexpr auto fields() {
      return std::tuple{field("factor", &Params::factor, "1", "What is multiplied by.", -10.0, 10.0)};
    }
  };
  Scale(Params p, Fault f) : p_(p), fault_(f) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_items(in, context, "scale");
    seen_ = 0;
    return in;
  }
  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& out, FrameSpan<T> y) noexcept {
    for (Index k = 0; k < in.frames; ++k) {
      const double factor = p_.factor + bad(fault_, Fault::depends_on_order, 0.001 * static_cast<double>(seen_++), 0);
      for (Index r = 0; r < in.rows; ++r) {
        const double v = static_cast<double>(in.frame(k)[r]);
        y.frame(k)[r] = static_cast<T>(fault_ == Fault::invents && std::isnan(v) ? 0.0 : factor * v);
      }
      const auto key = block.keys[static_cast<std::size_t>(k)];
      out.keys[k] = fault_ == Fault::keys_fall ? 1000000 - key : fault_ == Fault::foreign_keys ? key + 1 : key;
    }
    return in.frames;
  }
  void reset() noexcept override { seen_ = 0; }
  void visit_state(StateVisitor& v) noexcept override { v("seen", seen_); }
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true, .memory_frames = 0}; }

 private:
  Params p_;
  Fault fault_;
  std::int64_t seen_ = 0;
};

/// Time to items: the frames from an event on, also when the event comes late.
class Cut final : public Typed<Cut> {
 public:
  using Params = NoParams;
  static constexpr Index kLength = 8, kHistory = 64, kPending = 16;
  Cut(Params, Fault f) : fault_(f) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "cut");
    in_ = in;
    history_.setZero(in.size(), kHistory);
    reset();
    StreamFormat out = item_format({kLength, in.size()}, in.scalar);
    out.max_frames = in.max_frames + kPending;
    return out;
  }
  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& out, FrameSpan<T> y) noexcept {
    for (auto& e : block.events)
      if (n_pending_ < kPending &&
          !(fault_ == Fault::misses_late_events && in_.nearest_frame(e.onset_s) < block.first_frame)) {
        first_[n_pending_] = in_.nearest_frame(e.onset_s);
        key_[n_pending_++] = e.id;
      }
    Index n = 0;
    for (Index k = 0; k < in.frames; ++k, ++seen_) {
      for (Index r = 0; r < in.rows; ++r) history_(r, seen_ % kHistory) = static_cast<double>(in.frame(k)[r]);
      while (n_pending_ > 0 && first_[0] + kLength <= seen_ + 1) {
        for (Index s = 0; s < kLength; ++s)
          for (Index r = 0; r < in.rows; ++r)
            y.frame(n)[s * in.rows + r] = static_cast<T>(history_(r, (first_[0] + s) % kHistory));
        out.keys[n++] = key_[0];
        --n_pending_;
        for (Index i = 0; i < n_pending_; ++i) first_[i] = first_[i + 1], key_[i] = key_[i + 1];
      }
    }
    return n;
  }
  void reset() noexcept override { n_pending_ = 0, seen_ = 0; }
  void visit_state(StateVisitor& v) noexcept override {
    v("history", history_);
    v("first", first_);
    v("key", key_);
    v("n_pending", n_pending_);
    v("seen", seen_);
  }
  Traits traits() const override {
    return {.causal = true, .real_time = true, .latency_s = kLength / in_.rate_hz, .memory_frames = kLength};
  }

 private:
  Fault fault_;
  StreamFormat in_;
  Eigen::MatrixXd history_;
  std::int64_t first_[kPending + 1] = {}, key_[kPending + 1] = {};
  Index n_pending_ = 0, seen_ = 0;
};

/// Time, not causal: takes the mean of the whole recording off.
class Centre final : public Typed<Centre> {
 public:
  using Params = NoParams;
  Centre(Params, Fault f) : fault_(f) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "centre");
    rows_ = in.size();
    reset();
    return in;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T>) noexcept {
    for (Index k = 0; k < in.frames; ++k)
      if (fault_ != Fault::breaks_clock || !std::isnan(in.frame(k)[0]))
        kept_.insert(kept_.end(), in.frame(k), in.frame(k) + rows_);
    return 0;
  }
  Index flush(Output& o) noexcept override {
    return o.y.scalar == Scalar::f32 ? give(o.y.as<float>()) : give(o.y.as<double>());
  }
  void reset() noexcept override { kept_.clear(), given_ = 0; }
  Traits traits() const override { return {.causal = false, .per_row = true, .memory_frames = Traits::kAllFrames}; }

 private:
  template <class T>
  Index give(FrameSpan<T> y) noexcept {
    const Index frames = static_cast<Index>(kept_.size()) / rows_, n = std::min(y.frames, frames - given_);
    for (Index r = 0; r < rows_ && n > 0; ++r) {
      double sum = 0, count = 0;
      for (Index k = 0; k < frames; ++k)
        if (const double v = kept_[static_cast<std::size_t>(k * rows_ + r)];
            !std::isnan(v) || fault_ == Fault::poisoned)
          sum += v, ++count;
      for (Index k = 0; k < n; ++k)
        y.frame(k)[r] = static_cast<T>(kept_[static_cast<std::size_t>((given_ + k) * rows_ + r)] - sum / count);
    }
    given_ += n;
    return n;
  }
  Fault fault_;
  Index rows_ = 0, given_ = 0;
  std::vector<double> kept_;
};

/// Time, trained: takes a fitted offset off each row. Its state can be made to grow.
class Offset final : public Typed<Offset> {
 public:
  using Params = NoParams;
  Offset(Params, Fault f, const Model& m) : fault_(f), offset_(m.vector("offset")) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "offset");
    if (fault_ != Fault::takes_any_rows)
      require(in.size() == offset_.size(), context, "model", std::to_string(offset_.size()) + " rows",
              std::to_string(in.size()));
    reset();
    return in;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> y) noexcept {
    for (Index k = 0; k < in.frames; ++k)
      for (Index r = 0; r < in.rows; ++r)
        y.frame(k)[r] = static_cast<T>(static_cast<double>(in.frame(k)[r]) - offset_[r]);
    if (fault_ == Fault::state_grows) seen_.push_back(in.frames);
    return in.frames;
  }
  void reset() noexcept override { seen_.clear(); }
  void visit_state(StateVisitor& v) noexcept override { v("seen", seen_); }
  Traits traits() const override { return {.causal = true, .per_row = true, .memory_frames = 0}; }

 private:
  Fault fault_;
  Eigen::VectorXd offset_;
  std::vector<Index> seen_;
};

class OffsetFitter final : public Fitter {
 public:
  Model fit(const Data& data, Context&) override {
    Model m;
    m.set("offset", Eigen::MatrixXd(data.gather().x.rowwise().mean()));
    return m;
  }
};

template <class S>
StageInfo row(const char* name, Fault fault) {
  StageInfo i;
  i.name = name;
  i.folder = "tests";
  i.doc = "A little stage.";
  i.params = describe_params<typename S::Params>();
  i.real_time = true;
  if constexpr (std::is_constructible_v<S, typename S::Params, Fault>)
    i.make = [fault](const Value& params, const Model*, const std::string& where) -> std::unique_ptr<Stage> {
      return std::make_unique<S>(read_params<typename S::Params>(params, where), fault);
    };
  i.samples = [] { return std::vector<Sample>(1); };
  return i;
}

StageInfo drift(Fault fault) {
  StageInfo i = row<Drift>("drift", fault);
  if (fault == Fault::undocumented) i.params[0].doc = "";
  if (fault == Fault::default_out_of_range) i.params[0].fallback = Value(0.0);
  if (fault == Fault::takes_unknown_keys || fault == Fault::unchecked_range)
    i.make = [fault](const Value& params, const Model*, const std::string& where) -> std::unique_ptr<Stage> {
      Value known = Value::table();
      Drift::Params p;
      if (auto* v = params.find("time_constant_s")) known["time_constant_s"] = *v;
      if (fault == Fault::takes_unknown_keys)
        return std::make_unique<Drift>(read_params<Drift::Params>(known, where), fault);
      refuse_unknown_keys(params, {"time_constant_s"}, where);
      if (auto* v = params.find("time_constant_s")) {
        if (!v->is_number()) throw ConfigError(where + ".time_constant_s", to_json(*v), "a number");
        p.time_constant_s = v->as_number();
      }
      return std::make_unique<Drift>(p, fault);
    };
  return i;
}

StageInfo scale(Fault fault) {
  StageInfo i = row<Scale>("scale", fault);
  i.samples = [] {
    Sample s;
    s.format = item_format({2, 3});
    s.frames = 120;
    return std::vector<Sample>{s};
  };
  return i;
}

StageInfo cut(Fault fault) {
  StageInfo i = row<Cut>("cut", fault);
  i.samples = [] {
    Sample s;
    for (int e = 0; e < 12; ++e) s.events.push_back({0.1 + 0.4 * e, 0, 0, 10 + e, Label::of("go"), -1, -1});
    return std::vector<Sample>{s};
  };
  return i;
}

StageInfo centre(Fault fault) {
  StageInfo i = row<Centre>("centre", fault);
  i.real_time = false;
  i.causal_twin = "drift";
  return i;
}

StageInfo offset(Fault fault) {
  StageInfo i = row<Offset>("offset", fault);
  i.trained = true;
  i.real_time = false;
  i.make = [fault](const Value& params, const Model* model, const std::string& where) -> std::unique_ptr<Stage> {
    Model none;
    none.set("offset", Eigen::MatrixXd::Zero(5, 1));
    if (!model && fault != Fault::no_model_needed) throw ConfigError(where, "", "a fitted model");
    return std::make_unique<Offset>(read_params<NoParams>(params, where), fault, model ? *model : none);
  };
  i.make_fitter = [](const Value&, const std::string&) -> std::unique_ptr<Fitter> {
    return std::make_unique<OffsetFitter>();
  };
  i.samples = [] {
    Sample s;
    const Eigen::MatrixXd x = Eigen::MatrixXd::Random(5, 50);
    Context context;
    const MemoryData data(s.format, {}, {.x = x, .y = {}, .keys = {}, .groups = {}, .segment_starts = {0}});
    s.model = std::make_shared<const Model>(OffsetFitter().fit(data, context));
    return std::vector<Sample>{s};
  };
  return i;
}

/// The laws that the stage breaks.
std::set<std::string> broken(const StageInfo& info, std::string* text = nullptr) {
  std::set<std::string> names;
  for (const Sample& s : info.samples())
    for (const Law& law : contract_laws())
      if (auto result = law.check(info, s); !result.ok()) {
        names.insert(law.name);
        if (text) *text += std::string(law.name) + ": " + result.text();
      }
  return names;
}

TEST(ContractSuite, HealthyStagesKeepEveryLaw) {
  for (auto make : {drift, scale, cut, centre, offset}) {
    const StageInfo info = make(Fault::none);
    std::string text;
    EXPECT_THAT(broken(info, &text), ::testing::IsEmpty()) << info.name << "\n" << text;
  }
}

struct Case {
  const char* name;
  StageInfo (*make)(Fault);
  Fault fault;
  std::set<std::string> laws;
  const char* says;  ///< part of what is reported
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class BrokenStage : public ::testing::TestWithParam<Case> {};

TEST_P(BrokenStage, FailsItsLawAndNoOther) {
  const Case& c = GetParam();
  if (c.fault == Fault::allocates && !AllocationCounter::available())
    GTEST_SKIP() << "a sanitizer brings its own malloc";
  std::string text;
  EXPECT_EQ(broken(c.make(c.fault), &text), c.laws) << text;
  EXPECT_THAT(text, ::testing::HasSubstr(c.says));
}

const Case kCases[] = {
    // what breaks partition, state or reset breaks a new start at an event too
    {"forgets_at_block_start", drift, Fault::forgets_at_block_start, {"anew", "partition"}, "blocks of 1: frame"},
    {"ignores_stride", drift, Fault::ignores_stride, {"partition"}, "input frames apart"},
    {"misses_late_events", cut, Fault::misses_late_events, {"partition"}, "frames late"},
    {"state_not_visited", drift, Fault::state_not_visited, {"state"}, "restored"},
    {"state_grows", offset, Fault::state_grows, {"anew", "state"}, "size of the state changes"},
    {"reset_incomplete", drift, Fault::reset_incomplete, {"anew", "state"}, "reset in the middle equals new"},
    {"poisoned", drift, Fault::poisoned, {"missing"}, "poisoned"},
    {"whole_recording_poisoned", centre, Fault::poisoned, {"missing"}, "poisoned"},
    {"infinite", drift, Fault::infinite, {"missing"}, "is infinite"},
    {"invents", scale, Fault::invents, {"missing"}, "made of missing input only"},
    {"breaks_clock", centre, Fault::breaks_clock, {"missing"}, "the clock is broken"},
    {"allocates", drift, Fault::allocates, {"real_time"}, "heap allocations while running"},
    {"denies_real_time", drift, Fault::denies_real_time, {"real_time"}, "the registry says real_time = true"},
    {"too_many_frames", drift, Fault::too_many_frames, {"delivery"}, "where max_frames ="},
    {"leaves_row_unwritten", drift, Fault::leaves_row_unwritten, {"delivery"}, "leaves row 0 of 5 unwritten"},
    {"writes_outside", drift, Fault::writes_outside, {"delivery"}, "writes outside its rows"},
    {"changes_scalar", drift, Fault::changes_scalar, {"delivery"}, "another scalar"},
    {"keys_fall", scale, Fault::keys_fall, {"delivery"}, "keys do not rise"},
    {"foreign_keys", scale, Fault::foreign_keys, {"delivery"}, "is no key of the input"},
    {"event_of_no_row", drift, Fault::event_of_no_row, {"delivery"}, "about row 5 of 5"},
    {"wrong_error", drift, Fault::wrong_error, {"delivery"}, "something else than a ConfigError"},
    {"nameless_error", drift, Fault::nameless_error, {"delivery"}, "without naming the node"},
    {"takes_any_rate", drift, Fault::takes_any_rate, {"delivery"}, "a rate of 0 Hz is not refused"},
    {"prepares_once", drift, Fault::prepares_once, {"delivery"}, "prepared again"},
    {"takes_any_rows", offset, Fault::takes_any_rows, {"delivery"}, "one row more than the model"},
    {"hides_latency", drift, Fault::hides_latency, {"causality"}, "the declared latency is 0.000000 s"},
    // what depends on the end of the block also depends on the cut
    {"looks_ahead",
     drift,
     Fault::looks_ahead,
     {"anew", "causality", "partition"},
     "changes with input that comes later"},
    {"mixes_rows", drift, Fault::mixes_rows, {"independence"}, "other rows changed"},
    {"depends_on_order", scale, Fault::depends_on_order, {"independence"}, "in another order"},
    {"counts_from_the_recording", drift, Fault::counts_from_the_recording, {"anew"}, "anew at events"},
    {"undocumented", drift, Fault::undocumented, {"declaration"}, "not documented"},
    {"default_out_of_range", drift, Fault::default_out_of_range, {"declaration"}, "outside its range"},
    {"takes_unknown_keys", drift, Fault::takes_unknown_keys, {"declaration"}, "unknown key time_constant_sx is taken"},
    {"unchecked_range", drift, Fault::unchecked_range, {"declaration"}, "below its range is taken"},
    {"no_model_needed", offset, Fault::no_model_needed, {"declaration"}, "made without its model"},
};
INSTANTIATE_TEST_SUITE_P(All, BrokenStage, ::testing::ValuesIn(kCases),
                         [](const ::testing::TestParamInfo<Case>& info) { return std::string(info.param.name); });

TEST(ContractSuite, ModelDifferenceNamesWhatDiffers) {
  Model a;
  a.set("w", Eigen::MatrixXd::Ones(2, 3));
  a.meta["rows"] = 3;
  Model b = a;
  EXPECT_EQ(model_difference(a, b), "");
  Eigen::MatrixXd w = Eigen::MatrixXd::Ones(2, 3);
  w(1, 2) = std::nextafter(1.0, 2.0);
  b.set("w", w);
  EXPECT_EQ(model_difference(a, b), "array 'w' has other values");
  b.set("w", Eigen::MatrixXd::Ones(3, 2));
  EXPECT_EQ(model_difference(a, b), "array 'w' has another type or shape");
  b = a;
  b.set("v", 1.0);
  EXPECT_EQ(model_difference(a, b), "array 'v' is in the second model only");
  EXPECT_EQ(model_difference(b, a), "array 'v' is in the first model only");
  b = a;
  b.meta["rows"] = 4;
  EXPECT_EQ(model_difference(a, b), "meta.rows differs");
}

}  // namespace
}  // namespace percept::testing
