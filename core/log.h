/// Logging. A library never prints: everything goes to the logger "percept" (spdlog), which the program sends to stderr.
#pragma once

#include <string>
#include <string_view>

namespace percept::log {

enum class Level { debug, info, warn, error, off };
void set_level(Level level);
void debug(const std::string& message);
void info(const std::string& message);
/// The same warning is said once.
void warn(const std::string& message);
void error(const std::string& message);

}  // namespace percept::log
