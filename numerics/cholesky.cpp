#include "numerics/cholesky.h"

#include <cblas.h>
#include <fmt/format.h>

#include <limits>

#include "core/error.h"

// LAPACK comes with OpenBLAS, its C header does not.
extern "C" {
void dpotrf_(const char* triangle, const blasint* n, double* a, const blasint* lda, blasint* info, std::size_t);
void dpotri_(const char* triangle, const blasint* n, double* a, const blasint* lda, blasint* info, std::size_t);
}

namespace percept {
namespace {

using Eigen::MatrixXd;

blasint lapack_size(Eigen::Index n) {
  if (n > std::numeric_limits<blasint>::max())
    throw Error(fmt::format("a matrix of {} rows is too large for LAPACK", n));
  return static_cast<blasint>(n);
}

void triangular_solve(const MatrixXd& factor, MatrixXd& b, CBLAS_TRANSPOSE transpose) {
  if (b.size() == 0) return;
  const blasint n = lapack_size(factor.rows()), columns = lapack_size(b.cols());
  cblas_dtrsm(CblasColMajor, CblasLeft, CblasLower, transpose, CblasNonUnit, n, columns, 1.0, factor.data(), n,
              b.data(), n);
}

}  // namespace

bool factorise(MatrixXd& a) {
  const blasint n = lapack_size(a.rows());
  blasint info = 0;
  dpotrf_("L", &n, a.data(), &n, &info, 1);
  return info == 0 && a.diagonal().allFinite();
}

void factor_solve(const MatrixXd& factor, MatrixXd& b) {
  triangular_solve(factor, b, CblasNoTrans);
  triangular_solve(factor, b, CblasTrans);
}

void factor_whiten(const MatrixXd& factor, MatrixXd& b) { triangular_solve(factor, b, CblasNoTrans); }

void factor_unwhiten(const MatrixXd& factor, MatrixXd& b) { triangular_solve(factor, b, CblasTrans); }

void factor_to_inverse(MatrixXd& factor) {
  const blasint n = lapack_size(factor.rows());
  blasint info = 0;
  dpotri_("L", &n, factor.data(), &n, &info, 1);
  if (info != 0) throw Error("the inverse of a singular matrix");
  factor.triangularView<Eigen::StrictlyUpper>() = factor.transpose();
}

double factor_log_det(const MatrixXd& factor) { return 2 * factor.diagonal().array().log().sum(); }

}  // namespace percept
