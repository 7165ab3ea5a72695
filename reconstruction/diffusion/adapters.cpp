#include "reconstruction/diffusion/adapters.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "core/error.h"

namespace percept::diffusion {
namespace {

std::string shape_text(const std::vector<Index>& shape) { return fmt::format("{{{}}}", fmt::join(shape, ", ")); }

void require_condition(const Network& network, const Condition& condition) {
  for (const std::int64_t c : condition.classes)
    if (c < 0 || c >= network.classes())
      throw ConfigError("diffusion.class", std::to_string(c),
                        network.classes() == 0 ? "no class: the network was trained without"
                                               : fmt::format("0 to {}", network.classes() - 1));
  if (condition.embedding.cols() > 0 && condition.embedding.rows() != network.embedding())
    throw ConfigError("diffusion.embedding", fmt::format("{} values", condition.embedding.rows()),
                      network.embedding() == 0 ? "no embedding: the network was trained without"
                                               : fmt::format("{} values", network.embedding()));
}

}  // namespace

Scaling edm_scaling(double sigma, double sigma_data) noexcept {
  const double s2 = sigma * sigma, d2 = sigma_data * sigma_data, total = std::sqrt(s2 + d2);
  return {d2 / (s2 + d2), sigma * sigma_data / total, 1 / total, std::log(sigma) / 4};
}

Scaling epsilon_scaling(double sigma, const VpNoise& noise) noexcept {
  return {1, -sigma, 1 / std::sqrt(1 + sigma * sigma), noise.time(sigma)};
}

Scaling v_scaling(double sigma, const VpNoise& noise) noexcept {
  const double in = 1 / std::sqrt(1 + sigma * sigma);
  return {in * in, -sigma * in, in, noise.time(sigma)};
}

NetworkDenoiser::NetworkDenoiser(std::shared_ptr<Network> network, Scale scale, Condition condition)
    : network_(std::move(network)), scale_(std::move(scale)), condition_(std::move(condition)) {
  require_condition(*network_, condition_);
}

void NetworkDenoiser::denoise(const Batch& x, double sigma, Batch& x0) {
  const Scaling c = scale_(sigma);
  Batch y;
  network_->forward(static_cast<float>(c.in) * x, c.time, condition_, y);
  x0 = static_cast<float>(c.skip) * x + static_cast<float>(c.out) * y;
}

void NetworkDenoiser::pull_back(const Batch& x, double sigma, Batch& x0, const Cotangent& cotangent, Batch& gradient) {
  const Scaling c = scale_(sigma);
  Batch y, v;
  network_->pull_back(
      static_cast<float>(c.in) * x, c.time, condition_, y,
      [&](const Batch& out, Batch& w) {
        x0 = static_cast<float>(c.skip) * x + static_cast<float>(c.out) * out;
        cotangent(x0, v);
        w = v;
      },
      gradient);
  gradient = static_cast<float>(c.in * c.out) * gradient + static_cast<float>(c.skip) * v;
}

EdmDenoiser::EdmDenoiser(std::shared_ptr<Network> network, double sigma_data, Condition condition)
    : NetworkDenoiser(
          std::move(network), [sigma_data](double sigma) { return edm_scaling(sigma, sigma_data); },
          std::move(condition)) {
  if (!(sigma_data > 0)) throw ConfigError("diffusion.sigma_data", std::to_string(sigma_data), "a number above zero");
}
EpsilonDenoiser::EpsilonDenoiser(std::shared_ptr<Network> network, VpNoise noise, Condition condition)
    : NetworkDenoiser(
          std::move(network), [noise](double sigma) { return epsilon_scaling(sigma, noise); }, std::move(condition)) {}
VDenoiser::VDenoiser(std::shared_ptr<Network> network, VpNoise noise, Condition condition)
    : NetworkDenoiser(
          std::move(network), [noise](double sigma) { return v_scaling(sigma, noise); }, std::move(condition)) {}

GuidedDenoiser::GuidedDenoiser(std::shared_ptr<Denoiser> conditional, std::shared_ptr<Denoiser> plain, double scale)
    : conditional_(std::move(conditional)), plain_(std::move(plain)), scale_(static_cast<float>(scale)) {
  if (conditional_->shape() != plain_->shape())
    throw ConfigError("diffusion.guidance", shape_text(plain_->shape()),
                      "a plain denoiser of the conditional one's shape " + shape_text(conditional_->shape()));
}

void GuidedDenoiser::denoise(const Batch& x, double sigma, Batch& x0) {
  Batch with;
  plain_->denoise(x, sigma, x0);
  conditional_->denoise(x, sigma, with);
  x0 += scale_ * (with - x0);
}

void GuidedDenoiser::pull_back(const Batch& x, double sigma, Batch& x0, const Cotangent& cotangent, Batch& gradient) {
  // the loss needs both outputs before either can be pulled back, so one call runs inside the other
  Batch with, plain, v, plain_gradient;
  conditional_->pull_back(
      x, sigma, with,
      [&](const Batch& out, Batch& w) {
        plain_->pull_back(
            x, sigma, plain,
            [&](const Batch& plain_out, Batch& u) {
              x0 = plain_out + scale_ * (out - plain_out);
              cotangent(x0, v);
              u = (1 - scale_) * v;
            },
            plain_gradient);
        w = scale_ * v;
      },
      gradient);
  gradient += plain_gradient;
}

}  // namespace percept::diffusion
