/// Real recordings for tests. A test that can get its recording from nowhere is skipped by name;
/// in CI (environment CI=true) such a skip is a failure.
#pragma once

#include <Eigen/Core>
#include <filesystem>
#include <optional>
#include <string>

namespace percept::testing {

/// The file under PERCEPT_DATA_MIRROR ("bci/flint_run1/x.csv"), or nothing.
std::optional<std::filesystem::path> mirrored(const std::string& path);
/// A plain comma-separated matrix of numbers, lines x columns, read without the code under test.
Eigen::MatrixXd read_reference(const std::filesystem::path& file, int skip_lines = 0);
/// A fresh folder, removed at the end of the program.
std::filesystem::path temporary_folder();
/// The project's own folder (examples/, data/registry.toml).
std::filesystem::path source_folder();
bool in_ci();

}  // namespace percept::testing

/// std::filesystem::path file; PERCEPT_NEED_DATA(file, "bci/flint_run1/x.csv");
#define PERCEPT_NEED_DATA(variable, name)                                                               \
  do {                                                                                                  \
    auto percept_found = ::percept::testing::mirrored(name);                                            \
    if (!percept_found) {                                                                               \
      if (::percept::testing::in_ci()) FAIL() << "no recording " << (name) << " (PERCEPT_DATA_MIRROR)"; \
      GTEST_SKIP() << "needs the recording " << (name) << ": set PERCEPT_DATA_MIRROR";                  \
    }                                                                                                   \
    variable = *percept_found;                                                                          \
  } while (false)
