#include "reconstruction/image/deform.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"

namespace percept {

using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

/// Cubic B-splines `every` apart, at every pixel. Scaled so that independent standard normal coefficients give
/// variance one on average.
MatrixXd splines(Index pixels, double every) {
  const auto points = static_cast<Index>(std::ceil(static_cast<double>(pixels - 1) / every)) + 3;
  MatrixXd basis(pixels, points);
  for (Index i = 0; i < pixels; ++i)
    for (Index k = 0; k < points; ++k) {
      const double d = std::abs(static_cast<double>(i) / every - static_cast<double>(k - 1));
      basis(i, k) = d < 1 ? 2.0 / 3 - d * d + d * d * d / 2 : d < 2 ? std::pow(2 - d, 3) / 6 : 0;
    }
  return basis / std::sqrt(basis.squaredNorm() / static_cast<double>(pixels));
}

/// Weights of the four pixels about a place that lies `t` behind the second.
std::array<double, 4> cubic(double t) {
  const double t2 = t * t, t3 = t2 * t;
  return {(-t3 + 2 * t2 - t) / 2, (3 * t3 - 5 * t2 + 2) / 2, (-3 * t3 + 4 * t2 + t) / 2, (t3 - t2) / 2};
}

}  // namespace

DeformOptions DeformOptions::times(double factor) const {
  DeformOptions o = *this;
  for (double* size : {&o.rotation, &o.scale, &o.shear, &o.shift_px, &o.bend_px}) *size *= factor;
  return o;
}

Deformation::Deformation(Index height, Index width, const DeformOptions& o)
    : height_(height), width_(width), options_(o) {
  const double least = std::min({o.rotation, o.scale, o.shear, o.shift_px, o.bend_px});
  if (height < 1 || width < 1 || !(o.bend_every_px > 0) || !(least >= 0))
    throw Error(
        fmt::format("deformation of {} x {} pixels, control points every {} px, least spread {}: expected sizes "
                    "above zero and spreads not below",
                    height, width, o.bend_every_px, least));
  rows_ = splines(height, o.bend_every_px);
  columns_ = splines(width, o.bend_every_px);
}

VectorXd Deformation::operator()(const Eigen::Ref<const VectorXd>& image, const KeyedRandom& random, std::int64_t key,
                                 std::int64_t copy) const {
  std::uint64_t draw = static_cast<std::uint64_t>(copy) << 32;
  const auto normal = [&] { return random.normal(key, draw++); };
  const double angle = options_.rotation * normal();
  const double scale_y = 1 + options_.scale * normal(), scale_x = 1 + options_.scale * normal();
  const double shear = options_.shear * normal();
  const double shift_y = options_.shift_px * normal(), shift_x = options_.shift_px * normal();
  const double c = std::cos(angle), s = std::sin(angle);
  // where pixel (y, x) comes from: rotation after shear and scale
  const double yy = c * scale_y, yx = c * shear - s * scale_x, xy = s * scale_y, xx = s * shear + c * scale_x;
  MatrixXd control_y(columns_.cols(), rows_.cols()), control_x = control_y;
  for (double& z : control_y.reshaped()) z = normal();
  for (double& z : control_x.reshaped()) z = normal();
  const MatrixXd bend_y = options_.bend_px * (columns_ * control_y * rows_.transpose());  // width x height
  const MatrixXd bend_x = options_.bend_px * (columns_ * control_x * rows_.transpose());

  const double middle_y = static_cast<double>(height_ - 1) / 2, middle_x = static_cast<double>(width_ - 1) / 2;
  const double low = std::min(0.0, image.minCoeff()), high = std::max(0.0, image.maxCoeff());
  VectorXd out(image.size());
  for (Index i = 0; i < height_; ++i)
    for (Index j = 0; j < width_; ++j) {
      const double y = static_cast<double>(i) - middle_y, x = static_cast<double>(j) - middle_x;
      const double from_y = middle_y + yy * y + yx * x + shift_y + bend_y(j, i);
      const double from_x = middle_x + xy * y + xx * x + shift_x + bend_x(j, i);
      double value = 0;
      // not finite or far outside: nothing is read
      if (from_y > -2 && from_y < static_cast<double>(height_ + 1) && from_x > -2 &&
          from_x < static_cast<double>(width_ + 1)) {
        const auto top = static_cast<Index>(std::floor(from_y)), left = static_cast<Index>(std::floor(from_x));
        const auto wy = cubic(from_y - static_cast<double>(top)), wx = cubic(from_x - static_cast<double>(left));
        // rows and columns of the four by four pixels that lie inside
        const Index first_row = std::max<Index>(0, 1 - top), rows = std::min<Index>(4, height_ + 1 - top);
        const Index first_column = std::max<Index>(0, 1 - left), columns = std::min<Index>(4, width_ + 1 - left);
        for (Index a = first_row; a < rows; ++a) {
          const Index before = (top - 1 + a) * width_ + left - 1;
          double sum = 0;
          for (Index b = first_column; b < columns; ++b) sum += wx[static_cast<std::size_t>(b)] * image(before + b);
          value += wy[static_cast<std::size_t>(a)] * sum;
        }
      }
      out(i * width_ + j) = std::clamp(value, low, high);
    }
  return out;
}

}  // namespace percept
