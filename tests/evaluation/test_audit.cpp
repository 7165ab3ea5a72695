#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <set>

#include "core/error.h"
#include "numerics/random.h"
#include "tests/evaluation/confound_scores.h"
#include "tests/support/data.h"

namespace percept::evaluation {
namespace {

using Ranges = std::vector<RowRange>;

Eigen::MatrixXd noise(Index rows, Index frames, std::uint64_t seed, double a = 0) {
  const KeyedRandom random(seed, "test");
  Eigen::MatrixXd m(rows, frames);
  for (Index i = 0; i < rows; ++i)
    for (Index k = 0; k < frames; ++k)
      m(i, k) = random.normal(k, static_cast<std::uint64_t>(i)) + (k > 0 ? a * m(i, k - 1) : 0);
  return m;
}
/// Blocks of 20 frames, in turn for training and for testing.
Ranges every_other(std::int64_t first, std::int64_t frames = 1000) {
  Ranges r;
  for (; first < frames; first += 40) r.emplace_back(first, first + 19);
  return r;
}
const Ranges kEven = every_other(0), kOdd = every_other(20);

TEST(Audit, TimeAloneFindsADriftAndNothingElse) {
  const Confounds time = time_confounds(1000);
  ASSERT_EQ(time.x.cols(), 1000);
  ASSERT_EQ(static_cast<std::size_t>(time.x.rows()), time.features.size());
  EXPECT_LE(time.x.cwiseAbs().maxCoeff(), 1.0);
  Eigen::MatrixXd drift = 0.1 * noise(1, 1000, 1);
  for (Index k = 0; k < 1000; ++k)
    drift(0, k) += std::sin(2 * std::numbers::pi * 2 * static_cast<double>(k) / 1000) + 5;
  EXPECT_GT(score_confounds("r2", time, drift, kEven, kOdd).values[0], 0.95);
  EXPECT_LT(std::abs(score_confounds("r2", time, noise(1, 1000, 2), kEven, kOdd).values[0]), 0.05);
}

TEST(Audit, TrialStructureFindsATemplate) {
  // 50 trials of 20 frames, 4 targets; the target's own course is all there is to decode
  std::vector<Event> events;
  const KeyedRandom random(4, "targets");
  Eigen::MatrixXd truth = 0.2 * noise(2, 1000, 3);
  for (int t = 0; t < 50; ++t) {
    Event e;
    e.onset_s = 0.1 * 20 * t;
    e.label = Label::of("reach");
    e.value = static_cast<double>(random.below(4, t / 2));
    events.push_back(e);
    for (int b = 0; b < 20; ++b) {
      const double angle = std::numbers::pi / 2 * e.value, course = std::sin(std::numbers::pi * b / 20);
      truth(0, 20 * t + b) += course * std::cos(angle);
      truth(1, 20 * t + b) += course * std::sin(angle);
    }
  }
  const Confounds trial = trial_confounds(events, 1000, 10, 0);
  EXPECT_EQ(trial.x.rows(), 4 * 20 + 2);
  EXPECT_EQ(trial.doc, "4 targets x 20 bins within the trial, trial number and its square; 50 trials");
  for (Index k = 0; k < 1000; ++k) ASSERT_DOUBLE_EQ(trial.x.col(k).head(80).sum(), 1);
  const double by_trial = score_confounds("mean_r", trial, truth, kEven, kOdd).values[0];
  EXPECT_GT(by_trial, 0.9);
  EXPECT_LT(score_confounds("mean_r", time_confounds(1000), truth, kEven, kOdd).values[0], by_trial - 0.3);

  // marked trials count alone; frames between trials hold no bin
  for (auto& e : events) {
    e.label = Label::of("trial");
    e.duration_s = 1;
  }
  Event other;
  other.onset_s = 0.55;
  other.label = Label::of("blink");
  events.insert(events.begin() + 1, other);
  const Confounds marked = trial_confounds(events, 1000, 10, 0);
  EXPECT_EQ(marked.x.rows(), 4 * 10 + 2);
  EXPECT_DOUBLE_EQ(marked.x.col(5).head(40).sum(), 1);
  EXPECT_DOUBLE_EQ(marked.x.col(15).head(40).sum(), 0);
  EXPECT_EQ(trial_confounds({}, 1000, 10, 0).x.rows(), 0);
  EXPECT_EQ(trial_confounds({other}, 1000, 10, 0).doc, "the recording has fewer than two trials");
}

TEST(Audit, ThePastAloneKnowsWhatATargetRepeats) {
  // y_t = 0.9 y_{t-1} + e: its past explains 81 % of it, and nothing of white noise
  const Eigen::MatrixXd e = noise(1, 20000, 21);
  Eigen::MatrixXd y = e;
  for (Index t = 1; t < y.cols(); ++t) y(0, t) += 0.9 * y(0, t - 1);
  const std::vector<RowRange> first{{0, 9999}}, second{{10000, 19999}};
  EXPECT_NEAR(score_confounds("r2", past_confounds(y), y, first, second).values[0], 0.81, 0.02);
  EXPECT_NEAR(score_confounds("r2", past_confounds(e), e, first, second).values[0], 0, 0.01);
  // a decoder that only repeats the frame before has nothing left; one that hears the innovation keeps it
  Eigen::MatrixXd last = y;
  last.rightCols(y.cols() - 1) = y.leftCols(y.cols() - 1);
  EXPECT_LT(score_after_removal("r", past_confounds(y), y, last, first, second).values[0], 0.05);
  EXPECT_NEAR(score_after_removal("r", past_confounds(y), y, 0.9 * last + e, first, second).values[0], 1, 1e-3);
}

TEST(Audit, TheTrialControlKeepsATrendOnlyWhereItHoldsOnHeldOutBlocks) {
  // 120 trials of 10 rows to two targets, one up and one down; tested on later ones
  std::vector<Event> events;
  Eigen::MatrixXd flat = noise(1, 1200, 31), rising;
  for (Index t = 0; t < 120; ++t) {
    Event e;
    e.onset_s = static_cast<double>(t);
    e.label = Label::of("trial");
    e.value = static_cast<double>((t * t / 3) % 2);
    events.push_back(e);
    flat.middleCols(10 * t, 10).array() += e.value ? 3 : -3;
  }
  rising = flat;
  for (Index k = 0; k < 1200; ++k) rising(0, k) += static_cast<double>(k / 10) / 5;
  const Confounds trial = trial_confounds(events, 1200, 10, 0);
  EXPECT_EQ(trial.trends, 2);
  const std::vector<RowRange> early{{0, 399}}, late{{400, 1199}};
  // 1 of 10 parts of the variance is noise
  EXPECT_GT(score_confounds("r2", trial, flat, early, late).values[0], 0.88);
  EXPECT_TRUE(fit_confounds(trial, flat, early).weight.rightCols(2).isZero());
  const ConfoundFit fit = fit_confounds(trial, rising, kEven);
  EXPECT_FALSE(fit.weight.rightCols(2).isZero());
  EXPECT_GT(score_confounds("r2", trial, rising, kEven, kOdd).values[0], 0.9);
  // beyond the last training trial a trend stays where it was
  const ConfoundFit before = fit_confounds(trial, rising, early);
  ASSERT_FALSE(before.weight.rightCols(2).isZero());
  Eigen::MatrixXd last = trial.x.col(399);
  const double at_the_end = before.predict(last)(0, 0);
  last.bottomRows(2) = trial.x.bottomRows(2).col(1199);
  EXPECT_EQ(before.predict(last)(0, 0), at_the_end);
}

TEST(Audit, ThePastEndsAtTheJointsOfTrials) {
  // y_t = 0.9 y_{t-1} + e inside a trial; each of the glued trials begins at a draw of its own, about 3
  constexpr Index kRows = 20, kTrials = 1000, kAll = kRows * kTrials;
  const Eigen::MatrixXd e = noise(1, kAll, 23);
  Eigen::MatrixXd y(1, kAll);
  std::vector<std::int64_t> starts;
  std::vector<Event> events;
  for (Index t = 0; t < kAll; ++t) {
    y(0, t) = t % kRows ? 0.9 * y(0, t - 1) + e(0, t) : 3 + 5 * e(0, t);
    if (t % kRows) continue;
    starts.push_back(t);
    Event begin;
    begin.onset_s = static_cast<double>(t) / 10;
    begin.label = Label::of(t % 40 ? "blink" : "trial");
    events.push_back(begin);
  }
  EXPECT_THAT(trial_starts(events, 100, 10, 0), ::testing::ElementsAre(0, 40, 80));
  EXPECT_TRUE(trial_starts({}, 100, 10, 0).empty());

  const std::vector<RowRange> first{{0, kAll / 2 - 1}}, second{{kAll / 2, kAll - 1}};
  // what can be known: the error is that of e, but at a beginning, whose draw (5 e) is not to be known at all
  const Eigen::MatrixXd tested = y.rightCols(kAll / 2);
  double error = 0;
  for (Index t = 0; t < kAll / 2; ++t) {
    const double draw = e(0, kAll / 2 + t);
    error += t % kRows ? draw * draw : 25 * draw * draw;
  }
  const double best = 1 - error / (tested.array() - tested.mean()).square().sum();
  const double apart = score_confounds("r2", past_confounds(y, starts), y, first, second).values[0];
  EXPECT_NEAR(apart, best, 0.01);
  EXPECT_LT(score_confounds("r2", past_confounds(y), y, first, second).values[0], best - 0.04);
  // where trials join smoothly, nothing is lost by telling them apart
  Eigen::MatrixXd smooth = e;
  for (Index t = 1; t < kAll; ++t) smooth(0, t) += 0.9 * smooth(0, t - 1);
  EXPECT_NEAR(score_confounds("r2", past_confounds(smooth, starts), smooth, first, second).values[0],
              score_confounds("r2", past_confounds(smooth), smooth, first, second).values[0], 0.005);

  // the frames of a trial's beginning have columns of their own; few trials, or many outputs, have none
  const Confounds past = past_confounds(y, starts);
  ASSERT_EQ(past.x.rows(), 6 * 5 + 5);
  ASSERT_EQ(static_cast<Index>(past.features.size()), past.x.rows());
  Eigen::VectorXd wanted = Eigen::VectorXd::Zero(35);
  wanted.segment(10, 5) = y.middleCols(37, 5).transpose().reverse();
  wanted[32] = 1;
  EXPECT_EQ(past.x.col(42), wanted) << "the third frame of a trial";
  EXPECT_EQ(past.features[10], "output 1 1 frames ago, frame 3 of a trial");
  EXPECT_EQ(past.features[32], "frame 3 of a trial");
  wanted.setZero();
  wanted.segment(25, 5) = y.middleCols(40, 5).transpose().reverse();
  EXPECT_EQ(past.x.col(45), wanted);
  EXPECT_EQ(past.x.col(59).head(25).norm(), 0);
  EXPECT_EQ(past_confounds(y, {0, 20, 40, 60, 80, 100, 120, 140, 160}).x.rows(), 5);
  EXPECT_EQ(past_confounds(noise(40, 400, 24), starts).x.rows(), 200);
  EXPECT_TRUE(past_confounds(y, {7, 20, 40, 60, 80, 100, 120, 140, 160, 180}).x.col(6).head(25).isZero());
}

TEST(Audit, WithoutAPastTheMeanIsPredicted) {
  Eigen::MatrixXd y = noise(2, 400, 22).array() + 3;
  y.col(200).setConstant(std::numeric_limits<double>::quiet_NaN());
  const Confounds past = past_confounds(y);
  EXPECT_EQ(past.x.rows(), 10);
  EXPECT_EQ(past.x.col(100).segment(4, 2), y.col(97));
  const ConfoundFit fit = fit_confounds(past, y, {{0, 399}});
  const Eigen::MatrixXd guess = fit.predict(past.x);
  for (const Index k : {0, 4, 201, 205}) EXPECT_EQ(guess.col(k), fit.mean) << k;
  EXPECT_TRUE(guess.allFinite());
  EXPECT_NE(guess.col(5), fit.mean);
}

TEST(Audit, TheConfoundFitSeesTrainingFramesOnly) {
  const Confounds time = time_confounds(1000);
  const Eigen::MatrixXd y = noise(2, 1000, 4, 0.9);
  Eigen::MatrixXd other = y;
  for (auto& [first, last] : kOdd) other.middleCols(first, last - first + 1).setConstant(1e6);
  const ConfoundFit a = fit_confounds(time, y, kEven), b = fit_confounds(time, other, kEven);
  EXPECT_EQ(a.weight, b.weight);
  EXPECT_EQ(a.offset, b.offset);
}

TEST(Audit, TheFitIsRidge) {
  // enough frames and no noise: the weights themselves, however the features are scaled
  Confounds c;
  c.name = "test";
  c.x = noise(3, 1000, 5);
  c.x.row(1) *= 1000;
  c.x.row(2).setConstant(7);  // a constant feature is left alone
  Eigen::MatrixXd y(1, 1000);
  y = (2 * c.x.row(0) - 0.003 * c.x.row(1)).array() + 11;
  y(0, 3) = std::numeric_limits<double>::quiet_NaN();
  const ConfoundFit fit = fit_confounds(c, y, {{0, 999}});
  EXPECT_NEAR(fit.weight(0, 0), 2, 1e-3);
  EXPECT_NEAR(fit.weight(0, 1), -0.003, 1e-6);
  EXPECT_EQ(fit.weight(0, 2), 0);
  EXPECT_NEAR(fit.offset(0), 11, 1e-3);
  EXPECT_EQ(fit.ridge, 1e-4);
  try {
    fit_confounds(c, y, {{0, 8}});
    FAIL();
  } catch (const DataError& e) {
    EXPECT_STREQ(e.what(), "confounds: test: expected at least 10 training frames with a target, found 8");
  }
}

TEST(Audit, RemovalTakesAwayWhatTheConfoundExplains) {
  constexpr Index kFrames = 20000;  // the fit's own error is then small
  const Ranges even = every_other(0, kFrames), odd = every_other(20, kFrames);
  Eigen::MatrixXd brain = noise(1, kFrames, 6), drift(1, kFrames);
  for (Index k = 0; k < kFrames; ++k)
    drift(0, k) = 10 * std::sin(2 * std::numbers::pi * 3 * static_cast<double>(k) / kFrames);
  const Eigen::MatrixXd truth = brain + drift;
  const Confounds time = time_confounds(kFrames);
  // a decoder that knows only the time scores high, and nothing after removal
  const Eigen::MatrixXd cheat = drift + 0.1 * noise(1, kFrames, 7);
  EXPECT_GT(score("r", gather(truth, odd), gather(cheat, odd)).values[0], 0.98);
  EXPECT_LT(std::abs(score_after_removal("r", time, truth, cheat, even, odd).values[0]), 0.05);
  // one that knows the brain keeps it
  const Eigen::MatrixXd honest = truth + 0.5 * noise(1, kFrames, 8);
  EXPECT_NEAR(score_after_removal("r", time, truth, honest, even, odd).values[0], 1 / std::sqrt(1.25), 0.02);
}

TEST(Audit, PermutationPCountsTheScoreItself) {
  EXPECT_DOUBLE_EQ(permutation_p(0.5, {0.6, 0.7, 0.8}, true), 0.25);
  EXPECT_DOUBLE_EQ(permutation_p(0.5, {0.6, 0.5, 0.4}, true), 0.75);
  EXPECT_DOUBLE_EQ(permutation_p(0.5, {0.6, 0.5, 0.4}, false), 0.75);
  EXPECT_DOUBLE_EQ(permutation_p(0.5, {std::numeric_limits<double>::quiet_NaN()}, true), 1.0);
  EXPECT_DOUBLE_EQ(permutation_p(0.5, {}, true), 1.0);
}

TEST(Audit, CircularShiftsAreDifferentAndFarEnough) {
  const auto shifts = circular_shifts(100, 30, 200, 1);
  EXPECT_EQ(shifts.size(), 41u);
  EXPECT_EQ(std::set<Index>(shifts.begin(), shifts.end()).size(), 41u);
  for (Index s : shifts) {
    EXPECT_GE(s, 30);
    EXPECT_LE(s, 70);
  }
  EXPECT_EQ(circular_shifts(1000, 30, 200, 1), circular_shifts(1000, 30, 200, 1));
  EXPECT_NE(circular_shifts(1000, 30, 200, 1), circular_shifts(1000, 30, 200, 2));
  Eigen::MatrixXd m(1, 5);
  m << 0, 1, 2, 3, 4;
  EXPECT_EQ(circular_shift(m, 2), (Eigen::MatrixXd(1, 5) << 3, 4, 0, 1, 2).finished());
  EXPECT_EQ(circular_shift(circular_shift(m, 2), -2), m);
  try {
    circular_shifts(50, 30, 10, 1);
    FAIL();
  } catch (const DataError& e) {
    EXPECT_STREQ(e.what(), "audit: shuffled: expected at least 60 test frames to shift by 30 or more, found 50");
  }
}

TEST(Audit, ShiftedTargetsGiveAnHonestP) {
  // decoders that know nothing of two slow signals: p below 0.1 in about a tenth of the cases
  int low = 0;
  constexpr int kRuns = 200;
  for (std::uint64_t run = 0; run < kRuns; ++run)
    low += shift_null("mean_r", noise(1, 600, 2 * run, 0.9), noise(1, 600, 2 * run + 1, 0.9), 99, run).p <= 0.1;
  EXPECT_GT(low, 5);
  EXPECT_LT(low, 45);
  const Eigen::MatrixXd truth = noise(2, 600, 1, 0.9);
  const ShiftNull real = shift_null("rmse", truth, truth + noise(2, 600, 3), 200, 1);
  EXPECT_DOUBLE_EQ(real.p, 1.0 / 201);
  EXPECT_EQ(real.values.size(), 200u);
  EXPECT_GT(real.min_shift, 5);
}

TEST(Audit, TheRealKalmanFilterBeatsEveryControl) {
  std::filesystem::path z_file, kalman;
  PERCEPT_NEED_DATA(z_file, "bci/flint_run1/z.csv");
  PERCEPT_NEED_DATA(kalman, "bci/reference/kalman.csv");
  const Eigen::MatrixXd truth = testing::read_reference(z_file).topRows(6000).transpose();
  const Eigen::MatrixXd decoded = testing::read_reference(kalman, 1).leftCols(2).transpose();
  const Ranges train{{0, 4999}}, test{{5000, 5999}};
  const double real = score("nrmse", gather(truth, test), decoded).values[0];
  const double time = score_confounds("nrmse", time_confounds(6000), truth, train, test).values[0];
  EXPECT_NEAR(real, 0.764682520151, 1e-9);
  EXPECT_GT(time, 0.97);
  const ShiftNull null = shift_null("nrmse", gather(truth, test), decoded, 200, 0);
  EXPECT_DOUBLE_EQ(null.p, 1.0 / 201);
  EXPECT_GT(*std::min_element(null.values.begin(), null.values.end()), 0.95);
}

}  // namespace
}  // namespace percept::evaluation
