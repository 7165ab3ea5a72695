/// The experiment engine: fits a pipeline in topological order on training rows only, and applies it elsewhere.
///
/// What stands above every learned node runs once over the whole recording and is kept (the prefix). A learned node is
/// a barrier: it is fitted on what its input gives in the training ranges, each range streamed as a recording of its
/// own, so that no state is carried across a boundary of the split. The same holds for test ranges: a filter starts
/// anew at each.
#pragma once

#include <Eigen/Core>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/pipeline.h"
#include "core/recording.h"
#include "core/runner.h"
#include "core/spool.h"
#include "evaluation/prior.h"
#include "evaluation/split.h"
#include "evaluation/spool_data.h"
#include "evaluation/work_cache.h"

namespace percept::evaluation {

struct EngineOptions {
  int threads = 1;
  Counters* counters = nullptr;
  ProgressFn progress;
  std::function<bool()> cancelled;
  double keep_from_s = 0.2;  ///< what took so long is kept on disk where the cache has a folder; less is made again
  std::shared_ptr<const Priors> priors = {};  ///< the fitted ones that the pipeline uses; may be empty
};

/// A pipeline whose learned nodes have their models.
struct Fitted {
  struct Info {
    std::string node, use;
    std::shared_ptr<const Model> model;
    std::string digest;  ///< of the model
    Index frames = 0;    ///< training frames
    double seconds = 0;
    bool loaded = false;  ///< given as a folder, not fitted in this run
  };
  std::vector<NodeSpec> nodes;  ///< every node below the prefix, in order
  std::vector<Info> models;
  const Model* model(const std::string& node) const;
};

/// When, or of which items, the frames of an edge are.
struct FrameAxis {
  StreamFormat format;             ///< time axis: start_s of frame 0
  Index count = 0;                 ///< frames
  std::vector<std::int64_t> keys;  ///< item axis: key of each frame
};

/// Frames of one node on its own clock over the whole recording; NaN where it was not run.
struct Decoded : FrameAxis {
  Eigen::MatrixXd frames;        ///< rows x count
  std::vector<RowRange> ranges;  ///< the ranges asked for, in frames of this axis; empty ones left out
};

/// The model of a stage with `model = "PRIOR"` or `model = "FOLDER"` (relative to the working folder, else to the
/// pipeline file). Throws DataError when it is of another stage or version, Error when the prior was not fitted.
std::shared_ptr<const Model> load_model(const Pipeline& pipeline, const StageSpec& stage, const Registry& registry,
                                        const Priors* priors);

/// Throws ConfigError when a stage is to start anew at events that the recording does not have.
void require_reset_events(const Recording& recording, const Pipeline& pipeline);

class Experiment {
 public:
  /// Runs the prefix. Throws ConfigError / DataError.
  Experiment(const Registry& registry, const Pipeline& pipeline, const Recording& recording, EngineOptions options,
             std::shared_ptr<WorkCache> cache = std::make_shared<WorkCache>());

  /// The stream whose rows a split counts: the first that the pipeline reads.
  const Stream& lead() const { return lead_; }
  SplitContext split_context() const;
  /// How many frames of one trial what the learned stages read remembers in the next: none where all of it starts anew
  /// there. Without trials: the memory anywhere.
  std::int64_t memory_across(const Trials& trials) const;
  const Pipeline& pipeline() const { return pipeline_; }
  const Recording& recording() const { return recording_; }
  /// The same engine, but what happens in it is not counted: for controls. Nothing runs again.
  std::shared_ptr<const Experiment> uncounted() const;

  /// The same engine, but where learned nodes read, every item is the mean over these lead rows: what is decoded then
  /// depends on the training rows and the priors, and on nothing else. Of items only.
  std::shared_ptr<const Experiment> blind(const std::vector<RowRange>& train) const;

  /// Fits every learned node that has no model on these closed ranges of lead rows, and sees nothing else.
  /// target_shift: the target is moved circularly by so many frames against the input (the shuffled control); of items
  /// it is the number of a random pairing of inputs and targets instead, 0 being the true one.
  /// A stage with StageInfo::cross_fit learns from what the learned nodes above it give for each inner fold when they
  /// are fitted on the others; TrainingBlock::groups are then the inner folds. The gap between them is at least the
  /// memory of the prefix, and trials stay as whole as in the split. Otherwise the groups are those of `inner`.
  Fitted fit(const std::vector<RowRange>& train, Index target_shift = 0, const InnerSplit& inner = {}) const;
  /// Frames of these nodes over these ranges of lead rows, in one pass; each range is streamed from a fresh start.
  std::map<std::string, Decoded> apply(const Fitted& fitted, const std::vector<std::string>& nodes,
                                       const std::vector<RowRange>& ranges) const;
  Decoded apply(const Fitted& fitted, const std::string& node, const std::vector<RowRange>& ranges) const;
  /// The target on the clock of `like` (nearest frame to t + lag_s, or the same key): outputs x frames, NaN where
  /// there is none.
  Eigen::MatrixXd truth(const TargetSpec& target, const FrameAxis& like, StreamFormat* format = nullptr) const;
  /// Of the frames that hold a target. Throws ConfigError when there is no such stream or column.
  StreamFormat target_format(const TargetSpec& target) const;
  /// Lead ranges as ranges of another clock.
  std::vector<RowRange> ranges_on(const FrameAxis& axis, const std::vector<RowRange>& lead_ranges) const;
  /// The target of a node: its own, or that of the nearest learned node above it.
  std::optional<TargetSpec> target_of(const std::string& node) const;
  /// Of each lead row, for inner folds: those of `inner`, else each item its own, and none on the time axis.
  std::vector<std::int32_t> groups_of(const InnerSplit& inner) const;
  /// A training part cut once more: items by those groups, with a clock in blocks that leave the trials of `inner` whole.
  std::vector<Fold> cut_again(const std::vector<RowRange>& train, std::int64_t folds, std::int64_t gap,
                              const InnerSplit& inner, const std::string& where) const;
  /// Names of the learned nodes in the order they are fitted.
  std::vector<std::string> learned() const;

 private:
  /// What one node gave over one uninterrupted stretch.
  struct Segment {
    StreamFormat format;
    std::shared_ptr<Spool> frames;
    std::vector<std::int64_t> keys;
  };
  /// Where the numbers of a target are: rows of a stream, or a column of a table.
  struct TargetSource {
    const Stream* stream = nullptr;
    const Column* column = nullptr;
    std::vector<double> values;  ///< of the column; a text is its place among the levels
    Index offset = 0;            ///< first row of the stream
    StreamFormat format;         ///< of the target alone
  };
  std::map<std::string, Segment> run_segment(const Recording& part, const std::vector<NodeSpec>& nodes,
                                             const std::vector<std::string>& names, Counters* counters) const;
  void run_prefix(const std::vector<NodeSpec>& nodes, const std::set<std::string>& wanted);
  /// The node and every one above it.
  std::set<std::string> with_ancestors(const std::string& node) const;
  /// All of the node's sub-graph that decides its bits, with the digests of the models in it.
  Value lineage(const std::string& node, const Fitted& fitted) const;
  /// The key of something that this engine works out.
  std::string key(const Value& what) const;
  /// Only the nodes in `wanted`.
  Fitted fit_nodes(const std::set<std::string>& wanted, const std::vector<RowRange>& train, Index target_shift,
                   const InnerSplit& inner) const;
  Fitted::Info fit_node(const StageSpec& stage, const Fitted& above, const std::vector<RowRange>& train,
                        Index target_shift, const InnerSplit& inner) const;
  /// Is the stage one to cross-fit, with anything above it that is fitted on the training rows?
  bool crosses(const StageSpec& stage) const;
  /// Appends what the stage's input is over these rows, beside the target. data is made with the first.
  /// groups: of each lead row, or empty; then `group` is that of all.
  void append_training(std::unique_ptr<SpoolData>& data, const StageSpec& stage, const Fitted& above,
                       const RowRange& rows, std::int32_t group, const std::vector<std::int32_t>& groups,
                       const std::optional<TargetSpec>& target, Counters* counters) const;
  std::int64_t lead_frame(double t_s) const;
  Recording cut(const RowRange& lead_range) const;
  RunOptions run_options(Counters* counters) const;
  /// What stands for a target in the keys of what is kept.
  Value identity(const TargetSpec& target) const;
  TargetSource find_target(const TargetSpec& target) const;
  const Stream& target_through(const TargetSpec& target) const;
  Eigen::MatrixXd target_at(const TargetSpec& target, const StreamFormat& format, Index frames,
                            std::span<const std::int64_t> keys, const RowRange* inside) const;

  Registry registry_;  ///< with the engine's own identity stage
  Pipeline pipeline_;
  Recording recording_;
  EngineOptions options_;
  std::shared_ptr<WorkCache> cache_;
  std::set<std::string> known_;   ///< streams and nodes
  std::vector<StageSpec> order_;  ///< topological
  std::set<std::string> prefix_;  ///< nodes above every learned one
  /// Targets that went through a prior, made when they are first asked for: priors are fitted after the engine is made.
  struct Through {
    std::mutex mutex;
    std::map<std::string, Stream> made;
  };
  std::shared_ptr<Through> through_ = std::make_shared<Through>();
  Recording derived_;  ///< the recording with the prefix's outputs as streams
  Index prefix_memory_ = 0;
  std::string memory_of_;
  std::string
      memory_ends_at_;  ///< label of the events at which every stage of the prefix that has one forgets; "" none
  Stream lead_;
};

}  // namespace percept::evaluation
