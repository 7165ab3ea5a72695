#include "data/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "core/error.h"
#include "core/params.h"

namespace percept::data {

extern const char* const kRegistryText;  // data/registry.toml, put into the library by data/embed.cmake

namespace {
std::string line_of(const std::string& where, const Value& v) {
  return v.line > 0 ? fmt::format("{}:{}", where, v.line) : where;
}

std::string text(const Value& table, const char* key, const std::string& where, bool needed = true) {
  const Value* v = table.find(key);
  if (!v && !needed) return "";
  if (!v || !v->is_string() || (needed && v->as_string().empty()))
    throw ConfigError(fmt::format("{}: {}", line_of(where, v ? *v : table), key), v ? to_json(*v) : "", "a text");
  return v->as_string();
}

std::vector<std::string> texts(const Value& table, const char* key, const std::string& where) {
  std::vector<std::string> all;
  const Value* v = table.find(key);
  if (!v) return all;
  if (!v->is_array()) throw ConfigError(fmt::format("{}: {}", line_of(where, *v), key), to_json(*v), "a list of texts");
  for (auto& item : v->as_array()) {
    if (!item.is_string()) throw ConfigError(fmt::format("{}: {}", line_of(where, *v), key), to_json(item), "a text");
    all.push_back(item.as_string());
  }
  return all;
}

/// A relative path that stays below the folder it is joined to.
std::string inner_path(const Value& table, const char* key, const std::string& where, bool one_word) {
  std::string s = text(table, key, where);
  const std::filesystem::path p(s);
  bool good = p.is_relative() && p.has_filename() && (!one_word || p == p.filename());
  for (auto& step : p) good = good && step != ".." && step != ".";
  if (!good)
    throw ConfigError(fmt::format("{}: {}", line_of(where, table.at(key)), key), s,
                      one_word ? "a name without folders" : "a relative path without '..'");
  return s;
}

const std::vector<Value>& tables(const Value& parent, const char* key, const std::string& where) {
  const Value* v = parent.find(key);
  const bool good = v && v->is_array() && !v->as_array().empty() &&
                    std::all_of(v->as_array().begin(), v->as_array().end(), [](auto& t) { return t.is_table(); });
  if (!good) throw ConfigError(line_of(where, parent), "", fmt::format("at least one [[{}]]", key));
  return v->as_array();
}

DataFile read_data_file(const Value& t, const std::string& where) {
  refuse_unknown_keys(t, {"name", "mirror", "url", "installed", "sha256", "bytes"}, where);
  DataFile f;
  f.name = inner_path(t, "name", where, true);
  f.mirror = inner_path(t, "mirror", where, false);
  f.url = text(t, "url", where, false);
  f.installed = text(t, "installed", where, false);
  if (!f.installed.empty() && !std::filesystem::path(f.installed).is_absolute())
    throw ConfigError(line_of(where, t.at("installed")) + ": installed", f.installed, "an absolute path");
  f.sha256 = text(t, "sha256", where);
  if (f.sha256.size() != 64 || f.sha256.find_first_not_of("0123456789abcdef") != std::string::npos)
    throw ConfigError(line_of(where, t.at("sha256")) + ": sha256", f.sha256, "64 lower-case hexadecimal digits");
  const Value* bytes = t.find("bytes");
  if (!bytes || !bytes->is_integer() || bytes->as_integer() <= 0)
    throw ConfigError(line_of(where, t) + ": bytes", bytes ? to_json(*bytes) : "", "the size of the file");
  f.bytes = static_cast<std::uint64_t>(bytes->as_integer());
  return f;
}

DataSet read_data_set(const Value& t, const std::string& where) {
  refuse_unknown_keys(t,
                      {"name", "title", "description", "licence", "citation", "source", "conversion", "package",
                       "loader", "warnings", "notes", "file"},
                      where);
  DataSet s;
  s.name = inner_path(t, "name", where, true);
  s.title = text(t, "title", where);
  s.description = text(t, "description", where);
  s.licence = text(t, "licence", where);
  s.citation = text(t, "citation", where);
  s.source = text(t, "source", where);
  s.conversion = text(t, "conversion", where, false);
  s.package = text(t, "package", where, false);
  s.loader = text(t, "loader", where);
  s.warnings = texts(t, "warnings", where);
  s.notes = texts(t, "notes", where);
  for (auto& f : tables(t, "file", where)) {
    s.files.push_back(read_data_file(f, where + ": " + s.name));
    const DataFile& file = s.files.back();
    if (file.installed.empty() != s.package.empty())
      throw ConfigError(fmt::format("{}: {}.{}", line_of(where, f), s.name, file.name), file.installed,
                        "the package of the set and the place of each of its files, or neither");
    if (file.url.empty() && s.conversion.empty() && s.package.empty())
      throw ConfigError(fmt::format("{}: {}.{}", line_of(where, f), s.name, file.name), "",
                        "a url, or a conversion that says why there is none");
  }
  return s;
}
}  // namespace

const DataFile& DataSet::file(std::string_view file_name) const {
  std::vector<std::string> known;
  for (auto& f : files) {
    if (f.name == file_name) return f;
    known.push_back(f.name);
  }
  throw ConfigError(name, std::string(file_name),
                    fmt::format("one of its files {}{}", fmt::join(known, ", "), did_you_mean(file_name, known)));
}

std::vector<DataSet> data_sets() {
  const char* other = std::getenv("PERCEPT_DATA_REGISTRY");
  const bool built_in = !other || !*other;
  const std::string where = built_in ? "data/registry.toml" : other;
  const Value root = built_in ? parse_toml(kRegistryText, where) : read_toml(where);
  refuse_unknown_keys(root, {"set"}, where);
  std::vector<DataSet> sets;
  for (auto& t : tables(root, "set", where)) {
    sets.push_back(read_data_set(t, where));
    const auto same = [&](const DataSet& s) { return s.name == sets.back().name; };
    if (std::count_if(sets.begin(), sets.end(), same) > 1)
      throw ConfigError(line_of(where, t) + ": name", sets.back().name, "a name that is not taken");
  }
  return sets;
}

DataSet data_set(std::string_view name) {
  std::vector<std::string> known;
  for (auto& s : data_sets()) {
    if (s.name == name) return s;
    known.push_back(s.name);
  }
  throw ConfigError("data set", std::string(name),
                    fmt::format("one of {}{}", fmt::join(known, ", "), did_you_mean(name, known)));
}

Value describe(const DataSet& set) {
  Value v = Value::object({{"name", set.name},
                           {"title", set.title},
                           {"description", set.description},
                           {"licence", set.licence},
                           {"citation", set.citation},
                           {"source", set.source}});
  if (!set.conversion.empty()) v["conversion"] = set.conversion;
  if (!set.package.empty()) v["package"] = set.package;
  if (!set.warnings.empty()) v["warnings"] = Value(set.warnings);
  if (!set.notes.empty()) v["notes"] = Value(set.notes);
  Value files = Value::array();
  for (auto& f : set.files) {
    files.push_back(Value::object({{"name", f.name}, {"mirror", f.mirror}, {"sha256", f.sha256}, {"bytes", f.bytes}}));
    if (!f.url.empty()) files.as_array().back()["url"] = f.url;
    if (!f.installed.empty()) files.as_array().back()["installed"] = f.installed;
  }
  v["files"] = std::move(files);
  return v;
}

}  // namespace percept::data
