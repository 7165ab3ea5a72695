#include "realtime/wakeup.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

#include "realtime/clock.h"

namespace percept {

// std::atomic::wait has no time limit, a condition variable has a lock: the system call that both stand on has neither
static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));

void Wakeup::notify() noexcept {
  count_.fetch_add(1, std::memory_order_seq_cst);
  if (waiting_.load(std::memory_order_seq_cst) > 0)
    ::syscall(SYS_futex, &count_, FUTEX_WAKE_PRIVATE, 1 << 30, nullptr, nullptr, 0);
}

void Wakeup::wait(std::uint32_t seen, std::int64_t timeout_ns) noexcept {
  if (timeout_ns <= 0) return;
  const std::int64_t until = steady_ns() + timeout_ns;
  waiting_.fetch_add(1, std::memory_order_seq_cst);
  while (count_.load(std::memory_order_seq_cst) == seen) {
    const std::int64_t left = until - steady_ns();
    if (left <= 0) break;
    const timespec time{left / 1'000'000'000, left % 1'000'000'000};
    ::syscall(SYS_futex, &count_, FUTEX_WAIT_PRIVATE, seen, &time, nullptr, 0);
  }
  waiting_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace percept
