#include <gmock/gmock.h>

#include <Eigen/SVD>

#include "decoders/stages.h"
#include "tests/filters/common.h"

namespace percept {
namespace {

using namespace percept::testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

StageInfo ridge() {
  static const std::vector<StageInfo> table = decoders_stages();
  return stage_row(table, "ridge");
}

TrainingMatrix training(Index frames, Index channels = 3) {
  const KeyedRandom random(2, "ridge");
  TrainingMatrix t{MatrixXd(channels, frames), MatrixXd(2, frames), {}, {}, {}};
  for (Index k = 0; k < frames; ++k) {
    for (Index i = 0; i < channels; ++i) t.x(i, k) = 20 + random.normal(k, static_cast<std::uint64_t>(i));
    for (Index i = 0; i < 2; ++i)
      t.y(i, k) = 4 + t.x(i, k) - 2 * t.x(2, k) + 0.5 * random.normal(k, static_cast<std::uint64_t>(100 + i));
  }
  return t;
}

const std::vector<std::string> kChannels = {"a", "b", "c"};

Model fitted(const Value& params, TrainingMatrix t) {
  return fit_stage(ridge(), params, named_format(kChannels, 10), named_format({"vx", "vy"}, 10, "m/s"), std::move(t));
}

MatrixXd applied(const Value& params, const Model& m, const MatrixXd& x,
                 const StreamFormat& f = named_format(kChannels, 10)) {
  auto stage = ridge().make(params, &m, "ridge");
  return run_stage(*stage, {f, x}).matrix();
}

TEST(RidgeStage, LeastSquaresWithCovarianceOfTheResiduals) {
  const Value params = Value::object({{"alpha", 0.0}});
  const TrainingMatrix t = training(200);
  const Model m = fitted(params, t);
  const MatrixXd out = applied(params, m, t.x);
  ASSERT_EQ(out.rows(), 6);
  MatrixXd with_one(4, 200);
  with_one << t.x, Eigen::RowVectorXd::Ones(200);
  const MatrixXd expected = t.y * with_one.transpose() * (with_one * with_one.transpose()).inverse() * with_one;
  EXPECT_LT((out.topRows(2) - expected).cwiseAbs().maxCoeff(), 1e-9);
  const MatrixXd residual = t.y - expected, q = residual * residual.transpose() / 200;
  EXPECT_LT((out.col(7).tail(4) - q.reshaped()).cwiseAbs().maxCoeff(), 1e-10);
}

TEST(RidgeStage, HoldoutFramesAreOnlyUsedForTheCovariance) {
  const Value params = Value::object({{"alpha", 0.0}, {"covariance", "holdout"}});
  TrainingMatrix t = training(200);
  for (Index i = 0; i < 200; ++i) t.keys.push_back(1000 + i);
  const Model m = fitted(params, t);
  std::vector<Index> fit, held;
  for (Index i = 0; i < 200; ++i) (i % 10 >= 7 ? held : fit).push_back(i);
  TrainingMatrix part{t.x(Eigen::all, fit), t.y(Eigen::all, fit), {}, {}, {}};
  const Model without = fitted(Value::object({{"alpha", 0.0}, {"covariance", "none"}}), part);
  EXPECT_LT((m.matrix("weights") - without.matrix("weights")).cwiseAbs().maxCoeff(), 1e-12);
  const MatrixXd held_x = t.x(Eigen::all, held);
  const MatrixXd residual = t.y(Eigen::all, held) - applied(params, m, held_x).topRows(2);
  EXPECT_LT((m.matrix("Q") - residual * residual.transpose() / static_cast<double>(held.size())).cwiseAbs().maxCoeff(),
            1e-12);
  // other held-out targets change the covariance alone
  for (const Index i : held) t.y.col(i) *= 2;
  const Model changed = fitted(params, t);
  EXPECT_EQ(changed.matrix("weights"), m.matrix("weights"));
  EXPECT_NE(changed.matrix("Q"), m.matrix("Q"));
}

TEST(RidgeStage, SaysWhatItGives) {
  const Value params = Value::object({{"covariance", "none"}});
  const Model m = fitted(params, training(200));
  EXPECT_EQ(m.meta.at("stage").as_string(), "ridge");
  EXPECT_EQ(m.input_rows(), kChannels);
  EXPECT_GT(m.meta.at("alpha").as_array()[0].as_number(), 0);
  auto stage = ridge().make(params, &m, "ridge");
  Context context;
  const StreamFormat out = stage->prepare(named_format(kChannels, 10), context);
  ASSERT_EQ(out.parts.size(), 1u);
  EXPECT_EQ(out.parts[0].name, "mean");
  EXPECT_EQ(out.parts[0].rows[1].name, "vy");
  EXPECT_EQ(out.parts[0].unit, "m/s");
}

TEST(RidgeStage, ChannelsAreMatchedByName) {
  const Model m = fitted(Value::table(), training(200));
  const MatrixXd x = training(30).x;
  const std::vector<Index> order = {2, 0, 1};
  EXPECT_EQ(applied(Value::table(), m, x(order, Eigen::all), named_format({"c", "a", "b"}, 10)),
            applied(Value::table(), m, x));
  EXPECT_THAT(message_of([&] {
                applied(Value::table(), m, x, named_format({"a", "b", "d"}, 10));
              }),
              HasSubstr("no channel 'c'"));
  EXPECT_THAT(message_of([&] {
                applied(Value::table(), m, x.topRows(2), named_format({"a", "b"}, 10));
              }),
              HasSubstr("2 channels"));
}

TEST(RidgeStage, MissingRows) {
  const Model m = fitted(Value::object({{"alpha", 0.0}}), training(200));
  MatrixXd x = training(10).x;
  const MatrixXd complete = applied(Value::object({{"alpha", 0.0}}), m, x);
  x(1, 3) = NAN;
  x.col(5).setConstant(NAN);
  const MatrixXd frame = applied(Value::object({{"alpha", 0.0}}), m, x);
  const MatrixXd rows = applied(Value::object({{"alpha", 0.0}, {"missing", "row"}}), m, x);
  MatrixXd filled = x;
  filled(1, 3) = m.vector("x_mean")(1);
  const MatrixXd as_mean = applied(Value::object({{"alpha", 0.0}}), m, filled);
  for (Index t = 0; t < 10; ++t) {
    EXPECT_TRUE(t == 3 || t == 5 ? frame.col(t).array().isNaN().all() : frame.col(t) == complete.col(t)) << t;
    EXPECT_TRUE(t == 5 ? rows.col(t).array().isNaN().all() : rows.col(t) == as_mean.col(t)) << t;
  }
}

TEST(RidgeStage, WorksOnItems) {
  TrainingMatrix t = training(200);
  const MatrixXd x = t.x;
  const StreamFormat items = item_format({3}), target = item_format({2});
  const Model m = fit_stage(ridge(), Value::table(), items, target, std::move(t));
  auto stage = ridge().make(Value::table(), &m, "ridge");
  StageInput input{items, x.leftCols(4)};
  input.keys = {2, 5, 6, 90};
  EXPECT_THAT(run_stage(*stage, input).keys, ::testing::ElementsAre(2, 5, 6, 90));
}

TEST(RidgeFitter, Refuses) {
  const auto refusal = [](TrainingMatrix t, const Value& params) {
    return message_of([&] { fitted(params, std::move(t)); });
  };
  const Value ols = Value::object({{"alpha", 0.0}});
  EXPECT_THAT(refusal(training(3), ols),
              AllOf(HasSubstr("ridge: training frames"), HasSubstr("offset (4)"), HasSubstr("alpha > 0")));
  TrainingMatrix t = training(200);
  t.x.row(1) = t.x.row(0);
  EXPECT_THAT(refusal(t, ols), AllOf(HasSubstr("linearly independent features"), HasSubstr("alpha > 0")));
  EXPECT_EQ(refusal(t, Value::object({{"alpha", 1.0}})), "");
  t = training(200);
  t.y.row(1).setConstant(3);
  EXPECT_THAT(refusal(t, ols), AllOf(HasSubstr("target 'vy'"), HasSubstr("constant 3")));
  t = training(200);
  t.y.row(1) = t.y.row(0);
  EXPECT_THAT(refusal(t, ols), HasSubstr("covariance of the residuals"));
  EXPECT_EQ(refusal(t, Value::object({{"alpha", 0.0}, {"covariance", "none"}})), "");
  EXPECT_THAT(refusal(training(5), Value::object({{"alpha", 1.0}, {"covariance", "holdout"}})),
              HasSubstr("frames for the covariance"));
  EXPECT_THAT(refusal(training(200), Value::object({{"alpha", -1.0}})), HasSubstr("alpha"));
}

TEST(RidgeFitter, LeavesFramesWithHolesOut) {
  TrainingMatrix t = training(200);
  t.x(1, 20) = NAN;
  t.y(0, 21) = NAN;
  const Model m = fitted(Value::table(), t);
  EXPECT_EQ(m.meta.at("dropped_frames").as_integer(), 2);
  EXPECT_TRUE(m.matrix("weights").allFinite());
}

TEST(RidgeStage, SamplesRunInAnyPartitionWithTheSameBitsAndWithoutAllocating) {
  for (const Sample& sample : ridge().samples()) {
    const StageInput input = input_of(sample, sample.format.scalar);
    auto stage = ridge().make(sample.params, sample.model.get(), "ridge");
    const Collected whole = run_stage(*stage, input);
    EXPECT_TRUE(whole.matrix().allFinite());
    StageDriver driver(*stage, input, {.block = 37, .random = 3}, {.input_gap = 2, .output_gap = 1, .offset = 1});
    driver.run();
    EXPECT_EQ(difference(whole, driver.output()), "");
    EXPECT_EQ(driver.allocations(), 0);
  }
}

/// The rows of bci/reference: least squares over all training rows, and the filters on top of it.
TEST(RidgeAndDkf, ReproduceTheReference) {
  std::filesystem::path x_file, z_file, folder;
  PERCEPT_NEED_DATA(x_file, "bci/flint_run1/x.csv");
  PERCEPT_NEED_DATA(z_file, "bci/flint_run1/z.csv");
  PERCEPT_NEED_DATA(folder, "bci/reference");
  const MatrixXd x = read_reference(x_file).transpose(), z = read_reference(z_file).transpose();
  const MatrixXd test_z = z.middleCols(5000, 1000);
  const StreamFormat x_format = time_format(10, 10), z_format = named_format({"vx", "vy"}, 10);
  const TrainingMatrix train{x.leftCols(5000), z.leftCols(5000), {}, {}, {}};

  const Value ols = Value::object({{"alpha", 0.0}, {"intercept", false}});
  const Model map = fit_stage(ridge(), ols, x_format, z_format, train);
  EXPECT_LT((map.matrix("weights") - read_reference(folder / "ols_H.csv")).cwiseAbs().maxCoeff(), 1e-12);
  EXPECT_LT((map.matrix("Q") - read_reference(folder / "ols_Q.csv")).cwiseAbs().maxCoeff(), 1e-14);
  auto stage = ridge().make(ols, &map, "ridge");
  const Collected f = run_stage(*stage, {x_format, x.middleCols(5000, 1000)});
  EXPECT_LT((f.matrix() - posterior_rows(read_reference(folder / "ols_fQ.csv", 1))).cwiseAbs().maxCoeff(), 1e-13);
  EXPECT_NEAR(nrmse(test_z, f.matrix().topRows(2)), .744732302891, 1e-9);

  for (const bool robust : {false, true}) {
    const Value params = Value::object({{"center", false}, {"robust", robust}});
    const auto filters = filters_stages();
    const StageInfo& info = stage_row(filters, "dkf");
    const Model m = fit_stage(info, params, f.format, z_format, {MatrixXd::Zero(6, 5000), train.y, {}, {}, {}});
    auto dkf = info.make(params, &m, "dkf");
    const MatrixXd out = run_stage(*dkf, {f.format, f.matrix()}).matrix();
    const std::string file = robust ? "ols_rdkf.csv" : "ols_dkf.csv";
    EXPECT_LT((out - posterior_rows(read_reference(folder / file, 1))).cwiseAbs().maxCoeff(), 1e-12);
    EXPECT_NEAR(nrmse(test_z, out.topRows(2)), robust ? .742891768922 : .764633115677, 1e-9);
    EXPECT_NEAR(maae(test_z, out.topRows(2)), robust ? .868181068923 : .888209542257, 1e-9);
  }
}

/// Images of 2 x 2 whose last pixel is always black.
struct Pictures {
  StreamFormat format = item_format({2, 2}, Scalar::f64, "image");
  TrainingMatrix t{MatrixXd(3, 60), MatrixXd::Zero(4, 60), {}, {}, {}};
  Pictures() {
    const KeyedRandom random(5, "pictures");
    for (Index k = 0; k < 60; ++k) {
      for (Index i = 0; i < 3; ++i) t.x(i, k) = random.normal(k, static_cast<std::uint64_t>(i));
      for (Index i = 0; i < 3; ++i)
        t.y(i, k) = 0.5 + 0.2 * t.x(i, k) - 0.1 * t.x((i + 1) % 3, k) +
                    0.05 * random.normal(k, static_cast<std::uint64_t>(10 + i));
    }
  }
  /// Its first components, as a prior.
  std::shared_ptr<Model> components(Index n) const {
    Eigen::JacobiSVD<MatrixXd> svd(t.y.colwise() - t.y.rowwise().mean(), Eigen::ComputeThinU);
    auto m = std::make_shared<Model>();
    m->set("components", MatrixXd(svd.matrixU().leftCols(n).transpose()));
    m->set("mean", MatrixXd(VectorXd::Constant(4, 0.3)));
    return m;
  }
  Model fit(const Value& params, std::shared_ptr<Model> basis = nullptr) const {
    Context context;
    context.node = "ridge";
    if (basis) context.priors = {{"pcs", "pca", basis}};
    return ridge().make_fitter(params, "ridge")->fit(MemoryData(item_format({3}), format, t), context);
  }
};
const Value kOneAlpha = Value::object({{"alpha", 2.0}, {"covariance", "none"}});

TEST(RidgeStage, DecodesImagesInTheirShapeAndKeepsWhatIsAlwaysBlack) {
  const Pictures p;
  const Model m = p.fit(kOneAlpha);
  auto stage = ridge().make(kOneAlpha, &m, "ridge");
  const auto out = run_stage(*stage, {item_format({3}), p.t.x});
  EXPECT_EQ(out.format.parts.at(0).shape, (std::vector<Index>{2, 2}));
  EXPECT_LT(out.matrix().row(3).cwiseAbs().maxCoeff(), 1e-12);
  EXPECT_GT((out.matrix().row(0) - p.t.y.row(0).mean() * Eigen::RowVectorXd::Ones(60)).norm(), 0.1);
  Pictures same;
  same.t.y.setConstant(0.5);
  EXPECT_THAT(message_of<DataError>([&] { same.fit(kOneAlpha); }),
              HasSubstr("target: expected images that differ, found the same image in every training frame"));
  Model broken = m;
  broken.meta["output_shape"] = Value(std::vector<std::int64_t>{3, 2});
  EXPECT_THAT(message_of<DataError>([&] {
                auto s = ridge().make(kOneAlpha, &broken, "ridge");
                run_stage(*s, {item_format({3}), p.t.x});
              }),
              HasSubstr("output_shape: expected a shape of 4 values, found {3, 2}"));
}

TEST(RidgeStage, HardlyEverLitPixelsDoNotChooseTheAlphaOfAnImage) {
  // one pixel that follows the input, and 31 that flicker by a hundredth of it without reason
  const KeyedRandom random(6, "flicker");
  TrainingMatrix t{MatrixXd(3, 60), MatrixXd(32, 60), {}, {}, {}};
  for (Index k = 0; k < 60; ++k) {
    for (Index i = 0; i < 3; ++i) t.x(i, k) = random.normal(k, static_cast<std::uint64_t>(i));
    t.y(0, k) = t.x(0, k);
    for (Index i = 1; i < 32; ++i) t.y(i, k) = 0.01 * random.normal(k, static_cast<std::uint64_t>(10 + i));
  }
  const Value params = Value::object({{"alpha", Value(std::vector<double>{0.1, 1e6})}, {"covariance", "none"}});
  auto chosen = [&](const StreamFormat& target) {
    Context context;
    context.node = "ridge";
    const Model m = ridge().make_fitter(params, "ridge")->fit(MemoryData(item_format({3}), target, t), context);
    return m.meta.at("alpha").as_array().at(0).as_number();
  };
  EXPECT_EQ(chosen(item_format({4, 8}, Scalar::f64, "image")), 0.1);
  EXPECT_EQ(chosen(item_format({32}, Scalar::f64, "scores")), 1e6);
}

TEST(RidgeStage, APcaPriorIsTheBasisOfTheTarget) {
  const Pictures p;
  const auto two = p.components(2);
  const Model m = p.fit(kOneAlpha, two);
  auto stage = ridge().make(kOneAlpha, &m, "ridge");
  const MatrixXd out = run_stage(*stage, {item_format({3}), p.t.x}).matrix();
  // ridge of the two scores, written out
  const MatrixXd basis = two->matrix("components");
  const VectorXd centre = two->vector("mean"), x_mean = p.t.x.rowwise().mean();
  const MatrixXd scores = basis * (p.t.y.colwise() - centre), xc = p.t.x.colwise() - x_mean;
  const VectorXd s_mean = scores.rowwise().mean();
  const MatrixXd w =
      (scores.colwise() - s_mean) * xc.transpose() * (xc * xc.transpose() + 2 * MatrixXd::Identity(3, 3)).inverse();
  const MatrixXd expected = (basis.transpose() * ((w * xc).colwise() + s_mean)).colwise() + centre;
  EXPECT_LT((out - expected).cwiseAbs().maxCoeff(), 1e-12);
  // with an alpha for each component there are two
  const Model chosen = p.fit(
      Value::object({{"alpha", Value(std::vector<double>{0.1, 10})}, {"per_target", true}, {"covariance", "none"}}),
      two);
  EXPECT_EQ(chosen.meta.at("alpha").size(), 2u);
  // all components span every image: nothing changes
  const Model all = p.fit(kOneAlpha, p.components(4)), none = p.fit(kOneAlpha);
  EXPECT_LT((all.matrix("weights") - none.matrix("weights")).cwiseAbs().maxCoeff(), 1e-12);
  EXPECT_LT((all.vector("offset") - none.vector("offset")).cwiseAbs().maxCoeff(), 1e-12);
}

}  // namespace
}  // namespace percept
