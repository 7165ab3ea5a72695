/// What a stranger sends to the page of a live session, as far as percept reads it itself: path, Host, Origin and the body
/// of a command, a line each.
#include "realtime/page_request.h"
#include "tests/fuzz/fuzz.h"

namespace {
constexpr std::string_view kPrefix = "/0123456789abcdef0123456789abcdef/", kHost = "127.0.0.1:8000";
}  // namespace

std::vector<std::string> percept::fuzz::seeds() {
  const std::string head =
      std::string(kPrefix) + "command\n" + std::string(kHost) + "\nhttp://" + std::string(kHost) + "\n";
  return {head + R"({"do":"emergency"})",
          head + R"({"do":"mask","input":0,"row":3})",
          head + R"({"do":"unmask","input":1,"row":9223372036854775807})",
          head + R"({"do":["stop"],"row":-1e300})",
          "/about\nevil.example\nnull\n[[[[",
          std::string(kPrefix) + "../x\n127.0.0.1:8000.evil\nhttp://127.0.0.1:80000\n"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace percept;
  std::string_view text(reinterpret_cast<const char*>(data), bytes);
  const auto line = [&text] {
    const auto end = std::min(text.find('\n'), text.size());
    const std::string_view one = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    return one;
  };
  const std::string_view path = line(), host = line(), origin = line();
  const PageGate gate{std::string(kPrefix), std::string(kHost)};
  if ((gate.refuses(path, host) == 0) != (path.starts_with(kPrefix) && host == kHost)) std::abort();
  if (gate.is_own(origin) != (origin == "http://" + std::string(kHost))) std::abort();
  fuzz::try_reading([&] {
    const PageCommand c = read_page_command(text);
    if (c.input < 0 || c.row < 0 || c.what > PageCommand::What::recalibrate) std::abort();
  });
  return 0;
}
