/// A pipeline is a graph of named nodes, one input and one output each. A list in `from` is a join, made by the graph.
/// The same prepared graph runs offline (big blocks, several in flight), and live (one packet at a time).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/registry.h"
#include "core/stage.h"

namespace percept {

/// One [[stage]] of a pipeline file.
struct NodeSpec {
  std::string name;               ///< unique; the stage's name where none is given
  std::string use;                ///< registry name
  std::vector<std::string> from;  ///< node, input stream, or "node.part"; more than one is a join
  std::string align = "exact";    ///< of a join: exact | nearest
  Value params = Value::table();
  std::string queue;                   ///< live only (realtime/live_runner.h): "", block, drop_oldest or newest
  Index queue_blocks = 16;             ///< blocks that may wait in that queue
  std::string reset;                   ///< label of the events at whose onset the stage starts anew; "" none
  std::string where;                   ///< for messages: "file.toml:12: kalman"
  std::shared_ptr<const Model> model;  ///< of a trained node
};

/// A named input of the graph.
struct InputSpec {
  std::string name;
  StreamFormat format;  ///< max_frames is set by the runner
};

/// Frames of one edge, owned: what one block leaves at each node. One slot a block in flight.
struct EdgeBuffer {
  std::vector<std::byte> bytes;
  std::vector<std::int64_t> keys;
  std::vector<Event> events;
  Index n_frames = 0;
  std::int64_t first_frame = 0;
  bool missing = false;  ///< of the block these frames come from
  ConstFrames outside;   ///< an input's frames where they lie, when no conversion is needed
};
struct Slot {
  std::vector<EdgeBuffer> edges;  ///< by node index; inputs first
};

/// What an output edge gives: called in order.
using SinkFn = std::function<void(const Block&)>;

/// A prepared graph. Not copyable; one run at a time.
///
/// A node with `reset` starts anew (Stage::reset) before the first frame at or after the onset of each event of that
/// label, wherever the block was cut: trials that were glued together do not know of each other. An event that comes
/// after its frame resets before the next one. Counted as "resets" and "late_resets". Only for stages that give each
/// frame at once and have a memory.
class Graph {
 public:
  /// Makes every stage and prepares it in topological order. Throws ConfigError (unknown stage, loop, unknown input,
  /// joins of unequal rate, refused format).
  /// precision: the scalar of every edge. max_frames: the largest block pushed in.
  Graph(const Registry& registry, std::vector<InputSpec> inputs, std::vector<NodeSpec> nodes, Scalar precision,
        Index max_frames, Context context);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  std::size_t input_count() const;
  std::size_t node_count() const;                 ///< inputs not counted
  const std::vector<std::string>& names() const;  ///< inputs, then nodes in the order they run
  int index_of(const std::string& name) const;    ///< -1 when there is none
  const StreamFormat& format(int index) const;    ///< of the edge that an input or node gives
  Traits traits(int index) const;
  Stage& stage(int index);
  /// Latency from the inputs to that edge [s], and its memory in input frames (Traits::memory_frames rules).
  double latency_s(int index) const;
  Index memory_frames(int index) const;

  // --- running, serial: one slot, one block at a time ------------------------------------------------------------
  /// Sets who gets the frames of a node (or input). Before the first push.
  void on_output(int index, SinkFn sink);
  /// Called after every step of push() and flush(), when all nodes have run: view() shows what each edge got.
  void on_step(std::function<void(const Slot&)> sink);
  /// Called with what each node took [ns] in push(), where it got frames. Costs two readings of the clock a node.
  void on_time(std::function<void(int index, std::int64_t ns)> sink);
  /// One block of one input. x may have either scalar; frames <= max_frames. Runs everything downstream.
  /// Allocates nothing when every stage is real-time.
  void push(int input, const Block& block) noexcept;
  /// One block of every input at once (same order as the inputs), so that branches advance together.
  void push(std::span<const Block> blocks) noexcept;
  /// End of all inputs: flushes every node in order.
  void flush() noexcept;
  void reset() noexcept;

  // --- running, several blocks in flight (used by the offline engine) ---------------------------------------------
  Slot make_slot() const;
  /// Forgets every frame of the slot.
  void clear(Slot& slot) const noexcept;
  /// Room for the next block of an input, to be filled by the reader and then given to load().
  MutableFrames input_room(Slot& slot, int input) const noexcept;
  /// Holds one block of an input; frames of the edge's scalar are not copied and must stay until the slot is done.
  void load(Slot& slot, int input, const Block& block) noexcept;
  /// One node on what the slot holds. Blocks in order, but for per-frame nodes, which may run in any order and at once.
  /// False when nothing came its way.
  bool run_node(int index, Slot& slot) noexcept;
  bool any_order(int index) const;
  /// Gives every per-frame node `n` instances, so that n blocks may be in it at once.
  void prepare_workers(int n);
  /// What the node holds back at the end of the stream, a piece a call; false when there is nothing left.
  bool flush_node(int index, Slot& slot) noexcept;
  void deliver(int index, const Slot& slot) noexcept;  ///< calls the sink
  Block view(int index, const Slot& slot) const noexcept;

  // --- live ------------------------------------------------------------------------------------------------------
  /// Puts a new stage of the same kind in the place of a node, between two blocks: prepared here, state copied there.
  /// Throws ConfigError when its output format differs. May be called from another thread than push().
  /// tag: the caller's name for it.
  void swap(int index, std::unique_ptr<Stage> fresh, std::int64_t tag = 0);
  struct Swap {
    int index = 0;
    std::unique_ptr<Stage> stage;
    std::int64_t tag = 0;
  };
  /// Several between the same two blocks, all or none: stages that were fitted together work together.
  void swap(std::vector<Swap> all);
  std::int64_t swaps_done() const noexcept;
  /// Tag of the swap that put the node's present stage there; on the thread of push().
  std::int64_t swap_tag(int index) const noexcept;

  std::vector<std::byte> save_state();
  void restore_state(const std::vector<std::byte>& state);
  std::int64_t lost_events() const noexcept;
  std::int64_t dropped_items() const noexcept;  ///< by joins: no partner with that key

 private:
  void run_all() noexcept;

  struct Node;
  /// process() of a node with `reset`.
  static Index process_anew(Node& node, const Block& in, Output& out) noexcept;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace percept
