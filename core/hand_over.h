/// Marks for the thread sanitizer where one thread hands memory to another through oneTBB: Debian's oneTBB is not
/// instrumented, so the sanitizer does not see that its tasks follow each other. Nothing in other builds.
#pragma once

#if defined(__SANITIZE_THREAD__)
extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif

namespace percept {

/// What this thread did until here happened before what follows a receive() of the same mark.
inline void hand_over([[maybe_unused]] void* mark) noexcept {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(mark);
#endif
}

inline void receive([[maybe_unused]] void* mark) noexcept {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(mark);
#endif
}

/// The same at the end of a scope, also when an exception ends it.
class HandOverAtEnd {
 public:
  explicit HandOverAtEnd(void* mark) noexcept : mark_(mark) {}
  ~HandOverAtEnd() { hand_over(mark_); }
  HandOverAtEnd(const HandOverAtEnd&) = delete;
  HandOverAtEnd& operator=(const HandOverAtEnd&) = delete;

 private:
  void* mark_;
};
class ReceiveAtEnd {
 public:
  explicit ReceiveAtEnd(void* mark) noexcept : mark_(mark) {}
  ~ReceiveAtEnd() { receive(mark_); }
  ReceiveAtEnd(const ReceiveAtEnd&) = delete;
  ReceiveAtEnd& operator=(const ReceiveAtEnd&) = delete;

 private:
  void* mark_;
};

}  // namespace percept
