/// The live runner: the same graph as offline, one small packet at a time, on one real-time thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/graph.h"
#include "realtime/latency.h"

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
  bool require_real_time = true;                   ///< refuse stages that may allocate or take unbounded time
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
};

/// Runs a graph on one or more inputs with a clock. push() allocates nothing once constructed.
/// Per input, a missing frame is a NaN frame: frame k of the input is the device's frame first_counter + k, always.
class LiveRunner {
 public:
  /// Throws ConfigError naming the node when a stage is not causal (with its causal relative), or not real-time while
  /// that is required, or an input has no clock; and whatever Graph throws.
  LiveRunner(const Registry& registry, std::vector<InputSpec> inputs, std::vector<NodeSpec> nodes, LiveOptions options);

  /// The format of the edge that a node or input gives. Throws ConfigError when there is none of that name.
  const StreamFormat& format(const std::string& node) const;
  /// Who gets the frames of a node, on the thread of push(). Before the first push.
  void on_output(const std::string& node, SinkFn sink);
  /// Who is told of gaps ("gap", value: frames) and swaps ("swap NODE"), in recording time, on the thread of push().
  /// Before the first push.
  void on_event(std::function<void(const Event&)> sink) { event_sink_ = std::move(sink); }

  /// One packet of one input, through the whole graph. One thread at a time.
  void push(const Packet& packet, int input = 0) noexcept;
  /// End of every input: gives what stages hold back.
  void finish() noexcept { graph_.flush(); }

  /// Puts a newly fitted model into a trained node, between two packets; the node's state lives on.
  /// Any thread. Throws ConfigError when the node is not trained or the model gives another output.
  void swap(const std::string& node, std::shared_ptr<const Model> model);

  /// Any thread.
  LiveCounts counts() const noexcept;
  /// From a packet's arrival until every sink has its frames.
  const LatencyHistogram& latency() const { return latency_; }
  LatencyHistogram& latency() { return latency_; }

 private:
  struct Clock {
    std::int64_t first = 0, next = 0;  ///< counter of frame 0; index of the frame that comes next
    bool started = false;
    std::int64_t max_gap = 0;
  };
  int index_of(const std::string& node) const;
  void give(int input, ConstFrames x, std::span<const Event> events) noexcept;

  const Registry& registry_;
  std::vector<NodeSpec> nodes_;
  LiveOptions options_;
  Graph graph_;
  std::vector<Clock> clocks_;
  std::vector<std::byte> missing_;  ///< NaN for one block of the widest input
  std::function<void(const Event&)> event_sink_;
  Label gap_label_;
  std::vector<Label> swap_labels_;    ///< by index in the graph
  std::vector<const Stage*> stages_;  ///< by index in the graph, to see which were swapped
  std::int64_t swaps_seen_ = 0;
  LatencyHistogram latency_;
  Counter packets_, frames_, gaps_, missing_frames_, late_packets_, repeated_frames_, refused_packets_, lost_events_;
};

}  // namespace percept
