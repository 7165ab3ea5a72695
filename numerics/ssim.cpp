#include "numerics/ssim.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"

namespace percept {

using Eigen::ArrayXXd;
using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {
/// Row k holds the window that begins at pixel k.
MatrixXd windows(Index pixels, const VectorXd& window) {
  MatrixXd all = MatrixXd::Zero(pixels - window.size() + 1, pixels);
  for (Index k = 0; k < all.rows(); ++k) all.row(k).segment(k, window.size()) = window.transpose();
  return all;
}
}  // namespace

Ssim::Ssim(Index height, Index width, const SsimOptions& options) {
  if (options.width < 1 || options.width % 2 == 0 || !(options.sd_px > 0) || !(options.range > 0))
    throw Error(
        fmt::format("SSIM: a window of {} pixels, sd {}, range {}: expected an odd width and numbers above zero",
                    options.width, options.sd_px, options.range));
  if (height < options.width || width < options.width)
    throw Error(fmt::format("SSIM: an image of {} x {} pixels is smaller than the window of {} x {}", height, width,
                            options.width, options.width));
  VectorXd window = VectorXd::Ones(options.width);
  if (options.window == SsimOptions::Window::gaussian)
    for (Index k = 0; k < options.width; ++k) {
      const Index from_middle = k - options.width / 2;
      const double d = static_cast<double>(from_middle) / options.sd_px;
      window(k) = std::exp(-d * d / 2);
    }
  window /= window.sum();
  rows_ = windows(height, window);
  columns_ = windows(width, window);
  c1_ = 1e-4 * options.range * options.range;
  c2_ = 9e-4 * options.range * options.range;
  const double n = static_cast<double>(options.width * options.width);
  const bool correct = options.unbiased && options.window == SsimOptions::Window::uniform && options.width > 1;
  correction_ = correct ? n / (n - 1) : 1;
}

MatrixXd Ssim::means(const MatrixXd& x) const { return columns_ * x * rows_.transpose(); }
MatrixXd Ssim::spread(const MatrixXd& x) const { return columns_.transpose() * x * rows_; }

double Ssim::operator()(const Eigen::Ref<const VectorXd>& a, const Eigen::Ref<const VectorXd>& b) const {
  const MatrixXd x = image(a), y = image(b);
  const ArrayXXd mx = means(x).array(), my = means(y).array();
  const ArrayXXd vx = correction_ * (means(x.cwiseAbs2()).array() - mx.square());
  const ArrayXXd vy = correction_ * (means(y.cwiseAbs2()).array() - my.square());
  const ArrayXXd cxy = correction_ * (means(x.cwiseProduct(y)).array() - mx * my);
  return ((2 * mx * my + c1_) * (2 * cxy + c2_) / ((mx.square() + my.square() + c1_) * (vx + vy + c2_))).mean();
}

ExpectedSsim::ExpectedSsim(const Ssim& ssim, const MatrixXd& images, const VectorXd& weights)
    : ssim_(ssim), images_(images), weights_(weights) {
  if (images.rows() != ssim.height() * ssim.width() || images.cols() != weights.size())
    throw Error(
        fmt::format("SSIM: {} images of {} pixels and {} weights: expected images of {} x {}, each with a weight",
                    images.cols(), images.rows(), weights.size(), ssim.height(), ssim.width()));
  for (Index k = 0; k < images.cols(); ++k) {
    const MatrixXd y = ssim_.image(images_.col(k));
    means_.push_back(ssim_.means(y));
    variances_.push_back(ssim_.correction_ *
                         (ssim_.means(y.cwiseAbs2()).array() - means_.back().array().square()).matrix());
  }
}

double ExpectedSsim::value(const VectorXd& x, VectorXd& gradient) const {
  const MatrixXd image = ssim_.image(x);
  const ArrayXXd mx = ssim_.means(image).array();
  const ArrayXXd vx = ssim_.correction_ * (ssim_.means(image.cwiseAbs2()).array() - mx.square());
  const double share = 1 / static_cast<double>(mx.size());
  double value = 0;
  // by the mean of x, by its variance and by its covariance with each image, in every window
  ArrayXXd by_mean = ArrayXXd::Zero(mx.rows(), mx.cols()), by_variance = by_mean;
  MatrixXd direct = MatrixXd::Zero(image.rows(), image.cols());
  for (Index k = 0; k < images_.cols(); ++k) {
    const auto y = ssim_.image(images_.col(k));
    const auto my = means_[static_cast<std::size_t>(k)].array();
    const ArrayXXd cxy = ssim_.correction_ * (ssim_.means(image.cwiseProduct(y)).array() - mx * my);
    const ArrayXXd luminance = 2 * mx * my + ssim_.c1_, structure = 2 * cxy + ssim_.c2_;
    const ArrayXXd b1 = mx.square() + my.square() + ssim_.c1_;
    const ArrayXXd b2 = vx + variances_[static_cast<std::size_t>(k)].array() + ssim_.c2_;
    const ArrayXXd similarity = luminance * structure / (b1 * b2);
    const double w = weights_(k) * share;
    value += w * similarity.sum();
    const ArrayXXd by_covariance = w * 2 * luminance / (b1 * b2);
    by_mean += w * 2 * (my * structure / b2 - mx * similarity) / b1 - ssim_.correction_ * by_covariance * my;
    by_variance -= w * similarity / b2;
    direct += ssim_.correction_ * ssim_.spread(by_covariance.matrix()).cwiseProduct(y);
  }
  by_mean -= 2 * ssim_.correction_ * by_variance * mx;
  direct +=
      ssim_.spread(by_mean.matrix()) + 2 * ssim_.correction_ * image.cwiseProduct(ssim_.spread(by_variance.matrix()));
  gradient = Eigen::Map<const VectorXd>(direct.data(), direct.size());
  return value;
}

}  // namespace percept
