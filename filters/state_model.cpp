#include "filters/state_model.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "numerics/linalg.h"

namespace percept {

using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

/// The complete frames of one block.
struct Complete {
  MatrixXd z, x;                  ///< x is empty when it is not used
  std::vector<Index> next, last;  ///< columns of the pairs; column -1 is `before`
  VectorXd before;                ///< last complete frame of the block before
};

template <class F>
void each_block(const Data& data, bool use_x, Context& context, F f) {
  VectorXd before;
  Index segment = -1;
  bool adjacent = false;
  data.pass([&](const TrainingBlock& b) {
    context.check_cancel();
    if (b.segment != segment) adjacent = false;
    segment = b.segment;
    const MatrixXd z = to_matrix(b.y), x = use_x ? to_matrix(b.x) : MatrixXd(0, z.cols());
    Complete c;
    c.before = before;
    std::vector<Index> kept;
    for (Index t = 0; t < z.cols(); ++t) {
      const bool complete = z.col(t).allFinite() && x.col(t).allFinite();
      if (complete) {
        const auto column = static_cast<Index>(kept.size());
        if (adjacent) {
          c.next.push_back(column);
          c.last.push_back(column - 1);
        }
        kept.push_back(t);
      }
      adjacent = complete;
    }
    c.z = z(Eigen::all, kept);
    if (use_x) c.x = x(Eigen::all, kept);
    if (!kept.empty()) before = z.col(kept.back());
    f(c, z.cols());
  });
}

MatrixXd residual(const MatrixXd& own, const MatrixXd& map, const MatrixXd& with, double n) {
  const MatrixXd r = (own - map * with) / n;
  return 0.5 * (r + r.transpose());
}

}  // namespace

StateSums state_sums(const Data& data, bool center, Observations observations, Context& context) {
  const Index d = data.y_format().size(), channels = data.x_format().size();
  const bool use_x = observations != Observations::none, full = observations == Observations::full;
  if (d < 1) throw DataError(context.node, "target", "at least one row", "none");
  StateSums s;
  s.z_mean = VectorXd::Zero(d);
  s.x_mean = VectorXd::Zero(use_x ? channels : 0);
  each_block(data, use_x, context, [&](const Complete& c, Index frames) {
    s.frames += c.z.cols();
    s.dropped += frames - c.z.cols();
    s.z_mean += c.z.rowwise().sum();
    if (use_x) s.x_mean += c.x.rowwise().sum();
  });
  if (s.dropped > 0) context.warn(fmt::format("{} training frames with missing values left out", s.dropped));
  if (s.frames < 2)
    throw DataError(context.node, "training frames", "at least 2 without missing values", std::to_string(s.frames));
  s.z_mean /= static_cast<double>(s.frames);
  s.x_mean /= static_cast<double>(s.frames);

  s.z_scatter = s.zz = s.next_last = s.last_last = s.next_next = MatrixXd::Zero(d, d);
  if (use_x) {
    s.xz = MatrixXd::Zero(channels, d);
    s.xx = MatrixXd::Zero(channels, full ? channels : 1);
  }
  each_block(data, use_x, context, [&](Complete& c, Index) {
    s.z_scatter += gram(c.z.colwise() - s.z_mean);
    if (center) {
      c.z.colwise() -= s.z_mean;
      if (c.before.size()) c.before -= s.z_mean;
      if (use_x) c.x.colwise() -= s.x_mean;
    }
    s.zz += gram(c.z);
    if (use_x) {
      s.xz += cross(c.x, c.z);
      if (full) s.xx += gram(c.x);
      else s.xx += c.x.rowwise().squaredNorm();
    }
    const auto pairs = static_cast<Index>(c.next.size());
    MatrixXd next(d, pairs), last(d, pairs);
    for (Index i = 0; i < pairs; ++i) {
      const auto k = static_cast<std::size_t>(i);
      next.col(i) = c.z.col(c.next[k]);
      if (c.last[k] < 0) last.col(i) = c.before;
      else last.col(i) = c.z.col(c.last[k]);
    }
    s.pairs += pairs;
    s.next_last += cross(next, last);
    s.last_last += gram(last);
    s.next_next += gram(next);
  });
  const auto names = data.y_format().row_names();
  for (Index k = 0; k < d; ++k) {
    const double n = static_cast<double>(s.frames), spread = std::sqrt(s.z_scatter(k, k) / n);
    if (!(spread > 1e-13 * std::abs(s.z_mean(k))))
      throw DataError(context.node, fmt::format("target '{}'", names[static_cast<std::size_t>(k)]),
                      "values that vary over the training frames", fmt::format("the constant {}", s.z_mean(k)));
  }
  return s;
}

StateModel state_model(const StateSums& s, const Context& context) {
  const Index d = s.zz.rows();
  if (s.pairs < d + 1)
    throw DataError(context.node, "training frames", fmt::format("at least {} pairs of consecutive frames", d + 1),
                    std::to_string(s.pairs));
  StateModel m;
  m.s = s.z_scatter / static_cast<double>(s.frames - 1);
  if (!is_spd(m.s))
    throw DataError(context.node, "target", "linearly independent rows", "rows that are linear combinations of others");
  m.a = solve_normal(s.next_last, s.last_last, s.pairs, context.node);
  m.gamma = residual(s.next_next, m.a, s.next_last.transpose(), static_cast<double>(s.frames));
  return m;
}

}  // namespace percept
