/// Fits a decoder anew while it is in use, and puts it in.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "core/params.h"
#include "core/recording.h"
#include "realtime/live_runner.h"
#include "realtime/recorder.h"
#include "realtime/wakeup.h"

namespace percept {

/// [live.calibration]
struct CalibrationParams {
  std::vector<double> at_s{};
  std::vector<double> assist{1, 0.8, 0.5, 0.2};
  double block_s = 20, refit_s = 5, see_s = 0.15, window_s = 300, speed = 0.25;
  std::string intention = "direct", from{};
  static constexpr auto fields() {
    return std::tuple{
        field(
            "at_s", &CalibrationParams::at_s, "s",
            "Recording times at which a calibration begins by itself; [0]: with the session. Any other time it begins "
            "when it is asked for (key r of the page and the terminal).",
            0, 1e9),
        field(
            "assist", &CalibrationParams::assist, "1",
            "Share of help in each block; behind the last there is none. 1: the cursor goes by itself, 0: the decoder "
            "alone.",
            0, 1),
        field("block_s", &CalibrationParams::block_s, "s", "Length of a block.", 0.1, 3600),
        field("refit_s", &CalibrationParams::refit_s, "s",
              "From one fit to the next, on all that came since the calibration began; where a fit takes longer, it is "
              "left to end.",
              0.1, 3600),
        field("see_s", &CalibrationParams::see_s, "s",
              "The user acts on a new target so long after it is shown, until then on the last one.", 0, 10),
        field("window_s", &CalibrationParams::window_s, "s", "What is older is forgotten.", 1, 86400),
        field("speed", &CalibrationParams::speed, "unit of the cursor / s", "Of the help, and of a direct intention.",
              1e-9, 1e9),
        choice(
            "intention", &CalibrationParams::intention,
            "What the user is taken to mean. direct: straight to the target, as the help goes (Brandman et al. 2018); "
            "refit: the cursor's own speed turned to the target, zero in it (Gilja et al. 2012), which can lose speed "
            "from fit to fit.",
            "direct|refit"),
        field("from", &CalibrationParams::from, "",
              "Input or stage whose frames are kept for fitting; every stage with a model lies below it. Empty: the "
              "input.")};
  }
};

/// What happens on the loop's thread is two copies into rings a frame. Everything else has a thread of its own: it collects
/// frames and intentions, hands them as a recording to `fit`, and swaps all models that gives in at once. A model is in
/// the session's folder before it is in use, so that the session can be repeated.
class Calibrator {
 public:
  using Fit = std::function<std::vector<LiveRunner::NewModel>(const Recording&)>;
  struct Setup {
    LiveRunner* runner = nullptr;
    std::string from;         ///< input or node
    StreamFormat frames;      ///< of `from`
    StreamFormat target;      ///< of an intention, on the decoded node's clock
    std::string target_name;  ///< stream that the stages are fitted to
    double lag_s = 0;         ///< of their target
    Fit fit;
    CalibrationParams params = {};
    Recorder* recorder = nullptr;
    std::filesystem::path folder = {};  ///< of the session
    bool lockstep = false;              ///< the loop waits for a fit: for a simulator that keeps no time
  };
  explicit Calibrator(Setup setup);
  ~Calibrator();
  Calibrator(const Calibrator&) = delete;
  Calibrator& operator=(const Calibrator&) = delete;

  // --- the loop's thread: no lock, no allocation ------------------------------------------------------------------
  void frames(const Block& block) noexcept;
  /// What was meant in a frame of the decoded node; NaN: not known.
  void intended(std::int64_t frame, const double* rows) noexcept;
  /// What came before is of another calibration.
  void begin(double t_s) noexcept { keep_from_s_.store(t_s, std::memory_order_release); }
  /// No fit is being worked on.
  bool idle() const noexcept { return asked_.load(std::memory_order_relaxed) == done_.load(std::memory_order_acquire); }
  /// Asks for a fit on what is there; not while one is being worked on.
  bool ask() noexcept;
  /// In lockstep: until the fit that was asked for is in use, or has failed.
  void settle() noexcept;

  // --- any thread -------------------------------------------------------------------------------------------------
  /// Ends the thread, when what it works on is done; no model is put in from here on. The loop runs no more.
  void stop();
  std::int32_t fits() const noexcept { return fits_.load(std::memory_order_acquire); }
  /// {fits, failed, lost_frames, trouble?, models: [{swap, node, digest, from_s, to_s, frames, seconds}]}
  Value report() const;

 private:
  /// Frames of one stream on their way to another thread.
  class Ring;
  /// Consecutive frames, the oldest given up beyond `most`.
  struct Kept {
    std::int64_t first = 0;
    std::vector<double> values;
    std::int64_t count(Index rows) const { return static_cast<std::int64_t>(values.size()) / rows; }
  };
  void run();
  void collect();
  void work();
  static Stream stream(const std::string& name, const StreamFormat& format, const Kept& kept, double shift_s);

  Setup setup_;
  std::unique_ptr<Ring> frames_, intentions_;
  std::atomic<double> keep_from_s_{-1e300};
  std::atomic<std::int32_t> asked_{0}, done_{0}, fits_{0};
  std::atomic<bool> stop_{false};
  Wakeup asked_wakeup_, done_wakeup_;
  // of the thread
  Kept x_, y_;
  mutable std::mutex mutex_;  ///< of what is told
  std::int64_t failed_ = 0;
  std::string trouble_;
  Value models_ = Value::array();
  std::thread thread_;
};

}  // namespace percept
