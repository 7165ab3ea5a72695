/// What needs the LibTorch module: training. One process, since opening the module takes a second.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>

#include "core/error.h"
#include "core/files.h"
#include "core/module.h"
#include "decoders/network_training.h"
#include "decoders/stages.h"
#include "numerics/random.h"
#include "tests/support/contract.h"
#include "tests/support/data.h"
#include "tests/support/driver.h"
#include "tests/support/errors.h"

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
void set_arrays(Model& m, const TrainedNetwork& net) {
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  for (const NetworkArray& a : net.arrays)
    m.set_f32(a.name, Eigen::Map<const RowMajor>(a.values.data(), a.rows, a.cols));
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
    task.training = {{x.data(), 300 * 4}, {y.data(), 300 * 2}};
    task.held = {{x.data() + 300 * 4, 100 * 4}, {y.data() + 300 * 2, 100 * 2}};
    task.hidden = {32, 16};
    task.activation = activation;
    task.epochs = 3;
    const TrainedNetwork net = torch_interface<NetworkTraining>().train(task);
    ASSERT_EQ(net.arrays.size(), 6u);
    ASSERT_EQ(net.held_output.size(), 200u);
    Model m;
    m.meta = Value::object({{"stage", "dense_network"}, {"version", 1}, {"activation", activation}});
    set_arrays(m, net);
    m.set("x_mean", MatrixXd(VectorXd::Zero(4)));
    m.set("x_sd", MatrixXd(VectorXd::Ones(4)));
    m.set("y_mean", MatrixXd(VectorXd::Zero(2)));
    m.set("y_sd", MatrixXd(VectorXd::Ones(2)));
    const MatrixXd ours = apply("dense_network", m, x.rightCols(100).cast<double>());
    const MatrixXd theirs = Eigen::Map<const Eigen::MatrixXf>(net.held_output.data(), 2, 100).cast<double>();
    EXPECT_LT((ours - theirs).cwiseAbs().maxCoeff(), 1e-5) << activation;
    EXPECT_NEAR((theirs - y.rightCols(100).cast<double>()).squaredNorm() / 200, net.held_losses[net.best_epoch - 1],
                1e-5)
        << activation;
  }
}

// a chunk as long as the held-out frames: LibTorch runs them in one piece from an empty state, as the stage does
TEST(Torch, TheRecurrentStageGivesWhatLibTorchGives) {
  const Eigen::MatrixXf x = MatrixXd((bent(700, 1).x.array() - 5) / 2).cast<float>(),
                        y = MatrixXd(bent(700, 1).x.topRows(2)).cast<float>();
  for (const char* cell : {"gru", "lstm"})
    for (const std::int64_t input_units : {0, 12}) {
      NetworkTask task;
      task.inputs = 4;
      task.outputs = 2;
      task.training = {{x.data(), 300 * 4}, {y.data(), 300 * 2}, {0, 90}};
      task.held = {{x.data() + 300 * 4, 400 * 4}, {y.data() + 300 * 2, 400 * 2}};
      task.cell = cell;
      task.input_units = input_units;
      task.units = 20;
      task.chunk = 400;
      task.epochs = 15;
      task.learning_rate = 0.02;
      const TrainedNetwork net = torch_interface<NetworkTraining>().train(task);
      EXPECT_LT(net.held_losses.back(), 0.8 * net.held_losses.front()) << cell;
      Model m;
      m.meta = Value::object({{"stage", "recurrent_network"}, {"version", 1}, {"cell", cell}});
      set_arrays(m, net);
      m.set("x_mean", MatrixXd(VectorXd::Zero(4)));
      m.set("x_sd", MatrixXd(VectorXd::Ones(4)));
      m.set("y_mean", MatrixXd(VectorXd::Zero(2)));
      m.set("y_sd", MatrixXd(VectorXd::Ones(2)));
      const MatrixXd ours = apply("recurrent_network", m, x.rightCols(400).cast<double>());
      const MatrixXd theirs = Eigen::Map<const Eigen::MatrixXf>(net.held_output.data(), 2, 400).cast<double>();
      EXPECT_LT((ours - theirs).cwiseAbs().maxCoeff(), 1e-5) << cell;
      EXPECT_NEAR((theirs - y.rightCols(400).cast<double>()).squaredNorm() / 800, net.held_losses[net.best_epoch - 1],
                  1e-5)
          << cell;
    }
}

/// The output is a leaky sum of past inputs: nothing that sees one frame can know it.
TrainingMatrix leaky(Index frames, std::uint64_t seed) {
  const KeyedRandom random(seed, "leaky");
  TrainingMatrix t{MatrixXd(4, frames), MatrixXd(2, frames), {}, {}, {}};
  for (Index k = 0; k < frames; ++k) {
    for (Index i = 0; i < 4; ++i) t.x(i, k) = random.normal(k, static_cast<std::uint64_t>(i));
    for (Index i = 0; i < 2; ++i) t.y(i, k) = (k ? 0.8 * t.y(i, k - 1) : 0.0) + t.x(i, k) + 0.1 * random.normal(k, 9);
  }
  return t;
}

TEST(Torch, ARecurrentNetworkRemembers) {
  const TrainingMatrix test = leaky(1000, 2);
  const double power = test.y.squaredNorm();
  const Model still = fit("dense_network", leaky(3000, 1), Value::object({{"epochs", 20}}));
  const double without = (apply("dense_network", still, test.x).topRows(2) - test.y).squaredNorm() / power;
  for (const char* cell : {"gru", "lstm"}) {
    const Value params = Value::object({{"cell", cell}, {"units", 24}, {"epochs", 25}, {"learning_rate", 0.01}});
    const Model m = fit("recurrent_network", leaky(3000, 1), params);
    const MatrixXd out = apply("recurrent_network", m, test.x);
    const double error = (out.topRows(2) - test.y).squaredNorm() / power;
    EXPECT_LT(error, 0.15 * without) << cell;
    // the covariance from held-out training frames is that of the error on new ones
    EXPECT_NEAR(std::sqrt(out(2, 0) / ((out.row(0) - test.y.row(0)).squaredNorm() / 1000)), 1, 0.15) << cell;
    EXPECT_EQ(testing::model_difference(m, fit("recurrent_network", leaky(3000, 1), params)), "") << cell;
  }
}

// the loss of a first step over all chunks is the mean over frames, each run from its segment's start on: it does not
// depend on the order of the segments, but on where they start
TEST(Torch, ChunksDoNotCrossSegments) {
  TrainingMatrix glued = leaky(300, 1);
  glued.segment_starts = {0, 101, 104};
  const auto first_loss = [](TrainingMatrix t, const char* cell) {
    const Value params = Value::object({{"cell", cell},
                                        {"units", 8},
                                        {"epochs", 1},
                                        {"chunk", 20},
                                        {"validation", 0.0},
                                        {"covariance", "none"},
                                        {"batch", 1000}});
    return fit("recurrent_network", std::move(t), params).meta.at("training").as_array()[0].at("loss").as_number();
  };
  TrainingMatrix moved = glued;
  moved.x << glued.x.rightCols(196), glued.x.leftCols(104);
  moved.y << glued.y.rightCols(196), glued.y.leftCols(104);
  moved.segment_starts = {0, 196, 297};
  TrainingMatrix joined = glued;
  joined.segment_starts = {0};
  for (const char* cell : {"gru", "lstm"}) {
    EXPECT_NEAR(first_loss(glued, cell), first_loss(moved, cell), 1e-6) << cell;
    EXPECT_GT(std::abs(first_loss(glued, cell) - first_loss(joined, cell)), 1e-5) << cell;
  }
}

TEST(Torch, ARecurrentTrainingGoesOnFromItsCheckpoint) {
  const Value params = Value::object({{"units", 8},
                                      {"epochs", 6},
                                      {"dropout", 0.2},
                                      {"input_noise", 0.1},
                                      {"input_dropout", 0.1},
                                      {"schedule", "cosine"}});
  const Model whole = fit("recurrent_network", leaky(400, 1), params);
  Context context;
  context.checkpoint = testing::temporary_folder() / "recurrent";
  int epochs = 0;
  context.cancelled = [&] { return ++epochs == 2; };
  EXPECT_THROW(fit("recurrent_network", leaky(400, 1), params, context), Interrupted);
  EXPECT_EQ(testing::model_difference(whole, fit("recurrent_network", leaky(400, 1), params, context)), "");
  EXPECT_EQ(epochs, 6);
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
  const Value& training = m.meta.at("training").as_array()[0];
  const auto epochs = training.at("epochs").as_integer(), best = training.at("best_epoch").as_integer();
  const Value& curve = m.meta.at("loss_curve").as_array()[0];
  EXPECT_EQ(static_cast<std::int64_t>(curve.at("training").size()), epochs);
  const auto& held_out = curve.at("held_out").as_array();
  ASSERT_EQ(static_cast<std::int64_t>(held_out.size()), epochs);
  for (const Value& loss : held_out) EXPECT_GE(loss.as_number(), training.at("loss").as_number());
  EXPECT_EQ(held_out[best - 1].as_number(), training.at("loss").as_number());
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
  const Value& training = m.meta.at("training").as_array()[0];
  EXPECT_EQ(training.get("epochs", 0), 7);
  EXPECT_EQ(training.get("best_epoch", 0), 7);
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
    task.training = {{x.data(), 400}, {y.data(), 200}};
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

// the same bits as without an interruption, wherever it was
TEST(Torch, AnInterruptedTrainingGoesOnFromItsCheckpoint) {
  for (const char* schedule : {"constant", "cosine"}) {
    Value params = small();
    params["networks"] = 2;
    params["schedule"] = schedule;
    params["weight_average"] = 0.9;
    const Model whole = fit("dense_network", bent(500, 1), params);
    Context context;
    context.checkpoint = testing::temporary_folder() / schedule;
    for (int stop_after = 1; stop_after <= 3; ++stop_after) {
      int epochs = 0;
      context.cancelled = [&] { return ++epochs >= stop_after; };
      EXPECT_THROW(fit("dense_network", bent(500, 1), params, context), Interrupted);
      EXPECT_EQ(epochs, stop_after);
    }
    // 1 + 2 + 3 of the 10 epochs are done: one network whole, one epoch of the other
    int epochs = 0;
    context.cancelled = [&] { return ++epochs < 0; };
    EXPECT_EQ(testing::model_difference(whole, fit("dense_network", bent(500, 1), params, context)), "");
    EXPECT_EQ(epochs, 4);
    // what is done is not done again, and another task does not take it
    epochs = 0;
    fit("dense_network", bent(500, 1), params, context);
    EXPECT_EQ(epochs, 0);
    params["seed"] = 1;
    fit("dense_network", bent(500, 1), params, context);
    EXPECT_EQ(epochs, 10);
  }
}

TEST(Torch, ABrokenCheckpointIsRefused) {
  Context context;
  context.checkpoint = testing::temporary_folder() / "broken";
  fit("dense_network", bent(100, 1), small(), context);
  const auto file = context.checkpoint / "network_0.safetensors";
  auto arrays = read_safetensors(file);
  const auto message = [&]() -> std::string {
    write_atomic(file, format_safetensors(arrays));
    try {
      fit("dense_network", bent(100, 1), small(), context);
    } catch (const DataError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message(), "");
  arrays["moment"] = arrays["best_loss"];
  EXPECT_THAT(message(), AllOf(HasSubstr(file.string()), HasSubstr("moment: expected an array of a training")));
  arrays.erase("moment");
  EXPECT_THAT(message(), HasSubstr("moment"));
}

TEST(Torch, ADivergingTrainingSaysWhereAndKeepsItsLastGoodCheckpoint) {
  // the decay alone multiplies the weights by -999 in each step
  const Value rate = Value::object({{"learning_rate", 1.0}, {"weight_decay", 1000.0}});
  Value dense = rate, recurrent = rate;
  dense["layers"] = Value::array();
  recurrent["units"] = 4;
  recurrent["batch"] = 2;
  for (const auto& [stage, params] : {std::pair("dense_network", dense), std::pair("recurrent_network", recurrent)}) {
    Context context;
    context.checkpoint = testing::temporary_folder() / stage;
    const std::string message = testing::message_of([&] { fit(stage, bent(300, 1), params, context); });
    EXPECT_THAT(message, ::testing::ContainsRegex("net: the loss is (NaN|infinite) at epoch [0-9]+, step [0-9]+ of "))
        << stage;
    const auto arrays = read_safetensors(context.checkpoint / "network_0.safetensors");
    const auto all_finite = [&](const char* name, auto zero) {
      const Tensor& t = arrays.at(name);
      for (std::size_t i = 0; i < t.elements(); ++i)
        if (!std::isfinite(reinterpret_cast<const decltype(zero)*>(t.data.data())[i])) return false;
      return t.elements() > 0;
    };
    EXPECT_TRUE(all_finite("weights", 0.0F)) << stage;
    EXPECT_TRUE(all_finite("best", 0.0F)) << stage;
    EXPECT_TRUE(all_finite("training_losses", 0.0)) << stage << ": at least one epoch";
  }
}

TEST(Torch, SeveralNetworksAreAveraged) {
  const TrainingMatrix test = bent(50, 2);
  Value params = small();
  params["networks"] = 3;
  const Model all = fit("dense_network", bent(500, 1), params);
  const Model first = fit("dense_network", bent(500, 1), small());
  // each network alone, cut out of the model of all
  MatrixXd mean = MatrixXd::Zero(2, 50);
  for (Index k = 0; k < 3; ++k) {
    Model one = all;
    one.meta["networks"] = 1;
    for (const auto& [name, tensor] : all.tensors())
      if (name.starts_with("weights") || name.starts_with("bias")) {
        const MatrixXd a = all.matrix(name);
        one.set(name, MatrixXd(a.middleRows(k * a.rows() / 3, a.rows() / 3)));
      }
    const MatrixXd out = apply("dense_network", one, test.x).topRows(2);
    mean += out / 3;
    if (k == 0) {
      EXPECT_EQ(out, apply("dense_network", first, test.x).topRows(2));
    }
  }
  EXPECT_LT(((apply("dense_network", all, test.x).topRows(2) - mean).array() / mean.array()).abs().maxCoeff(), 1e-12);
  EXPECT_EQ(all.meta.at("training").size(), 3u);
  // the covariance is that of the mean
  const MatrixXd error = (bent(500, 1).y - apply("dense_network", all, bent(500, 1).x).topRows(2)).rightCols(100);
  EXPECT_LT((all.matrix("Q") - error * error.transpose() / 100).norm(), 1e-9 * all.matrix("Q").norm());
  Model broken = all;
  broken.meta["networks"] = 5;
  EXPECT_THROW(apply("dense_network", broken, test.x), DataError);
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
