/// Voxel selection by what the target predicts.
#include "numerics/random.h"
#include "tests/preprocessing/support.h"

namespace percept::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// 60 frames of 6 rows: 1 and 4 follow the target, 2 is constant, 5 is once missing, the others are noise.
struct Predicted {
  StreamFormat format = named(item_format({6}), {"a", "b", "c", "d", "e", "f"});
  StreamFormat target = item_format({1}, Scalar::f64, "category");
  TrainingMatrix t;
  explicit Predicted(bool categories = true) {
    const KeyedRandom random(3, "select");
    t.x.resize(6, 60);
    t.y.resize(1, 60);
    for (Index k = 0; k < 60; ++k) {
      for (Index r = 0; r < 6; ++r) t.x(r, k) = random.normal(k, static_cast<std::uint64_t>(r));
      // as categories, 1 stands apart from 0 and 2: no line through the three numbers tells it
      const auto c = static_cast<double>(k % 3);
      t.y(0, k) = c;
      const double response = categories ? (c == 1 ? 3 : 0) : 2 * c;
      t.x(1, k) += response;
      t.x(4, k) += 2 * response;
      t.x(2, k) = 7;
      t.x(5, k) += 3 * response;
      t.keys.push_back(k);
    }
    t.x(5, 9) = kNaN;
    t.groups.assign(60, 0);
    t.segment_starts = {0};
    if (categories) target.parts[0].levels = {"face", "house", "cat"};
  }
  Model fit(const Value& params) const {
    auto c = context_of();
    return stages()
        .at("select_predicted", "test")
        .make_fitter(params, "node")
        ->fit(MemoryData(format, target, t, 7), c);
  }
};
std::vector<double> kept(const Model& m) {
  const Eigen::VectorXd v = m.vector("kept");
  return {v.begin(), v.end()};
}
const Value kTwo = Value::object({{"keep", 2}});

TEST(SelectPredicted, KeepsTheRowsThatTheTargetPredicts) {
  const Predicted p;
  const Model m = p.fit(kTwo);
  EXPECT_THAT(kept(m), ElementsAre(1, 4)) << "not 5, which is once missing";
  const Eigen::VectorXd r2 = m.vector("r2");
  EXPECT_GT(r2(4), r2(1));
  EXPECT_LT(r2(0), 0.1) << "noise is not predicted on frames left out";
  EXPECT_EQ(m.meta.at("least_r2").as_number(), r2(1));
  // by name: the edge may have its rows in another order
  const StreamFormat turned = named(item_format({6}), {"f", "e", "d", "c", "b", "a"});
  const Collected y = apply("select_predicted", kTwo, turned, Eigen::VectorXd::LinSpaced(6, 0, 5), &m);
  EXPECT_THAT(y.format.row_names(), ElementsAre("b", "e"));
  EXPECT_EQ(y.matrix().col(0), Eigen::Vector2d(4, 1));
}

TEST(SelectPredicted, ANumberIsNotACategory) {
  Predicted line(false);
  EXPECT_THAT(kept(line.fit(kTwo)), ElementsAre(1, 4));
  // numbers in whose middle something happens are predicted as categories only
  Predicted middle(true);
  middle.target.parts[0].levels.clear();
  EXPECT_LT(middle.fit(kTwo).vector("r2")(4), 0.2);
}

// worked out again frame by frame: the best alpha's squared error left out, against the variance
TEST(SelectPredicted, ScoreIsLeaveOneOut) {
  Predicted p(false);
  const double alpha = 5;
  const Model m = p.fit(Value::object({{"keep", 6}, {"alpha", alpha}}));
  for (const Index row : {0, 1, 4}) {
    double error = 0;
    const Eigen::RowVectorXd x = p.t.x.row(row), y = p.t.y.row(0);
    for (Index left = 0; left < 60; ++left) {
      double n = 0, sx = 0, sy = 0, xy = 0, yy = 0;
      for (Index k = 0; k < 60; ++k)
        if (k != left) {
          n += 1;
          sx += x(k);
          sy += y(k);
        }
      for (Index k = 0; k < 60; ++k)
        if (k != left) {
          xy += (x(k) - sx / n) * (y(k) - sy / n);
          yy += (y(k) - sy / n) * (y(k) - sy / n);
        }
      const double slope = xy / (yy + alpha), error_left = x(left) - (sx / n + slope * (y(left) - sy / n));
      error += error_left * error_left / 60;
    }
    const double variance = (x.array() - x.mean()).square().mean();
    EXPECT_NEAR(m.vector("r2")(row), 1 - error / variance, 1e-9) << row;
  }
  EXPECT_THAT(kept(m), ElementsAre(0, 1, 3, 4)) << "all that there are";
}

TEST(SelectPredicted, TellsWhatItCannotUse) {
  Predicted p;
  p.t.x.row(0).setConstant(1);
  for (const Index r : {1, 3, 4, 5}) p.t.x.row(r) = p.t.x.row(2);
  EXPECT_THAT(message_of<DataError>([&] { p.fit(kTwo); }),
              HasSubstr("training frames: expected a row that varies and is never missing, found none"));
  Predicted one;
  one.t.y.setZero();
  EXPECT_THAT(message_of<DataError>([&] { one.fit(kTwo); }),
              HasSubstr("target: expected at least two categories in the training frames, found 1"));
}

}  // namespace
}  // namespace percept::testing
