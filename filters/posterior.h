/// What the stages that give a posterior share: writing it to an edge, and samples for the registry.
#pragma once

#include <Eigen/Core>
#include <memory>
#include <utility>
#include <vector>

#include "core/registry.h"
#include "filters/kalman.h"
#include "numerics/apply.h"
#include "numerics/random.h"

namespace percept {

/// What happened in the steps of a filter, counted under its node's name.
class StepCounters {
 public:
  explicit StepCounters(Context& context)
      : missing_(&context.counter("missing")), partial_(&context.counter("partly_missing")),
        fallback_(&context.counter("fallback")), repaired_(&context.counter("covariance_repaired")) {}
  StepCounters() = default;
  void add(const StepReport& report) noexcept {
    if (report.missing) missing_->add();
    if (report.partial) partial_->add();
    if (report.fallback) fallback_->add();
    if (report.repaired) repaired_->add();
  }

 private:
  Counter *missing_ = nullptr, *partial_ = nullptr, *fallback_ = nullptr, *repaired_ = nullptr;
};

/// Reads the parts "mean" and "covariance" of an edge in the order of a model's outputs.
class PosteriorEdge {
 public:
  PosteriorEdge() = default;
  /// Throws ConfigError naming `such_as`, a stage that gives such an edge, when parts or outputs are not the model's.
  PosteriorEdge(const StreamFormat& in, const Model& model, Index states, const char* such_as, const Context& context);
  /// f: states values; q: states x states.
  template <class T>
  void read(const T* frame, double* f, double* q) const noexcept {
    const auto d = static_cast<Index>(order_.size());
    for (Index i = 0; i < d; ++i) {
      const Index row = order_[static_cast<std::size_t>(i)];
      f[i] = static_cast<double>(frame[mean_at_ + row]);
      for (Index j = 0; j < d; ++j)
        q[i + j * d] = static_cast<double>(frame[covariance_at_ + row * d + order_[static_cast<std::size_t>(j)]]);
    }
  }

 private:
  Index mean_at_ = 0, covariance_at_ = 0;
  std::vector<Index> order_;
};

/// mean + offset, then the covariance (d x d, symmetric; may be empty), as the parts of one frame.
template <class T>
void write_posterior(const Eigen::VectorXd& mean, const Eigen::VectorXd& offset, const Eigen::MatrixXd& covariance,
                     T* out) noexcept {
  const Index d = mean.size();
  for (Index i = 0; i < d; ++i) out[i] = static_cast<T>(mean(i) + offset(i));
  for (Index i = 0; i < covariance.size(); ++i) out[d + i] = static_cast<T>(covariance.data()[i]);
}

/// A tiny model: 2 outputs that wander, seen by the channels of the format through a fixed map and keyed noise.
template <class FitterType, class Params>
Sample fitted_sample(const Value& params, const StreamFormat& format) {
  const KeyedRandom random(1, "sample");
  const Index n = 200, rows = format.size();
  TrainingMatrix data{Eigen::MatrixXd(rows, n), Eigen::MatrixXd(2, n), {}, {}, {}};
  for (Index t = 0; t < n; ++t) {
    for (Index k = 0; k < 2; ++k)
      data.y(k, t) = (t ? 0.9 * data.y(k, t - 1) : 0.0) + 0.5 * random.normal(t, static_cast<std::uint64_t>(k));
    for (Index i = 0; i < rows; ++i)
      data.x(i, t) = data.y(i % 2, t) + static_cast<double>(i) * data.y((i + 1) % 2, t) +
                     random.normal(t, static_cast<std::uint64_t>(2 + i));
  }
  StreamFormat target = time_format(2, format.rate_hz, Scalar::f64, "velocity");
  target.parts[0].unit = "m/s";
  target.parts[0].rows.resize(2);
  target.parts[0].rows[0].name = "x";
  target.parts[0].rows[1].name = "y";
  Context context;
  Sample sample;
  sample.format = format;
  sample.params = params;
  sample.model = std::make_shared<Model>(
      FitterType(read_params<Params>(params, "sample")).fit(MemoryData(format, target, std::move(data)), context));
  return sample;
}

/// The sample with edges of either scalar.
inline void add_samples(std::vector<Sample>& all, Sample sample) {
  for (const Scalar scalar : {Scalar::f64, Scalar::f32}) {
    sample.format.scalar = scalar;
    all.push_back(sample);
  }
}

}  // namespace percept
