#include "io/gifti.h"
#include "tests/fuzz/fuzz.h"
#include "tests/io/gifti_text.h"
#include "tests/io/nifti_bytes.h"

std::vector<std::string> percept::fuzz::seeds() {
  using namespace io_test;
  GiftiText frame, table;
  frame.shape = {4};
  frame.data = base64(zlib_packed(bytes_of_numbers(std::vector<float>{1, 2, 3, 4})));
  table.shape = {2, 3};
  table.order = "ColumnMajorOrder";
  table.encoding = "Base64Binary";
  table.type = "INT16";
  table.data = base64(bytes_of_numbers(std::vector<std::int16_t>{1, 2, 3, 4, 5, 6}));
  return {gifti(square()), gifti({frame, frame}), gifti({table}), gzip(gifti(square()))};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace percept;
  const fuzz::MemoryFile file(data, bytes);
  fuzz::try_reading([&] { io::describe_gifti(file.path(), true); });
  fuzz::try_reading([&] { io::read_surface(file.path()); });
  fuzz::try_reading([&] {
    io::FmriOptions options;
    options.tr_s = 2;
    options.allow_missing = true;
    const io::FmriSeries series = io::open_gifti(file.path(), options, "input");
    fuzz::read_source(*series.stream.samples, series.stream.format.size());
  });
  return 0;
}
