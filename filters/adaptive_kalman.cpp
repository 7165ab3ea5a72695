#include "filters/adaptive_kalman.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"

namespace percept {

using Eigen::MatrixXd;

AdaptiveKalman::AdaptiveKalman(const AdaptiveModel& m, double forgetting, const std::string& where)
    : forgetting_(forgetting), a_(m.a), gamma_(m.gamma), v0_(m.v0), ff0_(m.ff), xf0_(m.xf), xx0_(m.xx),
      repair_(m.v0.diagonal().cwiseAbs().cwiseSqrt()) {
  const Index d = a_.rows(), n = xx0_.size();
  const auto need = [&](const MatrixXd& x, Index rows, Index columns, const char* name) {
    if (x.rows() != rows || x.cols() != columns)
      throw DataError(where, name, fmt::format("{} x {}", rows, columns), fmt::format("{} x {}", x.rows(), x.cols()));
    if (!x.allFinite()) throw DataError(where, name, "finite values", "NaN or infinity");
  };
  if (d < 1 || n < 1) throw DataError(where, "model", "at least one state and one channel", "none");
  need(a_, d, d, "A");
  need(gamma_, d, d, "Gamma");
  need(v0_, d, d, "V0");
  need(ff0_, d + 1, d + 1, "ff");
  need(xf0_, n, d + 1, "xf");
  if (!is_spd(v0_) || !is_spd(ff0_))
    throw DataError(where, "V0 and ff", "positive definite matrices", "one that is singular or indefinite");
  if (!(forgetting > 0 && forgetting <= 1))
    throw DataError(where, "forgetting", "a weight in (0, 1]", fmt::format("{}", forgetting));
  mean_.resize(d);
  covariance_.resize(d, d);
  w_.setZero(n, d + 1);
  r_.setZero(n);
  least_noise_.setZero(n);
  predicted_mean_.resize(d);
  h_.resize(d);
  innovation_.resize(d);
  for (MatrixXd* x : {&predicted_, &information_, &inverse_, &factor_, &work_}) x->resize(d, d);
  for (MatrixXd* x : {&frame_ff_, &ff_inverse_, &ff_factor_}) x->resize(d + 1, d + 1);
  reset();
  for (Index i = 0; i < n; ++i)
    if (!(r_(i) > 1e-12 * xx0_(i)))
      throw DataError(where, fmt::format("channel {}", i), "noise over the training frames (leave a dead channel out)",
                      fmt::format("{}", r_(i)));
  least_noise_ = 1e-3 * r_;
}

void AdaptiveKalman::reset() noexcept {
  mean_.setZero();
  covariance_ = v0_;
  started_ = 0;
  ff_ = ff0_;
  xf_ = xf0_;
  xx_ = xx0_;
  solve();
}

void AdaptiveKalman::visit_state(StateVisitor& visitor) noexcept {
  visitor("mean", mean_);
  visitor("covariance", covariance_);
  visitor("started", started_);
  visitor("ff", ff_);
  visitor("xf", xf_);
  visitor("xx", xx_);
  visitor("weights", w_);
  visitor("noise", r_);
}

bool AdaptiveKalman::solve() noexcept {
  if (!spd_inverse(ff_, ff_inverse_, ff_factor_)) return false;
  const Index n = channels(), f = ff_.rows();
  for (Index i = 0; i < n; ++i) {
    double explained = 0;
    for (Index j = 0; j < f; ++j) {
      double sum = 0;
      for (Index k = 0; k < f; ++k) sum += xf_(i, k) * ff_inverse_(k, j);
      w_(i, j) = sum;
      explained += sum * xf_(i, j);
    }
    r_(i) = std::max(xx_(i) - explained, least_noise_(i));
  }
  return true;
}

void AdaptiveKalman::adapt(const double* x, const double* target) noexcept {
  const Index d = states(), n = channels();
  const double* z = target ? target : mean_.data();
  for (Index i = 0; i < d; ++i)
    if (!std::isfinite(z[i])) return;
  for (Index j = 0; j <= d; ++j)
    for (Index i = 0; i <= d; ++i) {
      frame_ff_(i, j) = (i < d ? z[i] : 1.0) * (j < d ? z[j] : 1.0);
      if (!target && i < d && j < d) frame_ff_(i, j) += covariance_(i, j);
    }
  const double keep = forgetting_, take = 1 - forgetting_;
  for (Index i = 0; i < n; ++i) {
    if (std::isfinite(x[i])) {
      for (Index j = 0; j <= d; ++j) xf_(i, j) = keep * xf_(i, j) + take * x[i] * (j < d ? z[j] : 1.0);
      xx_(i) = keep * xx_(i) + take * x[i] * x[i];
      continue;
    }
    // what its row of W expects: the row then stays as it is
    double square = r_(i);
    for (Index j = 0; j <= d; ++j) {
      double sum = 0;
      for (Index k = 0; k <= d; ++k) sum += w_(i, k) * frame_ff_(k, j);
      xf_(i, j) = keep * xf_(i, j) + take * sum;
      square += sum * w_(i, j);
    }
    xx_(i) = keep * xx_(i) + take * square;
  }
  for (Index k = 0; k < ff_.size(); ++k) ff_.data()[k] = keep * ff_.data()[k] + take * frame_ff_.data()[k];
  solve();
}

StepReport AdaptiveKalman::step(const double* x, const double* target) noexcept {
  StepReport report;
  const Index d = states(), n = channels();
  if (started_) {
    column_product(a_, mean_.data(), predicted_mean_.data());
    sandwich(a_, covariance_, gamma_, predicted_, work_);
  } else {
    predicted_mean_ = mean_;
    predicted_ = covariance_;
    started_ = 1;
  }
  information_.setZero();
  h_.setZero();
  Index seen = 0;
  for (Index i = 0; i < n; ++i) {
    if (!std::isfinite(x[i])) continue;
    ++seen;
    const double weight = 1 / r_(i), off = weight * (x[i] - w_(i, d));
    for (Index b = 0; b < d; ++b) {
      h_(b) += w_(i, b) * off;
      for (Index a = 0; a < d; ++a) information_(a, b) += weight * w_(i, a) * w_(i, b);
    }
  }
  report.missing = seen == 0;
  report.partial = seen > 0 && seen < n;
  mean_ = predicted_mean_;
  covariance_ = predicted_;
  if (!report.missing) {
    // (M⁻¹ + L)⁻¹, and m + Σ (h - L m)
    bool ok = spd_inverse(predicted_, inverse_, factor_);
    if (!ok) {
      report.repaired = true;
      repair_.repair(predicted_);
      ok = spd_inverse(predicted_, inverse_, factor_);
    }
    for (Index k = 0; k < d * d; ++k) inverse_.data()[k] += information_.data()[k];
    if (ok && spd_inverse(inverse_, covariance_, factor_)) {
      column_product(information_, predicted_mean_.data(), innovation_.data());
      for (Index i = 0; i < d; ++i) innovation_(i) = h_(i) - innovation_(i);
      column_product(covariance_, innovation_.data(), mean_.data());
      for (Index i = 0; i < d; ++i) mean_(i) += predicted_mean_(i);
    } else {
      report.repaired = true;
      covariance_ = predicted_;
    }
    if (forgetting_ < 1) adapt(x, target);
  }
  // an overflow (a huge input, an unstable A in a long gap) must not stay in the state
  bool finite = true;
  for (Index i = 0; i < d; ++i) finite &= std::isfinite(mean_(i));
  for (Index i = 0; i < d * d; ++i) finite &= std::isfinite(covariance_.data()[i]);
  for (Index i = 0; i < w_.size(); ++i) finite &= std::isfinite(w_.data()[i]);
  for (Index i = 0; i < n; ++i) finite &= std::isfinite(r_(i)) && std::isfinite(xx_(i));
  if (!finite) {
    reset();
    report.repaired = true;
  }
  return report;
}

}  // namespace percept
