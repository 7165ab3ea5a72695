#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "filters/posterior.h"
#include "numerics/apply.h"
#include "numerics/linalg.h"
#include "numerics/ridge.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kVersion = 1;

struct RidgeParams {
  std::vector<double> alpha = {1.0, 10.0, 100.0, 1000.0, 10000.0};
  std::int64_t inner_folds = 5;
  bool per_target = false;
  bool intercept = true;
  std::string covariance = "training";
  std::string missing = "frame";
  static constexpr auto fields() {
    return std::tuple{
        field(
            "alpha", &RidgeParams::alpha, "1",
            "Penalty on the squared weights; 0 is ordinary least squares, of several the best on inner folds is taken.",
            0.0, 1e15),
        field("inner_folds", &RidgeParams::inner_folds, "1",
              "Folds for the choice of alpha: contiguous stretches, or whole groups; 0 leaves one frame out.", 0.0,
              1000.0),
        field("per_target", &RidgeParams::per_target, "", "Choose alpha for each output by itself."),
        field("intercept", &RidgeParams::intercept, "", "Fit an offset for each output (not penalised)."),
        choice("covariance", &RidgeParams::covariance,
               "Constant covariance of the residuals: of the training frames, of held-out ones (every frame whose "
               "number ends "
               "in 7, 8 or 9, which the weights then never see), or none.",
               "training|holdout|none"),
        choice("missing", &RidgeParams::missing,
               "A frame with missing rows becomes missing (frame), or the rows are left out, as if at their training "
               "mean (row).",
               "frame|row")};
  }
};

class RidgeStage final : public Typed<RidgeStage> {
 public:
  using Params = RidgeParams;
  RidgeStage(const Params& p, const Model& model)
      : model_((require_model(model, "ridge", kVersion), model)), leave_rows_out_(p.missing == "row"),
        weights_(model.matrix("weights")), offset_(model.vector("offset", weights_.rows())),
        x_mean_(model.vector("x_mean", weights_.cols())), mean_(weights_.rows()), frame_(weights_.cols()) {
    if (model.has("Q")) covariance_ = model.matrix("Q", weights_.rows(), weights_.rows());
    model_.tensors().clear();  // only what the model says of its rows is kept: every worker has an instance
  }

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    order_ = row_order(names_of(model_.meta, "input_rows"), named_rows(in), context);
    if (in.axis == Axis::time) {
      require_time(in, context, "ridge");
      require_rate(model_, in, context);
    }
    missing_ = &context.counter("missing");
    left_out_ = &context.counter("rows_left_out");
    StreamFormat out = in;
    out.parts = posterior_parts(model_, weights_.rows(), covariance_.size() > 0);
    return out;
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out) noexcept {
    const Index n = weights_.cols(), d = weights_.rows(), square = covariance_.size();
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      Index gone = 0;
      for (Index i = 0; i < n; ++i) {
        const double v = static_cast<double>(x[order_[static_cast<std::size_t>(i)]]);
        const bool seen = std::isfinite(v);
        gone += !seen;
        frame_(i) = seen ? v - x_mean_(i) : 0.0;
      }
      T* y = out.frame(t);
      if (gone == n || (gone > 0 && !leave_rows_out_)) {
        missing_->add();
        std::fill_n(y, d + square, std::numeric_limits<T>::quiet_NaN());
        continue;
      }
      if (gone > 0) left_out_->add(gone);
      column_product(weights_, frame_.data(), mean_.data());
      write_posterior(mean_, offset_, covariance_, y);
    }
    if (output.keys) std::copy(block.keys.begin(), block.keys.end(), output.keys);
    return in.frames;
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  Model model_;  ///< without arrays
  bool leave_rows_out_;
  MatrixXd weights_, covariance_;  ///< outputs x channels; Q, empty with covariance = none
  VectorXd offset_, x_mean_;       ///< y = offset + weights (x - x_mean)
  VectorXd mean_, frame_;
  std::vector<Index> order_;
  Counter *missing_ = nullptr, *left_out_ = nullptr;
};

class RidgeFitter final : public Fitter {
 public:
  explicit RidgeFitter(RidgeParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    TrainingMatrix t = data.gather();
    const Index dropped = drop_missing(t), frames = t.x.cols(), d = t.y.rows();
    if (dropped > 0) context.warn(fmt::format("{} training frames with missing values left out", dropped));
    const auto names = data.y_format().row_names();
    // the border of an image is black in every picture: it stays so
    const bool image = data.y_format().parts.size() == 1 && data.y_format().parts[0].shape.size() > 1;
    if (image && frames > 0 && (t.y.colwise() - t.y.col(0)).cwiseAbs().maxCoeff() == 0)
      throw DataError(context.node, "target", "images that differ", "the same image in every training frame");
    for (Index k = 0; k < d && frames > 0 && !image; ++k)
      if (t.y.row(k).minCoeff() == t.y.row(k).maxCoeff())
        throw DataError(context.node, fmt::format("target '{}'", names[static_cast<std::size_t>(k)]),
                        "values that vary over the training frames", fmt::format("the constant {}", t.y(k, 0)));

    const bool holdout = p_.covariance == "holdout";
    std::vector<Index> fitted, held;
    for (Index i = 0; i < frames; ++i) {
      const std::int64_t number = t.keys.empty() ? i : t.keys[static_cast<std::size_t>(i)];
      (holdout && (number % 10 + 10) % 10 >= 7 ? held : fitted).push_back(i);
    }
    std::vector<std::int32_t> folds;
    if (p_.alpha.size() > 1 && p_.inner_folds > 0) {
      std::vector<std::int32_t> groups;
      for (const Index i : fitted) groups.push_back(t.groups.empty() ? 0 : t.groups[static_cast<std::size_t>(i)]);
      folds = inner_folds(groups, static_cast<Index>(fitted.size()), p_.inner_folds);
    }
    const RidgeOptions options{p_.alpha, p_.intercept, p_.per_target, folds, image};
    const Model* basis = context.prior("pca");
    MatrixXd components;
    VectorXd centre;
    if (basis) {
      components = basis->matrix("components", -1, d);
      centre = basis->vector("mean", d);
    }
    const MatrixXd scores = basis ? product(components, t.y.colwise() - centre) : t.y;
    RidgeFit fit = holdout ? fit_ridge(t.x(Eigen::all, fitted), scores(Eigen::all, fitted), options, context.node)
                           : fit_ridge(t.x, scores, options, context.node);
    if (basis) {  // back from the components to what they are components of
      fit.weights = product(components.transpose(), fit.weights);
      fit.intercept = components.transpose() * fit.intercept + centre;
    }

    Model m;
    m.meta = model_meta("ridge", kVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["frames"] = frames;
    m.meta["dropped_frames"] = dropped;
    m.meta["alpha"] = Value(std::vector<double>(fit.alpha.begin(), fit.alpha.end()));
    const VectorXd x_mean = t.x.rowwise().mean();
    m.set("weights", fit.weights);
    m.set("x_mean", x_mean);
    m.set("offset", VectorXd(fit.intercept + fit.weights * x_mean));
    if (p_.covariance != "none") {
      const MatrixXd residual = holdout ? MatrixXd(t.y(Eigen::all, held) - fit.predict(t.x(Eigen::all, held)))
                                        : MatrixXd(t.y - fit.predict(t.x));
      if (residual.cols() <= d)
        throw DataError(context.node, "frames for the covariance", fmt::format("at least {}", d + 1),
                        std::to_string(residual.cols()));
      const MatrixXd q = gram(residual) / static_cast<double>(residual.cols());
      if (!is_spd(q))
        throw DataError(context.node, "covariance of the residuals",
                        "a positive definite matrix (set alpha > 0, or covariance = \"none\")",
                        "one that is singular: outputs are explained exactly, or depend on each other");
      m.set("Q", q);
    }
    return m;
  }

 private:
  RidgeParams p_;
};

}  // namespace

StageInfo info_ridge() {
  auto i = trained_info<RidgeStage, RidgeFitter>(
      "ridge", "decoders",
      "Linear regression with a ridge penalty: gives the mean and a constant covariance of its error. With a pca prior "
      "the target's components are decoded, and what they are components of is given. One alpha for all pixels of an "
      "image is chosen by their squared error, of other targets in units of "
      "their variance.");
  i.version = kVersion;
  i.paper = "Hoerl, Kennard, Technometrics 12 (1970) 55";
  i.needs_target = true;
  i.priors = {"pca"};
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    for (const auto& params :
         {Value::table(), Value::object({{"alpha", 0.0}, {"missing", "row"}, {"covariance", "none"}})})
      add_samples(all, fitted_sample<RidgeFitter, RidgeParams>(params, time_format(5, 100.0)));
    add_samples(all,
                fitted_sample<RidgeFitter, RidgeParams>(Value::object({{"covariance", "holdout"}}), item_format({5})));
    return all;
  };
  return i;
}

}  // namespace percept
