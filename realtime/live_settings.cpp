#include "realtime/live_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "realtime/outlets.h"
#include "realtime/sources.h"

namespace percept {

namespace {
/// The keys of [live] itself; sources and outlets may also be tables, and are read by read_device().
struct LiveSection {
  std::vector<std::string> source, output;
  std::string node, click;
  std::int64_t block = 256, hold_packets = 0;
  double max_gap_s = 60;
  bool time_nodes = true;
  static constexpr auto fields() {
    return std::tuple{
        field(
            "source", &LiveSection::source, "",
            "Where the data come from: KIND:KEY=VALUE,KEY=VALUE or a table with `use`; a list for several inputs, each "
            "with `name` = the stream that the stages read."),
        field("output", &LiveSection::output, "", "Where decoded states go, likewise."),
        field("node", &LiveSection::node, "",
              "The stage whose frames are the decoded state; empty: that of the first [[score]], else the last."),
        field("click", &LiveSection::click, "",
              "A stage `click` whose clicks go out with the states; before the decoder's branch, else a state late."),
        field("block", &LiveSection::block, "frames",
              "Frames that the graph takes at once; a larger packet goes in pieces.", 1, 65536),
        field("hold_packets", &LiveSection::hold_packets, "packets",
              "Packets that may wait for an earlier one that is late; 0: what is not there is missing.", 0, 1024),
        field("max_gap_s", &LiveSection::max_gap_s, "s", "A jump of the device's counter beyond this is refused.", 0,
              86400),
        field("time_nodes", &LiveSection::time_nodes, "", "Measure every stage (two readings of the clock each).")};
  }
};

const char* const kTables[] = {"loop", "real_time", "guard", "health", "page", "task", "cursor", "user", "calibration"};

template <class P>
P table(const Value& live, const char* name, const std::string& where) {
  const Value* v = live.find(name);
  if (!v) return P{};
  if (!v->is_table())
    throw ConfigError(fmt::format("{}.{}", where, name), to_json(*v), fmt::format("a table: write [live.{}]", name));
  return read_params<P>(*v, fmt::format("{}.{}", where, name));
}

std::vector<DeviceSpec> devices(const Value& live, const char* key, const std::vector<DeviceKind>& kinds,
                                const std::string& where) {
  std::vector<DeviceSpec> all;
  const Value* v = live.find(key);
  if (!v) return all;
  const std::string at = where + "." + key;
  if (!v->is_array()) return {read_device(*v, kinds, at)};
  for (auto& one : v->as_array()) all.push_back(read_device(one, kinds, at));
  return all;
}
}  // namespace

LiveSettings read_live(const Pipeline& pipeline) {
  LiveSettings s;
  s.where = pipeline.file.string() + ": live";
  const Value& live = pipeline.live;
  Value own = live;
  for (const char* name : kTables) own.erase(name);
  s.sources = devices(live, "source", source_kinds(), s.where);
  s.outlets = devices(live, "output", outlet_kinds(), s.where);
  own.erase("source");
  own.erase("output");
  std::vector<std::string> known(std::begin(kTables), std::end(kTables));
  for (auto& p : describe_params<LiveSection>()) known.push_back(p.key);
  refuse_unknown_keys(live, known, s.where);
  const auto section = read_params<LiveSection>(own, s.where);
  s.loop = table<LiveLoop::Params>(live, "loop", s.where);
  s.real_time = table<RealTimeParams>(live, "real_time", s.where);
  s.guard = table<OutputGuard::Params>(live, "guard", s.where);
  s.health = table<ChannelHealth::Params>(live, "health", s.where);
  s.page = table<LivePage::Params>(live, "page", s.where);
  if (const Value* task = live.find("task")) {
    if (!task->is_table()) throw ConfigError(s.where + ".task", to_json(*task), "a table: write [live.task]");
    s.task = *task;
    Task(s.task, s.where + ".task");  // refused now, not when the loop is made
  }
  for (const char* name : {"cursor", "user", "calibration"})
    if (live.contains(name) && s.task.is_null())
      throw ConfigError(s.where + "." + name, "", "a [live.task] beside it: there is nothing to steer");
  s.cursor = table<CursorParams>(live, "cursor", s.where);
  if (live.contains("user")) s.user = table<ModelUser::Params>(live, "user", s.where);
  if (live.contains("calibration")) s.calibration = table<CalibrationParams>(live, "calibration", s.where);
  s.runner.precision = pipeline.precision;
  s.runner.seed = pipeline.seed;
  s.runner.block = section.block;
  s.runner.hold_packets = section.hold_packets;
  s.runner.max_gap_s = section.max_gap_s;
  s.runner.time_nodes = section.time_nodes;
  s.node = section.node;
  s.click = section.click;
  if (s.node.empty() && !pipeline.scores.empty()) s.node = pipeline.scores.front().from;
  if (s.node.empty()) s.node = pipeline.stages.back().node.name;
  return s;
}

std::vector<NodeSpec> live_nodes(const Pipeline& pipeline, const std::string& node, const std::string& click,
                                 std::vector<std::string>& inputs) {
  std::vector<NodeSpec> all;
  std::vector<std::string> names;
  for (auto& s : pipeline.stages) {
    NodeSpec n = s.node;
    if (n.from.empty() && !all.empty()) n.from = {all.back().name};
    names.push_back(n.name);
    all.push_back(std::move(n));
  }
  std::vector<std::string> open{node};
  if (!click.empty()) open.push_back(click);
  for (auto& wanted : open)
    if (std::find(names.begin(), names.end(), wanted) == names.end())
      throw ConfigError(fmt::format("{}: live.{}", pipeline.file.string(), &wanted == &open[0] ? "node" : "click"),
                        "\"" + wanted + "\"",
                        fmt::format("a stage: {}{}", fmt::join(names, ", "), did_you_mean(wanted, names)));
  const auto find = [&](const std::string& reference) {
    auto at = std::find(names.begin(), names.end(), reference);
    if (at == names.end()) at = std::find(names.begin(), names.end(), reference.substr(0, reference.rfind('.')));
    return at;
  };
  std::set<std::string> needed;
  while (!open.empty()) {
    const std::string name = open.back();
    open.pop_back();
    if (!needed.insert(name).second) continue;
    for (auto& from : all[static_cast<std::size_t>(find(name) - names.begin())].from)
      if (const auto at = find(from); at != names.end()) open.push_back(*at);
  }
  std::erase_if(all, [&](auto& n) { return !needed.contains(n.name); });
  inputs.clear();
  for (auto& n : all) {
    if (n.from.empty()) inputs.emplace_back();
    for (auto& from : n.from)
      if (find(from) == names.end()) inputs.push_back(from);
  }
  // "stream.part" and "stream" are one input; which of them it is, only the source's format tells
  std::vector<std::string> unique;
  for (auto& i : inputs)
    if (std::find(unique.begin(), unique.end(), i) == unique.end()) unique.push_back(i);
  inputs = std::move(unique);
  return all;
}

std::vector<SectionInfo> live_sections() {
  std::vector<SectionInfo> all{
      {"[live]", "How `percept live` runs the pipeline; nothing of it counts offline.", describe_params<LiveSection>()},
      {"[live.guard]", "What may be sent out, and what is sent in its place.", describe_params<OutputGuard::Params>()},
      {"[live.health]", "Which channels can be used.", describe_params<ChannelHealth::Params>()},
      {"[live.loop]", "Deadlines.", describe_params<LiveLoop::Params>()},
      {"[live.page]", "The page of `percept live --page`.", describe_params<LivePage::Params>()},
      {"[live.real_time]", "What is asked of the system.", describe_params<RealTimeParams>()},
      {"[live.cursor]", "How decoded states move the cursor of a task.", describe_params<CursorParams>()},
      {"[live.user]",
       "A model of the person who steers, in front of the simulator: what the population is to answer to.",
       describe_params<ModelUser::Params>()},
      {"[live.calibration]", "Fitting the decoder while the cursor is steered, with help that decreases.",
       describe_params<CalibrationParams>()}};
  for (auto& kind : task_kinds())
    all.push_back({fmt::format("[live.task] use = \"{}\"", kind.name), kind.doc, kind.params});
  return all;
}

}  // namespace percept
