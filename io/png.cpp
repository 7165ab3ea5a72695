#include "io/png.h"

#include <fmt/format.h>
#include <zlib.h>

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace percept::io {

namespace {
std::string png_number(std::uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8), static_cast<char>(v)};
}

void add_png_chunk(std::string& png, std::string_view type, std::string_view data) {
  png += png_number(static_cast<std::uint32_t>(data.size()));
  const std::size_t from = png.size();
  png += type;
  png += data;
  const uLong sum = crc32(0, reinterpret_cast<const Bytef*>(png.data()) + from, static_cast<uInt>(png.size() - from));
  png += png_number(static_cast<std::uint32_t>(sum));
}
}  // namespace

std::string encode_png(Index width, Index height, int channels, std::span<const unsigned char> pixels) {
  static constexpr char kColour[] = {0, 4, 2, 6};  // grey, grey + alpha, RGB, RGBA
  if (width < 1 || height < 1 || channels < 1 || channels > 4 || width > 1 << 20 || height > 1 << 20 ||
      static_cast<Index>(pixels.size()) != width * height * channels)
    throw Error(fmt::format("png: expected {} x {} x {} samples, found {}", height, width, channels, pixels.size()));
  // each row says how it was filtered: up (differences from the row above) suits pictures
  const auto row = static_cast<std::size_t>(width * channels);
  std::vector<Bytef> filtered((row + 1) * static_cast<std::size_t>(height));
  for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y) {
    Bytef* to = filtered.data() + y * (row + 1);
    *to++ = 2;
    for (std::size_t i = 0; i < row; ++i)
      to[i] = static_cast<Bytef>(pixels[y * row + i] - (y ? pixels[(y - 1) * row + i] : 0));
  }
  uLongf packed_bytes = compressBound(static_cast<uLong>(filtered.size()));
  std::string packed(packed_bytes, '\0');
  if (compress2(reinterpret_cast<Bytef*>(packed.data()), &packed_bytes, filtered.data(),
                static_cast<uLong>(filtered.size()), 9) != Z_OK)
    throw Error("png: zlib cannot pack");
  packed.resize(packed_bytes);
  std::string png = "\x89PNG\r\n\x1a\n";
  add_png_chunk(png, "IHDR",
                png_number(static_cast<std::uint32_t>(width)) + png_number(static_cast<std::uint32_t>(height)) +
                    std::string{8, kColour[channels - 1], 0, 0, 0});
  add_png_chunk(png, "IDAT", packed);
  add_png_chunk(png, "IEND", "");
  return png;
}

}  // namespace percept::io
