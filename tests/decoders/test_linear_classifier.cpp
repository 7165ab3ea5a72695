#include <gmock/gmock.h>

#include <Eigen/LU>

#include "decoders/stages.h"
#include "tests/filters/common.h"

namespace percept {
namespace {

using namespace percept::testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

StageInfo classifier() {
  static const std::vector<StageInfo> table = decoders_stages();
  return stage_row(table, "linear_classifier");
}

StreamFormat item_rows(Index n) {
  std::vector<std::string> names;
  for (Index i = 0; i < n; ++i) names.push_back("r" + std::to_string(i));
  StreamFormat f = item_format({n});
  for (auto& name : names) f.parts[0].rows.push_back({.name = name, .kind = "", .unit = "", .position = {}});
  return f;
}

/// Categories 0, 1 and 2 of 20 frames each, around means of their own, with noise that the rows share.
TrainingMatrix classes_of(Index rows, Index frames = 60) {
  const KeyedRandom random(4, "classifier");
  TrainingMatrix t{MatrixXd(rows, frames), MatrixXd(1, frames), {}, {}, {}};
  for (Index k = 0; k < frames; ++k) {
    t.y(0, k) = static_cast<double>(k % 3);
    const double shared = random.normal(k, 1000);
    for (Index i = 0; i < rows; ++i)
      t.x(i, k) = 5 + (i % 3 == k % 3 ? 1.5 : 0.0) + shared + random.normal(k, static_cast<std::uint64_t>(i));
    t.keys.push_back(k);
  }
  return t;
}

Model classifier_of(const Value& params, const TrainingMatrix& t,
                    const std::vector<std::string>& levels = {"cat", "face", "house"}) {
  StreamFormat target = item_format({1}, Scalar::f64, "category");
  target.parts[0].levels = levels;
  return fit_stage(classifier(), params, item_rows(t.x.rows()), target, t);
}
Collected classified(const Value& params, const Model& m, const MatrixXd& x) {
  auto stage = classifier().make(params, &m, "classifier");
  return run_stage(*stage, {item_rows(x.rows()), x});
}

/// log prior - (x - mean)' C^-1 (x - mean) / 2 of each category, through the inverse.
MatrixXd textbook(const TrainingMatrix& t, double share, const MatrixXd& x) {
  const Index p = t.x.rows(), n = t.x.cols();
  MatrixXd means = MatrixXd::Zero(p, 3), residual = t.x;
  VectorXd count = VectorXd::Zero(3);
  for (Index k = 0; k < n; ++k) {
    means.col(static_cast<Index>(t.y(0, k))) += t.x.col(k);
    count(static_cast<Index>(t.y(0, k))) += 1;
  }
  for (Index c = 0; c < 3; ++c) means.col(c) /= count(c);
  for (Index k = 0; k < n; ++k) residual.col(k) -= means.col(static_cast<Index>(t.y(0, k)));
  MatrixXd s = residual * residual.transpose() / static_cast<double>(n);
  s = ((1 - share) * s + share * s.trace() / static_cast<double>(p) * MatrixXd::Identity(p, p)).eval();
  const MatrixXd inverse = s.inverse();
  MatrixXd score(3, x.cols());
  for (Index k = 0; k < x.cols(); ++k)
    for (Index c = 0; c < 3; ++c) {
      const VectorXd d = x.col(k) - means.col(c);
      score(c, k) = std::log(count(c) / static_cast<double>(n)) - 0.5 * d.dot(inverse * d);
    }
  return score;
}

// with fewer rows than frames, and with more, where it goes through the frames
TEST(LinearClassifier, IsTheTextbooksDiscriminant) {
  for (const Index rows : {4, 90}) {
    const TrainingMatrix t = classes_of(rows);
    TrainingMatrix test = classes_of(rows, 75);
    const MatrixXd x = test.x.rightCols(15);
    for (const double share : {0.2, 1.0}) {
      const Value params = Value::object({{"shrinkage", share}});
      const Collected y = classified(params, classifier_of(params, t), x);
      MatrixXd expected = textbook(t, share, x);
      for (Index k = 0; k < x.cols(); ++k) {
        Index best = 0;
        expected.col(k).maxCoeff(&best);
        EXPECT_EQ(y.matrix()(0, k), static_cast<double>(best));
        const VectorXd e = (expected.col(k).array() - expected.col(k).maxCoeff()).exp();
        EXPECT_LT((y.matrix().col(k).tail(3) - e / e.sum()).cwiseAbs().maxCoeff(), 1e-9) << rows << " " << share;
      }
    }
  }
}

// sklearn.covariance.ledoit_wolf's formula, term by term: the sum over frames of |r r' - S|^2 / n^2 against |S - m I|^2
TEST(LinearClassifier, ShrinksAsLedoitAndWolf) {
  for (const Index rows : {4, 90}) {
    const TrainingMatrix t = classes_of(rows);
    MatrixXd residual = t.x;
    for (Index c = 0; c < 3; ++c) {
      VectorXd mean = VectorXd::Zero(rows);
      for (Index k = c; k < 60; k += 3) mean += t.x.col(k) / 20;
      for (Index k = c; k < 60; k += 3) residual.col(k) -= mean;
    }
    const MatrixXd s = residual * residual.transpose() / 60;
    const double m = s.trace() / static_cast<double>(rows);
    double error = 0;
    for (Index k = 0; k < 60; ++k) error += (residual.col(k) * residual.col(k).transpose() - s).squaredNorm() / 3600;
    const double share = std::min(1.0, error / (s - m * MatrixXd::Identity(rows, rows)).squaredNorm());
    EXPECT_GT(share, 0.001);
    EXPECT_LT(share, 0.9);
    EXPECT_NEAR(classifier_of(Value::table(), t).meta.at("shrinkage").as_number(), share, 1e-9) << rows;
  }
}

TEST(LinearClassifier, SaysWhatItGives) {
  const Model m = classifier_of(Value::table(), classes_of(4));
  const Collected y = classified(Value::table(), m, classes_of(4).x);
  ASSERT_EQ(y.format.parts.size(), 2u);
  EXPECT_EQ(y.format.parts[0].name, "category");
  EXPECT_THAT(y.format.parts[0].levels, ElementsAre("cat", "face", "house"));
  EXPECT_THAT(y.format.row_names(), ElementsAre("category", "cat", "face", "house"));
  // a category that the training frames lack is not given, and numbers are their own names
  TrainingMatrix t = classes_of(4);
  for (Index k = 0; k < 60; ++k) t.y(0, k) = t.y(0, k) == 0 ? 2 : 9;
  const Model numbers = classifier_of(Value::table(), t, {});
  EXPECT_EQ(to_json(numbers.meta.at("categories")), R"(["2","9"])");
  const MatrixXd given = classified(Value::table(), numbers, t.x).matrix();
  for (Index k = 0; k < 60; ++k) EXPECT_TRUE(given(0, k) == 2 || given(0, k) == 9);
}

TEST(LinearClassifier, FrequencyMovesTheBorder) {
  TrainingMatrix t = classes_of(4);
  for (Index k = 0; k < 60; ++k) t.y(0, k) = k % 6 == 0 ? 0 : 1;
  const Model often = classifier_of(Value::table(), t),
              equal = classifier_of(Value::object({{"frequency", "equal"}}), t);
  EXPECT_EQ(often.matrix("weights"), equal.matrix("weights"));
  const VectorXd shift = often.vector("offset") - equal.vector("offset");
  EXPECT_NEAR(shift(1) - shift(0), std::log(50.0 / 10.0), 1e-12);
}

TEST(LinearClassifier, TellsWhatItCannotUse) {
  TrainingMatrix t = classes_of(4);
  t.y.setZero();
  EXPECT_THAT(
      message_of([&] { classifier_of(Value::table(), t); }),
      HasSubstr("training frames: expected at least two categories, and more frames than categories, found 60 of 1"));
  t = classes_of(4);
  for (Index k = 0; k < 60; ++k) t.x.col(k).setConstant(t.y(0, k));
  EXPECT_THAT(message_of([&] { classifier_of(Value::table(), t); }),
              HasSubstr("expected rows that vary within categories, found constant rows"));
  EXPECT_THAT(message_of([&] {
                classifier_of(Value::object({{"shrinkage", 0.0}}), classes_of(90));
              }),
              HasSubstr("raise shrinkage"));
  EXPECT_THAT(message_of([&] {
                classifier_of(Value::object({{"shrinkage", -0.5}}), classes_of(4));
              }),
              HasSubstr("shrinkage = -0.5: expected -1, or 0 to 1"));
  TrainingMatrix two = classes_of(4);
  two.y = two.y.replicate(2, 1).eval();
  EXPECT_THAT(message_of([&] { fit_stage(classifier(), Value::table(), item_rows(4), item_format({2}), two); }),
              HasSubstr("target: expected one category a frame, found 2 outputs"));
}

}  // namespace
}  // namespace percept
