/// Decoupled annealing posterior sampling.
#include <algorithm>
#include <cmath>

#include "reconstruction/diffusion/sampler.h"
#include "reconstruction/diffusion/schedule.h"

namespace percept::diffusion {
namespace {

struct DapsParams : LevelParams {
  DapsParams() {
    steps = 50;
    sigma_min = 0.1;
  }
  std::int64_t ode_steps = 2, moves = 100;
  std::string move = "langevin";
  double rate = 0.1, tau = 0, data_sd = 0;
  static constexpr auto fields() {
    using P = DapsParams;
    return std::tuple_cat(
        level_fields<P>(),
        std::tuple{
            field("ode_steps", &P::ode_steps, "1", "Euler steps from a level to the image it predicts.", 1.0, 1000.0),
            choice("move", &P::move,
                   "How the image is drawn that agrees with prediction and measurement: langevin (needs a gradient of "
                   "the operator), metropolis (needs nothing), exact (needs its singular values; no moves).",
                   "langevin|metropolis|exact"),
            field("moves", &P::moves, "1", "Langevin or Metropolis moves at each level.", 1.0, 1e6),
            field("rate", &P::rate, "1",
                  "Langevin: step in units of 1 / (|A|² / sd² + 1 / r²), the stiffest direction; its variance comes "
                  "out too large by rate / 2.",
                  1e-6, 1.0),
            field("tau", &P::tau, "1", "Noise that the measurement is taken to have; 0: what it has.", 0.0, 1e6),
            field(
                "data_sd", &P::data_sd, "1",
                "The image is taken to lie within r of the prediction: r = sigma, or, above 0, what is left of images "
                "of this standard deviation, 1 / r² = 1 / sigma² + 1 / data_sd².",
                0.0, 1e6)});
  }
};

/// At each level: predict the image, draw one that agrees with prediction and measurement, noise it to the next level.
class Daps final : public Sampler {
 public:
  using Params = DapsParams;
  Daps(const Params& params, const std::string& where) : Sampler(params, where), p_(params) {}
  std::string name() const override { return "daps"; }
  Needs needs(double) const override {
    return {.measurement = true, .op = {.gradient = p_.move == "langevin", .spectral = p_.move == "exact"}};
  }

  void walk(Run& run, Batch& x) const override {
    const double floor = 1e-4 * level(run.first());
    const double tau = std::max(p_.tau > 0 ? p_.tau : run.sd(), floor * 1e-2);
    Batch prediction, z;
    for (Index i = run.first(); i < steps(); ++i) {
      const double sigma = level(i);
      predict(run, x, sigma, prediction);
      run.observe(i, x, prediction);
      const double r = p_.data_sd > 0 ? sigma * p_.data_sd / std::hypot(sigma, p_.data_sd) : sigma;
      if (p_.move == "exact") exact(run, prediction, r, tau, x);
      else if (p_.move == "langevin") langevin(run, prediction, r, tau, x);
      else metropolis(run, prediction, r, tau, x);
      if (level(i + 1) == 0) continue;
      run.normal(z);
      x += static_cast<float>(level(i + 1)) * z;
    }
  }

 private:
  void predict(Run& run, const Batch& x, double sigma, Batch& x0) const {
    if (p_.ode_steps == 1) {
      run.denoise(x, sigma, x0);
      return;
    }
    // rho 7 down to a hundredth of where it began, then to zero
    const auto way = karras_levels(p_.ode_steps, sigma, 0.01 * sigma, 7, "daps");
    Batch u = x;
    for (std::size_t k = 0; k + 1 < way.size(); ++k) {
      run.denoise(u, way[k], x0);
      u = x0 + static_cast<float>(way[k + 1] / way[k]) * (u - x0);
    }
  }

  /// A draw of exp(-½ |A u - y|² / tau² - ½ |u - prediction|² / r²).
  static void exact(Run& run, const Batch& prediction, double r, double tau, Batch& u) {
    const Eigen::VectorXf& s = run.singular_values();
    Batch z, w, c, seen, back;
    run.normal(z);
    run.to_range(z, w);
    run.to_range(prediction, c);
    run.seen(seen);
    for (Index k = 0; k < s.size(); ++k) {
      const double v = static_cast<double>(s(k)), likelihood = v * v / (tau * tau), prior = 1 / (r * r);
      const double precision = likelihood + prior;
      // change of mean, and of noise that has the standard deviation r everywhere else
      w.row(k) = static_cast<float>(likelihood / precision) * (seen.row(k) / s(k) - c.row(k)) +
                 static_cast<float>(1 / std::sqrt(precision) - r) * w.row(k);
    }
    run.from_range(w, back);
    u = prediction + static_cast<float>(r) * z + back;
  }

  void langevin(Run& run, const Batch& prediction, double r, double tau, Batch& u) const {
    const double stiffest = run.norm() * run.norm() / (tau * tau) + 1 / (r * r), h = p_.rate / stiffest;
    Batch residual, gradient, z;
    u = prediction;
    for (std::int64_t k = 0; k < p_.moves; ++k) {
      run.apply(u, residual);
      residual -= run.y();
      run.operator_pull_back(u, residual, gradient);
      run.normal(z);
      u += static_cast<float>(-h / (tau * tau)) * gradient + static_cast<float>(h / (r * r)) * (prediction - u) +
           static_cast<float>(std::sqrt(2 * h)) * z;
    }
  }

  /// Proposals that leave exp(-½ |u - prediction|² / r²) as it is, so that the likelihood alone decides (Cotter,
  /// Roberts, Stuart, White, Statistical Science 28 (2013) 424). In the first half of the moves each column adapts its
  /// step to accept a quarter of them.
  void metropolis(Run& run, const Batch& prediction, double r, double tau, Batch& u) const {
    Batch residual, proposal, z;
    Eigen::VectorXd luck, loss, log_step;
    u = prediction;
    const auto loss_of = [&](const Batch& v) {
      run.apply(v, residual);
      residual -= run.y();
      return Eigen::VectorXd(residual.colwise().squaredNorm().transpose().cast<double>() / (2 * tau * tau));
    };
    loss = loss_of(u);
    log_step.setConstant(u.cols(), std::log(std::min(1.0, tau / (r * std::max(run.norm(), 1e-12)))));
    for (std::int64_t k = 0; k < p_.moves; ++k) {
      run.normal(z);
      run.uniform(luck);
      proposal.resizeLike(u);
      for (Index j = 0; j < u.cols(); ++j) {
        const double step = std::exp(log_step(j));
        proposal.col(j) = prediction.col(j) +
                          static_cast<float>(std::sqrt(1 - step * step)) * (u.col(j) - prediction.col(j)) +
                          static_cast<float>(step * r) * z.col(j);
      }
      const Eigen::VectorXd proposed = loss_of(proposal);
      for (Index j = 0; j < u.cols(); ++j) {
        const double accept = std::exp(std::min(0.0, loss(j) - proposed(j)));  // NaN: refused
        if (luck(j) < accept) {
          u.col(j) = proposal.col(j);
          loss(j) = proposed(j);
        }
        if (2 * k < p_.moves)
          log_step(j) = std::clamp(log_step(j) + 0.3 * ((accept > 0 ? accept : 0.0) - 0.25), -20.0, 0.0);
      }
    }
  }

  Params p_;
};

}  // namespace

SamplerInfo sampler_daps() {
  return sampler_info<Daps>("daps",
                            "Posterior samples: decoupled annealing; at each level an image is drawn that agrees with "
                            "the predicted one and with the measurement, and noised to the next level.",
                            "Zhang et al., CVPR 2025", true);
}

}  // namespace percept::diffusion
