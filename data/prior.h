/// The images of [[prior]] tables (core/pipeline.h).
#pragma once

#include <filesystem>
#include <vector>

#include "core/context.h"
#include "core/pipeline.h"
#include "core/recording.h"

namespace percept::data {

/// One recording a prior, in their order: one stream of items, all of its `images` one after the other, with keys 0, 1,
/// ...; the table "images" with the column "label" where all of them have labels; meta.sources [{name, images}],
/// meta.input {file: sha256} and the warnings of the sets.
///
/// An entry of `images` is SET.STREAM of a registered set, or a file (a name with a slash or an extension that io reads;
/// relative paths start at `base`). Labels are in the column PriorSpec::label of the table that has the stream's name,
/// else of "item", else of the only table that has such a column and a row for every image; an image's key is its row.
/// Throws ConfigError and DataError, naming the prior; as data::fetch does where a set cannot be had.
std::vector<Recording> load_priors(const std::vector<PriorSpec>& priors, const std::filesystem::path& base,
                                   const ProgressFn& progress = {});

/// What can be told of them without a download and from the heads of files: the same where all are registered sets that
/// are on this machine, else no streams.
std::vector<Recording> outline_priors(const std::vector<PriorSpec>& priors, const std::filesystem::path& base);

}  // namespace percept::data
