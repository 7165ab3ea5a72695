#include "decoders/stages.h"

namespace percept {

StageInfo info_dense_network();
StageInfo info_linear_classifier();
StageInfo info_mixture();
StageInfo info_recurrent_network();
StageInfo info_ridge();

std::vector<StageInfo> decoders_stages() {
  return {info_dense_network(), info_linear_classifier(), info_mixture(), info_recurrent_network(), info_ridge()};
}

}  // namespace percept
