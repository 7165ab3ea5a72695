/// Denoisers made of networks that were trained to predict something else, and of other denoisers.
#pragma once

#include <memory>

#include "reconstruction/diffusion/denoiser.h"

namespace percept::diffusion {

/// D(x, sigma) = skip x + out F(in x, noise): the preconditioning of Karras et al., NeurIPS 2022, table 1. The training
/// loss of F weighs (D - x0)² by 1 / out².
struct EdmScaling {
  double skip, out, in, noise;
};
EdmScaling edm_scaling(double sigma, double sigma_data) noexcept;

/// A network trained with that preconditioning, told the condition.
class EdmDenoiser final : public Denoiser {
 public:
  /// sigma_data: standard deviation of the training values. Throws ConfigError when the network cannot take the condition.
  EdmDenoiser(std::shared_ptr<Network> network, double sigma_data, Condition condition = {});
  std::vector<Index> shape() const override { return network_->shape(); }
  void denoise(const Batch& x, double sigma, Batch& x0) override;
  bool has_gradient() const override { return network_->has_gradient(); }
  void pull_back(const Batch& x, double sigma, Batch& x0, const Cotangent& cotangent, Batch& gradient) override;

 private:
  std::shared_ptr<Network> network_;
  double sigma_data_;
  Condition condition_;
};

/// Classifier-free guidance (Ho, Salimans, arXiv 2207.12598): D = D_plain + scale (D_conditional - D_plain). scale 0 is
/// the plain denoiser, 1 the conditional one, more pushes towards the condition; their w is scale - 1.
class GuidedDenoiser final : public Denoiser {
 public:
  /// Throws ConfigError when the shapes differ.
  GuidedDenoiser(std::shared_ptr<Denoiser> conditional, std::shared_ptr<Denoiser> plain, double scale);
  std::vector<Index> shape() const override { return conditional_->shape(); }
  void denoise(const Batch& x, double sigma, Batch& x0) override;
  bool has_gradient() const override { return conditional_->has_gradient() && plain_->has_gradient(); }
  void pull_back(const Batch& x, double sigma, Batch& x0, const Cotangent& cotangent, Batch& gradient) override;
  int evaluations() const override { return conditional_->evaluations() + plain_->evaluations(); }

 private:
  std::shared_ptr<Denoiser> conditional_, plain_;
  float scale_;
};

}  // namespace percept::diffusion
