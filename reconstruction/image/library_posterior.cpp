#include "reconstruction/image/library_posterior.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "numerics/optimise.h"

namespace percept {

using Eigen::MatrixXd;
using Eigen::VectorXd;

PriorImages prior_images(const MatrixXd& images, const ContrastFeatures& features, Index copies,
                         const Deformation& deform, const KeyedRandom& random) {
  const Index m = images.cols();
  PriorImages out;
  out.images.resize(images.rows(), m * (1 + copies));
  out.features.resize(features.size(), m * (1 + copies));
  for (Index k = 0; k < m; ++k)
    for (Index c = 0; c <= copies; ++c) {
      const VectorXd image = c == 0 ? VectorXd(images.col(k)) : deform(images.col(k), random, k, c);
      out.images.col(m * c + k) = image.cast<float>();
      out.features.col(m * c + k) = features(image);
    }
  return out;
}

VectorXd normalised(const VectorXd& log) {
  double most = -HUGE_VAL;
  for (const double l : log)
    if (std::isfinite(l)) most = std::max(most, l);
  VectorXd out(log.size());
  for (Index k = 0; k < log.size(); ++k) out(k) = std::isfinite(log(k)) ? std::exp(log(k) - most) : 0;
  const double sum = out.sum();
  if (sum > 0) out /= sum;
  return out;
}

Heaviest heaviest(const VectorXd& weights, Index most) {
  const double least = 1e-7 * weights.maxCoeff();
  Heaviest out;
  for (Index k = 0; k < weights.size(); ++k)
    if (weights(k) > least) out.index.push_back(k);
  const auto heavier = [&](Index a, Index b) { return weights(a) > weights(b) || (weights(a) == weights(b) && a < b); };
  const auto keep = std::min(static_cast<std::size_t>(most), out.index.size());
  std::partial_sort(out.index.begin(), out.index.begin() + static_cast<std::ptrdiff_t>(keep), out.index.end(), heavier);
  out.index.resize(keep);
  out.weight = weights(out.index);
  if (keep > 0) out.weight /= out.weight.sum();
  return out;
}

Moments weighted_moments(const Eigen::MatrixXf& images, const Heaviest& heavy) {
  const auto column = [&](std::size_t k) { return images.col(heavy.index[k]).cast<double>(); };
  VectorXd mean = VectorXd::Zero(images.rows()), square = mean;
  for (std::size_t k = 0; k < heavy.index.size(); ++k) mean += heavy.weight(static_cast<Index>(k)) * column(k);
  for (std::size_t k = 0; k < heavy.index.size(); ++k)
    square.array() += heavy.weight(static_cast<Index>(k)) * (column(k) - mean).array().square();
  return {std::move(mean), square.cwiseSqrt()};
}

VectorXd ssim_optimal(const Ssim& ssim, const MatrixXd& images, const VectorXd& weights, double mse_weight,
                      int iterations) {
  const VectorXd mean = images * weights;
  const ExpectedSsim expected(ssim, images, weights);
  const double pull = mse_weight * weights.sum() / static_cast<double>(mean.size());
  // the mean squared difference to the images is that to their mean and a constant
  const auto loss = [&](const VectorXd& x, VectorXd& gradient) {
    const double value = expected.value(x, gradient);
    gradient = 2 * pull * (x - mean) - gradient;
    return pull * (x - mean).squaredNorm() - value;
  };
  const auto best = minimise_lbfgs(loss, mean, {.iterations = iterations, .tolerance = 1e-5, .largest_step = 0.3});
  return best.x.cwiseMax(images.minCoeff()).cwiseMin(images.maxCoeff());
}

}  // namespace percept
