#include "filters/smoother.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace percept {

using Eigen::MatrixXd;

Smoother::Smoother(const MatrixXd& a, const MatrixXd& gamma, const std::string& where) : a_(a), gamma_(gamma) {
  const Index d = a.rows();
  if (d < 1 || a.cols() != d || gamma.rows() != d || gamma.cols() != d)
    throw DataError(where, "A and Gamma", "square matrices of one size",
                    fmt::format("{} x {} and {} x {}", a.rows(), a.cols(), gamma.rows(), gamma.cols()));
  if (!a.allFinite() || !gamma.allFinite()) throw DataError(where, "A and Gamma", "finite values", "NaN or infinity");
  for (MatrixXd* m : {&p_, &predicted_, &inverse_, &factor_, &gain_, &change_, &work_}) m->resize(d, d);
  mean_.resize(d);
  off_.resize(d);
}

void Smoother::predict(const double* filtered, double* next) noexcept {
  const Index d = states();
  std::copy_n(filtered + d, d * d, p_.data());
  column_product(a_, filtered, mean_.data());
  sandwich(a_, p_, gamma_, predicted_, work_);
  std::copy_n(mean_.data(), d, next);
  std::copy_n(predicted_.data(), d * d, next + d);
}

bool Smoother::step_back(double* filtered, const double* next) noexcept {
  const Index d = states();
  std::copy_n(filtered + d, d * d, p_.data());
  column_product(a_, filtered, mean_.data());
  sandwich(a_, p_, gamma_, predicted_, work_);
  if (!spd_inverse(predicted_, inverse_, factor_)) return false;
  for (Index j = 0; j < d; ++j)  // work = Aᵀ M⁻¹
    for (Index i = 0; i < d; ++i) {
      double sum = 0;
      for (Index k = 0; k < d; ++k) sum += a_(k, i) * inverse_(k, j);
      work_(i, j) = sum;
    }
  for (Index j = 0; j < d; ++j) column_product(p_, work_.data() + j * d, gain_.data() + j * d);
  for (Index i = 0; i < d; ++i) off_(i) = next[i] - mean_(i);
  column_product(gain_, off_.data(), mean_.data());
  for (Index i = 0; i < d; ++i) filtered[i] += mean_(i);
  for (Index i = 0; i < d * d; ++i) change_.data()[i] = next[d + i] - predicted_.data()[i];
  sandwich(gain_, change_, p_, predicted_, work_);
  std::copy_n(predicted_.data(), d * d, filtered + d);
  return true;
}

}  // namespace percept
