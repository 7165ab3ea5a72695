#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "filters/adaptive_kalman.h"
#include "filters/posterior.h"
#include "filters/state_model.h"
#include "numerics/apply.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kAdaptiveVersion = 1;

struct AdaptiveParams {
  double half_life_s = 60;
  std::string target_part;
  static constexpr auto fields() {
    return std::tuple{field("half_life_s", &AdaptiveParams::half_life_s, "s",
                            "Frames this long ago weigh half in the observation model.", 1e-3, 1e9),
                      field("target_part", &AdaptiveParams::target_part, "",
                            "Part of the input that holds the outputs' true values to adapt from, NaN where there is "
                            "none; empty: from what was decoded.")};
  }
};

/// The input without the part that is a target.
StreamFormat channels_of(const StreamFormat& in, const std::string& target_part) {
  StreamFormat out = in;
  std::erase_if(out.parts, [&](const Part& p) { return !target_part.empty() && p.name == target_part; });
  return out;
}

class AdaptiveStage final : public Typed<AdaptiveStage> {
 public:
  using Params = AdaptiveParams;
  AdaptiveStage(const Params& p, const Model& model)
      : params_(p), model_((require_model(model, "adaptive_kalman", kAdaptiveVersion), model)),
        filter_({model.matrix("A"), model.matrix("Gamma"), model.matrix("V0"), model.matrix("ff"), model.matrix("xf"),
                 model.vector("xx")},
                std::exp2(-1 / (p.half_life_s * model.meta.get("rate_hz", 1.0))), "adaptive_kalman"),
        z_mean_(model.vector("z_mean", filter_.states())), frame_(filter_.channels()), target_(filter_.states()) {}

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "adaptive_kalman");
    require_rate(model_, in, context);
    const Index d = filter_.states();
    target_at_ = -1;
    if (!params_.target_part.empty()) {
      const Part* part = in.find_part(params_.target_part);
      require(part && part->size() == d, context, "target_part", "\"" + params_.target_part + "\"",
              fmt::format("a part of the input with {} values, found {}", d, in.describe()));
      target_at_ = in.part_offset(params_.target_part);
    }
    order_ = row_order(names_of(model_.meta, "input_rows"), named_rows(channels_of(in, params_.target_part)), context);
    if (target_at_ >= 0)
      for (auto& row : order_)
        if (row >= target_at_) row += d;
    counters_ = StepCounters(context);
    filter_.reset();
    StreamFormat out = in;
    out.parts = posterior_parts(model_, d, true);
    return out;
  }

  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      for (Index i = 0; i < frame_.size(); ++i) frame_(i) = static_cast<double>(x[order_[static_cast<std::size_t>(i)]]);
      if (target_at_ >= 0)
        for (Index i = 0; i < target_.size(); ++i) target_(i) = static_cast<double>(x[target_at_ + i]) - z_mean_(i);
      counters_.add(filter_.step(frame_.data(), target_at_ >= 0 ? target_.data() : nullptr));
      write_posterior(filter_.mean(), z_mean_, filter_.covariance(), out.frame(t));
    }
    return in.frames;
  }

  void reset() noexcept override { filter_.reset(); }
  void visit_state(StateVisitor& visitor) noexcept override { filter_.visit_state(visitor); }
  Traits traits() const override { return {.causal = true, .real_time = true, .memory_frames = Traits::kDecaying}; }

 private:
  Params params_;
  Model model_;
  AdaptiveKalman filter_;
  VectorXd z_mean_, frame_, target_;
  Index target_at_ = -1;
  std::vector<Index> order_;
  StepCounters counters_;
};

class AdaptiveFitter final : public Fitter {
 public:
  explicit AdaptiveFitter(AdaptiveParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    const StreamFormat x_format = channels_of(data.x_format(), p_.target_part);
    const Index d = data.y_format().size(), all = data.x_format().size(), n = x_format.size();
    if (!p_.target_part.empty())
      require(all - n == d, context, "target_part", "\"" + p_.target_part + "\"",
              fmt::format("a part of the input with {} values, found {}", d, data.x_format().describe()));
    require(n > 0, context, "target_part", "\"" + p_.target_part + "\"", "channels beside it");
    const StateSums s = state_sums(data, true, Observations::diagonal, context);
    const StateModel z = state_model(s, context);
    if (s.frames < d + 2)
      throw DataError(context.node, "training frames", fmt::format("at least {}", d + 2), std::to_string(s.frames));
    std::vector<Index> rows;
    const Index at = p_.target_part.empty() ? all : data.x_format().part_offset(p_.target_part);
    for (Index i = 0; i < all; ++i)
      if (i < at || i >= at + d) rows.push_back(i);

    // averages over the frames: of the centred outputs, and of the channels as they are
    const double count = static_cast<double>(s.frames);
    MatrixXd ff = MatrixXd::Zero(d + 1, d + 1), xf(n, d + 1);
    ff.topLeftCorner(d, d) = s.zz / count;
    ff(d, d) = 1;
    const VectorXd mean = s.x_mean(rows);
    xf.leftCols(d) = s.xz(rows, Eigen::all) / count;
    xf.col(d) = mean;
    const VectorXd xx = VectorXd(s.xx(rows, 0)) / count + mean.cwiseAbs2();
    Model m;
    m.meta = model_meta("adaptive_kalman", kAdaptiveVersion, write_params(p_), x_format, data.y_format());
    m.meta["frames"] = s.frames;
    m.meta["pairs"] = s.pairs;
    m.meta["dropped_frames"] = s.dropped;
    m.set("A", z.a);
    m.set("Gamma", z.gamma);
    m.set("V0", z.s);
    m.set("ff", ff);
    m.set("xf", xf);
    m.set("xx", xx);
    m.set("z_mean", s.z_mean);
    // refuses what the stage would refuse
    [[maybe_unused]] const AdaptiveKalman filter({z.a, z.gamma, z.s, ff, xf, xx}, 1, context.node);
    return m;
  }

 private:
  AdaptiveParams p_;
};

}  // namespace

StageInfo info_adaptive_kalman() {
  auto i = trained_info<AdaptiveStage, AdaptiveFitter>(
      "adaptive_kalman", "filters",
      "Kalman filter whose observation model follows a drifting population: recursive least squares with forgetting.");
  i.version = kAdaptiveVersion;
  i.paper = "Dangi, Gowda, Heliot, Carmena, Neural Computation 26 (2014) 1811";
  i.needs_target = true;
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    StreamFormat format = time_format(5, 100.0);
    add_samples(all, fitted_sample<AdaptiveFitter, AdaptiveParams>(Value::object({{"half_life_s", 1.0}}), format));
    format.parts.push_back({"truth", {2}, "1", {}, {}});
    add_samples(all, fitted_sample<AdaptiveFitter, AdaptiveParams>(
                         Value::object({{"half_life_s", 1.0}, {"target_part", "truth"}}), format));
    return all;
  };
  return i;
}

}  // namespace percept
