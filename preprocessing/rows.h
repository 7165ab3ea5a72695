/// What several stages of this folder share: rows by name, and the samples of the registry.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/registry.h"

namespace percept {

/// One entry a row of the whole frame: named ("part.name" when there are several parts), with its unit.
std::vector<Channel> channels_of(const StreamFormat& format);

/// The unit that all rows have in common, "1" where they differ.
std::string common_unit(const std::vector<Channel>& rows);

/// For stages that take both axes: throws ConfigError unless there are rows and, in time, a rate.
void require_frames(const StreamFormat& in, const Context& context, const char* stage);

/// The sample once in f32 and once in f64.
std::vector<Sample> both_scalars(Sample sample);

}  // namespace percept
