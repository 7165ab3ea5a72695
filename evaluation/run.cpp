#include "evaluation/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/files.h"
#include "evaluation/audit.h"
#include "evaluation/bootstrap.h"
#include "evaluation/calibration.h"
#include "evaluation/metrics.h"
#include "evaluation/provenance.h"
#include "evaluation/report/report.h"
#include "evaluation/search.h"
#include "io/store.h"

namespace percept::evaluation {
namespace fs = std::filesystem;

namespace {

/// The test frames of one score under one split, of all its folds.
struct Pooled {
  Decoded axis;                                ///< clock (time) or keys (items), and the decoded frames
  Eigen::MatrixXd truth, decoded, covariance;  ///< on the axis; NaN where nothing was tested
  std::vector<RowRange> tests;                 ///< in axis frames
  std::vector<std::string> outputs;
  std::string unit;
  std::string part;
};

struct FoldRun {
  Fold fold;
  std::shared_ptr<const Experiment> experiment;
  Fitted fitted;
};

Index count(const std::vector<RowRange>& ranges) {
  Index n = 0;
  for (auto& r : ranges) n += r.second - r.first + 1;
  return n;
}

/// What is compared with the target: the part asked for, else "mean", else the first.
std::string scored_part(const ScoreSpec& score, const StreamFormat& format) {
  if (!score.part.empty()) {
    std::vector<std::string> parts;
    for (auto& p : format.parts) parts.push_back(p.name);
    if (!format.find_part(score.part))
      throw ConfigError(score.where + ".part", "\"" + score.part + "\"",
                        fmt::format("one of {}{}", fmt::join(parts, ", "), did_you_mean(score.part, parts)));
    return score.part;
  }
  return format.find_part("mean") ? "mean" : format.parts[0].name;
}

TargetSpec scored_target(const ScoreSpec& score, const Experiment& e, const std::string& node) {
  if (!score.target.empty()) {
    auto t = e.target_of(node).value_or(TargetSpec{});
    if (t.from != score.target) t = {score.target, 0};
    return t;
  }
  if (auto t = e.target_of(node)) return *t;
  throw ConfigError(score.where + ".target", "", "the stream that the score compares with");
}

void put_columns(Eigen::MatrixXd& into, const Eigen::MatrixXd& from, const std::vector<RowRange>& ranges) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  if (into.rows() != from.rows()) into = Eigen::MatrixXd::Constant(from.rows(), from.cols(), nan);
  if (into.cols() < from.cols()) {
    const Index had = into.cols();
    into.conservativeResize(Eigen::NoChange, from.cols());
    into.rightCols(from.cols() - had).setConstant(nan);
  }
  for (auto& r : ranges)
    into.middleCols(r.first, r.second - r.first + 1) = from.middleCols(r.first, r.second - r.first + 1);
}

Pooled pool(const ScoreSpec& score, const std::string& node, const std::vector<FoldRun>& folds) {
  Pooled p;
  for (auto& f : folds) {
    const auto given = f.experiment->apply(f.fitted, node, f.fold.test);
    if (given.ranges.empty())
      throw DataError(f.experiment->recording().name, node, "frames in the test rows of " + f.fold.name, "none");
    StreamFormat target_format;
    const auto truth = f.experiment->truth(scored_target(score, *f.experiment, node), given, &target_format);
    p.part = scored_part(score, given.format);
    const Index at = given.format.part_offset(p.part), rows = given.format.find_part(p.part)->size();
    if (rows != truth.rows())
      throw ConfigError(score.where, "",
                        fmt::format("as many outputs as targets: '{}' gives {} in part '{}', the target has {}", node,
                                    rows, p.part, truth.rows()));
    p.outputs = target_format.row_names();
    p.unit = target_format.parts.empty() ? "" : target_format.parts[0].unit;
    const Part* cov = given.format.find_part("covariance");
    const bool with_covariance = p.part == "mean" && cov && cov->size() == rows * rows;
    const Index cov_at = with_covariance ? given.format.part_offset("covariance") : 0;
    if (given.format.axis == Axis::time) {
      if (p.axis.frames.size() == 0) p.axis = given;
      put_columns(p.truth, truth, given.ranges);
      put_columns(p.decoded, given.frames.middleRows(at, rows), given.ranges);
      if (with_covariance) put_columns(p.covariance, given.frames.middleRows(cov_at, rows * rows), given.ranges);
      p.tests.insert(p.tests.end(), given.ranges.begin(), given.ranges.end());
      continue;
    }
    const Index had = p.truth.cols(), n = given.frames.cols();
    p.axis.format = given.format;
    p.axis.keys.insert(p.axis.keys.end(), given.keys.begin(), given.keys.end());
    p.truth.conservativeResize(rows, had + n);
    p.truth.rightCols(n) = truth;
    p.decoded.conservativeResize(rows, had + n);
    p.decoded.rightCols(n) = given.frames.middleRows(at, rows);
    if (with_covariance) {
      p.covariance.conservativeResize(rows * rows, had + n);
      p.covariance.rightCols(n) = given.frames.middleRows(cov_at, rows * rows);
    }
    if (n) p.tests.emplace_back(had, had + n - 1);
  }
  std::sort(p.tests.begin(), p.tests.end());
  if (p.axis.format.axis == Axis::time) p.axis.frames.resize(0, std::max(p.truth.cols(), p.axis.frames.cols()));
  return p;
}

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

/// One control: scored like the decoder, kept for the result and for the report.
struct Control {
  std::string key, name, kind, doc, absent;
  std::vector<Score> scores;
};

std::vector<Control> audit(const ScoreSpec& spec, const Pooled& p, const std::string& node,
                           const std::vector<FoldRun>& folds, const EngineOptions& options, std::uint64_t seed) {
  std::vector<Control> controls;
  const auto truth = gather(p.truth, p.tests);
  const bool clocked = p.axis.format.axis == Axis::time;
  const Index frames = p.truth.cols();

  auto with_confounds = [&](const char* key, const char* name, const Confounds& confounds, const std::string& absent) {
    Control alone{key, std::string(name) + " alone", "control", confounds.doc, absent, {}};
    Control removed{
        std::string("without_") + key,
        std::string(name) + " taken out",
        "removed",
        fmt::format(
            "Truth and decoded after the part that {} explains (fitted on the training rows) was subtracted from both.",
            name),
        absent,
        {}};
    if (absent.empty()) {
      Eigen::MatrixXd predicted, truth_left, decoded_left;
      for (auto& f : folds) {
        const auto train = f.experiment->ranges_on(p.axis, f.fold.train),
                   test = f.experiment->ranges_on(p.axis, f.fold.test);
        const auto all = f.experiment->truth(scored_target(spec, *f.experiment, node), p.axis);
        const auto fit = fit_confounds(confounds, all, train);
        const Eigen::MatrixXd guess = fit.predict(confounds.x);
        put_columns(predicted, guess, test);
        put_columns(truth_left, p.truth - guess, test);
        put_columns(decoded_left, p.decoded - guess, test);
      }
      for (auto& m : spec.metrics) {
        alone.scores.push_back(score(m, truth, gather(predicted, p.tests)));
        removed.scores.push_back(score(m, gather(truth_left, p.tests), gather(decoded_left, p.tests)));
      }
    }
    controls.push_back(std::move(alone));
    controls.push_back(std::move(removed));
  };

  for (auto& wanted : spec.confounds) {
    if (wanted == "time") {
      if (clocked) with_confounds("time", "time", time_confounds(frames), "");
      else with_confounds("time", "time", {}, "items have no clock");
    } else if (wanted == "trial") {
      Confounds c;
      std::string absent = "items have no trials";
      if (clocked) {
        c = trial_confounds(folds[0].experiment->recording().events, frames, p.axis.format.rate_hz,
                            p.axis.format.start_s);
        absent = c.x.rows() ? "" : "the recording has no trials";
      }
      with_confounds("trial", "trial structure", c, absent);
    } else {
      Control shuffled{"shuffled", "shuffled activity", "control", "", "", {}};
      const auto learned = folds[0].experiment->learned();
      const bool fits =
          std::any_of(folds[0].fitted.models.begin(), folds[0].fitted.models.end(), [](auto& m) { return !m.loaded; });
      if (learned.empty() || !fits) shuffled.absent = "nothing was fitted in this run";
      else if (spec.shuffles == 0) shuffled.absent = "shuffles = 0";
      else {
        std::vector<std::vector<Score>> runs;
        for (std::int64_t k = 0; k < spec.shuffles; ++k) {
          if (options.cancelled && options.cancelled()) throw Interrupted();
          Eigen::MatrixXd decoded;
          Eigen::MatrixXd items;
          for (auto& f : folds) {
            const Index n = count(f.fold.train);
            const auto shifts = circular_shifts(
                n, std::min<Index>(std::max<Index>(1, n / 10), std::max<Index>(1, n / 4)), spec.shuffles, seed);
            const auto fitted = f.experiment->fit(f.fold.train, shifts[static_cast<std::size_t>(k) % shifts.size()]);
            const auto given = f.experiment->apply(fitted, node, f.fold.test);
            const Eigen::MatrixXd part =
                given.frames.middleRows(given.format.part_offset(p.part), given.format.find_part(p.part)->size());
            if (clocked) put_columns(decoded, part, given.ranges);
            else {
              const Index had = items.cols();
              items.conservativeResize(part.rows(), had + part.cols());
              items.rightCols(part.cols()) = part;
            }
          }
          if (clocked && decoded.cols() < frames)
            put_columns(decoded, Eigen::MatrixXd::Constant(decoded.rows(), frames, std::nan("")), {});
          std::vector<Score> scores;
          for (auto& m : spec.metrics) scores.push_back(score(m, truth, clocked ? gather(decoded, p.tests) : items));
          runs.push_back(std::move(scores));
        }
        shuffled.doc = fmt::format(
            "The same decoder fitted to a target shifted in time against the activity, by at least a tenth of the "
            "training rows; mean of {} fits.",
            spec.shuffles);
        shuffled.scores = runs[0];
        for (std::size_t m = 0; m < shuffled.scores.size(); ++m)
          for (std::size_t v = 0; v < shuffled.scores[m].values.size(); ++v) {
            double sum = 0;
            for (auto& r : runs) sum += r[m].values[v];
            shuffled.scores[m].values[v] = sum / static_cast<double>(runs.size());
          }
      }
      controls.push_back(std::move(shuffled));
    }
  }
  return controls;
}

void put_level(Value& root, const std::string& score, bool many_scores, const std::string& split, bool many_splits,
               const Value& v) {
  Value* at = &root;
  if (at->is_null()) *at = Value::table();
  if (many_scores) at = &(*at)[score];
  if (many_splits) at = &(*at)[split];
  *at = v;
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

std::string trimmed(double v) { return fmt::format("{:.6g}", v); }

Value models_value(const std::vector<FoldRun>& folds, const std::string& split, const Counters* counters) {
  Value models = Value::array();
  for (auto& f : folds)
    for (auto& m : f.fitted.models) {
      Value entry = Value::object({{"node", m.node},
                                   {"use", m.use},
                                   {"split", split},
                                   {"fold", f.fold.name},
                                   {"frames", m.frames},
                                   {"digest", m.model->digest()}});
      if (auto* params = m.model->meta.find("params")) entry["params"] = *params;
      Value counted = Value::table();
      if (counters)
        for (auto& [name, n] : counters->nonzero())
          if (name.rfind(m.node + ".", 0) == 0) counted[name.substr(m.node.size() + 1)] = n;
      entry["counters"] = counted;
      models.push_back(entry);
    }
  return models;
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
    for (auto& [name, n] : counters->nonzero()) v[name] = n;
  return v;
}

double since(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
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
  std::vector<NodeSpec> nodes;
  Fitted fitted;
  const bool fits = std::any_of(p.stages.begin(), p.stages.end(), [&](auto& s) {
    return registry.at(s.node.use, s.node.where).trained && s.model.empty();
  });
  std::shared_ptr<Experiment> experiment;
  if (fits) {
    experiment = std::make_shared<Experiment>(registry, p, request.recording, request.options);
    fitted = experiment->fit({{0, experiment->lead().frames() - 1}});
  }
  for (auto& s : p.stages) {
    NodeSpec node = s.node;
    for (auto& f : fitted.nodes)
      if (f.name == node.name) node.model = f.model;
    if (!node.model && !s.model.empty()) node.model = load_model(p, s, registry);
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
    options.threads = request.options.threads;
    options.seed = p.seed;
    options.counters = request.options.counters;
    options.progress = request.options.progress;
    options.cancelled = request.options.cancelled;
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
                     {"counters", counters_value(request.options.counters)}});
  Value warnings = Value::array();
  for (auto& w : request.recording.warnings()) warnings.push_back(w);
  outcome.result["warnings"] = warnings;
  write_atomic(out.path() / "result.json", to_json(outcome.result, 2) + "\n");
  write_atomic(out.path() / "provenance.json",
               to_json(provenance(registry, p, request.recording, request.options.threads), 2) + "\n");
  write_atomic(out.path() / "config.toml", to_toml(p.resolved));
  outcome.seconds = since(begun);
  write_run_file(out.path(), outcome.seconds);
  out.commit();
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

  auto cache = std::make_shared<PrefixCache>();
  auto experiment = std::make_shared<const Experiment>(registry, p, request.recording, request.options, cache);
  // every split is stated and checked before anything is fitted
  std::vector<std::vector<Fold>> all_folds;
  Value split_value = Value::array();
  const auto context = experiment->split_context();
  for (auto& s : p.splits) {
    all_folds.push_back(make_folds(s, context));
    split_value.push_back(to_value(s, all_folds.back(), context));
  }
  std::vector<ScoreSpec> scores = p.scores;

  Value result = Value::object({{"scores", Value::table()},
                                {"intervals", Value::table()},
                                {"controls", Value::table()},
                                {"split", split_value}});
  Value report = Value::object({{"title", p.title.empty() ? p.file.stem().string() : p.title}});
  if (!p.description.empty()) report["description"] = p.description;
  report["warnings"] = Value::array();
  for (auto& w : request.recording.warnings()) report["warnings"].push_back(w);
  report["data"] = dataset_value(request.recording);
  report["split"] = split_value;
  for (const char* list : {"scores", "trajectories", "calibration", "models"}) report[list] = Value::array();
  result["calibration"] = Value::table();
  Value searches = Value::array();

  AtomicPath out(request.output);
  fs::create_directories(out.path());
  io::StoreWriter predictions(out.path() / "predictions.percept");
  predictions.set_name(request.recording.name);
  const bool many_scores = scores.size() > 1, many_splits = p.splits.size() > 1;
  Fitted last_fitted;
  for (std::size_t s = 0; s < p.splits.size(); ++s) {
    std::vector<FoldRun> folds;
    for (auto& fold : all_folds[s]) {
      if (request.options.progress)
        request.options.progress(static_cast<double>(folds.size()) / static_cast<double>(all_folds[s].size()),
                                 "fitting " + fold.name);
      auto chosen = experiment;
      if (p.search) {
        const auto found = search(registry, p, request.recording, fold.train, request.options, cache);
        searches.push_back(
            Value::object({{"split", p.splits[s].name}, {"fold", fold.name}, {"search", found.to_value()}}));
        for (auto& c : found.candidates)
          if (c.chosen)
            chosen = std::make_shared<const Experiment>(registry, with_params(p, c.params, registry), request.recording,
                                                        request.options, cache);
      }
      FoldRun run{fold, chosen, chosen->fit(fold.train)};
      for (auto& m : run.fitted.models) {
        std::string name = fold.name;
        std::replace(name.begin(), name.end(), ' ', '_');
        std::replace(name.begin(), name.end(), '/', '_');
        if (!m.loaded) m.model->save(out.path() / "models" / p.splits[s].name / name / m.node);
      }
      folds.push_back(std::move(run));
    }
    last_fitted = folds.back().fitted;

    for (auto& spec : scores) {
      const std::string node = spec.from.empty() ? p.stages.back().node.name : spec.from;
      const auto pooled = pool(spec, node, folds);
      const auto truth = gather(pooled.truth, pooled.tests), decoded = gather(pooled.decoded, pooled.tests);
      const auto starts = segment_starts(pooled.tests);
      BootstrapOptions boot;
      if (spec.bootstrap > 0) boot.resamples = spec.bootstrap;  // without, only the calibration has intervals
      boot.seed = p.seed;
      boot.block_frames =
          static_cast<Index>(std::llround(spec.bootstrap_block_s * std::max(pooled.axis.format.rate_hz, 1.0)));

      Value values = Value::table(), intervals = Value::table(), metrics_value = Value::array();
      std::vector<Score> made;
      for (auto& m : spec.metrics) {
        auto sc = score(m, truth, decoded);
        values[m] = plain(sc);
        if (spec.bootstrap > 0) {
          const auto b = bootstrap(sc, truth, decoded, starts, boot);
          intervals[m] = plain(sc, b);
          metrics_value.push_back(to_value(sc, &b, pooled.outputs));
        } else {
          metrics_value.push_back(to_value(sc, nullptr, pooled.outputs));
        }
        made.push_back(std::move(sc));
      }
      put_level(result["scores"], spec.name, many_scores, p.splits[s].name, many_splits, values);
      put_level(result["intervals"], spec.name, many_scores, p.splits[s].name, many_splits, intervals);

      // the audit stands beside the score, never somewhere else
      Value controls_value = Value::table(), report_controls = Value::array();
      for (auto& c : audit(spec, pooled, node, folds, request.options, p.seed)) {
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
      Value p_value;
      if (spec.permutations > 0 && !made.empty()) {
        try {
          const auto null = shift_null(spec.metrics[0], truth, decoded, spec.permutations, p.seed);
          p_value = Value::object({{"value", null.p},
                                   {"metric", spec.metrics[0]},
                                   {"permutations", static_cast<std::int64_t>(null.values.size())},
                                   {"method", null.method}});
          controls_value["permutation"] =
              Value::object({{"p", null.p},
                             {"metric", spec.metrics[0]},
                             {"permutations", static_cast<std::int64_t>(null.values.size())}});
        } catch (const DataError& e) {
          controls_value["permutation"] = Value::object({{"absent", e.what()}});
        }
      }
      put_level(result["controls"], spec.name, many_scores, p.splits[s].name, many_splits, controls_value);
      Value score_value = Value::object({{"name", spec.name},
                                         {"split", p.splits[s].name},
                                         {"model", node},
                                         {"metrics", metrics_value},
                                         {"controls", report_controls}});
      if (!p_value.is_null()) score_value["p"] = p_value;
      report["scores"].push_back(score_value);

      const std::string label = (spec.name.empty() ? node : spec.name) + ", " + p.splits[s].name;
      Eigen::MatrixXd covariance;
      if (pooled.covariance.rows()) {
        covariance = gather(pooled.covariance, pooled.tests);
        const auto calibration = calibrate(truth, decoded, covariance, starts, boot);
        put_level(result["calibration"], spec.name, many_scores, p.splits[s].name, many_splits, to_value(calibration));
        Value v = to_value(calibration);
        v["name"] = label;
        report["calibration"].push_back(v);
      }
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

      if (p.save_predictions) {
        const std::string prefix = (many_scores ? spec.name + "." : "") + (many_splits ? p.splits[s].name + "." : "");
        auto add = [&](const std::string& name, const Eigen::MatrixXd& m) {
          StreamFormat f = pooled.axis.format.axis == Axis::time
                               ? time_format(m.rows(), pooled.axis.format.rate_hz, Scalar::f64, name)
                               : item_format({m.rows()}, Scalar::f64, name);
          f.start_s = pooled.axis.format.start_s;
          f.parts[0].unit = pooled.unit;
          if (m.rows() == static_cast<Index>(pooled.outputs.size()))
            for (auto& o : pooled.outputs)
              f.parts[0].rows.push_back({.name = o, .kind = "", .unit = pooled.unit, .position = {}, .good = true});
          const int stream = predictions.add_stream(prefix + name, f);
          std::vector<std::int64_t> keys = pooled.axis.keys;
          if (m.cols())
            predictions.append(stream, ConstFrames(m.data(), Scalar::f64, m.rows(), m.cols(), m.rows()), keys);
        };
        add("truth", pooled.truth);
        add("decoded", pooled.decoded);
        if (pooled.covariance.rows()) add("covariance", pooled.covariance);
      }
    }
    const Value models = models_value(folds, p.splits[s].name, request.options.counters);
    for (auto& m : models.as_array()) report["models"].push_back(m);
  }
  result["models"] = report["models"];
  if (searches.size()) {
    result["search"] = searches;
    report["search"] = searches.as_array()[0].at("search");
  }
  result["counters"] = counters_value(request.options.counters);
  report["counters"] = result["counters"];
  result["warnings"] = report["warnings"];
  report["graph"] = describe_graph(registry, p, request.recording, &last_fitted);
  auto origin = provenance(registry, p, request.recording, request.options.threads);
  origin["split"] = split_value;
  report["provenance"] = origin;
  report["rerun"] = "percept rerun FOLDER";

  if (p.save_predictions) predictions.commit();
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
  outcome.result = std::move(result);
  return outcome;
}

Value fit_pipeline(const Registry& registry, const RunRequest& request) {
  const auto& p = request.pipeline;
  auto cache = std::make_shared<PrefixCache>();
  auto experiment = std::make_shared<const Experiment>(registry, p, request.recording, request.options, cache);
  std::vector<RowRange> train{{0, experiment->lead().frames() - 1}};
  if (!p.splits.empty()) train = make_folds(p.splits[0], experiment->split_context()).at(0).train;
  Value result = Value::object({{"train", describe(train)}});
  if (p.search) {
    const auto found = search(registry, p, request.recording, train, request.options, cache);
    result["search"] = found.to_value();
    for (auto& c : found.candidates)
      if (c.chosen)
        experiment = std::make_shared<const Experiment>(registry, with_params(p, c.params, registry), request.recording,
                                                        request.options, cache);
  }
  const auto fitted = experiment->fit(train);
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
      to_json(provenance(registry, experiment->pipeline(), request.recording, request.options.threads), 2) + "\n");
  out.commit();
  result["models"] = models;
  return result;
}

Value describe_graph(const Registry& registry, const Pipeline& pipeline, const Recording& recording,
                     const Fitted* fitted) {
  // as much of the graph as can be made: what waits for a fit, and what stands below it, is only named
  std::vector<NodeSpec> nodes;
  std::vector<std::string> unknown;
  std::vector<std::string> known;
  for (auto& s : recording.streams) known.push_back(s.name);
  for (auto& s : pipeline.stages) known.push_back(s.node.name);
  std::string before = recording.streams.empty() ? "" : recording.streams[0].name;
  Value rows = Value::array();
  std::vector<NodeSpec> all;
  for (auto& s : pipeline.stages) {
    NodeSpec n = s.node;
    if (n.from.empty()) n.from = {before};
    before = n.name;
    if (fitted)
      for (auto& f : fitted->nodes)
        if (f.name == n.name) n.model = f.model;
    if (!n.model && !s.model.empty()) n.model = load_model(pipeline, s, registry);
    all.push_back(n);
  }
  for (bool grew = true; grew;) {
    grew = false;
    for (auto& n : all) {
      if (std::find(unknown.begin(), unknown.end(), n.name) != unknown.end()) continue;
      bool waits = registry.at(n.use, n.where).trained && !n.model;
      for (auto& ref : n.from)
        for (auto& u : unknown) waits = waits || ref == u || ref.rfind(u + ".", 0) == 0;
      if (waits) {
        unknown.push_back(n.name);
        grew = true;
      }
    }
  }
  for (auto& n : all)
    if (std::find(unknown.begin(), unknown.end(), n.name) == unknown.end()) nodes.push_back(n);
  std::vector<InputSpec> inputs;
  for (auto& n : input_names(recording, nodes)) inputs.push_back({n, recording.stream(n, "from").format});
  std::unique_ptr<Graph> graph;
  if (!nodes.empty()) graph = std::make_unique<Graph>(registry, inputs, nodes, pipeline.precision, 1, Context{});
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto& n = all[i];
    Value row = Value::object({{"name", n.name}, {"use", n.use}, {"from", Value(n.from)}});
    const int index = graph ? graph->index_of(n.name) : -1;
    if (index < 0) {
      for (const char* key : {"shape", "rate_hz", "latency_s", "memory_frames", "scalar"}) row[key] = "?";
    } else {
      const auto& f = graph->format(index);
      std::string shape;
      for (auto& part : f.parts)
        shape += fmt::format("{}{} {{{}}}", shape.empty() ? "" : " + ", part.name, fmt::join(part.shape, ", "));
      row["shape"] = shape;
      row["rate_hz"] = f.axis == Axis::time ? Value(f.rate_hz) : Value("items");
      row["latency_s"] = graph->latency_s(index);
      const Index m = graph->memory_frames(index);
      row["memory_frames"] = m == Traits::kAllFrames  ? Value("all")
                             : m == Traits::kDecaying ? Value("fading")
                                                      : Value(m);
      row["scalar"] = name_of(f.scalar);
    }
    const auto& info = registry.at(n.use, n.where);
    const auto& stage = pipeline.stages[i];
    row["fit"] = !info.trained                 ? ""
                 : !stage.model.empty()        ? "model " + stage.model
                 : stage.fit == FitMode::train ? "train"
                 : stage.fit == FitMode::self  ? "self"
                                               : fmt::format("first {} s", trimmed(stage.fit_s));
    rows.push_back(row);
  }
  return rows;
}

}  // namespace percept::evaluation
