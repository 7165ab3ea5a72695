/// What comes from the network and from a pipe: datagrams, packets one after the other, lines of text.
#include <fcntl.h>

#include "realtime/pipe_source.h"
#include "realtime/wire.h"
#include "realtime/wire_intake.h"
#include "tests/fuzz/fuzz.h"

std::vector<std::string> percept::fuzz::seeds() {
  using namespace percept;
  std::vector<std::byte> room(1000);
  const std::vector<float> x{1, 2, 3, 4, 5, 6};
  WirePacket p;
  p.counter = 5;
  p.rate_hz = 100;
  p.label = "go";
  std::vector<std::string> all{"1,2\n3,4\n", "1 2\nnan\t-1e9\n,\n"};
  const auto add = [&](std::size_t n) { all.emplace_back(reinterpret_cast<const char*>(room.data()), n); };
  for (bool checked : {false, true}) {
    add(write_wire(p, FrameSpan<const float>{x.data(), 2, 3, 2}, room, checked));
    add(write_wire_event(p, room, checked));
  }
  all.push_back(all[2] + all[3] + "rubbish" + all[4]);
  std::string integers = all[2];
  integers[6] = 2;
  all.push_back(integers);
  return all;
}

namespace {
/// The frames of a packet are there, and as many as it says.
void look_at(const percept::Packet& p, const percept::StreamFormat& format) {
  if (p.x.rows != format.size() || p.x.frames < 1 || p.x.frames > format.max_frames) std::abort();
  const Eigen::MatrixXd x = percept::to_matrix(p.x);
  for (double v : x.reshaped())
    if (std::isinf(v)) std::abort();
  for (auto& e : p.events)
    if (e.label.text().size() > 1000) std::abort();
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace percept;
  const auto all = std::as_bytes(std::span(data, bytes));
  WirePacket wire;
  if (read_wire(all, wire) == WireError::none && wire.bytes() != bytes) std::abort();
  for (Scalar scalar : {Scalar::f32, Scalar::f64}) {
    WireIntake intake({"go"});
    intake.prepare(2, 100, scalar, "x", 4);
    Packet p;
    if (read_wire(all, wire) == WireError::none && intake.take(wire, 1, p)) look_at(p, intake.format());
  }
  const fuzz::MemoryFile file(data, bytes);
  for (const char* format : {"packets", "lines"})
    for (std::int64_t rows : {0, 2}) {
      const int fd = ::open(file.path().c_str(), O_RDONLY);
      fuzz::try_reading([&] {
        PipeSource::Params params;
        params.format = format;
        params.rows = rows;
        params.rate_hz = 100;
        params.packet = 4;
        params.wait_s = 1;
        PipeSource source(fd, params, "fuzz");
        Packet p;
        std::int64_t next = 0;
        for (Source::Got got; (got = source.poll(p, 0)) != Source::Got::ended;) {
          if (got != Source::Got::packet) continue;
          look_at(p, source.format());
          if (source.info().clock == "lines" && p.counter != next) std::abort();
          next += p.x.frames;
        }
      });
      ::close(fd);
    }
  return 0;
}
