#include <dlfcn.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

#include "core/error.h"
#include "core/files.h"
#include "io/hdf5.h"

namespace percept::io {
namespace fs = std::filesystem;

namespace {

/// Beside the program, or in the bin folder of the tree that holds percept's library.
fs::path probe_program() {
  if (const char* set = std::getenv("PERCEPT_PROBE"); set && *set) return set;
  std::error_code ignored;
  std::vector<fs::path> places;
  if (const auto self = fs::read_symlink("/proc/self/exe", ignored); !self.empty())
    places.push_back(self.parent_path());
  Dl_info library{};
  if (dladdr(reinterpret_cast<const void*>(&sha256_file), &library) && library.dli_fname) {
    const auto folder = fs::absolute(library.dli_fname, ignored).parent_path();
    places.push_back(folder / "../bin");
    places.push_back(folder / "../../bin");  // lib/x86_64-linux-gnu
  }
  for (const auto& place : places)
    if (::access((place / "percept-probe").c_str(), X_OK) == 0) return place / "percept-probe";
  throw Error(
      "percept-probe, which reads foreign HDF5 and .mat files first, is not beside the program: set PERCEPT_PROBE to "
      "it");
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

/// What percept-probe said, and how it ended.
struct ProbeResult {
  std::string text;
  int status = 0;
  bool timed_out = false;
};

ProbeResult run_probe(const char* kind, const fs::path& file, double timeout_s) {
  const std::string program = probe_program().string();
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw Error(fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  Descriptor from(ends[0]), to(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, to.get(), 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  // a path that starts with '-' is a path all the same
  const std::string path = fs::absolute(file).string();
  const char* arguments[] = {program.c_str(), kind, path.c_str(), nullptr};
  pid_t child = -1;
  const int error = posix_spawn(&child, program.c_str(), &actions, nullptr, const_cast<char**>(arguments), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error) throw Error(fmt::format("cannot start {}: {}", program, std::strerror(error)));
  to.close();

  ProbeResult result;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
  for (;;) {  // its end of the pipe closes when it ends
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) {
      result.timed_out = true;
      ::kill(child, SIGKILL);
      break;
    }
    pollfd wait{from.get(), POLLIN, 0};
    if (::poll(&wait, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 1'000'000))) <= 0) continue;
    char buffer[4096];
    const ssize_t n = ::read(from.get(), buffer, sizeof buffer);
    if (n <= 0) break;
    if (result.text.size() < 65536) result.text.append(buffer, static_cast<std::size_t>(n));
  }
  while (::waitpid(child, &result.status, 0) < 0 && errno == EINTR) {
  }
  return result;
}

void probe_once(const char* kind, const fs::path& file, double timeout_s) {
  const auto bytes = require_file(file);
  struct stat s {};
  ::stat(file.c_str(), &s);
  using Stamp = std::tuple<dev_t, ino_t, off_t, std::int64_t, std::int64_t>;
  const std::pair<std::string, Stamp> key{kind, {s.st_dev, s.st_ino, s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec}};
  static std::mutex mutex;
  static std::map<std::pair<std::string, Stamp>, bool> passed;
  {
    std::lock_guard lock(mutex);
    if (passed.contains(key)) return;
  }
  const double limit = timeout_s + static_cast<double>(bytes) / 20e6;
  const auto result = run_probe(kind, file, limit);
  const std::string expected =
      std::string(kind) == "mat" ? "a .mat file that can be read safely" : "an HDF5 file that can be read safely";
  if (result.timed_out)
    throw DataError(file.string(), "", expected,
                    fmt::format("one that a child process did not finish in {:.0f} s", limit));
  if (WIFSIGNALED(result.status))
    throw DataError(file.string(), "", expected,
                    fmt::format("one that broke the library in a child process (signal {})", WTERMSIG(result.status)));
  if (WEXITSTATUS(result.status) == static_cast<int>(Exit::bad_input)) {
    // the child's own sentence, as its three parts
    std::string part[3];
    std::size_t at = 0;
    for (auto& p : part) {
      const auto end = result.text.find('\0', at);
      p = result.text.substr(at, end == result.text.npos ? end : end - at);
      at = end == result.text.npos ? result.text.size() : end + 1;
    }
    throw DataError(file.string(), part[0], part[1], part[2]);
  }
  if (WEXITSTATUS(result.status) != 0)
    throw DataError(
        file.string(), "", expected,
        fmt::format("one that a child process gave up on (exit {}) {}", WEXITSTATUS(result.status), result.text));
  std::lock_guard lock(mutex);
  passed[key] = true;
}

}  // namespace

void probe_foreign_hdf5(const fs::path& file, double timeout_s) {
  if (!is_hdf5(file)) throw DataError(file.string(), "", "an HDF5 file", "another kind of file");
  probe_once("hdf5", file, timeout_s);
}

void probe_foreign_mat(const fs::path& file, double timeout_s) { probe_once("mat", file, timeout_s); }

}  // namespace percept::io
