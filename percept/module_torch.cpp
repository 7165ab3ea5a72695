/// What the module percept_nn exports: one C symbol.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>

#include "core/module.h"
#include "decoders/network_training.h"
#include "reconstruction/diffusion/networks.h"

namespace percept {

NetworkTraining& torch_network_training();
namespace diffusion {
DiffusionNetworks& torch_diffusion_networks();
}

namespace {
void* find(const char* interface) {
  if (!std::strcmp(interface, NetworkTraining::kInterface)) return &torch_network_training();
  if (!std::strcmp(interface, diffusion::DiffusionNetworks::kInterface)) return &diffusion::torch_diffusion_networks();
  return nullptr;
}
}  // namespace

}  // namespace percept

extern "C" __attribute__((visibility("default"))) const percept::ModuleEntry* percept_nn_module() {
  static const percept::ModuleEntry entry{PERCEPT_MODULE_STAMP, [](int n) { at::set_num_threads(std::max(1, n)); },
                                          &percept::find};
  return &entry;
}
