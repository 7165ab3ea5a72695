#include "evaluation/experiment.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "evaluation/spool_data.h"

namespace percept::evaluation {

namespace {

constexpr const char* kIdentity = "percept.identity";

/// Gives what it gets: the end of a join that a fitter reads from.
class Identity final : public Stage {
 public:
  StreamFormat prepare(const StreamFormat& in, Context&) override { return in; }
  Index process(const Block& b, Output& out) noexcept override {
    copy_frames(b.x, out.y.slice(0, b.x.frames));
    if (out.keys) std::copy(b.keys.begin(), b.keys.end(), out.keys);
    return b.x.frames;
  }
  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = false, .per_row = true}; }
};

StageInfo identity_info() {
  StageInfo i;
  i.name = kIdentity;
  i.folder = "evaluation";
  i.doc = "Gives what it gets.";
  i.make = [](const Value&, const Model*, const std::string&) -> std::unique_ptr<Stage> {
    return std::make_unique<Identity>();
  };
  i.samples = [] { return std::vector<Sample>(1); };
  return i;
}

std::string reference_name(const std::string& ref, const std::set<std::string>& known) {
  if (known.contains(ref)) return ref;
  const auto dot = ref.rfind('.');
  return dot == std::string::npos ? ref : ref.substr(0, dot);
}

double seconds_since(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
}

std::int64_t item_key(const Stream& s, std::int64_t position) { return s.keys[static_cast<std::size_t>(position)]; }

}  // namespace

const Model* Fitted::model(const std::string& node) const {
  for (auto& m : models)
    if (m.node == node) return m.model.get();
  return nullptr;
}

std::shared_ptr<const Model> load_model(const Pipeline& pipeline, const StageSpec& s, const Registry& registry,
                                        const Priors* priors) {
  if (pipeline.prior(s.model)) return find_prior(priors, s.model).model;
  const auto& info = registry.at(s.node.use, s.node.where);
  auto folder = std::filesystem::path(s.model);
  if (folder.is_relative() && !std::filesystem::exists(folder)) folder = pipeline.file.parent_path() / folder;
  auto model = std::make_shared<Model>(Model::load(folder));
  if (model->meta.get("stage", "") != s.node.use)
    throw DataError(folder.string(), "stage", "a model of '" + s.node.use + "'", model->meta.get("stage", "none"));
  if (model->meta.get("version", 0) != info.version)
    throw DataError(folder.string(), "version", fmt::format("{} of '{}'", info.version, s.node.use),
                    fmt::format("{}", model->meta.get("version", 0)));
  return model;
}

void require_reset_events(const Recording& recording, const Pipeline& pipeline) {
  for (auto& s : pipeline.stages)
    if (!s.node.reset.empty()) require_label(recording.events, s.node.reset, s.node.where + ".reset");
}

Experiment::Experiment(const Registry& registry, const Pipeline& pipeline, const Recording& recording,
                       EngineOptions options, std::shared_ptr<WorkCache> cache)
    : registry_(registry), pipeline_(pipeline), recording_(recording), options_(std::move(options)),
      cache_(std::move(cache)) {
  registry_.add(identity_info());
  if (recording_.streams.empty()) throw DataError(recording_.name, "", "a recording with at least one stream", "none");

  require_reset_events(recording_, pipeline_);
  // the implied `from`, then topological order
  for (auto& s : recording_.streams) known_.insert(s.name);
  std::vector<StageSpec> specs = pipeline_.stages;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    known_.insert(specs[i].node.name);
    if (specs[i].node.from.empty()) specs[i].node.from = {i ? specs[i - 1].node.name : recording_.streams[0].name};
  }
  std::set<std::string> placed;
  for (auto& s : recording_.streams) placed.insert(s.name);
  while (!specs.empty()) {
    const auto ready = std::find_if(specs.begin(), specs.end(), [&](auto& s) {
      return std::all_of(s.node.from.begin(), s.node.from.end(), [&](auto& ref) {
        const auto name = reference_name(ref, known_);
        if (!known_.contains(name))
          throw ConfigError(s.node.where + ".from", "\"" + ref + "\"",
                            fmt::format("a stage or stream: {}{}", fmt::join(known_, ", "),
                                        did_you_mean(name, {known_.begin(), known_.end()})));
        return placed.contains(name);
      });
    });
    if (ready == specs.end()) {
      std::string left;
      for (auto& s : specs) left += (left.empty() ? "" : ", ") + s.node.name;
      throw ConfigError(pipeline_.file.string() + ": stage.from", "",
                        "a graph without loops, but these wait for each other: " + left);
    }
    placed.insert(ready->node.name);
    order_.push_back(*ready);
    specs.erase(ready);
  }

  std::set<std::string> below;
  std::vector<NodeSpec> prefix_nodes;
  for (auto& s : order_) {
    const bool learned = registry_.at(s.node.use, s.node.where).trained;
    const bool after = std::any_of(s.node.from.begin(), s.node.from.end(),
                                   [&](auto& ref) { return below.contains(reference_name(ref, known_)); });
    if (learned || after) {
      below.insert(s.node.name);
      const auto& info = registry_.at(s.node.use, s.node.where);
      if (learned && s.model.empty() && info.needs_target && !target_of(s.node.name))
        throw ConfigError(s.node.where + ".target", "",
                          fmt::format("the stream that '{}' learns to decode (target = \"...\")", s.node.use));
    } else {
      prefix_.insert(s.node.name);
      prefix_nodes.push_back(s.node);
    }
  }

  const auto roots = input_names(recording_, [&] {
    std::vector<NodeSpec> all;
    for (auto& s : order_) all.push_back(s.node);
    return all;
  }());
  lead_ = recording_.stream(roots.empty() ? recording_.streams[0].name : roots[0], "input");

  // edges of the prefix that somebody below reads, or that end the pipeline
  std::set<std::string> wanted;
  for (auto& s : order_)
    for (auto& ref : s.node.from)
      if (!prefix_.contains(s.node.name) && prefix_.contains(reference_name(ref, known_)))
        wanted.insert(reference_name(ref, known_));
  for (auto& score : pipeline_.scores)
    if (prefix_.contains(score.from)) wanted.insert(score.from);
  if (below.empty()) wanted.insert(order_.back().node.name);

  derived_ = recording_;
  if (!wanted.empty()) {
    run_prefix(prefix_nodes, wanted);
    // memory of what the learned nodes read, in lead frames
    std::vector<InputSpec> inputs;
    for (auto& n : input_names(recording_, prefix_nodes)) inputs.push_back({n, recording_.stream(n, "from").format});
    Graph plan(registry_, inputs, prefix_nodes, pipeline_.precision, 1, {});
    for (auto& name : wanted) {
      const Index m = plan.memory_frames(plan.index_of(name));
      const bool worse =
          m == Traits::kAllFrames || (prefix_memory_ != Traits::kAllFrames &&
                                      (m == Traits::kDecaying || (prefix_memory_ >= 0 && m > prefix_memory_)));
      if (worse) {
        prefix_memory_ = m;
        memory_of_ = name;
      }
    }
    std::set<std::string> ends;  // what each stage with a memory forgets it at
    for (auto& name : wanted)
      for (auto& above : with_ancestors(name))
        for (auto& n : prefix_nodes)
          if (n.name == above && plan.traits(plan.index_of(above)).memory_frames != 0) ends.insert(n.reset);
    if (ends.size() == 1) memory_ends_at_ = *ends.begin();
  }
}

void Experiment::run_prefix(const std::vector<NodeSpec>& nodes, const std::set<std::string>& wanted) {
  Value graph = Value::array(), given = Value::array();
  for (auto& name : wanted) {
    given.push_back(name);
    graph.push_back(lineage(name, {}));
  }
  const auto prefix_key = key(Value::object({{"kind", "prefix"}, {"graph", graph}, {"wanted", given}}));
  auto prefix = cache_->prefix(prefix_key);
  if (!prefix) {
    const auto begun = std::chrono::steady_clock::now();
    Counters counters;
    prefix.emplace();
    for (auto& [name, segment] : run_segment(recording_, nodes, {wanted.begin(), wanted.end()}, &counters))
      prefix->streams.push_back({name, segment.format, segment.frames, segment.keys});
    prefix->counters = counted(counters);
    cache_->put(prefix_key, *prefix, seconds_since(begun) >= options_.keep_from_s);
  }
  derived_.streams.insert(derived_.streams.end(), prefix->streams.begin(), prefix->streams.end());
  if (options_.counters && cache_->first_use(prefix_key)) add_counters(options_.counters, prefix->counters);
}

std::set<std::string> Experiment::with_ancestors(const std::string& node) const {
  std::set<std::string> found{node};
  for (auto s = order_.rbegin(); s != order_.rend(); ++s)
    if (found.contains(s->node.name))
      for (auto& ref : s->node.from) found.insert(reference_name(ref, known_));
  return found;
}

Value Experiment::lineage(const std::string& node, const Fitted& fitted) const {
  Value all = Value::array();
  const auto wanted = with_ancestors(node);
  for (auto& s : order_) {
    if (!wanted.contains(s.node.name)) continue;
    Value one = Value::object({{"name", s.node.name},
                               {"use", s.node.use},
                               {"version", registry_.at(s.node.use, s.node.where).version},
                               {"from", Value(s.node.from)},
                               {"align", s.node.align},
                               {"params", s.node.params}});
    if (!s.node.reset.empty()) one["reset"] = s.node.reset;
    const bool learned = registry_.at(s.node.use, s.node.where).trained;
    if (const auto target = s.target ? s.target : target_of(s.node.name); learned && target)
      one["target"] = identity(*target);
    if (learned && s.fit != FitMode::train) one["fit_s"] = s.fit == FitMode::self ? -1 : s.fit_s;
    if (!s.priors.empty()) one["priors"] = prior_digests(s, options_.priors.get());
    for (auto& m : fitted.models)
      if (m.node == s.node.name) one["model"] = m.digest;
    all.push_back(std::move(one));
  }
  return all;
}

std::string Experiment::key(const Value& what) const {
  return cache_->key(Value::object({{"precision", name_of(pipeline_.precision)},
                                    {"block", pipeline_.block},
                                    {"threads", options_.threads},
                                    {"seed", static_cast<std::int64_t>(pipeline_.seed)},
                                    {"lead", lead_.name},
                                    {"what", what}}));
}

std::shared_ptr<const Experiment> Experiment::uncounted() const {
  auto copy = std::make_shared<Experiment>(*this);
  copy->options_.counters = nullptr;
  return copy;
}

std::shared_ptr<const Experiment> Experiment::blind(const std::vector<RowRange>& train) const {
  /// Every frame is the same.
  struct Constant final : SampleSource {
    Eigen::VectorXd frame;
    std::int64_t n = 0;
    std::int64_t frames() const override { return n; }
    void read(std::int64_t, MutableFrames out) const override {
      for (Index k = 0; k < out.frames; ++k)
        copy_frames(ConstFrames(frame.data(), Scalar::f64, frame.size(), 1, frame.size()), out.slice(k, 1));
    }
  };
  auto copy = std::make_shared<Experiment>(*this);
  copy->options_.counters = nullptr;
  std::set<std::string> read;  // by nodes below the prefix
  for (auto& s : order_)
    if (!prefix_.contains(s.node.name))
      for (auto& ref : s.node.from) read.insert(reference_name(ref, known_));
  for (auto& s : copy->derived_.streams) {
    if (s.format.axis != Axis::item || !read.contains(s.name)) continue;
    auto constant = std::make_shared<Constant>();
    constant->n = s.frames();
    constant->frame = Eigen::VectorXd::Zero(s.format.size());
    Eigen::VectorXd count = constant->frame, frame = constant->frame;
    for (std::int64_t p = 0; p < s.frames(); ++p) {
      const auto key = item_key(s, p);
      if (std::none_of(train.begin(), train.end(),
                       [&](auto& r) { return key >= item_key(lead_, r.first) && key <= item_key(lead_, r.second); }))
        continue;
      s.samples->read(p, MutableFrames(frame.data(), Scalar::f64, frame.size(), 1, frame.size()));
      for (Index i = 0; i < frame.size(); ++i) {
        if (!std::isfinite(frame(i))) continue;
        constant->frame(i) += frame(i);
        count(i) += 1;
      }
    }
    constant->frame.array() /= count.array();  // never there: missing
    s.samples = std::move(constant);
  }
  return copy;
}

std::vector<std::int32_t> Experiment::groups_of(const InnerSplit& inner) const {
  if (lead_.format.axis == Axis::time || !inner.groups.empty()) return inner.groups;
  std::vector<std::int32_t> each(static_cast<std::size_t>(lead_.frames()));
  for (std::size_t k = 0; k < each.size(); ++k) each[k] = static_cast<std::int32_t>(k);
  return each;
}

std::vector<Fold> Experiment::cut_again(const std::vector<RowRange>& train, std::int64_t folds, std::int64_t gap,
                                        const InnerSplit& inner, const std::string& where) const {
  const auto groups = groups_of(inner);
  return groups.empty() ? inner_folds(train, folds, gap, where, inner.trials)
                        : inner_folds_of_groups(train, folds, groups, where);
}

RunOptions Experiment::run_options(Counters* counters) const {
  RunOptions o;
  o.precision = pipeline_.precision;
  o.block = pipeline_.block;
  o.threads = options_.threads;
  o.seed = pipeline_.seed;
  o.counters = counters;
  o.cancelled = options_.cancelled;
  return o;
}

SplitContext Experiment::split_context() const {
  SplitContext c;
  c.axis = lead_.format.axis;
  c.frames = lead_.frames();
  c.rate_hz = lead_.format.rate_hz;
  c.start_s = lead_.format.start_s;
  c.memory_frames = prefix_memory_;
  c.memory_of = memory_of_;
  c.memory_ends_at = memory_ends_at_;
  c.events = &recording_.events;
  c.tables = &recording_.tables;
  c.keys = lead_.keys;
  return c;
}

std::int64_t Experiment::memory_across(const Trials& trials) const {
  if (!trials.label.empty() && trials.label == memory_ends_at_) return 0;
  return std::max<Index>(0, prefix_memory_);
}

std::vector<std::string> Experiment::learned() const {
  std::vector<std::string> names;
  for (auto& s : order_)
    if (registry_.find(s.node.use)->trained) names.push_back(s.node.name);
  return names;
}

std::optional<TargetSpec> Experiment::target_of(const std::string& node) const {
  std::vector<std::string> todo{node};
  for (std::size_t i = 0; i < todo.size(); ++i)
    for (auto& s : order_)
      if (s.node.name == todo[i]) {
        if (s.target) return s.target;
        for (auto& ref : s.node.from) todo.push_back(reference_name(ref, known_));
      }
  // a target given further down serves the maps above it: ridge -> dkf with the target at the dkf
  for (auto& s : order_)
    if (s.target) return s.target;
  return std::nullopt;
}

Recording Experiment::cut(const RowRange& range) const {
  Recording part;
  part.name = derived_.name;
  part.meta = derived_.meta;
  part.tables = derived_.tables;
  if (lead_.format.axis == Axis::time) {
    const double half = 0.5 / lead_.format.rate_hz;
    const double from = lead_.format.time_of(range.first) - half, until = lead_.format.time_of(range.second) + half;
    for (auto& s : derived_.streams) {
      if (s.format.axis == Axis::time) {
        const auto first = std::clamp<std::int64_t>(s.format.frame_from(from), 0, s.frames());
        const auto end = std::clamp<std::int64_t>(s.format.frame_from(until), first, s.frames());
        part.streams.push_back(slice(s, first, end - first));
      } else {
        // an item made from an event stands at the event's onset
        std::vector<std::int64_t> positions;
        for (std::int64_t p = 0; p < s.frames(); ++p) {
          const auto key = item_key(s, p);
          if (key < 0 || key >= static_cast<std::int64_t>(derived_.events.size())) continue;
          const double t = derived_.events[static_cast<std::size_t>(key)].onset_s;
          if (t >= from && t < until) positions.push_back(p);
        }
        part.streams.push_back(select(s, positions));
      }
    }
    for (auto& e : derived_.events)
      if (e.onset_s >= from && e.onset_s < until) part.events.push_back(e);
    return part;
  }
  const auto low = item_key(lead_, range.first), high = item_key(lead_, range.second);
  for (auto& s : derived_.streams) {
    if (s.format.axis != Axis::item) continue;
    std::vector<std::int64_t> positions;
    for (std::int64_t p = 0; p < s.frames(); ++p)
      if (item_key(s, p) >= low && item_key(s, p) <= high) positions.push_back(p);
    part.streams.push_back(select(s, positions));
  }
  return part;
}

Value Experiment::identity(const TargetSpec& target) const {
  Value v = Value::object({{"from", target.from}, {"lag_s", target.lag_s}});
  if (!target.through.empty()) {
    v["through"] = target.through;
    v["prior"] = find_prior(options_.priors.get(), prior_name(target.through)).digest;
  }
  return v;
}

const Stream& Experiment::target_through(const TargetSpec& target) const {
  const std::string name = target.from + " through " + target.through;
  const std::lock_guard lock(through_->mutex);
  const auto at = through_->made.find(name);
  if (at != through_->made.end()) return at->second;
  static const Priors kNone;
  Context context;
  context.seed = pipeline_.seed;
  context.threads = options_.threads;
  context.cancelled = options_.cancelled;
  return through_->made
      .emplace(name, passed_through(registry_, pipeline_, options_.priors ? *options_.priors : kNone, target.through,
                                    recording_, target.from, pipeline_.file.string() + ": target.through", context))
      .first->second;
}

Experiment::TargetSource Experiment::find_target(const TargetSpec& target) const {
  const std::string where = pipeline_.file.string() + ": target";
  TargetSource found;
  if (!target.through.empty()) {
    found.stream = &target_through(target);
    found.format = found.stream->format;
    return found;
  }
  if ((found.stream = recording_.find(target.from))) {
    found.format = found.stream->format;
    return found;
  }
  const auto dot = target.from.rfind('.');
  if (dot == std::string::npos) recording_.stream(target.from, where);  // throws, listing the streams
  const std::string name = target.from.substr(0, dot), part = target.from.substr(dot + 1);
  if (const Table* table = recording_.table(name)) {
    found.column = table->find(part);
    if (!found.column) {
      std::vector<std::string> columns;
      for (auto& c : table->columns) columns.push_back(c.name);
      throw ConfigError(
          where, "\"" + target.from + "\"",
          fmt::format("a column of that table: {}{}", fmt::join(columns, ", "), did_you_mean(part, columns)));
    }
    found.values = codes_of(*found.column);
    found.format = item_format({1}, Scalar::f64, part);
    found.format.parts[0].levels = levels_of(*found.column);
    return found;
  }
  found.stream = recording_.find(name);
  if (!found.stream) found.stream = &recording_.stream(target.from, where);  // throws, listing the streams
  found.offset = found.stream->format.part_offset(part);
  if (found.offset < 0) throw ConfigError(where, "\"" + target.from + "\"", fmt::format("a part of stream '{}'", name));
  found.format = found.stream->format;
  std::erase_if(found.format.parts, [&](auto& p) { return p.name != part; });
  return found;
}

StreamFormat Experiment::target_format(const TargetSpec& target) const { return find_target(target).format; }

Eigen::MatrixXd Experiment::target_at(const TargetSpec& target, const StreamFormat& format, Index frames,
                                      std::span<const std::int64_t> keys, const RowRange* inside) const {
  const auto source = find_target(target);
  if (source.format.axis != format.axis)
    throw ConfigError(pipeline_.file.string() + ": target", "\"" + target.from + "\"",
                      source.column ? "a stream: a table column belongs to items, found " + format.describe()
                                    : fmt::format("a target of the same axis: the input carries {}, the target {}",
                                                  format.describe(), source.stream->format.describe()));
  const Index rows = source.format.size();
  Eigen::MatrixXd y = Eigen::MatrixXd::Constant(rows, frames, std::numeric_limits<double>::quiet_NaN());
  if (source.column) {
    for (Index k = 0; k < frames; ++k) {
      const auto row = keys[static_cast<std::size_t>(k)];
      if (row >= 0 && row < static_cast<std::int64_t>(source.column->size()))
        y(0, k) = source.values[static_cast<std::size_t>(row)];
    }
    return y;
  }
  const Stream* s = source.stream;
  std::map<std::int64_t, std::int64_t> position;
  if (format.axis == Axis::item)
    for (std::int64_t p = 0; p < s->frames(); ++p) position[item_key(*s, p)] = p;
  // runs of consecutive source frames are read at once
  Index k = 0;
  auto source_of = [&](Index i) -> std::int64_t {
    if (format.axis == Axis::item) {
      const auto at = position.find(keys[static_cast<std::size_t>(i)]);
      return at == position.end() ? -1 : at->second;
    }
    const double t = format.time_of(i) + target.lag_s;
    const auto f = s->format.nearest_frame(t);
    if (f < 0 || f >= s->frames()) return -1;
    if (std::abs(s->format.time_of(f) - t) > 0.5 / std::min(s->format.rate_hz, format.rate_hz) + 1e-9) return -1;
    if (inside) {
      const double half = 0.5 / lead_.format.rate_hz;
      const double at = s->format.time_of(f);
      // half-open like cut(): a target frame on the border belongs to the later range
      if (at < lead_.format.time_of(inside->first) - half - 1e-9 ||
          at > lead_.format.time_of(inside->second) + half - 1e-9)
        return -1;
    }
    return f;
  };
  while (k < frames) {
    const auto first = source_of(k);
    if (first < 0) {
      ++k;
      continue;
    }
    Index n = 1;
    while (k + n < frames && n < 8192 && source_of(k + n) == first + n) ++n;
    Eigen::MatrixXd block(s->format.size(), n);
    s->samples->read(first, MutableFrames(block.data(), Scalar::f64, block.rows(), n, block.rows()));
    y.middleCols(k, n) = block.middleRows(source.offset, rows);
    k += n;
  }
  return y;
}

Fitted Experiment::fit(const std::vector<RowRange>& train, Index target_shift, const InnerSplit& inner) const {
  return fit_nodes(known_, train, target_shift, inner);
}

Fitted Experiment::fit_nodes(const std::set<std::string>& wanted, const std::vector<RowRange>& train,
                             Index target_shift, const InnerSplit& inner) const {
  Fitted fitted;
  for (auto& s : order_) {
    if (prefix_.contains(s.node.name) || !wanted.contains(s.node.name)) continue;
    NodeSpec node = s.node;
    if (registry_.at(node.use, node.where).trained) {
      fitted.models.push_back(fit_node(s, fitted, train, target_shift, inner));
      node.model = fitted.models.back().model;
    }
    fitted.nodes.push_back(std::move(node));
  }
  return fitted;
}

bool Experiment::crosses(const StageSpec& stage) const {
  if (stage.fit != FitMode::train || !registry_.at(stage.node.use, stage.node.where).cross_fit) return false;
  const auto above = with_ancestors(stage.node.name);
  return std::any_of(order_.begin(), order_.end(), [&](auto& s) {
    return s.node.name != stage.node.name && above.contains(s.node.name) && s.model.empty() &&
           s.fit == FitMode::train && registry_.at(s.node.use, s.node.where).trained;
  });
}

Fitted::Info Experiment::fit_node(const StageSpec& s, const Fitted& above, const std::vector<RowRange>& train,
                                  Index target_shift, const InnerSplit& inner) const {
  const auto& node = s.node;
  const auto& info = registry_.at(node.use, node.where);
  if (!s.model.empty()) {
    const auto model = load_model(pipeline_, s, registry_, options_.priors.get());
    return {node.name, node.use, model, model->digest(), 0, 0, true};
  }
  if (options_.cancelled && options_.cancelled()) throw Interrupted();
  const auto begun = std::chrono::steady_clock::now();
  std::vector<RowRange> ranges = train;
  if (s.fit == FitMode::self) ranges = {{0, lead_.frames() - 1}};
  if (s.fit == FitMode::first) {
    if (lead_.format.axis != Axis::time)
      throw ConfigError(node.where + ".fit", "\"first\"", "a recording with a clock");
    ranges = {{0, std::min<std::int64_t>(lead_.frames(), std::llround(s.fit_s * lead_.format.rate_hz)) - 1}};
  }
  std::optional<TargetSpec> target;
  if (s.fit == FitMode::train && info.needs_target) target = s.target ? s.target : target_of(node.name);
  if (s.fit == FitMode::train && info.takes_target) target = s.target;

  Value what = Value::object({{"kind", "fit"}, {"graph", lineage(node.name, above)}, {"rows", describe(ranges)}});
  if (target) {
    what["target"] = identity(*target);
    what["target"]["shift"] = static_cast<std::int64_t>(target_shift);
  }
  const bool crossed = crosses(s);
  const auto groups = groups_of(inner);
  if (!inner.groups.empty()) what["groups"] = Value(std::vector<std::int64_t>(groups.begin(), groups.end()));
  if (crossed) what["inner"] = to_value(inner);
  const auto fit_key = key(what);
  auto kept = cache_->fit(fit_key);
  if (!kept) {
    Counters counters;
    std::unique_ptr<SpoolData> data;
    if (crossed) {
      auto names = with_ancestors(node.name);
      names.erase(node.name);
      const auto quiet = uncounted();
      const auto gap = std::max<std::int64_t>(inner.gap, memory_across(inner.trials));
      const auto folds = cut_again(ranges, inner.folds, gap, inner, node.where + ", inner folds");
      for (std::size_t f = 0; f < folds.size(); ++f) {
        // as far around the fewer rows as around all
        const double part =
            static_cast<double>(count_frames(folds[f].train)) / static_cast<double>(count_frames(ranges));
        const auto shift = lead_.format.axis == Axis::item
                               ? target_shift
                               : static_cast<Index>(std::llround(static_cast<double>(target_shift) * part));
        const auto fitted = quiet->fit_nodes(names, folds[f].train, shift, inner);
        for (auto& rows : folds[f].test)
          append_training(data, s, fitted, rows, static_cast<std::int32_t>(f), {}, target, nullptr);
      }
    } else {
      for (std::size_t r = 0; r < ranges.size(); ++r)
        append_training(data, s, above, ranges[r], static_cast<std::int32_t>(r), groups, target, &counters);
    }
    if (!data || data->frames() == 0)
      throw DataError(recording_.name, node.name, "at least one training frame", "none");
    if (target && data->without_target() == data->frames())
      throw DataError(recording_.name, node.name + ".target", "a target for at least one training frame",
                      "none: do the clocks of input and target overlap?");
    if (target && lead_.format.axis == Axis::time) data->shift_target(target_shift);
    else if (target && target_shift != 0) data->permute_target(pipeline_.seed, target_shift);
    Context context;
    context.node = node.name;
    context.seed = pipeline_.seed;
    context.threads = options_.threads;
    context.counters = &counters;
    context.progress = options_.progress;
    context.cancelled = options_.cancelled;
    context.priors = priors_of(s, options_.priors.get());
    if (std::isfinite(options_.keep_from_s)) context.checkpoint = cache_->checkpoint(fit_key);
    Model model;
    try {
      model = info.make_fitter(node.params, node.where)->fit(*data, context);
    } catch (const ConfigError& e) {
      throw e.key().rfind(node.name, 0) == 0
          ? ConfigError(node.where + e.key().substr(node.name.size()), e.value(), e.expected())
          : e;
    } catch (const DataError& e) {
      throw e.file() == node.name ? DataError(node.where, e.field(), e.expected(), e.found()) : e;
    }
    model.meta["stage"] = node.use;
    model.meta["version"] = info.version;
    if (!model.meta.contains("params")) model.meta["params"] = node.params;
    kept.emplace();
    kept->digest = model.digest();
    kept->model = std::make_shared<const Model>(std::move(model));
    kept->frames = data->frames();
    kept->counters = counted(counters);
    cache_->put(fit_key, *kept, seconds_since(begun) >= options_.keep_from_s);
  }
  add_counters(options_.counters, kept->counters);
  return {node.name, node.use, kept->model, kept->digest, kept->frames, seconds_since(begun), false};
}

void Experiment::append_training(std::unique_ptr<SpoolData>& data, const StageSpec& s, const Fitted& above,
                                 const RowRange& rows, std::int32_t group, const std::vector<std::int32_t>& groups,
                                 const std::optional<TargetSpec>& target, Counters* counters) const {
  auto nodes = above.nodes;
  NodeSpec input = s.node;
  input.name = s.node.name + ".input";
  input.use = kIdentity;
  input.params = Value::table();
  input.reset.clear();
  nodes.push_back(input);
  const auto segment = run_segment(cut(rows), nodes, {input.name}, counters).at(input.name);
  if (!data) {
    StreamFormat y_format;
    y_format.axis = segment.format.axis;
    if (target) y_format = find_target(*target).format;
    data = std::make_unique<SpoolData>(segment.format, y_format);
  }
  data->start_segment();
  const Index total = segment.frames->frames(), size = segment.frames->rows();
  // a stage that starts anew at an event has not seen what was before it, so neither has its fitter
  std::vector<Index> cuts;
  if (!s.node.reset.empty())
    for (auto& e : derived_.events)
      if (e.label == Label::of(s.node.reset))
        if (const auto at = segment.format.frame_from(e.onset_s); at > 0 && at < total) cuts.push_back(at);
  std::sort(cuts.begin(), cuts.end());
  cuts.push_back(total);
  std::size_t cut = 0;
  constexpr Index kBlock = 4096;
  std::vector<std::byte> room(static_cast<std::size_t>(size * kBlock) * bytes_of(segment.frames->scalar()));
  for (Index at = 0, n = 0; at < total; at += n) {
    if (at == cuts[cut]) {
      data->start_segment();
      while (cuts[cut] == at) ++cut;
    }
    n = std::min(kBlock, cuts[cut] - at);
    MutableFrames x(room.data(), segment.frames->scalar(), size, n, size);
    segment.frames->read(at, x);
    std::vector<std::int64_t> keys;
    if (segment.format.axis == Axis::item) keys.assign(segment.keys.begin() + at, segment.keys.begin() + at + n);
    else
      for (Index k = 0; k < n; ++k) keys.push_back(lead_frame(segment.format.time_of(at + k)));
    Eigen::MatrixXd y;
    if (target) {
      StreamFormat piece = segment.format;
      if (piece.axis == Axis::time) piece.start_s = segment.format.time_of(at);
      y = target_at(*target, piece, n, keys, &rows);
    }
    std::vector<std::int32_t> members(keys.size(), group);
    if (!groups.empty())
      for (std::size_t k = 0; k < keys.size(); ++k) {
        const auto row = std::lower_bound(lead_.keys.begin(), lead_.keys.end(), keys[k]) - lead_.keys.begin();
        members[k] = groups.at(static_cast<std::size_t>(row));
      }
    data->append(x, y, keys, members);
  }
}

std::map<std::string, Experiment::Segment> Experiment::run_segment(const Recording& part,
                                                                   const std::vector<NodeSpec>& nodes,
                                                                   const std::vector<std::string>& names,
                                                                   Counters* counters) const {
  std::map<std::string, Segment> segments;
  std::map<std::string, SinkFn> sinks;
  for (auto& name : names)
    sinks[name] = [&segment = segments[name]](const Block& b) {
      if (!segment.frames) segment.frames = std::make_shared<Spool>(b.x.rows, b.x.scalar, "");
      segment.frames->append(b.x);
      segment.keys.insert(segment.keys.end(), b.keys.begin(), b.keys.end());
    };
  for (auto& [name, format] : run_offline(registry_, part, nodes, run_options(counters), sinks)) {
    auto& segment = segments[name];
    segment.format = format;
    if (!segment.frames) segment.frames = std::make_shared<Spool>(format.size(), format.scalar, "");
  }
  return segments;
}

std::map<std::string, Decoded> Experiment::apply(const Fitted& fitted, const std::vector<std::string>& nodes,
                                                 const std::vector<RowRange>& ranges) const {
  std::map<std::string, Decoded> all;
  for (auto& range : ranges)
    for (auto& [name, segment] : run_segment(cut(range), fitted.nodes, nodes, options_.counters)) {
      auto& d = all[name];
      const Index n = segment.frames->frames();
      if (d.format.parts.empty()) {
        d.format = segment.format;
        if (d.format.axis == Axis::time) {
          // the node's clock over the whole recording: segments start on it, up to rounding
          const double duration = static_cast<double>(lead_.frames()) / lead_.format.rate_hz;
          const auto before = static_cast<std::int64_t>(
              std::floor((segment.format.start_s - lead_.format.start_s) * segment.format.rate_hz + 0.5));
          d.format.start_s = segment.format.start_s - static_cast<double>(before) / segment.format.rate_hz;
          d.count = static_cast<Index>(std::ceil(duration * segment.format.rate_hz - 1e-6));
        }
        d.frames = Eigen::MatrixXd::Constant(d.format.size(), d.count, std::numeric_limits<double>::quiet_NaN());
      }
      const Index at = d.format.axis == Axis::item ? d.count : d.format.nearest_frame(segment.format.start_s);
      if (at < 0) throw Error(fmt::format("{}: frames before the start of the recording", name));
      if (at + n > d.count) {
        d.frames.conservativeResize(Eigen::NoChange, at + n);
        d.frames.rightCols(at + n - d.count).setConstant(std::numeric_limits<double>::quiet_NaN());
        d.count = at + n;
      }
      d.keys.insert(d.keys.end(), segment.keys.begin(), segment.keys.end());
      for (Index k = 0; k < n; k += 8192) {
        const Index m = std::min<Index>(8192, n - k), rows = d.frames.rows();
        segment.frames->read(k, MutableFrames(d.frames.data() + (at + k) * rows, Scalar::f64, rows, m, rows));
      }
      if (n) d.ranges.emplace_back(at, at + n - 1);
    }
  return all;
}

Decoded Experiment::apply(const Fitted& fitted, const std::string& node, const std::vector<RowRange>& ranges) const {
  return apply(fitted, std::vector{node}, ranges)[node];
}

std::int64_t Experiment::lead_frame(double t_s) const { return lead_.format.nearest_frame(t_s); }

Eigen::MatrixXd Experiment::truth(const TargetSpec& target, const FrameAxis& like, StreamFormat* format) const {
  if (format) *format = find_target(target).format;
  return target_at(target, like.format, like.count, like.keys, nullptr);
}

std::vector<RowRange> Experiment::ranges_on(const FrameAxis& axis, const std::vector<RowRange>& lead_ranges) const {
  std::vector<RowRange> out;
  for (auto& r : lead_ranges) {
    if (axis.format.axis == Axis::time && lead_.format.axis == Axis::time) {
      const double half = 0.5 / lead_.format.rate_hz;
      const double from = lead_.format.time_of(r.first) - half, until = lead_.format.time_of(r.second) + half;
      const auto first = std::max<std::int64_t>(0, axis.format.frame_from(from));
      const auto last = std::min<std::int64_t>(axis.count, axis.format.frame_from(until)) - 1;
      if (last >= first) out.emplace_back(first, last);
    } else {
      std::int64_t first = -1, last = -1;
      for (std::int64_t p = 0; p < static_cast<std::int64_t>(axis.keys.size()); ++p) {
        const auto key = axis.keys[static_cast<std::size_t>(p)];
        bool inside;
        if (lead_.format.axis == Axis::item) {
          inside = key >= item_key(lead_, r.first) && key <= item_key(lead_, r.second);
        } else {
          const auto frame = lead_frame(recording_.events.at(static_cast<std::size_t>(key)).onset_s);
          inside = frame >= r.first && frame <= r.second;
        }
        if (!inside) continue;
        if (first < 0) first = p;
        last = p;
      }
      if (first >= 0) out.emplace_back(first, last);
    }
  }
  return out;
}

}  // namespace percept::evaluation
