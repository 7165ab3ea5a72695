/// What the system grants a thread that must be in time, and how well this machine keeps time.
#pragma once

#include <cstdint>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "core/params.h"

namespace percept {

struct RealTimeParams {
  bool enable = true;
  std::int64_t priority = 50, cpu = -1;
  static constexpr auto fields() {
    return std::tuple{
        field("enable", &RealTimeParams::enable, "",
              "Ask the system for a real-time thread (SCHED_FIFO) and for memory that is never swapped out."),
        field("priority", &RealTimeParams::priority, "1", "Its real-time priority.", 1, 99),
        field("cpu", &RealTimeParams::cpu, "1", "The processor core it stays on; -1: any.", -1, 4095)};
  }
};

/// Makes the calling thread a real-time one as far as permitted, and keeps the memory that the program has by now in
/// place (what is allocated later must not fail for it). Returns a
/// sentence for everything that was not granted, with what would grant it.
std::vector<std::string> enter_real_time(const RealTimeParams& params);

/// Gives another thread a priority just below, where permitted: one that brings packets to the real-time thread or takes
/// states from it, and mostly waits for the system.
void raise_thread(std::thread& thread, const RealTimeParams& params) noexcept;

/// How late a thread wakes up that asked for every `period_s`: what the machine adds to any deadline.
struct Jitter {
  std::int64_t wakeups = 0;
  double median_s = 0, p99_s = 0, p999_s = 0, max_s = 0;
  double clock_step_s = 0;  ///< smallest step seen of the steady clock
};
/// Measures on a thread of its own, real-time where permitted.
Jitter measure_jitter(double period_s, double duration_s, const RealTimeParams& params);

}  // namespace percept
