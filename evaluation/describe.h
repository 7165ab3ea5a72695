/// The resolved graph in numbers, for the dry run and the report.
#pragma once

#include "core/pipeline.h"
#include "core/recording.h"
#include "evaluation/experiment.h"

namespace percept::evaluation {

/// Shapes, rates, latency and memory of every node; "?" where only a fit can tell, and everywhere when the recording has
/// no streams. Reads no sample. Throws ConfigError / DataError.
/// priors: those that are fitted.
Value describe_graph(const Registry& registry, const Pipeline& pipeline, const Recording& recording,
                     const Fitted* fitted = nullptr, const Priors* priors = nullptr);

}  // namespace percept::evaluation
