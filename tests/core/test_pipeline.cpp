/// Pipeline files: every class of mistake is refused in one line that says where.
#include "core/pipeline.h"
#include "tests/core/support.h"
#include "tests/support/data.h"

namespace percept::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::string kGood = R"(title = "t"
[input]
data = "x"
[[stage]]
use = "fir"
low_hz = 2.0
[[stage]]
name = "decoder"
use = "ridge"
target = { from = "kinematics", lag_s = 0.5 }
[[split]]
train_rows = [0, 9]
test_rows = [10, 19]
[[score]]
metrics = ["r2"]
)";

Pipeline parse(const std::string& text, const std::vector<std::string>& set = {}) {
  return parse_pipeline(parse_toml(text, "a.toml"), "a.toml", registry(), set);
}
std::string refusal(const std::string& text, const std::vector<std::string>& set = {}) {
  return message_of<Error>([&] { parse(text, set); });
}
/// The good file with one piece replaced.
std::string with(const std::string& what, const std::string& by) {
  std::string s = kGood;
  const auto at = s.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return s.replace(at, what.size(), by);
}

TEST(Pipeline, ReadsAWholeFile) {
  const auto p = parse(kGood +
                       "[run]\nprecision = \"f64\"\nblock = 100\nseed = 5\n[output]\nreport = false\n"
                       "[search]\ninner_folds = 3\nfir.low_hz = [1.0, 2.0]\ndecoder.alpha = [[1.0], [2.0]]\n");
  ASSERT_EQ(p.stages.size(), 2u);
  EXPECT_EQ(p.stages[0].node.name, "fir");
  EXPECT_EQ(p.stages[0].node.params.at("low_hz"), Value(2.0));
  EXPECT_EQ(p.stages[1].target->from, "kinematics");
  EXPECT_EQ(p.stages[1].target->lag_s, 0.5);
  EXPECT_EQ(p.splits.at(0).name, "official");
  EXPECT_EQ(p.splits[0].use, "rows");
  EXPECT_EQ(p.scores.at(0).metrics, std::vector<std::string>{"r2"});
  EXPECT_EQ(p.precision, Scalar::f64);
  EXPECT_EQ(p.block, 100);
  EXPECT_EQ(p.seed, 5u);
  EXPECT_FALSE(p.report);
  ASSERT_TRUE(p.search);
  EXPECT_EQ(p.search->inner_folds, 3);
  EXPECT_EQ(p.search->method, "grid");
  EXPECT_EQ(p.search->tried.at(0).key, "fir.low_hz");
  EXPECT_EQ(p.search->tried.at(1).values.size(), 2u);
}

TEST(Pipeline, ReadsARandomSearch) {
  const auto p = parse(with("[[split]]", "[[stage]]\nuse = \"lag\"\n[[split]]") +
                       "[search]\nmethod = \"random\"\ncandidates = 7\nreject = 0.05\nmetric = \"r2\"\n"
                       "fir.low_hz = { from = 1, to = 10.0, log = true }\nlag.lags = { from = 5, to = 9 }\n"
                       "fir.window = [\"hann\", \"hamming\"]\ndecoder.target = [{ from = \"a\" }, { from = \"b\" }]\n");
  ASSERT_TRUE(p.search);
  const auto& s = *p.search;
  EXPECT_EQ(s.method, "random");
  EXPECT_EQ(s.candidates, 7);
  EXPECT_EQ(s.reject, 0.05);
  EXPECT_EQ(s.metric, "r2");
  ASSERT_EQ(s.tried.size(), 4u);
  EXPECT_EQ(s.tried[0].key, "fir.low_hz");
  EXPECT_EQ(std::pair(s.tried[0].from, s.tried[0].to), std::pair(1.0, 10.0));
  EXPECT_TRUE(s.tried[0].log && !s.tried[0].integer) << "the parameter is a real number, however its ends are written";
  EXPECT_EQ(s.tried[1].values.size(), 2u);
  EXPECT_TRUE(!s.tried[2].log && s.tried[2].integer);
  EXPECT_EQ(s.tried[3].values[1].at("from"), Value("b"));
}

TEST(Pipeline, ANodeMayBeCalledLikeAKeyOfTheSearch) {
  std::string text = with("name = \"decoder\"", "name = \"metric\"");
  const auto p = parse(text + "[search]\nmetric.alpha = [1.0]\n");
  EXPECT_EQ(p.search->tried.at(0).key, "metric.alpha");
  EXPECT_EQ(parse(text + "[search]\nmetric = \"r2\"\nfir.taps = [5]\n").search->metric, "r2");
}

TEST(Pipeline, SearchThatCannotBe) {
  const std::string random = kGood + "[search]\nmethod = \"random\"\ncandidates = 3\n";
  EXPECT_EQ(refusal(kGood + "[search]\nmethod = \"randm\"\nfir.taps = [5]\n"),
            "a.toml: search.method (line 17) = \"randm\": expected one of grid, random (did you mean 'random'?)");
  EXPECT_EQ(refusal(kGood + "[search]\nmethod = \"random\"\nfir.taps = [5]\n"),
            "a.toml: search.candidates: expected how many candidates are drawn");
  EXPECT_EQ(refusal(kGood + "[search]\ncandidates = 3\nfir.taps = [5]\n"),
            "a.toml: search.candidates = 3: expected method = \"random\" beside it: a grid has all its combinations");
  EXPECT_EQ(refusal(kGood + "[search]\nreject = 0.5\nfir.taps = [5]\n"),
            "a.toml: search.reject (line 17) = 0.5: expected a value in [0, 0.2]");
  EXPECT_EQ(
      refusal(kGood + "[search]\nfir.low_hz = { from = 1, to = 2 }\n"),
      "a.toml: search.fir.low_hz = {\"from\":1,\"to\":2}: expected a list of values to try, or method = \"random\" "
      "to draw from a range");
  EXPECT_EQ(refusal(random + "fir.low_hz = { from = 1 }\n"),
            "a.toml: search.fir.low_hz.to: expected a number: { from = 1, to = 10 }");
  EXPECT_EQ(refusal(random + "fir.low_hz = { from = 2, to = 1 }\n"),
            "a.toml: search.fir.low_hz = {\"from\":2,\"to\":1}: expected from < to");
  EXPECT_EQ(refusal(random + "fir.low_hz = { from = 0.0, to = 1, log = true }\n"),
            "a.toml: search.fir.low_hz = {\"from\":0.0,\"to\":1,\"log\":true}: expected from > 0, since log = true");
  EXPECT_EQ(refusal(random + "fir.low_hz = { from = 1, to = 2, log = 3 }\n"),
            "a.toml: search.fir.low_hz.log = 3: expected true or false");
  EXPECT_EQ(refusal(random + "fir.low_hz = { from = -1, to = 2 }\n"),
            "a.toml: search.fir.low_hz.from (line 19) = -1 Hz: expected a value in [0, 1000000000] Hz");
  EXPECT_EQ(refusal(with("[[split]]", "[[stage]]\nuse = \"lag\"\n[[split]]") +
                    "[search]\nmethod = \"random\"\ncandidates = 3\nlag.lags = { from = 1.5, to = 9 }\n"),
            "a.toml: search.lag.lags.from (line 21) = 1.5: expected an integer");
  EXPECT_EQ(refusal(random + "fir.window = { from = 1, to = 2 }\n"),
            "a.toml: search.fir.window = {\"from\":1,\"to\":2}: expected a list of values to try: a range is for a key "
            "that is one number");
  EXPECT_EQ(refusal(random + "fir.low_hz = { from = 1, too = 2 }\n"),
            "a.toml: search.fir.low_hz.too (line 19): expected one of from, to, log (did you mean 'to'?)");
  EXPECT_EQ(refusal(random + "fir.low_hz = 3\n"),
            "a.toml: search.fir.low_hz = 3: expected a list of values to try, or { from, to }");
  EXPECT_THAT(
      refusal(kGood + "[search]\nfir.low_h = [1.0]\n"),
      AllOf(StartsWith("a.toml: search.fir.low_h: expected a key of 'fir': "), HasSubstr("(did you mean 'low_hz'?)")));
  EXPECT_THAT(refusal(kGood + "[search]\nfir.name = [\"x\"]\n"), StartsWith("a.toml: search.fir.name: expected a key"));
  EXPECT_EQ(refusal(kGood + "[search]\nfir.window = [\"hann\", \"haming\"]\n").substr(0, 33),
            "a.toml: search.fir.window (line 1");
}

TEST(Pipeline, TheExamplesAreRead) {
  int n = 0;
  for (auto& e : std::filesystem::directory_iterator(source_folder() / "examples")) {
    if (e.path().extension() != ".toml") continue;
    std::string unknown;
    try {
      read_pipeline(e.path(), registry());
    } catch (const ConfigError& error) {
      unknown = error.what();
    }
    // stages of other folders are not in this test's registry
    EXPECT_TRUE(unknown.empty() || unknown.find("a known stage") != std::string::npos) << unknown;
    n += unknown.empty();
  }
  EXPECT_GE(n, 4);
}

TEST(Pipeline, UnknownStageKeyOrSection) {
  EXPECT_EQ(refusal(with("use = \"fir\"", "use = \"firr\"")),
            "a.toml:5: firr.use = \"firr\": expected a known stage (percept stages lists them) (did you mean 'fir'?)");
  EXPECT_EQ(refusal(with("low_hz = 2.0", "low_h = 2.0")),
            "a.toml: fir.low_h (line 6): expected a key of 'fir': pass, low_hz, high_hz, transition_hz, window, taps "
            "(did you mean 'low_hz'?)");
  EXPECT_THAT(refusal(with("low_hz = 2.0", "fromm = \"x\"")), HasSubstr("(did you mean 'from'?)"));
  EXPECT_EQ(
      refusal(with("[[split]]", "[[splitt]]")),
      "a.toml.splitt (line 11): expected one of title, description, input, prior, stage, split, search, score, run, "
      "output, live (did you mean 'split'?)");
  EXPECT_EQ(refusal(kGood + "[run]\nblok = 3\n"),
            "a.toml: run.blok (line 17): expected one of precision, block, seed (did you mean 'block'?)");
  EXPECT_THAT(refusal(with("metrics = [\"r2\"]", "metric = [\"r2\"]")),
              StartsWith("a.toml: score.metric (line 15): expected one of"));
  EXPECT_THAT(refusal(with("lag_s = 0.5", "lag = 0.5")), HasSubstr("a.toml: decoder.target.lag"));
}

TEST(Pipeline, MissingPieces) {
  EXPECT_EQ(refusal("[[stage]]\nuse = \"fir\"\n"),
            "a.toml: input: expected an [input] section (data = \"NAME\", or files)");
  EXPECT_EQ(refusal("[input]\ndata = \"x\"\n"), "a.toml: stage: expected at least one [[stage]]");
  EXPECT_EQ(refusal(with("use = \"fir\"", "name = \"fir\"")),
            "a.toml:4: stage 1.use: expected the name of a stage (percept stages lists them)");
  EXPECT_EQ(refusal(with("[[split]]\ntrain_rows = [0, 9]\ntest_rows = [10, 19]\n", "")),
            "a.toml: split: expected a [[split]] that says which rows are held out, since there is a [[score]]");
  EXPECT_EQ(refusal(with("from = \"kinematics\", lag_s = 0.5", "lag_s = 0.5")),
            "a.toml: decoder.target.from: expected the stream or table column to be decoded");
  EXPECT_EQ(refusal(with("name = \"decoder\"", "name = \"decoder\"\nfit = \"first\"")),
            "a.toml: decoder.fit_s: expected how many seconds fit = \"first\" may use");
  EXPECT_EQ(refusal(kGood + "[search]\ninner_folds = 2\n"),
            "a.toml: search: expected at least one NODE.key = [values]");
}

TEST(Pipeline, WrongTypes) {
  EXPECT_EQ(refusal(with("title = \"t\"", "title = 3")), "a.toml: title = 3: expected a string");
  EXPECT_EQ(refusal(with("[input]\ndata = \"x\"", "input = 3")), "a.toml: input = 3: expected a table: write [input]");
  EXPECT_EQ(refusal("[input]\n[stage]\nuse = \"fir\"\n"), "a.toml: stage: expected a list: write [[stage]]");
  EXPECT_EQ(refusal("stage = [1]\n[input]\n"), "a.toml: stage: expected tables: write [[stage]]");
  EXPECT_EQ(refusal(with("use = \"fir\"", "use = 3")), "a.toml:4: stage 1.use = 3: expected a string");
  EXPECT_EQ(refusal(with("use = \"fir\"", "use = \"fir\"\nfrom = [1]")), "a.toml: fir.from = 1: expected a string");
  EXPECT_EQ(refusal(with("use = \"fir\"", "use = \"fir\"\nfrom = []")),
            "a.toml: fir.from = []: expected at least one node or stream");
  EXPECT_EQ(refusal(with("lag_s = 0.5", "lag_s = \"x\"")), "a.toml: decoder.target.lag_s = \"x\": expected a number");
  EXPECT_EQ(refusal(with("target = { from = \"kinematics\", lag_s = 0.5 }", "target = 3")),
            "a.toml: decoder.target = 3: expected a table of keys");
  EXPECT_EQ(refusal(kGood + "[run]\nblock = 0\n"),
            "a.toml: run.block (line 17) = 0 frames: expected a value in [1, 100000000] frames");
  EXPECT_EQ(refusal(kGood + "[run]\nprecision = \"f16\"\n"),
            "a.toml: run.precision (line 17) = \"f16\": expected one of f32, f64 (did you mean 'f32'?)");
  EXPECT_EQ(refusal(kGood + "[search]\nfir.low_hz = 3\n"),
            "a.toml: search.fir.low_hz = 3: expected a list of values to try");
  EXPECT_EQ(refusal(kGood + "[search]\nfir = 3\n"), "a.toml: search.fir = 3: expected fir.KEY = [values]");
  EXPECT_EQ(refusal(kGood + "[search]\ninner_folds = 1\n"),
            "a.toml: search.inner_folds (line 17) = 1: expected a value in [2, 1000000]");
}

TEST(Pipeline, ValuesThatAreNone) {
  const std::string decoder = "name = \"decoder\"";
  EXPECT_EQ(refusal(with(decoder, decoder + "\nfit = \"all\"")),
            "a.toml: decoder.fit = \"all\": expected train, self or first");
  EXPECT_EQ(refusal(with(decoder, decoder + "\nfit = \"first\"\nfit_s = 0")),
            "a.toml: decoder.fit_s = 0: expected a time above zero [s]");
  EXPECT_EQ(refusal(with(decoder, decoder + "\nqueue = \"x\"")),
            "a.toml: decoder.queue = \"x\": expected block, drop_oldest or newest");
  EXPECT_EQ(refusal(with(decoder, decoder + "\nqueue = \"block\"\nqueue_blocks = 0")),
            "a.toml: decoder.queue_blocks = 0: expected an integer in [1, 65536]");
  EXPECT_EQ(refusal(with(decoder, decoder + "\nqueue = \"newest\"\nqueue_blocks = 3")),
            "a.toml: decoder.queue_blocks = 3: expected queue = \"block\" or \"drop_oldest\" beside it");
  EXPECT_EQ(refusal(with(decoder, decoder + "\nalign = \"x\"")),
            "a.toml: decoder.align = \"x\": expected exact or nearest");
  EXPECT_EQ(refusal(with(decoder, decoder + "\nreset = \"\"")),
            "a.toml: decoder.reset = \"\": expected the label of the events at which it starts anew");
  EXPECT_EQ(refusal(with(decoder, decoder + "\nreset = true")), "a.toml: decoder.reset = true: expected a string");
  EXPECT_EQ(parse(with(decoder, decoder + "\nreset = \"trial\"")).stages[1].node.reset, "trial");
  EXPECT_EQ(refusal(with(decoder, "name = \"a.b\"")),
            "a.toml:7: stage 2.name = \"a.b\": expected a name without a dot");
  EXPECT_EQ(refusal(with("use = \"fir\"", "use = \"fir\"\nmodel = \"m\"")),
            "a.toml: fir: expected no fit, model, target or prior: 'fir' learns nothing");
  EXPECT_EQ(refusal(with("metrics = [\"r2\"]", "confounds = [\"tim\"]")),
            "a.toml: score.confounds = \"tim\": expected time, trial, past, shuffled, mean, class, no_brain (did you "
            "mean 'time'?)");
  EXPECT_EQ(refusal(with("metrics = [\"r2\"]", "from = \"decodr\"")),
            "a.toml: score.from = \"decodr\": expected a stage: fir, decoder (did you mean 'decoder'?)");
  EXPECT_THAT(refusal(kGood + "[search]\nfirr.low_hz = [1]\n"), HasSubstr("(did you mean 'fir'?)"));
}

TEST(Pipeline, TwoOfOneName) {
  EXPECT_EQ(refusal(with("name = \"decoder\"", "name = \"fir\"")),
            "a.toml: fir: expected a name of its own: two stages are called 'fir' (name = \"...\")");
  EXPECT_EQ(refusal(kGood + "[[split]]\ntrain_rows = [0, 1]\n"), "a.toml: split official: expected a name of its own");
  EXPECT_EQ(refusal(kGood + "[[score]]\nmetrics = [\"r\"]\n"),
            "a.toml: score: expected a name of its own (name = \"...\")");
}

TEST(Pipeline, SetChangesNodesAndSections) {
  const auto p = parse(kGood, {"fir.low_hz=0.5", "run.seed=9", "official.test_rows=[10, 12]",
                               "decoder.target.lag_s=0.25", "input.data=other", "output.report=false"});
  EXPECT_EQ(p.stages[0].node.params.at("low_hz"), Value(0.5));
  EXPECT_EQ(p.stages[1].target->lag_s, 0.25);
  EXPECT_EQ(p.seed, 9u);
  EXPECT_FALSE(p.report);
  EXPECT_EQ(p.input.at("data"), Value("other"));
  EXPECT_EQ(p.splits[0].params.at("test_rows"), Value(std::vector<std::int64_t>{10, 12}));
  EXPECT_EQ(p.resolved.find_path("run.seed")->as_integer(), 9);
}

TEST(Pipeline, SetThatDoesNotFitIsRefused) {
  EXPECT_EQ(refusal(kGood, {"fir"}), "--set fir: expected NODE.key=value or SECTION.key=value");
  EXPECT_EQ(refusal(kGood, {"fir=1.5"}), "--set fir=1.5: expected NODE.key=value or SECTION.key=value");
  EXPECT_EQ(
      refusal(kGood, {"decodr.alpha=1"}),
      "--set decodr.alpha=1: no prior, stage, split, score or section is called 'decodr' (did you mean 'decoder'?)");
  EXPECT_THAT(refusal(kGood, {"fir.low_h=1"}), HasSubstr("(did you mean 'low_hz'?)"));
  EXPECT_THAT(refusal(kGood, {"run.blok=1"}), HasSubstr("(did you mean 'block'?)"));
  try {
    parse(kGood, {"nothing.x=1"});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::usage);
  }
}

// --- priors ---------------------------------------------------------------------------------------------------------

/// With a stage that starts from a prior of pca.
const Registry& registry_with_priors() {
  static const Registry all = [] {
    Registry r = registry();
    StageInfo info = r.at("zscore", "test");
    info.name = "library";
    info.priors = {"pca"};
    info.needs_prior = true;
    r.add(info);
    return r;
  }();
  return all;
}

const std::string kPriors = R"([input]
data = "x"
[[prior]]
name = "digits"
images = ["some.image", "more.npy"]
labels = [6, "nine"]
use = "pca"
components = 3
[[prior]]
name = "scale"
images = "some.image"
use = "zscore"
[[stage]]
use = "library"
prior = "digits"
)";

Pipeline parse_priors(const std::string& text, const std::vector<std::string>& set = {}) {
  return parse_pipeline(parse_toml(text, "a.toml"), "a.toml", registry_with_priors(), set);
}
std::string prior_refusal(const std::string& what, const std::string& by) {
  std::string s = kPriors;
  const auto at = s.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  s.replace(at, what.size(), by);
  return message_of<Error>([&] { parse_priors(s); });
}

TEST(Pipeline, PriorsAreRead) {
  const auto p = parse_priors(kPriors, {"digits.components=5"});
  ASSERT_EQ(p.priors.size(), 2u);
  const auto& digits = *p.prior("digits");
  EXPECT_EQ(digits.use, "pca");
  EXPECT_THAT(digits.images, ElementsAre("some.image", "more.npy"));
  EXPECT_THAT(digits.labels, ElementsAre(Value(6), Value("nine")));
  EXPECT_EQ(to_json(digits.params), "{\"components\":5}");
  EXPECT_THAT(p.prior("scale")->images, ElementsAre("some.image"));
  EXPECT_EQ(p.prior("none"), nullptr);
  EXPECT_THAT(p.stages.at(0).priors, ElementsAre("digits"));
}

TEST(Pipeline, WhatGoesThroughAPriorIsRead) {
  const auto p = parse_priors(R"([input]
data = "x"
[[prior]]
name = "digits"
images = "some.image"
use = "pca"
[[prior]]
name = "scale"
images = "some.image"
through = "digits"
use = "zscore"
[[stage]]
use = "library"
prior = "digits"
target = { from = "image", through = "digits.components" }
)");
  EXPECT_EQ(p.prior("scale")->through, "digits");
  EXPECT_EQ(p.prior("scale")->target_through, "");
  EXPECT_EQ(p.stages.at(0).target->through, "digits.components");
  EXPECT_EQ(p.stages.at(0).target->from, "image");

  EXPECT_THAT(prior_refusal("name = \"digits\"", "name = \"digits\"\nthrough = \"scale\""),
              HasSubstr("prior digits.through = \"scale\": expected the name of a [[prior]] above: there is none"));
  EXPECT_THAT(prior_refusal("name = \"scale\"", "name = \"scale\"\nthrough = \"digit\""),
              HasSubstr("prior scale.through = \"digit\": expected the name of a [[prior]] above: digits (did you mean "
                        "'digits'?)"));
  EXPECT_THAT(prior_refusal("name = \"scale\"", "name = \"scale\"\ntarget_through = \"digits\""),
              HasSubstr("prior scale.target_through: expected no target: 'zscore' takes none"));
  EXPECT_THAT(prior_refusal("prior = \"digits\"", "prior = \"digits\"\ntarget = { from = \"y\", through = \"none\" }"),
              HasSubstr("library.target.through = \"none\": expected the name of a [[prior]] above: digits, scale"));
}

TEST(Pipeline, PriorsThatCannotBeUsedAreRefused) {
  EXPECT_THAT(prior_refusal("name = \"digits\"\n", ""),
              HasSubstr("a.toml:3: prior 1.name: expected the name by which stages use it"));
  EXPECT_THAT(prior_refusal("\"digits\"\nimages", "\"a/b\"\nimages"),
              HasSubstr("prior 1.name = \"a/b\": expected a name without a dot or a slash"));
  EXPECT_THAT(prior_refusal("use = \"pca\"\n", ""),
              HasSubstr("prior digits.use: expected the name of a trained stage"));
  EXPECT_THAT(prior_refusal("use = \"pca\"\ncomponents = 3", "use = \"fir\""),
              HasSubstr("prior digits.use = \"fir\": expected a trained stage: this one learns nothing"));
  EXPECT_THAT(prior_refusal("images = \"some.image\"\n", ""),
              HasSubstr("prior scale.images: expected SET.STREAM of a registered set, or a file"));
  EXPECT_THAT(prior_refusal("[6, \"nine\"]", "[]"), HasSubstr("prior digits.labels = []: expected a list of labels"));
  EXPECT_THAT(prior_refusal("[6, \"nine\"]", "[true]"), HasSubstr("labels = true: expected numbers or texts"));
  EXPECT_THAT(prior_refusal("components", "componets"), HasSubstr("did you mean 'components'"));
  EXPECT_THAT(prior_refusal("\"scale\"", "\"digits\""), HasSubstr("two priors are called so"));
  EXPECT_THAT(prior_refusal("use = \"library\"", "name = \"scale\"\nuse = \"library\""),
              HasSubstr("a.toml: scale: expected a name of its own: a prior is called so"));
  EXPECT_THAT(prior_refusal("prior = \"digits\"", "prior = \"digit\""),
              HasSubstr("library.prior = \"digit\": expected the name of a [[prior]]: digits, scale (did you mean "
                        "'digits'?)"));
  EXPECT_THAT(prior_refusal("prior = \"digits\"", "prior = [\"digits\", \"scale\"]"),
              HasSubstr("library.prior = \"scale\": expected a prior of pca for 'library', found one of 'zscore'"));
  EXPECT_THAT(prior_refusal("prior = \"digits\"", ""),
              HasSubstr("library.prior: expected the name of a [[prior]] of pca, which 'library' starts from"));
  EXPECT_THAT(prior_refusal("prior = \"digits\"", "prior = \"digits\"\nmodel = \"m\""),
              HasSubstr("library.prior: expected no prior beside a model"));
  EXPECT_THAT(prior_refusal("prior = \"digits\"", "model = \"digits\""),
              HasSubstr("library.model = \"digits\": expected a prior of 'library', found one of 'pca'"));
  EXPECT_THAT(prior_refusal("use = \"library\"", "use = \"zscore\""),
              HasSubstr("zscore.prior = \"digits\": expected no prior: 'zscore' uses none"));
  EXPECT_THAT(prior_refusal("use = \"library\"", "use = \"lag\""),
              HasSubstr("expected no fit, model, target or prior: 'lag' learns nothing"));
}

}  // namespace
}  // namespace percept::testing
