#include "reconstruction/diffusion/unet.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/params.h"

namespace percept::diffusion {

void UnetShape::check(const std::string& where) const {
  const auto refuse = [&](const char* key, const std::string& found, const std::string& expected) {
    throw ConfigError(where + "." + key, found, expected);
  };
  if ((image.size() != 2 && image.size() != 3) ||
      std::any_of(image.begin(), image.end(), [](Index n) { return n < 1; }))
    refuse("image", fmt::format("{{{}}}", fmt::join(image, ", ")),
           "{height, width} or {channels, height, width}, each at least 1");
  if (patch < 1 || patch > 16) refuse("patch", std::to_string(patch), "1 to 16");
  if (channels < kGroups || channels > 1024 || channels % kGroups != 0)
    refuse("channels", std::to_string(channels), fmt::format("a multiple of {} up to 1024", kGroups));
  if (multipliers.empty() || multipliers.size() > 8 ||
      std::any_of(multipliers.begin(), multipliers.end(), [](Index m) { return m < 1 || m > 16; }))
    refuse("multipliers", fmt::format("[{}]", fmt::join(multipliers, ", ")), "1 to 8 levels of 1 to 16");
  const Index halvings = static_cast<Index>(multipliers.size()) - 1;
  const Index side = (std::min(height(), width()) + patch - 1) / patch;
  if (side < (Index{1} << halvings))
    refuse("multipliers", fmt::format("{} levels", multipliers.size()),
           fmt::format("fewer levels: {} x {} pixels in patches of {} can be halved less often", height(), width(),
                       patch));
  if (blocks < 1 || blocks > 16) refuse("blocks", std::to_string(blocks), "1 to 16");
  for (const Index level : attention)
    if (level < 0 || level >= static_cast<Index>(multipliers.size()))
      refuse("attention", fmt::format("[{}]", fmt::join(attention, ", ")),
             fmt::format("levels from 0 to {}", multipliers.size() - 1));
}

Value to_value(const UnetShape& s) {
  return Value::object({{"image", s.image},
                        {"patch", s.patch},
                        {"channels", s.channels},
                        {"multipliers", s.multipliers},
                        {"blocks", s.blocks},
                        {"attention", s.attention},
                        {"classes", s.classes},
                        {"embedding", s.embedding}});
}

UnetShape unet_shape(const Value& value, const std::string& where) {
  const ShapeReader read{value, where};
  UnetShape s;
  read.list("image", s.image, 3, 1, 1 << 15);
  read.number("patch", s.patch, 1, 16);
  read.number("channels", s.channels, 1, 1024);
  read.list("multipliers", s.multipliers, 8, 1, 16);
  read.number("blocks", s.blocks, 1, 16);
  read.list("attention", s.attention, 8, 0, 7);
  read.number("classes", s.classes, 0, 1 << 20);
  read.number("embedding", s.embedding, 0, 1 << 20);
  try {
    s.check(where);
  } catch (const ConfigError& e) {
    throw DataError(e.key(), "", e.expected(), e.value());
  }
  return s;
}

UnetPlan::UnetPlan(const UnetShape& s) {
  const auto levels = static_cast<Index>(s.multipliers.size());
  const auto width = [&](Index level) { return s.channels * s.multipliers[static_cast<std::size_t>(level)]; };
  const auto attends = [&](Index level) {
    return std::find(s.attention.begin(), s.attention.end(), level) != s.attention.end();
  };
  Index modulated = 0;
  const auto block = [&](const std::string& name, Index in, Index out, bool attention) {
    weights.normalisation(name + ".norm", in);
    weights.convolution(name + ".in", out, in, 3);
    weights.convolution(name + ".out", out, out, 3, true);
    if (in != out) weights.convolution(name + ".past", out, in, 1);
    if (attention) weights.attention(name + ".attention", out);
    modulated += out;
    return UnetBlock{name, in, out, attention};
  };

  const Index patch_channels = s.image_channels() * s.patch * s.patch;
  weights.convolution("input", s.channels, patch_channels, 3);
  Index now = s.channels;
  std::vector<Index> kept;
  for (Index level = 0; level < levels; ++level) {
    for (Index b = 0; b < s.blocks; ++b) {
      down.push_back(
          {UnetStep::Kind::block, block(fmt::format("down.{}.{}", level, b), now, width(level), attends(level))});
      kept.push_back(now = width(level));
    }
    if (level + 1 == levels) break;
    down.push_back({UnetStep::Kind::halve, {}, fmt::format("down.{}.halve", level)});
    weights.convolution(down.back().name, now, now, 3);
  }
  for (Index b = 0; b < 2; ++b)
    middle.push_back(
        {UnetStep::Kind::block, block(fmt::format("middle.{}", b), now, now, b == 0 && attends(levels - 1))});
  for (Index level = levels - 1; level >= 0; --level) {
    for (Index b = 0; b < s.blocks; ++b) {
      up.push_back({UnetStep::Kind::joined_block,
                    block(fmt::format("up.{}.{}", level, b), now + kept.back(), width(level), attends(level))});
      kept.pop_back();
      now = width(level);
    }
    if (level > 0) up.push_back({UnetStep::Kind::twice});
  }
  weights.normalisation("output.norm", now);
  weights.convolution("output", patch_channels, now, 3, true);

  const Index inside = 4 * s.channels;
  weights.linear("noise.0", inside, kNoiseFeatures);
  weights.linear("noise.1", inside, inside);
  if (s.classes > 0) weights.add({"class.weights", {s.classes + 1, inside}, 0, 1});
  if (s.embedding > 0) {
    weights.linear("embedding", inside, s.embedding);
    weights.add({"embedding.none", {inside}, 0, 1});
  }
  weights.linear("gain", modulated, inside, 1);
  weights.linear("offset", modulated, inside);
}

}  // namespace percept::diffusion
