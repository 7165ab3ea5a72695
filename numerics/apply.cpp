#include "numerics/apply.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/error.h"

namespace percept {

std::vector<std::string> named_rows(const StreamFormat& format) {
  std::vector<std::string> names;
  for (const Part& part : format.parts) {
    const bool named = static_cast<Index>(part.rows.size()) == part.size();
    for (Index i = 0; i < part.size(); ++i) {
      std::string name = named ? part.rows[static_cast<std::size_t>(i)].name : "";
      if (!name.empty() && format.parts.size() > 1) name = fmt::format("{}.{}", part.name, name);
      names.push_back(std::move(name));
    }
  }
  return names;
}

std::vector<Index> row_order(const std::vector<std::string>& model_rows, const std::vector<std::string>& edge_rows,
                             const Context& context) {
  const std::string key = context.node + ".from";
  if (model_rows.size() != edge_rows.size())
    throw ConfigError(key, fmt::format("{} channels", edge_rows.size()),
                      fmt::format("the {} channels the model was fitted on", model_rows.size()));
  std::vector<Index> order(model_rows.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<Index>(i);
  const auto unnamed = [](const auto& rows) { return std::find(rows.begin(), rows.end(), "") != rows.end(); };
  if (model_rows == edge_rows || unnamed(model_rows) || unnamed(edge_rows)) return order;

  std::map<std::string, Index> at;
  for (std::size_t i = 0; i < edge_rows.size(); ++i)
    if (!at.emplace(edge_rows[i], static_cast<Index>(i)).second)
      throw ConfigError(key, fmt::format("channel '{}' twice", edge_rows[i]), "channels with different names");
  for (std::size_t i = 0; i < model_rows.size(); ++i) {
    const auto found = at.find(model_rows[i]);
    if (found == at.end())
      throw ConfigError(key, fmt::format("no channel '{}'{}", model_rows[i], did_you_mean(model_rows[i], edge_rows)),
                        "every channel the model was fitted on");
    order[i] = found->second;
    at.erase(found);  // a model row named twice then counts as missing
  }
  return order;
}

std::vector<std::string> names_of(const Value& meta, const std::string& key) {
  std::vector<std::string> names;
  if (const Value* v = meta.find(key); v && v->is_array())
    for (const Value& name : v->as_array()) names.push_back(name.as_string());
  return names;
}

namespace {

std::vector<std::string> units_of(const StreamFormat& format) {
  std::vector<std::string> units;
  for (const Part& part : format.parts)
    for (Index i = 0; i < part.size(); ++i) {
      const auto row = static_cast<std::size_t>(i);
      const bool own = part.rows.size() > row && !part.rows[row].unit.empty();
      units.push_back(own ? part.rows[row].unit : part.unit);
    }
  return units;
}

}  // namespace

Value model_meta(const std::string& stage, int version, Value params, const StreamFormat& x) {
  return Value::object(
      {{"stage", stage}, {"version", version}, {"params", std::move(params)}, {"input_rows", named_rows(x)}});
}

Value model_meta(const std::string& stage, int version, Value params, const StreamFormat& x, const StreamFormat& y) {
  Value meta = model_meta(stage, version, std::move(params), x);
  meta["output_rows"] = named_rows(y);
  meta["output_units"] = units_of(y);
  if (y.parts.size() == 1 && y.parts[0].shape.size() > 1) meta["output_shape"] = Value(y.parts[0].shape);
  meta["rate_hz"] = x.rate_hz;
  return meta;
}

void require_model(const Model& model, const std::string& stage, int version) {
  const std::string found = model.meta.get("stage", "");
  if (found != stage) throw DataError("model", "stage", stage, found.empty() ? "none" : found);
  if (const auto v = model.meta.get("version", std::int64_t{0}); v != version)
    throw DataError("model of " + stage, "version", std::to_string(version), std::to_string(v));
}

void require_rate(const Model& model, const StreamFormat& in, const Context& context) {
  const double fitted = model.meta.get("rate_hz", 0.0);
  if (fitted > 0 && std::abs(in.rate_hz - fitted) > 1e-6 * fitted)
    throw ConfigError(context.node + ".from", fmt::format("{} Hz", in.rate_hz),
                      fmt::format("{} Hz, at which the model was fitted", fitted));
}

std::vector<Part> posterior_parts(const Model& model, Index d, bool covariance) {
  const auto names = names_of(model.meta, "output_rows"), units = names_of(model.meta, "output_units");
  Part mean{"mean", {d}, "1", {}, {}};
  if (const Value* shape = model.meta.find("output_shape")) {
    std::vector<Index> given;
    Index size = 1;
    for (auto& n : shape->as_array()) {
      given.push_back(n.as_integer());
      size = given.back() >= 1 && given.back() <= d ? std::min(size * given.back(), d + 1) : d + 1;
    }
    if (size != d)
      throw DataError("model of " + model.meta.get("stage", "an unnamed stage"), "output_shape",
                      fmt::format("a shape of {} values", d), fmt::format("{{{}}}", fmt::join(given, ", ")));
    mean.shape = given;
  }
  const bool one_unit = std::set<std::string>(units.begin(), units.end()).size() == 1;
  if (one_unit) mean.unit = units[0];
  if (static_cast<Index>(names.size()) == d && std::find(names.begin(), names.end(), "") == names.end())
    for (std::size_t i = 0; i < names.size(); ++i) {
      mean.rows.emplace_back();
      mean.rows.back().name = names[i];
      if (!one_unit && i < units.size()) mean.rows.back().unit = units[i];
    }
  if (!covariance) return {mean};
  return {mean, Part{"covariance", {d, d}, mean.unit == "1" ? "1" : "(" + mean.unit + ")^2", {}, {}}};
}

Index drop_missing(TrainingMatrix& data) {
  std::vector<Index> kept, starts;
  std::size_t segment = 0;
  bool fresh = true;
  for (Index t = 0; t < data.x.cols(); ++t) {
    for (; segment < data.segment_starts.size() && data.segment_starts[segment] <= t; ++segment) fresh = true;
    if (!data.x.col(t).allFinite() || !data.y.col(t).allFinite()) {
      fresh = true;
      continue;
    }
    if (fresh) starts.push_back(static_cast<Index>(kept.size()));
    fresh = false;
    kept.push_back(t);
  }
  const Index dropped = data.x.cols() - static_cast<Index>(kept.size());
  if (dropped == 0) return 0;
  data.x = data.x(Eigen::all, kept).eval();
  data.y = data.y(Eigen::all, kept).eval();
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const auto from = static_cast<std::size_t>(kept[i]);
    if (!data.keys.empty()) data.keys[i] = data.keys[from];
    if (!data.groups.empty()) data.groups[i] = data.groups[from];
  }
  if (!data.keys.empty()) data.keys.resize(kept.size());
  if (!data.groups.empty()) data.groups.resize(kept.size());
  data.segment_starts = std::move(starts);
  return dropped;
}

}  // namespace percept
