#include "realtime/real_time.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <thread>

#include "realtime/clock.h"
#include "realtime/latency.h"

namespace percept {

std::vector<std::string> enter_real_time(const RealTimeParams& p) {
  std::vector<std::string> refused;
  if (p.cpu >= 0) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(static_cast<std::size_t>(p.cpu), &cores);
    if (const int error = pthread_setaffinity_np(pthread_self(), sizeof cores, &cores))
      refused.push_back(fmt::format("core {} cannot be had: {}", p.cpu, std::strerror(error)));
  }
  if (!p.enable) return refused;
  const sched_param priority{static_cast<int>(p.priority)};
  if (const int error = pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority))
    refused.push_back(fmt::format("no real-time priority: {} (ulimit -r {}, or rtprio in /etc/security/limits.conf)",
                                  std::strerror(error), p.priority));
  if (::mlockall(MCL_CURRENT) != 0)
    refused.push_back(
        fmt::format("memory is not locked: {} (ulimit -l unlimited, or memlock in "
                    "/etc/security/limits.conf)",
                    std::strerror(errno)));
  return refused;
}

void raise_thread(std::thread& thread, const RealTimeParams& p) noexcept {
  if (!p.enable || !thread.joinable()) return;
  const sched_param priority{static_cast<int>(std::max<std::int64_t>(p.priority - 1, 1))};
  // refused with the real-time thread's own, which says so
  [[maybe_unused]] const int ignored = pthread_setschedparam(thread.native_handle(), SCHED_FIFO, &priority);
}

Jitter measure_jitter(double period_s, double duration_s, const RealTimeParams& params) {
  Jitter j;
  LatencyHistogram late;
  std::int64_t step = 1'000'000'000;
  std::thread thread([&] {
    enter_real_time(params);
    for (int i = 0; i < 1000; ++i) {
      const std::int64_t a = steady_ns();
      std::int64_t b = a;
      while (b == a) b = steady_ns();
      step = std::min(step, b - a);
    }
    const auto period = static_cast<std::int64_t>(period_s * 1e9);
    const std::int64_t end = steady_ns() + static_cast<std::int64_t>(duration_s * 1e9);
    for (std::int64_t due = steady_ns() + period; due < end; due += period) {
      const timespec at{due / 1'000'000'000, due % 1'000'000'000};
      while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {
      }
      late.add(steady_ns() - due);
      ++j.wakeups;
    }
  });
  thread.join();
  j.median_s = late.quantile_s(0.5);
  j.p99_s = late.quantile_s(0.99);
  j.p999_s = late.quantile_s(0.999);
  j.max_s = late.max_s();
  j.clock_step_s = static_cast<double>(step) * 1e-9;
  return j;
}

}  // namespace percept
