#include "filters/kalman.h"

#include <fmt/format.h>

#include <Eigen/LU>
#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

void need_shape(const MatrixXd& m, Index rows, Index columns, const std::string& where, const char* name) {
  if (m.rows() != rows || m.cols() != columns)
    throw DataError(where, name, fmt::format("{} x {}", rows, columns), fmt::format("{} x {}", m.rows(), m.cols()));
  if (!m.allFinite()) throw DataError(where, name, "finite values", "NaN or infinity");
}

}  // namespace

Kalman::Kalman(const KalmanModel& model, bool steady_state, const std::string& where)
    : d_(model.a.rows()), n_(model.c.rows()), steady_(steady_state), a_(model.a), gamma_(model.gamma), c_(model.c),
      v0_(model.v0), repair_(model.v0.diagonal().cwiseAbs().cwiseSqrt()) {
  if (d_ < 1 || n_ < 1) throw DataError(where, "model", "at least one state and one channel", "none");
  need_shape(a_, d_, d_, where, "A");
  need_shape(gamma_, d_, d_, where, "Gamma");
  need_shape(c_, n_, d_, where, "C");
  need_shape(v0_, d_, d_, where, "V0");
  const bool diagonal = model.r.cols() == 1 && n_ > 1;
  need_shape(model.r, n_, diagonal ? 1 : n_, where, "R");
  if (!is_spd(v0_)) throw DataError(where, "V0", "a positive definite matrix", "one that is singular or indefinite");

  const char* hint = "; set regularisation, or leave out dead and duplicate channels";
  if (diagonal) {
    for (Index i = 0; i < n_; ++i)
      if (!(model.r(i) > 0))
        throw DataError(where, "R", std::string("positive noise of every channel") + hint,
                        fmt::format("{} (channel {})", model.r(i), i));
    precision_ = model.r.cwiseInverse();
    weights_ = c_.transpose() * precision_.col(0).asDiagonal();
  } else {
    precision_ = spd_inverse(model.r, where, "R", hint);
    weights_ = product(c_.transpose(), precision_);
  }
  information_ = product(weights_, c_);
  information_ = (0.5 * (information_ + information_.transpose())).eval();
  if (!weights_.allFinite() || !information_.allFinite())
    throw DataError(where, "R", std::string("noise that is not vanishing") + hint, "CᵀR⁻¹ is not finite");

  mean_.resize(d_);
  covariance_.resize(d_, d_);
  missing_.assign(static_cast<std::size_t>(n_), 0);
  missing_rows_.reserve(static_cast<std::size_t>(n_));
  partial_weights_ = weights_;
  partial_information_ = information_;
  const Index room = precision_.cols() == 1 ? 0 : n_;
  missing_factor_.resize(room, room);
  missing_map_.resize(d_, room);
  predicted_mean_.resize(d_);
  h_.resize(d_);
  innovation_.resize(d_);
  frame_.resize(n_);
  for (MatrixXd* m : {&predicted_, &factor_, &core_, &core_inverse_, &work_, &work2_}) m->resize(d_, d_);
  if (steady_) {
    steady_predicted_ = steady_covariance(a_, gamma_, information_, where);
    predicted_ = steady_predicted_;
    mean_.setZero();
    predicted_mean_.setZero();
    h_.setZero();
    update(h_.data(), information_, false);
    steady_covariance_ = covariance_;
  }
  reset();
}

void Kalman::reset() noexcept {
  mean_.setZero();
  covariance_ = steady_ ? steady_predicted_ : v0_;
  started_ = 0;
}

void Kalman::visit_state(StateVisitor& visitor) noexcept {
  visitor("mean", mean_);
  visitor("covariance", covariance_);
  visitor("started", started_);
}

void Kalman::predict() noexcept {
  if (started_) {
    column_product(a_, mean_.data(), predicted_mean_.data());
    if (!steady_) sandwich(a_, covariance_, gamma_, predicted_, work_);
  } else {
    predicted_mean_ = mean_;
    if (!steady_) predicted_ = covariance_;
    started_ = 1;
  }
  if (steady_) predicted_ = steady_predicted_;
}

StepReport Kalman::step(const double* x) noexcept {
  column_product(weights_, x, h_.data());
  // a value that is not finite makes every sum it enters not finite: no scan of complete frames
  bool complete = true;
  for (Index i = 0; i < d_; ++i) complete &= std::isfinite(h_(i));
  predict();
  if (complete) return update(h_.data(), information_, true);

  leave_out(x);
  StepReport report;
  if (static_cast<Index>(missing_rows_.size()) == n_) {
    report.missing = true;
    mean_ = predicted_mean_;
    covariance_ = predicted_;
    return finish(report);
  }
  for (Index i = 0; i < n_; ++i) frame_(i) = missing_[static_cast<std::size_t>(i)] ? 0.0 : x[i];
  column_product(partial_weights_, frame_.data(), h_.data());
  report = update(h_.data(), partial_information_, false);
  report.partial = !missing_rows_.empty();
  return report;
}

StepReport Kalman::step_information(const double* h) noexcept {
  predict();
  return update(h, information_, true);
}

void Kalman::leave_out(const double* x) noexcept {
  bool same = true;
  for (Index i = 0; i < n_; ++i) {
    const std::uint8_t gone = !std::isfinite(x[i]);
    same &= gone == missing_[static_cast<std::size_t>(i)];
    missing_[static_cast<std::size_t>(i)] = gone;
  }
  if (same) return;
  missing_rows_.clear();
  for (Index i = 0; i < n_; ++i)
    if (missing_[static_cast<std::size_t>(i)]) missing_rows_.push_back(i);
  const auto m = static_cast<Index>(missing_rows_.size());
  if (m == n_) return;

  std::copy_n(weights_.data(), weights_.size(), partial_weights_.data());
  if (precision_.cols() == 1) {
    partial_information_.setZero();
    for (Index k = 0; k < n_; ++k) {
      if (missing_[static_cast<std::size_t>(k)]) continue;
      for (Index j = 0; j < d_; ++j)
        for (Index i = 0; i < d_; ++i) partial_information_(i, j) += weights_(i, k) * c_(k, j);
    }
  } else {
    // L Lᵀ = P_mm, then the map T = W_m P_mm⁻¹ by two triangular solves
    auto& l = missing_factor_;
    auto& t = missing_map_;
    for (Index j = 0; j < m; ++j) {
      const Index row = missing_rows_[static_cast<std::size_t>(j)];
      for (Index i = j; i < m; ++i) l(i, j) = precision_(missing_rows_[static_cast<std::size_t>(i)], row);
      for (Index i = 0; i < d_; ++i) t(i, j) = weights_(i, row);
    }
    for (Index j = 0; j < m; ++j) {
      for (Index k = 0; k < j; ++k) {
        const double v = l(j, k);
        for (Index i = j; i < m; ++i) l(i, j) -= v * l(i, k);
      }
      const double pivot = std::sqrt(l(j, j));  // P is positive definite, so is P_mm
      for (Index i = j; i < m; ++i) l(i, j) /= pivot;
    }
    for (Index j = 0; j < m; ++j) {
      for (Index k = 0; k < j; ++k)
        for (Index i = 0; i < d_; ++i) t(i, j) -= l(j, k) * t(i, k);
      for (Index i = 0; i < d_; ++i) t(i, j) /= l(j, j);
    }
    for (Index j = m - 1; j >= 0; --j) {
      for (Index k = j + 1; k < m; ++k)
        for (Index i = 0; i < d_; ++i) t(i, j) -= l(k, j) * t(i, k);
      for (Index i = 0; i < d_; ++i) t(i, j) /= l(j, j);
    }
    partial_information_ = information_;
    for (Index k = 0; k < m; ++k) {
      const Index row = missing_rows_[static_cast<std::size_t>(k)];
      for (Index j = 0; j < n_; ++j)
        for (Index i = 0; i < d_; ++i) partial_weights_(i, j) -= t(i, k) * precision_(row, j);
      for (Index j = 0; j < d_; ++j)
        for (Index i = 0; i < d_; ++i) partial_information_(i, j) -= t(i, k) * weights_(j, row);
    }
  }
  for (Index j = 0; j < d_; ++j)
    for (Index i = j + 1; i < d_; ++i)
      partial_information_(i, j) = partial_information_(j, i) =
          0.5 * (partial_information_(i, j) + partial_information_(j, i));
}

/// With M = F Fᵀ: Σ = F (I + Fᵀ L F)⁻¹ Fᵀ, which equals (M⁻¹ + L)⁻¹, needs no inverse of M, and is positive definite
/// whatever the rounding; μ = m + Σ (h - L m).
StepReport Kalman::update(const double* h, const MatrixXd& information, bool complete) noexcept {
  StepReport report;
  if (steady_ && complete) {
    covariance_ = steady_covariance_;
  } else {
    factor_ = predicted_;
    if (!cholesky_in_place(factor_)) {
      report.repaired = true;
      repair_.repair(predicted_);
      factor_ = predicted_;
      cholesky_in_place(factor_);
    }
    for (Index j = 0; j < d_; ++j) {  // work = L F, core = I + Fᵀ work
      column_product(information, factor_.data() + j * d_, work_.data() + j * d_);
      for (Index i = 0; i < d_; ++i) {
        double sum = i == j ? 1.0 : 0.0;
        for (Index k = i; k < d_; ++k) sum += factor_(k, i) * work_(k, j);
        core_(i, j) = sum;
      }
    }
    if (!spd_inverse(core_, core_inverse_, work2_)) {  // only when the information of a partial frame is rounding
      report.repaired = true;
      core_inverse_.setIdentity();
    }
    for (Index j = 0; j < d_; ++j) column_product(factor_, core_inverse_.data() + j * d_, work_.data() + j * d_);
    for (Index j = 0; j < d_; ++j)
      for (Index i = j; i < d_; ++i) {
        double sum = 0;
        for (Index k = 0; k <= j; ++k) sum += work_(i, k) * factor_(j, k);
        covariance_(i, j) = covariance_(j, i) = sum;
      }
  }
  column_product(information, predicted_mean_.data(), innovation_.data());
  for (Index i = 0; i < d_; ++i) innovation_(i) = h[i] - innovation_(i);
  column_product(covariance_, innovation_.data(), mean_.data());
  for (Index i = 0; i < d_; ++i) mean_(i) += predicted_mean_(i);
  return finish(report);
}

/// An overflow (a huge input, an unstable A in a long gap) must not stay in the state.
StepReport Kalman::finish(StepReport report) noexcept {
  bool finite = true;
  for (Index i = 0; i < d_; ++i) finite &= std::isfinite(mean_(i));
  for (Index i = 0; i < d_ * d_; ++i) finite &= std::isfinite(covariance_.data()[i]);
  if (!finite) {
    reset();
    report.repaired = true;
  }
  return report;
}

MatrixXd steady_covariance(const MatrixXd& a, const MatrixXd& gamma, const MatrixXd& information,
                           const std::string& where) {
  const auto identity = MatrixXd::Identity(a.rows(), a.cols());
  MatrixXd f = a.transpose(), g = information, m = gamma;
  for (int i = 0; i < 60; ++i) {
    // m is the predicted covariance after 2^i steps from 0; every step squares the map
    const Eigen::PartialPivLU<MatrixXd> lu(identity + g * m);
    const MatrixXd wf = lu.solve(f), wg = lu.solve(g);
    const MatrixXd step = f.transpose() * m * wf;
    g = (g + f * wg * f.transpose()).eval();
    f = (f * wf).eval();
    m += 0.5 * (step + step.transpose());
    if (!m.allFinite() || !g.allFinite() || !f.allFinite()) break;
    if (step.cwiseAbs().maxCoeff() <= 1e-15 * m.cwiseAbs().maxCoeff()) return m;
  }
  throw DataError(where, "steady state", "a Riccati recursion that converges",
                  "none (A is unstable in a direction no channel observes); set steady_state = false");
}

MatrixXd stationary_covariance(const MatrixXd& a, const MatrixXd& gamma, const std::string& where) {
  MatrixXd power = a, s = gamma;
  for (int i = 0; i < 60; ++i) {
    const MatrixXd step = power * s * power.transpose();
    s += 0.5 * (step + step.transpose());
    power = (power * power).eval();
    if (!s.allFinite() || !power.allFinite()) break;
    if (step.cwiseAbs().maxCoeff() <= 1e-16 * s.cwiseAbs().maxCoeff()) return s;
  }
  throw DataError(where, "A", "a stable state model (eigenvalues inside the unit circle)",
                  "one without a stationary covariance");
}

void filter_batch(Kalman& filter, const MatrixXd& x, MatrixXd& means, MatrixXd* covariances) {
  if (x.rows() != filter.channels())
    throw DataError("filter_batch", "x", fmt::format("{} rows", filter.channels()), std::to_string(x.rows()));
  const Index d = filter.states();
  const MatrixXd h = product(filter.weights(), x);
  means.resize(d, x.cols());
  if (covariances) covariances->resize(d * d, x.cols());
  for (Index t = 0; t < x.cols(); ++t) {
    if (h.col(t).allFinite()) filter.step_information(h.col(t).data());
    else filter.step(x.col(t).data());
    means.col(t) = filter.mean();
    if (covariances) covariances->col(t) = filter.covariance().reshaped();
  }
}

}  // namespace percept
