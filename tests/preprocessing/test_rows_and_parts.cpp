/// Stages that choose rows by kind, average parts, and clip.
#include "tests/preprocessing/support.h"

namespace percept::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

StreamFormat areas() {
  StreamFormat f = item_format({5});
  for (const char* kind : {"V1", "V1+V2", "V2", "V3", ""})
    f.parts[0].rows.push_back(
        {.name = "r" + std::to_string(f.parts[0].rows.size()), .kind = kind, .unit = "", .position = {}});
  return f;
}
Value list(const char* key, const std::vector<std::string>& values) { return Value::object({{key, Value(values)}}); }

TEST(SelectRows, KeepsKindsAndNamesInTheirOrder) {
  const Eigen::MatrixXd x = wave(5, 3);
  const auto v2 = apply("select_rows", list("kinds", {"V2"}), areas(), x);
  EXPECT_EQ(v2.matrix(), x(std::vector<Index>{1, 2}, Eigen::all)) << "a row of two kinds is of each";
  EXPECT_EQ(v2.format.parts[0].rows.at(1).name, "r2");
  EXPECT_EQ(v2.format.parts[0].shape, (std::vector<Index>{2}));
  Value both = list("kinds", {"V3"});
  both["rows"] = Value(std::vector<std::string>{"r4", "r0"});
  EXPECT_EQ(apply("select_rows", both, areas(), x).matrix(), x(std::vector<Index>{0, 3, 4}, Eigen::all));
}

TEST(SelectRows, WhatIsNotThereIsRefused) {
  EXPECT_THAT(refusal("select_rows", Value::table(), areas()), HasSubstr("at least one kind or row to keep"));
  EXPECT_THAT(refusal("select_rows", list("kinds", {"V4"}), areas()),
              HasSubstr("node.kinds = \"V4\": expected one of V1, V2, V3 (did you mean"));
  EXPECT_THAT(refusal("select_rows", list("rows", {"r9"}), areas()),
              HasSubstr("rows = \"r9\": expected a row of the input"));
  EXPECT_THAT(refusal("select_rows", list("kinds", {"V1"}), item_format({5})), HasSubstr("rows with names and kinds"));
  StreamFormat two = areas();
  two.parts.push_back(two.parts[0]);
  EXPECT_THAT(refusal("select_rows", list("kinds", {"V1"}), two), HasSubstr("expected one part of rows"));
}

TEST(Average, WeighsPartsValueByValue) {
  StreamFormat f = item_format({2, 2}, Scalar::f64, "a");
  f.parts.push_back(Part{"b", {4}, "1", {}, {}});
  Eigen::MatrixXd x(8, 2);
  x.col(0) << 0, 1, 2, 3, 10, 11, 12, 13;
  x.col(1) = x.col(0);
  x(5, 1) = kNaN;
  const auto equal = apply("average", Value::table(), f, x);
  EXPECT_EQ(equal.format.parts.at(0).name, "mean");
  EXPECT_EQ(equal.format.parts[0].shape, (std::vector<Index>{2, 2}));
  EXPECT_EQ(equal.matrix().col(0), Eigen::Vector4d(5, 6, 7, 8));
  EXPECT_EQ(equal.matrix()(0, 1), 5);
  EXPECT_TRUE(std::isnan(equal.matrix()(1, 1)));
  const auto mostly = apply("average", Value::object({{"weights", Value(std::vector<double>{3, 1})}}), f, x);
  EXPECT_EQ(mostly.matrix().col(0), Eigen::Vector4d(2.5, 3.5, 4.5, 5.5));
  auto weights = [&](std::vector<double> w) {
    return refusal("average", Value::object({{"weights", Value(std::move(w))}}), f);
  };
  EXPECT_THAT(weights({1}), HasSubstr("weights = 1 numbers: expected one for each of 2 parts"));
  EXPECT_THAT(weights({0, 0}), HasSubstr("at least one above zero"));
  f.parts[1].shape = {3};
  EXPECT_THAT(refusal("average", Value::table(), f), HasSubstr("parts of one size"));
}

TEST(Transform, ClipKeepsTheRange) {
  const Value params = Value::object({{"function", "clip"}, {"low", -0.5}, {"high", 2.0}});
  Eigen::MatrixXd x(5, 1);
  x << -3, -0.5, 0.25, 7, kNaN;
  const auto y = apply("transform", params, time_format(5, 10), x);
  EXPECT_EQ(y.matrix().topRows(4), Eigen::Vector4d(-0.5, -0.5, 0.25, 2));
  EXPECT_TRUE(std::isnan(y.matrix()(4, 0)));
  EXPECT_THAT(refusal("transform", Value::object({{"function", "clip"}, {"low", 2.0}}), time_format(5, 10)),
              HasSubstr("low = 2: expected less than high (1)"));
}

}  // namespace
}  // namespace percept::testing
