/// The probability-flow equation by Heun's method.
#include "reconstruction/diffusion/sampler.h"

namespace percept::diffusion {
namespace {

struct HeunParams : LevelParams {
  static constexpr auto fields() { return level_fields<HeunParams>(); }
};

class Heun final : public Sampler {
 public:
  using Params = HeunParams;
  Heun(const Params& params, const std::string& where) : Sampler(params, where) {}
  std::string name() const override { return "heun"; }

  void walk(Run& run, Batch& x) const override {
    Batch x0, slope, ahead, ahead0;
    for (Index i = run.first(); i < steps(); ++i) {
      const double sigma = level(i), next = level(i + 1);
      run.denoise(x, sigma, x0);
      run.observe(i, x, x0);
      if (next == 0) {  // the slope at zero is not defined; Euler's step gives D
        x = x0;
        continue;
      }
      slope = (x - x0) / static_cast<float>(sigma);
      ahead = x + static_cast<float>(next - sigma) * slope;
      run.denoise(ahead, next, ahead0);
      slope += (ahead - ahead0) / static_cast<float>(next);
      x += static_cast<float>(0.5 * (next - sigma)) * slope;
    }
  }
};

}  // namespace

SamplerInfo sampler_heun() {
  return sampler_info<Heun>("heun",
                            "Prior samples: the probability-flow equation by Heun's method, two evaluations a step.",
                            "Karras, Aittala, Aila, Laine, NeurIPS 2022, algorithm 1", false);
}

}  // namespace percept::diffusion
