#include "filters/stages.h"

namespace percept {

StageInfo info_dkf();
StageInfo info_kalman();
StageInfo info_nadaraya_watson();

std::vector<StageInfo> filters_stages() { return {info_dkf(), info_kalman(), info_nadaraya_watson()}; }

}  // namespace percept
