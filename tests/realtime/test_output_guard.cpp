#include "realtime/output_guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();

/// A posterior over a position and a velocity.
StreamFormat posterior() {
  StreamFormat f = time_format(2, 50.0, Scalar::f64, "mean");
  f.parts[0].rows.resize(2);
  f.parts[0].rows[0].name = "x";
  f.parts[0].rows[1].name = "vx";
  Part cov;
  cov.name = "covariance";
  cov.shape = {2, 2};
  f.parts.push_back(cov);
  return f;
}

void take(OutputGuard& guard, double x, double vx, double sd = 0.1) {
  const std::array<double, 6> frame{x, vx, sd * sd, 0.001, 0.001, sd * sd};
  guard.take(ConstFrames(frame.data(), Scalar::f64, 6, 1, 6));
}

TEST(OutputGuard, SendsWhatIsInsideItsLimits) {
  OutputGuard guard(posterior(), {.low = {-1}, .high = {1, 2}}, "guard");
  EXPECT_EQ(guard.hold(), Hold::waiting);
  EXPECT_TRUE(std::isnan(guard.value()[0]));
  take(guard, 0.5, -0.25);
  EXPECT_EQ(guard.hold(), Hold::none);
  EXPECT_EQ(guard.value()[0], 0.5);
  EXPECT_EQ(guard.value()[1], -0.25);
  EXPECT_NEAR(guard.sd()[0], 0.1, 1e-12);
  EXPECT_EQ(guard.covariance(0, 1), 0.001);
  take(guard, -3, 5);
  EXPECT_EQ(guard.value()[0], -1);
  EXPECT_EQ(guard.value()[1], 2);
  EXPECT_EQ(guard.limited(), 1);
  EXPECT_EQ(guard.held_frames(), 0);
}

TEST(OutputGuard, HoldsAndSaysWhy) {
  OutputGuard guard(posterior(), {.max_sd = {0.5}, .velocity_rows = {"vx"}, .max_age_s = 0.1, .max_bad_channels = 0.5},
                    "guard");
  take(guard, 0.5, 1);
  guard.conditions(0.05, 0);
  EXPECT_EQ(guard.hold(), Hold::none);
  const auto frozen = [&](Hold why) {
    EXPECT_EQ(guard.hold(), why) << text_of(guard.hold());
    EXPECT_EQ(guard.value()[0], 0.5) << "the position stays";
    EXPECT_EQ(guard.value()[1], 0) << "the velocity is none";
  };
  guard.conditions(0.11, 0);
  frozen(Hold::old_data);
  guard.conditions(0.01, 0.6);
  frozen(Hold::channels);
  guard.conditions(0.01, 0.1);
  EXPECT_EQ(guard.hold(), Hold::none);
  EXPECT_EQ(guard.value()[1], 1) << "it goes on by itself";
  take(guard, 9, 9, 0.6);
  frozen(Hold::uncertain);
  take(guard, kNoNumber, 9);
  frozen(Hold::missing);
  take(guard, 9, std::numeric_limits<double>::infinity());
  frozen(Hold::missing);
  take(guard, 0.5, 3);
  guard.emergency(true);
  guard.conditions(0, 0);
  frozen(Hold::emergency);
  take(guard, 9, 9);
  frozen(Hold::emergency);
  guard.emergency(false);
  take(guard, 7, 8);
  EXPECT_EQ(guard.hold(), Hold::none);
  EXPECT_EQ(guard.value()[0], 7);
  EXPECT_EQ(guard.held_frames(), 4);
  EXPECT_EQ(guard.holds(), 3) << "from one reason to another is one hold";

  OutputGuard silent(posterior(), {.max_age_s = 0.1, .hold = "nothing"}, "guard");
  take(silent, 1, 1);
  silent.conditions(1, 0);
  EXPECT_TRUE(std::isnan(silent.value()[0]));
  // a clock that went wrong is no reason to go on
  silent.conditions(kNoNumber, 0);
  EXPECT_EQ(silent.hold(), Hold::old_data);
}

TEST(OutputGuard, RefusesWhatDoesNotFit) {
  const auto refusal = [](const OutputGuard::Params& p, const StreamFormat& f) {
    return message_of<ConfigError>([&] { OutputGuard(f, p, "live.guard"); });
  };
  EXPECT_THAT(refusal({.low = {1, 2, 3}}, posterior()),
              AllOf(HasSubstr("live.guard.low"), HasSubstr("one for each of 2 rows")));
  EXPECT_THAT(refusal({.low = {1}, .high = {0}}, posterior()), HasSubstr("at most high, which is 0"));
  EXPECT_THAT(refusal({.velocity_rows = {"v"}}, posterior()), HasSubstr("x, vx"));
  EXPECT_THAT(refusal({.low = {0.1}, .high = {1}, .velocity_rows = {"vx"}}, posterior()), HasSubstr("around zero"));
  EXPECT_THAT(refusal({.max_sd = {1}}, time_format(2, 50.0)), HasSubstr("a covariance"));
}

}  // namespace
}  // namespace percept
