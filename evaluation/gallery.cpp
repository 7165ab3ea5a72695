#include "evaluation/gallery.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "evaluation/image_bytes.h"
#include "evaluation/report/html.h"
#include "io/png.h"
#include "io/store.h"

namespace percept::evaluation {
namespace fs = std::filesystem;

namespace {

/// Rows and columns of an image part, and how many colours; nothing where it is no image.
struct ImageShape {
  Index rows = 0, columns = 0, channels = 1;
  Index size() const { return rows * columns * channels; }
  bool operator==(const ImageShape&) const = default;
};
std::optional<ImageShape> image_shape(const Part& part) {
  const auto& s = part.shape;
  if (s.size() == 2) return ImageShape{s[0], s[1], 1};
  if (s.size() == 3 && (s[0] == 1 || s[0] == 3)) return ImageShape{s[1], s[2], s[0]};
  return std::nullopt;
}

/// What was decoded beside the truth, where there are both: a run leaves the items missing that its split did not test.
struct Tested {
  Eigen::MatrixXd truth, decoded;
  std::vector<std::int64_t> keys;
  std::vector<Index> positions;  ///< in the streams
};
Tested tested(const Stream& truth, const Stream& decoded) {
  const Eigen::MatrixXd t = truth.matrix(), d = decoded.matrix();
  Tested both;
  for (Index k = 0; k < std::min(t.cols(), d.cols()); ++k)
    if (t.col(k).array().isFinite().any() && d.col(k).array().isFinite().any()) {
      both.positions.push_back(k);
      both.keys.push_back(truth.keys[static_cast<std::size_t>(k)]);
    }
  both.truth = t(Eigen::all, both.positions);
  both.decoded = d(Eigen::all, both.positions);
  return both;
}

/// The label of every item that has one: the column "label" of the table "item".
std::map<std::int64_t, std::string> item_labels(const Recording& predictions) {
  std::map<std::int64_t, std::string> labels;
  const Table* table = predictions.table("item");
  const Column* label = table ? table->find("label") : nullptr;
  if (!label) return labels;
  const Column* key = table->find("key");
  for (std::size_t i = 0; i < label->size(); ++i) {
    const auto item = key && !key->is_text() ? std::llround(key->numbers[i]) : static_cast<std::int64_t>(i);
    labels[item] = label->is_text()                ? label->text[i]
                   : std::isnan(label->numbers[i]) ? ""
                                                   : fmt::format("{:g}", label->numbers[i]);
  }
  return labels;
}

/// One row an image: the true one, then what each method made of it, with a line of grey between them. For readers
/// without scripts.
std::string mosaic(const ImageShape& shape, const std::vector<std::vector<const char*>>& rows) {
  constexpr Index kGap = 2;
  const std::size_t columns = rows.empty() ? 0 : rows[0].size();
  const Index width = static_cast<Index>(columns) * (shape.columns + kGap) - kGap,
              height = std::ssize(rows) * (shape.rows + kGap) - kGap;
  if (width < 1 || height < 1) return "";
  std::vector<unsigned char> pixels(static_cast<std::size_t>(width * height * shape.channels), 128);
  const Index plane = shape.rows * shape.columns;
  for (std::size_t r = 0; r < rows.size(); ++r)
    for (std::size_t c = 0; c < rows[r].size(); ++c) {
      if (!rows[r][c]) continue;
      for (Index y = 0; y < shape.rows; ++y)
        for (Index x = 0; x < shape.columns; ++x)
          for (Index k = 0; k < shape.channels; ++k) {
            const Index at = (static_cast<Index>(r) * (shape.rows + kGap) + y) * width +
                             static_cast<Index>(c) * (shape.columns + kGap) + x;
            pixels[static_cast<std::size_t>(at * shape.channels + k)] =
                static_cast<unsigned char>(rows[r][c][k * plane + y * shape.columns + x]);
          }
    }
  return io::encode_png(width, height, static_cast<int>(shape.channels), pixels);
}

/// The part of that name at these positions.
std::optional<Eigen::MatrixXd> part_of(const Stream& stream, const std::string& part, Index size,
                                       const std::vector<Index>& positions) {
  const Part* p = stream.format.find_part(part);
  if (!p || p->size() != size) return std::nullopt;
  return stream.matrix()(Eigen::all, positions).middleRows(stream.format.part_offset(part), size);
}

/// What the viewer shows of report.json's "brain": its images are files of the run.
Value brain_of(const Value& brain, const fs::path& run) {
  const auto image = [&](const std::string& file) {
    return Value::object({{"file", fs::path(file).filename().string()}, {"nifti", base64(read_file(run / file))}});
  };
  Value overlays = Value::array();
  for (auto& map : list(brain, "maps")) {
    Value o = image(map.at("file").as_string());
    o["name"] = map.at("name");
    o["doc"] = fmt::format(
        "The share of a voxel's variance that goes with the reconstruction, over {} test images (the pattern of Haufe "
        "et al. 2014: a weight is also large where a voxel only cancels the noise of others). Shown from {:.2g} on, "
        "which one voxel in twenty exceeds by chance, to {:.2g}.",
        map.at("items").as_integer(), map.at("least").as_number(), map.at("most").as_number());
    o["signed"] = false;
    o["least"] = map.at("least");
    o["most"] = map.at("most");
    overlays.push_back(std::move(o));
  }
  return Value::object({{"anatomy", image(brain.at("anatomy").as_string())}, {"overlays", std::move(overlays)}});
}

}  // namespace

Value gallery_of(const fs::path& run, Index draws) {
  for (const char* name : {"result.json", "report.json", "predictions.percept"})
    if (!fs::exists(run / name)) throw DataError(run.string(), name, "a folder that percept run wrote", "none");
  const Value result = read_json(run / "result.json"), report = read_json(run / "report.json");
  const Recording predictions = io::open_store(run / "predictions.percept");

  std::set<std::string> score_names, split_names;
  for (auto& s : list(report, "scores")) {
    score_names.insert(s.get("name", ""));
    split_names.insert(s.get("split", ""));
  }
  struct Shown {
    const Value* score;
    std::string method, split, prefix;
    Tested tested;
  };
  std::vector<Shown> shown;
  std::optional<ImageShape> shape;
  for (auto& s : list(report, "scores")) {
    const std::string name = s.get("name", ""), split = s.get("split", "");
    const std::string prefix = (score_names.size() > 1 ? name + "." : "") + (split_names.size() > 1 ? split + "." : "");
    const Stream *truth = predictions.find(prefix + "truth"), *decoded = predictions.find(prefix + "decoded");
    if (!truth || !decoded || truth->format.axis != Axis::item) continue;
    const auto image = image_shape(truth->format.parts[0]);
    if (!image || decoded->format.size() != image->size()) continue;
    if (shape && *shape != *image) continue;  // one size a gallery: that of the first score
    shape = image;
    shown.push_back({&s, name.empty() ? s.get("model", "decoded") : name, split, prefix, tested(*truth, *decoded)});
  }
  if (shown.empty()) throw DataError(run.string(), "predictions.percept", "a score whose target is images", "none");

  // every image that any split tests, once
  std::map<std::int64_t, Eigen::VectorXd> truths;
  for (auto& s : shown) {
    for (Index k = 0; k < s.tested.truth.cols(); ++k)
      truths.emplace(s.tested.keys[static_cast<std::size_t>(k)], s.tested.truth.col(k));
  }
  double low = 0, high = 1;
  for (auto& [key, image] : truths)
    if (image.array().isFinite().all()) {
      low = std::min(low, image.minCoeff());
      high = std::max(high, image.maxCoeff());
    }
  const ToBytes byte(low, high);

  Value gallery = Value::object({{"title", report.get("title", "Gallery")},
                                 {"description", report.get("description", "")},
                                 {"warnings", report.contains("warnings") ? report.at("warnings") : Value::array()},
                                 {"scores", report.at("scores")},
                                 {"shape", Value::array({shape->rows, shape->columns})},
                                 {"channels", shape->channels}});
  const auto labels = item_labels(predictions);
  Value items = Value::array();
  std::map<std::int64_t, Index> index;  // of a key among the items
  std::string truth_bytes;
  for (auto& [key, image] : truths) {
    index[key] = static_cast<Index>(items.size());
    const auto label = labels.find(key);
    items.push_back(Value::object(
        {{"name", fmt::format("image {}", key)}, {"label", label == labels.end() ? std::string() : label->second}}));
    truth_bytes += to_bytes(image, byte);
  }
  gallery["items"] = items;
  gallery["truth"] = base64(truth_bytes);

  Value splits = Value::array(), methods = Value::array(), measures = Value::table(), all = Value::array(),
        trust = Value::array();
  std::set<std::string> seen_splits, seen_methods;
  std::vector<std::string> first_split;  // bytes of each method there, in the order of the items
  for (auto& s : shown) {
    Value members = Value::array();
    for (const auto key : s.tested.keys) members.push_back(index.at(key));
    if (seen_splits.insert(s.split).second)
      splits.push_back(Value::object({{"name", s.split.empty() ? "test" : s.split}, {"items", members}}));
    if (seen_methods.insert(s.method).second)
      methods.push_back(Value::object({{"name", s.method}, {"doc", s.score->get("doc", "")}}));
    const Index n = static_cast<Index>(s.tested.keys.size());
    const std::string decoded = to_bytes(s.tested.decoded, byte);
    if (s.split == shown[0].split && n == static_cast<Index>(shown[0].tested.keys.size()))
      first_split.push_back(decoded);
    Value r = Value::object({{"method", s.method},
                             {"split", s.split.empty() ? "test" : s.split},
                             {"items", members},
                             {"decoded", base64(decoded)},
                             {"values", Value::table()}});
    if (const Value* per_item =
            result.find_path("items." + s.prefix.substr(0, s.prefix.empty() ? 0 : s.prefix.size() - 1));
        per_item || (per_item = s.prefix.empty() ? result.find("items") : nullptr))
      for (auto& [name, values] : child(*per_item, "values").as_table()) {
        if (std::ssize(values.as_array()) != n) continue;
        r["values"][name] = values;
        if (measures.contains(name)) continue;
        const Value* metric = nullptr;
        for (auto& m : list(*s.score, "metrics"))
          if (m.get("name", "") == name) metric = &m;
        measures[name] =
            Value::object({{"label", name},
                           {"doc", metric ? metric->get("doc", "") : ""},
                           {"higher", metric ? !metric->get("lower_is_better", true) : name == "identification_rank"},
                           {"kind", metric ? "metric" : "trust"}});
      }
    if (const Stream* frame = predictions.find(s.prefix + "frame")) {
      const Index plane = shape->rows * shape->columns;
      if (const auto sd = part_of(*frame, "sd", shape->size(), s.tested.positions);
          sd && sd->array().isFinite().any()) {
        Eigen::MatrixXd spread = Eigen::MatrixXd::Zero(plane, sd->cols());  // of a colour image the mean over colours
        for (Index c = 0; c < shape->channels; ++c)
          spread += sd->middleRows(c * plane, plane) / static_cast<double>(shape->channels);
        const double most = spread.array().isFinite().select(spread, 0.0).maxCoeff();
        r["sd"] = base64(to_bytes(spread, ToBytes(0, most)));
        r["sd_most"] = most;
      }
      if (const Part* p = frame->format.find_part("samples");
          p && p->size() % shape->size() == 0 && p->size() > shape->size()) {
        const Index kept = std::min(draws, p->size() / shape->size());
        r["draws"] = kept;
        r["samples"] = base64(to_bytes(frame->matrix()(Eigen::all, s.tested.positions)
                                           .middleRows(frame->format.part_offset("samples"), kept * shape->size()),
                                       byte));
      }
    }
    const Value &spread = child(r["values"], "spread"), &error = child(r["values"], "mse");
    if (spread.is_array() && error.is_array()) {
      Value x = Value::array(), y = Value::array();
      for (std::size_t k = 0; k < spread.size(); ++k)
        if (spread.as_array()[k].is_number() && error.as_array()[k].is_number()) {
          x.push_back(spread.as_array()[k]);
          y.push_back(std::sqrt(error.as_array()[k].as_number()));
        }
      trust.push_back(Value::object({{"caption", fmt::format("{}{}", s.method, s.split.empty() ? "" : ", " + s.split)},
                                     {"x_label", "spread: mean standard deviation of a pixel"},
                                     {"y_label", "error: root mean square over pixels"},
                                     {"x", x},
                                     {"y", y}}));
    }
    all.push_back(std::move(r));
  }
  constexpr Index kMostRows = 50;
  std::vector<std::vector<const char*>> rows;
  for (Index k = 0; k < std::min<Index>(kMostRows, std::ssize(shown[0].tested.keys)); ++k) {
    rows.push_back({truth_bytes.data() + index.at(shown[0].tested.keys[static_cast<std::size_t>(k)]) * shape->size()});
    for (auto& method : first_split) rows.back().push_back(method.data() + k * shape->size());
  }
  gallery["mosaic"] = base64(mosaic(*shape, rows));
  gallery["splits"] = splits;
  gallery["methods"] = methods;
  gallery["reconstructions"] = all;
  gallery["trust"] = trust;
  if (measures.size() == 0)
    measures["pcc"] = Value::object({{"label", ""}, {"doc", ""}, {"higher", true}, {"kind", "metric"}});
  gallery["headline"] = measures.as_table()[0].first;
  gallery["measures"] = measures;
  if (const Value* brain = report.find("brain")) gallery["brain"] = brain_of(*brain, run);
  return gallery;
}

}  // namespace percept::evaluation
