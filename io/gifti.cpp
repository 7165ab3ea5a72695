#include "io/gifti.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <pugixml.hpp>
#include <string_view>

#include "core/error.h"
#include "core/files.h"
#include "io/packed_file.h"
#include "io/xml.h"

namespace percept::io {
namespace fs = std::filesystem;

namespace {
constexpr std::uint64_t kMostGiftiXml = std::uint64_t{4} << 30;
constexpr std::uint64_t kDeflateDensest = 1032;  ///< what a byte of deflate can hold
constexpr Index kMostVertices = Index{1} << 31;

struct GiftiArray {
  std::string place;   ///< "DataArray 3" in messages
  std::string intent;  ///< without NIFTI_INTENT_
  Element type = Element::f32;
  std::vector<Index> shape;
  bool column_major = false, big_endian = false;
  std::string encoding;
  std::map<std::string, std::string> meta;
  const char* text = "";
  Index size() const { return std::accumulate(shape.begin(), shape.end(), Index{1}, std::multiplies<>()); }
};

std::string without_prefix(const std::string& text, std::string_view prefix) {
  return text.starts_with(prefix) ? text.substr(prefix.size()) : text;
}

std::map<std::string, std::string> gifti_meta(pugi::xml_node node) {
  std::map<std::string, std::string> meta;
  for (const auto md : node.child("MetaData").children("MD"))
    meta[md.child("Name").text().get()] = md.child("Value").text().get();
  return meta;
}

/// The document of a file; arrays point into it.
class GiftiFile {
 public:
  explicit GiftiFile(const fs::path& path) : file_(path.string()) {
    const PackedFile input(path);
    const std::uint64_t bytes = input.bytes();
    if (bytes > kMostGiftiXml)
      throw DataError(file_, "size", fmt::format("at most {} bytes of XML", kMostGiftiXml), fmt::format("{}", bytes));
    xml_.resize(static_cast<std::size_t>(bytes));
    input.read(0, xml_.data(), xml_.size());
    if (const auto parsed = document_.load_buffer_inplace(xml_.data(), xml_.size()); !parsed)
      throw DataError(file_, fmt::format("byte {}", parsed.offset), "GIFTI's XML", parsed.description());
    const auto root = document_.child("GIFTI");
    if (!root) throw DataError(file_, "", "GIFTI's XML", "other XML");
    version = root.attribute("Version").value();
    meta = gifti_meta(root);
    for (const auto node : root.children("DataArray")) add(node);
    const std::int64_t stated =
        count_of(root.attribute("NumberOfDataArrays").value(), file_, "NumberOfDataArrays of GIFTI");
    if (stated != static_cast<std::int64_t>(arrays.size()))
      throw DataError(file_, "DataArray", fmt::format("{}, as NumberOfDataArrays says", stated),
                      fmt::format("{}", arrays.size()));
  }

  /// The numbers of an array in row-major order.
  template <class T>
  std::vector<T> values(const GiftiArray& a) const {
    const auto n = static_cast<std::size_t>(a.size());
    std::vector<T> v;
    if (a.encoding == "ASCII") {
      const auto numbers = numbers_of(a.text, n, file_, a.place);
      v.assign(numbers.begin(), numbers.end());
    } else {
      const auto bytes = decoded(a);
      v.resize(n);
      if (!convert(a.type, bytes.data(), a.size(), a.big_endian, v.data()))
        throw DataError(file_, a.place, "whole numbers up to 2^53, which a double holds", "a larger one");
    }
    if (!a.column_major || a.shape.size() < 2) return v;
    std::vector<T> rows(n);
    const auto d0 = static_cast<std::size_t>(a.shape[0]), d1 = static_cast<std::size_t>(a.shape[1]);
    for (std::size_t i = 0; i < d0; ++i)
      for (std::size_t j = 0; j < d1; ++j) rows[i * d1 + j] = v[j * d0 + i];
    return rows;
  }

  /// From the metadata of an array, else of the file.
  std::string structure() const {
    constexpr const char* kKey = "AnatomicalStructurePrimary";
    for (auto& a : arrays)
      if (const auto at = a.meta.find(kKey); at != a.meta.end()) return structure_of(at->second);
    const auto at = meta.find(kKey);
    return at == meta.end() ? "" : structure_of(at->second);
  }

  const std::string& file() const { return file_; }
  std::string version;
  std::map<std::string, std::string> meta;
  std::vector<GiftiArray> arrays;

 private:
  void add(pugi::xml_node node) {
    GiftiArray a;
    a.place = fmt::format("DataArray {}", arrays.size() + 1);
    const auto text = [&](const char* key) {
      const std::string value = node.attribute(key).value();
      if (value.empty()) throw DataError(file_, fmt::format("{} of {}", key, a.place), "a text", "none");
      return value;
    };
    a.intent = without_prefix(text("Intent"), "NIFTI_INTENT_");
    static const std::map<std::string, Element> kTypes{
        {"UINT8", Element::u8},    {"INT8", Element::i8},    {"INT16", Element::i16}, {"UINT16", Element::u16},
        {"INT32", Element::i32},   {"UINT32", Element::u32}, {"INT64", Element::i64}, {"UINT64", Element::u64},
        {"FLOAT32", Element::f32}, {"FLOAT64", Element::f64}};
    const std::string type = without_prefix(text("DataType"), "NIFTI_TYPE_");
    if (!kTypes.contains(type))
      throw DataError(file_, fmt::format("DataType of {}", a.place), "one real number (NIFTI_TYPE_FLOAT32, ...)", type);
    a.type = kTypes.at(type);
    const std::int64_t axes =
        count_of(node.attribute("Dimensionality").value(), file_, fmt::format("Dimensionality of {}", a.place));
    if (axes < 1 || axes > 2)
      throw DataError(file_, fmt::format("Dimensionality of {}", a.place), "1 or 2", fmt::format("{}", axes));
    for (std::int64_t i = 0; i < axes; ++i) {
      const std::string key = fmt::format("Dim{}", i), at = fmt::format("{} of {}", key, a.place);
      a.shape.push_back(count_of(node.attribute(key.c_str()).value(), file_, at));
      if (a.shape.back() < 1 || a.shape.back() > kMostVertices)
        throw DataError(file_, at, fmt::format("1 to {}", kMostVertices), fmt::format("{}", a.shape.back()));
    }
    a.encoding = text("Encoding");
    const auto one_of = [&](const char* key, const std::string& value, std::initializer_list<const char*> known) {
      if (std::find(known.begin(), known.end(), value) == known.end())
        throw DataError(file_, fmt::format("{} of {}", key, a.place), fmt::format("{}", fmt::join(known, ", ")), value);
    };
    one_of("Encoding", a.encoding, {"ASCII", "Base64Binary", "GZipBase64Binary"});
    if (a.encoding != "ASCII") {
      const std::string endian = text("Endian");
      one_of("Endian", endian, {"LittleEndian", "BigEndian"});
      a.big_endian = endian == "BigEndian";
    }
    const std::string order = text("ArrayIndexingOrder");
    one_of("ArrayIndexingOrder", order, {"RowMajorOrder", "ColumnMajorOrder"});
    a.column_major = order == "ColumnMajorOrder";
    a.meta = gifti_meta(node);
    a.text = node.child("Data").text().get();
    arrays.push_back(std::move(a));
  }

  std::vector<std::byte> decoded(const GiftiArray& a) const {
    const std::uint64_t expected = static_cast<std::uint64_t>(a.size()) * static_cast<std::uint64_t>(bytes_of(a.type));
    const bool packed = a.encoding == "GZipBase64Binary";
    const std::vector<std::byte> bytes = from_base64(a);
    const auto wrong = [&](const std::string& found) -> DataError {
      return {file_, a.place, fmt::format("{} bytes for {} x {}", expected, fmt::join(a.shape, " x "), name_of(a.type)),
              found};
    };
    if (!packed) {
      if (bytes.size() != expected) throw wrong(fmt::format("{}", bytes.size()));
      return bytes;
    }
    if (expected > kDeflateDensest * bytes.size()) throw wrong(fmt::format("{} packed bytes", bytes.size()));
    std::vector<std::byte> content(static_cast<std::size_t>(expected) + 1);  // one more shows that there is more
    z_stream z{};
    if (inflateInit2(&z, 15 + 32) != Z_OK) throw std::bad_alloc();
    z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
    z.next_out = reinterpret_cast<Bytef*>(content.data());
    std::size_t in = 0, out = 0;
    int result = Z_OK;
    while (result == Z_OK && out < content.size()) {
      const auto give = static_cast<uInt>(std::min<std::size_t>(bytes.size() - in, std::size_t{1} << 30)),
                 room = static_cast<uInt>(std::min<std::size_t>(content.size() - out, std::size_t{1} << 30));
      z.avail_in = give;
      z.avail_out = room;
      result = inflate(&z, Z_NO_FLUSH);
      in += give - z.avail_in;
      out += room - z.avail_out;
    }
    const std::string said = z.msg ? z.msg : "a stream that ends early";
    inflateEnd(&z);
    if (out > expected) throw wrong("more");
    if (result != Z_STREAM_END) throw wrong(fmt::format("{} after {} bytes", said, out));
    if (out < expected) throw wrong(fmt::format("{}", out));
    content.pop_back();
    return content;
  }

  std::vector<std::byte> from_base64(const GiftiArray& a) const {
    const std::string_view text = a.text;
    std::vector<std::byte> bytes;
    bytes.reserve(text.size() / 4 * 3 + 3);
    std::uint32_t word = 0;
    int digits = 0, padding = 0;  // of a group of four characters
    bool done = false;            // padding ends it all
    for (std::size_t i = 0; i < text.size(); ++i) {
      const char c = text[i];
      if (c == ' ' || c == '\n' || c == '\r' || c == '\t') continue;
      int digit = -1;
      if (c >= 'A' && c <= 'Z') digit = c - 'A';
      else if (c >= 'a' && c <= 'z') digit = c - 'a' + 26;
      else if (c >= '0' && c <= '9') digit = c - '0' + 52;
      else if (c == '+') digit = 62;
      else if (c == '/') digit = 63;
      const bool pads = c == '=' && digits >= 2;
      if (done || (!pads && (digit < 0 || padding > 0)))
        throw DataError(file_, fmt::format("character {} of {}", i, a.place), "base64",
                        fmt::format("code {}", static_cast<unsigned char>(c)));
      word = word << 6 | static_cast<std::uint32_t>(pads ? 0 : digit);
      ++(pads ? padding : digits);
      if (digits + padding < 4) continue;
      for (int k = 0; k < 3 - padding; ++k) bytes.push_back(static_cast<std::byte>(word >> (16 - 8 * k) & 255));
      done = padding > 0;
      word = 0;
      digits = padding = 0;
    }
    if (digits > 0)
      throw DataError(file_, a.place, "base64 in groups of four", fmt::format("{} at its end", digits + padding));
    return bytes;
  }

  std::string file_, xml_;
  pugi::xml_document document_;
};

/// rows x frames, in the narrowest scalar that holds the values.
template <class T>
class ArraySource final : public SampleSource {
 public:
  ArraySource(Index rows, std::vector<T> values) : rows_(rows), values_(std::move(values)) {}
  std::int64_t frames() const override { return static_cast<std::int64_t>(values_.size()) / rows_; }
  void read(std::int64_t first, MutableFrames out) const override {
    const auto copy = [&](auto to) {
      for (Index k = 0; k < out.frames; ++k) {
        const T* from = values_.data() + (first + k) * rows_;
        std::copy(from, from + rows_, to.frame(k));
      }
    };
    if (out.scalar == Scalar::f32) copy(out.as<float>());
    else copy(out.as<double>());
  }

 private:
  Index rows_;
  std::vector<T> values_;  ///< frame by frame
};

bool is_geometry(const GiftiArray& a) { return a.intent == "POINTSET" || a.intent == "TRIANGLE"; }

/// Frames of vertices: of all one-dimensional arrays, or of one that is vertices x frames.
template <class T>
std::vector<T> gifti_frames(const GiftiFile& file, const std::vector<const GiftiArray*>& arrays, Index vertices,
                            bool allow_missing) {
  std::vector<T> all;
  for (const auto* a : arrays) {
    std::vector<T> v = file.values<T>(*a);
    const Index n = a->shape.size() > 1 ? a->shape[1] : 1;
    for (Index k = 0; k < n; ++k)
      for (Index i = 0; i < vertices; ++i) {
        const T value = v[static_cast<std::size_t>(i * n + k)];
        if (std::isnan(value) && !allow_missing)
          throw DataError(file.file(), fmt::format("vertex {} of {}", i, a->place),
                          "a number (or allow_missing = true)", "NaN");
        all.push_back(value);
      }
  }
  return all;
}

Surface surface_of(const GiftiFile& file) {
  const GiftiArray *points = nullptr, *faces = nullptr;
  for (auto& a : file.arrays) {
    auto* wanted = a.intent == "POINTSET" ? &points : a.intent == "TRIANGLE" ? &faces : nullptr;
    if (!wanted) continue;
    if (*wanted) throw DataError(file.file(), "DataArray", "one of NIFTI_INTENT_" + a.intent, "another");
    if (a.shape.size() != 2 || a.shape[1] != 3)
      throw DataError(file.file(), a.place, "rows of three", fmt::format("{}", fmt::join(a.shape, " x ")));
    *wanted = &a;
  }
  if (!points || !faces)
    throw DataError(file.file(), "DataArray", "a surface: NIFTI_INTENT_POINTSET and NIFTI_INTENT_TRIANGLE",
                    points ? "no triangles" : "no points");
  Surface s;
  s.structure = file.structure();
  const auto xyz = file.values<double>(*points);
  s.vertices = Eigen::Map<const Eigen::Matrix3Xd>(xyz.data(), 3, points->shape[0]);
  for (Index i = 0; i < s.vertices.size(); ++i)
    if (!std::isfinite(s.vertices.data()[i]))
      throw DataError(file.file(), fmt::format("vertex {}", i / 3), "three finite numbers",
                      fmt::format("{}", s.vertices.data()[i]));
  const auto corner = file.values<double>(*faces);
  s.triangles.resize(3, faces->shape[0]);
  for (std::size_t i = 0; i < corner.size(); ++i) {
    if (!(corner[i] >= 0 && corner[i] < static_cast<double>(s.vertices.cols())) || corner[i] != std::floor(corner[i]))
      throw DataError(file.file(), fmt::format("triangle {}", i / 3),
                      fmt::format("vertices from 0 to {}", s.vertices.cols() - 1), fmt::format("{}", corner[i]));
    s.triangles.data()[i] = static_cast<std::int32_t>(corner[i]);
  }
  return s;
}

}  // namespace

Surface read_surface(const fs::path& file) { return surface_of(GiftiFile(file)); }

FmriSeries open_gifti(const fs::path& path, const FmriOptions& o, const std::string& where) {
  for (auto& [key, value] : {std::pair("mask", &o.mask), {"atlas", &o.atlas}, {"labels", &o.labels}})
    if (!value->empty()) throw ConfigError(where + "." + key, value->string(), "nothing: it is for images of voxels");
  if (!o.regions.empty()) throw ConfigError(where + ".regions", "", "nothing: it is for images of voxels and CIFTI");
  const GiftiFile file(path);
  std::vector<const GiftiArray*> arrays;
  for (auto& a : file.arrays)
    if (!is_geometry(a)) arrays.push_back(&a);
  if (arrays.empty())
    throw DataError(file.file(), "DataArray", "values on vertices",
                    file.arrays.empty() ? "none" : "a surface alone (percept info shows it)");
  const Index vertices = arrays[0]->shape[0];
  bool timed = true, exact = true;
  for (const auto* a : arrays) {
    if (a->shape[0] != vertices)
      throw DataError(file.file(), a->place, fmt::format("{} vertices, as {} has", vertices, arrays[0]->place),
                      fmt::format("{}", a->shape[0]));
    if (a->shape.size() > 1 && a->shape[1] > 1 && arrays.size() > 1)
      throw DataError(file.file(), a->place, "one array of vertices x frames, or one a frame",
                      fmt::format("{} arrays", arrays.size()));
    timed = timed && a->intent == "TIME_SERIES";
    exact = exact && scalar_of(a->type) == Scalar::f32;
  }
  FmriSeries result;
  Stream& s = result.stream;
  s.name = "fmri";
  const Scalar scalar = exact ? Scalar::f32 : Scalar::f64;
  if (exact)
    s.samples =
        std::make_shared<ArraySource<float>>(vertices, gifti_frames<float>(file, arrays, vertices, o.allow_missing));
  else
    s.samples =
        std::make_shared<ArraySource<double>>(vertices, gifti_frames<double>(file, arrays, vertices, o.allow_missing));
  if (timed && !o.items) {
    const double side = o.sidecar ? timing_of_sidecar(*o.sidecar, o.sidecar_file).repetition_time_s : 0,
                 tr = o.tr_s > 0 ? o.tr_s : side;
    if (!(tr > 0)) {
      const auto step = arrays[0]->meta.find("TimeStep");
      throw DataError(file.file(), "repetition time",
                      "RepetitionTime in a sidecar, or tr_s (GIFTI has no unit of time)",
                      step == arrays[0]->meta.end() ? "none" : "a TimeStep of '" + step->second + "'");
    }
    s.format = time_format(vertices, 1 / tr, scalar, "fmri");
    s.format.start_s = tr / 2;
    result.meta["repetition_time_s"] = tr;
  } else {
    s.format = item_format({vertices}, scalar, "fmri");
    s.keys.resize(static_cast<std::size_t>(s.frames()));
    std::iota(s.keys.begin(), s.keys.end(), std::int64_t{0});
    std::vector<std::string> names;
    for (const auto* a : arrays) {
      const auto name = a->meta.find("Name");
      names.push_back(name == a->meta.end() ? "" : name->second);
    }
    if (std::any_of(names.begin(), names.end(), [](auto& n) { return !n.empty(); })) result.meta["maps"] = Value(names);
  }
  Surface surface;
  if (!o.surface.empty()) {
    surface = read_surface(o.surface);
    result.files.push_back(o.surface);
    if (surface.vertices.cols() != vertices)
      throw DataError(o.surface.string(), "vertices", fmt::format("{}, as {} has", vertices, file.file()),
                      fmt::format("{}", surface.vertices.cols()));
  }
  const std::string structure = file.structure();
  Column vertex{"vertex", {}, {}};
  for (Index i = 0; i < vertices; ++i) {
    Channel c;
    c.name = fmt::format("v{}", i);
    c.kind = structure;
    if (surface.vertices.cols() > 0)
      c.position =
          std::array{1e-3 * surface.vertices(0, i), 1e-3 * surface.vertices(1, i), 1e-3 * surface.vertices(2, i)};
    s.format.parts[0].rows.push_back(std::move(c));
    vertex.numbers.push_back(static_cast<double>(i));
  }
  result.voxel = {"vertex", {std::move(vertex)}};
  return result;
}

Value describe_gifti(const fs::path& path, bool whole) {
  const GiftiFile file(path);
  Value d = Value::object({{"version", "GIFTI " + file.version}});
  if (const std::string s = file.structure(); !s.empty()) d["structure"] = s;
  bool surface = false;
  // a time series has hundreds of equal arrays: they are one line
  Value arrays = Value::array();
  for (std::size_t i = 0; i < file.arrays.size(); ++i) {
    const GiftiArray& a = file.arrays[i];
    surface = surface || a.intent == "POINTSET";
    std::size_t same = i + 1;
    const auto like = [&](const GiftiArray& b) {
      return b.intent == a.intent && b.shape == a.shape && b.type == a.type && b.encoding == a.encoding;
    };
    while (same < file.arrays.size() && like(file.arrays[same])) ++same;
    Value item = Value::object(
        {{"intent", a.intent}, {"shape", Value(a.shape)}, {"type", name_of(a.type)}, {"encoding", a.encoding}});
    if (same - i > 1) item["count"] = static_cast<std::int64_t>(same - i);
    if (const auto name = a.meta.find("Name"); name != a.meta.end()) item["name"] = name->second;
    arrays.push_back(std::move(item));
    i = same - 1;
  }
  if (surface) {
    const Surface s = surface_of(file);
    d["vertices"] = s.vertices.cols();
    d["triangles"] = s.triangles.cols();
    const Eigen::Vector3d low = s.vertices.rowwise().minCoeff(), high = s.vertices.rowwise().maxCoeff();
    d["from_mm"] = Value(std::vector<double>(low.begin(), low.end()));
    d["to_mm"] = Value(std::vector<double>(high.begin(), high.end()));
  }
  d["arrays"] = std::move(arrays);
  if (whole)
    for (auto& a : file.arrays) file.values<double>(a);
  return d;
}

}  // namespace percept::io
