#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <torch/optim/adamw.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "decoders/network_training.h"

namespace percept {
namespace {

at::Tensor frames_of(std::span<const float> values, std::int64_t rows) {
  // LibTorch only reads them
  return at::from_blob(const_cast<float*>(values.data()), {static_cast<std::int64_t>(values.size()) / rows, rows},
                       at::kFloat);
}
std::vector<float> values_of(const at::Tensor& t) {
  const at::Tensor flat = t.contiguous();
  return {flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel()};
}

/// Every random number comes from one generator of its own: LibTorch's default one belongs to the whole process.
class Network {
 public:
  Network(const NetworkTask& task, at::Generator random) : task_(task), random_(std::move(random)) {
    std::vector<std::int64_t> sizes{task.inputs};
    sizes.insert(sizes.end(), task.hidden.begin(), task.hidden.end());
    sizes.push_back(task.outputs);
    for (std::size_t i = 0; i + 1 < sizes.size(); ++i) {
      const double bound = 1 / std::sqrt(static_cast<double>(sizes[i]));
      for (const auto& shape : {std::vector{sizes[i + 1], sizes[i]}, std::vector{sizes[i + 1]}})
        parameters_.push_back(at::empty(shape, at::kFloat).uniform_(-bound, bound, random_).set_requires_grad(true));
    }
  }

  at::Tensor forward(at::Tensor x, bool training) {
    if (training && task_.input_noise > 0) x = x + task_.input_noise * at::randn(x.sizes(), random_, at::kFloat);
    for (std::size_t i = 0; i < parameters_.size(); i += 2) {
      x = at::linear(x, parameters_[i], parameters_[i + 1]);
      if (i + 2 == parameters_.size()) break;
      x = task_.activation == "tanh" ? at::tanh(x) : task_.activation == "relu" ? at::relu(x) : at::gelu(x);
      if (training && task_.dropout > 0) {
        const double kept = 1 - task_.dropout;
        x = x * at::empty(x.sizes(), at::kFloat).bernoulli_(kept, random_).div_(kept);
      }
    }
    return x;
  }

  std::vector<at::Tensor>& parameters() { return parameters_; }
  std::vector<DenseLayer> layers() const {
    std::vector<DenseLayer> all;
    for (std::size_t i = 0; i < parameters_.size(); i += 2)
      all.push_back(
          {parameters_[i].size(1), parameters_[i].size(0), values_of(parameters_[i]), values_of(parameters_[i + 1])});
    return all;
  }

 private:
  const NetworkTask& task_;
  at::Generator random_;
  std::vector<at::Tensor> parameters_;  ///< weight, bias, weight, bias, ...
};

class TorchNetworkTraining final : public NetworkTraining {
 public:
  TrainedNetwork train(const NetworkTask& task) override {
    at::set_num_threads(std::max(1, task.threads));
    auto random = at::make_generator<at::CPUGeneratorImpl>(task.seed);
    const at::Tensor x = frames_of(task.x, task.inputs), y = frames_of(task.y, task.outputs);
    const bool held = !task.x_held.empty();
    const at::Tensor x_held = frames_of(task.x_held, task.inputs), y_held = frames_of(task.y_held, task.outputs);
    Network network(task, random);
    torch::optim::AdamW optimizer(network.parameters(),
                                  torch::optim::AdamWOptions(task.learning_rate).weight_decay(task.weight_decay));

    TrainedNetwork best;
    const std::int64_t n = x.size(0), steps = (n + task.batch - 1) / task.batch;
    for (std::int64_t epoch = 1; epoch <= task.epochs; ++epoch) {
      const at::Tensor order = at::randperm(n, random, at::kLong);
      double sum = 0;
      for (std::int64_t step = 0; step < steps; ++step) {
        const at::Tensor rows = order.slice(0, step * task.batch, std::min(n, (step + 1) * task.batch));
        optimizer.zero_grad();
        const at::Tensor loss = at::mse_loss(network.forward(x.index_select(0, rows), true), y.index_select(0, rows));
        const double value = loss.item<float>();
        if (!std::isfinite(value))
          throw Error(task.where + ": the loss is " + (std::isnan(value) ? "NaN" : "infinite") + " at epoch " +
                      std::to_string(epoch) + ", step " + std::to_string(step + 1) + " of " + std::to_string(steps) +
                      ": expected a finite one (are all values finite? is learning_rate too high?)");
        loss.backward();
        optimizer.step();
        sum += value * static_cast<double>(rows.size(0));
      }
      double loss = sum / static_cast<double>(n);
      at::Tensor output;
      if (held) {
        const torch::NoGradGuard no_grad;
        output = network.forward(x_held, false);
        loss = at::mse_loss(output, y_held).item<float>();
      }
      if (!std::isfinite(loss))
        throw Error(task.where + ": the held-out loss is not finite after epoch " + std::to_string(epoch) +
                    ": expected a finite one (are all values finite? is learning_rate too high?)");
      if (best.epochs == 0 || !held || loss < best.loss) {
        best.layers = network.layers();
        best.loss = loss;
        best.best_epoch = epoch;
        if (held) best.held_output = values_of(output);
      }
      best.epochs = epoch;
      if (task.on_epoch) task.on_epoch(epoch, loss);
      if (held && task.patience > 0 && epoch - best.best_epoch >= task.patience) break;
    }
    return best;
  }
};

}  // namespace

NetworkTraining& torch_network_training() {
  static TorchNetworkTraining one;
  return one;
}

}  // namespace percept
