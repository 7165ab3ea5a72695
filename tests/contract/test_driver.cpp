/// The driver gives a stage what an edge of a graph would: checked with a stage that writes down what it is given.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "core/error.h"
#include "tests/support/driver.h"

namespace percept::testing {
namespace {

/// Passes frames on and gives one more, 99, at the end.
class Scribe final : public Typed<Scribe> {
 public:
  std::vector<Index> sizes;
  std::vector<std::int64_t> firsts, keys;
  std::vector<std::pair<std::int64_t, double>> events;  ///< end of the block that brought it, onset
  StreamFormat prepare(const StreamFormat& in, Context&) override { return in; }
  template <class T>
  Index run(const Block& b, FrameSpan<const T> in, Output& out, FrameSpan<T> y) noexcept {
    sizes.push_back(in.frames);
    firsts.push_back(b.first_frame);
    keys.insert(keys.end(), b.keys.begin(), b.keys.end());
    for (auto& e : b.events) events.emplace_back(b.first_frame + in.frames, e.onset_s);
    copy_frames(ConstFrames(in), MutableFrames(y));
    if (out.keys) std::copy(b.keys.begin(), b.keys.end(), out.keys);
    return in.frames;
  }
  Index flush(Output& out) noexcept override {
    if (flushed_) return 0;
    flushed_ = true;
    copy_frames(ConstFrames(&last_, Scalar::f64, 1, 1, 1), out.y);
    return 1;
  }
  void reset() noexcept override { flushed_ = false; }

 private:
  bool flushed_ = false;
  double last_ = 99;
};

using ::testing::ElementsAre;
using ::testing::Pair;

TEST(StageDriver, CutsTheStreamAndKeepsItsFrames) {
  const Eigen::MatrixXd x = Eigen::MatrixXd::Random(1, 10);
  Scribe scribe;
  const Collected y =
      run_stage(scribe, {time_format(1, 10.0), x}, {.block = 4}, {.input_gap = 2, .output_gap = 1, .offset = 1});
  EXPECT_THAT(scribe.sizes, ElementsAre(4, 4, 2));
  EXPECT_THAT(scribe.firsts, ElementsAre(0, 4, 8));
  ASSERT_EQ(y.frames(), 11);
  EXPECT_EQ(y.before_flush, 10);
  EXPECT_EQ(y.matrix().leftCols(10), x);
  EXPECT_EQ(y.matrix()(0, 10), 99);
  EXPECT_EQ(y.given[3], 4);
  EXPECT_EQ(y.given[4], 8);
}

TEST(StageDriver, RandomSizesAddUp) {
  Scribe scribe;
  run_stage(scribe, {time_format(1, 10.0), Eigen::MatrixXd::Zero(1, 200)}, {.block = 16, .random = 1});
  EXPECT_GT(scribe.sizes.size(), 12u);
  Index sum = 0;
  for (std::size_t i = 0; i < scribe.sizes.size(); ++i) {
    EXPECT_EQ(scribe.firsts[i], sum);
    EXPECT_LE(scribe.sizes[i], 16);
    sum += scribe.sizes[i];
  }
  EXPECT_EQ(sum, 200);
}

TEST(StageDriver, EventsComeWithTheBlockWhoseEndPassesThem) {
  StageInput in{time_format(1, 10.0), Eigen::MatrixXd::Zero(1, 10)};
  in.format.start_s = 1;
  for (double onset : {0.5, 1.0, 1.3, 1.35, 1.4, 5.0}) in.events.emplace_back().onset_s = onset;
  Scribe scribe;
  run_stage(scribe, in, {.block = 2});
  // 1.3 s is frame 3; 1.35 s lies between frames 3 and 4; 5 s is never reached
  EXPECT_THAT(scribe.events, ElementsAre(Pair(2, 0.5), Pair(2, 1.0), Pair(4, 1.3), Pair(4, 1.35), Pair(6, 1.4)));
}

TEST(StageDriver, LateEventsKeepTheirOrderAndNoneIsLost) {
  StageInput in{time_format(1, 10.0), Eigen::MatrixXd::Zero(1, 60)};
  for (int k = 0; k < 59; k += 2) in.events.emplace_back().onset_s = k / 10.0;
  Scribe scribe;
  run_stage(scribe, in, {.block = 1, .late = 9});
  ASSERT_EQ(scribe.events.size(), in.events.size());
  Index late = 0;
  for (std::size_t i = 0; i < in.events.size(); ++i) {
    EXPECT_EQ(scribe.events[i].second, in.events[i].onset_s);
    const auto due = in.format.nearest_frame(in.events[i].onset_s) + 1;
    EXPECT_GE(scribe.events[i].first, due);
    late += scribe.events[i].first > due;
  }
  EXPECT_GT(late, 10);
}

TEST(StageDriver, ItemsHaveKeys) {
  StageInput in{item_format({1}), Eigen::MatrixXd::Zero(1, 3), {7, 9, 40}, {}};
  Scribe scribe;
  StageDriver driver(scribe, in, {.block = 2});
  driver.run();
  EXPECT_THAT(scribe.keys, ElementsAre(7, 9, 40));
  EXPECT_THAT(driver.output().keys, ElementsAre(7, 9, 40));
}

TEST(StageDriver, DifferenceIsBitForBit) {
  const Eigen::MatrixXd x = Eigen::MatrixXd::Ones(1, 4);
  Scribe a, b;
  const Collected one = run_stage(a, {time_format(1, 10.0), x});
  Collected two = run_stage(b, {time_format(1, 10.0), x});
  EXPECT_EQ(difference(one, two), "");
  two.values[2] = std::nextafter(1.0, 2.0);
  EXPECT_THAT(difference(one, two), ::testing::StartsWith("frame 2 row 0: 1 and 1.0000000000000002"));
  two.values[2] = 1;
  two.events.emplace_back();
  EXPECT_EQ(difference(one, two), "0 events and 1 events");
  two.events.clear();
  EXPECT_EQ(difference(one, two, 1), "frame 4 row 0: 99 and 1 (differ by 98)") << "frame 4 is the one of the flush";
  EXPECT_EQ(difference(two, two, 5), "0 frames and 5 frames");
}

}  // namespace
}  // namespace percept::testing
