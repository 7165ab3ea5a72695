#include "evaluation/provenance.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <link.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include <chrono>
#include <fstream>

#include "core/files.h"
#include "core/module.h"
#include "core/threads.h"
#include "evaluation/prior.h"

#ifndef PERCEPT_VERSION
#error "PERCEPT_VERSION comes from CMake"
#endif

namespace percept::evaluation {

namespace {
std::string cpu_model() {
  std::ifstream f("/proc/cpuinfo");
  std::string line;
  while (std::getline(f, line))
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown";
}
}  // namespace

std::string version_text() {
  const std::string revision = PERCEPT_REVISION;
  return PERCEPT_VERSION + (revision.empty() ? "" : " (revision " + revision + ")");
}

const std::string& build_stamp() {
  static const std::string stamp = [] {
    std::vector<std::string> files{"/proc/self/exe"};
    dl_iterate_phdr(
        [](dl_phdr_info* object, std::size_t, void* list) {
          if (std::string_view(object->dlpi_name).find("percept") != std::string_view::npos)
            static_cast<std::vector<std::string>*>(list)->emplace_back(object->dlpi_name);
          return 0;
        },
        &files);
    // loaded later, if at all
    for (auto& folder : module_folders()) files.push_back((folder / "libpercept_nn.so").string());
    std::string text = fmt::format("{} {}", version_text(), PERCEPT_COMPILER);
    for (auto& file : files)
      if (struct stat s{}; ::stat(file.c_str(), &s) == 0)
        text += fmt::format(" {}:{}.{}", s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
    return sha256(text);
  }();
  return stamp;
}

const std::string& numerics_stamp() {
  static const std::string stamp =
      fmt::format("{} {} {} {} {}", PERCEPT_VERSION, PERCEPT_COMPILER, PERCEPT_FLAGS, blas_name(), cpu_model());
  return stamp;
}

Value provenance(const Registry& registry, const Pipeline& pipeline, const Recording& recording,
                 const std::vector<Recording>& prior_images, int threads) {
  Value stages = Value::array();
  for (auto& s : pipeline.stages)
    stages.push_back(Value::object(
        {{"name", s.node.name}, {"use", s.node.use}, {"version", registry.at(s.node.use, s.node.where).version}}));
  utsname system{};
  uname(&system);
  const Value* input = recording.meta.find("input");
  Value origin = Value::object({
      {"percept",
       Value::object({{"version", PERCEPT_VERSION}, {"revision", PERCEPT_REVISION}, {"compiler", PERCEPT_COMPILER}})},
      {"libraries",
       Value::object({{"eigen", fmt::format("{}.{}.{}", EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION)},
                      {"blas", blas_name()}})},
      {"machine",
       Value::object({{"system", fmt::format("{} {}", system.sysname, system.machine)}, {"processor", cpu_model()}})},
      {"config_file", std::filesystem::absolute(pipeline.file).lexically_normal().string()},
      {"config", pipeline.resolved},
      {"stages", stages},
      {"recording", recording.name},
      {"inputs", input ? *input : Value::table()},
      {"seed", static_cast<std::int64_t>(pipeline.seed)},
      {"partition",
       Value::object({{"block", pipeline.block}, {"threads", threads}, {"precision", name_of(pipeline.precision)}})},
  });
  if (!prior_images.empty()) origin["priors"] = to_value(registry, pipeline, prior_images);
  return origin;
}

std::int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

std::string now_utc() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())));
}

}  // namespace percept::evaluation
