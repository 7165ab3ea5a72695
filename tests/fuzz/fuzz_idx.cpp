#include "io/idx.h"
#include "tests/fuzz/fuzz.h"

std::vector<std::string> percept::fuzz::seeds() {
  std::vector<std::string> all;
  for (const char type : {8, 9, 11, 12, 13, 14})
    all.push_back(std::string{0, 0, type, 2, 0, 0, 0, 2, 0, 0, 0, 3} + std::string(48, 1));
  // six bytes of an array {2, 3}, packed
  all.push_back(
      std::string("\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x63\x60\xe0\x60\x62\x60\x60\x00\x61\x66\x46\x26\x66\x16\x56"
                  "\x36\x00\x48\x94\x3e\xe5\x12\x00\x00\x00",
                  35));
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace percept;
  const fuzz::MemoryFile file(data, bytes);
  fuzz::try_reading([&] {
    const auto info = io::read_idx_info(file.path());
    Index rows = 1;
    for (const Index s : info.frame_shape()) rows *= s;
    const auto source = io::open_idx(file.path());
    if (source->frames() != info.shape[0]) std::abort();
    fuzz::read_source(*source, rows);
  });
  return 0;
}
