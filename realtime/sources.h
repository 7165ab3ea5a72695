/// Every kind of live source by name.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/params.h"
#include "core/recording.h"
#include "realtime/source.h"

namespace percept {

/// A kind of source as `percept live --help`, the pipeline file and the reference page know it.
struct SourceKind {
  std::string name, doc;
  std::vector<ParamInfo> params;
};
const std::vector<SourceKind>& source_kinds();

/// What `{use = "udp", port = 51000}` or "udp:port=51000" names.
struct SourceSpec {
  std::string use;
  Value params = Value::table();
};
/// "KIND" or "KIND:KEY=VALUE,KEY=VALUE"; a list is [a,b]. Throws ConfigError.
SourceSpec parse_source(std::string_view text, const std::string& where);
/// A table with `use`. Throws ConfigError.
SourceSpec read_source(const Value& table, const std::string& where);

/// What `replay` replays when no file is named: the recording of the pipeline, loaded when it is asked for.
struct SourceSettings {
  std::function<Recording()> recording;
  std::string stream;          ///< the input that the pipeline reads
  std::filesystem::path base;  ///< relative paths start here
};

/// Opens a source. Throws ConfigError or DataError.
std::unique_ptr<Source> make_source(const SourceSpec& spec, const SourceSettings& settings, const std::string& where);

}  // namespace percept
