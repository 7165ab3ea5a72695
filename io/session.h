/// The file of a live session: everything that came in and went out, in the order it happened, one record after the
/// other, each with a checksum. It only ever grows, so that whatever ends the program leaves all whole records behind.
///
///     16 bytes  "percept session\n"
///     records:  u32 mark, u16 kind, u16 lane, u32 bytes, u32 CRC-32 (zlib's) of kind to bytes and of what follows,
///               then `bytes` bytes, and zeros up to a multiple of 8
///
/// Numbers are little-endian. A lane is one thread: its records are in its own order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "core/recording.h"

namespace percept::io {

/// Raised when a session written now cannot be read by an older percept.
inline constexpr int kSessionVersion = 1;

enum class SessionKind : std::uint16_t {
  head = 1,    ///< JSON: inputs, outputs, the pipeline, options; the first record
  packet = 2,  ///< SessionPacket, then its frames as they came
  fate = 3,    ///< SessionFate: a packet that was not used
  step = 4,    ///< SessionStep, then SessionEvent: one block as the graph was given it
  event = 5,   ///< SessionEvent: gaps, masks, swaps, freezes
  label = 6,   ///< i32 number, then its text; before its first use in an event
  output = 7,  ///< SessionOutput, then its frames
  clock = 8,   ///< SessionClock
  loss = 9,    ///< SessionLoss: what this lane could not write
  model = 10,  ///< JSON: {swap, node, model}: a model that was put in
  end = 11     ///< JSON: the counts at the end; a session without it was cut off
};

struct SessionPacket {
  std::int64_t number = 0;  ///< in order of arrival, over all inputs
  std::int64_t counter = 0;
  double device_s = 0;                             ///< NaN: none
  std::int64_t received_ns = 0, corrected_ns = 0;  ///< steady clock of the machine; 0: not known
  std::int32_t input = 0, rows = 0, frames = 0;
  std::uint8_t scalar = 0, events = 0, reserved[2] = {};  ///< scalar: 0 f32, 1 f64
};
struct SessionFate {
  std::int64_t number = 0;
  std::int32_t fate = 0, reserved = 0;  ///< 1 held (used later, if a step says so), 2 duplicate, 3 late, 4 refused
};
struct SessionStep {
  std::int64_t first_frame = 0;
  std::int64_t packet = -1;  ///< number of the packet whose frames these are; -1: missing
  std::int32_t input = 0, frames = 0, offset = 0, events = 0;
};
struct SessionEvent {
  double onset_s = 0, duration_s = 0, value = 0;
  std::int64_t id = 0;
  std::int32_t label = 0, row = -1;
};
struct SessionOutput {
  std::int64_t first_frame = 0;
  std::int64_t emitted_ns = 0, received_ns = 0,
               corrected_ns = 0;  ///< the last two of the packet behind it; 0: not known
  std::int32_t output = 0, rows = 0, frames = 0;
  std::uint8_t scalar = 0, held = 0, reserved[2] = {};  ///< held: it was not to be acted upon
};
struct SessionClock {
  std::int64_t at_ns = 0;
  double device_s = 0, local_s = 0, drift = 0;  ///< local = local_s + (device - device_s) (1 + drift)
  double residual_s = 0, uncertainty_s = 0;
  std::int32_t input = 0, jumps = 0;
};
struct SessionLoss {
  std::int64_t records = 0, bytes = 0, packets = 0, frames = 0, steps = 0, outputs = 0, events = 0;
};

/// Appends to a new file. Not for the real-time thread (realtime/recorder.h). One thread at a time.
class SessionWriter {
 public:
  /// Throws DataError when the file exists or cannot be made.
  explicit SessionWriter(std::filesystem::path file);
  ~SessionWriter();
  SessionWriter(const SessionWriter&) = delete;
  SessionWriter& operator=(const SessionWriter&) = delete;

  /// Puts a record into the buffer; `more` follows `payload`.
  void add(SessionKind kind, std::uint16_t lane, std::span<const std::byte> payload,
           std::span<const std::byte> more = {});
  std::size_t buffered() const { return buffer_.size(); }
  /// Writes the buffer. 0, or the system's error: then nothing of it is in the file, and it stays in the buffer.
  int write();
  /// Down to the disk. 0, or the system's error.
  int sync();
  std::uint64_t bytes() const { return written_; }

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  std::uint64_t written_ = 0;
  std::vector<std::byte> buffer_;
};

/// One record of a file.
struct SessionRecordView {
  SessionKind kind{};
  std::uint16_t lane = 0;
  std::uint64_t offset = 0;  ///< of its payload in the file
  std::span<const std::byte> payload;
};

/// What of a file could be used.
struct SessionScan {
  std::uint64_t records = 0;
  std::uint64_t good_bytes = 0;  ///< up to the end of the last whole record
  std::uint64_t cut_bytes = 0;   ///< behind it: a record that was not finished, or a damaged one and what follows
};

/// Calls take() for each record up to the first that is not whole. What it points to stays until take() returns.
/// Throws DataError when it is no session, and whatever take() throws.
SessionScan scan_session(const std::filesystem::path& file, const std::function<void(const SessionRecordView&)>& take);

/// The session as a recording: a stream for each input, missing frames NaN; a stream "live_NODE" for each output; events
/// as the graph was told of them and as the loop told; tables "clock_INPUT"; meta.live: {head, counts, packets, cut_bytes,
/// ...}; and the partition, so that run_offline repeats the session (core/runner.h). What was not finished at the end is
/// left out. Samples are read block by block. Throws DataError.
Recording open_session(const std::filesystem::path& file);

/// Cuts off what scan_session would not use. Returns how many bytes.
std::uint64_t repair_session(const std::filesystem::path& file);

}  // namespace percept::io
