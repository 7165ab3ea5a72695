#include "core/error.h"

#include <algorithm>
#include <numeric>

namespace percept {

namespace {
std::string data_message(const std::string& file, const std::string& field, const std::string& expected,
                         const std::string& found) {
  std::string m = file;
  if (!field.empty()) m += (m.empty() ? "" : ": ") + field;
  m += ": expected " + expected;
  if (!found.empty()) m += ", found " + found;
  return m;
}
std::string config_message(const std::string& key, const std::string& value, const std::string& expected) {
  return key + (value.empty() ? "" : " = " + value) + ": expected " + expected;
}

/// Edits that turn one word into the other (Levenshtein), upper and lower case taken for the same.
std::size_t distance(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  const auto same = [&](char x, char y) { return lower(x) == lower(y); };
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (same(a[i - 1], b[j - 1]) ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}
}  // namespace

DataError::DataError(std::string file, std::string field, std::string expected, std::string found)
    : Error(data_message(file, field, expected, found), Exit::bad_input), file_(std::move(file)),
      field_(std::move(field)), expected_(std::move(expected)), found_(std::move(found)) {}

ConfigError::ConfigError(std::string key, std::string value, std::string expected)
    : Error(config_message(key, value, expected), Exit::bad_input), key_(std::move(key)), value_(std::move(value)),
      expected_(std::move(expected)) {}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& known) {
  const std::string* best = nullptr;
  std::size_t nearest = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const auto& k : known)
    if (const std::size_t d = distance(word, k); d < nearest) {
      nearest = d;
      best = &k;
    }
  return best ? " (did you mean '" + *best + "'?)" : "";
}

}  // namespace percept
