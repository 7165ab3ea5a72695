/// What the pages of percept are written with: text into HTML, values into templates. Internal to evaluation/report/.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/value.h"

namespace percept::evaluation {

/// Text as HTML shows it, in an element or in a quoted attribute.
std::string escape(std::string_view text);
/// JSON that cannot end the <script> it stands in.
std::string script_json(const Value& v);
/// RFC 4648.
std::string base64(std::string_view bytes);
/// Replaces each {{name}} of the template. One pass: what is put in is never searched for names; a name that is not
/// given leaves nothing.
std::string fill(std::string_view text, const std::vector<std::pair<std::string_view, std::string_view>>& values);

/// A member of a table; null when it is missing.
const Value& child(const Value& v, std::string_view key);
/// A member that is a list; empty when it is missing. Throws Error when it is something else.
const Value::Array& list(const Value& v, std::string_view key);

}  // namespace percept::evaluation
