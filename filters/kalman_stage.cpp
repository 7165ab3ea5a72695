#include <fmt/format.h>

#include "core/error.h"
#include "filters/kalman.h"
#include "filters/posterior.h"
#include "filters/state_model.h"
#include "numerics/apply.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kKalmanVersion = 1;

struct KalmanParams {
  bool center = true;
  std::string noise = "full";
  double regularisation = 0.0;
  std::string initial_covariance = "target";
  bool steady_state = false;
  static constexpr auto fields() {
    return std::tuple{
        field("center", &KalmanParams::center, "",
              "Take the training means off channels and outputs, and give the outputs' back; false for data without "
              "offset."),
        choice("noise", &KalmanParams::noise,
               "Noise of the channels: full (correlated) or diagonal (independent; for many channels or few frames).",
               "full|diagonal"),
        field("regularisation", &KalmanParams::regularisation, "1",
              "Added to the diagonal of the channels' noise covariance, as a share of its mean.", 0.0, 1e6),
        choice(
            "initial_covariance", &KalmanParams::initial_covariance,
            "Covariance before the first frame: target (of the training outputs) or stationary (of the state model).",
            "target|stationary"),
        field("steady_state", &KalmanParams::steady_state, "",
              "Hold the gain at its fixed point (Malik et al. 2010): quicker, the same after a short start.")};
  }
};

KalmanModel model_of(const Model& m) {
  return {m.matrix("A"), m.matrix("Gamma"), m.matrix("C"), m.matrix("R"), m.matrix("V0")};
}

class KalmanStage final : public Typed<KalmanStage> {
 public:
  using Params = KalmanParams;
  KalmanStage(const Params& p, const Model& model)
      : model_((require_model(model, "kalman", kKalmanVersion), model)),
        filter_(model_of(model), p.steady_state, "kalman"), x_mean_(model.vector("x_mean", filter_.channels())),
        z_mean_(model.vector("z_mean", filter_.states())), frame_(filter_.channels()) {}

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "kalman");
    require_rate(model_, in, context);
    order_ = row_order(names_of(model_.meta, "input_rows"), named_rows(in), context);
    counters_ = StepCounters(context);
    filter_.reset();
    StreamFormat out = in;
    out.parts = posterior_parts(model_, filter_.states(), true);
    return out;
  }

  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    const Index n = filter_.channels();
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      for (Index i = 0; i < n; ++i)
        frame_(i) = static_cast<double>(x[order_[static_cast<std::size_t>(i)]]) - x_mean_(i);
      counters_.add(filter_.step(frame_.data()));
      write_posterior(filter_.mean(), z_mean_, filter_.covariance(), out.frame(t));
    }
    return in.frames;
  }

  void reset() noexcept override { filter_.reset(); }
  void visit_state(StateVisitor& visitor) noexcept override { filter_.visit_state(visitor); }
  Traits traits() const override { return {.causal = true, .real_time = true, .memory_frames = Traits::kDecaying}; }

 private:
  Model model_;
  Kalman filter_;
  VectorXd x_mean_, z_mean_, frame_;
  std::vector<Index> order_;
  StepCounters counters_;
};

class KalmanFitter final : public Fitter {
 public:
  explicit KalmanFitter(KalmanParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    const bool full = p_.noise == "full";
    const Index channels = data.x_format().size(), d = data.y_format().size();
    const StateSums s = state_sums(data, p_.center, full ? Observations::full : Observations::diagonal, context);
    const Index needed = full && p_.regularisation == 0 ? channels + d + 1 : d + 1;
    if (s.frames < needed)
      throw DataError(context.node, "training frames",
                      fmt::format("at least {} for {} channels and {} outputs{}", needed, channels, d,
                                  needed > d + 1 ? ", or noise = \"diagonal\", or regularisation" : ""),
                      std::to_string(s.frames));
    const StateModel z = state_model(s, context);

    const double n = static_cast<double>(s.frames);
    const MatrixXd c = solve_normal(s.xz, s.zz, s.frames, context.node);
    MatrixXd r;
    if (full) {
      r = (s.xx - product(c, s.xz.transpose())) / n;
      r = (0.5 * (r + r.transpose())).eval();
    } else {
      r = (s.xx - c.cwiseProduct(s.xz).rowwise().sum()) / n;
    }
    const VectorXd power = full ? VectorXd(s.xx.diagonal()) : VectorXd(s.xx.col(0));
    VectorXd noise = full ? VectorXd(r.diagonal()) : VectorXd(r.col(0));
    const double added = p_.regularisation * noise.mean();
    noise.array() += added;
    const auto names = data.x_format().row_names();
    for (Index i = 0; i < channels; ++i)
      if (!(noise(i) > 1e-13 * power(i) / n))
        throw DataError(context.node, fmt::format("channel '{}'", names[static_cast<std::size_t>(i)]),
                        "noise over the training frames (leave a dead channel out, or set regularisation)",
                        power(i) > 0 ? "a channel the outputs explain exactly" : "a constant channel");
    if (full) r.diagonal() = noise;
    else r.col(0) = noise;
    if (full && !is_spd(r))
      throw DataError(
          context.node, "noise covariance R",
          "a positive definite matrix (set regularisation, noise = \"diagonal\", or leave duplicate channels out)",
          "one that is singular to working precision");

    Model m;
    m.meta = model_meta("kalman", kKalmanVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["frames"] = s.frames;
    m.meta["pairs"] = s.pairs;
    m.meta["dropped_frames"] = s.dropped;
    m.set("A", z.a);
    m.set("Gamma", z.gamma);
    m.set("S", z.s);
    m.set("C", c);
    m.set("R", r);
    m.set("V0", p_.initial_covariance == "target" ? z.s : stationary_covariance(z.a, z.gamma, context.node));
    m.set("x_mean", p_.center ? s.x_mean : VectorXd(VectorXd::Zero(channels)));
    m.set("z_mean", p_.center ? s.z_mean : VectorXd(VectorXd::Zero(d)));
    return m;
  }

 private:
  KalmanParams p_;
};

}  // namespace

StageInfo info_kalman() {
  auto i = trained_info<KalmanStage, KalmanFitter>(
      "kalman", "filters",
      "Kalman filter: outputs follow a linear state model, channels are linear in the outputs plus noise.");
  i.version = kKalmanVersion;
  i.paper = "Wu, Gao, Bienenstock, Donoghue, Black, Neural Computation 18 (2006) 80";
  i.needs_target = true;
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    for (const auto& params :
         {Value::table(), Value::object({{"noise", "diagonal"}}), Value::object({{"steady_state", true}})})
      add_samples(all, fitted_sample<KalmanFitter, KalmanParams>(params, time_format(5, 100.0)));
    return all;
  };
  return i;
}

}  // namespace percept
