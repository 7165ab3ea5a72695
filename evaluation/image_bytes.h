/// Images as a page holds them: one byte a value.
#pragma once

#include <Eigen/Core>
#include <string>

namespace percept::evaluation {

/// Values to bytes, low being 0 and high 255; what lies outside is cut off, and a missing value is 0 too.
class ToBytes {
 public:
  ToBytes(double low, double high) : low_(low), scale_(high > low ? 255 / (high - low) : 0) {}
  char operator()(double v) const;

 private:
  double low_, scale_;
};

/// Values x images, image after image.
std::string to_bytes(const Eigen::MatrixXd& images, const ToBytes& byte);

}  // namespace percept::evaluation
