/// How a pipeline file or the command line names a source or an outlet.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/params.h"

namespace percept {

/// A kind of source or outlet as `percept live --help`, the pipeline file and the reference page know it.
struct DeviceKind {
  std::string name, doc;
  std::vector<ParamInfo> params;
};

/// What `{use = "udp", port = 51000}` or "udp:port=51000" names.
struct DeviceSpec {
  std::string use;
  Value params = Value::table();
};
/// "KIND" or "KIND:KEY=VALUE,KEY=VALUE"; a list is [a,b]. Throws ConfigError, also when the kind is none of `kinds`.
DeviceSpec parse_device(std::string_view text, const std::vector<DeviceKind>& kinds, const std::string& where);
/// Such a text, or a table with `use`. Throws ConfigError.
DeviceSpec read_device(const Value& value, const std::vector<DeviceKind>& kinds, const std::string& where);
/// Position of the kind. Throws ConfigError.
std::size_t kind_at(const std::vector<DeviceKind>& kinds, const std::string& use, const std::string& where);

}  // namespace percept
