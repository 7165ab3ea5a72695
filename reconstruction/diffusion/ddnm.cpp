/// Denoising diffusion null-space model, DDNM and DDNM+.
#include <cmath>

#include "reconstruction/diffusion/sampler.h"

namespace percept::diffusion {
namespace {

struct DdnmParams : LevelParams {
  DdnmParams() { steps = 50; }
  double eta = 0.85;
  static constexpr auto fields() {
    using P = DdnmParams;
    return std::tuple_cat(
        level_fields<P>(),
        std::tuple{
            field("eta", &P::eta, "1", "Share of the noise outside the measured part that is drawn anew.", 0.0, 1.0)});
  }
};

/// The measured part of the prediction is replaced by the measurement, the rest is left to the denoiser. With noise
/// (DDNM+) a component with singular value s is known to sd / s: above that level of noise it is replaced and noised up
/// to the next level; below, it is replaced in part, so that no more noise is in it than belongs to the level.
class Ddnm final : public Sampler {
 public:
  using Params = DdnmParams;
  Ddnm(const Params& params, const std::string& where) : Sampler(params, where), eta_(params.eta) {}
  std::string name() const override { return "ddnm"; }
  Needs needs(double sd) const override {
    Needs n{.measurement = true};
    (sd > 0 ? n.op.spectral : n.op.pseudo_inverse) = true;
    return n;
  }

  void walk(Run& run, Batch& x) const override {
    Batch x0, seen;
    if (run.sd() > 0) run.seen(seen);
    for (Index i = run.first(); i < steps(); ++i) {
      run.denoise(x, level(i), x0);
      run.observe(i, x, x0);
      x = (x - x0) / static_cast<float>(level(i));  // the noise estimate
      if (run.sd() > 0) noisy(run, level(i + 1), seen, x0, x);
      else exact(run, level(i + 1), x0, x);
    }
  }

 private:
  /// x: in the noise estimate, out the next state.
  void exact(Run& run, double next, Batch& x0, Batch& x) const {
    Batch z, known, moved;
    run.apply(x0, moved);
    run.pseudo_inverse(run.y() - moved, known);
    x0 += known;
    x = x0 + static_cast<float>(next * std::sqrt(1 - eta_ * eta_)) * x;
    if (next == 0) return;
    run.normal(z);
    x += static_cast<float>(next * eta_) * z;
  }

  void noisy(Run& run, double next, const Batch& seen, Batch& x0, Batch& x) const {
    const double plain = next * std::sqrt(1 - eta_ * eta_), fresh = next * eta_;
    const Eigen::VectorXf& s = run.singular_values();
    Batch c, e, z, w, back;
    run.to_range(x0, c);
    run.to_range(x, e);
    run.normal(z);
    run.to_range(z, w);
    // changes of the measured components of x0 and of the noise, against what the others get
    for (Index k = 0; k < s.size(); ++k) {
      const double known_to = run.sd() / static_cast<double>(s(k));
      const bool above = next >= known_to;
      const double part = above ? 1.0 : plain / known_to;
      const double noise = above ? std::sqrt(next * next - known_to * known_to) : fresh;
      c.row(k) = static_cast<float>(part) * (seen.row(k) / s(k) - c.row(k));
      e.row(k) = static_cast<float>(-plain) * e.row(k) + static_cast<float>(noise - fresh) * w.row(k);
    }
    run.from_range(c, back);
    x0 += back;
    x = x0 + static_cast<float>(plain) * x + static_cast<float>(fresh) * z;
    run.from_range(e, back);
    x += back;
  }

  double eta_;
};

}  // namespace

SamplerInfo sampler_ddnm() {
  return sampler_info<Ddnm>("ddnm",
                            "Posterior samples: DDNM, with a noisy measurement DDNM+: what is measured is taken from "
                            "the measurement, the rest from the denoiser.",
                            "Wang, Yu, Zhang, ICLR 2023", true);
}

}  // namespace percept::diffusion
