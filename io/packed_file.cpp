#include "io/packed_file.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <optional>
#include <vector>

#include "core/error.h"
#include "io/input_file.h"

namespace percept::io {

namespace {
constexpr std::uint64_t kPointEvery = std::uint64_t{4} << 20;  ///< content between two places to resume at
constexpr std::size_t kInputBlock = std::size_t{64} << 10;
constexpr std::uint64_t kDensest = 1032;  ///< deflate's limit: 258 bytes by two bits, of 8
constexpr int kGzip = 15 + 16, kRaw = -15;
constexpr std::uint64_t kTrailer = 8;  ///< CRC and length at the end of a member
}  // namespace

struct PackedFile::Inflater {
  /// A boundary between two deflate blocks, from which the content can be made again.
  struct Point {
    std::uint64_t in = 0, out = 0;       ///< first byte not yet consumed, content before it
    int bits = 0;                        ///< of the byte before `in` that still belong to the next block
    std::vector<unsigned char> history;  ///< the content before, at most 32 kB
  };

  explicit Inflater(const std::filesystem::path& file) : input(file) {
    unsigned char magic[2] = {};
    packed = input.read_some(0, magic, 2) == 2 && magic[0] == 0x1f && magic[1] == 0x8b;
    if (packed) restart(nullptr);
  }
  ~Inflater() {
    if (started) inflateEnd(&z);
  }

  [[noreturn]] void fail(const std::string& found) const {
    throw DataError(input.path().string(), "gzip", "a whole gzip stream",
                    fmt::format("{} after {} bytes of content", found, out));
  }

  /// Puts the decompressor to a point, or to the start of the file.
  void restart(const Point* point) {
    if (started) inflateEnd(&z);
    z = z_stream{};
    started = inflateInit2(&z, point ? kRaw : kGzip) == Z_OK;
    if (!started) throw std::bad_alloc();
    raw = point != nullptr;
    at_end = false;
    in = point ? point->in : 0;
    out = point ? point->out : 0;
    if (!point) return;
    if (point->bits > 0) {
      unsigned char byte = 0;
      input.read(point->in - 1, &byte, 1);
      inflatePrime(&z, point->bits, byte >> (8 - point->bits));
    }
    inflateSetDictionary(&z, point->history.data(), static_cast<uInt>(point->history.size()));
  }

  void keep_point() {
    if (out < (points.empty() ? 0 : points.back().out) + kPointEvery) return;
    Point p;
    p.in = in - z.avail_in;
    p.out = out;
    p.bits = z.data_type & 7;
    p.history.resize(std::size_t{32} << 10);
    auto length = static_cast<uInt>(p.history.size());
    if (inflateGetDictionary(&z, p.history.data(), &length) != Z_OK) return;
    p.history.resize(length);
    p.history.shrink_to_fit();
    points.push_back(std::move(p));
  }

  /// The end of a member: the next begins behind it, or only padding does.
  void next_member() {
    std::uint64_t at = in - z.avail_in + (raw ? kTrailer : 0);
    unsigned char block[512];
    for (;;) {  // some writers pad with zeros
      const std::size_t n = input.read_some(at, block, sizeof block);
      const auto* first = std::find_if(block, block + n, [](unsigned char b) { return b != 0; });
      at += static_cast<std::uint64_t>(first - block);
      if (first != block + n) break;
      if (n == 0) {
        at_end = true;
        total = out;
        return;
      }
    }
    in = at;
    z.avail_in = 0;
    inflateReset2(&z, kGzip);
    raw = false;
  }

  /// Content from where the decompressor stands; fewer than n bytes only at the end.
  std::size_t next(unsigned char* to, std::size_t n) {
    std::size_t got = 0;
    while (got < n && !at_end) {
      if (z.avail_in == 0) {
        z.avail_in = static_cast<uInt>(input.read_some(in, buffer, sizeof buffer));
        z.next_in = buffer;
        in += z.avail_in;
        if (z.avail_in == 0) fail("the end of the file");
      }
      const auto room = static_cast<uInt>(std::min<std::size_t>(n - got, std::size_t{1} << 30));
      z.next_out = to + got;
      z.avail_out = room;
      const int result = inflate(&z, Z_BLOCK);
      got += room - z.avail_out;
      out += room - z.avail_out;
      if (result == Z_STREAM_END) next_member();
      else if (result != Z_OK && result != Z_BUF_ERROR) fail(z.msg ? z.msg : "damage");
      else if ((z.data_type & 128) && !(z.data_type & 64)) keep_point();
    }
    return got;
  }

  std::size_t read_some(std::uint64_t offset, unsigned char* to, std::size_t n) {
    if (total && offset >= *total) return 0;
    const auto after = std::upper_bound(points.begin(), points.end(), offset,
                                        [](std::uint64_t o, const Point& p) { return o < p.out; });
    const Point* best = after == points.begin() ? nullptr : &*std::prev(after);
    if (offset < out || (best && best->out > out)) restart(best);
    std::vector<unsigned char> skipped(std::min<std::uint64_t>(offset - out, kInputBlock));
    while (out < offset && !at_end) next(skipped.data(), std::min<std::uint64_t>(skipped.size(), offset - out));
    return out < offset ? 0 : next(to, n);
  }

  const InputFile input;
  bool packed = false;
  std::mutex mutex;  ///< of all that follows
  z_stream z{};
  bool started = false, raw = false, at_end = false;
  std::uint64_t in = 0;   ///< of the file, loaded into the buffer
  std::uint64_t out = 0;  ///< of the content, given
  std::optional<std::uint64_t> total;
  std::vector<Point> points;
  unsigned char buffer[kInputBlock];
};

PackedFile::PackedFile(const std::filesystem::path& file) : impl_(std::make_unique<Inflater>(file)) {}
PackedFile::~PackedFile() = default;

const std::filesystem::path& PackedFile::path() const { return impl_->input.path(); }
bool PackedFile::packed() const { return impl_->packed; }
std::uint64_t PackedFile::most_bytes() const { return impl_->input.bytes() * (packed() ? kDensest : 1); }

std::uint64_t PackedFile::bytes() const {
  if (!packed()) return impl_->input.bytes();
  const std::lock_guard lock(impl_->mutex);
  unsigned char one = 0;
  if (!impl_->total) impl_->read_some(UINT64_MAX - 1, &one, 1);
  return *impl_->total;
}

std::size_t PackedFile::read_some(std::uint64_t offset, void* to, std::size_t n) const {
  if (!packed()) return offset < impl_->input.bytes() ? impl_->input.read_some(offset, to, n) : 0;
  const std::lock_guard lock(impl_->mutex);
  return impl_->read_some(offset, static_cast<unsigned char*>(to), n);
}

void PackedFile::read(std::uint64_t offset, void* to, std::size_t n) const {
  if (const std::size_t got = read_some(offset, to, n); got < n)
    throw DataError(path().string(), fmt::format("byte {}{}", offset, packed() ? " of the content" : ""),
                    fmt::format("{} bytes", n), fmt::format("{} (truncated?)", got));
}

}  // namespace percept::io
