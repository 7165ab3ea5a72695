#include "filters/poisson_bayes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "data/loaders.h"
#include "tests/filters/common.h"

namespace percept {
namespace {

using namespace testing;
using ::testing::HasSubstr;

constexpr double kGone = std::numeric_limits<double>::quiet_NaN();

/// Three cells in a row at 0, 2 and 4, seen by two units.
PlaceModel three_cells() {
  PlaceModel m;
  m.grid.origin = VectorXd::Zero(1);
  m.grid.cell = 2;
  m.grid.cells = {3};
  m.expected.resize(2, 3);
  m.expected << 0.5, 1, 3, 2, 0.25, 0.25;
  m.prior.resize(3);
  m.prior << 0.5, 0.25, 0.25;
  return m;
}

TEST(PoissonBayes, OneFrameIsBayesRule) {
  const PlaceModel m = three_cells();
  PoissonBayes filter(m, 0, 0, "test");
  const double counts[] = {2, 1};
  VectorXd wanted(3);
  for (Index c = 0; c < 3; ++c)
    wanted(c) = m.prior(c) * std::exp(-m.expected(0, c)) * std::pow(m.expected(0, c), 2) / 2 *
                std::exp(-m.expected(1, c)) * m.expected(1, c);
  wanted /= wanted.sum();
  for (int again = 0; again < 2; ++again) {  // without movement the frame before does not matter
    EXPECT_TRUE(filter.step(counts));
    EXPECT_LT((filter.belief() - wanted).cwiseAbs().maxCoeff(), 1e-15);
  }
  const double mean = 2 * wanted(1) + 4 * wanted(2);
  EXPECT_NEAR(filter.mean()(0), mean, 1e-14);
  EXPECT_NEAR(filter.covariance()(0, 0), 4 * wanted(1) + 16 * wanted(2) - mean * mean + 4.0 / 12, 1e-13);
  EXPECT_EQ(filter.likeliest()(0), 4);
}

TEST(PoissonBayes, AMissingUnitIsLeftOutAndNoUnitLeavesThePrediction) {
  const PlaceModel m = three_cells();
  PoissonBayes filter(m, 0, 0, "test");
  const double one[] = {2, kGone}, none[] = {kGone, -1};
  filter.step(one);
  VectorXd wanted(3);
  for (Index c = 0; c < 3; ++c) wanted(c) = m.prior(c) * std::exp(-m.expected(0, c)) * std::pow(m.expected(0, c), 2);
  wanted /= wanted.sum();
  EXPECT_LT((filter.belief() - wanted).cwiseAbs().maxCoeff(), 1e-15);
  EXPECT_FALSE(filter.step(none));
  EXPECT_LT((filter.belief() - m.prior).cwiseAbs().maxCoeff(), 1e-15);
}

// two frames of the walk against sums over every path through the cells
TEST(PoissonBayes, MovementIsTheForwardRecursionOfAHiddenMarkovModel) {
  const PlaceModel m = three_cells();
  const double sd = 1.5, jump = 0.1;
  PoissonBayes filter(m, sd, jump, "test");
  MatrixXd walk(3, 3);  // to, from
  for (Index to = 0; to < 3; ++to)
    for (Index from = 0; from < 3; ++from) walk(to, from) = std::exp(-0.5 * std::pow(2.0 * double(to - from) / sd, 2));
  for (Index from = 0; from < 3; ++from) walk.col(from) /= walk.col(from).sum();
  const MatrixXd counts = (MatrixXd(2, 3) << 1, 0, 2, 1, 3, 0).finished();
  VectorXd belief = m.prior;
  for (Index t = 0; t < 3; ++t) {
    belief = ((1 - jump) * (walk * belief) + jump * m.prior).eval();
    for (Index c = 0; c < 3; ++c)
      for (Index u = 0; u < 2; ++u) belief(c) *= std::exp(-m.expected(u, c)) * std::pow(m.expected(u, c), counts(u, t));
    belief /= belief.sum();
    filter.step(counts.col(t).data());
    EXPECT_LT((filter.belief() - belief).cwiseAbs().maxCoeff(), 1e-14) << t;
  }
}

TEST(PoissonBayes, SmoothingKeepsAPointsSumAndWidth) {
  PositionGrid grid;
  grid.origin = VectorXd::Zero(2);
  grid.cell = 0.5;
  grid.cells = {61, 41};
  VectorXd values = VectorXd::Zero(grid.size()), work(grid.size());
  values(30 + 20 * 61) = 1;
  smooth_on_grid(grid, 3, values, work);
  EXPECT_NEAR(values.sum(), 1, 1e-12);
  VectorXd width = VectorXd::Zero(2);
  for (Index c = 0; c < grid.size(); ++c) {
    width(0) += values(c) * std::pow(grid.at(c, 0) - 15, 2);
    width(1) += values(c) * std::pow(grid.at(c, 1) - 10, 2);
  }
  EXPECT_NEAR(width(0), 2.25, 0.01);
  EXPECT_NEAR(width(1), width(0), 1e-12);
  const double inside[] = {15.2, 9.9}, outside[] = {-0.3, 0};
  EXPECT_EQ(grid.cell_of(inside), 30 + 20 * 61);
  EXPECT_EQ(grid.cell_of(outside), -1);
}

TEST(PoissonBayes, RefusesWhatItCannotFit) {
  const StageInfo info = stage_row(filters_stages(), "poisson_bayes");
  const StreamFormat x = named_format({"a", "b"}, 10), z = named_format({"x", "y"}, 10);
  const auto message = [&](MatrixXd counts, MatrixXd position, const StreamFormat& target) {
    return message_of([&] {
      fit_stage(info, Value::table(), x, target, {std::move(counts), std::move(position), {}, {}, {}});
    });
  };
  const MatrixXd counts = MatrixXd::Ones(2, 4);
  MatrixXd path(2, 4);
  path << 0, 1, 2, 3, 0, 0, 1, 1;
  EXPECT_EQ(message(counts, path, z), "");
  EXPECT_THAT(message(-counts, path, z), HasSubstr("channel 'a': expected spike counts, 0 or more, found -1"));
  EXPECT_THAT(message(counts, MatrixXd::Ones(2, 4), z), HasSubstr("expected positions that differ"));
  EXPECT_THAT(message(counts, MatrixXd::Ones(3, 4), named_format({"x", "y", "z"}, 10)),
              HasSubstr("a position of one or two coordinates, found 3 rows"));
  EXPECT_THAT(message(counts * kGone, path, z), HasSubstr("at least 2 without missing values, found 0"));
  PlaceModel wrong = three_cells();
  wrong.expected(0, 1) = 0;
  EXPECT_THAT(message_of([&] { PoissonBayes(wrong, 0, 0, "test"); }), HasSubstr("counts above 0 in every cell"));
  wrong = three_cells();
  wrong.prior *= 2;
  EXPECT_THAT(message_of([&] { PoissonBayes(wrong, 0, 0, "test"); }), HasSubstr("shares that sum to one"));
}

double median_error(const MatrixXd& truth, const MatrixXd& decoded, const std::vector<Index>& frames) {
  std::vector<double> errors;
  for (Index t : frames)
    if (truth.col(t).allFinite()) errors.push_back((truth.col(t) - decoded.col(t).head(2)).norm());
  std::nth_element(errors.begin(), errors.begin() + static_cast<std::ptrdiff_t>(errors.size() / 2), errors.end());
  return errors[errors.size() / 2];
}

// a rat on a W-shaped maze: 1-s bins, blocks of 30 s, every fifth block for testing. The defaults (cells, smoothing)
// were chosen by cross-validation over the other four blocks.
TEST(PoissonBayes, DecodesTheWMaze) {
  std::filesystem::path file;
  PERCEPT_NEED_DATA(file, "bci/hc_wmaze/spikes.csv");
  const Recording r = data::load_data_set("hc_wmaze", Value::object({{"bin_s", 1.0}}));
  const Stream &activity = r.stream("activity", "test"), &position = r.stream("position", "test");
  const MatrixXd x = activity.matrix(), z = position.matrix();
  std::vector<Index> train, test;
  TrainingMatrix data;
  for (auto& run : r.events)
    for (Index t = 0; t < x.cols(); ++t) {
      const double at = activity.format.time_of(t);
      if (at < run.onset_s || at >= run.onset_s + run.duration_s) continue;
      if (static_cast<Index>(std::floor(at / 30)) % 5 == 4) {
        test.push_back(t);
      } else if (z.col(t).allFinite()) {
        if (train.empty() || train.back() != t - 1) data.segment_starts.push_back(static_cast<Index>(train.size()));
        train.push_back(t);
      }
    }
  data.x = x(Eigen::all, train);
  data.y = z(Eigen::all, train);
  const StageInfo info = stage_row(filters_stages(), "poisson_bayes");
  const auto decode = [&](const Value& params) {
    const Model m = fit_stage(info, params, activity.format, position.format, data);
    auto stage = info.make(params, &m, "test");
    EXPECT_TRUE(stage->traits().causal);
    return median_error(z, run_stage(*stage, {activity.format, x}).matrix(), test);
  };
  EXPECT_LE(decode(Value::object({{"movement", "none"}, {"position_prior", "occupancy"}, {"estimate", "map"}})), 49);
  EXPECT_LE(decode(Value::table()), 40);
  const VectorXd centre = data.y.rowwise().mean();
  EXPECT_GT(median_error(z, centre.replicate(1, x.cols()), test), 100) << "what always saying the middle reaches";
}

}  // namespace
}  // namespace percept
