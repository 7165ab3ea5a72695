#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "decoders/stages.h"
#include "numerics/random.h"
#include "tests/support/data.h"
#include "tests/support/driver.h"

namespace percept {
namespace {

using Eigen::ArrayXd;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using ::testing::HasSubstr;

StageInfo recurrent_info() {
  for (auto& i : decoders_stages())
    if (i.name == "recurrent_network") return i;
  throw Error("recurrent_network is not in the table");
}

MatrixXd keyed(Index rows, Index cols, const std::string& name) {
  const KeyedRandom random(3, name);
  MatrixXd m(rows, cols);
  for (Index j = 0; j < cols; ++j)
    for (Index i = 0; i < rows; ++i) m(i, j) = 0.7 * random.normal(j, static_cast<std::uint64_t>(i));
  return m;
}

/// 3 inputs, a tanh layer of 4 where asked, 5 units, 2 outputs.
Model recurrent_by_hand(const std::string& cell, bool input_layer) {
  const Index gates = cell == "gru" ? 3 : 4, in = input_layer ? 4 : 3;
  Model m;
  m.meta = Value::object({{"stage", "recurrent_network"}, {"version", 1}, {"cell", cell}});
  const auto set = [&](const char* name, Index rows, Index cols) { m.set(name, keyed(rows, cols, name)); };
  if (input_layer) {
    set("input.weights", 4, 3);
    set("input.bias", 4, 1);
  }
  set("cell.weights_x", gates * 5, in);
  set("cell.weights_h", gates * 5, 5);
  set("cell.bias_x", gates * 5, 1);
  set("cell.bias_h", gates * 5, 1);
  set("output.weights", 2, 5);
  set("output.bias", 2, 1);
  m.set("x_mean", MatrixXd(Eigen::Vector3d(1, -2, 0.5)));
  m.set("x_sd", MatrixXd(Eigen::Vector3d(2, 0.5, 3)));
  m.set("y_mean", MatrixXd(Eigen::Vector2d(1, -2)));
  m.set("y_sd", MatrixXd(Eigen::Vector2d(0.1, 3)));
  m.set("Q", MatrixXd{{2, 0.5}, {0.5, 1}});
  return m;
}

ArrayXd sigmoid(const ArrayXd& a) { return 1 / (1 + (-a).exp()); }

/// The papers' formulas in double, over every frame; a frame with NaN is left out.
MatrixXd written_out(const Model& m, const MatrixXd& x) {
  const bool lstm = m.meta.get("cell", "") == "lstm";
  MatrixXd y = MatrixXd::Constant(2, x.cols(), std::numeric_limits<double>::quiet_NaN());
  ArrayXd h = ArrayXd::Zero(5), c = ArrayXd::Zero(5);
  for (Index t = 0; t < x.cols(); ++t) {
    if (!x.col(t).allFinite()) continue;
    VectorXd u = (x.col(t) - m.vector("x_mean")).cwiseQuotient(m.vector("x_sd"));
    if (m.has("input.weights")) u = (m.matrix("input.weights") * u + m.vector("input.bias")).array().tanh();
    const ArrayXd a = m.matrix("cell.weights_x") * u + m.vector("cell.bias_x"),
                  b = m.matrix("cell.weights_h") * h.matrix() + m.vector("cell.bias_h");
    const auto gate = [](const ArrayXd& v, Index k) -> ArrayXd { return v.segment(5 * k, 5); };
    if (lstm) {
      const ArrayXd i = sigmoid(gate(a, 0) + gate(b, 0)), f = sigmoid(gate(a, 1) + gate(b, 1)),
                    g = (gate(a, 2) + gate(b, 2)).tanh(), o = sigmoid(gate(a, 3) + gate(b, 3));
      c = f * c + i * g;
      h = o * c.tanh();
    } else {
      const ArrayXd r = sigmoid(gate(a, 0) + gate(b, 0)), z = sigmoid(gate(a, 1) + gate(b, 1)),
                    n = (gate(a, 2) + r * gate(b, 2)).tanh();
      h = (1 - z) * n + z * h;
    }
    y.col(t) = (m.matrix("output.weights") * h.matrix() + m.vector("output.bias")).cwiseProduct(m.vector("y_sd")) +
               m.vector("y_mean");
  }
  return y;
}

TEST(RecurrentNetwork, IsTheFormulaWrittenOut) {
  MatrixXd x = keyed(3, 200, "x");
  x(1, 50) = std::numeric_limits<double>::quiet_NaN();
  x.middleCols(80, 5).setConstant(std::numeric_limits<double>::quiet_NaN());
  x(0, 120) = 1e4;  // saturates
  for (const char* cell : {"gru", "lstm"})
    for (const bool input_layer : {false, true}) {
      const Model m = recurrent_by_hand(cell, input_layer);
      const auto out = testing::run_stage(*recurrent_info().make(Value::table(), &m, "net"),
                                          {.format = time_format(3, 100.0), .frames = x}, {.block = 7});
      const MatrixXd expected = written_out(m, x);
      for (Index t = 0; t < 200; ++t) {
        if (!x.col(t).allFinite()) {
          EXPECT_TRUE(out.matrix().col(t).array().isNaN().all()) << cell << " " << t;
          continue;
        }
        for (Index k = 0; k < 2; ++k) EXPECT_NEAR(out.frame(t)[k], expected(k, t), 1e-5) << cell << " " << t;
        EXPECT_EQ((std::vector<double>(out.frame(t) + 2, out.frame(t) + 6)), (std::vector<double>{2, 0.5, 0.5, 1}));
      }
    }
}

TEST(RecurrentNetwork, ValuesBeyondAllReasonDoNotPoisonTheState) {
  for (const char* cell : {"gru", "lstm"}) {
    const Model m = recurrent_by_hand(cell, false);
    MatrixXd x = keyed(3, 300, "x");
    for (const double huge : {1e30, -1e30, 1e300, std::numeric_limits<double>::max()}) {
      x(0, 10) = huge;
      x(2, 10) = -huge;
      const auto out = testing::run_stage(*recurrent_info().make(Value::table(), &m, "net"),
                                          {.format = time_format(3, 100.0), .frames = x});
      EXPECT_TRUE(out.matrix().allFinite()) << cell << " " << huge;
    }
  }
}

TEST(RecurrentNetwork, ItemsAreRefused) {
  const Model m = recurrent_by_hand("gru", false);
  auto stage = recurrent_info().make(Value::table(), &m, "net");
  Context context;
  context.node = "net";
  try {
    stage->prepare(item_format({3}), context);
    FAIL() << "should be refused";
  } catch (const ConfigError& e) {
    EXPECT_THAT(e.what(), HasSubstr("net"));
    EXPECT_THAT(e.what(), HasSubstr("recurrent_network"));
  }
}

TEST(RecurrentNetwork, BrokenModelsAreRefused) {
  const auto message = [](const Model& m) -> std::string {
    try {
      recurrent_info().make(Value::table(), &m, "net");
    } catch (const DataError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message(recurrent_by_hand("lstm", true)), "");
  Model m = recurrent_by_hand("gru", true);
  m.meta["cell"] = "elman";
  EXPECT_THAT(message(m), HasSubstr("cell: expected gru or lstm, found elman"));
  m.meta["cell"] = "lstm";  // 15 rows are not those of four gates
  EXPECT_THAT(message(m), HasSubstr("cell.weights_x: expected rows of 4 gates, found 15"));
  m = recurrent_by_hand("gru", false);
  m.set("cell.weights_h", keyed(15, 4, "w"));
  EXPECT_THAT(message(m), HasSubstr("cell.weights_h"));
  m = recurrent_by_hand("gru", false);
  m.tensors().erase("cell.bias_x");
  EXPECT_THAT(message(m), HasSubstr("cell.bias_x"));
  m = recurrent_by_hand("gru", false);
  m.set("output.bias", keyed(3, 1, "b"));
  EXPECT_THAT(message(m), HasSubstr("output.bias"));
  m = recurrent_by_hand("gru", false);
  m.meta["networks"] = 2;
  EXPECT_THAT(message(m), HasSubstr("cell.weights_x: expected rows of 2 networks, found 15"));
  m.meta["networks"] = 0;
  EXPECT_THAT(message(m), HasSubstr("networks: expected at least 1, found 0"));
  m = recurrent_by_hand("gru", false);
  m.set("output.weights", MatrixXd(MatrixXd::Constant(2, 5, std::numeric_limits<double>::infinity())));
  EXPECT_THAT(message(m), HasSubstr("output.weights: expected finite values"));
}

}  // namespace
}  // namespace percept
