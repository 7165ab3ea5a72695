#include "evaluation/gallery.h"

#include <fmt/format.h>

#include "cli/command.h"
#include "core/files.h"
#include "evaluation/report/gallery.h"

namespace percept::cli {

Command gallery_command() {
  return {
      "gallery", "Write the HTML gallery of a run that reconstructed images",
      [](CLI::App& app, Global& global) -> std::function<Value()> {
        auto run = std::make_shared<std::string>();
        auto output = std::make_shared<std::string>();
        auto samples = std::make_shared<int>(8);
        app.add_option("run", *run, "Folder that percept run wrote")->required()->type_name("DIR");
        app.add_option("-o,--output", *output, "HTML file (default: gallery.html in the folder)")->type_name("FILE");
        app.add_option("--samples", *samples, "Posterior samples of each image that are kept, at most")
            ->check(CLI::Range(0, 64))
            ->capture_default_str();
        add_json(app, global);
        return [=, &global]() -> Value {
          const Value gallery = evaluation::gallery_of(*run, *samples);
          const std::filesystem::path at =
              output->empty() ? std::filesystem::path(*run) / "gallery.html" : std::filesystem::path(*output);
          write_atomic(at, evaluation::render_gallery(gallery));
          if (!global.json) fmt::print("{}\n", at.string());
          return Value::object({{"gallery", at.string()},
                                {"images", gallery.at("items").size()},
                                {"methods", gallery.at("methods").size()}});
        };
      }};
}

}  // namespace percept::cli
