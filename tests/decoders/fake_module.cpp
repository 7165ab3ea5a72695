/// A library that calls itself the LibTorch module, for the tests of core/module.h.
#include "core/module.h"

#ifdef FAKE_STAMP
namespace {
int threads = 0;
}
extern "C" const percept::ModuleEntry* percept_nn_module() {
  static const percept::ModuleEntry entry{
      FAKE_STAMP, [](int n) { threads = n; },
      [](const char* name) -> void* { return name[0] == 't' ? &threads : nullptr; }};
  return &entry;
}
#endif
