#include "core/value.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"

namespace percept {

const char* Value::type_name() const {
  static constexpr const char* kNames[] = {"null", "boolean", "integer", "number", "string", "array", "table"};
  return kNames[data_.index()];
}

namespace {
[[noreturn]] void wrong_type(const Value& v, const char* expected) {
  throw Error(fmt::format("expected {}, found {}", expected, v.type_name()), Exit::bad_input);
}
}  // namespace

bool Value::as_bool() const {
  if (auto* b = std::get_if<bool>(&data_)) return *b;
  wrong_type(*this, "a boolean");
}
std::int64_t Value::as_integer() const {
  if (auto* i = std::get_if<std::int64_t>(&data_)) return *i;
  wrong_type(*this, "an integer");
}
double Value::as_number() const {
  if (auto* d = std::get_if<double>(&data_)) return *d;
  if (auto* i = std::get_if<std::int64_t>(&data_)) return static_cast<double>(*i);
  wrong_type(*this, "a number");
}
const std::string& Value::as_string() const {
  if (auto* s = std::get_if<std::string>(&data_)) return *s;
  wrong_type(*this, "a string");
}
const Value::Array& Value::as_array() const {
  if (auto* a = std::get_if<Array>(&data_)) return *a;
  wrong_type(*this, "an array");
}
const Value::Table& Value::as_table() const {
  if (auto* t = std::get_if<Table>(&data_)) return *t;
  wrong_type(*this, "a table");
}
Value::Array& Value::as_array() { return const_cast<Array&>(std::as_const(*this).as_array()); }
Value::Table& Value::as_table() { return const_cast<Table&>(std::as_const(*this).as_table()); }

const Value* Value::find(std::string_view key) const {
  if (auto* t = std::get_if<Table>(&data_))
    for (auto& [k, v] : *t)
      if (k == key) return &v;
  return nullptr;
}
Value* Value::find(std::string_view key) { return const_cast<Value*>(std::as_const(*this).find(key)); }
const Value& Value::at(std::string_view key) const {
  if (auto* v = find(key)) return *v;
  throw Error(fmt::format("missing key '{}'", key), Exit::bad_input);
}
Value& Value::operator[](std::string_view key) {
  if (is_null()) data_ = Table{};
  if (auto* v = find(key)) return *v;
  auto& t = as_table();
  t.emplace_back(std::string(key), Value());
  return t.back().second;
}
const Value* Value::find_path(std::string_view dotted) const {
  const Value* v = this;
  while (v) {
    const auto dot = dotted.find('.');
    v = v->find(dotted.substr(0, dot));
    if (dot == std::string_view::npos) return v;
    dotted.remove_prefix(dot + 1);
  }
  return nullptr;
}
void Value::set_path(std::string_view dotted, Value v) {
  Value* at = this;
  for (;;) {
    const auto dot = dotted.find('.');
    at = &(*at)[dotted.substr(0, dot)];
    if (dot == std::string_view::npos) break;
    if (!at->is_table()) *at = table();
    dotted.remove_prefix(dot + 1);
  }
  *at = std::move(v);
}
bool Value::erase(std::string_view key) {
  auto* t = std::get_if<Table>(&data_);
  return t && std::erase_if(*t, [&](const auto& item) { return item.first == key; }) > 0;
}
void Value::push_back(Value v) {
  if (is_null()) data_ = Array{};
  as_array().push_back(std::move(v));
}
std::size_t Value::size() const {
  if (auto* a = std::get_if<Array>(&data_)) return a->size();
  if (auto* t = std::get_if<Table>(&data_)) return t->size();
  return 0;
}
std::string Value::get(std::string_view key, const char* fallback) const {
  auto* v = find(key);
  return v ? v->as_string() : fallback;
}
std::string Value::get(std::string_view key, const std::string& fallback) const { return get(key, fallback.c_str()); }
double Value::get(std::string_view key, double fallback) const {
  auto* v = find(key);
  return v ? v->as_number() : fallback;
}
std::int64_t Value::get(std::string_view key, std::int64_t fallback) const {
  auto* v = find(key);
  return v ? v->as_integer() : fallback;
}
bool Value::get(std::string_view key, bool fallback) const {
  auto* v = find(key);
  return v ? v->as_bool() : fallback;
}

namespace {
using Json = nlohmann::ordered_json;

Json to_nlohmann(const Value& v) {
  switch (v.type()) {
    case Value::Type::null:
      return nullptr;
    case Value::Type::boolean:
      return v.as_bool();
    case Value::Type::integer:
      return v.as_integer();
    case Value::Type::real:
      return v.as_number();
    case Value::Type::string:
      return v.as_string();
    case Value::Type::array: {
      Json a = Json::array();
      for (auto& item : v.as_array()) a.push_back(to_nlohmann(item));
      return a;
    }
    case Value::Type::table: {
      Json o = Json::object();
      for (auto& [k, item] : v.as_table()) o[k] = to_nlohmann(item);
      return o;
    }
  }
  return nullptr;
}

Value from_nlohmann(const Json& j) {
  switch (j.type()) {
    case Json::value_t::boolean:
      return j.get<bool>();
    case Json::value_t::number_integer:
      return j.get<std::int64_t>();
    case Json::value_t::number_unsigned: {
      const auto u = j.get<std::uint64_t>();
      if (u > static_cast<std::uint64_t>(INT64_MAX)) return static_cast<double>(u);
      return static_cast<std::int64_t>(u);
    }
    case Json::value_t::number_float:
      return j.get<double>();
    case Json::value_t::string:
      return j.get<std::string>();
    case Json::value_t::array: {
      Value a = Value::array();
      for (auto& item : j) a.push_back(from_nlohmann(item));
      return a;
    }
    case Json::value_t::object: {
      Value t = Value::table();
      for (auto& [k, item] : j.items()) t.as_table().emplace_back(k, from_nlohmann(item));
      return t;
    }
    default:
      return nullptr;
  }
}
}  // namespace

std::string to_json(const Value& v, int indent) {
  // text that is not UTF-8 (a channel name of an old file) is shown with replacement marks, never thrown on
  return to_nlohmann(v).dump(indent, ' ', false, Json::error_handler_t::replace);
}

Value parse_json(std::string_view text, const std::string& file) {
  // a hostile file could nest deep enough to exhaust the stack of any recursive walk
  constexpr int kDeepest = 64;
  try {
    bool too_deep = false;
    auto j = Json::parse(text, [&](int depth, Json::parse_event_t, Json&) {
      too_deep = too_deep || depth > kDeepest;
      return depth <= kDeepest;
    });
    if (too_deep) throw DataError(file, "", fmt::format("JSON nested at most {} deep", kDeepest), "deeper nesting");
    return from_nlohmann(j);
  } catch (const Json::parse_error& e) {
    throw DataError(file, fmt::format("byte {}", e.byte), "JSON", "text that is not");
  } catch (const Json::out_of_range&) {
    throw DataError(file, "", "numbers that fit a double", "a larger one");
  }
}

Value read_json(const std::filesystem::path& file) { return parse_json(read_file(file), file.string()); }

}  // namespace percept
