#include "preprocessing/stages.h"

// one line a stage; each is defined at the end of the file of its name
#define PERCEPT_STAGES(STAGE) \
  STAGE(average)              \
  STAGE(band_power)           \
  STAGE(bin)                  \
  STAGE(click)                \
  STAGE(common_average)       \
  STAGE(decimate)             \
  STAGE(epochs)               \
  STAGE(fir)                  \
  STAGE(fir_zero_phase)       \
  STAGE(gain)                 \
  STAGE(iir)                  \
  STAGE(iir_zero_phase)       \
  STAGE(impute)               \
  STAGE(lag)                  \
  STAGE(level_crossings)      \
  STAGE(mask_rows)            \
  STAGE(pca)                  \
  STAGE(remove_drift)         \
  STAGE(running_zscore)       \
  STAGE(select_predicted)     \
  STAGE(select_rows)          \
  STAGE(smooth)               \
  STAGE(threshold_crossings)  \
  STAGE(transform)            \
  STAGE(zscore)

namespace percept {

#define PERCEPT_DECLARE(name) StageInfo info_##name();
PERCEPT_STAGES(PERCEPT_DECLARE)

std::vector<StageInfo> preprocessing_stages() {
#define PERCEPT_ROW(name) info_##name(),
  return {PERCEPT_STAGES(PERCEPT_ROW)};
}

}  // namespace percept
