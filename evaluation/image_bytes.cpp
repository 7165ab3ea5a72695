#include "evaluation/image_bytes.h"

#include <algorithm>
#include <cmath>

namespace percept::evaluation {

char ToBytes::operator()(double v) const {
  const double byte = std::isfinite(v) ? std::clamp(std::round((v - low_) * scale_), 0.0, 255.0) : 0.0;
  return static_cast<char>(static_cast<unsigned char>(byte));
}

std::string to_bytes(const Eigen::MatrixXd& images, const ToBytes& byte) {
  std::string out(static_cast<std::size_t>(images.size()), '\0');
  std::transform(images.data(), images.data() + images.size(), out.begin(), byte);
  return out;
}

}  // namespace percept::evaluation
