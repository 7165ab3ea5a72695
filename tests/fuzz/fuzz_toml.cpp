#include "core/value.h"
#include "tests/fuzz/fuzz.h"

std::vector<std::string> percept::fuzz::seeds() {
  return {
      "title = \"a\"\n[input]\ndata = \"flint_run1\"\n[[stage]]\nuse = \"fir\"\nlow_hz = 1.5\ntaps = [1, -2, 0x10]\n",
      "[[stage]]\nuse = 'x'\ntarget = { from = \"k\", lag_s = 0.0 }\n[a.b.c]\nd = true\n",
      "x = nan\ny = inf\nz = 1979-05-27T07:32:00Z\n", "s = \"\"\"\nmany \\u00e9\n\"\"\"\n"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace percept;
  const std::string_view text(reinterpret_cast<const char*>(data), bytes);
  fuzz::try_reading([&] {
    const Value v = parse_toml(text);
    parse_json(to_json(v));
    // what percept writes, percept reads
    const std::string again = to_toml(v);
    if (to_toml(parse_toml(again)) != again) std::abort();
  });
  fuzz::try_reading([&] { parse_toml_value(text); });
  fuzz::try_reading([&] { parse_json(text); });
  return 0;
}
