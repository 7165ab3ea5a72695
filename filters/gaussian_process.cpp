#include "numerics/gaussian_process.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "filters/learned_map.h"
#include "numerics/kernel_regression.h"
#include "numerics/linalg.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kGaussianProcessVersion = 1;

struct GaussianProcessParams {
  std::vector<std::string> kernels = {"squared_exponential"};
  std::string lengths = "one";
  double prior_sd = 0.5;
  double extra_noise = 0.0;
  std::int64_t hyper_frames = 1800;
  std::int64_t iterations = 60;
  std::int64_t exact_frames = 5000;
  std::int64_t inducing = 1000;
  std::string covariance = "constant";
  std::int64_t variance_points = 500;
  std::string missing = "frame";
  double length_factor = 1.0;
  std::int64_t seed = 0;
  static constexpr auto fields() {
    return std::tuple{
        field("kernels", &GaussianProcessParams::kernels, "",
              "Summed: squared_exponential, rational_quadratic, matern32, linear, or multi_kernel (a mean over inputs, "
              "robust to a few bad ones)."),
        choice(
            "lengths", &GaussianProcessParams::lengths,
            "Inputs that share a length: all (one), none (rows), or by the indices of the input's axes (axes): after "
            "lag, log weights are a sum of an entry for the lag and one for the row.",
            "one|rows|axes"),
        field("prior_sd", &GaussianProcessParams::prior_sd, "1",
              "How far the log weights of inputs (weight = 1 / length^2) may lie apart: the standard deviation of a "
              "normal prior; 0: no prior.",
              0.0, 1e6),
        field(
            "extra_noise", &GaussianProcessParams::extra_noise, "1",
            "Added to the noise once hyperparameters are known, in variances of the target: the likelihood takes noise "
            "that lasts longer than a frame for signal.",
            0.0, 1e3),
        field("hyper_frames", &GaussianProcessParams::hyper_frames, "frames",
              "Hyperparameters are optimised on at most so many training frames, drawn by seed.", 10, 100000),
        field("iterations", &GaussianProcessParams::iterations, "1",
              "Most iterations of the optimiser; 0 takes the best start of its grid.", 0, 100000),
        field("exact_frames", &GaussianProcessParams::exact_frames, "frames",
              "Up to so many training frames are used exactly; more go through inducing points.", 10, 100000),
        field("inducing", &GaussianProcessParams::inducing, "points",
              "Inducing points for more frames than that, training frames that lie far from each other.", 2, 100000),
        choice("covariance", &GaussianProcessParams::covariance,
               "Of the error: constant (its mean on held-out frames: every frame whose number ends in 7, 8 or 9), "
               "posterior (the predicted variance of each output, noise included), or none.",
               "constant|posterior|none"),
        field("variance_points", &GaussianProcessParams::variance_points, "points",
              "For covariance = \"posterior\": with more points than this the variance goes through so many inducing "
              "points; a step costs their square.",
              2, 100000),
        field(
            "length_factor", &GaussianProcessParams::length_factor, "1",
            "Multiplies the lengths once they are known: with a short one and extra_noise, an input far from all that "
            "was seen adds nothing to a multi_kernel, and so costs less.",
            0.01, 100.0),
        choice("missing", &GaussianProcessParams::missing,
               "A frame with missing rows becomes missing (frame), or the map is averaged over what those rows were in "
               "the 50 training frames that are most alike in the other rows (row): 50 steps, and their spread counts "
               "in the covariance.",
               kMissingRows),
        field("seed", &GaussianProcessParams::seed, "",
              "Of the frames drawn and the points chosen, together with the run's seed.", 0, 1e15)};
  }
};

/// Training frames over whose values of the missing rows the map is averaged.
constexpr Index kNeighbours = 50;

constexpr std::pair<const char*, KernelShape> kKernelWords[] = {
    {"squared_exponential", KernelShape::squared_exponential},
    {"rational_quadratic", KernelShape::rational_quadratic},
    {"matern32", KernelShape::matern32},
    {"linear", KernelShape::linear},
    {"multi_kernel", KernelShape::multi_kernel},
};

Kernel make_kernel(const std::vector<std::string>& words, const std::string& lengths, std::vector<Index> shape,
                   const std::string& where) {
  std::vector<KernelShape> shapes;
  std::vector<std::string> known;
  for (const auto& [word, s] : kKernelWords) known.emplace_back(word);
  for (const std::string& w : words) {
    const auto* found =
        std::find_if(std::begin(kKernelWords), std::end(kKernelWords), [&](auto& k) { return w == k.first; });
    if (found == std::end(kKernelWords))
      throw ConfigError(where + ".kernels", w, fmt::format("{}{}", fmt::join(known, ", "), did_you_mean(w, known)));
    shapes.push_back(found->second);
  }
  if (shapes.empty()) throw ConfigError(where + ".kernels", "[]", "at least one kernel");
  const KernelLengths l = lengths == "axes"   ? KernelLengths::axes
                          : lengths == "rows" ? KernelLengths::rows
                                              : KernelLengths::one;
  return Kernel(std::move(shapes), l, std::move(shape));
}

Kernel kernel_of(const Model& model) {
  std::vector<Index> shape;
  if (const Value* v = model.meta.find("input_shape"); v && v->is_array())
    for (const Value& n : v->as_array()) shape.push_back(n.as_integer());
  if (shape.empty() || *std::min_element(shape.begin(), shape.end()) < 1)
    throw DataError("model of gaussian_process", "input_shape", "sizes above 0", "none");
  return make_kernel(names_of(model.meta, "kernels"), model.meta.get("lengths", ""), shape,
                     "model of gaussian_process");
}

/// Inputs as the outputs weight them on average: the geometric mean of sqrt(w).
VectorXd mean_root_weights(const Kernel& kernel, const MatrixXd& theta) {
  VectorXd logs = VectorXd::Zero(kernel.inputs());
  for (Index k = 0; k < theta.cols(); ++k) logs += kernel.weights(theta.col(k)).array().log().matrix();
  return (logs / (2 * static_cast<double>(theta.cols()))).array().exp();
}

class GaussianProcessStage final : public LearnedMap<GaussianProcessStage> {
 public:
  using Params = GaussianProcessParams;
  GaussianProcessStage(const Params& p, const Model& model)
      : LearnedMap("gaussian_process", kGaussianProcessVersion, model, p.missing), x_mean_(model.vector("x_mean")) {
    const Kernel kernel = kernel_of(model);
    const Index n = kernel.inputs(), d = model.vector("y_mean").size();
    model.vector("x_mean", n);
    const MatrixXd points = model.matrix("x", n), theta = model.matrix("theta", kernel.size(), d);
    weights_ = model.matrix("weights", points.cols(), d);
    const bool constant = model.has("Q"), posterior = model.has("reduction.0");
    resize(n, d, constant || posterior);
    offset_ = model.vector("y_mean");
    if (constant) covariance_ = model.matrix("Q", d, d);
    for (Index k = 0; k < d; ++k) rows_.emplace_back(kernel, theta.col(k), points);
    if (leave_rows_out_) find_neighbours(model, kernel, theta, points);
    if (!posterior) return;
    noise_ = model.vector("noise", d);
    const bool own = model.has("variance_x");
    const MatrixXd variance_points = own ? model.matrix("variance_x", n) : points;
    for (Index k = 0; k < d; ++k) {
      if (own) variance_rows_.emplace_back(kernel, theta.col(k), variance_points);
      reductions_.push_back(
          model.matrix(fmt::format("reduction.{}", k), variance_points.cols(), variance_points.cols()));
    }
    product_.resize(variance_points.cols());
  }

  void look(Index n) noexcept {
    for (Index f = 0; f < n; ++f) frames_.col(f) -= x_mean_;
    for (KernelRow& row : rows_) row.look(frames_.data(), n);
    for (KernelRow& row : variance_rows_) row.look(frames_.data(), n);
  }

  void predict(Index f) noexcept {
    for (Index k = 0; k < mean_.size(); ++k) {
      const auto i = static_cast<std::size_t>(k);
      const auto c = rows_[i].row(f);
      mean_(k) = wide::dot(c.data(), weights_.col(k).data(), c.size());
      if (reductions_.empty()) continue;
      const KernelRow& row = variance_rows_.empty() ? rows_[i] : variance_rows_[i];
      column_product(reductions_[i], row.row(f).data(), product_.data());
      covariance_(k, k) = std::max(0.0, row.variance(f) - product_.squaredNorm()) + noise_(k);
    }
  }

  /// E[f | rows that are there] and its variance around that, under what the training frames say of the others: f is
  /// bent, so that the map of their mean would be another one.
  void predict_partly() noexcept {
    scaled_ = metric_.cwiseProduct(frame_ - x_mean_);
    neighbours_[0].look_partly(scaled_.data());
    const auto likeness = neighbours_[0].weights();
    for (std::size_t i = 0; i < order_of_.size(); ++i) order_of_[i] = static_cast<Index>(i);
    const auto count = means_.cols();
    std::nth_element(order_of_.begin(), order_of_.begin() + (count - 1), order_of_.end(),
                     [&](Index a, Index b) { return likeness(a) != likeness(b) ? likeness(a) > likeness(b) : a < b; });
    std::sort(order_of_.begin(), order_of_.begin() + count);  // the sum below then has one order
    for (Index q = 0; q < count; ++q) shares_(q) = likeness(order_of_[static_cast<std::size_t>(q)]);
    shares_ /= shares_.sum();
    partial_mean_.setZero();
    partial_covariance_.setZero();
    for (Index first = 0; first < count; first += frames_.cols()) {
      const Index n = std::min(frames_.cols(), count - first);
      for (Index f = 0; f < n; ++f) {
        const Index point = order_of_[static_cast<std::size_t>(first + f)];
        for (Index i = 0; i < frame_.size(); ++i)
          frames_(i, f) = std::isnan(frame_(i)) ? neighbour_x_(i, point) + x_mean_(i) : frame_(i);
      }
      look(n);
      for (Index f = 0; f < n; ++f) {
        predict(f);
        means_.col(first + f) = mean_;
        partial_mean_ += shares_(first + f) * mean_;
        partial_covariance_ += shares_(first + f) * covariance_;
      }
    }
    if (covariance_.size() == 0) return;
    for (Index q = 0; q < count; ++q) {
      means_.col(q) -= partial_mean_;
      partial_covariance_.noalias() += shares_(q) * (means_.col(q) * means_.col(q).transpose());
    }
  }

 private:
  void find_neighbours(const Model& model, const Kernel& kernel, const MatrixXd& theta, const MatrixXd& points) {
    if (!model.has("neighbour_bandwidth"))
      throw ConfigError("gaussian_process.missing", "row", "a model that was fitted with missing = \"row\"");
    const double bandwidth = model.number("neighbour_bandwidth");
    if (!(bandwidth > 0) || !std::isfinite(bandwidth))
      throw DataError("model of gaussian_process", "neighbour_bandwidth", "a number above 0",
                      fmt::format("{}", bandwidth));
    neighbour_x_ = model.has("neighbour_x") ? model.matrix("neighbour_x", kernel.inputs()) : points;
    metric_ = mean_root_weights(kernel, theta);
    neighbours_.emplace_back(metric_.asDiagonal() * neighbour_x_, bandwidth);
    scaled_.resize(kernel.inputs());
    const Index count = std::min(kNeighbours, neighbour_x_.cols());
    means_.resize(theta.cols(), count);
    shares_.resize(count);
    order_of_.resize(static_cast<std::size_t>(neighbour_x_.cols()));
  }

  VectorXd x_mean_, noise_, product_;
  MatrixXd weights_;  ///< points x outputs
  std::vector<KernelRow> rows_, variance_rows_;
  std::vector<MatrixXd> reductions_;
  // only with missing = "row"
  std::vector<KernelWeights> neighbours_;  ///< one: of the training frames, inputs weighted by metric_
  MatrixXd neighbour_x_, means_;           ///< inputs x frames, centred; outputs x neighbours
  VectorXd metric_, scaled_, shares_;
  std::vector<Index> order_of_;
};

class GaussianProcessFitter final : public Fitter {
 public:
  explicit GaussianProcessFitter(GaussianProcessParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    const std::vector<Part>& parts = data.x_format().parts;
    if (p_.lengths == "axes" && parts.size() != 1)
      throw ConfigError(context.node + ".lengths", p_.lengths, "an input of one part; \"rows\" for several");
    const std::vector<Index> shape = parts.size() == 1 ? parts[0].shape : std::vector<Index>{data.x_format().size()};
    const Kernel kernel = make_kernel(p_.kernels, p_.lengths, shape, context.node);
    const bool holdout = p_.covariance == "constant";
    MapFrames f = map_frames(data, holdout ? 20 : 3, context);
    MatrixXd &x = f.all.x, &y = f.all.y;
    const Index frames = x.cols(), d = y.rows();
    const VectorXd x_mean = x.rowwise().mean(), y_mean = y.rowwise().mean();
    x.colwise() -= x_mean;
    y.colwise() -= y_mean;

    // hyperparameters, never from a frame held out for Q
    const std::uint64_t seed = context.seed + static_cast<std::uint64_t>(p_.seed);
    std::vector<Index> drawn = f.fitted;
    if (!holdout) drawn.insert(drawn.end(), f.held.begin(), f.held.end());
    if (static_cast<Index>(drawn.size()) > p_.hyper_frames) {
      const KeyedRandom random(seed, "gaussian_process frames");
      const auto order = [&](Index i) {
        return std::pair(random.uniform(f.all.keys.empty() ? i : f.all.keys[static_cast<std::size_t>(i)]), i);
      };
      std::sort(drawn.begin(), drawn.end(), [&](Index a, Index b) { return order(a) < order(b); });
      drawn.resize(static_cast<std::size_t>(p_.hyper_frames));
    }
    std::sort(drawn.begin(), drawn.end());
    const MatrixXd drawn_x = x(Eigen::all, drawn);
    std::vector<GaussianProcess> processes;
    Value outputs = Value::array();
    const auto names = data.y_format().row_names();
    for (Index k = 0; k < d; ++k) {
      if (context.progress)
        context.progress(static_cast<double>(k) / static_cast<double>(d + 1),
                         fmt::format("hyperparameters of {}", names[static_cast<std::size_t>(k)]));
      const VectorXd drawn_y = y.row(k).transpose()(drawn);
      const auto fit = fit_gaussian_process(kernel, drawn_x, drawn_y.array() - drawn_y.mean(),
                                            {.iterations = static_cast<int>(p_.iterations),
                                             .prior_sd = p_.prior_sd,
                                             .check_cancel = [&] { context.check_cancel(); }},
                                            context.node);
      processes.push_back(fit.gp);
      if (VectorXd& theta = processes.back().theta; p_.length_factor != 1)
        theta.head(kernel.weight_entries()) =
            kernel.start(kernel.weights(theta) / (p_.length_factor * p_.length_factor), 1)
                .head(kernel.weight_entries());
      processes.back().noise += p_.extra_noise * y.row(k).squaredNorm() / static_cast<double>(frames);
      outputs.push_back(describe(kernel, fit, names[static_cast<std::size_t>(k)]));
    }

    Model m;
    m.meta =
        model_meta("gaussian_process", kGaussianProcessVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["kernels"] = Value(p_.kernels);
    m.meta["lengths"] = p_.lengths;
    m.meta["input_shape"] = Value(shape);
    m.meta["frames"] = frames;
    m.meta["dropped_frames"] = f.dropped;
    m.meta["hyper_frames"] = drawn.size();
    m.meta["outputs"] = std::move(outputs);
    MatrixXd theta(kernel.size(), d);
    VectorXd noise(d);
    for (Index k = 0; k < d; ++k) {
      theta.col(k) = processes[static_cast<std::size_t>(k)].theta;
      noise(k) = processes[static_cast<std::size_t>(k)].noise;
    }
    m.set("x_mean", x_mean);
    m.set("y_mean", y_mean);
    m.set("theta", theta);
    m.set("noise", noise);
    if (p_.missing == "row") {
      context.check_cancel();
      const MatrixXd weighted = mean_root_weights(kernel, theta).asDiagonal() * drawn_x;
      // the outputs in their standard deviations, so that each says as much of what is alike
      MatrixXd drawn_y = y(Eigen::all, drawn);
      for (Index k = 0; k < d; ++k) drawn_y.row(k) /= drawn_y.row(k).norm();
      m.set("neighbour_bandwidth", leave_one_out_bandwidth(weighted, drawn_y, context.node).bandwidth);
      if (frames > p_.exact_frames) m.set("neighbour_x", drawn_x);
    }

    if (context.progress) context.progress(static_cast<double>(d) / static_cast<double>(d + 1), "posterior");
    const bool posterior = p_.covariance == "posterior";
    if (holdout) {
      const MatrixXd fitted_x = x(Eigen::all, f.fitted), held_x = x(Eigen::all, f.held);
      MatrixXd error = y(Eigen::all, f.held);
      const Trained t = train(kernel, processes, fitted_x, y(Eigen::all, f.fitted), false, seed, context);
      for (Index k = 0; k < d; ++k)
        error.row(k) -=
            kernel.sums(theta.col(k), t.points, t.posteriors[static_cast<std::size_t>(k)].weights, held_x).transpose();
      m.meta["held_frames"] = error.cols();
      m.set("Q", residual_covariance(error, context));
    }
    const bool own_variance = posterior && points_for(frames) > p_.variance_points;
    const Trained t = train(kernel, processes, x, y, posterior && !own_variance, seed, context);
    MatrixXd weights(t.points.cols(), d);
    Value bounds = Value::array();
    for (Index k = 0; k < d; ++k) {
      weights.col(k) = t.posteriors[static_cast<std::size_t>(k)].weights;
      bounds.push_back(t.posteriors[static_cast<std::size_t>(k)].log_likelihood);
    }
    m.set("x", t.points);
    m.set("weights", weights);
    m.meta["points"] = t.points.cols();
    m.meta["exact"] = t.exact;
    m.meta[t.exact ? "log_marginal" : "log_marginal_bound"] = std::move(bounds);
    if (!posterior) return m;
    const auto set_reductions = [&](const std::vector<GaussianPosterior>& all) {
      for (Index k = 0; k < d; ++k) m.set(fmt::format("reduction.{}", k), all[static_cast<std::size_t>(k)].reduction);
    };
    if (!own_variance) {
      set_reductions(t.posteriors);
    } else {
      const Trained v = train_sparse(kernel, processes, x, y, p_.variance_points, true, seed, context);
      m.set("variance_x", v.points);
      set_reductions(v.posteriors);
    }
    return m;
  }

 private:
  struct Trained {
    MatrixXd points;
    std::vector<GaussianPosterior> posteriors;  ///< of each output
    bool exact = true;
  };

  Index points_for(Index frames) const { return frames <= p_.exact_frames ? frames : static_cast<Index>(p_.inducing); }

  Trained train(const Kernel& kernel, const std::vector<GaussianProcess>& processes, const MatrixXd& x,
                const MatrixXd& y, bool reduction, std::uint64_t seed, Context& context) const {
    if (x.cols() > p_.exact_frames) return train_sparse(kernel, processes, x, y, p_.inducing, reduction, seed, context);
    Trained t{x, {}, true};
    for (std::size_t k = 0; k < processes.size(); ++k) {
      context.check_cancel();
      t.posteriors.push_back(
          exact_posterior(kernel, processes[k], x, y.row(static_cast<Index>(k)).transpose(), reduction, context.node));
    }
    return t;
  }

  Trained train_sparse(const Kernel& kernel, const std::vector<GaussianProcess>& processes, const MatrixXd& x,
                       const MatrixXd& y, Index count, bool reduction, std::uint64_t seed, Context& context) const {
    if (count > x.cols())
      throw ConfigError(context.node + ".inducing", std::to_string(count),
                        fmt::format("at most the {} training frames", x.cols()));
    // far from each other in the inputs as the outputs weight them on average
    MatrixXd theta(kernel.size(), static_cast<Index>(processes.size()));
    for (std::size_t k = 0; k < processes.size(); ++k) theta.col(static_cast<Index>(k)) = processes[k].theta;
    const MatrixXd weighted = mean_root_weights(kernel, theta).asDiagonal() * x;
    const auto chosen = spread_points(weighted, count, KeyedRandom(seed, "gaussian_process points"));
    Trained t{x(Eigen::all, chosen), {}, false};
    for (std::size_t k = 0; k < processes.size(); ++k) {
      context.check_cancel();
      t.posteriors.push_back(sparse_posterior(kernel, processes[k], t.points, x,
                                              y.row(static_cast<Index>(k)).transpose(), reduction, context.node));
    }
    return t;
  }

  /// For meta: lengths ("length.0.3": of the fourth index of the first axis) and the rest by name.
  static Value describe(const Kernel& kernel, const GaussianProcessFit& fit, const std::string& output) {
    Value v = Value::object({{"output", output},
                             {"log_marginal", fit.log_marginal},
                             {"noise_sd", std::sqrt(fit.gp.noise)},
                             {"iterations", fit.iterations},
                             {"likelihood_evaluations", fit.evaluations},
                             {"converged", fit.converged}});
    for (Index i = 0; i < kernel.size(); ++i) {
      const std::string& name = kernel.names()[static_cast<std::size_t>(i)];
      const double value = fit.gp.theta(i);
      if (i < kernel.weight_entries())
        v["length" + name.substr(std::string("log_weight").size())] = std::exp(-0.5 * value);
      else v[std::string(name).replace(name.find("log_"), 4, "")] = std::exp(value);
    }
    return v;
  }

  GaussianProcessParams p_;
};

}  // namespace

StageInfo info_gaussian_process() {
  auto i = trained_info<GaussianProcessStage, GaussianProcessFitter>(
      "gaussian_process", "filters",
      "Gaussian process regression, one process an output, hyperparameters by marginal likelihood: gives the mean and "
      "a "
      "covariance of its error. A step costs outputs x points x inputs.");
  i.version = kGaussianProcessVersion;
  i.paper =
      "Rasmussen, Williams, Gaussian Processes for Machine Learning, 2006; inducing points: Titsias, AISTATS 2009; "
      "multi_kernel: Brandman et al., Neural Computation 30 (2018) 2986";
  i.needs_target = true;
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    const auto add = [&](Value params, StreamFormat format) {
      params["iterations"] = 2;
      params["hyper_frames"] = 60;
      add_samples(all, fitted_sample<GaussianProcessFitter, GaussianProcessParams>(params, format));
    };
    StreamFormat grid = time_format(6, 100.0);
    grid.parts[0].shape = {3, 2};
    add(Value::table(), time_format(5, 100.0));
    add(Value::object({{"kernels", std::vector<std::string>{"rational_quadratic", "linear"}},
                       {"lengths", "axes"},
                       {"covariance", "posterior"},
                       {"variance_points", 20},
                       {"missing", "row"}}),
        grid);
    add(Value::object({{"kernels", std::vector<std::string>{"multi_kernel"}},
                       {"covariance", "posterior"},
                       {"exact_frames", 50},
                       {"inducing", 30},
                       {"missing", "row"}}),
        time_format(5, 100.0));
    add(Value::object({{"kernels", std::vector<std::string>{"matern32"}}, {"lengths", "rows"}, {"covariance", "none"}}),
        item_format({5}));
    return all;
  };
  return i;
}

}  // namespace percept
