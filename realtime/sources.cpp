#include "realtime/sources.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/simulator.h"
#include "io/open.h"
#include "realtime/lsl_source.h"
#include "realtime/pipe_source.h"
#include "realtime/redis_source.h"
#include "realtime/replay.h"
#include "realtime/simulator_source.h"
#include "realtime/udp_source.h"

namespace percept {

namespace {
struct ReplayParams {
  std::string file, stream;
  double speed = 1;
  std::int64_t packet = 1, random = 0;
  static constexpr auto fields() {
    return std::tuple{
        field("file", &ReplayParams::file, "", "A recording that percept reads; empty: the pipeline's [input]."),
        field("stream", &ReplayParams::stream, "", "Which stream of it; empty: the one the pipeline reads."),
        field("speed", &ReplayParams::speed, "", "1: as it was recorded; 2: twice as fast; 0: as fast as possible.", 0,
              1e6),
        field("packet", &ReplayParams::packet, "frames", "Frames in a packet.", 1, 65536),
        field("random", &ReplayParams::random, "", "Not 0: packets of 1 to `packet` frames, keyed by this.", 0, 1e15)};
  }
};

/// Those of the simulator, and how fast.
std::vector<ParamInfo> simulator_params() {
  auto all = describe_params<SimulatorSource::Params>();
  ParamInfo speed;
  speed.key = "speed";
  speed.type = "number";
  speed.doc = "1: in time; 2: twice as fast; 0: as fast as possible.";
  speed.fallback = Value(1.0);
  speed.min = 0;
  speed.max = 1e6;
  all.push_back(speed);
  return all;
}

std::unique_ptr<Source> make_replay(const Value& params, const SourceSettings& settings, const std::string& where) {
  const auto p = read_params<ReplayParams>(params, where);
  if (p.file.empty() && !settings.recording)
    throw ConfigError(where + ".file", "", "a recording to replay: there is no [input] here");
  Recording recording =
      p.file.empty() ? settings.recording() : io::open_recording(settings.base / p.file, Value::table(), where);
  std::string stream = p.stream;
  if (stream.empty() && recording.find(settings.stream)) stream = settings.stream;
  // a pipeline that names none reads the first, and so does one of a single stream
  if (stream.empty() && !recording.streams.empty() &&
      (recording.streams.size() == 1 || (p.file.empty() && settings.stream.empty())))
    stream = recording.streams[0].name;
  recording.stream(stream, where + ".stream");
  ReplayOptions options;
  options.packet = p.packet;
  options.speed = p.speed;
  options.random = static_cast<std::uint64_t>(p.random);
  return std::make_unique<ReplaySource>(std::move(recording), stream, options);
}

std::unique_ptr<Source> make_simulator(const Value& params, const std::string& where) {
  SimulatorOptions options;
  Value rest = params;
  if (const Value* speed = params.find("speed")) {
    detail::read_value(*speed, options.speed, simulator_params().back(), where);
    rest.erase("speed");
  }
  return std::make_unique<SimulatorSource>(read_params<SimulatorSource::Params>(rest, where), options, where);
}

struct Row {
  DeviceKind kind;
  std::function<std::unique_ptr<Source>(const Value&, const SourceSettings&, const std::string&)> make;
};
const std::vector<Row>& rows() {
  static const std::vector<Row> all{
      {{"replay", "A recording, packet by packet, at any speed.", describe_params<ReplayParams>()}, make_replay},
      {{"simulator", "Motor-cortex units during centre-out reaches (Simulators: reach).", simulator_params()},
       [](const Value& v, const SourceSettings&, const std::string& where) { return make_simulator(v, where); }},
      {{"udp", "Datagrams of percept's own packet.", describe_params<UdpSource::Params>()},
       [](const Value& v, const SourceSettings&, const std::string& where) {
         return std::make_unique<UdpSource>(read_params<UdpSource::Params>(v, where), where);
       }},
      {{"stdin", "Standard input: percept's own packets, or lines of numbers.", describe_params<PipeSource::Params>()},
       [](const Value& v, const SourceSettings&, const std::string& where) {
         return std::make_unique<PipeSource>(0, read_params<PipeSource::Params>(v, where), where);
       }},
      {{"redis", "A stream of a Redis server, in the layout of BRAND.", describe_params<RedisSource::Params>()},
       [](const Value& v, const SourceSettings&, const std::string& where) {
         return std::make_unique<RedisSource>(read_params<RedisSource::Params>(v, where), where);
       }},
      {{"lsl", "An outlet of Lab Streaming Layer; liblsl is loaded from where it is installed.",
        describe_params<LslSource::Params>()},
       [](const Value& v, const SourceSettings&, const std::string& where) {
         return std::make_unique<LslSource>(read_params<LslSource::Params>(v, where), where);
       }}};
  return all;
}

}  // namespace

const std::vector<DeviceKind>& source_kinds() {
  static const std::vector<DeviceKind> kinds = [] {
    std::vector<DeviceKind> all;
    for (auto& r : rows()) all.push_back(r.kind);
    return all;
  }();
  return kinds;
}

DeviceSpec parse_source(std::string_view text, const std::string& where) {
  return parse_device(text, source_kinds(), where);
}
DeviceSpec read_source(const Value& table, const std::string& where) {
  return read_device(table, source_kinds(), where);
}

std::unique_ptr<Source> make_source(const DeviceSpec& spec, const SourceSettings& settings, const std::string& where) {
  return rows()[kind_at(source_kinds(), spec.use, where)].make(spec.params, settings,
                                                               fmt::format("{}: {}", where, spec.use));
}

}  // namespace percept
