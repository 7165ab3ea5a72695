#include "io/format_value.h"

#include <limits>

#include "core/error.h"

namespace percept::io {

Value format_to_value(const StreamFormat& f) {
  Value parts = Value::array();
  for (const auto& p : f.parts) {
    Value rows = Value::array();
    for (const auto& c : p.rows) {
      Value row = Value::object({{"name", c.name}, {"kind", c.kind}, {"unit", c.unit}, {"good", c.good}});
      if (c.position) row["position"] = Value(std::vector<double>(c.position->begin(), c.position->end()));
      rows.push_back(std::move(row));
    }
    parts.push_back(Value::object({{"name", p.name},
                                   {"shape", Value(p.shape)},
                                   {"unit", p.unit},
                                   {"rows", std::move(rows)},
                                   {"levels", Value(p.levels)}}));
  }
  return Value::object({{"axis", name_of(f.axis)},
                        {"scalar", name_of(f.scalar)},
                        {"rate_hz", f.rate_hz},
                        {"start_s", f.start_s},
                        {"max_frames", f.max_frames},
                        {"parts", std::move(parts)}});
}

namespace {
constexpr Index kLargestFrame = Index{1} << 40;

/// NaN has no JSON; it is written as null.
double number_or_nan(const Value& v) { return v.is_null() ? std::numeric_limits<double>::quiet_NaN() : v.as_number(); }
}  // namespace

StreamFormat format_from_value(const Value& v) {
  StreamFormat f;
  f.axis = v.at("axis").as_string() == "time" ? Axis::time : Axis::item;
  f.scalar = v.at("scalar").as_string() == "f32" ? Scalar::f32 : Scalar::f64;
  f.rate_hz = v.at("rate_hz").as_number();
  f.start_s = v.at("start_s").as_number();
  f.max_frames = v.at("max_frames").as_integer();
  Index rows = 0;
  for (const auto& part : v.at("parts").as_array()) {
    Part p;
    p.name = part.at("name").as_string();
    p.unit = part.at("unit").as_string();
    Index size = 1;
    for (const auto& s : part.at("shape").as_array()) {
      p.shape.push_back(s.as_integer());
      if (p.shape.back() < 1 || p.shape.back() > kLargestFrame / size)
        throw Error("a shape that can exist was expected");
      size *= p.shape.back();
    }
    rows += size;
    for (const auto& row : part.at("rows").as_array()) {
      Channel c{.name = row.at("name").as_string(),
                .kind = row.at("kind").as_string(),
                .unit = row.at("unit").as_string(),
                .position = {},
                .good = row.at("good").as_bool()};
      if (const Value* at = row.find("position"); at && at->as_array().size() == 3)
        c.position = {number_or_nan(at->as_array()[0]), number_or_nan(at->as_array()[1]),
                      number_or_nan(at->as_array()[2])};
      p.rows.push_back(std::move(c));
    }
    for (const auto& level : part.at("levels").as_array()) p.levels.push_back(level.as_string());
    f.parts.push_back(std::move(p));
  }
  if (f.parts.empty() || rows > kLargestFrame || (f.axis == Axis::time && !(f.rate_hz > 0)))
    throw Error("a format that can exist was expected");
  return f;
}

}  // namespace percept::io
