#include "reconstruction/diffusion/operator.h"

#include <fmt/format.h>

#include <Eigen/SVD>
#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "numerics/random.h"

namespace percept::diffusion {
namespace {

constexpr double kSmallest = 1e-6;  ///< of the largest singular value: what single precision can tell from zero

[[noreturn]] void cannot(const char* what) { throw Error(fmt::format("diffusion: this operator has no {}", what)); }

void require_matrix(const Eigen::MatrixXd& a) {
  if (a.size() == 0 || !a.allFinite() || a.cwiseAbs().maxCoeff() == 0)
    throw ConfigError("diffusion.operator", fmt::format("a matrix of {} x {}", a.rows(), a.cols()),
                      "finite entries that are not all zero");
}

/// The items of a batch as channels of rows x columns; the memory of one is columns x rows.
template <class M>
auto image(M& batch, Index item, Index channel, Index rows, Index cols) {
  using Plain = std::conditional_t<std::is_const_v<M>, const Eigen::MatrixXf, Eigen::MatrixXf>;
  return Eigen::Map<Plain>(batch.col(item).data() + channel * rows * cols, cols, rows);
}

}  // namespace

std::string Capabilities::text() const {
  std::vector<const char*> words;
  if (gradient) words.push_back("gradient");
  if (linear) words.push_back("linear");
  if (pseudo_inverse) words.push_back("pseudo-inverse");
  if (prox) words.push_back("prox");
  if (spectral) words.push_back("singular values");
  return words.empty() ? "nothing" : fmt::format("{}", fmt::join(words, ", "));
}

std::string Capabilities::lacking(const Capabilities& needed) const {
  const Capabilities l{needed.gradient && !gradient, needed.linear && !linear, needed.pseudo_inverse && !pseudo_inverse,
                       needed.prox && !prox, needed.spectral && !spectral};
  const std::string s = l.text();
  return s == "nothing" ? "" : s;
}

void Operator::pull_back(const Batch&, const Batch& v, Batch& gradient) {
  if (!capabilities().linear) cannot("gradient");
  adjoint(v, gradient);
}
void Operator::adjoint(const Batch&, Batch&) { cannot("adjoint"); }
void Operator::pseudo_inverse(const Batch&, Batch&) { cannot("pseudo-inverse"); }
void Operator::prox(const Batch&, const Batch&, double, Batch&) { cannot("prox"); }
const Eigen::VectorXf& Operator::singular_values() const { cannot("singular values"); }
void Operator::to_range(const Batch&, Batch&) { cannot("singular values"); }
void Operator::from_range(const Batch&, Batch&) { cannot("singular values"); }
void Operator::seen(const Batch&, Batch&) { cannot("singular values"); }

void SpectralOperator::adjoint(const Batch& y, Batch& x) {
  seen(y, c_);
  c_.array().colwise() *= values_.array();
  from_range(c_, x);
}

void SpectralOperator::pseudo_inverse(const Batch& y, Batch& x) {
  seen(y, c_);
  c_.array().colwise() /= values_.array();
  from_range(c_, x);
}

void SpectralOperator::prox(const Batch& z, const Batch& y, double rho, Batch& x) {
  // V' x = (s U' y + rho V' z) / (s² + rho); outside the range of V' x stays z
  seen(y, c_);
  to_range(z, d_);
  const auto r = static_cast<float>(rho);
  for (Index i = 0; i < values_.size(); ++i) {
    const float s = values_(i);
    c_.row(i) = (s * c_.row(i) - s * s * d_.row(i)) / (s * s + r);  // as a change of z
  }
  from_range(c_, x);
  x += z;
}

MaskOperator::MaskOperator(Index inputs, std::vector<Index> kept) : inputs_(inputs), kept_(std::move(kept)) {
  std::vector<bool> taken(static_cast<std::size_t>(std::max<Index>(inputs, 0)));
  for (const Index i : kept_) {
    if (i < 0 || i >= inputs || taken[static_cast<std::size_t>(i)])
      throw ConfigError("diffusion.mask", std::to_string(i),
                        fmt::format("each value of the image at most once, 0 to {}", inputs - 1));
    taken[static_cast<std::size_t>(i)] = true;
  }
  values_.setOnes(outputs());
}

MaskOperator MaskOperator::identity(Index inputs) {
  std::vector<Index> all(static_cast<std::size_t>(inputs));
  for (Index i = 0; i < inputs; ++i) all[static_cast<std::size_t>(i)] = i;
  return {inputs, std::move(all)};
}

void MaskOperator::apply(const Batch& x, Batch& y) { y = x(kept_, Eigen::all); }

void MaskOperator::from_range(const Batch& c, Batch& x) {
  x.setZero(inputs_, c.cols());
  x(kept_, Eigen::all) = c;
}

MatrixOperator::MatrixOperator(const Eigen::MatrixXd& a) : a_((require_matrix(a), a.cast<float>())) {
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(a, Eigen::ComputeThinU | Eigen::ComputeThinV);
  const auto& s = svd.singularValues();  // falling
  Index r = 0;
  while (r < s.size() && s(r) > kSmallest * s(0)) ++r;
  values_ = s.head(r).cast<float>();
  u_ = svd.matrixU().leftCols(r).cast<float>();
  v_ = svd.matrixV().leftCols(r).cast<float>();
}

SeparableOperator::Axis SeparableOperator::axis(const Eigen::MatrixXd& a) {
  require_matrix(a);
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(a, Eigen::ComputeThinU | Eigen::ComputeThinV);
  return {a.cast<float>(), svd.matrixU().cast<float>(), svd.matrixV().cast<float>(),
          svd.singularValues().cast<float>()};
}

SeparableOperator::SeparableOperator(const Eigen::MatrixXd& along_height, const Eigen::MatrixXd& along_width,
                                     Index channels)
    : r_(axis(along_height)), c_(axis(along_width)), channels_(channels) {
  if (channels < 1) throw ConfigError("diffusion.channels", std::to_string(channels), "at least 1");
  const Eigen::MatrixXf s = c_.s * r_.s.transpose();  // columns x rows, as an image lies in memory
  for (Index i = 0; i < s.size(); ++i)
    if (s.data()[i] > static_cast<float>(kSmallest) * s(0, 0)) kept_.push_back(i);
  values_.resize(channels * static_cast<Index>(kept_.size()));
  for (Index k = 0, at = 0; k < channels; ++k)
    for (const Index i : kept_) values_(at++) = s.data()[i];
}

void SeparableOperator::apply(const Batch& x, Batch& y) {
  y.resize(outputs(), x.cols());
  for (Index item = 0; item < x.cols(); ++item)
    for (Index k = 0; k < channels_; ++k)
      image(y, item, k, r_.a.rows(), c_.a.rows()).noalias() =
          c_.a * image(x, item, k, r_.a.cols(), c_.a.cols()) * r_.a.transpose();
}

void SeparableOperator::to_range(const Batch& x, Batch& c) {
  const auto n = static_cast<Index>(kept_.size());
  c.resize(channels_ * n, x.cols());
  Eigen::MatrixXf all;
  for (Index item = 0; item < x.cols(); ++item)
    for (Index k = 0; k < channels_; ++k) {
      all.noalias() = c_.v.transpose() * image(x, item, k, r_.a.cols(), c_.a.cols()) * r_.v;
      c.col(item).segment(k * n, n) = all.reshaped()(kept_);
    }
}

void SeparableOperator::from_range(const Batch& c, Batch& x) {
  const auto n = static_cast<Index>(kept_.size());
  x.resize(inputs(), c.cols());
  Eigen::MatrixXf all = Eigen::MatrixXf::Zero(c_.v.cols(), r_.v.cols());
  for (Index item = 0; item < c.cols(); ++item)
    for (Index k = 0; k < channels_; ++k) {
      all.reshaped()(kept_) = c.col(item).segment(k * n, n);
      image(x, item, k, r_.a.cols(), c_.a.cols()).noalias() = c_.v * all * r_.v.transpose();
    }
}

void SeparableOperator::seen(const Batch& y, Batch& c) {
  const auto n = static_cast<Index>(kept_.size());
  c.resize(channels_ * n, y.cols());
  Eigen::MatrixXf all;
  for (Index item = 0; item < y.cols(); ++item)
    for (Index k = 0; k < channels_; ++k) {
      all.noalias() = c_.u.transpose() * image(y, item, k, r_.a.rows(), c_.a.rows()) * r_.u;
      c.col(item).segment(k * n, n) = all.reshaped()(kept_);
    }
}

Eigen::MatrixXd blur_matrix(Index n, double sd) {
  if (n < 1 || !(sd > 0) || !(sd <= 1e3))
    throw ConfigError("diffusion.blur", fmt::format("{}", sd), "above 0 and at most 1000 pixels");
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(n, n);
  const auto reach = static_cast<Index>(std::ceil(4 * sd));
  for (Index i = 0; i < n; ++i)
    for (Index k = -reach; k <= reach; ++k) {
      // ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ...: period 2 n
      Index j = (i + k) % (2 * n);
      if (j < 0) j += 2 * n;
      if (j >= n) j = 2 * n - 1 - j;
      a(i, j) += std::exp(-0.5 * static_cast<double>(k * k) / (sd * sd));
    }
  return a.array().colwise() / a.rowwise().sum().array();
}

Eigen::MatrixXd block_mean_matrix(Index n, Index factor) {
  if (factor < 1 || n < factor || n % factor != 0)
    throw ConfigError("diffusion.factor", std::to_string(factor), fmt::format("a divisor of {}", n));
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(n / factor, n);
  for (Index i = 0; i < n; ++i) a(i / factor, i) = 1.0 / static_cast<double>(factor);
  return a;
}

FunctionOperator::FunctionOperator(Index inputs, Index outputs, Functions functions, double norm)
    : inputs_(inputs), outputs_(outputs), f_(std::move(functions)), norm_(norm) {
  if (!f_.apply) throw ConfigError("diffusion.operator", "", "a function y = A(x)");
  if (!(norm > 0)) throw ConfigError("diffusion.operator.norm", fmt::format("{}", norm), "a number above zero");
}

Capabilities FunctionOperator::capabilities() const {
  return {f_.pull_back || f_.adjoint, static_cast<bool>(f_.adjoint), static_cast<bool>(f_.pseudo_inverse),
          static_cast<bool>(f_.prox), false};
}

void FunctionOperator::pull_back(const Batch& x, const Batch& v, Batch& gradient) {
  f_.pull_back ? f_.pull_back(x, v, gradient) : Operator::pull_back(x, v, gradient);
}
void FunctionOperator::adjoint(const Batch& y, Batch& x) { f_.adjoint ? f_.adjoint(y, x) : Operator::adjoint(y, x); }
void FunctionOperator::pseudo_inverse(const Batch& y, Batch& x) {
  f_.pseudo_inverse ? f_.pseudo_inverse(y, x) : Operator::pseudo_inverse(y, x);
}
void FunctionOperator::prox(const Batch& z, const Batch& y, double rho, Batch& x) {
  f_.prox ? f_.prox(z, y, rho, x) : Operator::prox(z, y, rho, x);
}

DecodedOperator::DecodedOperator(std::shared_ptr<Operator> image_operator, std::shared_ptr<Autoencoder> autoencoder)
    : image_operator_(std::move(image_operator)), autoencoder_(std::move(autoencoder)) {
  if (image_operator_->inputs() != elements(autoencoder_->image_shape()))
    throw ConfigError("diffusion.operator", fmt::format("{} values", image_operator_->inputs()),
                      fmt::format("{} values, as the autoencoder's images", elements(autoencoder_->image_shape())));
  if (!capabilities().gradient) return;
  // largest singular value of the derivative at zero: power iteration on JᵀJ, with J v by a difference
  const KeyedRandom random(0, "norm of a decoded operator");
  const Batch zero = Batch::Zero(inputs(), 1);
  Batch v(inputs(), 1), base, moved, w, g;
  random.normals(0, 0, {v.data(), static_cast<std::size_t>(v.size())});
  apply(zero, base);
  for (int i = 0; i < 20; ++i) {
    const Batch unit = v / v.norm();
    const float step = 1e-2f;
    apply(step * unit, moved);
    w = (moved - base) / step;
    norm_ = static_cast<double>(w.norm());
    pull_back(zero, w, g);
    if (!g.allFinite() || !(g.norm() > 0)) break;
    v = g;
  }
  if (!(norm_ > 0) || !std::isfinite(norm_)) norm_ = 1;
}

Capabilities DecodedOperator::capabilities() const {
  Capabilities c;
  c.gradient = image_operator_->capabilities().gradient && autoencoder_->has_gradient();
  return c;
}

void DecodedOperator::apply(const Batch& z, Batch& y) {
  autoencoder_->decode(z, image_);
  image_operator_->apply(image_, y);
}

void DecodedOperator::pull_back(const Batch& z, const Batch& v, Batch& gradient) {
  autoencoder_->pull_back(
      z, image_, [&](const Batch& image, Batch& w) { image_operator_->pull_back(image, v, w); }, gradient);
}

}  // namespace percept::diffusion
