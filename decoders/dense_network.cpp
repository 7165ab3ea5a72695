#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/error.h"
#include "decoders/network_fit.h"
#include "filters/posterior.h"
#include "numerics/apply.h"
#include "numerics/linalg.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kDenseNetworkVersion = 1;

struct DenseNetworkParams : NetworkParams {
  std::vector<std::int64_t> layers = {64, 64};
  std::string activation = "tanh";
  std::int64_t batch = 64;
  static constexpr auto fields() {
    return network_fields(
        field("layers", &DenseNetworkParams::layers, "units", "Units of each hidden layer; empty: a linear map.", 1,
              100000),
        choice("activation", &DenseNetworkParams::activation, "After each hidden layer.", "tanh|relu|gelu"),
        field("batch", &DenseNetworkParams::batch, "frames", "Frames in a training step.", 1, 1000000000));
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
      : model_(model, "dense_network", kDenseNetworkVersion),
        activation_(activation_of(model.meta.get("activation", ""))) {
    Index width = model_.x_mean.size();
    frame_.resize(width);
    for (int i = 0; i == 0 || model.has(fmt::format("weights.{}", i)); ++i) {
      Layer layer;
      layer.weights = model_.arrays(fmt::format("weights.{}", i), -1, width);
      width = layer.weights[0].rows();
      layer.bias = model_.arrays(fmt::format("bias.{}", i), width, 1);
      layer.values.resize(width);
      layers_.push_back(std::move(layer));
    }
    model_.set_outputs(width);
    mean_.resize(width);
  }

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    missing_ = &context.counter("missing");
    return model_.prepare(in, context);
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out) noexcept {
    const NetworkModel& m = model_;
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      T* y = out.frame(t);
      bool whole = true;
      for (Index i = 0; i < frame_.size(); ++i) {
        frame_(i) = (static_cast<double>(x[m.order[static_cast<std::size_t>(i)]]) - m.x_mean(i)) / m.x_sd(i);
        whole = whole && std::isfinite(frame_(i));
      }
      if (!whole) {
        missing_->add();
        std::fill_n(y, m.y_mean.size() + m.covariance.size(), std::numeric_limits<T>::quiet_NaN());
        continue;
      }
      forward();
      write_posterior(mean_, m.y_mean, m.covariance, y);
    }
    if (output.keys) std::copy(block.keys.begin(), block.keys.end(), output.keys);
    return in.frames;
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  struct Layer {
    std::vector<MatrixXd> weights, bias;  ///< of each network: outputs x inputs, outputs
    VectorXd values;                      ///< what it gives
  };

  /// mean_: the networks' mean answer to frame_, in units of the target but without its mean.
  void forward() noexcept {
    mean_.setZero();
    for (std::size_t network = 0; network < layers_[0].weights.size(); ++network) {
      const double* in = frame_.data();
      for (Layer& layer : layers_) {
        VectorXd& v = layer.values;
        column_product(layer.weights[network], in, v.data());
        for (Index k = 0; k < v.size(); ++k) {
          const double a = v(k) + layer.bias[network](k);
          if (&layer == &layers_.back()) mean_(k) += a;
          else if (activation_ == Activation::tanh) v(k) = std::tanh(a);
          else if (activation_ == Activation::relu) v(k) = std::max(a, 0.0);
          else v(k) = 0.5 * a * (1 + std::erf(a / std::numbers::sqrt2));
        }
        in = v.data();
      }
    }
    const auto n = static_cast<double>(model_.networks);
    for (Index k = 0; k < mean_.size(); ++k) mean_(k) *= model_.y_sd(k) / n;
  }

  NetworkModel model_;
  Activation activation_;
  std::vector<Layer> layers_;
  VectorXd frame_, mean_;
  Counter* missing_ = nullptr;
};

class DenseNetworkFitter final : public Fitter {
 public:
  explicit DenseNetworkFitter(DenseNetworkParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    NetworkTask task;
    task.hidden = p_.layers;
    task.activation = p_.activation;
    task.batch = p_.batch;
    Value meta = model_meta("dense_network", kDenseNetworkVersion, write_params(p_), data.x_format(), data.y_format());
    meta["activation"] = p_.activation;
    const auto make = [&](const Model& m) { return std::make_unique<DenseNetworkStage>(p_, m); };
    return fit_networks(p_, std::move(task), std::move(meta), make, data, context);
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
      "covariance of its error. A frame with a missing row is missing.");
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
