/// What an encoding model sees of an image, as an operator that samplers can be told of.
#pragma once

#include <Eigen/Core>

#include "reconstruction/diffusion/operator.h"
#include "reconstruction/image/contrast.h"

namespace percept::diffusion {

/// A(x) = R f(x) with f the contrast features of the image x, limited to [low, high], and RᵀR the information of an
/// encoding likelihood. Then -½ |A(x) - y|² is that likelihood's logarithm, but for a constant, when y is
/// measurement_of_linear() times its linear term.
class EncodingOperator final : public Operator {
 public:
  /// information: features x features, not negative. Throws ConfigError when it is of another size or zero.
  EncodingOperator(ContrastFeatures features, const Eigen::MatrixXd& information, double low, double high);
  Index inputs() const override { return features_.pixels(); }
  Index outputs() const override { return root_.rows(); }
  Capabilities capabilities() const override { return {.gradient = true}; }
  void apply(const Batch& x, Batch& y) override;
  void pull_back(const Batch& x, const Batch& v, Batch& gradient) override;
  /// A bound, far above the slope at images that are not flat.
  double norm() const override { return norm_; }

  const Eigen::MatrixXd& root() const { return root_; }  ///< R: outputs x features
  /// outputs x features: R⁺ᵀ.
  const Eigen::MatrixXd& measurement_of_linear() const { return from_linear_; }

 private:
  ContrastFeatures features_;
  Eigen::MatrixXd root_, from_linear_;
  double low_, high_, norm_ = 1;
};

}  // namespace percept::diffusion
