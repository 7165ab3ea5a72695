#include "core/params.h"

#include <fmt/format.h>

#include <algorithm>

namespace percept {

namespace detail {

std::vector<std::string> split_choices(const char* choices) {
  std::vector<std::string> all;
  if (!choices) return all;
  std::string_view rest = choices;
  for (;;) {
    const auto bar = rest.find('|');
    all.emplace_back(rest.substr(0, bar));
    if (bar == std::string_view::npos) return all;
    rest.remove_prefix(bar + 1);
  }
}

namespace {
std::string place(const Value& v, const ParamInfo& info, const std::string& where) {
  return v.line > 0 ? fmt::format("{}.{} (line {})", where, info.key, v.line) : fmt::format("{}.{}", where, info.key);
}
std::string unit(const ParamInfo& info) { return info.unit.empty() || info.unit == "1" ? "" : " " + info.unit; }

std::string range(const ParamInfo& info) {
  if (std::isinf(info.min) && std::isinf(info.max)) return "a finite number";
  if (std::isinf(info.max)) return fmt::format("at least {}{}", info.min, unit(info));
  if (std::isinf(info.min)) return fmt::format("at most {}{}", info.max, unit(info));
  return fmt::format("a value in [{}, {}]{}", info.min, info.max, unit(info));
}

double number(const Value& v, const ParamInfo& info, const std::string& where, bool integer) {
  if (integer ? !v.is_integer() : !v.is_number())
    throw ConfigError(place(v, info, where), to_json(v), integer ? "an integer" : "a number");
  const double d = v.as_number();
  if (!std::isfinite(d) || d < info.min || d > info.max)
    throw ConfigError(place(v, info, where), fmt::format("{}{}", d, unit(info)), range(info));
  return d;
}

template <class T, class One>
void read_list(const Value& v, std::vector<T>& out, One one) {
  out.clear();
  if (!v.is_array()) {
    out.push_back(one(v));  // one value is a list of one
    return;
  }
  for (auto& item : v.as_array()) out.push_back(one(item));
}

const std::string& text(const Value& v, const ParamInfo& info, const std::string& where) {
  if (!v.is_string()) throw ConfigError(place(v, info, where), to_json(v), "a string");
  const auto& s = v.as_string();
  if (!info.choices.empty() && std::find(info.choices.begin(), info.choices.end(), s) == info.choices.end())
    throw ConfigError(place(v, info, where), "\"" + s + "\"",
                      fmt::format("one of {}{}", fmt::join(info.choices, ", "), did_you_mean(s, info.choices)));
  return s;
}
}  // namespace

void read_value(const Value& v, bool& out, const ParamInfo& info, const std::string& where) {
  if (!v.is_bool()) throw ConfigError(place(v, info, where), to_json(v), "true or false");
  out = v.as_bool();
}
void read_value(const Value& v, std::int64_t& out, const ParamInfo& info, const std::string& where) {
  number(v, info, where, true);
  out = v.as_integer();
}
void read_value(const Value& v, double& out, const ParamInfo& info, const std::string& where) {
  out = number(v, info, where, false);
}
void read_value(const Value& v, std::string& out, const ParamInfo& info, const std::string& where) {
  out = text(v, info, where);
}
void read_value(const Value& v, std::vector<std::int64_t>& out, const ParamInfo& info, const std::string& where) {
  read_list(v, out, [&](const Value& i) { return number(i, info, where, true), i.as_integer(); });
}
void read_value(const Value& v, std::vector<double>& out, const ParamInfo& info, const std::string& where) {
  read_list(v, out, [&](const Value& i) { return number(i, info, where, false); });
}
void read_value(const Value& v, std::vector<std::string>& out, const ParamInfo& info, const std::string& where) {
  read_list(v, out, [&](const Value& i) { return text(i, info, where); });
}

}  // namespace detail

void refuse_unknown_keys(const Value& table, const std::vector<std::string>& known, const std::string& where) {
  if (!table.is_table()) throw ConfigError(where, to_json(table), "a table of keys");
  for (auto& [key, v] : table.as_table())
    if (std::find(known.begin(), known.end(), key) == known.end())
      throw ConfigError(
          v.line > 0 ? fmt::format("{}.{} (line {})", where, key, v.line) : fmt::format("{}.{}", where, key), "",
          known.empty() ? "no key here" : fmt::format("one of {}{}", fmt::join(known, ", "), did_you_mean(key, known)));
}

}  // namespace percept
