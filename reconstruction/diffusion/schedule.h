/// Noise levels that a sampler walks down, in the convention of denoiser.h: sigma, falling, zero at the end.
#pragma once

#include <Eigen/Core>
#include <string>
#include <vector>

#include "core/stream.h"

namespace percept::diffusion {

/// `steps` levels from max to min, evenly spaced in their rho-th root, and then 0 (Karras et al., NeurIPS 2022, eq. 5;
/// rho 1 is even spacing). Throws ConfigError naming `where` unless max > min > 0 (max >= min for one step) and rho > 0.
std::vector<double> karras_levels(Index steps, double max, double min, double rho, const std::string& where);

/// The noise of networks trained on x_t = sqrt(a_t) x0 + sqrt(1 - a_t) n with t = 0, 1, ... (Ho et al., NeurIPS 2020):
/// here sigma_t = sqrt((1 - a_t) / a_t), and x_t is x / sqrt(1 + sigma²).
class VpNoise {
 public:
  /// a_t is the product of 1 - beta up to t; beta rises evenly, or in its square root (scaled).
  /// Throws ConfigError unless 0 < first <= last < 1 and times >= 2.
  VpNoise(double first_beta, double last_beta, bool scaled, Index times = 1000);
  static VpNoise linear() { return {1e-4, 0.02, false}; }            ///< of DDPM
  static VpNoise scaled_linear() { return {0.00085, 0.012, true}; }  ///< of latent diffusion
  Index times() const { return sigma_.size(); }
  /// Between whole times sigma is interpolated; outside of them the nearest is taken.
  double sigma(double time) const noexcept;
  /// The time of that sigma: the inverse of sigma().
  double time(double sigma) const noexcept;

  /// Times "leading" as DDIM takes them: offset + k (times / steps), the highest first; "linspace": evenly from the last
  /// to the first. Then 0. Throws ConfigError naming `where` when there are more steps than times.
  std::vector<double> leading(Index steps, Index offset, const std::string& where) const;
  std::vector<double> linspace(Index steps, const std::string& where) const;

 private:
  Eigen::VectorXd sigma_;  ///< of each time, rising
};

}  // namespace percept::diffusion
