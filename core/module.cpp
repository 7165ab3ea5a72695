#include "core/module.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>

#include "core/error.h"
#include "core/threads.h"

namespace percept {

namespace fs = std::filesystem;

namespace {
constexpr const char* kModuleFile = "libpercept_nn.so";
std::atomic<const ModuleEntry*> opened_module{nullptr};

fs::path folder_of_core() {
  Dl_info info{};
  return dladdr(reinterpret_cast<void*>(&module_folders), &info) && info.dli_fname
             ? fs::absolute(info.dli_fname).parent_path()
             : fs::path();
}
}  // namespace

std::vector<fs::path> module_folders() {
  std::vector<fs::path> all;
  auto add = [&](const fs::path& folder) {
    const fs::path clean = folder.lexically_normal();
    if (std::find(all.begin(), all.end(), clean) == all.end()) all.push_back(clean);
  };
  if (const char* chosen = std::getenv("PERCEPT_MODULE_DIR"); chosen && *chosen) add(chosen);
  if (const fs::path core = folder_of_core(); !core.empty()) {
    add(core);
    add(core / "percept");
  }
  std::error_code failed;
  if (const fs::path program = fs::read_symlink("/proc/self/exe", failed); !failed) {
    add(program.parent_path() / "../lib");
    add(program.parent_path() / "../lib/percept");
  }
  return all;
}

const ModuleEntry& open_module(const std::vector<fs::path>& folders) {
  std::error_code ignored;
  std::vector<std::string> looked;
  fs::path file;
  for (auto& folder : folders) {
    looked.push_back(folder.string());
    if (file.empty() && fs::is_regular_file(folder / kModuleFile, ignored)) file = folder / kModuleFile;
  }
  if (file.empty())
    throw Error(fmt::format("{} was not found: {} (looked in {})", kModuleFile,
                            PERCEPT_WITH_TORCH
                                ? "the LibTorch module is not installed; set PERCEPT_MODULE_DIR to its folder"
                                : "percept was built without LibTorch; build it with PERCEPT_WITH_TORCH=ON",
                            fmt::join(looked, ", ")));
  // waiting OpenMP threads would otherwise spin and slow everything else down; read when its library is loaded
  ::setenv("OMP_WAIT_POLICY", "passive", 0);
  void* library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) throw Error(fmt::format("{} cannot be opened: {}", file.string(), ::dlerror()));
  const auto function = reinterpret_cast<ModuleFunction>(::dlsym(library, "percept_nn_module"));
  if (!function) {
    ::dlclose(library);
    throw Error(fmt::format("{} is not a module of percept: it has no percept_nn_module", file.string()));
  }
  const ModuleEntry* entry = function();
  if (const std::string stamp = entry->stamp; stamp != PERCEPT_MODULE_STAMP) {
    ::dlclose(library);
    throw Error(fmt::format("{} belongs to another build of percept: expected '{}', found '{}'", file.string(),
                            PERCEPT_MODULE_STAMP, stamp));
  }
  on_kernel_threads(entry->set_threads);
  return *entry;
}

const ModuleEntry& torch_module() {
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  if (!opened_module.load()) opened_module.store(&open_module(module_folders()));
  return *opened_module.load();
}

bool torch_is_loaded() noexcept { return opened_module.load() != nullptr; }

void* detail::torch_interface(const char* name) {
  void* found = torch_module().find(name);
  if (!found) throw Error(fmt::format("the LibTorch module has no '{}'", name));
  return found;
}

}  // namespace percept
