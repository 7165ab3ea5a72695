/// What needs the LibTorch module: training. One process, since opening the module takes a second.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>

#include "core/error.h"
#include "core/module.h"
#include "decoders/network_training.h"
#include "decoders/stages.h"
#include "numerics/random.h"
#include "tests/support/contract.h"
#include "tests/support/driver.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using ::testing::AllOf;
using ::testing::HasSubstr;

StageInfo info(const std::string& name) {
  for (auto& i : decoders_stages())
    if (i.name == name) return i;
  throw Error(name + " is not in the table");
}

/// Four inputs, two outputs that no straight line comes near, and noise of standard deviation 0.1.
TrainingMatrix bent(Index frames, std::uint64_t seed) {
  const KeyedRandom random(seed, "bent");
  TrainingMatrix t{MatrixXd(4, frames), MatrixXd(2, frames), {}, {}, {}};
  for (Index k = 0; k < frames; ++k) {
    for (Index i = 0; i < 4; ++i) t.x(i, k) = 5 + 2 * 1.7 * (2 * random.uniform(k, static_cast<std::uint64_t>(i)) - 1);
    const VectorXd u = (t.x.col(k).array() - 5) / 2;
    t.y(0, k) = 100 + 3 * (std::sin(2 * u(0)) + u(1) * u(2) + 0.1 * random.normal(k, 10));
    t.y(1, k) = -1 + 0.01 * (std::abs(u(3)) - u(0) * u(0) + 0.1 * random.normal(k, 11));
  }
  return t;
}
const StreamFormat kIn = time_format(4, 100.0), kOut = time_format(2, 100.0, Scalar::f64, "velocity");

Model fit(const std::string& stage, TrainingMatrix data, const Value& params, Context context = {}) {
  context.node = "net";
  return info(stage).make_fitter(params, "net")->fit(MemoryData(kIn, kOut, std::move(data)), context);
}
MatrixXd apply(const std::string& stage, const Model& m, const MatrixXd& x) {
  return testing::run_stage(*info(stage).make(Value::table(), &m, stage), {.format = kIn, .frames = x}).matrix();
}
Value small(std::int64_t seed = 0) {
  return Value::object({{"layers", std::vector<std::int64_t>{16}},
                        {"epochs", 5},
                        {"dropout", 0.2},
                        {"input_noise", 0.1},
                        {"seed", seed}});
}

// this test comes first: the module is opened by the first fit
TEST(Torch, IsOpenedByTheFirstFit) {
  auto loaded = [] {
    std::ifstream maps("/proc/self/maps");
    std::stringstream text;
    text << maps.rdbuf();
    return text.str().find("libtorch") != std::string::npos;
  };
  EXPECT_FALSE(torch_is_loaded());
  EXPECT_FALSE(loaded());
  fit("dense_network", bent(100, 1), small());
  EXPECT_TRUE(torch_is_loaded());
  EXPECT_TRUE(loaded());
}

TEST(Torch, LearnsWhatRidgeCannot) {
  const TrainingMatrix test = bent(2000, 2);
  const Model line = fit("ridge", bent(4000, 1), Value::table());
  const MatrixXd by_line = apply("ridge", line, test.x).topRows(2);
  for (const char* activation : {"tanh", "relu", "gelu"}) {
    const Model net = fit("dense_network", bent(4000, 1), Value::object({{"activation", activation}, {"epochs", 60}}));
    const MatrixXd out = apply("dense_network", net, test.x);
    // the noise is the floor
    const Eigen::Vector2d noise(0.3, 0.001);
    for (Index k = 0; k < 2; ++k) {
      const double ours = std::sqrt((out.row(k) - test.y.row(k)).squaredNorm() / 2000);
      const double theirs = std::sqrt((by_line.row(k) - test.y.row(k)).squaredNorm() / 2000);
      EXPECT_LT(ours, 0.4 * theirs) << activation << " " << k;
      EXPECT_GT(ours, 0.9 * noise(k)) << "better than the noise allows";
      // the covariance from held-out training frames is that of the error on new ones
      EXPECT_NEAR(std::sqrt(out(2 + 3 * k, 0)) / ours, 1, 0.15) << activation << " " << k;
    }
  }
}

TEST(Torch, TheSameSeedGivesTheSameBits) {
  const Model a = fit("dense_network", bent(500, 1), small(1)), b = fit("dense_network", bent(500, 1), small(1));
  EXPECT_EQ(testing::model_difference(a, b), "");
  EXPECT_NE(testing::model_difference(a, fit("dense_network", bent(500, 1), small(2))), "");
  Context other;
  other.seed = 5;
  EXPECT_NE(testing::model_difference(a, fit("dense_network", bent(500, 1), small(1), other)), "");
}

// the stage works without LibTorch, so it must give what LibTorch gives
TEST(Torch, TheStageGivesWhatLibTorchGives) {
  const Eigen::MatrixXf x = MatrixXd((bent(400, 1).x.array() - 5) / 2).cast<float>(),
                        y = MatrixXd(bent(400, 1).x.topRows(2)).cast<float>();
  for (const char* activation : {"tanh", "relu", "gelu"}) {
    NetworkTask task;
    task.inputs = 4;
    task.outputs = 2;
    task.x = {x.data(), 300 * 4};
    task.y = {y.data(), 300 * 2};
    task.x_held = {x.data() + 300 * 4, 100 * 4};
    task.y_held = {y.data() + 300 * 2, 100 * 2};
    task.hidden = {32, 16};
    task.activation = activation;
    task.epochs = 3;
    const TrainedNetwork net = torch_interface<NetworkTraining>().train(task);
    ASSERT_EQ(net.layers.size(), 3u);
    ASSERT_EQ(net.held_output.size(), 200u);
    Model m;
    m.meta = Value::object({{"stage", "dense_network"}, {"version", 1}, {"activation", activation}});
    for (std::size_t i = 0; i < 3; ++i) {
      const DenseLayer& l = net.layers[i];
      using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
      m.set_f32("weights." + std::to_string(i), Eigen::Map<const RowMajor>(l.weights.data(), l.outputs, l.inputs));
      m.set_f32("bias." + std::to_string(i), Eigen::Map<const Eigen::VectorXf>(l.bias.data(), l.outputs));
    }
    m.set("x_mean", MatrixXd(VectorXd::Zero(4)));
    m.set("x_sd", MatrixXd(VectorXd::Ones(4)));
    m.set("y_mean", MatrixXd(VectorXd::Zero(2)));
    m.set("y_sd", MatrixXd(VectorXd::Ones(2)));
    const MatrixXd ours = apply("dense_network", m, x.rightCols(100).cast<double>());
    const MatrixXd theirs = Eigen::Map<const Eigen::MatrixXf>(net.held_output.data(), 2, 100).cast<double>();
    EXPECT_LT((ours - theirs).cwiseAbs().maxCoeff(), 1e-5) << activation;
    EXPECT_NEAR((theirs - y.rightCols(100).cast<double>()).squaredNorm() / 200, net.loss, 1e-5) << activation;
  }
}

TEST(Torch, StopsEarlyAndKeepsTheBestEpoch) {
  // pure noise: nothing can be learnt, so the held-out error soon rises
  TrainingMatrix noise = bent(300, 1);
  const KeyedRandom random(4, "noise");
  for (Index k = 0; k < 300; ++k) noise.y.col(k) << random.normal(k, 0), random.normal(k, 1);
  std::vector<double> fractions;
  Context context;
  context.progress = [&](double fraction, std::string_view) { fractions.push_back(fraction); };
  const Model m =
      fit("dense_network", noise, Value::object({{"epochs", 400}, {"patience", 4}, {"learning_rate", 0.01}}), context);
  const auto epochs = m.meta.get("epochs", 0), best = m.meta.get("best_epoch", 0);
  EXPECT_EQ(epochs, best + 4);
  EXPECT_LT(epochs, 400);
  ASSERT_EQ(static_cast<std::int64_t>(fractions.size()), epochs);
  EXPECT_DOUBLE_EQ(fractions.back(), static_cast<double>(epochs) / 400);

  context.cancelled = [&] { return fractions.size() > 2; };
  fractions.clear();
  EXPECT_THROW(fit("dense_network", noise, Value::table(), context), Interrupted);
  EXPECT_EQ(fractions.size(), 3u);
}

TEST(Torch, WithoutValidationEveryEpochIsDone) {
  const Model m = fit("dense_network", bent(200, 1),
                      Value::object({{"validation", 0.0}, {"covariance", "none"}, {"epochs", 7}, {"patience", 1}}));
  EXPECT_EQ(m.meta.get("epochs", 0), 7);
  EXPECT_EQ(m.meta.get("best_epoch", 0), 7);
  EXPECT_EQ(apply("dense_network", m, bent(10, 3).x).rows(), 2);
}

TEST(Torch, ALossThatIsNotFiniteStopsWithItsPlace) {
  Eigen::MatrixXf x = bent(100, 1).x.cast<float>(), y = bent(100, 1).y.cast<float>();
  NetworkTask task;
  task.inputs = 4;
  task.outputs = 2;
  task.hidden = {8};
  task.epochs = 5;
  task.batch = 10;
  task.where = "file.toml:3: net";
  auto message = [&]() -> std::string {
    task.x = {x.data(), 400};
    task.y = {y.data(), 200};
    try {
      torch_interface<NetworkTraining>().train(task);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message(), "");
  x(2, 17) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(message(), AllOf(HasSubstr("file.toml:3: net: the loss is NaN at epoch 1, step "),
                               HasSubstr(" of 10: expected a finite one")));
  x(2, 17) = 0;
  y(1, 5) = std::numeric_limits<float>::infinity();
  EXPECT_THAT(message(), HasSubstr("the loss is infinite at epoch 1"));
  y(1, 5) = 0;
  task.activation = "relu";
  task.learning_rate = 1e6;
  task.epochs = 200;
  task.hidden = {64, 64, 64, 64, 64};
  EXPECT_THAT(message(), HasSubstr("is learning_rate too high?"));
}

TEST(Torch, MissingFramesAreLeftOutOfTraining) {
  TrainingMatrix whole = bent(300, 1), holed = bent(310, 1);
  whole.x = holed.x.leftCols(300);
  whole.y = holed.y.leftCols(300);
  holed.x(1, 305) = std::numeric_limits<double>::quiet_NaN();
  holed.x.rightCols(10).row(1).setConstant(std::numeric_limits<double>::quiet_NaN());
  Model a = fit("dense_network", whole, small()), b = fit("dense_network", holed, small());
  EXPECT_EQ(b.meta.get("dropped_frames", 0), 10);
  b.meta["dropped_frames"] = 0;
  EXPECT_EQ(testing::model_difference(a, b), "");
}

TEST(Torch, RefusesWhatCannotBeFitted) {
  auto message = [](const TrainingMatrix& t, const Value& params) -> std::string {
    try {
      fit("dense_network", t, params);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(message(bent(3, 1), small()),
              HasSubstr("net: training frames: expected at least 5, 3 of them for validation, found 3"));
  EXPECT_THAT(message(bent(100, 1), Value::object({{"validation", 0.0}})),
              HasSubstr("net.validation = 0: expected a share above 0"));
  TrainingMatrix flat = bent(100, 1);
  flat.y.row(1).setConstant(2.5);
  EXPECT_THAT(
      message(flat, small()),
      HasSubstr(
          "net: target 'velocity[1]': expected values that vary over the training frames, found the constant 2.5"));
  TrainingMatrix still = bent(100, 1);
  still.x.row(2).setConstant(1e6);
  EXPECT_EQ(message(still, small()), "");
}

}  // namespace
}  // namespace percept
