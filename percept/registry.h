/// Every stage that percept brings, in one registry: what `use =` of a pipeline file can name.
#pragma once

#include "core/registry.h"

namespace percept {

/// Made on first use, folder by folder; the same object every time.
const Registry& builtin_registry();

}  // namespace percept
