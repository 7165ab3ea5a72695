/// percept's own packet, for UDP and for pipes: 48 bytes of head, then the numbers, all little-endian.
///
///     0  "PLIV"
///     4  u8   version, 1
///     5  u8   kind: 0 frames, 1 event
///     6  u8   type of the numbers: 0 f32, 1 f64, 2 i16, 3 i32
///     7  u8   0
///     8  u32  rows                    (event: 0)
///    12  u32  frames                  (event: bytes behind the head)
///    16  i64  counter of the first frame, in frames  (event: of the frame it belongs to)
///    24  f64  the device's own time of the last frame [s]; NaN: it has none
///    32  f64  frames a second
///    40  f32  what an integer is multiplied with to get the unit; else 1
///    44  u32  CRC-32 (zlib's) of all other bytes, these four left out; 0: not checked
///    48       frame after frame; of an event: f64 seconds after that frame, f64 duration [s], f64 value, label
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "core/stream.h"

namespace percept {

struct WirePacket {
  static constexpr std::size_t kHead = 48;
  static constexpr std::size_t kLargest = 1 << 24;  ///< bytes of a packet; a datagram has 65507 at most
  static constexpr std::size_t kLongestLabel = 200;
  enum class Kind : std::uint8_t { frames, event };
  enum class Type : std::uint8_t { f32, f64, i16, i32 };

  Kind kind = Kind::frames;
  Type type = Type::f32;
  Index rows = 0, frames = 0;
  std::int64_t counter = 0;
  double device_s = std::numeric_limits<double>::quiet_NaN();
  double rate_hz = 0;
  float scale = 1;
  std::span<const std::byte> numbers;  ///< of frames
  double offset_s = 0, duration_s = 0, value = 0;
  std::string_view label;

  std::size_t bytes() const noexcept { return kHead + payload(); }
  std::size_t payload() const noexcept;
};
inline std::size_t bytes_of(WirePacket::Type t) {
  return t == WirePacket::Type::f64 ? 8 : t == WirePacket::Type::i16 ? 2 : 4;
}

enum class WireError : std::uint8_t {
  none,
  cut,       ///< fewer bytes than a head has, or than the head says
  magic,     ///< not a packet
  version,   ///< of a later percept
  field,     ///< an unknown kind or type, no rows, a rate or number that cannot be
  size,      ///< more than a packet may have, or bytes behind it
  checksum,  ///< damaged
};
const char* text_of(WireError error);

/// Reads the head at the start of `bytes` and checks that it can be true; the rest need not be there.
WireError read_wire_head(std::span<const std::byte> bytes, WirePacket& packet) noexcept;
/// Reads a whole packet, of which `bytes` holds exactly one. What it points to lies in `bytes`.
WireError read_wire(std::span<const std::byte> bytes, WirePacket& packet) noexcept;
/// Its numbers as frames: rows and frames must agree. Integers are scaled. An infinite number becomes NaN, which is the
/// only mark of a missing one; returns how many did.
std::int64_t unpack_wire(const WirePacket& packet, MutableFrames out) noexcept;

/// Writes head and frames (f32 or f64 as they are; type and numbers of `packet` do not count); returns the bytes used,
/// 0 when there is no room. checked: with a checksum.
std::size_t write_wire(const WirePacket& packet, ConstFrames x, std::span<std::byte> room, bool checked) noexcept;
/// An event; the label is cut at kLongestLabel.
std::size_t write_wire_event(const WirePacket& packet, std::span<std::byte> room, bool checked) noexcept;

}  // namespace percept
