#include "percept/registry.h"

#include "decoders/stages.h"
#include "filters/stages.h"
#include "preprocessing/stages.h"
#include "reconstruction/stages.h"

namespace percept {

const Registry& builtin_registry() {
  static const Registry all = [] {
    Registry registry;
    registry.add(preprocessing_stages());
    registry.add(filters_stages());
    registry.add(decoders_stages());
    registry.add(reconstruction_stages());
    return registry;
  }();
  return all;
}

}  // namespace percept
