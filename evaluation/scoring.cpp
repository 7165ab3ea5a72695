#include "evaluation/scoring.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "evaluation/audit.h"

namespace percept::evaluation {

namespace {

constexpr double kNoFrame = std::numeric_limits<double>::quiet_NaN();

void put_columns(Eigen::MatrixXd& into, const Eigen::MatrixXd& from, const std::vector<RowRange>& ranges) {
  if (into.rows() != from.rows()) into = Eigen::MatrixXd::Constant(from.rows(), from.cols(), kNoFrame);
  if (into.cols() < from.cols()) {
    const Index had = into.cols();
    into.conservativeResize(Eigen::NoChange, from.cols());
    into.rightCols(from.cols() - had).setConstant(kNoFrame);
  }
  for (auto& r : ranges)
    into.middleCols(r.first, r.second - r.first + 1) = from.middleCols(r.first, r.second - r.first + 1);
}

void add_columns(Eigen::MatrixXd& to, const Eigen::MatrixXd& more) {
  const Index had = to.cols();
  to.conservativeResize(more.rows(), had + more.cols());
  to.rightCols(more.cols()) = more;
}

/// Frames of one fold into those of all: by the clock, or one after the other.
void join_fold(Eigen::MatrixXd& all, const Eigen::MatrixXd& one, const Decoded& given) {
  if (given.format.axis == Axis::time) put_columns(all, one, given.ranges);
  else add_columns(all, one);
}

void pool_fold(Pooled& p, const ScoreSpec& spec, const FoldRun& f, const Decoded& given) {
  if (given.ranges.empty())
    throw DataError(f.experiment->recording().name, p.node, "frames in the test rows of " + f.fold.name, "none");
  StreamFormat target_format;
  const auto truth = f.experiment->truth(p.target, given, &target_format);
  p.part = scored_part(spec, given.format);
  const auto decoded = rows_of(given, p.part);
  if (decoded.rows() != truth.rows())
    throw ConfigError(spec.where, "",
                      fmt::format("as many outputs as targets: '{}' gives {} in part '{}', the target has {}", p.node,
                                  decoded.rows(), p.part, truth.rows()));
  p.outputs = target_format.row_names();
  if (target_format.parts.size() == 1) p.shape = target_format.parts[0].shape;
  p.unit = target_format.parts.empty() ? "" : target_format.parts[0].unit;
  const bool clocked = given.format.axis == Axis::time;
  if (clocked) {
    if (p.axis.format.parts.empty()) p.axis.format = given.format;
    p.axis.count = std::max(p.axis.count, given.count);
    p.tests.insert(p.tests.end(), given.ranges.begin(), given.ranges.end());
  } else {
    p.axis.format = given.format;
    p.axis.keys.insert(p.axis.keys.end(), given.keys.begin(), given.keys.end());
    p.tests.emplace_back(p.axis.count, p.axis.count + given.count - 1);
    p.axis.count += given.count;
  }
  join_fold(p.truth, truth, given);
  join_fold(p.decoded, decoded, given);
  const Part* covariance = given.format.find_part("covariance");
  if (p.part == "mean" && covariance && covariance->size() == decoded.rows() * decoded.rows())
    join_fold(p.covariance, rows_of(given, "covariance"), given);
}

/// What the confounds alone reach, and what is left of the score without them.
std::pair<Control, Control> confound_controls(const ScoreSpec& spec, const Pooled& p,
                                              const std::vector<Score>& decoded_scores,
                                              const std::vector<FoldRun>& folds, const std::string& key,
                                              const std::string& name, const Confounds& confounds,
                                              const std::string& absent) {
  Control alone{key, name + " alone", "control", confounds.doc, absent, {}};
  Control removed{
      "without_" + key,
      name + " taken out",
      "removed",
      fmt::format(
          "Truth and decoded after the part that {} explains (fitted on the training rows) was subtracted from both.",
          name),
      absent,
      {}};
  if (!absent.empty()) return {alone, removed};
  Eigen::MatrixXd predicted, truth_left, decoded_left;
  for (auto& f : folds) {
    const auto train = f.experiment->ranges_on(p.axis, f.fold.train),
               test = f.experiment->ranges_on(p.axis, f.fold.test);
    const auto fit = fit_confounds(confounds, f.experiment->truth(p.target, p.axis), train);
    const Eigen::MatrixXd guess = fit.predict(confounds.x);
    put_columns(predicted, guess, test);
    put_columns(truth_left, p.truth - guess, test);
    put_columns(decoded_left, p.decoded - guess, test);
  }
  const auto truth = gather(p.truth, p.tests), guessed = gather(predicted, p.tests), left = gather(truth_left, p.tests),
             decoded = gather(decoded_left, p.tests);
  bool collapsed = false;
  for (std::size_t m = 0; m < spec.metrics.size(); ++m) {
    alone.scores.push_back(score(spec.metrics[m], truth, guessed));
    removed.scores.push_back(score(spec.metrics[m], left, decoded));
    for (std::size_t v = 0; v < removed.scores[m].values.size(); ++v)
      collapsed = collapsed || (removed.scores[m].values[v] < -1 && decoded_scores[m].values[v] > 0);
  }
  if (collapsed)
    removed.doc += fmt::format(
        " A value far below zero means that {} explains nearly all of the truth here: the decoder's errors are "
        "compared "
        "with the little that is left, which says nothing against the decoder.",
        name);
  return {alone, removed};
}

std::string shown_name(const std::string& confound) {
  if (confound == "trial") return "trial structure";
  return confound == "past" ? "the target's past" : confound;
}

/// Scores of decoders fitted to targets shifted against the activity; the mean over the fits, one list a score.
std::vector<std::vector<Score>> shuffled_scores(const std::vector<ScoreSpec>& specs, const std::vector<Pooled>& pooled,
                                                const std::vector<std::int64_t>& wanted,
                                                const std::vector<FoldRun>& folds, const EngineOptions& options,
                                                std::uint64_t seed) {
  std::vector<std::vector<Score>> sums(specs.size());
  const std::int64_t rounds = *std::max_element(wanted.begin(), wanted.end());
  for (std::int64_t k = 0; k < rounds; ++k) {
    if (options.cancelled && options.cancelled()) throw Interrupted();
    std::vector<std::string> nodes;
    for (std::size_t s = 0; s < specs.size(); ++s)
      if (k < wanted[s]) nodes.push_back(pooled[s].node);
    std::vector<Eigen::MatrixXd> decoded(specs.size());
    for (auto& f : folds) {
      const Index n = count_frames(f.fold.train);
      const auto shifts =
          circular_shifts(n, std::min<Index>(std::max<Index>(1, n / 10), std::max<Index>(1, n / 4)), rounds, seed);
      const auto quiet = f.experiment->uncounted();
      const auto given = quiet->apply(
          quiet->fit(f.fold.train, shifts[static_cast<std::size_t>(k) % shifts.size()], f.fold.inner_split), nodes,
          f.fold.test);
      for (std::size_t s = 0; s < specs.size(); ++s)
        if (k < wanted[s])
          join_fold(decoded[s], rows_of(given.at(pooled[s].node), pooled[s].part), given.at(pooled[s].node));
    }
    for (std::size_t s = 0; s < specs.size(); ++s) {
      if (k >= wanted[s]) continue;
      const auto truth = gather(pooled[s].truth, pooled[s].tests);
      const auto shown = pooled[s].axis.format.axis == Axis::time ? gather(decoded[s], pooled[s].tests) : decoded[s];
      for (std::size_t m = 0; m < specs[s].metrics.size(); ++m) {
        auto one = score(specs[s].metrics[m], truth, shown);
        if (k == 0) {
          sums[s].push_back(std::move(one));
          continue;
        }
        auto& sum = sums[s][m];
        for (std::size_t v = 0; v < sum.values.size(); ++v) {
          sum.values[v] += one.values[v];
          if (sum.reasons[v].empty()) sum.reasons[v] = one.reasons[v];
        }
      }
    }
  }
  for (std::size_t s = 0; s < specs.size(); ++s)
    for (auto& sum : sums[s])
      for (double& v : sum.values) v /= static_cast<double>(wanted[s]);
  return sums;
}

}  // namespace

std::string scored_part(const ScoreSpec& score, const StreamFormat& format) {
  if (!score.part.empty()) {
    std::vector<std::string> parts;
    for (auto& p : format.parts) parts.push_back(p.name);
    if (!format.find_part(score.part))
      throw ConfigError(score.where + ".part", "\"" + score.part + "\"",
                        fmt::format("one of {}{}", fmt::join(parts, ", "), did_you_mean(score.part, parts)));
    return score.part;
  }
  return format.find_part("mean") ? "mean" : format.parts[0].name;
}

Eigen::MatrixXd rows_of(const Decoded& given, const std::string& part) {
  return given.frames.middleRows(given.format.part_offset(part), given.format.find_part(part)->size());
}

TargetSpec scored_target(const ScoreSpec& score, const Experiment& e, const std::string& node) {
  const auto own = e.target_of(node);
  if (own && (score.target.empty() || own->from == score.target)) return *own;
  if (score.target.empty()) throw ConfigError(score.where + ".target", "", "the stream that the score compares with");
  return {score.target, 0};
}

std::string scored_node(const ScoreSpec& score, const Pipeline& pipeline) {
  return score.from.empty() ? pipeline.stages.back().node.name : score.from;
}

std::vector<Pooled> pool(const std::vector<ScoreSpec>& scores, const std::vector<FoldRun>& folds) {
  std::vector<Pooled> all(scores.size());
  std::vector<std::string> nodes;
  for (std::size_t s = 0; s < scores.size(); ++s) {
    const auto& e = *folds.at(0).experiment;
    nodes.push_back(all[s].node = scored_node(scores[s], e.pipeline()));
    all[s].target = scored_target(scores[s], e, all[s].node);
  }
  if (scores.empty()) return all;
  for (auto& f : folds) {
    const auto given = f.experiment->apply(f.fitted, nodes, f.fold.test);
    for (std::size_t s = 0; s < scores.size(); ++s) pool_fold(all[s], scores[s], f, given.at(nodes[s]));
  }
  for (auto& p : all) std::sort(p.tests.begin(), p.tests.end());
  return all;
}

std::vector<std::vector<Control>> audit(const std::vector<ScoreSpec>& specs, const std::vector<Pooled>& pooled,
                                        const std::vector<std::vector<Score>>& decoded_scores,
                                        const std::vector<FoldRun>& folds, const EngineOptions& options,
                                        std::uint64_t seed) {
  std::vector<std::vector<Control>> all(specs.size());
  const bool fits =
      std::any_of(folds[0].fitted.models.begin(), folds[0].fitted.models.end(), [](auto& m) { return !m.loaded; });
  std::vector<std::int64_t> shuffles;
  for (auto& spec : specs) {
    const bool wanted = std::find(spec.confounds.begin(), spec.confounds.end(), "shuffled") != spec.confounds.end();
    shuffles.push_back(wanted && fits ? spec.shuffles : 0);
  }
  std::vector<std::vector<Score>> shuffled;
  if (!specs.empty()) shuffled = shuffled_scores(specs, pooled, shuffles, folds, options, seed);

  for (std::size_t s = 0; s < specs.size(); ++s) {
    const auto& p = pooled[s];
    const bool clocked = p.axis.format.axis == Axis::time;
    for (auto& wanted : specs[s].confounds) {
      if (wanted == "shuffled") {
        Control c{"shuffled", "shuffled activity", "control", "", "", shuffled[s]};
        if (!fits) c.absent = "nothing was fitted in this run";
        else if (specs[s].shuffles == 0) c.absent = "shuffles = 0";
        else
          c.doc = fmt::format(
              "The same decoder fitted to a target shifted in time against the activity, by at least a tenth of the "
              "training rows; mean of {} fits.",
              specs[s].shuffles);
        all[s].push_back(std::move(c));
        continue;
      }
      Confounds confounds;
      std::string absent;
      if (wanted == "time") {
        if (clocked) confounds = time_confounds(p.axis.count);
        else absent = "items have no clock";
      } else if (wanted == "past") {
        if (clocked)
          confounds = past_confounds(folds[0].experiment->truth(p.target, p.axis),
                                     trial_starts(folds[0].experiment->recording().events, p.axis.count,
                                                  p.axis.format.rate_hz, p.axis.format.start_s));
        else absent = "items have no past";
      } else if (!clocked) {
        absent = "items have no trials";
      } else {
        confounds = trial_confounds(folds[0].experiment->recording().events, p.axis.count, p.axis.format.rate_hz,
                                    p.axis.format.start_s);
        if (!confounds.x.rows()) absent = "the recording has no trials";
      }
      auto [alone, removed] =
          confound_controls(specs[s], p, decoded_scores[s], folds, wanted, shown_name(wanted), confounds, absent);
      all[s].push_back(std::move(alone));
      all[s].push_back(std::move(removed));
    }
  }
  return all;
}

}  // namespace percept::evaluation
