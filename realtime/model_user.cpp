#include "realtime/model_user.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace percept {

namespace {
constexpr double kMostDelay = 4000;  // frames
}

ModelUser::ModelUser(const Params& params, double rate_hz, const std::string& where)
    : p_(params), rate_hz_(rate_hz), random_(static_cast<std::uint64_t>(params.seed), "model user") {
  const double frames = std::ceil(p_.delay_s * rate_hz) + 2;
  if (!(frames <= kMostDelay))
    throw ConfigError(where + ".delay_s", fmt::format("{}", p_.delay_s),
                      fmt::format("at most {} s at {} Hz", (kMostDelay - 2) / rate_hz, rate_hz));
  screen_.resize(static_cast<std::size_t>(frames) + 1);
  intended_.resize(screen_.size());
}

void ModelUser::see(const Seen& seen) noexcept {
  screen_[static_cast<std::size_t>(shown_++ % static_cast<std::int64_t>(screen_.size()))] = seen;
}

std::array<double, 2> ModelUser::intend(std::int64_t frame, double t_s) noexcept {
  const auto room = static_cast<std::int64_t>(screen_.size());
  std::array<double, 2> u{};
  // the newest picture that has arrived
  std::int64_t at = shown_ - 1;
  const double from = t_s - p_.delay_s + 1e-9;
  bool jumped = false;
  for (; at >= std::max<std::int64_t>(0, shown_ - room); --at) {
    const Seen& s = screen_[static_cast<std::size_t>(at % room)];
    if (s.t_s <= from) break;
    jumped = jumped || s.jump;
  }
  if (at >= std::max<std::int64_t>(0, shown_ - room)) {
    const Seen& s = screen_[static_cast<std::size_t>(at % room)];
    if (s.target) {
      double x = s.x, y = s.y;
      if (!jumped)
        for (std::int64_t k = std::max<std::int64_t>(0, intentions_ - room); k < intentions_; ++k) {
          const Intention& i = intended_[static_cast<std::size_t>(k % room)];
          if (i.t_s <= s.t_s + 1e-9) continue;
          x += p_.trust * i.x / rate_hz_;
          y += p_.trust * i.y / rate_hz_;
        }
      const double dx = s.target_x - x, dy = s.target_y - y, far = std::hypot(dx, dy);
      const double speed = p_.speed * std::min(far / p_.slow, 1.0);
      if (far > 0) u = {speed * dx / far - p_.damping * s.vx, speed * dy / far - p_.damping * s.vy};
    }
  }
  intended_[static_cast<std::size_t>(intentions_++ % room)] = {t_s, u[0], u[1]};
  for (std::size_t i = 0; i < 2; ++i)
    u[i] = u[i] * (1 + p_.noise * random_.normal(frame, i)) + p_.jitter * random_.normal(frame, i + 2);
  return u;
}

}  // namespace percept
