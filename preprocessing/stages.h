/// The stages of this folder, for the registry.
#pragma once

#include <vector>

#include "core/registry.h"

namespace percept {

std::vector<StageInfo> preprocessing_stages();

}  // namespace percept
