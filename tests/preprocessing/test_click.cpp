#include "tests/preprocessing/support.h"

namespace percept {
namespace {

using namespace testing;
using ::testing::HasSubstr;

/// Rows "click" and "pressed" of one level at 10 Hz, as digits; "." where it is missing.
std::pair<std::string, std::string> clicks(const std::vector<double>& level, const Value& params,
                                           Scalar scalar = Scalar::f64) {
  const Eigen::MatrixXd x = Eigen::Map<const Eigen::RowVectorXd>(level.data(), static_cast<Index>(level.size()));
  const Collected y = apply("click", params, time_format(1, 10.0, scalar), x);
  std::pair<std::string, std::string> text;
  for (Index k = 0; k < y.frames(); ++k) {
    const auto digit = [&](Index row) { return std::isnan(y.frame(k)[row]) ? '.' : y.frame(k)[row] == 1 ? '1' : '0'; };
    text.first += digit(0);
    text.second += digit(1);
  }
  return text;
}
Value click_params(double hold_s, double refractory_s, double hysteresis = 0) {
  return Value::object(
      {{"threshold", 0.5}, {"hold_s", hold_s}, {"refractory_s", refractory_s}, {"hysteresis", hysteresis}});
}
using Pair = std::pair<std::string, std::string>;

// at 10 Hz 0.3 s are three frames: the third in a row clicks, a break begins anew, and it stays pressed until it is let go
TEST(Click, HasToBeHeld) {
  const std::vector<double> level{0, 0.5, 0.6, 0.4, 0.5, 0.5, 0.5, 0.9, 0.9, 0.9, 0.4, 0.9, 0.9, 0.9, 0.9};
  EXPECT_EQ(clicks(level, click_params(0.3, 0)), Pair("000000100000010", "000000111100011"));
  EXPECT_EQ(clicks(level, click_params(0, 0)), Pair("010010000001000", "011011111101111"));
  EXPECT_EQ(clicks(level, click_params(0.3, 0), Scalar::f32), clicks(level, click_params(0.3, 0)));
}

// let go only below 0.5 - 0.3: a level that trembles about the threshold is one click
TEST(Click, TremblingIsOneClick) {
  const std::vector<double> level{0.6, 0.4, 0.6, 0.3, 0.6, 0.1, 0.6, 0.6};
  EXPECT_EQ(clicks(level, click_params(0, 0)).first, "10101010");
  EXPECT_EQ(clicks(level, click_params(0, 0, 0.3)), Pair("10000010", "11111011"));
}

// within 0.5 s of a click, five frames, there is no other; one that is held through them clicks at their end
TEST(Click, DoesNotRepeatTooSoon) {
  const std::vector<double> level{1, 0, 1, 0, 1, 1, 1, 0, 0, 1, 0, 1};
  EXPECT_EQ(clicks(level, click_params(0, 0.5)), Pair("100001000001", "100001100001"));
}

// a missing level breaks a hold and ends a press, and never clicks
TEST(Click, AMissingLevelIsNoClick) {
  const std::vector<double> level{1, kNaN, 1, 1, 1, kNaN, 1, 1};
  EXPECT_EQ(clicks(level, click_params(0.2, 0)), Pair("0.010.01", "0.011.01"));
}

TEST(Click, EachRowHasItsOwn) {
  Eigen::MatrixXd x(2, 3);
  x << 1, 0, 1, 0, 1, 0;
  StreamFormat format = time_format(2, 10.0);
  format.parts[0].rows.resize(2);
  format.parts[0].rows[0].name = "left";
  format.parts[0].rows[1].name = "right";
  const Collected y = apply("click", click_params(0, 0), format, x);
  EXPECT_EQ(y.format.parts[0].name, "click");
  EXPECT_EQ(y.format.parts[1].rows[1].name, "right");
  EXPECT_EQ(y.frame(1)[0], 0);
  EXPECT_EQ(y.frame(1)[1], 1);
}

TEST(Click, SaysWhatIsWrong) {
  const auto refusal = [](const StreamFormat& format, const Value& params) {
    return message_of<ConfigError>([&] {
      auto context = context_of();
      make("click", params)->prepare(format, context);
    });
  };
  StreamFormat two = time_format(1, 10.0);
  two.parts.push_back(two.parts[0]);
  two.parts[1].name = "y";
  EXPECT_THAT(refusal(two, click_params(0, 0)), HasSubstr("one part"));
  EXPECT_THAT(refusal(item_format({2}), click_params(0, 0)), HasSubstr("click"));
}

}  // namespace
}  // namespace percept
