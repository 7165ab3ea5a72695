#include "cli/live_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/model.h"
#include "core/runner.h"
#include "core/threads.h"
#include "evaluation/provenance.h"
#include "io/session.h"
#include "percept/registry.h"
#include "realtime/live_settings.h"

namespace percept::cli {
namespace fs = std::filesystem;

Value session_about(const Pipeline& pipeline, const std::string& node, const std::vector<NodeSpec>& nodes) {
  Value models = Value::table();
  for (auto& n : nodes)
    if (n.model) models[n.name] = n.model->digest();
  return Value::object({{"name", pipeline.file.stem().string()},
                        {"config", pipeline.resolved},
                        {"config_file", fs::absolute(pipeline.file).string()},
                        {"node", node},
                        {"models", std::move(models)},
                        {"percept", evaluation::version_text()},
                        {"started", evaluation::now_utc()}});
}

SessionFolder::~SessionFolder() {
  std::error_code ignored;
  if (!folder_.empty() && !kept_) fs::remove_all(folder_, ignored);
}

void SessionFolder::make(const fs::path& folder, const std::vector<NodeSpec>& nodes) {
  std::error_code error;
  if (fs::exists(folder) && !(fs::is_directory(folder) && fs::is_empty(folder)))
    throw DataError(folder.string(), "", "a new folder for the recording", "one that holds something");
  fs::create_directories(folder / "models", error);
  if (error) throw DataError(folder.string(), "", "a folder that can be made", error.message());
  folder_ = folder;
  for (auto& n : nodes)
    if (n.model) n.model->save(folder / "models" / n.name);
}

Value rerun_session(const fs::path& given) {
  const auto& registry = builtin_registry();
  const fs::path file = fs::is_directory(given) ? given / kSessionFile : given;
  const Recording recording = io::open_session(file);
  const Value& head = recording.meta.at("live").at("head");
  if (!recording.partition)
    throw DataError(file.string(), "", "a session whose every packet was recorded",
                    recording.warnings().empty() ? "another" : recording.warnings().front());
  const Pipeline pipeline = parse_pipeline(head.at("config"), head.at("config_file").as_string(), registry);
  const std::string node = head.at("node").as_string();
  std::vector<std::string> inputs;
  auto nodes = live_nodes(pipeline, node, read_live(pipeline).click, inputs);
  for (auto& n : nodes) {
    if (n.from.empty()) n.from = {recording.streams.front().name};
    if (!registry.at(n.use, n.where).trained) continue;
    const fs::path folder = file.parent_path() / "models" / n.name;
    auto model = std::make_shared<Model>(Model::load(folder));
    const std::string digest = head.at("models").get(n.name, "");
    if (model->digest() != digest)
      throw DataError(folder.string(), "", "the model of the session: " + digest, model->digest());
    n.model = std::move(model);
  }
  RunOptions options;
  options.precision = pipeline.precision;
  options.seed = pipeline.seed;
  options.threads = thread_budget();
  const Stream& live = recording.stream("live_" + node, "rerun");
  std::int64_t same = 0, first = -1, frames = 0;
  std::vector<std::byte> room;
  const SinkFn compare = [&](const Block& b) {
    const std::size_t frame = static_cast<std::size_t>(b.x.rows) * bytes_of(b.x.scalar);
    // what was decoded when the session was cut off is not there
    const Index n = static_cast<Index>(std::clamp<std::int64_t>(live.frames() - frames, 0, b.x.frames));
    room.resize(frame * static_cast<std::size_t>(n));
    if (n > 0) live.samples->read(frames, MutableFrames(room.data(), b.x.scalar, b.x.rows, n, b.x.rows));
    for (Index k = 0; k < n; ++k)
      if (std::memcmp(room.data() + frame * static_cast<std::size_t>(k), b.x.slice(k, 1).data, frame) == 0) ++same;
      else if (first < 0) first = frames + k;
    frames += b.x.frames;
  };
  run_offline(registry, recording, nodes, options, {{node, compare}});
  Value result = Value::object({{"node", node}, {"frames", live.frames()}, {"identical", same}});
  if (first >= 0) result["first_different"] = first;
  result["complete"] = recording.meta.at("live").at("complete");
  if (frames < live.frames() || first >= 0 || same != live.frames())
    throw Error(fmt::format("{}: {} of {} decoded frames are the same; the first that differs is {}", file.string(),
                            same, live.frames(), first));
  return result;
}

}  // namespace percept::cli
