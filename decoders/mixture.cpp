#include <fmt/format.h>

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "filters/posterior.h"
#include "numerics/apply.h"
#include "numerics/linalg.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kMixtureVersion = 1;

struct MixtureParams {
  bool per_output = false;
  std::string covariance = "residual";
  static constexpr auto fields() {
    return std::tuple{field("per_output", &MixtureParams::per_output, "",
                            "Weights for each output by itself, instead of one set for all."),
                      choice("covariance", &MixtureParams::covariance,
                             "Constant covariance of the mixture's error on the training frames (residual), or none.",
                             "residual|none")};
  }
};

/// "mean", or what a join makes of it when several edges have one: "gp.mean", "gp.mean#2".
bool is_mean(const std::string& part) {
  const std::string name = part.substr(0, part.rfind('#'));
  return name == "mean" || name.ends_with(".mean");
}

/// Non-negative weights of sum one with the least w' C w, C symmetric and not negative definite: what non-negative least
/// squares gives for min v' C v / 2 - sum(v), scaled to sum one. Active sets as in Lawson, Hanson, Solving Least Squares
/// Problems (1974), chapter 23.
VectorXd simplex_weights(MatrixXd c) {
  const Index n = c.rows();
  const double scale = c.trace() / static_cast<double>(n);
  if (!(scale > 0)) return VectorXd::Constant(n, 1 / static_cast<double>(n));  // all without error
  c /= scale;
  c.diagonal().array() += 1e-10;  // maps may be equal
  VectorXd v = VectorXd::Zero(n);
  std::vector<Index> used;
  for (Index round = 0; round < 3 * n; ++round) {
    const VectorXd slope = VectorXd::Ones(n) - c * v;
    Index steepest = -1;
    for (Index i = 0; i < n; ++i)
      if (std::find(used.begin(), used.end(), i) == used.end() && slope(i) > 1e-9 &&
          (steepest < 0 || slope(i) > slope(steepest)))
        steepest = i;
    if (steepest < 0) break;
    used.push_back(steepest);
    while (true) {
      const VectorXd best = MatrixXd(c(used, used)).llt().solve(VectorXd::Ones(static_cast<Index>(used.size())));
      // as far towards the best as no weight turns negative; what gets to zero is out
      double step = 1;
      for (std::size_t k = 0; k < used.size(); ++k)
        if (best(static_cast<Index>(k)) <= 0)
          step = std::min(step, v(used[k]) / (v(used[k]) - best(static_cast<Index>(k))));
      std::vector<Index> kept;
      for (std::size_t k = 0; k < used.size(); ++k) {
        double& value = v(used[k]);
        const bool out = best(static_cast<Index>(k)) <= 0 && value / (value - best(static_cast<Index>(k))) <= step;
        value = out ? 0 : value + step * (best(static_cast<Index>(k)) - value);
        if (!out) kept.push_back(used[k]);
      }
      used = std::move(kept);
      if (step == 1) break;
    }
  }
  return v / v.sum();
}

class MixtureStage final : public Typed<MixtureStage> {
 public:
  using Params = MixtureParams;
  MixtureStage(const Params&, const Model& model)
      : model_((require_model(model, "mixture", kMixtureVersion), model)), maps_(names_of(model.meta, "maps")),
        weights_(model.matrix("weights", -1, static_cast<Index>(maps_.size()))), mean_(weights_.rows()),
        seen_(static_cast<Index>(maps_.size())), none_(VectorXd::Zero(weights_.rows())) {
    if (maps_.empty()) throw DataError("model of mixture", "maps", "at least one", "none");
    if (!(weights_.array() >= 0).all() || !((weights_.rowwise().sum().array() - 1).abs() < 1e-9).all())
      throw DataError("model of mixture", "weights", "rows of non-negative numbers that sum to one", "others");
    if (model.has("Q")) covariance_ = model.matrix("Q", weights_.rows(), weights_.rows());
  }

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    if (in.axis == Axis::time) {
      require_time(in, context, "mixture");
      require_rate(model_, in, context);
    }
    Index found = 0;
    for (const Part& part : in.parts) found += is_mean(part.name);
    at_.clear();
    for (const std::string& map : maps_) {
      const Part* part = in.find_part(map);
      require(
          part && part->size() == weights_.rows() && found == static_cast<Index>(maps_.size()), context, "from",
          in.describe(),
          fmt::format("the maps it was fitted on, of {} outputs each: {}", weights_.rows(), fmt::join(maps_, ", ")));
      at_.push_back(in.part_offset(map));
    }
    missing_ = &context.counter("missing");
    left_out_ = &context.counter("maps_left_out");
    StreamFormat out = in;
    out.parts = posterior_parts(model_, weights_.rows(), covariance_.size() > 0);
    return out;
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out) noexcept {
    const Index d = weights_.rows(), maps = weights_.cols();
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      T* y = out.frame(t);
      Index gone = 0;
      for (Index m = 0; m < maps; ++m) {
        const T* f = x + at_[static_cast<std::size_t>(m)];
        seen_(m) = std::all_of(f, f + d, [](T v) { return std::isfinite(v); });
        gone += !seen_(m);
      }
      bool whole = true;
      for (Index k = 0; k < d; ++k) {
        double sum = 0, total = 0;
        for (Index m = 0; m < maps; ++m)
          if (seen_(m)) {
            sum += weights_(k, m) * static_cast<double>(x[at_[static_cast<std::size_t>(m)] + k]);
            total += weights_(k, m);
          }
        whole = whole && total > 0;
        mean_(k) = gone > 0 ? sum / total : sum;
      }
      if (whole) {
        if (gone > 0) left_out_->add(gone);
        write_posterior(mean_, none_, covariance_, y);
      } else {
        missing_->add();
        std::fill_n(y, d + covariance_.size(), std::numeric_limits<T>::quiet_NaN());
      }
    }
    if (output.keys) std::copy(block.keys.begin(), block.keys.end(), output.keys);
    return in.frames;
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  Model model_;
  std::vector<std::string> maps_;  ///< part of each map's mean
  MatrixXd weights_, covariance_;  ///< outputs x maps; Q, empty with covariance = none
  VectorXd mean_;
  Eigen::Array<bool, Eigen::Dynamic, 1> seen_;
  VectorXd none_;
  std::vector<Index> at_;  ///< first row of each map's mean
  Counter *missing_ = nullptr, *left_out_ = nullptr;
};

class MixtureFitter final : public Fitter {
 public:
  explicit MixtureFitter(MixtureParams p) : p_(p) {}

  Model fit(const Data& data, Context& context) override {
    TrainingMatrix t = data.gather();
    const Index dropped = drop_missing(t), frames = t.x.cols(), d = t.y.rows();
    if (dropped > 0) context.warn(fmt::format("{} training frames with missing values left out", dropped));
    std::vector<std::string> maps;
    std::vector<Index> at;
    for (const Part& part : data.x_format().parts) {
      if (!is_mean(part.name)) continue;
      require(part.size() == d, context, "from", fmt::format("'{}' of {} values", part.name, part.size()),
              fmt::format("a mean of the target's {} outputs", d));
      maps.push_back(part.name);
      at.push_back(data.x_format().part_offset(part.name));
    }
    require(!maps.empty(), context, "from", data.x_format().describe(),
            "edges with a part \"mean\", such as ridge or dense_network give");
    if (frames <= d)
      throw DataError(context.node, "training frames", fmt::format("at least {}", d + 1), std::to_string(frames));

    // as the weights sum to one, the error of the mixture is the mixture of the errors
    const auto n = static_cast<Index>(maps.size());
    const auto error = [&](Index m) -> MatrixXd { return t.y - t.x.middleRows(at[static_cast<std::size_t>(m)], d); };
    std::vector<MatrixXd> products(static_cast<std::size_t>(d), MatrixXd::Zero(n, n));
    std::vector<MatrixXd> errors;
    for (Index m = 0; m < n; ++m) errors.push_back(error(m));
    for (Index a = 0; a < n; ++a)
      for (Index b = 0; b < n; ++b)
        for (Index k = 0; k < d; ++k)
          products[static_cast<std::size_t>(k)](a, b) =
              errors[static_cast<std::size_t>(a)].row(k).dot(errors[static_cast<std::size_t>(b)].row(k)) /
              static_cast<double>(frames);
    MatrixXd weights(d, n);
    if (p_.per_output) {
      for (Index k = 0; k < d; ++k) weights.row(k) = simplex_weights(products[static_cast<std::size_t>(k)]).transpose();
    } else {
      // each output counts by its own spread, whatever its unit
      MatrixXd all = MatrixXd::Zero(n, n);
      for (Index k = 0; k < d; ++k) {
        const double variance = (t.y.row(k).array() - t.y.row(k).mean()).square().mean();
        if (!(variance > 0))
          throw DataError(context.node,
                          fmt::format("target '{}'", data.y_format().row_names()[static_cast<std::size_t>(k)]),
                          "values that vary over the training frames", fmt::format("the constant {}", t.y(k, 0)));
        all += products[static_cast<std::size_t>(k)] / variance;
      }
      weights.rowwise() = simplex_weights(all).transpose();
    }

    Model m;
    m.meta = model_meta("mixture", kMixtureVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["maps"] = maps;
    m.meta["frames"] = frames;
    m.meta["dropped_frames"] = dropped;
    m.set("weights", weights);
    if (p_.covariance == "residual") {
      MatrixXd residual = MatrixXd::Zero(d, frames);
      for (Index k = 0; k < n; ++k) residual += weights.col(k).asDiagonal() * errors[static_cast<std::size_t>(k)];
      const MatrixXd q = gram(residual) / static_cast<double>(frames);
      if (!is_spd(q))
        throw DataError(context.node, "covariance of the residuals",
                        "a positive definite matrix (or covariance = \"none\")",
                        "one that is singular: outputs are explained exactly, or depend on each other");
      m.set("Q", q);
    }
    return m;
  }

 private:
  MixtureParams p_;
};

/// Two maps of two outputs on one edge, the second without a covariance.
StreamFormat mixture_input(StreamFormat format) {
  format.parts = {Part{"mean", {2}, "1", {}, {}}, Part{"covariance", {2, 2}, "1", {}, {}},
                  Part{"second.mean", {2}, "1", {}, {}}};
  return format;
}

}  // namespace

StageInfo info_mixture() {
  auto i = trained_info<MixtureStage, MixtureFitter>(
      "mixture", "decoders",
      "Several maps of the same target in one: from = [\"a\", \"b\"] gives the mean of their means under non-negative "
      "weights that sum to one, and a constant covariance of its error. Where a map is missing the others stand in for "
      "it. With one input it gives that map a covariance that fits its errors.");
  i.version = kMixtureVersion;
  i.paper = "Breiman, Machine Learning 24 (1996) 49";
  i.needs_target = true;
  i.cross_fit = true;
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    for (const auto& params : {Value::table(), Value::object({{"per_output", true}, {"covariance", "none"}})})
      add_samples(all, fitted_sample<MixtureFitter, MixtureParams>(params, mixture_input(time_format(8, 100.0))));
    add_samples(all, fitted_sample<MixtureFitter, MixtureParams>(Value::table(), mixture_input(item_format({8}))));
    return all;
  };
  return i;
}

}  // namespace percept
