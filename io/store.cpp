#include "io/store.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hdf5.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "io/format_value.h"
#include "io/hdf5_handle.h"
#include "io/input_file.h"

namespace percept::io {
namespace fs = std::filesystem;

// The file: "index" is JSON text (what there is, formats, names); the rest are plain arrays:
//   stream<i> {frames, rows} f32 or f64 and stream<i>_keys {frames} i64,
//   table<i>_<column> {rows} f64, or u8 (all text) with table<i>_<column>_bytes {rows} i64 (the length of each),
//   event_times {events, 3} f64 (onset, duration, value), event_ids {events, 4} i64 (id, label, row, origin).
// Every array is chunked with a Fletcher32 checksum; HDF5's newest format puts checksums on the structure.

namespace {

constexpr hsize_t kChunkBytes = hsize_t{256} << 10;
constexpr hsize_t kChunkRow = hsize_t{1} << 20;  ///< scalars of one frame in a chunk

[[noreturn]] void store_error(const fs::path& file, const std::string& field, const std::string& expected,
                              const std::string& found) {
  throw DataError(file.string(), field, expected, found);
}

template <class T>
hid_t native_type() {
  if constexpr (std::is_same_v<T, float>) return H5T_NATIVE_FLOAT;
  else if constexpr (std::is_same_v<T, double>) return H5T_NATIVE_DOUBLE;
  else if constexpr (std::is_same_v<T, std::int64_t>) return H5T_NATIVE_INT64;
  else return H5T_NATIVE_UINT8;
}
hid_t native_type(Scalar s) { return s == Scalar::f32 ? native_type<float>() : native_type<double>(); }

/// A stream must be one that can be read back.
void check_format(const StreamFormat& f, const fs::path& file, const std::string& name) {
  try {
    if (!std::isfinite(f.rate_hz) || !std::isfinite(f.start_s)) throw Error("not finite");
    format_from_value(format_to_value(f));
  } catch (const Error&) {
    store_error(file, name, "a format with parts, shapes of at least 1, and a finite rate above 0 on the time axis",
                f.describe());
  }
}

}  // namespace

/// An array {length, width} that grows at its end, written in whole chunks, so that the file does not depend on how its
/// rows were cut into calls.
class GrowingArray {
 public:
  GrowingArray(hid_t file, const fs::path& path, std::string name, hid_t type, hsize_t width)
      : file_(file), path_(path), name_(std::move(name)), type_(type), width_(width) {
    Hdf5Lock lock;
    const hsize_t row_bytes = width * H5Tget_size(type);
    chunk_ = std::max<hsize_t>(1, kChunkBytes / row_bytes);
    row_bytes_ = static_cast<std::size_t>(row_bytes);
  }
  /// Room for the next row, to be filled by the caller.
  std::byte* next_row() {
    if (rows_ == chunk_) flush();
    if ((rows_ + 1) * row_bytes_ > buffer_.size())
      buffer_.resize(std::min<std::size_t>(chunk_ * row_bytes_, std::max(row_bytes_, 2 * buffer_.size())));
    return buffer_.data() + rows_++ * row_bytes_;
  }
  hsize_t length() const { return length_ + rows_; }
  void finish() {
    flush();
    if (!set_.close()) fail();
  }

 private:
  [[noreturn]] void fail() const { store_error(path_, name_, "a place that can be written", hdf5_complaint()); }

  void flush() {
    Hdf5Lock lock;
    if (!set_.ok()) create();
    if (rows_ == 0) return;
    const hsize_t start[2] = {length_, 0}, count[2] = {rows_, width_}, size[2] = {length_ + rows_, width_};
    if (H5Dset_extent(set_.get(), size) < 0) fail();
    const Hdf5Handle space(H5Dget_space(set_.get()), H5Sclose), memory(H5Screate_simple(2, count, nullptr), H5Sclose);
    if (H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start, nullptr, count, nullptr) < 0 ||
        H5Dwrite(set_.get(), type_, memory.get(), space.get(), H5P_DEFAULT, buffer_.data()) < 0)
      fail();
    length_ += rows_;
    rows_ = 0;
  }
  void create() {
    const Hdf5Handle plist(H5Pcreate(H5P_DATASET_CREATE), H5Pclose), access(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
    const hsize_t chunk[2] = {std::max<hsize_t>(1, rows_), std::min(width_, kChunkRow)};
    const hsize_t size[2] = {0, width_}, most[2] = {H5S_UNLIMITED, width_};
    H5Pset_chunk(plist.get(), 2, chunk);
    H5Pset_fletcher32(plist.get());
    H5Pset_fill_time(plist.get(), H5D_FILL_TIME_ALLOC);
    H5Pset_obj_track_times(plist.get(), false);
    H5Pset_chunk_cache(access.get(), 0, 0, 1.0);  // chunks come whole: straight to the file, in order
    const Hdf5Handle space(H5Screate_simple(2, size, most), H5Sclose);
    set_ = Hdf5Handle(H5Dcreate2(file_, name_.c_str(), type_, space.get(), H5P_DEFAULT, plist.get(), access.get()),
                      H5Dclose);
    if (!set_.ok()) fail();
  }

  hid_t file_;
  fs::path path_;
  std::string name_;
  hid_t type_;
  hsize_t width_, chunk_ = 1, length_ = 0, rows_ = 0;
  std::size_t row_bytes_ = 0;
  std::vector<std::byte> buffer_;
  Hdf5Handle set_;
};

namespace {

template <class T>
void write_array(hid_t file, const fs::path& path, const std::string& name, std::span<const T> values,
                 hsize_t width = 1) {
  GrowingArray array(file, path, name, native_type<T>(), width);
  for (std::size_t at = 0; at < values.size(); at += width)
    std::memcpy(array.next_row(), values.data() + at, width * sizeof(T));
  array.finish();
}

}  // namespace

struct StoreWriter::Impl {
  struct Growing {
    std::string name;
    StreamFormat format;
    GrowingArray samples;
    std::unique_ptr<GrowingArray> keys;
    std::int64_t last_key = 0;
  };

  explicit Impl(const fs::path& f) : path(f), target(f) {
    Hdf5Lock lock;
    const Hdf5Handle create(H5Pcreate(H5P_FILE_CREATE), H5Pclose), access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
    H5Pset_libver_bounds(access.get(), H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
    H5Pset_obj_track_times(create.get(), false);
    file = Hdf5Handle(H5Fcreate(target.path().c_str(), H5F_ACC_TRUNC, create.get(), access.get()), H5Fclose);
    if (!file.ok()) store_error(path, "", "a place that can be written", hdf5_complaint());
  }
  Growing& at(int stream) {
    if (stream < 0 || static_cast<std::size_t>(stream) >= streams.size())
      store_error(path, "stream", fmt::format("a number below {}", streams.size()), fmt::format("{}", stream));
    return *streams[static_cast<std::size_t>(stream)];
  }

  fs::path path;
  AtomicPath target;
  Hdf5Handle file;
  std::string name;
  Value meta = Value::table(), tables = Value::array(), labels = Value::array();
  std::vector<std::unique_ptr<Growing>> streams;
  std::unique_ptr<GrowingArray> event_times, event_ids;
  std::map<std::int32_t, std::int64_t> label_of;  ///< ids of this process are not those of the next
  double last_onset = -std::numeric_limits<double>::infinity();
};

StoreWriter::StoreWriter(const fs::path& file) : impl_(std::make_unique<Impl>(file)) {}
StoreWriter::~StoreWriter() = default;

void StoreWriter::set_name(const std::string& name) { impl_->name = name; }
void StoreWriter::set_meta(const Value& meta) { impl_->meta = meta; }

int StoreWriter::add_stream(const std::string& name, const StreamFormat& format) {
  auto& im = *impl_;
  for (const auto& s : im.streams)
    if (s->name == name) store_error(im.path, "stream", "names that differ", fmt::format("'{}' twice", name));
  check_format(format, im.path, name);
  const std::string array = fmt::format("stream{}", im.streams.size());
  auto s = std::make_unique<Impl::Growing>(Impl::Growing{
      name, format,
      GrowingArray(im.file.get(), im.path, array, native_type(format.scalar), static_cast<hsize_t>(format.size())),
      nullptr, std::numeric_limits<std::int64_t>::min()});
  if (format.axis == Axis::item)
    s->keys = std::make_unique<GrowingArray>(im.file.get(), im.path, array + "_keys", native_type<std::int64_t>(), 1);
  im.streams.push_back(std::move(s));
  return static_cast<int>(im.streams.size()) - 1;
}

void StoreWriter::append(int stream, ConstFrames frames, std::span<const std::int64_t> keys) {
  auto& s = impl_->at(stream);
  const Index rows = s.format.size();
  if (frames.rows != rows)
    store_error(impl_->path, s.name, fmt::format("frames of {} rows", rows), fmt::format("{}", frames.rows));
  if (keys.size() != (s.keys ? static_cast<std::size_t>(frames.frames) : 0))
    store_error(impl_->path, s.name,
                s.keys ? fmt::format("{} keys, one a frame", frames.frames) : "no keys on the time axis",
                fmt::format("{}", keys.size()));
  for (Index k = 0; k < frames.frames; ++k)
    copy_frames(frames.slice(k, 1), MutableFrames(s.samples.next_row(), s.format.scalar, rows, 1, rows));
  for (const std::int64_t key : keys) {
    if (key <= s.last_key && s.keys->length() > 0)
      store_error(impl_->path, s.name, fmt::format("rising keys (above {})", s.last_key), fmt::format("{}", key));
    s.last_key = key;
    std::memcpy(s.keys->next_row(), &key, sizeof key);
  }
}

void StoreWriter::add_table(const Table& table) {
  auto& im = *impl_;
  const std::size_t rows = table.columns.empty() ? 0 : table.columns[0].size();
  Value columns = Value::array();
  for (std::size_t c = 0; c < table.columns.size(); ++c) {
    const auto& column = table.columns[c];
    if (column.size() != rows)
      store_error(im.path, table.name + "." + column.name, fmt::format("{} rows as in the first column", rows),
                  fmt::format("{}", column.size()));
    const std::string array = fmt::format("table{}_{}", im.tables.size(), c);
    if (column.is_text()) {
      std::string all;
      std::vector<std::int64_t> lengths;
      for (const auto& t : column.text) {
        all += t;
        lengths.push_back(static_cast<std::int64_t>(t.size()));
      }
      write_array<unsigned char>(im.file.get(), im.path, array,
                                 {reinterpret_cast<const unsigned char*>(all.data()), all.size()});
      write_array<std::int64_t>(im.file.get(), im.path, array + "_bytes", lengths);
    } else {
      write_array<double>(im.file.get(), im.path, array, column.numbers);
    }
    columns.push_back(Value::object({{"name", column.name}, {"text", column.is_text()}}));
  }
  im.tables.push_back(Value::object({{"name", table.name}, {"rows", rows}, {"columns", std::move(columns)}}));
}

void StoreWriter::add_events(std::span<const Event> events) {
  auto& im = *impl_;
  if (events.empty()) return;
  if (!im.event_times) {
    im.event_times = std::make_unique<GrowingArray>(im.file.get(), im.path, "event_times", native_type<double>(), 3);
    im.event_ids = std::make_unique<GrowingArray>(im.file.get(), im.path, "event_ids", native_type<std::int64_t>(), 4);
  }
  for (const Event& e : events) {
    if (!(e.onset_s >= im.last_onset))
      store_error(im.path, "events", fmt::format("rising onsets (from {} s)", im.last_onset),
                  fmt::format("{} s", e.onset_s));
    im.last_onset = e.onset_s;
    const auto [label, fresh] = im.label_of.try_emplace(e.label.id(), static_cast<std::int64_t>(im.labels.size()));
    if (fresh) im.labels.push_back(e.label.text());
    const double times[3] = {e.onset_s, e.duration_s, e.value};
    const std::int64_t ids[4] = {e.id, label->second, e.row, e.origin};
    std::memcpy(im.event_times->next_row(), times, sizeof times);
    std::memcpy(im.event_ids->next_row(), ids, sizeof ids);
  }
}

void StoreWriter::commit() {
  auto& im = *impl_;
  Value streams = Value::array();
  for (auto& s : im.streams) {
    streams.push_back(
        Value::object({{"name", s->name}, {"frames", s->samples.length()}, {"format", format_to_value(s->format)}}));
    s->samples.finish();
    if (s->keys) s->keys->finish();
  }
  const std::uint64_t events = im.event_times ? im.event_times->length() : 0;
  if (events) {
    im.event_times->finish();
    im.event_ids->finish();
  }
  const std::string index = to_json(Value::object({{"percept_store", kStoreVersion},
                                                   {"name", im.name},
                                                   {"meta", im.meta},
                                                   {"streams", std::move(streams)},
                                                   {"tables", im.tables},
                                                   {"events", events},
                                                   {"labels", im.labels}}));
  write_array<unsigned char>(im.file.get(), im.path, "index",
                             {reinterpret_cast<const unsigned char*>(index.data()), index.size()});
  if (!im.file.close()) store_error(im.path, "", "a place that can be written", hdf5_complaint());
  im.target.commit();
}

void write_store(const fs::path& file, const Recording& recording) {
  StoreWriter out(file);
  out.set_name(recording.name);
  out.set_meta(recording.meta);
  for (const auto& s : recording.streams) {
    const int stream = out.add_stream(s.name, s.format);
    if (s.format.axis == Axis::item && static_cast<std::int64_t>(s.keys.size()) != s.frames())
      store_error(file, s.name, fmt::format("{} keys, one a frame", s.frames()), fmt::format("{}", s.keys.size()));
    const Index rows = s.format.size();
    const Index block = std::clamp<Index>((Index{1} << 20) / rows, 1, 65536);
    std::vector<double> wide(s.format.scalar == Scalar::f64 ? static_cast<std::size_t>(block * rows) : 0);
    std::vector<float> narrow(s.format.scalar == Scalar::f32 ? static_cast<std::size_t>(block * rows) : 0);
    for (std::int64_t first = 0; first < s.frames(); first += block) {
      const Index n = std::min<Index>(block, s.frames() - first);
      void* data = wide.empty() ? static_cast<void*>(narrow.data()) : wide.data();
      const MutableFrames frames(data, s.format.scalar, rows, n, rows);
      s.samples->read(first, frames);
      out.append(stream, frames,
                 s.format.axis == Axis::item
                     ? std::span(s.keys).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n))
                     : std::span<const std::int64_t>());
    }
  }
  for (const auto& t : recording.tables) out.add_table(t);
  out.add_events(recording.events);
  out.commit();
}

namespace {

/// An open store, shared by its streams.
struct StoreFile {
  fs::path path;
  Hdf5Handle file;
  std::uint64_t bytes = 0;

  /// The array, if it has exactly this type and size, and all of it is in the file.
  Hdf5Handle open(const std::string& name, hid_t type, hsize_t length, hsize_t width) const {
    const Hdf5Handle access(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
    H5Pset_chunk_cache(access.get(), 521, 2 * kChunkBytes, 1.0);
    Hdf5Handle set(H5Dopen2(file.get(), name.c_str(), access.get()), H5Dclose);
    if (!set.ok()) store_error(path, name, "an array", hdf5_complaint());
    const Hdf5Handle is(H5Dget_type(set.get()), H5Tclose), space(H5Dget_space(set.get()), H5Sclose),
        plist(H5Dget_create_plist(set.get()), H5Pclose);
    hsize_t size[2] = {};
    const bool fits = H5Sget_simple_extent_ndims(space.get()) == 2 &&
                      H5Sget_simple_extent_dims(space.get(), size, nullptr) == 2 && H5Tequal(is.get(), type) > 0 &&
                      H5Pget_layout(plist.get()) == H5D_CHUNKED && (length == kAnyLength || size[0] == length) &&
                      size[1] == width;
    const hsize_t row = width * H5Tget_size(type), stored = fits ? H5Dget_storage_size(set.get()) : 0;
    if (!fits || stored > bytes || stored / row < size[0])
      store_error(
          path, name,
          fmt::format("an array of {} x {} numbers", length == kAnyLength ? "any" : std::to_string(length), width),
          "another");
    return set;
  }
  template <class T>
  std::vector<T> read(const std::string& name, hsize_t length, hsize_t width = 1) const {
    const Hdf5Handle set = open(name, native_type<T>(), length, width);
    const Hdf5Handle space(H5Dget_space(set.get()), H5Sclose);
    std::vector<T> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space.get())));
    if (!values.empty() && H5Dread(set.get(), native_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
      store_error(path, name, "undamaged data", hdf5_complaint());
    return values;
  }
  static constexpr hsize_t kAnyLength = std::numeric_limits<hsize_t>::max();
};

class StoreSource final : public SampleSource {
 public:
  StoreSource(std::shared_ptr<StoreFile> file, std::string name, Scalar scalar, hsize_t frames, hsize_t rows)
      : file_(std::move(file)), name_(std::move(name)), frames_(frames), rows_(rows),
        set_(file_->open(name_, native_type(scalar), frames, rows)) {}
  std::int64_t frames() const override { return static_cast<std::int64_t>(frames_); }

  void read(std::int64_t first, MutableFrames out) const override {
    const Index rows = static_cast<Index>(rows_);
    if (first < 0 || out.frames < 0 || first + out.frames > frames() || out.rows != rows)
      store_error(file_->path, name_, fmt::format("{} rows in a range inside [0, {})", rows_, frames_),
                  fmt::format("{} rows in [{}, {})", out.rows, first, first + out.frames));
    if (out.frames == 0) return;
    Hdf5Lock lock;
    const hsize_t start[2] = {static_cast<hsize_t>(first), 0}, count[2] = {static_cast<hsize_t>(out.frames), rows_};
    // frames of the caller may lie apart
    const hsize_t room[2] = {count[0], static_cast<hsize_t>(out.stride)}, zero[2] = {0, 0};
    const Hdf5Handle space(H5Dget_space(set_.get()), H5Sclose), memory(H5Screate_simple(2, room, nullptr), H5Sclose);
    if (H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start, nullptr, count, nullptr) < 0 ||
        H5Sselect_hyperslab(memory.get(), H5S_SELECT_SET, zero, nullptr, count, nullptr) < 0 ||
        H5Dread(set_.get(), native_type(out.scalar), memory.get(), space.get(), H5P_DEFAULT, out.data) < 0)
      store_error(file_->path, name_, fmt::format("undamaged data in frames [{}, {})", first, first + out.frames),
                  hdf5_complaint());
  }

 private:
  std::shared_ptr<StoreFile> file_;
  std::string name_;
  hsize_t frames_, rows_;
  Hdf5Handle set_;
};

Recording read_index(const std::shared_ptr<StoreFile>& store) {
  const auto text = store->read<unsigned char>("index", StoreFile::kAnyLength);
  const Value index = parse_json({reinterpret_cast<const char*>(text.data()), text.size()}, store->path.string());
  const Value* version = index.find("percept_store");
  if (!version || !version->is_integer()) store_error(store->path, "index", "a store of percept", "another file");
  if (version->as_integer() < 1 || version->as_integer() > kStoreVersion)
    store_error(store->path, "version", fmt::format("a store of version 1 to {}", kStoreVersion),
                fmt::format("{}", version->as_integer()));

  const auto count = [&](const Value& v) {
    if (v.as_integer() < 0) throw Error("a count of at least 0 was expected");
    return static_cast<hsize_t>(v.as_integer());
  };
  Recording r;
  r.name = index.at("name").as_string();
  r.meta = index.at("meta");
  for (const auto& entry : index.at("streams").as_array()) {
    const std::string array = fmt::format("stream{}", r.streams.size());
    Stream s;
    s.name = entry.at("name").as_string();
    s.format = format_from_value(entry.at("format"));
    const hsize_t frames = count(entry.at("frames"));
    s.samples =
        std::make_shared<StoreSource>(store, array, s.format.scalar, frames, static_cast<hsize_t>(s.format.size()));
    if (s.format.axis == Axis::item) {
      s.keys = store->read<std::int64_t>(array + "_keys", frames);
      if (std::adjacent_find(s.keys.begin(), s.keys.end(), std::greater_equal<>()) != s.keys.end())
        throw Error("rising keys were expected");
    }
    r.streams.push_back(std::move(s));
  }
  for (const auto& entry : index.at("tables").as_array()) {
    Table t;
    t.name = entry.at("name").as_string();
    const hsize_t rows = count(entry.at("rows"));
    for (const auto& c : entry.at("columns").as_array()) {
      const std::string array = fmt::format("table{}_{}", r.tables.size(), t.columns.size());
      Column column{.name = c.at("name").as_string(), .numbers = {}, .text = {}};
      if (c.at("text").as_bool()) {
        const auto all = store->read<unsigned char>(array, StoreFile::kAnyLength);
        std::size_t at = 0;
        for (const std::int64_t n : store->read<std::int64_t>(array + "_bytes", rows)) {
          if (n < 0 || static_cast<std::size_t>(n) > all.size() - at)
            throw Error("text as long as its cells was expected");
          column.text.emplace_back(reinterpret_cast<const char*>(all.data()) + at, static_cast<std::size_t>(n));
          at += static_cast<std::size_t>(n);
        }
      } else {
        column.numbers = store->read<double>(array, rows);
      }
      t.columns.push_back(std::move(column));
    }
    r.tables.push_back(std::move(t));
  }
  if (const hsize_t events = count(index.at("events"))) {
    const auto times = store->read<double>("event_times", events, 3);
    const auto ids = store->read<std::int64_t>("event_ids", events, 4);
    const auto& labels = index.at("labels").as_array();
    for (std::size_t i = 0; i < events; ++i) {
      const std::size_t label = static_cast<std::size_t>(ids[4 * i + 1]);
      if (label >= labels.size()) throw Error("a label that there is was expected");
      r.events.push_back({.onset_s = times[3 * i],
                          .duration_s = times[3 * i + 1],
                          .value = times[3 * i + 2],
                          .id = ids[4 * i],
                          .label = Label::of(labels[label].as_string()),
                          .row = static_cast<std::int32_t>(ids[4 * i + 2]),
                          .origin = static_cast<std::int32_t>(ids[4 * i + 3])});
    }
  }
  return r;
}

}  // namespace

Recording open_store(const fs::path& file) {
  std::uint64_t bytes = 0;
  {
    // older formats have no checksums on their structure, and libhdf5 crashes on broken ones: they do not get there
    const InputFile input(file);
    bytes = input.bytes();
    static constexpr unsigned char kStart[] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n', 3};
    unsigned char start[sizeof kStart] = {};
    input.read_some(0, start, sizeof start);
    if (!std::equal(start, start + sizeof start, kStart))
      store_error(file, "", "a store of percept (HDF5 with superblock 3)",
                  std::equal(start, start + 8, kStart) ? fmt::format("HDF5 with superblock {}", start[8])
                                                       : "another kind of file");
  }
  Hdf5Lock lock;
  auto store = std::make_shared<StoreFile>(StoreFile{file, open_hdf5_file(file), bytes});
  try {
    return read_index(store);
  } catch (const DataError&) {
    throw;
  } catch (const Error& e) {
    store_error(file, "index", "what percept writes", e.what());
  }
}

}  // namespace percept::io
