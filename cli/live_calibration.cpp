#include "cli/live_calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "evaluation/experiment.h"
#include "percept/registry.h"

namespace percept::cli {

namespace {
const StageSpec& stage_of(const Pipeline& pipeline, const std::string& node) {
  return *std::find_if(pipeline.stages.begin(), pipeline.stages.end(), [&](auto& s) { return s.node.name == node; });
}
/// "node.part" or "node", of those in `known`.
std::string owner(const std::string& reference, const std::set<std::string>& known) {
  return known.contains(reference) ? reference : reference.substr(0, reference.rfind('.'));
}
}  // namespace

CalibrationPlan plan_calibration(const Pipeline& pipeline, const std::vector<NodeSpec>& nodes, const std::string& from,
                                 const std::string& where, std::function<bool()> cancelled) {
  const auto& registry = builtin_registry();
  CalibrationPlan plan;
  plan.from = from;
  Pipeline own = pipeline;
  own.stages.clear();
  own.priors.clear();
  own.splits.clear();
  own.scores.clear();
  own.search.reset();
  std::set<std::string> below{from};
  std::vector<std::string> fitted;
  // nodes may stand in any order: until nothing is added
  for (bool more = true; more;) {
    more = false;
    for (auto& n : nodes)
      if (!below.contains(n.name) &&
          std::any_of(n.from.begin(), n.from.end(), [&](auto& f) { return below.contains(owner(f, below)); }))
        more = below.insert(n.name).second;
  }
  for (auto& n : nodes) {
    StageSpec stage = stage_of(pipeline, n.name);
    const bool learned = registry.at(n.use, n.where).trained && stage.model.empty();
    if (!below.contains(n.name) || n.name == from) {
      if (learned)
        throw ConfigError(
            where + ".from", "\"" + from + "\"",
            fmt::format("an input or stage above everything that is fitted: '{}' is not below it", n.name));
      continue;
    }
    for (auto& f : n.from)
      if (!below.contains(owner(f, below)))
        throw ConfigError(
            where + ".from", "\"" + from + "\"",
            fmt::format("an input or stage that all below it comes from: '{}' also reads '{}'", n.name, f));
    stage.node = n;
    stage.node.model.reset();
    stage.node.queue.clear();
    stage.node.reset.clear();  // no events are collected, so pieces cannot begin at them
    if (learned) fitted.push_back(n.name);
    if (learned && stage.target) {
      if (plan.target.empty()) {
        plan.target = stage.target->from;
        plan.lag_s = stage.target->lag_s;
      } else if (plan.target != stage.target->from || plan.lag_s != stage.target->lag_s) {
        throw ConfigError(
            n.where + ".target", "\"" + stage.target->from + "\"",
            fmt::format("\"{}\" with lag_s {}, as the others: the intention is one", plan.target, plan.lag_s));
      }
    }
    own.stages.push_back(std::move(stage));
  }
  if (plan.target.empty())
    throw ConfigError(where, "", "a stage that is fitted to a target, and has no `model` of its own");
  plan.fit = [own = std::move(own), fitted = std::move(fitted),
              cancelled = std::move(cancelled)](const Recording& recording) {
    evaluation::EngineOptions options;
    options.cancelled = cancelled;
    const evaluation::Experiment engine(builtin_registry(), own, recording, options);
    const auto result = engine.fit({{0, engine.lead().frames() - 1}});
    std::vector<LiveRunner::NewModel> models;
    for (auto& m : result.models)
      if (std::find(fitted.begin(), fitted.end(), m.node) != fitted.end()) models.push_back({m.node, m.model});
    return models;
  };
  return plan;
}

}  // namespace percept::cli
