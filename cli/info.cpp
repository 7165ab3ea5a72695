#include <fmt/format.h>

#include "cli/command.h"
#include "core/model.h"
#include "data/loaders.h"
#include "io/open.h"
#include "percept/registry.h"

namespace percept::cli {

namespace {
void print_value(const Value& v, int indent) {
  const std::string pad(static_cast<std::size_t>(indent), ' ');
  for (auto& [key, item] : v.as_table()) {
    if (item.is_table()) {
      fmt::print("{}{}\n", pad, key);
      print_value(item, indent + 2);
    } else if (item.is_array() && item.size() && item.as_array()[0].is_table()) {
      fmt::print("{}{}\n", pad, key);
      for (auto& entry : item.as_array()) {
        std::string line;
        for (auto& [k, x] : entry.as_table())
          line += fmt::format("{}{} {}", line.empty() ? "" : ", ", k, x.is_string() ? x.as_string() : to_json(x));
        fmt::print("{}  {}\n", pad, line);
      }
    } else if (!item.is_null()) {
      fmt::print("{}{:<12} {}\n", pad, key, item.is_string() ? item.as_string() : to_json(item));
    }
  }
}
}  // namespace

Command info_command() {
  return {"info", "Say what a file holds: streams, shapes, types, rates, missing values",
          [](CLI::App& app, Global& global) -> std::function<Value()> {
            auto file = std::make_shared<std::string>();
            app.add_option("file", *file, ".csv, .npy, .mat, .h5, .percept, a model folder or a registered data set")
                ->required()
                ->type_name("FILE");
            add_json(app, global);
            return [file, &global]() -> Value {
              Value v;
              const std::filesystem::path path = *file;
              if (std::filesystem::is_directory(path) && std::filesystem::exists(path / "model.json")) {
                const auto model = Model::load(path);
                Value arrays = Value::array();
                for (auto& [name, t] : model.tensors()) {
                  Value shape = Value::array();
                  for (auto s : t.shape) shape.push_back(s);
                  arrays.push_back(Value::object({{"name", name}, {"shape", shape}}));
                }
                v = Value::object({{"file", *file},
                                   {"kind", "model"},
                                   {"meta", model.meta},
                                   {"arrays", arrays},
                                   {"digest", model.digest()}});
              } else if (!std::filesystem::exists(path) && path.extension().empty() &&
                         file->find('/') == std::string::npos) {
                const auto r = data::load_data_set(*file, Value::table(), progress_bar(global), "info");
                Value streams = Value::array();
                for (auto& s : r.streams)
                  streams.push_back(Value::object({{"name", s.name},
                                                   {"frames", s.frames()},
                                                   {"format", s.format.describe()},
                                                   {"start_s", s.format.start_s},
                                                   {"unit", s.format.parts[0].unit}}));
                v = Value::object({{"data", r.name},
                                   {"meta", r.meta},
                                   {"streams", streams},
                                   {"events", static_cast<std::int64_t>(r.events.size())}});
              } else {
                v = io::describe_file(path);
              }
              if (!global.json) print_value(v, 0);
              return v;
            };
          }};
}

}  // namespace percept::cli
