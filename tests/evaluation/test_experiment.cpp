/// The experiment engine: a real recording end to end, and the laws that keep test rows out of every fit.
#include "evaluation/experiment.h"

#include <gmock/gmock.h>

#include <cmath>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "data/loaders.h"
#include "evaluation/run.h"
#include "evaluation/search.h"
#include "io/store.h"
#include "numerics/random.h"
#include "percept/registry.h"
#include "tests/support/contract.h"
#include "tests/support/data.h"

namespace percept::evaluation {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::model_difference;
using testing::temporary_folder;

// --- stages that show what the engine does --------------------------------------------------------------------------

/// Gives how many frames it was given since it started.
class Count final : public Typed<Count> {
 public:
  StreamFormat prepare(const StreamFormat& in, Context&) override {
    StreamFormat out = time_format(1, in.rate_hz, in.scalar, "count");
    out.start_s = in.start_s;
    out.max_frames = in.max_frames;
    return out;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> x, Output&, FrameSpan<T> y) noexcept {
    for (Index k = 0; k < x.frames; ++k) y.frame(k)[0] = static_cast<T>(frames_++);
    return x.frames;
  }
  void reset() noexcept override { frames_ = 0; }
  void visit_state(StateVisitor& v) noexcept override { v("frames", frames_); }

 private:
  std::int64_t frames_ = 0;
};

/// Learns its training data by heart and gives its input.
class Spy final : public Typed<Spy> {
 public:
  StreamFormat prepare(const StreamFormat& in, Context&) override { return in; }
  template <class T>
  Index run(const Block& b, FrameSpan<const T> x, Output& o, FrameSpan<T> y) noexcept {
    y.slice(0, x.frames).eigen() = x.eigen();
    if (o.keys) std::copy(b.keys.begin(), b.keys.end(), o.keys);
    return x.frames;
  }
  void reset() noexcept override {}
};
class SpyFitter final : public Fitter {
 public:
  Model fit(const Data& data, Context&) override {
    const TrainingMatrix t = data.gather();
    Model m;
    m.set("x", t.x);
    m.set("y", t.y);
    m.meta["keys"] = Value(t.keys);
    m.meta["groups"] = Value(std::vector<std::int64_t>(t.groups.begin(), t.groups.end()));
    m.meta["starts"] = Value(t.segment_starts);
    return m;
  }
};

const Registry& registry() {
  static const Registry all = [] {
    Registry r = builtin_registry();
    StageInfo count;
    count.name = "count";
    count.folder = "tests";
    count.doc = "Frames since the start.";
    count.make = [](const Value&, const Model*, const std::string&) -> std::unique_ptr<Stage> {
      return std::make_unique<Count>();
    };
    count.samples = [] { return std::vector<Sample>(1); };
    r.add(count);
    StageInfo spy = count;
    spy.name = "spy";
    spy.doc = "Its training data by heart.";
    spy.trained = spy.needs_target = true;
    spy.make = [](const Value&, const Model*, const std::string&) -> std::unique_ptr<Stage> {
      return std::make_unique<Spy>();
    };
    spy.make_fitter = [](const Value&, const std::string&) -> std::unique_ptr<Fitter> {
      return std::make_unique<SpyFitter>();
    };
    r.add(spy);
    spy.name = "cross_spy";
    spy.cross_fit = true;
    r.add(spy);
    return r;
  }();
  return all;
}

// --- recordings and pipelines ---------------------------------------------------------------------------------------

constexpr double kRate = 10;

/// Two velocities that change slowly, and four channels that see those of `delay` frames ago.
Recording generated(Index frames = 400, Index delay = 0, std::uint64_t seed = 1) {
  const KeyedRandom random(seed, "test recording");
  Eigen::MatrixXd z(2, frames), x(4, frames);
  Eigen::Vector2d now = Eigen::Vector2d::Zero();
  for (Index k = 0; k < frames; ++k) {
    for (Index i = 0; i < 2; ++i) now(i) = 0.8 * now(i) + random.normal(k, static_cast<std::uint64_t>(i));
    z.col(k) = now;
    const Eigen::Vector2d seen = k >= delay ? Eigen::Vector2d(z.col(k - delay)) : Eigen::Vector2d::Zero();
    for (Index c = 0; c < 4; ++c)
      x(c, k) = 3 + static_cast<double>(c + 1) * seen(0) - 2 * static_cast<double>(c % 2) * seen(1) +
                0.5 * random.normal(k, 10 + static_cast<std::uint64_t>(c));
  }
  Recording r;
  r.name = "generated";
  r.streams.push_back(memory_stream("activity", x, kRate, 0.05));
  r.streams.push_back(memory_stream("kinematics", z, kRate, 0.05, {"vx", "vy"}, "m/s"));
  return r;
}

/// The same with every stream's frames of these rows replaced.
Recording with_garbage(const Recording& recording, const std::vector<RowRange>& rows) {
  Recording r = recording;
  const KeyedRandom random(99, "garbage");
  for (auto& s : r.streams) {
    Eigen::MatrixXd m = s.matrix();
    for (auto& [first, last] : rows)
      for (auto k = first; k <= last; ++k)
        for (Index i = 0; i < m.rows(); ++i) m(i, k) = 1e3 * random.normal(k, static_cast<std::uint64_t>(i));
    s.samples = std::make_shared<MemorySource>(m);
  }
  return r;
}

Pipeline pipeline(const std::string& text) {
  return parse_pipeline(
      parse_toml("[input]\ndata = \"generated\"\n" + text + "\n[run]\nprecision = \"f64\"\nseed = 3\n"), "test.toml",
      registry());
}

constexpr const char* kSpy = "[[stage]]\nuse = \"spy\"\ntarget = \"kinematics\"\n";

template <class E = ConfigError, class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const E& e) {
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

std::vector<double> listed(const Value& v) {
  std::vector<double> all;
  for (auto& x : v.as_array()) all.push_back(x.as_number());
  return all;
}

EngineOptions options_of(int threads) {
  EngineOptions o;
  o.threads = threads;
  return o;
}

RunOutcome run(const Pipeline& p, const Recording& r, const fs::path& output, int threads = 1) {
  const RunRequest request{p, r, options_of(threads), output};
  return run_pipeline(registry(), request);
}

/// Relative path -> sha256 of every file but run.json.
std::map<std::string, std::string> digests(const fs::path& folder) {
  std::map<std::string, std::string> all;
  for (auto& f : fs::recursive_directory_iterator(folder))
    if (f.is_regular_file() && f.path().filename() != "run.json")
      all[fs::relative(f.path(), folder).string()] = sha256_file(f.path());
  return all;
}

// --- flint_run1 -----------------------------------------------------------------------------------------------------

TEST(FlintKalman, ScoresAndPosteriorsAreThoseOfTheReference) {
  fs::path reference;
  PERCEPT_NEED_DATA(reference, "bci/reference/kalman.csv");
  const auto file = testing::source_folder() / "examples/flint_kalman.toml";
  const auto p = read_pipeline(file, registry(), {"output.report=false"});
  const auto folder = temporary_folder() / "run";
  const auto outcome = run(p, data::load_input(p.input, file.parent_path()), folder);

  const Value& scores = outcome.result.at("scores");
  EXPECT_NEAR(scores.at("nrmse").as_number(), .764682520, 1e-6);
  EXPECT_NEAR(scores.at("maae").as_number(), .888220871, 1e-6);
  EXPECT_THAT(to_json(outcome.result.at("warnings")), HasSubstr("whole session"));

  const Recording predictions = io::open_store(folder / "predictions.percept");
  const Eigen::MatrixXd wanted = testing::read_reference(reference, 1).transpose();
  ASSERT_EQ(wanted.cols(), 1000);
  const Eigen::MatrixXd mean = predictions.find("decoded")->matrix(),
                        covariance = predictions.find("covariance")->matrix();
  EXPECT_TRUE(mean.leftCols(5000).array().isNaN().all());
  EXPECT_LT((mean.middleCols(5000, 1000) - wanted.topRows(2)).cwiseAbs().maxCoeff(), 1e-6);
  const std::vector<Index> rows{2, 3, 3, 4};
  EXPECT_LT((covariance.middleCols(5000, 1000) - wanted(rows, Eigen::all)).cwiseAbs().maxCoeff(), 1e-6);

  // the audit stands beside the score, and the activity explains what time alone does not
  const Value& controls = outcome.result.at("controls");
  for (const char* control : {"time", "without_time", "shuffled"})
    EXPECT_TRUE(std::isfinite(controls.at(control).at("nrmse").as_number())) << control;
  EXPECT_GT(controls.at("time").at("nrmse").as_number(), 0.95);
  EXPECT_GT(controls.at("shuffled").at("nrmse").as_number(), 0.95);
  EXPECT_TRUE(controls.at("trial").contains("absent"));
  EXPECT_LT(controls.at("permutation").at("p").as_number(), 0.01);
}

// --- the leak law ---------------------------------------------------------------------------------------------------

using Engine = std::function<Fitted(const Experiment&, const Fold&)>;

Fitted honest(const Experiment& e, const Fold& f) { return e.fit(f.train); }
Fitted leaky(const Experiment& e, const Fold&) { return e.fit({{0, e.lead().frames() - 1}}); }
/// Trains up to the test rows, whatever the gap.
Fitted without_gap(const Experiment& e, const Fold& f) {
  std::vector<RowRange> train;
  std::int64_t at = 0;
  for (auto& t : f.test) {
    if (t.first > at) train.emplace_back(at, t.first - 1);
    at = t.second + 1;
  }
  if (at < e.lead().frames()) train.emplace_back(at, e.lead().frames() - 1);
  return e.fit(train);
}

/// Of the folds of the first split: in how many does no bit of any model depend on the test rows.
int clean_folds(const Pipeline& p, const Recording& recording, const Engine& engine) {
  const Experiment experiment(registry(), p, recording, {});
  int clean = 0;
  for (auto& fold : make_folds(p.splits.at(0), experiment.split_context())) {
    const Experiment garbage(registry(), p, with_garbage(recording, fold.test), {});
    const Fitted a = engine(experiment, fold), b = engine(garbage, fold);
    EXPECT_FALSE(a.models.empty());
    bool same = a.models.size() == b.models.size();
    for (std::size_t m = 0; same && m < a.models.size(); ++m)
      same = model_difference(*a.models[m].model, *b.models[m].model).empty();
    clean += same;
  }
  return clean;
}

constexpr const char* kEight = "\n[[split]]\nuse = \"kfold\"\nfolds = 8\ngap_rows = 4\n";

struct LeakCase {
  const char* name;
  const char* stages;
};
void PrintTo(const LeakCase& c, std::ostream* os) { *os << c.name; }
const LeakCase kLeakCases[] = {
    {"Kalman", "[[stage]]\nuse = \"kalman\"\ntarget = \"kinematics\"\n"},
    {"LagRidge",
     "[[stage]]\nuse = \"lag\"\nlags = 3\n[[stage]]\nuse = \"ridge\"\ntarget = \"kinematics\"\nalpha = [0.1, 1.0, "
     "10.0]\n"},
    {"ScaledChain",
     "[[stage]]\nuse = \"zscore\"\n[[stage]]\nuse = \"pca\"\ncomponents = 3\n[[stage]]\nuse = "
     "\"running_zscore\"\ntime_constant_s = 5.0\n"
     "[[stage]]\nuse = \"lag\"\nlags = 3\n[[stage]]\nname = \"map\"\nuse = \"ridge\"\ntarget = "
     "\"kinematics\"\ncovariance = \"holdout\"\n"
     "[[stage]]\nuse = \"dkf\"\ntarget = \"kinematics\"\n"},
    {"LaterTarget", "[[stage]]\nuse = \"ridge\"\ntarget = { from = \"kinematics\", lag_s = 0.7 }\n"},
    {"CrossFitted",
     "[[stage]]\nuse = \"lag\"\nlags = 2\n[[stage]]\nuse = \"zscore\"\n[[stage]]\nuse = \"ridge\"\ntarget = "
     "\"kinematics\"\n[[stage]]\nname = \"once\"\nuse = \"cross_spy\"\n[[stage]]\nname = \"twice\"\nuse = "
     "\"cross_spy\"\n"},
    {"EarlierTarget", "[[stage]]\nuse = \"spy\"\ntarget = { from = \"kinematics\", lag_s = -0.7 }\n"},
};

class LeakLaw : public ::testing::TestWithParam<LeakCase> {};
TEST_P(LeakLaw, HonestEngineEightOfEightLeakyEngineNone) {
  const auto p = pipeline(GetParam().stages + std::string(kEight));
  const auto recording = generated();
  EXPECT_EQ(clean_folds(p, recording, honest), 8);
  EXPECT_EQ(clean_folds(p, recording, leaky), 0);
}
INSTANTIATE_TEST_SUITE_P(Pipelines, LeakLaw, ::testing::ValuesIn(kLeakCases),
                         [](auto& i) { return std::string(i.param.name); });

TEST(LeakLaw, StagesThatLookBackNeedTheGap) {
  // only the last fold has no training row after its test rows
  EXPECT_EQ(clean_folds(pipeline(kLeakCases[1].stages + std::string(kEight)), generated(), without_gap), 1);
  const auto p = pipeline(kLeakCases[1].stages + std::string("[[split]]\nuse = \"kfold\"\nfolds = 8\ngap_rows = 2\n"));
  const Experiment e(registry(), p, generated(), {});
  EXPECT_THAT(message_of([&] { make_folds(p.splits[0], e.split_context()); }),
              AllOf(HasSubstr("test.toml: split official.gap_rows"), HasSubstr("at least 3 frames"), HasSubstr("lag")));
}

/// `generated` with an event "trial" at these frames.
Recording with_trials(const std::vector<Index>& first, Index frames = 400) {
  Recording r = generated(frames);
  for (auto k : first) {
    Event e;
    e.onset_s = r.streams[0].format.time_of(k);
    e.label = Label::of("trial");
    e.id = static_cast<std::int64_t>(r.events.size());
    r.events.push_back(e);
  }
  return r;
}

/// Trials of 13 to 27 rows.
Recording trial_by_trial() {
  std::vector<Index> first;
  for (Index row = 5, k = 0; row < 400; row += 13 + (7 * k++) % 15) first.push_back(row);
  return with_trials(first);
}

TEST(LeakLaw, WhatStartsAnewAtTrialsNeedsNoGapBetweenThem) {
  const std::string stages =
      "use = \"lag\"\nlags = 6\nbefore = \"hold\"\n[[stage]]\nuse = \"ridge\"\ntarget = "
      "\"kinematics\"\n[[stage]]\nuse = \"cross_spy\"\n[[split]]\nuse = \"kfold\"\nfolds = 8\nby = \"trial\"\n";
  const auto p = pipeline("[[stage]]\nreset = \"trial\"\n" + stages);
  const auto r = trial_by_trial();
  const Engine crossed = [](const Experiment& e, const Fold& f) { return e.fit(f.train, 0, f.inner_split); };
  EXPECT_EQ(clean_folds(p, r, crossed), 8);
  EXPECT_EQ(clean_folds(p, r, without_gap), 8) << "the training rows touch the test rows";
  EXPECT_EQ(clean_folds(p, r, leaky), 0);
  // without the reset a gap is asked for; without it, models depend on the test rows
  const auto carried = pipeline("[[stage]]\n" + stages);
  const Experiment e(registry(), carried, r, {});
  EXPECT_THAT(message_of([&] { make_folds(carried.splits[0], e.split_context()); }),
              AllOf(HasSubstr("test.toml: split official.gap_s"), HasSubstr("at least 6 frames"), HasSubstr("lag")));
  EXPECT_EQ(clean_folds(pipeline("[[stage]]\n" + stages + "gap_rows = 6\n"), r, without_gap), 1);
  EXPECT_EQ(clean_folds(pipeline("[[stage]]\n" + stages + "gap_rows = 6\n"), r, crossed), 8);
  // every stage with a memory has to forget it
  const auto one =
      pipeline("[[stage]]\nname = \"first\"\nuse = \"lag\"\nlags = 1\n[[stage]]\nreset = \"trial\"\n" + stages);
  EXPECT_EQ(Experiment(registry(), one, r, {}).split_context().memory_ends_at, "");
  EXPECT_EQ(Experiment(registry(), p, r, {}).split_context().memory_ends_at, "trial");
}

TEST(LeakLaw, TargetWithAFasterClockStopsAtTheBorder) {
  Recording r = generated(100);
  Eigen::MatrixXd fast(1, 200);
  for (Index k = 0; k < 200; ++k) fast(0, k) = static_cast<double>(k);
  r.streams.push_back(memory_stream("fast", fast, 2 * kRate, 0.05));
  // frame k of the lead and frame 2 k of the target stand for one time; the later half bin is the border
  const Experiment e(registry(), pipeline("[[stage]]\nuse = \"spy\"\ntarget = { from = \"fast\", lag_s = 0.05 }\n"), r,
                     {});
  const Eigen::MatrixXd y = e.fit({{0, 49}}).model("spy")->matrix("y");
  EXPECT_EQ(y(0, 48), 97);
  EXPECT_TRUE(std::isnan(y(0, 49))) << y(0, 49);
}

// --- what a fitter is given -----------------------------------------------------------------------------------------

TEST(Experiment, TrainingFramesAreThoseOfTheRangesWithTheirTargets) {
  const auto r = generated();
  const Experiment e(registry(), pipeline(kSpy), r, {});
  const auto fitted = e.fit({{10, 19}, {50, 69}});
  const Model& m = *fitted.model("spy");
  EXPECT_THAT(listed(m.meta.at("starts")), ElementsAre(0, 10));
  EXPECT_EQ(listed(m.meta.at("keys"))[0], 10);
  EXPECT_EQ(listed(m.meta.at("keys"))[29], 69);
  Eigen::MatrixXd x(4, 30), y(2, 30);
  x << r.streams[0].matrix().middleCols(10, 10), r.streams[0].matrix().middleCols(50, 20);
  y << r.streams[1].matrix().middleCols(10, 10), r.streams[1].matrix().middleCols(50, 20);
  EXPECT_EQ(m.matrix("x"), x);
  EXPECT_EQ(m.matrix("y"), y);
  EXPECT_EQ(fitted.models.at(0).frames, 30);
}

TEST(Experiment, AStageThatStartsAnewIsFittedOnPieces) {
  const auto r = with_trials({0, 15, 50, 60, 65, 200});
  const std::string text = "[[stage]]\nuse = \"spy\"\ntarget = \"kinematics\"\nreset = \"trial\"\n";
  const Experiment e(registry(), pipeline(text + "[[stage]]\nuse = \"count\"\nreset = \"trial\"\n"), r, {});
  const auto fitted = e.fit({{10, 19}, {50, 69}});
  EXPECT_THAT(listed(fitted.model("spy")->meta.at("starts")), ElementsAre(0, 5, 10, 20, 25));
  EXPECT_THAT(listed(Experiment(registry(), pipeline(kSpy), r, {}).fit({{10, 19}}).model("spy")->meta.at("starts")),
              ElementsAre(0));
  // and applied, it starts anew there
  const auto given = e.apply(fitted, "count", {{195, 204}});
  EXPECT_EQ(given.frames.middleCols(195, 10), (Eigen::RowVectorXd(10) << 0, 1, 2, 3, 4, 0, 1, 2, 3, 4).finished());
}

TEST(Experiment, AResetAtEventsThatAreNotThereIsRefused) {
  auto refusal = [](const Recording& r, const std::string& label) {
    return message_of([&] {
      Experiment(registry(), pipeline("[[stage]]\nuse = \"count\"\nreset = \"" + label + "\"\n" + kSpy), r, {});
    });
  };
  EXPECT_EQ(refusal(with_trials({0, 9}), "trail"),
            "test.toml: count.reset = \"trail\": expected the label of events of the recording: trial (did you mean "
            "'trial'?)");
  EXPECT_EQ(refusal(generated(), "trial"),
            "test.toml: count.reset = \"trial\": expected the label of events: the recording has none");
}

TEST(Experiment, LagMovesTheTargetAndNeverOutOfTheRange) {
  const auto r = generated();
  const Eigen::MatrixXd z = r.streams[1].matrix();
  const Experiment later(
      registry(), pipeline("[[stage]]\nuse = \"spy\"\ntarget = { from = \"kinematics\", lag_s = 0.3 }\n"), r, {});
  Eigen::MatrixXd y = later.fit({{100, 149}}).model("spy")->matrix("y");
  EXPECT_EQ(y.leftCols(47), z.middleCols(103, 47));
  EXPECT_TRUE(y.rightCols(3).array().isNaN().all());
  const Experiment earlier(
      registry(), pipeline("[[stage]]\nuse = \"spy\"\ntarget = { from = \"kinematics.kinematics\", lag_s = -0.3 }\n"),
      r, {});
  y = earlier.fit({{100, 149}}).model("spy")->matrix("y");
  EXPECT_EQ(y.rightCols(47), z.middleCols(100, 47));
  EXPECT_TRUE(y.leftCols(3).array().isNaN().all());
  // the truth that a score sees is moved alike, and reaches as far as the recording
  const auto fitted = later.fit({{0, 199}});
  const auto given = later.apply(fitted, "spy", {{300, 399}});
  const Eigen::MatrixXd truth = later.truth(*later.target_of("spy"), given);
  EXPECT_EQ(truth.middleCols(300, 97), z.middleCols(303, 97));
  EXPECT_TRUE(truth.middleCols(397, 3).array().isNaN().all());
}

TEST(Experiment, ShiftedTargetGoesAroundTheTrainingRowsOnly) {
  const auto r = generated();
  const Experiment e(registry(), pipeline(kSpy), r, {});
  const Eigen::MatrixXd z = r.streams[1].matrix(), y = e.fit({{0, 99}}, 30).model("spy")->matrix("y");
  EXPECT_EQ(y.rightCols(70), z.leftCols(70));
  EXPECT_EQ(y.leftCols(30), z.middleCols(70, 30));
}

// --- no state over a border -----------------------------------------------------------------------------------------

TEST(Experiment, EveryRangeStartsAnew) {
  const Experiment e(registry(), pipeline(kSpy + std::string("[[stage]]\nuse = \"count\"\n")), generated(), {});
  const auto given = e.apply(e.fit({{0, 99}}), "count", {{110, 119}, {200, 229}});
  EXPECT_THAT(given.ranges, ElementsAre(RowRange(110, 119), RowRange(200, 229)));
  ASSERT_EQ(given.frames.cols(), 400);
  for (Index k = 0; k < 10; ++k) EXPECT_EQ(given.frames(0, 110 + k), k);
  for (Index k = 0; k < 30; ++k) EXPECT_EQ(given.frames(0, 200 + k), k);
  EXPECT_TRUE(std::isnan(given.frames(0, 109)) && std::isnan(given.frames(0, 120)) && std::isnan(given.frames(0, 230)));
}

TEST(Experiment, StateBelowALearnedStageStartsAnewInEachTrainingRange) {
  // what the second fitter sees of the counter
  const auto text = "[[stage]]\nuse = \"zscore\"\n[[stage]]\nuse = \"count\"\n" + std::string(kSpy);
  const Experiment e(registry(), pipeline(text), generated(), {});
  const Eigen::MatrixXd x = e.fit({{10, 14}, {50, 52}}).model("spy")->matrix("x");
  EXPECT_EQ(x, (Eigen::MatrixXd(1, 8) << 0, 1, 2, 3, 4, 0, 1, 2).finished());
}

TEST(Experiment, FilteredRangesDoNotDependOnEachOther) {
  const Experiment e(registry(), pipeline(kLeakCases[0].stages), generated(), {});
  const auto fitted = e.fit({{0, 199}});
  const auto both = e.apply(fitted, "kalman", {{200, 249}, {300, 399}}),
             alone = e.apply(fitted, "kalman", {{300, 399}});
  EXPECT_EQ(both.frames.middleCols(300, 100), alone.frames.middleCols(300, 100));
}

TEST(Experiment, PrefixIsSharedAndStandsForTheWholeRecording) {
  const auto r = generated();
  const auto p = pipeline("[[stage]]\nuse = \"count\"\n" + std::string(kSpy));
  const Experiment e(registry(), p, r, {});
  const Eigen::MatrixXd x = e.fit({{100, 104}}).model("spy")->matrix("x");
  EXPECT_EQ(x, (Eigen::MatrixXd(1, 5) << 100, 101, 102, 103, 104).finished());
}

// --- cross-fitting --------------------------------------------------------------------------------------------------

constexpr const char* kMap =
    "[[stage]]\nuse = \"lag\"\nlags = 2\n[[stage]]\nuse = \"ridge\"\ntarget = \"kinematics\"\n";

TEST(CrossFit, TheStageLearnsFromWhatTheOthersGaveOutOfFold) {
  const auto r = generated();
  const std::vector<RowRange> train{{0, 149}, {200, 299}};
  const Experiment map(registry(), pipeline(kMap), r, {});
  const Experiment e(registry(),
                     pipeline(kMap + std::string("[[stage]]\nuse = \"cross_spy\"\ntarget = \"kinematics\"\n")), r, {});
  const auto fitted = e.fit(train, 0, {4, 3});
  const Model& m = *fitted.model("cross_spy");
  EXPECT_EQ(fitted.models.back().frames, 250) << "every training frame once";

  Eigen::MatrixXd wanted(m.matrix("x").rows(), 250), y(2, 250);
  std::vector<double> keys, groups;
  Index at = 0;
  const auto folds = inner_folds(train, 4, 3);
  for (std::size_t f = 0; f < folds.size(); ++f) {
    const auto given = map.apply(map.fit(folds[f].train), "ridge", folds[f].test);
    for (auto& [first, last] : folds[f].test) {
      wanted.middleCols(at, last - first + 1) = given.frames.middleCols(first, last - first + 1);
      y.middleCols(at, last - first + 1) = r.streams[1].matrix().middleCols(first, last - first + 1);
      at += last - first + 1;
      for (auto k = first; k <= last; ++k) {
        keys.push_back(static_cast<double>(k));
        groups.push_back(static_cast<double>(f));
      }
    }
  }
  ASSERT_EQ(at, 250);
  const Eigen::MatrixXd x = m.matrix("x");
  // but the first two frames of the recording, which have none to look back on
  EXPECT_EQ(x.rightCols(248), wanted.rightCols(248));
  EXPECT_EQ(m.matrix("y"), y);
  EXPECT_EQ(listed(m.meta.at("keys")), keys);
  EXPECT_EQ(listed(m.meta.at("groups")), groups);

  // what feeds it when it is applied was fitted on all training rows, and gives other numbers
  EXPECT_EQ(*fitted.model("ridge"), *map.fit(train).model("ridge"));
  const auto in_fold = map.apply(map.fit(train), "ridge", train);
  EXPECT_GT((x.col(10) - in_fold.frames.col(10)).cwiseAbs().maxCoeff(), 1e-9);
  EXPECT_EQ(e.apply(fitted, "cross_spy", {{300, 399}}).frames.rightCols(100),
            map.apply(map.fit(train), "ridge", {{300, 399}}).frames.rightCols(100));
}

TEST(CrossFit, TheGapIsAtLeastWhatThePrefixRemembers) {
  const auto e =
      Experiment(registry(), pipeline(kMap + std::string("[[stage]]\nuse = \"cross_spy\"\ntarget = \"kinematics\"\n")),
                 generated(), {});
  auto x = [&](std::int64_t gap) {
    return Eigen::MatrixXd(e.fit({{0, 299}}, 0, {3, gap}).model("cross_spy")->matrix("x"));
  };
  ASSERT_EQ(e.split_context().memory_frames, 2);
  EXPECT_EQ(x(0).rightCols(298), x(2).rightCols(298));
  EXPECT_NE(x(0).rightCols(298), x(3).rightCols(298));
}

TEST(CrossFit, InnerFoldsKeepTheTrialsOfTheSplitWhole) {
  const auto r = trial_by_trial();
  const std::string text =
      "[[stage]]\nuse = \"lag\"\nlags = 2\nbefore = \"hold\"\nreset = \"trial\"\n[[stage]]\nuse = "
      "\"ridge\"\ntarget = \"kinematics\"\n[[stage]]\nuse = \"cross_spy\"\n[[split]]\nuse = "
      "\"kfold\"\nfolds = 3\ninner_folds = 4\nby = \"trial\"\n";
  const auto p = pipeline(text);
  const Experiment e(registry(), p, r, {});
  const auto folds = make_folds(p.splits[0], e.split_context());
  std::set<Index> starts{0};
  for (auto& event : r.events) starts.insert(r.streams[0].format.nearest_frame(event.onset_s));
  for (auto& f : folds) {
    const Model model = *e.fit(f.train, 0, f.inner_split).model("cross_spy");
    const auto keys = listed(model.meta.at("keys")), groups = listed(model.meta.at("groups"));
    EXPECT_EQ(static_cast<std::int64_t>(keys.size()), count_frames(f.train));
    int borders = 0;
    for (std::size_t k = 1; k < keys.size(); ++k)
      if (groups[k] != groups[k - 1]) {
        ++borders;
        EXPECT_TRUE(starts.contains(static_cast<Index>(keys[k]))) << keys[k];
      }
    EXPECT_EQ(borders, 3);
    // nothing is dropped around them: a map fitted on the other trials, up to the border
    const auto inner = inner_folds(f.train, 4, 0, "", f.inner_split.trials);
    const Experiment map(registry(), pipeline(text.substr(0, text.find("[[stage]]\nuse = \"cross_spy\""))), r, {});
    const auto given = map.apply(map.fit(inner[1].train), "ridge", inner[1].test);
    Index at = count_frames(inner[0].test);
    for (auto& [first, last] : inner[1].test) {
      const Index n = last - first + 1;
      EXPECT_EQ(model.matrix("x").middleCols(at, n), given.frames.middleCols(first, n));
      at += n;
    }
  }
}

TEST(CrossFit, NothingToCrossIsAnOrdinaryFit) {
  // nothing learned above; and a model that is given knows no fold
  const auto r = generated();
  const Experiment alone(registry(), pipeline("[[stage]]\nuse = \"cross_spy\"\ntarget = \"kinematics\"\n"), r, {});
  EXPECT_EQ(alone.fit({{10, 99}}).model("cross_spy")->matrix("x"), r.streams[0].matrix().middleCols(10, 90));
  const auto folder = temporary_folder();
  const Experiment map(registry(), pipeline(kMap), r, {});
  map.fit({{0, 99}}).model("ridge")->save(folder / "ridge");
  const Experiment given(registry(),
                         pipeline(kMap + ("model = \"" + (folder / "ridge").string() + "\"\n") +
                                  "[[stage]]\nuse = \"cross_spy\"\ntarget = \"kinematics\"\n"),
                         r, {});
  EXPECT_EQ(given.fit({{100, 199}}).model("cross_spy")->matrix("x"),
            map.apply(map.fit({{0, 99}}), "ridge", {{100, 199}}).frames.middleCols(100, 100));
}

TEST(CrossFit, TheSplitSaysInHowManyFolds) {
  const auto folder = temporary_folder();
  const std::string text = kMap + std::string("[[stage]]\nuse = \"cross_spy\"\ntarget = \"kinematics\"\n[[split]]\n");
  const std::string rows = "train_rows = [0, 299]\ntest_rows = [310, 399]\ninner_folds = ";
  RunRequest request{pipeline(text + rows + "3\n"), generated(), {}, folder / "models"};
  fit_pipeline(registry(), request);
  const auto groups = listed(Model::load(folder / "models/cross_spy").meta.at("groups"));
  EXPECT_EQ(groups.front(), 0);
  EXPECT_EQ(groups.back(), 2);
  request.pipeline = pipeline(text + rows + "1000\n");
  EXPECT_THAT(message_of([&] { fit_pipeline(registry(), request); }), HasSubstr("cross_spy, inner folds"));
  request.pipeline = pipeline(text + rows + "1\n");
  EXPECT_THAT(message_of([&] { fit_pipeline(registry(), request); }),
              HasSubstr("test.toml: split official.inner_folds"));
}

// --- other ways to a model ------------------------------------------------------------------------------------------

TEST(Experiment, FitSelfAndFirstAndTrain) {
  const auto r = generated();
  const Eigen::MatrixXd x = r.streams[0].matrix();
  auto mean_of = [&](const std::string& keys) {
    const Experiment e(registry(), pipeline("[[stage]]\nuse = \"zscore\"\n" + keys), r, {});
    const auto fitted = e.fit({{100, 199}});
    return std::pair{fitted.models.at(0).frames, e.apply(fitted, "zscore", {{300, 300}}).frames.col(300).eval()};
  };
  auto expected = [&](Index first, Index n) {
    const Eigen::MatrixXd part = x.middleCols(first, n);
    const Eigen::VectorXd mean = part.rowwise().mean();
    const Eigen::VectorXd sd = ((part.colwise() - mean).rowwise().squaredNorm() / static_cast<double>(n)).cwiseSqrt();
    return Eigen::VectorXd((x.col(300) - mean).cwiseQuotient(sd));
  };
  const auto [train_frames, train] = mean_of("fit = \"train\"\n");
  EXPECT_EQ(train_frames, 100);
  EXPECT_LT((train - expected(100, 100)).cwiseAbs().maxCoeff(), 0.02);
  const auto [self_frames, self] = mean_of("fit = \"self\"\n");
  EXPECT_EQ(self_frames, 400);
  EXPECT_LT((self - expected(0, 400)).cwiseAbs().maxCoeff(), 0.02);
  const auto [first_frames, first] = mean_of("fit = \"first\"\nfit_s = 5\n");
  EXPECT_EQ(first_frames, 50);
  EXPECT_LT((first - expected(0, 50)).cwiseAbs().maxCoeff(), 0.05);
  EXPECT_GT((self - first).cwiseAbs().maxCoeff(), 0.05);
}

TEST(Experiment, ModelFolderIsTakenAsItIs) {
  const auto folder = temporary_folder();
  const auto r = generated();
  const std::string stages = kLeakCases[0].stages;
  RunRequest request{
      pipeline(stages + "[[split]]\ntrain_rows = [0, 199]\ntest_rows = [200, 399]\n"), r, {}, folder / "models"};
  const Value made = fit_pipeline(registry(), request);
  EXPECT_EQ(made.at("models").as_array().at(0).at("frames").as_integer(), 200);
  const auto saved = folder / "models/kalman";
  const auto with_model = pipeline(stages + "model = \"" + saved.string() + "\"\n");
  const Experiment e(registry(), with_model, with_garbage(r, {{0, 99}}), {});
  const auto fitted = e.fit({{0, 99}});
  EXPECT_TRUE(fitted.models.at(0).loaded);
  EXPECT_EQ(*fitted.models[0].model, Model::load(saved));

  Model other = Model::load(saved);
  other.meta["version"] = 99;
  other.save(saved);
  const auto version = message_of<DataError>([&] { e.fit({{0, 99}}); });
  EXPECT_THAT(version, AllOf(HasSubstr(saved.string() + ": version: expected"), HasSubstr("of 'kalman', found 99")));
  other.meta["stage"] = "ridge";
  other.save(saved);
  EXPECT_THAT(message_of<DataError>([&] {
                e.fit({{0, 99}});
              }),
              HasSubstr(saved.string() + ": stage: expected a model of 'kalman', found ridge"));
  EXPECT_THAT(message_of<DataError>([&] {
                const Experiment none(registry(), pipeline(stages + "model = \"" + (folder / "none").string() + "\"\n"),
                                      r, {});
                none.fit({{0, 99}});
              }),
              AllOf(HasSubstr((folder / "none").string()), HasSubstr("found nothing")));
}

// --- search ---------------------------------------------------------------------------------------------------------

TEST(Search, PicksTheRightCandidateFromTheTrainingRowsAlone) {
  // wanted: the velocity of 0.6 s ago; the channels show it 0.3 s after it happened, so it lies 3 frames back in them
  const std::string text =
      "[[stage]]\nuse = \"lag\"\nlags = 1\n[[stage]]\nuse = \"ridge\"\ntarget = { from = \"kinematics\", lag_s = -0.6 "
      "}\nalpha = [1.0]\n"
      "[search]\nlag.lags = [1, 2, 3]\nridge.alpha = [1.0, 1e9]\nmetric = \"r2\"\ninner_folds = 4\n";
  const auto p = pipeline(text);
  const auto r = generated(600, 3);
  const std::vector<RowRange> train{{0, 399}};
  const auto found = search(registry(), p, r, train, options_of(2), std::make_shared<WorkCache>());
  ASSERT_EQ(found.candidates.size(), 6u);
  const Candidate* chosen = nullptr;
  double best = -1e300;
  for (auto& c : found.candidates) {
    EXPECT_TRUE(c.failed.empty()) << c.failed;
    best = std::max(best, c.value);
    if (c.chosen) {
      EXPECT_EQ(chosen, nullptr);
      chosen = &c;
    }
  }
  ASSERT_NE(chosen, nullptr);
  EXPECT_EQ(chosen->params.at("lag.lags").as_integer(), 3);
  EXPECT_EQ(chosen->params.at("ridge.alpha").as_number(), 1.0);
  EXPECT_EQ(chosen->value, best);
  EXPECT_GT(chosen->value, 0.8);

  const auto again =
      search(registry(), p, with_garbage(r, {{400, 599}}), train, options_of(1), std::make_shared<WorkCache>());
  EXPECT_EQ(again.to_value(), found.to_value());
}

TEST(Search, InnerFoldsKeepTheTrialsOfTheSplitWhole) {
  const auto r = trial_by_trial();
  auto with_folds = [](int folds) {
    return pipeline(
        "[[stage]]\nuse = \"lag\"\nlags = 2\nbefore = \"hold\"\nreset = \"trial\"\n[[stage]]\nuse = \"ridge\"\ntarget "
        "= "
        "\"kinematics\"\nalpha = [1.0]\n[search]\nridge.alpha = [1.0]\nmetric = \"nrmse\"\ninner_folds = " +
        std::to_string(folds) + "\n[[split]]\nuse = \"kfold\"\nfolds = 3\nby = \"trial\"\n");
  };
  const auto p = with_folds(4);
  const Experiment e(registry(), p, r, {});
  const Fold fold = make_folds(p.splits[0], e.split_context()).at(1);
  auto found = [&](const Pipeline& of) {
    return search(registry(), of, r, fold.train, options_of(1), std::make_shared<WorkCache>(), fold.inner_split);
  };
  const TargetSpec target{"kinematics", 0};
  Eigen::MatrixXd truth(2, 0), decoded(2, 0);
  for (auto& inner : inner_folds(fold.train, 4, 0, "", fold.inner_split.trials)) {
    const auto given = e.apply(e.fit(inner.train), "ridge", inner.test);
    const Eigen::MatrixXd wanted = gather(e.truth(target, given), given.ranges),
                          got = gather(given.frames.topRows(2), given.ranges);
    truth = (Eigen::MatrixXd(2, truth.cols() + wanted.cols()) << truth, wanted).finished();
    decoded = (Eigen::MatrixXd(2, decoded.cols() + got.cols()) << decoded, got).finished();
  }
  EXPECT_EQ(found(p).chosen().value, score("nrmse", truth, decoded).headline());
  EXPECT_THAT(message_of([&] { found(with_folds(100)); }),
              HasSubstr("test.toml: search.inner_folds = 100: expected at most one a trial 'trial' ("));
}

TEST(Search, RunUsesWhatWasChosen) {
  const auto folder = temporary_folder();
  const std::string text =
      "[[stage]]\nuse = \"ridge\"\ntarget = \"kinematics\"\nalpha = [1e9]\n[search]\nridge.alpha = [1e9, "
      "1.0]\ninner_folds = 3\n"
      "[[split]]\ntrain_rows = [0, 299]\ntest_rows = [300, 399]\n[[score]]\nmetrics = [\"nrmse\"]\nbootstrap = "
      "0\npermutations = 0\nconfounds = []\n";
  const auto outcome = run(pipeline(text), generated(), folder / "run");
  EXPECT_LT(outcome.result.at("scores").at("nrmse").as_number(), 0.5);
  const Value& rows = outcome.result.at("search").as_array().at(0).at("search").at("rows");
  EXPECT_FALSE(rows.as_array().at(0).at("chosen").as_bool());
  EXPECT_TRUE(rows.as_array().at(1).at("chosen").as_bool());
}

TEST(Search, SaysWhyNoCandidateWorks) {
  const auto p = pipeline(
      "[[stage]]\nuse = \"pca\"\n[[stage]]\nuse = \"ridge\"\ntarget = \"kinematics\"\n[search]\npca.components = [40, "
      "50]\n");
  EXPECT_EQ(
      message_of([&] {
        search(registry(), p, generated(), {{0, 399}}, {}, std::make_shared<WorkCache>());
      }),
      "test.toml: search: expected at least one candidate that works, but none of 2 does; the first (pca.components "
      "= 40) failed with: test.toml: pca.components = 40: expected 1 to 4 (4 rows, 320 training frames)");
}

TEST(Search, FailedAndUndefinedCandidatesSayWhyAndAreNeverChosen) {
  const auto p = pipeline(
      "[[stage]]\nuse = \"pca\"\n[[stage]]\nuse = \"ridge\"\ntarget = \"kinematics\"\n[search]\npca.components = [40, "
      "2]\n"
      "metric = \"r2\"\n");
  const auto found = search(registry(), p, generated(), {{0, 399}}, {}, std::make_shared<WorkCache>());
  EXPECT_THAT(found.candidates.at(0).failed, HasSubstr("1 to 4"));
  EXPECT_TRUE(std::isnan(found.candidates[0].value));
  EXPECT_EQ(found.candidates[0].folds, 0);
  EXPECT_TRUE(found.candidates.at(1).chosen);
  EXPECT_EQ(found.candidates[1].folds, 5);
  EXPECT_EQ(found.candidates[1].frames, 400);

  auto constant = generated();
  constant.streams[1] = memory_stream("kinematics", Eigen::MatrixXd::Ones(2, 400), kRate, 0.05, {"vx", "vy"}, "m/s");
  EXPECT_THAT(message_of([&] {
                search(registry(), p, constant, {{0, 399}}, {}, std::make_shared<WorkCache>());
              }),
              HasSubstr("none of 2 does"));
}

/// Strengths of a ridge, of which the large ones lose on every fold.
const std::string kHopeless =
    "[[stage]]\nuse = \"ridge\"\ntarget = \"kinematics\"\n[search]\nridge.alpha = [1e9, 1e7, 1.0, 1.1]\nmetric = "
    "\"nrmse\"\ninner_folds = 5\n";

TEST(Search, HopelessCandidatesAreGivenUpAndTheChoiceIsTheSame) {
  const auto find = [&](const std::string& more, int threads) {
    return search(registry(), pipeline(kHopeless + more), generated(600), {{0, 499}}, options_of(threads),
                  std::make_shared<WorkCache>());
  };
  const auto all = find("reject = 0.0\n", 1), raced = find("", 1);
  ASSERT_EQ(raced.candidates.size(), 4u);
  for (auto& c : all.candidates) EXPECT_EQ(c.folds, 5);
  for (std::size_t i : {0u, 1u}) {
    const auto& c = raced.candidates[i];
    EXPECT_GE(c.folds, 2);
    EXPECT_LT(c.folds, 5);
    EXPECT_EQ(c.given_up.find("worse than the best on each of " + std::to_string(c.folds) + " folds (p = 0.00"), 0u)
        << c.given_up;
    EXPECT_EQ(c.frames, 100 * c.folds);
    EXPECT_GT(c.value, 0.9) << "of the folds it was tried on";
  }
  for (std::size_t i : {2u, 3u}) {
    EXPECT_TRUE(raced.candidates[i].given_up.empty());
    EXPECT_EQ(raced.candidates[i].value, all.candidates[i].value);
  }
  EXPECT_EQ(raced.chosen().params, all.chosen().params);
  EXPECT_EQ(find("", 4).to_value(), raced.to_value()) << "threads change nothing";
}

// --- whole runs -----------------------------------------------------------------------------------------------------

const std::string kWhole =
    "[[stage]]\nuse = \"zscore\"\n[[stage]]\nname = \"map\"\nuse = \"ridge\"\ntarget = \"kinematics\"\ncovariance = "
    "\"holdout\"\n"
    "[[stage]]\nuse = \"dkf\"\ntarget = \"kinematics\"\n[[split]]\nuse = \"kfold\"\nfolds = 4\ngap_s = 0.5\n"
    "[[score]]\nmetrics = [\"nrmse\", \"r2\"]\nbootstrap = 100\npermutations = 50\nshuffles = 2\n";

TEST(Run, TwiceGivesTheSameBytes) {
  const auto folder = temporary_folder();
  const auto p = pipeline(kWhole);
  const auto a = run(p, generated(), folder / "a"), b = run(p, generated(), folder / "b");
  EXPECT_EQ(a.result, b.result);
  const auto files = digests(folder / "a");
  EXPECT_EQ(files, digests(folder / "b"));
  for (const char* name : {"result.json", "provenance.json", "config.toml", "report.html", "predictions.percept",
                           "models/official/fold_4/dkf/model.json"})
    EXPECT_TRUE(files.contains(name)) << name;
  EXPECT_TRUE(fs::exists(folder / "a/run.json"));
}

TEST(Run, ControlsStandBesideTheScore) {
  const auto outcome = run(pipeline(kWhole), generated(), temporary_folder() / "run");
  const Value &scores = outcome.result.at("scores"), &controls = outcome.result.at("controls");
  EXPECT_LT(scores.at("nrmse").as_number(), 0.5);
  EXPECT_GT(controls.at("time").at("nrmse").as_number(), 0.9);
  EXPECT_GT(controls.at("shuffled").at("nrmse").as_number(), 0.9);
  EXPECT_LT(controls.at("without_time").at("nrmse").as_number(), 0.6);
  EXPECT_LT(controls.at("permutation").at("p").as_number(), 0.05);
  EXPECT_THAT(controls.at("trial").at("absent").as_string(), HasSubstr("no trials"));
  const auto interval = listed(outcome.result.at("intervals").at("nrmse"));
  EXPECT_LT(interval.at(0), scores.at("nrmse").as_number());
  EXPECT_GT(interval.at(1), scores.at("nrmse").as_number());
}

TEST(Run, CountsWhatTheRunMetAndNotWhatItsControlsMet) {
  // two scores of one chain, whose lag leaves frames missing wherever a range begins
  auto counted = [](int shuffles) {
    const std::string scores =
        "[[score]]\nname = \"a\"\nbootstrap = 0\npermutations = 0\nshuffles = " + std::to_string(shuffles) +
        "\n[[score]]\nname = \"b\"\nbootstrap = 0\npermutations = 0\nshuffles = 0\n";
    Counters counters;
    RunRequest request{pipeline("[[stage]]\nuse = \"zscore\"\n[[stage]]\nuse = \"lag\"\nlags = 3\n[[stage]]\nuse = "
                                "\"ridge\"\ntarget = \"kinematics\"\n[[split]]\ntrain_rows = [0, 199]\ntest_rows = "
                                "[200, 399]\n" +
                                scores),
                       generated(), options_of(1), temporary_folder() / "run"};
    request.options.counters = &counters;
    return run_pipeline(registry(), request).result.at("counters");
  };
  EXPECT_EQ(counted(0).at("ridge.missing").as_integer(), 3);
  EXPECT_EQ(counted(4), counted(0));
}

TEST(Run, SaysWhereAConfoundExplainsNearlyAllOfTheTruth) {
  // the truth repeats from trial to trial but for little; the decoder sees it with some noise
  Recording r = generated();
  const KeyedRandom random(5, "trials");
  Eigen::MatrixXd z(1, 400), x(4, 400);
  for (Index k = 0; k < 400; ++k) {
    z(0, k) = std::sin(0.2 * 3.14159 * static_cast<double>(k)) + 1e-3 * random.normal(k, 0);
    for (Index c = 0; c < 4; ++c) x(c, k) = z(0, k) + 0.2 * random.normal(k, 1 + static_cast<std::uint64_t>(c));
    if (k % 10 == 0) {
      Event e;
      e.onset_s = 0.05 + static_cast<double>(k) / kRate;
      e.id = k / 10;
      e.label = Label::of("trial");
      r.events.push_back(e);
    }
  }
  r.streams = {memory_stream("activity", x, kRate, 0.05), memory_stream("kinematics", z, kRate, 0.05)};
  const std::string text =
      "[[stage]]\nuse = \"ridge\"\ntarget = \"kinematics\"\n[[split]]\ntrain_rows = [0, 299]\ntest_rows = [300, "
      "399]\n[[score]]\nmetrics = [\"r2\"]\nbootstrap = 0\npermutations = 0\nconfounds = [\"time\", \"trial\"]\n";
  const auto folder = temporary_folder();
  const auto outcome = run(pipeline(text), r, folder / "run");
  EXPECT_GT(outcome.result.at("scores").at("r2").as_array().at(0).as_number(), 0.9);
  EXPECT_LT(outcome.result.at("controls").at("without_trial").at("r2").as_array().at(0).as_number(), -1);
  const Value report = read_json(folder / "run/report.json");
  std::map<std::string, std::string> doc;
  for (auto& c : report.at("scores").as_array().at(0).at("controls").as_array())
    doc[c.at("name").as_string()] = c.at("doc").as_string();
  EXPECT_THAT(doc.at("trial structure taken out"), HasSubstr("far below zero"));
  EXPECT_THAT(doc.at("time taken out"), ::testing::Not(HasSubstr("far below zero")));
}

TEST(Run, RefusesAMetricOfAnotherTargetBeforeAnythingIsFitted) {
  const auto folder = temporary_folder();
  const auto p = pipeline(
      "[[stage]]\nuse = \"ridge\"\ntarget = \"activity\"\n[[split]]\ntrain_rows = [0, 299]\ntest_rows = [300, "
      "399]\n[[score]]\nname = \"angle\"\nmetrics = [\"rmse\", \"maae\"]\n");
  EXPECT_THAT(message_of([&] { run(p, generated(), folder / "run"); }),
              HasSubstr("test.toml: score angle.metrics = maae: expected a target of 2 outputs (x, y), found 4"));
}

TEST(Run, ItemsHaveNoClock) {
  Recording r = generated(200);
  for (auto& s : r.streams) {
    s.format.axis = Axis::item;
    s.format.rate_hz = s.format.start_s = 0;
    for (std::int64_t k = 0; k < 200; ++k) s.keys.push_back(10 + 3 * k);
  }
  const auto p = pipeline(
      "[[stage]]\nuse = \"zscore\"\n[[stage]]\nuse = \"ridge\"\ntarget = \"kinematics\"\n[[split]]\nuse = "
      "\"kfold\"\nfolds = 4\n"
      "[[score]]\nmetrics = [\"nrmse\"]\nbootstrap = 50\npermutations = 50\nshuffles = 2\n"
      "confounds = [\"time\", \"mean\", \"class\", \"shuffled\"]\n");
  EXPECT_EQ(clean_folds(p, r, honest), 4);
  EXPECT_EQ(clean_folds(p, r, leaky), 0);
  const auto folder = temporary_folder();
  const auto outcome = run(p, r, folder / "run");
  EXPECT_LT(outcome.result.at("scores").at("nrmse").as_number(), 0.5);
  const Value& controls = outcome.result.at("controls");
  EXPECT_EQ(controls.at("time").at("absent").as_string(), "items have no clock");
  EXPECT_EQ(controls.at("class").at("absent").as_string(), "the score names no category");
  EXPECT_NEAR(controls.at("mean").at("nrmse").as_number(), 1, 0.1);  // the targets have mean zero
  EXPECT_GT(controls.at("shuffled").at("nrmse").as_number(), 0.9);
  const Recording predictions = io::open_store(folder / "run/predictions.percept");
  EXPECT_EQ(predictions.find("decoded")->keys, r.streams[0].keys);
  EXPECT_EQ(predictions.find("truth")->matrix(), r.streams[1].matrix());
}

TEST(Run, WithoutASplitTheRecordingStreamsThrough) {
  const auto folder = temporary_folder();
  const auto r = generated();
  const auto outcome =
      run(pipeline("[[stage]]\nuse = \"zscore\"\nfit = \"self\"\n[[stage]]\nuse = \"count\"\n"), r, folder / "run");
  EXPECT_EQ(outcome.result.at("stored").at("frames").as_integer(), 400);
  EXPECT_EQ(io::open_store(folder / "run/output.percept").find("count")->matrix()(0, 399), 399);
  EXPECT_THAT(message_of([&] { run(pipeline(kLeakCases[0].stages), r, folder / "none"); }),
              AllOf(HasSubstr("test.toml: kalman"), HasSubstr("there is no [[split]]")));
  EXPECT_FALSE(fs::exists(folder / "none"));
}

TEST(Run, BadInputLeavesTheOlderFolderAlone) {
  const auto folder = temporary_folder();
  run(pipeline(kWhole), generated(), folder / "run");
  const auto before = digests(folder / "run");
  Recording r = generated();
  Eigen::MatrixXd x = r.streams[0].matrix();
  x.setZero();
  r.streams[0].samples = std::make_shared<MemorySource>(x);
  const std::string kalman =
      kLeakCases[0].stages + std::string("[[split]]\ntrain_rows = [0, 299]\ntest_rows = [300, 399]\n[[score]]\n");
  EXPECT_THAT(message_of<DataError>([&] { run(pipeline(kalman), r, folder / "run"); }),
              AllOf(HasSubstr("test.toml: kalman"), HasSubstr("a constant channel")));
  EXPECT_EQ(digests(folder / "run"), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator{}), 1);
  EXPECT_THAT(message_of([&] { run(pipeline(kalman + "bootstrap = 5\n"), generated(), folder / "run"); }),
              HasSubstr("test.toml: score.bootstrap = 5: expected 0 or at least 20 resamples"));
}

TEST(Experiment, RefusesAGraphThatCannotRun) {
  const auto r = generated();
  EXPECT_THAT(message_of([&] { Experiment(registry(), pipeline("[[stage]]\nuse = \"ridge\"\n"), r, {}); }),
              AllOf(HasSubstr("test.toml: ridge.target"), HasSubstr("the stream that 'ridge' learns to decode")));
  EXPECT_THAT(
      message_of([&] { Experiment(registry(), pipeline("[[stage]]\nuse = \"count\"\nfrom = \"activty\"\n"), r, {}); }),
      AllOf(HasSubstr("test.toml: count.from"), HasSubstr("did you mean 'activity'")));
  EXPECT_THAT(message_of([&] {
                Experiment(registry(),
                           pipeline("[[stage]]\nname = \"a\"\nuse = \"count\"\nfrom = \"b\"\n[[stage]]\nname = "
                                    "\"b\"\nuse = \"count\"\nfrom = \"a\"\n"),
                           r, {});
              }),
              HasSubstr("wait for each other: a, b"));
  EXPECT_THAT(message_of([&] {
                const Experiment e(registry(), pipeline("[[stage]]\nuse = \"ridge\"\ntarget = \"kinematic\"\n"), r, {});
                e.fit({{0, 99}});
              }),
              AllOf(HasSubstr("test.toml"), HasSubstr("kinematics")));
}

}  // namespace
}  // namespace percept::evaluation
