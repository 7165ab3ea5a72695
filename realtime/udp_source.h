/// Datagrams of percept's own packet (realtime/wire.h).
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "core/params.h"
#include "realtime/descriptor.h"
#include "realtime/wire_intake.h"

namespace percept {

/// The counter is the device's; the receive time is the kernel's, so that the wait for the reading thread counts.
class UdpSource final : public Source {
 public:
  struct Params {
    std::int64_t port = 0;
    std::string bind = "127.0.0.1", group, name = "activity";
    std::int64_t rows = 0, packet = 1, buffer_kb = 8192;
    double rate_hz = 0, wait_s = 10;
    std::vector<std::string> labels;
    static constexpr auto fields() {
      return std::tuple{
          field("port", &Params::port, "", "UDP port to listen on; 0: any free one.", 0, 65535),
          field("bind", &Params::bind, "", "Address to listen on; 0.0.0.0 for every network of this machine."),
          field("group", &Params::group, "", "Multicast group to join; empty: none."),
          field("name", &Params::name, "", "Name of the stream."),
          field("rows", &Params::rows, "1", "Rows; 0: those of the first packet.", 0, 1 << 20),
          field("rate_hz", &Params::rate_hz, "Hz", "Frames a second; 0: that of the first packet.", 0, 1e6),
          field("packet", &Params::packet, "frames", "The most in one packet, if the first has fewer.", 1, 65536),
          field("wait_s", &Params::wait_s, "s", "How long the first packet is waited for.", 0, 1e6),
          field("buffer_kb", &Params::buffer_kb, "kB", "Asked of the system for what waits to be read.", 1, 1 << 20),
          field("labels", &Params::labels, "", "Labels of events that may come; others are told as \"unlisted\".")};
    }
  };
  /// Throws ConfigError when the address cannot be had, or when rows and rate are not given and no packet comes.
  UdpSource(const Params& params, const std::string& where);

  const SourceInfo& info() const override { return info_; }
  const StreamFormat& format() const override { return intake_.format(); }
  Got poll(Packet& packet, std::int64_t timeout_ns) noexcept override;
  void stop() noexcept override;
  bool real_time() const override { return true; }
  SourceCounts counts() const override;
  std::string trouble() const override { return intake_.trouble(); }
  int port() const { return port_; }

 private:
  /// One datagram into buffer_; bytes, or -1 when there is none.
  std::ptrdiff_t receive(std::int64_t& received_ns) noexcept;

  WireIntake intake_;
  SourceInfo info_;
  Descriptor socket_, wake_;
  int port_ = 0;
  std::vector<std::byte> buffer_;
  // the packet that announced the format
  std::size_t first_bytes_ = 0;
  std::int64_t first_received_ns_ = 0;
  std::atomic<bool> stopped_{false};
  std::atomic<std::int64_t> lost_in_system_{0};
};

}  // namespace percept
