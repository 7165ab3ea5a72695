/// Time of single filter steps, each timed by itself: the median and the 99th percentile are what a live loop feels.
#include <benchmark/benchmark.h>

#include <chrono>

#include "bench/each_step.h"
#include "filters/dkf.h"
#include "filters/kalman.h"
#include "numerics/random.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using Clock = std::chrono::steady_clock;

MatrixXd normals(Index rows, Index columns, const char* purpose) {
  const KeyedRandom random(1, purpose);
  MatrixXd m(rows, columns);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = random.normal(i);
  return m;
}

MatrixXd spd(Index n, const char* purpose) {
  const MatrixXd m = normals(n, n + 8, purpose);
  return m * m.transpose() / static_cast<double>(n) + MatrixXd::Identity(n, n);
}

KalmanModel kalman_model(Index d, Index n) {
  return {0.95 * MatrixXd::Identity(d, d), 0.1 * spd(d, "gamma"), normals(n, d, "c"), spd(n, "r"), spd(d, "v0")};
}

void kalman_step(benchmark::State& state) {
  const Index n = state.range(0), d = state.range(1), frames = 64;
  Kalman filter(kalman_model(d, n), state.range(2) != 0, "bench");
  const MatrixXd x = normals(n, frames, "x");
  Index t = 0;
  each_step(state, [&] { filter.step(x.col(t++ % frames).data()); });
}
BENCHMARK(kalman_step)
    ->ArgNames({"channels", "states", "steady"})
    ->UseManualTime()
    ->Args({96, 4, 0})
    ->Args({1024, 6, 0})
    ->Args({1024, 6, 1});

/// One dead channel, as after a broken electrode: the same rows are missing in every frame.
void kalman_step_dead_channel(benchmark::State& state) {
  const Index n = 1024, frames = 64;
  Kalman filter(kalman_model(6, n), false, "bench");
  MatrixXd x = normals(n, frames, "x");
  x.row(17).setConstant(NAN);
  Index t = 0;
  each_step(state, [&] { filter.step(x.col(t++ % frames).data()); });
}
BENCHMARK(kalman_step_dead_channel)->UseManualTime();

void dkf_step(benchmark::State& state, DkfFallback mode, double wide) {
  const Index d = state.range(0), frames = 64;
  const MatrixXd a = 0.95 * MatrixXd::Identity(d, d), gamma = 0.1 * spd(d, "gamma");
  const MatrixXd s = stationary_covariance(a, gamma, "bench");
  const MatrixXd q = 0.5 * wide * (s + MatrixXd(s.diagonal().asDiagonal()));
  Dkf filter({a, gamma, s}, mode, "bench");
  const MatrixXd f = normals(d, frames, "f");
  Index t = 0;
  each_step(state, [&] { filter.step(f.col(t++ % frames).data(), q.data()); });
}
BENCHMARK_CAPTURE(dkf_step, robust, DkfFallback::robust, 0.5)
    ->ArgName("states")
    ->UseManualTime()
    ->Arg(2)
    ->Arg(4)
    ->Arg(6);
BENCHMARK_CAPTURE(dkf_step, robust_fallback, DkfFallback::robust, 2.0)->ArgName("states")->UseManualTime()->Arg(4);
BENCHMARK_CAPTURE(dkf_step, clip_fallback, DkfFallback::clip, 2.0)->ArgName("states")->UseManualTime()->Arg(4);
BENCHMARK_CAPTURE(dkf_step, always_robust, DkfFallback::always_robust, 0.5)->ArgName("states")->UseManualTime()->Arg(4);

/// 4096 frames at once; counter: µs a frame.
void kalman_batch(benchmark::State& state) {
  const Index n = 1024, d = 6, frames = 4096;
  Kalman filter(kalman_model(d, n), state.range(0) != 0, "bench");
  const MatrixXd x = normals(n, frames, "x");
  MatrixXd means;
  double seconds = 0;
  for (auto _ : state) {
    const auto start = Clock::now();
    filter.reset();
    filter_batch(filter, x, means, nullptr);
    const std::chrono::duration<double> took = Clock::now() - start;
    state.SetIterationTime(took.count());
    seconds += took.count();
  }
  state.counters["us_per_frame"] = seconds * 1e6 / static_cast<double>(state.iterations() * frames);
}
BENCHMARK(kalman_batch)->ArgName("steady")->UseManualTime()->Arg(0)->Arg(1);

}  // namespace
}  // namespace percept

BENCHMARK_MAIN();
