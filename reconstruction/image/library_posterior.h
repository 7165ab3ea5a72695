/// A posterior over the images of a library, and the estimates that are taken from it.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <vector>

#include "core/stream.h"
#include "numerics/random.h"
#include "numerics/ssim.h"
#include "reconstruction/image/contrast.h"
#include "reconstruction/image/deform.h"

namespace percept {

/// The images of a prior, with deformed copies behind them, and what an encoding model sees of them.
struct PriorImages {
  Eigen::MatrixXf images;    ///< pixels x n
  Eigen::MatrixXd features;  ///< features x n
};
/// images: pixels x m; n = m (1 + copies), copy c of image k in column m (1 + c) + k.
PriorImages prior_images(const Eigen::MatrixXd& images, const ContrastFeatures& features, Index copies,
                         const Deformation& deform, const KeyedRandom& random);

/// exp(log) / sum exp(log), without overflow. Not finite entries get no weight; all zero when there is none.
Eigen::VectorXd normalised(const Eigen::VectorXd& log);

/// Images with a weight below 1e-7 of the largest are left out; the others by falling weight, the first of equals first.
struct Heaviest {
  std::vector<Index> index;
  Eigen::VectorXd weight;  ///< sums to one
};
Heaviest heaviest(const Eigen::VectorXd& weights, Index most);

struct Moments {
  Eigen::VectorXd mean, sd;
};
/// Over the weighted columns of images.
Moments weighted_moments(const Eigen::MatrixXf& images, const Heaviest& heavy);

/// The x that maximises sum_k weight_k (SSIM(x, image_k) - mse_weight mean squared difference (x, image_k)), climbing from the
/// weighted mean, which is where the second part alone has its maximum; clipped to the range of the images.
Eigen::VectorXd ssim_optimal(const Ssim& ssim, const Eigen::MatrixXd& images, const Eigen::VectorXd& weights,
                             double mse_weight, int iterations);

}  // namespace percept
