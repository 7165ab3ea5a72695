#include <fmt/format.h>

#include "cli/command.h"
#include "core/error.h"
#include "data/fetch.h"
#include "data/registry.h"

namespace percept::cli {

Command data_command() {
  return {
      "data", "List, fetch and find the recordings that percept knows by name",
      [](CLI::App& app, Global& global) -> std::function<Value()> {
        auto name = std::make_shared<std::string>();
        auto* list = app.add_subcommand("list", "Every registered data set");
        auto* fetch = app.add_subcommand(
            "fetch", "Get a data set's files: from PERCEPT_DATA_MIRROR, the cache, or their URL; verified by sha256");
        auto* path = app.add_subcommand("path", "Print where the files of a data set are on this machine");
        for (auto* sub : {fetch, path})
          sub->add_option("name", *name, "Name of the data set")->required()->type_name("NAME");
        for (auto* sub : {list, fetch, path}) add_json(*sub, global);
        app.require_subcommand(1);
        app.footer(
            "PERCEPT_DATA_MIRROR names a folder that holds the files already; they are used in place. Otherwise files\n"
            "are kept in $XDG_CACHE_HOME/percept (or ~/.cache/percept).");
        return [=, &global]() -> Value {
          if (list->parsed()) {
            Value sets = Value::array();
            for (auto& s : data::data_sets()) {
              std::int64_t bytes = 0;
              for (auto& f : s.files) bytes += static_cast<std::int64_t>(f.bytes);
              sets.push_back(Value::object({{"name", s.name},
                                            {"title", s.title},
                                            {"licence", s.licence},
                                            {"citation", s.citation},
                                            {"source", s.source},
                                            {"files", static_cast<std::int64_t>(s.files.size())},
                                            {"bytes", bytes},
                                            {"warnings", Value(s.warnings)}}));
              if (!global.json)
                fmt::print("{:<18} {:>8.1f} MB  {}\n", s.name, static_cast<double>(bytes) / 1e6, s.title);
            }
            return Value::object({{"data", sets}});
          }
          const auto set = data::data_set(*name);
          Value files = Value::array();
          for (auto& f : set.files) {
            std::filesystem::path at;
            if (fetch->parsed()) {
              at = data::fetch(set, f.name, progress_bar(global));
            } else {
              const auto found = data::locate(set, f.name);
              if (!found)
                throw DataError(set.name, f.name, "a file on this machine",
                                fmt::format("none: percept data fetch {}", set.name));
              at = *found;
            }
            finish_progress();
            files.push_back(Value::object({{"name", f.name},
                                           {"path", at.string()},
                                           {"sha256", f.sha256},
                                           {"bytes", static_cast<std::int64_t>(f.bytes)}}));
            if (!global.json) fmt::print("{}\n", at.string());
          }
          return Value::object({{"name", set.name}, {"files", files}});
        };
      }};
}

}  // namespace percept::cli
