#include "tests/support/alloc.h"

#include <cerrno>
#include <cstddef>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PERCEPT_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define PERCEPT_SANITIZED 1
#endif
#endif

#if defined(__GLIBC__) && !defined(PERCEPT_SANITIZED)
#define PERCEPT_COUNTS_MALLOC 1
#endif

namespace {
// initial-exec: reading it must never allocate, since malloc does
__attribute__((tls_model("initial-exec"))) constinit thread_local std::int64_t allocations = 0;
}  // namespace

namespace percept::testing {

AllocationCounter::AllocationCounter() : start_(allocations) {}
std::int64_t AllocationCounter::count() const { return allocations - start_; }

bool AllocationCounter::available() {
#ifdef PERCEPT_COUNTS_MALLOC
  return true;
#else
  return false;
#endif
}

}  // namespace percept::testing

#ifdef PERCEPT_COUNTS_MALLOC
extern "C" {
void* __libc_malloc(std::size_t bytes);
void* __libc_calloc(std::size_t n, std::size_t bytes);
void* __libc_realloc(void* p, std::size_t bytes);
void* __libc_memalign(std::size_t alignment, std::size_t bytes);

// free stays the C library's: the memory is its own
void* malloc(std::size_t bytes) noexcept {
  ++allocations;
  return __libc_malloc(bytes);
}
void* calloc(std::size_t n, std::size_t bytes) noexcept {
  ++allocations;
  return __libc_calloc(n, bytes);
}
void* realloc(void* p, std::size_t bytes) noexcept {
  ++allocations;
  return __libc_realloc(p, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) noexcept {
  ++allocations;
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  ++allocations;
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** out, std::size_t alignment, std::size_t bytes) noexcept {
  if (alignment % sizeof(void*) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0) return EINVAL;
  ++allocations;
  void* p = __libc_memalign(alignment, bytes);
  if (!p) return ENOMEM;
  *out = p;
  return 0;
}
}
#endif
