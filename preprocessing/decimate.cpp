#include <fmt/format.h>

#include "preprocessing/fir.h"
#include "preprocessing/rows.h"

namespace percept {
namespace {
/// Keeps every factor-th frame, after a low-pass at half the new rate: frames 0, factor, 2 factor, ... The kernel's
/// delay is a whole number of new frames, so the new frames stand on times of old ones.
class Decimate final : public Typed<Decimate> {
 public:
  struct Params {
    std::int64_t factor = 2, half_length = 10;
    bool anti_alias = true;
    static constexpr auto fields() {
      return std::tuple{field("factor", &Params::factor, "", "Every how many frames one is kept.", 2, 100000),
                        field("half_length", &Params::half_length, "",
                              "New frames on each side under the anti-alias kernel, a Hamming-windowed sinc with "
                              "its -6 dB point at half the new rate: 2 half_length factor + 1 taps.",
                              1, 1000),
                        field("anti_alias", &Params::anti_alias, "",
                              "false only for a signal that has nothing above half the new rate any more.")};
    }
  };
  explicit Decimate(Params p) : p_(p) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "decimate");
    Eigen::VectorXd taps = Eigen::VectorXd::Ones(1);
    const auto factor = static_cast<double>(p_.factor);
    require(!p_.anti_alias || p_.half_length * p_.factor <= 250000, context, "factor", fmt::format("{}", p_.factor),
            fmt::format("at most {} (half a million taps); a higher one in two steps", 250000 / p_.half_length));
    if (p_.anti_alias)
      taps =
          windowed_sinc("low", 0, in.rate_hz / 2 / factor, in.rate_hz, "hamming", 2 * p_.half_length * p_.factor + 1);
    kernel_.prepare(taps, in.size());
    memory_ = taps.size() - 1;
    const Index delay = memory_ / 2;
    latency_s_ = static_cast<double>(delay) / in.rate_hz;
    StreamFormat out = in;
    out.rate_hz = in.rate_hz / factor;
    out.start_s = in.start_s - latency_s_;
    out.max_frames = (in.max_frames + p_.factor - 1) / p_.factor;
    return out;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    return kernel_.run(in, out, static_cast<Index>(p_.factor));
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

StageInfo info_decimate() {
  auto i = stage_info<Decimate>(
      "decimate", "preprocessing",
      "Divides the rate by a whole number: anti-alias low-pass, then every factor-th frame. Causal; the delay of "
      "half_length new frames is taken off the clock. NaN as in fir.");
  i.real_time = true;
  i.samples = [] {
    Sample s;
    s.params = Value::object({{"factor", 3}});
    auto all = both_scalars(s);
    s.params = Value::object({{"factor", 4}, {"anti_alias", false}});
    for (auto& plain : both_scalars(s)) all.push_back(plain);
    return all;
  };
  return i;
}

}  // namespace percept
