#include "reconstruction/stages.h"

namespace percept {

StageInfo info_gaussian_posterior();

std::vector<StageInfo> reconstruction_stages() { return {info_gaussian_posterior()}; }

}  // namespace percept
