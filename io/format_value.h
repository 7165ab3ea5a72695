/// A stream's format as JSON, for the files that percept writes itself.
#pragma once

#include "core/stream.h"
#include "core/value.h"

namespace percept::io {

Value format_to_value(const StreamFormat& format);
/// Throws Error when it is no format that can exist.
StreamFormat format_from_value(const Value& value);

}  // namespace percept::io
