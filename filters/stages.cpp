#include "filters/stages.h"

namespace percept {

StageInfo info_dkf();
StageInfo info_gaussian_process();
StageInfo info_kalman();
StageInfo info_nadaraya_watson();

std::vector<StageInfo> filters_stages() {
  return {info_dkf(), info_gaussian_process(), info_kalman(), info_nadaraya_watson()};
}

}  // namespace percept
