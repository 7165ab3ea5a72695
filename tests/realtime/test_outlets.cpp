#include "realtime/outlets.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "core/error.h"
#include "realtime/lsl_library.h"
#include "realtime/redis_source.h"
#include "realtime/udp_source.h"
#include "tests/realtime/redis_server.h"
#include "tests/support/alloc.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
constexpr double kNoSd = std::numeric_limits<double>::quiet_NaN();

const OutletSettings kSettings{.rows = {"x", "y"}, .rate_hz = 50};

SentState state(std::int64_t frame, const std::array<double, 2>& value, Hold hold = Hold::none) {
  static constexpr std::array<double, 2> kSd{0.5, kNoSd};
  return {.frame = frame,
          .time_s = static_cast<double>(frame) / 50,
          .value = value.data(),
          .sd = kSd.data(),
          .rows = 2,
          .hold = hold,
          .received_ns = 1000 + frame};
}

// what one percept sends, another receives: numbers, counter, time and why it is held
TEST(Outlets, UdpIsPerceptsOwnPacket) {
  UdpSource::Params from;
  from.rows = 2;
  from.rate_hz = 50;
  from.labels = {"hold", "click"};
  UdpSource source(from, "test");
  source.start();
  const auto outlet =
      make_outlet(parse_outlet(fmt::format("udp:port={}", source.port()), "--output"), kSettings, "live");
  EXPECT_THAT(outlet->device(), HasSubstr("127.0.0.1"));
  const std::array<double, 2> a{1.5, -2}, b{3, kNoSd};
  EXPECT_TRUE(outlet->send(state(7, a)));
  {
    testing::AllocationCounter counter;
    outlet->send(state(8, b, Hold::old_data));
    if (testing::AllocationCounter::available()) {
      EXPECT_EQ(counter.count(), 0);
    }
  }
  Packet p;
  ASSERT_EQ(source.poll(p, 1'000'000'000), Source::Got::packet);
  EXPECT_EQ(p.counter, 7);
  EXPECT_EQ(p.device_s, 7.0 / 50);
  EXPECT_EQ(to_matrix(p.x)(0, 0), 1.5);
  EXPECT_EQ(to_matrix(p.x)(1, 0), -2);
  ASSERT_EQ(source.poll(p, 1'000'000'000), Source::Got::packet);
  EXPECT_EQ(p.counter, 8);
  EXPECT_TRUE(std::isnan(to_matrix(p.x)(1, 0)));
  ASSERT_EQ(p.events.size(), 1u);
  EXPECT_EQ(p.events[0].label.text(), "hold");
  EXPECT_EQ(p.events[0].value, static_cast<double>(Hold::old_data));
  EXPECT_EQ(outlet->sent(), 2);
  SentState clicked = state(9, a, Hold::old_data);
  clicked.clicks = 2;
  outlet->send(clicked);
  ASSERT_EQ(source.poll(p, 1'000'000'000), Source::Got::packet);
  ASSERT_EQ(p.events.size(), 1u);
  EXPECT_EQ(p.events[0].label.text(), "click");
  EXPECT_EQ(p.events[0].value, 2);
}

TEST(Outlets, RedisEntriesAreInBrandsLayout) {
  if (!testing::RedisServer::available()) GTEST_SKIP() << "redis-server is not installed";
  testing::RedisServer server;
  server.start();
  const auto spec = parse_outlet(fmt::format("redis:socket=\"{}\",stream=\"cursor\"", server.socket()), "--output");
  const auto outlet = make_outlet(spec, kSettings, "live");
  const std::array<double, 2> a{1.5, -2}, b{3, 4};
  EXPECT_TRUE(outlet->send(state(7, a)));
  EXPECT_TRUE(outlet->send(state(9, b, Hold::emergency)));
  outlet->finish();
  EXPECT_EQ(outlet->sent(), 2);
  RedisParams p;
  p.socket = server.socket();
  p.stream = "cursor";
  p.type = "float64";
  p.order = "frames";
  p.counter = "i";
  p.from = "0";
  p.rate_hz = 50;
  RedisSource source(p, "test");
  source.start();
  Packet packet;
  ASSERT_EQ(source.poll(packet, 1'000'000'000), Source::Got::packet);
  EXPECT_EQ(packet.counter, 7);
  EXPECT_EQ(to_matrix(packet.x)(1, 0), -2);
  ASSERT_EQ(source.poll(packet, 1'000'000'000), Source::Got::packet);
  EXPECT_EQ(packet.counter, 9);

  // without the server nothing waits, and what cannot be sent is counted
  const auto again = make_outlet(spec, kSettings, "live");
  server.stop();
  for (int k = 0; k < 5; ++k) again->send(state(k, a));
  again->finish();
  EXPECT_EQ(again->lost(), 5);
  EXPECT_NE(again->trouble(), "");
}

TEST(Outlets, LslHasAChannelForEachRowAndOneThatSaysHeld) {
  ::setenv("PERCEPT_LIBLSL", PERCEPT_FAKE_LSL, 1);
  const auto outlet = make_outlet(parse_outlet("lsl:name=\"cursor\"", "--output"), kSettings, "live");
  const std::array<double, 2> a{1.5, -2};
  EXPECT_TRUE(outlet->send(state(7, a)));
  outlet->finish();
  EXPECT_EQ(outlet->sent(), 1);
  EXPECT_EQ(outlet->lost(), 0);
}

TEST(Outlets, SayWhatIsWrong) {
  EXPECT_THAT(message_of<ConfigError>([] { parse_outlet("upd:port=1", "--output"); }),
              AllOf(HasSubstr("--output"), HasSubstr("did you mean 'udp'")));
  const auto refusal = [](const char* text) {
    return message_of<ConfigError>([&] { make_outlet(parse_outlet(text, "--output"), kSettings, "--output"); });
  };
  EXPECT_THAT(refusal("udp"), HasSubstr("the UDP port to send to"));
  EXPECT_THAT(refusal("udp:port=5,host=\"nowhere\""), HasSubstr("an IPv4 address"));
  EXPECT_THAT(refusal("redis:port=1"), HasSubstr("a Redis server, found:"));
  EXPECT_THAT(refusal("stdout:x=1"), HasSubstr("stdout"));
}

}  // namespace
}  // namespace percept
