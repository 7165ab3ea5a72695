/// Counts heap allocations. Eigen and C libraries do not use operator new, so malloc itself is counted:
/// a test program that links this file has its own malloc, calloc, realloc, aligned_alloc, memalign and posix_memalign,
/// which count and hand on to the C library.
#pragma once

#include <cstdint>

namespace percept::testing {

/// Allocations of the calling thread since it was made.
///
///     AllocationCounter counter;
///     stage.process(block, out);
///     EXPECT_EQ(counter.count(), 0);
class AllocationCounter {
 public:
  AllocationCounter();
  std::int64_t count() const;
  /// False under the address and thread sanitizers (they bring their own malloc) and off glibc: count() is then 0.
  static bool available();

 private:
  std::int64_t start_;
};

}  // namespace percept::testing
