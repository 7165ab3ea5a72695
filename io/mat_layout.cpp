#include "io/mat_layout.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <vector>

#include "core/error.h"

namespace percept::io {

namespace {

enum MatElement : std::uint32_t { kMatInt32 = 5, kMatUint32 = 6, kMatMatrix = 14, kMatPacked = 15 };
enum MatClass : std::uint32_t {
  kMatCell = 1,
  kMatStruct = 2,
  kMatObject = 3,
  kMatSparse = 5,
  kMatFunction = 16,
  kMatOpaque = 17
};

constexpr int kDeepestMat = 32;

struct BrokenMat {
  const char* what;
};

/// The bytes of one element of the file, unpacked on the way.
class ElementBytes {
 public:
  ElementBytes(const InputFile& input, std::uint64_t from, std::uint64_t bytes, bool packed)
      : input_(input), at_(from), end_(from + bytes), packed_(packed) {
    if (packed_ && inflateInit(&stream_) != Z_OK) throw Error("zlib could not start");
  }
  ~ElementBytes() {
    if (packed_) inflateEnd(&stream_);
  }
  ElementBytes(const ElementBytes&) = delete;
  ElementBytes& operator=(const ElementBytes&) = delete;

  void read(void* to, std::size_t n) {
    if (!packed_) {
      if (n > end_ - at_) throw BrokenMat{"its end inside a variable"};
      input_.read(at_, to, n);
      at_ += n;
      return;
    }
    stream_.next_out = static_cast<Bytef*>(to);
    stream_.avail_out = static_cast<uInt>(n);
    while (stream_.avail_out > 0) {
      if (stream_.avail_in == 0) {
        stream_.next_in = buffer_.data();
        stream_.avail_in = static_cast<uInt>(std::min<std::uint64_t>(buffer_.size(), end_ - at_));
        input_.read(at_, buffer_.data(), stream_.avail_in);
        at_ += stream_.avail_in;
      }
      const int status = inflate(&stream_, Z_NO_FLUSH);
      if (status != Z_OK && stream_.avail_out > 0) throw BrokenMat{"packed data that do not unpack"};
    }
  }
  void skip(std::uint64_t n) {
    if (!packed_) {
      if (n > end_ - at_) throw BrokenMat{"its end inside a variable"};
      at_ += n;
      return;
    }
    std::array<char, 65536> nothing;
    for (; n > 0; n -= std::min<std::uint64_t>(n, nothing.size()))
      read(nothing.data(), std::min<std::uint64_t>(n, nothing.size()));
  }

 private:
  const InputFile& input_;
  std::uint64_t at_, end_;
  bool packed_;
  z_stream stream_{};
  std::array<Bytef, 16384> buffer_;
};

/// Goes through one variable; every piece is taken from the bytes that are left of it.
class LayoutCheck {
 public:
  LayoutCheck(ElementBytes& bytes, bool swapped) : bytes_(bytes), swapped_(swapped) {}

  /// The inside of a matrix element of `left` bytes.
  void matrix(std::uint64_t left, int depth) {
    if (depth > kDeepestMat) throw BrokenMat{"cells nested too deep"};
    if (left == 0) return;  // an empty cell
    const auto flags = numbers(left, kMatUint32, 2);
    if (flags.size() != 2) throw BrokenMat{"a variable without flags"};
    const std::uint32_t kind = flags[0] & 0xff;
    if (kind == kMatOpaque) return depth > 0 ? bytes_.skip(left) : void();
    const auto shape = numbers(left, kMatInt32, 32);
    if (shape.size() < 2) throw BrokenMat{"a variable without a shape"};
    skip_element(left);  // its name
    const bool holds_parts = kind == kMatCell || kind == kMatStruct || kind == kMatObject || kind == kMatFunction;
    // a part takes the 8 bytes of its tag at least, a number one byte
    std::uint64_t parts = std::find(shape.begin(), shape.end(), 0U) == shape.end();
    const auto times = [&](std::uint64_t n) {
      if (n > 0 && parts > left / (holds_parts ? 8 : 1) / n) throw BrokenMat{"a shape larger than its bytes hold"};
      parts *= n;
    };
    if (kind != kMatSparse)
      for (const std::uint32_t n : shape) times(n);
    if (!holds_parts) {
      if (depth > 0) bytes_.skip(left);  // the data of a whole variable are matio's business
      return;
    }
    if (kind == kMatObject) skip_element(left);  // the name of its class
    if (kind == kMatStruct || kind == kMatObject) {
      const auto name_bytes = numbers(left, kMatInt32, 1);
      if (name_bytes.size() != 1 || name_bytes[0] == 0 || name_bytes[0] > 4096) throw BrokenMat{"fields without names"};
      times(skip_element(left) / name_bytes[0]);
    }
    for (; parts > 0; --parts) {
      const auto [type, length] = tag(left);
      if (type != kMatMatrix) throw BrokenMat{"a cell that is no variable"};
      if (length > left) throw BrokenMat{"a cell longer than what holds it"};
      matrix(length, depth + 1);
      left -= length;
    }
    bytes_.skip(left);
  }

  std::uint32_t word() {
    std::uint32_t w = 0;
    bytes_.read(&w, sizeof w);
    return swapped_ ? __builtin_bswap32(w) : w;
  }

 private:
  struct Tag {
    std::uint32_t type;
    std::uint64_t length;
  };
  void take(std::uint64_t& left, std::uint64_t n) {
    if (n > left) throw BrokenMat{"a piece longer than what holds it"};
    left -= n;
  }
  Tag tag(std::uint64_t& left) {
    take(left, 8);
    const std::uint32_t type = word();
    return {type, word()};
  }
  /// A piece of 32-bit numbers; a short piece has its only one in the place of the length.
  std::vector<std::uint32_t> numbers(std::uint64_t& left, std::uint32_t type, std::size_t most) {
    take(left, 8);
    const std::uint32_t first = word(), second = word();
    const bool small = first >> 16 != 0;
    const std::uint32_t length = small ? first >> 16 : second;
    if ((small ? first & 0xffff : first) != type || length % 4 != 0 || length / 4 > most || (small && length > 4))
      throw BrokenMat{"a head that is not one of a variable"};
    if (small) return {second};
    const std::uint32_t padded = (length + 7) / 8 * 8;
    take(left, padded);
    std::vector<std::uint32_t> all(length / 4);
    for (auto& n : all) n = word();
    bytes_.skip(padded - length);
    return all;
  }
  /// Passes a piece; returns the bytes in it.
  std::uint64_t skip_element(std::uint64_t& left) {
    take(left, 8);
    const std::uint32_t first = word(), second = word();
    if (first >> 16 != 0) return first >> 16;
    const std::uint64_t padded = (std::uint64_t{second} + 7) / 8 * 8;
    take(left, padded);
    bytes_.skip(padded);
    return second;
  }

  ElementBytes& bytes_;
  bool swapped_;
};

}  // namespace

void check_mat5_layout(const InputFile& input, bool swapped) {
  for (std::uint64_t at = 128; at < input.bytes();) {
    const std::string field = fmt::format("byte {}", at);
    std::uint32_t tag[2] = {};
    if (input.bytes() - at >= sizeof tag) input.read(at, tag, sizeof tag);
    if (swapped)
      for (auto& t : tag) t = __builtin_bswap32(t);
    if (tag[0] != kMatMatrix && tag[0] != kMatPacked)
      throw DataError(input.path().string(), field, "a variable", "something else (truncated?)");
    at += sizeof tag;
    if (tag[1] > input.bytes() - at)
      throw DataError(input.path().string(), field, fmt::format("a variable of {} bytes", tag[1]),
                      fmt::format("{} before the end of the file (truncated?)", input.bytes() - at));
    try {
      ElementBytes bytes(input, at, tag[1], tag[0] == kMatPacked);
      LayoutCheck check(bytes, swapped);
      std::uint64_t length = tag[1];
      if (tag[0] == kMatPacked) {
        if (check.word() != kMatMatrix) throw BrokenMat{"packed data that are no variable"};
        length = check.word();
        if (length > std::uint64_t{1100} * tag[1]) throw BrokenMat{"more than zlib can have packed"};
      }
      check.matrix(length, 0);
    } catch (const BrokenMat& e) {
      throw DataError(input.path().string(), field, "an undamaged variable", e.what);
    }
    at += tag[1];
  }
}

}  // namespace percept::io
