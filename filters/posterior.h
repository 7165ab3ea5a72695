/// What the stages that give a posterior share: writing it to an edge, and samples for the registry.
#pragma once

#include <Eigen/Core>
#include <memory>
#include <utility>
#include <vector>

#include "core/registry.h"
#include "numerics/random.h"

namespace percept {

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
