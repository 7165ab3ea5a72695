/// Structural similarity of images, with its gradient: Wang, Bovik, Sheikh, Simoncelli, IEEE Trans. Image Processing
/// 13 (2004) 600. Its value depends on the window, so that is always stated.
#pragma once

#include <Eigen/Core>
#include <vector>

#include "core/stream.h"

namespace percept {

struct SsimOptions {
  enum class Window {
    gaussian,  ///< weights exp(-d² / 2 sd²) that sum to one: Wang et al. take 11 pixels and an sd of 1.5
    uniform    ///< equal weights
  };
  Window window = Window::gaussian;
  Index width = 11;       ///< pixels, odd; the same in both directions
  double sd_px = 1.5;     ///< of the Gaussian window
  double range = 1;       ///< of a pixel: the constants are (0.01 range)² and (0.03 range)²
  bool unbiased = false;  ///< variances of a uniform window divided by n - 1 (as scikit-image does), not by n
};

/// Windows of one shape of image. An image is a column of height x width pixels, last index fastest; only windows that
/// lie inside the image count, each the same.
class Ssim {
 public:
  /// Throws Error when the image is smaller than the window, or an option cannot be.
  Ssim(Index height, Index width, const SsimOptions& options = {});

  Index height() const { return rows_.cols(); }
  Index width() const { return columns_.cols(); }
  /// Mean over the windows: 1 for equal images, at least -1. NaN where a pixel is.
  double operator()(const Eigen::Ref<const Eigen::VectorXd>& a, const Eigen::Ref<const Eigen::VectorXd>& b) const;

 private:
  friend class ExpectedSsim;
  using Image = Eigen::Map<const Eigen::MatrixXd>;  ///< width x height
  Image image(const Eigen::Ref<const Eigen::VectorXd>& x) const { return {x.data(), width(), height()}; }
  Eigen::MatrixXd means(const Eigen::MatrixXd& x) const;   ///< of every window
  Eigen::MatrixXd spread(const Eigen::MatrixXd& x) const;  ///< its adjoint

  Eigen::MatrixXd rows_, columns_;  ///< windows x pixels of one direction
  double c1_, c2_, correction_;     ///< n / (n - 1), or 1
};

/// sum_k weight_k SSIM(x, image_k), as a function of x.
class ExpectedSsim {
 public:
  /// images: pixels x n, n weights. Throws Error when the sizes differ.
  ExpectedSsim(const Ssim& ssim, const Eigen::MatrixXd& images, const Eigen::VectorXd& weights);
  double value(const Eigen::VectorXd& x, Eigen::VectorXd& gradient) const;

 private:
  Ssim ssim_;
  Eigen::MatrixXd images_;
  Eigen::VectorXd weights_;
  std::vector<Eigen::MatrixXd> means_, variances_;  ///< of every window of each image
};

}  // namespace percept
