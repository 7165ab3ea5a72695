#include "evaluation/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "core/files.h"
#include "evaluation/audit.h"
#include "evaluation/bootstrap.h"
#include "evaluation/brain_map.h"
#include "evaluation/calibration.h"
#include "evaluation/describe.h"
#include "evaluation/item_trust.h"
#include "evaluation/metrics.h"
#include "evaluation/provenance.h"
#include "evaluation/report/report.h"
#include "evaluation/scoring.h"
#include "evaluation/search.h"
#include "io/store.h"

namespace percept::evaluation {
namespace fs = std::filesystem;

namespace {

Value number_or_null(double v) { return std::isfinite(v) ? Value(v) : Value(); }

/// The value as `scores` holds it: a number, or one number an output.
Value plain(const Score& s) {
  if (!s.info.per_output) return number_or_null(s.values.at(0));
  Value a = Value::array();
  for (double v : s.values) a.push_back(number_or_null(v));
  return a;
}
Value plain(const Score& s, const Bootstrap& b) {
  auto pair = [](const Interval& i) { return Value::array({number_or_null(i.low), number_or_null(i.high)}); };
  if (!s.info.per_output) return pair(b.intervals.at(0));
  Value a = Value::array();
  for (auto& i : b.intervals) a.push_back(pair(i));
  return a;
}

Value dataset_value(const Recording& r) {
  Value data = Value::object({{"name", r.name}});
  for (const char* key : {"title", "licence", "citation", "url", "note"})
    if (auto* v = r.meta.find(key); v && v->is_string()) data[key] = *v;
  Value streams = Value::array();
  for (auto& s : r.streams)
    streams.push_back(Value::object(
        {{"name", s.name}, {"frames", s.frames()}, {"rows", s.format.size()}, {"rate_hz", s.format.rate_hz}}));
  data["recordings"] = streams;
  return data;
}

/// By name: the order in which counters were made depends on what a cache held.
std::vector<std::pair<std::string, std::int64_t>> sorted(const Counters& counters) {
  auto all = counters.nonzero();
  std::sort(all.begin(), all.end());
  return all;
}

Value models_value(const std::vector<FoldRun>& folds, const std::string& split, const Counters* counters) {
  Value models = Value::array();
  for (auto& f : folds)
    for (auto& m : f.fitted.models) {
      Value entry = Value::object({{"node", m.node},
                                   {"use", m.use},
                                   {"split", split},
                                   {"fold", f.fold.name},
                                   {"frames", m.frames},
                                   {"digest", m.digest}});
      if (auto* params = m.model->meta.find("params")) entry["params"] = *params;
      Value counted = Value::table();
      if (counters)
        for (auto& [name, n] : sorted(*counters))
          if (name.rfind(m.node + ".", 0) == 0) counted[name.substr(m.node.size() + 1)] = n;
      entry["counters"] = counted;
      models.push_back(entry);
    }
  return models;
}

/// How the error fell while networks were trained: the mean of a model's networks, each as long as it ran.
void add_loss_plot(Value& plots, const Model& model, const std::string& name) {
  const Value* curves = model.meta.find("loss_curve");
  if (!curves || !curves->is_array()) return;
  Value series = Value::array();
  std::size_t longest = 0;
  for (const char* part : {"training", "held_out"}) {
    std::vector<double> sum, networks;
    for (auto& one : curves->as_array()) {
      const auto& losses = one.at(part).as_array();
      sum.resize(std::max(sum.size(), losses.size()));
      networks.resize(sum.size());
      for (std::size_t k = 0; k < losses.size(); ++k) {
        sum[k] += losses[k].as_number();
        networks[k] += 1;
      }
    }
    for (std::size_t k = 0; k < sum.size(); ++k) sum[k] /= networks[k];
    if (sum.empty()) continue;
    longest = std::max(longest, sum.size());
    series.push_back(Value::object(
        {{"name", std::string(part) == "training" ? "training frames" : "held-out frames"}, {"values", sum}}));
  }
  std::vector<double> epochs(longest);
  std::iota(epochs.begin(), epochs.end(), 1.0);
  const std::size_t networks = curves->size();
  const Value* steps = networks == 1 ? curves->as_array()[0].find("steps") : nullptr;  // not learnt in epochs
  plots.push_back(Value::object({{"name", networks > 1 ? fmt::format("{}, mean of {} networks", name, networks) : name},
                                 {"x", steps ? *steps : Value(epochs)},
                                 {"x_label", steps ? "step" : "epoch"},
                                 {"series", series}}));
}

void write_run_file(const fs::path& folder, double seconds) {
  write_atomic(
      folder / "run.json",
      to_json(Value::object({{"created", now_utc()}, {"seconds", seconds}, {"peak_rss_bytes", peak_rss_bytes()}}), 2) +
          "\n");
}

Value counters_value(const Counters* counters) {
  Value v = Value::table();
  if (counters)
    for (auto& [name, n] : sorted(*counters)) v[name] = n;
  return v;
}

double since(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
}

/// What a reader of any result must see, of the recording and of the images of the priors.
Value warnings_of(const RunRequest& request) {
  Value all = Value::array();
  auto add = [&](const Recording& r) {
    for (auto& w : r.warnings())
      if (std::find(all.as_array().begin(), all.as_array().end(), Value(w)) == all.as_array().end()) all.push_back(w);
  };
  add(request.recording);
  for (auto& images : request.priors) add(images);
  return all;
}

Priors fit_priors_of(const Registry& registry, const RunRequest& request) {
  Context base;
  base.seed = request.pipeline.seed;
  base.threads = request.options.threads;
  base.counters = request.options.counters;
  base.progress = request.options.progress;
  base.cancelled = request.options.cancelled;
  return fit_priors(registry, request.pipeline, request.recording, request.priors, base, request.prior_cache);
}

/// As in provenance, without the files and with the digests of the models; those that were fitted.
Value priors_value(const Registry& registry, const RunRequest& request, const Priors& priors) {
  Value all = Value::array();
  const Value said = to_value(registry, request.pipeline, request.priors);
  for (Value v : said.as_array())
    for (auto& p : priors)
      if (p.name == v.at("name").as_string()) {
        v.erase("inputs");
        v["digest"] = p.digest;
        all.push_back(std::move(v));
        break;
      }
  return all;
}

/// result.json and what the report is made of, filled split by split and score by score.
struct Results {
  const Pipeline& pipeline;
  const Stream& activity;  ///< what the pipeline reads
  fs::path folder;
  std::optional<BrainPlace> brain;  ///< where its rows are
  Value result, report;
  io::StoreWriter predictions;

  Results(const RunRequest& request, const Stream& lead, const Value& split, const fs::path& out)
      : pipeline(request.pipeline), activity(lead), folder(out), brain(brain_place(request.recording, lead.format)),
        predictions(folder / "predictions.percept") {
    const auto& p = pipeline;
    const auto& recording = request.recording;
    predictions.set_name(recording.name);
    if (const Table* item = recording.table("item")) predictions.add_table(*item);
    result = Value::object({{"scores", Value::table()},
                            {"intervals", Value::table()},
                            {"controls", Value::table()},
                            {"split", split},
                            {"calibration", Value::table()}});
    report = Value::object({{"title", p.title.empty() ? p.file.stem().string() : p.title}});
    if (!p.description.empty()) report["description"] = p.description;
    report["warnings"] = warnings_of(request);
    report["data"] = dataset_value(recording);
    report["split"] = split;
    for (const char* list : {"scores", "images", "trust", "trajectories", "calibration", "models", "losses"})
      report[list] = Value::array();
  }

  /// Under `section`, with the levels of which there are more than one.
  void put(const char* section, const ScoreSpec& spec, const SplitSpec& split, Value v) {
    Value* at = &result[section];
    if (pipeline.scores.size() > 1) at = &(*at)[spec.name];
    if (pipeline.splits.size() > 1) at = &(*at)[split.name];
    *at = std::move(v);
  }

  void add(const ScoreSpec& spec, const SplitSpec& split, const Pooled& pooled, const std::vector<Score>& scores,
           const std::vector<Control>& controls) {
    const auto truth = gather(pooled.truth, pooled.tests), decoded = gather(pooled.decoded, pooled.tests);
    const auto starts = segment_starts(pooled.tests);
    BootstrapOptions boot;
    if (spec.bootstrap > 0) boot.resamples = spec.bootstrap;  // without, only the calibration has intervals
    boot.seed = pipeline.seed;
    const bool items = pooled.axis.format.axis == Axis::item;
    boot.block_frames =
        items ? 1 : static_cast<Index>(std::llround(spec.bootstrap_block_s * pooled.axis.format.rate_hz));

    Value values = Value::table(), intervals = Value::table(), metrics_value = Value::array(), sds = Value::table();
    for (auto& sc : scores) {
      values[sc.info.name] = plain(sc);
      if (const double sd = sc.sd(); std::isfinite(sd)) sds[sc.info.name] = sd;
      if (spec.bootstrap > 0) {
        const auto b = bootstrap(sc, truth, decoded, starts, boot);
        intervals[sc.info.name] = plain(sc, b);
        metrics_value.push_back(to_value(sc, &b, pooled.outputs));
      } else {
        metrics_value.push_back(to_value(sc, nullptr, pooled.outputs));
      }
    }
    put("scores", spec, split, values);
    put("intervals", spec, split, intervals);
    if (sds.size()) put("sd", spec, split, sds);

    // the audit stands beside the score, never somewhere else
    Value controls_value = Value::table(), report_controls = Value::array();
    for (auto& c : controls) {
      Value shown = Value::object({{"name", c.name}, {"kind", c.kind}, {"doc", c.doc}});
      if (!c.absent.empty()) {
        controls_value[c.key] = Value::object({{"absent", c.absent}});
        shown["absent"] = c.absent;
      } else {
        Value v = Value::table(), m = Value::array();
        for (auto& sc : c.scores) {
          v[sc.info.name] = plain(sc);
          m.push_back(to_value(sc, nullptr, pooled.outputs));
        }
        controls_value[c.key] = v;
        shown["metrics"] = m;
      }
      report_controls.push_back(shown);
    }
    Value score_value = Value::object({{"name", spec.name},
                                       {"split", split.name},
                                       {"model", pooled.node},
                                       {"metrics", metrics_value},
                                       {"controls", report_controls}});
    if (spec.permutations > 0 && !scores.empty()) {
      try {
        const auto null =
            items ? pairing_null(spec.metrics[0], truth, decoded, pooled.shape, spec.permutations, pipeline.seed)
                  : shift_null(spec.metrics[0], truth, decoded, spec.permutations, pipeline.seed);
        const auto made = static_cast<std::int64_t>(null.values.size());
        score_value["p"] = Value::object(
            {{"value", null.p}, {"metric", spec.metrics[0]}, {"permutations", made}, {"method", null.method}});
        controls_value["permutation"] =
            Value::object({{"p", null.p}, {"metric", spec.metrics[0]}, {"permutations", made}});
      } catch (const DataError& e) {
        controls_value["permutation"] = Value::object({{"absent", e.what()}});
      }
    }
    put("controls", spec, split, controls_value);
    report["scores"].push_back(score_value);

    const std::string label = (spec.name.empty() ? pooled.node : spec.name) + ", " + split.name;
    Eigen::MatrixXd covariance;
    Value calibration = Value::object({{"calibrated", false}, {"verdict", "gives no covariance"}});
    if (pooled.covariance.rows()) {
      covariance = gather(pooled.covariance, pooled.tests);
      calibration = to_value(calibrate(truth, decoded, covariance, starts, boot));
    }
    put("calibration", spec, split, calibration);
    calibration["name"] = label;
    report["calibration"].push_back(calibration);
    if (items) add_items(spec, split, pooled, scores, label);
    if (pipeline.save_predictions) save(spec, split, pooled);
    if (items && pooled.shape.size() > 1) return;  // images are shown, not drawn as lines
    TrajectoryOptions t;
    t.name = label;
    t.outputs = pooled.outputs;
    t.unit = pooled.unit;
    t.starts = starts;
    if (pooled.axis.format.axis == Axis::time) {
      t.rate_hz = pooled.axis.format.rate_hz;
      t.start_s = pooled.axis.format.time_of(pooled.tests.empty() ? 0 : pooled.tests[0].first);
      for (auto& r : pooled.tests) t.segment_times.push_back(pooled.axis.format.time_of(r.first));
    }
    report["trajectories"].push_back(trajectory(truth, decoded, covariance, t));
  }

  /// What is known of each item: its scores, and whether the node's own doubt tells the error.
  void add_items(const ScoreSpec& spec, const SplitSpec& split, const Pooled& pooled, const std::vector<Score>& scores,
                 const std::string& label) {
    const ItemTrust trust = item_trust(pooled);
    Value values = Value::table();
    auto list = [](const auto& all) {
      Value v = Value::array();
      for (double x : all) v.push_back(number_or_null(x));
      return v;
    };
    for (auto& sc : scores)
      if (!sc.items.empty()) values[sc.info.name] = list(sc.items);
    for (auto& [name, of_items] : trust.values) values[name] = list(of_items);
    put("items", spec, split, Value::object({{"keys", Value(pooled.axis.keys)}, {"values", values}}));
    if (!trust.told.empty()) put("trust", spec, split, to_value(trust));
    if (trust.told.contains("spread")) {
      Value told = to_value(trust);
      told["name"] = label;
      told["spread"] = list(trust.values.at("spread"));
      told["error"] = list(trust.values.at("rmse"));
      report["trust"].push_back(told);
    }
    if (pooled.shape.size() < 2) return;
    report["images"].push_back(mosaic(label, pooled));
    if (brain && pipeline.report) add_brain(pooled, label);
  }

  /// The voxels that carry a reconstruction, as an image on the anatomy, for the gallery.
  void add_brain(const Pooled& pooled, const std::string& label) {
    std::vector<Index> here, there;
    for (Index k = 0; k < pooled.decoded.cols(); ++k) {
      const auto at =
          std::find(activity.keys.begin(), activity.keys.end(), pooled.axis.keys[static_cast<std::size_t>(k)]);
      if (at == activity.keys.end() || !pooled.decoded.col(k).allFinite()) continue;
      here.push_back(k);
      there.push_back(at - activity.keys.begin());
    }
    constexpr std::size_t kFewest = 10;  // with fewer, chance explains nearly all of a voxel
    if (here.size() < kFewest) return;
    const SharedVariance found =
        shared_variance(activity.matrix()(Eigen::all, there), pooled.decoded(Eigen::all, here), pipeline.seed);
    if (!report.contains("brain")) {
      fs::create_directories(folder / "brain");
      const fs::path copy = folder / "brain" / brain->anatomy.filename();
      fs::copy_file(brain->anatomy, copy);
      fs::permissions(copy, fs::perms::owner_write, fs::perm_options::add);  // as every other file of a run
      report["brain"] =
          Value::object({{"anatomy", "brain/" + brain->anatomy.filename().string()}, {"maps", Value::array()}});
    }
    Value& maps = report["brain"]["maps"];
    const std::string file = fmt::format("brain/map_{}.nii.gz", maps.size() + 1);
    write_brain_map(folder / file, *brain, found.share);
    double most = found.chance;
    for (const double share : found.share)
      if (share > most) most = share;  // false for NaN
    maps.push_back(Value::object({{"name", label},
                                  {"file", file},
                                  {"least", found.chance},
                                  {"most", most},
                                  {"items", static_cast<std::int64_t>(here.size())}}));
  }

  void save(const ScoreSpec& spec, const SplitSpec& split, const Pooled& pooled) {
    const std::string prefix =
        (pipeline.scores.size() > 1 ? spec.name + "." : "") + (pipeline.splits.size() > 1 ? split.name + "." : "");
    const bool items = pooled.axis.format.axis == Axis::item;
    auto put_stream = [&](const std::string& name, const StreamFormat& f, const Eigen::MatrixXd& m) {
      const int stream = predictions.add_stream(prefix + name, f);
      if (m.cols())
        predictions.append(stream, ConstFrames(m.data(), Scalar::f64, m.rows(), m.cols(), m.rows()), pooled.axis.keys);
    };
    auto one = [&](const std::string& name, const Eigen::MatrixXd& m) {
      const bool output = m.rows() == static_cast<Index>(pooled.outputs.size());
      StreamFormat f = items
                           ? item_format(output && !pooled.shape.empty() ? pooled.shape : std::vector<Index>{m.rows()},
                                         Scalar::f64, name)
                           : time_format(m.rows(), pooled.axis.format.rate_hz, Scalar::f64, name);
      f.start_s = pooled.axis.format.start_s;
      f.parts[0].unit = pooled.unit;
      f.parts[0].levels = output ? pooled.levels : std::vector<std::string>();
      if (output && f.parts[0].shape.size() == 1)
        for (auto& o : pooled.outputs)
          f.parts[0].rows.push_back({.name = o, .kind = "", .unit = pooled.unit, .position = {}, .good = true});
      put_stream(name, f, m);
    };
    one("truth", pooled.truth);
    one("decoded", pooled.decoded);
    if (pooled.covariance.rows()) one("covariance", pooled.covariance);
    if (!items) return;
    StreamFormat whole = pooled.frame_format;
    whole.scalar = Scalar::f64;
    put_stream("frame", whole, pooled.frames);
  }
};

std::shared_ptr<WorkCache> open_cache(const RunRequest& request) {
  if (request.work.empty()) return std::make_shared<WorkCache>();
  return std::make_shared<WorkCache>(request.work, identity_of(request.pipeline.input, request.recording));
}

/// No split: the recording streams through the pipeline into a store.
RunOutcome run_through(const Registry& registry, const RunRequest& request,
                       std::chrono::steady_clock::time_point begun) {
  const auto& p = request.pipeline;
  for (auto& s : p.stages)
    if (registry.at(s.node.use, s.node.where).trained && s.model.empty() && s.fit == FitMode::train)
      throw ConfigError(
          s.node.where, "",
          "model = \"FOLDER\" or fit = \"self\", since there is no [[split]] that says which rows to fit on");
  require_reset_events(request.recording, p);
  std::vector<NodeSpec> nodes;
  Fitted fitted;
  const bool fits = std::any_of(p.stages.begin(), p.stages.end(), [&](auto& s) {
    return registry.at(s.node.use, s.node.where).trained && s.model.empty();
  });
  const auto cache = open_cache(request);
  const auto priors = std::make_shared<Priors>();
  EngineOptions engine = request.options;
  engine.priors = priors;
  std::shared_ptr<Experiment> experiment;
  *priors = fit_priors_of(registry, request);
  if (fits) {
    experiment = std::make_shared<Experiment>(registry, p, request.recording, engine, cache);
    fitted = experiment->fit({{0, experiment->lead().frames() - 1}});
  }
  for (auto& s : p.stages) {
    NodeSpec node = s.node;
    for (auto& f : fitted.nodes)
      if (f.name == node.name) node.model = f.model;
    if (!node.model && !s.model.empty()) node.model = load_model(p, s, registry, engine.priors.get());
    nodes.push_back(std::move(node));
  }
  AtomicPath out(request.output);
  fs::create_directories(out.path());
  const std::string last = nodes.back().name;
  std::int64_t frames = 0;
  StreamFormat format;
  {
    RunOptions options;
    options.precision = p.precision;
    options.block = p.block;
    options.threads = engine.threads;
    options.seed = p.seed;
    options.counters = engine.counters;
    options.progress = engine.progress;
    options.cancelled = engine.cancelled;
    options.spool = out.path().string();
    io::StoreWriter store(out.path() / "output.percept");
    store.set_name(request.recording.name);
    int stream = -1;
    format = edge_format(registry, request.recording, nodes, options, last);
    stream = store.add_stream(last, format);
    run_offline(registry, request.recording, nodes, options, {{last, [&](const Block& b) {
                                                                 store.append(stream, b.x, b.keys);
                                                                 frames += b.x.frames;
                                                               }}});
    store.add_events(request.recording.events);
    for (auto& t : request.recording.tables) store.add_table(t);
    store.commit();
  }
  RunOutcome outcome;
  outcome.result =
      Value::object({{"stored", Value::object({{"node", last}, {"frames", frames}, {"format", format.describe()}})},
                     {"counters", counters_value(engine.counters)}});
  outcome.result["warnings"] = warnings_of(request);
  if (!priors->empty()) outcome.result["priors"] = priors_value(registry, request, *priors);
  write_atomic(out.path() / "result.json", to_json(outcome.result, 2) + "\n");
  write_atomic(out.path() / "provenance.json",
               to_json(provenance(registry, p, request.recording, request.priors, engine.threads), 2) + "\n");
  write_atomic(out.path() / "config.toml", to_toml(p.resolved));
  outcome.seconds = since(begun);
  write_run_file(out.path(), outcome.seconds);
  out.commit();
  cache->remove();
  return outcome;
}

}  // namespace

RunOutcome run_pipeline(const Registry& registry, const RunRequest& request) {
  const auto begun = std::chrono::steady_clock::now();
  const auto& p = request.pipeline;
  if (p.splits.empty()) return run_through(registry, request, begun);
  for (auto& s : p.scores) {
    for (auto& m : s.metrics) metric_info(m, s.where + ".metrics");
    if (s.bootstrap > 0 && s.bootstrap < 20)
      throw ConfigError(s.where + ".bootstrap", fmt::format("{}", s.bootstrap), "0 or at least 20 resamples");
  }

  const auto cache = open_cache(request);
  const auto priors = std::make_shared<Priors>();
  EngineOptions options = request.options;
  options.priors = priors;
  auto experiment = std::make_shared<const Experiment>(registry, p, request.recording, options, cache);
  // as soon as may be: what a prior makes of a target is known when the prior is fitted
  const auto require_metrics = [&](bool through) {
    for (auto& s : p.scores) {
      const TargetSpec spec = scored_target(s, *experiment, scored_node(s, p));
      if (spec.through.empty() == through) continue;
      const StreamFormat target = experiment->target_format(spec);
      for (auto& m : s.metrics) {
        require_outputs(metric_info(m), target.size(), s.where + ".metrics");
        if (target.parts.size() == 1) require_shape(metric_info(m), target.parts[0].shape, s.where + ".metrics");
        require_unit(metric_info(m), target.parts[0].unit, s.where + ".metrics");
      }
    }
  };
  require_metrics(false);
  // every split is stated and checked before anything is fitted
  std::vector<std::vector<Fold>> all_folds;
  Value split_value = Value::array();
  const auto context = experiment->split_context();
  for (auto& s : p.splits) {
    all_folds.push_back(make_folds(s, context));
    split_value.push_back(to_value(s, all_folds.back(), context));
  }

  *priors = fit_priors_of(registry, request);
  require_metrics(true);

  AtomicPath out(request.output);
  fs::create_directories(out.path());
  Results results(request, experiment->lead(), split_value, out.path());
  for (auto& prior : *priors) add_loss_plot(results.report["losses"], *prior.model, "prior " + prior.name);
  Value searches = Value::array();
  Fitted last_fitted;
  for (std::size_t s = 0; s < p.splits.size(); ++s) {
    std::vector<FoldRun> folds;
    for (auto& fold : all_folds[s]) {
      if (options.progress)
        options.progress(static_cast<double>(folds.size()) / static_cast<double>(all_folds[s].size()),
                         "fitting " + fold.name);
      auto chosen = experiment;
      if (p.search) {
        const auto found = search(registry, p, request.recording, fold.train, options, cache, fold.inner_split);
        searches.push_back(
            Value::object({{"split", p.splits[s].name}, {"fold", fold.name}, {"search", found.to_value()}}));
        chosen = std::make_shared<const Experiment>(registry, with_params(p, found.chosen().params, registry),
                                                    request.recording, options, cache);
      }
      FoldRun run{fold, chosen, chosen->fit(fold.train, 0, fold.inner_split)};
      for (auto& m : run.fitted.models) {
        std::string name = fold.name;
        std::replace(name.begin(), name.end(), ' ', '_');
        std::replace(name.begin(), name.end(), '/', '_');
        if (!m.loaded && p.save_models) m.model->save(out.path() / "models" / p.splits[s].name / name / m.node);
      }
      folds.push_back(std::move(run));
    }
    last_fitted = folds.back().fitted;

    const auto pooled = pool(p.scores, folds);
    std::vector<std::vector<Score>> scores;
    for (std::size_t i = 0; i < p.scores.size(); ++i) {
      const auto truth = gather(pooled[i].truth, pooled[i].tests), decoded = gather(pooled[i].decoded, pooled[i].tests);
      scores.emplace_back();
      for (auto& m : p.scores[i].metrics) scores.back().push_back(score(m, truth, decoded, pooled[i].shape));
    }
    const auto controls = audit(p.scores, pooled, scores, folds, options, p.seed);
    for (std::size_t i = 0; i < p.scores.size(); ++i)
      results.add(p.scores[i], p.splits[s], pooled[i], scores[i], controls[i]);
    const Value models = models_value(folds, p.splits[s].name, options.counters);
    for (auto& m : models.as_array()) results.report["models"].push_back(m);
    for (auto& m : folds[0].fitted.models)
      if (const auto& name = p.splits[s].name; !m.loaded)
        add_loss_plot(
            results.report["losses"], *m.model,
            fmt::format("{} ({}{})", m.node, name, folds[0].fold.name == name ? "" : ", " + folds[0].fold.name));
  }
  Value &result = results.result, &report = results.report;
  for (const char* list : {"images", "trust"})
    if (report[list].size() == 0) report.erase(list);
  result["models"] = report["models"];
  if (searches.size()) {
    result["search"] = searches;
    report["search"] = searches;
  }
  if (!priors->empty()) result["priors"] = report["priors"] = priors_value(registry, request, *priors);
  result["counters"] = counters_value(options.counters);
  report["counters"] = result["counters"];
  result["warnings"] = report["warnings"];
  report["graph"] = describe_graph(registry, p, request.recording, &last_fitted, priors.get());
  auto origin = provenance(registry, p, request.recording, request.priors, options.threads);
  origin["split"] = split_value;
  report["provenance"] = origin;
  report["rerun"] = "percept rerun FOLDER";

  if (p.save_predictions) results.predictions.commit();
  write_atomic(out.path() / "result.json", to_json(result, 2) + "\n");
  write_atomic(out.path() / "provenance.json", to_json(origin, 2) + "\n");
  write_atomic(out.path() / "config.toml", to_toml(p.resolved));
  if (p.report) {
    write_atomic(out.path() / "report.json", to_json(report) + "\n");
    write_atomic(out.path() / "report.html", render_report(report));
  }
  RunOutcome outcome;
  outcome.seconds = since(begun);
  write_run_file(out.path(), outcome.seconds);
  out.commit();
  cache->remove();
  outcome.result = std::move(result);
  return outcome;
}

Value fit_pipeline(const Registry& registry, const RunRequest& request) {
  const auto& p = request.pipeline;
  const auto cache = open_cache(request);
  const auto priors = std::make_shared<Priors>();
  EngineOptions options = request.options;
  options.priors = priors;
  auto experiment = std::make_shared<const Experiment>(registry, p, request.recording, options, cache);
  std::vector<RowRange> train{{0, experiment->lead().frames() - 1}};
  InnerSplit inner;
  if (!p.splits.empty()) {
    const auto fold = make_folds(p.splits[0], experiment->split_context()).at(0);
    train = fold.train;
    inner = fold.inner_split;
  }
  *priors = fit_priors_of(registry, request);
  Value result = Value::object({{"train", describe(train)}});
  if (p.search) {
    const auto found = search(registry, p, request.recording, train, options, cache, inner);
    result["search"] = found.to_value();
    experiment = std::make_shared<const Experiment>(registry, with_params(p, found.chosen().params, registry),
                                                    request.recording, options, cache);
  }
  const auto fitted = experiment->fit(train, 0, inner);
  AtomicPath out(request.output);
  fs::create_directories(out.path());
  Value models = Value::array();
  for (auto& m : fitted.models) {
    if (m.loaded) continue;
    Model copy = *m.model;
    copy.meta["fitted_on"] = Value::object({{"recording", request.recording.name}, {"rows", describe(train)}});
    copy.save(out.path() / m.node);
    models.push_back(Value::object(
        {{"node", m.node}, {"use", m.use}, {"frames", m.frames}, {"digest", copy.digest()}, {"seconds", m.seconds}}));
  }
  if (models.size() == 0) throw ConfigError(p.file.string() + ": stage", "", "at least one stage that is fitted");
  write_atomic(
      out.path() / "provenance.json",
      to_json(provenance(registry, experiment->pipeline(), request.recording, request.priors, options.threads), 2) +
          "\n");
  out.commit();
  cache->remove();
  result["models"] = models;
  return result;
}

}  // namespace percept::evaluation
