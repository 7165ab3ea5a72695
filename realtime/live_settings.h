/// The [live] section of a pipeline file.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/pipeline.h"
#include "realtime/device_spec.h"
#include "realtime/live_loop.h"
#include "realtime/live_page.h"

namespace percept {

/// How a pipeline runs live. Everything has a default but where the data come from.
///
///     [live]
///     source = "udp:port=51000"          # or { use = "udp", port = 51000 }; a list for several inputs
///     output = ["redis:stream=cursor"]   # nobody, if it is left out
///     node = "kalman"                    # default: the node of the first [[score]], else the last stage
///     [live.guard]
///     low = -0.2
///     high = 0.2
struct LiveSettings {
  std::vector<DeviceSpec> sources, outlets;
  std::string node, click;  ///< click: "" for none
  LiveOptions runner;
  LiveLoop::Params loop;
  RealTimeParams real_time;
  OutputGuard::Params guard;
  ChannelHealth::Params health;
  LivePage::Params page;
  Value task;  ///< [live.task]; null: there is none
  CursorParams cursor;
  std::optional<ModelUser::Params> user;
  std::optional<CalibrationParams> calibration;
  std::string where;
};

/// Throws ConfigError naming the key.
LiveSettings read_live(const Pipeline& pipeline);

/// The stages that `node` and `click` (unless it is "") need, in order, each with its `from` filled in; models are left to the caller. inputs: the
/// names of the streams that they read, in the order they are first read; "" for the one that the first stage reads
/// without naming it. Throws ConfigError when there is no such node.
std::vector<NodeSpec> live_nodes(const Pipeline& pipeline, const std::string& node, const std::string& click,
                                 std::vector<std::string>& inputs);

/// For the reference page: [live] and its tables.
std::vector<SectionInfo> live_sections();

}  // namespace percept
