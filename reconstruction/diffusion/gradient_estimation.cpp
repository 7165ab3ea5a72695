/// Euler's method with the noise estimate extrapolated from the step before.
#include "reconstruction/diffusion/sampler.h"

namespace percept::diffusion {
namespace {

struct GradientEstimationParams : LevelParams {
  double gamma = 2;
  static constexpr auto fields() {
    using P = GradientEstimationParams;
    return std::tuple_cat(
        level_fields<P>(),
        std::tuple{field("gamma", &P::gamma, "1",
                         "Weight of this step's noise estimate; the one before has 1 - gamma (published: 2; 1.5 is the "
                         "two-step Adams-Bashforth method, of second order where levels are evenly spaced).",
                         0.0, 10.0)});
  }
};

class GradientEstimation final : public Sampler {
 public:
  using Params = GradientEstimationParams;
  GradientEstimation(const Params& params, const std::string& where)
      : Sampler(params, where), gamma_(static_cast<float>(params.gamma)) {}
  std::string name() const override { return "gradient_estimation"; }

  void walk(Run& run, Batch& x) const override {
    Batch x0, noise, before;
    for (Index i = run.first(); i < steps(); ++i) {
      run.denoise(x, level(i), x0);
      run.observe(i, x, x0);
      noise = (x - x0) / static_cast<float>(level(i));
      const auto change = static_cast<float>(level(i + 1) - level(i));
      if (i == run.first()) x += change * noise;
      else x += change * (gamma_ * noise + (1 - gamma_) * before);
      before.swap(noise);
    }
  }

 private:
  float gamma_;
};

}  // namespace

SamplerInfo sampler_gradient_estimation() {
  return sampler_info<GradientEstimation>(
      "gradient_estimation",
      "Prior samples: Euler's method with the noise extrapolated from the step before, at one evaluation a step.",
      "Permenter, Yuan, ICML 2024", false);
}

}  // namespace percept::diffusion
