#include "io/element.h"

namespace percept::io {

static_assert(std::endian::native == std::endian::little);

namespace {
constexpr Index kElementBytes[] = {1, 1, 2, 2, 4, 4, 8, 8, 4, 8};
constexpr const char* kElementNames[] = {"i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f32", "f64"};

template <class T, class U>
bool convert_as(const std::byte* from, Index n, bool swap, U* to, Index step) {
  bool fits = true;
  for (Index i = 0; i < n; ++i) {
    const T v = load_number<T>(from + i * static_cast<Index>(sizeof(T)), swap);
    if constexpr (std::is_integral_v<T> && sizeof(T) == 8) {
      constexpr T kExact = T{1} << 53;
      if (v > kExact || (std::is_signed_v<T> && v < static_cast<T>(-static_cast<std::int64_t>(kExact)))) fits = false;
    }
    to[i * step] = static_cast<U>(v);
  }
  return fits;
}

template <class U>
bool convert_any(Element e, const std::byte* from, Index n, bool swap, U* to, Index step) {
  switch (e) {
    case Element::i8:
      return convert_as<std::int8_t>(from, n, swap, to, step);
    case Element::u8:
      return convert_as<std::uint8_t>(from, n, swap, to, step);
    case Element::i16:
      return convert_as<std::int16_t>(from, n, swap, to, step);
    case Element::u16:
      return convert_as<std::uint16_t>(from, n, swap, to, step);
    case Element::i32:
      return convert_as<std::int32_t>(from, n, swap, to, step);
    case Element::u32:
      return convert_as<std::uint32_t>(from, n, swap, to, step);
    case Element::i64:
      return convert_as<std::int64_t>(from, n, swap, to, step);
    case Element::u64:
      return convert_as<std::uint64_t>(from, n, swap, to, step);
    case Element::f32:
      return convert_as<float>(from, n, swap, to, step);
    case Element::f64:
      return convert_as<double>(from, n, swap, to, step);
  }
  return false;
}
}  // namespace

Index bytes_of(Element e) { return kElementBytes[static_cast<int>(e)]; }
const char* name_of(Element e) { return kElementNames[static_cast<int>(e)]; }
Scalar scalar_of(Element e) { return bytes_of(e) <= 2 || e == Element::f32 ? Scalar::f32 : Scalar::f64; }

bool convert(Element e, const std::byte* from, Index n, bool swap, float* to, Index step) {
  return convert_any(e, from, n, swap, to, step);
}
bool convert(Element e, const std::byte* from, Index n, bool swap, double* to, Index step) {
  return convert_any(e, from, n, swap, to, step);
}

}  // namespace percept::io
