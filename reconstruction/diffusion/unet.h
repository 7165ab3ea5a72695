/// The network of image diffusion models: a U-net (Ronneberger, Fischer, Brox, MICCAI 2015) of residual blocks as in Ho,
/// Jain, Abbeel, NeurIPS 2020 and Dhariwal, Nichol, NeurIPS 2021, on images whose pixels may first be gathered into
/// patches (pixel-unshuffle), which is what makes it cheap. Here is its shape and what it is made of; LibTorch runs it
/// (networks.h).
#pragma once

#include <string>
#include <vector>

#include "core/stream.h"
#include "core/value.h"
#include "reconstruction/diffusion/weights.h"

namespace percept::diffusion {

struct UnetShape {
  std::vector<Index> image;              ///< {height, width} or {channels, height, width}
  Index patch = 2;                       ///< patch x patch pixels become channels; the image is padded where it must be
  Index channels = 32;                   ///< of the first level; a multiple of kGroups
  std::vector<Index> multipliers{1, 2};  ///< channels of each level as a multiple of the first's; each halves the image
  Index blocks = 2;                      ///< residual blocks of a level on the way down, and as many on the way up
  std::vector<Index> attention;          ///< levels (from 0) whose blocks are followed by self-attention
  Index classes = 0;                     ///< it may be told one of so many; 0: none
  Index embedding = 0;                   ///< or this many numbers; 0: none

  /// Throws ConfigError naming `where`.key when it cannot be built.
  void check(const std::string& where) const;
  Index image_channels() const { return image.size() == 3 ? image[0] : 1; }
  Index height() const { return image[image.size() - 2]; }
  Index width() const { return image[image.size() - 1]; }
  Index size() const { return image_channels() * height() * width(); }
  bool operator==(const UnetShape&) const = default;
};

Value to_value(const UnetShape& shape);
/// Throws DataError naming `where` and the key.
UnetShape unet_shape(const Value& value, const std::string& where);

/// A residual block: normalise, SiLU, convolve, normalise with a gain and an offset that depend on noise and condition,
/// SiLU, convolve, add. `in` differs from `out` where channels change; the input then passes a 1 x 1 convolution.
struct UnetBlock {
  std::string name;
  Index in = 0, out = 0;
  bool attention = false;
};

/// What follows each other. Results of blocks on the way down are kept; a block on the way up is given the last one kept
/// beside its input.
struct UnetStep {
  enum class Kind { block, joined_block, halve, twice } kind;
  UnetBlock block = {};   ///< of a block
  std::string name = {};  ///< of halve, which convolves
};
struct UnetPlan {
  explicit UnetPlan(const UnetShape& shape);
  std::vector<UnetStep> down, middle, up;
  WeightList weights;
};
constexpr double kSigmaData = 0.5;    ///< standard deviation of the numbers it works on
constexpr Index kNoiseFeatures = 32;  ///< cosines and sines of the noise level

}  // namespace percept::diffusion
