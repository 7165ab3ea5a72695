#include "filters/nonlinear_kalman.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

void need_matrix(const MatrixXd& m, Index rows, Index columns, const std::string& where, const char* name) {
  if (m.rows() != rows || m.cols() != columns)
    throw DataError(where, name, fmt::format("{} x {}", rows, columns), fmt::format("{} x {}", m.rows(), m.cols()));
  if (!m.allFinite()) throw DataError(where, name, "finite values", "NaN or infinity");
}

}  // namespace

NonlinearKalman::NonlinearKalman(const MatrixXd& a, const MatrixXd& gamma, const MatrixXd& v0, const MatrixXd& r,
                                 Observation observation, NonlinearOptions options, const std::string& where)
    : options_(std::move(options)), a_(a), gamma_(gamma), v0_(v0), r_(r), h_(std::move(observation)),
      random_(options_.seed, options_.node), repair_(v0.diagonal().cwiseAbs().cwiseSqrt()) {
  const Index d = a.rows(), n = r.rows(), units = h_.in.rows();
  if (d < 1 || n < 1) throw DataError(where, "model", "at least one state and one channel", "none");
  need_matrix(a_, d, d, where, "A");
  need_matrix(gamma_, d, d, where, "Gamma");
  need_matrix(v0_, d, d, where, "V0");
  need_matrix(r_, n, n, where, "R");
  need_matrix(h_.offset, n, 1, where, "offset");
  need_matrix(h_.linear, n, d, where, "linear");
  if (units > 0) need_matrix(h_.in, units, d, where, "in");
  need_matrix(h_.bias, units, 1, where, "bias");
  if (units > 0) need_matrix(h_.out, n, units, where, "out");
  if (!is_spd(v0_)) throw DataError(where, "V0", "a positive definite matrix", "one that is singular or indefinite");
  if (!is_spd(r_)) throw DataError(where, "R", "a positive definite matrix", "one that is singular or indefinite");
  gamma_factor_ = gamma_;
  repair_.repair(gamma_factor_);
  cholesky_in_place(gamma_factor_);
  r_factor_ = r_;
  cholesky_in_place(r_factor_);

  const double size = static_cast<double>(d);
  switch (options_.kind) {
    case NonlinearFilter::extended:
      break;
    case NonlinearFilter::unscented: {
      const double spread = options_.alpha * options_.alpha * (size + options_.kappa);
      if (!(spread > 0))
        throw DataError(where, "kappa", "more than minus the number of outputs", fmt::format("{}", options_.kappa));
      points_ = 2 * d + 1;
      mean_weight_ = (spread - size) / spread;
      centre_weight_ = mean_weight_ + 1 - options_.alpha * options_.alpha + options_.beta;
      weight_ = 0.5 / spread;
      break;
    }
    case NonlinearFilter::ensemble:
      points_ = options_.members;
      if (points_ < 2) throw DataError(where, "members", "at least 2", std::to_string(points_));
      weight_ = 1 / static_cast<double>(points_ - 1);
      break;
  }
  mean_.resize(d);
  predicted_mean_.resize(d);
  for (MatrixXd* m : {&covariance_, &predicted_, &work_}) m->resize(d, d);
  ensemble_.resize(d, options_.kind == NonlinearFilter::ensemble ? points_ : 0);
  hidden_.resize(units);
  expected_.resize(n);
  innovation_.resize(n);
  z_points_.resize(d, points_);
  x_points_.resize(n, points_);
  jacobian_.resize(n, options_.kind == NonlinearFilter::extended ? d : 0);
  noise_.resize(n, options_.kind == NonlinearFilter::ensemble ? points_ : 0);
  zx_.resize(d, n);
  gain_.resize(d, n);
  xx_.resize(n, n);
  reset();
}

void NonlinearKalman::reset() noexcept {
  mean_.setZero();
  covariance_ = v0_;
  frame_ = 0;
  ensemble_.setZero();
}

void NonlinearKalman::visit_state(StateVisitor& visitor) noexcept {
  visitor("mean", mean_);
  visitor("covariance", covariance_);
  visitor("frame", frame_);
  visitor("ensemble", ensemble_);
}

void NonlinearKalman::observe(const double* z, double* x) noexcept {
  column_product(h_.linear, z, x);
  const Index n = channels(), units = hidden_.size();
  for (Index i = 0; i < n; ++i) x[i] += h_.offset(i);
  if (units == 0) return;
  column_product(h_.in, z, hidden_.data());
  for (Index k = 0; k < units; ++k) hidden_(k) = std::tanh(hidden_(k) + h_.bias(k));
  for (Index k = 0; k < units; ++k)
    for (Index i = 0; i < n; ++i) x[i] += h_.out(i, k) * hidden_(k);
}

void NonlinearKalman::predict() noexcept {
  if (frame_ > 0) {
    column_product(a_, mean_.data(), predicted_mean_.data());
    sandwich(a_, covariance_, gamma_, predicted_, work_);
  } else {
    predicted_mean_ = mean_;
    predicted_ = covariance_;
  }
}

/// Sigma points of the prediction, or the ensemble moved by the state model and keyed noise.
void NonlinearKalman::spread_points() noexcept {
  const Index d = states();
  if (options_.kind == NonlinearFilter::unscented) {
    work_ = predicted_;
    if (!cholesky_in_place(work_)) {
      repair_.repair(predicted_);
      work_ = predicted_;
      cholesky_in_place(work_);
    }
    const double reach = options_.alpha * std::sqrt(static_cast<double>(d) + options_.kappa);
    for (Index p = 0; p < points_; ++p) z_points_.col(p) = predicted_mean_;
    for (Index k = 0; k < d; ++k)
      for (Index i = 0; i < d; ++i) {
        z_points_(i, 1 + k) += reach * work_(i, k);
        z_points_(i, 1 + d + k) -= reach * work_(i, k);
      }
    return;
  }
  if (frame_ == 0) {
    work_ = v0_;
    cholesky_in_place(work_);
  }
  const MatrixXd& factor = frame_ == 0 ? work_ : gamma_factor_;
  for (Index p = 0; p < points_; ++p) {
    column_product(a_, ensemble_.col(p).data(), z_points_.col(p).data());  // all zero at first
    for (Index k = 0; k < d; ++k) {
      const double draw = random_.normal(frame_, static_cast<std::uint64_t>(p * d + k));
      for (Index i = k; i < d; ++i) z_points_(i, p) += factor(i, k) * draw;
    }
  }
  predicted_mean_.setZero();
  for (Index p = 0; p < points_; ++p)
    for (Index i = 0; i < d; ++i) predicted_mean_(i) += z_points_(i, p) / static_cast<double>(points_);
  predicted_.setZero();
  for (Index p = 0; p < points_; ++p)
    for (Index j = 0; j < d; ++j)
      for (Index i = 0; i < d; ++i)
        predicted_(i, j) += weight_ * (z_points_(i, p) - predicted_mean_(i)) * (z_points_(j, p) - predicted_mean_(j));
}

/// expected_, and the covariances zx_ (state with channels) and xx_ (of the channels, without R).
void NonlinearKalman::moments() noexcept {
  const Index d = states(), n = channels(), units = hidden_.size();
  zx_.setZero();
  xx_.setZero();
  if (options_.kind == NonlinearFilter::extended) {
    observe(predicted_mean_.data(), expected_.data());
    jacobian_ = h_.linear;
    for (Index k = 0; k < units; ++k) {
      const double slope = 1 - hidden_(k) * hidden_(k);
      for (Index j = 0; j < d; ++j)
        for (Index i = 0; i < n; ++i) jacobian_(i, j) += h_.out(i, k) * slope * h_.in(k, j);
    }
    for (Index i = 0; i < n; ++i)
      for (Index k = 0; k < d; ++k)
        for (Index j = 0; j < d; ++j) zx_(j, i) += predicted_(j, k) * jacobian_(i, k);
    for (Index j = 0; j < n; ++j)
      for (Index k = 0; k < d; ++k)
        for (Index i = j; i < n; ++i) xx_(i, j) += jacobian_(i, k) * zx_(k, j);
    return;
  }
  for (Index p = 0; p < points_; ++p) observe(z_points_.col(p).data(), x_points_.col(p).data());
  expected_.setZero();
  if (options_.kind == NonlinearFilter::unscented) {
    // x̄ = x₀ + Σ w (x_p - x₀), since the weights sum to one: the terms of size 1 / alpha² then never meet
    for (Index p = 1; p < points_; ++p)
      for (Index i = 0; i < n; ++i) expected_(i) += weight_ * (x_points_(i, p) - x_points_(i, 0));
    for (Index i = 0; i < n; ++i) expected_(i) += x_points_(i, 0);
  } else {
    for (Index p = 0; p < points_; ++p)
      for (Index i = 0; i < n; ++i) expected_(i) += x_points_(i, p) / static_cast<double>(points_);
  }
  for (Index p = 0; p < points_; ++p) {
    const double w = p == 0 && options_.kind == NonlinearFilter::unscented ? centre_weight_ : weight_;
    for (Index i = 0; i < n; ++i) {
      const double off = x_points_(i, p) - expected_(i);
      for (Index j = 0; j < d; ++j) zx_(j, i) += w * (z_points_(j, p) - predicted_mean_(j)) * off;
    }
    for (Index j = 0; j < n; ++j) {
      const double off = w * (x_points_(j, p) - expected_(j));
      for (Index i = j; i < n; ++i) xx_(i, j) += (x_points_(i, p) - expected_(i)) * off;
    }
  }
}

StepReport NonlinearKalman::step(const double* x) noexcept {
  StepReport report;
  const Index d = states(), n = channels();
  const bool ensemble = options_.kind == NonlinearFilter::ensemble;
  if (!ensemble) predict();
  if (options_.kind != NonlinearFilter::extended) spread_points();
  Index seen = 0;
  for (Index i = 0; i < n; ++i) seen += std::isfinite(x[i]);
  report.missing = seen == 0;
  report.partial = seen > 0 && seen < n;
  if (report.missing) {
    mean_ = predicted_mean_;
    covariance_ = predicted_;
    ensemble_ = ensemble ? z_points_ : ensemble_;
  } else {
    moments();
    // a channel that is missing is made independent of everything: its share of the update is then exactly nothing
    for (Index j = 0; j < n; ++j) {
      const bool gone = !std::isfinite(x[j]);
      for (Index i = j; i < n; ++i) {
        xx_(i, j) += r_(i, j);
        if (gone || !std::isfinite(x[i])) xx_(i, j) = i == j ? 1.0 : 0.0;
      }
      if (gone) zx_.col(j).setZero();
      innovation_(j) = gone ? 0.0 : x[j] - expected_(j);
    }
    if (!cholesky_in_place(xx_)) {  // only when rounding has eaten R
      report.repaired = true;
      mean_ = predicted_mean_;
      covariance_ = predicted_;
      ensemble_ = ensemble ? z_points_ : ensemble_;
    } else {
      // gain = zx xx⁻¹ by two triangular solves
      gain_ = zx_;
      for (Index j = 0; j < n; ++j) {
        for (Index k = 0; k < j; ++k)
          for (Index i = 0; i < d; ++i) gain_(i, j) -= xx_(j, k) * gain_(i, k);
        for (Index i = 0; i < d; ++i) gain_(i, j) /= xx_(j, j);
      }
      for (Index j = n - 1; j >= 0; --j) {
        for (Index k = j + 1; k < n; ++k)
          for (Index i = 0; i < d; ++i) gain_(i, j) -= xx_(k, j) * gain_(i, k);
        for (Index i = 0; i < d; ++i) gain_(i, j) /= xx_(j, j);
      }
      if (!ensemble) {
        mean_ = predicted_mean_;
        for (Index j = 0; j < n; ++j)
          for (Index i = 0; i < d; ++i) mean_(i) += gain_(i, j) * innovation_(j);
        for (Index b = 0; b < d; ++b)
          for (Index a = b; a < d; ++a) {
            double sum = predicted_(a, b);
            for (Index j = 0; j < n; ++j) sum -= 0.5 * (gain_(a, j) * zx_(b, j) + gain_(b, j) * zx_(a, j));
            covariance_(a, b) = covariance_(b, a) = sum;
          }
      } else {
        // every member sees the frame with noise of its own; the noise sums to zero, so the mean sees the frame
        for (Index p = 0; p < points_; ++p) {
          for (Index i = 0; i < n; ++i) noise_(i, p) = 0;
          for (Index k = 0; k < n; ++k) {
            const double draw = random_.normal(frame_, static_cast<std::uint64_t>(points_ * d + p * n + k));
            for (Index i = k; i < n; ++i) noise_(i, p) += r_factor_(i, k) * draw;
          }
        }
        for (Index i = 0; i < n; ++i) {
          double sum = 0;
          for (Index p = 0; p < points_; ++p) sum += noise_(i, p);
          for (Index p = 0; p < points_; ++p) noise_(i, p) -= sum / static_cast<double>(points_);
        }
        ensemble_ = z_points_;
        for (Index p = 0; p < points_; ++p)
          for (Index j = 0; j < n; ++j) {
            if (!std::isfinite(x[j])) continue;
            const double off = x[j] + noise_(j, p) - x_points_(j, p);
            for (Index i = 0; i < d; ++i) ensemble_(i, p) += gain_(i, j) * off;
          }
        mean_.setZero();
        for (Index p = 0; p < points_; ++p)
          for (Index i = 0; i < d; ++i) mean_(i) += ensemble_(i, p) / static_cast<double>(points_);
        covariance_.setZero();
        for (Index p = 0; p < points_; ++p)
          for (Index j = 0; j < d; ++j)
            for (Index i = 0; i < d; ++i)
              covariance_(i, j) += weight_ * (ensemble_(i, p) - mean_(i)) * (ensemble_(j, p) - mean_(j));
      }
    }
  }
  ++frame_;
  // an overflow (a huge input, an unstable A in a long gap) must not stay in the state
  bool finite = true;
  for (Index i = 0; i < d; ++i) finite &= std::isfinite(mean_(i));
  for (Index i = 0; i < d * d; ++i) finite &= std::isfinite(covariance_.data()[i]);
  if (!finite) {
    const std::int64_t at = frame_;
    reset();
    frame_ = ensemble ? 0 : at;
    report.repaired = true;
  } else if (!ensemble && repair_.repair(covariance_)) {
    report.repaired = true;
  }
  return report;
}

}  // namespace percept
