#include "filters/learned_map.h"

#include <fmt/format.h>

#include "core/error.h"
#include "numerics/linalg.h"

namespace percept {

MapFrames map_frames(const Data& data, Index least, Context& context) {
  MapFrames f;
  f.all = data.gather();
  f.dropped = drop_missing(f.all);
  if (f.dropped > 0) context.warn(fmt::format("{} training frames with missing values left out", f.dropped));
  const Index frames = f.all.x.cols();
  if (frames < least)
    throw DataError(context.node, "training frames", fmt::format("at least {}", least), std::to_string(frames));
  const auto names = data.y_format().row_names();
  for (Index k = 0; k < f.all.y.rows(); ++k)
    if (f.all.y.row(k).minCoeff() == f.all.y.row(k).maxCoeff())
      throw DataError(context.node, fmt::format("target '{}'", names[static_cast<std::size_t>(k)]),
                      "values that vary over the training frames", fmt::format("the constant {}", f.all.y(k, 0)));
  for (Index i = 0; i < frames; ++i) {
    const std::int64_t number = f.all.keys.empty() ? i : f.all.keys[static_cast<std::size_t>(i)];
    ((number % 10 + 10) % 10 >= 7 ? f.held : f.fitted).push_back(i);
  }
  return f;
}

Eigen::MatrixXd residual_covariance(const Eigen::MatrixXd& residual, const Context& context) {
  if (residual.cols() <= residual.rows())
    throw DataError(context.node, "frames for the covariance", fmt::format("at least {}", residual.rows() + 1),
                    std::to_string(residual.cols()));
  Eigen::MatrixXd q = gram(residual) / static_cast<double>(residual.cols());
  if (!is_spd(q))
    throw DataError(context.node, "covariance of the residuals",
                    "a positive definite matrix (or covariance = \"none\")",
                    "one that is singular: outputs are explained exactly, or depend on each other");
  return q;
}

}  // namespace percept
