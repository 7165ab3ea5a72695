/// Every kind of live source by name.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/recording.h"
#include "realtime/device_spec.h"
#include "realtime/source.h"

namespace percept {

const std::vector<DeviceKind>& source_kinds();

/// "KIND" or "KIND:KEY=VALUE,KEY=VALUE"; a list is [a,b]. Throws ConfigError.
DeviceSpec parse_source(std::string_view text, const std::string& where);
/// A table with `use`. Throws ConfigError.
DeviceSpec read_source(const Value& table, const std::string& where);

/// What `replay` replays when no file is named: the recording of the pipeline, loaded when it is asked for.
struct SourceSettings {
  std::function<Recording()> recording;
  std::string stream;          ///< the input that the pipeline reads
  std::filesystem::path base;  ///< relative paths start here
};

/// Opens a source. Throws ConfigError or DataError.
std::unique_ptr<Source> make_source(const DeviceSpec& spec, const SourceSettings& settings, const std::string& where);

}  // namespace percept
