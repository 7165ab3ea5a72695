#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "numerics/apply.h"
#include "preprocessing/bins.h"
#include "preprocessing/rows.h"

namespace percept {
namespace {
constexpr int kCrossingsVersion = 1;

/// What both stages ask for.
struct CountParams {
  double bin_s = 0.02, refractory_s = 0.001, most_missing = 0;
  static constexpr auto fields() {
    return std::tuple{field("bin_s", &CountParams::bin_s, "s", "Length of a bin: a whole number of frames.", 1e-9, 1e9),
                      field("refractory_s", &CountParams::refractory_s, "s",
                            "How long after a crossing that counts the next ones of its row do not.", 0.0, 1e6),
                      field("most_missing", &CountParams::most_missing, "1",
                            "A bin of a row of which a larger share is missing is NaN; in others the count is divided "
                            "by the share that "
                            "is there.",
                            0.0, 1.0)};
  }
};

/// Counts the frames at which a row comes from inside its threshold to it or beyond. What was before the first frame
/// counts as beyond; a missing value changes nothing.
class CrossingCounter {
 public:
  /// Takes the format of the input to that of the output. thresholds: one a row; a NaN makes its row NaN.
  void prepare(const CountParams& p, Eigen::VectorXd thresholds, StreamFormat& format, const Context& context) {
    const auto rows = static_cast<std::size_t>(format.size());
    refractory_ = static_cast<std::int64_t>(std::ceil(p.refractory_s * format.rate_hz - 1e-6));
    bins_.prepare(p.bin_s, format, context);
    most_missing_ = static_cast<std::int64_t>(p.most_missing * static_cast<double>(bins_.length) + 1e-9);
    // upwards for all rows: a threshold below zero is crossed downwards
    side_ = (thresholds.array() < 0).select(-Eigen::ArrayXd::Ones(thresholds.size()), 1.0);
    level_ = side_ * thresholds.array();
    inside_.resize(rows);
    count_.resize(rows);
    missing_.resize(rows);
    last_.resize(rows);
    reset();
    for (auto& part : format.parts) {
      part.unit = "1";
      for (auto& c : part.rows) c.unit = "";
    }
  }
  template <class T>
  Index run(FrameSpan<const T> in, FrameSpan<T> out) noexcept {
    Index written = 0;
    bins_.cut(
        in, filled_,
        [&](FrameSpan<const T> piece) {
          Index row = 0;
          for (; row + kTile <= piece.rows; row += kTile) look(piece, row);
          for (; row < piece.rows; ++row) follow(piece, row);
          clock_ += piece.frames;
        },
        [&] { give(out.frame(written++)); });
    return written;
  }
  void reset() noexcept {
    std::fill(inside_.begin(), inside_.end(), std::uint8_t{0});
    std::fill(last_.begin(), last_.end(), -refractory_);
    filled_ = clock_ = 0;
    empty();
  }
  void visit_state(StateVisitor& v) noexcept {
    v("inside", inside_);
    v("count", count_);
    v("missing", missing_);
    v("last", last_);
    v("filled", filled_);
    v("clock", clock_);
  }
  double latency_s() const { return bins_.latency_s; }

 private:
  static constexpr Index kTile = 8;
  using Lanes = Eigen::Array<double, kTile, 1>;

  /// Rows side by side: only those that reach their threshold or miss a value are followed frame by frame.
  template <class T>
  void look(FrameSpan<const T> in, Index row) noexcept {
    const auto side = Eigen::Map<const Lanes>(side_.data() + row);
    using Values = Eigen::Array<T, kTile, 1>;
    Lanes most = Lanes::Constant(-std::numeric_limits<double>::infinity());
    Values bad = Values::Zero();
    for (Index t = 0; t < in.frames; ++t) {
      const auto x = Eigen::Map<const Values>(in.frame(t) + row);
      bad += unusable<T, kTile>(x);
      most = most.max(side * x.template cast<double>());
    }
    for (Index i = 0; i < kTile; ++i) {
      if (bad[i] == 0 && most[i] < level_[row + i]) inside_[static_cast<std::size_t>(row + i)] = 1;
      else follow(in, row + i);
    }
  }
  template <class T>
  void follow(FrameSpan<const T> in, Index row) noexcept {
    const auto r = static_cast<std::size_t>(row);
    for (Index t = 0; t < in.frames; ++t) {
      const auto x = static_cast<double>(in.frame(t)[row]);
      if (!usable(x)) {
        ++missing_[r];
        continue;
      }
      const bool beyond = side_[row] * x >= level_[row];
      if (beyond && inside_[r] && clock_ + t - last_[r] >= refractory_) {
        ++count_[r];
        last_[r] = clock_ + t;
      }
      inside_[r] = !beyond;
    }
  }
  template <class T>
  void give(T* y) noexcept {
    for (std::size_t r = 0; r < count_.size(); ++r) {
      const auto length = static_cast<std::int64_t>(bins_.length), there = length - missing_[r];
      const bool told = there > 0 && missing_[r] <= most_missing_ && !std::isnan(level_[static_cast<Index>(r)]);
      const double share = static_cast<double>(there) / static_cast<double>(length);
      y[r] = static_cast<T>(told ? static_cast<double>(count_[r]) / share : std::numeric_limits<double>::quiet_NaN());
    }
    empty();
  }
  void empty() noexcept {
    std::fill(count_.begin(), count_.end(), 0);
    std::fill(missing_.begin(), missing_.end(), 0);
  }

  Bins bins_;
  std::int64_t refractory_ = 0, most_missing_ = 0;  ///< [frames]
  Eigen::ArrayXd side_, level_;                     ///< -1 or 1, and the threshold times that
  std::vector<std::uint8_t> inside_;                ///< the row's last value was inside its threshold
  std::vector<std::int64_t> count_, missing_;       ///< in the bin that is filling
  std::vector<std::int64_t> last_;                  ///< frame of the row's last crossing that counted
  Index filled_ = 0;
  std::int64_t clock_ = 0;  ///< frames so far
};

/// Thresholds in the unit of the signal.
class LevelCrossings final : public Typed<LevelCrossings> {
 public:
  struct Params : CountParams {
    double level = -50;
    static constexpr auto fields() {
      return std::tuple_cat(std::tuple{field("level", &Params::level, "input unit",
                                             "What a row has to reach; below zero it is crossed downwards.")},
                            CountParams::fields());
    }
  };
  explicit LevelCrossings(const Params& p) : p_(p) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "level_crossings");
    require(p_.level != 0, context, "level", "0", "a level above or below zero");
    StreamFormat out = in;
    counter_.prepare(p_, Eigen::VectorXd::Constant(in.size(), p_.level), out, context);
    return out;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    return counter_.run(in, out);
  }
  void reset() noexcept override { counter_.reset(); }
  void visit_state(StateVisitor& v) noexcept override { counter_.visit_state(v); }
  Traits traits() const override {
    return {.causal = true,
            .real_time = true,
            .per_row = true,
            .latency_s = counter_.latency_s(),
            .memory_frames = Traits::kDecaying};
  }

 private:
  Params p_;
  CrossingCounter counter_;
};

struct ThresholdParams : CountParams {
  double threshold = -4.5;
  static constexpr auto fields() {
    return std::tuple_cat(
        std::tuple{field("threshold", &ThresholdParams::threshold, "noise levels",
                         "What a row has to reach, in levels of its own noise; below zero it is crossed downwards.",
                         -1e6, 1e6)},
        CountParams::fields());
  }
};

/// Thresholds in noise levels of the training frames.
class ThresholdCrossings final : public Typed<ThresholdCrossings> {
 public:
  using Params = ThresholdParams;
  ThresholdCrossings(const Params& p, const Model& model)
      : p_(p), model_((require_model(model, "threshold_crossings", kCrossingsVersion), model)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "threshold_crossings");
    require(p_.threshold != 0, context, "threshold", "0", "a threshold above or below zero");
    const auto at = row_order(model_.input_rows(), named_rows(in), context);
    Eigen::VectorXd thresholds(in.size());
    thresholds(at) = p_.threshold * model_.vector("noise", in.size());
    StreamFormat out = in;
    counter_.prepare(p_, std::move(thresholds), out, context);
    return out;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    return counter_.run(in, out);
  }
  void reset() noexcept override { counter_.reset(); }
  void visit_state(StateVisitor& v) noexcept override { counter_.visit_state(v); }
  Traits traits() const override {
    return {.causal = true, .real_time = true, .latency_s = counter_.latency_s(), .memory_frames = Traits::kDecaying};
  }

 private:
  Params p_;
  Model model_;
  CrossingCounter counter_;
};

/// The median of |x| of each row in three passes, without keeping the frames: numbers of one sign are ordered like their
/// bits, so each pass counts by the next twelve of them among the values that begin like the median. What is found has
/// the first 25 bits of its fraction, which is all of a float.
class NoiseFitter final : public Fitter {
 public:
  explicit NoiseFitter(const ThresholdParams&) {}

  Model fit(const Data& data, Context& context) override {
    const Index rows = data.x_format().size();
    Eigen::VectorXd noise(rows);
    for (Index first = 0; first < rows; first += kRowsAtOnce) {
      const Index n = std::min(kRowsAtOnce, rows - first);
      noise.segment(first, n) = medians(data, first, n, context) / 0.6745;
    }
    const auto names = data.x_format().row_names();
    for (Index r = 0; r < rows; ++r)
      if (!(noise[r] > 0)) {
        context.warn(fmt::format("row '{}' {} in the training frames: it will be NaN",
                                 names[static_cast<std::size_t>(r)],
                                 std::isnan(noise[r]) ? "has no value" : "is silent more than half of the time"));
        noise[r] = std::numeric_limits<double>::quiet_NaN();
      }
    if (noise.array().isNaN().all())
      throw DataError(context.node, "training frames", "a row that is not silent", "none");
    Model m;
    m.meta = model_meta("threshold_crossings", kCrossingsVersion, Value::table(), data.x_format());
    m.set("noise", noise);
    return m;
  }

 private:
  static constexpr Index kRowsAtOnce = 1024;  // 32 MB of counts
  static constexpr int kBits = 12;

  static Eigen::VectorXd medians(const Data& data, Index first, Index rows, const Context& context) {
    std::vector<std::int64_t> counts;
    std::vector<std::uint64_t> known(static_cast<std::size_t>(rows), 0);
    std::vector<std::int64_t> rank(static_cast<std::size_t>(rows), 0);  // of the median among those that begin like it
    for (int shift = 63 - kBits; shift > 63 - 4 * kBits; shift -= kBits) {
      counts.assign(static_cast<std::size_t>(rows) << kBits, 0);
      data.pass([&](const TrainingBlock& b) {
        context.check_cancel();
        const Eigen::MatrixXd x = to_matrix(b.x.part(first, rows));
        for (Index t = 0; t < x.cols(); ++t)
          for (Index r = 0; r < rows; ++r) {
            if (!usable(x(r, t))) continue;
            const auto bits = std::bit_cast<std::uint64_t>(std::abs(x(r, t)));
            if (bits >> (shift + kBits) != known[static_cast<std::size_t>(r)]) continue;
            ++counts[(static_cast<std::size_t>(r) << kBits) + ((bits >> shift) & ((1u << kBits) - 1))];
          }
      });
      for (std::size_t r = 0; r < known.size(); ++r) {
        const auto* of_row = counts.data() + (r << kBits);
        if (shift == 63 - kBits) {
          std::int64_t n = 0;
          for (std::size_t k = 0; k < std::size_t{1} << kBits; ++k) n += of_row[k];
          rank[r] = n == 0 ? -1 : (n - 1) / 2;
        }
        if (rank[r] < 0) continue;
        std::uint64_t digit = 0;
        while (rank[r] >= of_row[digit]) rank[r] -= of_row[digit++];
        known[r] = known[r] << kBits | digit;
      }
    }
    Eigen::VectorXd median(rows);
    for (std::size_t r = 0; r < known.size(); ++r)
      median[static_cast<Index>(r)] =
          rank[r] < 0 ? std::numeric_limits<double>::quiet_NaN() : std::bit_cast<double>(known[r] << (63 - 3 * kBits));
    return median;
  }
};

const char* const kSpikes =
    "Counts per bin how often each row of a filtered signal comes to its threshold, such as spikes of broadband after "
    "iir "
    "with pass = \"band\", low_hz = 300, high_hz = 6000. A missing value is left out.";
}  // namespace

StageInfo info_level_crossings() {
  auto i = stage_info<LevelCrossings>("level_crossings", "preprocessing",
                                      std::string(kSpikes) +
                                          " One threshold for all rows; threshold_crossings learns "
                                          "one for each.");
  i.version = kCrossingsVersion;
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    for (const double most_missing : {0.0, 0.5}) {
      Sample s;
      s.format = time_format(11, 100.0);
      s.params = Value::object({{"level", most_missing > 0 ? 1.0 : -1.0},
                                {"bin_s", 0.1},
                                {"refractory_s", 0.03},
                                {"most_missing", most_missing}});
      for (auto& each : both_scalars(s)) all.push_back(each);
    }
    return all;
  };
  return i;
}

StageInfo info_threshold_crossings() {
  auto i = trained_info<ThresholdCrossings, NoiseFitter>(
      "threshold_crossings", "preprocessing",
      std::string(kSpikes) +
          " The threshold is a multiple of each row's noise level in the training frames, median(|x|) "
          "/ 0.6745; of an even number of values the lower one of the two in the middle.");
  i.version = kCrossingsVersion;
  i.paper =
      "Quian Quiroga, Nadasdy, Ben-Shaul, Unsupervised spike detection and sorting with wavelets and superparamagnetic "
      "clustering, Neural Computation 16, 2004";
  i.real_time = true;
  i.samples = [] {
    Sample s;
    s.format = time_format(9, 100.0);
    s.params = Value::object({{"threshold", -1.5}, {"bin_s", 0.1}, {"refractory_s", 0.02}});
    auto model = std::make_shared<Model>();
    model->meta = model_meta("threshold_crossings", kCrossingsVersion, Value::table(), s.format);
    model->set("noise", Eigen::MatrixXd(Eigen::VectorXd::LinSpaced(9, 0.5, 1.5)));
    s.model = model;
    return both_scalars(s);
  };
  return i;
}

}  // namespace percept
