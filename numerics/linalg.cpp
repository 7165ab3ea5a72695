#include "numerics/linalg.h"

#include <cblas.h>
#include <fmt/format.h>

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"
#include "numerics/wide.h"

// LAPACK comes with OpenBLAS, its C header does not.
extern "C" void dsyevd_(const char* job, const char* triangle, const blasint* n, double* a, const blasint* lda,
                        double* w, double* work, const blasint* lwork, blasint* iwork, const blasint* liwork,
                        blasint* info, std::size_t, std::size_t);

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

blasint size_of(Index n) {
  if (n > std::numeric_limits<blasint>::max()) throw Error(fmt::format("a matrix of {} rows is too large for BLAS", n));
  return static_cast<blasint>(n);
}

void same_frames(Index a, Index b, const char* what) {
  if (a != b) throw Error(fmt::format("{}: {} and {} frames do not go together", what, a, b), Exit::bad_input);
}

/// a scaled to unit diagonal, the scale, and the first row whose diagonal is not positive (-1: none).
struct Scaled {
  MatrixXd a;
  VectorXd scale;
  Index bad = -1;
};

Scaled scaled(const MatrixXd& a) {
  Scaled s{a, a.diagonal(), -1};
  for (Index i = 0; i < a.rows() && s.bad < 0; ++i) {
    if (!(a(i, i) > 0) || !std::isfinite(a(i, i))) s.bad = i;
    s.scale(i) = 1.0 / std::sqrt(a(i, i));
  }
  if (s.bad < 0) s.a = s.scale.asDiagonal() * a * s.scale.asDiagonal();
  return s;
}

/// Below this reciprocal condition (of the scaled matrix) a solution has no digit left.
constexpr double kSmallestRcond = 1e-14;

bool factor(const Scaled& s, Eigen::LLT<MatrixXd>& llt) {
  if (s.bad >= 0 || !s.a.allFinite()) return false;
  llt.compute(s.a);
  return llt.info() == Eigen::Success && llt.rcond() > kSmallestRcond;
}

}  // namespace

MatrixXd gram(const MatrixXd& x) {
  MatrixXd out = MatrixXd::Zero(x.rows(), x.rows());
  if (x.size() == 0) return out;
  const auto n = size_of(x.rows()), k = size_of(x.cols());
  cblas_dsyrk(CblasColMajor, CblasLower, CblasNoTrans, n, k, 1.0, x.data(), n, 0.0, out.data(), n);
  out.triangularView<Eigen::StrictlyUpper>() = out.transpose();
  return out;
}

MatrixXd cross(const MatrixXd& x, const MatrixXd& y) {
  same_frames(x.cols(), y.cols(), "X Yᵀ");
  MatrixXd out = MatrixXd::Zero(x.rows(), y.rows());
  if (out.size() == 0 || x.cols() == 0) return out;
  const auto m = size_of(x.rows()), n = size_of(y.rows()), k = size_of(x.cols());
  cblas_dgemm(CblasColMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0, x.data(), m, y.data(), n, 0.0, out.data(), m);
  return out;
}

MatrixXd product(const MatrixXd& a, const MatrixXd& b) {
  same_frames(a.cols(), b.rows(), "A B");
  MatrixXd out = MatrixXd::Zero(a.rows(), b.cols());
  if (out.size() == 0 || a.cols() == 0) return out;
  const auto m = size_of(a.rows()), n = size_of(b.cols()), k = size_of(a.cols());
  cblas_dgemm(CblasColMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1.0, a.data(), m, b.data(), k, 0.0, out.data(), m);
  return out;
}

Eigensystem eigensystem(const MatrixXd& a) {
  if (a.rows() != a.cols() || !a.allFinite())
    throw Error("eigenvalues: the matrix is not square or not finite", Exit::bad_input);
  Eigensystem e{VectorXd(a.rows()), a};
  if (a.rows() == 0) return e;
  const auto n = size_of(a.rows());
  blasint info = 0, iwork_size = 0;
  double work_size = 0;
  const blasint ask = -1;
  dsyevd_("V", "L", &n, e.vectors.data(), &n, e.values.data(), &work_size, &ask, &iwork_size, &ask, &info, 1, 1);
  const auto lwork = static_cast<blasint>(work_size), liwork = iwork_size;
  std::vector<double> work(static_cast<std::size_t>(lwork));
  std::vector<blasint> iwork(static_cast<std::size_t>(liwork));
  dsyevd_("V", "L", &n, e.vectors.data(), &n, e.values.data(), work.data(), &lwork, iwork.data(), &liwork, &info, 1, 1);
  if (info != 0) throw Error(fmt::format("eigenvalues of a {} x {} matrix did not converge", n, n));
  return e;
}

bool is_spd(const MatrixXd& a) {
  Eigen::LLT<MatrixXd> llt;
  return a.rows() == a.cols() && a.rows() > 0 && factor(scaled(a), llt);
}

MatrixXd spd_inverse(const MatrixXd& a, const std::string& where, const std::string& name, const std::string& hint) {
  const Scaled s = scaled(a);
  Eigen::LLT<MatrixXd> llt;
  if (!factor(s, llt))
    throw DataError(where, name, "a positive definite matrix" + hint,
                    s.bad >= 0 ? fmt::format("{} on its diagonal (row {})", a(s.bad, s.bad), s.bad)
                               : "one that is singular to working precision");
  MatrixXd inverse = s.scale.asDiagonal() * llt.solve(MatrixXd::Identity(a.rows(), a.cols())) * s.scale.asDiagonal();
  return 0.5 * (inverse + inverse.transpose());
}

MatrixXd solve_normal(const MatrixXd& cross, const MatrixXd& gram, Index rows, const std::string& where,
                      const std::string& hint) {
  if (rows < gram.rows())
    throw DataError(where, "training frames",
                    fmt::format("at least as many as there are features ({}){}", gram.rows(), hint),
                    std::to_string(rows));
  const Scaled s = scaled(gram);
  Eigen::LLT<MatrixXd> llt;
  if (!factor(s, llt))
    throw DataError(where, "features", "linearly independent features" + hint,
                    s.bad >= 0 ? fmt::format("feature {} without any variation", s.bad)
                               : "features that are linear combinations of others");
  return (s.scale.asDiagonal() * llt.solve(s.scale.asDiagonal() * cross.transpose())).transpose();
}

void column_product(const MatrixXd& w, const double* x, double* out) noexcept {
  wide::product(w.data(), w.rows(), w.cols(), x, out);
}

bool cholesky_in_place(MatrixXd& a) noexcept {
  const Index n = a.rows();
  for (Index j = 0; j < n; ++j) {
    double* column = a.col(j).data();
    const double diagonal = column[j];
    for (Index k = 0; k < j; ++k) {
      const double* earlier = a.col(k).data();
      const double l = earlier[j];
      for (Index i = j; i < n; ++i) column[i] -= l * earlier[i];
    }
    if (!(column[j] > 1e-13 * diagonal) || !std::isfinite(column[j])) return false;
    const double pivot = std::sqrt(column[j]), inverse = 1.0 / pivot;
    column[j] = pivot;
    for (Index i = j + 1; i < n; ++i) column[i] *= inverse;
    for (Index i = 0; i < j; ++i) column[i] = 0;
  }
  return true;
}

bool spd_inverse(const MatrixXd& a, MatrixXd& inverse, MatrixXd& factor) noexcept {
  const Index n = a.rows();
  std::copy_n(a.data(), n * n, factor.data());
  if (!cholesky_in_place(factor)) return false;
  // inverse of the lower factor, into the lower triangle of `inverse`
  for (Index j = 0; j < n; ++j) {
    inverse(j, j) = 1.0 / factor(j, j);
    for (Index i = j + 1; i < n; ++i) {
      double sum = 0;
      for (Index k = j; k < i; ++k) sum += factor(i, k) * inverse(k, j);
      inverse(i, j) = -sum / factor(i, i);
    }
  }
  // L⁻ᵀ L⁻¹: element (i, j), i >= j, needs rows i and on, so it may overwrite the lower triangle row by row
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j <= i; ++j) {
      double sum = 0;
      for (Index k = i; k < n; ++k) sum += inverse(k, i) * inverse(k, j);
      inverse(i, j) = sum;
    }
  for (Index j = 0; j < n; ++j)
    for (Index i = 0; i < j; ++i) inverse(i, j) = inverse(j, i);
  return true;
}

void sandwich(const MatrixXd& a, const MatrixXd& b, const MatrixXd& c, MatrixXd& out, MatrixXd& work) noexcept {
  const Index n = a.rows();
  for (Index j = 0; j < n; ++j) column_product(a, b.data() + j * n, work.data() + j * n);
  for (Index j = 0; j < n; ++j)
    for (Index i = j; i < n; ++i) {
      double sum = c(i, j);
      for (Index k = 0; k < n; ++k) sum += work(i, k) * a(j, k);
      out(i, j) = out(j, i) = sum;
    }
}

void symmetric_eigen(MatrixXd& a, VectorXd& values, MatrixXd& vectors) noexcept {
  const Index n = a.rows();
  vectors.setIdentity();
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0, all = 0;
    for (Index j = 0; j < n; ++j)
      for (Index i = 0; i < n; ++i) {
        all += a(i, j) * a(i, j);
        if (i != j) off += a(i, j) * a(i, j);
      }
    if (!(off > 1e-32 * all)) break;
    for (Index p = 0; p < n; ++p)
      for (Index q = p + 1; q < n; ++q) {
        if (a(p, q) == 0) continue;
        const double theta = (a(q, q) - a(p, p)) / (2.0 * a(p, q));
        const double t = std::copysign(1.0, theta) / (std::abs(theta) + std::hypot(theta, 1.0));
        const double cosine = 1.0 / std::hypot(t, 1.0), sine = t * cosine;
        for (Index k = 0; k < n; ++k) {
          const double kp = a(k, p), kq = a(k, q);
          a(k, p) = cosine * kp - sine * kq;
          a(k, q) = sine * kp + cosine * kq;
        }
        for (Index k = 0; k < n; ++k) {
          const double pk = a(p, k), qk = a(q, k);
          a(p, k) = cosine * pk - sine * qk;
          a(q, k) = sine * pk + cosine * qk;
          const double kp = vectors(k, p), kq = vectors(k, q);
          vectors(k, p) = cosine * kp - sine * kq;
          vectors(k, q) = sine * kp + cosine * kq;
        }
      }
  }
  for (Index i = 0; i < n; ++i) values(i) = a(i, i);
}

SpdRepair::SpdRepair(const VectorXd& scale)
    : scale_(scale), values_(scale.size()), work_(scale.size(), scale.size()), vectors_(scale.size(), scale.size()) {}

bool SpdRepair::repair(MatrixXd& a) noexcept {
  const Index n = a.rows();
  bool asymmetric = false;
  for (Index j = 0; j < n; ++j)
    for (Index i = j + 1; i < n; ++i) {
      asymmetric |= std::abs(a(i, j) - a(j, i)) > 1e-6 * scale_(i) * scale_(j) &&
                    std::abs(a(i, j) - a(j, i)) > 1e-6 * std::max(std::abs(a(i, j)), std::abs(a(j, i)));
      a(i, j) = a(j, i) = 0.5 * (a(i, j) + a(j, i));
    }
  std::copy_n(a.data(), n * n, work_.data());
  if (cholesky_in_place(work_)) return asymmetric;
  for (Index j = 0; j < n; ++j)
    for (Index i = 0; i < n; ++i) work_(i, j) = a(i, j) / (scale_(i) * scale_(j));
  symmetric_eigen(work_, values_, vectors_);
  double largest = 0;
  for (Index k = 0; k < n; ++k) largest = std::max(largest, values_(k));
  const double floor = 1e-8 * (largest > 0 ? largest : 1.0);
  for (Index j = 0; j < n; ++j)
    for (Index i = j; i < n; ++i) {
      double sum = 0;
      for (Index k = 0; k < n; ++k) sum += vectors_(i, k) * std::max(values_(k), floor) * vectors_(j, k);
      a(i, j) = a(j, i) = sum * scale_(i) * scale_(j);
    }
  return true;
}

}  // namespace percept
