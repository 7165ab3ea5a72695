#include <gmock/gmock.h>

#include <cmath>

#include "core/error.h"
#include "numerics/apply.h"

namespace percept {
namespace {

using Names = std::vector<std::string>;

Context context() {
  Context c;
  c.node = "kalman";
  return c;
}

std::string refusal(const Names& model, const Names& edge) {
  try {
    row_order(model, edge, context());
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

StreamFormat named(const Names& names, const std::string& part = "x") {
  StreamFormat f = time_format(static_cast<Index>(names.size()), 10, Scalar::f64, part);
  f.parts[0].rows.resize(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) f.parts[0].rows[i].name = names[i];
  return f;
}

TEST(RowOrder, MatchesByName) {
  EXPECT_THAT(row_order({"a", "b", "c"}, {"a", "b", "c"}, context()), ::testing::ElementsAre(0, 1, 2));
  EXPECT_THAT(row_order({"a", "b", "c"}, {"c", "a", "b"}, context()), ::testing::ElementsAre(1, 2, 0));
}

TEST(RowOrder, ByPositionWhereNamesAreMissing) {
  EXPECT_THAT(row_order({"", ""}, {"c", "a"}, context()), ::testing::ElementsAre(0, 1));
  EXPECT_THAT(row_order({"a", "c"}, {"", ""}, context()), ::testing::ElementsAre(0, 1));
}

TEST(RowOrder, Refuses) {
  EXPECT_EQ(refusal({"a", "b"}, {"a", "b", "c"}),
            "kalman.from = 3 channels: expected the 2 channels the model was fitted on");
  EXPECT_THAT(refusal({"unit1", "unit2"}, {"unit1", "other"}), ::testing::HasSubstr("no channel 'unit2'"));
  EXPECT_THAT(refusal({"a", "b"}, {"a", "a"}), ::testing::HasSubstr("channel 'a' twice"));
  EXPECT_THAT(refusal({"a", "a"}, {"a", "b"}), ::testing::HasSubstr("no channel 'a'"));
}

TEST(NamedRows, OfOneAndOfSeveralParts) {
  StreamFormat f = named({"a", "b"}, "crossings");
  EXPECT_EQ(named_rows(f), (Names{"a", "b"}));
  f.parts.push_back(named({"a", "b"}, "power").parts[0]);
  f.parts.push_back(Part{"epoch", {2, 2}, "1", {}, {}});
  EXPECT_EQ(named_rows(f), (Names{"crossings.a", "crossings.b", "power.a", "power.b", "", "", "", ""}));
}

TEST(ModelMeta, ComesBackAsTheOutputsParts) {
  StreamFormat y = named({"vx", "vy"});
  y.parts[0].unit = "m/s";
  Model m;
  m.meta = model_meta("kalman", 1, Value::table(), named({"a", "b", "c"}), y);
  EXPECT_EQ(m.input_rows(), (Names{"a", "b", "c"}));
  auto parts = posterior_parts(m, 2, true);
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].name, "mean");
  EXPECT_EQ(parts[0].unit, "m/s");
  EXPECT_EQ(parts[0].rows[1].name, "vy");
  EXPECT_EQ(parts[1].name, "covariance");
  EXPECT_EQ(parts[1].shape, (std::vector<Index>{2, 2}));
  EXPECT_EQ(parts[1].unit, "(m/s)^2");
  EXPECT_EQ(posterior_parts(m, 2, false).size(), 1u);

  y.parts[0].rows[1].unit = "rad/s";
  m.meta = model_meta("kalman", 1, Value::table(), named({"a"}), y);
  parts = posterior_parts(m, 2, true);
  EXPECT_EQ(parts[0].unit, "1");
  EXPECT_EQ(parts[0].rows[0].unit, "m/s");
  EXPECT_EQ(parts[0].rows[1].unit, "rad/s");
  EXPECT_EQ(parts[1].unit, "1");
}

TEST(RequireModel, RefusesAnotherStageVersionOrRate) {
  Model m;
  m.meta = model_meta("kalman", 1, Value::table(), named({"a"}), named({"v"}));
  EXPECT_NO_THROW(require_model(m, "kalman", 1));
  EXPECT_THROW(require_model(m, "dkf", 1), DataError);
  EXPECT_THROW(require_model(m, "kalman", 2), DataError);
  EXPECT_THROW(require_model(Model{}, "kalman", 1), DataError);
  EXPECT_NO_THROW(require_rate(m, named({"a"}), context()));
  StreamFormat faster = named({"a"});
  faster.rate_hz = 20;
  EXPECT_THROW(require_rate(m, faster, context()), ConfigError);
}

TEST(DropMissing, SplitsSegmentsAtTheHoles) {
  TrainingMatrix t;
  t.x = Eigen::RowVectorXd::LinSpaced(8, 0, 7);
  t.y = -t.x;
  t.keys = {10, 11, 12, 13, 14, 15, 16, 17};
  t.groups = {0, 0, 0, 0, 1, 1, 1, 1};
  t.segment_starts = {0, 4};
  TrainingMatrix same = t;
  EXPECT_EQ(drop_missing(same), 0);
  EXPECT_EQ(same.segment_starts, t.segment_starts);
  t.x(0, 1) = NAN;
  t.y(0, 4) = INFINITY;
  EXPECT_EQ(drop_missing(t), 2);
  EXPECT_EQ(t.x, (Eigen::RowVectorXd(6) << 0, 2, 3, 5, 6, 7).finished());
  EXPECT_EQ(t.y, -t.x);
  EXPECT_THAT(t.keys, ::testing::ElementsAre(10, 12, 13, 15, 16, 17));
  EXPECT_THAT(t.groups, ::testing::ElementsAre(0, 0, 0, 1, 1, 1));
  EXPECT_THAT(t.segment_starts, ::testing::ElementsAre(0, 1, 3));
}

}  // namespace
}  // namespace percept
