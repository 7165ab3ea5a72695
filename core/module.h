/// The LibTorch module. A process that links LibTorch pays about a second at its start, so everything that needs it lives
/// in one shared library, percept_nn, which is opened when it is first needed; nothing else links LibTorch.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace percept {

/// What the module hands over: the one thing it exports, as percept_nn_module().
struct ModuleEntry {
  const char* stamp;                     ///< of the headers both sides share, the compiler and the C++ standard
  void (*set_threads)(int);              ///< LibTorch's own threads
  void* (*find)(const char* interface);  ///< an abstract interface by its name; nullptr: not known
};
using ModuleFunction = const ModuleEntry* (*)();

/// Where the module is looked for, in this order: PERCEPT_MODULE_DIR, beside the core library and in percept/ there, and
/// in ../lib and ../lib/percept of the program.
std::vector<std::filesystem::path> module_folders();

/// Opens the module in the first of these folders that has it, and hands LibTorch the thread budget.
/// Throws Error: not there (with the places), cannot be opened, is no module, or belongs to another build.
const ModuleEntry& open_module(const std::vector<std::filesystem::path>& folders);

/// The module of this process: opened on the first call, kept until the end. Throws as open_module does.
const ModuleEntry& torch_module();
/// Was it opened?
bool torch_is_loaded() noexcept;

namespace detail {
void* torch_interface(const char* name);
}
/// An interface of the module: a class I with `static constexpr const char* kInterface`. Opens the module.
template <class I>
I& torch_interface() {
  return *static_cast<I*>(detail::torch_interface(I::kInterface));
}

}  // namespace percept
