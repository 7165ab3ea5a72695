/// Denoisers made of networks that were trained to predict something else, and of other denoisers.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "reconstruction/diffusion/denoiser.h"
#include "reconstruction/diffusion/schedule.h"

namespace percept::diffusion {

/// D(x, sigma) = skip x + out F(in x, time): how a network is asked.
struct Scaling {
  double skip, out, in, time;
};
/// Preconditioning of Karras et al., NeurIPS 2022, table 1: unit variance in and out, time ln(sigma) / 4. The training
/// loss of F weighs (D - x0)² by 1 / out². sigma_data: standard deviation of the training values.
Scaling edm_scaling(double sigma, double sigma_data) noexcept;
/// A network that predicts the noise (Ho et al., NeurIPS 2020): time 0, 1, ... of `noise`.
Scaling epsilon_scaling(double sigma, const VpNoise& noise) noexcept;
/// A network that predicts v = noise / sqrt(1 + sigma²) - sigma x0 / sqrt(1 + sigma²) (Salimans, Ho, ICLR 2022).
Scaling v_scaling(double sigma, const VpNoise& noise) noexcept;

/// A network under one of these scalings, told the condition.
class NetworkDenoiser : public Denoiser {
 public:
  using Scale = std::function<Scaling(double sigma)>;
  /// Throws ConfigError when the network cannot take the condition.
  NetworkDenoiser(std::shared_ptr<Network> network, Scale scale, Condition condition = {});
  std::vector<Index> shape() const override { return network_->shape(); }
  void denoise(const Batch& x, double sigma, Batch& x0) override;
  bool has_gradient() const override { return network_->has_gradient(); }
  void pull_back(const Batch& x, double sigma, Batch& x0, const Cotangent& cotangent, Batch& gradient) override;

 private:
  std::shared_ptr<Network> network_;
  Scale scale_;
  Condition condition_;
};
class EdmDenoiser final : public NetworkDenoiser {
 public:
  /// Throws ConfigError also unless sigma_data > 0.
  EdmDenoiser(std::shared_ptr<Network> network, double sigma_data, Condition condition = {});
};
class EpsilonDenoiser final : public NetworkDenoiser {
 public:
  EpsilonDenoiser(std::shared_ptr<Network> network, VpNoise noise, Condition condition = {});
};
class VDenoiser final : public NetworkDenoiser {
 public:
  VDenoiser(std::shared_ptr<Network> network, VpNoise noise, Condition condition = {});
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
