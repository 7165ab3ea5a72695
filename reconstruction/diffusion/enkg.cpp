/// Ensemble Kalman diffusion guidance.
#include <algorithm>

#include "reconstruction/diffusion/sampler.h"
#include "reconstruction/diffusion/schedule.h"

namespace percept::diffusion {
namespace {

struct EnkgParams : LevelParams {
  EnkgParams() { steps = 80; }
  std::int64_t particles = 64, updates = 2, ode_steps = 20;
  double weight = 2, quiet = 0.05;
  static constexpr auto fields() {
    using P = EnkgParams;
    return std::tuple_cat(
        level_fields<P>(),
        std::tuple{
            field("particles", &P::particles, "1", "Size of the ensemble of an item, if no more samples are asked for.",
                  2.0, 1e5),
            field("updates", &P::updates, "1", "Kalman updates at each level.", 1.0, 100.0),
            field("ode_steps", &P::ode_steps, "1",
                  "Most Euler steps from a level to the image it predicts; fewer are taken near the end.", 1.0, 1000.0),
            field("weight", &P::weight, "1", "Step of an update (published: 2 to 3.5).", 0.0, 1e3),
            field("quiet", &P::quiet, "1", "Share of the steps at the beginning, and at the end, without updates.", 0.0,
                  0.5)});
  }
};

/// An update moves the particles along their own covariance with what is measured of them. It is scaled to a fixed
/// size, so it does not know the noise of the measurement, and its spread is that of an ensemble, not of a posterior.
class Enkg final : public Sampler {
 public:
  using Params = EnkgParams;
  Enkg(const Params& params, const std::string& where) : Sampler(params, where), p_(params) {}
  std::string name() const override { return "enkg"; }
  Needs needs(double) const override { return {.measurement = true}; }
  Index columns(Index samples) const override { return std::max<Index>(samples, p_.particles); }

  void walk(Run& run, Batch& x) const override {
    const Index n = steps(), quiet = static_cast<Index>(p_.quiet * static_cast<double>(n));
    Batch x0;
    for (Index i = run.first(); i < n; ++i) {
      if (i >= quiet && i < n - quiet)
        for (std::int64_t k = 0; k < p_.updates; ++k)
          update(run, level(i), std::min<Index>(1 + (n - i) / 4, p_.ode_steps), x);
      run.denoise(x, level(i), x0);
      run.observe(i, x, x0);
      x = x0 + static_cast<float>(level(i + 1) / level(i)) * (x - x0);
    }
  }

 private:
  void update(Run& run, double sigma, Index ode_steps, Batch& x) const {
    Batch image, measured, d, u = x;
    const double low = std::min(0.002, 0.5 * sigma);
    const auto way = karras_levels(ode_steps, sigma, low, 7, "enkg");
    for (std::size_t k = 0; k + 1 < way.size(); ++k) {
      run.denoise(u, way[k], d);
      u = d + static_cast<float>(way[k + 1] / way[k]) * (u - d);
    }
    run.apply(u, measured);
    run.require_finite(measured, "the operator's output");
    const Index j = x.cols() / run.items();
    for (Index item = 0; item < run.items(); ++item) {
      auto block = x.middleCols(item * j, j);
      const auto seen = measured.middleCols(item * j, j);
      const Batch error = seen - run.y().middleCols(item * j, j);
      const Batch off = seen.colwise() - seen.rowwise().mean();
      const Batch c = error.transpose() * off / static_cast<float>(j);  // particles x particles
      const float size = c.norm();
      if (!(size > 0)) continue;
      const Batch away = block.colwise() - block.rowwise().mean();
      block -= static_cast<float>(p_.weight) / size * (away * c.transpose());
    }
  }

  Params p_;
};

}  // namespace

SamplerInfo sampler_enkg() {
  return sampler_info<Enkg>("enkg",
                            "Black-box operators: ensemble Kalman guidance, which needs nothing but values of A(x).",
                            "Zheng et al., TMLR 2025 (arXiv 2409.20175)", true);
}

}  // namespace percept::diffusion
