#include <fmt/format.h>

#include "cli/command.h"
#include "cli/reference.h"
#include "percept/registry.h"

namespace percept::cli {

Command stages_command() {
  return {"stages", "List the stages, or explain one: parameters, units, ranges, source",
          [](CLI::App& app, Global& global) -> std::function<Value()> {
            auto name = std::make_shared<std::string>();
            auto schema = std::make_shared<bool>(false);
            app.add_option("name", *name, "Explain this stage")->type_name("NAME");
            app.add_flag("--schema", *schema, "Print the JSON Schema of pipeline files, for editors");
            add_json(app, global);
            return [=, &global]() -> Value {
              const auto& registry = builtin_registry();
              if (*schema) {
                Value s = pipeline_schema(registry);
                if (!global.json) fmt::print("{}\n", to_json(s, 2));
                return s;
              }
              if (!name->empty()) {
                const auto& info = registry.at(*name, "percept stages");
                if (!global.json) fmt::print("{}", stage_text(info));
                return stage_value(info);
              }
              Value all = Value::array();
              std::string folder;
              for (auto& i : registry.all()) {
                all.push_back(stage_value(i));
                if (global.json) continue;
                if (i.folder != folder) fmt::print("{}{}\n", folder.empty() ? "" : "\n", i.folder);
                folder = i.folder;
                fmt::print("  {:<20} {}\n", i.name, i.doc);
              }
              return Value::object({{"stages", all}});
            };
          }};
}

}  // namespace percept::cli
