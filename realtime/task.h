/// Tasks for a cursor: what is to be reached, when it counts as reached, and what became of each trial.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "core/params.h"
#include "core/stream.h"
#include "numerics/random.h"

namespace percept {

/// Where the cursor is to go: a disc, or a square key.
struct TaskTarget {
  double x = 0, y = 0;
  double half = 0;      ///< radius of the disc, half the side of the square [unit of the cursor]
  bool square = false;  ///< a key
  int number = 0;       ///< centre_out: 0 the centre, then 1, 2, ...; grid: the key; fitts: the place on the ring
  int condition = 0;    ///< fitts: which distance and width
  bool counted = true;  ///< false: on the way to where a sequence begins, or back
  bool contains(double px, double py) const noexcept;
};

/// What all tasks have in common.
struct TrialParams {
  std::string select = "dwell";
  double hold_s = 0.3, limit_s = 8, pause_s = 0.2;
  std::int64_t trials = 0, seed = 1;
  bool wait_for_start = false;
  static constexpr auto fields() {
    return std::tuple{
        choice("select", &TrialParams::select,
               "What selects: dwell (the cursor stays for hold_s), or click (the row `click` of [live.cursor]).",
               "dwell|click"),
        field("hold_s", &TrialParams::hold_s, "s", "How long the cursor has to stay, without leaving.", 0, 60),
        field("limit_s", &TrialParams::limit_s, "s", "A trial that takes longer has failed.", 0.1, 3600),
        field("pause_s", &TrialParams::pause_s, "s", "From the end of a trial to the next target.", 0, 600),
        field("trials", &TrialParams::trials, "1",
              "The session ends after so many that count and had no help; 0: it goes on.", 0, 1e6),
        field("seed", &TrialParams::seed, "1", "Another seed is another order of targets.", 0),
        field("wait_for_start", &TrialParams::wait_for_start, "",
              "No target is shown before the start command (key s of the page and the terminal).")};
  }
};

/// From the centre to targets on a circle, in shuffled blocks that hold each once, and back (Georgopoulos et al.,
/// J. Neurosci. 2 (1982) 1527; Gilja et al., Nat. Neurosci. 15 (2012) 1752).
struct CentreOutParams : TrialParams {
  std::int64_t targets = 8;
  double distance = 0.08, radius = 0.015;
  std::string back = "reach";
  static constexpr auto fields() {
    return std::tuple_cat(
        std::tuple{
            field("targets", &CentreOutParams::targets, "1", "On the circle, from the right and round.", 1, 64),
            field("distance", &CentreOutParams::distance, "unit of the cursor", "From the centre to a target.", 1e-9,
                  1e9),
            field("radius", &CentreOutParams::radius, "unit of the cursor", "Of a target.", 1e-9, 1e9),
            choice("back", &CentreOutParams::back,
                   "To the centre: a trial like the others (reach), or the cursor is put there (jump).", "reach|jump")},
        TrialParams::fields());
  }
};

/// Targets of several distances and widths (ISO 9241-9; Soukoreff & MacKenzie, Int. J. Hum.-Comput. Stud. 61 (2004) 751;
/// for brain-computer interfaces Simeral et al., J. Neural Eng. 8 (2011) 025027). A condition is one distance with one
/// width; their order is shuffled, and each lasts `targets` trials that count, behind one that leads to the start.
struct FittsParams : TrialParams {
  std::string layout = "ring";
  std::int64_t targets = 9;
  std::vector<double> distances{0.06, 0.12}, widths{0.02, 0.04};
  double reach = 0.1;
  static constexpr auto fields() {
    return std::tuple_cat(
        std::tuple{choice("layout", &FittsParams::layout,
                          "ring: places on a circle, each the one opposite the last (multidirectional); random: any "
                          "direction.",
                          "ring|random"),
                   field("targets", &FittsParams::targets, "1",
                         "Trials of a condition; of a ring also its places, an odd number.", 3, 63),
                   field("distances", &FittsParams::distances, "unit of the cursor",
                         "Diameters of the rings, or from one target to the next.", 1e-9, 1e9),
                   field("widths", &FittsParams::widths, "unit of the cursor", "Diameters of the targets.", 1e-9, 1e9),
                   field("reach", &FittsParams::reach, "unit of the cursor",
                         "random: targets lie in a square around zero of twice this side.", 1e-9, 1e9)},
        TrialParams::fields());
  }
};

/// A keyboard of n x n keys without gaps; any key can be selected, and one of them is asked for. Achieved bit rate
/// log2(n^2 - 1) max(right - wrong, 0) / time (Nuyujukian et al., IEEE Trans. Biomed. Eng. 62 (2015) 2060).
struct GridParams : TrialParams {
  std::int64_t keys = 6;
  double side = 0.2;
  static constexpr auto fields() {
    return std::tuple_cat(
        std::tuple{field("keys", &GridParams::keys, "1", "In a row, and rows.", 2, 64),
                   field("side", &GridParams::side, "unit of the cursor", "Of the whole keyboard.", 1e-9, 1e9)},
        TrialParams::fields());
  }
};

enum class Outcome : std::uint8_t {
  acquired,
  late,    ///< not within limit_s
  wrong,   ///< something else was selected
  aborted  ///< the operator stopped it: no trial
};
const char* name_of(Outcome outcome);

/// What became of one trial. Times are recording times.
struct Trial {
  TaskTarget target;
  Outcome outcome{};
  double shown_s = 0;
  double entered_s = 0;  ///< when the target was entered for the last time; NaN: never
  double end_s = 0;
  double start_x = 0, start_y = 0;  ///< of the cursor when the target was shown
  double entry_x = 0, entry_y = 0;  ///< when it was entered for the last time
  double end_x = 0, end_y = 0;      ///< at the end: where it was selected
  double path = 0;                  ///< length of the cursor's way until it was entered; never: until the end
  std::int32_t entries = 0;         ///< how often the target was entered
  float assist = 0;                 ///< the largest share of help in it
  std::int32_t fits = 0;            ///< how often the decoder had been fitted anew by then
};

/// Trials as they end: written by one thread, read by any.
class TrialLog {
 public:
  explicit TrialLog(std::size_t room) : trials_(room) {}
  void add(const Trial& trial) noexcept;
  /// Those that ended so far.
  std::span<const Trial> all() const noexcept { return {trials_.data(), size_.load(std::memory_order_acquire)}; }
  /// Found no room.
  std::int64_t lost() const noexcept { return lost_.load(std::memory_order_relaxed); }

 private:
  std::vector<Trial> trials_;
  std::atomic<std::size_t> size_{0};
  std::atomic<std::int64_t> lost_{0};
};

/// One task. It is given the cursor frame by frame, and says where the target is and what happened. The same cursor
/// gives the same targets and events. Allocates nothing once made.
///
/// Events: "trial_start" and "target_shown" (value: the target's number; id: of the trial), "acquired" (value: seconds
/// from target_shown to the entry), "failed" (value: seconds since target_shown) or "wrong" (value: the number of what
/// was selected, -1: nothing), "aborted".
class Task {
 public:
  enum class Phase : std::uint8_t { waiting, pause, reach, done };
  /// Reads {use = "centre_out" | "fitts" | "grid", ...}. Throws ConfigError.
  Task(const Value& params, const std::string& where);
  ~Task();
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;

  const std::string& use() const { return use_; }
  const TrialParams& trial_params() const { return common_; }
  /// Where targets can be: the largest coordinate of any edge.
  double extent() const noexcept { return extent_; }
  /// Of the keyboard; 0: another task.
  int keys() const noexcept { return keys_; }
  double side() const noexcept { return side_; }

  struct Frame {
    double t_s = 0, x = 0, y = 0;
    bool click = false;
    bool stopped = false;  ///< by the operator: the trial is aborted, and none begins
    float assist = 0;
    std::int32_t fits = 0;
  };
  struct Result {
    std::span<const Event> events;  ///< until the next call
    bool jump = false;              ///< the cursor is put to (x, y)
    double x = 0, y = 0;
  };
  Result step(const Frame& frame) noexcept;

  /// The target that is shown; nullptr between trials.
  const TaskTarget* target() const noexcept { return phase_ == Phase::reach ? &target_ : nullptr; }
  Phase phase() const noexcept { return phase_; }
  /// Seconds that the cursor has stayed in what it will select.
  double held_s() const noexcept { return held_s_; }
  const TrialLog& log() const noexcept { return log_; }

  /// Any thread.
  void start(bool on) noexcept { started_.store(on, std::memory_order_release); }
  bool started() const noexcept { return started_.load(std::memory_order_acquire); }

 private:
  struct Layout;
  struct CentreOut;
  struct Fitts;
  struct Grid;
  void begin(const Frame& f) noexcept;
  void end(const Frame& f, Outcome outcome, double value, Result& result) noexcept;
  void tell(Label label, double t_s, double value) noexcept;

  std::string use_;
  TrialParams common_;
  std::unique_ptr<Layout> layout_;
  double extent_ = 0, side_ = 0;
  int keys_ = 0;
  Phase phase_ = Phase::waiting;
  std::atomic<bool> started_{true};
  std::int64_t number_ = 0, counted_ = 0;  ///< of trials begun, and of those that ended and count
  TaskTarget target_;
  Trial trial_;
  double next_s_ = 0, last_x_ = 0, last_y_ = 0, path_ = 0;
  bool placed_ = false, inside_ = false, click_ = false;
  int over_ = -1;  ///< what the cursor stays on
  double over_since_s_ = 0, held_s_ = 0;
  std::array<Event, 8> events_;
  std::size_t n_events_ = 0;
  Label trial_start_, target_shown_, acquired_, failed_, wrong_, aborted_;
  TrialLog log_;
};

/// For the reference page.
struct TaskInfo {
  std::string name, doc;
  std::vector<ParamInfo> params;
};
const std::vector<TaskInfo>& task_kinds();

}  // namespace percept
