/// The network of image diffusion models: a training step and sampling. The folder PERCEPT_BENCH_MODEL, where it is set,
/// is given the weights that are timed and what the network makes of one batch, so that a peer can show that it computes
/// the same.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "core/module.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/image_prior.h"
#include "reconstruction/diffusion/networks.h"
#include "reconstruction/diffusion/sampler.h"

namespace percept::diffusion {
namespace {

constexpr Index kImages = 64;

UnetShape shape() {
  UnetShape s;
  s.image = {28, 28};
  return s;
}

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

Eigen::MatrixXf normals(Index rows, Index cols, const char* name) {
  const KeyedRandom random(1, name);
  Eigen::MatrixXf x(rows, cols);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>(random.normal(i));
  return x;
}

void train_step(benchmark::State& state) {
  const int threads = static_cast<int>(state.range(0));
  const Eigen::MatrixXf images = 0.5F * normals(784, 1024, "images");
  UnetTask task;
  task.shape = shape();
  task.training = {{images.data(), static_cast<std::size_t>(images.size())}};
  task.batch = kImages;
  task.threads = threads;
  task.where = "bench";
  task.steps = 12;
  std::vector<double> cpu, wall;
  double cpu_before = 0;
  auto before = std::chrono::steady_clock::now();
  task.on_step = [&](std::int64_t step, double) {
    const auto now = std::chrono::steady_clock::now();
    if (step > 2) {
      cpu.push_back(cpu_seconds() - cpu_before);
      wall.push_back(std::chrono::duration<double>(now - before).count());
    }
    cpu_before = cpu_seconds();
    before = std::chrono::steady_clock::now();
  };
  for (auto _ : state) torch_interface<DiffusionNetworks>().train(task);
  const auto median = [](std::vector<double> v) {
    std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
    return v[v.size() / 2];
  };
  state.counters["cpu_s"] = median(cpu);
  state.counters["wall_s"] = median(wall);
}

void sample(benchmark::State& state) {
  const int threads = static_cast<int>(state.range(0));
  const Model model = untrained_prior(shape());
  const ImagePrior prior(model);
  if (const char* folder = std::getenv("PERCEPT_BENCH_MODEL")) {
    Model shown = model;
    const Eigen::MatrixXf x = normals(784, 4, "shown");
    Eigen::MatrixXf y;
    prior.network(threads)->forward(x, 0.3, {}, y);
    shown.set_f32("shown.x", x);
    shown.set_f32("shown.y", y);
    shown.save(folder);
  }
  const auto denoiser = prior.denoiser(threads);
  const auto euler = make_sampler("euler", Value::object({{"steps", 20}}), "bench");
  Task task;
  task.denoiser = denoiser.get();
  task.keys = {1};
  task.samples = kImages;
  draw(*euler, task);
  const double cpu = cpu_seconds();
  const auto before = std::chrono::steady_clock::now();
  double runs = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(draw(*euler, task).x.data());
    runs += kImages;
  }
  state.counters["cpu_s"] = (cpu_seconds() - cpu) / runs;
  state.counters["wall_s"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count() / runs;
}

BENCHMARK(train_step)->ArgName("threads")->Arg(1)->Iterations(1);
BENCHMARK(sample)->ArgName("threads")->Arg(1)->Iterations(2);

}  // namespace
}  // namespace percept::diffusion

BENCHMARK_MAIN();
