/// Metropolis in the noise that a run of a prior sampler begins from.
#include <algorithm>
#include <cmath>

#include "reconstruction/diffusion/sampler.h"

namespace percept::diffusion {
namespace {

struct PcnParams : LevelParams {
  PcnParams() { steps = 12; }
  std::int64_t moves = 50, kept = 1;
  double step = 1;
  std::string flow = "gradient_estimation";
  static constexpr auto fields() {
    using P = PcnParams;
    return std::tuple_cat(
        level_fields<P>(),
        std::tuple{field("moves", &P::moves, "1",
                         "Images that a chain tries after its first, each a whole run of the prior sampler; in the "
                         "first half it finds its step.",
                         1.0, 1e6),
                   field("kept", &P::kept, "1",
                         "Samples that are taken from one chain, evenly over the second half of its moves.", 1.0, 1e6),
                   field("step", &P::step, "1",
                         "Step that a chain begins with, 1 being a new image; it then finds its own.", 1e-9, 1.0),
                   choice("flow", &P::flow, "The prior sampler: euler, heun or gradient_estimation.",
                          "euler|heun|gradient_estimation")});
  }
};

/// The prior is what the prior sampler makes of normal noise, in however few steps. Proposals z' = sqrt(1 - s²) z + s n
/// leave that noise as it is distributed, so that the likelihood alone decides whether the image of z' is taken. Each
/// chain adapts its s in the first half of its moves to accept a quarter of them. A run that begins from an image has
/// as its prior what the prior sampler makes of that image, noised.
class Pcn final : public Sampler {
 public:
  using Params = PcnParams;
  Pcn(const Params& params, const std::string& where) : Sampler(params, where), p_(params) {}
  std::string name() const override { return "pcn"; }
  Needs needs(double) const override { return {.measurement = true}; }
  Index columns(Index samples) const override { return (samples + p_.kept - 1) / p_.kept; }

  void walk(Run& run, Batch& x) const override {
    const auto flow = make_sampler(p_.flow, Value::table(), "pcn");
    flow->set_levels(levels(), "pcn");
    const double sd = level(run.first()), tau = std::max(run.sd(), 1e-6 * sd);
    const Batch centre = run.centre();
    Batch z = x - centre, image = x, residual, n, tried;
    Eigen::VectorXd luck, loss, log_step = Eigen::VectorXd::Constant(x.cols(), std::log(p_.step));
    const auto loss_of = [&](const Batch& v) {
      run.apply(v, residual);
      residual -= run.y();
      return Eigen::VectorXd(residual.cast<double>().colwise().squaredNorm().transpose() / (2 * tau * tau));
    };
    run.hush(true);
    flow->walk(run, image);
    loss = loss_of(image);

    const Index samples = run.samples(), chains = columns(samples);
    Batch out(x.rows(), run.items() * samples);
    const std::int64_t adapting = p_.moves / 2, after = p_.moves - adapting;
    std::int64_t taken = 0;
    for (std::int64_t k = 0; k < p_.moves; ++k) {
      run.normal(n);
      run.uniform(luck);
      tried.resizeLike(z);
      for (Index j = 0; j < z.cols(); ++j) {
        const double s = std::exp(log_step(j));
        tried.col(j) = static_cast<float>(std::sqrt(1 - s * s)) * z.col(j) + static_cast<float>(s * sd) * n.col(j);
      }
      Batch proposed = centre + tried;
      flow->walk(run, proposed);
      const Eigen::VectorXd others = loss_of(proposed);
      for (Index j = 0; j < z.cols(); ++j) {
        const double accept = std::exp(std::min(0.0, loss(j) - others(j)));  // NaN: refused
        if (luck(j) < accept) {
          z.col(j) = tried.col(j);
          image.col(j) = proposed.col(j);
          loss(j) = others(j);
        }
        if (k < adapting)
          log_step(j) = std::clamp(log_step(j) + 0.3 * ((accept > 0 ? accept : 0.0) - 0.25), -20.0, 0.0);
      }
      while (k >= adapting && taken < p_.kept && (k - adapting + 1) * p_.kept >= (taken + 1) * after) {
        // sample s of an item is state s / chains of its chain s % chains
        for (Index item = 0; item < run.items(); ++item)
          for (Index c = 0; c < chains && taken * chains + c < samples; ++c)
            out.col(item * samples + taken * chains + c) = image.col(item * chains + c);
        ++taken;
      }
    }
    run.hush(false);
    if (run.observed()) {
      Batch last = centre + z;
      flow->walk(run, last);
    }
    x = std::move(out);
  }

 private:
  Params p_;
};

}  // namespace

SamplerInfo sampler_pcn() {
  return sampler_info<Pcn>(
      "pcn",
      "Posterior samples of any operator, exact but slow: a Metropolis chain in the noise that a prior sampler starts "
      "from.",
      "Cotter, Roberts, Stuart, White, Statistical Science 28 (2013) 424", true);
}

}  // namespace percept::diffusion
