#include "realtime/device_spec.h"

#include <fmt/format.h>

#include <algorithm>

namespace percept {

std::size_t kind_at(const std::vector<DeviceKind>& kinds, const std::string& use, const std::string& where) {
  std::vector<std::string> names;
  for (auto& k : kinds) {
    if (k.name == use) return names.size();
    names.push_back(k.name);
  }
  throw ConfigError(where, "\"" + use + "\"",
                    fmt::format("one of {}{}", fmt::join(names, ", "), did_you_mean(use, names)));
}

DeviceSpec parse_device(std::string_view text, const std::vector<DeviceKind>& kinds, const std::string& where) {
  DeviceSpec spec;
  const auto colon = text.find(':');
  spec.use = text.substr(0, colon);
  kind_at(kinds, spec.use, where);
  if (colon == text.npos) return spec;
  text.remove_prefix(colon + 1);
  while (!text.empty()) {
    // up to the next comma that is not inside a list or a text
    int depth = 0;
    bool quoted = false;
    std::size_t end = 0;
    for (; end < text.size(); ++end) {
      const char c = text[end];
      if (c == '"') quoted = !quoted;
      if (quoted) continue;
      depth += (c == '[') - (c == ']');
      if (c == ',' && depth == 0) break;
    }
    const std::string_view one = text.substr(0, end);
    const auto equals = one.find('=');
    if (equals == one.npos || equals == 0) throw ConfigError(where, std::string(one), "KIND:KEY=VALUE,KEY=VALUE");
    spec.params[one.substr(0, equals)] = parse_toml_value(one.substr(equals + 1));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return spec;
}

DeviceSpec read_device(const Value& table, const std::vector<DeviceKind>& kinds, const std::string& where) {
  if (table.is_string()) return parse_device(table.as_string(), kinds, where);
  const Value* use = table.find("use");
  if (!use || !use->is_string()) throw ConfigError(where + ".use", "", "the kind: udp, lsl, ...");
  DeviceSpec spec;
  spec.use = use->as_string();
  kind_at(kinds, spec.use, where + ".use");
  spec.params = table;
  spec.params.erase("use");
  return spec;
}

}  // namespace percept
