/// The newest state of a thread that never waits, for another that looks now and then.
#pragma once

#include <array>
#include <atomic>

namespace percept {

/// One thread puts, one looks: three copies, of which each thread owns one and the third is handed over.
template <class T>
class Latest {
 public:
  /// The copy that the putting thread fills before put().
  T& room() noexcept { return copies_[writing_].value; }
  void put() noexcept { writing_ = middle_.exchange(writing_ | kFresh, std::memory_order_acq_rel) & kIndex; }
  /// The newest that was put; stays until the next call.
  const T& look() noexcept {
    if (middle_.load(std::memory_order_relaxed) & kFresh)
      reading_ = middle_.exchange(reading_, std::memory_order_acq_rel) & kIndex;
    return copies_[reading_].value;
  }

 private:
  static constexpr unsigned kFresh = 4, kIndex = 3;
  struct alignas(64) Copy {
    T value{};
  };
  std::array<Copy, 3> copies_;
  unsigned writing_ = 0, reading_ = 1;
  std::atomic<unsigned> middle_{2};
};

}  // namespace percept
