/// The stages of reconstruction/.
#pragma once

#include <vector>

#include "core/registry.h"

namespace percept {

std::vector<StageInfo> reconstruction_stages();

}  // namespace percept
