#include "realtime/wire.h"

#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace percept {

namespace {
static_assert(std::endian::native == std::endian::little, "numbers are copied as they are");

constexpr char kMagic[4] = {'P', 'L', 'I', 'V'};
constexpr std::size_t kEventHead = 24;

template <class T>
T number_at(std::span<const std::byte> bytes, std::size_t at) noexcept {
  T v;
  std::memcpy(&v, bytes.data() + at, sizeof v);
  return v;
}
template <class T>
void put(std::span<std::byte> bytes, std::size_t at, T v) noexcept {
  std::memcpy(bytes.data() + at, &v, sizeof v);
}

std::uint32_t checksum(std::span<const std::byte> bytes) noexcept {
  const auto* p = reinterpret_cast<const Bytef*>(bytes.data());
  uLong sum = crc32(0, p, 44);
  sum = crc32(sum, p + WirePacket::kHead, static_cast<uInt>(bytes.size() - WirePacket::kHead));
  return sum == 0 ? 1u : static_cast<std::uint32_t>(sum);  // 0 means that there is none
}

void write_head(const WirePacket& packet, WirePacket::Kind kind, WirePacket::Type type, std::uint32_t rows,
                std::uint32_t frames, std::span<std::byte> room) noexcept {
  std::memcpy(room.data(), kMagic, 4);
  put<std::uint8_t>(room, 4, 1);
  put(room, 5, kind);
  put(room, 6, type);
  put<std::uint8_t>(room, 7, 0);
  put(room, 8, rows);
  put(room, 12, frames);
  put(room, 16, packet.counter);
  put(room, 24, packet.device_s);
  put(room, 32, packet.rate_hz);
  put(room, 40, packet.scale);
  put<std::uint32_t>(room, 44, 0);
}
}  // namespace

std::size_t WirePacket::payload() const noexcept {
  if (kind == Kind::event) return static_cast<std::size_t>(frames);
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(frames) * bytes_of(type);
}

const char* text_of(WireError error) {
  static constexpr const char* kTexts[] = {"a packet",
                                           "fewer bytes than its head says",
                                           "something else than a packet",
                                           "a packet of another version",
                                           "a head that cannot be",
                                           "more bytes than a packet may have",
                                           "damaged bytes"};
  return kTexts[static_cast<int>(error)];
}

WireError read_wire_head(std::span<const std::byte> bytes, WirePacket& p) noexcept {
  p = {};
  if (std::memcmp(bytes.data(), kMagic, std::min<std::size_t>(bytes.size(), 4)) != 0) return WireError::magic;
  if (bytes.size() < WirePacket::kHead) return WireError::cut;
  if (number_at<std::uint8_t>(bytes, 4) != 1) return WireError::version;
  const auto kind = number_at<std::uint8_t>(bytes, 5), type = number_at<std::uint8_t>(bytes, 6);
  if (kind > 1 || type > 3 || number_at<std::uint8_t>(bytes, 7) != 0) return WireError::field;
  p.kind = static_cast<WirePacket::Kind>(kind);
  p.type = static_cast<WirePacket::Type>(type);
  p.rows = number_at<std::uint32_t>(bytes, 8);
  p.frames = number_at<std::uint32_t>(bytes, 12);
  p.counter = number_at<std::int64_t>(bytes, 16);
  p.device_s = number_at<double>(bytes, 24);
  p.rate_hz = number_at<double>(bytes, 32);
  p.scale = number_at<float>(bytes, 40);
  if (std::isinf(p.device_s) || !(p.rate_hz > 0) || std::isinf(p.rate_hz) || !std::isfinite(p.scale))
    return WireError::field;
  if (p.kind == WirePacket::Kind::event) {
    if (p.rows != 0 || p.frames < static_cast<Index>(kEventHead) ||
        p.frames > static_cast<Index>(kEventHead + WirePacket::kLongestLabel))
      return WireError::field;
    return WireError::none;
  }
  if (p.rows == 0 || p.frames == 0) return WireError::field;
  // 2^64 is more than two 32-bit numbers and a type make, so this does not wrap
  if (static_cast<double>(p.rows) * static_cast<double>(p.frames) * static_cast<double>(bytes_of(p.type)) >
      static_cast<double>(WirePacket::kLargest - WirePacket::kHead))
    return WireError::size;
  return WireError::none;
}

WireError read_wire(std::span<const std::byte> bytes, WirePacket& p) noexcept {
  if (const WireError error = read_wire_head(bytes, p); error != WireError::none) return error;
  if (bytes.size() < p.bytes()) return WireError::cut;
  if (bytes.size() > p.bytes()) return WireError::size;
  const auto stated = number_at<std::uint32_t>(bytes, 44);
  if (stated != 0 && stated != checksum(bytes)) return WireError::checksum;
  const auto body = bytes.subspan(WirePacket::kHead);
  if (p.kind == WirePacket::Kind::frames) {
    p.numbers = body;
    return WireError::none;
  }
  p.offset_s = number_at<double>(body, 0);
  p.duration_s = number_at<double>(body, 8);
  p.value = number_at<double>(body, 16);
  p.label = {reinterpret_cast<const char*>(body.data()) + kEventHead, body.size() - kEventHead};
  if (!std::isfinite(p.offset_s) || !(p.duration_s >= 0) || std::isinf(p.duration_s)) return WireError::field;
  return WireError::none;
}

namespace {
template <class From, class To>
std::int64_t unpack(std::span<const std::byte> numbers, double scale, FrameSpan<To> out) noexcept {
  std::int64_t infinite = 0;
  for (Index k = 0; k < out.frames; ++k) {
    const std::byte* from = numbers.data() + static_cast<std::size_t>(k * out.rows) * sizeof(From);
    To* to = out.frame(k);
    for (Index r = 0; r < out.rows; ++r) {
      From v;
      std::memcpy(&v, from + static_cast<std::size_t>(r) * sizeof v, sizeof v);
      if constexpr (std::is_integral_v<From>) {
        to[r] = static_cast<To>(static_cast<double>(v) * scale);
      } else {
        to[r] = static_cast<To>(v);
        if (std::isinf(to[r])) {
          to[r] = std::numeric_limits<To>::quiet_NaN();
          ++infinite;
        }
      }
    }
  }
  return infinite;
}
template <class To>
std::int64_t unpack_to(const WirePacket& p, FrameSpan<To> out) noexcept {
  const double scale = static_cast<double>(p.scale);
  switch (p.type) {
    case WirePacket::Type::f32:
      return unpack<float>(p.numbers, scale, out);
    case WirePacket::Type::f64:
      return unpack<double>(p.numbers, scale, out);
    case WirePacket::Type::i16:
      return unpack<std::int16_t>(p.numbers, scale, out);
    case WirePacket::Type::i32:
      return unpack<std::int32_t>(p.numbers, scale, out);
  }
  return 0;
}
}  // namespace

std::int64_t unpack_wire(const WirePacket& packet, MutableFrames out) noexcept {
  return out.scalar == Scalar::f32 ? unpack_to(packet, out.as<float>()) : unpack_to(packet, out.as<double>());
}

std::size_t write_wire(const WirePacket& given, ConstFrames x, std::span<std::byte> room, bool checked) noexcept {
  WirePacket packet = given;
  packet.kind = WirePacket::Kind::frames;
  packet.type = x.scalar == Scalar::f32 ? WirePacket::Type::f32 : WirePacket::Type::f64;
  packet.rows = x.rows;
  packet.frames = x.frames;
  packet.scale = 1;
  if (packet.bytes() > room.size() || packet.bytes() > WirePacket::kLargest) return 0;
  write_head(packet, packet.kind, packet.type, static_cast<std::uint32_t>(x.rows), static_cast<std::uint32_t>(x.frames),
             room);
  const std::size_t frame = static_cast<std::size_t>(x.rows) * bytes_of(x.scalar);
  for (Index k = 0; k < x.frames; ++k)
    std::memcpy(room.data() + WirePacket::kHead + static_cast<std::size_t>(k) * frame, x.slice(k, 1).data, frame);
  if (checked) put(room, 44, checksum(room.first(packet.bytes())));
  return packet.bytes();
}

std::size_t write_wire_event(const WirePacket& packet, std::span<std::byte> room, bool checked) noexcept {
  const std::string_view label = packet.label.substr(0, WirePacket::kLongestLabel);
  const std::size_t body = kEventHead + label.size();
  if (WirePacket::kHead + body > room.size()) return 0;
  write_head(packet, WirePacket::Kind::event, WirePacket::Type::f64, 0, static_cast<std::uint32_t>(body), room);
  const auto to = room.subspan(WirePacket::kHead);
  put(to, 0, packet.offset_s);
  put(to, 8, packet.duration_s);
  put(to, 16, packet.value);
  std::memcpy(to.data() + kEventHead, label.data(), label.size());
  if (checked) put(room, 44, checksum(room.first(WirePacket::kHead + body)));
  return WirePacket::kHead + body;
}

}  // namespace percept
