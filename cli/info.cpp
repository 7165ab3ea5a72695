#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "cli/command.h"
#include "core/error.h"
#include "core/files.h"
#include "core/model.h"
#include "data/loaders.h"
#include "io/bids.h"
#include "io/fmri.h"
#include "io/open.h"
#include "io/png.h"
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
/// A picture of characters, twice as high as wide, for a terminal.
std::string blocks(const io::Picture& p, Index most_columns) {
  static constexpr const char* kShades[] = {" ", "\u2591", "\u2592", "\u2593", "\u2588"};
  const auto columns = std::min(p.width, most_columns), lines = std::max<Index>(1, p.height * columns / p.width / 2);
  std::string text;
  for (Index y = 0; y < lines; ++y) {
    for (Index x = 0; x < columns; ++x) {
      // the mean of the pixels that fall on this character
      const Index left = x * p.width / columns, right = std::max(left + 1, (x + 1) * p.width / columns),
                  top = y * p.height / lines, bottom = std::max(top + 1, (y + 1) * p.height / lines);
      Index sum = 0;
      for (Index j = top; j < bottom; ++j)
        for (Index i = left; i < right; ++i) sum += p.pixels[static_cast<std::size_t>(j * p.width + i)];
      text += kShades[std::min<Index>(4, sum * 5 / (256 * (bottom - top) * (right - left)))];
    }
    text += '\n';
  }
  return text;
}

/// Has what describe_file found slices to look at?
bool has_slices(const Value& description) {
  const Value* image = description.find("image");
  return image && image->contains("orientation");
}
}  // namespace

Command info_command() {
  return {
      "info", "Say what a file holds: streams, shapes, types, rates, missing values",
      [](CLI::App& app, Global& global) -> std::function<Value()> {
        auto file = std::make_shared<std::string>();
        app.add_option(
               "file", *file,
               ".csv, .npy, .mat, .h5, .nii, .gii, .percept, a model folder, a BIDS data set or a registered data set")
            ->required()
            ->type_name("FILE");
        auto picture = std::make_shared<std::string>();
        app.add_option("--picture", *picture, "Write the middle slice of an image as PNG")->type_name("FILE.png");
        add_json(app, global);
        return [file, picture, &global]() -> Value {
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
          } else if (io::is_bids(path)) {
            v = io::describe_bids(path);
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
          if (!picture->empty() && !has_slices(v))
            throw UsageError("--picture needs an image of voxels (.nii or .nii.gz), found " + *file);
          if (!global.json) print_value(v, 0);
          if (has_slices(v) && (!picture->empty() || (!global.json && isatty(STDOUT_FILENO)))) {
            const io::Picture p = io::middle_slice(path);
            if (!picture->empty()) write_atomic(*picture, io::encode_png(p.width, p.height, 1, p.pixels));
            else fmt::print("{}", blocks(p, 72));
          }
          return v;
        };
      }};
}

}  // namespace percept::cli
