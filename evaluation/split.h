/// Which frames are trained on and which are tested. Stated before anything is fitted.
///
///     [[split]]                        every use may give gap_s (time axis) or gap_rows: training frames nearer than
///     use = "rows"                     that to a test frame are dropped; and inner_folds (default 5): in how many
///                                      blocks a training part is cut again (nested, and StageInfo::cross_fit)
///     train_rows = [0, 4999]           closed ranges of frames: [first, last] or [[first, last], ...]
///     test_rows = [5000, 5999]
///
///     use = "time"                     half-open ranges of recording time: first <= t < last
///     train_s = [0, 500]               ... or [[0, 100], [200, 500]]
///     test_s = [505, 600]
///
///     use = "kfold"                    each block is tested once, the others train
///     folds = 5
///     rows = [0, 4999]                 only these (default: all)
///     assign = "interleaved"           row k to block k modulo folds (default: "contiguous" blocks); only items may
///                                      be interleaved, since neighbours in time know each other
///     stratify = "item.label"          so within each level of a column: every block has the same share of each
///
///     use = "nested"                   kfold, and Fold::inner holds inner_folds blocks of its training part
///     folds = 5
///     inner_folds = 4
///
///     by = "trial"                     rows, time, kfold, nested: no trial is cut in two. A trial begins at each event
///                                      of that label and lasts to the next. Every border, of the inner folds too,
///                                      moves to the nearest beginning of a trial, and a gap drops whole trials.
///
///     use = "column"                   leave one level of a table's column out; use = "subject" or "run" is short for
///     column = "subject"               column = "subject" or "run"; "item.subject" where two tables have one
///     test_levels = ["s3"]             only these are tested, together (default: each in turn)
///     train_levels = ["s1", "s2"]      only these are trained on (default: all others)
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/pipeline.h"
#include "core/recording.h"
#include "core/stage.h"

namespace percept::evaluation {

/// Rows that stay together.
struct Trials {
  std::string label;                 ///< of the events they begin at; "": every row may be cut off by itself
  std::vector<std::int64_t> starts;  ///< first row of each, rising; what lies before the first is one more
  /// The rows of all trials that touch these.
  RowRange around(RowRange rows) const;
};

/// How a training part is cut once more, for a stage that learns from what others gave out of fold.
struct InnerSplit {
  std::int64_t folds = 5;
  std::int64_t gap = 0;  ///< frames dropped on each side of what is held out
  Trials trials = {};
  /// Of each lead row: rows of one group are never apart, neither here nor in the inner folds of a fitter
  /// (TrainingBlock::groups). Empty: on the time axis each training range is one; each item is one. Items that are
  /// split by a column have its levels, unless they train on one level alone.
  std::vector<std::int32_t> groups = {};
};
Value to_value(const InnerSplit& inner);

struct Fold {
  std::string name;                   ///< the split's name, "fold 1", or the level
  std::vector<RowRange> train, test;  ///< closed, rising, never touching
  std::vector<Fold> inner;            ///< of a nested split
  InnerSplit inner_split = {};        ///< its own inner_folds and gap
};

/// What a split is made on.
struct SplitContext {
  Axis axis = Axis::time;
  std::int64_t frames = 0;
  double rate_hz = 0, start_s = 0;             ///< frame k stands for start_s + k / rate_hz
  Index memory_frames = 0;                     ///< of the stages before the first fitted node (Traits::memory_frames)
  std::string memory_of;                       ///< names them in the message: "lags"
  std::string memory_ends_at;                  ///< they all start anew at events of this label; "" or do not
  const std::vector<Event>* events = nullptr;  ///< for `by`
  std::vector<std::int64_t> segment_starts = {0};          ///< first frame of each recording; memory ends there
  const std::vector<Table>* tables = nullptr;              ///< for column; row of a frame: its key, or its position
  std::vector<std::int64_t> keys;                          ///< of each frame; empty: position
  std::map<std::string, std::vector<std::string>> labels;  ///< for column, looked up first: one label a frame
};

/// Throws ConfigError naming the key: unknown key, wrong type, rows past the end, an empty part, training and test
/// rows in common, a gap shorter than the memory of the stages before (both numbers named), trials that are not there.
std::vector<Fold> make_folds(const SplitSpec& spec, const SplitContext& context);

/// Its keys, for the reference page.
SectionInfo split_section();

/// Contiguous blocks of equal size (as nearly as whole trials allow) inside the training part only; `gap` frames, and
/// the rest of the trials they reach into, are dropped on each side of a test block. Throws ConfigError (naming
/// `where`) when a part would be empty.
std::vector<Fold> inner_folds(const std::vector<RowRange>& train, std::int64_t folds, std::int64_t gap,
                              const std::string& where = "search.inner_folds", const Trials& trials = {});
/// The same for items: whole groups are dealt to the folds in turn, in the order in which they come.
std::vector<Fold> inner_folds_of_groups(const std::vector<RowRange>& train, std::int64_t folds,
                                        const std::vector<std::int32_t>& groups,
                                        const std::string& where = "search.inner_folds");

/// Frames in the ranges.
std::int64_t count_frames(const std::vector<RowRange>& ranges);
/// "0..4999, 5100..5999"
std::string describe(const std::vector<RowRange>& ranges);
/// For a report: {"name", "use", "parameters", "frames", "rate_hz", "memory_frames",
/// "folds": [{"name", "train", "test", "train_frames", "test_frames"}]}.
Value to_value(const SplitSpec& spec, const std::vector<Fold>& folds, const SplitContext& context);

}  // namespace percept::evaluation
