/// The stages of filters/.
#pragma once

#include <vector>

#include "core/registry.h"

namespace percept {

std::vector<StageInfo> filters_stages();

}  // namespace percept
