/// zscore, running_zscore, pca, gain, smooth and remove_drift.
#include <Eigen/Cholesky>

#include "tests/preprocessing/support.h"

namespace percept::testing {
namespace {

using ::testing::HasSubstr;

/// i = arange(4)[:, None]; t = arange(30)[None, :]; X = sin(0.7 t (i + 1)) + 0.3 cos(0.2 t) (i + 1) + 0.1 i
Eigen::MatrixXd numpy_matrix() {
  Eigen::MatrixXd x(4, 30);
  for (Index k = 0; k < 30; ++k)
    for (Index r = 0; r < 4; ++r) {
      const auto t = static_cast<double>(k), i = static_cast<double>(r);
      x(r, k) = std::sin(0.7 * t * (i + 1)) + 0.3 * std::cos(0.2 * t) * (i + 1) + 0.1 * i;
    }
  return x;
}

// SciPy 1.17: scipy.stats.zscore(X, axis=1)[:, 5], X.mean(1), X.std(1)
TEST(ZScore, EqualsScipy) {
  const auto f = time_format(4, 100);
  const Eigen::MatrixXd x = numpy_matrix();
  const Model m = fit("zscore", Value::table(), f, x);
  EXPECT_TRUE(m.vector("mean").isApprox(
      Eigen::Vector4d(0.04299776546256687, 0.11552732593507871, 0.15617049358508614, 0.23770947312516424), 1e-13));
  EXPECT_TRUE(m.vector("sd").isApprox(
      Eigen::Vector4d(0.7605807637878, 0.8409812064815946, 0.9400558405196217, 1.0668208227008793), 1e-13));
  const auto y = apply("zscore", Value::table(), f, x, &m);
  EXPECT_TRUE(y.matrix().col(5).isApprox(
      Eigen::Vector4d(-0.3046228782304383, 1.1482309579122894, -0.37188660844039867, 1.5947013907212437), 1e-12));
}

TEST(ZScore, LeavesNaNOutOfTheFitAndKnowsDeadRows) {
  Eigen::MatrixXd x(3, 4);
  x << 1, kNaN, 3, kNaN,   //
      0.1, 0.1, 0.1, 0.1,  //
      kNaN, kNaN, kNaN, kNaN;
  const auto f = time_format(3, 100);
  const Model m = fit("zscore", Value::table(), f, x);
  const auto y = apply("zscore", Value::table(), f, Eigen::MatrixXd::Constant(3, 1, 4), &m);
  EXPECT_EQ(y.frame(0)[0], 2);             // mean 2, spread 1
  EXPECT_EQ(y.frame(0)[1], 4 - 0.1);       // constant: only its mean is taken off
  EXPECT_TRUE(std::isnan(y.frame(0)[2]));  // never seen: no scale is made up
  EXPECT_THAT(message_of<DataError>([&] { fit("zscore", Value::table(), f, Eigen::MatrixXd::Constant(3, 4, kNaN)); }),
              HasSubstr("not NaN"));
}

TEST(ZScore, FindsItsRowsByName) {
  Eigen::MatrixXd x(2, 4);
  x << 1, 3, 1, 3,  //
      10, 30, 10, 30;
  const Model m = fit("zscore", Value::table(), named(time_format(2, 100), {"a", "b"}), x);
  const auto y = apply("zscore", Value::table(), named(time_format(2, 100), {"b", "a"}), Eigen::Vector2d(30, 3), &m);
  EXPECT_EQ(y.frame(0)[0], 1);
  EXPECT_EQ(y.frame(0)[1], 1);
  EXPECT_THAT(message_of<ConfigError>([&] {
                apply("zscore", Value::table(), named(time_format(2, 100), {"a", "c"}), x, &m);
              }),
              HasSubstr("'b'"));
}

TEST(RunningZScore, StartsAsThePlainMeanAndSpreadOfTheFramesBefore) {
  const Eigen::MatrixXd x = wave(1, 50);
  const auto y = apply("running_zscore", Value::object({{"time_constant_s", 1e6}}), time_format(1, 100), x);
  EXPECT_TRUE(std::isnan(y.frame(0)[0]));
  EXPECT_TRUE(std::isnan(y.frame(1)[0]));
  for (Index k = 2; k < 50; ++k) {
    const auto before = x.row(0).head(k).array();
    const double mean = before.mean(), sd = std::sqrt((before - mean).square().mean());
    EXPECT_NEAR(y.frame(k)[0], (x(0, k) - mean) / sd, 1e-9) << k;
  }
}

TEST(RunningZScore, ForgetsExponentially) {
  const double rate = 100, tau = 0.5, a = 1 - std::exp(-1 / (tau * rate));
  Eigen::MatrixXd x = wave(1, 1000);
  x(0, 700) = kNaN;
  const auto y = apply("running_zscore", Value::object({{"time_constant_s", tau}}), time_format(1, rate), x);
  // the weighted mean and variance written out; what came before frame 0 has faded
  double weight = 0, sum = 0, squares = 0, w = 1;
  for (Index k = 998; k >= 0; --k) {
    if (k == 700) continue;
    weight += w, sum += w * x(0, k), w *= 1 - a;
  }
  const double mean = sum / weight;
  w = 1;
  for (Index k = 998; k >= 0; --k) {
    if (k == 700) continue;
    squares += w * (x(0, k) - mean) * (x(0, k) - mean), w *= 1 - a;
  }
  EXPECT_TRUE(std::isnan(y.frame(700)[0]));
  EXPECT_NEAR(y.frame(999)[0], (x(0, 999) - mean) / std::sqrt(squares / weight), 1e-6);
}

// NumPy 2.4: u, s, v = svd(X - X.mean(1)); signs such that the largest entry of a component is positive
TEST(Pca, EqualsNumpySvd) {
  const auto f = time_format(4, 100);
  const Eigen::MatrixXd x = numpy_matrix();
  const Model m = fit("pca", Value::object({{"components", 2}}), f, x);
  const Eigen::MatrixXd w = m.matrix("components", 2, 4);
  EXPECT_TRUE(w.row(0).isApprox(
      Eigen::RowVector4d(0.2547744631383514, 0.41333786147028057, 0.5404747103505222, 0.6871163458099794), 1e-10));
  EXPECT_TRUE(w.row(1).isApprox(
      Eigen::RowVector4d(0.7886901592762866, 0.4130947612993048, -0.39093406110583234, -0.23343331106574555), 1e-10));
  EXPECT_TRUE(m.vector("variance").isApprox(Eigen::Vector2d(1.9474569972228504, 0.5246874256371362), 1e-12));
  EXPECT_NEAR(m.meta.at("explained").as_number(), 0.7225117816655068, 1e-12);
  const auto y = apply("pca", Value::object({{"components", 2}}), f, x, &m);
  EXPECT_EQ(y.format.row_names(), (std::vector<std::string>{"pc1", "pc2"}));
  EXPECT_NEAR(y.frame(0)[0], 1.6845187247921094, 1e-12);
  EXPECT_NEAR(y.frame(17)[0], -2.897728180872254, 1e-12);
  EXPECT_NEAR(y.frame(0)[1], -0.21949802607910815, 1e-12);
  EXPECT_NEAR(y.frame(17)[1], -0.3557571262917709, 1e-12);
}

// cumulative explained variance of the same matrix: 0.569, 0.7225, 0.864, 1
TEST(Pca, TakesAsManyComponentsAsTheVarianceAsksFor) {
  const auto f = time_format(4, 100);
  auto count = [&](double explained) {
    return fit("pca", Value::object({{"explained", explained}}), f, numpy_matrix()).matrix("components").rows();
  };
  EXPECT_EQ(count(0.0), 1);
  EXPECT_EQ(count(0.56), 1);
  EXPECT_EQ(count(0.57), 2);
  EXPECT_EQ(count(0.73), 3);
  EXPECT_EQ(count(1.0), 4);
}

TEST(Pca, WhitensTheTrainingFrames) {
  const auto f = time_format(4, 100);
  const Value params = Value::object({{"components", 3}, {"whiten", true}});
  const Model m = fit("pca", params, f, numpy_matrix());
  const Eigen::MatrixXd y = apply("pca", params, f, numpy_matrix(), &m).matrix();
  EXPECT_TRUE((y * y.transpose() / 29).isApprox(Eigen::Matrix3d::Identity(), 1e-10));
}

TEST(Pca, ProjectsWhatIsThereByLeastSquares) {
  const auto f = time_format(4, 100);
  const Value params = Value::object({{"components", 2}});
  const Model m = fit("pca", params, f, numpy_matrix());
  Eigen::MatrixXd x = numpy_matrix().leftCols(2);
  x(3, 0) = kNaN;
  x.col(1).head(3).setConstant(kNaN);  // one row left for two components
  const auto y = apply("pca", params, f, x, &m);
  const Eigen::MatrixXd w = m.matrix("components").leftCols(3);
  const Eigen::VectorXd centred = x.col(0).head(3) - m.vector("mean").head(3);
  const Eigen::VectorXd expected = (w * w.transpose()).ldlt().solve(w * centred);
  EXPECT_NEAR(y.frame(0)[0], expected[0], 1e-12);
  EXPECT_NEAR(y.frame(0)[1], expected[1], 1e-12);
  EXPECT_TRUE(std::isnan(y.frame(1)[0]));
  EXPECT_TRUE(std::isnan(y.frame(1)[1]));
}

TEST(Pca, FitsOnWholeFramesAndWithoutDeadRows) {
  const auto f = time_format(5, 100);
  Eigen::MatrixXd x(5, 40);
  x.topLeftCorner(4, 30) = numpy_matrix();
  x.topRightCorner(4, 10).setConstant(7);
  x.topRightCorner(1, 10).setConstant(kNaN);  // ten frames that miss a row
  x.row(4).setConstant(kNaN);                 // and a row that is never there
  const Model m = fit("pca", Value::object({{"components", 2}}), f, x);
  const Model plain = fit("pca", Value::object({{"components", 2}}), time_format(4, 100), numpy_matrix());
  EXPECT_EQ(m.matrix("components").leftCols(4), plain.matrix("components"));
  EXPECT_TRUE(m.matrix("components").col(4).isZero(0));
  EXPECT_THAT(message_of<DataError>([&] { fit("pca", Value::table(), f, Eigen::MatrixXd::Constant(5, 9, kNaN)); }),
              HasSubstr("at least 2 without NaN"));
  EXPECT_THAT(message_of<ConfigError>([&] {
                fit("pca", Value::object({{"components", 5}}), f, x);
              }),
              HasSubstr("components = 5"));
}

TEST(Gain, ScalesAndLimitsTheLength) {
  Eigen::MatrixXd x(2, 4);
  x << 3, 30, 0, kNaN,  //
      4, 40, 0, 50;
  const auto f = time_format(2, 100);
  const auto each = apply("gain", Value::object({{"gain", Value(std::vector<double>{2.0, -1.0})}}), f, x).matrix();
  EXPECT_EQ(each.col(1), Eigen::Vector2d(60, -40));
  EXPECT_TRUE(std::isnan(each(0, 3)));
  EXPECT_EQ(each(1, 3), -50);
  const auto y =
      apply("gain", Value::object({{"gain", Value(std::vector<double>{2.0})}, {"max_norm", 20.0}}), f, x).matrix();
  EXPECT_EQ(y.col(0), Eigen::Vector2d(6, 8));
  EXPECT_TRUE(y.col(1).isApprox(Eigen::Vector2d(12, 16), 1e-15));  // 100 long: the same direction, 20 long
  EXPECT_EQ(y.col(2), Eigen::Vector2d(0, 0));
  EXPECT_EQ(y(1, 3), 20);  // of what is there
  EXPECT_THAT(refusal("gain", Value::object({{"gain", Value(std::vector<double>{1.0, 2.0, 3.0})}}), f),
              HasSubstr("node.gain = 3 numbers: expected one, or 2, one a row"));
  EXPECT_THAT(refusal("gain", Value::object({{"gain", Value(std::vector<double>{})}}), f), HasSubstr("0 numbers"));
  StreamFormat two = f;
  two.parts.push_back(time_format(2, 100, Scalar::f64, "covariance").parts[0]);
  EXPECT_THAT(refusal("gain", Value::table(), two), HasSubstr("node.from = "));
}

// a step is followed to 1 - (1 - a)^n after n frames
TEST(Smooth, FollowsAStepExponentially) {
  const double tau = 0.05, rate = 100, keep = std::exp(-1 / (tau * rate));
  Eigen::MatrixXd x = Eigen::MatrixXd::Constant(2, 60, 7);
  x.row(0).tail(50).setConstant(9);
  x(0, 30) = kNaN;
  x.row(1).head(20).setConstant(kNaN);
  const auto y = apply("smooth", Value::object({{"time_constant_s", tau}}), time_format(2, rate), x);
  for (Index t = 0; t < 60; ++t) {
    const auto n = static_cast<double>(std::max<Index>(0, t - 9 - (t > 30)));
    if (t == 30) EXPECT_TRUE(std::isnan(y.frame(t)[0]));
    else EXPECT_NEAR(y.frame(t)[0], 9 - 2 * std::pow(keep, n), 1e-12) << t;
    if (t < 20) EXPECT_TRUE(std::isnan(y.frame(t)[1]));
    else EXPECT_EQ(y.frame(t)[1], 7) << t;  // it starts where the row starts
  }
}

TEST(RemoveDrift, TakesTheSlowMeanOfTheFramesBeforeOff) {
  const double tau = 0.05, rate = 100, keep = std::exp(-1 / (tau * rate));
  Eigen::MatrixXd x = Eigen::MatrixXd::Constant(1, 40, 7);
  x.row(0).tail(30).setConstant(9);
  x(0, 25) = kNaN;
  const auto run = [&](const char* initial) {
    return apply("remove_drift", Value::object({{"time_constant_s", tau}, {"initial", initial}}), time_format(1, rate),
                 x);
  };
  const auto first = run("first"), zero = run("zero");
  for (Index t = 0; t < 40; ++t) {
    if (t == 25) {
      EXPECT_TRUE(std::isnan(first.frame(t)[0]));
      continue;
    }
    const auto n = static_cast<double>(t - (t > 25));
    EXPECT_NEAR(first.frame(t)[0], t < 10 ? 0 : 2 * std::pow(keep, n - 10), 1e-12) << t;
    EXPECT_NEAR(zero.frame(t)[0], 7 * std::pow(keep, n) + (t < 10 ? 0 : 2 * std::pow(keep, n - 10)), 1e-12) << t;
  }
}

TEST(RemoveDrift, LearnsTheBiasOfAVelocityWhileItMoves) {
  Eigen::MatrixXd x(2, 400);
  for (Index t = 0; t < 400; ++t) x.col(t) = t % 2 ? Eigen::Vector2d(3.5, 0.25) : Eigen::Vector2d(-2.5, 0.25);
  Eigen::MatrixXd slow = Eigen::MatrixXd::Constant(2, 400, 0.5);  // 0.7 long
  slow(0, 399) = 2;
  slow(1, 399) = kNaN;  // how long it is, is not known
  const Value params = Value::object({{"time_constant_s", 0.5}, {"min_norm", 1.0}, {"initial", "zero"}});
  const auto y = apply("remove_drift", params, time_format(2, 100), x);
  EXPECT_EQ(y.frame(0)[0], -2.5);
  EXPECT_NEAR(y.frame(398)[0] + y.frame(399)[0], 0, 0.1);  // bias 0.5: the two directions are alike
  EXPECT_NEAR(y.frame(399)[1], 0, 1e-3);
  const auto still = apply("remove_drift", params, time_format(2, 100), slow);
  EXPECT_EQ(still.frame(398)[1], 0.5);
  EXPECT_EQ(still.frame(399)[0], 2);
  StreamFormat two = time_format(2, 100);
  two.parts.push_back(time_format(2, 100, Scalar::f64, "covariance").parts[0]);
  EXPECT_THAT(refusal("remove_drift", params, two), HasSubstr("whose length min_norm is about"));
}

}  // namespace
}  // namespace percept::testing
