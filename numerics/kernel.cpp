#include "numerics/kernel.h"

#include <cblas.h>
#include <fmt/format.h>

#include <Eigen/QR>
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"
#include "numerics/linalg.h"

namespace percept {
namespace {

using Eigen::ArrayXXd;
using Eigen::MatrixXd;
using Eigen::VectorXd;

const char* word_of(KernelShape shape) {
  switch (shape) {
    case KernelShape::squared_exponential:
      return "squared_exponential";
    case KernelShape::rational_quadratic:
      return "rational_quadratic";
    case KernelShape::matern32:
      return "matern32";
    case KernelShape::linear:
      return "linear";
    case KernelShape::multi_kernel:
      return "multi_kernel";
  }
  return "";
}

/// 0 or 1: which entries of theta make the log weight of each input.
MatrixXd weight_groups(KernelLengths lengths, const std::vector<Index>& shape) {
  Index inputs = 1;
  for (const Index n : shape) inputs *= n;
  if (inputs < 1) throw Error("kernel: an input without rows", Exit::bad_input);
  if (lengths == KernelLengths::one) return MatrixXd::Ones(inputs, 1);
  if (lengths == KernelLengths::rows) return MatrixXd::Identity(inputs, inputs);
  Index entries = 0;
  for (const Index n : shape) entries += n;
  MatrixXd groups = MatrixXd::Zero(inputs, entries);
  for (Index i = 0; i < inputs; ++i) {
    Index rest = i, before = entries;
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      before -= shape[axis];
      groups(i, before + rest % shape[axis]) = 1;
      rest /= shape[axis];
    }
  }
  return groups;
}

/// |a_i - b_j|² from the products of the columns, never negative.
MatrixXd distances2(const MatrixXd& a, const MatrixXd& b) {
  const VectorXd of_a = a.colwise().squaredNorm(), of_b = b.colwise().squaredNorm();
  MatrixXd d = product(a.transpose(), b);
  for (Index j = 0; j < d.cols(); ++j) d.col(j) = (of_a.array() + of_b(j) - 2 * d.col(j).array()).max(0.0);
  return d;
}

blasint blas_size(Index n) {
  if (n > std::numeric_limits<blasint>::max()) throw Error(fmt::format("a matrix of {} rows is too large for BLAS", n));
  return static_cast<blasint>(n);
}

constexpr double kRoot3 = 1.7320508075688772;

}  // namespace

Kernel::Kernel(std::vector<KernelShape> shapes, KernelLengths lengths, std::vector<Index> input_shape)
    : shapes_(std::move(shapes)), groups_(weight_groups(lengths, input_shape)), weight_entries_(groups_.cols()),
      axes_(lengths == KernelLengths::axes ? input_shape : std::vector<Index>{weight_entries_}) {
  if (shapes_.empty()) throw Error("kernel: a sum of no kernels", Exit::bad_input);
  if (lengths == KernelLengths::one) names_ = {"log_weight"};
  else if (lengths == KernelLengths::rows)
    for (Index i = 0; i < inputs(); ++i) names_.push_back(fmt::format("log_weight.{}", i));
  else
    for (std::size_t axis = 0; axis < input_shape.size(); ++axis)
      for (Index i = 0; i < input_shape[axis]; ++i) names_.push_back(fmt::format("log_weight.{}.{}", axis, i));
  for (const KernelShape s : shapes_) {
    names_.push_back(fmt::format("{}.log_variance", word_of(s)));
    if (s == KernelShape::rational_quadratic) names_.push_back(fmt::format("{}.log_exponent", word_of(s)));
  }
}

std::vector<Kernel::Term> Kernel::terms(const VectorXd& theta) const {
  std::vector<Term> all;
  Index at = weight_entries_;
  for (const KernelShape s : shapes_) {
    const bool exponent = s == KernelShape::rational_quadratic;
    all.push_back({s, std::exp(theta(at)), exponent ? std::exp(theta(at + 1)) : 0.0, at});
    at += exponent ? 2 : 1;
  }
  return all;
}

bool Kernel::has(KernelShape shape) const { return std::find(shapes_.begin(), shapes_.end(), shape) != shapes_.end(); }
bool Kernel::needs_distance() const {
  return has(KernelShape::squared_exponential) || has(KernelShape::rational_quadratic) || has(KernelShape::matern32);
}

VectorXd Kernel::weights(const VectorXd& theta) const {
  return (groups_ * theta.head(weight_entries_)).array().exp().matrix();
}

VectorXd Kernel::start(const VectorXd& weights, double variance) const {
  VectorXd theta = VectorXd::Zero(size());
  theta.head(weight_entries_) =
      groups_.completeOrthogonalDecomposition().solve(VectorXd(weights.array().log().matrix()));
  Index at = weight_entries_;
  for (const KernelShape s : shapes_) {
    const double share = variance / static_cast<double>(shapes_.size());
    theta(at++) = std::log(s == KernelShape::linear ? share / static_cast<double>(inputs()) : share);
    if (s == KernelShape::rational_quadratic) ++at;
  }
  return theta;
}

VectorXd Kernel::deviations(const VectorXd& theta) const {
  VectorXd out = VectorXd::Zero(size());
  Index at = 0;
  for (const Index n : axes_) {
    out.segment(at, n) = theta.segment(at, n).array() - theta.segment(at, n).mean();
    at += n;
  }
  return out;
}

/// Block of columns by block of columns, so that what is made of the products is still in the cache.
template <class Take>
void Kernel::columns(const VectorXd& theta, const MatrixXd& a, const MatrixXd& b, bool lower, const Take& take) const {
  constexpr Index kColumns = 64;
  const VectorXd root = weights(theta).cwiseSqrt();
  const MatrixXd u = (root.asDiagonal() * a).transpose(), v = root.asDiagonal() * b;
  const VectorXd of_u = u.rowwise().squaredNorm(), of_v = v.colwise().squaredNorm();
  const auto all = terms(theta);
  const bool distance = needs_distance(), linear = has(KernelShape::linear);
  MatrixXd block(u.rows(), kColumns);
  Eigen::ArrayXd distances(u.rows()), values(u.rows()), room(u.rows());
  for (Index first = 0; first < v.cols(); first += kColumns) {
    const Index columns = std::min(kColumns, v.cols() - first), top = lower ? first : 0, rows = u.rows() - top;
    if (distance || linear)
      cblas_dgemm(CblasColMajor, CblasNoTrans, CblasNoTrans, blas_size(rows), blas_size(columns), blas_size(u.cols()),
                  1.0, u.data() + top, blas_size(u.rows()), v.data() + first * v.rows(), blas_size(v.rows()), 0.0,
                  block.data() + top, blas_size(u.rows()));
    for (Index j = first; j < first + columns; ++j) {
      const Index at = lower ? j : 0, n = u.rows() - at;
      const auto products = block.col(j - first).tail(n).array();
      auto r2 = distances.head(n);
      if (distance) r2 = (of_u.tail(n).array() + of_v(j) - 2 * products).max(0.0);
      auto out = values.head(n), term = room.head(n);
      out.setZero();
      for (const Term& t : all) {
        switch (t.shape) {
          case KernelShape::squared_exponential:
            term = r2;
            wide::exponential(term.data(), n, t.variance, -0.5);
            break;
          case KernelShape::rational_quadratic:
            term = -t.exponent * (1 + r2 / (2 * t.exponent)).log();
            wide::exponential(term.data(), n, t.variance);
            break;
          case KernelShape::matern32:
            term = -kRoot3 * r2.sqrt();
            wide::exponential(term.data(), n, t.variance);
            term *= 1 + kRoot3 * r2.sqrt();
            break;
          case KernelShape::linear:
            term = t.variance * products;
            break;
          case KernelShape::multi_kernel:
            for (Index i = 0; i < inputs(); ++i) {
              if (i > 0) out += term;
              term = (u.col(i).tail(n).array() - v(i, j)).square();
              wide::exponential(term.data(), n, t.variance / static_cast<double>(inputs()), -0.5);
            }
            break;
        }
        out += term;
      }
      take(j, at, out);
    }
  }
}

MatrixXd Kernel::covariance(const VectorXd& theta, const MatrixXd& a, const MatrixXd& b) const {
  MatrixXd k(a.cols(), b.cols());
  columns(theta, a, b, false, [&](Index j, Index, const auto& values) { k.col(j) = values; });
  return k;
}

MatrixXd Kernel::lower_covariance(const VectorXd& theta, const MatrixXd& x) const {
  MatrixXd k(x.cols(), x.cols());
  columns(theta, x, x, true, [&](Index j, Index at, const auto& values) {
    k.col(j).head(at).setZero();
    k.col(j).tail(x.cols() - at) = values;
  });
  return k;
}

VectorXd Kernel::sums(const VectorXd& theta, const MatrixXd& points, const VectorXd& weights, const MatrixXd& x) const {
  VectorXd out(x.cols());
  columns(theta, points, x, false, [&](Index j, Index, const auto& values) { out(j) = values.matrix().dot(weights); });
  return out;
}

VectorXd Kernel::variances(const VectorXd& theta, const MatrixXd& x) const {
  VectorXd v = VectorXd::Zero(x.cols());
  for (const Term& t : terms(theta)) {
    if (t.shape == KernelShape::linear) v += t.variance * (x.array().square().matrix().transpose() * weights(theta));
    else v.array() += t.variance;
  }
  return v;
}

VectorXd Kernel::gradient(const VectorXd& theta, const MatrixXd& x, const MatrixXd& g) const {
  const VectorXd w = weights(theta), root = w.cwiseSqrt();
  const MatrixXd u = root.asDiagonal() * x;
  VectorXd out = VectorXd::Zero(size()), of_log_w = VectorXd::Zero(inputs());
  const MatrixXd d = needs_distance() ? distances2(u, u) : MatrixXd();
  // of r²: slope_ij = g_ij dk / dr²; of the products u_i u_j: g_ij times the variance of the linear kernels
  MatrixXd slope = d.size() > 0 ? MatrixXd(MatrixXd::Zero(x.cols(), x.cols())) : MatrixXd();
  double products = 0;
  for (const Term& t : terms(theta)) switch (t.shape) {
      case KernelShape::squared_exponential: {
        ArrayXXd gk = d;
        wide::exponential(gk.data(), gk.size(), t.variance, -0.5);
        gk *= g.array();
        out(t.at) = gk.sum();
        slope.array() -= 0.5 * gk;
        break;
      }
      case KernelShape::rational_quadratic: {
        const ArrayXXd base = 1 + d.array() / (2 * t.exponent), log_base = base.log();
        ArrayXXd gk = -t.exponent * log_base;
        wide::exponential(gk.data(), gk.size(), t.variance);
        gk *= g.array();
        out(t.at) = gk.sum();
        out(t.at + 1) = (gk * (0.5 * d.array() / base - t.exponent * log_base)).sum();
        slope.array() -= 0.5 * gk / base;
        break;
      }
      case KernelShape::matern32: {
        const ArrayXXd r = kRoot3 * d.array().sqrt();
        ArrayXXd ge = -r;
        wide::exponential(ge.data(), ge.size(), t.variance);
        ge *= g.array();
        out(t.at) = (ge * (1 + r)).sum();
        slope.array() -= 1.5 * ge;
        break;
      }
      case KernelShape::linear: {
        out(t.at) = t.variance * product(u, g).cwiseProduct(u).sum();
        products += t.variance;
        break;
      }
      case KernelShape::multi_kernel: {
        const double share = t.variance / static_cast<double>(inputs());
        Eigen::ArrayXd gk(x.cols());
        for (Index i = 0; i < inputs(); ++i) {
          const VectorXd v = u.row(i);
          for (Index j = 0; j < x.cols(); ++j) {
            const auto d2 = (v.array() - v(j)).square();
            gk = d2;
            wide::exponential(gk.data(), gk.size(), share, -0.5);
            gk *= g.col(j).array();
            out(t.at) += gk.sum();
            of_log_w(i) -= 0.5 * (gk * d2).sum();
          }
        }
        break;
      }
    }
  // of log w_i: sum_jk slope_jk (u_ij - u_ik)² + products sum_jk g_jk u_ij u_ik, by one product for all inputs
  if (d.size() > 0 || products > 0) {
    MatrixXd m = d.size() > 0 ? MatrixXd(-2 * slope) : MatrixXd(MatrixXd::Zero(x.cols(), x.cols()));
    if (products > 0) m += products * g;
    of_log_w += product(u, m).cwiseProduct(u).rowwise().sum();
    if (d.size() > 0) of_log_w += 2 * (u.array().square().matrix() * slope.rowwise().sum());
  }
  out.head(weight_entries_) = groups_.transpose() * of_log_w;
  return out;
}

KernelRow::KernelRow(const Kernel& kernel, const VectorXd& theta, const MatrixXd& points)
    : terms_(kernel.terms(theta)), distance_(kernel.needs_distance()), linear_(kernel.has(KernelShape::linear)),
      root_weights_(kernel.weights(theta).cwiseSqrt()), frames_(points.rows(), wide::kTogether),
      rows_(wide::packs(points.cols()) * wide::kPack, wide::kTogether), distance2_(points.cols()),
      product_(points.cols()), term_(points.cols()), variances_(wide::kTogether) {
  const MatrixXd weighted = root_weights_.asDiagonal() * points;
  if (distance_) packed_ = wide::packed(weighted);
  if (linear_ || kernel.has(KernelShape::multi_kernel)) points_ = weighted.transpose();
}

void KernelRow::look(const double* x, Index frames) noexcept {
  const Index inputs = frames_.rows();
  for (Index f = 0; f < frames; ++f)
    for (Index i = 0; i < inputs; ++i) frames_(i, f) = root_weights_(i) * x[f * inputs + i];
  if (distance_)
    wide::distances2(packed_.data(), wide::packs(distance2_.size()), inputs, frames_.data(), frames, rows_.data());
  for (Index f = 0; f < frames; ++f) finish(f);
}

/// From square distances in rows_ to covariances.
void KernelRow::finish(Index frame) noexcept {
  const Index n = distance2_.size();
  auto row = rows_.col(frame).head(n);
  if (terms_.size() == 1 && terms_[0].shape == KernelShape::squared_exponential) {  // the most frequent, in place
    wide::exponential(row.data(), n, terms_[0].variance, -0.5);
    variances_(frame) = terms_[0].variance;
    return;
  }
  const double* u = frames_.col(frame).data();
  const double square = wide::dot(u, u, frames_.rows());
  if (linear_) column_product(points_, u, product_.data());
  if (distance_) distance2_ = row;
  row.setZero();
  double& variance = variances_(frame);
  variance = 0;
  for (const Kernel::Term& t : terms_) {
    variance += t.shape == KernelShape::linear ? t.variance * square : t.variance;
    switch (t.shape) {
      case KernelShape::squared_exponential:
        term_ = distance2_;
        wide::exponential(term_.data(), n, t.variance, -0.5);
        row += term_;
        break;
      case KernelShape::rational_quadratic:
        term_.array() = -t.exponent * (1 + distance2_.array() / (2 * t.exponent)).log();
        wide::exponential(term_.data(), n, t.variance);
        row += term_;
        break;
      case KernelShape::matern32:
        term_.array() = -kRoot3 * distance2_.array().sqrt();
        wide::exponential(term_.data(), n, t.variance);
        row.array() += (1 + kRoot3 * distance2_.array().sqrt()) * term_.array();
        break;
      case KernelShape::linear:
        row += t.variance * product_;
        break;
      case KernelShape::multi_kernel:
        for (Index i = 0; i < points_.cols(); ++i) {
          term_.array() = (points_.col(i).array() - u[i]).square();
          wide::exponential(term_.data(), n, t.variance / static_cast<double>(points_.cols()), -0.5);
          row += term_;
        }
        break;
    }
  }
}

}  // namespace percept
