/// One whole run of a pipeline: split, fit, decode, score, audit, and the folder that holds it all.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/pipeline.h"
#include "core/recording.h"
#include "evaluation/experiment.h"

namespace percept::evaluation {

struct RunRequest {
  Pipeline pipeline;
  Recording recording;
  EngineOptions options;
  std::filesystem::path output;  ///< folder; replaced as a whole when the run is done
  /// Folder of what a killed run had worked out, taken up by the next one and removed when a run ends well. Empty: what
  /// is worked out stays in memory.
  std::filesystem::path work = {};
  std::vector<Recording> priors = {};  ///< the images of each prior of the pipeline (prior.h)
  PriorCache prior_cache = {};
};

struct RunOutcome {
  /// {scores, intervals, sd?, controls, items?, trust?, split, calibration, models, priors, search, counters, warnings}: nothing in it depends on
  /// when or how fast it was made. Keys of scores: [score.][split.]metric, a level left out where there is only one.
  Value result;
  double seconds = 0;
};

/// With a [[split]]: fits fold by fold, scores and audits the test rows. Without: streams the recording through the
/// pipeline and stores what the last stage gives (every learned node then needs `model`, or fit = "self" | "first").
/// The folder gets result.json, provenance.json, config.toml, report.html, predictions.percept (or output.percept),
/// models/, and run.json, the only file that a second run of the same thing does not repeat byte for byte.
///
/// predictions.percept has, of every score and split, the streams PREFIXtruth, PREFIXdecoded (the scored part, in the
/// target's shape), PREFIXcovariance where there is one, and of items PREFIXframe: all parts of what the node gives (mean,
/// sd, samples, ...). PREFIX is "SCORE.SPLIT.", a level left out where there is only one. Items stand in the order of
/// their keys, which are rows of the table "item" of the recording, stored with them.
///
/// Of items, result.json also has sd (standard deviation of a metric over the items) and items: {keys, values: {metric or
/// measure of item_trust.h: [one number an item]}}, under the same levels as the scores.
RunOutcome run_pipeline(const Registry& registry, const RunRequest& request);

/// `percept fit`: fits on the training rows of the first split (on everything when there is none) and writes each
/// model to output/<node>. Returns {models: [...], output}.
Value fit_pipeline(const Registry& registry, const RunRequest& request);

}  // namespace percept::evaluation
