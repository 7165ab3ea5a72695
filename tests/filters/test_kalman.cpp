#include <gmock/gmock.h>

#include "tests/filters/common.h"
#include "tests/support/alloc.h"

namespace percept {
namespace {

using namespace percept::testing;
using ::testing::HasSubstr;

class KalmanShape : public ::testing::TestWithParam<std::tuple<int, int, bool>> {};

TEST_P(KalmanShape, EqualsTheTextbook) {
  const auto [d, n, diagonal] = GetParam();
  const KalmanModel m = random_model(d, n, diagonal);
  Kalman filter(m, false, "kalman");
  Textbook truth(m);
  const MatrixXd x = 3 * normals(n, 40, "x");
  for (Index t = 0; t < x.cols(); ++t) {
    const StepReport r = filter.step(x.col(t).data());
    truth.step(x.col(t));
    EXPECT_FALSE(r.missing || r.partial || r.repaired);
    ASSERT_LT((filter.mean() - truth.mean).cwiseAbs().maxCoeff(), 1e-10) << t;
    ASSERT_LT((filter.covariance() - truth.covariance).cwiseAbs().maxCoeff(), 1e-10) << t;
    ASSERT_EQ(filter.covariance(), filter.covariance().transpose());
  }
}

TEST_P(KalmanShape, LeavesMissingRowsOutExactly) {
  const auto [d, n, diagonal] = GetParam();
  const KalmanModel m = random_model(d, n, diagonal);
  Kalman filter(m, false, "kalman");
  Textbook truth(m);
  MatrixXd x = 3 * normals(n, 60, "x");
  const KeyedRandom random(4, "holes");
  for (Index t = 0; t < 60; ++t)
    for (Index i = 0; i < n; ++i) {
      const bool dead = t > 40 && i == 0;     // one channel dies for good
      const bool packet = t >= 20 && t < 25;  // lost packets
      const bool hole = t > 5 && t < 20 && random.uniform(t, static_cast<std::uint64_t>(i)) < 0.4;
      if (dead || packet || hole) x(i, t) = t % 2 ? NAN : INFINITY;
    }
  for (Index t = 0; t < 60; ++t) {
    const auto gone = static_cast<Index>(n - x.col(t).array().isFinite().count());
    const StepReport r = filter.step(x.col(t).data());
    truth.step(x.col(t));
    EXPECT_EQ(r.missing, gone == n) << t;
    EXPECT_EQ(r.partial, gone > 0 && gone < n) << t;
    EXPECT_FALSE(r.repaired);
    ASSERT_LT((filter.mean() - truth.mean).cwiseAbs().maxCoeff(), 1e-9) << t;
    ASSERT_LT((filter.covariance() - truth.covariance).cwiseAbs().maxCoeff(), 1e-9) << t;
  }
}

TEST_P(KalmanShape, StepAllocatesNothing) {
  const auto [d, n, diagonal] = GetParam();
  MatrixXd x = normals(n, 6, "x");
  x(0, 2) = x(n - 1, 3) = NAN;
  x.col(4).setConstant(NAN);
  for (const bool steady : {false, true}) {
    Kalman filter(random_model(d, n, diagonal), steady, "kalman");
    const AllocationCounter counter;
    for (Index t = 0; t < x.cols(); ++t) filter.step(x.col(t).data());
    filter.reset();
    EXPECT_EQ(counter.count(), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, KalmanShape,
                         ::testing::Values(std::tuple{2, 10, false}, std::tuple{2, 10, true}, std::tuple{6, 50, false},
                                           std::tuple{6, 50, true}, std::tuple{5, 3, false}, std::tuple{1, 2, false},
                                           std::tuple{4, 4, true}));

TEST(Kalman, OneChannel) {
  const KalmanModel m = random_model(1, 1);
  Kalman filter(m, false, "kalman");
  Textbook truth(m);
  for (const double v : std::vector<double>{1.0, -2.0, NAN, 0.5}) {
    filter.step(&v);
    truth.step(VectorXd::Constant(1, v));
    EXPECT_NEAR(filter.mean()(0), truth.mean(0), 1e-12);
    EXPECT_NEAR(filter.covariance()(0, 0), truth.covariance(0, 0), 1e-12);
  }
}

TEST(Kalman, MissingFramesOnlyPredict) {
  const KalmanModel m = random_model(3, 8);
  Kalman filter(m, false, "kalman");
  const VectorXd nothing = VectorXd::Constant(8, NAN);
  EXPECT_TRUE(filter.step(nothing.data()).missing);
  EXPECT_EQ(filter.mean(), VectorXd::Zero(3));
  EXPECT_EQ(filter.covariance(), m.v0);
  filter.step(VectorXd(normals(8, 1, "x")).data());
  const VectorXd mean = filter.mean();
  const MatrixXd before = filter.covariance();
  filter.step(nothing.data());
  EXPECT_LT((filter.mean() - m.a * mean).cwiseAbs().maxCoeff(), 1e-14);
  EXPECT_LT((filter.covariance() - (m.a * before * m.a.transpose() + m.gamma)).cwiseAbs().maxCoeff(), 1e-14);
  EXPECT_GT(filter.covariance().trace(), before.trace());
}

TEST(Kalman, SteadyStateIsWhereTheRecursionGoes) {
  const KalmanModel m = random_model(4, 20);
  Kalman filter(m, false, "kalman"), steady(m, true, "kalman");
  const MatrixXd x = normals(20, 400, "x");
  for (Index t = 0; t < 400; ++t) {
    filter.step(x.col(t).data());
    steady.step(x.col(t).data());
  }
  EXPECT_LT((filter.covariance() - steady.covariance()).cwiseAbs().maxCoeff(), 1e-13);
  EXPECT_LT((filter.mean() - steady.mean()).cwiseAbs().maxCoeff(), 1e-12);
  // a gap holds the predicted covariance
  const MatrixXd predicted = m.a * steady.covariance() * m.a.transpose() + m.gamma;
  for (int i = 0; i < 3; ++i) steady.step(VectorXd(VectorXd::Constant(20, NAN)).data());
  EXPECT_LT((steady.covariance() - predicted).cwiseAbs().maxCoeff(), 1e-13);
}

TEST(Kalman, SteadyStateOfAnUnseenUnstableStateIsRefused) {
  KalmanModel m = random_model(2, 6);
  m.a = Eigen::Vector2d(1.01, 0.5).asDiagonal();
  EXPECT_NO_THROW(Kalman(m, true, "kalman")) << "unstable, but seen by every channel";
  m.c.col(0).setZero();
  EXPECT_THAT(message_of([&] { Kalman(m, true, "kalman"); }), HasSubstr("a Riccati recursion that converges"));
}

TEST(Kalman, StationaryCovariance) {
  const KalmanModel m = random_model(4, 5);
  const MatrixXd s = stationary_covariance(m.a, m.gamma, "kalman");
  EXPECT_LT((s - m.a * s * m.a.transpose() - m.gamma).cwiseAbs().maxCoeff(), 1e-13);
  EXPECT_THAT(message_of([&] { stationary_covariance(1.2 * m.a, m.gamma, "kalman"); }),
              HasSubstr("stable state model"));
}

TEST(Kalman, LongRunsStayPositiveDefinite) {
  // almost noiseless states of very different size, seen by strongly informative channels, with long gaps
  KalmanModel m = random_model(4, 30);
  const VectorXd units = (VectorXd(4) << 1e-6, 1, 1e3, 1e6).finished();
  m.a = units.asDiagonal() * m.a * units.cwiseInverse().asDiagonal();
  m.gamma = 1e-9 * (units.asDiagonal() * m.gamma * units.asDiagonal()).eval();
  m.v0 = (units.asDiagonal() * m.v0 * units.asDiagonal()).eval();
  m.c = m.c * units.cwiseInverse().asDiagonal();
  m.r *= 1e-6;
  Kalman filter(m, false, "kalman");
  const MatrixXd x = normals(30, 1000, "x");
  const VectorXd nothing = VectorXd::Constant(30, NAN);
  for (int t = 0; t < 200000; ++t) {
    filter.step(t % 5000 > 4000 ? nothing.data() : x.col(t % 1000).data());
    if (t % 97 == 0) {
      ASSERT_TRUE(is_spd(filter.covariance())) << t;
      ASSERT_EQ(filter.covariance(), filter.covariance().transpose());
      ASSERT_TRUE(filter.mean().allFinite());
    }
  }
}

TEST(Kalman, OverflowDoesNotStay) {
  const KalmanModel m = random_model(2, 4);
  Kalman filter(m, false, "kalman"), fresh(m, false, "kalman");
  VectorXd x = VectorXd::Constant(4, 1e308);
  x(0) = -1e308;
  const StepReport r = filter.step(x.data());
  EXPECT_TRUE(filter.mean().allFinite());
  EXPECT_TRUE(is_spd(filter.covariance()));
  // an unstable model in an endless gap
  KalmanModel unstable = m;
  unstable.a *= 3;
  Kalman growing(unstable, false, "kalman");
  bool repaired = r.repaired;
  const VectorXd nothing = VectorXd::Constant(4, NAN);
  for (int t = 0; t < 1000; ++t) {
    repaired |= growing.step(nothing.data()).repaired;
    ASSERT_TRUE(growing.covariance().allFinite());
  }
  EXPECT_TRUE(repaired);
}

TEST(Kalman, ASingularPredictionIsRepairedAndCounted) {
  KalmanModel m = random_model(2, 4);
  m.a.setZero();
  m.gamma = -MatrixXd::Identity(2, 2);
  Kalman filter(m, false, "kalman");
  const VectorXd x = normals(4, 1, "x");
  EXPECT_FALSE(filter.step(x.data()).repaired);
  EXPECT_TRUE(filter.step(x.data()).repaired);
  EXPECT_TRUE(is_spd(filter.covariance()));
}

TEST(Kalman, BatchEqualsSteps) {
  const KalmanModel m = random_model(3, 40);
  MatrixXd x = normals(40, 200, "x");
  x(3, 50) = NAN;
  x.col(60).setConstant(NAN);
  Kalman one(m, false, "kalman"), many(m, false, "kalman");
  MatrixXd means, covariances;
  filter_batch(many, x, means, &covariances);
  for (Index t = 0; t < 200; ++t) {
    one.step(x.col(t).data());
    ASSERT_LT((one.mean() - means.col(t)).cwiseAbs().maxCoeff(), 1e-12);
    ASSERT_LT((one.covariance().reshaped() - covariances.col(t)).cwiseAbs().maxCoeff(), 1e-12);
  }
  EXPECT_THROW(filter_batch(many, x.topRows(3), means, nullptr), DataError);
}

TEST(Kalman, RefusesBadModels) {
  const KalmanModel good = random_model(2, 5), diagonal = random_model(2, 5, true);
  KalmanModel m = good;
  m.r.row(1) = m.r.row(0);
  m.r.col(1) = m.r.col(0);
  EXPECT_THAT(message_of([&] { Kalman(m, false, "kalman"); }),
              ::testing::AllOf(HasSubstr("kalman: R:"), HasSubstr("regularisation")));
  m = diagonal;
  m.r(3) = 0;
  EXPECT_THAT(message_of([&] { Kalman(m, false, "kalman"); }), HasSubstr("channel 3"));
  m = good;
  m.v0.setZero();
  EXPECT_THAT(message_of([&] { Kalman(m, false, "kalman"); }), HasSubstr("V0"));
  m = good;
  m.c.conservativeResize(4, 2);
  EXPECT_THAT(message_of([&] { Kalman(m, false, "kalman"); }), HasSubstr("R: expected 4 x 4, found 5 x 5"));
  m = good;
  m.gamma(0, 0) = NAN;
  EXPECT_THAT(message_of([&] { Kalman(m, false, "kalman"); }), HasSubstr("Gamma: expected finite values"));
}

}  // namespace
}  // namespace percept
