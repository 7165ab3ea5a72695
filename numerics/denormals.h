/// Keeps recursions fast and bounded in time: the tail of a filter on a silent row ends in numbers below 1e-308, on which
/// processors take a hundred times longer.
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#elif defined(__aarch64__)
#include <cstdint>
#endif

namespace percept {

/// While it lives, results of this thread that are too small for the normal range are zero. To be made before
/// the loop that calculates, and in the stage itself, so that offline and live runs give the same bits.
class FlushDenormals {
 public:
  FlushDenormals() noexcept : before_(get()) { set(before_ | kFlush); }
  ~FlushDenormals() { set(before_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__SSE2__)
  using Word = unsigned;
  static constexpr Word kFlush = 0x8040;  // results (bit 15) and operands (bit 6)
  static Word get() noexcept { return _mm_getcsr(); }
  static void set(Word w) noexcept { _mm_setcsr(w); }
#elif defined(__aarch64__)
  using Word = std::uint64_t;
  static constexpr Word kFlush = Word{1} << 24;
  static Word get() noexcept {
    Word w;
    asm volatile("mrs %0, fpcr" : "=r"(w));
    return w;
  }
  static void set(Word w) noexcept { asm volatile("msr fpcr, %0" : : "r"(w) : "memory"); }
#else
  using Word = unsigned;
  static constexpr Word kFlush = 0;
  static Word get() noexcept { return 0; }
  static void set(Word) noexcept {}
#endif
  Word before_;
};

}  // namespace percept
