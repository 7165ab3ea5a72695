#include "reconstruction/diffusion/vae.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/params.h"

namespace percept::diffusion {
namespace {

/// A U-net of these levels has the same limits.
UnetShape like(const VaeShape& s) {
  UnetShape u;
  u.image = s.image;
  u.patch = s.patch;
  u.channels = s.channels;
  u.multipliers = s.multipliers;
  u.blocks = s.blocks;
  return u;
}

}  // namespace

void VaeShape::check(const std::string& where) const {
  like(*this).check(where);
  if (latent < 1 || latent > 256) throw ConfigError(where + ".latent", std::to_string(latent), "1 to 256 channels");
}

std::vector<Index> VaeShape::latent_shape() const {
  Index h = (height() + patch - 1) / patch, w = (width() + patch - 1) / patch;
  for (std::size_t level = 1; level < multipliers.size(); ++level) {
    h = (h + 1) / 2;
    w = (w + 1) / 2;
  }
  return {latent, h, w};
}

Value to_value(const VaeShape& s) {
  return Value::object({{"image", s.image},
                        {"patch", s.patch},
                        {"channels", s.channels},
                        {"multipliers", s.multipliers},
                        {"blocks", s.blocks},
                        {"latent", s.latent}});
}

VaeShape vae_shape(const Value& value, const std::string& where) {
  const ShapeReader read{value, where};
  VaeShape s;
  read.list("image", s.image, 3, 1, 1 << 15);
  read.number("patch", s.patch, 1, 16);
  read.number("channels", s.channels, 1, 1024);
  read.list("multipliers", s.multipliers, 8, 1, 16);
  read.number("blocks", s.blocks, 1, 16);
  read.number("latent", s.latent, 1, 256);
  try {
    s.check(where);
  } catch (const ConfigError& e) {
    throw DataError(e.key(), "", e.expected(), e.value());
  }
  return s;
}

VaePlan::VaePlan(const VaeShape& s) {
  const auto levels = static_cast<Index>(s.multipliers.size());
  const auto width = [&](Index level) { return s.channels * s.multipliers[static_cast<std::size_t>(level)]; };
  const auto block = [&](const std::string& name, Index in, Index out) {
    weights.normalisation(name + ".norm", in);
    weights.convolution(name + ".in", out, in, 3);
    weights.normalisation(name + ".mid", out);
    weights.convolution(name + ".out", out, out, 3, true);
    if (in != out) weights.convolution(name + ".past", out, in, 1);
    return UnetStep{UnetStep::Kind::block, UnetBlock{name, in, out, false}};
  };
  const Index patch_channels = s.image_channels() * s.patch * s.patch;
  weights.convolution("encoder.input", s.channels, patch_channels, 3);
  Index now = s.channels;
  for (Index level = 0; level < levels; ++level) {
    for (Index b = 0; b < s.blocks; ++b, now = width(level))
      down.push_back(block(fmt::format("encoder.{}.{}", level, b), now, width(level)));
    if (level + 1 == levels) break;
    down.push_back({UnetStep::Kind::halve, {}, fmt::format("encoder.{}.halve", level)});
    weights.convolution(down.back().name, now, now, 3);
  }
  weights.normalisation("encoder.output.norm", now);
  weights.convolution("encoder.output", 2 * s.latent, now, 3);
  weights.convolution("decoder.input", now, s.latent, 3);
  for (Index level = levels - 1; level >= 0; --level) {
    for (Index b = 0; b < s.blocks; ++b, now = width(level))
      up.push_back(block(fmt::format("decoder.{}.{}", level, b), now, width(level)));
    if (level > 0) up.push_back({UnetStep::Kind::twice});
  }
  weights.normalisation("decoder.output.norm", now);
  weights.convolution("decoder.output", patch_channels, now, 3);
}

}  // namespace percept::diffusion
