#include "reconstruction/stages.h"

// one line a stage; each is defined at the end of the file of its name
#define PERCEPT_STAGES(STAGE) \
  STAGE(diffusion_posterior)  \
  STAGE(diffusion_prior)      \
  STAGE(encoding_diffusion)   \
  STAGE(encoding_posterior)   \
  STAGE(gaussian_posterior)   \
  STAGE(image_autoencoder)    \
  STAGE(image_library)        \
  STAGE(latent_diffusion)

namespace percept {

#define PERCEPT_DECLARE(name) StageInfo info_##name();
PERCEPT_STAGES(PERCEPT_DECLARE)

std::vector<StageInfo> reconstruction_stages() {
#define PERCEPT_ROW(name) info_##name(),
  return {PERCEPT_STAGES(PERCEPT_ROW)};
}

}  // namespace percept
