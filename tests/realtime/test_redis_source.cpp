#include "realtime/redis_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <thread>

#include "core/error.h"
#include "tests/realtime/network.h"
#include "tests/realtime/redis_server.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using ::testing::AllOf;
using testing::drain;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::kSecond;
using testing::message_of;
using testing::RedisServer;

template <class T>
std::string binary(std::initializer_list<T> values) {
  std::string bytes;
  for (T v : values) bytes.append(reinterpret_cast<const char*>(&v), sizeof v);
  return bytes;
}

using Fields = std::vector<std::pair<std::string, std::string>>;
/// Takes the fields and returns the packet's values frame by frame; empty when it was refused.
std::vector<double> taken(RedisIntake& intake, const Fields& fields, Packet& packet) {
  std::vector<std::pair<std::string_view, std::string_view>> views(fields.begin(), fields.end());
  if (!intake.take(views, 7, packet)) return {};
  std::vector<double> values;
  const Eigen::MatrixXd x = to_matrix(packet.x);
  values.assign(x.data(), x.data() + x.size());
  return values;
}
RedisParams of(const std::string& counter, std::int64_t frames = 2) {
  RedisParams p;
  p.stream = "s";
  p.rate_hz = 1000;
  p.frames = frames;
  p.counter = counter;
  return p;
}

// BRAND's adapters write channel after channel: (n + channel * samples) is their index
TEST(RedisIntake, SamplesLieAsBrandWritesThem) {
  RedisIntake intake(of("timestamps"), "test");
  intake.prepare(3);
  Packet p;
  const Fields entry{{"timestamps", binary<std::uint32_t>({500, 501})},
                     {"ts", binary<std::uint64_t>({2'500'000'000ull})},
                     {"samples", binary<std::int16_t>({1, 2, 10, 20, -100, -200})}};
  EXPECT_THAT(taken(intake, entry, p), ElementsAre(1, 10, -100, 2, 20, -200));
  EXPECT_EQ(p.counter, 500);
  EXPECT_EQ(p.received_ns, 7);
  EXPECT_EQ(p.device_s, 2.5);
  EXPECT_EQ(p.clock.device_s, 2.5);

  RedisParams by_frame = of("", 2);
  by_frame.order = "frames";
  by_frame.type = "float64";
  by_frame.scale = 2;
  RedisIntake other(by_frame, "test");
  other.prepare(2);
  EXPECT_THAT(taken(other, {{"samples", binary<double>({1, 2, 3, 4})}}, p), ElementsAre(2, 4, 6, 8));
  EXPECT_TRUE(std::isnan(p.device_s));
  EXPECT_NEAR(p.clock.device_s, 0.002, 1e-12) << "frames are counted where there is no time";
}

TEST(RedisIntake, CountersOfEveryKind) {
  Packet p;
  const auto samples = std::pair<std::string, std::string>{"samples", binary<std::int16_t>({1, 2})};
  RedisIntake entries(of(""), "test"), i(of("i"), "test"), sync(of("sync.nsp1_clock"), "test");
  for (auto* intake : {&entries, &i, &sync}) intake->prepare(1);
  for (int k = 0; k < 3; ++k) {
    EXPECT_FALSE(taken(entries, {samples}, p).empty());
    EXPECT_EQ(p.counter, 2 * k);
  }
  // as numpy's uint64, and as the text that redis-py makes of a number
  EXPECT_FALSE(taken(i, {samples, {"i", binary<std::uint64_t>({40})}}, p).empty());
  EXPECT_EQ(p.counter, 80);
  EXPECT_FALSE(taken(i, {samples, {"i", "41"}}, p).empty());
  EXPECT_EQ(p.counter, 82);
  EXPECT_FALSE(taken(sync, {samples, {"sync", R"({"xPC_clock": 3, "nsp1_clock": 70})"}}, p).empty());
  EXPECT_EQ(p.counter, 70);

  RedisParams slow = of("timestamps", 1);
  slow.ticks = 30;
  RedisIntake clock(slow, "test");
  clock.prepare(2);
  EXPECT_FALSE(taken(clock, {samples, {"timestamps", binary<std::uint32_t>({4294967280u})}}, p).empty());
  EXPECT_EQ(p.counter, 4294967280 / 30);
  EXPECT_FALSE(taken(clock, {samples, {"timestamps", binary<std::uint32_t>({14})}}, p).empty());
  EXPECT_EQ(p.counter, 4294967280 / 30 + 1) << "32 bits wrap";
  EXPECT_FALSE(taken(clock, {samples, {"timestamps", binary<std::uint64_t>({4294967280ull + 60})}}, p).empty());
  EXPECT_EQ(p.counter, 4294967280 / 30 + 2);
  EXPECT_THAT(message_of<ConfigError>([] { RedisIntake(of("clock"), "live: redis"); }),
              HasSubstr("live: redis.counter = \"clock\": expected timestamps, i, sync.NAME"));
}

TEST(RedisIntake, TimesOfEveryKind) {
  RedisIntake intake(of(""), "test");
  intake.prepare(1);
  Packet p;
  for (auto& [text, seconds] : std::vector<std::pair<std::string, double>>{
           {binary<std::uint64_t>({1'500'000'000ull}), 1.5}, {"1500000000", 1.5}, {"1.5", 1.5}}) {
    taken(intake, {{"samples", binary<std::int16_t>({1, 2})}, {"ts", text}}, p);
    EXPECT_DOUBLE_EQ(p.device_s, seconds) << text;
  }
  for (const char* text : {"", "1e999", "abc", "--", "1.5.5"}) {
    taken(intake, {{"samples", binary<std::int16_t>({1, 2})}, {"ts", text}}, p);
    EXPECT_TRUE(std::isnan(p.device_s)) << text;
  }
}

TEST(RedisIntake, RefusesAndCountsWhatIsNotAnnounced) {
  Packet p;
  const auto samples = std::pair<std::string, std::string>{"samples", binary<std::int16_t>({1, 2})};
  RedisIntake intake(of("i"), "test");
  intake.prepare(1);
  EXPECT_TRUE(taken(intake, {}, p).empty());
  EXPECT_TRUE(taken(intake, {samples}, p).empty()) << "no counter";
  for (const char* i : {"", "-1", "1x", "99999999999999999999", "\xff\xff\xff\xff\xff\xff\xff\xff"})
    EXPECT_TRUE(taken(intake, {samples, {"i", i}}, p).empty()) << i;
  EXPECT_TRUE(taken(intake, {samples, {"i", "9223372036854775807"}}, p).empty()) << "times two frames";
  EXPECT_EQ(intake.counts().malformed, 8);
  EXPECT_EQ(intake.counts().foreign, 0);
  EXPECT_EQ(intake.trouble(), "");
  EXPECT_TRUE(taken(intake, {{"samples", "12345"}, {"i", "1"}}, p).empty());
  EXPECT_TRUE(taken(intake, {{"samples", std::string(1 << 20, 'x')}, {"i", "1"}}, p).empty());
  EXPECT_EQ(intake.counts().foreign, 2);
  EXPECT_THAT(intake.trouble(), HasSubstr("now hold 1048576 bytes of samples, announced were 1 x 2 of int16"));
  EXPECT_FALSE(taken(intake, {samples, {"i", "1"}}, p).empty());
  EXPECT_EQ(intake.trouble(), "");

  RedisIntake sync(of("sync.a"), "test");
  sync.prepare(1);
  for (const char* text : {"", "{", "[]", "{}", R"({"a": 1.5})", R"({"a": "1"})", R"({"a": null})"})
    EXPECT_TRUE(taken(sync, {samples, {"sync", text}}, p).empty()) << text;
  EXPECT_TRUE(taken(sync, {samples, {"sync", "{\"a\": 1, \"b\": \"" + std::string(5000, 'x') + "\"}"}}, p).empty());
  EXPECT_EQ(sync.counts().malformed, 8);

  // where entries are counted, one that cannot be read is frames that are missing
  RedisIntake entries(of(""), "test");
  entries.prepare(1);
  taken(entries, {samples}, p);
  taken(entries, {}, p);
  taken(entries, {{"samples", "1"}}, p);
  taken(entries, {samples}, p);
  EXPECT_EQ(p.counter, 6);
}

TEST(RedisIntake, EveryTypeAndNoInfinities) {
  Packet p;
  for (const char* type : {"int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"}) {
    RedisParams params = of("", 1);
    params.type = type;
    RedisIntake intake(params, "test");
    const std::string t = type;
    std::string bytes = t == "int8" || t == "uint8"     ? binary<std::uint8_t>({3, 250})
                        : t == "int16" || t == "uint16" ? binary<std::uint16_t>({3, 65530})
                        : t == "int32" || t == "uint32" ? binary<std::uint32_t>({3, 4294967290u})
                        : t == "float32"                ? binary<float>({3, HUGE_VALF})
                                                        : binary<double>({3, -HUGE_VAL});
    const std::pair<std::string_view, std::string_view> field{"samples", bytes};
    EXPECT_EQ(intake.rows_of({&field, 1}), 2) << type;
    intake.prepare(2);
    const auto values = taken(intake, {{"samples", bytes}}, p);
    ASSERT_EQ(values.size(), 2u);
    EXPECT_EQ(values[0], 3);
    if (t[0] == 'i') EXPECT_EQ(values[1], -6) << type;
    else if (t[0] == 'f') EXPECT_TRUE(std::isnan(values[1])) << type;
    else EXPECT_EQ(values[1], std::pow(2, 8.0 * static_cast<double>(bytes.size()) / 2) - 6) << type;
    EXPECT_EQ(intake.counts().infinite, t[0] == 'f' ? 1 : 0);
  }
}

std::vector<std::string> entry(std::int64_t i, std::initializer_list<std::int16_t> samples) {
  return {"XADD",
          "spikes",
          "*",
          "ts",
          binary<std::uint64_t>({static_cast<std::uint64_t>(steady_ns())}),
          "i",
          std::to_string(i),
          "samples",
          binary<std::int16_t>(samples)};
}

TEST(RedisSource, ReadsARealServerAndGoesOnWhenItWasAway) {
  PERCEPT_NEED_REDIS();
  RedisServer server;
  server.start();
  server.ask(entry(6, {0, 0, 0, 0}));
  RedisParams p = of("i");
  p.socket = server.socket();
  p.stream = "spikes";
  RedisSource source(p, "test");
  EXPECT_EQ(source.format().describe(), "{2} x f32 at 1000 Hz") << "from the newest entry";
  EXPECT_EQ(source.info().kind, "redis");
  EXPECT_FALSE(source.real_time());

  for (std::int16_t k = 7; k < 100; ++k)
    if (k != 50) server.ask(entry(k, {k, 0, 0, static_cast<std::int16_t>(-k)}));
  server.ask({"XADD", "spikes", "*", "nothing", "here"});
  std::int64_t next = 14;
  drain(source, [&](const Packet& packet) {
    if (next == 100) next += 2;
    EXPECT_EQ(packet.counter, next);
    EXPECT_EQ(packet.x.as<float>().frame(0)[0], static_cast<float>(next / 2));
    EXPECT_EQ(packet.x.as<float>().frame(1)[1], static_cast<float>(-next / 2));
    EXPECT_NEAR(packet.device_s, static_cast<double>(packet.received_ns) * 1e-9, 2);
    next += 2;
  });
  EXPECT_EQ(next, 200);
  EXPECT_EQ(source.counts().malformed, 1);

  server.stop();
  Packet packet;
  for (int i = 0; i < 20 && source.trouble().empty(); ++i)
    EXPECT_EQ(source.poll(packet, kSecond / 20), Source::Got::nothing);
  EXPECT_THAT(source.trouble(), HasSubstr("Redis " + server.socket()));
  server.start();
  server.ask(entry(200, {1, 2, 3, 4}));
  const std::int64_t until = steady_ns() + 20 * kSecond;
  while (source.poll(packet, kSecond / 20) != Source::Got::packet) ASSERT_LT(steady_ns(), until);
  EXPECT_EQ(packet.counter, 400);
  EXPECT_EQ(source.counts().reconnects, 1);
  EXPECT_EQ(source.trouble(), "");
  source.stop();
  EXPECT_EQ(source.poll(packet, kSecond), Source::Got::ended);
}

TEST(RedisSource, ReadsAllThereIsFromTheBeginning) {
  PERCEPT_NEED_REDIS();
  RedisServer server;
  server.start();
  for (std::int16_t k = 0; k < 150; ++k) server.ask(entry(k, {k, k}));
  RedisParams p = of("i");
  p.socket = server.socket();
  p.stream = "spikes";
  p.from = "0";
  RedisSource source(p, "test");
  std::int64_t n = 0;
  drain(source, [&](const Packet& packet) { EXPECT_EQ(packet.counter, 2 * n++); });
  EXPECT_EQ(n, 150);
}

TEST(RedisSource, SaysWhatIsWrong) {
  RedisParams p = of("i");
  p.socket = "/nowhere/redis.sock";
  p.wait_s = 0.1;
  EXPECT_THAT(message_of<ConfigError>([&] { RedisSource(p, "live: redis"); }),
              AllOf(HasSubstr("a Redis server within 0.1 s"), HasSubstr("/nowhere/redis.sock")));
  p.rate_hz = 0;
  EXPECT_THAT(message_of<ConfigError>([&] { RedisSource(p, "live: redis"); }), HasSubstr("live: redis.rate_hz"));
  p.stream = "";
  EXPECT_THAT(message_of<ConfigError>([&] { RedisSource(p, "live: redis"); }), HasSubstr("live: redis.stream"));
  PERCEPT_NEED_REDIS();
  RedisServer server;
  server.start();
  p = of("i");
  p.socket = server.socket();
  p.stream = "spikes";
  p.wait_s = 0.1;
  EXPECT_THAT(message_of<ConfigError>([&] { RedisSource(p, "live: redis"); }),
              HasSubstr("rows, or an entry of spikes within 0.1 s whose field samples has whole rows of 2 x int16"));
  server.ask({"SET", "spikes", "not a stream"});
  EXPECT_THAT(message_of<ConfigError>([&] { RedisSource(p, "live: redis"); }),
              AllOf(HasSubstr("a stream that can be read"), HasSubstr("WRONGTYPE")));
}

}  // namespace
}  // namespace percept
