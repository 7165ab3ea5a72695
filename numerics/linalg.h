/// Linear algebra that fitting and the filters share: large products through BLAS, symmetric positive definite
/// matrices, and small kernels for the real-time loop (plain loops in a fixed order: no allocation, and the same bits at
/// any alignment).
#pragma once

#include <Eigen/Core>
#include <string>

#include "core/stream.h"

namespace percept {

// --- large products, through BLAS: for fitting, never in a real-time loop ----------------------------------

/// X Xᵀ of x (rows x frames): rows x rows.
Eigen::MatrixXd gram(const Eigen::MatrixXd& x);
/// X Yᵀ: rows of x by rows of y. Throws Error when the frame counts differ.
Eigen::MatrixXd cross(const Eigen::MatrixXd& x, const Eigen::MatrixXd& y);
/// A B. Throws Error when the inner sizes differ.
Eigen::MatrixXd product(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b);

/// Eigenvalues, rising, and eigenvectors (columns) of a symmetric matrix, through LAPACK.
struct Eigensystem {
  Eigen::VectorXd values;
  Eigen::MatrixXd vectors;
};
/// Throws Error when an entry is not finite or it does not converge.
Eigensystem eigensystem(const Eigen::MatrixXd& a);

// --- symmetric positive definite, for fitting --------------------------------------------------------------

/// Is the symmetric matrix positive definite to working precision? Free of units: it is scaled to unit diagonal first.
bool is_spd(const Eigen::MatrixXd& a);
/// The inverse, exactly symmetric. `hint` tells the reader what to do about a singular matrix.
/// Throws DataError(where, name, "a positive definite matrix" + hint, what was found).
Eigen::MatrixXd spd_inverse(const Eigen::MatrixXd& a, const std::string& where, const std::string& name,
                            const std::string& hint = "");
/// B of y ≈ B x from the products of `rows` training frames: B = cross (gram)⁻¹, cross = Y Xᵀ (outputs x features),
/// gram = X Xᵀ (features x features, plus any penalty).
/// Throws DataError naming `where` when rows < features or the features are linearly dependent; `hint` says what helps.
Eigen::MatrixXd solve_normal(const Eigen::MatrixXd& cross, const Eigen::MatrixXd& gram, Index rows,
                             const std::string& where, const std::string& hint = "");

// --- small kernels for the loop ----------------------------------------------------------------------------

/// out = W x, summed over the columns of W (outputs x inputs) in order.
void column_product(const Eigen::MatrixXd& w, const double* x, double* out) noexcept;
/// Lower factor L of a = L Lᵀ, in place (only the lower triangle is read; the upper becomes zero).
/// False unless every pivot is above 1e-13 of its own diagonal element, and finite.
bool cholesky_in_place(Eigen::MatrixXd& a) noexcept;
/// inverse = a⁻¹, exactly symmetric. `factor` is room of the same size and keeps the lower Cholesky factor of a.
/// False when a is not positive definite; inverse is then unspecified.
bool spd_inverse(const Eigen::MatrixXd& a, Eigen::MatrixXd& inverse, Eigen::MatrixXd& factor) noexcept;
/// out = A B Aᵀ + C for small square matrices, exactly symmetric; B and C are symmetric. `work` is room.
void sandwich(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b, const Eigen::MatrixXd& c, Eigen::MatrixXd& out,
              Eigen::MatrixXd& work) noexcept;
/// Eigenvalues (unsorted) and eigenvectors (columns) of a symmetric matrix by Jacobi rotations; `a` is destroyed.
void symmetric_eigen(Eigen::MatrixXd& a, Eigen::VectorXd& values, Eigen::MatrixXd& vectors) noexcept;

/// Repairs covariances without allocating.
class SpdRepair {
 public:
  /// scale: a typical standard deviation of each row, so that units do not matter.
  explicit SpdRepair(const Eigen::VectorXd& scale);
  /// Makes `a` symmetric and, where it is not positive definite, lifts its small eigenvalues (in units of scale) to
  /// 1e-8 of the largest. True when it was clearly asymmetric or not positive definite. Entries must be finite.
  bool repair(Eigen::MatrixXd& a) noexcept;

 private:
  Eigen::VectorXd scale_, values_;
  Eigen::MatrixXd work_, vectors_;
};

}  // namespace percept
