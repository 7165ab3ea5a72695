/// Runs the program as its users do: as a process, with standard output and error apart.
#pragma once

#include <gmock/gmock.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
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
