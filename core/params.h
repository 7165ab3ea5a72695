/// Parameters are declared once, as one struct with a static `fields()`:
///
///     struct Params {
///       double low_hz = 1.0;
///       std::string window = "hamming";
///       static constexpr auto fields() {
///         return std::tuple{
///             field("low_hz", &Params::low_hz, "Hz", "Lower edge of the pass band.", 0.0, 1e6),
///             choice("window", &Params::window, "Taper of the kernel.", "hamming|hann|blackman")};
///       }
///     };
///
/// From it come reading and validation, `percept stages`, the JSON Schema and the reference page.
/// Member types: bool, std::int64_t, double, std::string, std::vector of the last three.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "core/error.h"
#include "core/value.h"

namespace percept {

/// One parameter as the registry shows it.
struct ParamInfo {
  std::string key, type, unit, doc;        ///< type: boolean, integer, number, string, integers, numbers, strings
  Value fallback;                          ///< the default
  double min = -HUGE_VAL, max = HUGE_VAL;  ///< closed range of numbers (of each item of a list)
  std::vector<std::string> choices;        ///< of a string; empty: any
};

template <class P, class T>
struct Field {
  const char* key;
  T P::*member;
  const char* unit;
  const char* doc;
  double min, max;
  const char* choices;  ///< "a|b|c" or nullptr
};

template <class P, class T>
constexpr Field<P, T> field(const char* key, T P::*member, const char* unit, const char* doc, double min = -HUGE_VAL,
                            double max = HUGE_VAL) {
  return {key, member, unit, doc, min, max, nullptr};
}
template <class P>
constexpr Field<P, std::string> choice(const char* key, std::string P::*member, const char* doc, const char* choices) {
  return {key, member, "", doc, -HUGE_VAL, HUGE_VAL, choices};
}

/// A stage without parameters.
struct NoParams {
  static constexpr auto fields() { return std::tuple{}; }
};

namespace detail {
std::vector<std::string> split_choices(const char* choices);
/// Each throws ConfigError("where.key", ...) when the value has another type or is out of range.
void read_value(const Value& v, bool& out, const ParamInfo& info, const std::string& where);
void read_value(const Value& v, std::int64_t& out, const ParamInfo& info, const std::string& where);
void read_value(const Value& v, double& out, const ParamInfo& info, const std::string& where);
void read_value(const Value& v, std::string& out, const ParamInfo& info, const std::string& where);
void read_value(const Value& v, std::vector<std::int64_t>& out, const ParamInfo& info, const std::string& where);
void read_value(const Value& v, std::vector<double>& out, const ParamInfo& info, const std::string& where);
void read_value(const Value& v, std::vector<std::string>& out, const ParamInfo& info, const std::string& where);
template <class T>
const char* type_word() {
  if constexpr (std::is_same_v<T, bool>) return "boolean";
  else if constexpr (std::is_same_v<T, std::int64_t>) return "integer";
  else if constexpr (std::is_same_v<T, double>) return "number";
  else if constexpr (std::is_same_v<T, std::string>) return "string";
  else if constexpr (std::is_same_v<T, std::vector<std::int64_t>>) return "integers";
  else if constexpr (std::is_same_v<T, std::vector<double>>) return "numbers";
  else {
    static_assert(std::is_same_v<T, std::vector<std::string>>, "a parameter of this type is not supported");
    return "strings";
  }
}
template <class P, class T>
ParamInfo info_of(const Field<P, T>& f) {
  return {f.key, type_word<T>(), f.unit, f.doc, Value(P{}.*f.member), f.min, f.max, split_choices(f.choices)};
}
}  // namespace detail

/// Throws ConfigError with a "did you mean" for a key that is not one of `known`.
void refuse_unknown_keys(const Value& table, const std::vector<std::string>& known, const std::string& where);

template <class P>
std::vector<ParamInfo> describe_params() {
  std::vector<ParamInfo> all;
  std::apply([&](const auto&... f) { (all.push_back(detail::info_of(f)), ...); }, P::fields());
  return all;
}

/// Reads a struct from a table of its keys only. `where` starts every message: "examples/a.toml: fir".
template <class P>
P read_params(const Value& table, const std::string& where) {
  P p{};
  std::vector<std::string> known;
  std::apply([&](const auto&... f) { (known.emplace_back(f.key), ...); }, P::fields());
  refuse_unknown_keys(table, known, where);
  std::apply(
      [&](const auto&... f) {
        [[maybe_unused]] auto one = [&](const auto& g) {
          if (const Value* v = table.find(g.key)) detail::read_value(*v, p.*g.member, detail::info_of(g), where);
        };
        (one(f), ...);
      },
      P::fields());
  return p;
}

/// The struct as a table, defaults included.
template <class P>
Value write_params(const P& p) {
  Value t = Value::table();
  std::apply([&](const auto&... f) { ((t[f.key] = Value(p.*f.member)), ...); }, P::fields());
  return t;
}

}  // namespace percept
