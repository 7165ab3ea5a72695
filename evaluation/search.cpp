#include "evaluation/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <mutex>

#include "core/error.h"
#include "core/threads.h"
#include "evaluation/metrics.h"
#include "evaluation/scoring.h"

namespace percept::evaluation {

const Candidate& SearchResult::chosen() const {
  return *std::find_if(candidates.begin(), candidates.end(), [](auto& c) { return c.chosen; });
}

Value SearchResult::to_value() const {
  Value rows = Value::array();
  for (auto& c : candidates) {
    Value row = Value::object(
        {{"params", c.params}, {"value", std::isnan(c.value) ? Value() : Value(c.value)}, {"chosen", c.chosen}});
    if (!c.failed.empty()) row["failed"] = c.failed;
    rows.push_back(row);
  }
  return Value::object(
      {{"metric", metric}, {"lower_is_better", lower_is_better}, {"folds", inner_folds}, {"rows", rows}});
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
  result.metric = !spec.metric.empty()       ? spec.metric
                  : !pipeline.scores.empty() ? pipeline.scores[0].metrics.at(0)
                                             : "rmse";
  result.lower_is_better = metric_info(result.metric, spec.where + ".metric").lower_is_better;
  result.inner_folds = spec.inner_folds;
  // every combination, the last key turning fastest
  std::size_t total = 1;
  for (auto& [key, values] : spec.grid) total *= values.size();
  constexpr std::size_t kMost = 100'000;
  if (total > kMost)
    throw ConfigError(spec.where, fmt::format("{} combinations", total), fmt::format("at most {}", kMost));
  for (std::size_t i = 0; i < total; ++i) {
    Candidate c;
    std::size_t rest = i, block = total;
    for (auto& [key, values] : spec.grid) {
      block /= values.size();
      c.params.as_table().emplace_back(key, values[rest / block]);
      rest %= block;
    }
    result.candidates.push_back(std::move(c));
  }
  const std::string scored = scored_node(pipeline.scores.empty() ? ScoreSpec{} : pipeline.scores[0], pipeline);
  // the worth of a candidate is kept on disk; its fits and prefix would fill it
  auto key_of = [&](const Pipeline& candidate) {
    Value models = Value::array();
    for (auto& s : candidate.stages)
      if (!s.model.empty()) models.push_back(load_model(candidate, s, registry)->digest());
    return cache->key(
        Value::object({{"kind", "candidate"},
                       {"stages", candidate.resolved.at("stage")},
                       {"models", models},
                       {"run", candidate.resolved.contains("run") ? candidate.resolved.at("run") : Value()},
                       {"scored", scored},
                       {"metric", result.metric},
                       {"inner_folds", spec.inner_folds},
                       {"gap_s", spec.gap_s},
                       {"rows", describe(train)},
                       {"inner", Value::array({inner.folds, inner.gap})}}));
  };
  const ScoreSpec score_spec = pipeline.scores.empty() ? ScoreSpec{} : pipeline.scores[0];
  auto worth_of = [&](const Pipeline& candidate) {
    EngineOptions quiet = options;
    quiet.threads = 1;
    quiet.progress = {};
    quiet.counters = nullptr;  // what the final fit meets is counted, not what the search met
    quiet.keep_from_s = std::numeric_limits<double>::infinity();
    const Experiment experiment(registry, candidate, recording, quiet, cache);
    const auto target = experiment.target_of(scored);
    if (!target) throw ConfigError(pipeline.file.string() + ": " + scored, "", "a target to search by");
    const double rate = experiment.lead().format.rate_hz;
    const auto gap = std::max<std::int64_t>(std::llround(spec.gap_s * rate),
                                            std::max<Index>(0, experiment.split_context().memory_frames));
    Eigen::MatrixXd truth, decoded;
    for (auto& fold : inner_folds(train, spec.inner_folds, gap, spec.where + ".inner_folds")) {
      const auto given = experiment.apply(experiment.fit(fold.train, 0, inner), scored, fold.test);
      const auto t = gather(experiment.truth(*target, given), given.ranges);
      const auto d = gather(rows_of(given, scored_part(score_spec, given.format)), given.ranges);
      const Index had = truth.cols();
      truth.conservativeResize(t.rows(), had + t.cols());
      decoded.conservativeResize(d.rows(), had + d.cols());
      truth.rightCols(t.cols()) = t;
      decoded.rightCols(d.cols()) = d;
    }
    return score(result.metric, truth, decoded).headline();
  };
  std::atomic<std::size_t> done{0};
  std::mutex progress_mutex;
  auto one = [&](std::size_t i) {
    auto& c = result.candidates[i];
    try {
      const auto begun = std::chrono::steady_clock::now();
      const auto candidate = with_params(pipeline, c.params, registry);
      const auto key = key_of(candidate);
      const auto known = cache->value(key);
      c.value = known ? *known : worth_of(candidate);
      if (std::isnan(c.value)) c.failed = "the score is undefined";
      else if (!known && std::chrono::steady_clock::now() - begun >= std::chrono::duration<double>(options.keep_from_s))
        cache->put(key, c.value);
    } catch (const Interrupted&) {
      throw;
    } catch (const Error& e) {
      c.value = std::numeric_limits<double>::quiet_NaN();
      c.failed = e.what();
    }
    if (options.progress) {
      std::lock_guard lock(progress_mutex);
      options.progress(static_cast<double>(++done) / static_cast<double>(total), "searching");
    }
  };
  in_parallel(total, options.threads, one);
  Candidate* best = nullptr;
  for (auto& c : result.candidates)
    if (c.failed.empty() && (!best || (result.lower_is_better ? c.value < best->value : c.value > best->value)))
      best = &c;
  if (!best)
    throw ConfigError(
        spec.where, "",
        fmt::format("at least one candidate that works; the first failed with: {}", result.candidates[0].failed));
  best->chosen = true;
  return result;
}

}  // namespace percept::evaluation
