/// Priors: models fitted before any fold, on images that are not the recording's ([[prior]], core/pipeline.h).
///
/// A prior sees its own images only, never a row of the recording, so one fit serves every fold, split and run. It is
/// kept in a folder of the user's cache under the sha256 of what decides its bits: images, labels, stage and version,
/// parameters, seed, threads, compiler, BLAS and processor. The stage's version stands for its code, as in rerun. An
/// interrupted training goes on from its checkpoint there.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/pipeline.h"
#include "core/recording.h"
#include "core/registry.h"

namespace percept::evaluation {

struct FittedPrior {
  std::string name, use;
  std::shared_ptr<const Model> model;
  std::string digest;  ///< of the model
  Index images = 0;
};
using Priors = std::vector<FittedPrior>;

struct PriorCache {
  std::filesystem::path folder;  ///< empty: nothing is kept
  bool fresh = false;            ///< fit again even where there is one
};

/// Fits, or takes from the cache, every prior that a stage uses; one that nothing uses is left out, with a warning.
/// images: what data::load_priors gave, one recording a prior in the order of the pipeline: one stream, and the table
/// "images" with the column "label" where the images have labels. base: seed, threads, counters, progress, cancel.
/// Throws DataError when an image is one of the targets that the pipeline decodes: equal up to brightness and contrast.
Priors fit_priors(const Registry& registry, const Pipeline& pipeline, const Recording& recording,
                  const std::vector<Recording>& images, const Context& base, const PriorCache& cache);

/// What the stage of a prior makes of each item of a stream; ref: "NAME" or "NAME.part". `from` is the stream, or a part
/// of one. Throws ConfigError naming `where` when the stage does not take it, or does not answer every item.
Stream passed_through(const Registry& registry, const Pipeline& pipeline, const Priors& priors, const std::string& ref,
                      const Recording& recording, const std::string& from, const std::string& where,
                      const Context& base);

/// Throws Error when it was not fitted.
const FittedPrior& find_prior(const Priors* priors, const std::string& name);
/// The priors that a stage names, as its fitter gets them.
std::vector<PriorModel> priors_of(const StageSpec& stage, const Priors* priors);
/// Their digests.
Value prior_digests(const StageSpec& stage, const Priors* priors);

/// [{name, use, version, images: count, sources: [{name, images}], labels?, params, inputs: {file: sha256}}]: what
/// provenance and report say of the priors.
Value to_value(const Registry& registry, const Pipeline& pipeline, const std::vector<Recording>& images);

}  // namespace percept::evaluation
