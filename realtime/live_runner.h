/// The live runner: the same graph as offline, one small packet at a time, on one real-time thread; what cannot keep its
/// time runs behind a queue, on a thread of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/graph.h"
#include "realtime/latency.h"
#include "realtime/queue.h"
#include "realtime/sequencer.h"
#include "realtime/source.h"

namespace percept {

struct LiveOptions {
  Scalar precision = Scalar::f32;
  Index block = 256;                               ///< frames the graph takes at once; a larger packet goes in pieces
  bool require_real_time = true;                   ///< refuse on push()'s thread what may allocate or take long
  double max_gap_s = 60;                           ///< a jump of the counter beyond this is a broken counter, not a gap
  Index hold_packets = 0;                          ///< packets of an input that may wait for an earlier one
  std::optional<std::int64_t> first_counter = {};  ///< the counter of frame 0; not set: that of the first packet
  bool time_nodes = false;                         ///< measure every node (LiveRunner::node_times)
  std::uint64_t seed = 0;
  Counters* counters = nullptr;
};

/// What became of the packets so far: the sum over the inputs, and each by itself.
struct LiveCounts : SequenceCounts {
  std::int64_t swaps = 0;
  struct Queue : QueueCounts {
    std::string node;  ///< the one with the `queue` key
  };
  std::vector<Queue> queues;  ///< in the order the graph runs
  std::vector<SequenceCounts> inputs;
};

/// One block as the graph was given it. The same steps give the same bits again (core/recording.h: LivePartition).
struct LiveStep {
  int input = 0;
  std::int64_t first_frame = 0;
  Index frames = 0;
  std::int64_t packet = -1;  ///< number of the packet in the order of push(); -1: these frames are missing
  Index offset = 0;          ///< first of its frames that is in this step
  std::span<const Event> events;
};

/// Runs a graph on one or more inputs with a clock. push() allocates nothing once constructed.
/// Per input, a missing frame is a NaN frame: frame k of the input is the device's frame first_counter + k, always
/// (realtime/sequencer.h says what becomes of packets that come twice, late or in another order).
///
/// A node with `queue` and everything below it run on a thread of their own, behind a ring of `queue_blocks` blocks. A
/// queue further down starts another thread. What happens when the ring is full:
/// - `block`: push() waits. Nothing is lost and every output has the bits of the offline run; for replays, and for
///   threads below another queue.
/// - `drop_oldest`: the block that waited longest is lost and counted. Its frames come as NaN frames, so the clock
///   holds, and stages with a state predict over them; its events come with the NaN frames.
/// - `newest`: only the newest block waits. As above, but stages without a state (Traits::per_frame) are not run on what
///   was lost: they give NaN at once, so a stage that is slow for each frame always works on the present.
/// Items have keys instead of a clock: lost ones are left out.
/// push() takes no lock either way. A stage that cannot keep up even with NaN frames falls behind without end: its
/// queue's lost_frames rise and rise.
class LiveRunner {
 public:
  /// Throws ConfigError naming the node when a stage is not causal (with its causal relative), or not real-time and not
  /// behind a queue while that is required, a join has inputs of different threads, or an input has no clock; and
  /// whatever Graph throws.
  LiveRunner(const Registry& registry, std::vector<InputSpec> inputs, std::vector<NodeSpec> nodes, LiveOptions options);
  /// Stops every thread; what still waits in a queue is not run.
  ~LiveRunner();

  /// The format of the edge that a node or input gives. Throws ConfigError when there is none of that name.
  const StreamFormat& format(const std::string& node) const;
  /// Whether a node runs on the thread of push(), not behind a queue. Throws ConfigError when there is none of that name.
  bool on_push_thread(const std::string& node) const;
  /// Who gets the frames of a node: on the thread of push(), or on the queue's for a node behind one. Before the first
  /// push.
  void on_output(const std::string& node, SinkFn sink);
  /// Who is told of gaps ("gap", value: frames), swaps ("swap NODE", id: what swap() returned) and masks ("mask",
  /// "unmask", row), in recording time, on the thread of push(). Before the first push.
  void on_event(std::function<void(const Event&)> sink) { event_sink_ = std::move(sink); }
  /// Called before each block that the graph is given, on the thread of push(). Before the first push.
  void on_step(std::function<void(const LiveStep&)> sink) { step_sink_ = std::move(sink); }

  /// One packet of one input, through the whole graph as far as the queues. One thread at a time. Packets are numbered
  /// from 0 in the order of the calls.
  Fate push(const Packet& packet, int input = 0) noexcept;
  /// Nothing earlier is waited for any more: what is missing before the packets that are held is given as missing.
  void release(int input) noexcept;
  /// The next frames of an input are given as missing, as after a gap: predict-only steps for a device that is silent.
  void give_up(std::int64_t frames, int input = 0) noexcept;
  /// Index of the frame that an input is expected to bring next, and the device's counter of its frame 0.
  std::int64_t next_frame(int input) const noexcept;
  std::int64_t first_counter(int input) const noexcept;
  Index held(int input) const noexcept;
  /// An event from outside, told to the graph with the next block of any input. Any thread. False when there is no room
  /// (more than 64 wait).
  bool post(const Event& event);
  /// The same on the thread of push(), between its calls or inside a sink: without a lock.
  bool tell(const Event& event) noexcept;
  /// From the next block on a row of an input is NaN, or is taken again; its samples are not touched. Any thread.
  /// Throws ConfigError when there is no such row.
  void mask(int input, Index row, bool masked);
  /// End of every input: gives what stages hold back, empties the queues and ends their threads. Queues lose nothing
  /// from here on. Packets that come later are refused.
  void finish() noexcept;

  /// Puts a newly fitted model into a trained node, between two packets; the node's state lives on.
  /// Any thread. Returns the number of this swap, from 1. Throws ConfigError when the node is not trained or the model
  /// gives another output.
  std::int64_t swap(const std::string& node, std::shared_ptr<const Model> model);
  struct NewModel {
    std::string node;
    std::shared_ptr<const Model> model;
  };
  /// Several between the same two packets, all or none; their numbers follow each other. `announce` is told the number of
  /// each before. Throws ConfigError also when the nodes do not run on one thread. Returns the first number.
  std::int64_t swap(const std::vector<NewModel>& models,
                    const std::function<void(std::int64_t number, const NewModel&)>& announce = {});

  /// Any thread.
  LiveCounts counts() const;
  /// From a packet's arrival until every sink has its frames, queues and what is behind them left out.
  const LatencyHistogram& latency() const { return latency_; }
  LatencyHistogram& latency() { return latency_; }
  /// What one step of each node took, with LiveOptions::time_nodes; in the order the graph runs.
  struct NodeTime {
    std::string node;
    const LatencyHistogram* took = nullptr;
  };
  const std::vector<NodeTime>& node_times() const { return node_times_; }
  std::size_t input_count() const { return inputs_.size(); }

 private:
  struct Input;
  struct Section;
  struct Place {
    Section* section = nullptr;
    int index = -1;  ///< in the section's graph
  };
  /// Where a node or an input runs. Throws ConfigError when there is none of that name.
  Place place_of(const std::string& node) const;
  void give(Input& input, ConstFrames x, std::span<const Event> events, LiveStep step) noexcept;
  void apply_masks(Input& input) noexcept;
  void tell_swaps() noexcept;
  void end_threads() noexcept;

  Registry registry_;  ///< a copy, with one stage more
  std::vector<NodeSpec> nodes_;
  LiveOptions options_;
  std::vector<std::string> names_;  ///< inputs, then nodes
  // The first runs on the thread of push(); each other one behind its queue. A section is fed by an earlier one.
  std::vector<std::unique_ptr<Section>> sections_;
  std::vector<std::unique_ptr<Input>> inputs_;
  std::vector<std::byte> missing_;  ///< NaN for one block of the widest input
  std::function<void(const Event&)> event_sink_;
  std::function<void(const LiveStep&)> step_sink_;
  Label gap_label_, mask_label_, unmask_label_;
  bool finished_ = false;
  std::int64_t pushed_ = 0;
  std::int64_t swap_number_ = 0;  ///< of the last swap
  // events from other threads; those who post wait for each other, push() for nobody
  std::mutex post_mutex_;
  SpscRing<Event> posted_{64};
  SpscRing<Event> told_{64};  ///< by the thread of push() itself
  std::mutex swap_mutex_;     ///< of those who swap
  std::vector<Event> step_events_;
  LatencyHistogram latency_;
  std::vector<std::unique_ptr<LatencyHistogram>> node_histograms_;
  std::vector<NodeTime> node_times_;
  Counter refused_packets_, lost_events_;
};

}  // namespace percept
