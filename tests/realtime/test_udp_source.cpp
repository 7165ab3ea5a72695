#include "realtime/udp_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "core/error.h"
#include "tests/realtime/network.h"
#include "tests/support/alloc.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using ::testing::AllOf;
using testing::drain;
using ::testing::HasSubstr;
using testing::kSecond;
using testing::message_of;
using testing::UdpSender;

UdpSource::Params of_two_rows() {
  UdpSource::Params p;
  p.rows = 2;
  p.rate_hz = 100;
  p.packet = 4;
  p.labels = {"go"};
  return p;
}

TEST(UdpSource, HandsOverWhatIsSent) {
  UdpSource source(of_two_rows(), "test");
  EXPECT_EQ(source.format().size(), 2);
  EXPECT_EQ(source.format().rate_hz, 100);
  EXPECT_EQ(source.format().max_frames, 4);
  EXPECT_TRUE(source.real_time());
  UdpSender device(source.port());
  const std::int64_t before = steady_ns();
  device.send_event(1002, 100, 0.001, "go");
  device.send_event(998, 100, 0, "who knows");
  device.send_frames(1000, 2, 3, 100);
  device.send_frames(1007, 2, 1, 100);
  std::vector<Packet> packets;
  std::vector<Event> events;
  drain(source, [&](const Packet& p) {
    for (Index k = 0; k < p.x.frames; ++k)
      for (Index r = 0; r < 2; ++r)
        EXPECT_EQ(p.x.as<float>().frame(k)[r], static_cast<float>(p.counter + k) + 0.5f * static_cast<float>(r));
    packets.push_back(p);
    events.insert(events.end(), p.events.begin(), p.events.end());
    EXPECT_TRUE(p.events_from_packet);
    EXPECT_GE(p.received_ns, before - kSecond / 100) << "the kernel's stamp, on the wall clock";
    EXPECT_LE(p.received_ns, steady_ns());
    EXPECT_NEAR(p.clock.device_s, static_cast<double>(p.counter + p.x.frames) / 100, 1e-9);
  });
  ASSERT_EQ(packets.size(), 2u);
  EXPECT_EQ(packets[0].counter, 1000);
  EXPECT_EQ(packets[0].x.frames, 3);
  EXPECT_EQ(packets[1].counter, 1007);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_NEAR(events[0].onset_s, 0.021, 1e-12) << "from the packet's first frame";
  EXPECT_EQ(events[0].label.text(), "go");
  EXPECT_NEAR(events[1].onset_s, -0.02, 1e-12);
  EXPECT_EQ(events[1].label.text(), "unlisted");
  EXPECT_EQ(source.counts().packets, 2);
}

TEST(UdpSource, TakesTheFormatFromTheFirstPacketAndLosesNothing) {
  UdpSource::Params p;
  p.wait_s = 5;
  // a free port, found by another source, so that the sender can be first
  UdpSource::Params any = of_two_rows();
  { p.port = UdpSource(any, "test").port(); }
  std::thread device([port = p.port] {
    UdpSender sender(static_cast<int>(port));
    for (int i = 0; i < 60; ++i) {  // nobody may listen yet
      sender.send_text("rubbish");
      sender.send_frames(100 * i, 5, 2, 250);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  });
  UdpSource source(p, "test");
  EXPECT_EQ(source.format().describe(), "{5} x f32 at 250 Hz");
  std::int64_t first = -1, last = -1;
  drain(source, [&](const Packet& packet) {
    if (first < 0) first = packet.counter;
    else EXPECT_EQ(packet.counter, last + 100) << "none is lost";
    last = packet.counter;
  });
  device.join();
  EXPECT_EQ(last, 5900);
  EXPECT_GT(source.counts().malformed, 0);
}

TEST(UdpSource, RefusesAndCountsWhatIsNotAnnounced) {
  UdpSource source(of_two_rows(), "test");
  UdpSender device(source.port());
  EXPECT_EQ(source.trouble(), "");
  device.send_frames(0, 2, 1, 100);
  device.send_frames(1, 3, 1, 100);  // another number of rows
  device.send_frames(2, 2, 1, 200);  // another rate
  device.send_frames(3, 2, 5, 100);  // larger than announced
  device.send_text("");              // an empty datagram
  device.send_text("PLIV");
  device.send_text(std::string(60000, 'P'));
  EXPECT_EQ(drain(source, [](const Packet& p) { EXPECT_EQ(p.counter, 0); }), 1);
  EXPECT_EQ(source.counts().foreign, 3);
  EXPECT_EQ(source.counts().malformed, 3);
  EXPECT_THAT(source.trouble(), AllOf(HasSubstr("now sends 2 rows at 100 Hz"), HasSubstr("packets of 4 frames")));
  device.send_frames(4, 2, 1, 100);
  EXPECT_EQ(drain(source, [](const Packet&) {}), 1);
  EXPECT_EQ(source.trouble(), "") << "the announced format is back";
}

TEST(UdpSource, AFloodOfRubbishDoesNotHoldWhoAsks) {
  UdpSource source(of_two_rows(), "test");
  UdpSender device(source.port());
  for (int i = 0; i < 2000; ++i) device.send_text("x");
  device.send_frames(0, 2, 1, 100);
  Packet p;
  EXPECT_EQ(source.poll(p, 0), Source::Got::nothing) << "some of it at a time";
  int calls = 1;
  while (source.poll(p, 0) != Source::Got::packet) ASSERT_LT(++calls, 100);
  EXPECT_GE(calls, 7);
  EXPECT_EQ(source.counts().malformed, 2000);
}

TEST(UdpSource, WaitsNoLongerThanItIsToldAndCanBeStopped) {
  UdpSource source(of_two_rows(), "test");
  Packet p;
  const std::int64_t before = steady_ns();
  EXPECT_EQ(source.poll(p, 0), Source::Got::nothing);
  EXPECT_EQ(source.poll(p, kSecond / 20), Source::Got::nothing);
  EXPECT_GE(steady_ns() - before, kSecond / 20);
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    source.stop();
  });
  EXPECT_EQ(source.poll(p, 60 * kSecond), Source::Got::ended);
  other.join();
  EXPECT_LT(steady_ns() - before, 30 * kSecond);
}

TEST(UdpSource, PollAllocatesNothing) {
  if (!testing::AllocationCounter::available()) GTEST_SKIP() << "allocations cannot be counted under a sanitizer";
  UdpSource source(of_two_rows(), "test");
  UdpSender device(source.port());
  for (int i = 0; i < 50; ++i) {
    device.send_frames(4 * i, 2, 4, 100);
    device.send_frames(4 * i, 3, 4, 100);
    device.send_event(4 * i, 100, 0, "anything");
    device.send_text("rubbish");
  }
  Packet p;
  int n = 0;
  testing::AllocationCounter counter;
  while (source.poll(p, kSecond / 10) == Source::Got::packet) ++n;
  EXPECT_EQ(counter.count(), 0);
  EXPECT_EQ(n, 50);
}

TEST(UdpSource, SaysWhatIsWrong) {
  UdpSource taken(of_two_rows(), "test");
  auto p = of_two_rows();
  p.port = taken.port();
  EXPECT_THAT(message_of<ConfigError>([&] { UdpSource(p, "live: udp"); }),
              AllOf(HasSubstr("live: udp.port"), HasSubstr("a free port of 127.0.0.1"), HasSubstr("in use")));
  p = of_two_rows();
  p.bind = "localhost";
  EXPECT_THAT(message_of<ConfigError>([&] { UdpSource(p, "live: udp"); }), HasSubstr("an IPv4 address"));
  p = {};
  p.wait_s = 0.05;
  EXPECT_THAT(message_of<ConfigError>([&] { UdpSource(p, "live: udp"); }),
              AllOf(HasSubstr("rows and rate_hz, or a packet"), HasSubstr("within 0.05 s"), HasSubstr("found none")));
}

}  // namespace
}  // namespace percept
