/// Applying a fitted model to an edge: channels are matched by name, never by luck. What regressors and filters write
/// about their rows into model.meta, and read back.
#pragma once

#include <string>
#include <vector>

#include "core/context.h"
#include "core/model.h"
#include "core/stream.h"
#include "core/value.h"

namespace percept {

/// One name per row of the frame, "" where the row has none; "part.name" when the frame has several parts.
std::vector<std::string> named_rows(const StreamFormat& format);

/// Where each row of the model lies in the edge: model row i is edge row order[i].
/// Matched by name when every row of both has one, else by position.
/// Throws ConfigError when the counts differ, a channel of the model is missing, or a name occurs twice.
std::vector<Index> row_order(const std::vector<std::string>& model_rows, const std::vector<std::string>& edge_rows,
                             const Context& context);

/// The names in meta[key]; empty when there are none.
std::vector<std::string> names_of(const Value& meta, const std::string& key);

/// meta of a model without a target: stage, version, params, input_rows.
Value model_meta(const std::string& stage, int version, Value params, const StreamFormat& x);
/// meta of a model with a target: also output_rows, output_units, output_shape of an image, and rate_hz.
Value model_meta(const std::string& stage, int version, Value params, const StreamFormat& x, const StreamFormat& y);
/// Throws DataError unless the model is of this stage and version.
void require_model(const Model& model, const std::string& stage, int version);
/// Throws ConfigError unless the edge runs at the rate the model was fitted at (a state model is per frame).
void require_rate(const Model& model, const StreamFormat& in, const Context& context);
/// "mean" with the target's names, units and shape ({d} unless meta.output_shape says more), and "covariance" {d, d}.
/// Throws DataError when that shape has not d values.
std::vector<Part> posterior_parts(const Model& model, Index d, bool covariance);

/// Drops frames with a value that is not finite in x or y (their neighbours then belong to different segments);
/// returns how many.
Index drop_missing(TrainingMatrix& data);

}  // namespace percept
