/// PNG pictures (ISO/IEC 15948), written in memory: for files, and for pages that carry their pictures with them.
#pragma once

#include <span>
#include <string>

#include "core/stream.h"

namespace percept::io {

/// 8 bits a sample; channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; row by row from the top.
/// Throws Error when the pixels are not width * height * channels.
std::string encode_png(Index width, Index height, int channels, std::span<const unsigned char> pixels);

}  // namespace percept::io
