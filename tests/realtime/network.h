/// What the tests of live sources share: a sender of datagrams, and waiting with a limit.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

#include "realtime/source.h"
#include "realtime/wire.h"

namespace percept::testing {

constexpr std::int64_t kSecond = 1'000'000'000;

/// Sends to a port of this machine. Frame k of a packet with counter c holds c + k, c + k + 0.5, ...
class UdpSender {
 public:
  explicit UdpSender(int port) : fd_(::socket(AF_INET, SOCK_DGRAM, 0)) {
    to_.sin_family = AF_INET;
    to_.sin_port = htons(static_cast<std::uint16_t>(port));
    to_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  ~UdpSender() { ::close(fd_); }
  UdpSender(const UdpSender&) = delete;
  UdpSender& operator=(const UdpSender&) = delete;

  void send(std::span<const std::byte> bytes) {
    ASSERT_EQ(::sendto(fd_, bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&to_), sizeof to_),
              static_cast<ssize_t>(bytes.size()));
  }
  void send_text(std::string_view text) { send(std::as_bytes(std::span(text))); }
  void send_frames(std::int64_t counter, Index rows, Index frames, double rate_hz) {
    std::vector<float> x;
    for (Index k = 0; k < frames; ++k)
      for (Index r = 0; r < rows; ++r) x.push_back(static_cast<float>(counter + k) + 0.5f * static_cast<float>(r));
    std::vector<std::byte> room(65536);
    WirePacket p;
    p.counter = counter;
    p.rate_hz = rate_hz;
    const auto n = write_wire(p, FrameSpan<const float>{x.data(), rows, frames, rows}, room, true);
    send(std::span(room).first(n));
  }
  void send_event(std::int64_t counter, double rate_hz, double offset_s, std::string_view label) {
    std::vector<std::byte> room(512);
    WirePacket p;
    p.counter = counter;
    p.rate_hz = rate_hz;
    p.offset_s = offset_s;
    p.label = label;
    send(std::span(room).first(write_wire_event(p, room, true)));
  }

 private:
  int fd_;
  sockaddr_in to_{};
};

/// Packets of a source until there is none for so long.
template <class F>
std::int64_t drain(Source& source, F take, std::int64_t patience_ns = kSecond / 5) {
  std::int64_t n = 0;
  for (Packet p; source.poll(p, patience_ns) == Source::Got::packet; ++n) take(p);
  return n;
}

}  // namespace percept::testing
