/// Rings of every place and size as images, and voxels that see them: what encoding models are tested on.
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <memory>
#include <vector>

#include "core/model.h"
#include "numerics/random.h"
#include "reconstruction/image/contrast.h"
#include "reconstruction/image/image_library.h"
#include "tests/support/driver.h"

namespace percept::testing {

/// Rings of every place and size, and voxels that see the contrast of one place each, with noise.
struct World {
  static constexpr Index kSide = 16, kPixels = kSide * kSide, kVoxels = 60;
  StreamFormat images = item_format({kSide, kSide}, Scalar::f64, "image");
  StreamFormat voxels = item_format({kVoxels});
  ContrastFeatures features{kSide, kSide};

  static Eigen::VectorXd ring(std::int64_t key) {
    const KeyedRandom random(2, "ring");
    const double y0 = 5 + 5 * random.uniform(key, 0), x0 = 5 + 5 * random.uniform(key, 1),
                 radius = 2 + 3 * random.uniform(key, 2);
    Eigen::VectorXd image(kPixels);
    for (Index k = 0; k < kPixels; ++k) {
      const double from_ring =
          std::hypot(static_cast<double>(k / kSide) - y0, static_cast<double>(k % kSide) - x0) - radius;
      image(k) = std::exp(-from_ring * from_ring);
    }
    return image;
  }
  static Eigen::MatrixXd rings(std::int64_t first, Index count) {
    Eigen::MatrixXd out(kPixels, count);
    for (Index k = 0; k < count; ++k) out.col(k) = ring(first + k);
    return out;
  }
  Eigen::MatrixXd responses(const Eigen::MatrixXd& seen, double noise) const {
    const KeyedRandom random(3, "voxel");
    const Eigen::MatrixXd f = features.each(seen);
    Eigen::MatrixXd out(kVoxels, seen.cols());
    for (Index v = 0; v < kVoxels; ++v) {
      const auto at = static_cast<Index>(random.uniform(v, 0) * static_cast<double>(f.rows()));
      for (Index t = 0; t < out.cols(); ++t)
        out(v, t) = 5 + f(at, t) + noise * random.normal(v, static_cast<std::uint64_t>(100 + t));
    }
    return out;
  }
};

inline Context with_library(const Eigen::MatrixXd& images, std::vector<Index> shape = {World::kSide, World::kSide}) {
  auto library = std::make_shared<Model>();
  const StreamFormat format = item_format(shape, Scalar::f64, "image");
  library->meta = Value::object({{"stage", "image_library"}, {"version", 1}});
  library->meta["image_shape"] = Value(shape);
  store_images(*library, images);
  Context context;
  context.node = "node";
  context.priors = {{"library", "image_library", library}};
  return context;
}

inline double correlation(const Eigen::VectorXd& a, const Eigen::VectorXd& b) {
  const Eigen::VectorXd x = a.array() - a.mean(), y = b.array() - b.mean();
  return x.dot(y) / x.norm() / y.norm();
}

}  // namespace percept::testing
