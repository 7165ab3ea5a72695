#include "reconstruction/image/contrast.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"

namespace percept {

using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {
constexpr double kFloor = 1e-4;  ///< variance at which contrast begins to count
}

MatrixXd gaussian_rows(Index pixels, double sd_px, Index stride) {
  const Index outputs = (pixels + stride - 1) / stride;
  const auto reach = static_cast<Index>(std::ceil(4 * sd_px));
  MatrixXd rows = MatrixXd::Zero(outputs, pixels);
  for (Index k = 0; k < outputs; ++k) {
    for (Index d = -reach; d <= reach; ++d) {
      Index at = ((k * stride + d) % (2 * pixels) + 2 * pixels) % (2 * pixels);
      if (at >= pixels) at = 2 * pixels - 1 - at;
      const double z = static_cast<double>(d) / sd_px;
      rows(k, at) += std::exp(-z * z / 2);
    }
    rows.row(k) /= rows.row(k).sum();
  }
  return rows;
}

ContrastFeatures::ContrastFeatures(Index height, Index width, const ContrastOptions& o) : options_(o) {
  if (height < 1 || width < 1 || o.stride < 1 || !(o.window_sd_px > 0) || !(o.pool_sd_px > 0) || !(o.power > 0))
    throw Error(
        fmt::format("contrast of {} x {} pixels, window {}, power {}, pooling {}, stride {}: expected all above "
                    "zero",
                    height, width, o.window_sd_px, o.power, o.pool_sd_px, o.stride));
  window_rows_ = gaussian_rows(height, o.window_sd_px);
  window_columns_ = gaussian_rows(width, o.window_sd_px);
  pool_rows_ = gaussian_rows(height, o.pool_sd_px, o.stride);
  pool_columns_ = gaussian_rows(width, o.pool_sd_px, o.stride);
}

// matrices below are width x height, as the pixels lie in memory
MatrixXd ContrastFeatures::variance(const MatrixXd& x, MatrixXd& mean) const {
  mean = window_columns_ * x * window_rows_.transpose();
  return (window_columns_ * x.cwiseAbs2() * window_rows_.transpose() - mean.cwiseAbs2()).cwiseMax(0.0);
}

VectorXd ContrastFeatures::operator()(const Eigen::Ref<const VectorXd>& image) const {
  MatrixXd mean;
  const MatrixXd x = Eigen::Map<const MatrixXd>(image.data(), window_columns_.rows(), window_rows_.rows());
  const MatrixXd contrast = (variance(x, mean).array() + kFloor).pow(options_.power / 2).matrix();
  const MatrixXd pooled = pool_columns_ * contrast * pool_rows_.transpose();
  return Eigen::Map<const VectorXd>(pooled.data(), pooled.size()).array() - std::pow(kFloor, options_.power / 2);
}

MatrixXd ContrastFeatures::each(const MatrixXd& images) const {
  MatrixXd all(size(), images.cols());
  for (Index k = 0; k < images.cols(); ++k) all.col(k) = (*this)(images.col(k));
  return all;
}

VectorXd ContrastFeatures::gradient(const Eigen::Ref<const VectorXd>& image, const VectorXd& by_feature) const {
  MatrixXd mean;
  const MatrixXd x = Eigen::Map<const MatrixXd>(image.data(), window_columns_.rows(), window_rows_.rows());
  const MatrixXd v = variance(x, mean);
  const MatrixXd pooled = Eigen::Map<const MatrixXd>(by_feature.data(), columns(), rows());
  // where rounding made a variance of zero, there is no slope to speak of
  const MatrixXd by_variance =
      (pool_columns_.transpose() * pooled * pool_rows_).array() *
      (v.array() > 0).select((options_.power / 2) * (v.array() + kFloor).pow(options_.power / 2 - 1), 0.0);
  const MatrixXd direct = window_columns_.transpose() * by_variance * window_rows_;
  const MatrixXd by_mean = window_columns_.transpose() * by_variance.cwiseProduct(mean) * window_rows_;
  const MatrixXd total = 2 * (direct.cwiseProduct(x) - by_mean);
  return Eigen::Map<const VectorXd>(total.data(), total.size());
}

double ContrastFeatures::steepest(double range) const {
  const auto norm = [](const MatrixXd& m) { return std::sqrt((m * m.transpose()).rowwise().lpNorm<1>().maxCoeff()); };
  // of a variance by its pixels: 2 w (x - mean); of a power by a variance that is at most a quarter of the square range
  const double by_pixel = 2 * range * norm(window_rows_) * norm(window_columns_);
  const double p = options_.power / 2;
  const double by_variance = p * std::pow(p < 1 ? kFloor : range * range / 4 + kFloor, p - 1);
  return norm(pool_rows_) * norm(pool_columns_) * by_variance * by_pixel;
}

}  // namespace percept
