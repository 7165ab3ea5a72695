#include <fmt/format.h>

#include "core/error.h"
#include "filters/learned_map.h"
#include "numerics/kernel_regression.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kNadarayaWatsonVersion = 1;

struct NadarayaWatsonParams {
  double bandwidth = 0.0;
  std::string covariance = "constant";
  double covariance_bandwidth = 0.0;
  std::string missing = "frame";
  static constexpr auto fields() {
    return std::tuple{
        field("bandwidth", &NadarayaWatsonParams::bandwidth, "input",
              "Standard deviation of the Gaussian weight, in the unit of the inputs; 0: the one with the smallest "
              "leave-one-out error.",
              0.0, 1e12),
        choice("covariance", &NadarayaWatsonParams::covariance,
               "Of the error: constant (its mean on held-out frames: every frame whose number ends in 7, 8 or 9), "
               "kernel (the same regression on the held-out errors), or none.",
               "constant|kernel|none"),
        field("covariance_bandwidth", &NadarayaWatsonParams::covariance_bandwidth, "input",
              "As bandwidth, for covariance = \"kernel\".", 0.0, 1e12),
        choice(
            "missing", &NadarayaWatsonParams::missing,
            "A frame with missing rows becomes missing (frame), or the distance is taken over the rows that are there "
            "(row).",
            kMissingRows)};
  }
};

/// A bandwidth that a kernel can have.
double bandwidth_of(const Model& model, const char* name) {
  const double h = model.number(name);
  if (!(h > 0) || !std::isfinite(h))
    throw DataError("model of nadaraya_watson", name, "a number above 0", fmt::format("{}", h));
  return h;
}

/// One regression held ready: the points' weights and their targets.
class NadarayaWatsonPoints {
 public:
  NadarayaWatsonPoints(const Model& model, const char* x, const char* y, const char* bandwidth, Index inputs = -1,
                       Index outputs = -1)
      : weights_(model.matrix(x, inputs), bandwidth_of(model, bandwidth)),
        targets_(model.matrix(y, outputs, weights_.points()).transpose()) {}
  KernelWeights& weights() noexcept { return weights_; }
  const MatrixXd& targets() const { return targets_; }
  Index inputs() const { return weights_.inputs(); }

 private:
  KernelWeights weights_;
  MatrixXd targets_;  ///< points x outputs
};

class NadarayaWatsonStage final : public LearnedMap<NadarayaWatsonStage> {
 public:
  using Params = NadarayaWatsonParams;
  NadarayaWatsonStage(const Params& p, const Model& model)
      : LearnedMap("nadaraya_watson", kNadarayaWatsonVersion, model, p.missing), map_(model, "x", "y", "bandwidth") {
    const Index d = map_.targets().cols();
    const bool constant = model.has("Q"), kernel = model.has("error");
    resize(map_.inputs(), d, constant || kernel);
    if (constant) covariance_ = model.matrix("Q", d, d);
    if (kernel) errors_.emplace_back(model, "error_x", "error", "error_bandwidth", map_.inputs(), d);
  }

  void look(Index n) noexcept {
    map_.weights().look(frames_.data(), n);
    if (!errors_.empty()) errors_[0].weights().look(frames_.data(), n);
  }

  void predict(Index f) noexcept {
    const auto w = map_.weights().weights(f);
    const Index d = mean_.size();
    for (Index k = 0; k < d; ++k) mean_(k) = wide::dot(w.data(), map_.targets().col(k).data(), w.size());
    if (errors_.empty()) return;
    const auto v = errors_[0].weights().weights(f);
    const MatrixXd& r = errors_[0].targets();
    for (Index i = 0; i < d; ++i)
      for (Index j = 0; j <= i; ++j)
        covariance_(i, j) = covariance_(j, i) = (v.array() * r.col(i).array() * r.col(j).array()).sum();
  }

  void predict_partly() noexcept {
    map_.weights().look_partly(frame_.data());
    if (!errors_.empty()) errors_[0].weights().look_partly(frame_.data());
    predict(0);
    partial_mean_ = mean_;
    partial_covariance_ = covariance_;
  }

 private:
  NadarayaWatsonPoints map_;
  std::vector<NadarayaWatsonPoints> errors_;  ///< of the held-out frames; empty without a kernel covariance
};

class NadarayaWatsonFitter final : public Fitter {
 public:
  explicit NadarayaWatsonFitter(NadarayaWatsonParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    const bool holdout = p_.covariance != "none";
    const MapFrames f = map_frames(data, holdout ? 20 : 3, context);
    const MatrixXd &x = f.all.x, &y = f.all.y;
    const MatrixXd fit_x = holdout ? MatrixXd(x(Eigen::all, f.fitted)) : x,
                   fit_y = holdout ? MatrixXd(y(Eigen::all, f.fitted)) : y;
    Bandwidth map{p_.bandwidth, 0, 0};
    if (map.bandwidth == 0) map = leave_one_out_bandwidth(fit_x, fit_y, context.node);

    Model m;
    m.meta = model_meta("nadaraya_watson", kNadarayaWatsonVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["frames"] = x.cols();
    m.meta["dropped_frames"] = f.dropped;
    m.meta["bandwidth"] = map.bandwidth;
    m.meta["bandwidth_evaluations"] = map.evaluations;
    if (map.evaluations > 0) m.meta["leave_one_out_error"] = map.error;
    m.set("x", x);
    m.set("y", y);
    m.set("bandwidth", map.bandwidth);
    if (!holdout) return m;

    context.check_cancel();
    const MatrixXd held_x = x(Eigen::all, f.held);
    const MatrixXd error = y(Eigen::all, f.held) - kernel_regression(fit_x, fit_y, map.bandwidth, held_x);
    const MatrixXd q = residual_covariance(error, context);
    m.meta["held_frames"] = error.cols();
    if (p_.covariance == "constant") {
      m.set("Q", q);
      return m;
    }
    const Index d = y.rows();
    Bandwidth spread{p_.covariance_bandwidth, 0, 0};
    if (spread.bandwidth == 0) {
      MatrixXd squares(d * d, error.cols());
      for (Index t = 0; t < error.cols(); ++t)
        for (Index i = 0; i < d; ++i) squares.col(t).segment(i * d, d) = error(i, t) * error.col(t);
      spread = leave_one_out_bandwidth(held_x, squares, context.node);
    }
    m.meta["covariance_bandwidth"] = spread.bandwidth;
    m.set("error_x", held_x);
    m.set("error", error);
    m.set("error_bandwidth", spread.bandwidth);
    return m;
  }

 private:
  NadarayaWatsonParams p_;
};

}  // namespace

StageInfo info_nadaraya_watson() {
  auto i = trained_info<NadarayaWatsonStage, NadarayaWatsonFitter>(
      "nadaraya_watson", "filters",
      "Nadaraya-Watson regression: the mean of all training targets, weighted by a Gaussian of the distance, and a "
      "covariance of its error. A step costs training frames x inputs.");
  i.version = kNadarayaWatsonVersion;
  i.paper =
      "Nadaraya, Theory of Probability and its Applications 9 (1964) 141; Watson, Sankhya A 26 (1964) 359; Burkhart, "
      "Brandman, Franco, Hochberg, Harrison, Neural Computation 32 (2020) 969";
  i.needs_target = true;
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    const auto sample = fitted_sample<NadarayaWatsonFitter, NadarayaWatsonParams>;
    add_samples(all, sample(Value::table(), time_format(5, 100.0)));
    add_samples(all, sample(Value::object({{"covariance", "kernel"}, {"missing", "row"}}), time_format(4, 100.0)));
    add_samples(all, sample(Value::object({{"covariance", "none"}, {"bandwidth", 1.5}}), item_format({5})));
    return all;
  };
  return i;
}

}  // namespace percept
