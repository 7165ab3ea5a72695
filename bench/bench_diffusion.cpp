/// The network of image diffusion models: a training step, sampling, and what a trained prior fills in of digits of which
/// half the pixels are missing. The folder PERCEPT_BENCH_MODEL, where it is set, is given the weights that are timed and
/// what the network makes of one batch, so that a peer can show that it computes the same.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "core/module.h"
#include "data/prior.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/image_prior.h"
#include "reconstruction/diffusion/networks.h"
#include "reconstruction/diffusion/sampler.h"
#include "reconstruction/stages.h"

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

/// The digits of mnist_t10k, all but the last 128 of which a prior was trained on. Of those, how samplers are set was
/// chosen on the last 64; the first 64 are filled in.
struct Digits {
  Eigen::MatrixXd images;
  Model prior;
  double seconds = 0;  ///< of a step of 32 images
};
const Digits& digits() {
  static const Digits made = [] {
    Digits d;
    PriorSpec spec;
    spec.name = "digits";
    spec.images = {"mnist_t10k.image"};
    const Recording set = data::load_priors({spec}, ".")[0];
    d.images = set.streams[0].matrix();
    const auto stages = reconstruction_stages();
    const auto& info =
        *std::find_if(stages.begin(), stages.end(), [](auto& i) { return i.name == ImagePrior::kStage; });
    TrainingMatrix t;
    t.x = d.images.leftCols(d.images.cols() - 2 * kImages);
    t.y.resize(0, t.x.cols());
    Context context;
    context.node = "bench";
    const double cpu = cpu_seconds();
    constexpr std::int64_t kSteps = 1300;
    d.prior = info.make_fitter(Value::object({{"steps", kSteps}}), "bench")
                  ->fit(MemoryData(item_format({28, 28}), {}, std::move(t)), context);
    d.seconds = (cpu_seconds() - cpu) / static_cast<double>(kSteps);
    return d;
  }();
  return made;
}

/// A random half of the pixels is seen, another half for each eight digits, as they are or with noise of `sd` hundredths
/// where the range is 1. Levels begin where the noise hides a digit, not at the 80 that the network was trained up to, and
/// DDNM draws all of its noise anew (eta = 1).
void inpaint(benchmark::State& state, const char* name) {
  const double sd = static_cast<double>(state.range(0)) / 100;
  const Digits& d = digits();
  const ImagePrior prior(d.prior);
  const auto denoiser = prior.denoiser(1);
  Value params = Value::object({{"steps", 50}, {"sigma_max", 5 * prior.scale()}, {"sigma_min", 0.01 * prior.scale()}});
  if (std::string(name) == "daps") {
    params["move"] = "exact";
    params["data_sd"] = 0.2;
  } else {
    params["eta"] = 1.0;
  }
  const auto sampler = make_sampler(name, params, "bench");
  const Eigen::MatrixXf truth = d.images.rightCols(2 * kImages).leftCols(kImages).cast<float>();
  const KeyedRandom random(2, "inpainting");
  double psnr = 0;
  const double cpu = cpu_seconds();
  for (auto _ : state) {
    psnr = 0;
    for (Index first = 0; first < kImages; first += 8) {
      std::vector<Index> pixels(784);
      std::vector<double> luck(784);
      for (Index i = 0; i < 784; ++i) {
        pixels[static_cast<std::size_t>(i)] = i;
        luck[static_cast<std::size_t>(i)] = random.uniform(first, static_cast<std::uint64_t>(i));
      }
      std::sort(pixels.begin(), pixels.end(), [&](Index a, Index b) {
        return luck[static_cast<std::size_t>(a)] < luck[static_cast<std::size_t>(b)];
      });
      pixels.resize(392);
      MaskOperator mask(784, pixels);
      Measurement seen{&mask, {}, sd};
      const Batch some = truth.middleCols(first, 8);
      mask.apply(some, seen.y);
      Task task;
      for (Index k = 0; k < 8; ++k) {
        task.keys.push_back(first + k);
        for (Index i = 0; i < seen.y.rows(); ++i)
          seen.y(i, k) += static_cast<float>(sd * random.normal(100 + first + k, static_cast<std::uint64_t>(i)));
      }
      task.denoiser = denoiser.get();
      task.measurement = &seen;
      const Batch x = draw(*sampler, task).x.cwiseMax(0.0F).cwiseMin(1.0F);
      for (Index k = 0; k < 8; ++k)
        psnr -= 10 * std::log10(static_cast<double>((x.col(k) - some.col(k)).squaredNorm()) / 784) / kImages;
    }
  }
  state.counters["psnr_db"] = psnr;
  state.counters["cpu_s"] = (cpu_seconds() - cpu) / static_cast<double>(state.iterations() * kImages);
  state.counters["training_step_cpu_s"] = d.seconds;
}

BENCHMARK(train_step)->ArgName("threads")->Arg(1)->Iterations(1);
BENCHMARK(sample)->ArgName("threads")->Arg(1)->Iterations(2);
BENCHMARK_CAPTURE(inpaint, ddnm, "ddnm")->ArgName("noise")->Arg(0)->Arg(5)->Iterations(1);
BENCHMARK_CAPTURE(inpaint, daps, "daps")->ArgName("noise")->Arg(0)->Arg(5)->Iterations(1);

}  // namespace
}  // namespace percept::diffusion

BENCHMARK_MAIN();
