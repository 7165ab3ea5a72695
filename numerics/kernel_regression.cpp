#include "numerics/kernel_regression.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"
#include "numerics/linalg.h"
#include "numerics/optimise.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr Index kColumns = 256;  // frames whose distances to all others are held at a time

/// Calls f(first, distances²) for blocks of columns of b: a.cols() x block, never negative.
template <class F>
void distance_blocks(const MatrixXd& a, const MatrixXd& b, F&& f) {
  const VectorXd centre = a.rowwise().mean();  // distances are differences: keep what is subtracted small
  const MatrixXd from = a.colwise() - centre, from_transposed = from.transpose();
  const VectorXd from_norm = from.colwise().squaredNorm();
  for (Index first = 0; first < b.cols(); first += kColumns) {
    const Index n = std::min(kColumns, b.cols() - first);
    const MatrixXd to = b.middleCols(first, n).colwise() - centre;
    MatrixXd distance = product(from_transposed, to);
    for (Index k = 0; k < n; ++k)
      distance.col(k) = (from_norm.array() + to.col(k).squaredNorm() - 2 * distance.col(k).array()).max(0.0);
    f(first, distance);
  }
}

/// Distances² become unnormalised weights, the largest of each column 1.
void weigh(MatrixXd& distance, double scale) {
  for (Index k = 0; k < distance.cols(); ++k) {
    double* column = distance.col(k).data();
    wide::exponential(column, distance.rows(), 1, scale, wide::least(column, distance.rows()));
  }
}

}  // namespace

KernelWeights::KernelWeights(const MatrixXd& points, double bandwidth)
    : points_(points.cols()), inputs_(points.rows()), scale_(-0.5 / (bandwidth * bandwidth)),
      packed_(wide::packed(points)), weights_(wide::packs(points_) * wide::kPack, wide::kTogether) {}

void KernelWeights::look(const double* x, Index frames) noexcept {
  wide::distances2(packed_.data(), wide::packs(points_), inputs_, x, frames, weights_.data());
  for (Index f = 0; f < frames; ++f) weigh(f);
}

void KernelWeights::look_partly(const double* x) noexcept {
  wide::known_distances2(packed_.data(), wide::packs(points_), inputs_, x, weights_.data());
  weigh(0);
}

void KernelWeights::weigh(Index frame) noexcept {
  auto w = weights_.col(frame).head(points_).array();
  wide::exponential(w.data(), points_, 1, scale_, wide::least(w.data(), points_));
  w *= 1 / wide::sum(w.data(), points_);
}

MatrixXd kernel_regression(const MatrixXd& points, const MatrixXd& targets, double bandwidth, const MatrixXd& x) {
  MatrixXd out(targets.rows(), x.cols());
  distance_blocks(points, x, [&](Index first, MatrixXd& weights) {
    weigh(weights, -0.5 / (bandwidth * bandwidth));
    const VectorXd sums = weights.colwise().sum();
    out.middleCols(first, weights.cols()) = product(targets, weights) * sums.cwiseInverse().asDiagonal();
  });
  return out;
}

double leave_one_out_error(const MatrixXd& x, const MatrixXd& y, double bandwidth) {
  double sum = 0;
  distance_blocks(x, x, [&](Index first, MatrixXd& weights) {
    for (Index k = 0; k < weights.cols(); ++k) weights(first + k, k) = std::numeric_limits<double>::infinity();
    weigh(weights, -0.5 / (bandwidth * bandwidth));
    const VectorXd sums = weights.colwise().sum();
    sum += (product(y, weights) * sums.cwiseInverse().asDiagonal() - y.middleCols(first, weights.cols())).squaredNorm();
  });
  return sum / static_cast<double>(y.size());
}

Bandwidth leave_one_out_bandwidth(const MatrixXd& x, const MatrixXd& y, const std::string& where) {
  const Index n = x.cols();
  if (n < 3) throw DataError(where, "frames for the bandwidth", "at least 3", fmt::format("{}", n));
  std::vector<double> nearest;
  distance_blocks(x, x, [&](Index first, MatrixXd& distance) {
    for (Index k = 0; k < distance.cols(); ++k) {
      distance(first + k, k) = std::numeric_limits<double>::infinity();
      nearest.push_back(distance.col(k).minCoeff());
    }
  });
  const double spread = (x.colwise() - x.rowwise().mean()).squaredNorm() / static_cast<double>(n);
  if (!(spread > 1e-24 * x.squaredNorm() / static_cast<double>(n)))
    throw DataError(where, "inputs", "frames that differ", fmt::format("{} times the same frame", n));
  std::nth_element(nearest.begin(), nearest.begin() + n / 2, nearest.end());
  // frames that repeat have neighbours at no distance at all
  const double low = std::sqrt(std::max(nearest[static_cast<std::size_t>(n / 2)], 1e-6 * spread)) / 20;
  const Minimum1d best = minimise_1d([&](double log_h) { return leave_one_out_error(x, y, std::exp(log_h)); },
                                     std::log(low), std::log(std::max(3 * std::sqrt(spread), 4 * low)), 1e-4, 12);
  return {std::exp(best.x), best.value, best.evaluations};
}

}  // namespace percept
