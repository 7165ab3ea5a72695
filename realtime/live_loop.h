/// The loop of a live session: sources in, the graph, checks, and decoded states out, on one real-time thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "realtime/channel_health.h"
#include "realtime/closed_loop.h"
#include "realtime/latest.h"
#include "realtime/live_runner.h"
#include "realtime/outlets.h"
#include "realtime/output_guard.h"
#include "realtime/real_time.h"
#include "realtime/recorder.h"
#include "realtime/wakeup.h"

namespace percept {

/// What the loop last did, for whoever looks (a page, a terminal): plain data.
struct LiveState {
  static constexpr Index kMostRows = 64, kMostInputs = 8;
  std::int64_t frames = 0;  ///< decoded so far
  double time_s = 0;        ///< recording time of the last
  double age_s = 0;         ///< of the newest data, when this was written
  Hold hold = Hold::waiting;
  Index rows = 0;
  std::array<double, kMostRows> value{}, sd{};
  double covariance_01 = 0;  ///< of the first two rows: with sd their ellipse; NaN: none
  std::int64_t deadline_misses = 0;
  std::int64_t limited_frames = 0, held_frames = 0, holds = 0;
  std::int64_t clicks = 0, held_clicks = 0;  ///< sent out; kept back since the output was held
  std::int64_t written_ns = 0;
  struct Clock {
    bool known = false, holding = false;
    double offset_s = 0, drift = 0, residual_s = 0, uncertainty_s = 0;  ///< offset: local minus device
    std::int64_t jumps = 0;
  };
  std::array<Clock, kMostInputs> clocks{};
  std::array<Index, kMostInputs> bad_channels{};
  ClosedLoopState task;
};

/// One frame of an input as it came, for a scope: its first rows.
struct SignalFrame {
  static constexpr Index kMostRows = 256;
  static constexpr std::int32_t kRaster = LiveState::kMostInputs;
  std::int32_t input = 0;  ///< kRaster: of the node that Setup::raster names
  Index rows = 0;
  std::array<float, kMostRows> x{};
};

/// Runs sources through a LiveRunner. One packet at a time: it is recorded as it came, its channels are checked and
/// masked, it goes through the graph, and each decoded frame through the guard to every outlet. Whatever takes time
/// (disk, network, page) has its own thread behind a ring.
class LiveLoop {
 public:
  struct Params {
    double deadline_s = 0.005, wait_s = 0.02;
    static constexpr auto fields() {
      return std::tuple{
          field("deadline_s", &Params::deadline_s, "s",
                "A packet whose states are out later than this after it arrived is counted as a miss.", 1e-6, 3600),
          field("wait_s", &Params::wait_s, "s",
                "With hold_packets: how long an earlier packet is waited for before its frames count as missing.", 0,
                60)};
    }
  };
  struct Setup {
    LiveRunner* runner = nullptr;
    std::vector<std::unique_ptr<Source>> sources;  ///< one for each input of the runner, in order
    std::string node;                              ///< whose frames are the decoded state; on the thread of push()
    std::string
        click;  ///< a stage `click` on the thread of push(), before the node where it is to be in time; "": none
    std::string raster;  ///< a node that counts spikes, on the thread of push(), for whoever looks; "": none
    Params loop;
    RealTimeParams real_time;
    OutputGuard::Params guard;
    ChannelHealth::Params health;
    std::vector<std::unique_ptr<Outlet>> outlets;
    ClosedLoop* task = nullptr;    ///< steered by the node's frames; nullptr: there is none
    Recorder* recorder = nullptr;  ///< lane 0 is the loop's; output 0 the node, 1 the task's stream
    double duration_s = 0;         ///< 0: until the sources end
    std::string where = "live";
  };
  /// Throws ConfigError: sources that do not fit the runner, a node behind a queue, limits that do not fit its rows.
  explicit LiveLoop(Setup setup);
  ~LiveLoop();

  /// Starts the sources and runs until they end, the time is over or stop(), on this thread, which becomes a real-time
  /// one where permitted. Throws what starting a source throws, nothing later. Once.
  void run();

  // --- any thread ---------------------------------------------------------------------------------------------------
  void stop() noexcept;
  /// Emergency stop: the output is held from the next moment on (a few milliseconds at most without a packet) until it
  /// is released. `why`: who stopped it, kept for the report.
  void emergency(bool on) noexcept { emergency_.store(on, std::memory_order_release); }
  bool emergency() const noexcept { return emergency_.load(std::memory_order_acquire); }
  /// Takes a channel out by hand, or hands it back to the checks. False when too many wait.
  bool mask(int input, Index row, bool out);
  /// The task is started or paused; a calibration is begun. False when there is none.
  bool start_task(bool on) noexcept;
  bool recalibrate() noexcept;
  bool running() const noexcept { return running_.load(std::memory_order_acquire); }
  /// The newest state. For one looking thread at a time.
  LiveState state();
  /// Everything that is counted: packets and frames by fate, latencies [s], clocks, channels, outlets, recorder, notes.
  Value report();
  /// While somebody looks, frames of the inputs are kept for next_signal(), at most 100 a second of each; what is not
  /// fetched in time is left out.
  void watch_signal(bool on) noexcept { watched_.store(on, std::memory_order_relaxed); }
  /// The next of them; false when there is none. For one looking thread.
  bool next_signal(SignalFrame& frame) noexcept;
  /// LatencyHistogram::bins() of latency, four to an octave.
  std::vector<std::pair<double, std::int64_t>> latency_bins() const { return runner_.latency().bins(4); }
  /// run() has returned.
  bool finished() const noexcept { return finished_.load(std::memory_order_acquire); }
  const std::vector<std::string>& rows() const { return guard_.row_names(); }
  const ChannelHealth& health(int input) const;

 private:
  struct Input;
  struct Command {
    int input = 0;
    Index row = 0;
    bool out = false;
  };
  void take(Input& input, const Packet& packet) noexcept;
  void decoded(const Block& block) noexcept;
  void clicked(const Block& block) noexcept;
  void show_raster(const Block& block) noexcept;
  void steer(std::int64_t frame, double time_s, bool clicked) noexcept;
  void show_signal(Input& input, const Packet& packet) noexcept;
  void send(std::int64_t frame, double time_s, std::int64_t received_ns) noexcept;
  void look_around(std::int64_t now_ns) noexcept;
  /// How old the newest data are [s]; of the input that lags most.
  double update_conditions(std::int64_t now_ns) noexcept;
  void tell(const char* label, double value) noexcept;

  Setup setup_;
  LiveRunner& runner_;
  OutputGuard guard_;
  StreamFormat format_;
  std::vector<std::unique_ptr<Input>> inputs_;
  std::shared_ptr<Wakeup> wakeup_;
  std::vector<std::string> notes_;
  std::atomic<bool> stopped_{false}, running_{false}, finished_{false}, emergency_{false}, watched_{false};
  std::mutex command_mutex_;  ///< of those who give commands
  SpscRing<Command> commands_{256};
  SpscRing<SignalFrame> signal_{512};
  // of the loop's thread
  std::int64_t pushed_ = 0, last_look_ns_ = 0, last_clock_ns_ = 0, last_frame_ = -1;
  std::int64_t received_ns_ = 0, corrected_ns_ = 0;  ///< of the packet that is being decoded
  double last_time_s_ = 0;
  std::int64_t frames_ = 0, misses_ = 0;
  Index channels_ = 0, bad_ = 0;
  Hold told_ = Hold::waiting;
  Label hold_label_, release_label_, click_label_;
  Index click_rows_ = 0, new_clicks_ = 0;
  std::int64_t clicks_ = 0, held_clicks_ = 0;
  LatencyHistogram waited_;  ///< from a packet's arrival until the loop took it
  LatencyHistogram age_;     ///< from the (corrected) time of the data to their state being out
  SignalFrame shown_;
  Latest<LiveState> latest_;
  std::mutex look_mutex_;  ///< of those who look
};

}  // namespace percept
