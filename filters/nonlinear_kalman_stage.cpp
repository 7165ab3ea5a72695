#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "filters/nonlinear_kalman.h"
#include "filters/posterior.h"
#include "filters/state_model.h"
#include "numerics/apply.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kNonlinearVersion = 1;

/// What the three filters learn alike.
struct ObservationParams {
  std::int64_t units = 10;
  double regularisation = 0.1;
};
template <class P>
constexpr auto observation_fields() {
  return std::tuple{
      field(
          "units", static_cast<std::int64_t P::*>(&P::units), "",
          "Hidden tanh units through which channels depend on the outputs; their directions are keyed random numbers. "
          "0: linear.",
          0, 4096),
      field("regularisation", static_cast<double P::*>(&P::regularisation), "1",
            "Ridge penalty on the units' weights, as a share of the training frames.", 1e-12, 1e3)};
}

struct EkfParams : ObservationParams {
  static constexpr NonlinearFilter kKind = NonlinearFilter::extended;
  static constexpr const char* kName = "ekf";
  static constexpr auto fields() { return observation_fields<EkfParams>(); }
  NonlinearOptions options() const { return {}; }
};
struct UkfParams : ObservationParams {
  static constexpr NonlinearFilter kKind = NonlinearFilter::unscented;
  static constexpr const char* kName = "ukf";
  double alpha = 1e-3, beta = 2, kappa = 0;
  static constexpr auto fields() {
    return std::tuple_cat(
        observation_fields<UkfParams>(),
        std::tuple{field("alpha", &UkfParams::alpha, "1", "Distance of the points from the mean.", 1e-4, 10.0),
                   field("beta", &UkfParams::beta, "1", "Weight of the centre in the covariance; 2 for Gaussians.", 0.0,
                         100.0),
                   field("kappa", &UkfParams::kappa, "1",
                         "Second distance of the points, added to the outputs' number.", 0.0, 100.0)});
  }
  NonlinearOptions options() const {
    return {.kind = kKind, .alpha = alpha, .beta = beta, .kappa = kappa, .members = 100, .seed = 0, .node = "stage"};
  }
};
struct EnkfParams : ObservationParams {
  static constexpr NonlinearFilter kKind = NonlinearFilter::ensemble;
  static constexpr const char* kName = "enkf";
  std::int64_t members = 100;
  static constexpr auto fields() {
    return std::tuple_cat(observation_fields<EnkfParams>(), std::tuple{field("members", &EnkfParams::members, "",
                                                                             "Members of the ensemble.", 2, 100000)});
  }
  NonlinearOptions options() const {
    return {.kind = kKind, .alpha = 1, .beta = 2, .kappa = 0, .members = members, .seed = 0, .node = "stage"};
  }
};

template <class P>
class NonlinearStage final : public Typed<NonlinearStage<P>> {
 public:
  using Params = P;
  NonlinearStage(const P& p, const Model& model)
      : params_(p), model_((require_model(model, P::kName, kNonlinearVersion), model)), filter_(make(p.options())),
        x_mean_(model.vector("x_mean", filter_.channels())), z_mean_(model.vector("z_mean", filter_.states())),
        frame_(filter_.channels()) {}

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, P::kName);
    require_rate(model_, in, context);
    order_ = row_order(names_of(model_.meta, "input_rows"), named_rows(in), context);
    counters_ = StepCounters(context);
    NonlinearOptions options = params_.options();
    options.seed = context.seed;
    options.node = context.node;
    filter_ = make(options);
    StreamFormat out = in;
    out.parts = posterior_parts(model_, filter_.states(), true);
    return out;
  }

  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      for (Index i = 0; i < frame_.size(); ++i)
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
  NonlinearKalman make(const NonlinearOptions& options) const {
    return NonlinearKalman(model_.matrix("A"), model_.matrix("Gamma"), model_.matrix("V0"), model_.matrix("R"),
                           {model_.vector("offset"), model_.matrix("linear"), model_.matrix("in"),
                            model_.vector("bias"), model_.matrix("out")},
                           options, P::kName);
  }
  P params_;
  Model model_;
  NonlinearKalman filter_;
  VectorXd x_mean_, z_mean_, frame_;
  std::vector<Index> order_;
  StepCounters counters_;
};

template <class P>
class NonlinearFitter final : public Fitter {
 public:
  explicit NonlinearFitter(P p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    const Index n = data.x_format().size(), d = data.y_format().size(), units = p_.units, features = d + units;
    const StateSums s = state_sums(data, true, Observations::full, context);
    if (s.frames < features + n + 1)
      throw DataError(
          context.node, "training frames",
          fmt::format("at least {} for {} channels, {} outputs and {} units", features + n + 1, n, d, units),
          std::to_string(s.frames));
    const StateModel z = state_model(s, context);

    // hidden units look along random directions of the whitened outputs, from random places
    Observation h;
    MatrixXd whiten = z.s;
    cholesky_in_place(whiten);
    whiten = whiten.triangularView<Eigen::Lower>().solve(MatrixXd::Identity(d, d)).eval();
    const KeyedRandom random(context.seed, "hidden units");
    h.in.resize(units, d);
    h.bias.resize(units);
    for (Index k = 0; k < units; ++k) {
      for (Index j = 0; j < d; ++j) h.in(k, j) = random.normal(k, static_cast<std::uint64_t>(j));
      h.bias(k) = random.normal(k, static_cast<std::uint64_t>(d));
    }
    h.in = (h.in * whiten).eval();

    const auto features_of = [&](const MatrixXd& centred) {
      MatrixXd f(features, centred.cols());
      f.topRows(d) = centred;
      if (units > 0) f.bottomRows(units) = ((h.in * centred).colwise() + h.bias).array().tanh().matrix();
      return f;
    };
    const auto each = [&](auto&& take) {
      data.pass([&](const TrainingBlock& b) {
        context.check_cancel();
        const MatrixXd x = to_matrix(b.x), y = to_matrix(b.y);
        std::vector<Index> kept;
        for (Index t = 0; t < x.cols(); ++t)
          if (x.col(t).allFinite() && y.col(t).allFinite()) kept.push_back(t);
        take(MatrixXd(x(Eigen::all, kept).colwise() - s.x_mean), features_of(y(Eigen::all, kept).colwise() - s.z_mean));
      });
    };
    const double count = static_cast<double>(s.frames);
    VectorXd f_mean = VectorXd::Zero(features);
    each([&](const MatrixXd&, const MatrixXd& f) { f_mean += f.rowwise().sum() / count; });
    MatrixXd ff = MatrixXd::Zero(features, features), xf = MatrixXd::Zero(n, features);
    each([&](const MatrixXd& x, MatrixXd f) {
      f.colwise() -= f_mean;
      ff += gram(f);
      xf += cross(x, f);
    });
    MatrixXd penalised = ff;
    for (Index k = d; k < features; ++k) penalised(k, k) += p_.regularisation * count;
    const MatrixXd w = solve_normal(xf, penalised, s.frames, context.node);
    h.linear = w.leftCols(d);
    h.out = w.rightCols(units);
    h.offset = -(w * f_mean);
    const MatrixXd wx = product(w, xf.transpose());
    MatrixXd r = (s.xx - wx - wx.transpose() + product(product(w, ff), w.transpose())) / count;
    r = (0.5 * (r + r.transpose())).eval();
    if (!is_spd(r))
      throw DataError(context.node, "noise covariance R",
                      "a positive definite matrix (leave dead and duplicate channels out)",
                      "one that is singular to working precision");

    Model m;
    m.meta = model_meta(P::kName, kNonlinearVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["frames"] = s.frames;
    m.meta["pairs"] = s.pairs;
    m.meta["dropped_frames"] = s.dropped;
    m.set("A", z.a);
    m.set("Gamma", z.gamma);
    m.set("V0", z.s);
    m.set("R", r);
    m.set("offset", h.offset);
    m.set("linear", h.linear);
    m.set("in", h.in);
    m.set("bias", h.bias);
    m.set("out", h.out);
    m.set("x_mean", s.x_mean);
    m.set("z_mean", s.z_mean);
    return m;
  }

 private:
  P p_;
};

template <class P>
StageInfo nonlinear_info(const char* doc, const char* paper, const std::vector<Value>& samples) {
  auto i = trained_info<NonlinearStage<P>, NonlinearFitter<P>>(P::kName, "filters", doc);
  i.version = kNonlinearVersion;
  i.paper = paper;
  i.needs_target = true;
  i.real_time = true;
  i.samples = [samples] {
    std::vector<Sample> all;
    for (const auto& params : samples)
      add_samples(all, fitted_sample<NonlinearFitter<P>, P>(params, time_format(5, 100.0)));
    return all;
  };
  return i;
}

}  // namespace

StageInfo info_ekf() {
  return nonlinear_info<EkfParams>(
      "Extended Kalman filter: channels depend on the outputs through tanh units, linearised at the prediction.",
      "Burkhart, Brandman, Franco, Hochberg, Harrison, Neural Computation 32 (2020) 969",
      {Value::object({{"units", 4}}), Value::object({{"units", 0}})});
}
StageInfo info_ukf() {
  return nonlinear_info<UkfParams>(
      "Unscented Kalman filter: channels depend on the outputs through tanh units, followed at sigma points.",
      "Julier, Uhlmann, Proceedings of the IEEE 92 (2004) 401",
      {Value::object({{"units", 4}}), Value::object({{"units", 4}, {"alpha", 1.0}, {"kappa", 1.0}})});
}
StageInfo info_enkf() {
  return nonlinear_info<EnkfParams>(
      "Ensemble Kalman filter: channels depend on the outputs through tanh units, followed by an ensemble of states.",
      "Evensen, Journal of Geophysical Research 99 (1994) 10143; Burgers, van Leeuwen, Evensen, Monthly Weather Review "
      "126 (1998) 1719",
      {Value::object({{"units", 4}, {"members", 20}})});
}

}  // namespace percept
