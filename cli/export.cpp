#include <fmt/format.h>

#include "cli/command.h"
#include "cli/live_session.h"
#include "core/error.h"
#include "core/files.h"
#include "io/nwb.h"
#include "io/session.h"

namespace percept::cli {
namespace fs = std::filesystem;

namespace {
struct ExportArguments {
  std::string session, file, start;
};

/// What the head of a session says of it.
io::NwbOptions nwb_options(const Recording& r, const ExportArguments& a) {
  const Value& live = r.meta.at("live");
  const Value& head = live.at("head");
  io::NwbOptions o;
  o.start = a.start.empty() ? head.get("started", "") : a.start;
  if (o.start.empty())
    throw ConfigError("--start", "", "when the session began: it does not say so itself, such as 2026-11-29T12:00:00Z");
  o.identifier = fmt::format("{} {} {}", r.name, o.start, sha256(to_json(head)).substr(0, 16));
  const std::string title = head.contains("config") ? head.at("config").get("title", "") : "";
  o.description = title.empty() ? fmt::format("Live session of percept: {}", r.name) : title;
  Value notes = Value::object({{"percept", head.get("percept", "")}});
  for (const char* key : {"models", "node"})
    if (const Value* v = head.find(key)) notes[key] = *v;
  for (const char* key : {"complete", "lost", "not_used_at_once", "counts"})
    if (const Value* v = live.find(key)) notes[key] = *v;
  if (const auto warnings = r.warnings(); !warnings.empty()) notes["warnings"] = Value(warnings);
  o.notes = to_json(notes, 2);
  if (const Value* config = head.find("config")) {
    o.script = to_json(*config, 2);
    o.script_name = fs::path(head.get("config_file", "pipeline")).filename().string();
  }
  o.cancelled = interrupted;
  return o;
}
}  // namespace

Command export_command() {
  return {"export", "Write a recorded live session as NWB, for others to read",
          [](CLI::App& app, Global& global) -> std::function<Value()> {
            auto a = std::make_shared<ExportArguments>();
            app.add_option("session", a->session, "Folder of percept live --record, or its .session file")
                ->required()
                ->type_name("SESSION");
            app.add_option("file", a->file, "New file, .nwb")->required()->type_name("FILE.nwb");
            app.add_option("--start", a->start, "When recording time was 0 (default: when the session began)")
                ->type_name("TIME");
            add_json(app, global);
            app.footer(
                "Signals go to acquisition, decoded states to processing/decoded, events, gaps, masked channels and "
                "held output\n"
                "to intervals, device clocks to processing/clocks; the pipeline and all counts go along. Missing "
                "samples are NaN.");
            return [a, &global]() -> Value {
              if (fs::path(a->file).extension() != ".nwb")
                throw UsageError("a file that ends in .nwb, found " + a->file);
              const fs::path given = a->session, session = fs::is_directory(given) ? given / kSessionFile : given;
              const Recording r = io::open_session(session);
              io::NwbOptions options = nwb_options(r, *a);
              if (const auto bar = progress_bar(global))
                options.progress = [bar](double share) { bar(share, "export"); };
              io::write_nwb(r, a->file, options);
              finish_progress();
              Value streams = Value::array();
              for (auto& s : r.streams) streams.push_back(Value::object({{"name", s.name}, {"frames", s.frames()}}));
              if (!global.json) {
                for (auto& w : r.warnings()) fmt::print("note: {}\n", w);
                fmt::print("{}: {} streams, {} bytes\n", a->file, r.streams.size(), fs::file_size(a->file));
              }
              return Value::object({{"file", a->file},
                                    {"identifier", options.identifier},
                                    {"start", options.start},
                                    {"streams", streams},
                                    {"events", static_cast<std::int64_t>(r.events.size())}});
            };
          }};
}

}  // namespace percept::cli
