/// Diffusion posterior sampling.
#include <cmath>
#include <limits>

#include "reconstruction/diffusion/sampler.h"

namespace percept::diffusion {
namespace {

struct DpsParams : LevelParams {
  DpsParams() { steps = 100; }
  double zeta = 0.5;
  static constexpr auto fields() {
    using P = DpsParams;
    return std::tuple_cat(
        level_fields<P>(),
        std::tuple{field("zeta", &P::zeta, "1",
                         "Step along the gradient of |y - A(D(x))|, for 1000 steps (published: 0.3 blur and "
                         "super-resolution, 0.5 inpainting).",
                         0.0, 1e6)});
  }
};

/// The published step is along the gradient of the norm of the residual, not of its square: it does not know the noise
/// of the measurement, and what it draws is no posterior. It is taken for each item by itself.
class Dps final : public Sampler {
 public:
  using Params = DpsParams;
  Dps(const Params& params, const std::string& where) : Sampler(params, where), zeta_(params.zeta) {}
  std::string name() const override { return "dps"; }
  Needs needs(double) const override {
    return {.measurement = true, .denoiser_gradient = true, .op = {.gradient = true}};
  }

  void walk(Run& run, Batch& x) const override {
    Batch x0, z, gradient, residual;
    for (Index i = run.first(); i < steps(); ++i) {
      const double sigma = level(i), next = level(i + 1);
      run.pull_back(
          x, sigma, x0,
          [&](const Batch& out, Batch& v) {
            run.apply(out, residual);
            residual -= run.y();
            for (Index k = 0; k < residual.cols(); ++k)
              residual.col(k) /= std::max(residual.col(k).norm(), std::numeric_limits<float>::min());
            run.operator_pull_back(out, residual, v);
          },
          gradient);
      run.observe(i, x, x0);
      const double fresh = next * std::sqrt(1 - next * next / (sigma * sigma));
      const double kept = std::sqrt(std::max(0.0, next * next - fresh * fresh)) / sigma;
      x = x0 + static_cast<float>(kept) * (x - x0);
      // the paper's state is x / sqrt(1 + sigma²): its gradient is larger by that root, and so is a step in x
      const double step = zeta_ * std::sqrt((1 + sigma * sigma) * (1 + next * next));
      x -= static_cast<float>(step) * gradient;
      if (fresh > 0) {
        run.normal(z);
        x += static_cast<float>(fresh) * z;
      }
    }
  }

 private:
  double zeta_;
};

}  // namespace

SamplerInfo sampler_dps() {
  return sampler_info<Dps>("dps",
                           "Diffusion posterior sampling: each step also goes down the gradient of |y - A(D(x))|, "
                           "through the denoiser.",
                           "Chung, Kim, Mccann, Klasky, Ye, ICLR 2023", true);
}

}  // namespace percept::diffusion
