/// The probability-flow equation by Euler's method.
#include "reconstruction/diffusion/sampler.h"

namespace percept::diffusion {
namespace {

struct EulerParams : LevelParams {
  static constexpr auto fields() { return level_fields<EulerParams>(); }
};

class Euler final : public Sampler {
 public:
  using Params = EulerParams;
  Euler(const Params& params, const std::string& where) : Sampler(params, where) {}
  std::string name() const override { return "euler"; }

  void walk(Run& run, Batch& x) const override {
    Batch x0;
    for (Index i = run.first(); i < steps(); ++i) {
      run.denoise(x, level(i), x0);
      run.observe(i, x, x0);
      // dx / dsigma = (x - D) / sigma
      x = x0 + static_cast<float>(level(i + 1) / level(i)) * (x - x0);
    }
  }
};

}  // namespace

SamplerInfo sampler_euler() {
  return sampler_info<Euler>("euler", "Prior samples: the probability-flow equation by Euler's method.",
                             "Karras, Aittala, Aila, Laine, NeurIPS 2022", false);
}

}  // namespace percept::diffusion
