/// Errors that reach a person. Each is one line: where, what was found, what was expected.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace percept {

/// Exit codes of every percept command.
enum class Exit : int { ok = 0, usage = 2, bad_input = 3, run_failed = 4, interrupted = 130 };

/// Base of every error percept throws on purpose.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, Exit code = Exit::run_failed) : std::runtime_error(message), code_(code) {}
  Exit code() const noexcept { return code_; }

 private:
  Exit code_;
};

/// A file or the data inside it is not what it has to be.
/// Reads "FILE: FIELD: expected EXPECTED, found FOUND".
class DataError : public Error {
 public:
  DataError(std::string file, std::string field, std::string expected, std::string found);
  const std::string& file() const noexcept { return file_; }
  const std::string& field() const noexcept { return field_; }
  const std::string& expected() const noexcept { return expected_; }
  const std::string& found() const noexcept { return found_; }

 private:
  std::string file_, field_, expected_, found_;
};

/// A configuration key has a value that cannot be used, or does not exist.
/// Reads "KEY = VALUE: expected EXPECTED" (the value is left out when empty).
/// `key` carries its place: "examples/a.toml:12: fir.low_hz".
class ConfigError : public Error {
 public:
  ConfigError(std::string key, std::string value, std::string expected);
  const std::string& key() const noexcept { return key_; }
  const std::string& value() const noexcept { return value_; }
  const std::string& expected() const noexcept { return expected_; }

 private:
  std::string key_, value_, expected_;
};

/// The command line itself is wrong.
class UsageError : public Error {
 public:
  explicit UsageError(const std::string& message) : Error(message, Exit::usage) {}
};

/// The user pressed Ctrl-C (or a cancel was asked for in code).
class Interrupted : public Error {
 public:
  Interrupted() : Error("interrupted", Exit::interrupted) {}
};

/// " (did you mean 'x'?)" for the nearest known word, or "" when none is near.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& known);

}  // namespace percept
