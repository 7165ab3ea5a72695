#include "realtime/lsl_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "realtime/clock.h"

namespace percept {
namespace fs = std::filesystem;

namespace {
constexpr const char* kWhereToGet =
    "liblsl, the library of Lab Streaming Layer: pip install pylsl brings it, the packages at "
    "github.com/sccn/liblsl/releases install it; PERCEPT_LIBLSL=FILE names one that lies elsewhere";

/// lib folders of the wheels below "PREFIX/lib/python3.11/site-packages" and the like.
void add_wheels(const fs::path& prefix, std::vector<fs::path>& to) {
  std::error_code error;
  std::vector<fs::path> versions;
  for (const char* lib : {"lib", "lib64", "local/lib"})
    for (auto it = fs::directory_iterator(prefix / lib, error); !error && it != fs::directory_iterator();
         it.increment(error))
      if (it->path().filename().string().starts_with("python3")) versions.push_back(it->path());
  std::sort(versions.rbegin(), versions.rend());
  for (auto& version : versions)
    for (const char* packages : {"site-packages", "dist-packages"})
      for (const char* wheel : {"pylsl/lib", "mne_lsl/lsl/lib"}) {
        std::vector<fs::path> files;
        for (auto it = fs::directory_iterator(version / packages / wheel, error);
             !error && it != fs::directory_iterator(); it.increment(error)) {
          const std::string name = it->path().filename().string();
          if (name.starts_with("liblsl") && name.find(".so") != name.npos) files.push_back(it->path());
        }
        std::sort(files.begin(), files.end());
        to.insert(to.end(), files.begin(), files.end());
      }
}

template <class F>
void bind(void* library, F& function, const char* name, std::vector<std::string>& lacking) {
  function = reinterpret_cast<F>(::dlsym(library, name));
  if (!function) lacking.push_back(name);
}

/// Everything, or why not.
std::string try_loading(const fs::path& file, std::shared_ptr<LslLibrary>& found) {
  void* handle = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char* why = ::dlerror();
    return why ? why : "it cannot be loaded";
  }
  auto lsl = std::make_shared<LslLibrary>();
  std::vector<std::string> lacking;
#define PERCEPT_LSL(name) bind(handle, lsl->name, "lsl_" #name, lacking)
  PERCEPT_LSL(library_version);
  PERCEPT_LSL(local_clock);
  PERCEPT_LSL(resolve_bypred);
  PERCEPT_LSL(create_streaminfo);
  PERCEPT_LSL(destroy_streaminfo);
  PERCEPT_LSL(get_name);
  PERCEPT_LSL(get_type);
  PERCEPT_LSL(get_channel_count);
  PERCEPT_LSL(get_nominal_srate);
  PERCEPT_LSL(get_channel_format);
  PERCEPT_LSL(get_source_id);
  PERCEPT_LSL(get_hostname);
  PERCEPT_LSL(get_desc);
  PERCEPT_LSL(child);
  PERCEPT_LSL(next_sibling);
  PERCEPT_LSL(empty);
  PERCEPT_LSL(child_value_n);
  PERCEPT_LSL(append_child);
  PERCEPT_LSL(append_child_value);
  PERCEPT_LSL(create_inlet);
  PERCEPT_LSL(destroy_inlet);
  PERCEPT_LSL(get_fullinfo);
  PERCEPT_LSL(open_stream);
  PERCEPT_LSL(time_correction_ex);
  PERCEPT_LSL(pull_sample_f);
  PERCEPT_LSL(pull_sample_d);
  PERCEPT_LSL(pull_sample_str);
  PERCEPT_LSL(pull_chunk_f);
  PERCEPT_LSL(pull_chunk_d);
  PERCEPT_LSL(destroy_string);
  PERCEPT_LSL(create_outlet);
  PERCEPT_LSL(destroy_outlet);
  PERCEPT_LSL(push_sample_dtp);
#undef PERCEPT_LSL
  if (!lacking.empty()) {
    ::dlclose(handle);
    return fmt::format("it has no {}", lacking[0]);
  }
  // never closed: threads of the library may outlive every inlet
  lsl->file = file;
  const std::int64_t before = steady_ns();
  const double lsl_s = lsl->local_clock();
  const std::int64_t middle = before + (steady_ns() - before) / 2;
  lsl->steady_offset_s = static_cast<double>(middle) * 1e-9 - lsl_s;
  found = std::move(lsl);
  return {};
}
}  // namespace

std::vector<fs::path> lsl_candidates() {
  std::vector<fs::path> all;
  for (const char* variable : {"PERCEPT_LIBLSL", "PYLSL_LIB"})
    if (const char* file = std::getenv(variable); file && *file) all.emplace_back(file);
  for (const char* variable : {"VIRTUAL_ENV", "CONDA_PREFIX"})
    if (const char* prefix = std::getenv(variable); prefix && *prefix) add_wheels(prefix, all);
  if (const char* home = std::getenv("HOME"); home && *home) add_wheels(fs::path(home) / ".local", all);
  add_wheels("/usr", all);
  add_wheels("/usr/local", all);
  all.emplace_back("liblsl.so.2");
  all.emplace_back("liblsl.so");
  return all;
}

std::shared_ptr<const LslLibrary> load_lsl(const std::vector<fs::path>& candidates) {
  std::shared_ptr<LslLibrary> found;
  std::string first_why;
  for (auto& file : candidates) {
    const std::string why = try_loading(file, found);
    if (found) return found;
    // a name that only the loader looks for is no complaint
    if (file.has_parent_path() && first_why.empty()) first_why = fmt::format("{}: {}", file.string(), why);
  }
  throw ConfigError("lsl", first_why, kWhereToGet);
}

std::shared_ptr<const LslLibrary> load_lsl() {
  static std::shared_ptr<const LslLibrary> loaded;
  if (!loaded) loaded = load_lsl(lsl_candidates());
  return loaded;
}

}  // namespace percept
