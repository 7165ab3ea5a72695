/// [search]: parameters chosen on inner folds of the training part only.
///
///     [search]                         keys: core/pipeline.h, SearchSpec
///     method = "random"                grid: every combination of the lists
///     candidates = 40
///     lag.lags = [2, 4, 8]             one of the list
///     map.dropout = { from = 0.0, to = 0.5 }
///     map.learning_rate = { from = 1e-4, to = 1e-2, log = true }
///
/// Candidates are tried in rounds: all on the first inner folds, those that are still in the race on the next, and so
/// on (evaluation/race.h says who is given up). Between rounds everybody has waited for everybody, so threads change
/// nothing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "evaluation/experiment.h"

namespace percept::evaluation {

struct Candidate {
  Value params = Value::table();  ///< {"node.key": value}
  double value = 0;               ///< metric over the frames of all inner folds it was scored on; NaN when it failed
  std::int64_t folds = 0;         ///< that many
  std::int64_t frames = 0;        ///< scored: those with a truth and a decoded value
  std::string failed;             ///< why
  std::string given_up;           ///< why it was not tried on every fold
  bool chosen = false;
};

struct SearchResult {
  std::string metric, method;
  bool lower_is_better = true;
  std::int64_t inner_folds = 0;
  std::vector<Candidate> candidates;
  const Candidate& chosen() const;
  /// {metric, method, lower_is_better, folds, rows: [...]} as report.h wants it.
  Value to_value() const;
};

/// What is tried, as {"node.key": value} each. A grid: every combination, the last key turning fastest. Random: the draws
/// of a key depend on the seed and the key alone, a combination that came before is left out, and numbers out of a range
/// have four significant digits, so that what a table shows is what was tried; fewer than `candidates` when the lists
/// have no more combinations. Throws ConfigError for a grid of more than 100 000.
std::vector<Value> candidates_of(const SearchSpec& search, std::uint64_t seed);

/// The pipeline with these values in place. Throws ConfigError for a node that is not there.
Pipeline with_params(const Pipeline& pipeline, const Value& params, const Registry& registry);

/// Tries the candidates of pipeline.search inside `train` (ranges of lead rows), side by side within the thread budget.
/// inner: for what is cross-fitted in a candidate. Throws ConfigError when none works, with the first reason.
SearchResult search(const Registry& registry, const Pipeline& pipeline, const Recording& recording,
                    const std::vector<RowRange>& train, const EngineOptions& options, std::shared_ptr<WorkCache> cache,
                    const InnerSplit& inner = {});

}  // namespace percept::evaluation
