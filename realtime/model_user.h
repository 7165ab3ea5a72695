/// A model of the person in the loop: what they intend when they see a cursor and a target.
#pragma once

#include <array>
#include <cstdint>
#include <tuple>
#include <vector>

#include "core/params.h"
#include "numerics/random.h"

namespace percept {

/// Feedback control as people do it (Willett et al., J. Neural Eng. 14 (2017) 016001, and Sci. Rep. 9 (2019) 8881, whose
/// piecewise-linear policy this is; a simulated population in a closed loop: Cunningham et al., J. Neurophysiol. 105
/// (2011) 1932).
///
/// The user sees where cursor and target were delay_s ago. An internal model carries the cursor on by what they have
/// intended since, of which they expect `trust` to have come true. Towards the target g from there (p) they intend
///
///     u = speed min(|g - p| / slow, 1) (g - p) / |g - p|  -  damping v,
///
/// v the velocity that they saw, and what their cortex makes of it has noise in proportion: u (1 + noise n), n normal and
/// independent for the two axes, new in every bin, as is `jitter` that is always there.
///
/// Deterministic: the same frames give the same intentions. Allocates nothing once made.
class ModelUser {
 public:
  struct Params {
    double delay_s = 0.2, speed = 0.25, slow = 0.05, damping = 0.1, trust = 0.8, noise = 0.15, jitter = 0.01;
    std::int64_t seed = 1;
    static constexpr auto fields() {
      return std::tuple{
          field("delay_s", &Params::delay_s, "s", "What is seen, a new target too, is acted upon so much later.", 0, 2),
          field("speed", &Params::speed, "unit of the cursor / s", "Intended far from the target.", 1e-9, 1e9),
          field("slow", &Params::slow, "unit of the cursor", "Nearer than this they intend less, in proportion.", 1e-9,
                1e9),
          field("damping", &Params::damping, "1", "Share of the seen velocity that they work against.", 0, 10),
          field("trust", &Params::trust, "1",
                "Share of what was intended during the delay that they expect to have come true.", 0, 2),
          field("noise", &Params::noise, "1", "Spread of an intention, relative to it.", 0, 3),
          field("jitter", &Params::jitter, "unit of the cursor / s", "Spread of an intention, always.", 0, 1e9),
          field("seed", &Params::seed, "1", "Another seed is other noise.", 0)};
    }
  };
  /// rate_hz: of the frames that the user sees, and of what they intend. Throws ConfigError when the delay is longer than
  /// 4000 of them.
  ModelUser(const Params& params, double rate_hz, const std::string& where);

  struct Seen {
    double t_s = 0, x = 0, y = 0, vx = 0, vy = 0;
    bool target = false;
    double target_x = 0, target_y = 0;
    bool jump = false;  ///< the cursor was put here: what was intended before does not carry on
  };
  /// What the screen shows from now on.
  void see(const Seen& seen) noexcept;
  /// What they intend in the bin at that time [unit of the cursor / s].
  std::array<double, 2> intend(std::int64_t frame, double t_s) noexcept;

 private:
  Params p_;
  double rate_hz_;
  KeyedRandom random_;
  std::vector<Seen> screen_;  ///< a ring of what was shown
  std::int64_t shown_ = 0;
  struct Intention {
    double t_s = 0, x = 0, y = 0;
  };
  std::vector<Intention> intended_;  ///< likewise
  std::int64_t intentions_ = 0;
};

}  // namespace percept
