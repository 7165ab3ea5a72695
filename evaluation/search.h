/// [search]: parameters chosen on inner folds of the training part only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "evaluation/experiment.h"

namespace percept::evaluation {

struct Candidate {
  Value params = Value::table();  ///< {"node.key": value}
  double value = 0;               ///< metric over the pooled inner test frames; NaN when it failed
  std::string failed;             ///< why
  bool chosen = false;
};

struct SearchResult {
  std::string metric;
  bool lower_is_better = true;
  std::int64_t inner_folds = 0;
  std::vector<Candidate> candidates;
  const Candidate& chosen() const;
  /// {metric, lower_is_better, folds, rows: [...]} as report.h wants it.
  Value to_value() const;
};

/// The pipeline with these values in place. Throws ConfigError for a node that is not there.
Pipeline with_params(const Pipeline& pipeline, const Value& params, const Registry& registry);

/// Tries every combination of pipeline.search inside `train` (ranges of lead rows); candidates run side by side within
/// the thread budget. inner: for what is cross-fitted in a candidate. Throws Error when none works, naming the first reason.
SearchResult search(const Registry& registry, const Pipeline& pipeline, const Recording& recording,
                    const std::vector<RowRange>& train, const EngineOptions& options, std::shared_ptr<WorkCache> cache,
                    const InnerSplit& inner = {});

}  // namespace percept::evaluation
