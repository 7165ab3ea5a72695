/// Local contrast: what a voxel of early visual cortex is taken to see of an image. Kay, Winawer, Rokem, Mezer, Wandell,
/// PLoS Computational Biology 9 (2013) e1003079, describe such responses by contrast that saturates.
#pragma once

#include <Eigen/Core>

#include "core/stream.h"

namespace percept {

struct ContrastOptions {
  double window_sd_px = 0.8;  ///< of the Gaussian window in which the contrast is measured
  double power = 0.5;         ///< below one: saturating
  double pool_sd_px = 0.7;    ///< of the Gaussian over which contrast is averaged
  Index stride = 2;           ///< one feature for so many pixels, in both directions
};

/// Feature (i, j) stands for the neighbourhood of pixel (i stride, j stride): the average over a Gaussian of
/// (variance of the image under a Gaussian window)^(power / 2). An image is a column of height x width pixels in [0, 1],
/// last index fastest, and mirrored at its edges. A variance of 1e-4 is added, so that the slope is finite everywhere;
/// a constant image still has features of zero.
class ContrastFeatures {
 public:
  /// Throws Error when an option or the size is not above zero.
  ContrastFeatures(Index height, Index width, const ContrastOptions& options = {});

  Index pixels() const { return window_rows_.rows() * window_columns_.rows(); }
  Index rows() const { return pool_rows_.rows(); }        ///< of the grid of features
  Index columns() const { return pool_columns_.rows(); }  ///< of the grid of features
  Index size() const { return rows() * columns(); }
  Index stride() const { return options_.stride; }

  Eigen::VectorXd operator()(const Eigen::Ref<const Eigen::VectorXd>& image) const;
  /// Each column: features x images.
  Eigen::MatrixXd each(const Eigen::MatrixXd& images) const;
  /// d/d image of by_feature . features(image)
  Eigen::VectorXd gradient(const Eigen::Ref<const Eigen::VectorXd>& image, const Eigen::VectorXd& by_feature) const;
  /// No image whose values differ by at most `range` changes its features faster than this (a bound, norm by norm).
  double steepest(double range) const;

 private:
  Eigen::MatrixXd variance(const Eigen::MatrixXd& x, Eigen::MatrixXd& mean) const;

  ContrastOptions options_;
  Eigen::MatrixXd window_rows_, window_columns_;  ///< pixels x pixels of one direction
  Eigen::MatrixXd pool_rows_, pool_columns_;      ///< features x pixels of one direction
};

/// Gaussian weights of an sd in pixels about every `stride`-th pixel, cut off at 4 sd, mirrored at the edges
/// (d c b a | a b c d | d c b a); every row sums to one.
Eigen::MatrixXd gaussian_rows(Index pixels, double sd_px, Index stride = 1);

}  // namespace percept
