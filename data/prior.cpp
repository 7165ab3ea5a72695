#include "data/prior.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "data/fetch.h"
#include "data/loaders.h"
#include "data/registry.h"
#include "io/open.h"

namespace percept::data {
namespace fs = std::filesystem;

namespace {

bool is_file(const std::string& name) { return name.find('/') != std::string::npos || io::can_open(name); }

/// SET and STREAM.
std::pair<std::string, std::string> set_and_stream(const PriorSpec& prior, const std::string& name) {
  const auto dot = name.find('.');
  if (dot == std::string::npos || dot == 0 || dot + 1 == name.size())
    throw ConfigError(prior.where + ".images", "\"" + name + "\"", "SET.STREAM of a registered set, or a file");
  return {name.substr(0, dot), name.substr(dot + 1)};
}

/// Sets and files that several priors use are read once.
class Sources {
 public:
  Sources(fs::path base, const ProgressFn& progress) : base_(std::move(base)), progress_(progress) {}

  const Recording& set(const std::string& name, const std::string& where) {
    auto& r = read_["set " + name];
    if (!r) r = load_data_set(name, Value::table(), progress_, where);
    return *r;
  }
  const Recording& file(const std::string& name, const std::string& where) {
    auto& r = read_[name];
    if (!r) {
      r = io::open_recording(base_ / name, Value::table(), where);
      Value digests = Value::table();
      for (auto& [file, digest] : r->meta.at("input").as_table()) digests[name] = digest;
      r->meta["input"] = digests;
    }
    return *r;
  }

 private:
  fs::path base_;
  const ProgressFn& progress_;
  std::map<std::string, std::optional<Recording>> read_;
};

/// The labels of a stream's items; nullptr where there are none.
const Column* find_labels(const PriorSpec& prior, const Recording& r, const Stream& s) {
  const std::int64_t last = s.keys.empty() ? -1 : s.keys.back();
  std::vector<std::string> names;
  const Column *found = nullptr, *of_items = nullptr;
  for (auto& table : r.tables)
    for (auto& column : table.columns) {
      const std::string full = table.name + "." + column.name;
      if (prior.label != column.name && prior.label != full) continue;
      if (static_cast<std::int64_t>(column.size()) <= last) continue;
      if (table.name == s.name) return &column;
      if (table.name == "item") of_items = &column;
      found = &column;
      names.push_back(full);
    }
  if (of_items) return of_items;
  if (names.size() > 1)
    throw ConfigError(prior.where + ".label", "\"" + prior.label + "\"",
                      fmt::format("one of {} (\"table.column\")", fmt::join(names, ", ")));
  return found;
}

Value cell(const Column& column, std::int64_t row) {
  const auto at = static_cast<std::size_t>(row);
  return column.is_text() ? Value(column.text[at]) : Value(column.numbers[at]);
}

bool same_label(const Value& a, const Value& b) {
  return a.is_number() && b.is_number() ? a.as_number() == b.as_number() : a == b;
}

/// One entry of `images`: the chosen items.
void append(const PriorSpec& prior, const std::string& name, const Recording& r, const Stream& s, Recording& all,
            Eigen::MatrixXd& pixels, std::optional<Column>& labels) {
  const std::string where = prior.where + ".images";
  if (s.format.axis != Axis::item)
    throw ConfigError(where, "\"" + name + "\"", "a stream of images (items), found " + s.format.describe());
  const Column* column = find_labels(prior, r, s);
  if (!column && !prior.labels.empty())
    throw ConfigError(prior.where + ".label", "\"" + prior.label + "\"",
                      fmt::format("a column of a table with a row for every image of {}", name));
  std::vector<std::int64_t> positions;
  for (std::int64_t p = 0; p < s.frames(); ++p) {
    const auto row = s.keys[static_cast<std::size_t>(p)];
    if (prior.labels.empty() || std::any_of(prior.labels.begin(), prior.labels.end(),
                                            [&](auto& l) { return same_label(l, cell(*column, row)); }))
      positions.push_back(p);
  }
  if (positions.empty())
    throw DataError(where, name, "at least one image" + std::string(prior.labels.empty() ? "" : " with such a label"),
                    "none");
  const Stream chosen = select(s, positions);
  const auto sources = all.meta.at("sources").size();
  if (sources == 0) {
    all.streams.push_back(s);
    all.streams[0].name = "images";
  } else if (s.format.parts.size() != 1 || s.format.parts[0].shape != all.streams[0].format.parts[0].shape) {
    throw ConfigError(where, "\"" + name + "\"",
                      fmt::format("images of {}, found {}", all.streams[0].format.describe(), s.format.describe()));
  }
  const Index had = pixels.cols();
  pixels.conservativeResize(s.format.size(), had + chosen.frames());
  pixels.rightCols(chosen.frames()) = chosen.matrix();
  all.meta["sources"].push_back(Value::object({{"name", name}, {"images", chosen.frames()}}));
  for (auto& [file, digest] : r.meta.at("input").as_table()) all.meta["input"][file] = digest;
  for (auto& w : r.warnings())
    if (const auto known = all.warnings(); std::find(known.begin(), known.end(), w) == known.end())
      all.meta["warnings"].push_back(w);

  if (sources == 0 && column) labels = Column{.name = "label", .numbers = {}, .text = {}};
  if (!column) labels.reset();  // as good as none when some images have none
  if (!labels) return;
  if (sources > 0 && labels->is_text() != column->is_text())
    throw ConfigError(prior.where + ".label", "\"" + prior.label + "\"",
                      fmt::format("labels of one kind, found numbers and texts in {}", fmt::join(prior.images, ", ")));
  for (auto row : chosen.keys) {
    if (column->is_text()) labels->text.push_back(column->text[static_cast<std::size_t>(row)]);
    else labels->numbers.push_back(column->numbers[static_cast<std::size_t>(row)]);
  }
}

Recording empty_recording(const PriorSpec& prior) {
  Recording r;
  r.name = prior.name;
  r.meta["sources"] = Value::array();
  r.meta["input"] = Value::table();
  r.meta["warnings"] = Value::array();
  return r;
}

Recording load_prior(const PriorSpec& prior, Sources& sources) {
  const std::string where = prior.where + ".images";
  Recording all = empty_recording(prior);
  Eigen::MatrixXd pixels;
  std::optional<Column> labels;
  for (auto& name : prior.images) {
    if (is_file(name)) {
      const auto& r = sources.file(name, where);
      if (r.streams.size() != 1)
        throw ConfigError(where, "\"" + name + "\"", fmt::format("a file with one stream, found {}", r.streams.size()));
      append(prior, name, r, r.streams[0], all, pixels, labels);
    } else {
      const auto [set, stream] = set_and_stream(prior, name);
      const auto& r = sources.set(set, where);
      append(prior, name, r, r.stream(stream, where), all, pixels, labels);
    }
  }
  Stream& s = all.streams.at(0);
  s.format.scalar = Scalar::f64;
  s.keys.resize(static_cast<std::size_t>(pixels.cols()));
  std::iota(s.keys.begin(), s.keys.end(), std::int64_t{0});
  s.samples = std::make_shared<MemorySource>(std::move(pixels));
  if (labels) all.tables.push_back({"images", {*std::move(labels)}});
  return all;
}

}  // namespace

std::vector<Recording> load_priors(const std::vector<PriorSpec>& priors, const fs::path& base,
                                   const ProgressFn& progress) {
  Sources sources(base, progress);
  std::vector<Recording> all;
  for (auto& prior : priors) all.push_back(load_prior(prior, sources));
  return all;
}

std::vector<Recording> outline_priors(const std::vector<PriorSpec>& priors, const fs::path& base) {
  const ProgressFn silent;
  Sources sources(base, silent);
  std::vector<Recording> all;
  for (auto& prior : priors) {
    bool here = true;
    Recording outline = empty_recording(prior);
    for (auto& name : prior.images) {
      outline.meta["sources"].push_back(Value::object({{"name", name}, {"images", "?"}}));
      if (is_file(name)) {
        io::outline_stream(base / name, Value::table(), prior.where + ".images");
        here = false;
        continue;
      }
      const DataSet set = data_set(set_and_stream(prior, name).first);
      for (auto& file : set.files) here = here && locate(set, file.name);
    }
    all.push_back(here ? load_prior(prior, sources) : std::move(outline));
  }
  return all;
}

}  // namespace percept::data
