/// The network between images and latents (Kingma, Welling, ICLR 2014; as in latent diffusion: Rombach et al., CVPR 2022):
/// residual blocks that halve the image a few times down to a few latent channels, and back. Here is its shape and what it
/// is made of; LibTorch runs it (networks.h).
#pragma once

#include <string>
#include <vector>

#include "reconstruction/diffusion/unet.h"

namespace percept::diffusion {

struct VaeShape {
  std::vector<Index> image;              ///< {height, width} or {channels, height, width}
  Index patch = 2;                       ///< as of UnetShape
  Index channels = 32;                   ///< of the first level; a multiple of kGroups
  std::vector<Index> multipliers{1, 2};  ///< channels of each level; each halves the image
  Index blocks = 1;                      ///< residual blocks of a level on the way down, and as many on the way up
  Index latent = 4;                      ///< channels of a latent

  /// Throws ConfigError naming `where`.key when it cannot be built.
  void check(const std::string& where) const;
  Index image_channels() const { return image.size() == 3 ? image[0] : 1; }
  Index height() const { return image[image.size() - 2]; }
  Index width() const { return image[image.size() - 1]; }
  Index size() const { return image_channels() * height() * width(); }
  /// {latent, height, width}
  std::vector<Index> latent_shape() const;
  bool operator==(const VaeShape&) const = default;
};

Value to_value(const VaeShape& shape);
/// Throws DataError naming `where` and the key.
VaeShape vae_shape(const Value& value, const std::string& where);

/// Blocks normalise by gains and offsets of their own. The encoder gives mean and log variance of each latent.
struct VaePlan {
  explicit VaePlan(const VaeShape& shape);
  std::vector<UnetStep> down, up;
  WeightList weights;
};

}  // namespace percept::diffusion
