#include "numerics/optimise.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <utility>

#include "core/error.h"

namespace percept {

using Eigen::VectorXd;

Minimum1d minimise_1d(const std::function<double(double)>& f, double low, double high, double tolerance, int grid) {
  Minimum1d out;
  out.value = std::numeric_limits<double>::infinity();
  const auto at = [&](double x) {
    ++out.evaluations;
    const double v = f(x);
    return std::isfinite(v) ? v : std::numeric_limits<double>::infinity();
  };
  const double step = (high - low) / (grid - 1);
  for (int i = 0; i < grid; ++i) {
    const double x = low + step * i, v = at(x);
    if (v < out.value) out.x = x, out.value = v;
  }
  if (!std::isfinite(out.value)) throw Error("minimum: the function is finite nowhere on its interval");

  // x is the best point, w the second best, v the one before; the minimum lies in [a, b]
  double a = std::max(low, out.x - step), b = std::min(high, out.x + step);
  double x = out.x, w = x, v = x, fx = out.value, fw = fx, fv = fx, moved = 0, before = 0;
  const double golden = 0.5 * (3 - std::sqrt(5.0));
  for (int i = 0; i < 200; ++i) {
    const double middle = 0.5 * (a + b);
    if (std::abs(x - middle) <= 2 * tolerance - 0.5 * (b - a)) break;
    bool parabola = false;
    if (std::abs(before) > tolerance && std::isfinite(fw) && std::isfinite(fv)) {
      const double r = (x - w) * (fx - fv), q0 = (x - v) * (fx - fw);
      double p = (x - v) * q0 - (x - w) * r, q = 2 * (q0 - r);
      if (q > 0) p = -p;
      q = std::abs(q);
      parabola = std::abs(p) < std::abs(0.5 * q * before) && p > q * (a - x) && p < q * (b - x);
      if (parabola) {
        before = std::exchange(moved, p / q);
        if (x + moved - a < 2 * tolerance || b - x - moved < 2 * tolerance)
          moved = std::copysign(tolerance, middle - x);
      }
    }
    if (!parabola) {
      before = x < middle ? b - x : a - x;
      moved = golden * before;
    }
    const double u = x + (std::abs(moved) >= tolerance ? moved : std::copysign(tolerance, moved)), fu = at(u);
    if (fu <= fx) {
      (u < x ? b : a) = x;
      v = w, fv = fw, w = x, fw = fx, x = u, fx = fu;
    } else {
      (u < x ? a : b) = u;
      if (fu <= fw || w == x) v = w, fv = fw, w = u, fw = fu;
      else if (fu <= fv || v == x || v == w) v = u, fv = fu;
    }
  }
  out.x = x, out.value = fx;
  return out;
}

MinimumNd minimise_lbfgs(const GradientFn& f, VectorXd start, const LbfgsOptions& options) {
  MinimumNd out;
  out.x = std::move(start);
  VectorXd gradient(out.x.size());
  out.value = f(out.x, gradient);
  out.evaluations = 1;
  if (!std::isfinite(out.value) || !gradient.allFinite())
    throw Error("minimum: the function is not finite at its start");

  struct Pair {
    VectorXd step, change;
    double scale;  ///< 1 / (stepᵀ change)
  };
  std::deque<Pair> pairs;
  VectorXd trial, trial_gradient(out.x.size());
  std::vector<double> alpha;
  int small = 0;  // one small step may be an accident of the line search
  while (out.iterations < options.iterations && !out.converged) {
    VectorXd direction = -gradient;
    alpha.assign(pairs.size(), 0);
    for (std::size_t i = pairs.size(); i-- > 0;) {
      alpha[i] = pairs[i].scale * pairs[i].step.dot(direction);
      direction -= alpha[i] * pairs[i].change;
    }
    if (!pairs.empty()) direction *= 1 / (pairs.back().scale * pairs.back().change.squaredNorm());
    for (std::size_t i = 0; i < pairs.size(); ++i)
      direction += (alpha[i] - pairs[i].scale * pairs[i].change.dot(direction)) * pairs[i].step;
    double slope = direction.dot(gradient);
    if (!(slope < 0)) {
      pairs.clear();
      direction = -gradient;
      slope = -gradient.squaredNorm();
    }
    const double furthest = direction.cwiseAbs().maxCoeff();
    if (!(furthest > 0)) {
      out.converged = true;
      break;
    }
    double length = std::min(pairs.empty() ? 0.5 / furthest : 1.0, options.largest_step / furthest);
    double value = out.value;
    bool found = false;
    for (int i = 0; i < 25 && !found; ++i) {
      trial = out.x + length * direction;
      value = f(trial, trial_gradient);
      ++out.evaluations;
      const bool usable = std::isfinite(value) && trial_gradient.allFinite();
      found = usable && value <= out.value + 1e-4 * length * slope;
      if (found) break;
      // the parabola through value, slope and trial value, kept within a tenth and a half
      const double guess = usable ? -0.5 * slope * length * length / (value - out.value - length * slope) : 0;
      length = std::clamp(guess, 0.1 * length, 0.5 * length);
    }
    if (!found) {
      if (pairs.empty()) break;
      pairs.clear();  // the curvature misled: once more along the gradient
      continue;
    }
    ++out.iterations;
    const VectorXd step = trial - out.x, change = trial_gradient - gradient;
    if (const double product = step.dot(change); product > 1e-10 * step.norm() * change.norm()) {
      pairs.push_back({step, change, 1 / product});
      if (static_cast<int>(pairs.size()) > options.memory) pairs.pop_front();
    }
    small = out.value - value <= options.tolerance * std::max(1.0, std::abs(value)) ? small + 1 : 0;
    out.x = trial;
    out.value = value;
    gradient = trial_gradient;
    out.converged = small >= 2;
  }
  return out;
}

}  // namespace percept
