/// Records a live session (io/session.h) without ever holding the loop.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/value.h"
#include "realtime/clock.h"
#include "realtime/live_runner.h"
#include "realtime/real_time.h"
#include "realtime/wakeup.h"

namespace percept {

struct RecorderOptions {
  std::size_t lane_bytes = std::size_t{64} << 20;  ///< room of each thread's ring
  double write_s = 0.01;                           ///< how often what is in the rings is written
  double sync_s = 0.03;                            ///< how often the file is forced down to the disk
};

/// What was recorded so far.
struct RecorderCounts {
  std::int64_t records = 0, bytes = 0;            ///< written
  std::int64_t lost_records = 0, lost_bytes = 0;  ///< found no room in a ring, since the disk was full or too slow
  double longest_sync_s = 0;  ///< from one sync to the next: what a power cut would have cost at most
  std::string trouble;        ///< why nothing is being written, or empty
};

Value to_value(const RecorderCounts& counts);

/// Each thread that records has a lane: a ring that is allocated up front and emptied by the recorder's own thread. What
/// finds no room is counted and the counts are recorded, so a session says exactly what it lacks. A full disk is tried
/// again and again: the rings hold what comes meanwhile.
///
/// Whatever ends the program, what was handed over `write_s` + `sync_s` before is in the file.
class Recorder {
 public:
  struct StreamInfo {
    std::string name;
    StreamFormat format;
  };
  /// `about` is kept in the head of the file. Starts the thread. Throws DataError when the file cannot be made.
  Recorder(const std::filesystem::path& file, const Value& about, const std::vector<StreamInfo>& inputs,
           const std::vector<StreamInfo>& outputs, int lanes, RecorderOptions options);
  Recorder(const std::filesystem::path& file, const Value& about, const std::vector<StreamInfo>& inputs,
           const std::vector<StreamInfo>& outputs, int lanes)
      : Recorder(file, about, inputs, outputs, lanes, RecorderOptions{}) {}
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // --- one thread a lane; nothing here allocates, waits or calls the system -----------------------------------------
  /// A packet as it came, before LiveRunner::push() sees it. number: counts the calls of push().
  void packet(int lane, std::int64_t number, int input, const Packet& packet, std::int64_t corrected_ns) noexcept;
  /// What became of it, unless it was used.
  void fate(int lane, std::int64_t number, Fate fate) noexcept;
  void step(int lane, const LiveStep& step) noexcept;
  void event(int lane, const Event& event) noexcept;
  void output(int lane, int output, const Block& block, std::int64_t received_ns, std::int64_t corrected_ns,
              bool held) noexcept;
  void clock(int lane, int input, const ClockModel& model, std::int64_t now_ns) noexcept;

  // --- any thread ---------------------------------------------------------------------------------------------------
  /// A model that is about to be put in, before LiveRunner::swap() is called: `folder` relative to the file's.
  void model(std::int64_t swap, const std::string& node, const std::string& folder);
  RecorderCounts counts() const;
  /// Its threads get a real-time priority where permitted, so that a busy machine does not make them late.
  void raise(const RealTimeParams& params) noexcept;
  /// Writes what waits, then `counts` as the end of the session, and ends the thread. Returns what could not be written
  /// as a sentence, or nothing. Once; the destructor calls it with nothing.
  std::string close(const Value& counts);

 private:
  class Lane;
  void run();
  void run_sync();
  void drain();
  bool write();
  void tell_labels(const std::byte* payload, std::size_t bytes, std::size_t first_event);

  std::filesystem::path path_;
  RecorderOptions options_;
  struct File;
  std::unique_ptr<File> file_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  mutable std::mutex mutex_;  ///< of what follows; never taken by a lane's thread
  std::vector<std::string> models_;
  std::string trouble_;
  std::int64_t records_ = 0;
  std::atomic<std::int64_t> bytes_{0}, longest_sync_ns_{0};
  std::atomic<bool> stop_{false};
  Wakeup wakeup_;  ///< of the threads, when they are to end
  bool closed_ = false;
  std::thread thread_, sync_thread_;  ///< a slow disk must not hold what is written: a killed program keeps that
};

}  // namespace percept
