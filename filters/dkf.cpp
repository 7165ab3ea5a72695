#include "filters/dkf.h"

#include <fmt/format.h>

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace percept {

using Eigen::MatrixXd;
using Eigen::VectorXd;

Dkf::Dkf(const DkfModel& model, DkfFallback fallback, const std::string& where)
    : d_(model.a.rows()), fallback_(fallback), a_(model.a), gamma_(model.gamma), s_(model.s),
      repair_(model.s.diagonal().cwiseAbs().cwiseSqrt()) {
  for (const auto& [m, name] : {std::pair{&a_, "A"}, {&gamma_, "Gamma"}, {&s_, "S"}}) {
    if (m->rows() != d_ || m->cols() != d_ || d_ < 1)
      throw DataError(where, name, fmt::format("{} x {}", d_, d_), fmt::format("{} x {}", m->rows(), m->cols()));
    if (!m->allFinite()) throw DataError(where, name, "finite values", "NaN or infinity");
  }
  s_inverse_ = spd_inverse(s_, where, "S", "; the outputs are linearly dependent: leave one out");
  s_factor_inverse_ = s_.llt().matrixL().solve(MatrixXd::Identity(d_, d_));
  for (VectorXd* v : {&mean_, &predicted_mean_, &information_, &values_}) v->resize(d_);
  for (MatrixXd* m : {&covariance_, &q_, &q_inverse_, &predicted_, &predicted_inverse_, &posterior_inverse_, &work_,
                      &factor_, &vectors_})
    m->resize(d_, d_);
  reset();
}

void Dkf::reset() noexcept {
  mean_.setZero();
  covariance_ = s_;
  started_ = 0;
}

void Dkf::visit_state(StateVisitor& visitor) noexcept {
  visitor("mean", mean_);
  visitor("covariance", covariance_);
  visitor("started", started_);
}

StepReport Dkf::step(const double* f, const double* q) noexcept {
  const Index square = d_ * d_;
  StepReport report;
  for (Index i = 0; i < d_; ++i) report.missing |= !std::isfinite(f[i]);
  for (Index i = 0; i < square; ++i) report.missing |= !std::isfinite(q[i]);
  if (!started_ && report.missing) return report;  // nothing is known yet but the prior

  if (!report.missing) {
    std::copy_n(q, square, q_.data());
    report.repaired = repair_.repair(q_);
  }
  if (!started_) {
    std::copy_n(f, d_, mean_.data());
    covariance_ = q_;
    started_ = 1;
    return report;
  }

  column_product(a_, mean_.data(), predicted_mean_.data());
  sandwich(a_, covariance_, gamma_, predicted_, work_);
  if (!spd_inverse(predicted_, predicted_inverse_, factor_)) {
    report.repaired = true;
    repair_.repair(predicted_);
    spd_inverse(predicted_, predicted_inverse_, factor_);
  }
  bool updated = !report.missing && spd_inverse(q_, q_inverse_, factor_);
  if (updated) {
    bool subtract = fallback_ != DkfFallback::always_robust;
    if (subtract) {
      // Q⁻¹ - S⁻¹ against a hair of S⁻¹ instead of a fixed number: the answer must not depend on the unit of z
      for (Index i = 0; i < square; ++i) factor_.data()[i] = q_inverse_.data()[i] - (1.0 + 1e-6) * s_inverse_.data()[i];
      report.fallback = !cholesky_in_place(factor_);
    }
    if (report.fallback) {
      if (fallback_ == DkfFallback::robust) subtract = false;
      if (fallback_ == DkfFallback::inflate)
        for (Index i = 0; i < square; ++i) q_inverse_.data()[i] += s_inverse_.data()[i];
      if (fallback_ == DkfFallback::clip) clip();
    }
    for (Index i = 0; i < square; ++i)
      posterior_inverse_.data()[i] =
          q_inverse_.data()[i] + predicted_inverse_.data()[i] - (subtract ? s_inverse_.data()[i] : 0.0);
    updated = spd_inverse(posterior_inverse_, covariance_, factor_);
    report.repaired |= !updated;  // rounding only: the sum of two positive definite matrices
  }
  if (updated) {
    column_product(q_inverse_, f, information_.data());
    column_product(predicted_inverse_, predicted_mean_.data(), values_.data());
    for (Index i = 0; i < d_; ++i) information_(i) += values_(i);
    column_product(covariance_, information_.data(), mean_.data());
  } else {
    mean_ = predicted_mean_;
    covariance_ = predicted_;
  }

  bool finite = true;
  for (Index i = 0; i < d_; ++i) finite &= std::isfinite(mean_(i));
  for (Index i = 0; i < square; ++i) finite &= std::isfinite(covariance_.data()[i]);
  if (!finite) {  // an overflow must not stay in the state
    reset();
    report.repaired = true;
  }
  return report;
}

/// With S = L Lᵀ and L⁻¹ Q L⁻ᵀ = U λ Uᵀ: Q⁻¹ becomes L⁻ᵀ U max(1/λ, 1) Uᵀ L⁻¹.
void Dkf::clip() noexcept {
  const auto& w = s_factor_inverse_;
  work_.setZero();
  for (Index j = 0; j < d_; ++j)
    for (Index k = 0; k < d_; ++k)
      for (Index i = 0; i < d_; ++i) work_(i, j) += q_(i, k) * w(j, k);
  for (Index j = 0; j < d_; ++j) column_product(w, work_.data() + j * d_, factor_.data() + j * d_);
  for (Index j = 0; j < d_; ++j)
    for (Index i = j + 1; i < d_; ++i) factor_(i, j) = factor_(j, i) = 0.5 * (factor_(i, j) + factor_(j, i));
  symmetric_eigen(factor_, values_, vectors_);
  // Uᵀ L⁻¹, then the weighted sum over its rows
  for (Index j = 0; j < d_; ++j)
    for (Index i = 0; i < d_; ++i) {
      double sum = 0;
      for (Index k = 0; k < d_; ++k) sum += vectors_(k, i) * w(k, j);
      work_(i, j) = sum;
    }
  for (Index j = 0; j < d_; ++j)
    for (Index i = j; i < d_; ++i) {
      double sum = 0;
      for (Index k = 0; k < d_; ++k) sum += work_(k, i) * std::max(1.0 / values_(k), 1.0) * work_(k, j);
      q_inverse_(i, j) = q_inverse_(j, i) = sum;
    }
}

}  // namespace percept
