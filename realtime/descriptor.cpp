#include "realtime/descriptor.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "core/error.h"
#include "realtime/clock.h"

namespace percept {

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

bool wait_readable(int fd, int wake, std::int64_t timeout_ns) noexcept {
  pollfd fds[2] = {{fd, POLLIN, 0}, {wake, POLLIN, 0}};
  const std::int64_t until = steady_ns() + std::max<std::int64_t>(timeout_ns, 0);
  for (;;) {
    const std::int64_t left = std::max<std::int64_t>(until - steady_ns(), 0);
    const timespec time{left / 1'000'000'000, left % 1'000'000'000};
    const int n = ::ppoll(fds, wake >= 0 ? 2 : 1, &time, nullptr);
    if (n < 0 && errno == EINTR) continue;
    return n > 0 && fds[1].revents == 0 && fds[0].revents != 0;
  }
}

Descriptor make_wake() {
  Descriptor fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (fd.get() < 0) throw Error(fmt::format("an event descriptor cannot be had: {}", std::strerror(errno)));
  return fd;
}
void wake(const Descriptor& wake) noexcept {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake.get(), &one, sizeof one);
}

NoBrokenPipe::NoBrokenPipe() noexcept {
  sigset_t pending;
  sigpending(&pending);
  was_pending_ = sigismember(&pending, SIGPIPE);
  sigemptyset(&pipe_);
  sigaddset(&pipe_, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
}
NoBrokenPipe::~NoBrokenPipe() {
  const timespec none{};
  if (!was_pending_)
    while (sigtimedwait(&pipe_, nullptr, &none) == -1 && errno == EINTR) {
    }
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace percept
