#include "evaluation/scoring.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <optional>

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

/// Codes of categories named `own` as those of the target, which has its own names, or none: then they are numbers. -1
/// where the target knows no such category.
void match_categories(Eigen::MatrixXd& codes, const std::vector<std::string>& own,
                      const std::vector<std::string>& target) {
  if (own.empty() || own == target) return;
  Eigen::VectorXd as(static_cast<Index>(own.size()));
  for (std::size_t k = 0; k < own.size(); ++k) {
    const auto at = std::find(target.begin(), target.end(), own[k]);
    double value = at == target.end() ? -1 : static_cast<double>(at - target.begin());
    if (target.empty()) {
      const auto read = std::from_chars(own[k].data(), own[k].data() + own[k].size(), value);
      if (read.ec != std::errc() || read.ptr != own[k].data() + own[k].size()) value = -1;
    }
    as(static_cast<Index>(k)) = value;
  }
  for (double& c : codes.reshaped())
    if (c >= 0 && c < static_cast<double>(own.size())) c = as(static_cast<Index>(c));
}

void pool_fold(Pooled& p, const ScoreSpec& spec, const FoldRun& f, const Decoded& given) {
  if (given.ranges.empty())
    throw DataError(f.experiment->recording().name, p.node, "frames in the test rows of " + f.fold.name, "none");
  StreamFormat target_format;
  const auto truth = f.experiment->truth(p.target, given, &target_format);
  p.part = scored_part(spec, given.format);
  Eigen::MatrixXd decoded = rows_of(given, p.part);
  if (decoded.rows() != truth.rows())
    throw ConfigError(spec.where, "",
                      fmt::format("as many outputs as targets: '{}' gives {} in part '{}', the target has {}", p.node,
                                  decoded.rows(), p.part, truth.rows()));
  p.outputs = target_format.row_names();
  p.unit = target_format.parts.empty() ? "" : target_format.parts[0].unit;
  if (target_format.parts.size() == 1) {
    p.shape = target_format.parts[0].shape;
    p.levels = target_format.parts[0].levels;
  }
  if (const Part* part = given.format.find_part(p.part)) match_categories(decoded, part->levels, p.levels);
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
    p.frame_format = given.format;
    add_columns(p.frames, given.frames);
  }
  join_fold(p.truth, truth, given);
  join_fold(p.decoded, decoded, given);
  const Part* covariance = given.format.find_part("covariance");
  if (p.part == "mean" && covariance && covariance->size() == decoded.rows() * decoded.rows())
    join_fold(p.covariance, rows_of(given, "covariance"), given);
}

/// Items in the order of their keys, whatever fold tested them.
void sort_items(Pooled& p) {
  p.order.resize(p.axis.keys.size());
  std::iota(p.order.begin(), p.order.end(), Index{0});
  std::stable_sort(p.order.begin(), p.order.end(), [&](Index a, Index b) {
    return p.axis.keys[static_cast<std::size_t>(a)] < p.axis.keys[static_cast<std::size_t>(b)];
  });
  const auto keys = p.axis.keys;
  for (std::size_t k = 0; k < keys.size(); ++k) p.axis.keys[k] = keys[static_cast<std::size_t>(p.order[k])];
  for (auto* m : {&p.truth, &p.decoded, &p.covariance, &p.frames})
    if (m->rows()) *m = (*m)(Eigen::all, p.order).eval();
  p.tests = {{0, p.axis.count - 1}};
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
      Index shift = k + 1;  // of items: the number of a random pairing
      if (f.experiment->lead().format.axis == Axis::time) {
        const Index n = count_frames(f.fold.train);
        const auto shifts =
            circular_shifts(n, std::min<Index>(std::max<Index>(1, n / 10), std::max<Index>(1, n / 4)), rounds, seed);
        shift = shifts[static_cast<std::size_t>(k) % shifts.size()];
      }
      const auto quiet = f.experiment->uncounted();
      const auto given = quiet->apply(quiet->fit(f.fold.train, shift, f.fold.inner_split), nodes, f.fold.test);
      for (std::size_t s = 0; s < specs.size(); ++s)
        if (k < wanted[s])
          join_fold(decoded[s], rows_of(given.at(pooled[s].node), pooled[s].part), given.at(pooled[s].node));
    }
    for (std::size_t s = 0; s < specs.size(); ++s) {
      if (k >= wanted[s]) continue;
      const auto truth = gather(pooled[s].truth, pooled[s].tests);
      const Eigen::MatrixXd shown = pooled[s].axis.format.axis == Axis::time
                                        ? gather(decoded[s], pooled[s].tests)
                                        : Eigen::MatrixXd(decoded[s](Eigen::all, pooled[s].order));
      for (std::size_t m = 0; m < specs[s].metrics.size(); ++m) {
        auto one = score(specs[s].metrics[m], truth, shown, pooled[s].shape);
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

/// What was made for each item instead of decoding it, in the order of the folds, scored like the decoder.
std::vector<Score> scores_of(const ScoreSpec& spec, const Pooled& p, const Eigen::MatrixXd& made) {
  const Eigen::MatrixXd shown = made(Eigen::all, p.order);
  std::vector<Score> scores;
  for (auto& metric : spec.metrics) scores.push_back(score(metric, p.truth, shown, p.shape));
  return scores;
}

/// The target of the training items, and of those with the same class as each test item.
std::pair<Control, Control> mean_controls(const ScoreSpec& spec, const Pooled& p, const std::vector<FoldRun>& folds) {
  Control mean{"mean", "training mean", "control", "The mean of the training targets, for every item.", "", {}};
  Control by_class{"class",   "mean of the true class",
                   "control", "The mean of the training targets of the item's true class, which no decoder is told.",
                   "",        {}};
  Eigen::MatrixXd means, class_means;
  for (auto& f : folds) {
    const auto& lead = f.experiment->lead();
    FrameAxis train, test;
    train.format = test.format = p.axis.format;
    for (const auto& [ranges, axis] : {std::pair{&f.fold.train, &train}, {&f.fold.test, &test}}) {
      for (auto& [first, last] : *ranges)
        axis->keys.insert(axis->keys.end(), lead.keys.begin() + first, lead.keys.begin() + last + 1);
      axis->count = std::ssize(axis->keys);
    }
    const Eigen::MatrixXd y = f.experiment->truth(p.target, train);
    auto mean_where = [&](auto wanted) -> Eigen::VectorXd {
      Eigen::VectorXd sum = Eigen::VectorXd::Zero(y.rows());
      double n = 0;
      for (Index k = 0; k < y.cols(); ++k)
        if (wanted(k) && y.col(k).allFinite()) sum += y.col(k), ++n;
      return sum / n;
    };
    const Eigen::VectorXd all = mean_where([](Index) { return true; });
    add_columns(means, all.replicate(1, test.count));
    if (spec.category.empty()) continue;
    const TargetSpec category{spec.category, 0};
    const Eigen::MatrixXd is = f.experiment->truth(category, test), was = f.experiment->truth(category, train);
    std::map<double, Eigen::VectorXd> known;
    Eigen::MatrixXd made(y.rows(), test.count);
    for (Index k = 0; k < test.count; ++k) {
      const double c = is(0, k);
      if (!known.contains(c)) {
        known[c] = mean_where([&](Index j) { return was(0, j) == c; });
        if (!known[c].allFinite()) known[c] = all;  // a class that is not trained on
      }
      made.col(k) = known[c];
    }
    add_columns(class_means, made);
  }
  mean.scores = scores_of(spec, p, means);
  if (spec.category.empty()) by_class.absent = "the score names no category";
  else by_class.scores = scores_of(spec, p, class_means);
  return {mean, by_class};
}

/// What the fitted pipelines give for the mean training activity.
std::vector<std::vector<Score>> blind_scores(const std::vector<ScoreSpec>& specs, const std::vector<Pooled>& pooled,
                                             const std::vector<FoldRun>& folds) {
  std::vector<std::string> nodes;
  for (auto& p : pooled) nodes.push_back(p.node);
  std::vector<Eigen::MatrixXd> made(specs.size());
  for (auto& f : folds) {
    const auto given = f.experiment->blind(f.fold.train)->apply(f.fitted, nodes, f.fold.test);
    for (std::size_t s = 0; s < specs.size(); ++s)
      add_columns(made[s], rows_of(given.at(pooled[s].node), pooled[s].part));
  }
  std::vector<std::vector<Score>> scores;
  for (std::size_t s = 0; s < specs.size(); ++s) scores.push_back(scores_of(specs[s], pooled[s], made[s]));
  return scores;
}

}  // namespace

std::vector<std::string> controls_of(const ScoreSpec& score, Axis axis) {
  if (score.confounds) return *score.confounds;
  if (axis == Axis::time) return {"time", "trial", "past", "shuffled"};
  if (score.category.empty()) return {"mean", "no_brain", "shuffled"};
  return {"mean", "class", "no_brain", "shuffled"};
}

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
  // a score that names the stream means the stream, not what a prior makes of it, unless it says so
  if (own && (score.target.empty() || (own->from == score.target && own->through == score.through))) return *own;
  if (score.target.empty()) throw ConfigError(score.where + ".target", "", "the stream that the score compares with");
  return {.from = score.target, .lag_s = 0, .through = score.through};
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
  for (auto& p : all) {
    if (p.axis.format.axis == Axis::item) sort_items(p);
    else std::sort(p.tests.begin(), p.tests.end());
  }
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
  bool any_blind = false;
  for (std::size_t s = 0; s < specs.size(); ++s) {
    const auto wanted = controls_of(specs[s], pooled[s].axis.format.axis);
    auto has = [&](const char* name) { return std::find(wanted.begin(), wanted.end(), name) != wanted.end(); };
    shuffles.push_back(has("shuffled") && fits ? specs[s].shuffles : 0);
    any_blind = any_blind || has("no_brain");
  }
  std::vector<std::vector<Score>> shuffled;
  if (!specs.empty()) shuffled = shuffled_scores(specs, pooled, shuffles, folds, options, seed);

  // items made of a recording with a clock have no activity of their own to take away
  const bool all_items = folds[0].experiment->lead().format.axis == Axis::item;
  std::vector<std::vector<Score>> blind;
  if (any_blind && all_items) blind = blind_scores(specs, pooled, folds);

  for (std::size_t s = 0; s < specs.size(); ++s) {
    const auto& p = pooled[s];
    const bool clocked = p.axis.format.axis == Axis::time;
    std::optional<std::pair<Control, Control>> means;
    for (auto& wanted : controls_of(specs[s], p.axis.format.axis)) {
      if (wanted == "mean" || wanted == "class") {
        if (!means && all_items) means = mean_controls(specs[s], p, folds);
        if (means) all[s].push_back(wanted == "mean" ? means->first : means->second);
        else
          all[s].push_back({wanted,
                            wanted == "mean" ? "training mean" : "mean of the true class",
                            "control",
                            "",
                            "the recording has a clock",
                            {}});
        continue;
      }
      if (wanted == "no_brain") {
        Control c{
            "no_brain",
            "without the brain",
            "control",
            "The same fitted pipeline, given the mean training activity for every item: what the training targets "
            "and the priors reach alone.",
            "",
            {}};
        if (all_items) c.scores = blind[s];
        else c.absent = "the recording has a clock";
        all[s].push_back(std::move(c));
        continue;
      }
      if (wanted == "shuffled") {
        Control c{"shuffled", "shuffled activity", "control", "", "", shuffled[s]};
        if (!fits) c.absent = "nothing was fitted in this run";
        else if (specs[s].shuffles == 0) c.absent = "shuffles = 0";
        else
          c.doc = fmt::format("The same decoder fitted to {}; mean of {} fits.",
                              all_items ? "training items whose activity and target are paired at random"
                                        : "a target shifted in time against the activity, by at least a tenth of the "
                                          "training rows",
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
