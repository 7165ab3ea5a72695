/// Time of single decoder steps, each timed by itself: the median and the 99th percentile are what a live loop feels.
/// And of whole fits and predictions of kernel maps, for bench/decoders.py.
#include <benchmark/benchmark.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/each_step.h"
#include "core/graph.h"
#include "core/threads.h"
#include "decoders/stages.h"
#include "filters/stages.h"
#include "numerics/gaussian_process.h"
#include "numerics/random.h"
#include "numerics/ridge.h"

namespace percept {
namespace {

using Eigen::MatrixXd;

constexpr Index kFrames = 64;

void set_normals(Model& m, const std::string& name, Index rows, Index cols) {
  const KeyedRandom random(1, name);
  MatrixXd a(rows, cols);
  for (Index i = 0; i < a.size(); ++i) a.data()[i] = random.normal(i) / std::sqrt(static_cast<double>(cols));
  m.set(name, a);
}

/// A network's model with the scales of inputs and outputs, without its layers.
Model network(const char* stage, Index inputs, Index outputs) {
  Model m;
  m.meta = Value::object({{"stage", stage}, {"version", 1}});
  m.set("x_mean", MatrixXd(MatrixXd::Zero(inputs, 1)));
  m.set("x_sd", MatrixXd(MatrixXd::Ones(inputs, 1)));
  m.set("y_mean", MatrixXd(MatrixXd::Zero(outputs, 1)));
  m.set("y_sd", MatrixXd(MatrixXd::Ones(outputs, 1)));
  m.set("Q", MatrixXd(0.3 * MatrixXd::Identity(outputs, outputs)));
  return m;
}

/// Pushes one frame after the other through a graph of these nodes.
void each_frame(benchmark::State& state, Index inputs, const std::vector<NodeSpec>& nodes) {
  Registry registry;
  registry.add(decoders_stages());
  registry.add(filters_stages());
  StreamFormat format = time_format(inputs, 100.0);
  Graph graph(registry, {{"x", format}}, nodes, Scalar::f64, 1, {});
  const KeyedRandom random(2, "frames");
  MatrixXd x(inputs, kFrames);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = random.normal(i);
  Index t = 0;
  each_step(state, [&] {
    Block block;
    block.first_frame = t;
    block.x = ConstFrames(x.col(t++ % kFrames).data(), Scalar::f64, inputs, 1, inputs);
    graph.push(0, block);
  });
}

NodeSpec node(const char* use, Model model) {
  NodeSpec spec;
  spec.name = spec.use = use;
  spec.model = std::make_shared<Model>(std::move(model));
  return spec;
}

/// A network of 64-64 units and the discriminative Kalman filter behind it, as one graph.
void network_dkf_step(benchmark::State& state) {
  const Index inputs = state.range(0), d = state.range(1);
  Model map = network("dense_network", inputs, d);
  map.meta["activation"] = "tanh";
  const Index sizes[] = {inputs, 64, 64, d};
  for (int i = 0; i < 3; ++i) {
    set_normals(map, "weights." + std::to_string(i), sizes[i + 1], sizes[i]);
    set_normals(map, "bias." + std::to_string(i), sizes[i + 1], 1);
  }
  Model filter;
  filter.meta = Value::object(
      {{"stage", "dkf"}, {"version", 1}, {"output_rows", std::vector<std::string>(static_cast<std::size_t>(d))}});
  filter.set("A", MatrixXd(0.9 * MatrixXd::Identity(d, d)));
  filter.set("Gamma", MatrixXd(0.19 * MatrixXd::Identity(d, d)));
  filter.set("S", MatrixXd(MatrixXd::Identity(d, d)));
  filter.set("z_mean", MatrixXd(MatrixXd::Zero(d, 1)));
  each_frame(state, inputs, {node("dense_network", std::move(map)), node("dkf", std::move(filter))});
}
BENCHMARK(network_dkf_step)->ArgNames({"inputs", "states"})->UseManualTime()->Args({192, 4});

void recurrent_step(benchmark::State& state, const char* cell) {
  const Index inputs = state.range(0), units = state.range(1), before = state.range(2);
  const Index gates = std::string(cell) == "gru" ? 3 : 4, in = before > 0 ? before : inputs;
  Model m = network("recurrent_network", inputs, 4);
  m.meta["cell"] = cell;
  if (before > 0) {
    set_normals(m, "input.weights", before, inputs);
    set_normals(m, "input.bias", before, 1);
  }
  set_normals(m, "cell.weights_x", gates * units, in);
  set_normals(m, "cell.weights_h", gates * units, units);
  set_normals(m, "cell.bias_x", gates * units, 1);
  set_normals(m, "cell.bias_h", gates * units, 1);
  set_normals(m, "output.weights", 4, units);
  set_normals(m, "output.bias", 4, 1);
  each_frame(state, inputs, {node("recurrent_network", std::move(m))});
}
BENCHMARK_CAPTURE(recurrent_step, gru, "gru")
    ->ArgNames({"inputs", "units", "before"})
    ->UseManualTime()
    ->Args({95, 128, 0})
    ->Args({95, 128, 128});
BENCHMARK_CAPTURE(recurrent_step, lstm, "lstm")
    ->ArgNames({"inputs", "units", "before"})
    ->UseManualTime()
    ->Args({95, 128, 0});

// --- kernel maps: frames x inputs, one output, hyperparameters given ------------------------------------------------

MatrixXd normal_frames(const char* purpose, Index inputs, Index frames) {
  const KeyedRandom random(3, purpose);
  MatrixXd x(inputs, frames);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = random.normal(i);
  return x;
}

struct GaussianProcessTask {
  Kernel kernel;
  GaussianProcess gp;
  MatrixXd x;
  Eigen::VectorXd y;

  GaussianProcessTask(Index frames, Index inputs)
      : kernel({KernelShape::squared_exponential}, KernelLengths::one, {inputs}), gp{Eigen::VectorXd(2), 0.1},
        x(normal_frames("x", inputs, frames)), y(x.row(0).array().sin()) {
    gp.theta << -std::log(static_cast<double>(inputs)), 0;  // length² = inputs
  }
};

void gaussian_process_fit(benchmark::State& state) {
  const GaussianProcessTask t(state.range(0), state.range(1));
  for (auto _ : state) benchmark::DoNotOptimize(exact_posterior(t.kernel, t.gp, t.x, t.y, false, "gp"));
}
BENCHMARK(gaussian_process_fit)->ArgNames({"frames", "inputs"})->Args({5000, 100})->Iterations(1);

void gaussian_process_gradient(benchmark::State& state) {
  const GaussianProcessTask t(state.range(0), state.range(1));
  Eigen::VectorXd gradient;
  for (auto _ : state) benchmark::DoNotOptimize(log_marginal_likelihood(t.kernel, t.gp, t.x, t.y, &gradient));
}
BENCHMARK(gaussian_process_gradient)->ArgNames({"frames", "inputs"})->Args({5000, 100})->Iterations(1);

/// Images of 28 x 28 from voxels, each pixel with its own alpha; folds = 0 leaves one frame out. The images are linear in
/// the voxels with noise, so that pixels differ in what is best for them.
void ridge_fit(benchmark::State& state) {
  const Index frames = state.range(0), inputs = state.range(1), outputs = state.range(2), folds = state.range(3);
  const MatrixXd x = normal_frames("voxels", inputs, frames);
  MatrixXd y = normal_frames("noise", outputs, frames);
  for (Index k = 0; k < outputs; ++k) y.row(k) += static_cast<double>(k % 8) * x.row(k % inputs);
  RidgeOptions options{.alphas = {10, 30, 100, 300, 1000, 3000, 10000}, .per_target = true};
  const auto fold = inner_folds({}, frames, folds);
  if (folds > 0) options.folds = fold;
  for (auto _ : state) benchmark::DoNotOptimize(fit_ridge(x, y, options, "ridge"));
}
BENCHMARK(ridge_fit)
    ->ArgNames({"frames", "inputs", "outputs", "folds"})
    ->Args({90, 3092, 784, 0})
    ->Args({90, 3092, 784, 10})
    ->Iterations(5);

/// 1000 frames through the stage, as one block of the offline runner.
void predict(benchmark::State& state, const GaussianProcessTask& t, const char* use, Model model) {
  constexpr Index kAt = 1000;
  Registry registry;
  registry.add(filters_stages());
  const Index inputs = t.x.rows();
  Graph graph(registry, {{"x", time_format(inputs, 100.0)}}, {node(use, std::move(model))}, Scalar::f64, kAt, {});
  const MatrixXd at = normal_frames("at", inputs, kAt);
  Block block;
  block.first_frame = 0;
  block.x = ConstFrames(at.data(), Scalar::f64, inputs, kAt, inputs);
  for (auto _ : state) {
    graph.push(0, block);
    block.first_frame += kAt;
  }
}

void gaussian_process_predict(benchmark::State& state) {
  const GaussianProcessTask t(state.range(0), state.range(1));
  Model m;
  m.meta = Value::object({{"stage", "gaussian_process"},
                          {"version", 1},
                          {"kernels", std::vector<std::string>{"squared_exponential"}},
                          {"lengths", "one"},
                          {"input_shape", std::vector<std::int64_t>{state.range(1)}}});
  m.set("x", t.x);
  m.set("x_mean", MatrixXd(MatrixXd::Zero(state.range(1), 1)));
  m.set("y_mean", MatrixXd(MatrixXd::Zero(1, 1)));
  m.set("theta", MatrixXd(t.gp.theta));
  m.set("weights", MatrixXd(t.y));
  predict(state, t, "gaussian_process", std::move(m));
}
BENCHMARK(gaussian_process_predict)->ArgNames({"frames", "inputs"})->Args({5000, 100})->Iterations(5);

void nadaraya_watson_predict(benchmark::State& state) {
  const GaussianProcessTask t(state.range(0), state.range(1));
  Model m;
  m.meta = Value::object({{"stage", "nadaraya_watson"}, {"version", 1}});
  m.set("x", t.x);
  m.set("y", MatrixXd(t.y.transpose()));
  m.set("bandwidth", std::sqrt(static_cast<double>(state.range(1))));
  predict(state, t, "nadaraya_watson", std::move(m));
}
BENCHMARK(nadaraya_watson_predict)->ArgNames({"frames", "inputs"})->Args({5000, 100})->Iterations(5);

}  // namespace
}  // namespace percept

int main(int argc, char** argv) {
  percept::restart_with_fast_blas(argv);  // as the program does
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
