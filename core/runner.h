/// The offline runner: streams a recording through a graph in blocks, several in flight, in order.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/graph.h"
#include "core/recording.h"

namespace percept {

/// A block of the widest input holds no more than this: frames are fewer where rows are many.
inline constexpr Index kBlockBytes = Index{16} << 20;

struct RunOptions {
  Scalar precision = Scalar::f32;
  Index block = 4096;  ///< most frames of the fastest input in one block
  int tokens = 4;      ///< blocks in flight
  int threads = 1;
  std::uint64_t seed = 0;
  Counters* counters = nullptr;
  ProgressFn progress;
  std::function<bool()> cancelled;
  std::string spool;  ///< folder for the temporary files of whole-recording stages; "" = system's
};

/// Runs `nodes` over the recording's streams they name; each sink gets the frames of its edge in order, on the calling
/// thread or one at a time. Stages whose memory is the whole recording and that work row by row run in row tiles
/// over a temporary file. A live recording (Recording::partition) is given to the graph in the very blocks it came in,
/// with its masks and swaps, when the nodes read nothing else. Returns the format of every sink's edge.
/// Events go with the time-axis inputs. Throws Error (Interrupted when cancelled).
std::map<std::string, StreamFormat> run_offline(const Registry& registry, const Recording& recording,
                                                const std::vector<NodeSpec>& nodes, const RunOptions& options,
                                                const std::map<std::string, SinkFn>& sinks);

/// The format of one node's (or stream's) edge, before anything runs.
StreamFormat edge_format(const Registry& registry, const Recording& recording, const std::vector<NodeSpec>& nodes,
                         const RunOptions& options, const std::string& name);

/// The names of the recording's streams that these nodes read.
std::vector<std::string> input_names(const Recording& recording, const std::vector<NodeSpec>& nodes);

}  // namespace percept
