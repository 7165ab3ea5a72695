/// A pipeline file: the whole experiment in TOML, one key a line. Read strictly: an unknown key is an error.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/graph.h"
#include "core/value.h"

namespace percept {

struct TargetSpec {
  std::string from;  ///< stream of the recording, "stream" or "stream.part", or "table.column"
  double lag_s = 0;  ///< target time = frame time + lag_s
  /// A prior, "NAME" or "NAME.part": what is decoded is what its stage makes of the target, such as an image's latent.
  std::string through = {};
};

/// Of a reference "NAME" or "NAME.part" to a prior: the name.
inline std::string prior_name(const std::string& ref) { return ref.substr(0, ref.find('.')); }

enum class FitMode { train, self, first };

struct StageSpec {
  NodeSpec node;
  std::optional<TargetSpec> target;
  FitMode fit = FitMode::train;
  double fit_s = 0;                 ///< of fit = "first"
  std::string model;                ///< a prior whose model it is, or folder of a fitted model; empty: fitted here
  std::vector<std::string> priors;  ///< what its fitter is given beside the training rows
};

/// A model of images that are not the recording's, fitted before any fold.
///
///     [[prior]]
///     name = "digits"
///     images = ["vangerven69.prior", "mnist_t10k.image"]   # SET.STREAM of registered sets, or files; all together
///     labels = [6, 9]                                      # only items with one of these labels (default: all)
///     use = "image_library"                                # a trained stage, its parameters beside it
///
/// A stage uses it as what its own fitter starts from (prior = "digits", or a list), or as its model (model = "digits").
/// Where `use` needs a target, the target is the label, or what another prior makes of the image (target_through).
struct PriorSpec {
  std::string name, use;
  Value params = Value::table();
  std::vector<std::string> images;
  std::string label = "label";  ///< column with the labels, "column" or "table.column" of the set
  std::vector<Value> labels;    ///< numbers or texts
  /// Priors above it, "NAME" or "NAME.part", whose stages make of each image what it learns from, and what stands in the
  /// label's place as the target; empty: the image and the label themselves.
  std::string through = {}, target_through = {};
  std::string where;
};

/// Closed range of frames (time axis) or item positions.
using RowRange = std::pair<std::int64_t, std::int64_t>;

struct SplitSpec {
  std::string name = "official";
  std::string use = "rows";  ///< rows | time | kfold | column | nested (see evaluation/split.h)
  Value params = Value::table();
  std::string where;
};

struct SearchSpec {
  /// What is tried for one key of one node.
  struct Tried {
    std::string key;            ///< "node.key"
    std::vector<Value> values;  ///< one of these; empty: a number of the range
    double from = 0, to = 0;    ///< closed
    bool log = false;           ///< uniform in the logarithm
    bool integer = false;
  };
  std::vector<Tried> tried;     ///< in the order of the file
  std::string method = "grid";  ///< grid: every combination of the lists; random: `candidates` are drawn
  std::int64_t candidates = 0;
  std::string metric;  ///< what is best on the inner split; "" = the first of the first [[score]]
  std::int64_t inner_folds = 5;
  double gap_s = 0;      ///< between inner training and validation parts, on the time axis
  double reject = 0.01;  ///< level of the test that gives a candidate up before its last fold (evaluation/race.h)
  std::string where;
};

struct ScoreSpec {
  std::string name;          ///< "" when there is only one
  std::string from;          ///< node scored; "" = the last
  std::string part;          ///< "" = "mean" where there is one, else the first
  std::string target;        ///< "" = that of the scored node
  std::string through = {};  ///< a prior: what its stage makes of the target is compared (see TargetSpec)
  std::vector<std::string> metrics;
  std::string category;                               ///< "table.column" with the class of each item; "" = none
  std::optional<std::vector<std::string>> confounds;  ///< controls; not given: those of the axis (evaluation/scoring.h)
  std::int64_t permutations = 200;                    ///< shifts, or pairings of items, behind the p-value
  std::int64_t shuffles = 5;  ///< refits on shifted activity, or on items paired at random, behind the shuffled control
  std::int64_t bootstrap = 1000;
  double bootstrap_block_s = 0;  ///< 0: chosen from the target's autocorrelation
  std::string where;
};

struct Pipeline {
  std::filesystem::path file;
  std::string title, description;
  Value input = Value::table();  ///< [input], read by io/data loaders
  std::vector<PriorSpec> priors;
  std::vector<StageSpec> stages;
  std::vector<SplitSpec> splits;
  std::optional<SearchSpec> search;
  std::vector<ScoreSpec> scores;
  // [run]
  Scalar precision = Scalar::f32;
  Index block = 4096;
  std::uint64_t seed = 0;
  // [output]
  std::string output_folder;  ///< "" = runs/<file stem>
  bool report = true;
  bool save_predictions = true;
  bool save_models = true;
  Value live = Value::table();      ///< [live], read by realtime/live_settings.h
  Value resolved = Value::table();  ///< the whole configuration after --set, for provenance

  /// nullptr when there is none of that name.
  const PriorSpec* prior(std::string_view prior_name) const;
  /// The streams (or "stream.part", "table.column") that anything is fitted to or compared with.
  std::vector<std::string> targets() const;
};

/// Reads and checks a pipeline file. `overrides`: "node.key=value" or "section.key=value" of --set.
/// Throws ConfigError naming file, line, key.
Pipeline read_pipeline(const std::filesystem::path& file, const Registry& registry,
                       const std::vector<std::string>& overrides = {});
Pipeline parse_pipeline(const Value& config, const std::filesystem::path& file, const Registry& registry,
                        const std::vector<std::string>& overrides = {});

/// The keys of a [[stage]] that belong to the graph and not to the stage.
const std::vector<std::string>& reserved_stage_keys();
/// The keys of a [[prior]] that do not belong to its stage.
const std::vector<std::string>& reserved_prior_keys();

/// A section of the file whose keys are declared, for the reference page.
struct SectionInfo {
  std::string name;  ///< "[run]", "[[score]]"
  std::string doc;   ///< sentences
  std::vector<ParamInfo> params;
};
std::vector<SectionInfo> pipeline_sections();

}  // namespace percept
