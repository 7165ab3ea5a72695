#include "realtime/sources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "core/error.h"
#include "io/store.h"
#include "realtime/pumped_source.h"
#include "realtime/replay.h"
#include "realtime/simulator_source.h"
#include "tests/realtime/network.h"
#include "tests/support/alloc.h"
#include "tests/support/data.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::kSecond;
using testing::message_of;

TEST(Sources, AreNamedOnOneLine) {
  const auto spec = parse_source(R"(udp:port=51000,name=raw,labels=["go, now","stop"],rate_hz=1e3)", "--source");
  EXPECT_EQ(spec.use, "udp");
  EXPECT_EQ(spec.params.at("port").as_integer(), 51000);
  EXPECT_EQ(spec.params.at("name").as_string(), "raw");
  EXPECT_EQ(spec.params.at("labels").as_array().at(0).as_string(), "go, now");
  EXPECT_EQ(spec.params.at("labels").size(), 2u);
  EXPECT_EQ(spec.params.at("rate_hz").as_number(), 1000);
  EXPECT_EQ(parse_source("lsl", "--source").params.size(), 0u);
  const auto table = read_source(Value::object({{"use", "redis"}, {"stream", "x"}}), "live.source");
  EXPECT_EQ(table.use, "redis");
  EXPECT_EQ(table.params.size(), 1u);
  EXPECT_EQ(read_source("udp:port=1", "live.source").use, "udp");
  for (auto& kind : source_kinds()) {
    EXPECT_FALSE(kind.doc.empty());
    for (auto& p : kind.params) EXPECT_FALSE(p.doc.empty()) << kind.name << "." << p.key;
  }
}

TEST(Sources, SayWhatIsWrong) {
  EXPECT_THAT(
      message_of<ConfigError>([] { parse_source("upd:port=1", "--source"); }),
      AllOf(HasSubstr("--source = \"upd\": expected one of replay, simulator, udp"), HasSubstr("did you mean 'udp'")));
  EXPECT_THAT(message_of<ConfigError>([] { parse_source("udp:51000", "--source"); }),
              HasSubstr("KIND:KEY=VALUE,KEY=VALUE"));
  EXPECT_THAT(message_of<ConfigError>([] { read_source(Value::table(), "live.source"); }),
              HasSubstr("live.source.use"));
  EXPECT_THAT(message_of<ConfigError>([] { make_source(parse_source("udp:prt=1", "--source"), {}, "--source"); }),
              AllOf(HasSubstr("--source: udp.prt"), HasSubstr("did you mean 'port'")));
  EXPECT_THAT(
      message_of<ConfigError>([] { make_source(parse_source("simulator:speed=-1", "--source"), {}, "--source"); }),
      HasSubstr("speed"));
  EXPECT_THAT(message_of<ConfigError>([] { make_source(parse_source("replay", "--source"), {}, "--source"); }),
              HasSubstr("a recording to replay"));
}

TEST(Sources, ReplayReadsAnyRecording) {
  const auto folder = testing::temporary_folder();
  Recording r;
  r.streams = {memory_stream("a", Eigen::MatrixXd::Constant(2, 30, 4), 100.0),
               memory_stream("b", Eigen::MatrixXd::Constant(1, 30, 5), 100.0)};
  io::write_store(folder / "r.percept", r);
  const auto spec = parse_source("replay:file=r.percept,stream=b,speed=0,packet=7", "--source");
  const auto source = make_source(spec, {.recording = {}, .stream = "", .base = folder}, "--source");
  source->start();
  Index frames = 0;
  Packet p;
  while (source->poll(p, kSecond) == Source::Got::packet) {
    EXPECT_EQ(p.x.rows, 1);
    frames += p.x.frames;
  }
  EXPECT_EQ(frames, 30);
  EXPECT_THAT(message_of<ConfigError>([&] {
                make_source(parse_source("replay:file=r.percept", "--source"),
                            {.recording = {}, .stream = "", .base = folder}, "--source");
              }),
              HasSubstr("a, b"));
  // without a file it is the pipeline's own recording
  const auto own = make_source(parse_source("replay:speed=0", "--source"),
                               {.recording = [&] { return r; }, .stream = "a", .base = {}}, "--source");
  EXPECT_EQ(own->format().size(), 2);
}

TEST(SimulatorSource, GivesTheBinsOfTheRecording) {
  SimulatorSource::Params params;
  params.channels = 12;
  params.duration_s = 4;
  SimulatorSource source(params, {.speed = 0});
  const Recording truth = data::ReachSimulator(params).recording();
  const Eigen::MatrixXd counts = truth.stream("activity", "test").matrix();
  source.start();
  Packet p;
  std::vector<Event> events;
  for (Index k = 0; k < counts.cols(); ++k) {
    ASSERT_EQ(source.poll(p, 0), Source::Got::packet);
    EXPECT_EQ(p.counter, k);
    EXPECT_EQ(to_matrix(p.x), counts.col(k));
    events.insert(events.end(), p.events.begin(), p.events.end());
  }
  EXPECT_EQ(source.poll(p, 0), Source::Got::ended);
  EXPECT_EQ(events, truth.events);
}

// a user who intends what is decoded: here simply the last intention turned round, so that each bin depends on the one
// before
TEST(SimulatorSource, ClosesALoopInLockstep) {
  SimulatorSource::Params params;
  params.channels = 12;
  params.duration_s = 4;
  params.dead_fraction = 0;
  SimulatorSource source(params, {.speed = 0});
  const data::ReachSimulator& simulator = source.simulator();
  double decoded = 0.3;
  std::vector<std::int64_t> asked;
  source.drive([&](std::int64_t frame, double t_s) {
    EXPECT_DOUBLE_EQ(t_s, simulator.time_of(frame));
    asked.push_back(frame);
    return std::array{decoded, -decoded};
  });
  source.start();
  Packet p;
  std::vector<double> expected(12);
  for (std::int64_t k = 0; k < simulator.frames(); ++k) {
    simulator.counts(k, decoded, -decoded, expected);
    testing::AllocationCounter counter;
    ASSERT_EQ(source.poll(p, 0), Source::Got::packet);
    if (k > 0) {
      EXPECT_LE(counter.count(), 3) << "asked grows now and then";
    }
    EXPECT_EQ(to_matrix(p.x), Eigen::Map<Eigen::VectorXd>(expected.data(), 12));
    EXPECT_TRUE(p.events.empty()) << "the task says what happens";
    decoded = -decoded + 0.01 * p.x.as<double>().frame(0)[0];
  }
  EXPECT_EQ(asked.size(), static_cast<std::size_t>(simulator.frames()));
}

TEST(SimulatorSource, KeepsItsTime) {
  SimulatorSource::Params params;
  params.channels = 4;
  params.rate_hz = 100;
  params.duration_s = 1;
  SimulatorSource source(params, {.speed = 4});
  source.start();
  const std::int64_t start = steady_ns();
  Packet p;
  std::int64_t n = 0;
  for (Source::Got got; (got = source.poll(p, kSecond / 1000)) != Source::Got::ended;) {
    if (got == Source::Got::nothing) continue;
    ++n;
    EXPECT_GE(p.received_ns - start, n * kSecond / 400 - kSecond / 1000);
  }
  EXPECT_EQ(n, 100);
  EXPECT_GE(steady_ns() - start, kSecond / 4 - kSecond / 1000);
}

/// Sends `total` packets as fast as they are taken; may be told to wait.
class Burst final : public Source {
 public:
  explicit Burst(std::int64_t total) : total_(total) {
    format_ = time_format(2, 100.0, Scalar::f64);
    info_.name = "burst";
  }
  const SourceInfo& info() const override { return info_; }
  const StreamFormat& format() const override { return format_; }
  Got poll(Packet& packet, std::int64_t) noexcept override {
    if (at_ == total_ || stopped_) return Got::ended;
    x_ = {static_cast<double>(at_), -static_cast<double>(at_)};
    event_ = {.onset_s = 0.001, .id = at_};
    packet = {};
    packet.x = FrameSpan<const double>{x_.data(), 2, 1, 2};
    packet.received_ns = 1000 + at_;
    packet.counter = at_++;
    packet.events = {&event_, 1};
    return Got::packet;
  }
  void stop() noexcept override { stopped_ = true; }
  bool real_time() const override { return false; }
  SourceCounts counts() const override { return {}; }

 private:
  std::int64_t total_, at_ = 0;
  SourceInfo info_;
  StreamFormat format_;
  std::array<double, 2> x_{};
  Event event_;
  std::atomic<bool> stopped_{false};
};

TEST(PumpedSource, LosesNothingHoweverSlowTheTaker) {
  PumpedSource source(std::make_unique<Burst>(5000), 3);
  source.start();
  Packet p;
  std::int64_t next = 0, allocations = 0;
  for (;;) {
    testing::AllocationCounter counter;
    const auto got = source.poll(p, kSecond);
    allocations += counter.count();
    if (got == Source::Got::ended) break;
    ASSERT_EQ(got, Source::Got::packet);
    ASSERT_EQ(p.counter, next);
    ASSERT_EQ(p.x.as<double>().frame(0)[1], -static_cast<double>(next));
    ASSERT_EQ(p.events[0].id, next);
    EXPECT_EQ(p.received_ns, 1000 + next) << "the wait in the ring counts";
    if (++next % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(next, 5000);
  EXPECT_EQ(allocations, 0);
}

TEST(PumpedSource, EndsWhileItWaits) {
  for (int taken : {0, 2}) {
    PumpedSource source(std::make_unique<Burst>(1000000), 2);
    source.start();
    Packet p;
    for (int i = 0; i < taken; ++i) EXPECT_EQ(source.poll(p, kSecond), Source::Got::packet);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST(Wakeup, WaitsWithALimitAndMissesNothing) {
  Wakeup w;
  const std::int64_t before = steady_ns();
  w.wait(w.now(), kSecond / 50);
  EXPECT_GE(steady_ns() - before, kSecond / 50);
  const auto seen = w.now();
  w.notify();
  w.wait(seen, 100 * kSecond);  // told before it waits
  std::atomic<int> turns{0};
  Wakeup there, back;
  std::thread other([&] {
    for (int i = 0; i < 2000; ++i) {
      while (turns.load() <= i) {
        const auto s = there.now();
        if (turns.load() <= i) there.wait(s, kSecond);
      }
      turns.fetch_add(1000000);
      back.notify();
    }
  });
  for (int i = 0; i < 2000; ++i) {
    turns.fetch_add(1);
    there.notify();
    while (turns.load() < 1000000) {
      const auto s = back.now();
      if (turns.load() < 1000000) back.wait(s, kSecond);
    }
    turns.fetch_sub(1000000);
  }
  other.join();
  EXPECT_LT(steady_ns() - before, 60 * kSecond);
}

}  // namespace
}  // namespace percept
