#include "io/store.h"
#include "tests/fuzz/fuzz.h"

std::vector<std::string> percept::fuzz::seeds() {
  using namespace percept;
  const std::string path = std::filesystem::temp_directory_path() / ("fuzz-seed-" + std::to_string(getpid()));
  Recording r;
  r.name = "seed";
  r.streams.push_back(memory_stream("x", Eigen::MatrixXd::Ones(3, 20), 10));
  Stream items;
  items.name = "items";
  items.format = item_format({2, 2}, Scalar::f32);
  items.samples = std::make_shared<MemorySource>(Eigen::MatrixXd::Zero(4, 3));
  items.keys = {1, 2, 5};
  r.streams.push_back(items);
  r.tables.push_back({"t", {{"n", {1, 2}, {}}, {"s", {}, {"a", "bc"}}}});
  Event e;
  e.label = Label::of("go");
  r.events.push_back(e);
  std::vector<std::string> all;
  for (const Recording& one : {r, Recording{}}) {
    io::write_store(path, one);
    std::ifstream in(path, std::ios::binary);
    all.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  std::filesystem::remove(path);
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace percept;
  const fuzz::MemoryFile file(data, bytes);
  fuzz::try_reading([&] {
    for (const auto& s : io::open_store(file.path()).streams) fuzz::read_source(*s.samples, s.format.size());
  });
  return 0;
}
