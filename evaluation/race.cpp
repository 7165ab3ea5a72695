#include "evaluation/race.h"

#include <cmath>
#include <limits>
#include <numbers>

namespace percept::evaluation {

// Abramowitz, Stegun 26.7.3 and 26.7.4: a finite sum for whole degrees of freedom.
double student_tail(double t, int degrees) {
  if (std::isinf(t)) return t > 0 ? 0 : 1;
  const double angle = std::atan(std::abs(t) / std::sqrt(degrees)), cosine2 = std::pow(std::cos(angle), 2);
  const bool odd = degrees % 2 == 1;
  double sum = 0, term = 1;
  for (int k = odd ? 1 : 0; k + 2 <= degrees; k += 2) {  // term of cos^k, a factor cos of odd degrees outside
    sum += term;
    term *= cosine2 * (k + 1) / (k + 2);
  }
  const double inside = odd ? 2 / std::numbers::pi * (angle + std::sin(angle) * std::cos(angle) * sum)
                            : std::sin(angle) * sum;  // P(|T| < |t|)
  const double above = std::max(0.0, 1 - inside) / 2;
  return t >= 0 ? above : 1 - above;
}

double paired_p(std::span<const double> differences) {
  const auto n = static_cast<double>(differences.size());
  if (differences.size() < 2) return 1;
  double mean = 0, square = 0;
  for (double d : differences) mean += d / n;
  for (double d : differences) square += (d - mean) * (d - mean);
  if (!std::isfinite(mean) || !std::isfinite(square)) return 1;
  if (mean == 0) return 1;
  return student_tail(mean / std::sqrt(square / (n - 1) / n), static_cast<int>(differences.size()) - 1);
}

std::vector<GivenUp> give_up(const std::vector<Standing>& candidates, bool lower_is_better, double level) {
  auto worse = [&](double a, double b) { return lower_is_better ? a > b : a < b; };
  std::vector<GivenUp> out;
  const Standing* leader = nullptr;
  for (auto& c : candidates)
    if (std::isfinite(c.pooled) && (!leader || worse(leader->pooled, c.pooled))) leader = &c;
  if (!leader) return out;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const auto& c = candidates[i];
    bool loses = std::isfinite(c.pooled) && worse(c.pooled, leader->pooled);
    std::vector<double> differences;
    for (std::size_t f = 0; f < c.folds.size() && loses; ++f) {
      loses = worse(c.folds[f], leader->folds[f]);  // never where one is undefined
      differences.push_back(std::abs(c.folds[f] - leader->folds[f]));
    }
    if (!loses) continue;
    if (const double p = paired_p(differences); p < level)
      out.push_back({i, static_cast<std::size_t>(leader - candidates.data()), p});
  }
  return out;
}

}  // namespace percept::evaluation
