#include "io/fmri.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "io/cifti.h"
#include "io/csv.h"
#include "io/gifti.h"
#include "io/packed_file.h"

namespace percept::io {
namespace fs = std::filesystem;

namespace {

constexpr double kLongestTr_s = 100;

/// "x.nii.gz" and "x.nii" without their ends.
fs::path without_nifti_end(const fs::path& file) {
  fs::path p = file;
  if (p.extension() == ".gz") p.replace_extension();
  return p.replace_extension();
}

Volume read_integers(const fs::path& file, const char* what) {
  Volume v = read_volume(file);
  for (Index i = 0; i < v.values.size(); ++i)
    if (std::isnan(v.values[i]))
      throw DataError(file.string(), fmt::format("voxel {} of the {}", i, what), "a number", "NaN");
  return v;
}

std::vector<std::int64_t> kept_voxels(const fs::path& file, const Grid& grid, const FmriOptions& o, const Volume* atlas,
                                      const std::map<double, std::string>& names, const std::string& where) {
  std::vector<std::int64_t> voxels;
  Volume mask;
  if (!o.mask.empty()) {
    mask = read_integers(o.mask, "mask");
    require_same_grid(o.mask.string(), mask.grid, file.string(), grid);
    if ((mask.values.array() == 0).all())
      throw DataError(o.mask.string(), "mask", "at least one voxel that is not 0", "an empty mask");
  }
  std::set<double> wanted;
  for (auto& r : o.regions) {
    const auto at = std::find_if(names.begin(), names.end(), [&](auto& n) { return n.second == r; });
    if (at == names.end()) {
      std::vector<std::string> known;
      for (auto& [index, name] : names) known.push_back(name);
      throw ConfigError(where + ".regions", r,
                        fmt::format("one of {}{}", fmt::join(known, ", "), did_you_mean(r, known)));
    }
    wanted.insert(at->first);
  }
  for (Index i = 0; i < grid.voxels(); ++i) {
    bool keep = o.mask.empty() || mask.values[i] != 0;
    if (atlas && o.mask.empty()) keep = atlas->values[i] != 0;
    if (atlas && !wanted.empty()) keep = keep && wanted.contains(atlas->values[i]);
    if (keep) voxels.push_back(i);
  }
  if (voxels.empty())
    throw DataError((o.atlas.empty() ? o.mask : o.atlas).string(), "voxels", "at least one that is kept",
                    "none (mask and regions have no voxel in common?)");
  return voxels;
}

/// The names of an atlas's regions: from its table, else "region_7".
std::map<double, std::string> region_names(const FmriOptions& o, const Volume& atlas, std::vector<fs::path>& read) {
  std::map<double, std::string> names;
  fs::path table = o.labels;
  if (table.empty()) {
    table = without_nifti_end(o.atlas);
    table += ".tsv";
    if (!fs::exists(table)) table.clear();
  }
  if (!table.empty()) {
    read.push_back(table);
    for (auto& r : read_region_names(table)) names[r.index] = r.name;
  }
  for (const double v : atlas.values)
    if (v != 0 && !names.contains(v)) names[v] = fmt::format("region_{}", v);
  return names;
}

double repetition_time(const fs::path& file, const NiftiHeader& h, const FmriTiming& side, const std::string& sidecar,
                       double tr_s) {
  if (tr_s > 0) return tr_s;
  const double header_s = h.repetition_time_s(), side_s = side.repetition_time_s;
  const auto sensible = [&](double s) { return std::isfinite(s) && s > 0; };
  if (h.shape.size() > 3 && h.s_per_unit == 0 && side_s == 0)
    throw DataError(file.string(), "xyzt_units", "a unit of time for the fourth axis (or tr_s)", "none of time");
  if (!sensible(header_s) && side_s == 0)
    throw DataError(file.string(), "pixdim[4]", "a repetition time above 0 s (or RepetitionTime in a sidecar, or tr_s)",
                    fmt::format("{}", header_s));
  if (sensible(header_s) && side_s > 0 && std::abs(header_s - side_s) > kSameTime_s)
    throw DataError(sidecar, "RepetitionTime",
                    fmt::format("{} s, as the header of {} says (or tr_s)", header_s, file.filename().string()),
                    fmt::format("{} s", side_s));
  const double s = side_s > 0 ? side_s : header_s;
  if (s > kLongestTr_s)
    throw DataError(file.string(), "pixdim[4]",
                    fmt::format("a repetition time of at most {} s (or tr_s)", kLongestTr_s),
                    fmt::format("{} s (milliseconds written as seconds?)", s));
  return s;
}

Value matrix_value(const Eigen::Matrix4d& m) {
  Value rows = Value::array();
  for (int r = 0; r < 4; ++r) {
    Value row = Value::array();
    for (int c = 0; c < 4; ++c) row.push_back(m(r, c));
    rows.push_back(std::move(row));
  }
  return rows;
}

const char* space_name(int code) {
  static constexpr const char* kNames[] = {"none",      "scanner", "aligned to another image",
                                           "Talairach", "MNI 152", "template"};
  return code >= 0 && code <= 5 ? kNames[code] : "unknown";
}

const char* slice_order_name(int code) {
  static constexpr const char* kNames[] = {"none",
                                           "ascending",
                                           "descending",
                                           "interleaved ascending",
                                           "interleaved descending",
                                           "interleaved ascending from the second",
                                           "interleaved descending from the second"};
  return code >= 0 && code <= 6 ? kNames[code] : "unknown";
}

/// FILE.json for FILE.nii; of a.dtseries.nii and b.func.gii also a.json and b.json, as BIDS has it.
std::pair<std::optional<Value>, std::string> sidecar_beside(const fs::path& file) {
  fs::path stem = without_nifti_end(file);
  for (;; stem.replace_extension()) {
    fs::path json = stem;
    json += ".json";
    if (fs::exists(json)) return {read_json(json), json.string()};
    const std::string end = stem.extension().string();
    if (end != ".dtseries" && end != ".ptseries" && end != ".func") return {};
  }
}

}  // namespace

FmriTiming timing_of_sidecar(const Value& sidecar, const std::string& file) {
  FmriTiming t;
  if (!sidecar.is_table()) throw DataError(file, "", "a JSON object", sidecar.type_name());
  if (const Value* tr = sidecar.find("RepetitionTime")) {
    if (!tr->is_number() || !(tr->as_number() > 0) || !std::isfinite(tr->as_number()))
      throw DataError(file, "RepetitionTime", "seconds above 0", to_json(*tr));
    t.repetition_time_s = tr->as_number();
  }
  if (const Value* slices = sidecar.find("SliceTiming")) {
    if (!slices->is_array()) throw DataError(file, "SliceTiming", "a list of seconds", slices->type_name());
    for (auto& s : slices->as_array()) {
      if (!s.is_number() || !(s.as_number() >= 0))
        throw DataError(file, "SliceTiming", "seconds from 0 on", to_json(s));
      t.slice_s.push_back(s.as_number());
    }
  }
  return t;
}

FmriTiming image_timing(const fs::path& file, const NiftiHeader& h, const FmriTiming& side, const std::string& sidecar,
                        double tr_s) {
  FmriTiming t{repetition_time(file, h, side, sidecar, tr_s), side.slice_s};
  if (t.slice_s.empty()) return t;
  const Index slices = h.grid()[h.slice_axis >= 0 ? static_cast<std::size_t>(h.slice_axis) : 2];
  if (static_cast<Index>(t.slice_s.size()) != slices)
    throw DataError(sidecar, "SliceTiming",
                    fmt::format("{} times, one a slice of {}", slices, file.filename().string()),
                    fmt::format("{}", t.slice_s.size()));
  const double last = *std::max_element(t.slice_s.begin(), t.slice_s.end());
  if (last >= t.repetition_time_s)
    throw DataError(sidecar, "SliceTiming",
                    fmt::format("times within the repetition time of {} s", t.repetition_time_s),
                    fmt::format("{} s{}", last, last > 100 * t.repetition_time_s ? " (milliseconds?)" : ""));
  return t;
}

std::vector<Region> read_region_names(const fs::path& file) {
  const Table t = read_csv_table(file, {.header = true, .delimiter = file.extension() == ".csv" ? ',' : '\t'});
  const Column* index = t.find("index");
  if (!index) index = t.find("value");
  const Column* name = t.find("name");
  if (!name) name = t.find("label");
  if (!index || index->is_text() || !name)
    throw DataError(file.string(), "columns", "index (numbers) and name", "others");
  std::vector<Region> regions;
  for (std::size_t k = 0; k < index->size(); ++k)
    regions.push_back({index->numbers[k], name->is_text() ? name->text[k] : fmt::format("{}", name->numbers[k])});
  return regions;
}

bool is_gifti_name(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.ends_with(".gii") || name.ends_with(".gii.gz");
}

FmriSeries open_fmri(const fs::path& file, const FmriOptions& o, const std::string& where) {
  const bool gifti = is_gifti_name(file);
  const NiftiHeader h = gifti ? NiftiHeader() : read_nifti_header(file);
  auto [sidecar, sidecar_file] = o.sidecar ? std::pair(o.sidecar, o.sidecar_file) : sidecar_beside(file);
  if (gifti || is_cifti(h)) {
    FmriOptions with = o;
    with.sidecar = sidecar;
    with.sidecar_file = sidecar_file;
    FmriSeries series = gifti ? open_gifti(file, with, where) : open_cifti(file, h, with, where);
    if (sidecar) series.meta["sidecar"] = *sidecar;
    if (!o.sidecar && sidecar) series.files.emplace_back(sidecar_file);
    return series;
  }
  if (!o.surface.empty()) throw ConfigError(where + ".surface", o.surface.string(), "nothing: it is for .func.gii");
  for (std::size_t a = 4; a < h.shape.size(); ++a)
    if (h.shape[a] != 1)
      throw DataError(file.string(), "shape", "three axes of space and one of time",
                      fmt::format("{}", fmt::join(h.shape, " x ")));
  if (!o.regions.empty() && o.atlas.empty()) throw ConfigError(where + ".regions", "", "an atlas beside it");
  if (!o.labels.empty() && o.atlas.empty())
    throw ConfigError(where + ".labels", o.labels.string(), "an atlas beside it");
  const Grid grid = read_grid(file, h);
  FmriSeries series;
  if (!o.mask.empty()) series.files.push_back(o.mask);
  std::optional<Volume> atlas;
  std::map<double, std::string> names;
  if (!o.atlas.empty()) {
    atlas = read_integers(o.atlas, "atlas");
    require_same_grid(o.atlas.string(), atlas->grid, file.string(), grid);
    series.files.push_back(o.atlas);
    names = region_names(o, *atlas, series.files);
    if (names.empty() || (atlas->values.array() == 0).all())
      throw DataError(o.atlas.string(), "atlas", "at least one voxel that is not 0", "an empty atlas");
  }
  auto voxels = kept_voxels(file, grid, o, atlas ? &*atlas : nullptr, names, where);

  const FmriTiming timing = sidecar ? timing_of_sidecar(*sidecar, sidecar_file) : FmriTiming{};
  if (!o.sidecar && sidecar) series.files.emplace_back(sidecar_file);
  Stream& s = series.stream;
  s.name = "fmri";
  const auto rows = static_cast<Index>(voxels.size());
  const Scalar scalar = h.slope == 1 && h.intercept == 0 ? scalar_of(h.type) : Scalar::f32;
  series.meta = Value::object({{"grid", Value(std::vector<Index>(grid.size.begin(), grid.size.end()))},
                               {"affine", matrix_value(grid.affine)},
                               {"orientation", orientation_of(grid.affine)}});
  if (!h.has_space()) series.meta["note"] = "the header states no space: positions are relative";
  if (o.items || (h.volumes() == 1 && o.tr_s == 0)) {
    s.format = item_format({rows}, scalar, "fmri");
    s.keys.resize(static_cast<std::size_t>(h.volumes()));
    std::iota(s.keys.begin(), s.keys.end(), std::int64_t{0});
  } else {
    const FmriTiming checked = image_timing(file, h, timing, sidecar_file, o.tr_s);
    const double tr = checked.repetition_time_s;
    if (!checked.slice_s.empty()) series.meta["slice_timing_s"] = Value(checked.slice_s);
    series.meta["repetition_time_s"] = tr;
    s.format = time_format(rows, 1 / tr, scalar, "fmri");
    s.format.start_s = tr / 2;  // a volume stands for the middle of its acquisition
  }
  if (sidecar) series.meta["sidecar"] = *sidecar;

  auto& channels = s.format.parts[0].rows;
  channels.reserve(voxels.size());
  Column x{"x", {}, {}}, y{"y", {}, {}}, z{"z", {}, {}}, region{"region", {}, {}};
  for (const std::int64_t v : voxels) {
    const Index i = v % grid.size[0], j = v / grid.size[0] % grid.size[1], k = v / grid.size[0] / grid.size[1];
    const Eigen::Vector4d mm =
        grid.affine * Eigen::Vector4d(static_cast<double>(i), static_cast<double>(j), static_cast<double>(k), 1);
    Channel c;
    c.name = fmt::format("{}_{}_{}", i, j, k);
    c.position = std::array{1e-3 * mm[0], 1e-3 * mm[1], 1e-3 * mm[2]};
    if (atlas && atlas->values[v] != 0) c.kind = names.at(atlas->values[v]);
    if (atlas) region.text.push_back(c.kind);
    channels.push_back(std::move(c));
    x.numbers.push_back(static_cast<double>(i));
    y.numbers.push_back(static_cast<double>(j));
    z.numbers.push_back(static_cast<double>(k));
  }
  series.voxel = {"voxel", {std::move(x), std::move(y), std::move(z)}};
  if (atlas) series.voxel.columns.push_back(std::move(region));
  s.samples = open_nifti_voxels(file, h, std::move(voxels), o.allow_missing);
  return series;
}

Value describe_nifti(const fs::path& file) {
  const NiftiHeader h = read_nifti_header(file);
  if (is_cifti(h)) {
    Value d = Value::object({{"name", without_nifti_end(file).filename().string()},
                             {"version", fmt::format("CIFTI-2{}", h.big_endian ? ", big-endian" : "")},
                             {"shape", Value(std::vector<Index>{h.shape.begin() + 4, h.shape.end()})},
                             {"type", name_of(h.type)}});
    d["cifti"] = describe_cifti(file, h);
    return d;
  }
  const Eigen::Matrix4d affine = read_grid(file, h).affine;
  Value d = Value::object({{"name", without_nifti_end(file).filename().string()},
                           {"version", fmt::format("NIfTI-{}{}", h.version, h.big_endian ? ", big-endian" : "")},
                           {"shape", Value(h.shape)},
                           {"type", name_of(h.type)}});
  if (h.slope != 1 || h.intercept != 0) d["scaling"] = fmt::format("{} * stored + {}", h.slope, h.intercept);
  Value size = Value::array();
  for (int a = 0; a < 3; ++a) size.push_back(affine.col(a).head<3>().norm());
  d["voxel_mm"] = std::move(size);
  d["orientation"] = orientation_of(affine);
  d["space"] = h.sform_code > 0   ? fmt::format("sform: {}", space_name(h.sform_code))
               : h.qform_code > 0 ? fmt::format("qform: {}", space_name(h.qform_code))
                                  : "none: positions are relative";
  d["affine"] = matrix_value(affine);
  const auto [sidecar, sidecar_file] = sidecar_beside(file);
  FmriTiming timing;
  if (sidecar) timing = timing_of_sidecar(*sidecar, sidecar_file);
  if (h.shape.size() > 3) {
    if (h.s_per_unit == 0) d["repetition_time"] = "the fourth axis is not time";
    else
      d["repetition_time"] =
          fmt::format("{:.7g} s{}", h.repetition_time_s(), h.time_unit_stated ? "" : " (unit not stated)");
    if (timing.repetition_time_s > 0) d["repetition_time_sidecar_s"] = timing.repetition_time_s;
  }
  if (!timing.slice_s.empty()) d["slice_timing_s"] = Value(timing.slice_s);
  else if (h.slice_code > 0)
    d["slice_timing"] =
        fmt::format("{}{}", slice_order_name(h.slice_code),
                    h.slice_duration > 0 ? fmt::format(", {} s a slice", h.slice_duration * h.s_per_unit) : "");
  if (!h.description.empty()) d["description"] = h.description;
  return d;
}

Picture middle_slice(const fs::path& file) {
  const NiftiHeader h = read_nifti_header(file);
  const Eigen::Matrix4d affine = read_grid(file, h).affine;
  const auto grid = h.grid();
  if (is_cifti(h)) throw DataError(file.string(), "", "an image of voxels", "CIFTI, which has no slices");
  std::vector<std::int64_t> all(static_cast<std::size_t>(h.voxels()));
  std::iota(all.begin(), all.end(), std::int64_t{0});
  Eigen::VectorXf volume(h.voxels());
  open_nifti_voxels(file, h, std::move(all), true)
      ->read(0, MutableFrames(volume.data(), Scalar::f32, volume.size(), 1, volume.size()));
  // which voxel axis goes to the right, to the front and up, and whether it runs that way
  const std::string axes = orientation_of(affine);
  std::array<std::size_t, 3> axis{};
  std::array<bool, 3> forward{};
  for (std::size_t world = 0; world < 3; ++world) {
    const char ahead = "RAS"[world], back = "LPI"[world];
    axis[world] = std::min(axes.find(ahead), axes.find(back));
    forward[world] = axes[axis[world]] == ahead;
  }
  const auto voxel_size = [&](std::size_t a) { return affine.col(static_cast<Index>(axis[a])).head<3>().norm(); };
  const double pixel = std::min(voxel_size(0), voxel_size(1));
  Picture p;
  p.width = std::clamp<Index>(std::lround(static_cast<double>(grid[axis[0]]) * voxel_size(0) / pixel), 1, 4096);
  p.height = std::clamp<Index>(std::lround(static_cast<double>(grid[axis[1]]) * voxel_size(1) / pixel), 1, 4096);
  std::vector<float> values;
  const std::array<Index, 3> step{1, grid[0], grid[0] * grid[1]};
  for (Index row = 0; row < p.height; ++row)
    for (Index column = 0; column < p.width; ++column) {
      const auto place = [&](std::size_t a, Index at, Index of, bool along) {
        const Index n = grid[axis[a]], i = std::min(n - 1, at * n / of);
        return (along ? i : n - 1 - i) * step[axis[a]];
      };
      values.push_back(volume[place(0, column, p.width, forward[0]) + place(1, row, p.height, !forward[1]) +
                              grid[axis[2]] / 2 * step[axis[2]]]);
    }
  std::vector<float> sorted;
  std::copy_if(values.begin(), values.end(), std::back_inserter(sorted), [](float v) { return std::isfinite(v); });
  std::sort(sorted.begin(), sorted.end());
  const auto at = [&](double q) {
    return sorted.empty() ? 0.0F
                          : sorted[static_cast<std::size_t>(std::lround(q * static_cast<double>(sorted.size() - 1)))];
  };
  const float low = at(0.02), range = std::max(at(0.98) - low, 1e-30F);
  for (const float v : values)
    p.pixels.push_back(std::isfinite(v) ? static_cast<unsigned char>(255 * std::clamp((v - low) / range, 0.0F, 1.0F))
                                        : 0);
  return p;
}

}  // namespace percept::io
