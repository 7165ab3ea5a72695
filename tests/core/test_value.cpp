/// The tree, TOML and JSON: order, lines, numbers that come back, and errors that say where.
#include <cmath>
#include <fstream>
#include <limits>

#include "core/value.h"
#include "tests/core/support.h"
#include "tests/support/data.h"

namespace percept::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::vector<std::string> keys_of(const Value& v) {
  std::vector<std::string> keys;
  for (auto& [k, item] : v.as_table()) keys.push_back(k);
  return keys;
}

TEST(Value, KeepsTheOrderOfItsKeysAndFindsByPath) {
  Value v;
  v["z"] = 1;
  v["a"] = "text";
  v.set_path("m.inner.deep", 2.5);
  v["z"] = 3;
  EXPECT_THAT(keys_of(v), ElementsAre("z", "a", "m"));
  EXPECT_EQ(v.find_path("m.inner.deep")->as_number(), 2.5);
  EXPECT_EQ(v.find_path("m.inner.none"), nullptr);
  EXPECT_EQ(v.find_path("z.inner"), nullptr);
  EXPECT_TRUE(v.erase("a"));
  EXPECT_FALSE(v.erase("a"));
  EXPECT_THAT(keys_of(v), ElementsAre("z", "m"));
}

TEST(Value, GettersNameTheTypeThatIsThere) {
  EXPECT_EQ(message_of<Error>([] { Value("x").as_integer(); }), "expected an integer, found string");
  EXPECT_EQ(message_of<Error>([] { Value(1.5).as_integer(); }), "expected an integer, found number");
  EXPECT_EQ(message_of<Error>([] { Value(true).as_number(); }), "expected a number, found boolean");
  EXPECT_EQ(message_of<Error>([] { Value().as_table(); }), "expected a table, found null");
  EXPECT_EQ(message_of<Error>([] { Value::object({{"a", 1}}).at("b"); }), "missing key 'b'");
  EXPECT_EQ(Value(3).as_number(), 3.0);  // an integer is also a number
}

TEST(Value, FallsBackOnlyWhenTheKeyIsMissing) {
  const Value v = Value::object({{"n", 2}, {"s", "x"}});
  EXPECT_EQ(v.get("n", 7), 2);
  EXPECT_EQ(v.get("none", 7), 7);
  EXPECT_EQ(v.get("s", "y"), "x");
  EXPECT_EQ(v.get("none", 0.5), 0.5);
  EXPECT_THROW(v.get("s", 7), Error);
}

TEST(Toml, KeepsTheOrderAndTheLinesOfTheFile) {
  const Value v =
      parse_toml("zeta = 1\n\n[input]\ndata = \"x\"\nalpha = 2\n[[stage]]\nuse = \"fir\"\n[[stage]]\nuse = \"lag\"\n");
  EXPECT_THAT(keys_of(v), ElementsAre("zeta", "input", "stage"));
  EXPECT_THAT(keys_of(v.at("input")), ElementsAre("data", "alpha"));
  EXPECT_EQ(v.at("zeta").line, 1);
  EXPECT_EQ(v.at("input").at("alpha").line, 5);
  EXPECT_EQ(v.at("stage").as_array()[1].at("use").line, 9);
}

TEST(Toml, SaysFileLineAndColumnOfWhatIsNoToml) {
  const auto message = message_of<DataError>([] { parse_toml("a = 1\nb = = 2\n", "x.toml"); });
  EXPECT_THAT(message, StartsWith("x.toml:2: column "));
  EXPECT_THAT(message, HasSubstr("expected TOML, found "));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_EQ(
      message_of<DataError>([] { parse_toml("a = 1\nd = 2020-01-01\n", "x.toml"); }),
      "x.toml:2: expected a boolean, number, string, array or table, found a date or time (write it as a string)");
  EXPECT_THAT(message_of<DataError>([] { parse_toml("a = 1\na = 2\n", "x.toml"); }), StartsWith("x.toml:2: "));
}

TEST(Toml, AFileThatIsNotThereIsNamed) {
  EXPECT_EQ(message_of<DataError>([] { read_toml("/nowhere/x.toml"); }),
            "/nowhere/x.toml: expected a readable file, found No such file or directory");
  const auto folder = temporary_folder();
  EXPECT_EQ(message_of<DataError>([&] { read_toml(folder); }),
            folder.string() + ": expected a file, found a directory");
}

TEST(Toml, OneValueOfTheCommandLine) {
  EXPECT_EQ(parse_toml_value("1"), Value(1));
  EXPECT_EQ(parse_toml_value("0.5"), Value(0.5));
  EXPECT_EQ(parse_toml_value("true"), Value(true));
  EXPECT_EQ(parse_toml_value("\"a b\""), Value("a b"));
  EXPECT_EQ(parse_toml_value("hann"), Value("hann"));
  EXPECT_EQ(parse_toml_value("[1, 2]"), Value(std::vector<std::int64_t>{1, 2}));
}

TEST(Toml, WritesWhatItReads) {
  const Value v = parse_toml("b = [1, 2.5]\na = \"x\\\"y\"\n[t]\nc = true\n[[l]]\nd = 0.1\n[[l]]\nd = -3\n");
  const Value again = parse_toml(to_toml(v));
  for (auto& key : {"a", "b", "t", "l"}) EXPECT_EQ(again.at(key), v.at(key)) << key;
}

TEST(Json, NumbersComeBackToTheSameBits) {
  Value v = Value::array();
  for (double d : {0.1, 1.0 / 3, 1e-308, 5e-324, 1.7976931348623157e308, -0.0, 123456789.123456789}) v.push_back(d);
  v.push_back(std::int64_t{9007199254740993});
  v.push_back(INT64_MIN);
  const Value again = parse_json(to_json(v));
  ASSERT_EQ(again.size(), v.size());
  for (std::size_t i = 0; i < v.size(); ++i) {
    EXPECT_EQ(again.as_array()[i], v.as_array()[i]) << i;
    EXPECT_EQ(std::signbit(again.as_array()[i].as_number()), std::signbit(v.as_array()[i].as_number())) << i;
  }
  EXPECT_EQ(to_json(Value(0.1)), "0.1");
  EXPECT_EQ(to_json(Value(std::numeric_limits<double>::quiet_NaN())), "null");
  EXPECT_EQ(to_json(Value(HUGE_VAL)), "null");
}

TEST(Json, KeepsTheOrderAndIndents) {
  const Value v = parse_json(R"({"z": 1, "a": [true, null], "m": {}})");
  EXPECT_EQ(to_json(v), R"({"z":1,"a":[true,null],"m":{}})");
  EXPECT_EQ(to_json(Value::object({{"a", 1}}), 2), "{\n  \"a\": 1\n}");
}

TEST(Json, SaysTheByteOfWhatIsNoJson) {
  EXPECT_EQ(message_of<DataError>([] { parse_json("{\"a\": }", "x.json"); }),
            "x.json: byte 7: expected JSON, found text that is not");
  EXPECT_EQ(message_of<DataError>([] { parse_json(std::string(1000, '['), "x.json"); }).substr(0, 8), "x.json: ");
  const std::string deep = std::string(100, '[') + std::string(100, ']');
  EXPECT_EQ(message_of<DataError>([&] { parse_json(deep, "x.json"); }),
            "x.json: expected JSON nested at most 64 deep, found deeper nesting");
  EXPECT_THROW(parse_json("", "x.json"), DataError);
}

TEST(Json, TextThatIsNotUtf8IsShownNotThrownOn) {
  EXPECT_THAT(to_json(Value("a\xff"
                            "b")),
              HasSubstr("\xEF\xBF\xBD"));
}

TEST(Errors, DidYouMeanNamesOnlyWhatIsNear) {
  EXPECT_EQ(did_you_mean("low_h", {"high_hz", "low_hz"}), " (did you mean 'low_hz'?)");
  EXPECT_EQ(did_you_mean("kalmann", {"ridge", "kalman", "dkf"}), " (did you mean 'kalman'?)");
  EXPECT_EQ(did_you_mean("KALMAN", {"ridge", "kalman", "dkf"}), " (did you mean 'kalman'?)");
  EXPECT_EQ(did_you_mean("entirely_other", {"fir", "lag"}), "");
  EXPECT_EQ(did_you_mean("x", {}), "");
}

TEST(Errors, ReadAsOneLineAndCarryTheirExitCode) {
  const DataError d("a.csv", "column 3", "a number", "'x'");
  EXPECT_STREQ(d.what(), "a.csv: column 3: expected a number, found 'x'");
  EXPECT_EQ(d.code(), Exit::bad_input);
  const ConfigError c("fir.low_hz", "-1", "at least 0 Hz");
  EXPECT_STREQ(c.what(), "fir.low_hz = -1: expected at least 0 Hz");
  EXPECT_STREQ(ConfigError("input", "", "a section").what(), "input: expected a section");
  EXPECT_EQ(UsageError("x").code(), Exit::usage);
  EXPECT_EQ(Interrupted().code(), Exit::interrupted);
  EXPECT_EQ(Error("x").code(), Exit::run_failed);
}

TEST(Json, RefusesANumberNoDoubleHolds) { EXPECT_THROW(parse_json("[9999E9999]"), DataError); }

TEST(Toml, KeepsANewlineAtTheStartOfAString) {
  const Value v = Value::object({{"text", "\nfirst"}});
  EXPECT_EQ(parse_toml(to_toml(v)).at("text").as_string(), "\nfirst");
}

}  // namespace
}  // namespace percept::testing
