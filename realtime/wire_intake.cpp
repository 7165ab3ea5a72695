#include "realtime/wire_intake.h"

#include <fmt/format.h>

#include <cmath>

namespace percept {

namespace {
/// The same rate, as far as a device may state it with few digits.
bool same_rate(double a, double b) { return std::abs(a - b) <= 1e-6 * std::abs(b); }
}  // namespace

void WireIntake::prepare(const WirePacket& first, const std::string& stream, Index max_frames) {
  const bool wide = first.type == WirePacket::Type::f64 || first.type == WirePacket::Type::i32;
  prepare(first.rows, first.rate_hz, wide ? Scalar::f64 : Scalar::f32, stream, std::max(max_frames, first.frames));
}

void WireIntake::prepare(Index rows, double rate_hz, Scalar scalar, const std::string& stream, Index max_frames) {
  format_ = time_format(rows, rate_hz, scalar, stream);
  format_.max_frames = max_frames;
  room_.resize(static_cast<std::size_t>(rows * max_frames) * bytes_of(scalar));
}

bool WireIntake::take(const WirePacket& wire, std::int64_t received_ns, Packet& packet) noexcept {
  if (wire.kind == WirePacket::Kind::event) {
    if (n_waiting_ == waiting_.size()) {
      lost_events_.fetch_add(1, std::memory_order_relaxed);
      return false;
    }
    waiting_[n_waiting_++] = {
        {.onset_s = wire.offset_s, .duration_s = wire.duration_s, .value = wire.value, .label = labels_.of(wire.label)},
        wire.counter};
    return false;
  }
  if (wire.rows != format_.size() || !same_rate(wire.rate_hz, format_.rate_hz) || wire.frames > format_.max_frames) {
    foreign_.fetch_add(1, std::memory_order_relaxed);
    foreign_rows_.store(wire.rows, std::memory_order_relaxed);
    foreign_rate_.store(wire.rate_hz, std::memory_order_relaxed);
    foreign_since_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  foreign_since_.store(0, std::memory_order_relaxed);
  const MutableFrames out(room_.data(), format_.scalar, wire.rows, wire.frames, wire.rows);
  if (const auto n = unpack_wire(wire, out)) infinite_.fetch_add(n, std::memory_order_relaxed);
  packet = {};
  packet.x = out;
  packet.counter = wire.counter;
  packet.received_ns = received_ns;
  packet.device_s = wire.device_s;
  const double counted_s = (static_cast<double>(wire.counter) + static_cast<double>(wire.frames)) / format_.rate_hz;
  packet.clock = {
      .device_s = std::isnan(wire.device_s) ? counted_s : wire.device_s, .local_ns = received_ns, .error_s = -1};
  packet.events_from_packet = true;
  for (std::size_t i = 0; i < n_waiting_; ++i) {
    events_[i] = waiting_[i].event;
    // differences of doubles: a counter may be anything
    events_[i].onset_s +=
        (static_cast<double>(waiting_[i].counter) - static_cast<double>(wire.counter)) / format_.rate_hz;
  }
  packet.events = {events_.data(), n_waiting_};
  n_waiting_ = 0;
  packets_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

SourceCounts WireIntake::counts() const {
  SourceCounts c;
  c.packets = packets_.load(std::memory_order_relaxed);
  c.malformed = malformed_.load(std::memory_order_relaxed);
  c.foreign = foreign_.load(std::memory_order_relaxed);
  c.lost_events = lost_events_.load(std::memory_order_relaxed);
  c.infinite = infinite_.load(std::memory_order_relaxed);
  return c;
}

std::string WireIntake::trouble() const {
  if (foreign_since_.load(std::memory_order_relaxed) == 0) return {};
  return fmt::format(
      "the source now sends {} rows at {} Hz, announced were {} at {} Hz (in packets of {} frames at most)",
      foreign_rows_.load(std::memory_order_relaxed), foreign_rate_.load(std::memory_order_relaxed), format_.size(),
      format_.rate_hz, format_.max_frames);
}

}  // namespace percept
