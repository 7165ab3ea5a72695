#include "io/bids.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "core/params.h"
#include "io/csv.h"
#include "io/fmri.h"
#include "io/nifti.h"

namespace percept::io {
namespace fs = std::filesystem;

namespace {
constexpr const char* kDescription = "dataset_description.json";
constexpr std::size_t kMostFiles = 1000000;

bool alphanumeric(std::string_view s) {
  return !s.empty() && std::all_of(s.begin(), s.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '+';
  });
}

/// Every entity of `part` is one of `whole`, with the same value.
bool applies(const BidsFile& part, const BidsFile& whole) {
  return std::all_of(part.entities.begin(), part.entities.end(),
                     [&](auto& e) { return whole.entity(e.first) == e.second; });
}

bool same_recording(const BidsFile& a, const BidsFile& b) {
  for (const char* key : {"sub", "ses", "task", "acq", "run"})
    if (a.entity(key) != b.entity(key)) return false;
  return true;
}

bool is_image_extension(const std::string& e) {
  return e == ".nii" || e == ".nii.gz" || e == ".dtseries.nii" || e == ".ptseries.nii";
}

std::vector<fs::path> folders_above(const fs::path& file, const std::string& pipeline) {
  const fs::path first = pipeline.empty() ? fs::path() : fs::path("derivatives") / pipeline;
  std::vector<fs::path> folders{first};
  fs::path at = first;
  for (auto& step : file.parent_path().lexically_relative(first.empty() ? "." : first)) {
    if (step == ".") continue;
    at /= step;
    folders.push_back(at);
  }
  return folders;
}

}  // namespace

std::string BidsFile::entity(std::string_view key) const {
  for (auto& [k, v] : entities)
    if (k == key) return v;
  return "";
}

std::optional<BidsFile> parse_bids_name(const fs::path& path) {
  BidsFile f;
  f.path = path;
  std::string name = path.filename().string();
  const auto dot = name.find('.');
  if (dot == name.npos || dot == 0) return std::nullopt;
  f.extension = name.substr(dot);
  name.resize(dot);
  for (std::string_view rest = name;;) {
    const auto end = rest.find('_');
    const std::string_view piece = rest.substr(0, end);
    if (end == rest.npos) {
      if (!alphanumeric(piece)) return std::nullopt;
      f.suffix = piece;
      break;
    }
    const auto dash = piece.find('-');
    if (dash == piece.npos || !alphanumeric(piece.substr(0, dash)) || !alphanumeric(piece.substr(dash + 1)))
      return std::nullopt;
    if (!f.entity(piece.substr(0, dash)).empty()) return std::nullopt;
    f.entities.emplace_back(piece.substr(0, dash), piece.substr(dash + 1));
    rest.remove_prefix(end + 1);
  }
  auto step = path.begin();
  if (step != path.end() && *step == "derivatives" && ++step != path.end() && step->has_filename() &&
      std::next(step) != path.end())
    f.pipeline = step->string();
  return f;
}

BidsFolder::BidsFolder(fs::path root) : root_(std::move(root)) {
  if (!fs::is_directory(root_))
    throw DataError(root_.string(), "", "a folder", fs::exists(root_) ? "a file" : "nothing there");
  const fs::path description = root_ / kDescription;
  if (!fs::exists(description))
    throw DataError(root_.string(), kDescription, "this file, which every BIDS data set has", "none");
  description_ = read_json(description);
  for (const char* key : {"Name", "BIDSVersion"})
    if (const Value* v = description_.find(key); !v || !v->is_string())
      throw DataError(description.string(), key, "a text", v ? v->type_name() : "none");
  if (const Value* v = description_.find("DatasetType")) derivative_ = v->is_string() && v->as_string() == "derivative";
  std::error_code error;
  std::size_t seen = 0;
  fs::recursive_directory_iterator at(root_, fs::directory_options::skip_permission_denied, error);
  for (; at != fs::recursive_directory_iterator(); at.increment(error)) {
    if (error) throw DataError(root_.string(), "", "a folder that can be listed", error.message());
    const std::string name = at->path().filename().string();
    if (++seen > kMostFiles) throw DataError(root_.string(), "files", fmt::format("at most {}", kMostFiles), "more");
    std::error_code ignored;
    if (at->is_directory(ignored)) {
      // sources, code and hidden folders are not part of the layout; a .ds or .zarr folder is one recording
      if (name.starts_with('.') || (at.depth() == 0 && (name == "sourcedata" || name == "code" || name == "stimuli")))
        at.disable_recursion_pending();
      continue;
    }
    if (auto file = parse_bids_name(at->path().lexically_relative(root_))) files_.push_back(std::move(*file));
  }
  std::sort(files_.begin(), files_.end(), [](auto& a, auto& b) { return a.path < b.path; });
  for (std::size_t i = 0; i < files_.size(); ++i) by_folder_.emplace(files_[i].path.parent_path().string(), i);
}

std::optional<BidsFile> BidsFolder::applying(const BidsFile& file, const fs::path& folder, std::string_view suffix,
                                             std::string_view extension) const {
  std::optional<BidsFile> found;
  const auto [first, last] = by_folder_.equal_range(folder.string());
  for (auto it = first; it != last; ++it) {
    const BidsFile& f = files_[it->second];
    if (f.suffix != suffix || f.extension != extension || !applies(f, file)) continue;
    if (found)
      throw DataError((root_ / file.path).string(), fmt::format("{}{} of it", suffix, extension),
                      fmt::format("at most one in {}", (root_ / folder).string()),
                      fmt::format("{} and {}", found->path.filename().string(), f.path.filename().string()));
    found = f;
  }
  return found;
}

BidsSidecar BidsFolder::sidecar(const BidsFile& file) const {
  BidsSidecar s;
  for (auto& folder : folders_above(file.path, file.pipeline))
    if (const auto json = applying(file, folder, file.suffix, ".json")) {
      const fs::path path = root_ / json->path;
      const Value values = read_json(path);
      if (!values.is_table()) throw DataError(path.string(), "", "a JSON object", values.type_name());
      for (auto& [key, value] : values.as_table()) s.values[key] = value;
      s.files.push_back(path);
    }
  return s;
}

std::optional<BidsFile> BidsFolder::companion(const BidsFile& file, std::string_view suffix,
                                              std::string_view extension) const {
  // what was measured beside an image lies with the raw one
  BidsFile raw = file;
  if (!file.pipeline.empty()) {
    raw.path = file.path.lexically_relative(fs::path("derivatives") / file.pipeline);
    raw.pipeline.clear();
  }
  std::optional<BidsFile> found;
  for (auto& folder : folders_above(raw.path, ""))
    if (auto f = applying(raw, folder, suffix, extension)) found = std::move(f);
  return found;
}

std::optional<BidsFile> BidsFolder::beside(const BidsFile& file, std::string_view desc, std::string_view suffix,
                                           std::string_view extension) const {
  const std::string space = is_image_extension(std::string(extension)) ? file.entity("space") : "";
  for (auto& f : files_)
    if (f.pipeline == file.pipeline && f.suffix == suffix && f.extension == extension && f.entity("desc") == desc &&
        f.entity("space") == space && same_recording(f, file))
      return f;
  return std::nullopt;
}

std::optional<Table> BidsFolder::participants() const {
  const fs::path file = root_ / "participants.tsv";
  if (!fs::exists(file)) return std::nullopt;
  Table t = read_csv_table(file, {.header = true, .delimiter = '\t'});
  t.name = "participants";
  const Column* id = t.find("participant_id");
  if (!id || !id->is_text()) throw DataError(file.string(), "columns", "participant_id (sub-01, ...)", "none");
  std::set<std::string> seen;
  for (auto& name : id->text)
    if (!seen.insert(name).second) throw DataError(file.string(), "participant_id", "each once", name + " twice");
  return t;
}

std::vector<Event> events_of_table(const Table& t, const std::string& file) {
  const Column *onset = t.find("onset"), *duration = t.find("duration"), *type = t.find("trial_type"),
               *value = t.find("value");
  if (!onset) throw DataError(file, "columns", "a column 'onset'", "none");
  for (const Column* c : {onset, duration})
    if (c && c->is_text()) throw DataError(file, c->name, "numbers (seconds)", "text");
  std::vector<Event> events;
  for (std::size_t k = 0; k < onset->size(); ++k) {
    if (!std::isfinite(onset->numbers[k]))
      throw DataError(file, fmt::format("onset of row {}", k + 1), "a finite number",
                      fmt::format("{}", onset->numbers[k]));
    Event e;
    e.onset_s = onset->numbers[k];
    e.duration_s = duration && std::isfinite(duration->numbers[k]) ? duration->numbers[k] : 0;
    if (type && type->is_text()) e.label = Label::of(type->text[k]);
    if (type && !type->is_text() && std::isfinite(type->numbers[k]))
      e.label = Label::of(fmt::format("{}", type->numbers[k]));
    e.value = !value ? 0 : value->is_text() ? std::numeric_limits<double>::quiet_NaN() : value->numbers[k];
    events.push_back(e);
  }
  return events;
}

// --- [input] --------------------------------------------------------------------------------------------------------

namespace {

struct BidsParams {
  std::string subject, session, task, run, space, desc, suffix = "bold", derivatives, mask, atlas, labels,
                                                        name = "fmri";
  std::vector<std::string> entities, regions;
  double tr_s = 0;
  bool items = false, allow_missing = false;
  static constexpr auto fields() {
    return std::tuple{field("subject", &BidsParams::subject, "", "Entity sub."),
                      field("session", &BidsParams::session, "", "Entity ses."),
                      field("task", &BidsParams::task, "", "Entity task."),
                      field("run", &BidsParams::run, "", "Entity run."),
                      field("space", &BidsParams::space, "", "Entity space."),
                      field("desc", &BidsParams::desc, "", "Entity desc."),
                      field("entities", &BidsParams::entities, "", "Other entities, as acq-highres."),
                      field("suffix", &BidsParams::suffix, "", "Kind of image."),
                      field("derivatives", &BidsParams::derivatives, "", "Pipeline whose images are taken."),
                      field("mask", &BidsParams::mask, "", "Image whose voxels other than 0 are kept."),
                      field("atlas", &BidsParams::atlas, "", "Image of region numbers."),
                      field("labels", &BidsParams::labels, "", "Table of the atlas's region names."),
                      field("regions", &BidsParams::regions, "", "Regions of the atlas that are kept."),
                      field("tr_s", &BidsParams::tr_s, "s", "Repetition time, above header and sidecar.", 0, 100),
                      field("items", &BidsParams::items, "", "Volumes are items without a clock."),
                      field("allow_missing", &BidsParams::allow_missing, "", "NaN are missing values."),
                      field("name", &BidsParams::name, "", "Name of the stream.")};
  }
};

/// Keys of [input] and their entities.
std::vector<std::pair<std::string, std::pair<std::string, std::string>>> wanted_entities(const BidsParams& p,
                                                                                         const std::string& where) {
  std::vector<std::pair<std::string, std::pair<std::string, std::string>>> wanted;
  const auto want = [&](const char* key, const char* entity, std::string value) {
    if (value.starts_with(std::string(entity) + "-")) value.erase(0, std::string_view(entity).size() + 1);
    if (!value.empty()) wanted.push_back({key, {entity, value}});
  };
  want("subject", "sub", p.subject);
  want("session", "ses", p.session);
  want("task", "task", p.task);
  want("run", "run", p.run);
  want("space", "space", p.space);
  want("desc", "desc", p.desc);
  for (auto& e : p.entities) {
    const auto dash = e.find('-');
    if (dash == e.npos || dash == 0 || dash + 1 == e.size())
      throw ConfigError(where + ".entities", e, "entities as acq-highres");
    wanted.push_back({"entities", {e.substr(0, dash), e.substr(dash + 1)}});
  }
  return wanted;
}

BidsFile chosen_image(const BidsFolder& folder, const BidsParams& p, const std::string& where) {
  std::vector<BidsFile> images;
  std::set<std::string> pipelines, suffixes;
  for (auto& f : folder.files()) {
    if (!is_image_extension(f.extension)) continue;
    if (!f.pipeline.empty()) pipelines.insert(f.pipeline);
    if (f.pipeline != p.derivatives) continue;
    suffixes.insert(f.suffix);
    if (f.suffix == p.suffix) images.push_back(f);
  }
  const std::string root = folder.root().string();
  const std::vector<std::string> known_pipelines(pipelines.begin(), pipelines.end()),
      known_suffixes(suffixes.begin(), suffixes.end());
  if (!p.derivatives.empty() && !pipelines.contains(p.derivatives))
    throw ConfigError(where + ".derivatives", p.derivatives,
                      known_pipelines.empty() ? "a pipeline: " + root + " has no images under derivatives"
                                              : fmt::format("one of {}{}", fmt::join(known_pipelines, ", "),
                                                            did_you_mean(p.derivatives, known_pipelines)));
  if (images.empty())
    throw ConfigError(where + ".suffix", p.suffix,
                      known_suffixes.empty() ? "images (.nii, .nii.gz) in " + root
                                             : fmt::format("one of {}", fmt::join(known_suffixes, ", ")));
  for (auto& [key, entity] : wanted_entities(p, where)) {
    std::vector<std::string> known;
    std::vector<BidsFile> left;
    for (auto& f : images) {
      const std::string value = f.entity(entity.first);
      if (value == entity.second) left.push_back(f);
      else if (!value.empty() && std::find(known.begin(), known.end(), value) == known.end()) known.push_back(value);
    }
    if (left.empty())
      throw ConfigError(where + "." + key, key == "entities" ? entity.first + "-" + entity.second : entity.second,
                        known.empty()
                            ? fmt::format("no {}: none of the {} images has one", entity.first, images.size())
                            : fmt::format("one of {}{}", fmt::join(known, ", "), did_you_mean(entity.second, known)));
    images = std::move(left);
  }
  if (images.size() == 1) return images[0];
  // which entities would tell them apart
  std::map<std::string, std::set<std::string>> values;
  std::vector<std::string> order;
  for (auto& f : images)
    for (auto& [key, value] : f.entities)
      if (values[key].insert(value).second && std::find(order.begin(), order.end(), key) == order.end())
        order.push_back(key);
  std::vector<std::string> open;
  static const std::map<std::string, std::string> kKeys{{"sub", "subject"}, {"ses", "session"}};
  for (auto& key : order)
    if (values[key].size() > 1) {
      std::vector<std::string> some(values[key].begin(), values[key].end());
      const std::size_t all = some.size();
      some.resize(std::min<std::size_t>(8, all));
      open.push_back(fmt::format("{} ({}{})", kKeys.contains(key) ? kKeys.at(key) : key, fmt::join(some, ", "),
                                 all > 8 ? ", ..." : ""));
    }
  throw ConfigError(where, "",
                    fmt::format("one image, found {}: state {}", images.size(),
                                open.empty() ? "more entities" : fmt::format("{}", fmt::join(open, ", "))));
}

Stream confounds_of(const fs::path& file, const Stream& image) {
  const auto table = read_csv(file, {.header = true, .delimiter = '\t'});
  if (table.values.cols() != image.frames())
    throw DataError(file.string(), "rows", fmt::format("{}, one a volume", image.frames()),
                    fmt::format("{}", table.values.cols()));
  Stream s = memory_stream("confounds", table.values, image.format.rate_hz, image.format.start_s, table.names);
  for (auto& c : s.format.parts[0].rows) c.kind = "confound";
  return s;
}

/// The file of a name, or what git-annex leaves where the content was not fetched.
fs::path content_of(const BidsFolder& folder, const BidsFile& file) {
  fs::path path = folder.root() / file.path;
  if (!fs::exists(path))
    throw DataError(path.string(), "", "a file whose content is here (git annex get?)", "a link to nothing");
  return path;
}

FmriOptions timing_options(const BidsFolder& folder, const BidsFile& image, bool timed) {
  FmriOptions o;
  const BidsSidecar sidecar = folder.sidecar(image);
  o.sidecar = sidecar.values;
  o.sidecar_file = sidecar.files.empty() ? "no sidecar" : sidecar.files.back().string();
  if (timed && !folder.derived(image) && !sidecar.values.contains("RepetitionTime"))
    throw DataError((folder.root() / image.path).string(), "RepetitionTime",
                    "seconds in a JSON file beside or above it (or tr_s)",
                    sidecar.files.empty() ? "no JSON file that applies"
                                          : fmt::format("none in {}", sidecar.files.back().filename().string()));
  return o;
}

}  // namespace

Recording open_bids(const fs::path& root, const Value& options, const std::string& where) {
  const auto p = read_params<BidsParams>(options, where);
  const BidsFolder folder(root);
  const BidsFile image = chosen_image(folder, p, where);
  FmriOptions o = timing_options(folder, image, p.tr_s == 0 && !p.items);
  o.mask = p.mask;
  o.atlas = p.atlas;
  o.labels = p.labels;
  o.regions = p.regions;
  o.tr_s = p.tr_s;
  o.items = p.items;
  o.allow_missing = p.allow_missing;
  Recording r;
  std::vector<fs::path> read{content_of(folder, image)};
  if (p.mask.empty() && p.atlas.empty() && folder.derived(image))
    for (const char* extension : {".nii.gz", ".nii"})
      if (const auto mask = folder.beside(image, "brain", "mask", extension); mask && o.mask.empty())
        o.mask = content_of(folder, *mask);
  FmriSeries series = open_fmri(read[0], o, where);
  series.stream.name = p.name;
  for (auto& [key, value] : image.entities) r.name += (r.name.empty() ? "" : "_") + key + "-" + value;
  for (auto& [key, value] : image.entities) r.meta["entities"][key] = value;
  r.meta["title"] = folder.description().at("Name");
  if (const Value* licence = folder.description().find("License")) r.meta["licence"] = *licence;
  const bool timed = series.stream.format.axis == Axis::time;
  if (const auto events = folder.companion(image, "events", ".tsv"); events && timed) {
    read.push_back(content_of(folder, *events));
    r.events = events_of_table(read_csv_table(read.back(), {.header = true, .delimiter = '\t'}), read.back().string());
    std::stable_sort(r.events.begin(), r.events.end(), [](auto& a, auto& b) { return a.onset_s < b.onset_s; });
    for (std::size_t i = 0; i < r.events.size(); ++i) r.events[i].id = static_cast<std::int64_t>(i);
  }
  r.streams.push_back(std::move(series.stream));
  if (timed && folder.derived(image))
    for (const char* suffix : {"timeseries", "regressors"})
      if (const auto confounds = folder.beside(image, "confounds", suffix, ".tsv");
          confounds && r.streams.size() == 1) {
        read.push_back(content_of(folder, *confounds));
        r.streams.push_back(confounds_of(read.back(), r.streams[0]));
      }
  if (auto participants = folder.participants()) {
    r.tables.push_back(std::move(*participants));
    read.push_back(root / "participants.tsv");
  }
  r.tables.push_back(std::move(series.voxel));
  r.meta["fmri"][p.name] = std::move(series.meta);
  read.insert(read.end(), series.files.begin(), series.files.end());
  const auto sidecar = folder.sidecar(image).files;
  read.insert(read.end(), sidecar.begin(), sidecar.end());
  for (auto& file : read) {
    const fs::path below = file.lexically_relative(root);
    r.meta["input"][below.empty() || *below.begin() == ".." ? file.filename().string() : below.string()] =
        sha256_file(file);
  }
  return r;
}

// --- info and check -------------------------------------------------------------------------------------------------

bool is_bids(const fs::path& folder) {
  if (!fs::is_directory(folder)) return false;
  if (fs::exists(folder / kDescription)) return true;
  std::error_code ignored;
  for (auto& e : fs::directory_iterator(folder, ignored))
    if (e.is_directory(ignored) && e.path().filename().string().starts_with("sub-")) return true;
  return false;
}

namespace {
/// Calls `report` with everything that is wrong; `whole`: images are read to their ends.
void inspect(const BidsFolder& folder, bool whole, const std::function<void(const DataError&)>& report) {
  const auto step = [&](auto&& f) {
    try {
      f();
    } catch (const DataError& e) {
      report(e);
    }
  };
  std::set<std::string> subjects;
  for (auto& f : folder.files())
    if (f.pipeline.empty() && !f.entity("sub").empty()) subjects.insert("sub-" + f.entity("sub"));
  step([&] {
    if (subjects.empty()) throw DataError(folder.root().string(), "", "at least one folder sub-*", "none");
    if (const auto table = folder.participants()) {
      const auto& ids = table->find("participant_id")->text;
      for (auto& s : subjects)
        if (std::find(ids.begin(), ids.end(), s) == ids.end())
          throw DataError((folder.root() / "participants.tsv").string(), "participant_id", "a row for " + s, "none");
    }
  });
  for (auto& f : folder.files()) {
    if (!is_image_extension(f.extension)) continue;
    double end_s = HUGE_VAL;
    step([&] {
      const fs::path path = content_of(folder, f);
      const NiftiHeader h = read_nifti_header(path);
      if (f.suffix == "bold") {
        if (f.pipeline.empty() && f.entity("task").empty())
          throw DataError(path.string(), "name", "an entity task", "none");
        const FmriOptions o = timing_options(folder, f, true);
        const auto timing = image_timing(path, h, timing_of_sidecar(*o.sidecar, o.sidecar_file), o.sidecar_file);
        end_s = timing.repetition_time_s * static_cast<double>(h.volumes());
      }
      if (whole) check_nifti_length(path, h);
    });
    if (f.suffix != "bold" || folder.derived(f)) continue;
    step([&] {
      const auto events = folder.companion(f, "events", ".tsv");
      if (!events && !f.entity("task").starts_with("rest"))
        throw DataError((folder.root() / f.path).string(), "events", "an events.tsv beside or above it", "none");
      if (!events) return;
      const fs::path path = content_of(folder, *events);
      for (auto& e : events_of_table(read_csv_table(path, {.header = true, .delimiter = '\t'}), path.string()))
        if (e.onset_s >= end_s)
          throw DataError(path.string(), "onset",
                          fmt::format("events before {} s, where {} ends", end_s, f.path.filename().string()),
                          fmt::format("{} s", e.onset_s));
    });
  }
}
}  // namespace

Value describe_bids(const fs::path& root) {
  const BidsFolder folder(root);
  Value d = Value::object({{"folder", root.string()},
                           {"kind", "BIDS data set"},
                           {"name", folder.description().at("Name")},
                           {"version", folder.description().at("BIDSVersion")}});
  std::map<std::string, std::set<std::string>> values;
  std::map<std::string, std::int64_t> raw, derived;
  for (auto& f : folder.files()) {
    for (const char* key : {"sub", "ses", "task", "space"})
      if (const auto v = f.entity(key); !v.empty()) values[key].insert(v);
    if (is_image_extension(f.extension))
      ++(f.pipeline.empty() ? raw : derived)[(f.pipeline.empty() ? "" : f.pipeline + ": ") + f.suffix];
  }
  for (auto [key, name] : {std::pair("sub", "subjects"), {"ses", "sessions"}, {"task", "tasks"}, {"space", "spaces"}})
    if (!values[key].empty()) d[name] = Value(std::vector<std::string>(values[key].begin(), values[key].end()));
  const auto counts = [&](const char* name, auto& of) {
    for (auto& [suffix, n] : of) d[name][suffix] = n;
  };
  counts("images", raw);
  counts("derivatives", derived);
  Value problems = Value::array();
  try {
    if (const auto t = folder.participants()) {
      Value columns = Value::array();
      for (auto& c : t->columns) columns.push_back(c.name);
      d["participants"] = std::move(columns);
    }
  } catch (const DataError&) {
    // inspect reports it
  }
  inspect(folder, false, [&](const DataError& e) { problems.push_back(Value::object({{"problem", e.what()}})); });
  d["problems"] = std::move(problems);
  return d;
}

void check_bids(const fs::path& root) {
  inspect(BidsFolder(root), true, [](const DataError& e) { throw e; });
}

}  // namespace percept::io
