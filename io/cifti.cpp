#include "io/cifti.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <pugixml.hpp>
#include <set>
#include <string_view>

#include "core/error.h"
#include "core/files.h"
#include "io/input_file.h"
#include "io/packed_file.h"
#include "io/xml.h"

namespace percept::io {
namespace fs = std::filesystem;

namespace {
constexpr int kCiftiCode = 32;
constexpr std::uint64_t kMostCiftiXml = std::uint64_t{1} << 30;
constexpr double kNoIndex = std::numeric_limits<double>::quiet_NaN();

struct CiftiRow {
  std::string name, structure;
  double vertex = kNoIndex, x = kNoIndex, y = kNoIndex, z = kNoIndex;  ///< NaN: it has none
};

struct CiftiModel {
  std::string structure;
  bool surface = false;
  std::int64_t offset = 0, count = 0, vertices = 0;  ///< vertices of the whole surface
};

/// What the indices along an axis stand for.
struct CiftiAxis {
  std::string kind;  ///< "SERIES", "SCALARS", "LABELS", "BRAIN_MODELS", "PARCELS"
  std::int64_t length = 0;
  double start = 0, step = 0;                            ///< of a series, in its unit
  std::string unit;                                      ///< "SECOND", "HERTZ", ...
  std::vector<std::string> maps;                         ///< names of scalars and labels
  std::vector<CiftiModel> models;                        ///< by offset
  std::vector<CiftiRow> rows;                            ///< of brain models and parcels
  Eigen::Matrix4d affine = Eigen::Matrix4d::Identity();  ///< voxel index to m
};

/// Reads one axis; `node` is its MatrixIndicesMap.
class CiftiAxisReader {
 public:
  CiftiAxisReader(pugi::xml_node node, std::string file) : node_(node), file_(std::move(file)) {}

  CiftiAxis read() {
    const std::string type = node_.attribute("IndicesMapToDataType").value();
    constexpr std::string_view kPrefix = "CIFTI_INDEX_TYPE_";
    if (type.starts_with(kPrefix)) axis_.kind = type.substr(kPrefix.size());
    if (axis_.kind == "SERIES") series();
    else if (axis_.kind == "SCALARS" || axis_.kind == "LABELS") maps();
    else if (axis_.kind == "BRAIN_MODELS") brain_models();
    else if (axis_.kind == "PARCELS") parcels();
    else
      throw DataError(file_, "IndicesMapToDataType",
                      "CIFTI_INDEX_TYPE_SERIES, _SCALARS, _LABELS, _BRAIN_MODELS or _PARCELS",
                      type.empty() ? "none" : type);
    return std::move(axis_);
  }

 private:
  std::string text(pugi::xml_node node, const char* attribute) const {
    const std::string value = node.attribute(attribute).value();
    if (value.empty()) throw DataError(file_, place(node, attribute), "a text", "none");
    return value;
  }
  std::int64_t count(pugi::xml_node node, const char* attribute) const {
    return count_of(node.attribute(attribute).value(), file_, place(node, attribute));
  }
  static std::string place(pugi::xml_node node, const char* attribute) {
    return fmt::format("{} of {}", attribute, node.name());
  }

  void series() {
    axis_.length = count(node_, "NumberOfSeriesPoints");
    axis_.unit = text(node_, "SeriesUnit");
    const auto number = [&](const char* key) {
      return numbers_of(node_.attribute(key).value(), 1, file_, place(node_, key))[0];
    };
    const double unit = std::pow(10, number("SeriesExponent"));
    axis_.start = number("SeriesStart") * unit;
    axis_.step = number("SeriesStep") * unit;
  }

  void maps() {
    for (const auto map : node_.children("NamedMap")) axis_.maps.emplace_back(map.child("MapName").text().get());
    axis_.length = static_cast<std::int64_t>(axis_.maps.size());
  }

  void volume() {
    const auto volume = node_.child("Volume");
    if (!volume) throw DataError(file_, "Volume", "the grid of the voxels", "none");
    std::string size = text(volume, "VolumeDimensions");
    std::replace(size.begin(), size.end(), ',', ' ');
    const auto dimensions = numbers_of(size, 3, file_, place(volume, "VolumeDimensions"));
    for (std::size_t a = 0; a < 3; ++a) {
      grid_[a] = dimensions[a];
      if (!(grid_[a] >= 1) || grid_[a] != std::floor(grid_[a]))
        throw DataError(file_, place(volume, "VolumeDimensions"), "three whole numbers from 1 on", size);
    }
    const auto matrix = volume.child("TransformationMatrixVoxelIndicesIJKtoXYZ");
    const auto m = numbers_of(matrix.text().get(), 16, file_, matrix ? matrix.name() : "TransformationMatrix");
    const double unit = std::pow(
        10, numbers_of(matrix.attribute("MeterExponent").value(), 1, file_, place(matrix, "MeterExponent"))[0]);
    for (int r = 0; r < 3; ++r)
      for (int c = 0; c < 4; ++c) axis_.affine(r, c) = unit * m[static_cast<std::size_t>(4 * r + c)];
    has_volume_ = true;
  }

  /// The three indices of each of `n` voxels.
  std::vector<double> voxels(pugi::xml_node list, std::int64_t n, const std::string& at) {
    if (!has_volume_) volume();
    auto ijk = numbers_of(list.text().get(), static_cast<std::size_t>(3 * n), file_, at);
    for (std::size_t i = 0; i < ijk.size(); ++i)
      if (!(ijk[i] >= 0 && ijk[i] < grid_[i % 3]) || ijk[i] != std::floor(ijk[i]))
        throw DataError(file_, at, fmt::format("indices within {} x {} x {}", grid_[0], grid_[1], grid_[2]),
                        fmt::format("{}", ijk[i]));
    return ijk;
  }

  std::vector<double> vertices(pugi::xml_node list, std::int64_t n, std::int64_t of, const std::string& at) const {
    auto index = numbers_of(list.text().get(), static_cast<std::size_t>(n), file_, at);
    for (const double v : index)
      if (!(v >= 0 && v < static_cast<double>(of)) || v != std::floor(v))
        throw DataError(file_, at, fmt::format("vertices below {}", of), fmt::format("{}", v));
    return index;
  }

  void brain_models() {
    std::multimap<std::int64_t, pugi::xml_node> by_offset;
    for (const auto node : node_.children("BrainModel")) by_offset.emplace(count(node, "IndexOffset"), node);
    for (const auto& [offset, node] : by_offset) {
      CiftiModel m;
      m.structure = structure_of(text(node, "BrainStructure"));
      m.offset = offset;
      m.count = count(node, "IndexCount");
      const std::string type = text(node, "ModelType"), at = fmt::format("brain model {}", m.structure);
      m.surface = type == "CIFTI_MODEL_TYPE_SURFACE";
      if (!m.surface && type != "CIFTI_MODEL_TYPE_VOXELS")
        throw DataError(file_, at + ": ModelType", "CIFTI_MODEL_TYPE_SURFACE or CIFTI_MODEL_TYPE_VOXELS", type);
      if (m.offset != static_cast<std::int64_t>(axis_.rows.size()))
        throw DataError(file_, at + ": IndexOffset", fmt::format("{}, where the model before ends", axis_.rows.size()),
                        fmt::format("{}", m.offset));
      if (m.surface) {
        m.vertices = count(node, "SurfaceNumberOfVertices");
        for (const double v : vertices(node.child("VertexIndices"), m.count, m.vertices, at + ": VertexIndices")) {
          CiftiRow r{fmt::format("{}_{}", m.structure, v), m.structure};
          r.vertex = v;
          axis_.rows.push_back(std::move(r));
        }
      } else {
        const auto ijk = voxels(node.child("VoxelIndicesIJK"), m.count, at + ": VoxelIndicesIJK");
        for (std::size_t i = 0; i < ijk.size(); i += 3)
          axis_.rows.push_back({fmt::format("{}_{}_{}_{}", m.structure, ijk[i], ijk[i + 1], ijk[i + 2]), m.structure,
                                kNoIndex, ijk[i], ijk[i + 1], ijk[i + 2]});
      }
      axis_.models.push_back(std::move(m));
    }
    axis_.length = static_cast<std::int64_t>(axis_.rows.size());
  }

  void parcels() {
    std::set<std::string> names;
    for (const auto node : node_.children("Parcel")) {
      CiftiRow r;
      r.name = text(node, "Name");
      if (!names.insert(r.name).second) throw DataError(file_, "Name of Parcel", "each once", r.name + " twice");
      for (const auto part : node.children("Vertices")) {
        const std::string structure = structure_of(text(part, "BrainStructure"));
        r.structure = r.structure.empty() || r.structure == structure ? structure : "several";
      }
      if (node.child("VoxelIndicesIJK")) r.structure = r.structure.empty() ? "voxels" : "several";
      axis_.rows.push_back(std::move(r));
    }
    axis_.length = static_cast<std::int64_t>(axis_.rows.size());
  }

  pugi::xml_node node_;
  std::string file_;
  CiftiAxis axis_;
  std::array<double, 3> grid_{};
  bool has_volume_ = false;
};

/// The axes in the order of the file: the fastest first.
std::array<CiftiAxis, 2> read_cifti_axes(const fs::path& path, const NiftiHeader& h) {
  const std::string file = path.string();
  const PackedFile input(path);
  if (input.packed()) throw DataError(file, "", "a plain file, as CIFTI is (gunzip it)", "a packed one");
  const NiftiExtension* extension = nullptr;
  for (auto& e : h.extensions)
    if (e.code == kCiftiCode) extension = &e;
  if (!extension) throw DataError(file, "extension", "CIFTI's XML (code 32)", "none");
  if (extension->bytes > kMostCiftiXml)
    throw DataError(file, "extension", fmt::format("at most {} bytes of XML", kMostCiftiXml),
                    fmt::format("{}", extension->bytes));
  std::string xml(static_cast<std::size_t>(extension->bytes), '\0');
  input.read(extension->offset, xml.data(), xml.size());
  xml.resize(xml.find_last_not_of('\0') + 1);  // padded to a multiple of 16
  pugi::xml_document document;
  if (const auto parsed = document.load_buffer_inplace(xml.data(), xml.size()); !parsed)
    throw DataError(file, fmt::format("byte {} of the XML", parsed.offset), "CIFTI's XML", parsed.description());
  const auto root = document.child("CIFTI");
  const std::string version = root.attribute("Version").value();
  if (!root || !version.starts_with("2"))
    throw DataError(file, "Version of CIFTI", "2", !root ? "no CIFTI" : version.empty() ? "none" : version);
  if (h.shape.size() != 6 || h.voxels() != 1 || h.shape[3] != 1)
    throw DataError(file, "shape", "1 x 1 x 1 x 1 x columns x rows", fmt::format("{}", fmt::join(h.shape, " x ")));
  std::array<std::optional<CiftiAxis>, 2> found;
  for (const auto map : root.child("Matrix").children("MatrixIndicesMap")) {
    std::string to = map.attribute("AppliesToMatrixDimension").value();
    std::replace(to.begin(), to.end(), ',', ' ');
    const CiftiAxis axis = CiftiAxisReader(map, file).read();
    for (std::size_t begin = to.find_first_not_of(' '); begin != to.npos; begin = to.find_first_not_of(' ', begin)) {
      const std::size_t end = std::min(to.find(' ', begin), to.size());
      const std::int64_t dimension =
          count_of(to.substr(begin, end - begin), file, "AppliesToMatrixDimension of MatrixIndicesMap");
      if (dimension > 1)
        throw DataError(file, "AppliesToMatrixDimension of MatrixIndicesMap", "0 or 1", fmt::format("{}", dimension));
      auto& place = found[static_cast<std::size_t>(dimension)];
      if (place) throw DataError(file, fmt::format("maps of dimension {}", dimension), "one", "another");
      place = axis;
      begin = end;
    }
  }
  for (std::size_t a = 0; a < 2; ++a) {
    if (!found[a]) throw DataError(file, fmt::format("maps of dimension {}", a), "one", "none");
    if (found[a]->length != h.shape[4 + a])
      throw DataError(file, fmt::format("{} of dimension {}", found[a]->kind, a),
                      fmt::format("{}, as dim[{}] of the header says", h.shape[4 + a], 5 + a),
                      fmt::format("{}", found[a]->length));
  }
  return {std::move(*found[0]), std::move(*found[1])};
}

class CiftiSource final : public SampleSource {
 public:
  CiftiSource(const fs::path& file, const NiftiHeader& header, std::vector<std::int64_t> rows,
              std::vector<std::string> names, bool allow_missing)
      : input_(file), header_(header), frames_(header.shape[4]), rows_(std::move(rows)), names_(std::move(names)),
        allow_missing_(allow_missing) {}
  std::int64_t frames() const override { return frames_; }

  void read(std::int64_t first, MutableFrames out) const override {
    if (first < 0 || out.frames < 0 || first + out.frames > frames_ || out.rows != static_cast<Index>(rows_.size()))
      throw DataError(input_.path().string(), "frames",
                      fmt::format("{} rows in a range inside [0, {})", rows_.size(), frames_),
                      fmt::format("{} rows in [{}, {})", out.rows, first, first + out.frames));
    if (out.scalar == Scalar::f32) read_as(first, out.as<float>());
    else read_as(first, out.as<double>());
  }

 private:
  template <class U>
  void read_as(std::int64_t first, FrameSpan<U> out) const {
    // some rows at a time, which are then written side by side
    constexpr std::size_t kTogether = 32;
    const auto n = static_cast<std::size_t>(out.frames), item = static_cast<std::size_t>(bytes_of(header_.type));
    std::vector<std::byte> bytes(n * item);
    std::vector<double> values(n * kTogether);
    for (std::size_t r = 0; r < rows_.size(); r += kTogether) {
      const std::size_t some = std::min(kTogether, rows_.size() - r);
      for (std::size_t i = 0; i < some; ++i) {
        input_.read(header_.data_offset + item * static_cast<std::uint64_t>(rows_[r + i] * frames_ + first),
                    bytes.data(), bytes.size());
        if (!convert(header_.type, bytes.data(), out.frames, header_.big_endian, values.data() + i * n))
          throw DataError(input_.path().string(), names_[r + i], "whole numbers up to 2^53, which a double holds",
                          "a larger one");
      }
      for (std::size_t k = 0; k < n; ++k) {
        U* to = out.frame(static_cast<Index>(k)) + r;
        for (std::size_t i = 0; i < some; ++i) {
          const double value = header_.slope * values[i * n + k] + header_.intercept;
          if (std::isnan(value) && !allow_missing_)
            throw DataError(input_.path().string(),
                            fmt::format("{} of frame {}", names_[r + i], first + static_cast<std::int64_t>(k)),
                            "a number (or allow_missing = true)", "NaN");
          to[i] = static_cast<U>(value);
        }
      }
    }
  }

  InputFile input_;
  NiftiHeader header_;
  std::int64_t frames_;
  std::vector<std::int64_t> rows_;
  std::vector<std::string> names_;
  bool allow_missing_;
};

/// Rows that are kept: all, or those of these structures or parcels.
std::vector<std::int64_t> kept_rows(const CiftiAxis& axis, const std::vector<std::string>& regions,
                                    const std::string& where) {
  const bool parcels = axis.kind == "PARCELS";
  const auto region = [&](const CiftiRow& r) -> const std::string& { return parcels ? r.name : r.structure; };
  std::vector<std::string> known;
  std::set<std::string> seen;
  for (auto& r : axis.rows)
    if (seen.insert(region(r)).second) known.push_back(region(r));
  for (auto& r : regions)
    if (!seen.contains(r)) {
      std::vector<std::string> some = known;
      if (some.size() > 24) some.resize(24);
      throw ConfigError(where + ".regions", r,
                        fmt::format("one of {}{}{}", fmt::join(some, ", "), some.size() < known.size() ? ", ..." : "",
                                    did_you_mean(r, known)));
    }
  std::vector<std::int64_t> kept;
  for (std::size_t i = 0; i < axis.rows.size(); ++i)
    if (regions.empty() || std::find(regions.begin(), regions.end(), region(axis.rows[i])) != regions.end())
      kept.push_back(static_cast<std::int64_t>(i));
  return kept;
}

}  // namespace

bool is_cifti(const NiftiHeader& h) {
  return h.version == 2 &&
         ((h.intent >= 3000 && h.intent < 3100) ||
          std::any_of(h.extensions.begin(), h.extensions.end(), [](auto& e) { return e.code == kCiftiCode; }));
}

FmriSeries open_cifti(const fs::path& file, const NiftiHeader& h, const FmriOptions& o, const std::string& where) {
  for (auto& [key, value] : {std::pair("mask", &o.mask), {"atlas", &o.atlas}, {"labels", &o.labels}})
    if (!value->empty())
      throw ConfigError(where + "." + key, value->string(), "nothing: CIFTI names its structures (regions)");
  const auto axes = read_cifti_axes(file, h);
  const CiftiAxis &along = axes[0], &rows = axes[1];
  const bool series = along.kind == "SERIES", dense = rows.kind == "BRAIN_MODELS";
  if ((!series && along.kind != "SCALARS" && along.kind != "LABELS") || (!dense && rows.kind != "PARCELS"))
    throw DataError(file.string(), "axes", "SERIES, SCALARS or LABELS by BRAIN_MODELS or PARCELS",
                    fmt::format("{} by {}", along.kind, rows.kind));
  FmriSeries result;
  Stream& s = result.stream;
  s.name = "fmri";
  auto kept = kept_rows(rows, o.regions, where);
  const auto n = static_cast<Index>(kept.size());
  const Scalar scalar = h.slope == 1 && h.intercept == 0 ? scalar_of(h.type) : Scalar::f32;
  if (series && !o.items) {
    if (o.tr_s == 0 && along.unit != "SECOND")
      throw DataError(file.string(), "SeriesUnit", "SECOND (or tr_s)", along.unit);
    if (o.tr_s == 0 && !(along.step > 0 && along.step <= 100))
      throw DataError(file.string(), "SeriesStep", "a repetition time above 0 and up to 100 s (or tr_s)",
                      fmt::format("{} s", along.step));
    const double tr = o.tr_s > 0 ? o.tr_s : along.step;
    if (o.sidecar) {
      const double side = timing_of_sidecar(*o.sidecar, o.sidecar_file).repetition_time_s;
      if (o.tr_s == 0 && side > 0 && std::abs(side - tr) > kSameTime_s)
        throw DataError(o.sidecar_file, "RepetitionTime",
                        fmt::format("{} s, as {} says (or tr_s)", tr, file.filename().string()),
                        fmt::format("{} s", side));
    }
    s.format = time_format(n, 1 / tr, scalar, "fmri");
    s.format.start_s = (along.unit == "SECOND" ? along.start : 0) + tr / 2;  // the middle, as of a volume
    result.meta["repetition_time_s"] = tr;
  } else {
    s.format = item_format({n}, scalar, "fmri");
    s.keys.resize(static_cast<std::size_t>(along.length));
    std::iota(s.keys.begin(), s.keys.end(), std::int64_t{0});
    if (!along.maps.empty()) result.meta["maps"] = Value(along.maps);
  }
  Column name{"name", {}, {}}, structure{"structure", {}, {}}, vertex{"vertex", {}, {}}, x{"x", {}, {}}, y{"y", {}, {}},
      z{"z", {}, {}};
  std::vector<std::string> names;
  for (const std::int64_t i : kept) {
    const CiftiRow& r = rows.rows[static_cast<std::size_t>(i)];
    Channel c;
    c.name = r.name;
    c.kind = r.structure;
    if (std::isfinite(r.x)) {
      const Eigen::Vector4d m = rows.affine * Eigen::Vector4d(r.x, r.y, r.z, 1);
      c.position = std::array{m[0], m[1], m[2]};
    }
    s.format.parts[0].rows.push_back(std::move(c));
    names.push_back(r.name);
    name.text.push_back(r.name);
    structure.text.push_back(r.structure);
    vertex.numbers.push_back(r.vertex);
    x.numbers.push_back(r.x);
    y.numbers.push_back(r.y);
    z.numbers.push_back(r.z);
  }
  if (dense)
    result.voxel = {"grayordinate",
                    {std::move(structure), std::move(vertex), std::move(x), std::move(y), std::move(z)}};
  else result.voxel = {"parcel", {std::move(name), std::move(structure)}};
  s.samples = std::make_shared<CiftiSource>(file, h, std::move(kept), std::move(names), o.allow_missing);
  return result;
}

Value describe_cifti(const fs::path& file, const NiftiHeader& h) {
  Value d = Value::table();
  const auto axes = read_cifti_axes(file, h);
  for (std::size_t a = 0; a < 2; ++a) {
    const CiftiAxis& axis = axes[a];
    Value v = Value::object({{"kind", axis.kind}, {"length", axis.length}});
    if (axis.kind == "SERIES") {
      v["start"] = axis.start;
      v["step"] = axis.step;
      v["unit"] = axis.unit;
    }
    if (!axis.maps.empty()) v["maps"] = Value(axis.maps);
    Value models = Value::array();
    for (auto& m : axis.models) {
      Value model =
          Value::object({{"structure", m.structure}, {"of", m.surface ? "vertices" : "voxels"}, {"count", m.count}});
      if (m.surface) model["surface"] = m.vertices;
      models.push_back(std::move(model));
    }
    if (models.size()) v["brain_models"] = std::move(models);
    d[a == 0 ? "columns" : "rows"] = std::move(v);
  }
  return d;
}

}  // namespace percept::io
