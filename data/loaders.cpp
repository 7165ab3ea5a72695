#include "data/loaders.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <sstream>

#include "core/error.h"
#include "core/files.h"
#include "data/fetch.h"
#include "data/loader.h"
#include "data/registry.h"
#include "data/simulator.h"
#include "io/bids.h"
#include "io/csv.h"
#include "io/npy.h"
#include "io/open.h"
#include "io/session.h"
#include "io/store.h"

namespace percept::data {
namespace fs = std::filesystem;

namespace {

Loader loader_of(const DataSet& set) {
  std::vector<std::string> known;
  for (auto& loaders : {bci_loaders(), fmri_loaders(), image_loaders()})
    for (auto& l : loaders) {
      if (l.name == set.loader) return l;
      known.push_back(l.name);
    }
  throw ConfigError(set.name + ".loader", set.loader,
                    fmt::format("one of {}{}", fmt::join(known, ", "), did_you_mean(set.loader, known)));
}

// --- [input] --------------------------------------------------------------------------------------------------------

std::string place(const std::string& where, const Value& v) {
  return v.line > 0 ? fmt::format("{} (line {})", where, v.line) : where;
}

const std::string& needed_text(const Value& table, const char* key, const std::string& where) {
  const Value* v = table.find(key);
  if (!v || !v->is_string() || v->as_string().empty())
    throw ConfigError(place(where + "." + key, v ? *v : table), v ? to_json(*v) : "", "a text");
  return v->as_string();
}

/// The tables of [[input.KEY]]; a single [input.KEY] is a list of one.
std::vector<Value> entries(const Value& input, const char* key, const std::string& where) {
  const Value* v = input.find(key);
  if (!v) return {};
  if (v->is_table()) return {*v};
  if (v->is_array() && std::all_of(v->as_array().begin(), v->as_array().end(), [](auto& t) { return t.is_table(); }))
    return v->as_array();
  throw ConfigError(place(where + "." + key, *v), to_json(*v), fmt::format("one or more [[{}.{}]]", where, key));
}

/// The path of an entry's file; its digest is written down under the name that was given.
fs::path input_file(const Value& entry, const fs::path& base, const std::string& where, Recording& r) {
  const std::string& name = needed_text(entry, "file", where);
  fs::path path = base / name;
  r.meta["input"][name] = sha256_file(path);
  return path;
}

/// The options of an input with the paths of other files in them taken from `base`.
Value with_paths(Value options, const fs::path& base) {
  for (const char* key : {"mask", "atlas", "labels", "sidecar", "surface"})
    if (Value* v = options.find(key); v && v->is_string() && !v->as_string().empty())
      v->operator=((base / v->as_string()).string());
  return options;
}

void add_stream(const Value& entry, const fs::path& base, const std::string& where, Recording& r) {
  const std::string& name = needed_text(entry, "name", where);
  if (r.find(name)) throw ConfigError(place(where + ".name", entry.at("name")), name, "a name that is not taken");
  const fs::path path = input_file(entry, base, where, r);
  Value options = with_paths(entry, base);
  options.erase("file");
  Recording part = io::open_part(path, options, where);
  Stream& s = part.streams[0];
  s.name = name;
  for (auto& other : r.streams)
    if (other.format.axis == s.format.axis && other.format.rate_hz == s.format.rate_hz &&
        other.format.start_s == s.format.start_s && other.frames() != s.frames())
      throw DataError(path.string(), "frames", fmt::format("{}, as stream '{}' has", other.frames(), other.name),
                      fmt::format("{}", s.frames()));
  r.streams.push_back(std::move(s));
  for (auto& t : part.tables) {
    if (r.table(t.name)) t.name = name + "." + t.name;
    r.tables.push_back(std::move(t));
  }
  for (const char* key : {"fmri", "input"})
    if (const Value* more = part.meta.find(key))
      for (auto& [k, v] : more->as_table()) r.meta[key][k] = v;
}

Table read_table(const Value& entry, const fs::path& path, const std::string& where) {
  io::CsvOptions options;
  options.header = true;
  options.delimiter = path.extension() == ".tsv" ? '\t' : ',';
  if (const Value* v = entry.find("header")) {
    if (!v->is_bool()) throw ConfigError(place(where + ".header", *v), to_json(*v), "true or false");
    options.header = v->as_bool();
  }
  if (const Value* v = entry.find("delimiter")) {
    if (!v->is_string() || v->as_string().size() != 1)
      throw ConfigError(place(where + ".delimiter", *v), to_json(*v), "one character");
    options.delimiter = v->as_string()[0];
  }
  return io::read_csv_table(path, options);
}

void add_table(const Value& entry, const fs::path& base, const std::string& where, Recording& r) {
  refuse_unknown_keys(entry, {"name", "file", "header", "delimiter"}, where);
  const std::string& name = needed_text(entry, "name", where);
  if (r.table(name)) throw ConfigError(place(where + ".name", entry.at("name")), name, "a name that is not taken");
  Table t = read_table(entry, input_file(entry, base, where, r), where);
  t.name = name;
  r.tables.push_back(std::move(t));
}

void add_events(const Value& entry, const fs::path& base, const std::string& where, Recording& r) {
  refuse_unknown_keys(entry, {"file"}, where);
  const fs::path path = input_file(entry, base, where, r);
  const Table t = read_table(entry, path, where);
  for (auto& e : io::events_of_table(t, path.string())) r.events.push_back(e);
}

/// The keys of [input] that belong to what is opened; refuses anything but one of the five ways.
Value input_options(const Value& input, const std::string& where) {
  const std::vector<std::string> kinds{"data", "simulate", "file", "bids", "stream"};
  const auto given = std::count_if(kinds.begin(), kinds.end(), [&](auto& k) { return input.contains(k); });
  if (given != 1) {
    if (given == 0)
      refuse_unknown_keys(input, {"data", "simulate", "file", "bids", "stream", "table", "events"}, where);
    throw ConfigError(
        place(where, input), "",
        fmt::format("{} of data = \"NAME\", simulate = \"NAME\", file = \"PATH\", bids = \"FOLDER\" and [[{}.stream]]",
                    given == 0 ? "one" : "only one", where));
  }
  Value options = input;
  for (auto key : {"data", "simulate", "file", "bids", "stream", "table", "events"}) options.erase(key);
  return options;
}
}  // namespace

void sort_events(std::vector<Event>& events) {
  std::stable_sort(events.begin(), events.end(), [](auto& a, auto& b) { return a.onset_s < b.onset_s; });
  for (std::size_t i = 0; i < events.size(); ++i) events[i].id = static_cast<std::int64_t>(i);
}

// --- data/loader.h --------------------------------------------------------------------------------------------------

fs::path Files::operator()(const std::string& name) const {
  fs::path path = fetch(set, name, progress);
  meta["input"][set.name + "/" + name] = set.file(name).sha256;
  return path;
}

Eigen::MatrixXd Files::csv(const char* name, Index columns, bool header) const {
  const fs::path path = (*this)(name);
  Eigen::MatrixXd m = io::read_csv(path, {.header = header}).values;
  if (m.rows() != columns)
    throw DataError(path.string(), "columns", fmt::format("{}", columns), fmt::format("{}", m.rows()));
  return m;
}

Eigen::MatrixXd Files::npy(const char* name, Index rows, Index frames) const {
  const fs::path path = (*this)(name);
  Eigen::MatrixXd m = io::read_npy(path);
  if ((rows >= 0 && m.rows() != rows) || (frames >= 0 && m.cols() != frames))
    throw DataError(path.string(), "shape", fmt::format("{} frames of {}", frames, rows),
                    fmt::format("{} frames of {}", m.cols(), m.rows()));
  return m;
}

std::vector<std::string> Files::lines(const char* name) const {
  std::vector<std::string> all;
  std::istringstream text(read_file((*this)(name)));
  for (std::string line; std::getline(text, line);)
    if (!line.empty()) all.push_back(line);
  return all;
}

void Files::same_lines(const char* a, const Eigen::MatrixXd& x, const char* b, const Eigen::MatrixXd& y) const {
  if (x.cols() != y.cols())
    throw DataError(set.name + "/" + b, "rows", fmt::format("{}, as {} has", x.cols(), a), fmt::format("{}", y.cols()));
}

std::vector<std::string> numbered(const std::string& word, Index n) {
  std::vector<std::string> names;
  for (Index i = 0; i < n; ++i) names.push_back(fmt::format("{}_{}", word, i));
  return names;
}

Column numbers(std::string name, std::vector<double> values) { return {std::move(name), std::move(values), {}}; }
Column texts(std::string name, std::vector<std::string> values) { return {std::move(name), {}, std::move(values)}; }

Event event(double onset_s, double duration_s, const std::string& label, double value) {
  Event e;
  e.onset_s = onset_s;
  e.duration_s = duration_s;
  e.label = Label::of(label);
  e.value = value;
  return e;
}

Stream items(const std::string& name, std::vector<Index> shape, std::shared_ptr<const SampleSource> samples,
             Scalar scalar) {
  Stream s;
  s.name = name;
  s.format = item_format(std::move(shape), scalar, name);
  s.samples = std::move(samples);
  s.keys.resize(static_cast<std::size_t>(s.frames()));
  std::iota(s.keys.begin(), s.keys.end(), std::int64_t{0});
  return s;
}

Stream categories(const std::string& name, const std::vector<double>& level, std::vector<std::string> levels) {
  Eigen::MatrixXd m = Eigen::Map<const Eigen::RowVectorXd>(level.data(), static_cast<Index>(level.size()));
  Stream s = items(name, {1}, std::make_shared<MemorySource>(std::move(m)));
  Part& part = s.format.parts[0];
  part.rows = {{.name = name, .kind = "category", .unit = "", .position = {}, .good = true}};
  part.levels = std::move(levels);
  return s;
}

Recording load_data_set(const std::string& name, const Value& options, const ProgressFn& progress,
                        const std::string& where) {
  const DataSet set = data_set(name);
  Recording r;
  r.name = set.name;
  r.meta["title"] = set.title;
  r.meta["licence"] = set.licence;
  r.meta["citation"] = set.citation;
  r.meta["warnings"] = Value(set.warnings);
  r.meta["notes"] = Value(set.notes);
  loader_of(set).load({set, progress, r.meta}, options, where, r);
  sort_events(r.events);
  return r;
}

std::vector<ParamInfo> data_set_options(const std::string& name) { return loader_of(data_set(name)).params; }

Recording load_input(const Value& input, const fs::path& base, const ProgressFn& progress, const std::string& where) {
  const Value options = input_options(input, where);
  Recording r;
  if (input.contains("data")) {
    r = load_data_set(needed_text(input, "data", where), options, progress, where);
  } else if (input.contains("simulate")) {
    r = simulate(needed_text(input, "simulate", where), options, where);
  } else if (input.contains("file")) {
    r = io::open_recording(base / needed_text(input, "file", where), with_paths(options, base), where);
  } else if (input.contains("bids")) {
    r = io::open_bids(base / needed_text(input, "bids", where), with_paths(options, base), where);
  } else {
    refuse_unknown_keys(options, {"name"}, where);
    r.name = options.contains("name") ? needed_text(options, "name", where) : "recording";
    for (auto& e : entries(input, "stream", where)) add_stream(e, base, where + ".stream", r);
    if (r.streams.empty()) throw ConfigError(place(where, input), "", fmt::format("at least one [[{}.stream]]", where));
  }
  for (auto& e : entries(input, "table", where)) add_table(e, base, where + ".table", r);
  for (auto& e : entries(input, "events", where)) add_events(e, base, where + ".events", r);
  sort_events(r.events);
  return r;
}

Recording outline_input(const Value& input, const fs::path& base, const std::string& where) {
  const Value options = input_options(input, where);
  Recording r;
  if (input.contains("data")) {
    const DataSet set = data_set(needed_text(input, "data", where));
    for (auto& file : set.files)
      if (!locate(set, file.name)) {
        r.name = set.name;
        return r;
      }
    return load_input(input, base, {}, where);
  }
  if (input.contains("simulate")) return load_input(input, base, {}, where);  // generated when it is read
  if (input.contains("bids")) return load_input(input, base, {}, where);      // heads, masks and small tables
  if (input.contains("file")) {
    const fs::path path = base / needed_text(input, "file", where);
    if (path.extension() == ".percept") return io::open_store(path);
    if (path.extension() == ".session") return io::open_session(path);
    r.streams.push_back(io::outline_stream(path, with_paths(options, base), where));
    r.name = r.streams[0].name;
    return r;
  }
  for (Value e : entries(input, "stream", where)) {
    const std::string at = where + ".stream", name = needed_text(e, "name", at);
    if (r.find(name)) throw ConfigError(place(at + ".name", e.at("name")), name, "a name that is not taken");
    const fs::path path = base / needed_text(e, "file", at);
    e.erase("file");
    r.streams.push_back(io::outline_stream(path, with_paths(e, base), at));
    r.streams.back().name = name;
  }
  if (r.streams.empty()) throw ConfigError(place(where, input), "", fmt::format("at least one [[{}.stream]]", where));
  return r;
}

}  // namespace percept::data
