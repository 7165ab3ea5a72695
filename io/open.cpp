#include "io/open.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "core/files.h"
#include "core/params.h"
#include "io/csv.h"
#include "io/fmri.h"
#include "io/gifti.h"
#include "io/hdf5.h"
#include "io/idx.h"
#include "io/input_file.h"
#include "io/mat.h"
#include "io/npy.h"
#include "io/session.h"
#include "io/store.h"

namespace percept::io {
namespace fs = std::filesystem;

namespace {

enum class Kind { csv, npy, mat, hdf5, store, idx, nifti, gifti, session };

/// A file that is a whole recording of percept's own, and states its own clocks.
bool is_recording(Kind k) { return k == Kind::store || k == Kind::session; }
Recording open_own(const fs::path& file, Kind k) { return k == Kind::store ? open_store(file) : open_session(file); }

std::optional<Kind> find_kind(const fs::path& file) {
  const auto lower = [](std::string s) {
    for (char& c : s)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    return s;
  };
  const std::string e = lower(file.extension().string());
  for (const char* end : {"-ubyte", "-ubyte.gz", ".idx", ".idx.gz"})  // as MNIST and its relatives are named
    if (lower(file.filename().string()).ends_with(end)) return Kind::idx;
  for (const char* end : {".nii", ".nii.gz"})
    if (lower(file.filename().string()).ends_with(end)) return Kind::nifti;
  for (const char* end : {".gii", ".gii.gz"})
    if (lower(file.filename().string()).ends_with(end)) return Kind::gifti;
  if (e == ".csv" || e == ".tsv") return Kind::csv;
  if (e == ".npy") return Kind::npy;
  if (e == ".mat") return Kind::mat;
  if (e == ".h5" || e == ".hdf5" || e == ".nwb") return Kind::hdf5;
  if (e == ".percept") return Kind::store;
  if (e == ".session") return Kind::session;
  return std::nullopt;
}
Kind kind_of(const fs::path& file) {
  if (const auto kind = find_kind(file)) return *kind;
  const std::string e = file.extension().string();
  throw DataError(
      file.string(), "extension",
      ".csv, .tsv, .npy, .mat, .h5, .hdf5, .nwb, .nii, .nii.gz, .gii, .gii.gz, .idx, -ubyte.gz, .session or "
      ".percept",
      e.empty() ? "none" : e);
}
const char* kind_name(Kind k) {
  static constexpr const char* kNames[] = {"csv", "npy",   "mat",   "hdf5",        "percept store",
                                           "idx", "nifti", "gifti", "live session"};
  return kNames[static_cast<int>(k)];
}

Index size_of(const std::vector<Index>& shape) {
  return std::accumulate(shape.begin(), shape.end(), Index{1}, std::multiplies<>());
}

constexpr std::int64_t kSmallValues = std::int64_t{16} << 20;
constexpr std::uint64_t kSmallCsv = std::uint64_t{64} << 20;

/// The second axis as frames, in memory.
std::shared_ptr<const SampleSource> transposed(Eigen::MatrixXd m) {
  return std::make_shared<MemorySource>(m.transpose());
}

struct FileSamples {
  std::shared_ptr<const SampleSource> samples;
  std::vector<Index> frame_shape;
  Scalar scalar = Scalar::f64;
  std::vector<std::string> names;
};

/// The options of open_stream.
struct OpenParams {
  bool header = false, allow_inf = false, transpose = false;
  bool items = false, allow_missing = false;
  std::string delimiter, variable, unit = "1", name, mask, atlas, labels, sidecar, surface;
  std::vector<std::string> regions;
  double rate_hz = 0, start_s = 0, tr_s = 0;
  static constexpr auto fields() {
    return std::tuple{field("header", &OpenParams::header, "", "Whether the first line holds names."),
                      field("delimiter", &OpenParams::delimiter, "", "Between two cells; a tab in .tsv."),
                      field("allow_inf", &OpenParams::allow_inf, "", "Lets infinite numbers pass."),
                      field("variable", &OpenParams::variable, "", "Name of a variable, data set or stream."),
                      field("transpose", &OpenParams::transpose, "", "The second axis is frames."),
                      field("rate_hz", &OpenParams::rate_hz, "Hz", "Frames a second; without it frames are items."),
                      field("start_s", &OpenParams::start_s, "s", "Time of the first frame.", -1e18, 1e18),
                      field("unit", &OpenParams::unit, "", "Unit of the values."),
                      field("name", &OpenParams::name, "", "Name of the stream."),
                      field("mask", &OpenParams::mask, "", "Image whose voxels other than 0 are kept."),
                      field("atlas", &OpenParams::atlas, "", "Image of region numbers."),
                      field("labels", &OpenParams::labels, "", "Table of the atlas's region names."),
                      field("regions", &OpenParams::regions, "", "Regions of the atlas that are kept."),
                      field("sidecar", &OpenParams::sidecar, "", "JSON of BIDS that belongs to an image."),
                      field("surface", &OpenParams::surface, "", "Surface (.surf.gii) on which values lie."),
                      field("tr_s", &OpenParams::tr_s, "s", "Repetition time, above header and sidecar.", 0, 100),
                      field("items", &OpenParams::items, "", "Volumes are items without a clock."),
                      field("allow_missing", &OpenParams::allow_missing, "", "NaN are missing values.")};
  }
};

char default_delimiter(const fs::path& file) {
  return file.extension() == ".tsv" || file.extension() == ".TSV" ? '\t' : ',';
}

FileSamples open_csv_samples(const fs::path& file, const OpenParams& p, bool header_stated, bool head_only,
                             const std::string& where) {
  if (!header_stated)
    throw ConfigError(where + ".header", "",
                      fmt::format("true or false for {}: whether its first line holds names is stated, "
                                  "because a header of numbers looks like data",
                                  file.string()));
  if (p.delimiter.size() > 1)
    throw ConfigError(where + ".delimiter", fmt::format("\"{}\"", p.delimiter), "one character");
  CsvOptions o;
  o.header = p.header;
  o.delimiter = p.delimiter.empty() ? default_delimiter(file) : p.delimiter[0];
  o.allow_inf = p.allow_inf;
  o.head_only = head_only && !p.transpose;
  FileSamples s;
  if (o.head_only || p.transpose || require_file(file) <= kSmallCsv) {
    auto table = read_csv(file, o);
    s.frame_shape = {p.transpose ? table.values.cols() : table.values.rows()};
    if (!p.transpose) s.names = std::move(table.names);
    s.samples =
        p.transpose ? transposed(std::move(table.values)) : std::make_shared<MemorySource>(std::move(table.values));
  } else {
    auto table = open_csv(file, o);
    s.frame_shape = {table.columns};
    s.names = std::move(table.names);
    s.samples = std::move(table.samples);
  }
  return s;
}

FileSamples open_samples(const fs::path& file, Kind kind, const OpenParams& p, bool header_stated, bool head_only,
                         const std::string& where) {
  FileSamples s;
  switch (kind) {
    case Kind::csv:
      return open_csv_samples(file, p, header_stated, head_only, where);
    case Kind::npy: {
      const NpyInfo info = read_npy_info(file);
      s.scalar = info.scalar();
      s.frame_shape = info.frame_shape();
      if (!p.transpose) {
        s.samples = open_npy(file);
      } else {
        if (info.shape.size() != 2 || info.type[0] == 'c')
          throw ConfigError(where + ".transpose", "true",
                            fmt::format("{} to be a real matrix of two dimensions", file.string()));
        s.frame_shape = {info.frames()};
        if (!head_only) s.samples = transposed(read_npy(file));
      }
      return s;
    }
    case Kind::mat: {
      if (head_only) {
        std::vector<MatVariable> readable;
        for (auto& v : list_mat(file))
          if (v.readable && (p.variable.empty() || v.name == p.variable)) readable.push_back(v);
        if (readable.size() == 1) {
          s.frame_shape = {readable[0].shape[p.transpose ? 0 : 1]};
          return s;
        }
      }
      auto m = read_mat(file, p.variable);
      s.frame_shape = {p.transpose ? m.rows() : m.cols()};
      // MATLAB's rows are frames: its matrix is the transpose of ours
      s.samples = p.transpose ? std::make_shared<MemorySource>(std::move(m)) : transposed(std::move(m));
      return s;
    }
    case Kind::idx: {
      const IdxInfo info = read_idx_info(file);
      s.scalar = scalar_of(info.type);
      s.frame_shape = info.frame_shape();
      if (p.transpose) throw ConfigError(where + ".transpose", "true", "nothing: the first axis of IDX is frames");
      if (!head_only) s.samples = open_idx(file);
      return s;
    }
    default: {
      const auto all = list_hdf5(file);
      const Hdf5Dataset* wanted = nullptr;
      std::vector<std::string> readable;
      for (const auto& d : all) {
        if (d.readable) readable.push_back(d.path);
        if (d.path == p.variable || d.path == "/" + p.variable || (p.variable.empty() && d.readable)) wanted = &d;
      }
      if (p.variable.empty() && readable.size() != 1)
        throw DataError(file.string(), "variable",
                        readable.empty() ? "a data set of numbers in one or two dimensions"
                                         : fmt::format("the name of one of {}", fmt::join(readable, ", ")),
                        readable.empty() ? "none" : "no name");
      s.samples = open_hdf5(file, wanted ? wanted->path : p.variable, p.transpose);
      s.scalar = wanted->scalar;
      s.frame_shape = {wanted->shape.size() == 1 ? 1 : wanted->shape[p.transpose ? 0 : 1]};
      return s;
    }
  }
}

/// How many values are missing and the range of the others, a block at a time.
void add_range(Value& to, const SampleSource& samples, Index rows) {
  const Index block = std::clamp<Index>((Index{1} << 18) / rows, 1, 65536);
  Eigen::MatrixXd m(rows, std::min<Index>(block, std::max<Index>(1, samples.frames())));
  std::int64_t missing = 0;
  double least = HUGE_VAL, most = -HUGE_VAL;
  for (std::int64_t first = 0; first < samples.frames(); first += m.cols()) {
    const Index n = std::min<Index>(m.cols(), samples.frames() - first);
    samples.read(first, MutableFrames(m.data(), Scalar::f64, rows, n, rows));
    for (Index i = 0; i < n * rows; ++i) {
      const double v = m.data()[i];
      missing += std::isnan(v);
      least = v < least ? v : least;
      most = v > most ? v : most;
    }
  }
  to["missing"] = missing;
  if (least <= most) {
    to["min"] = least;
    to["max"] = most;
  }
}
void add_range_if_small(Value& to, const SampleSource& samples, Index rows) {
  if (samples.frames() <= kSmallValues / std::max<Index>(1, rows)) add_range(to, samples, rows);
}

Value describe_table(const Table& t) {
  Value columns = Value::array();
  for (const auto& c : t.columns) {
    Value column = Value::object({{"name", c.name}, {"type", c.is_text() ? "text" : "f64"}});
    if (c.is_text()) {
      column["missing"] = std::count(c.text.begin(), c.text.end(), "");
    } else if (!c.numbers.empty()) {
      add_range(
          column,
          MemorySource(Eigen::Map<const Eigen::RowVectorXd>(c.numbers.data(), static_cast<Index>(c.numbers.size()))),
          1);
    }
    columns.push_back(std::move(column));
  }
  return Value::object(
      {{"name", t.name}, {"rows", t.columns.empty() ? 0 : t.columns[0].size()}, {"columns", std::move(columns)}});
}

/// A text file as a person would see it: a header where the first line is not all numbers, numbers where the next is.
struct CsvLook {
  CsvOptions options;
  bool numbers = false;
};
CsvLook look_at_csv(const fs::path& file) {
  CsvLook look;
  look.options.delimiter = default_delimiter(file);
  const InputFile input(file);
  std::string start(std::size_t{1} << 16, '\0');
  start.resize(input.read_some(0, start.data(), start.size()));
  const auto numeric = [&](std::string_view line) {
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    for (bool more = true; more;) {
      const auto end = line.find(look.options.delimiter);
      const auto cell = line.substr(0, end);
      more = end != line.npos;
      if (more) line.remove_prefix(end + 1);
      // an empty cell may stand in a column of text
      if (cell.empty() || cell.find_first_not_of("0123456789+-.eE \t") != cell.npos)
        if (cell != "nan" && cell != "NaN" && cell != "NAN") return false;
    }
    return true;
  };
  const std::string_view text =
      std::string_view(start).starts_with("\xEF\xBB\xBF") ? std::string_view(start).substr(3) : start;
  const auto first = text.find('\n');
  look.options.header = !numeric(text.substr(0, first));
  const auto second =
      first == text.npos ? std::string_view() : text.substr(first + 1, text.find('\n', first + 1) - first - 1);
  look.numbers = numeric(*look.options.header ? second : text.substr(0, first));
  return look;
}

/// Options that only one kind of file has a meaning for.
void refuse_others(const fs::path& file, Kind kind, const Value& options, const std::string& where) {
  static constexpr const char* kImage[] = {"mask",    "atlas", "labels", "regions",      "sidecar",
                                           "surface", "tr_s",  "items",  "allow_missing"};
  static constexpr const char* kNotImage[] = {"header", "delimiter", "allow_inf", "variable", "transpose", "rate_hz"};
  const auto refuse = [&](auto& keys, const char* expected) {
    for (const char* key : keys)
      if (options.contains(key))
        throw ConfigError(where + "." + key, "", fmt::format("{} {}", expected, file.filename().string()));
  };
  if (kind == Kind::nifti || kind == Kind::gifti)
    refuse(kNotImage, "nothing (an image has tr_s, mask, atlas, ...) for");
  else refuse(kImage, "nothing (it is for .nii, .nii.gz and .gii) for");
}

FmriSeries open_nifti_series(const fs::path& file, const OpenParams& p, const std::string& where) {
  FmriOptions o;
  o.mask = p.mask;
  o.atlas = p.atlas;
  o.labels = p.labels;
  o.regions = p.regions;
  o.surface = p.surface;
  o.tr_s = p.tr_s;
  o.items = p.items;
  o.allow_missing = p.allow_missing;
  if (!p.sidecar.empty()) {
    o.sidecar = read_json(p.sidecar);
    o.sidecar_file = p.sidecar;
  }
  FmriSeries series = open_fmri(file, o, where);
  if (!p.sidecar.empty()) series.files.emplace_back(p.sidecar);
  return series;
}

Recording make_stream(const fs::path& file, const Value& options, bool head_only, const std::string& where) {
  const auto p = read_params<OpenParams>(options, where);
  const Kind kind = kind_of(file);
  require_file(file);
  refuse_others(file, kind, options, where);
  Recording r;
  if (is_recording(kind)) {
    for (const char* key : {"rate_hz", "start_s", "unit", "transpose"})
      if (options.contains(key))
        throw ConfigError(where + "." + key, "", fmt::format("nothing: {} states its own", file.string()));
    const Recording all = open_own(file, kind);
    r.streams.push_back(p.variable.empty() && all.streams.size() == 1 ? all.streams[0]
                                                                      : all.stream(p.variable, where + ".variable"));
    return r;
  }
  Stream& s = r.streams.emplace_back();
  if (kind == Kind::nifti || kind == Kind::gifti) {
    FmriSeries series = open_nifti_series(file, p, where);
    s = std::move(series.stream);
    if (!p.name.empty()) s.name = p.name;
    s.format.parts[0].unit = p.unit;
    if (options.contains("start_s")) {
      if (s.format.axis == Axis::item) throw ConfigError(where + ".start_s", "", "nothing: items have no clock");
      s.format.start_s = p.start_s;
    }
    r.tables.push_back(std::move(series.voxel));
    r.meta["fmri"][s.name] = std::move(series.meta);
    for (auto& read : series.files) r.meta["input"][read.filename().string()] = sha256_file(read);
    return r;
  }
  s.name = p.name.empty() ? file.stem().string() : p.name;
  Part part{.name = s.name, .shape = {}, .unit = p.unit, .rows = {}, .levels = {}};
  FileSamples opened = open_samples(file, kind, p, options.contains("header"), head_only, where);
  s.samples = std::move(opened.samples);
  s.format.scalar = opened.scalar;
  part.shape = std::move(opened.frame_shape);
  for (auto& name : opened.names)
    part.rows.push_back({.name = std::move(name), .kind = "", .unit = "", .position = {}, .good = true});
  s.format.parts.push_back(std::move(part));
  if (options.contains("rate_hz")) {
    if (!(p.rate_hz > 0) || !std::isfinite(p.rate_hz))
      throw ConfigError(where + ".rate_hz", fmt::format("{}", p.rate_hz),
                        "a rate above 0 Hz (leave it out for items without a clock)");
    s.format.rate_hz = p.rate_hz;
    s.format.start_s = p.start_s;
  } else {
    if (options.contains("start_s")) throw ConfigError(where + ".start_s", "", "rate_hz beside it");
    s.format.axis = Axis::item;
    s.keys.resize(static_cast<std::size_t>(s.frames()));
    std::iota(s.keys.begin(), s.keys.end(), std::int64_t{0});
  }
  return r;
}
}  // namespace

bool can_open(const fs::path& file) { return find_kind(file).has_value(); }

Recording open_part(const fs::path& file, const Value& options, const std::string& where) {
  return make_stream(file, options, false, where);
}

Stream open_stream(const fs::path& file, const Value& options, const std::string& where) {
  return std::move(make_stream(file, options, false, where).streams[0]);
}

Stream outline_stream(const fs::path& file, const Value& options, const std::string& where) {
  Stream s = std::move(make_stream(file, options, true, where).streams[0]);
  s.samples = nullptr;
  s.keys.clear();
  return s;
}

Recording open_recording(const fs::path& file, const Value& options, const std::string& where) {
  Recording r;
  if (const Kind kind = kind_of(file); is_recording(kind)) {
    refuse_unknown_keys(options, {}, where);
    r = open_own(file, kind);
  } else {
    r = open_part(file, options, where);
    r.name = r.streams[0].name;
  }
  r.meta["input"][file.filename().string()] = sha256_file(file);
  return r;
}

Value describe_file(const fs::path& file) {
  const Kind kind = kind_of(file);
  Value d = Value::object({{"file", file.string()}, {"kind", kind_name(kind)}, {"bytes", require_file(file)}});
  Value contents = Value::array();
  switch (kind) {
    case Kind::csv: {
      const CsvLook look = look_at_csv(file);
      d["header"] = *look.options.header;
      if (look.numbers) {
        const auto table = open_csv(file, look.options);
        Value item = Value::object({{"name", file.stem().string()},
                                    {"shape", Value(std::vector<Index>{table.samples->frames(), table.columns})},
                                    {"type", "f64"}});
        if (!table.names.empty()) item["columns"] = Value(table.names);
        add_range_if_small(item, *table.samples, table.columns);
        contents.push_back(std::move(item));
      } else {
        contents.push_back(describe_table(read_csv_table(file, look.options)));
      }
      break;
    }
    case Kind::npy: {
      const NpyInfo info = read_npy_info(file);
      Value item = Value::object({{"name", file.stem().string()},
                                  {"shape", Value(info.shape)},
                                  {"type", info.type},
                                  {"fortran_order", info.fortran_order}});
      add_range_if_small(item, *open_npy(file), size_of(info.frame_shape()));
      contents.push_back(std::move(item));
      break;
    }
    case Kind::nifti: {
      const Value image = describe_nifti(file);
      contents.push_back(
          Value::object({{"name", image.at("name")}, {"shape", image.at("shape")}, {"type", image.at("type")}}));
      d["image"] = image;
      break;
    }
    case Kind::gifti:
      d["gifti"] = describe_gifti(file, false);
      break;
    case Kind::idx: {
      const IdxInfo info = read_idx_info(file);
      Value item = Value::object(
          {{"name", file.filename().string()}, {"shape", Value(info.shape)}, {"type", name_of(info.type)}});
      add_range_if_small(item, *open_idx(file), size_of(info.frame_shape()));
      contents.push_back(std::move(item));
      break;
    }
    case Kind::mat:
      for (const auto& v : list_mat(file)) {
        Value item =
            Value::object({{"name", v.name}, {"shape", Value(v.shape)}, {"type", v.type}, {"readable", v.readable}});
        if (v.readable && v.shape[0] <= kSmallValues / v.shape[1]) {
          const MemorySource samples(read_mat(file, v.name));
          add_range(item, samples, samples.matrix().rows());
        }
        contents.push_back(std::move(item));
      }
      break;
    case Kind::hdf5:
      for (const auto& v : list_hdf5(file)) {
        Value item =
            Value::object({{"name", v.path}, {"shape", Value(v.shape)}, {"type", v.type}, {"readable", v.readable}});
        if (v.readable) add_range_if_small(item, *open_hdf5(file, v.path), v.shape.size() == 1 ? 1 : v.shape[1]);
        contents.push_back(std::move(item));
      }
      break;
    case Kind::session:
    case Kind::store: {
      const Recording r = open_own(file, kind);
      d["name"] = r.name;
      d["meta"] = r.meta;
      d["events"] = r.events.size();
      for (const auto& s : r.streams) {
        Value item = Value::object({{"name", s.name},
                                    {"frames", s.frames()},
                                    {"format", s.format.describe()},
                                    {"axis", name_of(s.format.axis)},
                                    {"type", name_of(s.format.scalar)}});
        if (s.format.axis == Axis::time) {
          item["rate_hz"] = s.format.rate_hz;
          item["start_s"] = s.format.start_s;
        }
        Value parts = Value::array();
        for (const auto& p : s.format.parts)
          parts.push_back(Value::object({{"name", p.name}, {"shape", Value(p.shape)}, {"unit", p.unit}}));
        item["parts"] = std::move(parts);
        add_range_if_small(item, *s.samples, s.format.size());
        contents.push_back(std::move(item));
      }
      Value tables = Value::array();
      for (const auto& t : r.tables) tables.push_back(describe_table(t));
      d["tables"] = std::move(tables);
      break;
    }
  }
  d["contents"] = std::move(contents);
  return d;
}

void check_file(const fs::path& file) {
  Value ignored;
  switch (kind_of(file)) {
    case Kind::csv: {
      const CsvLook look = look_at_csv(file);
      if (look.numbers) open_csv(file, look.options);
      else read_csv_table(file, look.options);
      break;
    }
    case Kind::npy:
      add_range(ignored, *open_npy(file), size_of(read_npy_info(file).frame_shape()));
      break;
    case Kind::idx:
      open_idx(file);
      break;
    case Kind::nifti: {
      const NiftiHeader header = read_nifti_header(file);
      check_nifti_length(file, header);
      describe_nifti(file);
      break;
    }
    case Kind::gifti:
      describe_gifti(file, true);
      break;
    case Kind::mat:
      list_mat(file);
      break;  // a child process has read all of it
    case Kind::hdf5:
      list_hdf5(file);
      break;
    case Kind::session:  // every byte of it goes through its checksum
      if (const auto scan = scan_session(file, [](const SessionRecordView&) {}); scan.cut_bytes > 0)
        throw DataError(file.string(), fmt::format("byte {}", scan.good_bytes), "a whole record",
                        fmt::format("{} bytes that are none (what is before them can be used)", scan.cut_bytes));
      open_session(file);
      break;
    case Kind::store:
      for (const auto& s : open_store(file).streams) add_range(ignored, *s.samples, s.format.size());
      break;
  }
}

}  // namespace percept::io
