#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <limits>
#include <numbers>

#include "core/error.h"
#include "core/graph.h"
#include "decoders/stages.h"
#include "filters/stages.h"
#include "tests/support/data.h"
#include "tests/support/driver.h"
#include "tests/support/random.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using ::testing::HasSubstr;
using testing::normals;

StageInfo info() {
  for (auto& i : decoders_stages())
    if (i.name == "dense_network") return i;
  throw Error("dense_network is not in the table");
}

/// A model made by hand: two hidden layers, 3 -> 5 -> 4 -> 2.
Model by_hand(const std::string& activation) {
  Model m;
  m.meta = Value::object({{"stage", "dense_network"}, {"version", 1}, {"activation", activation}});
  m.set("weights.0", normals(5, 3, "w0"));
  m.set("bias.0", normals(5, 1, "b0"));
  m.set("weights.1", normals(4, 5, "w1"));
  m.set("bias.1", normals(4, 1, "b1"));
  m.set("weights.2", normals(2, 4, "w2"));
  m.set("bias.2", normals(2, 1, "b2"));
  m.set("x_mean", MatrixXd(Eigen::Vector3d(1, -2, 0.5)));
  m.set("x_sd", MatrixXd(Eigen::Vector3d(2, 0.5, 3)));
  m.set("y_mean", MatrixXd(Eigen::Vector2d(10, -20)));
  m.set("y_sd", MatrixXd(Eigen::Vector2d(0.1, 7)));
  m.set("Q", MatrixXd{{2, 0.5}, {0.5, 1}});
  return m;
}

TEST(DenseNetwork, IsTheFormulaWrittenOut) {
  const MatrixXd x = normals(3, 20, "x");
  for (const std::string activation : {"tanh", "relu", "gelu"}) {
    const Model m = by_hand(activation);
    auto stage = info().make(Value::table(), &m, "net");
    const auto out = testing::run_stage(*stage, {.format = time_format(3, 100.0), .frames = x}, {.block = 6});
    ASSERT_EQ(out.format.parts.size(), 2u);
    EXPECT_EQ(out.format.parts[0].name, "mean");
    EXPECT_EQ(out.format.parts[1].name, "covariance");
    const auto bend = [&](const MatrixXd& a) -> MatrixXd {
      return a.unaryExpr([&](double v) {
        if (activation == "tanh") return std::tanh(v);
        if (activation == "relu") return v > 0 ? v : 0.0;
        return v * 0.5 * std::erfc(-v / std::numbers::sqrt2);  // v times the normal distribution function
      });
    };
    for (Index t = 0; t < x.cols(); ++t) {
      const VectorXd u = (x.col(t) - m.vector("x_mean")).cwiseQuotient(m.vector("x_sd"));
      const MatrixXd h = bend(m.matrix("weights.0") * u + m.vector("bias.0"));
      const MatrixXd g = bend(m.matrix("weights.1") * h + m.vector("bias.1"));
      const VectorXd y =
          (m.matrix("weights.2") * g + m.vector("bias.2")).cwiseProduct(m.vector("y_sd")) + m.vector("y_mean");
      for (Index k = 0; k < 2; ++k)
        EXPECT_NEAR(out.frame(t)[k], y(k), 1e-12 * (1 + std::abs(y(k)))) << activation << " " << t;
      EXPECT_EQ((std::vector<double>(out.frame(t) + 2, out.frame(t) + 6)), (std::vector<double>{2, 0.5, 0.5, 1}));
    }
  }
}

TEST(DenseNetwork, AMissingRowMakesTheFrameMissing) {
  const Model m = by_hand("tanh");
  auto stage = info().make(Value::table(), &m, "net");
  MatrixXd x = normals(3, 5, "x");
  x(1, 2) = std::numeric_limits<double>::quiet_NaN();
  const auto out = testing::run_stage(*stage, {.format = item_format({3}), .frames = x});
  for (Index t = 0; t < 5; ++t) EXPECT_EQ(out.matrix().col(t).array().isNaN().all(), t == 2);
}

TEST(DenseNetwork, ADkfNodeCanFollow) {
  Registry registry;
  registry.add(decoders_stages());
  registry.add(filters_stages());
  const Sample network = info().samples().front(), filter = registry.at("dkf", "test").samples().front();
  std::vector<NodeSpec> nodes(2);
  nodes[0].name = "net", nodes[0].use = "dense_network", nodes[0].model = network.model;
  nodes[1].name = "filter", nodes[1].use = "dkf", nodes[1].model = filter.model;
  Graph graph(registry, {{"x", network.format}}, nodes, Scalar::f64, 10, {});
  MatrixXd smooth;
  graph.on_output(graph.index_of("filter"), [&](const Block& b) { smooth = to_matrix(b.x); });
  const MatrixXd x = normals(5, 10, "x");
  Block block;
  block.x = ConstFrames(x.data(), Scalar::f64, 5, 10, 5);
  graph.push(0, block);
  EXPECT_EQ(smooth.cols(), 10);
  EXPECT_TRUE(smooth.allFinite());
}

// weights, outputs and score of a network trained elsewhere: y = scale (W2 tanh(W1 x + b1) + b2) + offset
TEST(DenseNetwork, ReproducesTheReferenceNetworkOnFlint) {
  std::filesystem::path root, x_file, z_file;
  PERCEPT_NEED_DATA(root, "bci/reference/nn_W1.csv");
  PERCEPT_NEED_DATA(x_file, "bci/flint_run1/x.csv");
  PERCEPT_NEED_DATA(z_file, "bci/flint_run1/z.csv");
  root = root.parent_path();
  auto read = [&](const char* name, int skip = 0) { return testing::read_reference(root / name, skip); };
  const MatrixXd scale = read("nn_outscale.csv");
  Model m;
  m.meta = Value::object({{"stage", "dense_network"}, {"version", 1}, {"activation", "tanh"}});
  m.set("weights.0", read("nn_W1.csv"));
  m.set("bias.0", MatrixXd(read("nn_b1.csv").transpose()));
  m.set("weights.1", read("nn_W2.csv"));
  m.set("bias.1", MatrixXd(read("nn_b2.csv").transpose()));
  m.set("x_mean", MatrixXd(VectorXd::Zero(10)));
  m.set("x_sd", MatrixXd(VectorXd::Ones(10)));
  m.set("y_mean", MatrixXd(scale.row(0).transpose()));
  m.set("y_sd", MatrixXd(scale.row(1).transpose()));
  const std::filesystem::path folder = testing::temporary_folder() / "model";
  m.save(folder);
  const Model loaded = Model::load(folder);

  const MatrixXd x = testing::read_reference(x_file).middleRows(5000, 1000).transpose();
  const MatrixXd z = testing::read_reference(z_file).middleRows(5000, 1000).transpose();
  auto stage = info().make(Value::table(), &loaded, "net");
  const auto out = testing::run_stage(*stage, {.format = time_format(10, 10.0), .frames = x});
  EXPECT_NEAR(std::sqrt((out.matrix() - z).squaredNorm() / z.squaredNorm()), 0.620112593343, 1e-12);
  const MatrixXd f = read("nn_fQ.csv", 1).leftCols(2).transpose();
  EXPECT_LT((out.matrix() - f).cwiseAbs().maxCoeff(), 1e-13);
}

TEST(DenseNetwork, BrokenModelsAreRefused) {
  auto message = [](const Model& m) -> std::string {
    try {
      info().make(Value::table(), &m, "net");
    } catch (const DataError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message(by_hand("tanh")), "");
  EXPECT_THAT(message(by_hand("sigmoid")), HasSubstr("activation: expected tanh, relu or gelu, found sigmoid"));
  Model m = by_hand("tanh");
  m.set("weights.1", normals(4, 6, "w"));
  EXPECT_THAT(message(m), HasSubstr("weights.1"));
  m = by_hand("tanh");
  m.set("bias.2", normals(3, 1, "b"));
  EXPECT_THAT(message(m), HasSubstr("bias.2"));
  m = by_hand("tanh");
  m.set("x_sd", MatrixXd(VectorXd::Zero(3)));
  EXPECT_THAT(message(m), HasSubstr("x_sd, y_sd: expected values above zero"));
  m = by_hand("tanh");
  m.tensors().erase("weights.0");
  EXPECT_THAT(message(m), HasSubstr("weights.0"));
  m = by_hand("tanh");
  m.meta["input_rows"] = Value(std::vector<std::string>{"a", "b"});
  EXPECT_THAT(message(m), HasSubstr("input_rows: expected 3 names, found 2"));
  m = by_hand("tanh");
  m.set("Q", MatrixXd{{1.0}});
  EXPECT_THAT(message(m), HasSubstr("Q"));
}

#if !PERCEPT_WITH_TORCH
TEST(DenseNetwork, WithoutLibTorchOnlyFittingIsRefused) {
  Context context;
  const MemoryData data(time_format(3, 100.0), time_format(2, 100.0),
                        {normals(3, 50, "x"), normals(2, 50, "y"), {}, {}, {}});
  try {
    info().make_fitter(Value::table(), "net")->fit(data, context);
    FAIL() << "should be refused";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("percept was built without LibTorch"));
  }
}
#endif

}  // namespace
}  // namespace percept
