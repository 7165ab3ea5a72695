#include <fmt/format.h>

#include "cli/command.h"
#include "cli/live_session.h"
#include "core/error.h"
#include "core/files.h"
#include "core/threads.h"
#include "evaluation/provenance.h"
#include "evaluation/run.h"
#include "percept/registry.h"

namespace percept::cli {
namespace fs = std::filesystem;

Command rerun_command() {
  return {"rerun", "Repeat a run from its provenance and compare every byte",
          [](CLI::App& app, Global& global) -> std::function<Value()> {
            auto folder = std::make_shared<std::string>();
            auto output = std::make_shared<std::string>();
            app.add_option("run", *folder, "Folder that percept run or percept live --record wrote")
                ->required()
                ->type_name("DIR");
            app.add_option("-o,--output", *output, "Where the repetition goes (default: DIR.rerun)")->type_name("DIR");
            add_json(app, global);
            app.footer(
                "Uses the configuration, seed, block size and threads of provenance.json. On the same machine and "
                "version the\n"
                "files are the same byte for byte (run.json, which holds the time, is not compared); exit code 4 when "
                "not.");
            return [=, &global]() -> Value {
              const fs::path old = *folder;
              if (old.extension() == ".session" || fs::exists(old / kSessionFile)) {
                Value result = rerun_session(old);
                if (!global.json)
                  fmt::print("all {} decoded frames of '{}' are the same, bit for bit{}\n",
                             result.at("frames").as_integer(), result.at("node").as_string(),
                             result.at("complete").as_bool() ? "" : " (the session was cut off)");
                return result;
              }
              if (!fs::exists(old / "provenance.json"))
                throw DataError(*folder, "provenance.json", "a folder that percept run wrote", "none");
              const Value origin = read_json(old / "provenance.json");
              const auto& registry = builtin_registry();
              evaluation::RunRequest request;
              const fs::path file = origin.at("config_file").as_string();
              request.pipeline = parse_pipeline(origin.at("config"), file, registry);
              for (auto& s : origin.at("stages").as_array()) {
                const auto& info = registry.at(s.at("use").as_string(), "rerun");
                if (info.version != s.at("version").as_integer())
                  throw DataError(*folder, "provenance.json: " + s.at("use").as_string(),
                                  fmt::format("version {}", info.version),
                                  fmt::format("version {}", s.at("version").as_integer()));
              }
              Counters counters;
              request.options.counters = &counters;
              request.options.progress = progress_bar(global);
              request.options.cancelled = interrupted;
              request.options.threads = static_cast<int>(origin.at("partition").at("threads").as_integer());
              set_thread_budget(request.options.threads);
              load_recording(request);
              const Value now = evaluation::provenance(registry, request.pipeline, request.recording, request.priors,
                                                       request.options.threads);
              auto same_bytes = [&](const char* key) {
                const Value* then = origin.find(key);
                const Value* today = now.find(key);
                if (then && !(today && *today == *then))
                  throw DataError(*folder, key, "the same bytes as then: " + to_json(*then),
                                  today ? to_json(*today) : "none");
              };
              same_bytes("inputs");
              same_bytes("priors");
              request.output =
                  output->empty() ? fs::path(old.lexically_normal().string() + ".rerun") : fs::path(*output);
              evaluation::run_pipeline(registry, request);
              finish_progress();

              Value same = Value::array(), different = Value::array();
              for (auto& entry : fs::recursive_directory_iterator(old)) {
                if (!entry.is_regular_file()) continue;
                const auto relative = fs::relative(entry.path(), old);
                if (relative == "run.json") continue;
                const auto other = request.output / relative;
                const bool equal = fs::exists(other) && sha256_file(entry.path()) == sha256_file(other);
                (equal ? same : different).push_back(relative.string());
              }
              for (auto& entry : fs::recursive_directory_iterator(request.output)) {
                const auto relative = fs::relative(entry.path(), request.output);
                if (entry.is_regular_file() && !fs::exists(old / relative)) different.push_back(relative.string());
              }
              Value result =
                  Value::object({{"identical", same}, {"different", different}, {"output", request.output.string()}});
              if (different.size()) {
                std::string names;
                for (auto& d : different.as_array()) names += (names.empty() ? "" : ", ") + d.as_string();
                throw Error(fmt::format(
                    "{}: {} of {} files differ from the first run: {} (another machine, version or library?)",
                    request.output.string(), different.size(), different.size() + same.size(), names));
              }
              if (!global.json)
                fmt::print("all {} files are the same, byte for byte: {}\n", same.size(), request.output.string());
              return result;
            };
          },
          true};
}

}  // namespace percept::cli
