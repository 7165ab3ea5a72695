/// Training and running the networks of diffusion models by LibTorch, as the module percept_nn offers it (core/module.h).
/// No LibTorch header here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/model.h"
#include "reconstruction/diffusion/unet.h"
#include "reconstruction/diffusion/vae.h"

namespace percept::diffusion {

/// How a network learns from items, step by step.
struct StepTask {
  std::int64_t steps = 1000, batch = 32;
  double learning_rate = 3e-3;    ///< of AdamW (Loshchilov, Hutter, ICLR 2019)
  std::int64_t warm_up = 50;      ///< steps over which the rate rises to it
  bool cosine = true;             ///< the rate falls to zero along half a cosine over all steps
  double weight_decay = 0;        ///< of AdamW
  double weight_average = 0.995;  ///< decay of the running mean of the weights, which is what is kept; 0: none
  double clip = 1;                ///< a longer gradient is cut to this length; 0: never
  double dropout = 0;             ///< share of values left out inside each block in a step
  std::int64_t shift = 0;         ///< an image is moved by up to so many pixels each way in a step
  bool flip = false;              ///< and mirrored left to right every other time
  std::int64_t report = 50;       ///< steps between two points of the loss curves
  std::uint64_t seed = 0;
  int threads = 1;
  std::string where;                 ///< for messages
  std::filesystem::path checkpoint;  ///< file that a training goes on from and is saved to now and then; empty: none
  std::function<void(std::int64_t step, double loss)> on_step;  ///< may throw, which ends the training; may be empty
};

/// Images one after the other, of mean about 0 and standard deviation about kSigmaData, and what goes with each.
struct ImageSet {
  std::span<const float> values;
  std::span<const std::int64_t> classes = {};  ///< one an image, or empty
  std::span<const float> embedding = {};       ///< `embedding` values of the shape an image, or empty
};

struct TrainedWeights {
  std::map<std::string, Tensor> arrays;  ///< at the report with the least held-out loss, else at the last step
  std::int64_t best_step = 0;            ///< the step they are of
  std::vector<double> training_losses, held_losses;  ///< at each report; training: mean since the last one
};

struct UnetTask : StepTask {
  UnetShape shape;
  ImageSet training;
  ImageSet held;                   ///< decide which weights are kept; may be empty
  double condition_dropout = 0.1;  ///< share of images whose condition is left out in a step
};

struct VaeTask : StepTask {
  VaeShape shape;
  ImageSet training;
  ImageSet held;            ///< decide which weights are kept; may be empty
  double kl_weight = 1e-3;  ///< of the divergence of a latent from a standard normal one, per latent value
};

/// A U-net that is only run. One object a thread.
class UnetRunner {
 public:
  virtual ~UnetRunner() = default;
  /// What an evaluation is told of its images: one entry for images / entries neighbours each; none: nothing.
  struct Told {
    std::span<const std::int64_t> classes = {};
    std::span<const float> embedding = {};
  };
  /// y = F(x, noise), `images` of them one after the other.
  virtual void forward(const float* x, std::int64_t images, double noise, const Told& told, float* y) = 0;
  /// The same; then cotangent() reads y and says where v lies, and gradient = (dF/dx)ᵀ v.
  virtual void pull_back(const float* x, std::int64_t images, double noise, const Told& told, float* y,
                         const std::function<const float*()>& cotangent, float* gradient) = 0;
};

/// An autoencoder that is only run. One object a thread. Images and latents one after the other.
class VaeRunner {
 public:
  virtual ~VaeRunner() = default;
  /// The mean latent of each image.
  virtual void encode(const float* image, std::int64_t images, float* latent) = 0;
  virtual void decode(const float* latent, std::int64_t images, float* image) = 0;
  /// The same; then cotangent() reads the image and says where v lies, and gradient = (d image / d latent)ᵀ v.
  virtual void pull_back(const float* latent, std::int64_t images, float* image,
                         const std::function<const float*()>& cotangent, float* gradient) = 0;
};

/// Training gives the same bits for the same task, also when it was interrupted and goes on from its checkpoint; the
/// checkpoint of another task is left aside. It throws Error naming the step when the loss is not finite; the last good
/// checkpoint is kept. Arrays that are run are those of the plan, in float; the caller has checked them.
class DiffusionNetworks {
 public:
  static constexpr const char* kInterface = "diffusion_networks";
  virtual ~DiffusionNetworks() = default;
  /// Minimises the loss of Karras et al., NeurIPS 2022, over noise levels ln sigma ~ N(-1.2, 1.2²).
  virtual TrainedWeights train(const UnetTask& task) = 0;
  virtual std::unique_ptr<UnetRunner> run(const UnetShape& shape, const std::map<std::string, Tensor>& arrays,
                                          int threads) = 0;
  /// Minimises squared error / variance + kl_weight x divergence, the latents drawn.
  virtual TrainedWeights train(const VaeTask& task) = 0;
  virtual std::unique_ptr<VaeRunner> run(const VaeShape& shape, const std::map<std::string, Tensor>& arrays,
                                         int threads) = 0;
};

}  // namespace percept::diffusion
