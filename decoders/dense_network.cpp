#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/error.h"
#include "core/module.h"
#include "decoders/network_training.h"
#include "filters/posterior.h"
#include "numerics/apply.h"
#include "numerics/linalg.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kDenseNetworkVersion = 1;

struct DenseNetworkParams {
  std::vector<std::int64_t> layers = {64, 64};
  std::string activation = "tanh";
  double dropout = 0.0;
  double input_noise = 0.0;
  double learning_rate = 0.003;
  double weight_decay = 0.01;
  std::int64_t epochs = 100;
  std::int64_t batch = 64;
  double validation = 0.2;
  std::int64_t patience = 15;
  std::int64_t seed = 0;
  std::string covariance = "holdout";
  static constexpr auto fields() {
    return std::tuple{
        field("layers", &DenseNetworkParams::layers, "units", "Units of each hidden layer; empty: a linear map.", 1,
              100000),
        choice("activation", &DenseNetworkParams::activation, "After each hidden layer.", "tanh|relu|gelu"),
        field("dropout", &DenseNetworkParams::dropout, "1", "Share of hidden units left out in a training step.", 0.0,
              0.95),
        field("input_noise", &DenseNetworkParams::input_noise, "sd",
              "Noise added to the standardised inputs in a training step, in standard deviations.", 0.0, 100.0),
        field("learning_rate", &DenseNetworkParams::learning_rate, "1", "Step size of AdamW.", 1e-9, 1e6),
        field("weight_decay", &DenseNetworkParams::weight_decay, "1", "Weight decay of AdamW.", 0.0, 1e3),
        field("epochs", &DenseNetworkParams::epochs, "1", "Most passes over the training frames.", 1, 1000000),
        field("batch", &DenseNetworkParams::batch, "frames", "Frames in a training step.", 1, 1000000000),
        field(
            "validation", &DenseNetworkParams::validation, "1",
            "Share of the training frames, the last ones, that decides when to stop and gives the covariance; 0: none.",
            0.0, 0.9),
        field("patience", &DenseNetworkParams::patience, "epochs",
              "Stop after so many epochs without a better validation error, and keep the best; 0: do all.", 0, 1000000),
        field("seed", &DenseNetworkParams::seed, "",
              "Of weights, order, dropout and noise, together with the run's seed.", 0, 1e15),
        choice("covariance", &DenseNetworkParams::covariance,
               "Constant covariance of the error on the validation frames (holdout), as a dkf node needs it, or none.",
               "holdout|none")};
  }
};

enum class Activation { tanh, relu, gelu };

Activation activation_of(const std::string& name) {
  if (name == "tanh") return Activation::tanh;
  if (name == "relu") return Activation::relu;
  if (name == "gelu") return Activation::gelu;
  throw DataError("model of dense_network", "activation", "tanh, relu or gelu", name);
}

class DenseNetworkStage final : public Typed<DenseNetworkStage> {
 public:
  using Params = DenseNetworkParams;
  DenseNetworkStage(const Params&, const Model& model)
      : model_((require_model(model, "dense_network", kDenseNetworkVersion), model)),
        activation_(activation_of(model.meta.get("activation", ""))), x_mean_(model.vector("x_mean")),
        x_sd_(model.vector("x_sd", x_mean_.size())), rows_(names_of(model.meta, "input_rows")) {
    if (rows_.empty()) rows_.resize(static_cast<std::size_t>(x_mean_.size()));
    if (static_cast<Index>(rows_.size()) != x_mean_.size())
      throw DataError("model of dense_network", "input_rows", fmt::format("{} names", x_mean_.size()),
                      fmt::format("{}", rows_.size()));
    Index width = x_mean_.size();
    for (int i = 0; i == 0 || model.has(fmt::format("weights.{}", i)); ++i) {
      weights_.push_back(model.matrix(fmt::format("weights.{}", i), -1, width));
      width = weights_.back().rows();
      bias_.push_back(model.vector(fmt::format("bias.{}", i), width));
      values_.emplace_back(width);
    }
    y_mean_ = model.vector("y_mean", width);
    y_sd_ = model.vector("y_sd", width);
    if (!(x_sd_.array() > 0).all() || !(y_sd_.array() > 0).all())
      throw DataError("model of dense_network", "x_sd, y_sd", "values above zero", "zero or less");
    if (model.has("Q")) covariance_ = model.matrix("Q", width, width);
    frame_.resize(x_mean_.size());
  }

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    order_ = row_order(rows_, named_rows(in), context);
    if (in.axis == Axis::time) {
      require_time(in, context, "dense_network");
      require_rate(model_, in, context);
    }
    missing_ = &context.counter("missing");
    StreamFormat out = in;
    out.parts = posterior_parts(model_, y_mean_.size(), covariance_.size() > 0);
    return out;
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out) noexcept {
    const Index n = x_mean_.size();
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      T* y = out.frame(t);
      bool whole = true;
      for (Index i = 0; i < n; ++i) {
        frame_(i) = (static_cast<double>(x[order_[static_cast<std::size_t>(i)]]) - x_mean_(i)) / x_sd_(i);
        whole = whole && std::isfinite(frame_(i));
      }
      if (!whole) {
        missing_->add();
        std::fill_n(y, y_mean_.size() + covariance_.size(), std::numeric_limits<T>::quiet_NaN());
        continue;
      }
      write_posterior(forward(), y_mean_, covariance_, y);
    }
    if (output.keys) std::copy(block.keys.begin(), block.keys.end(), output.keys);
    return in.frames;
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  /// The network's answer to frame_, in units of the target but without its mean.
  const VectorXd& forward() noexcept {
    const double* in = frame_.data();
    const std::size_t last = weights_.size() - 1;
    for (std::size_t i = 0; i <= last; ++i) {
      VectorXd& v = values_[i];
      column_product(weights_[i], in, v.data());
      for (Index k = 0; k < v.size(); ++k) {
        const double a = v(k) + bias_[i](k);
        if (i == last) v(k) = a * y_sd_(k);
        else if (activation_ == Activation::tanh) v(k) = std::tanh(a);
        else if (activation_ == Activation::relu) v(k) = std::max(a, 0.0);
        else v(k) = 0.5 * a * (1 + std::erf(a / std::numbers::sqrt2));
      }
      in = v.data();
    }
    return values_[last];
  }

  Model model_;
  Activation activation_;
  VectorXd x_mean_, x_sd_, y_mean_, y_sd_, frame_;
  std::vector<std::string> rows_;        ///< names of the inputs, "" where not known
  std::vector<MatrixXd> weights_;        ///< of each layer, outputs x inputs
  std::vector<VectorXd> bias_, values_;  ///< values_: what each layer gives
  MatrixXd covariance_;                  ///< empty with covariance = none
  std::vector<Index> order_;
  Counter* missing_ = nullptr;
};

class DenseNetworkFitter final : public Fitter {
 public:
  explicit DenseNetworkFitter(DenseNetworkParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    if (p_.covariance == "holdout" && p_.validation == 0)
      throw ConfigError(context.node + ".validation", "0", "a share above 0 with covariance = \"holdout\"");
    auto& training = torch_interface<NetworkTraining>();
    TrainingMatrix t = data.gather();
    const Index dropped = drop_missing(t), frames = t.x.cols(), d = t.y.rows();
    if (dropped > 0) context.warn(fmt::format("{} training frames with missing values left out", dropped));
    const Index held =
        p_.validation > 0 ? std::max<Index>(d + 1, std::llround(p_.validation * static_cast<double>(frames))) : 0;
    const Index fitted = frames - held;
    if (fitted < 2)
      throw DataError(context.node, "training frames",
                      fmt::format("at least {}, {} of them for validation", held + 2, held), std::to_string(frames));

    // scales from the frames that are fitted, not from those held out
    const VectorXd x_mean = t.x.leftCols(fitted).rowwise().mean(), y_mean = t.y.leftCols(fitted).rowwise().mean();
    t.x.colwise() -= x_mean;
    t.y.colwise() -= y_mean;
    auto spread = [&](const MatrixXd& m) -> VectorXd {
      return (m.leftCols(fitted).rowwise().squaredNorm() / static_cast<double>(fitted)).cwiseSqrt();
    };
    VectorXd x_sd = spread(t.x);
    const VectorXd y_sd = spread(t.y);
    for (Index i = 0; i < x_sd.size(); ++i)
      if (!(x_sd(i) > 1e-12 * std::abs(x_mean(i)))) x_sd(i) = 1;  // a row without spread says nothing
    const auto names = data.y_format().row_names();
    for (Index k = 0; k < d; ++k)
      if (!(y_sd(k) > 1e-12 * std::abs(y_mean(k))))
        throw DataError(context.node, fmt::format("target '{}'", names[static_cast<std::size_t>(k)]),
                        "values that vary over the training frames", fmt::format("the constant {}", y_mean(k)));
    const Eigen::MatrixXf x = (x_sd.cwiseInverse().asDiagonal() * t.x).cast<float>();
    const Eigen::MatrixXf y = (y_sd.cwiseInverse().asDiagonal() * t.y).cast<float>();
    auto part = [](const Eigen::MatrixXf& m, Index first, Index n) {
      return std::span(m.data() + first * m.rows(), static_cast<std::size_t>(n * m.rows()));
    };

    NetworkTask task;
    task.inputs = x.rows();
    task.outputs = d;
    task.x = part(x, 0, fitted);
    task.y = part(y, 0, fitted);
    task.x_held = part(x, fitted, held);
    task.y_held = part(y, fitted, held);
    task.hidden = p_.layers;
    task.activation = p_.activation;
    task.dropout = p_.dropout;
    task.input_noise = p_.input_noise;
    task.learning_rate = p_.learning_rate;
    task.weight_decay = p_.weight_decay;
    task.epochs = p_.epochs;
    task.batch = p_.batch;
    task.patience = p_.patience;
    task.seed =
        static_cast<std::uint64_t>(KeyedRandom(context.seed, "dense_network").below(std::int64_t{1} << 62, p_.seed));
    task.threads = context.threads;
    task.where = context.node;
    task.on_epoch = [&](std::int64_t epoch, double loss) {
      context.check_cancel();
      if (context.progress)
        context.progress(static_cast<double>(epoch) / static_cast<double>(p_.epochs),
                         fmt::format("epoch {}: loss {:.4g}", epoch, loss));
    };
    const TrainedNetwork network = training.train(task);

    Model m;
    m.meta = model_meta("dense_network", kDenseNetworkVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["activation"] = p_.activation;
    m.meta["frames"] = fitted;
    m.meta["validation_frames"] = held;
    m.meta["dropped_frames"] = dropped;
    m.meta["epochs"] = network.epochs;
    m.meta["best_epoch"] = network.best_epoch;
    m.meta["loss"] = network.loss;
    using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    for (std::size_t i = 0; i < network.layers.size(); ++i) {
      const DenseLayer& layer = network.layers[i];
      m.set_f32(fmt::format("weights.{}", i),
                Eigen::Map<const RowMajor>(layer.weights.data(), layer.outputs, layer.inputs));
      m.set_f32(fmt::format("bias.{}", i), Eigen::Map<const Eigen::VectorXf>(layer.bias.data(), layer.outputs));
    }
    m.set("x_mean", x_mean);
    m.set("x_sd", x_sd);
    m.set("y_mean", y_mean);
    m.set("y_sd", y_sd);
    if (p_.covariance == "holdout") {
      const MatrixXd error =
          y_sd.asDiagonal() *
          (y.rightCols(held) - Eigen::Map<const Eigen::MatrixXf>(network.held_output.data(), d, held)).cast<double>();
      const MatrixXd q = gram(error) / static_cast<double>(held);
      if (!is_spd(q))
        throw DataError(context.node, "covariance of the validation error",
                        "a positive definite matrix (or covariance = \"none\")",
                        "one that is singular: outputs are explained exactly, or depend on each other");
      m.set("Q", q);
    }
    return m;
  }

 private:
  DenseNetworkParams p_;
};

/// A network of keyed random weights: samples need no training.
Sample dense_network_sample(StreamFormat format, const char* activation, const std::vector<Index>& hidden,
                            bool covariance) {
  const KeyedRandom random(1, "dense_network sample");
  const Index n = format.size();
  StreamFormat target = time_format(2, 100.0, Scalar::f64, "velocity");
  target.parts[0].unit = "m/s";
  Model m;
  m.meta = model_meta("dense_network", kDenseNetworkVersion, Value::table(), format, target);
  m.meta["activation"] = activation;
  std::vector<Index> sizes{n};
  sizes.insert(sizes.end(), hidden.begin(), hidden.end());
  sizes.push_back(2);
  for (std::size_t i = 0; i + 1 < sizes.size(); ++i) {
    const auto key = static_cast<std::int64_t>(i);
    Eigen::MatrixXf w(sizes[i + 1], sizes[i]), b(sizes[i + 1], 1);
    for (Index k = 0; k < w.size(); ++k)
      w.data()[k] = static_cast<float>(random.normal(key, static_cast<std::uint64_t>(k)) /
                                       std::sqrt(static_cast<double>(sizes[i])));
    for (Index k = 0; k < b.size(); ++k)
      b(k) = static_cast<float>(0.1 * random.normal(key + 100, static_cast<std::uint64_t>(k)));
    m.set_f32(fmt::format("weights.{}", i), w);
    m.set_f32(fmt::format("bias.{}", i), b);
  }
  m.set("x_mean", VectorXd(VectorXd::LinSpaced(n, -0.5, 0.5)));
  m.set("x_sd", VectorXd(VectorXd::LinSpaced(n, 0.5, 2)));
  m.set("y_mean", VectorXd(VectorXd::Constant(2, 0.25)));
  m.set("y_sd", VectorXd(VectorXd::LinSpaced(2, 1, 3)));
  if (covariance) m.set("Q", MatrixXd{{0.5, 0.1}, {0.1, 0.3}});
  Sample sample;
  sample.format = std::move(format);
  sample.model = std::make_shared<Model>(std::move(m));
  return sample;
}

}  // namespace

StageInfo info_dense_network() {
  auto i = trained_info<DenseNetworkStage, DenseNetworkFitter>(
      "dense_network", "decoders",
      "A dense network, trained by LibTorch and applied frame by frame without it: gives the mean and a constant "
      "covariance of "
      "its error. A frame with a missing row is missing.");
  i.version = kDenseNetworkVersion;
  i.paper =
      "Burkhart, Brandman, Franco, Hochberg, Harrison, Neural Computation 32 (2020) 969; AdamW: Loshchilov, Hutter, "
      "ICLR 2019";
  i.needs_target = true;
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    add_samples(all, dense_network_sample(time_format(5, 100.0), "tanh", {4}, true));
    add_samples(all, dense_network_sample(time_format(5, 100.0), "relu", {8, 3}, false));
    add_samples(all, dense_network_sample(item_format({5}), "gelu", {6}, true));
    add_samples(all, dense_network_sample(time_format(5, 100.0), "tanh", {}, true));
    return all;
  };
  return i;
}

}  // namespace percept
