/// Slightly deformed copies of images: more of the same kind for a library.
#pragma once

#include <Eigen/Core>
#include <cstdint>

#include "core/stream.h"
#include "numerics/random.h"

namespace percept {

/// One standard deviation of each. Defaults: as different as two writings of a digit by one hand.
struct DeformOptions {
  double rotation = 0.06;    ///< rad
  double scale = 0.04;       ///< of height and width, each by itself
  double shear = 0.05;       ///< of columns against rows
  double shift_px = 0.4;     ///< in both directions
  double bend_px = 0.4;      ///< displacement of a point by a smooth field
  double bend_every_px = 7;  ///< between the control points of that field, a cubic B-spline
  /// All sizes times a factor.
  DeformOptions times(double factor) const;
};

/// Rotates, scales, shears, shifts and bends (a free-form deformation: Rueckert et al., IEEE Trans. Medical Imaging 18
/// (1999) 712) an image about its middle. Pixels between pixels by cubic convolution (Keys, IEEE Trans. ASSP 29 (1981)
/// 1153); outside the image is zero, and no value leaves the range of the image.
class Deformation {
 public:
  /// Throws Error when a size is not above zero, or a spread below.
  Deformation(Index height, Index width, const DeformOptions& options = {});
  /// Copy number `copy` of an image that random numbers know as `key`. Columns of height x width pixels, last index
  /// fastest.
  Eigen::VectorXd operator()(const Eigen::Ref<const Eigen::VectorXd>& image, const KeyedRandom& random,
                             std::int64_t key, std::int64_t copy) const;

 private:
  Index height_, width_;
  DeformOptions options_;
  Eigen::MatrixXd rows_, columns_;  ///< pixels x control points of one direction
};

}  // namespace percept
