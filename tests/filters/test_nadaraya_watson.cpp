#include <gmock/gmock.h>

#include <fstream>

#include "tests/filters/common.h"

namespace percept {
namespace {

using namespace percept::testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// y = (sin, cos) of the inputs plus noise that grows with the first of them.
TrainingMatrix curve(Index frames) {
  const KeyedRandom r(5, "curve");
  TrainingMatrix t{MatrixXd(2, frames), MatrixXd(2, frames), {}, {}, {}};
  for (Index k = 0; k < frames; ++k) {
    t.x.col(k) << 3 * r.uniform(k, 0), 3 * r.uniform(k, 1);
    t.y.col(k) << 5 + std::sin(t.x(0, k)) + 0.1 * t.x(0, k) * r.normal(k, 2),
        std::cos(t.x(1, k)) + 0.1 * r.normal(k, 3);
  }
  return t;
}

Model fit_map(const Value& params, TrainingMatrix data) {
  const StreamFormat x = named_format({"u1", "u2"}, 10), y = named_format({"vx", "vy"}, 10, "m/s");
  return fit_stage(stage_row(filters_stages(), "nadaraya_watson"), params, x, y, std::move(data));
}
MatrixXd apply_map(const Model& m, const MatrixXd& x) {
  auto stage = stage_row(filters_stages(), "nadaraya_watson").make(Value::table(), &m, "map");
  return run_stage(*stage, {named_format({"u1", "u2"}, 10), x}).matrix();
}

TEST(NadarayaWatson, LearnsACurveAndItsError) {
  const TrainingMatrix t = curve(1500);
  const Model constant = fit_map(Value::table(), t), kernel = fit_map(Value::object({{"covariance", "kernel"}}), t),
              none = fit_map(Value::object({{"covariance", "none"}}), t);
  MatrixXd x(2, 2);
  x << 0.4, 2.7, 1.0, 1.0;
  const MatrixXd c = apply_map(constant, x), k = apply_map(kernel, x);
  EXPECT_NEAR(c(0, 0), 5 + std::sin(0.4), 0.06);
  EXPECT_NEAR(c(1, 0), std::cos(1.0), 0.06);
  EXPECT_EQ(c.topRows(2), k.topRows(2));
  EXPECT_EQ(c.bottomRows(4).col(0), c.bottomRows(4).col(1));
  EXPECT_NEAR(c(5, 0), 0.01, 0.004) << "variance of the noise of the second output";
  EXPECT_GT(k(2, 1), 3 * k(2, 0)) << "the noise grows with the first input";
  EXPECT_EQ(apply_map(none, x).rows(), 2);
  EXPECT_EQ(constant.meta.at("frames").as_integer(), 1500);
  EXPECT_EQ(constant.meta.at("held_frames").as_integer(), 450);
  EXPECT_EQ(constant.number("bandwidth"), constant.meta.at("bandwidth").as_number());
}

TEST(NadarayaWatson, FramesAreHeldOutByTheirNumber) {
  TrainingMatrix t = curve(300);
  const Model plain = fit_map(Value::table(), t);
  t.keys.resize(300);
  for (Index i = 0; i < 300; ++i) t.keys[static_cast<std::size_t>(i)] = i + 20;  // the same last digits
  EXPECT_EQ(fit_map(Value::table(), t), plain);
  for (Index i = 0; i < 300; ++i) t.keys[static_cast<std::size_t>(i)] = i + 5;
  EXPECT_NE(fit_map(Value::table(), t).matrix("Q"), plain.matrix("Q"));
}

TEST(NadarayaWatson, MissingFramesStayMissing) {
  TrainingMatrix t = curve(200);
  MatrixXd x = t.x.leftCols(20);
  t.x(0, 150) = NAN;
  const Model m = fit_map(Value::table(), t);
  EXPECT_EQ(m.meta.at("dropped_frames").as_integer(), 1);
  x(1, 7) = NAN;
  const MatrixXd out = apply_map(m, x);
  for (Index k = 0; k < 20; ++k) EXPECT_EQ(out.col(k).array().isNaN().all(), k == 7) << k;
  EXPECT_TRUE(out.rightCols(12).allFinite());
}

// the kernel density with an input integrated out is that of the others
TEST(NadarayaWatson, AMissingRowIsLeftOutOfTheDistance) {
  const TrainingMatrix t = curve(200);
  const Value params = Value::object({{"bandwidth", 0.3}, {"covariance", "none"}}),
              row = Value::object({{"missing", "row"}});
  const StageInfo info = stage_row(filters_stages(), "nadaraya_watson");
  const Model both = fit_map(params, t);
  const Model first = fit_stage(info, params, named_format({"u1"}, 10), named_format({"vx", "vy"}, 10, "m/s"),
                                {t.x.topRows(1), t.y, {}, {}, {}});
  MatrixXd x = t.x.leftCols(20);
  const MatrixXd whole = apply_map(both, x);
  x.row(1).rightCols(15).setConstant(NAN);
  x(0, 19) = NAN;
  const MatrixXd out = run_stage(*info.make(row, &both, "map"), {named_format({"u1", "u2"}, 10), x}).matrix();
  const MatrixXd wanted =
      run_stage(*info.make(Value::table(), &first, "map"), {named_format({"u1"}, 10), x.topRows(1)}).matrix();
  EXPECT_EQ(out.leftCols(5), whole.leftCols(5));
  EXPECT_LT((out - wanted).middleCols(5, 14).cwiseAbs().maxCoeff(), 1e-12);
  EXPECT_TRUE(out.col(19).array().isNaN().all()) << "nothing is there";
}

TEST(NadarayaWatson, RefusesWhatCannotBeFitted) {
  const auto refusal = [](TrainingMatrix t, const Value& params = Value::table()) {
    return message_of([&] { fit_map(params, std::move(t)); });
  };
  EXPECT_THAT(refusal(curve(10)), AllOf(HasSubstr("training frames"), HasSubstr("at least 20"), HasSubstr("found 10")));
  TrainingMatrix t = curve(100);
  t.y.row(1).setConstant(2);
  EXPECT_THAT(refusal(t), AllOf(HasSubstr("target 'vy'"), HasSubstr("the constant 2")));
  t = curve(100);
  t.x.colwise() = Eigen::Vector2d(1, 2);
  EXPECT_THAT(refusal(t), AllOf(HasSubstr("inputs"), HasSubstr("frames that differ")));
  t = curve(100);
  t.y.row(1) = 2 * t.y.row(0);
  EXPECT_THAT(refusal(t), AllOf(HasSubstr("covariance of the residuals"), HasSubstr("singular")));
  EXPECT_EQ(refusal(t, Value::object({{"covariance", "none"}})), "");
  Model m = fit_map(Value::table(), curve(100));
  m.set("bandwidth", 0.0);
  EXPECT_THAT(message_of([&] { apply_map(m, curve(3).x); }), AllOf(HasSubstr("bandwidth"), HasSubstr("above 0")));
}

/// Flint run 1 against the reference outputs of bci/reference: f and Q of the 1000 test rows.
class NadarayaWatsonReference : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::path x, z;
    PERCEPT_NEED_DATA(x, "bci/flint_run1/x.csv");
    PERCEPT_NEED_DATA(z, "bci/flint_run1/z.csv");
    PERCEPT_NEED_DATA(folder_, "bci/reference");
    x_ = read_reference(x).transpose();
    z_ = read_reference(z).transpose();
    std::ifstream file(folder_ / "hyper.json");
    hyper_ = parse_json(std::string(std::istreambuf_iterator<char>(file), {}));
  }
  MatrixXd run(const Value& params, Model* fitted = nullptr) const {
    const StageInfo info = stage_row(filters_stages(), "nadaraya_watson");
    const Model m = fit_stage(info, params, time_format(10, 10), named_format({"vx", "vy"}, 10),
                              {x_.leftCols(5000), z_.leftCols(5000), {}, {}, {}});
    if (fitted) *fitted = m;
    return run_stage(*info.make(params, &m, "map"), {time_format(10, 10), x_.middleCols(5000, 1000)}).matrix();
  }
  double reference(const char* key) const { return std::sqrt(hyper_.at(key).as_number()); }
  MatrixXd table(const char* name) const { return posterior_rows(read_reference(folder_ / name, 1)); }

  std::filesystem::path folder_;
  MatrixXd x_, z_;
  Value hyper_;
};

TEST_F(NadarayaWatsonReference, SameBandwidthsSameMap) {
  const double f = reference("nw_f_sigma2"), q = reference("nw_Q_sigma2");
  const MatrixXd kernel = run(Value::object({{"bandwidth", f}, {"covariance", "kernel"}, {"covariance_bandwidth", q}}));
  EXPECT_LT((kernel - table("nw_fQ.csv")).cwiseAbs().maxCoeff(), 1e-12);
  const MatrixXd constant = run(Value::object({{"bandwidth", f}}));
  EXPECT_LT((constant - table("nw_constQ_fQ.csv")).cwiseAbs().maxCoeff(), 1e-12);
}

TEST_F(NadarayaWatsonReference, FindsTheSameBandwidths) {
  Model m;
  const MatrixXd out = run(Value::object({{"covariance", "kernel"}}), &m);
  EXPECT_NEAR(m.number("bandwidth"), reference("nw_f_sigma2"), 1e-3);
  EXPECT_NEAR(m.number("error_bandwidth"), reference("nw_Q_sigma2"), 1e-3);
  EXPECT_LT((out - table("nw_fQ.csv")).cwiseAbs().maxCoeff(), 1e-3);
}

}  // namespace
}  // namespace percept
