#include "filters/stages.h"

namespace percept {

StageInfo info_adaptive_kalman();
StageInfo info_dkf();
StageInfo info_ekf();
StageInfo info_enkf();
StageInfo info_fixed_lag_smoother();
StageInfo info_gaussian_process();
StageInfo info_kalman();
StageInfo info_nadaraya_watson();
StageInfo info_poisson_bayes();
StageInfo info_rts();
StageInfo info_ukf();

std::vector<StageInfo> filters_stages() {
  return {info_adaptive_kalman(),
          info_dkf(),
          info_ekf(),
          info_enkf(),
          info_fixed_lag_smoother(),
          info_gaussian_process(),
          info_kalman(),
          info_nadaraya_watson(),
          info_poisson_bayes(),
          info_rts(),
          info_ukf()};
}

}  // namespace percept
