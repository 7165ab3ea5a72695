#include <zlib.h>

#include <array>
#include <cstring>

#include "io/format_value.h"
#include "io/session.h"
#include "tests/fuzz/fuzz.h"

std::vector<std::string> percept::fuzz::seeds() {
  using namespace percept;
  const std::filesystem::path path = std::filesystem::temp_directory_path() / ("fuzz-seed-" + std::to_string(getpid()));
  {
    io::SessionWriter writer(path);
    const auto stream = [](const char* name, Index rows) {
      return Value::array(
          {Value::object({{"name", name}, {"format", io::format_to_value(time_format(rows, 10, Scalar::f32))}})});
    };
    const std::string head =
        to_json(Value::object({{"percept_session", 1}, {"inputs", stream("x", 2)}, {"outputs", stream("y", 1)}}));
    writer.add(io::SessionKind::head, 0, std::as_bytes(std::span(head)));
    const auto add = [&](io::SessionKind kind, const auto& record, std::span<const std::byte> more = {}) {
      writer.add(kind, 0, std::as_bytes(std::span(&record, 1)), more);
    };
    const std::array<float, 6> frames{1, 2, 3, 4, 5, 6};
    io::SessionPacket packet;
    packet.rows = 2;
    packet.frames = 3;
    add(io::SessionKind::packet, packet, std::as_bytes(std::span(frames)));
    const io::SessionEvent event{.onset_s = 0.1, .label = 1};
    add(io::SessionKind::event, event);
    io::SessionStep step;
    step.packet = 0;
    step.frames = 3;
    step.events = 1;
    add(io::SessionKind::step, step, std::as_bytes(std::span(&event, 1)));
    io::SessionOutput output;
    output.rows = 1;
    output.frames = 3;
    add(io::SessionKind::output, output, std::as_bytes(std::span(frames)).first(12));
    add(io::SessionKind::clock, io::SessionClock{});
    add(io::SessionKind::loss, io::SessionLoss{});
    add(io::SessionKind::fate, io::SessionFate{});
    const std::string end = R"({"finished": true})";
    writer.add(io::SessionKind::end, 0, std::as_bytes(std::span(end)));
    writer.write();
  }
  std::ifstream in(path, std::ios::binary);
  std::vector<std::string> all{std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>())};
  std::filesystem::remove(path);
  return all;
}

namespace {
/// A mutated record has a wrong checksum and would end the file: they are made right, so that what is behind them is
/// reached.
std::vector<std::uint8_t> with_checksums(const std::uint8_t* data, std::size_t bytes) {
  std::vector<std::uint8_t> file(data, data + bytes);
  for (std::size_t at = 16; at + 16 <= file.size();) {
    std::uint32_t size = 0;
    std::memcpy(&size, &file[at + 8], 4);
    if (size > file.size() - at - 16) break;
    uLong sum = crc32(0, &file[at + 4], 8);
    sum = crc32(sum, &file[at + 16], size);
    const auto stored = static_cast<std::uint32_t>(sum);
    std::memcpy(&file[at + 12], &stored, 4);
    at += 16 + (std::size_t{size} + 7) / 8 * 8;
  }
  return file;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace percept;
  const auto whole = with_checksums(data, bytes);
  for (const auto& [p, n] : {std::pair{data, bytes}, {whole.data(), whole.size()}}) {
    const fuzz::MemoryFile file(p, n);
    fuzz::try_reading([&] {
      for (const auto& s : io::open_session(file.path()).streams) fuzz::read_source(*s.samples, s.format.size());
    });
  }
  return 0;
}
