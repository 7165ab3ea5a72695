#include <gmock/gmock.h>

#include "tests/filters/common.h"
#include "tests/support/alloc.h"

namespace percept {
namespace {

using namespace percept::testing;
using ::testing::HasSubstr;

constexpr DkfFallback kModes[] = {DkfFallback::robust, DkfFallback::inflate, DkfFallback::clip,
                                  DkfFallback::always_robust};

DkfModel stationary_model(Index d) {
  const KalmanModel k = random_model(d, d + 3);
  return {k.a, k.gamma, stationary_covariance(k.a, k.gamma, "test")};
}

TEST(Dkf, BuiltFromAKalmanModelEqualsIt) {
  for (const Index d : {1, 2, 6}) {
    KalmanModel k = random_model(d, 12);
    const MatrixXd s = stationary_covariance(k.a, k.gamma, "test");
    k.v0 = s;
    Kalman kalman(k, false, "kalman");
    const MatrixXd q = (s.inverse() + k.c.transpose() * k.r.inverse() * k.c).inverse();
    const MatrixXd map = q * k.c.transpose() * k.r.inverse();
    const MatrixXd x = normals(12, 300, "x");
    for (const DkfFallback mode : {DkfFallback::robust, DkfFallback::inflate, DkfFallback::clip}) {
      kalman.reset();
      Dkf dkf({k.a, k.gamma, s}, mode, "dkf");
      for (Index t = 0; t < x.cols(); ++t) {
        const VectorXd f = map * x.col(t);
        kalman.step(x.col(t).data());
        EXPECT_FALSE(dkf.step(f.data(), q.data()).fallback);
        ASSERT_LT((kalman.mean() - dkf.mean()).cwiseAbs().maxCoeff(), 1e-12) << t;
        ASSERT_LT((kalman.covariance() - dkf.covariance()).cwiseAbs().maxCoeff(), 1e-12) << t;
      }
    }
  }
}

TEST(Dkf, MissingFramesOnlyPredict) {
  const DkfModel m = stationary_model(3);
  Dkf dkf(m, DkfFallback::robust, "dkf");
  const VectorXd f = normals(3, 1, "f"), nan = VectorXd::Constant(3, NAN);
  const MatrixXd q = 0.3 * m.s, bad = MatrixXd::Constant(3, 3, NAN);
  EXPECT_TRUE(dkf.step(nan.data(), q.data()).missing);
  EXPECT_EQ(dkf.mean(), VectorXd::Zero(3));
  EXPECT_EQ(dkf.covariance(), m.s);
  dkf.step(f.data(), q.data());
  EXPECT_EQ(dkf.mean(), f);
  EXPECT_LT((dkf.covariance() - q).cwiseAbs().maxCoeff(), 1e-15);
  MatrixXd before = dkf.covariance();
  VectorXd mean = dkf.mean();
  for (const auto& [fm, qm] : {std::pair{nan, q}, std::pair{f, bad}}) {
    EXPECT_TRUE(dkf.step(fm.data(), qm.data()).missing);
    EXPECT_LT((dkf.mean() - m.a * mean).cwiseAbs().maxCoeff(), 1e-14);
    EXPECT_LT((dkf.covariance() - (m.a * before * m.a.transpose() + m.gamma)).cwiseAbs().maxCoeff(), 1e-14);
    EXPECT_GT(dkf.covariance().trace(), before.trace());
    mean = dkf.mean();
    before = dkf.covariance();
  }
}

TEST(Dkf, BadCovariancesAreRepairedAndCounted) {
  const DkfModel m = stationary_model(3);
  const VectorXd f = normals(3, 1, "f");
  MatrixXd indefinite = m.s, asymmetric = 0.4 * m.s;
  indefinite(0, 1) = indefinite(1, 0) = 3 * std::sqrt(m.s(0, 0) * m.s(1, 1));
  asymmetric(0, 2) += 0.2 * m.s(0, 0);
  for (const DkfFallback mode : kModes)
    for (const MatrixXd& q : {indefinite, asymmetric, MatrixXd(MatrixXd::Zero(3, 3)), MatrixXd(-m.s)}) {
      Dkf dkf(m, mode, "dkf");
      for (int t = 0; t < 5; ++t) {
        EXPECT_TRUE(dkf.step(f.data(), q.data()).repaired);
        ASSERT_TRUE(is_spd(dkf.covariance()));
        ASSERT_EQ(dkf.covariance(), dkf.covariance().transpose());
        ASSERT_TRUE(dkf.mean().allFinite());
      }
    }
}

TEST(Dkf, FallbackModesFollowTheirDefinitions) {
  const DkfModel m = stationary_model(2);
  const MatrixXd q0 = 0.2 * m.s;
  MatrixXd q = 0.2 * m.s;  // less certain than the prior in one direction only
  q(0, 0) += 3 * m.s(0, 0);
  const VectorXd f0 = normals(2, 1, "f0"), f = normals(2, 1, "f");
  const MatrixXd predicted = (m.a * q0 * m.a.transpose() + m.gamma).inverse(), qi = q.inverse(), si = m.s.inverse();
  const VectorXd mean = m.a * f0;
  const auto run = [&](DkfFallback mode) {
    Dkf dkf(m, mode, "dkf");
    dkf.step(f0.data(), q0.data());
    EXPECT_EQ(dkf.step(f.data(), q.data()).fallback, mode != DkfFallback::always_robust);
    return dkf;
  };
  const auto expect = [&](const Dkf& dkf, const MatrixXd& information, const MatrixXd& weight) {
    const MatrixXd covariance = (information + predicted).inverse();
    EXPECT_LT((dkf.covariance() - covariance).cwiseAbs().maxCoeff(), 1e-12);
    EXPECT_LT((dkf.mean() - covariance * (weight * f + predicted * mean)).cwiseAbs().maxCoeff(), 1e-12);
  };
  expect(run(DkfFallback::robust), qi, qi);
  expect(run(DkfFallback::always_robust), qi, qi);
  expect(run(DkfFallback::inflate), qi, qi + si);
  Eigen::GeneralizedSelfAdjointEigenSolver<MatrixXd> solver(q, m.s);
  const MatrixXd b = solver.eigenvectors().inverse();
  const MatrixXd clipped = (b.transpose() * solver.eigenvalues().cwiseMin(1.0).asDiagonal() * b).inverse();
  expect(run(DkfFallback::clip), clipped - si, clipped);
}

TEST(Dkf, TheUnitOfTheOutputsDoesNotMatter) {
  const DkfModel m = stationary_model(2);
  MatrixXd q = 0.3 * m.s;
  const VectorXd f = normals(2, 1, "f");
  for (const double unit : {1e-6, 1e6}) {
    const DkfModel scaled{m.a, unit * unit * m.gamma, unit * unit * m.s};
    for (const double factor : {0.999, 1.001}) {
      Dkf one(m, DkfFallback::robust, "dkf"), other(scaled, DkfFallback::robust, "dkf");
      for (int t = 0; t < 3; ++t) {
        const MatrixXd qt = t == 1 ? MatrixXd(factor * m.s) : q, qu = unit * unit * qt;
        const VectorXd fu = unit * f;
        const bool fallback = one.step(f.data(), qt.data()).fallback;
        EXPECT_EQ(fallback, t == 1 && factor > 1);
        EXPECT_EQ(other.step(fu.data(), qu.data()).fallback, fallback);
      }
      EXPECT_LT((other.mean() / unit - one.mean()).cwiseAbs().maxCoeff(), 1e-12);
    }
  }
}

TEST(Dkf, LongRunsStayPositiveDefinite) {
  const DkfModel m = stationary_model(4);
  const KeyedRandom random(3, "run");
  for (const DkfFallback mode : kModes) {
    Dkf dkf(m, mode, "dkf");
    MatrixXd q(4, 4);
    VectorXd f(4);
    for (int t = 0; t < 50000; ++t) {
      for (Index i = 0; i < 4; ++i) f(i) = random.normal(t, static_cast<std::uint64_t>(i));
      // from nearly nothing to much more than the prior, sometimes broken
      q = std::pow(10.0, 6 * random.uniform(t, 9) - 4) * m.s;
      if (t % 11 == 0) q(0, 0) = -q(0, 0);
      if (t % 13 == 0) f(2) = NAN;
      dkf.step(f.data(), q.data());
      ASSERT_TRUE(dkf.mean().allFinite()) << t;
      if (t % 53 == 0) {
        ASSERT_TRUE(is_spd(dkf.covariance())) << t;
      }
    }
  }
}

TEST(Dkf, OverflowDoesNotStay) {
  DkfModel m = stationary_model(2);
  m.a *= 3;
  Dkf dkf(m, DkfFallback::robust, "dkf");
  const VectorXd f = normals(2, 1, "f"), nan = VectorXd::Constant(2, NAN);
  const MatrixXd q = 0.3 * m.s;
  dkf.step(f.data(), q.data());
  bool repaired = false;
  for (int t = 0; t < 1000; ++t) {
    repaired |= dkf.step(nan.data(), q.data()).repaired;
    ASSERT_TRUE(dkf.covariance().allFinite());
  }
  EXPECT_TRUE(repaired);
}

TEST(Dkf, StepAllocatesNothing) {
  const DkfModel m = stationary_model(5);
  const VectorXd f = normals(5, 1, "f"), nan = VectorXd::Constant(5, NAN);
  const MatrixXd good = 0.3 * m.s, wide = 4 * m.s, broken = -m.s;
  for (const DkfFallback mode : kModes) {
    Dkf dkf(m, mode, "dkf");
    const AllocationCounter counter;
    for (const MatrixXd* q : {&good, &good, &wide, &broken}) dkf.step(f.data(), q->data());
    dkf.step(nan.data(), good.data());
    EXPECT_EQ(counter.count(), 0);
  }
}

TEST(Dkf, RefusesBadModels) {
  DkfModel m = stationary_model(2);
  m.s = MatrixXd::Ones(2, 2);
  EXPECT_THAT(message_of([&] { Dkf(m, DkfFallback::robust, "dkf"); }),
              HasSubstr("dkf: S: expected a positive definite matrix"));
  m = stationary_model(2);
  m.gamma.conservativeResize(2, 1);
  EXPECT_THAT(message_of([&] { Dkf(m, DkfFallback::robust, "dkf"); }), HasSubstr("Gamma: expected 2 x 2, found 2 x 1"));
  m = stationary_model(2);
  m.a(0, 0) = NAN;
  EXPECT_THAT(message_of([&] { Dkf(m, DkfFallback::robust, "dkf"); }), HasSubstr("A: expected finite values"));
}

}  // namespace
}  // namespace percept
