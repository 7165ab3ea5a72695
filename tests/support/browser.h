/// Headless Chromium for one test, driven through its debugging pipe: a page is used as a person would use it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/value.h"

namespace percept::testing {

class Browser {
 public:
  static bool available();
  /// Throws std::runtime_error when it does not start.
  explicit Browser(int width = 1280, int height = 900);
  ~Browser();
  Browser(const Browser&) = delete;
  Browser& operator=(const Browser&) = delete;

  void open(const std::string& url);
  /// The value of a JavaScript expression (a promise is awaited). Throws std::runtime_error when it throws.
  Value evaluate(const std::string& expression);
  /// Until the expression is true; false when it is not after so long.
  bool wait_for(const std::string& expression, double seconds);
  /// Presses and releases a key: "q", " ", "Tab".
  void key(const std::string& key);
  void dark(bool on);
  void screenshot(const std::filesystem::path& png);
  /// Errors of the console, exceptions, and what was refused or not found, so far.
  const std::vector<std::string>& errors() const;
  /// Hosts of all requests so far.
  const std::vector<std::string>& hosts() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace percept::testing
