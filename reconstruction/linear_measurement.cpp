#include "reconstruction/linear_measurement.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "numerics/apply.h"
#include "numerics/ridge.h"
#include "reconstruction/gaussian.h"

namespace percept {
namespace {

constexpr Index kMostRows = 10000;  ///< of a full covariance: 800 MB

}  // namespace

LinearMeasurement fit_linear_measurement(const Data& data, const LinearMeasurementOptions& options,
                                         const Context& context, Eigen::MatrixXd* centred) {
  const Index d = data.y_format().size(), n = data.x_format().size();
  if (d > kMostRows)
    throw DataError(context.node, "target values", fmt::format("at most {} (make the images smaller)", kMostRows),
                    std::to_string(d));
  if (n > kMostRows && options.correlated)
    throw DataError(context.node, "brain rows",
                    fmt::format("at most {} (select rows, or set noise = \"diagonal\")", kMostRows), std::to_string(n));
  TrainingMatrix t = data.gather();
  LinearMeasurement m;
  m.dropped = drop_missing(t);
  m.frames = t.x.cols();
  if (m.dropped > 0) context.warn(fmt::format("{} training frames with missing values left out", m.dropped));
  if (m.frames < 2 * options.inner_folds)
    throw DataError(context.node, "training frames", fmt::format("at least {}, two a fold", 2 * options.inner_folds),
                    std::to_string(m.frames));
  const auto names = data.x_format().row_names();
  for (Index i = 0; i < n; ++i)
    if (t.x.row(i).minCoeff() == t.x.row(i).maxCoeff())
      throw DataError(context.node, fmt::format("row '{}'", names[static_cast<std::size_t>(i)]),
                      "values that vary over the training frames", fmt::format("the constant {}", t.x(i, 0)));

  m.x_mean = t.x.rowwise().mean();
  m.y_mean = t.y.rowwise().mean();
  t.x.colwise() -= m.x_mean;
  t.y.colwise() -= m.y_mean;
  if (t.y.cwiseAbs().maxCoeff() == 0)
    throw DataError(context.node, "target", "values that vary over the training frames", "only constants");

  const auto folds = inner_folds(t.groups, m.frames, options.inner_folds);
  RidgeFit encoding = fit_ridge(t.y, t.x, {options.alphas, false, false, folds}, context.node);
  m.alpha = encoding.alpha(0);
  m.weights = std::move(encoding.weights);
  // residuals of the frames a fit has seen are too small, and would make a posterior too sure of itself
  Eigen::MatrixXd residual(n, m.frames);
  for (std::int32_t fold = 0; fold <= *std::max_element(folds.begin(), folds.end()); ++fold) {
    context.check_cancel();
    std::vector<Index> fitted, held;
    for (Index i = 0; i < m.frames; ++i) (folds[static_cast<std::size_t>(i)] == fold ? held : fitted).push_back(i);
    const RidgeFit part =
        fit_ridge(t.y(Eigen::all, fitted), t.x(Eigen::all, fitted), {{m.alpha}, true, false, {}}, context.node);
    residual(Eigen::all, held) = t.x(Eigen::all, held) - part.predict(t.y(Eigen::all, held));
  }
  const Eigen::VectorXd power = residual.rowwise().squaredNorm() / static_cast<double>(m.frames);
  for (Index i = 0; i < n; ++i)
    if (!(power(i) > 1e-26 * t.x.row(i).squaredNorm() / static_cast<double>(m.frames)))
      throw DataError(context.node, fmt::format("row '{}'", names[static_cast<std::size_t>(i)]),
                      "noise around the encoding model", "a row that the target explains exactly");
  m.noise = power;
  if (options.correlated) {
    // shrunk as a correlation, since rows may differ in unit and size
    const Eigen::VectorXd sd = power.cwiseSqrt();
    const ShrunkCovariance r = shrunk_covariance(sd.cwiseInverse().asDiagonal() * residual);
    m.noise = sd.asDiagonal() * r.covariance * sd.asDiagonal();
    m.noise_weight = r.weight;
  }
  if (centred) *centred = std::move(t.y);
  return m;
}

}  // namespace percept
