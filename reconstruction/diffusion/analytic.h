/// Denoisers in closed form: mixtures of Gaussians. With them the posterior of a linear measurement is known too, which
/// is what samplers are tested against; and they are priors that need no network.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>
#include <vector>

#include "core/model.h"
#include "reconstruction/diffusion/denoiser.h"

namespace percept::diffusion {

/// p(x0) = sum of weight N(mean, covariance), where the covariance of a component is
/// basis diag(variances) basisᵀ + rest (1 - basis basisᵀ).
struct GaussianMixture {
  struct Component {
    double weight = 1;
    Eigen::VectorXd mean;
    Eigen::MatrixXd basis;      ///< values x r, orthonormal columns; r may be zero
    Eigen::VectorXd variances;  ///< along the basis, >= 0
    double rest = 0;            ///< in every other direction, >= 0
    std::int64_t label = 0;     ///< its class
  };
  std::vector<Index> shape;
  std::vector<Component> components;

  /// A component from its covariance, through its eigenvectors.
  static Component component(double weight, const Eigen::VectorXd& mean, const Eigen::MatrixXd& covariance,
                             std::int64_t label = 0);
  /// Throws DataError naming `where` when sizes do not fit, a variance is negative, or weights do not sum to one.
  void check(const std::string& where) const;
  /// As a model of the kind "gaussian_mixture", and back.
  Model model() const;
  static GaussianMixture from(const Model& model, const std::string& where);
};

/// D(x, sigma) and its derivative, which is Cov[x0 | x] / sigma². In double; an item's bits do not depend on the others.
class MixtureDenoiser final : public Denoiser {
 public:
  /// classes: of each item, as in Condition; then only components of that label count. Throws ConfigError for a class
  /// that no component has, DataError as GaussianMixture::check does.
  explicit MixtureDenoiser(GaussianMixture mixture, std::vector<std::int64_t> classes = {});
  std::vector<Index> shape() const override { return mixture_.shape; }
  void denoise(const Batch& x, double sigma, Batch& x0) override;
  bool has_gradient() const override { return true; }
  void pull_back(const Batch& x, double sigma, Batch& x0, const Cotangent& cotangent, Batch& gradient) override;

 private:
  /// Responsibilities and conditional means of the components for one item.
  void condition(const Eigen::VectorXd& x, double sigma, Index item, Index items);

  GaussianMixture mixture_;
  std::vector<std::int64_t> classes_;
  Eigen::VectorXd weight_;  ///< responsibilities of the current item
  Eigen::MatrixXd mean_;    ///< values x components: conditional means of the current item
};

}  // namespace percept::diffusion
