/// Against reference outputs computed with NumPy in double precision (bci/reference).
#include <gmock/gmock.h>
#include <matio.h>

#include <fstream>
#include <map>
#include <sstream>

#include "tests/filters/common.h"

namespace percept {
namespace {

using namespace percept::testing;
namespace fs = std::filesystem;

constexpr Index kTrain = 5000, kTest = 1000;

struct Flint {
  MatrixXd x, z;  ///< channels x rows, 2 x rows
};

std::vector<std::string> numbered(const std::string& stem, Index n) {
  std::vector<std::string> names;
  for (Index i = 0; i < n; ++i) names.push_back(stem + std::to_string(i));
  return names;
}

class Reference : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::path x, z;
    PERCEPT_NEED_DATA(x, "bci/flint_run1/x.csv");
    PERCEPT_NEED_DATA(z, "bci/flint_run1/z.csv");
    PERCEPT_NEED_DATA(folder_, "bci/reference");
    flint_ = {read_reference(x).transpose(), read_reference(z).transpose()};
    std::ifstream metrics(folder_ / "metrics.csv");
    std::string line, cell;
    std::getline(metrics, line);
    while (std::getline(metrics, line)) {
      std::stringstream cells(line);
      std::string name, rmse, nrmse, maae;
      std::getline(cells, name, ',');
      std::getline(cells, rmse, ',');
      std::getline(cells, nrmse, ',');
      std::getline(cells, maae, ',');
      const auto at = name.find(" fallback=");
      metrics_[name.substr(0, at)] = {std::stod(nrmse), std::stod(maae),
                                      at == std::string::npos ? 0 : std::stoi(name.substr(at + 10))};
    }
  }
  MatrixXd plain(const std::string& name) const { return read_reference(folder_ / name); }
  MatrixXd table(const std::string& name) const { return read_reference(folder_ / name, 1); }
  MatrixXd test_z() const { return flint_.z.middleCols(kTrain, kTest); }
  Model fit(const std::string& stage, Value params) const {
    TrainingMatrix data{flint_.x.leftCols(kTrain), flint_.z.leftCols(kTrain), {}, {}, {}};
    return fit_stage(stage_row(filters_stages(), stage), params, named_format(numbered("pc", 10), 10),
                     named_format({"vx", "vy"}, 10), std::move(data), 777);
  }
  void expect_metrics(const std::string& name, const MatrixXd& decoded) const {
    const auto& m = metrics_.at(name);
    EXPECT_NEAR(nrmse(test_z(), decoded), m.nrmse, 1e-9) << name;
    EXPECT_NEAR(maae(test_z(), decoded), m.maae, 1e-9) << name;
  }

  struct Metrics {
    double nrmse, maae;
    int fallback;
  };
  fs::path folder_;
  Flint flint_;
  std::map<std::string, Metrics> metrics_;
};

TEST_F(Reference, FittedKalmanModel) {
  const Model m = fit("kalman", Value::object({{"center", false}}));
  EXPECT_LT((m.matrix("A") - plain("A.csv")).cwiseAbs().maxCoeff(), 1e-12);
  EXPECT_LT((m.matrix("Gamma") - plain("Gamma.csv")).cwiseAbs().maxCoeff(), 1e-15);
  EXPECT_LT((m.matrix("C") - plain("C.csv")).cwiseAbs().maxCoeff(), 1e-11);
  EXPECT_LT((m.matrix("R") - plain("R.csv")).cwiseAbs().maxCoeff(), 1e-12);
  EXPECT_LT((m.matrix("V0") - plain("S.csv")).cwiseAbs().maxCoeff(), 1e-15);
  const Model dkf = fit("dkf", Value::object({{"center", false}}));
  EXPECT_LT((dkf.matrix("A") - plain("A.csv")).cwiseAbs().maxCoeff(), 1e-12);
  EXPECT_LT((dkf.matrix("Gamma") - plain("Gamma.csv")).cwiseAbs().maxCoeff(), 1e-15);
  EXPECT_LT((dkf.matrix("S") - plain("S.csv")).cwiseAbs().maxCoeff(), 1e-15);
}

TEST_F(Reference, KalmanMeansAndCovariances) {
  const Value params = Value::object({{"center", false}});
  const Model m = fit("kalman", params);
  const MatrixXd wanted = posterior_rows(table("kalman.csv"));
  for (const Scalar scalar : {Scalar::f64, Scalar::f32}) {
    auto stage = stage_row(filters_stages(), "kalman").make(params, &m, "kalman");
    StageInput input{named_format(numbered("pc", 10), 10), flint_.x.middleCols(kTrain, kTest)};
    input.format.scalar = scalar;
    const Collected out = run_stage(*stage, input, {.block = 64});
    EXPECT_LT((out.matrix() - wanted).cwiseAbs().maxCoeff(), scalar == Scalar::f64 ? 1e-14 : 1e-6);
    if (scalar == Scalar::f64) expect_metrics("Kalman", out.matrix().topRows(2));
  }
}

TEST_F(Reference, DiscriminativeFilters) {
  const std::map<std::string, Value> modes = {
      {"dkf", Value::object({{"center", false}, {"fallback", "inflate"}})},
      {"dkf_thesis", Value::object({{"center", false}, {"fallback", "robust"}})},
      {"dkf_clip", Value::object({{"center", false}, {"fallback", "clip"}})},
      {"rdkf", Value::object({{"center", false}, {"robust", true}})}};
  StreamFormat format = named_format({"vx", "vy"}, 10);
  format.parts[0].name = "mean";
  format.parts.push_back({"covariance", {2, 2}, "1", {}, {}});
  for (const std::string learner : {"ols", "nw", "nw_constQ", "gp", "gp_constQ", "nn", "nn_constQ"}) {
    const StageInput input{format, posterior_rows(table(learner + "_fQ.csv"))};
    for (const auto& [mode, params] : modes) {
      SCOPED_TRACE(learner + " " + mode);
      const Model m = fit("dkf", params);
      auto stage = stage_row(filters_stages(), "dkf").make(params, &m, "dkf");
      Counters counters;
      Context context;
      context.node = "dkf";
      context.counters = &counters;
      const MatrixXd out = run_stage(*stage, input, {.block = 100}, {}, context).matrix();
      EXPECT_LT((out - posterior_rows(table(learner + "_" + mode + ".csv"))).cwiseAbs().maxCoeff(), 1e-12);
      expect_metrics(learner + " " + mode, out.topRows(2));
      EXPECT_EQ(counters.get("dkf", "fallback").value(), metrics_.at(learner + " " + mode).fallback);
      EXPECT_EQ(counters.get("dkf", "covariance_repaired").value(), 0);
      EXPECT_EQ(counters.get("dkf", "missing").value(), 0);
    }
  }
}

/// x = ±H z + noise of variance 1 or 5, the sign and variance drawn anew each frame: f and Q are known exactly.
TEST_F(Reference, MixtureOfTwoLinearModels) {
  constexpr Index d = 10, n = 100;
  const MatrixXd h = plain("mix_H.csv"), x = plain("mix_x.csv"), z = plain("mix_z.csv"), f = plain("mix_f.csv");
  ASSERT_EQ(h.rows(), n);
  const MatrixXd a = 0.95 * MatrixXd::Identity(d, d) - MatrixXd::Constant(d, d, 0.05), s = MatrixXd::Identity(d, d);
  const DkfModel model{a, s - a * a.transpose(), s};

  MatrixXd q[2], maps[2];
  Eigen::LLT<MatrixXd> marginal[2];
  double log_root[2];
  for (int k = 0; k < 2; ++k) {
    const double variance = k ? 5.0 : 1.0;
    const MatrixXd hk = k ? MatrixXd(-h) : h;
    q[k] = (s + hk.transpose() * hk / variance).inverse();
    maps[k] = q[k] * hk.transpose() / variance;
    marginal[k].compute(hk * hk.transpose() + variance * MatrixXd::Identity(n, n));
    log_root[k] = MatrixXd(marginal[k].matrixL()).diagonal().array().log().sum();
  }
  Dkf clip(model, DkfFallback::clip, "dkf"), robust(model, DkfFallback::always_robust, "dkf");
  MatrixXd clipped(d, x.rows()), robustly(d, x.rows());
  for (Index t = 0; t < x.rows(); ++t) {
    const VectorXd xt = x.row(t);
    double log_p[2];
    VectorXd fk[2];
    for (int k = 0; k < 2; ++k) {
      log_p[k] = -0.5 * marginal[k].matrixL().solve(xt).squaredNorm() - log_root[k];
      fk[k] = maps[k] * xt;
    }
    const double w = 1 / (1 + std::exp(log_p[1] - log_p[0]));
    const VectorXd ft = w * fk[0] + (1 - w) * fk[1];
    ASSERT_LT((ft - f.row(t).transpose()).cwiseAbs().maxCoeff(), 1e-10);
    const VectorXd apart = fk[0] - fk[1];
    const MatrixXd qt = w * q[0] + (1 - w) * q[1] + w * (1 - w) * apart * apart.transpose();
    clip.step(ft.data(), qt.data());
    robust.step(ft.data(), qt.data());
    clipped.col(t) = clip.mean();
    robustly.col(t) = robust.mean();
  }
  EXPECT_LT((clipped - plain("mix_dkf_clip.csv").transpose()).cwiseAbs().maxCoeff(), 1e-9);
  EXPECT_LT((robustly - plain("mix_rdkf.csv").transpose()).cwiseAbs().maxCoeff(), 1e-9);
  const auto rmse = [&](const MatrixXd& m) {
    return std::sqrt((m - z.transpose()).squaredNorm() / static_cast<double>(z.size()));
  };
  EXPECT_NEAR(rmse(f.transpose()), 0.474172, 1e-6);
  EXPECT_NEAR(rmse(clipped), 0.338828, 1e-6);
  EXPECT_NEAR(rmse(robustly), 0.380470, 1e-6);
}

/// A variable of a .mat file through matio alone: rows x columns.
MatrixXd mat_variable(const fs::path& file, const char* name) {
  mat_t* mat = Mat_Open(file.c_str(), MAT_ACC_RDONLY);
  if (!mat) throw std::runtime_error("cannot open " + file.string());
  matvar_t* v = Mat_VarRead(mat, name);
  Mat_Close(mat);
  if (!v) throw std::runtime_error(std::string("no variable ") + name);
  const auto rows = static_cast<Index>(v->dims[0]), cols = static_cast<Index>(v->dims[1]);
  MatrixXd m(rows, cols);
  for (Index i = 0; i < m.size(); ++i)
    m.data()[i] = v->data_type == MAT_T_UINT8 ? static_cast<const std::uint8_t*>(v->data)[i]
                                              : static_cast<const double*>(v->data)[i];
  Mat_VarFree(v);
  return m;
}

TEST_F(Reference, ContdataKalmanWithCentring) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "bci/contdata95/contdata95.mat");
  const MatrixXd counts = mat_variable(file, "Y").transpose(), kinematics = mat_variable(file, "X").transpose();
  ASSERT_EQ(counts.rows(), 95);
  constexpr Index train = 21989, validation = 4711, test = 4713;
  const StageInfo& info = stage_row(filters_stages(), "kalman");
  const StreamFormat x_format = named_format(numbered("ch", 95), 10),
                     z_format = named_format({"px", "py", "vx", "vy"}, 10);
  TrainingMatrix data{counts.leftCols(train), kinematics.leftCols(train), {}, {}, {}};
  Model m = fit_stage(info, Value::table(), x_format, z_format, std::move(data));
  EXPECT_LT((m.matrix("A") - plain("contdata95_A.csv")).cwiseAbs().maxCoeff(), 1e-9);
  // the source divides the state noise by the number of pairs, this project by the number of frames
  const MatrixXd gamma = m.matrix("Gamma") * (static_cast<double>(train) / static_cast<double>(train - 1));
  EXPECT_LT((gamma - plain("contdata95_W.csv")).cwiseAbs().maxCoeff(), 1e-5);
  m.set("Gamma", gamma);
  auto stage = info.make(Value::table(), &m, "kalman");
  const StageInput input{x_format, counts.middleCols(train + validation, test)};
  const MatrixXd out = run_stage(*stage, input).matrix().topRows(4);
  EXPECT_LT((out - plain("contdata95_kf_test.csv").transpose()).cwiseAbs().maxCoeff(), 1e-6);
  const MatrixXd truth = kinematics.middleCols(train + validation, test);
  const double r2[] = {.644786, .642723, .446265, .491655};
  for (Index k = 0; k < 4; ++k) {
    const double total = (truth.row(k).array() - truth.row(k).mean()).square().sum();
    EXPECT_NEAR(1 - (truth.row(k) - out.row(k)).squaredNorm() / total, r2[k], 1e-6);
  }
}

}  // namespace
}  // namespace percept
