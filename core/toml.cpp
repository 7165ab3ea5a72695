// toml++ is a heavy header: only here.
#include <fmt/format.h>

#include <sstream>
#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include "core/error.h"
#include "core/files.h"
#include "core/value.h"

namespace percept {

namespace {
Value convert(const toml::node& node, const std::string& file) {
  Value v;
  if (auto* t = node.as_table()) {
    // toml++ sorts keys; the order of the file is that of the source positions
    std::vector<std::pair<toml::source_position, std::pair<std::string, Value>>> items;
    for (auto&& [key, child] : *t)
      items.push_back({key.source().begin, {std::string(key.str()), convert(child, file)}});
    std::stable_sort(items.begin(), items.end(), [](auto& a, auto& b) {
      return std::pair(a.first.line, a.first.column) < std::pair(b.first.line, b.first.column);
    });
    v = Value::table();
    for (auto& [position, item] : items) {
      if (item.second.line == 0) item.second.line = static_cast<int>(position.line);
      v.as_table().push_back(std::move(item));
    }
  } else if (auto* a = node.as_array()) {
    v = Value::array();
    for (auto&& child : *a) v.push_back(convert(child, file));
  } else if (auto* s = node.as_string()) {
    v = s->get();
  } else if (auto* i = node.as_integer()) {
    v = i->get();
  } else if (auto* d = node.as_floating_point()) {
    v = d->get();
  } else if (auto* b = node.as_boolean()) {
    v = b->get();
  } else {
    throw DataError(fmt::format("{}:{}", file, node.source().begin.line), "",
                    "a boolean, number, string, array or table", "a date or time (write it as a string)");
  }
  v.line = static_cast<int>(node.source().begin.line);
  return v;
}

toml::array to_toml_array(const Value::Array& items);
toml::table to_toml_table(const Value& v) {
  toml::table t;
  for (auto& [k, item] : v.as_table()) switch (item.type()) {
      case Value::Type::null:
        break;
      case Value::Type::boolean:
        t.insert(k, item.as_bool());
        break;
      case Value::Type::integer:
        t.insert(k, item.as_integer());
        break;
      case Value::Type::real:
        t.insert(k, item.as_number());
        break;
      case Value::Type::string:
        t.insert(k, item.as_string());
        break;
      case Value::Type::array:
        t.insert(k, to_toml_array(item.as_array()));
        break;
      case Value::Type::table:
        t.insert(k, to_toml_table(item));
        break;
    }
  return t;
}
toml::array to_toml_array(const Value::Array& items) {
  toml::array a;
  for (auto& item : items) switch (item.type()) {
      case Value::Type::null:
        break;
      case Value::Type::boolean:
        a.push_back(item.as_bool());
        break;
      case Value::Type::integer:
        a.push_back(item.as_integer());
        break;
      case Value::Type::real:
        a.push_back(item.as_number());
        break;
      case Value::Type::string:
        a.push_back(item.as_string());
        break;
      case Value::Type::array:
        a.push_back(to_toml_array(item.as_array()));
        break;
      case Value::Type::table:
        a.push_back(to_toml_table(item));
        break;
    }
  return a;
}
}  // namespace

Value parse_toml(std::string_view text, const std::string& file) {
  try {
    return convert(toml::parse(text, file), file);
  } catch (const toml::parse_error& e) {
    throw DataError(fmt::format("{}:{}", file, e.source().begin.line),
                    fmt::format("column {}", e.source().begin.column), "TOML", std::string(e.description()));
  }
}

Value read_toml(const std::filesystem::path& file) {
  constexpr std::uint64_t kLargest = 16u << 20;
  return parse_toml(read_file(file, kLargest), file.string());
}

Value parse_toml_value(std::string_view text) {
  try {
    return parse_toml(fmt::format("v = {}\n", text), "--set").at("v");
  } catch (const DataError&) {
    return std::string(text);
  }
}

std::string to_toml(const Value& table) {
  std::ostringstream out;
  // plain strings only: of a multi-line one the first newline is lost when it is read back, a literal one takes none
  constexpr auto kFlags = toml::toml_formatter::default_flags & ~toml::format_flags::allow_multi_line_strings &
                          ~toml::format_flags::allow_literal_strings;
  out << toml::toml_formatter(to_toml_table(table), kFlags) << "\n";
  return out.str();
}

}  // namespace percept
