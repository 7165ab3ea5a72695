/// A trained prior over images, as the model of a diffusion_prior holds it: a U-net, and how image values become the
/// numbers it works on. Everything that samples takes its denoiser, in units of the image.
#pragma once

#include <Eigen/Core>
#include <memory>
#include <string>

#include "core/model.h"
#include "reconstruction/diffusion/denoiser.h"
#include "reconstruction/diffusion/unet.h"

namespace percept::diffusion {

/// A denoiser of numbers u as one of images offset + scale u; its noise grows by the same scale.
class RescaledDenoiser final : public Denoiser {
 public:
  /// offset: one a value. Throws ConfigError unless the sizes agree and scale > 0.
  RescaledDenoiser(std::shared_ptr<Denoiser> inner, Eigen::VectorXf offset, double scale);
  std::vector<Index> shape() const override { return inner_->shape(); }
  void denoise(const Batch& x, double sigma, Batch& x0) override;
  bool has_gradient() const override { return inner_->has_gradient(); }
  void pull_back(const Batch& x, double sigma, Batch& x0, const Cotangent& cotangent, Batch& gradient) override;
  int evaluations() const override { return inner_->evaluations(); }

 private:
  Batch numbers(const Batch& x) const;
  void images(const Batch& u, Batch& x) const;
  std::shared_ptr<Denoiser> inner_;
  Eigen::VectorXf offset_;
  float scale_;
};

/// An image is offset + scale x the numbers a network works on, as image_mean and image_sd of its model say.
struct ImageUnits {
  Eigen::VectorXf offset;
  double scale = 1;
};
/// Throws DataError naming `where` when they are not finite, or image_sd is not above zero.
ImageUnits image_units(const Model& model, Index channels, Index size, const std::string& where);

class ImagePrior {
 public:
  static constexpr const char* kStage = "diffusion_prior";
  static constexpr int kVersion = 1;

  /// Throws DataError when it is a model of something else, of another architecture than it says, or broken.
  explicit ImagePrior(const Model& model);
  const UnetShape& shape() const { return shape_; }
  /// Of its model.
  std::string digest() const { return model_.digest(); }
  /// Image units for one unit of what the network works on, where images have the standard deviation kSigmaData.
  /// Noise levels of a sampler are to be multiplied by this: sigma from 80 scale() to 0.002 scale().
  double scale() const { return scale_; }
  /// The network itself. Opens LibTorch.
  std::shared_ptr<Network> network(int threads) const;
  /// A denoiser of images, told the condition and guided towards it (1: as trained, more: harder; without a condition it
  /// has no effect). Opens LibTorch. Throws ConfigError when the network cannot take the condition.
  std::shared_ptr<Denoiser> denoiser(int threads, const Condition& condition = {}, double guidance = 1) const;
  /// The same of a network() that is open already.
  std::shared_ptr<Denoiser> denoiser(std::shared_ptr<Network> network, const Condition& condition,
                                     double guidance) const;

 private:
  Model model_;
  UnetShape shape_;
  Eigen::VectorXf offset_;
  double scale_ = 1;
  Eigen::VectorXf embedding_mean_, embedding_sd_;
};

/// A prior's model inside that of a stage that needs it, and back. name: of the prior there, where it needs several;
/// use: its stage. read_prior throws DataError naming `where` when there is none.
void store_prior(Model& model, const Model& prior, const std::string& name = "prior");
Model read_prior(const Model& model, const std::string& where, const std::string& name = "prior",
                 const std::string& use = ImagePrior::kStage);

/// The model of a prior that was not trained, with keyed random weights: for samples of stages that need one.
Model untrained_prior(const UnetShape& shape);
/// Such weights for any network.
void set_untrained(Model& model, const WeightList& weights, const std::string& key);

}  // namespace percept::diffusion
