#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "reconstruction/diffusion/layers_torch.h"
#include "reconstruction/diffusion/networks_torch.h"
#include "reconstruction/diffusion/steps_torch.h"

namespace percept::diffusion {
namespace {

class Vae {
 public:
  explicit Vae(const VaeShape& shape) : shape_(shape), plan_(shape), weights(plan_.weights) {}

  /// Mean and log variance of each latent: images x channels x height x width.
  std::pair<at::Tensor, at::Tensor> encode(const at::Tensor& image, double dropout, at::Generator* random) const {
    const std::int64_t height = image.size(2), width = image.size(3), patch = shape_.patch;
    const std::int64_t below = (patch - height % patch) % patch, right = (patch - width % patch) % patch;
    at::Tensor x = below + right > 0 ? at::constant_pad_nd(image, {0, right, 0, below}) : image;
    if (patch > 1) x = at::pixel_unshuffle(x, patch);
    x = layers::convolve(weights, "encoder.input", layers::beside(x));
    for (const UnetStep& s : plan_.down)
      x = s.kind == UnetStep::Kind::block ? block(x, s.block, dropout, random)
                                          : layers::convolve(weights, s.name, x, 2);
    x = layers::convolve(weights, "encoder.output", layers::normalise(weights, "encoder.output.norm", x, true));
    return {x.narrow(1, 0, shape_.latent).contiguous(at::MemoryFormat::Contiguous),
            x.narrow(1, shape_.latent, shape_.latent).clamp(-20, 10)};
  }

  at::Tensor decode(const at::Tensor& latent, double dropout, at::Generator* random) const {
    const std::int64_t patch = shape_.patch;
    std::vector<std::pair<std::int64_t, std::int64_t>> sizes{
        {(shape_.height() + patch - 1) / patch, (shape_.width() + patch - 1) / patch}};
    for (std::size_t level = 1; level < shape_.multipliers.size(); ++level)
      sizes.emplace_back((sizes.back().first + 1) / 2, (sizes.back().second + 1) / 2);
    at::Tensor x = layers::convolve(weights, "decoder.input", layers::beside(latent));
    for (const UnetStep& s : plan_.up) {
      if (s.kind == UnetStep::Kind::block) {
        x = block(x, s.block, dropout, random);
      } else {  // an odd side was halved upwards
        sizes.pop_back();
        x = at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
        x = layers::beside(x.slice(2, 0, sizes.back().first).slice(3, 0, sizes.back().second));
      }
    }
    x = layers::convolve(weights, "decoder.output", layers::normalise(weights, "decoder.output.norm", x, true));
    if (patch > 1) x = at::pixel_shuffle(x, patch);
    return x.slice(2, 0, shape_.height()).slice(3, 0, shape_.width()).contiguous(at::MemoryFormat::Contiguous);
  }

 private:
  at::Tensor block(const at::Tensor& x, const UnetBlock& b, double dropout, at::Generator* random) const {
    at::Tensor h = layers::convolve(weights, b.name + ".in", layers::normalise(weights, b.name + ".norm", x, true));
    h = layers::drop(layers::normalise(weights, b.name + ".mid", h, true), dropout, random);
    h = layers::convolve(weights, b.name + ".out", h);
    return h.add_(b.in == b.out ? x : layers::convolve(weights, b.name + ".past", x));
  }

  VaeShape shape_;
  VaePlan plan_;

 public:
  Weights weights;
};

class VaeTraining final : private StepTraining {
 public:
  explicit VaeTraining(const VaeTask& task) : VaeTraining(task, std::make_unique<Vae>(task.shape)) {}
  using StepTraining::run;

 private:
  VaeTraining(const VaeTask& task, std::unique_ptr<Vae> net)
      : StepTraining(task, net->weights, static_cast<std::int64_t>(task.training.values.size()) / task.shape.size(),
                     digest_of(to_json(to_value(task.shape)), {task.training, task.held}, {task.kl_weight})),
        task_(task), net_(std::move(net)), images_(images(task.training)), held_(images(task.held)) {}

  at::Tensor images(const ImageSet& set) const {
    const VaeShape& s = task_.shape;
    const auto n = static_cast<std::int64_t>(set.values.size()) / s.size();
    return view(set.values, {n, s.image_channels(), s.height(), s.width()});
  }

  double learn(const at::Tensor& items, at::Generator& random) override {
    const at::Tensor loss = this->loss(moved(images_.index_select(0, items), task_, random), &random);
    const auto value = loss.item<double>();
    if (std::isfinite(value)) torch::autograd::backward({loss}, {});
    return value;
  }
  bool has_held() const override { return held_.size(0) > 0; }
  double held_loss() override {
    const at::NoGradGuard no_gradient;
    constexpr std::int64_t kTogether = 64;  // bounds the memory
    const std::int64_t n = held_.size(0);
    double sum = 0;
    for (std::int64_t first = 0; first < n; first += kTogether) {
      const std::int64_t m = std::min(kTogether, n - first);
      sum += static_cast<double>(m) * loss(held_.narrow(0, first, m), nullptr).item<double>();
    }
    return sum / static_cast<double>(n);
  }

  /// Squared error in units of the variance, and the weighted divergence of a latent from a standard normal one; with
  /// random numbers: of a latent drawn, else of the mean one.
  at::Tensor loss(const at::Tensor& x, at::Generator* random) const {
    auto [mean, log_variance] = net_->encode(x, random ? task_.dropout : 0, random);
    at::Tensor z = mean;
    if (random) z = mean + at::exp(0.5 * log_variance) * at::randn(mean.sizes(), *random, at::kFloat);
    const at::Tensor error = (net_->decode(z, random ? task_.dropout : 0, random) - x).square().mean();
    const at::Tensor divergence = 0.5 * (mean.square() + at::exp(log_variance) - 1 - log_variance).mean();
    return error / (kSigmaData * kSigmaData) + task_.kl_weight * divergence;
  }

  const VaeTask& task_;
  std::unique_ptr<Vae> net_;
  at::Tensor images_, held_;
};

class TorchVaeRunner final : public VaeRunner {
 public:
  TorchVaeRunner(const VaeShape& shape, const std::map<std::string, Tensor>& arrays, int threads)
      : shape_(shape), net_(shape), values_(static_cast<std::size_t>(net_.weights.size())), threads_(threads) {
    net_.weights.bind(values_.data(), nullptr);
    net_.weights.load(arrays);
  }
  void encode(const float* image, std::int64_t images, float* latent) override {
    const Threads threads(threads_);
    const at::InferenceMode inference;
    latents(latent, images).copy_(net_.encode(pixels(image, images), 0, nullptr).first);
  }
  void decode(const float* latent, std::int64_t images, float* image) override {
    const Threads threads(threads_);
    const at::InferenceMode inference;
    pixels(image, images).copy_(net_.decode(latents(latent, images), 0, nullptr));
  }
  void pull_back(const float* latent, std::int64_t images, float* image, const std::function<const float*()>& cotangent,
                 float* gradient) override {
    const Threads threads(threads_);
    const at::AutoGradMode with_gradient(true);
    const at::Tensor from = latents(latent, images).set_requires_grad(true);
    const at::Tensor to = net_.decode(from, 0, nullptr);
    pixels(image, images).copy_(to.detach());
    const at::Tensor v = pixels(cotangent(), images);
    latents(gradient, images).copy_(torch::autograd::grad({to}, {from}, {v})[0]);
  }

 private:
  at::Tensor pixels(const float* x, std::int64_t images) const {
    return at::from_blob(const_cast<float*>(x), {images, shape_.image_channels(), shape_.height(), shape_.width()},
                         at::kFloat);
  }
  at::Tensor latents(const float* x, std::int64_t images) const {
    const auto shape = shape_.latent_shape();
    return at::from_blob(const_cast<float*>(x), {images, shape[0], shape[1], shape[2]}, at::kFloat);
  }

  VaeShape shape_;
  Vae net_;
  std::vector<float> values_;
  int threads_;
};

}  // namespace

TrainedWeights train_vae(const VaeTask& task) { return VaeTraining(task).run(); }

std::unique_ptr<VaeRunner> run_vae(const VaeShape& shape, const std::map<std::string, Tensor>& arrays, int threads) {
  return std::make_unique<TorchVaeRunner>(shape, arrays, threads);
}

}  // namespace percept::diffusion
