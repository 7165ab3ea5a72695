#include "core/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <mutex>
#include <set>

namespace percept::log {

namespace {
spdlog::logger& logger() {
  // stderr: standard output belongs to the result
  static auto l = [] {
    auto made = std::make_shared<spdlog::logger>("percept", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("%^%l%$: %v");
    return made;
  }();
  return *l;
}
}  // namespace

void set_level(Level level) {
  static constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                          spdlog::level::warn, spdlog::level::err, spdlog::level::off};
  logger().set_level(kLevels[static_cast<int>(level)]);
}
void debug(const std::string& m) { logger().debug("{}", m); }
void info(const std::string& m) { logger().info("{}", m); }
void warn(const std::string& m) {
  // a search or a control fits the same stage again and again: what it has to say is said once
  static std::mutex mutex;
  static std::set<std::string> said;
  {
    std::lock_guard lock(mutex);
    constexpr std::size_t kRemembered = 1000;
    if (said.size() < kRemembered && !said.insert(m).second) return;
  }
  logger().warn("{}", m);
}
void error(const std::string& m) { logger().error("{}", m); }

}  // namespace percept::log
