#include <fmt/format.h>

#include "cli/command.h"
#include "core/threads.h"
#include "data/loaders.h"
#include "evaluation/run.h"
#include "percept/registry.h"

namespace percept::cli {

Command fit_command() {
  return {"fit", "Fit a pipeline on its training rows and write the models",
          [](CLI::App& app, Global& global) -> std::function<Value()> {
            struct Options {
              std::string file, output;
              std::vector<std::string> set;
            };
            auto o = std::make_shared<Options>();
            app.add_option("pipeline", o->file, "Pipeline file (TOML)")->required()->type_name("FILE");
            app.add_option("-o,--output", o->output, "Folder for the models, one folder a node (default: models/NAME)")
                ->type_name("DIR");
            app.add_option("--set", o->set, "Change one value: NODE.key=value; may be repeated")
                ->type_name("KEY=VALUE")
                ->allow_extra_args(false);
            add_threads(app, global);
            add_json(app, global);
            app.footer("A stage takes such a model with model = \"DIR/NODE\".");
            return [o, &global]() -> Value {
              const auto& registry = builtin_registry();
              evaluation::RunRequest request;
              request.pipeline = read_pipeline(o->file, registry, o->set);
              request.options.progress = progress_bar(global);
              request.options.cancelled = interrupted;
              request.options.threads = thread_budget();
              request.recording = data::load_input(request.pipeline.input, request.pipeline.file.parent_path(),
                                                   request.options.progress, o->file + ": input");
              request.output = o->output.empty() ? std::filesystem::path("models") / request.pipeline.file.stem()
                                                 : std::filesystem::path(o->output);
              Value result = evaluation::fit_pipeline(registry, request);
              finish_progress();
              result["output"] = request.output.string();
              if (!global.json) {
                fmt::print("fitted on rows {}\n", result.at("train").as_string());
                for (auto& m : result.at("models").as_array())
                  fmt::print("  {:<16} {} frames, {:.2f} s: {}\n", m.at("node").as_string(),
                             m.at("frames").as_integer(), m.at("seconds").as_number(),
                             (request.output / m.at("node").as_string()).string());
              }
              return result;
            };
          }};
}

}  // namespace percept::cli
