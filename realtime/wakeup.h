/// One thread waits, with a limit, until another says that there is something. Nobody holds a lock.
#pragma once

#include <atomic>
#include <cstdint>

namespace percept {

/// Who waits reads now(), looks for work, and waits with what it read: a notify() in between is not missed.
class Wakeup {
 public:
  std::uint32_t now() const noexcept { return count_.load(std::memory_order_acquire); }
  void notify() noexcept;
  /// Until now() is another than `seen`, or the time is over.
  void wait(std::uint32_t seen, std::int64_t timeout_ns) noexcept;

 private:
  std::atomic<std::uint32_t> count_{0};
  std::atomic<std::uint32_t> waiting_{0};
};

}  // namespace percept
