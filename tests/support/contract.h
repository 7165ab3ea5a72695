/// The laws that every registered stage keeps (docs/architecture.md, "The contract"), as checks that say what is wrong.
/// tests/contract runs them over the registry, and over stages broken on purpose to show that each check can fail.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/model.h"
#include "core/registry.h"

namespace percept::testing {

/// What was found wrong, one sentence each.
struct ContractResult {
  std::vector<std::string> failures;
  bool ok() const { return failures.empty(); }
  std::string text() const;  ///< one line each
};

/// Any partition of the input, any place in memory and markers that come late (by less than the stage's latency) give
/// the same bits, in f32 and f64; the same partition always does.
ContractResult check_partition(const StageInfo& info, const Sample& sample);
/// A state saved in the middle continues identically in a fresh instance (restore and swap), saving changes nothing,
/// reset equals new, and a state of another stage is refused. A stage that holds the whole recording has no middle.
ContractResult check_state(const StageInfo& info, const Sample& sample);
/// NaN in single rows, whole frames, a burst, from the start, in one row throughout and everywhere: no infinity comes
/// out, the clock goes on, what does not depend on the gap is as without it, the state recovers, and a stage of finite
/// memory makes no numbers out of nothing.
ContractResult check_missing(const StageInfo& info, const Sample& sample);
/// A stage whose row promises real time says so itself, is causal, and process(), flush(), reset() and a swap
/// allocate nothing from the first block on, missing input included.
ContractResult check_real_time(const StageInfo& info, const Sample& sample);
/// What prepare() promises is delivered (frames, rows, keys, events), and what it cannot take is refused by a
/// ConfigError that names the node; preparing again works.
ContractResult check_delivery(const StageInfo& info, const Sample& sample);
/// Of a causal stage: no output depends on input that came after it, and its frames stand for the time they came out
/// less the declared latency.
ContractResult check_causality(const StageInfo& info, const Sample& sample);
/// per_frame: any order of frames gives the same. per_row: other rows change nothing, and a stage made for some rows
/// gives what these rows give among all.
ContractResult check_independence(const StageInfo& info, const Sample& sample);
/// Of a stage that gives each frame at once: with `reset` in a graph it is a new one from each event on, wherever the
/// stream was cut, and a state saved between an event and its frame knows of it.
ContractResult check_anew(const StageInfo& info, const Sample& sample);
/// Every parameter is documented, its default is accepted, a value out of range, of another type and an unknown key
/// are refused, the latter with a suggestion; the row is complete.
ContractResult check_declaration(const StageInfo& info, const Sample& sample);

struct Law {
  const char* name;
  ContractResult (*check)(const StageInfo&, const Sample&);
};
/// The nine checks above.
std::span<const Law> contract_laws();

/// For the leak law: "" when two models have the same bits, else the first array or key of `meta` that differs.
std::string model_difference(const Model& a, const Model& b);

}  // namespace percept::testing
