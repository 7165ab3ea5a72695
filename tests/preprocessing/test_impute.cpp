/// impute: what the other rows let one expect of a missing one.
#include <Eigen/Dense>

#include "numerics/random.h"
#include "tests/preprocessing/support.h"

namespace percept::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// Four rows of very different units that share two causes.
Eigen::MatrixXd related(Index frames) {
  const KeyedRandom random(3, "impute");
  Eigen::MatrixXd x(4, frames);
  for (Index t = 0; t < frames; ++t) {
    const double a = random.normal(t, 0), b = random.normal(t, 1);
    x.col(t) << 5 + a + 0.3 * random.normal(t, 2), 1e3 * (a - b) + 200 * random.normal(t, 3),
        -1e-3 * (b + 0.2 * random.normal(t, 4)), 7 + 0.5 * a + b + 0.1 * random.normal(t, 5);
  }
  return x;
}

const Value kPlain = Value::object({{"regularisation", 0.0}});

// E[x_M | x_O] = m_M + S_MO S_OO^-1 (x_O - m_O), with moments of the training frames
TEST(Impute, IsTheConditionalMean) {
  const auto f = named(time_format(4, 100), {"a", "b", "c", "d"});
  const Eigen::MatrixXd x = related(200);
  const Model m = fit("impute", kPlain, f, x);
  const Eigen::VectorXd mean = x.rowwise().mean();
  const Eigen::MatrixXd centred = x.colwise() - mean, s = centred * centred.transpose() / 200;
  for (const std::vector<Index>& missing : {std::vector<Index>{1}, {0, 3}, {2, 3}}) {
    std::vector<Index> there;
    for (Index r = 0; r < 4; ++r)
      if (std::find(missing.begin(), missing.end(), r) == missing.end()) there.push_back(r);
    Eigen::MatrixXd holes = related(20);
    const Eigen::MatrixXd whole = holes;
    holes(missing, Eigen::all).setConstant(kNaN);
    const Eigen::MatrixXd y = apply("impute", kPlain, f, holes, &m).matrix();
    const Eigen::MatrixXd weights = s(missing, there) * s(there, there).inverse();
    const Eigen::MatrixXd wanted =
        (weights * (whole(there, Eigen::all).colwise() - mean(there))).colwise() + mean(missing);
    EXPECT_EQ(Eigen::MatrixXd(y(there, Eigen::all)), Eigen::MatrixXd(whole(there, Eigen::all)));
    for (Index i = 0; i < wanted.rows(); ++i)
      EXPECT_LT((y.row(missing[static_cast<std::size_t>(i)]) - wanted.row(i)).norm(), 1e-10 * wanted.row(i).norm());
  }
}

TEST(Impute, RowsAreMatchedByName) {
  const Eigen::MatrixXd x = related(100);
  const Model m = fit("impute", kPlain, named(time_format(4, 100), {"a", "b", "c", "d"}), x);
  Eigen::MatrixXd holes = x.leftCols(5);
  holes.row(2).setConstant(kNaN);
  const Eigen::MatrixXd wanted =
      apply("impute", kPlain, named(time_format(4, 100), {"a", "b", "c", "d"}), holes, &m).matrix();
  const std::vector<Index> order{2, 0, 3, 1};
  const Eigen::MatrixXd mixed =
      apply("impute", kPlain, named(time_format(4, 100), {"c", "a", "d", "b"}), holes(order, Eigen::all), &m).matrix();
  EXPECT_LT((mixed - wanted(order, Eigen::all)).cwiseAbs().maxCoeff(), 1e-10);
}

TEST(Impute, LeavesAFrameThatMissesTooMuch) {
  const auto f = time_format(4, 100);
  const Model m = fit("impute", Value::table(), f, related(100));
  Eigen::MatrixXd holes = related(3);
  holes.col(0).setConstant(kNaN);
  holes.col(1).head(3).setConstant(kNaN);
  holes.col(2).head(2).setConstant(kNaN);
  Counters counters;
  auto stage = make("impute", Value::table(), &m);
  const StageInput in{.format = f, .frames = holes};
  const Eigen::MatrixXd y = run_stage(*stage, in, {}, {}, context_of(&counters)).matrix();
  EXPECT_TRUE(y.col(0).array().isNaN().all());
  EXPECT_TRUE(y.col(1).head(3).array().isNaN().all());
  EXPECT_EQ(y(3, 1), holes(3, 1));
  EXPECT_TRUE(y.col(2).allFinite());
  EXPECT_EQ(counters.get("node", "filled").value(), 2);
  EXPECT_EQ(counters.get("node", "left_missing").value(), 7);
  const Eigen::MatrixXd more = apply("impute", Value::object({{"most_missing", 1.0}}), f, holes, &m).matrix();
  EXPECT_TRUE(more.col(0).array().isNaN().all()) << "there is nothing to go by";
  EXPECT_TRUE(more.col(1).allFinite());
}

TEST(Impute, AConstantRowIsWhatItAlwaysWas) {
  Eigen::MatrixXd x = related(50);
  x.row(1).setConstant(42);
  x.col(7).setConstant(kNaN);  // left out of the fit
  const auto f = time_format(4, 100);
  const Model m = fit("impute", Value::table(), f, x);
  EXPECT_EQ(m.meta.at("frames").as_integer(), 49);
  Eigen::MatrixXd hole = x.leftCols(1);
  hole(1, 0) = kNaN;
  EXPECT_EQ(apply("impute", Value::table(), f, hole, &m).matrix()(1, 0), 42);
}

TEST(Impute, Refuses) {
  const auto f = time_format(4, 100);
  const auto refused = [&](const Value& params, const Eigen::MatrixXd& x) {
    return message_of<DataError>([&] { fit("impute", params, f, x); });
  };
  EXPECT_THAT(refused(Value::table(), Eigen::MatrixXd::Constant(4, 9, kNaN)),
              AllOf(HasSubstr("training frames"), HasSubstr("at least 2"), HasSubstr("0 of 9")));
  Eigen::MatrixXd same = related(50);
  same.row(1) = 2 * same.row(0);
  EXPECT_THAT(refused(kPlain, same), AllOf(HasSubstr("correlation of the rows"), HasSubstr("set regularisation")));
  EXPECT_EQ(refused(Value::table(), same), "");
  Model broken = fit("impute", Value::table(), f, related(50));
  broken.set("precision", Eigen::MatrixXd(-Eigen::MatrixXd::Identity(4, 4)));
  EXPECT_THAT(message_of<DataError>([&] { make("impute", Value::table(), &broken); }),
              AllOf(HasSubstr("precision"), HasSubstr("positive definite")));
}

}  // namespace
}  // namespace percept::testing
