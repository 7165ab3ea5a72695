#include "core/pipeline.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/params.h"

namespace percept {

namespace {

const std::vector<std::string> kSections{"title",  "description", "input", "prior",  "stage", "split",
                                         "search", "score",       "run",   "output", "live"};
const std::vector<std::string> kConfounds{"time", "trial", "past", "shuffled", "mean", "class", "no_brain"};

/// For the reference page: the values are read by read_prior(), because labels may be numbers or texts.
struct PriorSection {
  std::string name, use, label = "label", through, target_through;
  std::vector<std::string> images, labels;
  static constexpr auto fields() {
    return std::tuple{
        field("name", &PriorSection::name, "", "By which stages use it."),
        field("use", &PriorSection::use, "", "A trained stage; its parameters stand beside these keys."),
        field("images", &PriorSection::images, "", "SET.STREAM of registered sets, or files; all together."),
        field("label", &PriorSection::label, "", "Column of the set's table with the labels: column or table.column."),
        field("labels", &PriorSection::labels, "", "Only images with one of these, numbers or texts; empty: all."),
        field("through", &PriorSection::through, "",
              "A prior above it, NAME or NAME.part: it learns from what that one makes of each image, such as the "
              "latents of an image_autoencoder."),
        field("target_through", &PriorSection::target_through, "",
              "A prior above it: what that one makes of each image is the target, in place of the label.")};
  }
};
struct RunSection {
  std::string precision = "f32";
  std::int64_t block = 4096;
  std::int64_t seed = 0;
  static constexpr auto fields() {
    return std::tuple{choice("precision", &RunSection::precision, "Scalar of every edge.", "f32|f64"),
                      field("block", &RunSection::block, "frames",
                            "Most frames in one block, whose widest input holds at most 16 MB.", 1, 1e8),
                      field("seed", &RunSection::seed, "", "Seed of every random number.", 0, 9e15)};
  }
};
struct OutputSection {
  std::string folder;
  bool report = true;
  bool predictions = true;
  bool models = true;
  static constexpr auto fields() {
    return std::tuple{
        field("folder", &OutputSection::folder, "", "Where the results go; empty: runs/<name of the file>."),
        field("report", &OutputSection::report, "", "Write report.html."),
        field("predictions", &OutputSection::predictions, "", "Write the scored frames to predictions.percept."),
        field("models", &OutputSection::models, "", "Write the model of every fitted stage and fold.")};
  }
};
struct ScoreSection {
  std::string name, from, part, target, through, category;
  std::vector<std::string> metrics{"rmse"};
  std::vector<std::string> confounds;
  std::int64_t permutations = 200, shuffles = 5, bootstrap = 1000;
  double bootstrap_block_s = 0;
  static constexpr auto fields() {
    return std::tuple{
        field("name", &ScoreSection::name, "", "First level of the score's key."),
        field("from", &ScoreSection::from, "", "Node that is scored; empty: the last one."),
        field("part", &ScoreSection::part, "", "Part of its frames; empty: mean, or the first."),
        field("target", &ScoreSection::target, "", "Stream it is compared with; empty: the target of the pipeline."),
        field(
            "through", &ScoreSection::through, "",
            "A prior, NAME or NAME.part: compared is what that one makes of the target. With a stage that is the same "
            "prior (model = \"NAME\") behind a reconstruction this is a score in a feature space."),
        field(
            "metrics", &ScoreSection::metrics, "",
            "rmse, nrmse, maae, r2, r, mean_r, median_error (median_error_px says and requires the target's unit); of "
            "items: pcc, mse, psnr, ssim_gaussian, ssim_uniform7, ssim_uniform11, identification, top1_10way, "
            "accuracy."),
        field("category", &ScoreSection::category, "",
              "Column with the class of each item (table.column), which the control \"class\" is told."),
        field("confounds", &ScoreSection::confounds, "",
              "Controls beside the score, default of a clock: time, trial, past, shuffled; of items: mean (of the "
              "training targets), class (the same of the true class, where category is given), no_brain (the pipeline "
              "without the activity), shuffled."),
        field("permutations", &ScoreSection::permutations, "", "Circular shifts behind the p-value.", 0, 1e6),
        field("shuffles", &ScoreSection::shuffles, "", "Refits on shifted activity.", 0, 1e4),
        field("bootstrap", &ScoreSection::bootstrap, "", "Resamples behind an interval.", 0, 1e6),
        field("bootstrap_block_s", &ScoreSection::bootstrap_block_s, "s",
              "Length of a resampled block; 0: from the error's autocorrelation.", 0, 1e6)};
  }
};
struct SearchSection {
  std::string method = "grid", metric;
  std::int64_t candidates = 0, inner_folds = 5;
  double gap_s = 0, reject = 0.01;
  static constexpr auto fields() {
    return std::tuple{
        choice("method", &SearchSection::method,
               "Every combination of the lists (grid), or combinations drawn from lists and ranges (random).",
               "grid|random"),
        field("candidates", &SearchSection::candidates, "", "How many combinations method = \"random\" draws.", 0, 1e5),
        field("metric", &SearchSection::metric, "", "What is best; empty: the first metric of the first [[score]]."),
        field("inner_folds", &SearchSection::inner_folds, "",
              "Contiguous blocks of the training part; each is decoded by fits on the others.", 2, 1e6),
        field("gap_s", &SearchSection::gap_s, "s", "Frames left out around each block.", 0, 1e9),
        field("reject", &SearchSection::reject, "",
              "After each fold a candidate is given up that is worse than the best one in all frames so far and on "
              "every fold so far, when a paired one-sided t-test over the folds gives a p below this; 0: never.",
              0, 0.2)};
  }
};

/// Calls read(params struct) and nothing else may be in the section.
template <class S>
S section(const Value& config, const char* name, const std::string& file) {
  const Value* v = config.find(name);
  return v ? read_params<S>(*v, file + ": " + name) : S{};
}

/// Is it a key of that section?
template <class S>
bool describes(const std::string& key) {
  const auto all = describe_params<S>();
  return std::any_of(all.begin(), all.end(), [&](auto& p) { return p.key == key; });
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
  if (v.is_string()) return {.from = v.as_string()};
  refuse_unknown_keys(v, {"from", "lag_s", "through"}, where);
  const Value* from = v.find("from");
  if (!from) throw ConfigError(where + ".from", "", "the stream or table column to be decoded");
  TargetSpec t;
  t.from = text(*from, where + ".from");
  if (auto* lag = v.find("lag_s")) t.lag_s = number(*lag, where + ".lag_s");
  if (auto* through = v.find("through")) t.through = text(*through, where + ".through");
  return t;
}

/// What is beside the reserved keys, checked against the declaration of the stage.
Value read_stage_params(const Value& t, const StageInfo& info, const std::vector<std::string>& reserved,
                        const std::string& where) {
  Value params = Value::table();
  std::vector<std::string> known;
  for (auto& p : info.params) known.push_back(p.key);
  for (auto& [key, v] : t.as_table()) {
    if (std::find(reserved.begin(), reserved.end(), key) != reserved.end()) continue;
    const auto at = std::find(known.begin(), known.end(), key);
    if (at == known.end()) {
      auto all = known;
      all.insert(all.end(), reserved.begin(), reserved.end());
      throw ConfigError(fmt::format("{}.{}{}", where, key, v.line > 0 ? fmt::format(" (line {})", v.line) : ""), "",
                        fmt::format("a key of '{}': {}{}", info.name, fmt::join(known, ", "), did_you_mean(key, all)));
    }
    check_parameter(v, info.params[static_cast<std::size_t>(at - known.begin())], where);
    params.as_table().emplace_back(key, v);
  }
  return params;
}

/// A text, or a list of texts.
std::vector<std::string> texts(const Value& v, const std::string& where) {
  if (!v.is_array()) return {text(v, where)};
  std::vector<std::string> all;
  for (auto& item : v.as_array()) all.push_back(text(item, where));
  return all;
}

PriorSpec read_prior(const Value& t, std::size_t position, const std::string& file, const Registry& registry) {
  const std::string at =
      fmt::format("{}{}: prior {}", file, t.line > 0 ? fmt::format(":{}", t.line) : "", position + 1);
  PriorSpec p;
  const Value* name = t.find("name");
  if (!name) throw ConfigError(at + ".name", "", "the name by which stages use it");
  p.name = text(*name, at + ".name");
  if (p.name.empty() || p.name.find_first_of("./") != std::string::npos)
    throw ConfigError(at + ".name", "\"" + p.name + "\"", "a name without a dot or a slash");
  p.where = file + ": prior " + p.name;
  const Value* use = t.find("use");
  if (!use) throw ConfigError(p.where + ".use", "", "the name of a trained stage (percept stages lists them)");
  p.use = text(*use, p.where + ".use");
  const auto& info = registry.at(p.use, p.where + ".use");
  if (!info.trained)
    throw ConfigError(p.where + ".use", "\"" + p.use + "\"", "a trained stage: this one learns nothing");
  if (const Value* images = t.find("images")) p.images = texts(*images, p.where + ".images");
  if (p.images.empty())
    throw ConfigError(p.where + ".images", "", "SET.STREAM of a registered set, or a file; or a list of them");
  if (auto* label = t.find("label")) p.label = text(*label, p.where + ".label");
  if (auto* labels = t.find("labels")) {
    if (!labels->is_array() || labels->size() == 0)
      throw ConfigError(p.where + ".labels", to_json(*labels), "a list of labels");
    for (auto& l : labels->as_array()) {
      if (!l.is_number() && !l.is_string()) throw ConfigError(p.where + ".labels", to_json(l), "numbers or texts");
      p.labels.push_back(l);
    }
  }
  if (auto* through = t.find("through")) p.through = text(*through, p.where + ".through");
  if (auto* through = t.find("target_through")) p.target_through = text(*through, p.where + ".target_through");
  if (!p.target_through.empty() && !info.needs_target && !info.takes_target)
    throw ConfigError(p.where + ".target_through", "", fmt::format("no target: '{}' takes none", p.use));
  p.params = read_stage_params(t, info, reserved_prior_keys(), p.where);
  return p;
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
  if (auto* reset = t.find("reset")) {
    s.node.reset = text(*reset, s.node.where + ".reset");
    if (s.node.reset.empty())
      throw ConfigError(s.node.where + ".reset", "\"\"", "the label of the events at which it starts anew");
  }
  if (auto* prior = t.find("prior")) s.priors = texts(*prior, s.node.where + ".prior");
  if (!info.trained && (t.contains("fit") || t.contains("model") || t.contains("target") || t.contains("prior")))
    throw ConfigError(s.node.where, "", fmt::format("no fit, model, target or prior: '{}' learns nothing", s.node.use));
  if (!s.model.empty() && !s.priors.empty())
    throw ConfigError(s.node.where + ".prior", "", "no prior beside a model: nothing is fitted");
  s.node.params = read_stage_params(t, info, reserved_stage_keys(), s.node.where);
  return s;
}

/// The prior of "NAME" or "NAME.part" is one of those that are known. "": none is meant.
void check_through(const std::string& through, const Pipeline& p, const std::string& where) {
  if (through.empty() || p.prior(prior_name(through))) return;
  std::vector<std::string> names;
  for (auto& prior : p.priors) names.push_back(prior.name);
  throw ConfigError(where, "\"" + through + "\"",
                    names.empty() ? "the name of a [[prior]] above: there is none"
                                  : fmt::format("the name of a [[prior]] above: {}{}", fmt::join(names, ", "),
                                                did_you_mean(through, names)));
}

/// The priors that a stage names exist and are what it can use.
void check_priors(const StageSpec& s, const Pipeline& p, const Registry& registry) {
  const auto& info = registry.at(s.node.use, s.node.where);
  if (s.target) check_through(s.target->through, p, s.node.where + ".target.through");
  if (const auto* prior = p.prior(s.model); prior && prior->use != s.node.use)
    throw ConfigError(s.node.where + ".model", "\"" + s.model + "\"",
                      fmt::format("a prior of '{}', found one of '{}'", s.node.use, prior->use));
  std::vector<std::string> names;
  for (auto& prior : p.priors) names.push_back(prior.name);
  for (auto& name : s.priors) {
    const auto* prior = p.prior(name);
    if (!prior)
      throw ConfigError(s.node.where + ".prior", "\"" + name + "\"",
                        names.empty() ? "the name of a [[prior]]: the file has none"
                                      : fmt::format("the name of a [[prior]]: {}{}", fmt::join(names, ", "),
                                                    did_you_mean(name, names)));
    if (std::find(info.priors.begin(), info.priors.end(), prior->use) == info.priors.end())
      throw ConfigError(s.node.where + ".prior", "\"" + name + "\"",
                        info.priors.empty() ? fmt::format("no prior: '{}' uses none", s.node.use)
                                            : fmt::format("a prior of {} for '{}', found one of '{}'",
                                                          fmt::join(info.priors, " or "), s.node.use, prior->use));
  }
  if (info.needs_prior && s.priors.empty() && s.model.empty())
    throw ConfigError(s.node.where + ".prior", "",
                      fmt::format("the name of a [[prior]] of {}, which '{}' starts from",
                                  fmt::join(info.priors, " or "), s.node.use));
}

/// A list, or { from, to, log } of a parameter that is a number.
SearchSpec::Tried read_tried(const StageSpec& stage, const std::string& key, const Value& v, const std::string& where,
                             bool random, const StageInfo& info) {
  const std::string at = fmt::format("{}.{}.{}", where, stage.node.name, key);
  SearchSpec::Tried t;
  t.key = stage.node.name + "." + key;
  const auto param = std::find_if(info.params.begin(), info.params.end(), [&](auto& p) { return p.key == key; });
  const bool reserved =
      std::find(reserved_stage_keys().begin(), reserved_stage_keys().end(), key) != reserved_stage_keys().end();
  if (param == info.params.end() && (!reserved || key == "name")) {
    std::vector<std::string> known;
    for (auto& p : info.params) known.push_back(p.key);
    throw ConfigError(at, "",
                      fmt::format("a key of '{}': {}{}", info.name, fmt::join(known, ", "), did_you_mean(key, known)));
  }
  const bool number = param != info.params.end() && (param->type == "integer" || param->type == "number");
  if (v.is_table()) {
    refuse_unknown_keys(v, {"from", "to", "log"}, at);
    if (!random)
      throw ConfigError(at, to_json(v), "a list of values to try, or method = \"random\" to draw from a range");
    if (!number) throw ConfigError(at, to_json(v), "a list of values to try: a range is for a key that is one number");
    t.integer = param->type == "integer";
    if (const Value* log = v.find("log")) {
      if (!log->is_bool()) throw ConfigError(at + ".log", to_json(*log), "true or false");
      t.log = log->as_bool();
    }
    for (const char* end : {"from", "to"}) {
      const Value* x = v.find(end);
      if (!x) throw ConfigError(at + "." + end, "", "a number: { from = 1, to = 10 }");
      ParamInfo limits = *param;
      limits.key = key + "." + end;
      check_parameter(*x, limits, where + "." + stage.node.name);
      (end[0] == 'f' ? t.from : t.to) = x->as_number();
    }
    if (!(t.from < t.to)) throw ConfigError(at, to_json(v), "from < to");
    if (t.log && !(t.from > 0)) throw ConfigError(at, to_json(v), "from > 0, since log = true");
    return t;
  }
  if (!v.is_array() || v.as_array().empty())
    throw ConfigError(at, to_json(v), random ? "a list of values to try, or { from, to }" : "a list of values to try");
  t.values = v.as_array();
  if (param != info.params.end())
    for (auto& one : t.values) check_parameter(one, *param, where + "." + stage.node.name);
  return t;
}

SearchSpec read_search(const Value& t, const std::string& file, const std::vector<StageSpec>& stages,
                       const Registry& registry) {
  SearchSpec s;
  s.where = file + ": search";
  std::vector<std::string> names;
  for (auto& p : describe_params<SearchSection>()) names.push_back(p.key);
  for (auto& st : stages) names.push_back(st.node.name);
  refuse_unknown_keys(t, names, s.where);
  Value own = Value::table();
  std::vector<std::pair<const StageSpec*, const Value*>> nodes;
  for (auto& [key, v] : t.as_table()) {
    const auto stage = std::find_if(stages.begin(), stages.end(), [&, k = key](auto& st) { return st.node.name == k; });
    // a node may have the name of a key: it comes with a table
    if (stage == stages.end() || (!v.is_table() && describes<SearchSection>(key))) {
      own[key] = v;
      continue;
    }
    if (!v.is_table()) throw ConfigError(s.where + "." + key, to_json(v), fmt::format("{}.KEY = [values]", key));
    nodes.emplace_back(&*stage, &v);
  }
  const auto given = read_params<SearchSection>(own, s.where);
  s.method = given.method;
  s.candidates = given.candidates;
  s.metric = given.metric;
  s.inner_folds = given.inner_folds;
  s.gap_s = given.gap_s;
  s.reject = given.reject;
  const bool random = s.method == "random";
  if (random && s.candidates == 0) throw ConfigError(s.where + ".candidates", "", "how many candidates are drawn");
  if (!random && own.contains("candidates"))
    throw ConfigError(s.where + ".candidates", fmt::format("{}", s.candidates),
                      "method = \"random\" beside it: a grid has all its combinations");
  for (auto& [stage, v] : nodes)
    for (auto& [key, tried] : v->as_table())
      s.tried.push_back(
          read_tried(*stage, key, tried, s.where, random, registry.at(stage->node.use, stage->node.where)));
  if (s.tried.empty()) throw ConfigError(s.where, "", "at least one NODE.key = [values]");
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
    if (head == "input" || head == "run" || head == "output" || head == "search" || head == "live") {
      config[head].set_path(key, value);
      continue;
    }
    std::vector<std::string> names{"input", "run", "output", "search", "live"};
    bool found = false;
    for (const char* list : {"prior", "stage", "split", "score"}) {
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
      throw UsageError(fmt::format("--set {}: no prior, stage, split, score or section is called '{}'{}", o, head,
                                   did_you_mean(head, names)));
  }
}

}  // namespace

const std::vector<std::string>& reserved_stage_keys() {
  static const std::vector<std::string> kKeys{"name",  "use",   "from",  "align", "target",       "fit",
                                              "fit_s", "model", "prior", "queue", "queue_blocks", "reset"};
  return kKeys;
}

std::vector<SectionInfo> pipeline_sections() {
  return {
      {"[search]",
       "Parameters chosen on inner folds of the training part, for each fold of each split anew. What is tried stands "
       "beside these keys: `NODE.key = [values]`, and with `method = \"random\"` also `NODE.key = { from = 1, to = 10, "
       "log = true }` for a key that is one number. The draws depend on `[run] seed` and the key alone; they have four "
       "significant digits. The best candidate is the one with the best score over the frames of all inner folds; the "
       "report shows all of them, with those that failed or were given up and why.",
       describe_params<SearchSection>()},
      {"[[prior]]",
       "A model of images that are not the recording's, fitted before any fold and kept from run to run. A stage "
       "starts "
       "from it (`prior = \"NAME\"` or a list) or is it (`model = \"NAME\"`). Where `use` needs a target, it is the "
       "label. An image that equals one to be decoded is refused.",
       describe_params<PriorSection>()},
      {"[[score]]", "What is compared with the truth on the test rows, and the controls that stand beside it.",
       describe_params<ScoreSection>()},
      {"[run]", "How it is computed. All of it is part of the provenance.", describe_params<RunSection>()},
      {"[output]", "What is written.", describe_params<OutputSection>()}};
}

const std::vector<std::string>& reserved_prior_keys() {
  static const std::vector<std::string> kKeys{"name", "use", "images", "label", "labels", "through", "target_through"};
  return kKeys;
}

const PriorSpec* Pipeline::prior(std::string_view prior_name) const {
  for (auto& p : priors)
    if (p.name == prior_name) return &p;
  return nullptr;
}

std::vector<std::string> Pipeline::targets() const {
  std::vector<std::string> all;
  auto add = [&](const std::string& name) {
    if (!name.empty() && std::find(all.begin(), all.end(), name) == all.end()) all.push_back(name);
  };
  for (auto& s : stages)
    if (s.target) add(s.target->from);
  for (auto& s : scores) add(s.target);
  return all;
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
  const auto& priors = tables(config, "prior", file);
  for (std::size_t i = 0; i < priors.size(); ++i) {
    auto prior = read_prior(priors[i], i, file, registry);
    if (p.prior(prior.name)) throw ConfigError(prior.where, "", "a name of its own: two priors are called so");
    check_through(prior.through, p, prior.where + ".through");
    check_through(prior.target_through, p, prior.where + ".target_through");
    p.priors.push_back(std::move(prior));
  }
  const auto& stages = tables(config, "stage", file);
  if (stages.empty()) throw ConfigError(file + ": stage", "", "at least one [[stage]]");
  for (std::size_t i = 0; i < stages.size(); ++i) {
    p.stages.push_back(read_stage(stages[i], i, file, registry));
    const auto& name = p.stages.back().node.name;
    if (std::find(names.begin(), names.end(), name) != names.end())
      throw ConfigError(p.stages.back().node.where, "",
                        fmt::format("a name of its own: two stages are called '{}' (name = \"...\")", name));
    if (p.prior(name))
      throw ConfigError(p.stages.back().node.where, "", "a name of its own: a prior is called so (name = \"...\")");
    check_priors(p.stages.back(), p, registry);
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
  if (auto* v = config.find("search")) p.search = read_search(*v, file, p.stages, registry);
  for (auto& t : tables(config, "score", file)) {
    const auto given_score = read_params<ScoreSection>(t, file + ": score");
    ScoreSpec s;
    s.where = file + ": score" + (given_score.name.empty() ? "" : " " + given_score.name);
    s.name = given_score.name;
    s.from = given_score.from;
    s.part = given_score.part;
    s.target = given_score.target;
    s.through = given_score.through;
    check_through(s.through, p, s.where + ".through");
    if (!s.through.empty() && s.target.empty())
      throw ConfigError(s.where + ".target", "", "the stream that goes through the prior");
    s.metrics = given_score.metrics;
    s.category = given_score.category;
    if (t.contains("confounds")) s.confounds = given_score.confounds;
    s.permutations = given_score.permutations;
    s.shuffles = given_score.shuffles;
    s.bootstrap = given_score.bootstrap;
    s.bootstrap_block_s = given_score.bootstrap_block_s;
    for (auto& c : given_score.confounds)
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
  p.save_models = output.models;
  if (auto* v = config.find("live")) {
    if (!v->is_table()) throw ConfigError(file + ": live", to_json(*v), "a table: write [live]");
    p.live = *v;
  }
  return p;
}

Pipeline read_pipeline(const std::filesystem::path& file, const Registry& registry,
                       const std::vector<std::string>& overrides) {
  return parse_pipeline(read_toml(file), file, registry, overrides);
}

}  // namespace percept
