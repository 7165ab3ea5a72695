#include "realtime/udp_source.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "core/error.h"

namespace percept {

namespace {
constexpr std::size_t kDatagram = 65536;
constexpr int kMostDatagrams = 256;  ///< datagrams that one poll() looks at: a flood of rubbish must not hold the loop

in_addr address(const std::string& text, const std::string& key) {
  in_addr a{};
  if (inet_pton(AF_INET, text.c_str(), &a) != 1)
    throw ConfigError(key, "\"" + text + "\"", "an IPv4 address, such as 127.0.0.1");
  return a;
}
}  // namespace

UdpSource::UdpSource(const Params& p, const std::string& where)
    : intake_(p.labels), socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)), wake_(make_wake()),
      buffer_(kDatagram) {
  if (socket_.get() < 0) throw ConfigError(where, "", fmt::format("a UDP socket, found: {}", std::strerror(errno)));
  const auto set = [&](int level, int option, auto value) {
    return ::setsockopt(socket_.get(), level, option, &value, sizeof value) == 0;
  };
  const int buffer = static_cast<int>(std::min<std::int64_t>(p.buffer_kb * 1024, 1 << 30));
  // the larger of what may be asked by anybody and, with the right to it, of what was asked
  set(SOL_SOCKET, SO_RCVBUF, buffer);
  set(SOL_SOCKET, SO_RCVBUFFORCE, buffer);
  set(SOL_SOCKET, SO_TIMESTAMPNS, 1);
  set(SOL_SOCKET, SO_RXQ_OVFL, 1);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr = address(p.bind, where + ".bind");
  at.sin_port = htons(static_cast<std::uint16_t>(p.port));
  if (!p.group.empty()) set(SOL_SOCKET, SO_REUSEADDR, 1);
  if (::bind(socket_.get(), reinterpret_cast<sockaddr*>(&at), sizeof at) != 0)
    throw ConfigError(where + ".port", fmt::format("{}", p.port),
                      fmt::format("a free port of {}, found: {}", p.bind, std::strerror(errno)));
  if (!p.group.empty()) {
    const ip_mreq join{address(p.group, where + ".group"), at.sin_addr};
    if (!set(IPPROTO_IP, IP_ADD_MEMBERSHIP, join))
      throw ConfigError(where + ".group", "\"" + p.group + "\"",
                        fmt::format("a multicast group that can be joined, found: {}", std::strerror(errno)));
  }
  socklen_t size = sizeof at;
  ::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&at), &size);
  port_ = ntohs(at.sin_port);
  info_ = {.name = p.name,
           .kind = "udp",
           .device = fmt::format("UDP {}:{}", p.group.empty() ? p.bind : p.group, port_),
           .clock = "frames of the device"};

  if (p.rows > 0 && p.rate_hz > 0) {
    intake_.prepare(p.rows, p.rate_hz, Scalar::f32, p.name, p.packet);
    return;
  }
  const std::int64_t until = steady_ns() + static_cast<std::int64_t>(p.wait_s * 1e9);
  WireError last = WireError::none;
  for (WirePacket packet;;) {
    std::int64_t received = 0;
    if (const auto bytes = receive(received); bytes >= 0) {
      last = read_wire(std::span(buffer_).first(static_cast<std::size_t>(bytes)), packet);
      if (last != WireError::none) {
        intake_.count_malformed();
        continue;
      }
      if (packet.kind != WirePacket::Kind::frames || (p.rows > 0 && packet.rows != p.rows)) continue;
      intake_.prepare(packet, p.name, p.packet);
      first_bytes_ = static_cast<std::size_t>(bytes);
      first_received_ns_ = received;
      return;
    }
    const std::int64_t left = until - steady_ns();
    if (left <= 0)
      throw ConfigError(where, "",
                        fmt::format("rows and rate_hz, or a packet on {} within {} s to take them from, found {}",
                                    info_.device, p.wait_s, last == WireError::none ? "none" : text_of(last)));
    wait_readable(socket_.get(), -1, left);
  }
}

std::ptrdiff_t UdpSource::receive(std::int64_t& received_ns) noexcept {
  iovec place{buffer_.data(), buffer_.size()};
  alignas(cmsghdr) char control[128];
  msghdr message{};
  message.msg_iov = &place;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const auto bytes = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT);
  if (bytes < 0) return -1;
  received_ns = steady_ns();
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET) continue;
    if (c->cmsg_type == SO_TIMESTAMPNS) {
      // on the wall clock, which may be set at any time: only a small way back is believed
      timespec stamp, now;
      std::memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
      clock_gettime(CLOCK_REALTIME, &now);
      const std::int64_t ago = (now.tv_sec - stamp.tv_sec) * 1'000'000'000 + (now.tv_nsec - stamp.tv_nsec);
      if (ago > 0 && ago < 60'000'000'000) received_ns -= ago;
    } else if (c->cmsg_type == SO_RXQ_OVFL) {
      std::uint32_t dropped;
      std::memcpy(&dropped, CMSG_DATA(c), sizeof dropped);
      lost_in_system_.store(dropped, std::memory_order_relaxed);
    }
  }
  return bytes;
}

Source::Got UdpSource::poll(Packet& packet, std::int64_t timeout_ns) noexcept {
  const std::int64_t until = steady_ns() + timeout_ns;
  WirePacket wire;
  for (int looked = 0; looked < kMostDatagrams; ++looked) {
    if (stopped_.load(std::memory_order_relaxed)) return Got::ended;
    std::int64_t received = first_received_ns_;
    std::ptrdiff_t bytes = static_cast<std::ptrdiff_t>(first_bytes_);
    if (first_bytes_ > 0) first_bytes_ = 0;
    else bytes = receive(received);
    if (bytes < 0) {
      const std::int64_t left = until - steady_ns();
      if (left <= 0 || !wait_readable(socket_.get(), wake_.get(), left))
        return stopped_.load(std::memory_order_relaxed) ? Got::ended : Got::nothing;
      continue;
    }
    if (read_wire(std::span(buffer_).first(static_cast<std::size_t>(bytes)), wire) != WireError::none) {
      intake_.count_malformed();
    } else if (intake_.take(wire, received, packet)) {
      return Got::packet;
    }
  }
  return Got::nothing;
}

void UdpSource::stop() noexcept {
  stopped_ = true;
  wake(wake_);
}

SourceCounts UdpSource::counts() const {
  SourceCounts counts = intake_.counts();
  counts.lost_in_system = lost_in_system_.load(std::memory_order_relaxed);
  return counts;
}

}  // namespace percept
