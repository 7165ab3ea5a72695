#include <fmt/format.h>

#include "cli/command.h"
#include "core/error.h"
#include "core/files.h"
#include "evaluation/report/report.h"

namespace percept::cli {

Command report_command() {
  return {"report", "Write the HTML report of one run, or of several side by side",
          [](CLI::App& app, Global& global) -> std::function<Value()> {
            auto runs = std::make_shared<std::vector<std::string>>();
            auto output = std::make_shared<std::string>();
            app.add_option("runs", *runs, "Folders that percept run wrote")->required()->type_name("DIR");
            app.add_option("-o,--output", *output,
                           "HTML file (default: report.html in the folder, comparison.html for several)")
                ->type_name("FILE");
            add_json(app, global);
            return [=, &global]() -> Value {
              Value all;
              std::vector<std::string> titles;
              for (auto& folder : *runs) {
                const auto file = std::filesystem::path(folder) / "report.json";
                if (!std::filesystem::exists(file))
                  throw DataError(folder, "report.json", "a folder that percept run wrote", "none");
                Value one = read_json(file);
                const std::string name = std::filesystem::path(folder).lexically_normal().filename().string();
                titles.push_back(one.get("title", name));
                if (runs->size() > 1) {  // names tell the runs apart
                  for (const char* list : {"scores", "trajectories", "calibration"})
                    if (auto* items = one.find(list))
                      for (auto& item : items->as_array())
                        item["name"] = name + (item.get("name", "").empty() ? "" : ": " + item.get("name", ""));
                }
                if (all.is_null()) {
                  all = one;
                  continue;
                }
                for (const char* list :
                     {"warnings", "split", "scores", "trajectories", "calibration", "priors", "models", "graph"}) {
                  Value* into = &all[list];
                  if (into->is_null()) *into = Value::array();
                  if (auto* items = one.find(list))
                    for (auto& item : items->as_array())
                      if (std::find(into->as_array().begin(), into->as_array().end(), item) == into->as_array().end())
                        into->push_back(item);
                }
                all["provenance"] =
                    Value::object({{all.get("title", "first"), all["provenance"]}, {titles.back(), one["provenance"]}});
              }
              if (runs->size() > 1) all["title"] = fmt::format("{}", fmt::join(titles, " / "));
              const std::filesystem::path at = !output->empty()   ? std::filesystem::path(*output)
                                               : runs->size() > 1 ? std::filesystem::path("comparison.html")
                                                                  : std::filesystem::path((*runs)[0]) / "report.html";
              write_atomic(at, evaluation::render_report(all));
              if (!global.json) fmt::print("{}\n", at.string());
              return Value::object({{"report", at.string()}});
            };
          }};
}

}  // namespace percept::cli
