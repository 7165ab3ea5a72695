#include <fmt/format.h>

#include "cli/command.h"
#include "core/error.h"
#include "core/model.h"
#include "data/loaders.h"
#include "evaluation/describe.h"
#include "evaluation/experiment.h"
#include "io/bids.h"
#include "io/open.h"
#include "percept/registry.h"

namespace percept::cli {

Command check_command() {
  return {"check", "Read files whole and say what is wrong; check a pipeline without running it",
          [](CLI::App& app, Global& global) -> std::function<Value()> {
            auto files = std::make_shared<std::vector<std::string>>();
            app.add_option("files", *files, "Data files, BIDS data sets, model folders, or pipeline files (.toml)")
                ->required()
                ->type_name("FILE");
            add_json(app, global);
            app.footer(
                "A data file is read to its end and its checksums are verified. Of a pipeline, every key, the input, "
                "the graph\n"
                "and the split are checked; nothing is fitted. The first thing that is wrong ends with exit code 3.");
            return [files, &global]() -> Value {
              Value checked = Value::array();
              for (auto& name : *files) {
                const std::filesystem::path path = name;
                std::string kind;
                if (path.extension() == ".toml") {
                  kind = "pipeline";
                  const auto& registry = builtin_registry();
                  const auto pipeline = read_pipeline(path, registry);
                  const auto recording =
                      data::load_input(pipeline.input, path.parent_path(), progress_bar(global), name + ": input");
                  evaluation::describe_graph(registry, pipeline, recording);
                  evaluation::EngineOptions options;
                  options.cancelled = interrupted;
                  const evaluation::Experiment experiment(registry, pipeline, recording, options);
                  for (auto& s : pipeline.splits) evaluation::make_folds(s, experiment.split_context());
                } else if (io::is_bids(path)) {
                  kind = "BIDS data set";
                  io::check_bids(path);
                } else if (std::filesystem::is_directory(path)) {
                  kind = "model";
                  Model::load(path);
                } else {
                  kind = "data";
                  io::check_file(path);
                }
                checked.push_back(Value::object({{"file", name}, {"kind", kind}, {"ok", true}}));
                if (!global.json) fmt::print("{}: {} is fine\n", name, kind);
              }
              return Value::object({{"checked", checked}});
            };
          }};
}

}  // namespace percept::cli
