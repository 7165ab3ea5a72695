/// A library of images as a model holds it: what a [[prior]] of image_library collects, for every stage that weighs or
/// averages its images.
#pragma once

#include <Eigen/Core>
#include <string>
#include <vector>

#include "core/model.h"

namespace percept {

struct ImageLibrary {
  Eigen::MatrixXd images;    ///< pixels x images
  std::vector<Index> shape;  ///< of one image, last index fastest
};

/// Puts the images (pixels x images, finite) into the array "images": as bytes when all are multiples of 1/255 in
/// [0, 1], to the precision of f32, else as f32.
void store_images(Model& model, const Eigen::MatrixXd& images);
/// What store_images put into a model, with the shape in meta.image_shape. Throws DataError naming `where` when broken.
ImageLibrary read_images(const Model& model, const std::string& where);
/// Of a model of image_library. Throws DataError when it is none, or broken.
ImageLibrary read_image_library(const Model& model);

}  // namespace percept
