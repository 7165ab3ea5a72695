#include "io/idx.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "io/packed_file.h"

namespace percept::io {
namespace fs = std::filesystem;

namespace {
std::optional<Element> idx_element(unsigned code) {
  switch (code) {
    case 0x08:
      return Element::u8;
    case 0x09:
      return Element::i8;
    case 0x0B:
      return Element::i16;
    case 0x0C:
      return Element::i32;
    case 0x0D:
      return Element::f32;
    case 0x0E:
      return Element::f64;
    default:
      return std::nullopt;
  }
}

std::uint64_t idx_offset(const IdxInfo& info) { return 4 + 4 * info.shape.size(); }

std::string idx_shape(const IdxInfo& info) { return fmt::format("({})", fmt::join(info.shape, ", ")); }

IdxInfo read_idx_header(const PackedFile& input) {
  const std::string file = input.path().string();
  unsigned char start[4] = {};
  const std::size_t got = input.read_some(0, start, sizeof start);
  const auto type = idx_element(start[2]);
  if (got < 4 || start[0] != 0 || start[1] != 0 || !type)
    throw DataError(file, "", "an IDX file", got == 0 ? "an empty file" : "another kind of file");
  if (start[3] < 1 || start[3] > 8)
    throw DataError(file, "header", "an array of 1 to 8 axes", fmt::format("{}", start[3]));
  IdxInfo info;
  info.type = *type;
  info.shape.resize(start[3]);
  std::vector<std::byte> sizes(4 * info.shape.size());
  input.read(4, sizes.data(), sizes.size());
  for (std::size_t a = 0; a < info.shape.size(); ++a)
    info.shape[a] = load_number<std::uint32_t>(sizes.data() + 4 * a, true);
  const std::uint64_t room = input.most_bytes() / static_cast<std::uint64_t>(bytes_of(info.type));
  std::uint64_t numbers = 1;
  for (const Index s : info.shape) {
    if (s == 0) throw DataError(file, "shape", "at least one frame of at least one number", idx_shape(info));
    // also keeps the product from overflowing
    if (static_cast<std::uint64_t>(s) > room / numbers)
      throw DataError(file, "size", fmt::format("the data of shape {} and type {}", idx_shape(info), name_of(*type)),
                      fmt::format("a file that holds at most {} bytes (truncated?)", input.most_bytes()));
    numbers *= static_cast<std::uint64_t>(s);
  }
  return info;
}

class IdxSource final : public SampleSource {
 public:
  IdxSource(const fs::path& file, double scale) : file_(file.string()), scale_(scale) {
    const PackedFile input(file);
    info_ = read_idx_header(input);
    for (const Index s : info_.frame_shape()) rows_ *= s;
    frame_bytes_ = rows_ * bytes_of(info_.type);
    const auto expected = static_cast<std::uint64_t>(frame_bytes_ * frames());
    // piece by piece: memory follows what is there, not what a header says
    constexpr std::uint64_t kPiece = std::uint64_t{16} << 20;
    for (std::uint64_t at = 0; at < expected; at = data_.size()) {
      data_.resize(std::min(expected, at + kPiece));
      input.read(idx_offset(info_) + at, data_.data() + at, data_.size() - at);
    }
    if (const std::uint64_t end = idx_offset(info_) + expected, all = input.bytes(); all != end)
      throw DataError(file_, "size", fmt::format("{} bytes for shape {}", end, idx_shape(info_)),
                      fmt::format("{}", all));
  }
  std::int64_t frames() const override { return info_.shape[0]; }
  void read(std::int64_t first, MutableFrames out) const override {
    if (first < 0 || first + out.frames > frames() || out.rows != rows_)
      throw DataError(file_, "frames", fmt::format("{} rows in a range inside [0, {})", rows_, frames()),
                      fmt::format("{} rows in [{}, {})", out.rows, first, first + out.frames));
    if (out.scalar == Scalar::f32) read_as(first, out.as<float>());
    else read_as(first, out.as<double>());
  }

 private:
  template <class U>
  void read_as(std::int64_t first, FrameSpan<U> out) const {
    for (Index k = 0; k < out.frames; ++k) {
      convert(info_.type, data_.data() + (first + k) * frame_bytes_, rows_, true, out.frame(k));
      if (scale_ != 1)
        for (Index i = 0; i < rows_; ++i) out.frame(k)[i] = static_cast<U>(scale_ * out.frame(k)[i]);
    }
  }

  std::string file_;
  double scale_;
  IdxInfo info_;
  Index rows_ = 1, frame_bytes_ = 0;
  std::vector<std::byte> data_;
};
}  // namespace

std::vector<Index> IdxInfo::frame_shape() const {
  return shape.size() > 1 ? std::vector<Index>(shape.begin() + 1, shape.end()) : std::vector<Index>{1};
}

IdxInfo read_idx_info(const fs::path& file) { return read_idx_header(PackedFile(file)); }

std::shared_ptr<const SampleSource> open_idx(const fs::path& file, double scale) {
  return std::make_shared<IdxSource>(file, scale);
}

}  // namespace percept::io
