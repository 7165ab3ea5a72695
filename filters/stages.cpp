#include "filters/stages.h"

namespace percept {

StageInfo info_dkf();
StageInfo info_kalman();

std::vector<StageInfo> filters_stages() { return {info_dkf(), info_kalman()}; }

}  // namespace percept
