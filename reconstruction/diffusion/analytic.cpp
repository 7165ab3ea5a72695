#include "reconstruction/diffusion/analytic.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "numerics/apply.h"
#include "numerics/linalg.h"

namespace percept::diffusion {
namespace {
constexpr int kMixtureVersion = 1;

/// C (C + sigma²)⁻¹ v.
Eigen::VectorXd shrink(const GaussianMixture::Component& c, double sigma, const Eigen::VectorXd& v) {
  const double s2 = sigma * sigma;
  const Eigen::VectorXd along = c.basis.transpose() * v;
  const double rest = c.rest / (c.rest + s2);
  return rest * v + c.basis * ((c.variances.array() / (c.variances.array() + s2) - rest) * along.array()).matrix();
}
}  // namespace

GaussianMixture::Component GaussianMixture::component(double weight, const Eigen::VectorXd& mean,
                                                      const Eigen::MatrixXd& covariance, std::int64_t label) {
  Eigensystem e = eigensystem(covariance);
  return {weight, mean, std::move(e.vectors), e.values.cwiseMax(0.0), 0, label};
}

void GaussianMixture::check(const std::string& where) const {
  const Index n = elements(shape);
  if (n < 1 || components.empty()) throw DataError(where, "components", "at least one of at least one value", "none");
  double sum = 0;
  for (std::size_t k = 0; k < components.size(); ++k) {
    const Component& c = components[k];
    const std::string name = fmt::format("component {}", k);
    if (c.mean.size() != n || c.basis.rows() != n || c.basis.cols() != c.variances.size() || c.basis.cols() > n)
      throw DataError(where, name, fmt::format("a mean of {} values and a basis of as many rows", n),
                      fmt::format("{} and {} x {}", c.mean.size(), c.basis.rows(), c.basis.cols()));
    const bool finite = c.mean.allFinite() && c.basis.allFinite() && c.variances.allFinite() && std::isfinite(c.rest);
    if (!finite || !(c.weight >= 0) || c.rest < 0 || (c.variances.array() < 0).any())
      throw DataError(where, name, "finite values, a weight and variances not below zero", "others");
    if ((c.basis.transpose() * c.basis - Eigen::MatrixXd::Identity(c.basis.cols(), c.basis.cols())).norm() > 1e-6)
      throw DataError(where, name, "a basis of orthonormal columns", "another");
    sum += c.weight;
  }
  if (!(std::abs(sum - 1) < 1e-6)) throw DataError(where, "weights", "a sum of 1", fmt::format("{}", sum));
}

Model GaussianMixture::model() const {
  check("gaussian_mixture");
  Model m;
  m.meta["stage"] = "gaussian_mixture";
  m.meta["version"] = kMixtureVersion;
  m.meta["shape"] = Value(shape);
  m.meta["components"] = static_cast<std::int64_t>(components.size());
  Value labels = Value::array();
  for (std::size_t k = 0; k < components.size(); ++k) {
    const Component& c = components[k];
    const std::string at = fmt::format("{}.", k);
    m.set(at + "weight", c.weight);
    m.set(at + "mean", c.mean);
    if (c.basis.cols() > 0) {
      m.set(at + "basis", c.basis);
      m.set(at + "variances", c.variances);
    }
    m.set(at + "rest", c.rest);
    labels.push_back(c.label);
  }
  m.meta["labels"] = labels;
  return m;
}

GaussianMixture GaussianMixture::from(const Model& model, const std::string& where) {
  require_model(model, "gaussian_mixture", kMixtureVersion);
  GaussianMixture g;
  const auto integer = [&](const char* key, const Value* v, std::int64_t low, std::int64_t high) {
    if (!v || !v->is_integer() || v->as_integer() < low || v->as_integer() > high)
      throw DataError(where, key, fmt::format("an integer in [{}, {}]", low, high), v ? to_json(*v) : "nothing");
    return v->as_integer();
  };
  const Value* shape = model.meta.find("shape");
  if (!shape || !shape->is_array()) throw DataError(where, "shape", "a list of sizes", "something else");
  Index n = 1;
  for (auto& s : shape->as_array()) {
    g.shape.push_back(integer("shape", &s, 1, 1 << 24));
    n *= g.shape.back();
    if (n > (1 << 24)) throw DataError(where, "shape", "at most 16777216 values", "more");
  }
  const std::int64_t count = integer("components", model.meta.find("components"), 1, 10000);
  const Value* labels = model.meta.find("labels");
  if (!labels || !labels->is_array() || static_cast<std::int64_t>(labels->as_array().size()) != count)
    throw DataError(where, "labels", fmt::format("a list of {}", count), "something else");
  for (std::int64_t k = 0; k < count; ++k) {
    const std::string at = fmt::format("{}.", k);
    Component c;
    c.weight = model.number(at + "weight");
    c.mean = model.vector(at + "mean", n);
    if (model.has(at + "basis")) {
      c.basis = model.matrix(at + "basis", n);
      c.variances = model.vector(at + "variances", c.basis.cols());
    } else {
      c.basis.resize(n, 0);
    }
    c.rest = model.number(at + "rest");
    c.label = integer("labels", &labels->as_array()[static_cast<std::size_t>(k)], 0, 1 << 30);
    g.components.push_back(std::move(c));
  }
  g.check(where);
  return g;
}

MixtureDenoiser::MixtureDenoiser(GaussianMixture mixture, std::vector<std::int64_t> classes)
    : mixture_(std::move(mixture)), classes_(std::move(classes)) {
  mixture_.check("gaussian_mixture");
  for (const std::int64_t label : classes_)
    if (std::none_of(mixture_.components.begin(), mixture_.components.end(),
                     [&](auto& c) { return c.label == label && c.weight > 0; }))
      throw ConfigError("diffusion.class", std::to_string(label), "a class that a component of the mixture has");
}

void MixtureDenoiser::condition(const Eigen::VectorXd& x, double sigma, Index item, Index items) {
  const auto k = static_cast<Index>(mixture_.components.size());
  const double s2 = sigma * sigma;
  weight_.resize(k);
  mean_.resize(x.size(), k);
  for (Index i = 0; i < k; ++i) {
    const auto& c = mixture_.components[static_cast<std::size_t>(i)];
    const bool counts =
        classes_.empty() ||
        c.label == classes_[static_cast<std::size_t>(item * static_cast<Index>(classes_.size()) / items)];
    if (!counts || c.weight == 0) {
      weight_(i) = -HUGE_VAL;
      mean_.col(i).setZero();
      continue;
    }
    const Eigen::VectorXd off = x - c.mean;
    mean_.col(i) = c.mean + shrink(c, sigma, off);
    // log N(x; mean, C + sigma²), without what all share
    const Eigen::ArrayXd along = (c.basis.transpose() * off).array().square();
    const Eigen::ArrayXd total = c.variances.array() + s2;
    const double other = std::max(0.0, off.squaredNorm() - along.sum());
    const auto others = static_cast<double>(x.size() - c.basis.cols());
    weight_(i) = std::log(c.weight) - 0.5 * ((along / total).sum() + total.log().sum());
    if (others > 0) weight_(i) -= 0.5 * (other / (c.rest + s2) + others * std::log(c.rest + s2));
  }
  weight_ = (weight_.array() - weight_.maxCoeff()).exp();
  weight_ /= weight_.sum();
}

void MixtureDenoiser::denoise(const Batch& x, double sigma, Batch& x0) {
  x0.resize(x.rows(), x.cols());
  for (Index j = 0; j < x.cols(); ++j) {
    condition(x.col(j).cast<double>(), sigma, j, x.cols());
    x0.col(j) = (mean_ * weight_).cast<float>();
  }
}

void MixtureDenoiser::pull_back(const Batch& x, double sigma, Batch& x0, const Cotangent& cotangent, Batch& gradient) {
  denoise(x, sigma, x0);
  Batch v;
  cotangent(x0, v);
  gradient.resize(x.rows(), x.cols());
  for (Index j = 0; j < x.cols(); ++j) {
    condition(x.col(j).cast<double>(), sigma, j, x.cols());
    const Eigen::VectorXd w = v.col(j).cast<double>(), mean = mean_ * weight_;
    Eigen::VectorXd g = Eigen::VectorXd::Zero(w.size());
    for (Index i = 0; i < weight_.size(); ++i) {
      if (weight_(i) == 0) continue;
      const Eigen::VectorXd off = mean_.col(i) - mean;
      g += weight_(i) *
           (shrink(mixture_.components[static_cast<std::size_t>(i)], sigma, w) + off * (off.dot(w) / (sigma * sigma)));
    }
    gradient.col(j) = g.cast<float>();
  }
}

}  // namespace percept::diffusion
