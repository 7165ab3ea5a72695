/// Diffusion models for plug-and-play image restoration.
#include <cmath>

#include "reconstruction/diffusion/sampler.h"

namespace percept::diffusion {
namespace {

struct DiffpirParams : LevelParams {
  DiffpirParams() { steps = 50; }
  double lambda = 1, zeta = 0.3;
  static constexpr auto fields() {
    using P = DiffpirParams;
    return std::tuple_cat(
        level_fields<P>(),
        std::tuple{
            field("lambda", &P::lambda, "1",
                  "Weight of the prior: the predicted image counts as known to sigma / sqrt(lambda).", 1e-6, 1e6),
            field("zeta", &P::zeta, "1",
                  "Share of the noise that is drawn anew (published: 0.1 deblurring, 0.25 super-resolution, 1 "
                  "inpainting).",
                  0.0, 1.0)});
  }
};

class Diffpir final : public Sampler {
 public:
  using Params = DiffpirParams;
  Diffpir(const Params& params, const std::string& where)
      : Sampler(params, where), lambda_(params.lambda), zeta_(params.zeta) {}
  std::string name() const override { return "diffpir"; }
  Needs needs(double) const override { return {.measurement = true, .op = {.prox = true}}; }

  void walk(Run& run, Batch& x) const override {
    Batch x0, known, z;
    for (Index i = run.first(); i < steps(); ++i) {
      const double sigma = level(i), next = level(i + 1);
      run.denoise(x, sigma, x0);
      run.observe(i, x, x0);
      // argmin ½ |A u - y|² / sd² + ½ lambda |u - D|² / sigma²; sd 0 is the limit
      const double sd = std::max(run.sd(), 1e-4 * sigma);
      run.prox(x0, lambda_ * sd * sd / (sigma * sigma), known);
      x = known + static_cast<float>(next * std::sqrt(1 - zeta_) / sigma) * (x - known);
      if (next == 0 || zeta_ == 0) continue;
      run.normal(z);
      x += static_cast<float>(next * std::sqrt(zeta_)) * z;
    }
  }

 private:
  double lambda_, zeta_;
};

}  // namespace

SamplerInfo sampler_diffpir() {
  return sampler_info<Diffpir>("diffpir",
                               "Near the most likely image: DiffPIR, where each prediction is moved to the "
                               "compromise with the measurement.",
                               "Zhu et al., CVPR Workshops 2023", true);
}

}  // namespace percept::diffusion
