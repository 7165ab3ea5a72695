/// The live runner: the same graph as offline, one small packet at a time, on one real-time thread; what cannot keep its
/// time runs behind a queue, on a thread of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/graph.h"
#include "realtime/latency.h"
#include "realtime/queue.h"

namespace percept {

/// What a device hands over at once.
struct Packet {
  ConstFrames x = {};                  ///< of either scalar
  std::int64_t counter = 0;            ///< the device's count of the first frame
  std::span<const Event> events = {};  ///< recording time; one that comes late keeps its true onset
  std::int64_t received_ns = 0;  ///< steady clock when it arrived, so that waiting counts as latency; 0: at push()
};

struct LiveOptions {
  Scalar precision = Scalar::f32;
  Index block = 256;                               ///< frames the graph takes at once; a larger packet goes in pieces
  bool require_real_time = true;                   ///< refuse on push()'s thread what may allocate or take long
  double max_gap_s = 60;                           ///< a jump of the counter beyond this is a broken counter, not a gap
  std::optional<std::int64_t> first_counter = {};  ///< the counter of frame 0; not set: that of the first packet
  std::uint64_t seed = 0;
  Counters* counters = nullptr;
};

/// What became of the packets so far.
struct LiveCounts {
  std::int64_t packets = 0, frames = 0;       ///< given to the graph, missing frames not counted
  std::int64_t gaps = 0, missing_frames = 0;  ///< the counter jumped; these frames are NaN
  std::int64_t late_packets = 0;              ///< a duplicate, or it came after its place was filled: dropped
  std::int64_t repeated_frames = 0;           ///< leading frames of a packet that overlapped the one before: dropped
  std::int64_t refused_packets = 0;  ///< no such input, wrong row count, no frames, or an impossible counter: dropped
  std::int64_t lost_events = 0;      ///< came with what was dropped, or found no room in the graph
  std::int64_t swaps = 0;
  struct Queue : QueueCounts {
    std::string node;  ///< the one with the `queue` key
  };
  std::vector<Queue> queues;  ///< in the order the graph runs
};

/// Runs a graph on one or more inputs with a clock. push() allocates nothing once constructed.
/// Per input, a missing frame is a NaN frame: frame k of the input is the device's frame first_counter + k, always.
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
  /// Who gets the frames of a node: on the thread of push(), or on the queue's for a node behind one. Before the first
  /// push.
  void on_output(const std::string& node, SinkFn sink);
  /// Who is told of gaps ("gap", value: frames) and swaps ("swap NODE"), in recording time, on the thread of push().
  /// Before the first push.
  void on_event(std::function<void(const Event&)> sink) { event_sink_ = std::move(sink); }

  /// One packet of one input, through the whole graph as far as the queues. One thread at a time.
  void push(const Packet& packet, int input = 0) noexcept;
  /// End of every input: gives what stages hold back, empties the queues and ends their threads. Queues lose nothing
  /// from here on. Packets that come later are refused.
  void finish() noexcept;

  /// Puts a newly fitted model into a trained node, between two packets; the node's state lives on.
  /// Any thread. Throws ConfigError when the node is not trained or the model gives another output.
  void swap(const std::string& node, std::shared_ptr<const Model> model);

  /// Any thread.
  LiveCounts counts() const;
  /// From a packet's arrival until every sink has its frames, queues and what is behind them left out.
  const LatencyHistogram& latency() const { return latency_; }
  LatencyHistogram& latency() { return latency_; }

 private:
  struct Clock {
    std::int64_t first = 0, next = 0;  ///< counter of frame 0; index of the frame that comes next
    bool started = false;
    std::int64_t max_gap = 0;
  };
  struct Section;
  struct Place {
    Section* section = nullptr;
    int index = -1;  ///< in the section's graph
  };
  /// Where a node or an input runs. Throws ConfigError when there is none of that name.
  Place place_of(const std::string& node) const;
  void give(int input, ConstFrames x, std::span<const Event> events) noexcept;
  void tell_swaps() noexcept;
  void end_threads() noexcept;

  Registry registry_;  ///< a copy, with one stage more
  std::vector<NodeSpec> nodes_;
  LiveOptions options_;
  std::vector<std::string> names_;  ///< inputs, then nodes
  // The first runs on the thread of push(); each other one behind its queue. A section is fed by an earlier one.
  std::vector<std::unique_ptr<Section>> sections_;
  std::vector<Clock> clocks_;
  std::vector<std::byte> missing_;  ///< NaN for one block of the widest input
  std::function<void(const Event&)> event_sink_;
  Label gap_label_;
  bool finished_ = false;
  LatencyHistogram latency_;
  Counter packets_, frames_, gaps_, missing_frames_, late_packets_, repeated_frames_, refused_packets_, lost_events_;
};

}  // namespace percept
