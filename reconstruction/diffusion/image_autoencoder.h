/// A trained autoencoder of images, as the model of an image_autoencoder holds it: between images in their own units and
/// latents of standard deviation about 1.
#pragma once

#include <Eigen/Core>
#include <memory>
#include <string>
#include <vector>

#include "core/model.h"
#include "reconstruction/diffusion/denoiser.h"
#include "reconstruction/diffusion/vae.h"

namespace percept::diffusion {

class VaeRunner;

class ImageAutoencoder final : public Autoencoder {
 public:
  static constexpr const char* kStage = "image_autoencoder";
  static constexpr int kVersion = 1;

  /// Throws DataError when it is a model of something else, of another architecture than it says, or broken.
  explicit ImageAutoencoder(const Model& model);
  ~ImageAutoencoder() override;
  /// Before anything is encoded or decoded: opens LibTorch.
  void open(int threads);

  const VaeShape& shape() const { return shape_; }
  std::vector<Index> image_shape() const override { return shape_.image; }
  std::vector<Index> latent_shape() const override { return shape_.latent_shape(); }
  void encode(const Batch& image, Batch& latent) override;
  void decode(const Batch& latent, Batch& image) override;
  bool has_gradient() const override { return true; }
  void pull_back(const Batch& latent, Batch& image, const Cotangent& cotangent, Batch& gradient) override;

 private:
  Model model_;
  VaeShape shape_;
  Eigen::VectorXf offset_;  ///< of an image
  float scale_ = 1, latent_scale_ = 1;
  std::unique_ptr<VaeRunner> runner_;
};

/// The model of one that was not trained, with keyed random weights: for samples of stages that need one.
Model untrained_autoencoder(const VaeShape& shape);

}  // namespace percept::diffusion
