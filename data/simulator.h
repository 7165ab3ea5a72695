/// Recordings with a known truth, made from keyed random numbers: frame k is the same whoever asks for it, in blocks of
/// any size, so that a generated recording needs no memory of its own.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <Eigen/Core>

#include "core/params.h"
#include "core/recording.h"
#include "numerics/random.h"

namespace percept::data {

/// A population of motor-cortex units during centre-out reaches.
///
/// Hand: eight targets on a circle, in shuffled blocks of eight; out and back with minimum jerk (Flash & Hogan,
/// J. Neurosci. 5 (1985) 1688), go signal and duration varying from trial to trial.
/// Unit i fires with the rate [1/s]
///     g(t) max(0, baseline_i (1 + d_i(t)) + speed_i |v| / v0 + depth_i (v . p_i(t)) / v0)
/// where v is the velocity at t + lag_s: cosine tuning to the preferred direction p_i (Georgopoulos et al.,
/// J. Neurosci. 2 (1982) 1527) with an added speed term (Moran & Schwartz, J. Neurophysiol. 82 (1999) 2676). v0 is the
/// peak speed of an average reach, g a gain with mean 1 (noise), d_i a slow drift; p_i may wander or jump. With max_hz a
/// rate r saturates: max_hz tanh(r / max_hz). Counts are Poisson in bins of 1 / rate_hz.
class ReachSimulator {
 public:
  struct Params {
    std::int64_t channels = 96;
    double rate_hz = 50;
    double duration_s = 600;
    std::int64_t seed = 1;
    double baseline_hz = 10;
    double depth_hz = 12;
    double speed_hz = 4;
    double max_hz = 0;
    double lag_s = 0.1;
    double shared_noise = 0.15;
    double private_noise = 0;
    double drift = 0.1;
    double drift_s = 60;
    double tuning_walk_rad = 0;
    double change_s = 0;
    double change_fraction = 0;
    double dead_fraction = 0.05;
    double distance_m = 0.08;
    double reach_s = 0.5;
    double trial_s = 2;
    static constexpr auto fields() {
      return std::tuple{
          field("channels", &Params::channels, "1", "Units recorded.", 1, 16384),
          field("rate_hz", &Params::rate_hz, "Hz", "Bins a second.", 0.1, 1000),
          field("duration_s", &Params::duration_s, "s", "Length of the recording.", 0.01, 1e6),
          field("seed", &Params::seed, "1", "Another seed is another session with other units.", 0),
          field("baseline_hz", &Params::baseline_hz, "1/s", "Typical rate at rest.", 0, 1000),
          field("depth_hz", &Params::depth_hz, "1/s", "Typical modulation by direction at peak speed.", 0, 1000),
          field("speed_hz", &Params::speed_hz, "1/s", "Typical modulation by speed alone at peak speed.", 0, 1000),
          field("max_hz", &Params::max_hz, "1/s",
                "Rate that no unit exceeds and that all near slowly; 0: no such limit.", 0, 1e4),
          field("lag_s", &Params::lag_s, "s", "Activity leads the hand by this much.", -1, 1),
          field("shared_noise", &Params::shared_noise, "1", "Spread of the log gain common to all units, bin by bin.",
                0, 3),
          field("private_noise", &Params::private_noise, "1", "Spread of each unit's own log gain, bin by bin.", 0, 3),
          field("drift", &Params::drift, "1", "Spread of each baseline's slow relative change.", 0, 3),
          field("drift_s", &Params::drift_s, "s", "Time in which a baseline's change is forgotten.", 1, 1e6),
          field("tuning_walk_rad", &Params::tuning_walk_rad, "rad",
                "Random walk of preferred directions: spread after an hour.", 0, 100),
          field("change_s", &Params::change_s, "s", "When some units take another preferred direction at once.", 0,
                1e6),
          field("change_fraction", &Params::change_fraction, "1", "How many of the units do so.", 0, 1),
          field("dead_fraction", &Params::dead_fraction, "1", "How many of the channels are silent.", 0, 1),
          field("distance_m", &Params::distance_m, "m", "From the centre to a target.", 0.001, 1),
          field("reach_s", &Params::reach_s, "s", "Average time from the centre to a target.", 0.1, 10),
          field("trial_s", &Params::trial_s, "s", "From one trial to the next; at least 0.7 s + 2.3 reach_s.", 0.9,
                60)};
    }
  };

  /// The truth about one unit.
  struct Unit {
    double direction_rad = 0;          ///< preferred direction at the start
    double changed_direction_rad = 0;  ///< from change_s on; the same for a unit that does not change
    double baseline_hz = 0, depth_hz = 0, speed_hz = 0;
    bool dead = false;
  };
  /// One out-and-back reach, in recording time.
  struct Trial {
    int target = 0;  ///< 0..7, at angle target * 45 degrees
    double go_s = 0, reach_begin_s = 0, reach_end_s = 0, back_begin_s = 0, back_end_s = 0;
  };
  struct Hand {
    double px = 0, py = 0, vx = 0, vy = 0;  ///< [m, m/s]
  };

  /// Throws ConfigError when trials are too short for their reaches or the recording is too long for its drifts.
  explicit ReachSimulator(const Params& params, const std::string& where = "reach");

  const Params& params() const { return p_; }
  const std::vector<Unit>& units() const { return units_; }
  std::int64_t frames() const { return frames_; }
  /// Frame k stands for the middle of its bin.
  double time_of(std::int64_t frame) const { return (static_cast<double>(frame) + 0.5) / p_.rate_hz; }
  /// Speed at which a unit is modulated by its full depth [m/s].
  double reference_speed() const { return reference_speed_; }

  Trial trial(std::int64_t number) const noexcept;
  Hand hand(double t_s) const noexcept;
  /// Preferred direction of a unit, drift included [rad].
  double direction(Index unit, double t_s) const noexcept;
  /// Expected rates [1/s] of all channels at a frame, for an intended velocity [m/s]. Allocates nothing.
  void rates(std::int64_t frame, double vx, double vy, std::span<double> hz) const noexcept;
  /// Counts of all channels at a frame, for an intended velocity from outside (a closed loop). Allocates nothing.
  void counts(std::int64_t frame, double vx, double vy, std::span<double> out) const noexcept;
  /// Counts for the velocity of the simulated hand at the frame's time + lag_s.
  void counts(std::int64_t frame, std::span<double> out) const noexcept;

  /// Streams "activity" (counts), "kinematics" (px, py, vx, vy) and "velocity" (vx, vy); events "target_0".."target_7" from the go signal to
  /// the end of the reach, and "reach_end" (value: the target); table "units" and meta.truth: what is true.
  Recording recording() const;

 private:
  Params p_;
  std::int64_t frames_ = 0;
  double reference_speed_ = 1;
  std::vector<Unit> units_;
  Eigen::MatrixXd cosines_;       ///< {cos, sin} of the direction before and after the change, 4 x channels
  Eigen::MatrixXd drift_, walk_;  ///< at knots, channels x knots; empty when there is none
  KeyedRandom trials_, shared_, private_, counts_;
};

/// White noise: a signal with nothing in it, of any size.
struct NoiseParams {
  std::int64_t channels = 32;
  double rate_hz = 1000;
  double duration_s = 60;
  std::int64_t seed = 1;
  double spread = 1;
  static constexpr auto fields() {
    return std::tuple{field("channels", &NoiseParams::channels, "1", "Rows.", 1, 1 << 20),
                      field("rate_hz", &NoiseParams::rate_hz, "Hz", "Frames a second.", 0.001, 1e6),
                      field("duration_s", &NoiseParams::duration_s, "s", "Length of the recording.", 0.001, 1e7),
                      field("seed", &NoiseParams::seed, "1", "Another seed is another signal.", 0),
                      field("spread", &NoiseParams::spread, "1", "Standard deviation.", 0, 1e6)};
  }
};
/// One stream "signal".
Recording noise_recording(const NoiseParams& params);

/// What `simulate = "NAME"` can name.
struct SimulatorInfo {
  std::string name, doc;
  std::vector<ParamInfo> params;
};
std::vector<SimulatorInfo> simulators();

/// The recording of a simulator. Throws ConfigError for an unknown name, key or a value out of range.
Recording simulate(const std::string& name, const Value& params, const std::string& where = "simulate");

}  // namespace percept::data
