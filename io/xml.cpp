#include "io/xml.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "core/error.h"

namespace percept::io {

namespace {
constexpr const char* kSpace = " \t\r\n";
}

std::vector<double> numbers_of(std::string_view text, std::size_t expected, const std::string& file,
                               const std::string& place) {
  std::vector<double> numbers;
  numbers.reserve(std::min(expected, text.size() / 2 + 1));
  for (;;) {
    const auto begin = text.find_first_not_of(kSpace);
    if (begin == text.npos) break;
    text.remove_prefix(begin);
    const std::string_view word = text.substr(0, text.find_first_of(kSpace));
    double v = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), v);
    if (error != std::errc() || end != word.data() + word.size())
      throw DataError(file, fmt::format("number {} of {}", numbers.size() + 1, place), "a number",
                      fmt::format("'{}'", word.substr(0, 24)));
    if (numbers.size() == expected) throw DataError(file, place, fmt::format("{} numbers", expected), "more");
    numbers.push_back(v);
    text.remove_prefix(word.size());
  }
  if (numbers.size() < expected)
    throw DataError(file, place, fmt::format("{} numbers", expected), fmt::format("{}", numbers.size()));
  return numbers;
}

std::int64_t count_of(std::string_view text, const std::string& file, const std::string& place) {
  std::int64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || n < 0)
    throw DataError(file, place, "a whole number from 0 on",
                    text.empty() ? "none" : fmt::format("'{}'", text.substr(0, 24)));
  return n;
}

std::string structure_of(std::string_view name) {
  constexpr std::string_view kPrefix = "CIFTI_STRUCTURE_";
  if (name.starts_with(kPrefix)) return std::string(name.substr(kPrefix.size()));
  std::string s;
  bool small = false;  // the letter before
  for (const char c : name) {
    if (small && c >= 'A' && c <= 'Z') s += '_';
    small = c >= 'a' && c <= 'z';
    s += small ? static_cast<char>(c - 32) : c;
  }
  return s;
}

}  // namespace percept::io
