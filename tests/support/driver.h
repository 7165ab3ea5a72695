/// Drives one stage the way an edge of a graph does, without a graph: for contract and numeric tests.
///
///     StageInput input{time_format(3, 100.0), x};
///     Collected y = run_stage(stage, input);                  // one block, then flush
///     Collected z = run_stage(stage, input, {.block = 37});   // the same in blocks of 37
///     y.matrix(), y.keys, y.events, y.format
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/registry.h"
#include "core/stage.h"

namespace percept::testing {

/// A whole input stream in memory.
struct StageInput {
  StreamFormat format;                  ///< max_frames is set by the driver
  Eigen::MatrixXd frames;               ///< rows x frames; converted to format.scalar block by block
  std::vector<std::int64_t> keys = {};  ///< item axis: rising, one a frame; empty: 0, 1, 2, ...
  std::vector<Event> events = {};       ///< time axis: by rising onset
};

/// The input that a registry sample describes, with its scalar replaced; frames < 0: sample.frames.
/// Items get the keys 5, 8, 11, ... so that a key is never mistaken for a position.
StageInput input_of(const Sample& sample, Scalar scalar, Index frames = -1);

/// How a stream is cut into blocks.
struct Partition {
  Index block = 0;           ///< frames in a block, and max_frames; 0: the whole input in one block
  std::uint64_t random = 0;  ///< not 0: sizes 1 ... block, keyed by this and the position
  Index late = 0;            ///< events come up to so many frames after their onset, in their order
};

/// How frames lie in memory. A stage must not care.
struct Layout {
  Index input_gap = 0;   ///< scalars between two input frames, as in a part of a wider frame
  Index output_gap = 0;  ///< scalars between two output frames
  Index offset = 0;      ///< scalars by which the first frame is off its alignment
};

/// What a stage gave.
struct Collected {
  StreamFormat format;
  std::vector<double> values;      ///< frame after frame; f32 is widened, which is exact
  std::vector<std::int64_t> keys;  ///< of an item-axis output
  std::vector<Event> events;       ///< those the stage emitted
  std::vector<Index> given;        ///< for each output frame: input frames given when it came out
  Index before_flush = 0;          ///< output frames that came from process(); the others came from flush()

  Index rows() const { return format.size(); }
  Index frames() const { return static_cast<Index>(given.size()); }
  const double* frame(Index k) const { return values.data() + k * rows(); }
  Eigen::MatrixXd matrix() const;  ///< rows x frames
};

/// The first place where two outputs differ, in words; "" when they are the same: values bit for bit (two NaNs are
/// equal), keys and events. `a` is compared from its frame and event `first_a`, `first_event_a` on.
std::string difference(const Collected& a, const Collected& b, Index first_a = 0, Index first_event_a = 0);

/// Prepares the stage for the input and a partition, gives it blocks and collects what comes out.
class StageDriver {
 public:
  StageDriver(Stage& stage, const StageInput& input, Partition partition = {}, Layout layout = {},
              Context context = {});

  /// Frames [first, last) of the input, cut by the partition; last < 0: to the end. Events come with the block whose
  /// end passes their onset (or later, see Partition::late).
  void run(Index first = 0, Index last = -1);
  /// One block, whatever the partition says; frames <= max_frames. Returns how many frames came out.
  Index push(Index first, Index frames);
  /// End of stream, until the stage gives no more.
  void flush();
  /// Forgets what was collected; the stage is not touched.
  void clear();

  const Collected& output() const { return out_; }
  /// Promises of prepare() that were broken: more frames than max_frames, rows not written, writing outside its room.
  const std::vector<std::string>& breaches() const { return breaches_; }
  /// Heap allocations inside process() and flush(), 0 where they cannot be counted (AllocationCounter::available()).
  std::int64_t allocations() const { return allocations_; }

 private:
  template <class T>
  void fill_output();
  template <class T>
  void collect(Index n, const Output& out);
  Output room();
  void take(Index n, const Output& out);
  void breach(const std::string& text);

  Stage& stage_;
  const StageInput& input_;
  Partition partition_;
  Layout layout_;
  StreamFormat in_;
  std::vector<std::int64_t> keys_;
  std::vector<Index> delivery_;  ///< for each event: it comes once so many frames were given
  std::vector<std::byte> x_, y_;
  std::vector<std::int64_t> out_keys_;
  std::vector<Event> block_events_, out_events_;
  Index given_ = 0;
  Collected out_;
  std::vector<std::string> breaches_;
  std::int64_t allocations_ = 0;
};

/// Prepares, runs the whole input and flushes. Throws Error when a promise of prepare() was broken.
Collected run_stage(Stage& stage, const StageInput& input, Partition partition = {}, Layout layout = {},
                    Context context = {});

}  // namespace percept::testing
