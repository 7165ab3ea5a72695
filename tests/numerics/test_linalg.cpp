#include <gmock/gmock.h>

#include <Eigen/Dense>
#include <cmath>
#include <functional>
#include <string>

#include "core/error.h"
#include "numerics/linalg.h"
#include "numerics/random.h"
#include "tests/support/alloc.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

MatrixXd random_matrix(Index rows, Index cols, const char* purpose) {
  const KeyedRandom r(3, purpose);
  MatrixXd m(rows, cols);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = r.normal(i);
  return m;
}

MatrixXd random_spd(Index n, const char* purpose) {
  const MatrixXd m = random_matrix(n, n + 3, purpose);
  return m * m.transpose();
}

std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Products, EqualThePlainSums) {
  const MatrixXd x = random_matrix(7, 40, "x"), y = random_matrix(3, 40, "y");
  EXPECT_LT((gram(x) - x.lazyProduct(x.transpose())).cwiseAbs().maxCoeff(), 1e-12);
  EXPECT_EQ(gram(x), gram(x).transpose());
  EXPECT_LT((cross(y, x) - y.lazyProduct(x.transpose())).cwiseAbs().maxCoeff(), 1e-12);
  EXPECT_LT((product(y.transpose(), y) - y.transpose().lazyProduct(y)).cwiseAbs().maxCoeff(), 1e-12);
}

TEST(Products, OfNothingAreZero) {
  EXPECT_EQ(gram(MatrixXd(3, 0)), MatrixXd::Zero(3, 3));
  EXPECT_EQ(cross(MatrixXd(2, 0), MatrixXd(3, 0)), MatrixXd::Zero(2, 3));
  EXPECT_EQ(product(MatrixXd(2, 0), MatrixXd(0, 4)), MatrixXd::Zero(2, 4));
}

TEST(Products, RefuseFramesThatDoNotGoTogether) {
  EXPECT_THAT(message([] { cross(MatrixXd::Ones(2, 5), MatrixXd::Ones(2, 6)); }),
              ::testing::HasSubstr("5 and 6 frames"));
}

TEST(Eigensystem, DecomposesAndRefusesNaN) {
  MatrixXd a = random_spd(20, "a");
  const Eigensystem e = eigensystem(a);
  EXPECT_LT((e.vectors * e.values.asDiagonal() * e.vectors.transpose() - a).cwiseAbs().maxCoeff(), 1e-11);
  for (Index i = 1; i < 20; ++i) EXPECT_GE(e.values(i), e.values(i - 1));
  a(3, 2) = NAN;
  EXPECT_THROW(eigensystem(a), Error);
}

TEST(Spd, InverseForFitting) {
  const MatrixXd a = random_spd(12, "a");
  const MatrixXd inverse = spd_inverse(a, "kalman", "R");
  EXPECT_LT((a * inverse - MatrixXd::Identity(12, 12)).cwiseAbs().maxCoeff(), 1e-10);
  EXPECT_EQ(inverse, inverse.transpose());
}

TEST(Spd, JudgementDoesNotDependOnUnits) {
  MatrixXd a = random_spd(4, "a");
  VectorXd scale(4);
  scale << 1e-9, 1, 1e9, 1e3;
  const MatrixXd b = scale.asDiagonal() * a * scale.asDiagonal();
  EXPECT_TRUE(is_spd(b));
  MatrixXd work(4, 4), inverse(4, 4);
  EXPECT_TRUE(spd_inverse(b, inverse, work));
  a.row(1) = a.row(0);
  a.col(1) = a.col(0);
  EXPECT_FALSE(is_spd(a));
  EXPECT_FALSE(is_spd(MatrixXd::Constant(2, 2, NAN)));
  EXPECT_FALSE(is_spd(MatrixXd::Zero(2, 2)));
  EXPECT_FALSE(is_spd(-MatrixXd::Identity(2, 2)));
}

TEST(Spd, SingularMatrixIsNamed) {
  EXPECT_EQ(
      message([] { spd_inverse(MatrixXd::Ones(2, 2), "kalman", "R", " (regularise)"); }),
      "kalman: R: expected a positive definite matrix (regularise), found one that is singular to working precision");
  EXPECT_THAT(message([] { spd_inverse(MatrixXd::Zero(2, 2), "kalman", "R"); }),
              ::testing::HasSubstr("found 0 on its diagonal (row 0)"));
}

TEST(NormalEquations, EqualLeastSquares) {
  const MatrixXd x = random_matrix(6, 50, "x"), y = random_matrix(2, 50, "y");
  const MatrixXd b = solve_normal(cross(y, x), gram(x), 50, "fit");
  const MatrixXd expected = x.transpose().colPivHouseholderQr().solve(y.transpose()).transpose();
  EXPECT_LT((b - expected).cwiseAbs().maxCoeff(), 1e-12);
}

TEST(NormalEquations, RefuseWhatCannotBeSolved) {
  MatrixXd x = random_matrix(6, 50, "x");
  const MatrixXd y = random_matrix(2, 50, "y");
  EXPECT_THAT(message([&] { solve_normal(cross(y, x), gram(x), 5, "fit", "; hint"); }),
              ::testing::AllOf(::testing::HasSubstr("at least as many as there are features (6); hint"),
                               ::testing::HasSubstr("found 5")));
  x.row(4) = 2 * x.row(1) - x.row(0);
  EXPECT_THAT(message([&] { solve_normal(cross(y, x), gram(x), 50, "fit"); }),
              ::testing::HasSubstr("linear combinations"));
  x.row(4).setZero();
  EXPECT_THAT(message([&] { solve_normal(cross(y, x), gram(x), 50, "fit"); }),
              ::testing::HasSubstr("feature 4 without any variation"));
}

TEST(ColumnProduct, SumsInTheOrderOfTheColumns) {
  for (const Index rows : {1, 3, 4, 6, 9}) {
    const MatrixXd w = random_matrix(rows, 33, "w");
    const VectorXd x = random_matrix(33, 1, "x");
    VectorXd out(rows);
    column_product(w, x.data(), out.data());
    for (Index i = 0; i < rows; ++i) {
      double sum = 0;
      for (Index c = 0; c < 33; ++c) sum += w(i, c) * x(c);
      EXPECT_EQ(out(i), sum);
    }
  }
}

TEST(SmallKernels, EqualEigen) {
  for (const Index n : {1, 2, 5, 12}) {
    const MatrixXd a = random_spd(n, "a"), b = random_spd(n, "b"), m = random_matrix(n, n, "m");
    MatrixXd factor = a, inverse(n, n), work(n, n), out(n, n);
    ASSERT_TRUE(cholesky_in_place(factor));
    EXPECT_LT((factor * factor.transpose() - a).cwiseAbs().maxCoeff(), 1e-12 * a.maxCoeff());
    EXPECT_EQ(MatrixXd(factor.triangularView<Eigen::StrictlyUpper>()), MatrixXd::Zero(n, n));
    ASSERT_TRUE(spd_inverse(a, inverse, work));
    EXPECT_LT((inverse * a - MatrixXd::Identity(n, n)).cwiseAbs().maxCoeff(), 1e-9);
    EXPECT_EQ(inverse, inverse.transpose());
    sandwich(m, a, b, out, work);
    EXPECT_LT((out - (m * a * m.transpose() + b)).cwiseAbs().maxCoeff(), 1e-11 * out.cwiseAbs().maxCoeff());
    EXPECT_EQ(out, out.transpose());
    VectorXd values(n);
    MatrixXd vectors(n, n);
    work = a;
    symmetric_eigen(work, values, vectors);
    EXPECT_LT((vectors * values.asDiagonal() * vectors.transpose() - a).cwiseAbs().maxCoeff(), 1e-12 * a.maxCoeff());
    EXPECT_LT((vectors.transpose() * vectors - MatrixXd::Identity(n, n)).cwiseAbs().maxCoeff(), 1e-13);
  }
}

TEST(SmallKernels, RefuseWhatIsNotPositiveDefinite) {
  MatrixXd indefinite(2, 2), nan = MatrixXd::Identity(2, 2), singular = MatrixXd::Ones(2, 2);
  indefinite << 1, 2, 2, 1;
  nan(1, 1) = NAN;
  for (const MatrixXd& m : {indefinite, nan, singular}) {
    MatrixXd inverse(2, 2), work(2, 2);
    EXPECT_FALSE(spd_inverse(m, inverse, work));
  }
}

TEST(Repair, LeavesAGoodCovarianceAlone) {
  const MatrixXd good = random_spd(4, "good");
  MatrixXd a = good;
  SpdRepair repair(VectorXd::Ones(4));
  EXPECT_FALSE(repair.repair(a));
  EXPECT_EQ(a, 0.5 * (good + good.transpose()));
}

TEST(Repair, LiftsNegativeEigenvalues) {
  MatrixXd a(2, 2);
  a << 1, 2, 2, 1;  // eigenvalues 3 and -1
  SpdRepair repair(VectorXd::Ones(2));
  EXPECT_TRUE(repair.repair(a));
  EXPECT_TRUE(is_spd(a));
  EXPECT_EQ(a, a.transpose());
  EXPECT_NEAR(a(0, 0), 1.5, 1e-6);  // the part with eigenvalue 3 stays
  EXPECT_NEAR(a(0, 1), 1.5, 1e-6);
}

TEST(Repair, SymmetrisesAndSaysSo) {
  MatrixXd a(2, 2);
  a << 2, 0.5, 0.1, 1;
  SpdRepair repair(VectorXd::Ones(2));
  EXPECT_TRUE(repair.repair(a));
  EXPECT_DOUBLE_EQ(a(0, 1), 0.3);
  EXPECT_DOUBLE_EQ(a(1, 0), 0.3);
}

TEST(Repair, WorksAcrossUnits) {
  VectorXd scale(3);
  scale << 1e-6, 1, 1e6;
  MatrixXd a(3, 3);
  a << 1, 2, 0, 2, 1, 0, 0, 0, 1;
  a = (scale.asDiagonal() * a * scale.asDiagonal()).eval();
  SpdRepair repair(scale);
  EXPECT_TRUE(repair.repair(a));
  EXPECT_TRUE(is_spd(a));
  EXPECT_NEAR(a(2, 2), 1e12, 1e3);
  EXPECT_NEAR(a(0, 0), 1.5e-12, 1e-17);
  for (MatrixXd bad : {MatrixXd(MatrixXd::Zero(3, 3)), MatrixXd(-MatrixXd::Identity(3, 3))}) {
    EXPECT_TRUE(repair.repair(bad));
    EXPECT_TRUE(is_spd(bad));
  }
}

TEST(SmallKernels, AllocateNothing) {
  MatrixXd a = random_spd(6, "a"), b = random_spd(6, "b"), inverse(6, 6), work(6, 6), out(6, 6);
  MatrixXd bad = -a;
  SpdRepair repair(VectorXd::Ones(6));
  const percept::testing::AllocationCounter counter;
  spd_inverse(a, inverse, work);
  sandwich(a, inverse, b, out, work);
  repair.repair(bad);
  column_product(a, b.data(), out.data());
  EXPECT_EQ(counter.count(), 0);
}

}  // namespace
}  // namespace percept
