/// What the readers of XML share (CIFTI, GIFTI). Not for others; pugixml stays out of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace percept::io {

/// The numbers of a text, white space between them. Throws DataError (file, place) for anything else, and for more or
/// fewer than `expected`.
std::vector<double> numbers_of(std::string_view text, std::size_t expected, const std::string& file,
                               const std::string& place);

/// A whole number from 0 on. Throws DataError; "" is "none".
std::int64_t count_of(std::string_view text, const std::string& file, const std::string& place);

/// "CIFTI_STRUCTURE_CORTEX_LEFT" and GIFTI's "CortexLeft" as "CORTEX_LEFT".
std::string structure_of(std::string_view name);

}  // namespace percept::io
