/// What a search tries, and whom it gives up. Whole searches: test_experiment.cpp; resumed ones: test_work_cache.cpp.
#include "evaluation/search.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <set>

#include "core/error.h"
#include "evaluation/race.h"
#include "numerics/random.h"

namespace percept::evaluation::search_test {
namespace {

constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

// --- candidates -----------------------------------------------------------------------------------------------------

SearchSpec::Tried one_of(const std::string& key, std::vector<Value> values) {
  SearchSpec::Tried t;
  t.key = key;
  t.values = std::move(values);
  return t;
}
SearchSpec::Tried range(const std::string& key, double from, double to, bool log, bool integer) {
  SearchSpec::Tried t;
  t.key = key;
  t.from = from;
  t.to = to;
  t.log = log;
  t.integer = integer;
  return t;
}
SearchSpec random_search(std::int64_t candidates, std::vector<SearchSpec::Tried> tried) {
  SearchSpec s;
  s.method = "random";
  s.candidates = candidates;
  s.tried = std::move(tried);
  s.where = "a.toml: search";
  return s;
}
std::vector<double> values_of(const std::vector<Value>& candidates, const std::string& key) {
  std::vector<double> all;
  for (auto& c : candidates) all.push_back(c.at(key).as_number());
  std::sort(all.begin(), all.end());
  return all;
}

TEST(Candidates, AGridHasEveryCombinationInOrder) {
  SearchSpec s;
  s.tried = {one_of("a.x", {1, 2}), one_of("b.y", {"p", "q", "r"})};
  const auto all = candidates_of(s, 0);
  ASSERT_EQ(all.size(), 6u);
  EXPECT_EQ(to_json(all[0]), R"({"a.x":1,"b.y":"p"})");
  EXPECT_EQ(to_json(all[1]), R"({"a.x":1,"b.y":"q"})");
  EXPECT_EQ(to_json(all[5]), R"({"a.x":2,"b.y":"r"})");
  for (int k = 0; k < 40; ++k) s.tried.push_back(one_of("c.z", {1, 2, 3}));
  s.where = "a.toml: search";
  try {
    candidates_of(s, 0);
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_STREQ(e.what(),
                 "a.toml: search = a grid of 118098 combinations or more: expected at most 100000 (method = \"random\" "
                 "draws some)");
  }
}

TEST(Candidates, RandomOnesDependOnSeedAndKeyAlone) {
  const auto x = range("a.x", 0, 1, false, false), y = range("b.y", 1e-4, 1, true, false);
  const auto all = candidates_of(random_search(50, {x, y}), 1);
  EXPECT_EQ(all, candidates_of(random_search(50, {x, y}), 1));
  EXPECT_NE(all, candidates_of(random_search(50, {x, y}), 2));
  const auto more = candidates_of(random_search(80, {x, y}), 1);
  EXPECT_TRUE(std::equal(all.begin(), all.end(), more.begin())) << "more candidates are the same and more";
  EXPECT_EQ(values_of(all, "b.y"), values_of(candidates_of(random_search(50, {y}), 1), "b.y"));
}

// Bounds of five standard errors: of a uniform mean sqrt(1 / 12 / n), of a count sqrt(n p (1 - p)).
TEST(Candidates, RangesAreDrawnUniformlyAndToTheirEnds) {
  constexpr int kN = 20000;
  const auto all = candidates_of(random_search(kN, {range("u", -2, 4, false, false), range("l", 1e-3, 10, true, false),
                                                    range("i", 3, 6, false, true), range("j", 1, 64, true, true)}),
                                 7);
  ASSERT_EQ(all.size(), static_cast<std::size_t>(kN));
  const auto u = values_of(all, "u"), l = values_of(all, "l"), i = values_of(all, "i"), j = values_of(all, "j");
  double mean_u = 0, mean_l = 0;
  for (int k = 0; k < kN; ++k) {
    mean_u += (u[static_cast<std::size_t>(k)] + 2) / 6 / kN;
    mean_l += std::log10(l[static_cast<std::size_t>(k)] / 1e-3) / 4 / kN;
  }
  const double error = 5 * std::sqrt(1.0 / 12 / kN);
  EXPECT_NEAR(mean_u, 0.5, error);
  EXPECT_NEAR(mean_l, 0.5, error);
  EXPECT_GE(u.front(), -2);
  EXPECT_LE(u.back(), 4);
  EXPECT_GE(l.front(), 1e-3);
  EXPECT_LE(l.back(), 10);
  for (double v : {3.0, 4.0, 5.0, 6.0})
    EXPECT_NEAR(static_cast<double>(std::count(i.begin(), i.end(), v)), kN / 4.0, 5 * std::sqrt(kN * 0.25 * 0.75));
  EXPECT_EQ(std::set<double>(i.begin(), i.end()).size(), 4u);
  // P(1) = log(2 / 1) / log(65)
  const double p = std::log(2.0) / std::log(65.0);
  EXPECT_NEAR(static_cast<double>(std::count(j.begin(), j.end(), 1.0)), kN * p, 5 * std::sqrt(kN * p * (1 - p)));
  EXPECT_EQ(j.back(), 64);
  for (auto& c : all) {
    const double v = c.at("l").as_number();
    EXPECT_NEAR(v / std::pow(10, std::floor(std::log10(v)) - 3),
                std::round(v / std::pow(10, std::floor(std::log10(v)) - 3)), 1e-6)
        << "four digits";
  }
}

TEST(Candidates, NoneComesTwiceAndFewListsEnd) {
  const auto few = candidates_of(random_search(50, {one_of("a", {1, 2, 3}), range("b", 1, 2, false, true)}), 3);
  EXPECT_EQ(few.size(), 6u) << "there are no more";
  std::set<std::string> different;
  for (auto& c : few) different.insert(to_json(c));
  EXPECT_EQ(different.size(), 6u);
}

// --- the race -------------------------------------------------------------------------------------------------------

TEST(Race, TheTailOfStudentIsThatOfItsClosedFormsAndOfTables) {
  for (double t : {0.0, 0.3, 1.0, 4.0, 50.0, 1e6}) {
    EXPECT_NEAR(student_tail(t, 1), 0.5 - std::atan(t) / std::numbers::pi, 1e-14);
    EXPECT_NEAR(student_tail(t, 2), 0.5 - t / (2 * std::sqrt(2 + t * t)), 1e-14);
    EXPECT_NEAR(student_tail(-t, 3), 1 - student_tail(t, 3), 1e-14);
  }
  // five digits of a printed table
  EXPECT_NEAR(student_tail(2.35336, 3), 0.05, 1e-6);
  EXPECT_NEAR(student_tail(3.74695, 4), 0.01, 1e-6);
  EXPECT_NEAR(student_tail(3.36493, 5), 0.01, 1e-6);
  EXPECT_NEAR(student_tail(2.76377, 10), 0.01, 1e-6);
  EXPECT_NEAR(student_tail(1.98397, 100), 0.025, 1e-6);
  EXPECT_EQ(student_tail(kInf, 4), 0);
  EXPECT_EQ(student_tail(-kInf, 4), 1);
}

TEST(Race, ThePairedTestIsThatOnPaper) {
  // mean 2, standard error 1 / sqrt(3)
  EXPECT_NEAR(paired_p(std::vector<double>{1, 2, 3}), 0.5 - std::sqrt(12.0) / (2 * std::sqrt(14.0)), 1e-14);
  EXPECT_EQ(paired_p(std::vector<double>{1}), 1);
  EXPECT_EQ(paired_p(std::vector<double>{0, 0}), 1);
  EXPECT_EQ(paired_p(std::vector<double>{2, 2}), 0);
  EXPECT_EQ(paired_p(std::vector<double>{1, kNoNumber}), 1);
  EXPECT_EQ(paired_p(std::vector<double>{1, kInf}), 1);
}

std::vector<std::size_t> gone(const std::vector<Standing>& all, bool lower = true, double level = 0.01) {
  std::vector<std::size_t> out;
  for (auto& g : give_up(all, lower, level)) out.push_back(g.candidate);
  return out;
}

TEST(Race, OnlySteadyAndClearLosersGo) {
  using ::testing::ElementsAre;
  using ::testing::IsEmpty;
  const Standing best{{.50, .52, .48}, .50};
  EXPECT_THAT(gone({{{.90, .93, .89}, .91}, best, {{.51, .53, .49}, .51}}), ElementsAre(0, 2))
      << "a small loss that never varies is a clear one";
  EXPECT_THAT(gone({best, {{.70, .95, .60}, .75}}), IsEmpty()) << "its losses vary";
  EXPECT_THAT(gone({best, {{.90, .51, .89}, .77}}), IsEmpty()) << "better on one fold";
  EXPECT_THAT(gone({best, {{.90, kNoNumber, .89}, .90}}), IsEmpty()) << "undefined on one fold";
  EXPECT_THAT(gone({best, {{.90, .93, .89}, kNoNumber}}), IsEmpty());
  EXPECT_THAT(gone({best, best}), IsEmpty());
  EXPECT_THAT(gone({{{.9}, .9}, {{.1}, .1}}), IsEmpty()) << "one fold says nothing";
  // t = 1.5 / .1 with one degree of freedom: p = .021
  EXPECT_THAT(gone({{{.8, .9}, .85}, {{.1, .1}, .1}}), IsEmpty());
  EXPECT_THAT(gone({{{.8, .9}, .85}, {{.1, .1}, .1}}, true, 0.022), ElementsAre(0));
  EXPECT_THAT(gone({{{.1, .12, .1}, .1}, {{.90, .93, .89}, .91}}, false), ElementsAre(0)) << "where higher is better";
  // who is better on the folds but worse in all frames leads nobody out
  EXPECT_THAT(gone({{{.5, .5, .5}, .9}, {{.6, .6, .6}, .6}}), IsEmpty());
  EXPECT_THAT(gone({}), IsEmpty());
}

// Two equal candidates, looked at after 2, 3, 4 and 5 folds: who is behind is given up with a chance of 1 % a look, and
// then nothing is lost. The tests see a candidate at its worst, so twice that is the bound: either may be behind.
TEST(Race, EqualCandidatesMostlyRunToTheEnd) {
  const KeyedRandom random(1, "race test");
  constexpr int kRaces = 20000;
  int given_up = 0;
  for (int k = 0; k < kRaces; ++k) {
    std::vector<Standing> two(2);
    bool ended = false;
    for (std::uint64_t f = 0; f < 5 && !ended; ++f) {
      for (std::size_t c = 0; c < 2; ++c) {
        auto& s = two[c];
        s.folds.push_back(1 + 0.1 * random.normal(k, 10 * f + c));
        s.pooled = 0;
        for (double v : s.folds) s.pooled += v / static_cast<double>(s.folds.size());
      }
      ended = !give_up(two, true, 0.01).empty();
    }
    given_up += ended;
  }
  EXPECT_LT(given_up, kRaces * 4 * 0.02);
  EXPECT_GT(given_up, kRaces * 0.02) << "the test is there at all";
}

}  // namespace
}  // namespace percept::evaluation::search_test
