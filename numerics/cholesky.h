/// Cholesky factorisation of large matrices in place, through LAPACK: for fitting. Small ones: numerics/linalg.h.
#pragma once

#include <Eigen/Core>

namespace percept {

/// The lower factor L of a = L Lᵀ in the place of the lower triangle of a, the only one that is read; the upper one
/// keeps what it held. False when a is not positive definite or not finite; a is then destroyed.
bool factorise(Eigen::MatrixXd& a);
/// b becomes (L Lᵀ)⁻¹ b.
void factor_solve(const Eigen::MatrixXd& factor, Eigen::MatrixXd& b);
/// b becomes L⁻¹ b.
void factor_whiten(const Eigen::MatrixXd& factor, Eigen::MatrixXd& b);
/// b becomes L⁻ᵀ b.
void factor_unwhiten(const Eigen::MatrixXd& factor, Eigen::MatrixXd& b);
/// The factor becomes (L Lᵀ)⁻¹, both triangles.
void factor_to_inverse(Eigen::MatrixXd& factor);
/// log det(L Lᵀ)
double factor_log_det(const Eigen::MatrixXd& factor);

}  // namespace percept
