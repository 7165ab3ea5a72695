/// Times single steps of a real-time loop, each by itself.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <vector>

namespace percept {

/// Runs step() for every iteration and adds the percentiles as counters [µs].
template <class Step>
void each_step(benchmark::State& state, Step step) {
  std::vector<double> us;
  us.reserve(1 << 20);
  for (int i = 0; i < 100; ++i) step();
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    step();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    state.SetIterationTime(took.count());
    if (us.size() < us.capacity()) us.push_back(took.count() * 1e6);
  }
  std::sort(us.begin(), us.end());
  const auto at = [&](double p) { return us[static_cast<std::size_t>(p * static_cast<double>(us.size() - 1))]; };
  state.counters["median_us"] = at(0.5);
  state.counters["p99_us"] = at(0.99);
  state.counters["max_us"] = us.back();
}

}  // namespace percept
