#include "realtime/model_user.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using ::testing::HasSubstr;
using testing::message_of;

constexpr double kRate = 20;

/// Without noise, correction of the delay or damping.
ModelUser::Params plain() {
  return {.delay_s = 0.2, .speed = 0.25, .slow = 0.05, .damping = 0, .trust = 0, .noise = 0, .jitter = 0};
}

// nothing is meant before the delay is over; then full speed towards the target, less when near
TEST(ModelUser, ActsOnWhatWasSeen) {
  ModelUser user(plain(), kRate, "live.user");
  for (int k = 0; k < 12; ++k) {
    const double t = k / kRate;
    const auto u = user.intend(k, t);
    EXPECT_NEAR(u[0], k < 4 ? 0 : k < 8 ? 0.25 : 0.25 * 0.02 / 0.05, 1e-12) << k;
    EXPECT_EQ(u[1], 0);
    user.see({.t_s = t, .x = k < 4 ? 0.0 : 0.08, .y = 0, .target = true, .target_x = 0.1, .target_y = 0});
  }
}

TEST(ModelUser, ExpectsWhatItIntends) {
  auto p = plain();
  p.trust = 1;
  ModelUser user(p, kRate, "t");
  double last = 0;
  // a cursor that does not move: the user believes that it does, and comes to rest as if it had arrived
  for (int k = 0; k < 60; ++k) {
    last = user.intend(k, k / kRate)[0];
    user.see({.t_s = k / kRate, .x = 0, .y = 0, .target = true, .target_x = 0.04, .target_y = 0});
  }
  // the picture is four frames old, three intentions u of 0.05 s are on their way: u = 0.25 / 0.05 (0.04 - 3 * 0.05 u)
  EXPECT_NEAR(last, 0.2 / 1.75, 1e-6);
}

TEST(ModelUser, WorksAgainstTheSpeedItSees) {
  auto p = plain();
  p.damping = 0.5;
  ModelUser user(p, kRate, "t");
  for (int k = 0; k < 5; ++k) user.see({.t_s = k / kRate, .vx = 0.1, .vy = -0.2, .target = true, .target_x = 1});
  const auto u = user.intend(5, 5 / kRate);
  EXPECT_NEAR(u[0], 0.25 - 0.05, 1e-12);
  EXPECT_NEAR(u[1], 0.1, 1e-12);
}

TEST(ModelUser, IsAsNoisyAsItIsSaidAndKeyed) {
  auto p = plain();
  p.noise = 0.2;
  ModelUser a(p, kRate, "t"), b(p, kRate, "t");
  p.seed = 2;
  ModelUser c(p, kRate, "t");
  double sum = 0, square = 0;
  int same = 0;
  const int n = 4000;
  for (int k = 0; k < n; ++k) {
    for (auto* u : {&a, &b, &c}) u->see({.t_s = k / kRate, .target = true, .target_x = 1});
    const double t = (k + 5) / kRate;
    const double x = a.intend(k, t)[0];
    EXPECT_EQ(x, b.intend(k, t)[0]);
    same += x == c.intend(k, t)[0];
    sum += x / 0.25 - 1;
    square += (x / 0.25 - 1) * (x / 0.25 - 1);
  }
  EXPECT_EQ(same, 0);
  EXPECT_NEAR(sum / n, 0, 4 * 0.2 / std::sqrt(n));
  EXPECT_NEAR(std::sqrt(square / n), 0.2, 0.01);
}

// where the cursor was put, what was meant before does not carry it on
TEST(ModelUser, AJumpIsSeenAsOne) {
  auto p = plain();
  p.trust = 1;
  ModelUser with(p, kRate, "t"), without(p, kRate, "t");
  for (int k = 0; k < 20; ++k)
    for (auto* u : {&with, &without}) {
      u->intend(k, k / kRate);
      u->see({.t_s = k / kRate, .x = 0, .target = true, .target_x = 0.04, .jump = u == &with && k == 19});
    }
  EXPECT_NEAR(with.intend(20, 20 / kRate)[0], 0.2, 1e-12);
  EXPECT_LT(without.intend(20, 20 / kRate)[0], 0.15);
}

TEST(ModelUser, RefusesADelayThatCannotBeKept) {
  EXPECT_THAT(message_of<ConfigError>([] { ModelUser({.delay_s = 2}, 10000, "live.user"); }),
              HasSubstr("live.user.delay_s = 2: expected at most 0.3998 s at 10000 Hz"));
}

}  // namespace
}  // namespace percept
