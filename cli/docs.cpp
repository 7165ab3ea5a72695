#include <fmt/format.h>

#include "cli/command.h"
#include "cli/reference.h"
#include "core/error.h"
#include "core/files.h"
#include "percept/registry.h"

namespace percept::cli {

Command docs_command() {
  return {"docs", "Print the reference page made from the registry and the commands",
          [](CLI::App& app, Global& global) -> std::function<Value()> {
            auto against = std::make_shared<std::string>();
            app.add_option("--check", *against, "Compare with this file instead; exit code 4 when it is stale")
                ->type_name("FILE");
            add_json(app, global);
            return [=, &global]() -> Value {
              const auto text = reference_markdown(builtin_registry());
              if (!against->empty()) {
                if (read_file(*against) != text) throw Error(*against + " is stale: ./dev docs writes it anew");
                if (!global.json) fmt::print("{} is up to date\n", *against);
                return Value::object({{"file", *against}, {"fresh", true}});
              }
              if (!global.json) fmt::print("{}", text);
              return Value::object({{"markdown", text}});
            };
          }};
}

}  // namespace percept::cli
