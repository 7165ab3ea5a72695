/// What was measured of an image: y = A(x) + noise, where the noise is independent and normal with one standard
/// deviation sd. The one likelihood of everything here is exp(-½ |A(x) - y|² / sd²): correlated noise is whitened
/// before, by dividing A and y by a factor of its covariance.
#pragma once

#include <Eigen/Core>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "reconstruction/diffusion/denoiser.h"

namespace percept::diffusion {

/// What an operator can do beyond apply(). One that can do nothing more is a black box.
struct Capabilities {
  bool gradient = false;        ///< pull_back()
  bool linear = false;          ///< A(x) is A x, and adjoint() is there
  bool pseudo_inverse = false;  ///< pseudo_inverse()
  bool prox = false;            ///< prox()
  bool spectral = false;        ///< singular_values(), to_range(), from_range(), seen()
  /// "gradient, prox", or "nothing".
  std::string text() const;
  /// Those of `needed` that are not here, in words; "" when all are.
  std::string lacking(const Capabilities& needed) const;
};

/// The measurement of one item is a column. What one item gives does not depend on the others, except for rounding.
/// A function that the operator is not capable of throws Error.
class Operator {
 public:
  virtual ~Operator() = default;
  virtual Index inputs() const = 0;
  virtual Index outputs() const = 0;
  virtual Capabilities capabilities() const { return {}; }
  virtual void apply(const Batch& x, Batch& y) = 0;
  /// gradient = (dA/dx)ᵀ v at x. Of a linear operator the adjoint.
  virtual void pull_back(const Batch& x, const Batch& v, Batch& gradient);
  /// x = Aᵀ y.
  virtual void adjoint(const Batch& y, Batch& x);
  /// x = A⁺ y, the smallest x among those with the smallest |A x - y|.
  virtual void pseudo_inverse(const Batch& y, Batch& x);
  /// x = argmin ½ |A x - y|² + ½ rho |x - z|².
  virtual void prox(const Batch& z, const Batch& y, double rho, Batch& x);
  /// A = U S Vᵀ with the r columns of V that belong to singular values above zero.
  virtual const Eigen::VectorXf& singular_values() const;
  virtual void to_range(const Batch& x, Batch& c);    ///< c = Vᵀ x, r x items
  virtual void from_range(const Batch& c, Batch& x);  ///< x = V c
  virtual void seen(const Batch& y, Batch& c);        ///< c = Uᵀ y
  /// The most by which A stretches a difference: the largest singular value, or a bound of |dA/dx|.
  virtual double norm() const = 0;
};

/// Whatever follows from a singular value decomposition.
class SpectralOperator : public Operator {
 public:
  Capabilities capabilities() const final { return {true, true, true, true, true}; }
  void adjoint(const Batch& y, Batch& x) override;
  void pseudo_inverse(const Batch& y, Batch& x) override;
  void prox(const Batch& z, const Batch& y, double rho, Batch& x) override;
  const Eigen::VectorXf& singular_values() const final { return values_; }
  double norm() const final { return values_.size() == 0 ? 0 : static_cast<double>(values_.maxCoeff()); }

 protected:
  Eigen::VectorXf values_;  ///< above zero

 private:
  Batch c_, d_;
};

/// Some values of an image, in this order: inpainting. All of them: denoising.
class MaskOperator final : public SpectralOperator {
 public:
  /// Throws ConfigError when a value is named twice or is not of the image.
  MaskOperator(Index inputs, std::vector<Index> kept);
  static MaskOperator identity(Index inputs);
  Index inputs() const override { return inputs_; }
  Index outputs() const override { return static_cast<Index>(kept_.size()); }
  void apply(const Batch& x, Batch& y) override;
  void to_range(const Batch& x, Batch& c) override { apply(x, c); }
  void from_range(const Batch& c, Batch& x) override;
  void seen(const Batch& y, Batch& c) override { c = y; }

 private:
  Index inputs_;
  std::vector<Index> kept_;
};

/// Any matrix. Singular values below 1e-6 of the largest count as zero, as single precision cannot tell them from it.
class MatrixOperator final : public SpectralOperator {
 public:
  /// a: outputs x inputs. Throws ConfigError when it is empty or has an entry that is not finite.
  explicit MatrixOperator(const Eigen::MatrixXd& a);
  Index inputs() const override { return a_.cols(); }
  Index outputs() const override { return a_.rows(); }
  void apply(const Batch& x, Batch& y) override { y.noalias() = a_ * x; }
  void adjoint(const Batch& y, Batch& x) override { x.noalias() = a_.transpose() * y; }
  void to_range(const Batch& x, Batch& c) override { c.noalias() = v_.transpose() * x; }
  void from_range(const Batch& c, Batch& x) override { x.noalias() = v_ * c; }
  void seen(const Batch& y, Batch& c) override { c.noalias() = u_.transpose() * y; }

 private:
  Eigen::MatrixXf a_, u_, v_;
};

/// The same matrices along rows and columns of each channel: X -> R X Cᵀ. Blur and down-sampling are of this kind, and
/// one after the other is the product of their matrices.
class SeparableOperator final : public SpectralOperator {
 public:
  /// An item has the shape {channels, columns of R, columns of C}. Throws ConfigError as MatrixOperator does.
  SeparableOperator(const Eigen::MatrixXd& along_height, const Eigen::MatrixXd& along_width, Index channels = 1);
  Index inputs() const override { return channels_ * r_.a.cols() * c_.a.cols(); }
  Index outputs() const override { return channels_ * r_.a.rows() * c_.a.rows(); }
  void apply(const Batch& x, Batch& y) override;
  void to_range(const Batch& x, Batch& c) override;
  void from_range(const Batch& c, Batch& x) override;
  void seen(const Batch& y, Batch& c) override;

 private:
  struct Axis {
    Eigen::MatrixXf a, u, v;
    Eigen::VectorXf s;
  };
  static Axis axis(const Eigen::MatrixXd& a);
  Axis r_, c_;
  Index channels_;
  std::vector<Index> kept_;  ///< of the products of singular values, column after column, one channel
};

/// n x n, mean one a row: a normal kernel of this standard deviation in pixels; what leaves the image is reflected.
/// Throws ConfigError unless n > 0 and sd > 0.
Eigen::MatrixXd blur_matrix(Index n, double sd);
/// n / factor x n: means of neighbouring pixels. Throws ConfigError unless factor divides n.
Eigen::MatrixXd block_mean_matrix(Index n, Index factor);

/// Functions make an operator; what is not set it cannot do. Only apply: a black box.
class FunctionOperator final : public Operator {
 public:
  struct Functions {
    std::function<void(const Batch& x, Batch& y)> apply = {};
    std::function<void(const Batch& x, const Batch& v, Batch& gradient)> pull_back = {};
    std::function<void(const Batch& y, Batch& x)> adjoint = {};
    std::function<void(const Batch& y, Batch& x)> pseudo_inverse = {};
    std::function<void(const Batch& z, const Batch& y, double rho, Batch& x)> prox = {};
  };
  /// norm: see Operator. Throws ConfigError without apply or with norm not above 0.
  FunctionOperator(Index inputs, Index outputs, Functions functions, double norm);
  Index inputs() const override { return inputs_; }
  Index outputs() const override { return outputs_; }
  Capabilities capabilities() const override;
  void apply(const Batch& x, Batch& y) override { f_.apply(x, y); }
  void pull_back(const Batch& x, const Batch& v, Batch& gradient) override;
  void adjoint(const Batch& y, Batch& x) override;
  void pseudo_inverse(const Batch& y, Batch& x) override;
  void prox(const Batch& z, const Batch& y, double rho, Batch& x) override;
  double norm() const override { return norm_; }

 private:
  Index inputs_, outputs_;
  Functions f_;
  double norm_;
};

/// An operator on images, seen from their latents: A(decode(z)). It has a gradient where both have one.
class DecodedOperator final : public Operator {
 public:
  /// Throws ConfigError when the shapes do not fit. The norm is measured at latents of zero.
  DecodedOperator(std::shared_ptr<Operator> image_operator, std::shared_ptr<Autoencoder> autoencoder);
  Index inputs() const override { return elements(autoencoder_->latent_shape()); }
  Index outputs() const override { return image_operator_->outputs(); }
  Capabilities capabilities() const override;
  void apply(const Batch& z, Batch& y) override;
  void pull_back(const Batch& z, const Batch& v, Batch& gradient) override;
  double norm() const override { return norm_; }

 private:
  std::shared_ptr<Operator> image_operator_;
  std::shared_ptr<Autoencoder> autoencoder_;
  Batch image_;
  double norm_ = 1;
};

}  // namespace percept::diffusion
