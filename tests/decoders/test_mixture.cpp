#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "decoders/stages.h"
#include "numerics/random.h"
#include "tests/support/driver.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using ::testing::HasSubstr;

StageInfo mixture_info() {
  for (auto& i : decoders_stages())
    if (i.name == "mixture") return i;
  throw Error("mixture is not in the table");
}

/// Means of `maps` maps of two outputs, named as a join names them.
StreamFormat joined(Index maps) {
  StreamFormat format = time_format(2 * maps, 10.0);
  format.parts.clear();
  for (Index m = 0; m < maps; ++m) {
    Part part{m == 0 ? "mean" : std::string(1, static_cast<char>('a' + m)) + ".mean", {2}, "1", {}, {}};
    format.parts.push_back(part);
  }
  return format;
}

/// Maps with errors L e of independent normal e: their covariance is L L'. The outputs have unlike units.
TrainingMatrix maps_with_errors(const MatrixXd& factor, Index frames) {
  const KeyedRandom random(1, "mixture test");
  TrainingMatrix t{MatrixXd(2 * factor.rows(), frames), MatrixXd(2, frames), {}, {}, {}};
  const double unit[] = {1, 1000};
  for (Index k = 0; k < frames; ++k)
    for (Index i = 0; i < 2; ++i) {
      t.y(i, k) = unit[i] * 3 * random.normal(k, static_cast<std::uint64_t>(i));
      VectorXd e(factor.cols());
      for (Index m = 0; m < e.size(); ++m) e(m) = random.normal(k, static_cast<std::uint64_t>(10 + 2 * m + i));
      for (Index m = 0; m < factor.rows(); ++m) t.x(2 * m + i, k) = t.y(i, k) + unit[i] * factor.row(m).dot(e);
    }
  return t;
}

Model fit_mixture(const StreamFormat& in, TrainingMatrix t, const Value& params = Value::table()) {
  Context context;
  context.node = "mix";
  return mixture_info()
      .make_fitter(params, "mix")
      ->fit(MemoryData(in, time_format(2, 10.0, Scalar::f64, "velocity"), std::move(t)), context);
}

TEST(Mixture, IndependentErrorsAreWeightedByTheirPrecision) {
  const VectorXd sd = Eigen::Vector3d(1, 2, 0.5);
  const Model m = fit_mixture(joined(3), maps_with_errors(sd.asDiagonal(), 40000));
  const MatrixXd w = m.matrix("weights", 2, 3);
  const VectorXd precision = sd.array().square().inverse();
  for (Index k = 0; k < 3; ++k) {
    EXPECT_NEAR(w(0, k), precision(k) / precision.sum(), 0.01) << k;
    EXPECT_EQ(w(0, k), w(1, k));
  }
  // variances 1, 4 and 1/4 in one: 1 / 5.25, in the unit of each output
  EXPECT_NEAR(m.matrix("Q")(0, 0) * 5.25, 1, 0.03);
  EXPECT_NEAR(m.matrix("Q")(1, 1) * 5.25e-6, 1, 0.03);
  EXPECT_NEAR(m.matrix("Q")(0, 1) * 5.25e-3, 0, 0.03);
}

// no other weights are better: the slope is the same for all that are used, and not lower for the others
TEST(Mixture, TheWeightsAreTheBestOnTheSimplex) {
  const KeyedRandom random(7, "factors");
  int at_zero = 0;
  for (std::int64_t trial = 0; trial < 30; ++trial) {
    const Index maps = 2 + trial % 5;
    MatrixXd factor(maps, maps);
    for (Index i = 0; i < factor.size(); ++i)
      factor(i) = 1 + random.normal(trial, static_cast<std::uint64_t>(i));  // errors in common
    const TrainingMatrix t = maps_with_errors(factor, 200);
    const MatrixXd w = fit_mixture(joined(maps), t, Value::object({{"per_output", true}})).matrix("weights", 2, maps);
    for (Index i = 0; i < 2; ++i) {
      MatrixXd e(maps, 200);
      for (Index k = 0; k < maps; ++k) e.row(k) = t.y.row(i) - t.x.row(2 * k + i);
      const MatrixXd c = e * e.transpose();
      const VectorXd slope = c * w.row(i).transpose();
      const double least = slope.minCoeff(), tolerance = 1e-6 * slope.cwiseAbs().maxCoeff();
      EXPECT_NEAR(w.row(i).sum(), 1, 1e-12);
      for (Index k = 0; k < maps; ++k) {
        EXPECT_GE(w(i, k), 0);
        at_zero += w(i, k) == 0;
        if (w(i, k) > 0) {
          EXPECT_NEAR(slope(k), least, tolerance) << trial << " " << k;
        }
      }
    }
  }
  EXPECT_GT(at_zero, 10);
}

TEST(Mixture, EqualMapsAreNoTrouble) {
  TrainingMatrix t = maps_with_errors(MatrixXd::Identity(3, 3), 20000);
  t.x.middleRows(2, 2) = t.x.topRows(2);
  const MatrixXd w = fit_mixture(joined(3), t).matrix("weights");
  EXPECT_NEAR(w(0, 0) + w(0, 1), 0.5, 0.02);
  EXPECT_NEAR(w.row(0).sum(), 1, 1e-12);
}

TEST(Mixture, OneMapGetsACovarianceThatFitsItsErrors) {
  const Model m = fit_mixture(joined(1), maps_with_errors(MatrixXd::Constant(1, 1, 2.0), 20000));
  EXPECT_EQ(m.matrix("weights"), MatrixXd::Ones(2, 1));
  EXPECT_NEAR(m.matrix("Q")(0, 0), 4, 0.1);
  EXPECT_NEAR(m.matrix("Q")(1, 1), 4e6, 1e5);
}

TEST(Mixture, AMissingMapIsReplacedByTheOthers) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Model m = fit_mixture(joined(3), maps_with_errors(MatrixXd::Identity(3, 3), 100));
  m.set("weights", MatrixXd{{0.5, 0.3, 0.2}, {1.0, 0.0, 0.0}});
  MatrixXd x(6, 4);
  x.col(0) << 1, 10, 2, 20, 3, 30;
  x.col(1) << 1, 10, nan, 20, 3, 30;
  x.col(2) << nan, nan, 2, 20, 3, 30;
  x.col(3) << nan, nan, nan, nan, nan, nan;
  Counters counters;
  Context context;
  context.node = "mix";
  context.counters = &counters;
  const MatrixXd y = testing::run_stage(*mixture_info().make(Value::table(), &m, "mix"),
                                        {.format = joined(3), .frames = x}, {}, {}, context)
                         .matrix();
  EXPECT_NEAR(y(0, 0), 0.5 * 1 + 0.3 * 2 + 0.2 * 3, 1e-14);
  EXPECT_EQ(y(1, 0), 10);
  EXPECT_NEAR(y(0, 1), (0.5 * 1 + 0.2 * 3) / 0.7, 1e-14);
  EXPECT_EQ(y(1, 1), 10);
  // the second output stood on the first map alone
  EXPECT_TRUE(y.col(2).array().isNaN().all());
  EXPECT_TRUE(y.col(3).array().isNaN().all());
  EXPECT_EQ(counters.get("mix", "maps_left_out").value(), 1);
  EXPECT_EQ(counters.get("mix", "missing").value(), 2);
}

TEST(Mixture, RefusesOtherMapsAndBrokenModels) {
  const Model m = fit_mixture(joined(2), maps_with_errors(MatrixXd::Identity(2, 2), 100));
  Context context;
  context.node = "mix";
  const auto prepare = [&](StreamFormat in) -> std::string {
    try {
      mixture_info().make(Value::table(), &m, "mix")->prepare(in, context);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(prepare(joined(2)), "");
  EXPECT_THAT(prepare(joined(3)), HasSubstr("the maps it was fitted on, of 2 outputs each: mean, b.mean"));
  EXPECT_THAT(prepare(joined(1)), HasSubstr("the maps it was fitted on"));
  StreamFormat other = joined(2);
  other.parts[1].name = "c.mean";
  EXPECT_THAT(prepare(other), HasSubstr("the maps it was fitted on"));

  const auto fit_message = [](const StreamFormat& in, TrainingMatrix t) -> std::string {
    try {
      fit_mixture(in, std::move(t));
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const TrainingMatrix t = maps_with_errors(MatrixXd::Identity(2, 2), 100);
  EXPECT_THAT(fit_message(time_format(4, 10.0), t), HasSubstr("edges with a part \"mean\""));
  StreamFormat wide = time_format(4, 10.0);
  wide.parts[0].name = "mean";
  EXPECT_THAT(fit_message(wide, t), HasSubstr("a mean of the target's 2 outputs"));
  TrainingMatrix flat = t;
  flat.y.row(1).setConstant(3);
  EXPECT_THAT(fit_message(joined(2), flat), HasSubstr("found the constant 3"));
  TrainingMatrix exact = t;
  exact.x = exact.y;
  EXPECT_THAT(fit_message(joined(1), exact), HasSubstr("covariance of the residuals"));
  EXPECT_THAT(fit_message(joined(2), maps_with_errors(MatrixXd::Identity(2, 2), 2)),
              HasSubstr("training frames: expected at least 3, found 2"));

  const auto make_message = [](Model broken) -> std::string {
    try {
      mixture_info().make(Value::table(), &broken, "mix");
    } catch (const DataError& e) {
      return e.what();
    }
    return "";
  };
  Model broken = m;
  broken.set("weights", MatrixXd{{0.5, 0.4}, {0.5, 0.5}});
  EXPECT_THAT(make_message(broken), HasSubstr("weights: expected rows of non-negative numbers that sum to one"));
  broken = m;
  broken.meta["maps"] = Value::array();
  EXPECT_NE(make_message(broken), "");
}

}  // namespace
}  // namespace percept
