#include "numerics/ridge.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>

#include "core/error.h"
#include "numerics/linalg.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

/// X of features x frames as X = U T with T Tᵀ = diag(values): every alpha is then a division.
struct Factors {
  MatrixXd u, t;    ///< features x rank, rank x frames
  VectorXd values;  ///< above rounding
};

Factors factorise(const MatrixXd& x) {
  const bool primal = x.rows() <= x.cols();
  const Eigensystem e = eigensystem(primal ? gram(x) : gram(x.transpose()));
  const Index all = e.values.size();
  const double largest = all ? e.values(all - 1) : 0;
  const Index rank = largest > 0 ? (e.values.array() > 1e-13 * largest).count() : 0;
  Factors f;
  f.values = e.values.tail(rank);
  const MatrixXd v = e.vectors.rightCols(rank);
  const VectorXd root = f.values.cwiseSqrt();
  if (primal) {
    f.u = v;
    f.t = product(v.transpose(), x);
  } else {
    f.u = product(x, v) * root.cwiseInverse().asDiagonal();
    f.t = root.asDiagonal() * v.transpose();
  }
  return f;
}

struct Centred {
  MatrixXd x, y;
  VectorXd x_mean, y_mean;
};

Centred centre(const MatrixXd& x, const MatrixXd& y, bool intercept) {
  if (!intercept) return {x, y, VectorXd::Zero(x.rows()), VectorXd::Zero(y.rows())};
  const VectorXd xm = x.rowwise().mean(), ym = y.rowwise().mean();
  return {x.colwise() - xm, y.colwise() - ym, xm, ym};
}

/// alpha = 0 has no unique answer here; it is left out of the choice rather than answered by an arbitrary one.
bool undetermined(double alpha, Index rank, Index features) { return alpha == 0 && rank < features; }

constexpr double kInfinite = std::numeric_limits<double>::infinity();

/// Summed squared errors of frames predicted by the fit without them: alphas x targets.
MatrixXd leave_one_out(const MatrixXd& x, const MatrixXd& y, const RidgeOptions& o) {
  const Centred c = centre(x, y, o.intercept);
  const Factors f = factorise(c.x);
  const MatrixXd yt = cross(c.y, f.t), squared = f.t.cwiseAbs2();
  const double own = o.intercept ? 1.0 / static_cast<double>(x.cols()) : 0.0;
  MatrixXd error(static_cast<Index>(o.alphas.size()), y.rows());
  for (Index a = 0; a < error.rows(); ++a) {
    const double alpha = o.alphas[static_cast<std::size_t>(a)];
    if (undetermined(alpha, f.values.size(), x.rows())) {
      error.row(a).setConstant(kInfinite);
      continue;
    }
    const VectorXd shrunk = (f.values.array() + alpha).inverse();
    const Eigen::ArrayXd leverage = (squared.transpose() * shrunk).array() + own;
    const MatrixXd residual = c.y - product(yt * shrunk.asDiagonal(), f.t);
    for (Index k = 0; k < y.rows(); ++k)
      error(a, k) = (residual.row(k).transpose().array() / (1.0 - leverage).max(1e-12)).square().sum();
  }
  return error;
}

MatrixXd over_folds(const MatrixXd& x, const MatrixXd& y, const RidgeOptions& o, const std::string& where) {
  std::map<std::int32_t, std::vector<Index>> members;
  for (Index i = 0; i < x.cols(); ++i) members[o.folds[static_cast<std::size_t>(i)]].push_back(i);
  if (members.size() < 2) throw DataError(where, "inner folds", "at least 2", std::to_string(members.size()));
  MatrixXd error = MatrixXd::Zero(static_cast<Index>(o.alphas.size()), y.rows());
  for (const auto& [fold, test] : members) {
    std::vector<Index> train;
    for (Index i = 0; i < x.cols(); ++i)
      if (o.folds[static_cast<std::size_t>(i)] != fold) train.push_back(i);
    const Centred c = centre(x(Eigen::all, train), y(Eigen::all, train), o.intercept);
    const Factors f = factorise(c.x);
    const MatrixXd yt = cross(c.y, f.t);
    const MatrixXd projected = product(f.u.transpose(), x(Eigen::all, test).colwise() - c.x_mean);
    const MatrixXd wanted = y(Eigen::all, test).colwise() - c.y_mean;
    for (Index a = 0; a < error.rows(); ++a) {
      const double alpha = o.alphas[static_cast<std::size_t>(a)];
      if (undetermined(alpha, f.values.size(), x.rows())) {
        error.row(a).setConstant(kInfinite);
        continue;
      }
      const VectorXd shrunk = (f.values.array() + alpha).inverse();
      error.row(a) += (wanted - product(yt * shrunk.asDiagonal(), projected)).rowwise().squaredNorm().transpose();
    }
  }
  return error;
}

/// Weights of some targets at one alpha.
MatrixXd weights_at(const Centred& c, const MatrixXd& y, double alpha, bool intercept, const std::string& where) {
  const Index features = c.x.rows(), unknowns = features + (intercept ? 1 : 0);
  if (alpha == 0 && c.x.cols() < unknowns)
    throw DataError(where, "training frames",
                    fmt::format("at least as many as there are features{} ({}); set alpha > 0",
                                intercept ? ", and one for the offset" : "", unknowns),
                    std::to_string(c.x.cols()));
  if (alpha == 0) return solve_normal(cross(y, c.x), gram(c.x), c.x.cols(), where, "; set alpha > 0");
  const Index n = std::min(features, c.x.cols());
  const MatrixXd penalty = alpha * MatrixXd::Identity(n, n);
  if (features <= c.x.cols()) return solve_normal(cross(y, c.x), gram(c.x) + penalty, features, where, "; raise alpha");
  return cross(solve_normal(y, gram(c.x.transpose()) + penalty, n, where, "; raise alpha"), c.x);
}

}  // namespace

MatrixXd RidgeFit::predict(const MatrixXd& x) const { return product(weights, x).colwise() + intercept; }

RidgeFit fit_ridge(const MatrixXd& x, const MatrixXd& y, const RidgeOptions& o, const std::string& where) {
  if (x.cols() != y.cols() || x.cols() < 2 || x.rows() < 1 || y.rows() < 1)
    throw DataError(where, "training frames", "at least 2, with features and as many target frames",
                    fmt::format("{} x {} and {} x {}", x.rows(), x.cols(), y.rows(), y.cols()));
  if (!x.allFinite() || !y.allFinite()) throw DataError(where, "training frames", "finite values", "NaN or infinity");
  if (o.alphas.empty()) throw ConfigError(where + ".alpha", "[]", "at least one value");
  for (const double alpha : o.alphas)
    if (!(alpha >= 0)) throw ConfigError(where + ".alpha", fmt::format("{}", alpha), "0 or more");

  RidgeFit fit;
  fit.alpha = VectorXd::Constant(y.rows(), o.alphas[0]);
  if (o.alphas.size() > 1) {
    fit.error = (o.folds.empty() ? leave_one_out(x, y, o) : over_folds(x, y, o, where)) / static_cast<double>(x.cols());
    VectorXd variance = (y.colwise() - y.rowwise().mean()).rowwise().squaredNorm() / static_cast<double>(x.cols());
    for (Index k = 0; k < y.rows(); ++k)
      if (o.one_unit || !(variance(k) > 0)) variance(k) = 1;  // a constant target: its error is 0 at every alpha
    const VectorXd joint = fit.error * variance.cwiseInverse();
    for (Index k = 0; k < y.rows(); ++k) {
      Index best = 0;
      if (o.per_target) fit.error.col(k).minCoeff(&best);
      else joint.minCoeff(&best);
      fit.alpha(k) = o.alphas[static_cast<std::size_t>(best)];
    }
  }

  const Centred c = centre(x, y, o.intercept);
  fit.weights.resize(y.rows(), x.rows());
  std::map<double, std::vector<Index>> targets;
  for (Index k = 0; k < y.rows(); ++k) targets[fit.alpha(k)].push_back(k);
  for (const auto& [alpha, rows] : targets)
    fit.weights(rows, Eigen::all) = weights_at(c, c.y(rows, Eigen::all), alpha, o.intercept, where);
  fit.intercept = c.y_mean - fit.weights * c.x_mean;
  return fit;
}

std::vector<std::int32_t> inner_folds(std::span<const std::int32_t> groups, Index frames, Index folds) {
  std::map<std::int32_t, std::int32_t> place;
  for (const std::int32_t g : groups) place.emplace(g, static_cast<std::int32_t>(place.size()));
  const Index n = std::max<Index>(2, folds);
  std::vector<std::int32_t> out(static_cast<std::size_t>(frames));
  for (Index i = 0; i < frames; ++i)
    out[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(
        place.size() > 1 ? place.at(groups[static_cast<std::size_t>(i)]) % n : i * n / frames);
  return out;
}

}  // namespace percept
