#include "io/nifti.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <Eigen/LU>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string_view>

#include "core/error.h"
#include "io/packed_file.h"

namespace percept::io {
namespace fs = std::filesystem;

namespace {

/// The fields of a header by their place, in the byte order of the file.
class NiftiBytes {
 public:
  NiftiBytes(const std::byte* data, bool swap) : data_(data), swap_(swap) {}
  double f32(std::size_t at) const { return static_cast<double>(load_number<float>(data_ + at, swap_)); }
  double f64(std::size_t at) const { return load_number<double>(data_ + at, swap_); }
  int i16(std::size_t at) const { return load_number<std::int16_t>(data_ + at, swap_); }
  int i32(std::size_t at) const { return load_number<std::int32_t>(data_ + at, swap_); }
  std::int64_t i64(std::size_t at) const { return load_number<std::int64_t>(data_ + at, swap_); }
  int u8(std::size_t at) const { return static_cast<int>(data_[at]); }
  std::string text(std::size_t at, std::size_t n) const {
    std::string s(reinterpret_cast<const char*>(data_ + at), n);
    s.resize(std::min(s.find('\0'), s.size()));
    for (char& c : s)
      if (static_cast<unsigned char>(c) < 32) c = ' ';
    return s;
  }

 private:
  const std::byte* data_;
  bool swap_;
};

std::string nifti_shape(const NiftiHeader& h) { return fmt::format("{}", fmt::join(h.shape, " x ")); }

Element nifti_element(int datatype, int bits, const std::string& file) {
  struct Known {
    int code;
    Element type;
  };
  static constexpr Known kKnown[] = {
      {2, Element::u8},   {4, Element::i16},   {8, Element::i32},   {16, Element::f32},   {64, Element::f64},
      {256, Element::i8}, {512, Element::u16}, {768, Element::u32}, {1024, Element::i64}, {1280, Element::u64}};
  static constexpr std::pair<int, const char*> kOthers[] = {{0, "none"},
                                                            {1, "single bits"},
                                                            {32, "complex numbers"},
                                                            {128, "RGB colours"},
                                                            {1536, "16-byte reals"},
                                                            {1792, "complex numbers"},
                                                            {2048, "complex numbers"},
                                                            {2304, "RGBA colours"}};
  const char* expected = "one real number a voxel (u8 to u64, i8 to i64, f32 or f64)";
  for (auto& k : kKnown)
    if (k.code == datatype) {
      if (bits != 8 * bytes_of(k.type))
        throw DataError(file, "bitpix", fmt::format("{} for datatype {}", 8 * bytes_of(k.type), datatype),
                        fmt::format("{}", bits));
      return k.type;
    }
  for (auto& [code, name] : kOthers)
    if (code == datatype) throw DataError(file, "datatype", expected, fmt::format("{} ({})", datatype, name));
  throw DataError(file, "datatype", expected, fmt::format("{}", datatype));
}

void set_nifti_units(NiftiHeader& h, int units) {
  switch (units & 7) {
    case 1:
      h.mm_per_unit = 1000;
      break;
    case 3:
      h.mm_per_unit = 1e-3;
      break;
    default:
      break;
  }
  h.time_unit_stated = (units & 0x38) != 0;
  switch (units & 0x38) {
    case 16:
      h.s_per_unit = 1e-3;
      break;
    case 24:
      h.s_per_unit = 1e-6;
      break;
    case 0:
    case 8:
      break;
    default:
      h.s_per_unit = 0;
  }
}

void set_nifti_shape(NiftiHeader& h, const std::array<std::int64_t, 8>& dim, const std::string& file) {
  if (dim[0] < 1 || dim[0] > 7) throw DataError(file, "dim[0]", "1 to 7 axes", fmt::format("{}", dim[0]));
  for (std::int64_t a = 1; a <= dim[0]; ++a) {
    if (dim[static_cast<std::size_t>(a)] < 1)
      throw DataError(file, fmt::format("dim[{}]", a), "at least 1",
                      fmt::format("{}", dim[static_cast<std::size_t>(a)]));
    h.shape.push_back(dim[static_cast<std::size_t>(a)]);
  }
}

/// The size that header and shape state; throws where the file cannot hold it.
std::uint64_t nifti_bytes(const NiftiHeader& h, const PackedFile& input) {
  const std::uint64_t most = input.most_bytes();
  const auto item = static_cast<std::uint64_t>(bytes_of(h.type));
  std::uint64_t items = 1, room = most > h.data_offset ? (most - h.data_offset) / item : 0;
  for (const Index s : h.shape) {
    room /= static_cast<std::uint64_t>(s);  // for how many more; also keeps the product from overflowing
    if (room == 0)
      throw DataError(
          input.path().string(), "size",
          fmt::format("the data of {} x {} from byte {} on", nifti_shape(h), name_of(h.type), h.data_offset),
          input.packed() ? fmt::format("a packed file that holds at most {} bytes", most)
                         : fmt::format("a file of {} bytes (truncated?)", most));
    items *= static_cast<std::uint64_t>(s);
  }
  return h.data_offset + items * item;
}

/// Some writers leave a few hundred bytes behind the samples. A whole volume more is a wrong dimension.
void check_nifti_end(const NiftiHeader& h, const PackedFile& input) {
  const std::uint64_t expected = nifti_bytes(h, input), found = input.bytes();
  const auto volume = static_cast<std::uint64_t>(h.voxels() * bytes_of(h.type));
  if (found < expected || found - expected >= volume)
    throw DataError(
        input.path().string(), "size",
        fmt::format("{} bytes for {} x {} from byte {} on", expected, nifti_shape(h), name_of(h.type), h.data_offset),
        fmt::format("{}", found));
}

void read_nifti_extensions(NiftiHeader& h, const PackedFile& input, std::uint64_t at) {
  const std::string file = input.path().string();
  std::byte word[8] = {};
  if (at + 4 > h.data_offset) return;
  input.read(at, word, 4);
  if (word[0] == std::byte{0}) return;
  for (at += 4; at + 8 <= h.data_offset;) {
    input.read(at, word, 8);
    const NiftiBytes b(word, h.big_endian);
    const std::int64_t size = b.i32(0);
    if (size < 8 || static_cast<std::uint64_t>(size) > h.data_offset - at)
      throw DataError(file, fmt::format("extension at byte {}", at), fmt::format("8 to {} bytes", h.data_offset - at),
                      fmt::format("{}", size));
    h.extensions.push_back({b.i32(4), at + 8, static_cast<std::uint64_t>(size) - 8});
    at += static_cast<std::uint64_t>(size);
  }
}

NiftiHeader read_nifti_1(const NiftiBytes& b, const std::string& file) {
  NiftiHeader h;
  std::array<std::int64_t, 8> dim{};
  for (std::size_t i = 0; i < 8; ++i) {
    dim[i] = b.i16(40 + 2 * i);
    h.pixdim[i] = b.f32(76 + 4 * i);
  }
  set_nifti_shape(h, dim, file);
  h.type = nifti_element(b.i16(70), b.i16(72), file);
  const double offset = b.f32(108);
  if (!(offset >= 352 && offset < 1e9) || offset != std::floor(offset))
    throw DataError(file, "vox_offset", "a whole number from 352 on", fmt::format("{}", offset));
  h.data_offset = static_cast<std::uint64_t>(offset);
  h.slope = b.f32(112);
  h.intercept = b.f32(116);
  h.slice_end = b.i16(120);
  h.slice_code = b.u8(122);
  set_nifti_units(h, b.u8(123));
  h.slice_duration = b.f32(132);
  h.slice_start = b.i16(74);
  h.slice_axis = ((b.u8(39) >> 4) & 3) - 1;
  h.intent = b.i16(68);
  h.description = b.text(148, 80);
  h.qform_code = b.i16(252);
  h.sform_code = b.i16(254);
  for (std::size_t i = 0; i < 6; ++i) h.qform[i] = b.f32(256 + 4 * i);
  for (std::size_t r = 0; r < 3; ++r)
    for (std::size_t c = 0; c < 4; ++c) h.sform[r][c] = b.f32(280 + 16 * r + 4 * c);
  return h;
}

NiftiHeader read_nifti_2(const NiftiBytes& b, const std::string& file) {
  NiftiHeader h;
  h.version = 2;
  std::array<std::int64_t, 8> dim{};
  for (std::size_t i = 0; i < 8; ++i) {
    dim[i] = b.i64(16 + 8 * i);
    h.pixdim[i] = b.f64(104 + 8 * i);
  }
  set_nifti_shape(h, dim, file);
  h.type = nifti_element(b.i16(12), b.i16(14), file);
  const std::int64_t offset = b.i64(168);
  if (offset < 544) throw DataError(file, "vox_offset", "a whole number from 544 on", fmt::format("{}", offset));
  h.data_offset = static_cast<std::uint64_t>(offset);
  h.slope = b.f64(176);
  h.intercept = b.f64(184);
  h.slice_duration = b.f64(208);
  h.slice_start = static_cast<int>(std::clamp<std::int64_t>(b.i64(224), -1, 1 << 20));
  h.slice_end = static_cast<int>(std::clamp<std::int64_t>(b.i64(232), -1, 1 << 20));
  h.description = b.text(240, 80);
  h.qform_code = b.i32(344);
  h.sform_code = b.i32(348);
  for (std::size_t i = 0; i < 6; ++i) h.qform[i] = b.f64(352 + 8 * i);
  for (std::size_t r = 0; r < 3; ++r)
    for (std::size_t c = 0; c < 4; ++c) h.sform[r][c] = b.f64(400 + 32 * r + 8 * c);
  h.slice_code = b.i32(496);
  set_nifti_units(h, b.i32(500));
  h.intent = b.i32(504);
  h.slice_axis = ((b.u8(524) >> 4) & 3) - 1;
  return h;
}

NiftiHeader read_nifti_checked(const PackedFile& input) {
  const std::string file = input.path().string();
  std::array<std::byte, 540> bytes{};
  const std::size_t got = input.read_some(0, bytes.data(), bytes.size());
  const auto is = [&](std::size_t at, std::string_view text) {
    return got >= at + text.size() && std::memcmp(bytes.data() + at, text.data(), text.size()) == 0;
  };
  const auto other = [&](const char* found) -> DataError {
    return {file, "", "a NIfTI file (.nii or .nii.gz with the magic \"n+1\" or \"n+2\")", found};
  };
  if (got == 0) throw other("an empty file");
  if (got < 348) throw other(input.packed() ? "a packed file without a header" : "another kind of file");
  const int size = load_number<std::int32_t>(bytes.data(), false),
            swapped = load_number<std::int32_t>(bytes.data(), true);
  if (is(344, std::string_view("ni1\0", 4)) || is(4, std::string_view("ni2\0", 4)))
    throw other("a header whose samples are in a second file (.hdr and .img)");
  const bool first = is(344, std::string_view("n+1\0", 4)) && (size == 348 || swapped == 348);
  const bool second = is(4, std::string_view("n+2\0\r\n\032\n", 8)) && (size == 540 || swapped == 540);
  if (!first && !second)
    throw other(size == 348 || swapped == 348 ? "a header without that magic (ANALYZE 7.5?)" : "another kind of file");
  if (second && got < 540) throw other("an incomplete header");
  const bool swap = size != 348 && size != 540;
  const NiftiBytes b(bytes.data(), swap);
  NiftiHeader h = first ? read_nifti_1(b, file) : read_nifti_2(b, file);
  h.big_endian = swap;
  if (h.slope == 0) {  // the standard: not scaled
    h.slope = 1;
    h.intercept = 0;
  }
  if (!std::isfinite(h.slope) || !std::isfinite(h.intercept))
    throw DataError(file, "scl_slope and scl_inter", "finite numbers", fmt::format("{} and {}", h.slope, h.intercept));
  for (std::size_t a = 1; a <= std::min<std::size_t>(3, h.shape.size()); ++a)
    if (!std::isfinite(h.pixdim[a]))
      throw DataError(file, fmt::format("pixdim[{}]", a), "a finite voxel size", fmt::format("{}", h.pixdim[a]));
  nifti_bytes(h, input);
  if (!input.packed()) check_nifti_end(h, input);
  read_nifti_extensions(h, input, first ? 348 : 540);
  return h;
}

class NiftiSource final : public SampleSource {
 public:
  NiftiSource(const fs::path& file, NiftiHeader header, std::vector<std::int64_t> voxels, bool allow_missing)
      : input_(file), header_(std::move(header)), voxels_(std::move(voxels)), allow_missing_(allow_missing) {}
  std::int64_t frames() const override { return header_.volumes(); }

  void read(std::int64_t first, MutableFrames out) const override {
    if (first < 0 || out.frames < 0 || first + out.frames > frames() || out.rows != static_cast<Index>(voxels_.size()))
      throw DataError(input_.path().string(), "frames",
                      fmt::format("{} rows in a range inside [0, {})", voxels_.size(), frames()),
                      fmt::format("{} rows in [{}, {})", out.rows, first, first + out.frames));
    if (out.scalar == Scalar::f32) read_as(first, out.as<float>());
    else read_as(first, out.as<double>());
  }

 private:
  template <class U>
  void read_as(std::int64_t first, FrameSpan<U> out) const {
    const auto item = static_cast<std::uint64_t>(bytes_of(header_.type));
    // of each volume, what lies between the first and the last voxel
    const std::int64_t from = voxels_.front(), n = voxels_.back() - from + 1;
    const bool all = n == static_cast<std::int64_t>(voxels_.size());
    std::vector<std::byte> bytes(static_cast<std::size_t>(n) * item);
    std::vector<double> values(static_cast<std::size_t>(n));
    for (Index k = 0; k < out.frames; ++k) {
      input_.read(header_.data_offset + item * static_cast<std::uint64_t>((first + k) * header_.voxels() + from),
                  bytes.data(), bytes.size());
      if (!convert(header_.type, bytes.data(), n, header_.big_endian, values.data()))
        throw DataError(input_.path().string(), fmt::format("volume {}", first + k),
                        "whole numbers up to 2^53, which a double holds", "a larger one");
      U* to = out.frame(k);
      for (std::size_t v = 0; v < voxels_.size(); ++v) {
        const double value =
            header_.slope * values[all ? v : static_cast<std::size_t>(voxels_[v] - from)] + header_.intercept;
        if (std::isnan(value) && !allow_missing_) refuse_missing(voxels_[v], first + k);
        to[v] = static_cast<U>(value);
      }
    }
  }
  [[noreturn]] void refuse_missing(std::int64_t voxel, std::int64_t volume) const {
    const auto grid = header_.grid();
    throw DataError(input_.path().string(),
                    fmt::format("voxel ({}, {}, {}) of volume {}", voxel % grid[0], voxel / grid[0] % grid[1],
                                voxel / grid[0] / grid[1], volume),
                    "a number (leave such voxels out by a mask, or allow_missing = true)", "NaN");
  }

  PackedFile input_;
  NiftiHeader header_;
  std::vector<std::int64_t> voxels_;
  bool allow_missing_;
};

}  // namespace

std::array<Index, 3> NiftiHeader::grid() const {
  std::array<Index, 3> g{1, 1, 1};
  for (std::size_t a = 0; a < std::min<std::size_t>(3, shape.size()); ++a) g[a] = shape[a];
  return g;
}
std::int64_t NiftiHeader::voxels() const {
  const auto g = grid();
  return g[0] * g[1] * g[2];
}
std::int64_t NiftiHeader::volumes() const {
  std::int64_t n = 1;
  for (std::size_t a = 3; a < shape.size(); ++a) n *= shape[a];
  return n;
}

Eigen::Matrix4d NiftiHeader::affine(const std::string& file) const {
  Eigen::Matrix4d m = Eigen::Matrix4d::Identity();
  const char* field = "pixdim";
  if (sform_code > 0) {
    field = "sform";
    for (int r = 0; r < 3; ++r)
      for (int c = 0; c < 4; ++c) m(r, c) = sform[static_cast<std::size_t>(r)][static_cast<std::size_t>(c)];
  } else {
    Eigen::Vector3d size = Eigen::Vector3d::Ones();  // of an axis that is not there
    for (std::size_t a = 0; a < std::min<std::size_t>(3, shape.size()); ++a)
      size[static_cast<Index>(a)] = std::abs(pixdim[a + 1]);
    m.topLeftCorner<3, 3>() = size.asDiagonal();
    if (qform_code > 0) {
      field = "qform";
      // the quaternion's real part is not stored; the third axis is turned round where qfac is -1
      double b = qform[0], c = qform[1], d = qform[2], a = 1 - (b * b + c * c + d * d);
      if (a < 1e-7) {
        const double norm = std::sqrt(b * b + c * c + d * d);
        a = 0;
        b /= norm;
        c /= norm;
        d /= norm;
      } else {
        a = std::sqrt(a);
      }
      Eigen::Matrix3d r;
      r << a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c),  //
          2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b),   //
          2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c;
      if (pixdim[0] < 0) r.col(2) *= -1;
      m.topLeftCorner<3, 3>() = r * size.asDiagonal();
      for (std::size_t i = 0; i < 3; ++i) m(static_cast<Index>(i), 3) = qform[3 + i];
    }
  }
  m.topRows<3>() *= mm_per_unit;
  const double volume = m.topLeftCorner<3, 3>().determinant();
  if (!m.allFinite() || !(std::abs(volume) > 1e-12))
    throw DataError(file, field, "an affine that can be inverted (voxel sizes above 0)",
                    fmt::format("a voxel of {} mm^3", volume));
  return m;
}

NiftiHeader read_nifti_header(const fs::path& file) { return read_nifti_checked(PackedFile(file)); }

void check_nifti_length(const fs::path& file, const NiftiHeader& header) { check_nifti_end(header, PackedFile(file)); }

std::string orientation_of(const Eigen::Matrix4d& affine) {
  Eigen::Matrix3d m = affine.topLeftCorner<3, 3>();
  m.colwise().normalize();
  // of the six ways to give every voxel axis one of space, that with the largest product of cosines: above zero, since
  // the affine can be inverted
  std::array<Index, 3> row{0, 1, 2}, best = row;
  double most = -1;
  do {
    const double product = std::abs(m(row[0], 0) * m(row[1], 1) * m(row[2], 2));
    if (product > most) {
      most = product;
      best = row;
    }
  } while (std::next_permutation(row.begin(), row.end()));
  std::string axes;
  for (std::size_t a = 0; a < 3; ++a) axes += (m(best[a], static_cast<Index>(a)) > 0 ? "RAS" : "LPI")[best[a]];
  return axes;
}

std::shared_ptr<const SampleSource> open_nifti_voxels(const fs::path& file, const NiftiHeader& header,
                                                      std::vector<std::int64_t> voxels, bool allow_missing) {
  if (voxels.empty()) throw DataError(file.string(), "voxels", "at least one", "none");
  return std::make_shared<NiftiSource>(file, header, std::move(voxels), allow_missing);
}

}  // namespace percept::io
