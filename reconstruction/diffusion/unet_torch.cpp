#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "reconstruction/diffusion/layers_torch.h"
#include "reconstruction/diffusion/networks_torch.h"
#include "reconstruction/diffusion/steps_torch.h"

namespace percept::diffusion {
namespace {

constexpr double kNoiseMean = -1.2, kNoiseSpread = 1.2;  // of ln sigma (Karras et al., table 1)

/// What a batch is told. Undefined tensors: nothing.
struct Words {
  at::Tensor classes;    ///< whole numbers, one an image or one for neighbours; `classes` of the shape: none
  at::Tensor embedding;  ///< entries x values
  at::Tensor without;    ///< true where the embedding of an entry is left out; may be undefined
};

class Unet {
 public:
  explicit Unet(const UnetShape& shape) : shape_(shape), plan_(shape), weights(plan_.weights) {
    for (const auto* steps : {&plan_.down, &plan_.middle, &plan_.up})
      for (const UnetStep& s : *steps)
        if (s.block.out > 0) modulated_.push_back(s.block.out);
  }

  /// y = F(x, noise). x: images x channels x height x width; noise: one number an image, or one for all.
  at::Tensor forward(const at::Tensor& image, const at::Tensor& noise, const Words& told, double dropout,
                     at::Generator* random) const {
    const at::Tensor inside = condition(noise, told, image.size(0));
    const auto gains = at::split_with_sizes(layers::linear(weights, "gain", inside), modulated_, 1);
    const auto offsets = at::split_with_sizes(layers::linear(weights, "offset", inside), modulated_, 1);
    std::size_t number = 0;
    const auto block = [&](const at::Tensor& x, const UnetBlock& b) {
      at::Tensor h = layers::convolve(weights, b.name + ".in", layers::normalise(weights, b.name + ".norm", x, true));
      h = layers::drop(layers::normalise(h, gains[number], offsets[number], true), dropout, random);
      ++number;
      h = layers::convolve(weights, b.name + ".out", h);
      h.add_(b.in == b.out ? x : layers::convolve(weights, b.name + ".past", x));
      return b.attention ? layers::attend(weights, b.name + ".attention", h) : h;
    };

    const std::int64_t height = image.size(2), width = image.size(3), patch = shape_.patch;
    const std::int64_t below = (patch - height % patch) % patch, right = (patch - width % patch) % patch;
    at::Tensor x = below + right > 0 ? at::constant_pad_nd(image, {0, right, 0, below}) : image;
    if (patch > 1) x = at::pixel_unshuffle(x, patch);
    x = layers::convolve(weights, "input", layers::beside(x));
    std::vector<at::Tensor> kept;
    const auto follow = [&](const std::vector<UnetStep>& steps, bool keep) {
      for (const UnetStep& s : steps) {
        switch (s.kind) {
          case UnetStep::Kind::block:
            x = block(x, s.block);
            if (keep) kept.push_back(x);
            break;
          case UnetStep::Kind::joined_block:
            x = block(at::cat({x, kept.back()}, 1), s.block);
            kept.pop_back();
            break;
          case UnetStep::Kind::halve:
            x = layers::convolve(weights, s.name, x, 2);
            break;
          case UnetStep::Kind::twice:  // an odd side was halved upwards
            x = at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
            x = layers::beside(x.slice(2, 0, kept.back().size(2)).slice(3, 0, kept.back().size(3)));
            break;
        }
      }
    };
    follow(plan_.down, true);
    follow(plan_.middle, false);
    follow(plan_.up, false);
    x = layers::convolve(weights, "output", layers::normalise(weights, "output.norm", x, true));
    if (patch > 1) x = at::pixel_shuffle(x, patch);
    return x.slice(2, 0, height).slice(3, 0, width).contiguous(at::MemoryFormat::Contiguous);
  }

 private:
  /// Noise level and condition as one vector an image, or one for all.
  at::Tensor condition(const at::Tensor& noise, const Words& told, std::int64_t images) const {
    const auto spread = [&](const at::Tensor& t) {
      return t.size(0) > 1 && t.size(0) < images ? t.repeat_interleave(images / t.size(0), 0) : t;
    };
    const at::Tensor turns = at::pow(2.0, at::linspace(-3, 4, kNoiseFeatures / 2, at::kFloat));
    const at::Tensor angle = noise.view({-1, 1}) * turns * (2 * std::numbers::pi);
    at::Tensor all = at::silu(layers::linear(weights, "noise.0", at::cat({at::cos(angle), at::sin(angle)}, 1)));
    all = layers::linear(weights, "noise.1", all);
    if (told.classes.defined()) all = all + spread(at::embedding(weights["class.weights"], told.classes));
    else if (shape_.classes > 0) all = all + weights["class.weights"].select(0, shape_.classes);
    if (told.embedding.defined()) {
      at::Tensor e = layers::linear(weights, "embedding", told.embedding);
      if (told.without.defined()) e = at::where(told.without.unsqueeze(1), weights["embedding.none"], e);
      all = all + spread(e);
    } else if (shape_.embedding > 0) {
      all = all + weights["embedding.none"];
    }
    return at::silu(all);
  }

  UnetShape shape_;
  UnetPlan plan_;
  std::vector<std::int64_t> modulated_;  ///< channels of each block

 public:
  Weights weights;
};

/// sigma of each image of a batch: one out of each of as many equally likely ranges, so that no batch lacks a level.
at::Tensor levels(const at::Tensor& within, const at::Tensor& order) {
  const at::Tensor u = (order.to(at::kDouble) + within.to(at::kDouble)) / static_cast<double>(order.size(0));
  const at::Tensor normal = at::erfinv((2 * u - 1).clamp(-1 + 1e-12, 1 - 1e-12)) * std::numbers::sqrt2;
  return at::exp(kNoiseMean + kNoiseSpread * normal).to(at::kFloat);
}

class UnetTraining final : private StepTraining {
 public:
  explicit UnetTraining(const UnetTask& task) : UnetTraining(task, std::make_unique<Unet>(task.shape)) {}
  using StepTraining::run;

 private:
  struct Images {
    at::Tensor values, classes, embedding;
    Images(const UnetShape& s, const ImageSet& from) {
      const auto n = static_cast<std::int64_t>(from.values.size()) / s.size();
      values = view(from.values, {n, s.image_channels(), s.height(), s.width()});
      if (s.classes > 0) classes = view(from.classes);
      if (s.embedding > 0) embedding = view(from.embedding, {n, s.embedding});
    }
    std::int64_t count() const { return values.size(0); }
  };

  UnetTraining(const UnetTask& task, std::unique_ptr<Unet> net)
      : StepTraining(task, net->weights, static_cast<std::int64_t>(task.training.values.size()) / task.shape.size(),
                     digest_of(to_json(to_value(task.shape)), {task.training, task.held}, {task.condition_dropout})),
        task_(task), net_(std::move(net)), images_(task.shape, task.training), held_(task.shape, task.held) {}

  double learn(const at::Tensor& items, at::Generator& random) override {
    const std::int64_t n = items.size(0);
    const at::Tensor x0 = moved(images_.values.index_select(0, items), task_, random);
    const at::Tensor sigma = levels(at::rand({n}, random, at::kFloat), at::randperm(n, random, at::kLong));
    const at::Tensor normal = at::randn(x0.sizes(), random, at::kFloat);
    Words told;
    if (task_.shape.classes > 0 || task_.shape.embedding > 0)
      told.without = at::empty({n}, at::kFloat).uniform_(0, 1, random) < task_.condition_dropout;
    if (task_.shape.classes > 0)
      told.classes = images_.classes.index_select(0, items).masked_fill(told.without, task_.shape.classes);
    if (task_.shape.embedding > 0) told.embedding = images_.embedding.index_select(0, items);
    return loss(x0, sigma, normal, told, &random);
  }

  bool has_held() const override { return held_.count() > 0; }

  double held_loss() override {
    const at::NoGradGuard no_gradient;
    constexpr std::int64_t kTogether = 64;  // bounds the memory
    const std::int64_t n = held_.count();
    auto random = at::make_generator<at::CPUGeneratorImpl>(seed_of(task_.seed, -2));
    const at::Tensor sigma = levels(at::full({n}, 0.5, at::kFloat), at::randperm(n, random, at::kLong));
    const at::Tensor normal = at::randn(held_.values.sizes(), random, at::kFloat);
    double sum = 0;
    for (std::int64_t first = 0; first < n; first += kTogether) {
      const std::int64_t m = std::min(kTogether, n - first);
      Words told;
      if (held_.classes.defined()) told.classes = held_.classes.narrow(0, first, m);
      if (held_.embedding.defined()) told.embedding = held_.embedding.narrow(0, first, m);
      sum += static_cast<double>(m) * loss(held_.values.narrow(0, first, m), sigma.narrow(0, first, m),
                                           normal.narrow(0, first, m), told, nullptr);
    }
    return sum / static_cast<double>(n);
  }

  /// With weight (sigma² + sd²) / (sigma sd)², which makes it the mean squared error of the network's own output;
  /// with random numbers: also backward.
  double loss(const at::Tensor& x0, const at::Tensor& sigma, const at::Tensor& normal, const Words& told,
              at::Generator* random) {
    constexpr double kData2 = kSigmaData * kSigmaData;
    const at::Tensor s = sigma.view({-1, 1, 1, 1}), total = s * s + kData2, root = total.sqrt();
    const at::Tensor x = x0 + s * normal;
    // D = skip x + out F with skip = kData2 / total and out = s kSigmaData / root, so F should be:
    const at::Tensor target = (x0 - kData2 / total * x) * (root / (s * kSigmaData));
    const at::Tensor output = net_->forward(x / root, sigma.log() / 4, told, random ? task_.dropout : 0, random);
    const at::Tensor error = output.detach() - target;
    const auto loss = error.square().mean().item<double>();
    if (random && std::isfinite(loss))
      torch::autograd::backward({output}, {error * (2.0 / static_cast<double>(error.numel()))});
    return loss;
  }

  const UnetTask& task_;
  std::unique_ptr<Unet> net_;
  Images images_, held_;
};

class TorchUnetRunner final : public UnetRunner {
 public:
  TorchUnetRunner(const UnetShape& shape, const std::map<std::string, Tensor>& arrays, int threads)
      : shape_(shape), net_(shape), values_(static_cast<std::size_t>(net_.weights.size())), threads_(threads) {
    net_.weights.bind(values_.data(), nullptr);
    net_.weights.load(arrays);
  }
  void forward(const float* x, std::int64_t images, double noise, const UnetRunner::Told& told, float* y) override {
    const Threads threads(threads_);
    const at::InferenceMode inference;
    tensor(y, images).copy_(evaluate(tensor(x, images), noise, told));
  }
  void pull_back(const float* x, std::int64_t images, double noise, const UnetRunner::Told& told, float* y,
                 const std::function<const float*()>& cotangent, float* gradient) override {
    const Threads threads(threads_);
    const at::AutoGradMode with_gradient(true);
    const at::Tensor from = tensor(x, images).set_requires_grad(true);
    const at::Tensor to = evaluate(from, noise, told);
    tensor(y, images).copy_(to.detach());
    const at::Tensor v = tensor(cotangent(), images);
    tensor(gradient, images).copy_(torch::autograd::grad({to}, {from}, {v})[0]);
  }

 private:
  at::Tensor tensor(const float* x, std::int64_t images) const {
    return at::from_blob(const_cast<float*>(x), {images, shape_.image_channels(), shape_.height(), shape_.width()},
                         at::kFloat);
  }
  at::Tensor evaluate(const at::Tensor& x, double noise, const UnetRunner::Told& told) const {
    Words all;
    if (!told.classes.empty()) all.classes = view(told.classes);
    if (!told.embedding.empty())
      all.embedding =
          view(told.embedding, {static_cast<std::int64_t>(told.embedding.size()) / shape_.embedding, shape_.embedding});
    return net_.forward(x, at::full({1}, noise, at::kFloat), all, 0, nullptr);
  }

  UnetShape shape_;
  Unet net_;
  std::vector<float> values_;
  int threads_;
};

}  // namespace

TrainedWeights train_unet(const UnetTask& task) { return UnetTraining(task).run(); }

std::unique_ptr<UnetRunner> run_unet(const UnetShape& shape, const std::map<std::string, Tensor>& arrays, int threads) {
  return std::make_unique<TorchUnetRunner>(shape, arrays, threads);
}

}  // namespace percept::diffusion
