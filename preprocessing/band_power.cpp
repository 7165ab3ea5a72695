#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "preprocessing/bins.h"
#include "preprocessing/rows.h"

namespace percept {
namespace {
/// p = mean of x^2 over the frames of a bin that are there. With a time constant, m += a (p - m) from bin to bin, where
/// a = max(1 / (bins seen), 1 - exp(-bin / time_constant_s)), so that m starts as the plain mean.
class BandPower final : public Typed<BandPower> {
 public:
  struct Params {
    double bin_s = 0.02, time_constant_s = 0;
    std::string scale = "power";
    static constexpr auto fields() {
      return std::tuple{
          field("bin_s", &Params::bin_s, "s", "Length of a bin: a whole number of frames; 0: every frame by itself.",
                0.0, 1e9),
          field("time_constant_s", &Params::time_constant_s, "s",
                "How far back an exponentially weighted mean of the bins reaches; 0: each bin by itself.", 0.0, 1e9),
          choice("scale", &Params::scale, "power (mean square), root (its root) or log (its natural logarithm).",
                 "power|root|log")};
    }
  };
  explicit BandPower(Params p) : p_(std::move(p)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "band_power");
    require(p_.bin_s > 0 || p_.time_constant_s > 0, context, "bin_s", "0 s",
            "a length, or a time_constant_s for a running mean of every frame");
    StreamFormat out = in;
    bins_.prepare(p_.bin_s > 0 ? p_.bin_s : 1 / in.rate_hz, out, context);
    alpha_ = p_.time_constant_s > 0 ? -std::expm1(-1 / (p_.time_constant_s * out.rate_hz)) : 1;
    sum_.resize(in.size());
    missing_.resize(static_cast<std::size_t>(in.size()));
    mean_.resize(in.size());
    seen_.resize(in.size());
    undefined_ = &context.counter("undefined");
    reset();
    for (auto& part : out.parts) {
      part.unit = unit_of(part.unit);
      for (auto& c : part.rows)
        if (!c.unit.empty()) c.unit = unit_of(c.unit);
    }
    return out;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    Index written = 0;
    bins_.cut(
        in, filled_, [&](FrameSpan<const T> piece) { add(piece); }, [&] { give(out.frame(written++)); });
    return written;
  }
  void reset() noexcept override {
    empty();
    mean_.setZero();
    seen_.setZero();
    filled_ = 0;
  }
  void visit_state(StateVisitor& v) noexcept override {
    v("sum", sum_);
    v("missing", missing_);
    v("mean", mean_);
    v("seen", seen_);
    v("filled", filled_);
  }
  Traits traits() const override {
    return {.causal = true,
            .real_time = true,
            .per_row = true,
            .latency_s = bins_.latency_s,
            .memory_frames = p_.time_constant_s > 0 ? Traits::kDecaying : bins_.length - 1};
  }

 private:
  static constexpr Index kTile = 8;
  using Lanes = Eigen::Array<double, kTile, 1>;

  std::string unit_of(const std::string& unit) const {
    if (p_.scale == "root" || unit == "1") return unit;
    return p_.scale == "log" ? "1" : unit + "^2";
  }
  void empty() noexcept {
    sum_.setZero();
    std::fill(missing_.begin(), missing_.end(), 0);
  }
  /// Frames of one bin. Rows side by side where nothing is missing; the order of each row's sum is that of the frames.
  template <class T>
  void add(FrameSpan<const T> in) noexcept {
    Index row = 0;
    for (; row + kTile <= in.rows; row += kTile) {
      Eigen::Map<Lanes> sum(sum_.data() + row);
      using Values = Eigen::Array<T, kTile, 1>;
      Lanes total = sum;
      Values bad = Values::Zero();
      for (Index t = 0; t < in.frames; ++t) {
        const auto x = Eigen::Map<const Values>(in.frame(t) + row);
        bad += unusable<T, kTile>(x);
        total += x.template cast<double>().square();
      }
      if (bad.sum() == 0) sum = total;
      else add_those_there(in.part(row, kTile), row);
    }
    add_those_there(in.part(row, in.rows - row), row);
  }
  template <class T>
  void add_those_there(FrameSpan<const T> in, Index row) noexcept {
    for (Index t = 0; t < in.frames; ++t)
      for (Index r = 0; r < in.rows; ++r) {
        const auto x = static_cast<double>(in.frame(t)[r]);
        if (usable(x)) sum_[row + r] += x * x;
        else ++missing_[static_cast<std::size_t>(row + r)];
      }
  }
  template <class T>
  void give(T* y) noexcept {
    for (Index r = 0; r < sum_.size(); ++r) {
      // 0 / 0 is the NaN of a bin that has nothing
      double p = sum_[r] / static_cast<double>(bins_.length - missing_[static_cast<std::size_t>(r)]);
      if (p_.time_constant_s > 0 && std::isfinite(p)) {
        seen_[r] += 1;
        mean_[r] += std::max(1 / seen_[r], alpha_) * (p - mean_[r]);
        p = mean_[r];
      }
      if (p_.scale == "root") p = std::sqrt(p);
      if (p_.scale == "log") {
        if (p == 0) undefined_->add();  // a silent row: no number, and counted
        p = p == 0 ? std::numeric_limits<double>::quiet_NaN() : std::log(p);
      }
      y[r] = static_cast<T>(p);
    }
    empty();
  }

  Params p_;
  Bins bins_;
  double alpha_ = 1;
  Eigen::VectorXd sum_;                ///< of the squares in the bin that is filling, one a row
  std::vector<std::int64_t> missing_;  ///< its frames that are not in the sum
  Eigen::VectorXd mean_, seen_;        ///< of the bins before [input unit squared, bins]
  Index filled_ = 0;
  Counter* undefined_ = nullptr;
};
}  // namespace

StageInfo info_band_power() {
  auto i = stage_info<BandPower>(
      "band_power", "preprocessing",
      "Power of a filtered signal: mean square in bins of bin_s seconds, its root or its logarithm, and if asked for a "
      "running mean of them. Spike-band power is iir with pass = \"band\", low_hz = 300, high_hz = 1000, then this. A "
      "bin "
      "stands for the middle of its frames and is over those that are there; one without any is NaN, and so is the "
      "logarithm of silence, counted as 'undefined'.");
  i.paper =
      "Nason et al., A low-power band of neuronal spiking activity dominated by local single units improves the "
      "performance of brain-machine interfaces, Nature Biomedical Engineering 4, 2020";
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    auto add = [&](Value params, Index rows) {
      Sample s;
      s.format = time_format(rows, 100.0);
      s.params = std::move(params);
      for (auto& each : both_scalars(s)) all.push_back(each);
    };
    add(Value::object({{"bin_s", 0.07}}), 11);
    add(Value::object({{"bin_s", 0.05}, {"time_constant_s", 0.3}, {"scale", "log"}}), 3);
    add(Value::object({{"bin_s", 0.0}, {"time_constant_s", 0.2}, {"scale", "root"}}), 8);
    return all;
  };
  return i;
}

}  // namespace percept
