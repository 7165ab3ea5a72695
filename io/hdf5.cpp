#include "io/hdf5.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hdf5.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "core/error.h"
#include "io/hdf5_handle.h"
#include "io/input_file.h"

namespace percept::io {
namespace fs = std::filesystem;

static_assert(std::is_same_v<hid_t, std::int64_t> && std::is_same_v<herr_t, int>);

std::recursive_mutex& hdf5_mutex() {
  static std::recursive_mutex m;
  return m;
}

Hdf5Lock::Hdf5Lock() : lock_(hdf5_mutex()) {
  // a damaged file may refuse to be closed: at the end of the program libhdf5 would complain of it on stderr
  [[maybe_unused]] static const herr_t once = H5dont_atexit();
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Hdf5Handle::~Hdf5Handle() { close(); }

bool Hdf5Handle::close() {
  if (id_ < 0) return true;
  Hdf5Lock lock;
  return close_(std::exchange(id_, -1)) >= 0;
}

std::string hdf5_complaint() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned, const H5E_error2_t* e, void* to) -> herr_t {
        auto& t = *static_cast<std::string*>(to);
        if (t.empty() && e->desc) t = e->desc;  // the innermost one
        return 0;
      },
      &text);
  return text.empty() ? "what libhdf5 cannot read" : text;
}

Hdf5Handle open_hdf5_file(const fs::path& file) {
  Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_file_locking(access.get(), false, true);
  Hdf5Handle handle(H5Fopen(file.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (!handle.ok()) throw DataError(file.string(), "", "an HDF5 file", hdf5_complaint());
  return handle;
}

namespace {

/// Numbers read from libhdf5 at once while a whole data set is walked or transposed.
constexpr hsize_t kHdf5Block = hsize_t{1} << 20;

struct OpenedSet {
  Hdf5Handle set, type, space;
  std::vector<hsize_t> shape;
  Hdf5Dataset info;
};

std::string hdf5_type_name(hid_t type) {
  const std::size_t bits = 8 * H5Tget_size(type);
  switch (H5Tget_class(type)) {
    case H5T_INTEGER:
      return fmt::format("{}{}", H5Tget_sign(type) == H5T_SGN_NONE ? 'u' : 'i', bits);
    case H5T_FLOAT:
      return fmt::format("f{}", bits);
    case H5T_STRING:
      return "text";
    case H5T_COMPOUND:
      return "compound";
    case H5T_ENUM:
      return "enum";
    case H5T_REFERENCE:
      return "reference";
    case H5T_VLEN:
      return "variable-length";
    case H5T_ARRAY:
      return "array";
    default:
      return "other";
  }
}

/// Its data lie in this file: neither elsewhere on the disk nor in other data sets.
bool holds_its_data(hid_t set) {
  const Hdf5Handle plist(H5Dget_create_plist(set), H5Pclose);
  const auto layout = H5Pget_layout(plist.get());
  return H5Pget_external_count(plist.get()) == 0 &&
         (layout == H5D_COMPACT || layout == H5D_CONTIGUOUS || layout == H5D_CHUNKED);
}

/// False where a filter of its chunks is a plug-in that is not here: no data can be read then.
bool can_unpack(hid_t set) {
  const Hdf5Handle plist(H5Dget_create_plist(set), H5Pclose);
  for (int i = 0; i < H5Pget_nfilters(plist.get()); ++i) {
    unsigned flags = 0, config = 0;
    std::size_t values = 0;
    const H5Z_filter_t filter =
        H5Pget_filter2(plist.get(), static_cast<unsigned>(i), &flags, &values, nullptr, 0, nullptr, &config);
    if (filter < 0 || H5Zfilter_avail(filter) <= 0) return false;
  }
  return true;
}

/// `transpose` decides which row of chunks is kept while frames are read in order.
OpenedSet open_set(hid_t file_id, const fs::path& file, const std::string& path, bool transpose) {
  OpenedSet o;
  o.set = Hdf5Handle(H5Dopen2(file_id, path.c_str(), H5P_DEFAULT), H5Dclose);
  if (o.set.ok()) o.type = Hdf5Handle(H5Dget_type(o.set.get()), H5Tclose);
  if (o.set.ok()) o.space = Hdf5Handle(H5Dget_space(o.set.get()), H5Sclose);
  if (!o.type.ok() || !o.space.ok()) throw DataError(file.string(), path, "a readable data set", hdf5_complaint());
  o.info.path = path;
  o.info.type = hdf5_type_name(o.type.get());
  const int rank = H5Sget_simple_extent_ndims(o.space.get());
  const bool simple = H5Sget_simple_extent_type(o.space.get()) != H5S_NULL && rank >= 0;
  if (simple && rank > 0) {
    o.shape.resize(static_cast<std::size_t>(rank));
    H5Sget_simple_extent_dims(o.space.get(), o.shape.data(), nullptr);
  }
  hsize_t numbers = 1;
  bool countable = simple;
  for (const hsize_t s : o.shape) {
    countable = countable && (s == 0 || numbers <= static_cast<hsize_t>(std::numeric_limits<Index>::max()) / 16 / s);
    if (countable) numbers *= s;
  }
  if (!countable) {
    if (simple)
      throw DataError(file.string(), path, "a data set that can exist",
                      fmt::format("shape ({})", fmt::join(o.shape, ", ")));
    return o;
  }
  o.info.shape.assign(o.shape.begin(), o.shape.end());
  const H5T_class_t kind = H5Tget_class(o.type.get());
  const std::size_t bytes = H5Tget_size(o.type.get());
  o.info.scalar = (kind == H5T_FLOAT && bytes <= 4) || (kind == H5T_INTEGER && bytes <= 2) ? Scalar::f32 : Scalar::f64;
  o.info.readable = (rank == 1 || rank == 2) && (kind == H5T_INTEGER || kind == H5T_FLOAT) && bytes <= 8 &&
                    numbers > 0 && holds_its_data(o.set.get()) && can_unpack(o.set.get());
  if (!o.info.readable) return o;

  const Hdf5Handle plist(H5Dget_create_plist(o.set.get()), H5Pclose);
  if (H5Pget_layout(plist.get()) != H5D_CHUNKED) return o;
  std::vector<hsize_t> chunk(o.shape.size());
  H5Pget_chunk(plist.get(), rank, chunk.data());
  const std::size_t other = rank == 2 ? (transpose ? 0 : 1) : 0;
  hsize_t chunk_bytes = bytes, across = 1;
  for (const hsize_t c : chunk) chunk_bytes *= c;
  if (rank == 2) across = (o.shape[other] + chunk[other] - 1) / chunk[other];
  // one row of chunks, else each block of frames would unpack them again
  constexpr hsize_t kMostCache = hsize_t{64} << 20;
  const std::size_t cache =
      static_cast<std::size_t>(std::clamp<hsize_t>(chunk_bytes * std::min(across, kMostCache), 1 << 20, kMostCache));
  const Hdf5Handle access(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
  H5Pset_chunk_cache(access.get(), 12421, cache, 1.0);
  o.set = Hdf5Handle(H5Dopen2(file_id, path.c_str(), access.get()), H5Dclose);
  if (!o.set.ok()) throw DataError(file.string(), path, "a readable data set", hdf5_complaint());
  return o;
}

/// Paths of the data sets, sorted; links that lead out of the file are not followed.
std::vector<std::string> object_paths(hid_t file_id, const fs::path& file, H5O_type_t wanted) {
  struct Found {
    std::vector<std::string> paths;
    H5O_type_t wanted;
  } found{{}, wanted};
  const herr_t status = H5Ovisit2(
      file_id, H5_INDEX_NAME, H5_ITER_INC,
      [](hid_t, const char* name, const H5O_info_t* info, void* to) -> herr_t {
        auto& f = *static_cast<Found*>(to);
        if (f.wanted == H5O_TYPE_UNKNOWN || info->type == f.wanted)
          f.paths.push_back(std::string_view(name) == "." ? "/" : "/" + std::string(name));
        return 0;
      },
      &found, H5O_INFO_BASIC);
  if (status < 0) throw DataError(file.string(), "", "a readable HDF5 file", hdf5_complaint());
  std::sort(found.paths.begin(), found.paths.end());
  return std::move(found.paths);
}

class Hdf5Source final : public SampleSource {
 public:
  Hdf5Source(const fs::path& file, const std::string& dataset, bool transpose) : name_(file), transpose_(transpose) {
    Hdf5Lock lock;
    file_ = open_hdf5_file(file);
    const std::string path = dataset.starts_with('/') ? dataset : "/" + dataset;
    const auto paths = object_paths(file_.get(), file, H5O_TYPE_DATASET);
    if (std::find(paths.begin(), paths.end(), path) == paths.end())
      throw DataError(file.string(), "data set", fmt::format("one of {}", fmt::join(paths, ", ")),
                      fmt::format("'{}'{}", dataset, did_you_mean(path, paths)));
    set_ = open_set(file_.get(), file, path, transpose);
    if (!set_.info.readable)
      throw DataError(file.string(), path,
                      "numbers in one or two dimensions, held in this file and packed by a known filter",
                      fmt::format("{} of shape ({})", set_.info.type, fmt::join(set_.shape, ", ")));
    axis_ = set_.shape.size() == 2 && transpose ? 1 : 0;
    rows_ = set_.shape.size() == 2 ? set_.shape[1 - axis_] : 1;
    // wider integers would be rounded silently
    if (set_.info.type == "i64") wide_ = H5T_NATIVE_INT64;
    if (set_.info.type == "u64") wide_ = H5T_NATIVE_UINT64;
  }
  const Hdf5Dataset& info() const { return set_.info; }
  Index rows() const { return static_cast<Index>(rows_); }
  std::int64_t frames() const override { return static_cast<std::int64_t>(set_.shape[axis_]); }

  void read(std::int64_t first, MutableFrames out) const override {
    if (first < 0 || out.frames < 0 || first + out.frames > frames() || out.rows != rows())
      throw DataError(name_.string(), set_.info.path,
                      fmt::format("{} rows in a range inside [0, {})", rows(), frames()),
                      fmt::format("{} rows in [{}, {})", out.rows, first, first + out.frames));
    if (out.scalar == Scalar::f32) read_as(first, out.as<float>());
    else read_as(first, out.as<double>());
  }

 private:
  template <class T>
  void read_as(std::int64_t first, FrameSpan<T> out) const {
    if (out.frames == 0) return;
    const hid_t native = std::is_same_v<T, float> ? H5T_NATIVE_FLOAT : H5T_NATIVE_DOUBLE;
    if (!transpose_ && wide_ < 0 && out.stride == out.rows) return fetch(first, out.frames, native, out.data);
    std::vector<T> values;
    std::vector<std::int64_t> integers;
    const Index at_once = std::clamp<Index>(static_cast<Index>(kHdf5Block / rows_), 1, out.frames);
    for (Index k = 0; k < out.frames; k += at_once) {
      const Index n = std::min(at_once, out.frames - k);
      values.resize(static_cast<std::size_t>(n * out.rows));
      if (wide_ < 0) {
        fetch(first + k, n, native, values.data());
      } else {
        integers.resize(values.size());
        fetch(first + k, n, wide_, integers.data());
        constexpr std::int64_t kExact = std::int64_t{1} << 53;
        for (std::size_t i = 0; i < integers.size(); ++i) {
          // an unsigned number beyond 2^63 shows as a negative one
          if (integers[i] > kExact || integers[i] < (wide_ == H5T_NATIVE_INT64 ? -kExact : 0))
            throw DataError(name_.string(), set_.info.path, "whole numbers up to 2^53, which a double holds",
                            "a larger one");
          values[i] = static_cast<T>(integers[i]);
        }
      }
      for (Index i = 0; i < n; ++i)
        for (Index r = 0; r < out.rows; ++r)
          out.frame(k + i)[r] = values[static_cast<std::size_t>(axis_ == 1 ? r * n + i : i * out.rows + r)];
    }
  }
  /// n frames as they lie in the file.
  void fetch(std::int64_t first, Index n, hid_t type, void* to) const {
    Hdf5Lock lock;
    std::vector<hsize_t> start(set_.shape.size(), 0), count = set_.shape;
    start[axis_] = static_cast<hsize_t>(first);
    count[axis_] = static_cast<hsize_t>(n);
    const Hdf5Handle space(H5Scopy(set_.space.get()), H5Sclose);
    const Hdf5Handle memory(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr), H5Sclose);
    if (H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) < 0 ||
        H5Dread(set_.set.get(), type, memory.get(), space.get(), H5P_DEFAULT, to) < 0)
      throw DataError(name_.string(), set_.info.path, fmt::format("readable data in frames [{}, {})", first, first + n),
                      hdf5_complaint());
  }

  fs::path name_;
  bool transpose_;
  Hdf5Handle file_;
  OpenedSet set_;
  std::size_t axis_ = 0;
  hsize_t rows_ = 1;
  hid_t wide_ = -1;
};

std::vector<Hdf5Dataset> list_unprobed(const fs::path& file) {
  Hdf5Lock lock;
  const auto handle = open_hdf5_file(file);
  std::vector<Hdf5Dataset> all;
  for (const auto& path : object_paths(handle.get(), file, H5O_TYPE_DATASET))
    all.push_back(open_set(handle.get(), file, path, false).info);
  return all;
}

/// Everything of one type and space through one reading function, a block at a time.
template <class Read>
void read_all(hid_t file_type, hid_t space, std::vector<hsize_t> shape, const Read& read) {
  const Hdf5Handle type(H5Tget_native_type(file_type, H5T_DIR_DEFAULT), H5Tclose);
  if (!type.ok()) return;  // a type this machine has no name for cannot be read later either
  const std::size_t bytes = H5Tget_size(type.get());
  hsize_t slab = 1;
  for (std::size_t a = 1; a < shape.size(); ++a) slab *= shape[a];
  if (slab == 0 || bytes == 0 || bytes * slab / bytes != slab) return;
  const hsize_t length = shape.empty() ? 1 : shape[0];
  const hsize_t at_once =
      std::clamp<hsize_t>(8 * kHdf5Block / std::max<hsize_t>(1, bytes * slab), 1, std::max<hsize_t>(1, length));
  std::vector<std::byte> block(static_cast<std::size_t>(at_once * slab * bytes));
  for (hsize_t first = 0; first < length; first += at_once) {
    if (!shape.empty()) {
      std::vector<hsize_t> start(shape.size(), 0);
      start[0] = first;
      shape[0] = std::min(at_once, length - first);
      H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, shape.data(), nullptr);
    }
    const Hdf5Handle memory(
        shape.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr),
        H5Sclose);
    read(type.get(), memory.get(), block.data());
    if (H5Tdetect_class(type.get(), H5T_VLEN) > 0 || H5Tis_variable_str(type.get()) > 0)
      H5Dvlen_reclaim(type.get(), memory.get(), H5P_DEFAULT, block.data());
    std::fill(block.begin(), block.end(), std::byte{0});
  }
}

void walk_attributes(hid_t object, const fs::path& file, const std::string& path) {
  std::vector<std::string> names;
  H5Aiterate2(
      object, H5_INDEX_NAME, H5_ITER_INC, nullptr,
      [](hid_t, const char* name, const H5A_info_t*, void* to) -> herr_t {
        static_cast<std::vector<std::string>*>(to)->push_back(name);
        return 0;
      },
      &names);
  for (const auto& name : names) {
    const Hdf5Handle attribute(H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose);
    const auto fail = [&] {
      throw DataError(file.string(), fmt::format("{}@{}", path, name), "a readable attribute", hdf5_complaint());
    };
    if (!attribute.ok()) fail();
    const Hdf5Handle type(H5Aget_type(attribute.get()), H5Tclose), space(H5Aget_space(attribute.get()), H5Sclose);
    const hssize_t n = H5Sget_simple_extent_npoints(space.get());
    if (!type.ok() || n < 0) fail();
    if (n == 0) continue;
    // an attribute is read whole: to the reader it is one list
    std::vector<hsize_t> whole{1, static_cast<hsize_t>(n)};
    read_all(type.get(), space.get(), whole, [&](hid_t native, hid_t, void* to) {
      if (H5Aread(attribute.get(), native, to) < 0) fail();
    });
  }
}

}  // namespace

bool is_hdf5(const fs::path& file) {
  static constexpr unsigned char kSignature[] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  const InputFile input(file);
  for (std::uint64_t at = 0; at < input.bytes(); at = at == 0 ? 512 : 2 * at) {
    unsigned char bytes[sizeof kSignature] = {};
    input.read_some(at, bytes, sizeof bytes);
    if (std::equal(bytes, bytes + sizeof bytes, kSignature)) return true;
  }
  return false;
}

std::vector<Hdf5Dataset> list_hdf5(const fs::path& file) {
  probe_foreign_hdf5(file);
  return list_unprobed(file);
}

std::shared_ptr<const SampleSource> open_hdf5(const fs::path& file, const std::string& dataset, bool transpose) {
  probe_foreign_hdf5(file);
  return std::make_shared<Hdf5Source>(file, dataset, transpose);
}

void walk_hdf5(const fs::path& file) {
  Hdf5Lock lock;
  {
    const auto handle = open_hdf5_file(file);
    for (const auto& path : object_paths(handle.get(), file, H5O_TYPE_UNKNOWN)) {
      const Hdf5Handle object(H5Oopen(handle.get(), path.c_str(), H5P_DEFAULT), H5Oclose);
      if (!object.ok()) throw DataError(file.string(), path, "a readable object", hdf5_complaint());
      walk_attributes(object.get(), file, path);
    }
    for (const auto& path : object_paths(handle.get(), file, H5O_TYPE_DATASET)) {
      const auto o = open_set(handle.get(), file, path, false);
      if (H5Sget_simple_extent_npoints(o.space.get()) < 1 || !holds_its_data(o.set.get()) || !can_unpack(o.set.get()))
        continue;
      read_all(o.type.get(), o.space.get(), o.shape, [&](hid_t native, hid_t memory, void* to) {
        if (H5Dread(o.set.get(), native, memory, o.space.get(), H5P_DEFAULT, to) < 0)
          throw DataError(file.string(), path, "readable data", hdf5_complaint());
      });
    }
  }
  for (const auto& d : list_unprobed(file)) {
    if (!d.readable) continue;
    const Hdf5Source source(file, d.path, false);
    std::vector<double> frame(static_cast<std::size_t>(source.rows()));
    source.read(0, MutableFrames(frame.data(), Scalar::f64, source.rows(), 1, source.rows()));
  }
}

}  // namespace percept::io
