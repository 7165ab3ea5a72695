/// A killed run goes on where it was, and nobody can tell from its results.
#include "evaluation/work_cache.h"

#include <gmock/gmock.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fstream>

#include "core/error.h"
#include "core/files.h"
#include "evaluation/run.h"
#include "evaluation/search.h"
#include "io/store.h"
#include "numerics/random.h"
#include "percept/registry.h"
#include "tests/support/contract.h"
#include "tests/support/data.h"

namespace percept::evaluation::work_cache_test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::temporary_folder;

// --- a map whose fits are counted, and can end the process ---------------------------------------------------------

std::atomic<int> fits_begun{0};
int killed_after = -1;  ///< fits

/// y = W x with W = Y X' / n.
class Correlate final : public Typed<Correlate> {
 public:
  explicit Correlate(const Model& m) : weights_(m.matrix("weights")) {}
  StreamFormat prepare(const StreamFormat& in, Context&) override {
    StreamFormat out = in;
    out.parts = time_format(weights_.rows(), in.rate_hz).parts;
    return out;
  }
  template <class T>
  Index run(const Block&, FrameSpan<const T> x, Output&, FrameSpan<T> y) noexcept {
    for (Index k = 0; k < x.frames; ++k)
      for (Index i = 0; i < weights_.rows(); ++i) {
        double sum = 0;
        for (Index j = 0; j < x.rows; ++j) sum += weights_(i, j) * static_cast<double>(x.frame(k)[j]);
        y.frame(k)[i] = static_cast<T>(sum);
      }
    return x.frames;
  }
  void reset() noexcept override {}

 private:
  Eigen::MatrixXd weights_;
};
class CorrelateFitter final : public Fitter {
 public:
  Model fit(const Data& data, Context& context) override {
    if (fits_begun++ == killed_after) std::raise(SIGKILL);
    const TrainingMatrix t = data.gather();
    context.counter("learned_from").add(data.frames());
    Model m;
    m.set("weights", Eigen::MatrixXd(t.y * t.x.transpose() / static_cast<double>(t.x.cols())));
    return m;
  }
};

const Registry& stages() {
  static const Registry all = [] {
    Registry r = builtin_registry();
    StageInfo info;
    info.name = "correlate";
    info.folder = "tests";
    info.doc = "A map by correlation.";
    info.trained = info.needs_target = true;
    info.make = [](const Value&, const Model* m, const std::string&) -> std::unique_ptr<Stage> {
      return std::make_unique<Correlate>(*m);
    };
    info.make_fitter = [](const Value&, const std::string&) -> std::unique_ptr<Fitter> {
      return std::make_unique<CorrelateFitter>();
    };
    info.samples = [] { return std::vector<Sample>(1); };
    r.add(info);
    info.name = "cross_correlate";
    info.cross_fit = true;
    r.add(info);
    return r;
  }();
  return all;
}

Recording noisy(std::uint64_t seed = 1) {
  const KeyedRandom random(seed, "work cache test");
  Eigen::MatrixXd z(2, 200), x(4, 200);
  for (Index k = 0; k < 200; ++k)
    for (Index i = 0; i < 4; ++i) {
      if (i < 2) z(i, k) = random.normal(k, static_cast<std::uint64_t>(i));
      x(i, k) = z(i % 2, k) + random.normal(k, 10 + static_cast<std::uint64_t>(i));
    }
  Recording r;
  r.name = "noisy";
  r.streams = {memory_stream("activity", x, 10), memory_stream("kinematics", z, 10)};
  return r;
}

/// 2 folds x 2 nodes x (the run and 2 shuffles): 12 fits.
constexpr int kFits = 12;
const std::string kPipeline =
    "[input]\ndata = \"none\"\n[[stage]]\nuse = \"demean_two\"\n[[stage]]\nname = \"one\"\nuse = \"correlate\"\ntarget "
    "= "
    "\"kinematics\"\n[[stage]]\nname = \"two\"\nuse = \"correlate\"\n[[split]]\nuse = \"kfold\"\nfolds = 2\ngap_s = "
    "0.5\n[[score]]\nmetrics = [\"nrmse\", \"r2\"]\nbootstrap = 20\npermutations = 20\nshuffles = 2\n[run]\n";

Pipeline parsed(std::string text = kPipeline, const std::string& run = "seed = 3\n") {
  // some stage above the learned ones, whose output is the prefix
  text.replace(text.find("demean_two"), 10, "lag\"\nlags = 2\nname = \"back");
  return parse_pipeline(parse_toml(text + run), "test.toml", stages());
}

struct Ran {
  std::map<std::string, std::string> digests;  ///< of every file but run.json
  Value counters;
  int fits = 0;
};

Ran run_in(const fs::path& folder, const std::string& name, bool resumable, const Pipeline& p = parsed(),
           const Recording& r = noisy(), std::function<bool()> cancelled = {}) {
  Counters counters;
  RunRequest request{p, r, {}, folder / name};
  request.options.counters = &counters;
  request.options.keep_from_s = 0;
  request.options.cancelled = std::move(cancelled);
  if (resumable) request.work = folder / "work";
  fits_begun = 0;
  Ran ran;
  ran.counters = run_pipeline(stages(), request).result.at("counters");
  ran.fits = fits_begun;
  for (auto& f : fs::recursive_directory_iterator(request.output))
    if (f.is_regular_file() && f.path().filename() != "run.json")
      ran.digests[fs::relative(f.path(), request.output).string()] = sha256_file(f.path());
  return ran;
}

/// A run that stops before fit `n` begins, and leaves what it had.
void stop_before(const fs::path& folder, int n, const Pipeline& p = parsed()) {
  EXPECT_THROW(run_in(folder, "stopped", true, p, noisy(), [n] { return fits_begun >= n; }), Interrupted);
  EXPECT_FALSE(fs::exists(folder / "stopped"));
}

std::vector<fs::path> entries(const fs::path& folder) {
  std::vector<fs::path> all;
  if (fs::exists(folder))
    for (auto& e : fs::directory_iterator(folder)) all.push_back(e.path());
  return all;
}

// --- the kill -------------------------------------------------------------------------------------------------------

class Killed : public ::testing::TestWithParam<int> {};
TEST_P(Killed, TheNextRunFitsOnlyWhatWasMissingAndGivesTheSameFiles) {
  // the process that is killed runs this test from its start: it has to find the same folder
  constexpr const char* kFolder = "PERCEPT_TEST_WORK_CACHE";
  if (!std::getenv(kFolder)) ::setenv(kFolder, temporary_folder().c_str(), 1);
  const fs::path folder = std::getenv(kFolder);
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        killed_after = GetParam();
        run_in(folder, "run", true);
      },
      ::testing::KilledBySignal(SIGKILL), "");
  ::unsetenv(kFolder);
  EXPECT_FALSE(fs::exists(folder / "run"));
  EXPECT_EQ(entries(folder / "work/fits").size(), static_cast<std::size_t>(GetParam()));

  const Ran cold = run_in(folder, "cold", false), resumed = run_in(folder, "run", true);
  EXPECT_EQ(cold.fits, kFits);
  EXPECT_EQ(resumed.fits, kFits - GetParam());
  EXPECT_EQ(resumed.digests, cold.digests);
  EXPECT_GE(cold.digests.size(), 8u);
  EXPECT_EQ(cold.counters.at("one.learned_from").as_integer(), 190) << "of the two folds";
  EXPECT_FALSE(fs::exists(folder / "work")) << "a run that ends well leaves nothing";
}
INSTANTIATE_TEST_SUITE_P(WorkCache, Killed, ::testing::Values(0, 1, 5, 11));

// --- what is in it --------------------------------------------------------------------------------------------------

TEST(WorkCache, DamagedEntriesAreMadeAgain) {
  const auto folder = temporary_folder();
  const Ran cold = run_in(folder, "cold", false);
  auto flip = [](const fs::path& file) {
    std::string bytes = read_file(file);
    bytes[bytes.size() * 2 / 3] = static_cast<char>(bytes[bytes.size() * 2 / 3] ^ 0x10);
    std::ofstream(file, std::ios::binary) << bytes;
  };
  stop_before(folder, 8);
  const auto fits = entries(folder / "work/fits"), prefix = entries(folder / "work/prefix");
  ASSERT_EQ(fits.size(), 8u);
  ASSERT_EQ(prefix.size(), 1u);
  flip(fits[0] / "model/weights.safetensors");
  flip(fits[1] / "model/model.json");
  flip(fits[2] / "entry.json");
  fs::resize_file(fits[3] / "model/weights.safetensors", 20);
  fs::remove(fits[4] / "entry.json");
  flip(prefix[0] / "streams.percept");
  ::testing::internal::CaptureStderr();
  const Ran resumed = run_in(folder, "run", true);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("damaged and made again"));
  EXPECT_EQ(resumed.fits, kFits - 8 + 5);
  EXPECT_EQ(resumed.digests, cold.digests);
}

TEST(WorkCache, AnEntryServesNothingElse) {
  const auto folder = temporary_folder();
  auto fits = [&](const Pipeline& p, const Recording& r, RowRange rows = {0, 99}, Index shift = 0, int threads = 1) {
    EngineOptions options;
    options.keep_from_s = 0;
    options.threads = threads;
    fits_begun = 0;
    const auto cache = std::make_shared<WorkCache>(folder / "work", identity_of(p.input, r));
    Experiment(stages(), p, r, options, cache).fit({rows}, shift);
    return fits_begun.load();
  };
  EXPECT_EQ(fits(parsed(), noisy()), 2);
  EXPECT_EQ(fits(parsed(), noisy()), 0);
  EXPECT_EQ(fits(parsed(), noisy(), {0, 98}), 2);
  EXPECT_EQ(fits(parsed(), noisy(), {0, 99}, 20), 2);
  EXPECT_EQ(fits(parsed(), noisy(), {0, 99}, 0, 2), 2);
  EXPECT_EQ(fits(parsed(kPipeline, "seed = 4\n"), noisy()), 2);
  EXPECT_EQ(fits(parsed(kPipeline, "seed = 3\nprecision = \"f64\"\n"), noisy()), 2);
  EXPECT_EQ(fits(parsed(kPipeline, "seed = 3\nblock = 64\n"), noisy()), 2);
  EXPECT_EQ(fits(parsed(), noisy(2)), 2);
  Recording later = noisy();
  for (auto& s : later.streams) s.format.start_s = 1;
  EXPECT_EQ(fits(parsed(), later), 2);
  Recording other_file = noisy();
  other_file.meta["input"] = Value::object({{"a.csv", "00"}});
  EXPECT_EQ(fits(parsed(), other_file), 2);
  auto changed = [](const std::string& from, const std::string& to) {
    std::string text = kPipeline;
    return parsed(text.replace(text.find(from), from.size(), to));
  };
  EXPECT_EQ(fits(changed("\"kinematics\"", "{ from = \"kinematics\", lag_s = 0.1 }"), noisy()), 2);
  // what stands above decides, what stands below does not
  EXPECT_EQ(fits(changed("\"correlate\"\n[[split]]", "\"correlate\"\ntarget = \"activity\"\n[[split]]"), noisy()), 1);
  EXPECT_EQ(fits(changed("\"two\"\n", "\"two\"\nfrom = \"back\"\n"), noisy()), 1);
  Recording events = noisy();
  events.events.push_back({.onset_s = 1, .label = Label::of("trial")});
  EXPECT_EQ(fits(parsed(), events), 2);
  EXPECT_EQ(fits(changed("use = \"demean_two\"", "reset = \"trial\"\nuse = \"demean_two\""), events), 2);
  EXPECT_EQ(fits(parsed(), noisy()), 0);
}

TEST(WorkCache, RemovesOnlyWhatItWrote) {
  const auto folder = temporary_folder();
  fs::create_directories(folder / "work");
  std::ofstream(folder / "work/notes.txt") << "mine\n";
  run_in(folder, "run", true);
  EXPECT_EQ(read_file(folder / "work/notes.txt"), "mine\n");
  EXPECT_EQ(entries(folder / "work").size(), 1u);
}

TEST(WorkCache, OneThatCannotBeWrittenCostsNothing) {
  const auto folder = temporary_folder();
  std::ofstream(folder / "work") << "a file where the folder would be\n";
  ::testing::internal::CaptureStderr();
  const Ran ran = run_in(folder, "run", true);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("not everything could be kept for a resume"));
  EXPECT_EQ(ran.digests, run_in(folder, "cold", false).digests);
  EXPECT_TRUE(fs::is_regular_file(folder / "work"));
}

TEST(WorkCache, AStoppedSearchGoesOn) {
  const auto folder = temporary_folder();
  const auto p =
      parsed(kPipeline + "seed = 3\n[search]\nback.lags = [1, 2, 3, 4]\ninner_folds = 3\nreject = 0.0\n", "");
  const Ran cold = run_in(folder, "cold", false, p);
  // 2 folds x 4 candidates x 3 inner folds x 2 nodes, and the run's own
  EXPECT_EQ(cold.fits, 2 * 4 * 3 * 2 + kFits);
  // in the second inner fold of the third candidate of the first fold: that is made again
  stop_before(folder, 2 * 3 * 2 + 3, p);
  EXPECT_EQ(entries(folder / "work/values").size(), 2u);
  EXPECT_EQ(entries(folder / "work/scored").size(), 7u);
  const Ran resumed = run_in(folder, "run", true, p);
  EXPECT_EQ(resumed.fits, cold.fits - (2 * 3 + 1) * 2);
  EXPECT_EQ(resumed.digests, cold.digests);
}

/// Drawn candidates; this map is not made for many inputs, so that those with many lags are hopeless.
constexpr int kDrawn = 5;
Pipeline random_search() {
  return parsed(kPipeline +
                    "seed = 3\n[search]\nmethod = \"random\"\ncandidates = 5\nmetric = \"nrmse\"\ninner_folds = 5\n"
                    "back.lags = { from = 1, to = 8 }\n",
                "");
}

TEST(WorkCache, ARandomSearchThatGaveCandidatesUpGoesOnFromAnywhere) {
  const auto folder = temporary_folder();
  const auto p = random_search();
  const Ran cold = run_in(folder, "cold", false, p);
  const Value found = read_json(folder / "cold/result.json").at("search").as_array().at(0).at("search");
  int given_up = 0, tried = 0;
  for (auto& row : found.at("rows").as_array()) {
    EXPECT_FALSE(row.contains("failed"));
    EXPECT_EQ(row.contains("given_up"), row.at("folds").as_integer() < 5);
    given_up += row.contains("given_up");
    tried += static_cast<int>(row.at("folds").as_integer());
  }
  ASSERT_GT(given_up, 0) << to_json(found);
  ASSERT_LT(given_up, kDrawn - 1);
  // at the end of the first round, after somebody has left, and in the search of the second fold; an inner fold fits two
  for (const int stop : {kDrawn * 2 * 2, 2 * tried - 1, 2 * tried + 9}) {
    stop_before(folder, stop, p);
    const Ran resumed = run_in(folder, "run", true, p);
    EXPECT_EQ(resumed.digests, cold.digests) << stop;
    // the inner fold in which it stopped is made again, its two fits included
    EXPECT_LE(resumed.fits, cold.fits - stop + 2) << stop;
    EXPECT_FALSE(fs::exists(folder / "work"));
    fs::remove_all(folder / "run");
  }
}

TEST(WorkCache, ASearchKeepsNoFramesOfThoseThatAreDone) {
  const auto folder = temporary_folder();
  const auto p = random_search();
  const Ran cold = run_in(folder, "cold", false, p);
  // the search of the first fold is done; its run of two nodes has begun
  int tried = 0;
  const Value found = read_json(folder / "cold/result.json").at("search").as_array().at(0).at("search");
  for (auto& row : found.at("rows").as_array()) tried += static_cast<int>(row.at("folds").as_integer());
  stop_before(folder, 2 * tried + 1, p);
  EXPECT_EQ(entries(folder / "work/values").size(), static_cast<std::size_t>(kDrawn));
  EXPECT_TRUE(entries(folder / "work/scored").empty());
}

TEST(WorkCache, DamagedScoresOfCandidatesAreMadeAgain) {
  const auto folder = temporary_folder();
  const auto p = random_search();
  const Ran cold = run_in(folder, "cold", false, p);
  stop_before(folder, kDrawn * 2 * 2 + 2, p);
  const auto values = entries(folder / "work/values"), scored = entries(folder / "work/scored");
  ASSERT_EQ(values.size(), static_cast<std::size_t>(kDrawn));
  ASSERT_GE(scored.size(), 3u);
  fs::resize_file(values[0], 10);
  for (auto& entry : scored) {
    std::string bytes = read_file(entry / "weights.safetensors");
    bytes[bytes.size() - 5] = static_cast<char>(bytes[bytes.size() - 5] ^ 0x10);
    std::ofstream(entry / "weights.safetensors", std::ios::binary) << bytes;
  }
  ::testing::internal::CaptureStderr();
  const Ran resumed = run_in(folder, "run", true, p);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("damaged and made again"));
  EXPECT_EQ(resumed.digests, cold.digests);
}

class KilledSearch : public ::testing::TestWithParam<int> {};
TEST_P(KilledSearch, GoesOnWithTheSameFiles) {
  constexpr const char* kFolder = "PERCEPT_TEST_KILLED_SEARCH";
  if (!std::getenv(kFolder)) ::setenv(kFolder, temporary_folder().c_str(), 1);
  const fs::path folder = std::getenv(kFolder);
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        killed_after = GetParam();
        run_in(folder, "run", true, random_search());
      },
      ::testing::KilledBySignal(SIGKILL), "");
  ::unsetenv(kFolder);
  const Ran cold = run_in(folder, "cold", false, random_search());
  const Ran resumed = run_in(folder, "run", true, random_search());
  EXPECT_LE(resumed.fits, cold.fits - GetParam() + 1);
  EXPECT_EQ(resumed.digests, cold.digests);
}
INSTANTIATE_TEST_SUITE_P(WorkCache, KilledSearch, ::testing::Values(1, 25));

TEST(WorkCache, InnerFitsAreSharedByTheStagesThatNeedThem) {
  const std::string map =
      "[input]\ndata = \"none\"\n[[stage]]\nname = \"map\"\nuse = \"correlate\"\ntarget = "
      "\"kinematics\"\n";
  auto cross = [](const std::string& name, const std::string& from) {
    return "[[stage]]\nname = \"" + name + "\"\nuse = \"cross_correlate\"\nfrom = \"" + from + "\"\n";
  };
  auto fits = [&](const std::string& text) {
    const auto p = parse_pipeline(parse_toml(text), "test.toml", stages());
    fits_begun = 0;
    Experiment(stages(), p, noisy(), {}).fit({{0, 199}}, 0, {5, 0});
    return fits_begun.load();
  };
  EXPECT_EQ(fits(map), 1);
  EXPECT_EQ(fits(map + cross("a", "map")), 1 + 5 + 1);
  EXPECT_EQ(fits(map + cross("a", "map") + cross("b", "map")), 1 + 5 + 2);
  // one upon the other: each of the 5 inner fits of `a` takes 5 of `map` on what is left
  EXPECT_EQ(fits(map + cross("a", "map") + cross("b", "a")), 1 + 5 + 1 + 5 * (5 + 1) + 1);
}

TEST(WorkCache, QuickWorkIsNotKept) {
  const auto folder = temporary_folder();
  RunRequest request{parsed(), noisy(), {}, folder / "run"};
  request.work = folder / "work";
  request.options.cancelled = [] { return fits_begun >= 6; };
  fits_begun = 0;
  request.options.keep_from_s = 60;
  EXPECT_THROW(run_pipeline(stages(), request), Interrupted);
  EXPECT_FALSE(fs::exists(folder / "work"));
}

}  // namespace
}  // namespace percept::evaluation::work_cache_test
