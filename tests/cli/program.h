/// Runs the program as its users do: as a process, with standard output and error apart.
#pragma once

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/files.h"
#include "core/value.h"
#include "tests/support/data.h"

namespace percept::cli_test {

namespace fs = std::filesystem;

struct Result {
  int code = -1;
  std::string out, error;
  /// Standard output as the one JSON object that it has to be.
  Value json() const {
    const Value v = parse_json(out, "standard output");
    EXPECT_TRUE(v.is_table()) << out;
    return v;
  }
};

inline std::string quoted(const std::string& word) { return "'" + word + "'"; }

/// percept WORDS, started in `folder`.
inline Result percept(const fs::path& folder, const std::vector<std::string>& words) {
  const fs::path streams = testing::temporary_folder();
  std::string command = "cd " + quoted(folder.string()) + " && exec " + quoted(PERCEPT_PROGRAM);
  for (auto& w : words) command += " " + quoted(w);
  command += " >" + quoted((streams / "out").string()) + " 2>" + quoted((streams / "error").string()) + " </dev/null";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(streams / "out"), read_file(streams / "error")};
}

/// percept WORDS, started in `folder` and going on meanwhile; killed at the end of its life here if need be.
class Running {
 public:
  /// before: in the new process, before it becomes the program.
  Running(const fs::path& folder, const std::vector<std::string>& words, const std::function<void()>& before = {})
      : streams_(testing::temporary_folder()) {
    std::vector<const char*> arguments{"percept"};
    for (auto& w : words) arguments.push_back(w.c_str());
    arguments.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ != 0) return;
    if (::chdir(folder.c_str()) != 0 || !::freopen((streams_ / "out").c_str(), "w", stdout) ||
        !::freopen((streams_ / "error").c_str(), "w", stderr) || !::freopen("/dev/null", "r", stdin))
      ::_exit(9);
    if (before) before();
    ::execv(PERCEPT_PROGRAM, const_cast<char* const*>(arguments.data()));
    ::_exit(9);
  }
  ~Running() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    wait();
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  pid_t pid() const { return pid_; }
  void signal(int number) const { ::kill(pid_, number); }
  std::string errors() const { return fs::exists(streams_ / "error") ? read_file(streams_ / "error") : std::string(); }
  /// Its end; code -1: a signal ended it.
  Result wait() {
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(streams_ / "out"), errors()};
  }

 private:
  fs::path streams_;
  pid_t pid_ = -1;
};

/// Whether it holds within so many seconds.
inline bool within(double seconds, const std::function<bool()>& holds) {
  for (int k = 0; k < 100 * seconds; ++k) {
    if (holds()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return holds();
}

inline void write(const fs::path& file, const std::string& text) { std::ofstream(file, std::ios::binary) << text; }

/// A folder with x.csv (4 channels), z.csv (2 velocities), 200 lines each, and base.toml that decodes one from the other.
inline fs::path workbench() {
  const fs::path folder = testing::temporary_folder();
  std::ofstream x(folder / "x.csv"), z(folder / "z.csv");
  std::uint32_t state = 1;
  // uniform in [-1, 1); any numbers without structure will do
  auto next = [&state] {
    state = state * 1664525u + 1013904223u;
    return static_cast<double>(state >> 8) / (1 << 23) - 1;
  };
  double v[2] = {0, 0};
  for (int k = 0; k < 200; ++k) {
    for (double& a : v) a = 0.8 * a + next();
    z << v[0] << "," << v[1] << "\n";
    for (int c = 0; c < 4; ++c) x << (c ? "," : "") << (c + 1) * v[0] - 2 * (c % 2) * v[1] + 0.5 * next();
    x << "\n";
  }
  write(folder / "base.toml", R"([[input.stream]]
name = "activity"
file = "x.csv"
header = false
rate_hz = 10
[[input.stream]]
name = "kinematics"
file = "z.csv"
header = false
rate_hz = 10
[[stage]]
use = "kalman"
target = "kinematics"
[[split]]
name = "official"
train_rows = [0, 149]
test_rows = [150, 199]
[[score]]
metrics = ["nrmse", "maae"]
shuffles = 1
permutations = 20
bootstrap = 20
[run]
seed = 1
)");
  return folder;
}

}  // namespace percept::cli_test
