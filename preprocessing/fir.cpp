#include "preprocessing/fir.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "core/error.h"
#include "preprocessing/rows.h"

namespace percept {

Eigen::VectorXd taper(const std::string& window, Index n) {
  // sums of cosines: a0 - a1 cos(2 pi k / (n - 1)) + a2 cos(4 pi k / (n - 1))
  double a0 = 0.54, a1 = 0.46, a2 = 0;
  if (window == "hann") a0 = 0.5, a1 = 0.5;
  else if (window == "blackman") a0 = 0.42, a1 = 0.5, a2 = 0.08;
  else if (window != "hamming") throw Error("window '" + window + "': expected hamming, hann or blackman");
  Eigen::VectorXd w(n);
  for (Index k = 0; k < n; ++k) {
    const double angle =
        n > 1 ? 2 * std::numbers::pi * static_cast<double>(k) / static_cast<double>(n - 1) : std::numbers::pi;
    w[k] = a0 - a1 * std::cos(angle) + a2 * std::cos(2 * angle);
  }
  return w;
}

Index windowed_sinc_length(double transition_hz, double rate_hz, const std::string& window) {
  const double factor = window == "blackman" ? 5.5 : window == "hann" ? 3.1 : 3.3;
  const auto n = static_cast<Index>(std::ceil(factor * rate_hz / transition_hz));
  return n | 1;
}

Eigen::VectorXd windowed_sinc(const std::string& pass, double low_hz, double high_hz, double rate_hz,
                              const std::string& window, Index n) {
  if (n < 1 || n % 2 == 0) throw Error(fmt::format("windowed_sinc: {} taps, expected an odd number", n));
  const double low = 2 * low_hz / rate_hz, high = 2 * high_hz / rate_hz;  // 1 is half the rate
  const auto w = taper(window, n);
  const Index middle = (n - 1) / 2;
  // ideal low-pass up to edge f, at distance m from the middle
  auto ideal = [](double f, double m) {
    return m == 0 ? f : std::sin(std::numbers::pi * f * m) / (std::numbers::pi * m);
  };
  Eigen::VectorXd h(n);
  for (Index k = 0; k < n; ++k) {
    const auto m = static_cast<double>(k - middle);
    const double value = pass == "low"    ? ideal(high, m)
                         : pass == "high" ? ideal(1, m) - ideal(low, m)
                         : pass == "band" ? ideal(high, m) - ideal(low, m)
                                          : ideal(low, m) + ideal(1, m) - ideal(high, m);
    h[k] = value * w[k];
  }
  const double one = pass == "high" ? 1 : pass == "band" ? (low + high) / 2 : 0;  // where the gain is made 1
  double gain = 0;
  for (Index k = 0; k < n; ++k) gain += h[k] * std::cos(std::numbers::pi * one * static_cast<double>(k - middle));
  return h / gain;
}

Eigen::VectorXd fir_taps(const FirParams& p, double rate_hz, const Context& context) {
  if (!p.taps.empty()) {
    const std::size_t n = p.taps.size();
    require(n % 2 == 1, context, "taps", fmt::format("{} numbers", n), "an odd number");
    bool even = true, odd = true;
    for (std::size_t k = 0; k < n; ++k) {
      even &= p.taps[k] == p.taps[n - 1 - k];
      odd &= p.taps[k] == -p.taps[n - 1 - k];
    }
    require(even || odd, context, "taps", fmt::format("{} numbers of neither symmetry", n),
            "taps that are symmetric or antisymmetric about the middle, for only those delay all frequencies alike");
    return Eigen::Map<const Eigen::VectorXd>(p.taps.data(), static_cast<Index>(n));
  }
  const std::string inside = fmt::format("an edge between 0 and half the rate, {} Hz", rate_hz / 2);
  auto check = [&](const char* key, double hz) {
    require(hz > 0 && hz < rate_hz / 2, context, key, fmt::format("{} Hz", hz), inside);
  };
  if (p.pass != "low") check("low_hz", p.low_hz);
  if (p.pass != "high") check("high_hz", p.high_hz);
  if (p.pass == "band" || p.pass == "stop")
    require(p.low_hz < p.high_hz, context, "low_hz", fmt::format("{} Hz", p.low_hz),
            fmt::format("less than high_hz = {} Hz", p.high_hz));
  require(rate_hz / p.transition_hz < 1e5, context, "transition_hz", fmt::format("{} Hz", p.transition_hz),
          fmt::format("more than {} Hz (a kernel of less than half a million taps)", rate_hz / 1e5));
  const Index n = windowed_sinc_length(p.transition_hz, rate_hz, p.window);
  return windowed_sinc(p.pass, p.low_hz, p.high_hz, rate_hz, p.window, n);
}

void FirKernel::prepare(const Eigen::VectorXd& taps, Index rows) {
  taps_.assign(taps.data(), taps.data() + taps.size());
  rows_ = rows;
  stride_ = (rows + 3) / 4 * 4;
  // frames a multiple of 512 bytes apart would fall into a few sets of the cache
  if (stride_ % 64 == 0) stride_ += 8;
  const Index memory = taps.size() - 1;
  capacity_ = memory + std::max(memory, kChunk);
  buffer_.resize(static_cast<std::size_t>(capacity_ * stride_));
  reset();
}

void FirKernel::reset() noexcept {
  std::fill(buffer_.begin(), buffer_.end(), std::numeric_limits<double>::quiet_NaN());
  end_ = static_cast<Index>(taps_.size()) - 1;
  phase_ = 0;
}

namespace {
/// y[t] = sum_j taps[j] x[t - j]; the frame stands for the middle of its kernel.
class Fir final : public Typed<Fir> {
 public:
  using Params = FirParams;
  explicit Fir(Params p) : p_(std::move(p)) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "fir");
    const auto taps = fir_taps(p_, in.rate_hz, context);
    kernel_.prepare(taps, in.size());
    memory_ = taps.size() - 1;
    const Index delay = memory_ / 2;
    latency_s_ = static_cast<double>(delay) / in.rate_hz;
    StreamFormat out = in;
    out.start_s = in.start_s - latency_s_;
    return out;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    return kernel_.run(in, out);
  }
  void reset() noexcept override { kernel_.reset(); }
  void visit_state(StateVisitor& v) noexcept override { kernel_.visit_state(v); }
  Traits traits() const override {
    return {.causal = true, .real_time = true, .per_row = true, .latency_s = latency_s_, .memory_frames = memory_};
  }

 private:
  Params p_;
  FirKernel kernel_;
  Index memory_ = 0;
  double latency_s_ = 0;
};
}  // namespace

StageInfo info_fir() {
  auto i = stage_info<Fir>("fir", "preprocessing",
                           "Low-, high-, band-pass or band-stop by a linear-phase windowed-sinc kernel of n taps, "
                           "or by given taps. Causal; its delay of (n - 1) / 2 frames is taken off the clock. An "
                           "output is NaN while a NaN or the time before the recording is under the kernel. Gain 1 "
                           "at 0 Hz (low, stop), half the rate (high) or mid-band (band).");
  i.paper = "Oppenheim and Schafer, Discrete-Time Signal Processing, chapter 7";
  i.real_time = true;
  i.samples = [] {
    Sample designed;
    designed.params = Value::object({{"low_hz", 5.0}, {"high_hz", 20.0}, {"transition_hz", 10.0}});
    Sample given;
    given.format = time_format(70, 100.0);
    given.params = Value::object({{"taps", Value(std::vector<double>{-0.25, 0.0, 0.5, 0.0, -0.25})}});
    auto all = both_scalars(designed);
    for (auto& s : both_scalars(given)) all.push_back(s);
    return all;
  };
  return i;
}

}  // namespace percept
