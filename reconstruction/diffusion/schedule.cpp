#include "reconstruction/diffusion/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace percept::diffusion {
namespace {
void require_steps(Index steps, Index most, const std::string& where) {
  if (steps < 1 || steps > most)
    throw ConfigError(where + ".steps", std::to_string(steps), fmt::format("1 to {}", most));
}
}  // namespace

std::vector<double> karras_levels(Index steps, double max, double min, double rho, const std::string& where) {
  require_steps(steps, 1000000, where);
  if (!(min > 0) || !(max > min || (steps == 1 && max >= min)) || !std::isfinite(max))
    throw ConfigError(where + ".sigma_min", fmt::format("{}", min),
                      fmt::format("above 0 and below sigma_max = {}", max));
  if (!(rho > 0)) throw ConfigError(where + ".rho", fmt::format("{}", rho), "a number above zero");
  std::vector<double> levels(static_cast<std::size_t>(steps) + 1, 0.0);
  const double high = std::pow(max, 1 / rho), low = std::pow(min, 1 / rho);
  for (Index i = 0; i < steps; ++i) {
    const double way = steps == 1 ? 0.0 : static_cast<double>(i) / static_cast<double>(steps - 1);
    levels[static_cast<std::size_t>(i)] = std::pow(high + way * (low - high), rho);
  }
  return levels;
}

VpNoise::VpNoise(double first_beta, double last_beta, bool scaled, Index times) : sigma_(times) {
  if (times < 2) throw ConfigError("diffusion.times", std::to_string(times), "at least 2");
  if (!(first_beta > 0 && first_beta <= last_beta && last_beta < 1))
    throw ConfigError("diffusion.beta", fmt::format("{} to {}", first_beta, last_beta), "rising, above 0 and below 1");
  const double first = scaled ? std::sqrt(first_beta) : first_beta, last = scaled ? std::sqrt(last_beta) : last_beta;
  double a = 1;
  for (Index t = 0; t < times; ++t) {
    const double root = first + (last - first) * static_cast<double>(t) / static_cast<double>(times - 1);
    a *= 1 - (scaled ? root * root : root);
    sigma_(t) = std::sqrt((1 - a) / a);
  }
}

double VpNoise::sigma(double time) const noexcept {
  const double last = static_cast<double>(times() - 1), t = std::clamp(time, 0.0, last);
  const Index below = std::min(static_cast<Index>(t), times() - 2);
  return sigma_(below) + (t - static_cast<double>(below)) * (sigma_(below + 1) - sigma_(below));
}

double VpNoise::time(double sigma) const noexcept {
  const double* end = sigma_.data() + times();
  const double* above = std::upper_bound(sigma_.data(), end, sigma);
  if (above == sigma_.data()) return 0;
  if (above == end) return static_cast<double>(times() - 1);
  return static_cast<double>(above - sigma_.data() - 1) + (sigma - above[-1]) / (above[0] - above[-1]);
}

std::vector<double> VpNoise::leading(Index steps, Index offset, const std::string& where) const {
  require_steps(steps, times(), where);
  std::vector<double> levels;
  for (Index k = steps - 1; k >= 0; --k) levels.push_back(sigma(static_cast<double>(k * (times() / steps) + offset)));
  levels.push_back(0);
  return levels;
}

std::vector<double> VpNoise::linspace(Index steps, const std::string& where) const {
  require_steps(steps, times(), where);
  std::vector<double> levels;
  const double last = static_cast<double>(times() - 1);
  for (Index i = 0; i < steps; ++i)
    levels.push_back(sigma(steps == 1 ? last : last * (1 - static_cast<double>(i) / static_cast<double>(steps - 1))));
  levels.push_back(0);
  return levels;
}

}  // namespace percept::diffusion
