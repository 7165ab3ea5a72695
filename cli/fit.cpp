#include <fmt/format.h>

#include "cli/command.h"
#include "percept/registry.h"

namespace percept::cli {

Command fit_command() {
  return {"fit", "Fit a pipeline on its training rows and write the models",
          [](CLI::App& app, Global& global) -> std::function<Value()> {
            const auto o = add_pipeline(app, global, "Folder for the models, one folder a node (default: models/NAME)");
            app.footer("A stage takes such a model with model = \"DIR/NODE\".");
            return [o, &global]() -> Value {
              auto request = read_request(*o, global);
              load_recording(request);
              set_output(request,
                         o->output.empty() ? std::filesystem::path("models") / request.pipeline.file.stem()
                                           : std::filesystem::path(o->output),
                         *o);
              Value result = resumable(request, [&] { return evaluation::fit_pipeline(builtin_registry(), request); });
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
          },
          true};
}

}  // namespace percept::cli
