/// Parameters: types, ranges, choices and unknown keys, with the line of the file in every message.
#include "core/params.h"
#include "core/registry.h"
#include "tests/core/support.h"

namespace percept::testing {
namespace {

struct Params {
  bool on = false;
  std::int64_t count = 3;
  double edge_hz = 1.5;
  std::string word = "hann";
  std::string free = "any";
  std::vector<std::int64_t> integers;
  std::vector<double> numbers{1.0};
  std::vector<std::string> names;
  static constexpr auto fields() {
    return std::tuple{field("on", &Params::on, "", "A switch."),
                      field("count", &Params::count, "frames", "A count.", 1, 10),
                      field("edge_hz", &Params::edge_hz, "Hz", "An edge.", 0.0),
                      choice("word", &Params::word, "A word.", "hann|hamming"),
                      field("free", &Params::free, "", "Any text."),
                      field("integers", &Params::integers, "", "Integers.", 0, 5),
                      field("numbers", &Params::numbers, "", "Numbers.", -HUGE_VAL, 2.0),
                      field("names", &Params::names, "", "Names.")};
  }
};

std::string params_refusal(const std::string& toml) {
  return message_of<ConfigError>([&] { read_params<Params>(parse_toml(toml), "a.toml: fir"); });
}

TEST(Params, ReadsEveryTypeAndKeepsDefaults) {
  const auto p = read_params<Params>(parse_toml("on = true\ncount = 10\nedge_hz = 2\nword = \"hamming\"\nintegers = "
                                                "[0, 5]\nnumbers = 0.5\nnames = \"one\"\n"),
                                     "x");
  EXPECT_TRUE(p.on);
  EXPECT_EQ(p.count, 10);
  EXPECT_EQ(p.edge_hz, 2.0);
  EXPECT_EQ(p.word, "hamming");
  EXPECT_EQ(p.free, "any");
  EXPECT_EQ(p.integers, (std::vector<std::int64_t>{0, 5}));
  EXPECT_EQ(p.numbers, std::vector<double>{0.5});  // one value is a list of one
  EXPECT_EQ(p.names, std::vector<std::string>{"one"});
}

TEST(Params, RefusesAnotherType) {
  EXPECT_EQ(params_refusal("\non = 1"), "a.toml: fir.on (line 2) = 1: expected true or false");
  EXPECT_EQ(params_refusal("count = 2.0"), "a.toml: fir.count (line 1) = 2.0: expected an integer");
  EXPECT_EQ(params_refusal("edge_hz = \"1\""), "a.toml: fir.edge_hz (line 1) = \"1\": expected a number");
  EXPECT_EQ(params_refusal("free = 1"), "a.toml: fir.free (line 1) = 1: expected a string");
  EXPECT_EQ(params_refusal("integers = [1, 2.5]"), "a.toml: fir.integers (line 1) = 2.5: expected an integer");
  EXPECT_EQ(params_refusal("names = [1]"), "a.toml: fir.names (line 1) = 1: expected a string");
}

TEST(Params, RefusesWhatIsOutOfRange) {
  EXPECT_EQ(params_refusal("count = 0"), "a.toml: fir.count (line 1) = 0 frames: expected a value in [1, 10] frames");
  EXPECT_EQ(params_refusal("count = 11"), "a.toml: fir.count (line 1) = 11 frames: expected a value in [1, 10] frames");
  EXPECT_EQ(params_refusal("edge_hz = -0.5"), "a.toml: fir.edge_hz (line 1) = -0.5 Hz: expected at least 0 Hz");
  EXPECT_EQ(params_refusal("edge_hz = nan"), "a.toml: fir.edge_hz (line 1) = nan Hz: expected at least 0 Hz");
  EXPECT_EQ(params_refusal("edge_hz = inf"), "a.toml: fir.edge_hz (line 1) = inf Hz: expected at least 0 Hz");
  EXPECT_EQ(params_refusal("numbers = [1, 3]"), "a.toml: fir.numbers (line 1) = 3: expected at most 2");
}

TEST(Params, RefusesAnUnknownChoiceOrKeyWithASuggestion) {
  EXPECT_EQ(params_refusal("word = \"haming\""),
            "a.toml: fir.word (line 1) = \"haming\": expected one of hann, hamming (did you mean 'hamming'?)");
  EXPECT_EQ(params_refusal("on = true\nedge_h = 1"),
            "a.toml: fir.edge_h (line 2): expected one of on, count, edge_hz, word, free, integers, numbers, names "
            "(did you mean 'edge_hz'?)");
  EXPECT_EQ(message_of<ConfigError>([] {
              read_params<NoParams>(Value::object({{"a", 1}}), "cut");
            }),
            "cut.a: expected no key here");
  EXPECT_EQ(message_of<ConfigError>([] { read_params<NoParams>(Value(3), "cut"); }),
            "cut = 3: expected a table of keys");
}

TEST(Params, WritesWhatItReadsAndDescribesIt) {
  Params p;
  p.integers = {2, 3};
  p.edge_hz = 0.1;
  const Value t = write_params(p);
  EXPECT_EQ(write_params(read_params<Params>(t, "x")), t);
  const auto all = describe_params<Params>();
  ASSERT_EQ(all.size(), 8u);
  EXPECT_EQ(all[1].type, "integer");
  EXPECT_EQ(all[1].fallback, Value(3));
  EXPECT_EQ(all[1].max, 10);
  EXPECT_EQ(all[3].choices, (std::vector<std::string>{"hann", "hamming"}));
  EXPECT_EQ(all[7].type, "strings");
}

TEST(Registry, RefusesIncompleteRowsAndNamesTheNearestStage) {
  Registry r;
  const StageInfo good = registry().at("fir", "test");
  r.add(good);
  EXPECT_EQ(message_of<Error>([&] { r.add(good); }), "registry: two stages are called 'fir'");
  auto with = [&](auto change) {
    StageInfo i = good;
    i.name = "other";
    change(i);
    return message_of<Error>([&] { r.add(i); });
  };
  EXPECT_EQ(with([](auto& i) { i.name = ""; }), "registry: stage '' has no name");
  EXPECT_EQ(with([](auto& i) { i.doc = ""; }), "registry: stage 'other' has no doc");
  EXPECT_EQ(with([](auto& i) { i.samples = nullptr; }), "registry: stage 'other' has no sample");
  EXPECT_EQ(with([](auto& i) { i.make = nullptr; }), "registry: stage 'other' has no maker");
  EXPECT_EQ(with([](auto& i) { i.params[0].key = "prior"; }),
            "registry: parameter 'other.prior' has the name of a key that every stage has");
  EXPECT_EQ(with([](auto& i) { i.params[1].min = 2, i.params[1].max = 3; }),
            "registry: the default of 'other.low_hz' is outside its range");
  EXPECT_EQ(message_of<ConfigError>([&] { r.at("firr", "a.toml:3: x.use"); }),
            "a.toml:3: x.use = \"firr\": expected a known stage (percept stages lists them) (did you mean 'fir'?)");
}

}  // namespace
}  // namespace percept::testing
