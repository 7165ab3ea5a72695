#include "reconstruction/diffusion/encoding_operator.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "core/error.h"
#include "numerics/linalg.h"

namespace percept::diffusion {

EncodingOperator::EncodingOperator(ContrastFeatures features, const Eigen::MatrixXd& information, double low,
                                   double high)
    : features_(std::move(features)), low_(low), high_(high) {
  const Index n = features_.size();
  if (information.rows() != n || information.cols() != n)
    throw ConfigError("diffusion.information", fmt::format("{} x {}", information.rows(), information.cols()),
                      fmt::format("{} x {}, one a feature", n, n));
  const Eigensystem e = eigensystem(information);
  const double most = e.values(n - 1);
  if (!(most > 0)) throw ConfigError("diffusion.information", "none", "an encoding model that sees the image");
  Index r = 0;
  while (r < n && e.values(n - 1 - r) > 1e-10 * most) ++r;
  const Eigen::VectorXd roots = e.values.tail(r).cwiseSqrt();
  root_ = roots.asDiagonal() * e.vectors.rightCols(r).transpose();
  from_linear_ = roots.cwiseInverse().asDiagonal() * e.vectors.rightCols(r).transpose();
  norm_ = std::sqrt(most) * features_.steepest(high - low);
}

void EncodingOperator::apply(const Batch& x, Batch& y) {
  y.resize(outputs(), x.cols());
  for (Index k = 0; k < x.cols(); ++k)
    y.col(k) = (root_ * features_(x.col(k).cast<double>().cwiseMax(low_).cwiseMin(high_))).cast<float>();
}

void EncodingOperator::pull_back(const Batch& x, const Batch& v, Batch& gradient) {
  gradient.resize(inputs(), x.cols());
  for (Index k = 0; k < x.cols(); ++k) {
    const Eigen::VectorXd image = x.col(k).cast<double>(), shown = image.cwiseMax(low_).cwiseMin(high_);
    const Eigen::VectorXd slope = features_.gradient(shown, root_.transpose() * v.col(k).cast<double>());
    gradient.col(k) = (image.array() == shown.array()).select(slope, 0.0).cast<float>();
  }
}

}  // namespace percept::diffusion
