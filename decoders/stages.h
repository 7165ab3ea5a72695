/// The stages of decoders/.
#pragma once

#include <vector>

#include "core/registry.h"

namespace percept {

std::vector<StageInfo> decoders_stages();

}  // namespace percept
