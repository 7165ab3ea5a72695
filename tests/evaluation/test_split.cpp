#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "core/error.h"
#include "evaluation/split.h"
#include "numerics/random.h"

namespace percept::evaluation {
namespace {

using Ranges = std::vector<RowRange>;

SplitSpec spec(const char* use, const char* toml) {
  SplitSpec s;
  s.use = use;
  s.params = parse_toml(toml, "a.toml");
  s.where = "a.toml:9: split";
  return s;
}
SplitContext clocked(std::int64_t frames, double rate_hz = 10, Index memory = 0) {
  SplitContext c;
  c.frames = frames;
  c.rate_hz = rate_hz;
  c.memory_frames = memory;
  return c;
}
SplitContext items(std::int64_t n) {
  SplitContext c;
  c.axis = Axis::item;
  c.frames = n;
  return c;
}
std::string refusal(const SplitSpec& s, const SplitContext& c) {
  try {
    make_folds(s, c);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Split, RowsAreClosedRanges) {
  const auto folds = make_folds(spec("rows", "train_rows = [0, 4999]\ntest_rows = [5000, 5999]"), clocked(7792));
  ASSERT_EQ(folds.size(), 1u);
  EXPECT_EQ(folds[0].name, "official");
  EXPECT_EQ(folds[0].train, (Ranges{{0, 4999}}));
  EXPECT_EQ(folds[0].test, (Ranges{{5000, 5999}}));
  const auto lists = make_folds(
      spec("rows", "train_rows = [[20, 29], [0, 9], [10, 12]]\ntest_rows = [[40, 49], [15, 16]]"), clocked(50));
  EXPECT_EQ(lists[0].train, (Ranges{{0, 12}, {20, 29}}));
  EXPECT_EQ(lists[0].test, (Ranges{{15, 16}, {40, 49}}));
}

TEST(Split, TheGapDropsTrainingFramesOnBothSides) {
  auto folds =
      make_folds(spec("rows", "train_rows = [[0, 39], [50, 99]]\ntest_rows = [40, 49]\ngap_rows = 3"), clocked(100));
  EXPECT_EQ(folds[0].train, (Ranges{{0, 36}, {53, 99}}));
  folds = make_folds(spec("rows", "train_rows = [0, 39]\ntest_rows = [40, 49]\ngap_s = 0.3"), clocked(100));
  EXPECT_EQ(folds[0].train, (Ranges{{0, 36}}));
  folds = make_folds(spec("rows", "train_rows = [0, 39]\ntest_rows = [40, 49]\ngap_s = 0.31"), clocked(100));
  EXPECT_EQ(folds[0].train, (Ranges{{0, 35}}));
}

TEST(Split, TimeRangesAreHalfOpen) {
  SplitContext c = clocked(100);
  c.start_s = 2;
  const auto folds = make_folds(spec("time", "train_s = [2, 7]\ntest_s = [7, 12]"), c);
  EXPECT_EQ(folds[0].train, (Ranges{{0, 49}}));
  EXPECT_EQ(folds[0].test, (Ranges{{50, 99}}));
  const auto gap = make_folds(spec("time", "train_s = [[2, 4], [5, 7]]\ntest_s = [7.05, 9]\ngap_s = 0.5"), c);
  EXPECT_EQ(gap[0].test, (Ranges{{51, 69}}));
  EXPECT_EQ(gap[0].train, (Ranges{{0, 19}, {30, 45}}));
  EXPECT_EQ(refusal(spec("time", "train_s = [0, 7]\ntest_s = [7, 12]"), c),
            "a.toml:9: split.train_s = [0, 7] s: expected a range inside the recording's [2, 12] s");
  EXPECT_EQ(refusal(spec("time", "train_s = [2, 7]\ntest_s = [7, 12.2]"), c),
            "a.toml:9: split.test_s = [7, 12.2] s: expected a range inside the recording's [2, 12] s");
  EXPECT_EQ(refusal(spec("time", "train_s = [2, 7]\ntest_s = [7.01, 7.05]"), c),
            "a.toml:9: split.test_s = [7.01, 7.05] s: expected at least one frame (at 10 Hz there is none)");
  EXPECT_EQ(refusal(spec("time", "train_s = [2, 7]\ntest_s = [6, 8]"), c),
            "a.toml:9: split.test_s = 40..59: expected no row in common with train_s (0..49), found 40..49");
}

TEST(Split, KFoldTestsEachRowOnce) {
  const auto folds = make_folds(spec("kfold", "folds = 5\nrows = [0, 4999]\ngap_rows = 15"), clocked(7792));
  ASSERT_EQ(folds.size(), 5u);
  EXPECT_EQ(folds[0].test, (Ranges{{0, 999}}));
  EXPECT_EQ(folds[0].train, (Ranges{{1015, 4999}}));
  EXPECT_EQ(folds[2].name, "fold 3");
  EXPECT_EQ(folds[2].train, (Ranges{{0, 1984}, {3015, 4999}}));
  EXPECT_EQ(folds[4].test, (Ranges{{4000, 4999}}));
  std::int64_t tested = 0;
  for (auto& f : make_folds(spec("kfold", "folds = 7"), clocked(100))) tested += count_frames(f.test);
  EXPECT_EQ(tested, 100);
}

TEST(Split, NestedHoldsInnerBlocksOfTheTrainingPartOnly) {
  const auto folds = make_folds(spec("nested", "folds = 4\ninner_folds = 3\ngap_rows = 2"), clocked(400));
  ASSERT_EQ(folds.size(), 4u);
  for (auto& f : folds) {
    ASSERT_EQ(f.inner.size(), 3u);
    std::int64_t tested = 0;
    for (auto& i : f.inner) {
      tested += count_frames(i.test);
      for (auto& part : {i.train, i.test})
        for (auto& r : part)
          for (auto k = r.first; k <= r.second; ++k) {
            const bool inside =
                std::any_of(f.train.begin(), f.train.end(), [&](auto& t) { return t.first <= k && k <= t.second; });
            ASSERT_TRUE(inside) << f.name << " " << k;
          }
    }
    EXPECT_EQ(tested, count_frames(f.train));
  }
}

TEST(Split, InnerFoldsCrossHolesAndKeepTheGap) {
  const auto folds = inner_folds({{0, 9}, {20, 29}}, 4, 2);
  ASSERT_EQ(folds.size(), 4u);
  EXPECT_EQ(folds[1].test, (Ranges{{5, 9}}));
  EXPECT_EQ(folds[1].train, (Ranges{{0, 2}, {20, 29}}));
  EXPECT_EQ(folds[2].test, (Ranges{{20, 24}}));
  EXPECT_EQ(folds[2].train, (Ranges{{0, 9}, {27, 29}}));
  const auto three = inner_folds({{0, 9}, {20, 24}}, 3, 0);
  EXPECT_EQ(three[1].test, (Ranges{{5, 9}}));
  const auto two = inner_folds({{0, 9}, {20, 23}}, 2, 0);
  EXPECT_EQ(two[1].test, (Ranges{{7, 9}, {20, 23}}));
  auto message = [](auto... a) {
    try {
      inner_folds(a...);
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message(Ranges{{0, 9}}, 1, 0, "search.inner_folds"), "search.inner_folds = 1: expected at least 2");
  EXPECT_EQ(message(Ranges{{0, 2}}, 5, 0, "search.inner_folds"),
            "search.inner_folds = 5: expected at most one a training row (3 rows)");
  EXPECT_EQ(message(Ranges{{0, 9}}, 2, 10, "search.inner_folds"),
            "search.inner_folds = 2: expected training rows left beside a gap of 10 frames, found none");
}

TEST(Split, ColumnLeavesOneLevelOut) {
  SplitContext c = items(6);
  const std::vector<Table> tables{
      {"item", {{"subject", {}, {"a", "a", "b", "b", "c", "a"}}, {"age", {20, 20, 30, 30, 40, 20}, {}}}}};
  c.tables = &tables;
  const auto folds = make_folds(spec("column", "column = \"subject\""), c);
  ASSERT_EQ(folds.size(), 3u);
  EXPECT_EQ(folds[0].name, "a");
  EXPECT_EQ(folds[0].test, (Ranges{{0, 1}, {5, 5}}));
  EXPECT_EQ(folds[0].train, (Ranges{{2, 4}}));
  EXPECT_EQ(make_folds(spec("subject", ""), c).size(), 3u);
  EXPECT_EQ(make_folds(spec("column", "column = \"item.age\""), c)[1].name, "30");
  const auto named =
      make_folds(spec("column", "column = \"subject\"\ntest_levels = [\"c\"]\ntrain_levels = [\"a\"]"), c);
  ASSERT_EQ(named.size(), 1u);
  EXPECT_EQ(named[0].test, (Ranges{{4, 4}}));
  EXPECT_EQ(named[0].train, (Ranges{{0, 1}, {5, 5}}));
  // a frame's key is its row of the table
  c.frames = 2;
  c.keys = {4, 5};
  EXPECT_EQ(make_folds(spec("subject", ""), c)[0].name, "c");
  c.keys = {4, 6};
  EXPECT_EQ(refusal(spec("subject", ""), c),
            "a.toml:9: split.column = item.subject: expected a row for every frame: frame 1 needs row 6, found 6 rows");
  // two tables with such a column have to be told apart
  c.frames = 6;
  c.keys.clear();
  std::vector<Table> two = tables;
  two.push_back({"session", {{"subject", {}, {"a", "b", "c"}}}});
  c.tables = &two;
  EXPECT_EQ(refusal(spec("subject", ""), c),
            "a.toml:9: split.column = subject: expected one table's: item.subject or session.subject");
  EXPECT_EQ(make_folds(spec("column", "column = \"item.subject\""), c).size(), 3u);
  // labels of a clocked recording
  SplitContext labelled = clocked(4);
  labelled.labels["run"] = {"1", "1", "2", "2"};
  EXPECT_EQ(make_folds(spec("run", ""), labelled)[1].train, (Ranges{{0, 1}}));
}

TEST(Split, RefusalsNameTheKeyAndWhatWasExpected) {
  const SplitContext c = clocked(100);
  auto rows = [](const char* toml) { return spec("rows", toml); };
  EXPECT_EQ(refusal(rows("train_rows = [0, 59]\ntest_rows = [50, 99]"), c),
            "a.toml:9: split.test_rows = 50..99: expected no row in common with train_rows (0..59), found 50..59");
  EXPECT_EQ(refusal(rows("train_rows = [0, 49]\ntest_rows = [50, 100]"), c),
            "a.toml:9: split.test_rows = [50, 100]: expected rows inside 0..99 (the recording has 100 frames)");
  EXPECT_EQ(refusal(rows("train_rows = [10, 5]\ntest_rows = [50, 60]"), c),
            "a.toml:9: split.train_rows = [10, 5]: expected first <= last");
  EXPECT_EQ(refusal(rows("train_rows = [0, 5.5]\ntest_rows = [50, 60]"), c),
            "a.toml:9: split.train_rows = [0, 5.5]: expected whole numbers");
  EXPECT_EQ(refusal(rows("train_rows = [[0, 5], [4, 9]]\ntest_rows = [50, 60]"), c),
            "a.toml:9: split.train_rows = 4..9: expected ranges without a row in common, found 4..5 twice");
  EXPECT_EQ(refusal(rows("train_rows = 7\ntest_rows = [50, 60]"), c),
            "a.toml:9: split.train_rows = 7: expected rows [first, last] or a list of such pairs");
  EXPECT_EQ(refusal(rows("test_rows = [50, 60]"), c),
            "a.toml:9: split.train_rows: expected rows [first, last] or a list of such pairs, found nothing");
  EXPECT_EQ(
      refusal(rows("train_rows = [0, 9]\ntest_row = [50, 60]"), c),
      "a.toml:9: split.test_row (line 2): expected one of train_rows, test_rows, gap_s, gap_rows, inner_folds, by "
      "(did you mean 'test_rows'?)");
  EXPECT_EQ(refusal(rows("train_rows = [40, 49]\ntest_rows = [50, 60]\ngap_rows = 10"), c),
            "a.toml:9: split: expected at least one training row, found none after a gap of 10 frames");
  EXPECT_EQ(refusal(rows("train_rows = [40, 49]\ntest_rows = [50, 60]\ngap_rows = 1\ngap_s = 1"), c),
            "a.toml:9: split.gap_s = 1: expected either gap_s or gap_rows, found both");
  EXPECT_EQ(refusal(spec("kfold", "folds = 200"), c),
            "a.toml:9: split.folds = 200: expected at most one a row (100 rows)");
  EXPECT_EQ(refusal(spec("kfold", "folds = 1"), c),
            "a.toml:9: split.folds (line 1) = 1: expected a value in [2, 1000000]");
  EXPECT_EQ(refusal(spec("k_fold", ""), c),
            "a.toml:9: split.use = k_fold: expected one of rows, time, kfold, nested, column, subject, run (did you "
            "mean 'kfold'?)");
  EXPECT_EQ(refusal(spec("time", "train_s = [0, 1]\ntest_s = [2, 3]"), items(100)),
            "a.toml:9: split.use = time: expected a split by rows, kfold or column: items have no clock");
  EXPECT_EQ(refusal(spec("kfold", "gap_s = 1"), items(100)),
            "a.toml:9: split.gap_s = 1: expected gap_rows: items have no clock");
  EXPECT_EQ(refusal(spec("rows", ""), clocked(0)), "a.toml:9: split: expected a recording with frames, found none");
}

TEST(Split, ColumnRefusals) {
  SplitContext c = items(3);
  EXPECT_EQ(refusal(spec("subject", ""), c),
            "a.toml:9: split.column = subject: expected a column of a table: the recording has no table");
  std::vector<Table> tables{{"item",
                             {{"subject", {}, {"s1", "s1", "s2"}},
                              {"age", {1, 2, std::numeric_limits<double>::quiet_NaN()}, {}},
                              {"site", {}, {"x", "x", "x"}}}}};
  c.tables = &tables;
  EXPECT_EQ(refusal(spec("column", ""), c), "a.toml:9: split.column: expected the name of a column, found nothing");
  EXPECT_EQ(refusal(spec("column", "column = \"item.subjet\""), c),
            "a.toml:9: split.column = item.subjet: expected one of item.subject, item.age, item.site (did you mean "
            "'item.subject'?)");
  EXPECT_EQ(refusal(spec("column", "column = \"age\""), c),
            "a.toml:9: split.column = age: expected a value for every frame, found none for frame 2");
  EXPECT_EQ(refusal(spec("column", "column = \"site\""), c),
            "a.toml:9: split.column = site: expected at least 2 levels, found only 'x'");
  EXPECT_EQ(refusal(spec("subject", "test_levels = [\"s3\"]"), c),
            "a.toml:9: split.test_levels = s3: expected a level of subject: s1, s2 (did you mean 's1'?)");
  EXPECT_EQ(refusal(spec("subject", "test_levels = [\"s1\"]\ntrain_levels = [\"s1\"]"), c),
            "a.toml:9: split.test_levels = s1: expected a level that is not in train_levels");
  EXPECT_EQ(refusal(spec("subject", "test_levels = [\"s1\", \"s2\"]"), c),
            "a.toml:9: split: expected at least one training row, found none");
}

TEST(Split, AGapShorterThanTheMemoryIsRefused) {
  SplitContext c = clocked(100, 10, 9);
  c.memory_of = "lags";
  EXPECT_EQ(refusal(spec("rows", "train_rows = [0, 49]\ntest_rows = [50, 99]"), c),
            "a.toml:9: split.gap_s = 0 frames (0 s): expected at least 9 frames (0.9 s): so far back does lags look");
  EXPECT_EQ(
      refusal(spec("rows", "train_rows = [0, 49]\ntest_rows = [50, 99]\ngap_rows = 8"), c),
      "a.toml:9: split.gap_rows = 8 frames (0.8 s): expected at least 9 frames (0.9 s): so far back does lags look");
  EXPECT_EQ(refusal(spec("rows", "train_rows = [0, 49]\ntest_rows = [50, 99]\ngap_s = 0.9"), c), "accepted");
  EXPECT_EQ(refusal(spec("rows", "train_rows = [0, 40]\ntest_rows = [50, 99]"), c), "accepted");  // a gap by itself
  EXPECT_EQ(refusal(spec("rows", "train_rows = [55, 99]\ntest_rows = [0, 49]"), c),
            "a.toml:9: split.gap_s = 5 frames (0.5 s): expected at least 9 frames (0.9 s): so far back does lags look");
  EXPECT_EQ(
      refusal(spec("kfold", "folds = 4\ngap_rows = 5"), c),
      "a.toml:9: split.gap_rows = 5 frames (0.5 s): expected at least 9 frames (0.9 s): so far back does lags look");
  c.memory_frames = Traits::kDecaying;
  EXPECT_EQ(refusal(spec("rows", "train_rows = [0, 49]\ntest_rows = [50, 99]"), c),
            "a.toml:9: split.gap_s = 0 frames (0 s): expected a gap between training and test: lags remembers earlier "
            "frames, fading");
  EXPECT_EQ(refusal(spec("rows", "train_rows = [0, 49]\ntest_rows = [50, 99]\ngap_s = 0.5"), c), "accepted");
  c.memory_frames = Traits::kAllFrames;
  EXPECT_EQ(refusal(spec("rows", "train_rows = [0, 49]\ntest_rows = [50, 99]\ngap_s = 2"), c),
            "a.toml:9: split: expected a split by recording, run or subject: lags depends on the whole recording, "
            "which holds "
            "training and test frames");
  // memory ends where a recording ends
  c.segment_starts = {0, 50};
  EXPECT_EQ(refusal(spec("rows", "train_rows = [0, 49]\ntest_rows = [50, 99]"), c), "accepted");
  c.memory_frames = 9;
  c.segment_starts = {0, 30, 50};
  const auto folds = make_folds(spec("rows", "train_rows = [0, 49]\ntest_rows = [50, 99]\ngap_rows = 5"), c);
  EXPECT_EQ(folds[0].train, (Ranges{{0, 49}}));
}

// --- trials stay whole ----------------------------------------------------------------------------------------------

Event trial_at(double onset_s, double duration_s = 0, const char* label = "trial") {
  Event e;
  e.onset_s = onset_s;
  e.duration_s = duration_s;
  e.label = Label::of(label);
  return e;
}
/// Trials begin at rows 0, 22, 41, 63 and 85 of 100 at 10 Hz.
const std::vector<Event> kTrials{trial_at(0), trial_at(2.2, 1.9), trial_at(4.1, 2.2), trial_at(6.3, 2.2),
                                 trial_at(8.5)};
SplitContext of_trials(const std::vector<Event>& events = kTrials) {
  SplitContext c = clocked(100);
  c.events = &events;
  return c;
}

TEST(SplitByTrial, BordersMoveToTheNearestBeginningOfATrial) {
  auto folds = make_folds(spec("kfold", "folds = 3\nby = \"trial\""), of_trials());
  ASSERT_EQ(folds.size(), 3u);  // rows 33 and 66 without trials
  EXPECT_EQ(folds[0].test, (Ranges{{0, 40}}));
  EXPECT_EQ(folds[1].test, (Ranges{{41, 62}}));
  EXPECT_EQ(folds[1].train, (Ranges{{0, 40}, {63, 99}}));
  EXPECT_EQ(folds[2].test, (Ranges{{63, 99}}));
  folds = make_folds(spec("kfold", "folds = 2\nrows = [20, 70]\nby = \"trial\""), of_trials());
  EXPECT_EQ(folds[0].test, (Ranges{{22, 40}}));
  EXPECT_EQ(folds[1].test, (Ranges{{41, 62}}));

  folds =
      make_folds(spec("rows", "train_rows = [10, 49]\ntest_rows = [[50, 79], [90, 96]]\nby = \"trial\""), of_trials());
  EXPECT_EQ(folds[0].train, (Ranges{{0, 40}}));
  EXPECT_EQ(folds[0].test, (Ranges{{41, 99}}));  // 79 and 90 move to 85
  folds = make_folds(spec("rows", "train_rows = [0, 31]\ntest_rows = [52, 62]\nby = \"trial\""), of_trials());
  EXPECT_EQ(folds[0].train, (Ranges{{0, 40}}));
  EXPECT_EQ(folds[0].test, (Ranges{{41, 62}})) << "52 lies between 41 and 63: the earlier one";
  folds = make_folds(spec("time", "train_s = [0, 3.5]\ntest_s = [6, 10]\nby = \"trial\""), of_trials());
  EXPECT_EQ(folds[0].train, (Ranges{{0, 40}}));
  EXPECT_EQ(folds[0].test, (Ranges{{63, 99}}));
}

TEST(SplitByTrial, BeginsAreFirstRowsAtOrAfterTheOnsetsOfThatLabel) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  // before and after the recording, between rows, another label, twice, not a time, around other trials
  const std::vector<Event> events{trial_at(-1e300),   trial_at(-5),     trial_at(1.999999999999),
                                  trial_at(2.41),     trial_at(2.49),   trial_at(3, 0, "go"),
                                  trial_at(5, 1.5),   trial_at(5.5),    trial_at(6.4, 0.1),
                                  trial_at(6.5, nan), trial_at(9, inf), trial_at(9.5),
                                  trial_at(10),       trial_at(1e300),  trial_at(nan)};
  const auto folds = make_folds(spec("kfold", "folds = 6\nby = \"trial\""), of_trials(events));
  std::vector<std::int64_t> first;
  for (auto& f : folds) first.push_back(f.test[0].first);
  EXPECT_THAT(first, ::testing::ElementsAre(0, 20, 25, 50, 65, 90));
  EXPECT_EQ(refusal(spec("kfold", "folds = 7\nby = \"trial\""), of_trials(events)),
            "a.toml:9: split.folds = 7: expected at most one a trial 'trial' (6 in these rows)");
}

TEST(SplitByTrial, NoTrialIsCutAndFoldsAreAboutEqual) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const KeyedRandom random(seed, "trials");
    std::vector<Event> events;
    std::set<std::int64_t> starts{0};
    for (std::int64_t row = 3, k = 0; row < 2000; row += 15 + random.below(16, k++)) {
      events.push_back(trial_at(static_cast<double>(row) / 10));
      starts.insert(row);
    }
    SplitContext c = of_trials(events);
    c.frames = 2000;
    const auto whole = [&](const Ranges& ranges) {
      for (auto& [first, last] : ranges)
        EXPECT_TRUE(starts.contains(first) && (last == 1999 || starts.contains(last + 1))) << first << ".." << last;
    };
    std::int64_t tested = 0;
    for (auto& f : make_folds(spec("nested", "folds = 7\ninner_folds = 4\ngap_rows = 10\nby = \"trial\""), c)) {
      EXPECT_NEAR(static_cast<double>(count_frames(f.test)), 2000.0 / 7, 30) << "half a trial at each end";
      tested += count_frames(f.test);
      whole(f.test);
      whole(f.train);
      EXPECT_EQ(f.inner_split.trials.label, "trial");
      ASSERT_EQ(f.inner.size(), 4u);
      for (auto& i : f.inner) {
        whole(i.test);
        whole(i.train);
      }
    }
    EXPECT_EQ(tested, 2000);
  }
}

TEST(SplitByTrial, AGapDropsWholeTrials) {
  auto folds = make_folds(spec("rows",
                               "train_rows = [[0, 40], [63, 99]]\ntest_rows = [41, 62]\ngap_rows = 3\nby = "
                               "\"trial\""),
                          of_trials());
  EXPECT_EQ(folds[0].train, (Ranges{{0, 21}, {85, 99}}));
  const Trials trials{"trial", {0, 22, 41, 63, 85}};
  folds = inner_folds({{0, 40}, {63, 99}}, 2, 1, "inner", trials);
  EXPECT_EQ(folds[0].test, (Ranges{{0, 40}}));
  EXPECT_EQ(folds[0].train, (Ranges{{63, 99}}));
  folds = inner_folds({{0, 99}}, 2, 5, "inner", trials);
  EXPECT_EQ(folds[0].test, (Ranges{{0, 40}}));
  EXPECT_EQ(folds[0].train, (Ranges{{63, 99}}));
  EXPECT_EQ(folds[1].test, (Ranges{{41, 99}}));
  EXPECT_EQ(folds[1].train, (Ranges{{0, 21}}));
  SplitContext c = of_trials();
  c.segment_starts = {0, 50};  // a recording ends in the middle of a trial, and so does the gap
  folds = make_folds(spec("rows",
                          "train_rows = [[0, 40], [50, 99]]\ntest_rows = [41, 49]\ngap_rows = 30\nby = "
                          "\"trial\""),
                     c);
  EXPECT_EQ(folds[0].test, (Ranges{{41, 49}}));
  EXPECT_EQ(folds[0].train, (Ranges{{50, 99}}));
}

TEST(SplitByTrial, WhatStartsAnewAtTheTrialsNeedsNoGap) {
  SplitContext c = of_trials();
  for (Index memory : {Index{9}, Traits::kDecaying}) {
    c.memory_frames = memory;
    c.memory_ends_at = "trial";
    EXPECT_EQ(refusal(spec("kfold", "folds = 3\nby = \"trial\""), c), "accepted");
    EXPECT_THAT(refusal(spec("kfold", "folds = 3"), c), ::testing::HasSubstr("split.gap_s"));
    c.memory_ends_at = "go";
    EXPECT_THAT(refusal(spec("kfold", "folds = 3\nby = \"trial\""), c), ::testing::HasSubstr("split.gap_s"));
    c.memory_ends_at = "";
    EXPECT_THAT(refusal(spec("kfold", "folds = 3\nby = \"trial\""), c), ::testing::HasSubstr("split.gap_s"));
  }
}

TEST(SplitByTrial, RefusalsSayWhatIsMissing) {
  const SplitContext c = of_trials();
  EXPECT_EQ(refusal(spec("kfold", "by = \"trail\""), c),
            "a.toml:9: split.by = \"trail\": expected the label of events of the recording: trial (did you mean "
            "'trial'?)");
  EXPECT_EQ(refusal(spec("kfold", "by = \"\""), c),
            "a.toml:9: split.by = \"\": expected the label of events of the recording: trial");
  EXPECT_EQ(refusal(spec("kfold", "by = \"trial\""), of_trials({})),
            "a.toml:9: split.by = \"trial\": expected the label of events: the recording has none");
  EXPECT_EQ(refusal(spec("kfold", "by = \"trial\""), clocked(100)),
            "a.toml:9: split.by = \"trial\": expected the label of events: the recording has none");
  EXPECT_EQ(refusal(spec("kfold", "by = 7"), c), "a.toml:9: split.by (line 1) = 7: expected a string");
  SplitContext still = items(100);
  still.events = &kTrials;
  EXPECT_EQ(refusal(spec("kfold", "by = \"trial\""), still),
            "a.toml:9: split.by = \"trial\": expected no trials: items have no clock (use = \"column\" keeps items "
            "together)");
  EXPECT_THAT(refusal(spec("column", "column = \"run\"\nby = \"trial\""), c),
              ::testing::HasSubstr("split.by (line 2): expected one of gap_s, gap_rows, inner_folds, column"));
  EXPECT_EQ(refusal(spec("kfold", "folds = 6\nby = \"trial\""), c),
            "a.toml:9: split.folds = 6: expected at most one a trial 'trial' (5 in these rows)");
  EXPECT_EQ(refusal(spec("rows", "train_rows = [0, 40]\ntest_rows = [60, 66]\nby = \"trial\""), c),
            "a.toml:9: split.test_rows = 60..66: expected a range around a trial 'trial' (by): both its borders are "
            "nearest to row 63");
  EXPECT_EQ(refusal(spec("time", "train_s = [0, 4]\ntest_s = [6, 6.6]\nby = \"trial\""), c),
            "a.toml:9: split.test_s = 60..65: expected a range around a trial 'trial' (by): both its borders are "
            "nearest to row 63");
}

TEST(Split, ReportsWhatItIs) {
  const SplitSpec s = spec("rows", "train_rows = [0, 49]\ntest_rows = [50, 99]\ngap_rows = 5");
  const SplitContext c = clocked(100);
  const Value v = to_value(s, make_folds(s, c), c);
  EXPECT_EQ(to_json(v),
            R"({"name":"official","use":"rows","parameters":{"train_rows":[0,49],"test_rows":[50,99],"gap_rows":5},)"
            R"("frames":100,"rate_hz":10.0,"memory_frames":0,"folds":[{"name":"official","train":[[0,44]],)"
            R"("test":[[50,99]],"train_frames":45,"test_frames":50}]})");
  EXPECT_EQ(describe({{0, 3}, {7, 9}}), "0..3, 7..9");
}

/// 100 items, 50 of each class, as in vangerven69.
struct Digits {
  std::vector<Table> tables{{"item", {Column{.name = "label", .numbers = std::vector<double>(100, 6), .text = {}}}}};
  SplitContext context = items(100);
  Digits() {
    for (std::size_t k = 50; k < 100; ++k) tables[0].columns[0].numbers[k] = 9;
    context.tables = &tables;
  }
};

TEST(Split, StratifiedBlocksHaveTheSameShareOfEachLevel) {
  const Digits digits;
  const auto folds = make_folds(spec("kfold", "folds = 10\nstratify = \"item.label\""), digits.context);
  ASSERT_EQ(folds.size(), 10u);
  // the published ten of vangerven69 are the last
  EXPECT_EQ(folds[9].test, (Ranges{{45, 49}, {95, 99}}));
  EXPECT_EQ(folds[0].test, (Ranges{{0, 4}, {50, 54}}));
  EXPECT_EQ(folds[0].train, (Ranges{{5, 49}, {55, 99}}));
  for (auto& f : folds) EXPECT_EQ(count_frames(f.train), 90);
}

TEST(Split, InterleavedBlocksTakeEveryNthRow) {
  const Digits digits;
  const auto plain = make_folds(spec("kfold", "folds = 3\nassign = \"interleaved\"\nrows = [0, 6]"), digits.context);
  EXPECT_EQ(plain[0].test, (Ranges{{0, 0}, {3, 3}, {6, 6}}));
  EXPECT_EQ(plain[1].train, (Ranges{{0, 0}, {2, 3}, {5, 6}}));
  const auto both =
      make_folds(spec("kfold", "folds = 25\nassign = \"interleaved\"\nstratify = \"label\""), digits.context);
  EXPECT_EQ(both[1].test, (Ranges{{1, 1}, {26, 26}, {51, 51}, {76, 76}}));
  EXPECT_EQ(refusal(spec("kfold", "assign = \"interleaved\""), clocked(100)),
            "a.toml:9: split.assign = interleaved: expected contiguous blocks: neighbours in time know each other");
  EXPECT_EQ(refusal(spec("kfold", "stratify = \"label\""), clocked(100)),
            "a.toml:9: split.stratify = label: expected contiguous blocks: neighbours in time know each other");
}

TEST(Split, GroupsOfItemsAreNeverApartInInnerFolds) {
  const Digits digits;
  EXPECT_TRUE(make_folds(spec("column", "column = \"label\""), digits.context)[0].inner_split.groups.empty())
      << "trains on one level, which no inner fold could hold out";
  Digits three;
  for (std::size_t k = 0; k < 20; ++k) three.tables[0].columns[0].numbers[k] = 3;
  const auto by_label = make_folds(spec("column", "column = \"label\""), three.context);
  ASSERT_EQ(by_label[0].inner_split.groups.size(), 100u);
  EXPECT_EQ(by_label[0].inner_split.groups[0], 0);
  EXPECT_EQ(by_label[0].inner_split.groups[99], 2);
  EXPECT_TRUE(make_folds(spec("kfold", "folds = 10"), digits.context)[0].inner_split.groups.empty());
  // groups are dealt in the order in which they come
  const auto folds = inner_folds_of_groups({{0, 3}, {6, 9}}, 2, {7, 7, 1, 5, 0, 0, 1, 5, 5, 7});
  EXPECT_EQ(folds[0].test, (Ranges{{0, 1}, {3, 3}, {7, 9}}));
  EXPECT_EQ(folds[1].test, (Ranges{{2, 2}, {6, 6}}));
  EXPECT_EQ(folds[1].train, folds[0].test);
  try {
    inner_folds_of_groups({{0, 3}}, 4, {0, 0, 1, 1}, "here");
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_STREQ(e.what(), "here = 4: expected at most one a group of training rows (2 groups)");
  }
}

}  // namespace
}  // namespace percept::evaluation
