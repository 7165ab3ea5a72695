/// What the sources share that wait for the system.
#pragma once

#include <csignal>
#include <cstdint>
#include <utility>

namespace percept {

/// Owns a file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }

 private:
  int fd_;
};
/// Waits until the descriptor can be read or `wake` is written to. False: nothing came in time, or it was woken.
bool wait_readable(int fd, int wake, std::int64_t timeout_ns) noexcept;
/// An eventfd to end wait_readable() with. Throws Error.
Descriptor make_wake();
void wake(const Descriptor& wake) noexcept;

/// While it lives a write to a connection that broke is an error of this thread's call, not the end of the program.
class NoBrokenPipe {
 public:
  NoBrokenPipe() noexcept;
  ~NoBrokenPipe();
  NoBrokenPipe(const NoBrokenPipe&) = delete;
  NoBrokenPipe& operator=(const NoBrokenPipe&) = delete;

 private:
  sigset_t pipe_, before_;
  bool was_pending_ = false;
};

}  // namespace percept
