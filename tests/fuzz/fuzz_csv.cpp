#include "io/csv.h"
#include "tests/fuzz/fuzz.h"

std::vector<std::string> percept::fuzz::seeds() {
  return {"1,2\n3,4\n", "a,b\r\n1.5,-2e-3\r\nnan,\r\n", "\xEF\xBB\xBFname,\"the \"\"x\"\"\"\n1,\"two\nlines\"\n2,n/a\n",
          "inf;1\n+2;3\n\n"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace percept;
  if (bytes == 0) return 0;
  const fuzz::MemoryFile file(data + 1, bytes - 1);
  io::CsvOptions o;
  o.header = data[0] & 1;
  o.delimiter = ",;\t "[data[0] >> 1 & 3];
  o.allow_inf = data[0] & 8;
  fuzz::try_reading([&] {
    const auto table = io::read_csv(file.path(), o);
    const auto stream = io::open_csv(file.path(), o);
    fuzz::read_source(*stream.samples, stream.columns);
    // both ways must agree
    if (stream.columns != table.values.rows() || stream.samples->frames() != table.values.cols()) std::abort();
  });
  fuzz::try_reading([&] {
    const Table table = io::read_csv_table(file.path(), o);
    for (const auto& c : table.columns)
      if (c.size() != table.columns[0].size()) std::abort();
  });
  return 0;
}
