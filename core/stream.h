/// The data model: every modality is a stream of frames.
/// A frame is one column of `rows` scalars; an edge of a graph is typed by its StreamFormat, fixed once prepared.
#pragma once

#include <Eigen/Core>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace percept {

using Index = Eigen::Index;

enum class Scalar : std::uint8_t { f32, f64 };
/// `time`: frames have a clock. `item`: a trial, a subject, an image; a frame has a key and no rate.
enum class Axis : std::uint8_t { time, item };

inline std::size_t bytes_of(Scalar s) { return s == Scalar::f32 ? 4 : 8; }
const char* name_of(Scalar s);
const char* name_of(Axis a);

/// One row of a frame: a sensor, unit, ROI, voxel or feature.
struct Channel {
  std::string name;
  std::string kind;                               ///< "eeg", "unit", "velocity", ... ("" unknown)
  std::string unit;                               ///< SI unit; "" means the part's
  std::optional<std::array<double, 3>> position;  ///< sensor position [m]
  bool good = true;
  bool operator==(const Channel&) const = default;
};

/// One named piece of a frame. Usually a frame has one part; a posterior is "mean" + "covariance".
struct Part {
  std::string name = "x";
  std::vector<Index> shape;  ///< last index fastest: {64} EEG, {samples, channels} epoch, {3, 256, 256} image
  std::string unit = "1";
  std::vector<Channel> rows;        ///< one for each value, or for each index of the first axis; may be empty
  std::vector<std::string> levels;  ///< names of the categories when the values are categories
  Index size() const;
  bool operator==(const Part&) const = default;
};

/// What an edge carries.
struct StreamFormat {
  Axis axis = Axis::time;
  Scalar scalar = Scalar::f32;
  double rate_hz = 0;  ///< > 0 on the time axis, 0 on the item axis
  double start_s = 0;  ///< frame k stands for start_s + k / rate_hz (a bin stands for its centre)
  std::vector<Part> parts;
  Index max_frames = 1;  ///< largest block that process() will see or give; 1 = sample by sample

  Index size() const;  ///< scalars in one frame
  double time_of(std::int64_t frame) const { return start_s + static_cast<double>(frame) / rate_hz; }
  /// The frame nearest to a time (may be negative or past the end).
  std::int64_t nearest_frame(double t_s) const { return std::llround((t_s - start_s) * rate_hz); }
  /// The first frame at or after a time; a millionth of a frame is forgiven.
  std::int64_t frame_from(double t_s) const {
    return static_cast<std::int64_t>(std::ceil((t_s - start_s) * rate_hz - 1e-6));
  }
  const Part* find_part(std::string_view name) const;  ///< nullptr when there is none
  Index part_offset(std::string_view name) const;      ///< first row of the part; -1 when there is none
  /// Row names of the whole frame: channel names where there are any, else "part[i]".
  std::vector<std::string> row_names() const;
  /// "95 rows x f32 at 10 Hz", "{64, 12} x f64, items"
  std::string describe() const;
  bool operator==(const StreamFormat&) const = default;
};

/// A format with one vector part.
StreamFormat time_format(Index rows, double rate_hz, Scalar scalar = Scalar::f64, const std::string& part = "x");
StreamFormat item_format(std::vector<Index> shape, Scalar scalar = Scalar::f64, const std::string& part = "x");

/// rows x frames, frame after frame. Never owns, never copies, never converts.
template <class T>
struct FrameSpan {
  T* data = nullptr;
  Index rows = 0, frames = 0;
  Index stride = 0;  ///< scalars from frame to frame, >= rows
  using Plain = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic>;
  using Map = Eigen::Map<std::conditional_t<std::is_const_v<T>, const Plain, Plain>, 0, Eigen::OuterStride<>>;
  Map eigen() const { return Map(data, rows, frames, Eigen::OuterStride<>(stride)); }
  T* frame(Index k) const { return data + k * stride; }
  FrameSpan slice(Index first, Index n) const { return {data + first * stride, rows, n, stride}; }
  /// Rows [first, first + n) of every frame: still no copy.
  FrameSpan part(Index first, Index n) const { return {data + first, n, frames, stride}; }
};

/// The same with the scalar decided by the edge.
template <bool Const>
struct AnySpan {
  using Void = std::conditional_t<Const, const void, void>;
  using Byte = std::conditional_t<Const, const std::byte, std::byte>;
  Void* data = nullptr;
  Scalar scalar = Scalar::f32;
  Index rows = 0, frames = 0, stride = 0;

  AnySpan() = default;
  AnySpan(Void* d, Scalar s, Index r, Index f, Index st) : data(d), scalar(s), rows(r), frames(f), stride(st) {}
  template <class T>
  requires(std::is_same_v<std::remove_const_t<T>, float> || std::is_same_v<std::remove_const_t<T>, double>)
      AnySpan(FrameSpan<T> s)
      : data(s.data), scalar(std::is_same_v<std::remove_const_t<T>, float> ? Scalar::f32 : Scalar::f64), rows(s.rows),
        frames(s.frames), stride(s.stride) {}
  AnySpan(const AnySpan<false>& s) requires Const : data(s.data),
                                                    scalar(s.scalar),
                                                    rows(s.rows),
                                                    frames(s.frames),
                                                    stride(s.stride) {}
  AnySpan(const AnySpan&) = default;
  AnySpan& operator=(const AnySpan&) = default;

  /// The caller has checked `scalar`.
  template <class T>
  auto as() const {
    using U = std::conditional_t<Const, const T, T>;
    return FrameSpan<U>{static_cast<U*>(data), rows, frames, stride};
  }
  AnySpan slice(Index first, Index n) const {
    return {static_cast<Byte*>(data) + first * stride * static_cast<Index>(bytes_of(scalar)), scalar, rows, n, stride};
  }
  AnySpan part(Index first, Index n) const {
    return {static_cast<Byte*>(data) + first * static_cast<Index>(bytes_of(scalar)), scalar, n, frames, stride};
  }
};
using ConstFrames = AnySpan<true>;
using MutableFrames = AnySpan<false>;

/// Copies frames, converting the scalar where it differs. rows and frames must agree.
void copy_frames(ConstFrames from, MutableFrames to) noexcept;
/// Writes NaN over every frame.
void fill_missing(MutableFrames frames) noexcept;
/// A converted copy in double; for fitting and scoring, never in a loop.
Eigen::MatrixXd to_matrix(ConstFrames frames);

/// Labels of events are interned once at the border, so that an event is plain data in the loop.
/// Thread-safe; ids are never freed.
class Label {
 public:
  Label() = default;
  static Label of(std::string_view text);
  /// The label of that id(); the empty one where there is none.
  static Label from_id(std::int32_t id);
  const std::string& text() const;
  std::int32_t id() const noexcept { return id_; }
  bool operator==(const Label&) const = default;

 private:
  std::int32_t id_ = 0;  ///< 0 is ""
};

/// Something that happened, in recording time. Maps one to one to a row of BIDS events.tsv.
struct Event {
  double onset_s = 0, duration_s = 0, value = 0;
  std::int64_t id = 0;  ///< rising in order of onset in one recording; the key of the item an epoch becomes
  Label label{};
  std::int32_t row = -1;     ///< the row it is about, -1 for all
  std::int32_t origin = -1;  ///< set by the graph: which node or input made it
  bool operator==(const Event&) const = default;
};

/// What a stage is given: a view, never owned.
struct Block {
  ConstFrames x;
  std::int64_t first_frame = 0;        ///< index of the first frame of the edge
  std::span<const std::int64_t> keys;  ///< item axis: one rising key a frame; empty on the time axis
  std::span<const Event> events;       ///< those whose onset this block's end has passed, each once
  bool missing = false;  ///< nothing was taken here, every value is NaN: per-frame stages give NaN without being run
};

/// Where a stage puts its result: fixed room, decided in prepare().
struct Output {
  MutableFrames y;               ///< room for format.max_frames frames
  std::int64_t* keys = nullptr;  ///< item axis: one key a frame, written by the stage
  Event* events = nullptr;
  Index event_room = 0, n_events = 0;
  std::int64_t lost_events = 0;  ///< did not fit; counted, reported by the graph
  /// A new event of this stage. Events of the input travel on by themselves.
  void emit(const Event& e) noexcept {
    if (n_events < event_room) events[n_events++] = e;
    else ++lost_events;
  }
};

}  // namespace percept
