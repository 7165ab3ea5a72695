#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "filters/dkf.h"
#include "filters/posterior.h"
#include "filters/state_model.h"
#include "numerics/apply.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kDkfVersion = 1;

struct DkfParams {
  bool center = true;
  std::string fallback = "robust";
  bool robust = false;
  static constexpr auto fields() {
    return std::tuple{
        field("center", &DkfParams::center, "",
              "Take the outputs' training mean off the input and give it back; false for outputs without offset."),
        choice("fallback", &DkfParams::fallback,
               "Where the input is less certain than knowing nothing: robust (drop the prior's share), inflate (the "
               "published "
               "script) or clip (cut its covariance at the prior's).",
               "robust|inflate|clip"),
        field("robust", &DkfParams::robust, "", "Drop the prior's share in every frame: the robust filter.")};
  }
};

DkfFallback fallback_of(const DkfParams& p) {
  if (p.robust) return DkfFallback::always_robust;
  if (p.fallback == "inflate") return DkfFallback::inflate;
  return p.fallback == "clip" ? DkfFallback::clip : DkfFallback::robust;
}

class DkfStage final : public Typed<DkfStage> {
 public:
  using Params = DkfParams;
  DkfStage(const Params& p, const Model& model)
      : model_((require_model(model, "dkf", kDkfVersion), model)),
        filter_({model.matrix("A"), model.matrix("Gamma"), model.matrix("S")}, fallback_of(p), "dkf"),
        z_mean_(model.vector("z_mean", filter_.states())), f_(filter_.states()),
        q_(filter_.states(), filter_.states()) {}

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "dkf");
    require_rate(model_, in, context);
    edge_ = PosteriorEdge(in, model_, filter_.states(), "ridge", context);
    counters_ = StepCounters(context);
    filter_.reset();
    StreamFormat out = in;
    out.parts = posterior_parts(model_, filter_.states(), true);
    return out;
  }

  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames; ++t) {
      edge_.read(in.frame(t), f_.data(), q_.data());
      f_ -= z_mean_;
      counters_.add(filter_.step(f_.data(), q_.data()));
      write_posterior(filter_.mean(), z_mean_, filter_.covariance(), out.frame(t));
    }
    return in.frames;
  }

  void reset() noexcept override { filter_.reset(); }
  void visit_state(StateVisitor& visitor) noexcept override { filter_.visit_state(visitor); }
  Traits traits() const override { return {.causal = true, .real_time = true, .memory_frames = Traits::kDecaying}; }

 private:
  Model model_;
  Dkf filter_;
  VectorXd z_mean_, f_;
  MatrixXd q_;
  PosteriorEdge edge_;
  StepCounters counters_;
};

class DkfFitter final : public Fitter {
 public:
  explicit DkfFitter(DkfParams p) : p_(std::move(p)) {}

  /// Learns from the target alone; the input is read only when the filter runs.
  Model fit(const Data& data, Context& context) override {
    const StateSums s = state_sums(data, p_.center, Observations::none, context);
    const StateModel z = state_model(s, context);
    Model m;
    m.meta = model_meta("dkf", kDkfVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["frames"] = s.frames;
    m.meta["pairs"] = s.pairs;
    m.meta["dropped_frames"] = s.dropped;
    m.set("A", z.a);
    m.set("Gamma", z.gamma);
    m.set("S", z.s);
    m.set("z_mean", p_.center ? s.z_mean : VectorXd(VectorXd::Zero(s.z_mean.size())));
    return m;
  }

 private:
  DkfParams p_;
};

/// An estimate of the two outputs and its covariance, as a learned map gives them; every seventh frame is less certain
/// than the prior, so that the fallback runs too.
Sample estimate_sample(const Value& params) {
  StreamFormat format = time_format(2, 100.0, Scalar::f64, "mean");
  format.parts[0].rows.resize(2);
  format.parts[0].rows[0].name = "x";
  format.parts[0].rows[1].name = "y";
  format.parts.push_back({"covariance", {2, 2}, "1", {}, {}});
  Sample sample = fitted_sample<DkfFitter, DkfParams>(params, format);
  sample.fill = [random = KeyedRandom(2, "sample")](std::int64_t frame, std::span<double> values) {
    const double a = 0.3 + 0.1 * random.uniform(frame, 2) + (frame % 7 == 6 ? 5.0 : 0.0), b = 0.2;
    values[0] = random.normal(frame, 0);
    values[1] = random.normal(frame, 1);
    values[2] = a;
    values[3] = values[4] = 0.1;
    values[5] = b;
  };
  return sample;
}

}  // namespace

StageInfo info_dkf() {
  auto i = trained_info<DkfStage, DkfFitter>("dkf", "filters",
                                             "Discriminative Kalman filter: smooths an estimate (parts mean and "
                                             "covariance) with a linear model of the outputs.");
  i.version = kDkfVersion;
  i.paper = "Burkhart, Brandman, Franco, Hochberg, Harrison, Neural Computation 32 (2020) 969";
  i.needs_target = true;
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    for (const char* fallback : {"robust", "inflate", "clip"})
      add_samples(all, estimate_sample(Value::object({{"fallback", fallback}})));
    add_samples(all, estimate_sample(Value::object({{"robust", true}})));
    return all;
  };
  return i;
}

}  // namespace percept
