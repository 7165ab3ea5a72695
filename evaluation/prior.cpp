#include "evaluation/prior.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <thread>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/runner.h"
#include "evaluation/provenance.h"
#include "evaluation/work_cache.h"

namespace percept::evaluation {
namespace fs = std::filesystem;

namespace {

/// One process at a time fits a prior; the others find it fitted.
class FileLock {
 public:
  FileLock(const fs::path& file, const Context& context) {
    std::error_code ignored;
    fs::create_directories(file.parent_path(), ignored);
    descriptor_ = ::open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (descriptor_ < 0) throw DataError(file.string(), "", "a file that can be written", "none");
    bool told = false;
    while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      if (!told) log::info(fmt::format("prior {}: another run is fitting it, waiting", context.node));
      told = true;
      context.check_cancel();
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
  }
  ~FileLock() { ::close(descriptor_); }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_ = -1;
};

/// Parameters with the defaults filled in, so that both ways of saying the same are the same.
Value resolved_params(const StageInfo& info, const Value& given) {
  Value all = Value::table();
  for (auto& p : info.params) {
    Value v = given.contains(p.key) ? given.at(p.key) : p.fallback;
    if (p.type == "number" && v.is_number()) v = v.as_number();
    if (p.type == "numbers" && v.is_array())
      for (auto& item : v.as_array()) item = item.as_number();
    all[p.key] = std::move(v);
  }
  return all;
}

const Column* labels_of(const Recording& images) {
  const Table* table = images.table("images");
  return table ? table->find("label") : nullptr;
}

/// A text that is the same for images that are equal up to brightness and contrast; "" for one that is constant or has
/// missing pixels.
std::string look_of(const Eigen::Ref<const Eigen::VectorXd>& image) {
  const double low = image.minCoeff(), range = image.maxCoeff() - low;
  if (!image.allFinite() || !(range > 0)) return "";
  std::string look(static_cast<std::size_t>(image.size()) * 2, '\0');
  for (Index i = 0; i < image.size(); ++i) {
    // no fraction of small whole numbers comes to lie on a border between two levels
    const auto level = static_cast<unsigned>(std::lround((image(i) - low) / range * 4095.37));
    look[2 * static_cast<std::size_t>(i)] = static_cast<char>(level >> 8);
    look[2 * static_cast<std::size_t>(i) + 1] = static_cast<char>(level & 0xff);
  }
  return look;
}

std::string named_image(const Recording& images, std::int64_t position) {
  const Value* sources = images.meta.find("sources");
  if (sources)
    for (auto& s : sources->as_array()) {
      const auto n = s.at("images").as_integer();
      if (position < n) return fmt::format("image {} of {}", position + 1, s.at("name").as_string());
      position -= n;
    }
  return fmt::format("image {}", position + 1);
}

/// No image of the prior is one that is to be decoded.
void refuse_targets(const PriorSpec& spec, const Recording& images, const Pipeline& pipeline,
                    const Recording& recording) {
  const Stream& own = images.streams.at(0);
  std::map<std::string, std::int64_t> looks;
  const Eigen::MatrixXd pixels = own.matrix();
  for (Index k = 0; k < pixels.cols(); ++k)
    if (auto look = look_of(pixels.col(k)); !look.empty()) looks.emplace(std::move(look), k);
  for (auto& target : pipeline.targets()) {
    const Stream* stream = recording.find(target);
    if (!stream || stream->format.axis != Axis::item || stream->format.size() != own.format.size()) continue;
    const Eigen::MatrixXd shown = stream->matrix();
    for (Index k = 0; k < shown.cols(); ++k)
      if (const auto at = looks.find(look_of(shown.col(k))); at != looks.end())
        throw DataError(spec.where, named_image(images, at->second),
                        "an image that is not to be decoded (a prior that knows it would leak)",
                        fmt::format("item {} of the target '{}'", stream->keys[static_cast<std::size_t>(k)], target));
  }
}

/// A label says of what kind an image is, also where it is a number.
Column as_categories(const Column& labels) {
  if (labels.is_text()) return labels;
  Column text{labels.name, {}, {}};
  for (const double v : labels.numbers) text.text.push_back(std::isnan(v) ? "" : fmt::format("{}", v));
  return text;
}

MemoryData training_data(const PriorSpec& spec, const StageInfo& info, const Recording& images) {
  const Stream& s = images.streams.at(0);
  TrainingMatrix t;
  t.x = s.matrix();
  StreamFormat x = s.format, y;
  y.axis = x.axis;
  t.y.resize(0, t.x.cols());
  const Column* labels = labels_of(images);
  if (images.streams.size() > 1) {
    y = images.streams[1].format;
    t.y = images.streams[1].matrix();
  } else if (info.needs_target || (info.takes_target && labels)) {
    if (!labels)
      throw ConfigError(spec.where + ".label", spec.label,
                        fmt::format("a column of labels beside the images: '{}' learns to tell them apart", spec.use));
    y = item_format({1}, Scalar::f64, "label");
    const Column categories = as_categories(*labels);
    y.parts[0].levels = levels_of(categories);
    t.y = Eigen::Map<const Eigen::RowVectorXd>(codes_of(categories).data(), t.x.cols());
  }
  t.keys = s.keys;
  return MemoryData(x, y, std::move(t));
}

WorkCache::Fit fit_one(const PriorSpec& spec, const StageInfo& info, const Recording& images, Context context) {
  Counters counters;
  context.counters = &counters;
  const auto data = training_data(spec, info, images);
  Model model;
  try {
    model = info.make_fitter(spec.params, spec.where)->fit(data, context);
  } catch (const ConfigError& e) {
    throw e.key().rfind(spec.name, 0) == 0
        ? ConfigError(spec.where + e.key().substr(spec.name.size()), e.value(), e.expected())
        : e;
  } catch (const DataError& e) {
    throw e.file() == spec.name ? DataError(spec.where, e.field(), e.expected(), e.found()) : e;
  }
  model.meta["stage"] = spec.use;
  model.meta["version"] = info.version;
  if (!model.meta.contains("params")) model.meta["params"] = spec.params;
  WorkCache::Fit fit;
  fit.digest = model.digest();
  fit.model = std::make_shared<const Model>(std::move(model));
  fit.frames = data.frames();
  fit.counters = counted(counters);
  return fit;
}

/// From the cache, or fitted and put there.
WorkCache::Fit fit_or_take(const PriorSpec& spec, const StageInfo& info, const Recording& images, Context context,
                           const PriorCache& cache) {
  if (cache.folder.empty()) return fit_one(spec, info, images, context);
  const Column* labels = labels_of(images);
  const std::string key = sha256(to_json(Value::object(
      {{"use", spec.use},
       {"version", info.version},
       {"params", resolved_params(info, spec.params)},
       {"images", content_digest(images.streams.at(0))},
       {"targets", images.streams.size() > 1 ? Value(content_digest(images.streams[1])) : Value()},
       {"labels", labels ? Value(labels->is_text() ? Value(labels->text) : Value(labels->numbers)) : Value()},
       {"seed", static_cast<std::int64_t>(context.seed)},
       {"threads", context.threads},
       {"numerics", numerics_stamp()}})));
  const auto folder = cache.folder / key;
  fs::path lock = folder, checkpoint = folder;
  lock += ".lock";
  checkpoint += ".checkpoint";
  const FileLock alone(lock, context);
  if (cache.fresh) {
    fs::remove_all(checkpoint);
  } else if (auto found = read_fit(folder)) {
    log::info(fmt::format("prior {}: fitted before, taken from {}", spec.name, folder.string()));
    return *std::move(found);
  }
  context.checkpoint = checkpoint;
  auto fit = fit_one(spec, info, images, context);
  try {
    write_fit(folder, fit);
    fs::remove_all(checkpoint);
  } catch (const std::exception& error) {
    log::warn(fmt::format("prior {}: not kept for the next run: {}", spec.name, error.what()));
  }
  return fit;
}

/// By a stage, or by a prior that is used itself.
bool is_used(const std::string& name, const Pipeline& p) {
  return std::any_of(p.stages.begin(), p.stages.end(),
                     [&](auto& s) {
                       return s.model == name || std::find(s.priors.begin(), s.priors.end(), name) != s.priors.end() ||
                              (s.target && prior_name(s.target->through) == name);
                     }) ||
         std::any_of(p.scores.begin(), p.scores.end(), [&](auto& s) { return prior_name(s.through) == name; }) ||
         std::any_of(p.priors.begin(), p.priors.end(), [&](auto& other) {
           return (prior_name(other.through) == name || prior_name(other.target_through) == name) &&
                  is_used(other.name, p);
         });
}

}  // namespace

Stream passed_through(const Registry& registry, const Pipeline& pipeline, const Priors& priors, const std::string& ref,
                      const Recording& recording, const std::string& from, const std::string& where,
                      const Context& base) {
  const std::string name = prior_name(ref), part = ref == name ? "" : ref.substr(name.size() + 1);
  const PriorSpec* spec = pipeline.prior(name);
  if (!spec) throw Error(fmt::format("{}: no prior is called '{}'", where, name));
  NodeSpec node;
  node.name = name;
  node.use = spec->use;
  node.from = {from};
  node.params = spec->params;
  node.where = where;
  node.model = find_prior(&priors, name).model;
  RunOptions options;
  options.precision = Scalar::f64;
  options.threads = base.threads;
  options.seed = base.seed;
  options.cancelled = base.cancelled;
  std::vector<Eigen::MatrixXd> blocks;
  Stream out;
  const auto formats = run_offline(registry, recording, {node}, options,
                                   {{name, [&](const Block& b) {
                                       blocks.push_back(to_matrix(b.x));
                                       out.keys.insert(out.keys.end(), b.keys.begin(), b.keys.end());
                                     }}});
  out.format = formats.at(name);
  Index count = 0;
  for (auto& b : blocks) count += b.cols();
  const Stream& source = recording.stream(from.substr(0, recording.find(from) ? from.size() : from.rfind('.')), where);
  if (out.format.axis != Axis::item || count != source.frames())
    throw ConfigError(where, "\"" + ref + "\"",
                      fmt::format("a prior whose stage answers each of {} items", source.frames()));
  Index offset = 0, rows = out.format.size();
  if (!part.empty()) {
    offset = out.format.part_offset(part);
    if (offset < 0) {
      std::vector<std::string> parts;
      for (auto& p : out.format.parts) parts.push_back(p.name);
      throw ConfigError(
          where, "\"" + ref + "\"",
          fmt::format("a part that '{}' gives: {}{}", name, fmt::join(parts, ", "), did_you_mean(part, parts)));
    }
    std::erase_if(out.format.parts, [&](auto& p) { return p.name != part; });
    rows = out.format.size();
  }
  Eigen::MatrixXd all(rows, count);
  Index at = 0;
  for (auto& b : blocks) {
    all.middleCols(at, b.cols()) = b.middleRows(offset, rows);
    at += b.cols();
  }
  Stream values = memory_stream(ref, std::move(all), 1);
  out.name = ref;
  out.samples = values.samples;
  return out;
}

Priors fit_priors(const Registry& registry, const Pipeline& pipeline, const Recording& recording,
                  const std::vector<Recording>& images, const Context& base, const PriorCache& cache) {
  Priors all;
  if (images.size() != pipeline.priors.size())
    throw Error(
        fmt::format("{}: {} priors, but images of {}", pipeline.file.string(), pipeline.priors.size(), images.size()));
  for (std::size_t i = 0; i < images.size(); ++i) {
    const auto& spec = pipeline.priors[i];
    if (!is_used(spec.name, pipeline)) {
      log::warn(fmt::format("{}: no stage uses it, it is not fitted", spec.where));
      continue;
    }
    refuse_targets(spec, images[i], pipeline, recording);
    const auto& info = registry.at(spec.use, spec.where + ".use");
    Context context = base;
    context.node = spec.name;
    if (base.progress)
      context.progress = [&](double fraction, std::string_view what) {
        base.progress(fraction, fmt::format("prior {}: {}", spec.name, what));
      };
    Recording given = images[i];
    const std::string from = given.streams.at(0).name;
    if (!spec.target_through.empty()) {
      given.streams.resize(1);
      given.streams.push_back(passed_through(registry, pipeline, all, spec.target_through, images[i], from,
                                             spec.where + ".target_through", base));
    }
    if (!spec.through.empty())
      given.streams[0] =
          passed_through(registry, pipeline, all, spec.through, images[i], from, spec.where + ".through", base);
    auto fit = fit_or_take(spec, info, given, context, cache);
    add_counters(base.counters, fit.counters);
    all.push_back({spec.name, spec.use, std::move(fit.model), std::move(fit.digest), fit.frames});
  }
  return all;
}

const FittedPrior& find_prior(const Priors* priors, const std::string& name) {
  if (priors)
    for (auto& p : *priors)
      if (p.name == name) return p;
  throw Error(fmt::format("the prior '{}' is not fitted", name));
}

std::vector<PriorModel> priors_of(const StageSpec& stage, const Priors* priors) {
  std::vector<PriorModel> given;
  for (auto& name : stage.priors) {
    const auto& p = find_prior(priors, name);
    given.push_back({p.name, p.use, p.model});
  }
  return given;
}

Value prior_digests(const StageSpec& stage, const Priors* priors) {
  Value digests = Value::array();
  for (auto& name : stage.priors) digests.push_back(find_prior(priors, name).digest);
  return digests;
}

Value to_value(const Registry& registry, const Pipeline& pipeline, const std::vector<Recording>& images) {
  Value all = Value::array();
  for (std::size_t i = 0; i < images.size(); ++i) {
    const auto& spec = pipeline.priors.at(i);
    const auto& meta = images[i].meta;
    Value v =
        Value::object({{"name", spec.name},
                       {"use", spec.use},
                       {"version", registry.at(spec.use, spec.where).version},
                       {"images", images[i].streams.empty() ? Value("?") : Value(images[i].streams[0].frames())}});
    v["sources"] = meta.contains("sources") ? meta.at("sources") : Value::array();
    if (!spec.labels.empty()) v["labels"] = Value::array(Value::Array(spec.labels.begin(), spec.labels.end()));
    v["params"] = spec.params;
    v["inputs"] = meta.contains("input") ? meta.at("input") : Value::table();
    all.push_back(std::move(v));
  }
  return all;
}

}  // namespace percept::evaluation
