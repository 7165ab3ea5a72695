#include "io/npy.h"
#include "tests/fuzz/fuzz.h"

std::vector<std::string> percept::fuzz::seeds() {
  std::vector<std::string> all;
  for (const char* head : {"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }",
                           "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 2, 2), }",
                           "{'descr': '<c8', 'fortran_order': False, 'shape': (3,), }",
                           "{'descr': '<f2', 'fortran_order': True, 'shape': (4, 6), }",
                           "{'descr': '|O', 'fortran_order': False, 'shape': (), }"}) {
    const std::string h = head;
    std::string file = "\x93NUMPY";
    file += {1, 0, static_cast<char>(h.size()), 0};
    all.push_back(file + h + std::string(48, 1));
    all.push_back(file + h + std::string(16, 1));
    all.push_back(file + h + std::string(24, 1));
  }
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace percept;
  const fuzz::MemoryFile file(data, bytes);
  fuzz::try_reading([&] {
    const auto info = io::read_npy_info(file.path());
    Index rows = 1;
    for (const Index s : info.frame_shape()) rows *= s;
    if (io::read_npy(file.path()).cols() != info.frames()) std::abort();
    fuzz::read_source(*io::open_npy(file.path()), rows);
  });
  return 0;
}
