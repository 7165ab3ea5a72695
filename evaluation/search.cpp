#include "evaluation/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <set>

#include "core/error.h"
#include "core/threads.h"
#include "evaluation/metrics.h"
#include "evaluation/race.h"
#include "evaluation/scoring.h"
#include "numerics/random.h"

namespace percept::evaluation {

namespace {

constexpr double kNoScore = std::numeric_limits<double>::quiet_NaN();

Value json_number(double v) { return std::isnan(v) ? Value() : Value(v); }
double from_json(const Value& v) { return v.is_null() ? kNoScore : v.as_number(); }

std::vector<Value> grid(const SearchSpec& spec) {
  constexpr std::size_t kMost = 100'000;
  std::size_t total = 1;
  for (auto& t : spec.tried) {
    total *= t.values.size();
    if (total > kMost)
      throw ConfigError(spec.where, fmt::format("a grid of {} combinations or more", total),
                        fmt::format("at most {} (method = \"random\" draws some)", kMost));
  }
  std::vector<Value> all;
  for (std::size_t i = 0; i < total; ++i) {
    Value params = Value::table();
    std::size_t rest = i, block = total;
    for (auto& t : spec.tried) {
      block /= t.values.size();
      params.as_table().emplace_back(t.key, t.values[rest / block]);
      rest %= block;
    }
    all.push_back(std::move(params));
  }
  return all;
}

Value drawn(const SearchSpec::Tried& t, const KeyedRandom& random, std::int64_t draw) {
  if (!t.values.empty())
    return t.values[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(t.values.size()), draw))];
  const double u = random.uniform(draw), end = t.integer ? t.to + 1 : t.to;  // an integer stands for [i, i + 1)
  double v = t.log ? t.from * std::pow(end / t.from, u) : t.from + u * (end - t.from);
  if (t.integer) return static_cast<std::int64_t>(std::clamp(std::floor(v), t.from, t.to));
  v = std::strtod(fmt::format("{:.4g}", v).c_str(), nullptr);
  return std::clamp(v, t.from, t.to);
}

std::vector<Value> draws(const SearchSpec& spec, std::uint64_t seed) {
  std::vector<KeyedRandom> random;
  for (auto& t : spec.tried) random.emplace_back(seed, "search " + t.key);
  std::vector<Value> all;
  std::set<std::string> seen;
  double combinations = 1;
  for (auto& t : spec.tried)
    combinations *= !t.values.empty() ? static_cast<double>(t.values.size())
                    : t.integer       ? t.to - t.from + 1
                                      : std::numeric_limits<double>::infinity();
  const auto wanted = static_cast<std::int64_t>(std::min(combinations, static_cast<double>(spec.candidates)));
  const std::int64_t most = 100 * spec.candidates;  // the last of few combinations may be long in coming
  for (std::int64_t draw = 0; draw < most && std::ssize(all) < wanted; ++draw) {
    Value params = Value::table();
    for (std::size_t k = 0; k < spec.tried.size(); ++k)
      params.as_table().emplace_back(spec.tried[k].key, drawn(spec.tried[k], random[k], draw));
    if (seen.insert(to_json(params)).second) all.push_back(std::move(params));
  }
  return all;
}

/// Scores of one candidate on the folds it was tried on, and of the first 1, 2, ... folds together.
struct Scores {
  std::vector<double> folds, pooled;
  std::vector<std::int64_t> frames;  ///< behind `pooled`
  std::string undefined;             ///< why the last of `pooled` is NaN
  std::string key;                   ///< in the cache

  std::int64_t count() const { return std::ssize(folds); }
  Value to_value() const {
    Value all = Value::array();
    for (std::size_t f = 0; f < folds.size(); ++f)
      all.push_back(Value::array({json_number(folds[f]), json_number(pooled[f]), frames[f]}));
    return Value::object({{"folds", all}, {"undefined", undefined}});
  }
  static Scores of(const Value& v) {
    Scores s;
    for (auto& fold : v.at("folds").as_array()) {
      s.folds.push_back(from_json(fold.as_array().at(0)));
      s.pooled.push_back(from_json(fold.as_array().at(1)));
      s.frames.push_back(fold.as_array().at(2).as_integer());
    }
    s.undefined = v.get("undefined", "");
    return s;
  }
};

void append_frames(Eigen::MatrixXd& to, const Eigen::MatrixXd& more) {
  const Index had = to.cols();
  to.conservativeResize(more.rows(), had + more.cols());
  to.rightCols(more.cols()) = more;
}

/// Everything that is the same for all candidates.
class Race {
 public:
  Race(const Registry& registry, const Pipeline& pipeline, const Recording& recording,
       const std::vector<RowRange>& train, const EngineOptions& options, std::shared_ptr<WorkCache> cache,
       const InnerSplit& inner, const std::string& metric)
      : registry_(registry), pipeline_(pipeline), spec_(*pipeline.search), recording_(recording), train_(train),
        options_(options), cache_(std::move(cache)), inner_(inner), metric_(metric) {
    if (!pipeline.scores.empty()) score_ = pipeline.scores[0];
    scored_ = scored_node(score_, pipeline);
    // what the final fit meets is counted, not what the search met; decoded frames are kept, fits and prefixes would
    // fill the disk
    quiet_ = options;
    quiet_.threads = 1;
    quiet_.progress = {};
    quiet_.counters = nullptr;
    quiet_.keep_from_s = std::numeric_limits<double>::infinity();
  }

  /// On the first `folds` inner folds, as far as they are not known.
  Scores scores_of(const Candidate& c, std::int64_t folds) const {
    const auto candidate = with_params(pipeline_, c.params, registry_);
    const auto key = key_of(candidate);
    Scores scores;
    if (const auto known = cache_->value(key)) scores = Scores::of(*known);
    scores.key = key;
    if (scores.count() >= folds) return scores;
    const auto begun = std::chrono::steady_clock::now();
    const Experiment experiment(registry_, candidate, recording_, quiet_, cache_);
    const TargetSpec target = scored_target(score_, experiment, scored_);
    const double rate = experiment.lead().format.rate_hz;
    const auto gap = std::max<std::int64_t>(std::llround(spec_.gap_s * rate), experiment.memory_across(inner_.trials));
    const auto inner = experiment.cut_again(train_, spec_.inner_folds, gap, inner_, spec_.where + ".inner_folds");
    const auto target_format = experiment.target_format(target);
    const auto shape = target_format.parts.size() == 1 ? target_format.parts[0].shape : std::vector<Index>();
    Eigen::MatrixXd truth, decoded;
    for (std::int64_t f = 0; f < folds; ++f) {
      const auto fold = scored_fold(experiment, target, inner[static_cast<std::size_t>(f)], frames_key(key, f));
      append_frames(truth, fold.truth);
      append_frames(decoded, fold.decoded);
      if (f < scores.count()) continue;
      const auto pooled = score(metric_, truth, decoded, shape);
      scores.folds.push_back(score(metric_, fold.truth, fold.decoded, shape).headline());
      scores.pooled.push_back(pooled.headline());
      scores.frames.push_back(pooled.frames);
      scores.undefined.clear();
      for (auto& reason : pooled.reasons)
        if (scores.undefined.empty()) scores.undefined = reason;
    }
    if (slow(begun)) cache_->put(key, scores.to_value());
    return scores;
  }

  /// Its frames are not asked for again.
  void forget_frames(const Scores& scores) const {
    for (std::int64_t f = 0; f < scores.count(); ++f) cache_->forget_scored(frames_key(scores.key, f));
  }

 private:
  static std::string frames_key(const std::string& candidate, std::int64_t fold) {
    return fmt::format("{}-{}", candidate, fold + 1);
  }
  bool slow(std::chrono::steady_clock::time_point begun) const {
    return std::chrono::steady_clock::now() - begun >= std::chrono::duration<double>(options_.keep_from_s);
  }

  std::string key_of(const Pipeline& candidate) const {
    Value models = Value::array();
    for (auto& s : candidate.stages) {
      if (!s.model.empty()) models.push_back(load_model(candidate, s, registry_, options_.priors.get())->digest());
      if (!s.priors.empty()) models.push_back(prior_digests(s, options_.priors.get()));
    }
    return cache_->key(
        Value::object({{"kind", "candidate"},
                       {"stages", candidate.resolved.at("stage")},
                       {"models", models},
                       {"run", candidate.resolved.contains("run") ? candidate.resolved.at("run") : Value()},
                       {"scored", scored_},
                       {"target", score_.target},
                       {"through", score_.through},
                       {"metric", metric_},
                       {"inner_folds", spec_.inner_folds},
                       {"gap_s", spec_.gap_s},
                       {"rows", describe(train_)},
                       {"inner", to_value(inner_)},
                       {"groups", Value(std::vector<std::int64_t>(inner_.groups.begin(), inner_.groups.end()))}}));
  }

  WorkCache::Scored scored_fold(const Experiment& experiment, const TargetSpec& target, const Fold& fold,
                                const std::string& key) const {
    if (auto known = cache_->scored(key)) return *known;
    const auto begun = std::chrono::steady_clock::now();
    const auto given = experiment.apply(experiment.fit(fold.train, 0, inner_), scored_, fold.test);
    WorkCache::Scored scored{gather(experiment.truth(target, given), given.ranges),
                             gather(rows_of(given, scored_part(score_, given.format)), given.ranges)};
    cache_->put(key, scored, slow(begun));
    return scored;
  }

  const Registry& registry_;
  const Pipeline& pipeline_;
  const SearchSpec& spec_;
  const Recording& recording_;
  const std::vector<RowRange>& train_;
  const EngineOptions& options_;
  std::shared_ptr<WorkCache> cache_;
  const InnerSplit& inner_;
  const std::string& metric_;
  ScoreSpec score_;
  std::string scored_;
  EngineOptions quiet_;
};

std::string shown(const Value& params) {
  std::string s;
  for (auto& [key, v] : params.as_table()) s += fmt::format("{}{} = {}", s.empty() ? "" : ", ", key, to_json(v));
  return s;
}

}  // namespace

const Candidate& SearchResult::chosen() const {
  return *std::find_if(candidates.begin(), candidates.end(), [](auto& c) { return c.chosen; });
}

Value SearchResult::to_value() const {
  Value rows = Value::array();
  for (auto& c : candidates) {
    Value row = Value::object({{"params", c.params},
                               {"value", json_number(c.value)},
                               {"folds", c.folds},
                               {"frames", c.frames},
                               {"chosen", c.chosen}});
    if (!c.failed.empty()) row["failed"] = c.failed;
    if (!c.given_up.empty()) row["given_up"] = c.given_up;
    rows.push_back(row);
  }
  return Value::object({{"metric", metric},
                        {"method", method},
                        {"lower_is_better", lower_is_better},
                        {"folds", inner_folds},
                        {"rows", rows}});
}

std::vector<Value> candidates_of(const SearchSpec& search, std::uint64_t seed) {
  return search.method == "random" ? draws(search, seed) : grid(search);
}

Pipeline with_params(const Pipeline& pipeline, const Value& params, const Registry& registry) {
  Value config = pipeline.resolved;
  config.erase("search");
  for (auto& [key, value] : params.as_table()) {
    const auto dot = key.find('.');
    bool found = false;
    for (auto& stage : config["stage"].as_array())
      if (stage.get("name", stage.get("use", "")) == key.substr(0, dot)) {
        stage.set_path(key.substr(dot + 1), value);
        found = true;
      }
    if (!found) throw ConfigError(pipeline.file.string() + ": search." + key, "", "a stage of that name");
  }
  return parse_pipeline(config, pipeline.file, registry);
}

SearchResult search(const Registry& registry, const Pipeline& pipeline, const Recording& recording,
                    const std::vector<RowRange>& train, const EngineOptions& options, std::shared_ptr<WorkCache> cache,
                    const InnerSplit& inner) {
  const auto& spec = *pipeline.search;
  SearchResult result;
  result.method = spec.method;
  result.metric = !spec.metric.empty()       ? spec.metric
                  : !pipeline.scores.empty() ? pipeline.scores[0].metrics.at(0)
                                             : "rmse";
  result.lower_is_better = metric_info(result.metric, spec.where + ".metric").lower_is_better;
  result.inner_folds = spec.inner_folds;
  for (auto& params : candidates_of(spec, pipeline.seed)) {
    result.candidates.emplace_back();
    result.candidates.back().params = std::move(params);
  }
  auto& all = result.candidates;
  const Race race(registry, pipeline, recording, train, options, std::move(cache), inner, result.metric);
  std::vector<Scores> scores(all.size());
  std::vector<std::size_t> running(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) running[i] = i;
  std::atomic<std::int64_t> done{0};  // folds of candidates, tried or not needed
  std::mutex progress_mutex;
  auto tell = [&](std::int64_t folds) {
    done += folds;
    if (!options.progress) return;
    std::lock_guard lock(progress_mutex);
    options.progress(static_cast<double>(done) / static_cast<double>(std::ssize(all) * spec.inner_folds), "searching");
  };
  // nobody is given up after one fold, so the first two are one round
  std::int64_t tried = 0;
  while (tried < spec.inner_folds && !running.empty()) {
    const std::int64_t until = spec.reject == 0 ? spec.inner_folds : std::max<std::int64_t>(2, tried + 1);
    in_parallel(running.size(), options.threads, [&](std::size_t r) {
      auto& c = all[running[r]];
      auto& s = scores[running[r]];
      try {
        s = race.scores_of(c, until);
      } catch (const Interrupted&) {
        throw;
      } catch (const Error& e) {
        c.failed = e.what();
      }
      tell(c.failed.empty() ? until - tried : spec.inner_folds - tried);
    });
    std::erase_if(running, [&](std::size_t i) { return !all[i].failed.empty(); });
    tried = until;
    if (tried < spec.inner_folds) {
      std::vector<Standing> standings;
      for (auto i : running) {
        const auto n = static_cast<std::ptrdiff_t>(tried);
        standings.push_back({{scores[i].folds.begin(), scores[i].folds.begin() + n},
                             scores[i].pooled[static_cast<std::size_t>(tried - 1)]});
      }
      for (auto& g : give_up(standings, result.lower_is_better, spec.reject)) {
        all[running[g.candidate]].given_up =
            fmt::format("worse than the best on each of {} folds (p = {:.2g})", tried, g.p);
        tell(spec.inner_folds - tried);
      }
    }
    for (auto i : running) {
      auto& c = all[i];
      c.folds = tried;
      c.value = scores[i].pooled[static_cast<std::size_t>(tried - 1)];
      c.frames = scores[i].frames[static_cast<std::size_t>(tried - 1)];
      if (tried == spec.inner_folds && std::isnan(c.value)) c.failed = "the score is undefined: " + scores[i].undefined;
      if (tried == spec.inner_folds || !c.given_up.empty()) race.forget_frames(scores[i]);
    }
    std::erase_if(running, [&](std::size_t i) { return !all[i].given_up.empty(); });
  }
  Candidate* best = nullptr;
  for (auto& c : all) {
    if (!c.failed.empty()) c.value = kNoScore;
    else if (c.given_up.empty() && (!best || (result.lower_is_better ? c.value < best->value : c.value > best->value)))
      best = &c;
  }
  if (!best)
    throw ConfigError(
        spec.where, "",
        fmt::format("at least one candidate that works, but none of {} does; the first ({}) failed with: {}",
                    all.size(), shown(all[0].params), all[0].failed));
  best->chosen = true;
  return result;
}

}  // namespace percept::evaluation
