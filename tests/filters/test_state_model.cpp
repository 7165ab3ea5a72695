#include <gmock/gmock.h>

#include "filters/state_model.h"
#include "tests/filters/common.h"

namespace percept {
namespace {

using namespace percept::testing;
using ::testing::HasSubstr;

struct Series {
  MatrixXd x, z;
};

/// Two outputs that wander about an offset, seen by five channels.
Series series(Index frames) {
  const KeyedRandom random(6, "series");
  Series s{MatrixXd(5, frames), MatrixXd(2, frames)};
  for (Index t = 0; t < frames; ++t) {
    for (Index k = 0; k < 2; ++k)
      s.z(k, t) = 1.0 + (t ? 0.9 * (s.z(k, t - 1) - 1.0) : 0.0) + 0.4 * random.normal(t, static_cast<std::uint64_t>(k));
    for (Index i = 0; i < 5; ++i)
      s.x(i, t) = 7.0 + s.z(i % 2, t) + random.normal(t, static_cast<std::uint64_t>(10 + i));
  }
  return s;
}

StateSums sums_of(const Series& s, std::vector<Index> starts, bool center, Observations o, Index block = 4096) {
  Context context;
  context.node = "kalman";
  const MemoryData data(time_format(5, 10), named_format({"vx", "vy"}, 10),
                        TrainingMatrix{s.x, s.z, {}, {}, std::move(starts)}, block);
  return state_sums(data, center, o, context);
}

TEST(StateSums, PairsStayInsideSegmentsAndOutOfHoles) {
  Series s = series(60);
  s.z(1, 10) = NAN;
  s.x(3, 30) = NAN;
  s.x(0, 40) = INFINITY;
  const auto no_pair = [](Index t) {
    return t == 0 || t == 25 || t == 10 || t == 11 || t == 30 || t == 31 || t == 40 || t == 41;
  };
  for (const bool center : {false, true})
    for (const Index block : {1, 7, 4096}) {
      const StateSums got = sums_of(s, {0, 25}, center, Observations::full, block);
      EXPECT_EQ(got.frames, 57);
      EXPECT_EQ(got.dropped, 3);
      std::vector<Index> kept;
      for (Index t = 0; t < 60; ++t)
        if (t != 10 && t != 30 && t != 40) kept.push_back(t);
      const VectorXd zm = s.z(Eigen::all, kept).rowwise().mean(), xm = s.x(Eigen::all, kept).rowwise().mean();
      const MatrixXd z = center ? MatrixXd(s.z.colwise() - zm) : s.z, x = center ? MatrixXd(s.x.colwise() - xm) : s.x;
      MatrixXd next_last = MatrixXd::Zero(2, 2), zz = next_last, scatter = next_last, xx = MatrixXd::Zero(5, 5),
               xz = MatrixXd::Zero(5, 2);
      Index pairs = 0;
      for (const Index t : kept) {
        zz += z.col(t) * z.col(t).transpose();
        xx += x.col(t) * x.col(t).transpose();
        xz += x.col(t) * z.col(t).transpose();
        scatter += (s.z.col(t) - zm) * (s.z.col(t) - zm).transpose();
        if (no_pair(t)) continue;
        ++pairs;
        next_last += z.col(t) * z.col(t - 1).transpose();
      }
      EXPECT_EQ(got.pairs, pairs) << block;
      EXPECT_LT((got.next_last - next_last).cwiseAbs().maxCoeff(), 1e-10) << block;
      EXPECT_LT((got.zz - zz).cwiseAbs().maxCoeff(), 1e-10);
      EXPECT_LT((got.xz - xz).cwiseAbs().maxCoeff(), 1e-9);
      EXPECT_LT((got.xx - xx).cwiseAbs().maxCoeff(), 1e-9);
      EXPECT_LT((got.z_scatter - scatter).cwiseAbs().maxCoeff(), 1e-10);
      const StateSums diagonal = sums_of(s, {0, 25}, center, Observations::diagonal, block);
      EXPECT_LT((diagonal.xx - xx.diagonal()).cwiseAbs().maxCoeff(), 1e-9);
    }
}

TEST(StateSums, WithoutObservationsTheInputDoesNotMatter) {
  Series s = series(60);
  const StateSums clean = sums_of(s, {0}, true, Observations::none);
  s.x.setConstant(NAN);
  const StateSums without = sums_of(s, {0}, true, Observations::none);
  EXPECT_EQ(without.dropped, 0);
  EXPECT_EQ(clean.next_last, without.next_last);
}

TEST(StateModel, IsLeastSquaresDividedByFrames) {
  const Series s = series(300);
  Context context;
  const StateModel m = state_model(sums_of(s, {0}, false, Observations::none), context);
  const MatrixXd last = s.z.leftCols(299), next = s.z.rightCols(299);
  const MatrixXd a = last.transpose().colPivHouseholderQr().solve(next.transpose()).transpose();
  const MatrixXd residual = next - a * last;
  EXPECT_LT((m.a - a).cwiseAbs().maxCoeff(), 1e-11);
  EXPECT_LT((m.gamma - residual * residual.transpose() / 300).cwiseAbs().maxCoeff(), 1e-12);
  const MatrixXd centred = s.z.colwise() - s.z.rowwise().mean();
  EXPECT_LT((m.s - centred * centred.transpose() / 299).cwiseAbs().maxCoeff(), 1e-13);
}

TEST(StateModel, RefusesWhatCannotBeFitted) {
  Series s = series(60);
  Context context;
  context.node = "dkf";
  s.z.row(1).setConstant(0.1);
  EXPECT_THAT(message_of([&] { sums_of(s, {0}, true, Observations::none); }),
              ::testing::AllOf(HasSubstr("target 'vy'"), HasSubstr("constant 0.1")));
  s.z.row(1) = 2 * s.z.row(0);
  EXPECT_THAT(message_of([&] { state_model(sums_of(s, {0}, true, Observations::none), context); }),
              HasSubstr("linearly independent rows"));
  s = series(60);
  std::vector<Index> all;
  for (Index t = 0; t < 60; ++t) all.push_back(t);
  EXPECT_THAT(message_of([&] { state_model(sums_of(s, all, true, Observations::none), context); }),
              ::testing::AllOf(HasSubstr("at least 3 pairs of consecutive frames"), HasSubstr("found 0")));
  s.z.setConstant(NAN);
  EXPECT_THAT(message_of([&] { sums_of(s, {0}, true, Observations::none); }),
              HasSubstr("at least 2 without missing values"));
}

}  // namespace
}  // namespace percept
