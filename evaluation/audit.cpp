#include "evaluation/audit.h"

#include <fmt/format.h>

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>
#include <optional>
#include <utility>

#include "core/error.h"
#include "evaluation/bootstrap.h"
#include "evaluation/item_metrics.h"
#include "evaluation/split.h"
#include "numerics/random.h"

namespace percept::evaluation {

namespace {

/// Sums from which ridge regressions of any strength follow; x and y shifted by the same constants everywhere.
struct Moments {
  double n = 0;
  Eigen::VectorXd x, y;    // sums
  Eigen::MatrixXd xx, yx;  // sums of products
  double yy = 0;
  Moments(Index features, Index outputs)
      : x(Eigen::VectorXd::Zero(features)), y(Eigen::VectorXd::Zero(outputs)),
        xx(Eigen::MatrixXd::Zero(features, features)), yx(Eigen::MatrixXd::Zero(outputs, features)) {}
  void add(const Eigen::MatrixXd& xs, const Eigen::MatrixXd& ys) {
    n += static_cast<double>(xs.cols());
    x += xs.rowwise().sum();
    y += ys.rowwise().sum();
    xx.noalias() += xs * xs.transpose();
    yx.noalias() += ys * xs.transpose();
    yy += ys.squaredNorm();
  }
  /// Of the first features alone.
  Moments first(Index features) const {
    Moments m = *this;
    m.x.conservativeResize(features);
    m.xx.conservativeResize(features, features);
    m.yx.conservativeResize(Eigen::NoChange, features);
    return m;
  }
  Moments minus(const Moments& o) const {
    Moments m = *this;
    m.n -= o.n;
    m.x -= o.x;
    m.y -= o.y;
    m.xx -= o.xx;
    m.yx -= o.yx;
    m.yy -= o.yy;
    return m;
  }
};

ConfoundFit solve(const Moments& m, double ridge_per_frame) {
  const Eigen::VectorXd mean = m.x / m.n, target = m.y / m.n;
  Eigen::MatrixXd gram = m.xx - m.n * mean * mean.transpose();
  gram.diagonal().array() += ridge_per_frame * m.n;
  ConfoundFit fit;
  fit.ridge = ridge_per_frame;
  fit.weight = gram.ldlt().solve((m.yx - m.n * target * mean.transpose()).transpose()).transpose();
  fit.offset = target - fit.weight * mean;
  return fit;
}

/// Squared error of a fit on the frames behind these moments.
double squared_error(const ConfoundFit& f, const Moments& m) {
  const Eigen::MatrixXd& w = f.weight;
  return m.yy - 2 * (w.cwiseProduct(m.yx)).sum() - 2 * f.offset.dot(m.y) + (w * m.xx).cwiseProduct(w).sum() +
         2 * f.offset.dot(w * m.x) + m.n * f.offset.squaredNorm();
}

bool complete(const Eigen::MatrixXd& m, Index k) { return !m.col(k).hasNaN(); }

}  // namespace

Confounds time_confounds(std::int64_t frames) {
  constexpr int kPowers = 3, kPairs = 8;
  Confounds c;
  c.name = "time";
  c.doc =
      fmt::format("powers of time up to {} and {} sine and cosine pairs of the recording's length", kPowers, kPairs);
  c.x.resize(kPowers + 2 * kPairs, frames);
  for (int p = 1; p <= kPowers; ++p) c.features.push_back(fmt::format("time^{}", p));
  for (int h = 1; h <= kPairs; ++h)
    for (const char* f : {"sin", "cos"}) c.features.push_back(fmt::format("{} {}", f, h));
  for (std::int64_t k = 0; k < frames; ++k) {
    const double phase = (static_cast<double>(k) + 0.5) / static_cast<double>(frames);
    Index row = 0;
    for (int p = 1; p <= kPowers; ++p) c.x(row++, k) = std::pow(2 * phase - 1, p);
    for (int h = 1; h <= kPairs; ++h) {
      c.x(row++, k) = std::sin(2 * std::numbers::pi * h * phase);
      c.x(row++, k) = std::cos(2 * std::numbers::pi * h * phase);
    }
  }
  return c;
}

namespace {
struct Trial {
  std::int64_t first, end;
  std::pair<std::int32_t, double> target;
};

/// marked: events of the label "trial", else those that are about all rows.
std::vector<Trial> trials_of(const std::vector<Event>& events, bool marked, std::int64_t frames, double rate_hz,
                             double start_s) {
  const Label marker = Label::of("trial");
  std::vector<Trial> trials;
  for (auto& e : events) {
    if (marked ? e.label != marker : e.row >= 0) continue;
    const double first = (e.onset_s - start_s) * rate_hz;
    if (!(first > -1) || first >= static_cast<double>(frames)) continue;
    const auto at = std::max<std::int64_t>(0, static_cast<std::int64_t>(std::ceil(first - 1e-6)));
    auto end = frames;
    if (e.duration_s > 0)
      end = std::min<std::int64_t>(frames, static_cast<std::int64_t>(std::ceil(first + e.duration_s * rate_hz - 1e-6)));
    if (!trials.empty()) trials.back().end = std::min(trials.back().end, at);
    trials.push_back({at, end, {e.label.id(), std::isfinite(e.value) ? e.value : 0}});
  }
  std::erase_if(trials, [](const Trial& t) { return t.end <= t.first; });
  return trials;
}
}  // namespace

std::vector<std::int64_t> trial_starts(const std::vector<Event>& events, std::int64_t frames, double rate_hz,
                                       double start_s) {
  std::vector<std::int64_t> starts;
  for (auto& t : trials_of(events, true, frames, rate_hz, start_s)) starts.push_back(t.first);
  return starts;
}

Confounds trial_confounds(const std::vector<Event>& events, std::int64_t frames, double rate_hz, double start_s) {
  constexpr std::size_t kMostTargets = 64;
  constexpr Index kMostBins = 40;
  Confounds c;
  c.name = "trial";
  const Label marker = Label::of("trial");
  const bool marked = std::any_of(events.begin(), events.end(), [&](const Event& e) { return e.label == marker; });
  const auto trials = trials_of(events, marked, frames, rate_hz, start_s);
  if (trials.size() < 2) {
    c.doc = "the recording has fewer than two trials";
    return c;
  }
  std::map<std::pair<std::int32_t, double>, Index> targets;
  std::int64_t longest = 0;
  for (auto& t : trials) {
    targets.emplace(t.target, 0);
    longest = std::max(longest, t.end - t.first);
  }
  const bool use_target = targets.size() <= kMostTargets;
  Index number = 0;
  for (auto& [key, index] : targets) index = use_target ? number++ : 0;
  const Index n_targets = use_target ? number : 1, bins = std::min<Index>(kMostBins, longest);
  c.doc = fmt::format("{} x {} bins within the trial, trial number and its square; {} trials",
                      n_targets > 1 ? fmt::format("{} targets", n_targets) : "one target", bins, trials.size());
  for (Index t = 0; t < n_targets; ++t)
    for (Index b = 0; b < bins; ++b) c.features.push_back(fmt::format("target {} bin {}", t + 1, b + 1));
  c.features.emplace_back("trial number");
  c.features.emplace_back("trial number^2");
  c.trends = 2;
  c.x.setZero(n_targets * bins + 2, frames);
  for (std::size_t i = 0; i < trials.size(); ++i) {
    const Index target = targets.at(trials[i].target);
    const double phase = (static_cast<double>(i) + 0.5) / static_cast<double>(trials.size());
    const std::int64_t next = i + 1 < trials.size() ? trials[i + 1].first : frames;
    for (std::int64_t k = trials[i].first; k < next; ++k) {
      if (k < trials[i].end) c.x(target * bins + (k - trials[i].first) * bins / longest, k) = 1;
      c.x(n_targets * bins, k) = phase;
      c.x(n_targets * bins + 1, k) = phase * phase;
    }
  }
  return c;
}

Confounds past_confounds(const Eigen::MatrixXd& truth, const std::vector<std::int64_t>& trial_starts) {
  constexpr Index kFrames = 5, kMostFeatures = 1000;
  constexpr std::size_t kFewestTrials = 10;
  const Index values = kFrames * truth.rows();
  const bool apart = trial_starts.size() >= kFewestTrials && (kFrames + 1) * (values + 1) <= kMostFeatures;
  Confounds c;
  c.name = "past";
  c.doc = fmt::format(
      "the target's true values in the {} frames before, which no decoder is told: how predictable the target is{}",
      kFrames,
      apart ? fmt::format("; {} trials, each of whose first {} frames has weights of its own", trial_starts.size(),
                          kFrames)
            : "");
  const Index groups = apart ? kFrames + 1 : 1;  // the first, second, ... frame of a trial, and all others
  c.x.setZero(groups * values + groups - 1, truth.cols());
  for (Index group = 0; group < groups; ++group)
    for (Index lag = 1; lag <= kFrames; ++lag)
      for (Index i = 0; i < truth.rows(); ++i)
        c.features.push_back(fmt::format("output {} {} frames ago{}", i + 1, lag,
                                         group + 1 < groups ? fmt::format(", frame {} of a trial", group + 1) : ""));
  for (Index group = 0; group + 1 < groups; ++group)
    c.features.push_back(fmt::format("frame {} of a trial", group + 1));
  std::size_t next = 0;
  std::int64_t first = -kFrames;  // of the trial; before the first one, long ago
  for (Index k = 0; k < truth.cols(); ++k) {
    while (apart && next < trial_starts.size() && trial_starts[next] <= k) first = trial_starts[next++];
    const Index group = apart ? std::min<Index>(kFrames, k - first) : 0;
    for (Index lag = 1; lag <= kFrames; ++lag)
      for (Index i = 0; i < truth.rows(); ++i)
        c.x(group * values + (lag - 1) * truth.rows() + i, k) =
            k >= lag ? truth(i, k - lag) : std::numeric_limits<double>::quiet_NaN();
    if (group + 1 < groups) c.x(groups * values + group, k) = 1;
  }
  return c;
}

Eigen::MatrixXd ConfoundFit::predict(const Eigen::MatrixXd& x) const {
  Eigen::MatrixXd y = (weight.leftCols(x.rows() - low.size()) * x.topRows(x.rows() - low.size())).colwise() + offset;
  for (Index k = 0; k < y.cols(); ++k)
    y.col(k) += weight.rightCols(low.size()) * x.col(k).tail(low.size()).cwiseMax(low).cwiseMin(high);
  for (Index k = 0; k < y.cols(); ++k)
    if (!complete(x, k)) y.col(k) = mean;
  return y;
}

ConfoundFit fit_confounds(const Confounds& confounds, const Eigen::MatrixXd& y, const std::vector<RowRange>& train) {
  constexpr Index kFewest = 10;
  if (confounds.x.cols() != y.cols())
    throw DataError("confounds", confounds.name, fmt::format("{} frames as in the target", y.cols()),
                    fmt::format("{}", confounds.x.cols()));
  std::vector<Index> frames;
  for (auto& [first, last] : train) {
    if (first < 0 || last >= y.cols())
      throw DataError("confounds", confounds.name, fmt::format("training rows inside 0..{}", y.cols() - 1),
                      fmt::format("{}..{}", first, last));
    for (Index k = first; k <= last; ++k)
      if (complete(y, k) && complete(confounds.x, k)) frames.push_back(k);
  }
  const auto n = static_cast<Index>(frames.size());
  if (n < kFewest)
    throw DataError("confounds", confounds.name, fmt::format("at least {} training frames with a target", kFewest),
                    fmt::format("{}", n));
  Eigen::MatrixXd x = confounds.x(Eigen::all, frames), t = y(Eigen::all, frames);
  const Eigen::VectorXd mean = x.rowwise().mean(), target_mean = t.rowwise().mean();
  const Eigen::VectorXd low = x.bottomRows(confounds.trends).rowwise().minCoeff(),
                        high = x.bottomRows(confounds.trends).rowwise().maxCoeff();
  x.colwise() -= mean;
  t.colwise() -= target_mean;
  Eigen::VectorXd scale = (x.rowwise().squaredNorm() / static_cast<double>(n)).cwiseSqrt();
  scale = (scale.array() > 1e-12 * (1 + mean.array().abs()))
              .select(scale.cwiseInverse(), 0.0);  // a constant feature counts for nothing
  x = scale.asDiagonal() * x;

  // five blocks for each training range: where the ranges have holes, the test frames lie near to training frames
  const Index n_blocks = std::min<Index>({5 * static_cast<Index>(train.size()), 50, n});
  std::vector<Moments> blocks;
  Moments all(x.rows(), t.rows());
  for (Index b = 0; b < n_blocks; ++b) {
    const Index first = b * n / n_blocks, end = (b + 1) * n / n_blocks;
    blocks.emplace_back(x.rows(), t.rows());
    blocks.back().add(x.middleCols(first, end - first), t.middleCols(first, end - first));
    all.add(x.middleCols(first, end - first), t.middleCols(first, end - first));
  }
  double best = 0, best_error = std::numeric_limits<double>::infinity();
  Index best_features = 0;
  // from simple to rich, and from strong to weak: the first wins a draw
  for (Index features = x.rows() - confounds.trends; features <= x.rows();
       features += std::max<Index>(1, confounds.trends)) {
    const Moments of_all = all.first(features);
    for (int power = 4; power >= -4; --power) {
      const double ridge = std::pow(10.0, power);
      double error = 0;
      for (auto& b : blocks) {
        const Moments held = b.first(features);
        error += squared_error(solve(of_all.minus(held), ridge), held);
      }
      if (error < best_error) {
        best_error = error;
        best = ridge;
        best_features = features;
      }
    }
  }
  ConfoundFit fit = solve(all.first(best_features), best);
  fit.weight.conservativeResizeLike(Eigen::MatrixXd::Zero(t.rows(), x.rows()));
  fit.weight = fit.weight * scale.asDiagonal();
  fit.offset += target_mean - fit.weight * mean;
  fit.mean = target_mean;
  fit.low = low;
  fit.high = high;
  return fit;
}

double permutation_p(double score, const std::vector<double>& null, bool lower_is_better) {
  std::int64_t as_good = 1;
  for (double v : null)
    if (!(lower_is_better ? v > score : v < score)) ++as_good;
  return static_cast<double>(as_good) / static_cast<double>(null.size() + 1);
}

std::vector<Index> circular_shifts(Index frames, Index min_shift, Index count, std::uint64_t seed) {
  min_shift = std::max<Index>(min_shift, 1);
  const Index possible = frames - 2 * min_shift + 1;  // min_shift ... frames - min_shift
  if (possible < 1)
    throw DataError("audit", "shuffled",
                    fmt::format("at least {} test frames to shift by {} or more", 2 * min_shift, min_shift),
                    fmt::format("{}", frames));
  std::vector<Index> all(static_cast<std::size_t>(possible));
  for (Index i = 0; i < possible; ++i) all[static_cast<std::size_t>(i)] = min_shift + i;
  const KeyedRandom random(seed, "audit.shift");
  const Index taken = std::min(count, possible);
  for (Index i = 0; i < taken; ++i)
    std::swap(all[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(i + random.below(possible - i, i))]);
  all.resize(static_cast<std::size_t>(taken));
  return all;
}

Eigen::MatrixXd circular_shift(const Eigen::MatrixXd& m, Index shift) {
  const Index n = m.cols();
  if (n == 0) return m;
  const Index s = ((shift % n) + n) % n;
  Eigen::MatrixXd out(m.rows(), n);
  out.leftCols(s) = m.rightCols(s);
  out.rightCols(n - s) = m.leftCols(n - s);
  return out;
}

ShiftNull shift_null(const std::string& metric, const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded,
                     Index count, std::uint64_t seed, Index min_shift) {
  const Score real = score(metric, truth, decoded);
  ShiftNull null;
  const Index frames = truth.cols();
  null.min_shift = min_shift;
  if (min_shift == 0)
    null.min_shift =
        std::min(std::max(decorrelation_frames(truth), decorrelation_frames(decoded)), std::max<Index>(1, frames / 4));
  for (Index shift : circular_shifts(frames, null.min_shift, count, seed))
    null.values.push_back(score(metric, circular_shift(truth, shift), decoded).headline());
  if (std::isnan(real.headline()))
    throw DataError("audit", metric, "a score to compare with shifted ones",
                    *std::find_if(real.reasons.begin(), real.reasons.end(), [](auto& r) { return !r.empty(); }));
  null.p = permutation_p(real.headline(), null.values, real.info.lower_is_better);
  null.method = fmt::format(
      "{} circular shifts of the truth against what was decoded, each by at least {} frames; p = (1 + as good) / (1 + "
      "{})",
      null.values.size(), null.min_shift, null.values.size());
  return null;
}

ShiftNull pairing_null(const std::string& metric, const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded,
                       const std::vector<Index>& shape, Index count, std::uint64_t seed) {
  const Score real = score(metric, truth, decoded, shape);
  if (std::isnan(real.headline()))
    throw DataError("audit", metric, "a score to compare with shuffled ones",
                    *std::find_if(real.reasons.begin(), real.reasons.end(), [](auto& r) { return !r.empty(); }));
  ShiftNull null;
  const KeyedRandom random(seed, "audit.pairing");
  std::optional<ItemScorer> scorer;
  if (real.info.kind == MetricInfo::Kind::item) scorer.emplace(real.info, truth, decoded, shape);
  for (Index i = 0; i < count; ++i) {
    const auto order = random_order(random, truth.cols(), i);
    if (!scorer) {
      null.values.push_back(score(metric, truth(Eigen::all, order), decoded).headline());
      continue;
    }
    const auto items = scorer->values(order).values;
    double sum = 0, n = 0;
    for (double v : items)
      if (!std::isnan(v)) sum += v, ++n;
    null.values.push_back(sum / n);
  }
  null.p = permutation_p(real.headline(), null.values, real.info.lower_is_better);
  null.method = fmt::format("{0} random pairings of true and decoded items; p = (1 + as good) / (1 + {0})", count);
  return null;
}

}  // namespace percept::evaluation
