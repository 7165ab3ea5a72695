/// The one interface of everything that processes frames, offline and live.
#pragma once

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "core/context.h"
#include "core/stream.h"

namespace percept {

/// What a prepared stage says of itself.
struct Traits {
  bool causal = true;       ///< an output never depends on later input (beyond its declared latency)
  bool real_time = false;   ///< process() allocates nothing and takes bounded time
  bool per_frame = false;   ///< no state: one instance a worker, frames in any order
  bool per_row = false;     ///< rows do not mix: may run in tiles of rows x all frames
  double latency_s = 0;     ///< already subtracted from the output's start_s
  Index memory_frames = 0;  ///< earlier input frames an output depends on; kAllFrames: the whole recording
  static constexpr Index kAllFrames = -1;
  static constexpr Index kDecaying = -2;  ///< a recursion: all earlier frames, fading
};

/// One visit saves or restores: named arrays of fixed size. State is what process() changes;
/// parameters and model are not state.
class StateVisitor {
 public:
  virtual ~StateVisitor() = default;
  virtual void raw(const char* name, void* data, std::size_t bytes) noexcept = 0;
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void operator()(const char* name, T& v) noexcept { raw(name, &v, sizeof v); }
  template <class S, int R, int C, int O, int MR, int MC>
  void operator()(const char* name, Eigen::Matrix<S, R, C, O, MR, MC>& m) noexcept {
    raw(name, m.data(), static_cast<std::size_t>(m.size()) * sizeof(S));
  }
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void operator()(const char* name, std::vector<T>& v) noexcept { raw(name, v.data(), v.size() * sizeof(T)); }
};

/// A stage turns frames into frames. Life: constructed from (parameters, model), prepare() once, then
/// process() for every block and flush() at the end; reset() makes it as new.
class Stage {
 public:
  virtual ~Stage() = default;
  /// Validates, allocates everything, returns the output's format. Its max_frames is the most that one
  /// process() or flush() gives for an input block of in.max_frames.
  /// Throws ConfigError naming node, key, value and what was expected.
  virtual StreamFormat prepare(const StreamFormat& in, Context& context) = 0;
  /// Consumes the whole block; returns how many frames it wrote to out.y. Throws nothing.
  virtual Index process(const Block& in, Output& out) noexcept = 0;
  /// End of stream; called until it returns 0.
  virtual Index flush(Output&) noexcept { return 0; }
  virtual void reset() noexcept = 0;
  virtual void visit_state(StateVisitor&) noexcept {}
  virtual Traits traits() const { return {}; }
};

/// A stage whose author writes `template <class T> Index run(const Block&, FrameSpan<const T>, Output&, FrameSpan<T>) noexcept`
/// once; the edge's scalar picks the instance. Input and output have the same scalar.
template <class D>
class Typed : public Stage {
 public:
  Index process(const Block& b, Output& o) noexcept final {
    auto& d = static_cast<D&>(*this);
    return b.x.scalar == Scalar::f32 ? d.template run<float>(b, b.x.as<float>(), o, o.y.as<float>())
                                     : d.template run<double>(b, b.x.as<double>(), o, o.y.as<double>());
  }
};

/// The state as bytes: save(stage) -> restore(stage) continues identically.
std::vector<std::byte> save_state(Stage& stage);
/// Throws Error when the bytes are of another stage or size (checked by name and size of every array).
void restore_state(Stage& stage, const std::vector<std::byte>& state);
/// Copies the state of one prepared stage into another of the same kind without allocating
/// (`scratch` has room for the whole state: state_bytes(stage)). False when names or sizes differ.
bool copy_state(Stage& from, Stage& to, std::vector<std::byte>& scratch) noexcept;
std::size_t state_bytes(Stage& stage);
/// Equal for stages whose arrays have the same names and sizes in the same order.
std::uint64_t state_signature(Stage& stage);

/// Throws ConfigError "node: ..." unless the condition holds.
void require(bool ok, const Context& context, const std::string& key, const std::string& found,
             const std::string& expected);
/// The common refusals of prepare().
void require_time(const StreamFormat& in, const Context& context, const char* stage);
void require_items(const StreamFormat& in, const Context& context, const char* stage);

}  // namespace percept
