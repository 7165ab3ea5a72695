/// Denoising diffusion implicit models.
#include <cmath>

#include "reconstruction/diffusion/sampler.h"

namespace percept::diffusion {
namespace {

struct DdimParams : LevelParams {
  double eta = 0, clip = 0;
  static constexpr auto fields() {
    using P = DdimParams;
    return std::tuple_cat(
        level_fields<P>(),
        std::tuple{field("eta", &P::eta, "1", "Share of the noise that is drawn anew: 0 none, 1 as DDPM.", 0.0, 1.0),
                   field("clip", &P::clip, "1",
                         "Predicted images are limited to [-clip, clip] before they are noised again; 0: they are not.",
                         0.0, 1e6)});
  }
};

class Ddim final : public Sampler {
 public:
  using Params = DdimParams;
  Ddim(const Params& params, const std::string& where)
      : Sampler(params, where), eta_(params.eta), clip_(static_cast<float>(params.clip)) {}
  std::string name() const override { return "ddim"; }

  void walk(Run& run, Batch& x) const override {
    Batch x0, z;
    for (Index i = run.first(); i < steps(); ++i) {
      const double sigma = level(i), next = level(i + 1);
      run.denoise(x, sigma, x0);
      run.observe(i, x, x0);
      // in sigma the paper's eq. 16 is eta² next² (1 - next² / sigma²)
      const double fresh = eta_ * next * std::sqrt(1 - next * next / (sigma * sigma));
      const double kept = std::sqrt(std::max(0.0, next * next - fresh * fresh)) / sigma;
      x = static_cast<float>(kept) * (x - x0);  // the noise estimate belongs to the prediction as it was
      if (clip_ > 0) x0 = x0.cwiseMax(-clip_).cwiseMin(clip_);
      x += x0;
      if (fresh > 0) {
        run.normal(z);
        x += static_cast<float>(fresh) * z;
      }
    }
  }

 private:
  double eta_;
  float clip_;
};

}  // namespace

SamplerInfo sampler_ddim() {
  return sampler_info<Ddim>("ddim", "Prior samples: DDIM, which with eta above 0 draws part of the noise anew.",
                            "Song, Meng, Ermon, ICLR 2021", false);
}

}  // namespace percept::diffusion
