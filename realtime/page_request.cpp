#include "realtime/page_request.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <limits>

#include "core/error.h"
#include "core/value.h"

namespace percept {

namespace {
bool same_text(std::string_view a, std::string_view b) noexcept {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
  return difference == 0;
}

constexpr std::array<const char*, 8> kCommands{"emergency", "release", "stop",  "mask",
                                               "unmask",    "start",   "pause", "recalibrate"};
}  // namespace

int PageGate::refuses(std::string_view path, std::string_view host) const noexcept {
  if (path.size() < prefix_.size() || !same_text(path.substr(0, prefix_.size()), prefix_)) return 404;
  return same_text(host, host_) ? 0 : 403;
}
bool PageGate::is_own(std::string_view origin) const noexcept { return same_text(origin, "http://" + host_); }

PageCommand read_page_command(std::string_view body) {
  const Value v = parse_json(body, "command");
  const std::string& what = v.at("do").as_string();
  const auto known = std::find(kCommands.begin(), kCommands.end(), what);
  if (known == kCommands.end()) throw Error(fmt::format("a command is one of {}", fmt::join(kCommands, ", ")));
  PageCommand c;
  c.what = static_cast<PageCommand::What>(known - kCommands.begin());
  if (c.what != PageCommand::What::mask && c.what != PageCommand::What::unmask) return c;
  const auto input = v.at("input").as_integer();
  c.row = v.at("row").as_integer();
  if (input < 0 || input > std::numeric_limits<std::int16_t>::max() || c.row < 0)
    throw Error("there is no such channel");
  c.input = static_cast<int>(input);
  return c;
}

}  // namespace percept
