#include "filters/poisson_bayes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace percept {

Index PositionGrid::size() const {
  Index n = 1;
  for (Index c : cells) n *= c;
  return n;
}

double PositionGrid::at(Index number, Index axis) const {
  for (Index a = 0; a < axis; ++a) number /= cells[static_cast<std::size_t>(a)];
  return origin(axis) + cell * static_cast<double>(number % cells[static_cast<std::size_t>(axis)]);
}

Index PositionGrid::cell_of(const double* position) const {
  Index number = 0, stride = 1;
  for (Index a = 0; a < axes(); ++a) {
    const Index n = cells[static_cast<std::size_t>(a)];
    const double at = std::floor((position[a] - origin(a)) / cell + 0.5);
    if (!(at >= 0 && at < static_cast<double>(n))) return -1;
    number += stride * static_cast<Index>(at);
    stride *= n;
  }
  return number;
}

void smooth_on_grid(const PositionGrid& grid, double sd, Eigen::VectorXd& values, Eigen::VectorXd& work) noexcept {
  if (!(sd > 0)) return;
  const Index reach = static_cast<Index>(std::ceil(4 * sd));
  const auto weight = [&](Index k) { return std::exp(-0.5 * static_cast<double>(k * k) / (sd * sd)); };
  double sum = 1;
  for (Index k = 1; k <= reach; ++k) sum += 2 * weight(k);
  Index stride = 1;
  for (Index axis = 0; axis < grid.axes(); ++axis) {
    const Index n = grid.cells[static_cast<std::size_t>(axis)];
    std::copy_n(values.data(), values.size(), work.data());
    values.setZero();
    for (Index k = -std::min(reach, n - 1); k <= std::min(reach, n - 1); ++k) {
      const double w = weight(k) / sum;
      for (Index line = 0; line < values.size(); line += n * stride) {
        const Index last = line + (n - std::max<Index>(0, k)) * stride;
        for (Index to = line + std::max<Index>(0, -k) * stride; to < last; ++to)
          values(to) += w * work(to + k * stride);
      }
    }
    stride *= n;
  }
}

PoissonBayes::PoissonBayes(PlaceModel model, double walk_sd, double jump, const std::string& where)
    : model_(std::move(model)), walk_cells_(walk_sd / model_.grid.cell), jump_(jump) {
  const Index cells = model_.grid.size(), d = model_.grid.axes();
  if (d < 1 || d > 2) throw DataError(where, "grid", "one or two axes", std::to_string(d));
  if (model_.expected.cols() != cells || model_.prior.size() != cells)
    throw DataError(where, "expected", fmt::format("{} cells", cells),
                    fmt::format("{} and {}", model_.expected.cols(), model_.prior.size()));
  if (!(model_.prior.minCoeff() >= 0) || !(std::abs(model_.prior.sum() - 1) < 1e-6))
    throw DataError(where, "prior", "shares that sum to one", fmt::format("a sum of {}", model_.prior.sum()));
  for (Index c = 0; c < cells; ++c)
    if (model_.prior(c) > 0) support_.push_back(c);
  const auto m = static_cast<Index>(support_.size());
  expected_ = model_.expected(Eigen::all, support_);
  if (!(expected_.minCoeff() > 0) || !expected_.allFinite())
    throw DataError(where, "expected", "counts above 0 in every cell of the support", "others");
  log_expected_ = expected_.array().log();
  total_ = expected_.colwise().sum();
  belief_.resize(cells);
  spread_.resize(cells);
  work_.resize(cells);
  score_.resize(m);
  mean_.resize(d);
  likeliest_.resize(d);
  covariance_.resize(d, d);
  // the share of a walk from cell j that stays inside, which is a smoothed support since the walk is symmetric
  leaving_ = (model_.prior.array() > 0).cast<double>();
  smooth_on_grid(model_.grid, walk_cells_, leaving_, work_);
  reset();
}

void PoissonBayes::reset() noexcept {
  belief_ = model_.prior;
  mean_.setZero();
  covariance_.setZero();
  likeliest_.setZero();
}

void PoissonBayes::visit_state(StateVisitor& visitor) noexcept { visitor("belief", belief_); }

bool PoissonBayes::step(const double* counts) noexcept {
  const auto m = static_cast<Index>(support_.size());
  const Index n = units(), d = axes();
  // predict: a walk that never leaves the support, and now and then a jump
  if (walk_cells_ > 0) {
    for (Index c = 0; c < belief_.size(); ++c) spread_(c) = belief_(c) > 0 ? belief_(c) / leaving_(c) : 0.0;
    smooth_on_grid(model_.grid, walk_cells_, spread_, work_);
    for (Index c = 0; c < belief_.size(); ++c)
      belief_(c) = model_.prior(c) > 0 ? (1 - jump_) * spread_(c) + jump_ * model_.prior(c) : 0.0;
  } else {
    belief_ = model_.prior;
  }
  bool seen = false;
  for (Index k = 0; k < m; ++k) score_(k) = -total_(k);
  for (Index u = 0; u < n; ++u) {
    const double count = counts[u];
    if (std::isfinite(count) && count >= 0) {
      seen = true;
      for (Index k = 0; k < m; ++k) score_(k) += count * log_expected_(u, k);
    } else {
      for (Index k = 0; k < m; ++k) score_(k) += expected_(u, k);
    }
  }
  double best = -std::numeric_limits<double>::infinity();
  for (Index k = 0; k < m; ++k) {
    if (!seen) score_(k) = 0;
    score_(k) += std::log(belief_(support_[static_cast<std::size_t>(k)]));
    best = std::max(best, score_(k));
  }
  double sum = 0;
  for (Index k = 0; k < m; ++k) sum += score_(k) = std::exp(score_(k) - best);
  Index top = 0;
  mean_.setZero();
  for (Index k = 0; k < m; ++k) {
    const Index c = support_[static_cast<std::size_t>(k)];
    score_(k) /= sum;
    belief_(c) = score_(k);
    if (score_(k) > score_(top)) top = k;
    for (Index a = 0; a < d; ++a) mean_(a) += score_(k) * model_.grid.at(c, a);
  }
  covariance_.setZero();
  for (Index k = 0; k < m; ++k)
    for (Index a = 0; a < d; ++a)
      for (Index b = 0; b < d; ++b)
        covariance_(a, b) += score_(k) * (model_.grid.at(support_[static_cast<std::size_t>(k)], a) - mean_(a)) *
                             (model_.grid.at(support_[static_cast<std::size_t>(k)], b) - mean_(b));
  for (Index a = 0; a < d; ++a) {
    covariance_(a, a) += model_.grid.cell * model_.grid.cell / 12;
    likeliest_(a) = model_.grid.at(support_[static_cast<std::size_t>(top)], a);
  }
  return seen;
}

}  // namespace percept
