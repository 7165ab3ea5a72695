#include "io/npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "core/files.h"
#include "io/element.h"
#include "io/input_file.h"

namespace percept::io {
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kNpyBlock = std::uint64_t{1} << 20;

/// The header is a Python dictionary of three keys; nothing else of the language is read.
class NpyHeader {
 public:
  NpyHeader(std::string_view text, const fs::path& file) : rest_(text), file_(file) {}

  NpyInfo parse() {
    NpyInfo info;
    bool descr = false, order = false, shape = false;
    take('{');
    while (!peek('}')) {
      const std::string_view key = string();
      take(':');
      if (key == "descr" && !descr) {
        descr = true;
        set_type(info);
      } else if (key == "fortran_order" && !order) {
        order = true;
        info.fortran_order = boolean();
      } else if (key == "shape" && !shape) {
        shape = true;
        set_shape(info);
      } else {
        fail("the keys descr, fortran_order and shape, each once", fmt::format("'{}'", key));
      }
      if (!peek('}')) take(',');
    }
    take('}');
    if (rest_.find_first_not_of(" \n") != rest_.npos) fail("nothing behind '}'", "more text");
    if (!descr || !order || !shape) fail("the keys descr, fortran_order and shape", "fewer");
    return info;
  }

 private:
  [[noreturn]] void fail(const std::string& expected, const std::string& found) const {
    throw DataError(file_.string(), "header", expected, found);
  }
  bool peek(char c) {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\n')) rest_.remove_prefix(1);
    return !rest_.empty() && rest_.front() == c;
  }
  void take(char c) {
    if (!peek(c))
      fail(fmt::format("'{}'", c),
           rest_.empty() ? "the end of the header" : fmt::format("byte {}", int(static_cast<unsigned char>(rest_[0]))));
    rest_.remove_prefix(1);
  }
  std::string_view string() {
    const char quote = peek('"') ? '"' : '\'';
    take(quote);
    const auto end = rest_.find(quote);
    if (end == rest_.npos) fail("a closing quote", "the end of the header");
    const auto text = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return text;
  }
  bool boolean() {
    peek(' ');
    for (const bool b : {false, true})
      if (const std::string_view word = b ? "True" : "False"; rest_.starts_with(word)) {
        rest_.remove_prefix(word.size());
        return b;
      }
    fail("fortran_order: True or False", "something else");
  }
  void set_shape(NpyInfo& info) {
    take('(');
    while (!peek(')')) {
      std::int64_t n = -1;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), n);
      if (error != std::errc() || n < 0) fail("shape: whole numbers of at least 0", "something else");
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      if (!rest_.empty() && rest_.front() == 'L') rest_.remove_prefix(1);  // Python 2 wrote long integers so
      info.shape.push_back(n);
      if (info.shape.size() > 32) fail("shape: at most 32 axes", "more");
      if (!peek(')')) take(',');
    }
    take(')');
  }
  void set_type(NpyInfo& info) {
    static constexpr std::string_view kTypes[] = {"b1", "i1", "i2", "i4", "i8", "u1", "u2",
                                                  "u4", "u8", "f2", "f4", "f8", "c8", "c16"};
    const char* expected = "descr: numbers (b1, i1 to i8, u1 to u8, f2, f4, f8, c8, c16)";
    if (peek('[')) fail(expected, "a structured type");
    const std::string_view descr = string();
    if (descr.size() > 1 && descr[1] == 'O')
      fail(expected, "objects, which only pickle can read: never done, because it runs code");
    if (descr.size() < 2 || std::string_view("<>|=").find(descr[0]) == std::string_view::npos ||
        std::find(std::begin(kTypes), std::end(kTypes), descr.substr(1)) == std::end(kTypes))
      fail(expected, fmt::format("'{}'", descr.substr(0, 40)));
    info.type = descr.substr(1);
    info.big_endian = descr[0] == '>';
    info.item_bytes = std::stoi(info.type.substr(1));
  }

  std::string_view rest_;
  const fs::path& file_;
};

/// IEEE binary16, which C++20 has no type for.
float half_to_float(std::uint16_t h) {
  const int exponent = h >> 10 & 31;
  const float fraction = static_cast<float>(h & 1023);
  const float sign = h & 0x8000 ? -1.0F : 1.0F;
  if (exponent == 31)
    return h & 1023 ? std::numeric_limits<float>::quiet_NaN() : sign * std::numeric_limits<float>::infinity();
  return sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
}

/// The element type of the numbers, or nothing for b1 and f2.
std::optional<Element> npy_element(const std::string& type) {
  static constexpr std::pair<std::string_view, Element> kElements[] = {
      {"i1", Element::i8},  {"u1", Element::u8},  {"i2", Element::i16}, {"u2", Element::u16},
      {"i4", Element::i32}, {"u4", Element::u32}, {"i8", Element::i64}, {"u8", Element::u64},
      {"f4", Element::f32}, {"f8", Element::f64}, {"c8", Element::f32}, {"c16", Element::f64}};
  for (auto& [name, element] : kElements)
    if (name == type) return element;
  return std::nullopt;
}

template <class U>
bool convert_items(const std::string& type, const std::byte* from, Index n, bool swap, U* to, Index step) {
  if (const auto element = npy_element(type)) return convert(*element, from, n, swap, to, step);
  if (type == "f2") {
    for (Index i = 0; i < n; ++i) to[i * step] = half_to_float(load_number<std::uint16_t>(from + 2 * i, swap));
    return true;
  }
  for (Index i = 0; i < n; ++i) to[i * step] = from[i] != std::byte{0};  // b1
  return true;
}

class NpySource final : public SampleSource {
 public:
  NpySource(const fs::path& file, NpyInfo info) : input_(file), info_(std::move(info)) {
    parts_ = info_.type[0] == 'c' ? 2 : 1;
    for (std::size_t a = 1; a < info_.shape.size(); ++a) items_ *= info_.shape[a];
    number_bytes_ = info_.item_bytes / parts_;
    if (info_.fortran_order && items_ > 1) {
      // where in the file (in items from a frame's first) the items of a frame lie, in C order
      std::vector<Index> stride(info_.shape.size(), 1), at(info_.shape.size(), 0);
      for (std::size_t a = 1; a < stride.size(); ++a) stride[a] = stride[a - 1] * info_.shape[a - 1];
      offsets_.reserve(static_cast<std::size_t>(items_));
      for (Index offset = 0;;) {
        offsets_.push_back(offset);
        std::size_t a = at.size() - 1;
        for (; a > 0; --a) {
          offset += stride[a];
          if (++at[a] < info_.shape[a]) break;
          offset -= at[a] * stride[a];
          at[a] = 0;
        }
        if (a == 0) break;
      }
    }
  }
  std::int64_t frames() const override { return info_.frames(); }

  void read(std::int64_t first, MutableFrames out) const override {
    const Index rows = items_ * parts_;
    if (first < 0 || out.frames < 0 || first + out.frames > frames() || out.rows != rows)
      throw DataError(input_.path().string(), "frames",
                      fmt::format("{} rows in a range inside [0, {})", rows, frames()),
                      fmt::format("{} rows in [{}, {})", out.rows, first, first + out.frames));
    if (out.scalar == Scalar::f32) read_as(first, out.as<float>());
    else read_as(first, out.as<double>());
  }

 private:
  template <class U>
  void read_as(std::int64_t first, FrameSpan<U> out) const {
    if (!offsets_.empty()) {
      std::vector<std::byte> run(static_cast<std::size_t>(out.frames * info_.item_bytes));
      for (Index item = 0; item < items_; ++item) {
        input_.read(info_.data_offset + static_cast<std::uint64_t>((offsets_[static_cast<std::size_t>(item)] + first) *
                                                                   info_.item_bytes),
                    run.data(), run.size());
        // complex: all real parts, then all imaginary ones
        for (Index p = 0; p < parts_; ++p)
          for (Index k = 0; k < (parts_ == 1 ? 1 : out.frames); ++k)
            convert_numbers(run.data() + k * info_.item_bytes + p * number_bytes_, parts_ == 1 ? out.frames : 1,
                            out.frame(k) + item * parts_ + p, out.stride);
      }
      return;
    }
    const std::uint64_t frame_bytes = static_cast<std::uint64_t>(items_ * info_.item_bytes);
    const Index at_once =
        std::clamp<Index>(static_cast<Index>(kNpyBlock / frame_bytes), 1, std::max<Index>(1, out.frames));
    std::vector<std::byte> block(static_cast<std::size_t>(at_once) * frame_bytes);
    for (Index k = 0; k < out.frames; k += at_once) {
      const Index n = std::min(at_once, out.frames - k);
      input_.read(info_.data_offset + static_cast<std::uint64_t>(first + k) * frame_bytes, block.data(),
                  static_cast<std::size_t>(n) * frame_bytes);
      const Index numbers = items_ * parts_, piece = out.stride == numbers ? n : 1;  // all at once where frames touch
      for (Index i = 0; i < n; i += piece)
        convert_numbers(block.data() + static_cast<std::uint64_t>(i) * frame_bytes, numbers * piece, out.frame(k + i),
                        1);
    }
  }
  template <class U>
  void convert_numbers(const std::byte* from, Index n, U* to, Index step) const {
    if (!convert_items(info_.type, from, n, info_.big_endian, to, step))
      throw DataError(input_.path().string(), "values", "whole numbers up to 2^53, which a double holds",
                      "a larger one");
  }

  InputFile input_;
  NpyInfo info_;
  Index parts_ = 1, items_ = 1, number_bytes_ = 0;
  std::vector<Index> offsets_;  ///< Fortran order only
};

}  // namespace

std::vector<Index> NpyInfo::frame_shape() const {
  std::vector<Index> s;
  if (shape.size() > 1) s.assign(shape.begin() + 1, shape.end());
  if (type[0] == 'c') s.push_back(2);
  if (s.empty()) s.push_back(1);
  return s;
}

Scalar NpyInfo::scalar() const {
  const auto element = npy_element(type);
  return element ? scalar_of(*element) : Scalar::f32;
}

NpyInfo read_npy_info(const fs::path& file) {
  const InputFile input(file);
  unsigned char start[12] = {};
  const std::size_t got = input.read_some(0, start, sizeof start);
  if (got < 10 || std::memcmp(start, "\x93NUMPY", 6) != 0)
    throw DataError(file.string(), "", "a NumPy .npy file", got == 0 ? "an empty file" : "another kind of file");
  const int version = start[6];
  if (version < 1 || version > 3 || start[7] != 0)
    throw DataError(file.string(), "version", "1.0, 2.0 or 3.0", fmt::format("{}.{}", version, start[7]));
  const std::uint64_t prefix = version == 1 ? 10 : 12;
  std::uint64_t length = start[8] | static_cast<std::uint64_t>(start[9]) << 8;
  if (version > 1) length |= static_cast<std::uint64_t>(start[10]) << 16 | static_cast<std::uint64_t>(start[11]) << 24;
  constexpr std::uint64_t kLongest = std::uint64_t{1} << 20;  // three keys take a hundred bytes
  if (length > kLongest || prefix + length > input.bytes())
    throw DataError(file.string(), "header", fmt::format("at most {} bytes inside the file", kLongest),
                    fmt::format("{}", length));
  std::string text(length, '\0');
  input.read(prefix, text.data(), length);
  NpyInfo info = NpyHeader(text, file).parse();
  info.data_offset = prefix + length;

  const std::uint64_t room = (input.bytes() - info.data_offset) / static_cast<std::uint64_t>(info.item_bytes);
  std::uint64_t items = 1;
  const std::string shape = fmt::format("({})", fmt::join(info.shape, ", "));
  for (const Index s : info.shape) {
    if (s == 0) throw DataError(file.string(), "shape", "at least one frame of at least one number", shape);
    // also keeps the product from overflowing: what does not fit into the file is refused at once
    if (static_cast<std::uint64_t>(s) > room / items)
      throw DataError(file.string(), "size", fmt::format("the data of shape {} and type {}", shape, info.type),
                      fmt::format("a file of {} bytes (truncated?)", input.bytes()));
    items *= static_cast<std::uint64_t>(s);
  }
  const std::uint64_t expected = info.data_offset + items * static_cast<std::uint64_t>(info.item_bytes);
  if (expected != input.bytes())
    throw DataError(file.string(), "size", fmt::format("{} bytes for shape {} and type {}", expected, shape, info.type),
                    fmt::format("{}", input.bytes()));
  return info;
}

std::shared_ptr<const SampleSource> open_npy(const fs::path& file) {
  return std::make_shared<NpySource>(file, read_npy_info(file));
}

Eigen::MatrixXd read_npy(const fs::path& file) {
  NpyInfo info = read_npy_info(file);
  Index rows = 1;
  for (const Index s : info.frame_shape()) rows *= s;
  Eigen::MatrixXd m(rows, info.frames());
  NpySource(file, std::move(info)).read(0, MutableFrames(m.data(), Scalar::f64, m.rows(), m.cols(), m.rows()));
  return m;
}

void write_npy(const fs::path& file, ConstFrames frames, const std::vector<Index>& frame_shape) {
  std::vector<Index> shape{frames.frames};
  Index rows = 1;
  for (const Index s : frame_shape.empty() ? std::vector<Index>{frames.rows} : frame_shape) {
    shape.push_back(s);
    rows *= s;
  }
  if (rows != frames.rows)
    throw DataError(file.string(), "shape", fmt::format("{} numbers in a frame", frames.rows), fmt::format("{}", rows));
  std::string header = fmt::format("{{'descr': '<f{}', 'fortran_order': False, 'shape': ({}), }}",
                                   bytes_of(frames.scalar), fmt::join(shape, ", "));
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  AtomicPath target(file);
  {
    std::ofstream out(target.path(), std::ios::binary);
    const char start[10] = {'\x93',
                            'N',
                            'U',
                            'M',
                            'P',
                            'Y',
                            1,
                            0,
                            static_cast<char>(header.size() & 255),
                            static_cast<char>(header.size() >> 8)};
    out.write(start, sizeof start);
    out.write(header.data(), static_cast<std::streamsize>(header.size()));
    for (Index k = 0; k < frames.frames; ++k)
      out.write(static_cast<const char*>(frames.slice(k, 1).data),
                static_cast<std::streamsize>(static_cast<std::size_t>(frames.rows) * bytes_of(frames.scalar)));
    out.flush();
    if (!out) throw DataError(file.string(), "", "a file that can be written", std::strerror(errno));
  }
  target.commit();
}

}  // namespace percept::io
