#include "realtime/pipe_source.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"

namespace percept {

namespace {
constexpr std::size_t kLongestLine = 1 << 20;
constexpr int kMostPieces = 4096;  ///< pieces of rubbish that one poll() looks at

/// Takes the next cell off the text. Cells are apart by a comma, semicolon or tab with any spaces around it, or by
/// spaces alone. False when it was the last.
bool next_cell(std::string_view& text, std::string_view& cell) {
  const auto skip_spaces = [&text] { text.remove_prefix(std::min(text.find_first_not_of(' '), text.size())); };
  skip_spaces();
  cell = text.substr(0, text.find_first_of(" ,;\t"));
  text.remove_prefix(cell.size());
  skip_spaces();
  if (text.empty()) return false;
  if (text.front() == ',' || text.front() == ';' || text.front() == '\t') text.remove_prefix(1);
  return true;
}

std::string_view without_end(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.remove_suffix(1);
  return text;
}

Index count_cells(std::string_view text) {
  text = without_end(text);
  std::string_view cell;
  Index n = 1;
  while (next_cell(text, cell)) ++n;
  return n;
}
}  // namespace

PipeSource::PipeSource(int fd, const Params& p, const std::string& where)
    : intake_(p.labels), fd_(fd), lines_(p.format == "lines"), wake_(make_wake()),
      buffer_(lines_ ? 2 * kLongestLine : WirePacket::kLargest + (1 << 16)) {
  info_ = {.name = p.name,
           .kind = "stdin",
           .device = fd == 0 ? "standard input" : fmt::format("descriptor {}", fd),
           .clock = lines_ ? "lines" : "frames of the device"};
  if (lines_ && !(p.rate_hz > 0))
    throw ConfigError(where + ".rate_hz", fmt::format("{}", p.rate_hz), "a rate above 0 Hz: lines do not state it");
  const std::int64_t until = steady_ns() + static_cast<std::int64_t>(p.wait_s * 1e9);
  if (p.rows > 0 && p.rate_hz > 0) {
    intake_.prepare(p.rows, p.rate_hz, Scalar::f32, p.name, p.packet);
  } else if (lines_) {
    std::string_view first;
    while ((first = line()).empty() && !at_end_ && fill(until) != Step::end && steady_ns() < until) {
    }
    if (first.empty())
      throw ConfigError(where + ".rows", "0", fmt::format("rows, or a line within {} s to count them in", p.wait_s));
    intake_.prepare(count_cells(first), p.rate_hz, Scalar::f32, p.name, p.packet);
  } else {
    WirePacket first;
    for (;;) {
      const auto bytes = std::span(buffer_).subspan(begin_, end_ - begin_);
      const WireError error = read_wire_head(bytes, first);
      if (error == WireError::none && first.kind == WirePacket::Kind::frames) break;
      if (error != WireError::none && error != WireError::cut)
        throw DataError(info_.device, "packet", "percept's packets (or format = \"lines\")", text_of(error));
      if (error == WireError::none)  // an event of before: there is nothing that it could come with
        begin_ += std::min(first.bytes(), bytes.size());
      if (at_end_ || steady_ns() >= until)
        throw ConfigError(where, "",
                          fmt::format("rows and rate_hz, or a packet within {} s to take them from, found {}", p.wait_s,
                                      at_end_ ? "the end" : "none"));
      fill(until);
    }
    intake_.prepare(first, p.name, p.packet);
  }
  frames_.resize(static_cast<std::size_t>(format().size() * format().max_frames));
}

PipeSource::Step PipeSource::fill(std::int64_t until_ns) noexcept {
  if (at_end_) return Step::end;
  if (begin_ > 0 && (begin_ == end_ || buffer_.size() - end_ < (1 << 16))) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (end_ == buffer_.size()) {  // no packet or line is so long
    intake_.count_malformed();
    begin_ = end_ = 0;
  }
  if (!wait_readable(fd_, wake_.get(), until_ns - steady_ns())) return Step::more;
  const auto n = ::read(fd_, buffer_.data() + end_, buffer_.size() - end_);
  if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) at_end_ = true;
  if (n > 0) {
    end_ += static_cast<std::size_t>(n);
    received_ns_ = steady_ns();
  }
  return at_end_ ? Step::end : Step::done;
}

Source::Got PipeSource::poll(Packet& packet, std::int64_t timeout_ns) noexcept {
  const std::int64_t until = steady_ns() + timeout_ns;
  for (int looked = 0; looked < kMostPieces; ++looked) {
    if (stopped_.load(std::memory_order_relaxed)) return Got::ended;
    switch (lines_ ? next_lines(packet) : next_packet(packet)) {
      case Step::done:
        return Got::packet;
      case Step::end:
        return Got::ended;
      case Step::more:
        break;
    }
    if (fill(until) == Step::more) return stopped_.load(std::memory_order_relaxed) ? Got::ended : Got::nothing;
  }
  return Got::nothing;
}

PipeSource::Step PipeSource::next_packet(Packet& packet) noexcept {
  WirePacket wire;
  while (begin_ < end_) {
    const auto bytes = std::span(buffer_).subspan(begin_, end_ - begin_);
    WireError error = read_wire_head(bytes, wire);
    if (error == WireError::none)
      error = bytes.size() < wire.bytes() ? WireError::cut : read_wire(bytes.first(wire.bytes()), wire);
    if (error == WireError::cut) {
      if (!at_end_) return Step::more;
      intake_.count_malformed();  // cut off in the middle
      begin_ = end_;
      return Step::end;
    }
    if (error != WireError::none) {
      if (!in_rubbish_) intake_.count_malformed();
      in_rubbish_ = true;
      // to what could be the next head
      const auto* from = bytes.data() + 1;
      const void* next = std::memchr(from, 'P', bytes.size() - 1);
      begin_ = next ? begin_ + 1 + static_cast<std::size_t>(static_cast<const std::byte*>(next) - from) : end_;
      continue;
    }
    in_rubbish_ = false;
    begin_ += wire.bytes();
    if (intake_.take(wire, received_ns_, packet)) return Step::done;
  }
  return at_end_ ? Step::end : Step::more;
}

std::string_view PipeSource::line() noexcept {
  const char* from = reinterpret_cast<const char*>(buffer_.data()) + begin_;
  const std::size_t size = end_ - begin_;
  const void* newline = std::memchr(from, '\n', size);
  if (newline) return {from, static_cast<std::size_t>(static_cast<const char*>(newline) - from) + 1};
  return at_end_ ? std::string_view(from, size) : std::string_view();
}

bool PipeSource::read_line(std::string_view text, float* row) noexcept {
  text = without_end(text);
  const Index rows = format().size();
  for (Index r = 0; r < rows; ++r) {
    std::string_view cell;
    const bool more = next_cell(text, cell);
    if (more != (r + 1 < rows)) return false;
    row[r] = std::numeric_limits<float>::quiet_NaN();
    if (cell.empty()) continue;
    if (cell.front() == '+') cell.remove_prefix(1);
    float v = 0;
    const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), v);
    if (error != std::errc() || end != cell.data() + cell.size()) return false;
    if (std::isinf(v)) infinite_.fetch_add(1, std::memory_order_relaxed);
    else row[r] = v;
  }
  return true;
}

PipeSource::Step PipeSource::next_lines(Packet& packet) noexcept {
  const Index rows = format().size();
  Index n = 0;
  while (n < format().max_frames) {
    const std::string_view text = line();
    if (text.empty()) {
      if (end_ - begin_ < kLongestLine) break;
      begin_ = end_;  // no line is so long: what is left of it is skipped with its end
      long_line_ = true;
      break;
    }
    float* row = frames_.data() + n * rows;
    if (long_line_ || text.size() > kLongestLine || !read_line(text, row)) {
      // what the line stood for is missing, and nobody is told a wrong number of frames
      intake_.count_malformed();
      std::fill_n(row, rows, std::numeric_limits<float>::quiet_NaN());
      long_line_ = false;
    }
    begin_ += text.size();
    ++n;
  }
  if (n == 0) return at_end_ ? Step::end : Step::more;
  packet = {};
  packet.x = ConstFrames(frames_.data(), Scalar::f32, rows, n, rows);
  packet.counter = next_line_;
  packet.received_ns = received_ns_;
  next_line_ += n;
  packet.clock = {
      .device_s = static_cast<double>(next_line_) / format().rate_hz, .local_ns = received_ns_, .error_s = -1};
  packets_.fetch_add(1, std::memory_order_relaxed);
  return Step::done;
}

void PipeSource::stop() noexcept {
  stopped_ = true;
  wake(wake_);
}

SourceCounts PipeSource::counts() const {
  SourceCounts counts = intake_.counts();
  counts.packets += packets_.load(std::memory_order_relaxed);
  counts.infinite += infinite_.load(std::memory_order_relaxed);
  return counts;
}

}  // namespace percept
