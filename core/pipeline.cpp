#include "core/pipeline.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/params.h"

namespace percept {

namespace {

const std::vector<std::string> kSections{"title",  "description", "input", "stage", "split",
                                         "search", "score",       "run",   "output"};
const std::vector<std::string> kConfounds{"time", "trial", "past", "shuffled"};

struct RunSection {
  std::string precision = "f32";
  std::int64_t block = 4096;
  std::int64_t seed = 0;
  static constexpr auto fields() {
    return std::tuple{choice("precision", &RunSection::precision, "Scalar of every edge.", "f32|f64"),
                      field("block", &RunSection::block, "frames", "Frames in one block.", 1, 1e8),
                      field("seed", &RunSection::seed, "", "Seed of every random number.", 0, 9e15)};
  }
};
struct OutputSection {
  std::string folder;
  bool report = true;
  bool predictions = true;
  static constexpr auto fields() {
    return std::tuple{
        field("folder", &OutputSection::folder, "", "Where the results go; empty: runs/<name of the file>."),
        field("report", &OutputSection::report, "", "Write report.html."),
        field("predictions", &OutputSection::predictions, "", "Write the scored frames to predictions.h5.")};
  }
};
struct ScoreSection {
  std::string name, from, part, target;
  std::vector<std::string> metrics{"rmse"};
  std::vector<std::string> confounds = kConfounds;
  std::int64_t permutations = 200, shuffles = 5, bootstrap = 1000;
  double bootstrap_block_s = 0;
  static constexpr auto fields() {
    return std::tuple{
        field("name", &ScoreSection::name, "", "First level of the score's key."),
        field("from", &ScoreSection::from, "", "Node that is scored; empty: the last one."),
        field("part", &ScoreSection::part, "", "Part of its frames; empty: mean, or the first."),
        field("target", &ScoreSection::target, "", "Stream it is compared with; empty: the target of the pipeline."),
        field("metrics", &ScoreSection::metrics, "",
              "rmse, nrmse, maae, r2, r, mean_r, median_error; median_error_px says and requires the target's unit."),
        field("confounds", &ScoreSection::confounds, "", "Controls beside the score: time, trial, past, shuffled."),
        field("permutations", &ScoreSection::permutations, "", "Circular shifts behind the p-value.", 0, 1e6),
        field("shuffles", &ScoreSection::shuffles, "", "Refits on shifted activity.", 0, 1e4),
        field("bootstrap", &ScoreSection::bootstrap, "", "Resamples behind an interval.", 0, 1e6),
        field("bootstrap_block_s", &ScoreSection::bootstrap_block_s, "s",
              "Length of a resampled block; 0: from the error's autocorrelation.", 0, 1e6)};
  }
};

/// Calls read(params struct) and nothing else may be in the section.
template <class S>
S section(const Value& config, const char* name, const std::string& file) {
  const Value* v = config.find(name);
  return v ? read_params<S>(*v, file + ": " + name) : S{};
}

const Value::Array& tables(const Value& config, const char* name, const std::string& file) {
  static const Value::Array kNone;
  const Value* v = config.find(name);
  if (!v) return kNone;
  if (!v->is_array()) throw ConfigError(file + ": " + name, "", fmt::format("a list: write [[{}]]", name));
  for (auto& t : v->as_array())
    if (!t.is_table()) throw ConfigError(file + ": " + name, "", fmt::format("tables: write [[{}]]", name));
  return v->as_array();
}

std::string text(const Value& v, const std::string& where) {
  if (!v.is_string()) throw ConfigError(where, to_json(v), "a string");
  return v.as_string();
}
double number(const Value& v, const std::string& where) {
  if (!v.is_number()) throw ConfigError(where, to_json(v), "a number");
  return v.as_number();
}

/// Refuses a value of another type or out of range here, before any data are read.
void check_parameter(const Value& v, const ParamInfo& info, const std::string& where) {
  auto as = [&](auto value) { detail::read_value(v, value, info, where); };
  if (info.type == "boolean") as(bool{});
  else if (info.type == "integer") as(std::int64_t{});
  else if (info.type == "number") as(double{});
  else if (info.type == "string") as(std::string{});
  else if (info.type == "integers") as(std::vector<std::int64_t>{});
  else if (info.type == "numbers") as(std::vector<double>{});
  else as(std::vector<std::string>{});
}

TargetSpec read_target(const Value& v, const std::string& where) {
  if (v.is_string()) return {v.as_string(), 0};
  refuse_unknown_keys(v, {"from", "lag_s"}, where);
  const Value* from = v.find("from");
  if (!from) throw ConfigError(where + ".from", "", "the stream or table column to be decoded");
  TargetSpec t;
  t.from = text(*from, where + ".from");
  if (auto* lag = v.find("lag_s")) t.lag_s = number(*lag, where + ".lag_s");
  return t;
}

StageSpec read_stage(const Value& t, std::size_t position, const std::string& file, const Registry& registry) {
  const std::string at =
      fmt::format("{}{}: stage {}", file, t.line > 0 ? fmt::format(":{}", t.line) : "", position + 1);
  const Value* use = t.find("use");
  if (!use) throw ConfigError(at + ".use", "", "the name of a stage (percept stages lists them)");
  StageSpec s;
  s.node.use = text(*use, at + ".use");
  s.node.name = t.contains("name") ? text(t.at("name"), at + ".name") : s.node.use;
  if (s.node.name.empty() || s.node.name.find('.') != std::string::npos)
    throw ConfigError(at + ".name", "\"" + s.node.name + "\"", "a name without a dot");
  s.node.where = file + ": " + s.node.name;
  const auto& info = registry.at(
      s.node.use, fmt::format("{}{}: {}.use", file, use->line > 0 ? fmt::format(":{}", use->line) : "", s.node.name));
  if (auto* from = t.find("from")) {
    if (from->is_array())
      for (auto& f : from->as_array()) s.node.from.push_back(text(f, s.node.where + ".from"));
    else s.node.from.push_back(text(*from, s.node.where + ".from"));
    if (s.node.from.empty()) throw ConfigError(s.node.where + ".from", "[]", "at least one node or stream");
  }
  if (auto* align = t.find("align")) {
    s.node.align = text(*align, s.node.where + ".align");
    if (s.node.align != "exact" && s.node.align != "nearest")
      throw ConfigError(s.node.where + ".align", "\"" + s.node.align + "\"", "exact or nearest");
  }
  if (auto* target = t.find("target")) s.target = read_target(*target, s.node.where + ".target");
  if (auto* model = t.find("model")) s.model = text(*model, s.node.where + ".model");
  if (auto* fit = t.find("fit")) {
    const auto word = text(*fit, s.node.where + ".fit");
    if (word == "train") s.fit = FitMode::train;
    else if (word == "self") s.fit = FitMode::self;
    else if (word == "first") s.fit = FitMode::first;
    else throw ConfigError(s.node.where + ".fit", "\"" + word + "\"", "train, self or first");
  }
  if (auto* seconds = t.find("fit_s")) {
    s.fit_s = number(*seconds, s.node.where + ".fit_s");
    if (!(s.fit_s > 0)) throw ConfigError(s.node.where + ".fit_s", to_json(*seconds), "a time above zero [s]");
  }
  if (s.fit == FitMode::first && s.fit_s <= 0)
    throw ConfigError(s.node.where + ".fit_s", "", "how many seconds fit = \"first\" may use");
  if (auto* queue = t.find("queue")) {
    s.node.queue = text(*queue, s.node.where + ".queue");
    if (s.node.queue != "block" && s.node.queue != "drop_oldest" && s.node.queue != "newest")
      throw ConfigError(s.node.where + ".queue", "\"" + s.node.queue + "\"", "block, drop_oldest or newest");
  }
  if (auto* blocks = t.find("queue_blocks")) {
    if (!blocks->is_integer() || blocks->as_integer() < 1 || blocks->as_integer() > 65536)
      throw ConfigError(s.node.where + ".queue_blocks", to_json(*blocks), "an integer in [1, 65536]");
    if (s.node.queue != "block" && s.node.queue != "drop_oldest")
      throw ConfigError(s.node.where + ".queue_blocks", to_json(*blocks),
                        "queue = \"block\" or \"drop_oldest\" beside it");
    s.node.queue_blocks = blocks->as_integer();
  }
  if (!info.trained && (t.contains("fit") || t.contains("model") || t.contains("target")))
    throw ConfigError(s.node.where, "", fmt::format("no fit, model or target: '{}' learns nothing", s.node.use));
  for (auto& [key, v] : t.as_table())
    if (std::find(reserved_stage_keys().begin(), reserved_stage_keys().end(), key) == reserved_stage_keys().end())
      s.node.params.as_table().emplace_back(key, v);
  std::vector<std::string> known;
  for (auto& p : info.params) known.push_back(p.key);
  for (auto& p : info.params)
    if (auto* v = s.node.params.find(p.key)) check_parameter(*v, p, s.node.where);
  for (auto& [key, v] : s.node.params.as_table())
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      auto all = known;
      all.insert(all.end(), reserved_stage_keys().begin(), reserved_stage_keys().end());
      throw ConfigError(fmt::format("{}.{}{}", s.node.where, key, v.line > 0 ? fmt::format(" (line {})", v.line) : ""),
                        "",
                        fmt::format("a key of '{}': {}{}", s.node.use, fmt::join(known, ", "), did_you_mean(key, all)));
    }
  return s;
}

SearchSpec read_search(const Value& t, const std::string& file, const std::vector<StageSpec>& stages) {
  SearchSpec s;
  s.where = file + ": search";
  std::vector<std::string> names{"metric", "inner_folds", "gap_s"};
  for (auto& st : stages) names.push_back(st.node.name);
  refuse_unknown_keys(t, names, s.where);
  for (auto& [key, v] : t.as_table()) {
    if (key == "metric") s.metric = text(v, s.where + ".metric");
    else if (key == "gap_s") s.gap_s = number(v, s.where + ".gap_s");
    else if (key == "inner_folds") {
      if (!v.is_integer() || v.as_integer() < 2)
        throw ConfigError(s.where + ".inner_folds", to_json(v), "an integer of at least 2");
      s.inner_folds = v.as_integer();
    } else {
      if (!v.is_table()) throw ConfigError(s.where + "." + key, to_json(v), fmt::format("{}.KEY = [values]", key));
      for (auto& [param, values] : v.as_table()) {
        if (!values.is_array() || values.as_array().empty())
          throw ConfigError(s.where + "." + key + "." + param, to_json(values), "a list of values to try");
        s.grid.emplace_back(key + "." + param, values.as_array());
      }
    }
  }
  if (s.grid.empty()) throw ConfigError(s.where, "", "at least one NODE.key = [values]");
  return s;
}

void apply_overrides(Value& config, const std::vector<std::string>& overrides) {
  for (auto& o : overrides) {
    const auto equals = o.find('=');
    const auto dot = o.find('.');
    if (equals == std::string::npos || dot == std::string::npos || dot > equals)
      throw UsageError(fmt::format("--set {}: expected NODE.key=value or SECTION.key=value", o));
    const std::string head = o.substr(0, dot), key = o.substr(dot + 1, equals - dot - 1);
    Value value = parse_toml_value(o.substr(equals + 1));
    value.line = 0;  // it stands in no file
    if (head == "input" || head == "run" || head == "output" || head == "search") {
      config[head].set_path(key, value);
      continue;
    }
    std::vector<std::string> names{"input", "run", "output", "search"};
    bool found = false;
    for (const char* list : {"stage", "split", "score"}) {
      Value* items = config.find(list);
      if (!items || !items->is_array()) continue;
      for (auto& item : items->as_array()) {
        if (!item.is_table()) continue;
        const std::string unnamed = list == std::string_view("split") ? "official" : item.get("use", "");
        const std::string name = item.get("name", unnamed);
        names.push_back(name);
        if (name != head) continue;
        item.set_path(key, value);
        found = true;
      }
    }
    if (!found)
      throw UsageError(fmt::format("--set {}: no stage, split, score or section is called '{}'{}", o, head,
                                   did_you_mean(head, names)));
  }
}

}  // namespace

const std::vector<std::string>& reserved_stage_keys() {
  static const std::vector<std::string> kKeys{"name", "use",   "from",  "align", "target",
                                              "fit",  "fit_s", "model", "queue", "queue_blocks"};
  return kKeys;
}

Pipeline parse_pipeline(const Value& given, const std::filesystem::path& path, const Registry& registry,
                        const std::vector<std::string>& overrides) {
  Value config = given;
  apply_overrides(config, overrides);
  const std::string file = path.string();
  refuse_unknown_keys(config, kSections, file);
  Pipeline p;
  p.file = path;
  p.resolved = config;
  if (auto* v = config.find("title")) p.title = text(*v, file + ": title");
  if (auto* v = config.find("description")) p.description = text(*v, file + ": description");
  if (auto* v = config.find("input")) {
    if (!v->is_table()) throw ConfigError(file + ": input", to_json(*v), "a table: write [input]");
    p.input = *v;
  } else {
    throw ConfigError(file + ": input", "", "an [input] section (data = \"NAME\", or files)");
  }
  std::vector<std::string> names;
  const auto& stages = tables(config, "stage", file);
  if (stages.empty()) throw ConfigError(file + ": stage", "", "at least one [[stage]]");
  for (std::size_t i = 0; i < stages.size(); ++i) {
    p.stages.push_back(read_stage(stages[i], i, file, registry));
    const auto& name = p.stages.back().node.name;
    if (std::find(names.begin(), names.end(), name) != names.end())
      throw ConfigError(p.stages.back().node.where, "",
                        fmt::format("a name of its own: two stages are called '{}' (name = \"...\")", name));
    names.push_back(name);
  }
  for (auto& t : tables(config, "split", file)) {
    SplitSpec s;
    s.name = t.contains("name") ? text(t.at("name"), file + ": split.name") : "official";
    s.where = file + ": split " + s.name;
    s.use = t.contains("use") ? text(t.at("use"), s.where + ".use") : "rows";
    for (auto& [key, v] : t.as_table())
      if (key != "name" && key != "use") s.params.as_table().emplace_back(key, v);
    for (auto& other : p.splits)
      if (other.name == s.name) throw ConfigError(s.where, "", "a name of its own");
    p.splits.push_back(std::move(s));
  }
  if (auto* v = config.find("search")) p.search = read_search(*v, file, p.stages);
  for (auto& t : tables(config, "score", file)) {
    const auto given_score = read_params<ScoreSection>(t, file + ": score");
    ScoreSpec s;
    s.where = file + ": score" + (given_score.name.empty() ? "" : " " + given_score.name);
    s.name = given_score.name;
    s.from = given_score.from;
    s.part = given_score.part;
    s.target = given_score.target;
    s.metrics = given_score.metrics;
    s.confounds = given_score.confounds;
    s.permutations = given_score.permutations;
    s.shuffles = given_score.shuffles;
    s.bootstrap = given_score.bootstrap;
    s.bootstrap_block_s = given_score.bootstrap_block_s;
    for (auto& c : s.confounds)
      if (std::find(kConfounds.begin(), kConfounds.end(), c) == kConfounds.end())
        throw ConfigError(s.where + ".confounds", "\"" + c + "\"",
                          fmt::format("{}{}", fmt::join(kConfounds, ", "), did_you_mean(c, kConfounds)));
    if (!s.from.empty() && std::find(names.begin(), names.end(), s.from) == names.end())
      throw ConfigError(s.where + ".from", "\"" + s.from + "\"",
                        fmt::format("a stage: {}{}", fmt::join(names, ", "), did_you_mean(s.from, names)));
    for (auto& other : p.scores)
      if (other.name == s.name) throw ConfigError(s.where, "", "a name of its own (name = \"...\")");
    p.scores.push_back(std::move(s));
  }
  if (!p.scores.empty() && p.splits.empty())
    throw ConfigError(file + ": split", "",
                      "a [[split]] that says which rows are held out, since there is a [[score]]");
  const auto run = section<RunSection>(config, "run", file);
  p.precision = run.precision == "f64" ? Scalar::f64 : Scalar::f32;
  p.block = run.block;
  p.seed = static_cast<std::uint64_t>(run.seed);
  const auto output = section<OutputSection>(config, "output", file);
  p.output_folder = output.folder;
  p.report = output.report;
  p.save_predictions = output.predictions;
  return p;
}

Pipeline read_pipeline(const std::filesystem::path& file, const Registry& registry,
                       const std::vector<std::string>& overrides) {
  return parse_pipeline(read_toml(file), file, registry, overrides);
}

}  // namespace percept
