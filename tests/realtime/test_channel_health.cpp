#include "realtime/channel_health.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "numerics/random.h"
#include "tests/support/alloc.h"

namespace percept {
namespace {

constexpr double kGone = std::numeric_limits<double>::quiet_NaN();

/// Channel 0 is well, 1 is missing in [50, 90), 2 flat in [60, 120), 3 beyond 5 in frame 40 alone. 100 Hz.
Eigen::MatrixXd signal() {
  const KeyedRandom random(3, "health");
  Eigen::MatrixXd x(4, 300);
  for (Index t = 0; t < 300; ++t)
    for (Index i = 0; i < 4; ++i) x(i, t) = std::tanh(random.normal(t, static_cast<std::uint64_t>(i)));
  x.row(1).segment(50, 40).setConstant(kGone);
  x.row(2).segment(60, 60).setConstant(0.25);
  x(3, 40) = -6;
  return x;
}

// the states frame by frame do not depend on how the frames are packed, but for the frame in which they are looked at
TEST(ChannelHealth, FindsMissingFlatAndSaturatedChannels) {
  const Eigen::MatrixXd x = signal();
  const Eigen::MatrixXf narrow = x.cast<float>();
  const ChannelHealth::Params params{.amplitude_limit = 5, .flat_s = 0.2, .missing_s = 0.1, .recover_s = 0.5};
  for (Scalar scalar : {Scalar::f32, Scalar::f64}) {
    ChannelHealth health(time_format(4, 100.0, scalar), params);
    std::vector<std::vector<ChannelState>> states(4);
    int changes = 0;
    for (Index t = 0; t < 300; ++t) {
      testing::AllocationCounter counter;
      changes += health.check(scalar == Scalar::f32 ? ConstFrames(narrow.data() + 4 * t, scalar, 4, 1, 4)
                                                    : ConstFrames(x.data() + 4 * t, scalar, 4, 1, 4));
      if (testing::AllocationCounter::available()) {
        EXPECT_EQ(counter.count(), 0);
      }
      for (Index i = 0; i < 4; ++i) states[static_cast<std::size_t>(i)].push_back(health.state(i));
    }
    const auto range = [&](std::size_t i, ChannelState s) {
      std::pair<Index, Index> r{-1, -1};
      for (Index t = 0; t < 300; ++t)
        if (states[i][static_cast<std::size_t>(t)] == s) {
          if (r.first < 0) r.first = t;
          r.second = t;
        }
      return r;
    };
    EXPECT_EQ(range(0, ChannelState::good), std::pair(Index{0}, Index{299}));
    // the tenth missing frame until half a second of good ones is over
    EXPECT_EQ(range(1, ChannelState::missing), std::pair(Index{59}, Index{138}));
    // 0.25 for the first time in frame 60, so the twentieth repetition is frame 80
    EXPECT_EQ(range(2, ChannelState::flat), std::pair(Index{80}, Index{168}));
    EXPECT_EQ(range(3, ChannelState::saturated), std::pair(Index{40}, Index{89}));
    EXPECT_EQ(changes, 6);
    EXPECT_EQ(health.bad(), 0);
  }
}

TEST(ChannelHealth, TheOperatorTakesChannelsOut) {
  const Eigen::MatrixXd x = Eigen::MatrixXd::Random(2, 40);
  ChannelHealth health(time_format(2, 100.0), {.missing_s = 0, .recover_s = 0.1});
  const auto feed = [&](Index from, Index n) {
    return health.check(ConstFrames(x.data() + 2 * from, Scalar::f64, 2, n, 2));
  };
  EXPECT_FALSE(feed(0, 5));
  health.by_hand(1, true);
  EXPECT_TRUE(feed(5, 5));
  EXPECT_EQ(health.state(1), ChannelState::by_hand);
  EXPECT_EQ(health.bad(), 1);
  health.by_hand(1, false);
  EXPECT_TRUE(feed(10, 5));
  EXPECT_EQ(health.state(1), ChannelState::good);
  health.by_hand(7, true);  // there is no such channel
  EXPECT_FALSE(feed(15, 5));
  EXPECT_FALSE(health.check(ConstFrames(x.data(), Scalar::f64, 1, 1, 1))) << "another shape";
}

}  // namespace
}  // namespace percept
