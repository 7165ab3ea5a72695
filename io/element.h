/// Numbers as files hold them, in either byte order, and as percept does. Shared by the readers of this folder.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/stream.h"

namespace percept::io {

enum class Element : std::uint8_t { i8, u8, i16, u16, i32, u32, i64, u64, f32, f64 };

Index bytes_of(Element e);
const char* name_of(Element e);  ///< "u8", "i16", "f32", ...
/// f32 where it holds every value exactly, else f64.
Scalar scalar_of(Element e);

/// n numbers, one behind the other, into numbers `step` apart. False when one is a whole number beyond 2^53, which a
/// double does not hold.
bool convert(Element e, const std::byte* from, Index n, bool swap, float* to, Index step = 1);
bool convert(Element e, const std::byte* from, Index n, bool swap, double* to, Index step = 1);

template <class T>
T load_number(const std::byte* from, bool swap) {
  std::array<std::byte, sizeof(T)> bytes;
  std::memcpy(bytes.data(), from, sizeof(T));
  if (swap)
    for (std::size_t i = 0; i < sizeof(T) / 2; ++i) std::swap(bytes[i], bytes[sizeof(T) - 1 - i]);
  return std::bit_cast<T>(bytes);
}

}  // namespace percept::io
