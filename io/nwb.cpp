#include "io/nwb.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <hdf5.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <optional>
#include <regex>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "io/hdf5_handle.h"

namespace percept::io {
namespace fs = std::filesystem;

namespace {
constexpr const char* kNwbVersion = "2.7.0";
constexpr std::size_t kNwbChunk = std::size_t{1} << 18;  ///< bytes of a chunk, about
constexpr std::size_t kNwbBlock = std::size_t{1} << 22;  ///< bytes that are read and written at once, about

/// Writes groups, attributes and data sets of one file; every complaint of libhdf5 becomes a DataError with its place.
class NwbFile {
 public:
  NwbFile(const fs::path& shown, const fs::path& path, std::string identifier)
      : shown_(shown), identifier_(std::move(identifier)),
        text_(checked(H5Tcopy(H5T_C_S1), H5Tclose, "a type for text")),
        link_(checked(H5Pcreate(H5P_LINK_CREATE), H5Pclose, "")) {
    H5Tset_size(text_.get(), H5T_VARIABLE);
    H5Tset_cset(text_.get(), H5T_CSET_UTF8);
    H5Pset_create_intermediate_group(link_.get(), 1);
    H5Pset_char_encoding(link_.get(), H5T_CSET_UTF8);
    const Hdf5Handle create = checked(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "");
    H5Pset_obj_track_times(create.get(), false);
    file_ = checked(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, create.get(), H5P_DEFAULT), H5Fclose, "a new file");
  }

  void group(const std::string& path) {
    const Hdf5Handle create = checked(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, path);
    H5Pset_obj_track_times(create.get(), false);
    checked(H5Gcreate2(file_.get(), path.c_str(), link_.get(), create.get(), H5P_DEFAULT), H5Gclose, path);
  }
  /// A group or data set of a type of NWB.
  void type(const std::string& path, const char* name, const char* space = "core") {
    text_attribute(path, "namespace", space);
    text_attribute(path, "neurodata_type", name);
    text_attribute(path, "object_id", object_id(path));
  }
  void typed_group(const std::string& path, const char* name, const char* space = "core") {
    group(path);
    type(path, name, space);
  }

  void text_attribute(const std::string& path, const char* name, const std::string& value) {
    const char* pointer = value.c_str();
    attribute(path, name, text_.get(), Hdf5Handle(H5Screate(H5S_SCALAR), H5Sclose), &pointer);
  }
  void texts_attribute(const std::string& path, const char* name, const std::vector<std::string>& values) {
    const auto pointers = pointers_to(values);
    const hsize_t n = values.size();
    attribute(path, name, text_.get(), Hdf5Handle(H5Screate_simple(1, &n, nullptr), H5Sclose), pointers.data());
  }
  void number_attribute(const std::string& path, const char* name, double value) {
    attribute(path, name, H5T_NATIVE_DOUBLE, Hdf5Handle(H5Screate(H5S_SCALAR), H5Sclose), &value);
  }
  void reference_attribute(const std::string& path, const char* name, const std::string& to) {
    const hobj_ref_t reference = reference_to(to);
    attribute(path, name, H5T_STD_REF_OBJ, Hdf5Handle(H5Screate(H5S_SCALAR), H5Sclose), &reference);
  }

  void text(const std::string& path, const std::string& value) {
    const char* pointer = value.c_str();
    write(path, text_.get(), Hdf5Handle(H5Screate(H5S_SCALAR), H5Sclose), &pointer);
  }
  void texts(const std::string& path, const std::vector<std::string>& values, bool grows = false) {
    const auto pointers = pointers_to(values);
    const hsize_t n = values.size(), most = H5S_UNLIMITED;
    write(path, text_.get(), Hdf5Handle(H5Screate_simple(1, &n, grows ? &most : nullptr), H5Sclose), pointers.data(),
          grows);
  }
  void number(const std::string& path, double value) {
    write(path, H5T_NATIVE_DOUBLE, Hdf5Handle(H5Screate(H5S_SCALAR), H5Sclose), &value);
  }
  template <class T>
  void numbers(const std::string& path, const std::vector<T>& values) {
    const hsize_t n = values.size();
    const hid_t type = std::is_same_v<T, double> ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64;
    write(path, type, Hdf5Handle(H5Screate_simple(1, &n, nullptr), H5Sclose), values.data());
  }
  void references(const std::string& path, const std::string& to, std::size_t times) {
    const std::vector<hobj_ref_t> all(times, reference_to(to));
    const hsize_t n = times;
    write(path, H5T_STD_REF_OBJ, Hdf5Handle(H5Screate_simple(1, &n, nullptr), H5Sclose), all.data());
  }

  /// Frames of one part, packed; rows(first, n, to) fills a block.
  template <class Read>
  void samples(const std::string& path, std::int64_t frames, const std::vector<Index>& shape, Scalar scalar,
               const Read& read) {
    std::vector<hsize_t> size{static_cast<hsize_t>(frames)};
    for (const Index s : shape) size.push_back(static_cast<hsize_t>(s));
    std::size_t frame = bytes_of(scalar);
    for (const Index s : shape) frame *= static_cast<std::size_t>(s);
    const auto fits = [&](std::size_t bytes) {
      return static_cast<hsize_t>(
          std::clamp<std::int64_t>(static_cast<std::int64_t>(bytes / frame), 1, std::max<std::int64_t>(frames, 1)));
    };
    std::vector<hsize_t> chunk = size;
    chunk[0] = fits(kNwbChunk);
    const Hdf5Handle create = checked(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, path);
    H5Pset_obj_track_times(create.get(), false);
    if (frames > 0) {
      H5Pset_chunk(create.get(), static_cast<int>(chunk.size()), chunk.data());
      H5Pset_shuffle(create.get());
      H5Pset_deflate(create.get(), 1);
    }
    const hid_t type = scalar == Scalar::f32 ? H5T_NATIVE_FLOAT : H5T_NATIVE_DOUBLE;
    const Hdf5Handle space =
        checked(H5Screate_simple(static_cast<int>(size.size()), size.data(), nullptr), H5Sclose, path);
    const Hdf5Handle set =
        checked(H5Dcreate2(file_.get(), path.c_str(), type, space.get(), link_.get(), create.get(), H5P_DEFAULT),
                H5Dclose, path);
    // whole chunks, so that none is packed twice
    const hsize_t block = std::max<hsize_t>(1, fits(kNwbBlock) / chunk[0]) * chunk[0];
    std::vector<std::byte> room;
    std::vector<hsize_t> start(size.size(), 0), count = size;
    for (hsize_t first = 0; first < size[0]; first += block) {
      start[0] = first;
      count[0] = std::min(block, size[0] - first);
      room.resize(static_cast<std::size_t>(count[0]) * frame);
      read(static_cast<std::int64_t>(first), static_cast<Index>(count[0]), room.data());
      const Hdf5Handle memory =
          checked(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr), H5Sclose, path);
      if (H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) < 0 ||
          H5Dwrite(set.get(), type, memory.get(), space.get(), H5P_DEFAULT, room.data()) < 0)
        fail(path);
    }
  }

  /// A second name for an object.
  void link(const std::string& to, const std::string& path) {
    if (H5Lcreate_soft(to.c_str(), file_.get(), path.c_str(), link_.get(), H5P_DEFAULT) < 0) fail(path);
  }

  void close() {
    if (H5Fflush(file_.get(), H5F_SCOPE_GLOBAL) < 0 || !file_.close()) fail("");
  }

 private:
  [[noreturn]] void fail(const std::string& path) const {
    throw DataError(shown_.string(), path, "a file that can be written", hdf5_complaint());
  }
  Hdf5Handle checked(hid_t id, Hdf5Handle::Close close, const std::string& path) const {
    if (id < 0) fail(path);
    return {id, close};
  }
  static std::vector<const char*> pointers_to(const std::vector<std::string>& values) {
    std::vector<const char*> all;
    for (auto& v : values) all.push_back(v.c_str());
    return all;
  }
  void attribute(const std::string& path, const char* name, hid_t type, const Hdf5Handle& space, const void* value) {
    const Hdf5Handle object = checked(H5Oopen(file_.get(), path.c_str(), H5P_DEFAULT), H5Oclose, path);
    const Hdf5Handle made =
        checked(H5Acreate2(object.get(), name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose, path);
    if (H5Awrite(made.get(), type, value) < 0) fail(path);
  }
  void write(const std::string& path, hid_t type, const Hdf5Handle& space, const void* values, bool grows = false) {
    const Hdf5Handle create = checked(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, path);
    H5Pset_obj_track_times(create.get(), false);
    const hsize_t chunk = 1;
    if (grows) H5Pset_chunk(create.get(), 1, &chunk);
    const Hdf5Handle set =
        checked(H5Dcreate2(file_.get(), path.c_str(), type, space.get(), link_.get(), create.get(), H5P_DEFAULT),
                H5Dclose, path);
    if (H5Dwrite(set.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0) fail(path);
  }
  hobj_ref_t reference_to(const std::string& path) const {
    hobj_ref_t reference{};
    if (H5Rcreate(&reference, file_.get(), path.c_str(), H5R_OBJECT, -1) < 0) fail(path);
    return reference;
  }
  /// The same for the same session: a UUID of version 8 (RFC 9562) from the identifier and the place.
  std::string object_id(const std::string& path) const {
    std::string h = sha256(identifier_ + "\n" + path).substr(0, 32);
    h[12] = '8';
    h[16] = "89ab"[static_cast<unsigned char>(h[16]) % 4];
    return fmt::format("{}-{}-{}-{}-{}", h.substr(0, 8), h.substr(8, 4), h.substr(12, 4), h.substr(16, 4),
                       h.substr(20));
  }

  fs::path shown_;
  std::string identifier_;
  Hdf5Handle text_, link_, file_;
};

/// A link's name: what is not allowed in one becomes "_".
std::string link_name(const std::string& name) {
  std::string s = name.empty() ? "x" : name;
  std::replace(s.begin(), s.end(), '/', '_');
  return s == "." ? "_" : s;
}

/// Volts in one of this unit; nothing when it is no voltage.
std::optional<double> volts_in(const std::string& unit) {
  static const std::map<std::string, double> kUnits{{"V", 1},     {"volt", 1},  {"volts", 1}, {"mV", 1e-3},
                                                    {"uV", 1e-6}, {"µV", 1e-6}, {"μV", 1e-6}, {"nV", 1e-9}};
  const auto found = kUnits.find(unit);
  return found == kUnits.end() ? std::nullopt : std::optional(found->second);
}

/// Volts in the unit of a stream of voltages: of one part whose rows all have the same.
std::optional<double> voltage_of(const StreamFormat& f) {
  if (f.parts.size() != 1 || f.parts[0].shape.size() != 1) return std::nullopt;
  const auto whole = volts_in(f.parts[0].unit);
  std::optional<double> common = whole;
  for (std::size_t i = 0; i < f.parts[0].rows.size(); ++i) {
    const auto& unit = f.parts[0].rows[i].unit;
    const auto own = unit.empty() ? whole : volts_in(unit);
    if (i == 0) common = own;
    if (!own || own != common) return std::nullopt;
  }
  return common;
}

/// A table's columns, in order.
class NwbTable {
 public:
  NwbTable(NwbFile& file, std::string path, std::size_t rows) : file_(file), path_(std::move(path)), rows_(rows) {}
  void begin(const char* type, const char* space, const std::string& description) {
    file_.typed_group(path_, type, space);
    file_.text_attribute(path_, "description", description);
    std::vector<std::int64_t> ids(rows_);
    for (std::size_t i = 0; i < rows_; ++i) ids[i] = static_cast<std::int64_t>(i);
    file_.numbers(path_ + "/id", ids);
    file_.type(path_ + "/id", "ElementIdentifiers", "hdmf-common");
  }
  template <class T>
  void column(const std::string& name, const std::string& description, const std::vector<T>& values) {
    if constexpr (std::is_same_v<T, std::string>) file_.texts(path_ + "/" + name, values);
    else file_.numbers(path_ + "/" + name, values);
    finish(name, description);
  }
  void references(const std::string& name, const std::string& description, const std::string& to) {
    file_.references(path_ + "/" + name, to, rows_);
    finish(name, description);
  }
  void end() { file_.texts_attribute(path_, "colnames", names_); }

 private:
  void finish(const std::string& name, const std::string& description) {
    file_.type(path_ + "/" + name, "VectorData", "hdmf-common");
    file_.text_attribute(path_ + "/" + name, "description", description);
    names_.push_back(name);
  }
  NwbFile& file_;
  std::string path_;
  std::size_t rows_;
  std::vector<std::string> names_;
};

struct Interval {
  double start_s = 0, stop_s = 0, value = 0;
  std::string label;
  std::int64_t row = -1;
};

/// What the events of a recording say, by kind; what lasts ends where it was undone, or at end_s.
std::map<std::string, std::vector<Interval>> intervals_of(const std::vector<Event>& events, double end_s) {
  std::map<std::string, std::vector<Interval>> all;
  std::map<std::pair<double, std::int64_t>, std::size_t> masked;  // (input, row): its interval that is open
  constexpr std::size_t kNobody = static_cast<std::size_t>(-1);
  std::size_t held = kNobody;
  for (auto& e : events) {
    const std::string& label = e.label.text();
    const Interval i{e.onset_s, e.onset_s + e.duration_s, e.value, label, e.row};
    if (label == "gap") {
      all["gaps"].push_back(i);
    } else if (label == "mask" || label == "unmask") {
      auto& masks = all["masks"];
      const std::pair key{e.value, static_cast<std::int64_t>(e.row)};
      if (const auto open = masked.find(key); open != masked.end()) {
        masks[open->second].stop_s = e.onset_s;
        masked.erase(open);
      }
      if (label == "unmask") continue;
      masked[key] = masks.size();
      masks.push_back(i);
      masks.back().stop_s = std::max(end_s, e.onset_s);
    } else if (label == "hold" || label == "release") {
      auto& holds = all["holds"];
      if (held != kNobody) holds[held].stop_s = e.onset_s;
      held = kNobody;
      if (label == "release") continue;
      held = holds.size();
      holds.push_back(i);
      holds.back().stop_s = std::max(end_s, e.onset_s);
    } else {
      all["events"].push_back(i);
    }
  }
  return all;
}

void write_intervals(NwbFile& file, const std::vector<Event>& events, double end_s) {
  static const std::map<std::string, std::string> kWhat{
      {"events", "Events of the recording, and swaps of models."},
      {"gaps", "Frames that did not come: they are NaN. value: how many."},
      {"masks", "Channels that were taken out of the decoder. value: number of the input; row: the channel."},
      {"holds",
       "The output was held and must not be acted upon. value: why (1 nothing was decoded yet, 2 old data, 3 the "
       "decoder gave no number, 4 too uncertain, 5 too many bad channels, 6 emergency stop)."}};
  const auto all = intervals_of(events, end_s);
  if (!all.empty()) file.group("/intervals");
  for (auto& [kind, list] : all) {
    if (list.empty()) continue;
    std::vector<double> start, stop, value;
    std::vector<std::string> label;
    std::vector<std::int64_t> row;
    for (auto& i : list) {
      start.push_back(i.start_s);
      stop.push_back(i.stop_s);
      value.push_back(i.value);
      label.push_back(i.label);
      row.push_back(i.row);
    }
    NwbTable table(file, "/intervals/" + kind, list.size());
    table.begin("TimeIntervals", "core", kWhat.at(kind));
    table.column("start_time", "Start of epoch, in seconds.", start);
    table.column("stop_time", "Stop of epoch, in seconds.", stop);
    table.column("label", "What it was.", label);
    table.column("value", "A number that belongs to it.", value);
    table.column("row", "The channel it belongs to; -1: none.", row);
    table.end();
  }
}

std::string names_as_json(const Part& part) {
  Value names = Value::array();
  for (auto& r : part.rows) names.push_back(r.name);
  return part.rows.empty() ? "no comments" : "rows: " + to_json(names);
}

class NwbExport {
 public:
  NwbExport(const Recording& recording, NwbFile& file, const NwbOptions& options)
      : recording_(recording), file_(file), options_(options) {
    for (auto& s : recording.streams) scalars_ += static_cast<double>(s.frames() * s.format.size());
  }

  void write() {
    head();
    electrodes();
    bool decoded = false;
    for (auto& s : recording_.streams) {
      const bool live = s.name.starts_with("live_");
      if (live && !std::exchange(decoded, true)) module("decoded", "What the live loop decoded, frame by frame.");
      if (!live) {
        series(s, 0, link_name(s.name), "/acquisition/");
        continue;
      }
      for (std::size_t p = 0; p < s.format.parts.size(); ++p)
        series(s, p, link_name(s.name.substr(5) + "_" + s.format.parts[p].name), "/processing/decoded/");
    }
    double end_s = 0;
    for (auto& s : recording_.streams) end_s = std::max(end_s, s.format.time_of(s.frames()));
    write_intervals(file_, recording_.events, end_s);
    clocks();
  }

 private:
  void head() {
    file_.text_attribute("/", "nwb_version", kNwbVersion);
    file_.type("/", "NWBFile");
    file_.text("/identifier", options_.identifier);
    file_.text("/session_description", options_.description);
    file_.text("/session_start_time", options_.start);
    file_.text("/timestamps_reference_time", options_.start);
    const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    file_.texts("/file_create_date", {fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now))}, true);
    for (const char* group : {"/acquisition", "/analysis", "/general", "/processing", "/stimulus",
                              "/stimulus/presentation", "/stimulus/templates"})
      file_.group(group);
    if (!options_.notes.empty()) file_.text("/general/notes", options_.notes);
    if (!options_.script.empty()) {
      file_.text("/general/source_script", options_.script);
      file_.text_attribute("/general/source_script", "file_name", options_.script_name);
    }
  }

  void module(const std::string& name, const std::string& description) {
    file_.typed_group("/processing/" + name, "ProcessingModule");
    file_.text_attribute("/processing/" + name, "description", description);
  }

  /// A row for each channel of every stream of voltages.
  void electrodes() {
    std::vector<std::string> names, streams;
    std::vector<double> position[3];
    bool placed = false;
    for (auto& s : recording_.streams) {
      if (s.name.starts_with("live_") || !voltage_of(s.format)) continue;
      first_electrode_[s.name] = static_cast<std::int64_t>(names.size());
      const auto rows = s.format.row_names();
      for (std::size_t i = 0; i < rows.size(); ++i) {
        names.push_back(rows[i]);
        streams.push_back(s.name);
        const auto& part = s.format.parts[0];
        const auto at = i < part.rows.size() ? part.rows[i].position : std::nullopt;
        placed = placed || at.has_value();
        // NWB's positions are in micrometres
        for (std::size_t k = 0; k < 3; ++k) position[k].push_back(at ? 1e6 * (*at)[k] : std::nan(""));
      }
    }
    if (names.empty()) return;
    file_.group("/general/devices");
    file_.typed_group("/general/devices/device", "Device");
    file_.text_attribute("/general/devices/device", "description", "What the signals came from; see the notes.");
    file_.group("/general/extracellular_ephys");
    const std::string group = "/general/extracellular_ephys/electrodes_of_the_device";
    file_.typed_group(group, "ElectrodeGroup");
    file_.text_attribute(group, "description", "All electrodes of the session.");
    file_.text_attribute(group, "location", "unknown");
    file_.link("/general/devices/device", group + "/device");
    NwbTable table(file_, kElectrodes, names.size());
    table.begin("DynamicTable", "hdmf-common",
                "The electrodes of the session, one for each channel that is a voltage.");
    if (placed)
      for (std::size_t k = 0; k < 3; ++k)
        table.column(std::string(1, "xyz"[k]), "Position of the electrode [um].", position[k]);
    table.column("location", "Where the electrode is.", std::vector<std::string>(names.size(), "unknown"));
    table.references("group", "The group of the electrode.", group);
    table.column("group_name", "Its name.", std::vector<std::string>(names.size(), "electrodes_of_the_device"));
    table.column("channel_name", "Name of the channel.", names);
    table.column("stream", "The stream that holds it.", streams);
    table.end();
  }

  void series(const Stream& s, std::size_t part_number, const std::string& name, const std::string& where) {
    const StreamFormat& f = s.format;
    if (f.parts.size() != 1 && where == "/acquisition/")
      throw ConfigError(s.name, f.describe(), "a stream of one part");
    if (!used_.insert(where + name).second) throw ConfigError(s.name, name, "another name than the stream before it");
    const Part& part = f.parts[part_number];
    const std::string path = where + name;
    const auto electrode = first_electrode_.find(s.name);
    const bool electrical = electrode != first_electrode_.end();
    const auto volts = electrical ? voltage_of(f) : std::nullopt;
    file_.typed_group(path, electrical ? "ElectricalSeries" : "TimeSeries");
    file_.text_attribute(path, "description", fmt::format("{}: {}", s.name, part.name));
    file_.text_attribute(path, "comments", names_as_json(part));
    Index first_row = 0;
    for (std::size_t p = 0; p < part_number; ++p) first_row += f.parts[p].size();
    const std::string data = path + "/data";
    file_.samples(data, s.frames(), part.shape, f.scalar, [&](std::int64_t first, Index n, std::byte* to) {
      if (options_.cancelled && options_.cancelled()) throw Interrupted();
      const std::size_t scalar = bytes_of(f.scalar);
      if (part.size() == f.size()) {
        s.samples->read(first, MutableFrames(to, f.scalar, f.size(), n, f.size()));
      } else {
        frame_room_.resize(static_cast<std::size_t>(n * f.size()) * scalar);
        const MutableFrames whole(frame_room_.data(), f.scalar, f.size(), n, f.size());
        s.samples->read(first, whole);
        copy_frames(ConstFrames(whole).part(first_row, part.size()),
                    MutableFrames(to, f.scalar, part.size(), n, part.size()));
      }
      done_ += static_cast<double>(n * part.size());
      if (options_.progress && scalars_ > 0) options_.progress(std::min(1.0, done_ / scalars_));
    });
    std::string unit = part.unit;
    if (!part.rows.empty() && !part.rows[0].unit.empty()) unit = part.rows[0].unit;
    file_.text_attribute(data, "unit", electrical ? "volts" : unit);
    file_.number_attribute(data, "conversion", volts.value_or(1));
    file_.number_attribute(data, "resolution", -1);
    file_.text_attribute(data, "continuity", "continuous");
    file_.number(path + "/starting_time", f.start_s);
    file_.number_attribute(path + "/starting_time", "rate", f.rate_hz);
    file_.text_attribute(path + "/starting_time", "unit", "seconds");
    if (!electrical) return;
    std::vector<std::int64_t> rows(static_cast<std::size_t>(f.size()));
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = electrode->second + static_cast<std::int64_t>(i);
    file_.numbers(path + "/electrodes", rows);
    file_.type(path + "/electrodes", "DynamicTableRegion", "hdmf-common");
    file_.text_attribute(path + "/electrodes", "description", "The electrode of each channel.");
    file_.reference_attribute(path + "/electrodes", "table", kElectrodes);
  }

  void clocks() {
    bool any = false;
    for (auto& t : recording_.tables) {
      if (!t.name.starts_with("clock_") || t.columns.empty()) continue;
      if (!std::exchange(any, true))
        module("clocks",
               "Lines of the devices' clocks: local = local_s + (device - device_s) (1 + drift), from at_s of the "
               "machine's clock on.");
      NwbTable table(file_, "/processing/clocks/" + link_name(t.name), t.columns[0].size());
      table.begin("DynamicTable", "hdmf-common", "The clock of an input.");
      for (auto& c : t.columns)
        if (c.is_text()) table.column(c.name, c.name, c.text);
        else table.column(c.name, c.name, c.numbers);
      table.end();
    }
  }

  static constexpr const char* kElectrodes = "/general/extracellular_ephys/electrodes";
  const Recording& recording_;
  NwbFile& file_;
  const NwbOptions& options_;
  std::map<std::string, std::int64_t> first_electrode_;
  std::set<std::string> used_;
  std::vector<std::byte> frame_room_;
  double scalars_ = 0, done_ = 0;
};
}  // namespace

void write_nwb(const Recording& recording, const fs::path& file, const NwbOptions& options) {
  static const std::regex kTime(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d))");
  if (!std::regex_match(options.start, kTime))
    throw ConfigError("start", "\"" + options.start + "\"", "a time with its zone, such as 2026-11-29T12:00:00Z");
  if (options.identifier.empty()) throw ConfigError("identifier", "\"\"", "a name that no other session has");
  for (auto& s : recording.streams)
    if (s.format.axis != Axis::time) throw ConfigError(s.name, s.format.describe(), "a stream with a clock");
  AtomicPath target(file);
  {
    Hdf5Lock lock;
    NwbFile out(file, target.path(), options.identifier);
    NwbExport(recording, out, options).write();
    out.close();
  }
  target.commit();
}

}  // namespace percept::io
