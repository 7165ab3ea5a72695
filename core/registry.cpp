#include "core/registry.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/pipeline.h"

namespace percept {

void Registry::add(StageInfo i) {
  auto incomplete = [&](const char* what) { throw Error(fmt::format("registry: stage '{}' has no {}", i.name, what)); };
  if (i.name.empty()) incomplete("name");
  if (find(i.name)) throw Error(fmt::format("registry: two stages are called '{}'", i.name));
  if (i.folder.empty()) incomplete("folder");
  if (i.doc.empty()) incomplete("doc");
  if (!i.make) incomplete("maker");
  if (!i.samples) incomplete("sample");
  for (auto& p : i.params) {
    if (std::find(reserved_stage_keys().begin(), reserved_stage_keys().end(), p.key) != reserved_stage_keys().end())
      throw Error(fmt::format("registry: parameter '{}.{}' has the name of a key that every stage has", i.name, p.key));
    if (p.doc.empty()) throw Error(fmt::format("registry: parameter '{}.{}' has no doc", i.name, p.key));
    if (p.fallback.is_number() && !(p.fallback.as_number() >= p.min && p.fallback.as_number() <= p.max))
      throw Error(fmt::format("registry: the default of '{}.{}' is outside its range", i.name, p.key));
  }
  rows_.push_back(std::move(i));
}

void Registry::add(std::vector<StageInfo> table) {
  for (auto& row : table) add(std::move(row));
}

const StageInfo* Registry::find(std::string_view name) const {
  for (auto& r : rows_)
    if (r.name == name) return &r;
  return nullptr;
}

const StageInfo& Registry::at(std::string_view name, const std::string& where) const {
  if (auto* r = find(name)) return *r;
  throw ConfigError(where, fmt::format("\"{}\"", name),
                    "a known stage (percept stages lists them)" + did_you_mean(name, names()));
}

std::vector<std::string> Registry::names() const {
  std::vector<std::string> all;
  for (auto& r : rows_) all.push_back(r.name);
  return all;
}

}  // namespace percept
