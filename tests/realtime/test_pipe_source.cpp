#include "realtime/pipe_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <string>
#include <thread>

#include "core/error.h"
#include "numerics/random.h"
#include "realtime/wire.h"
#include "tests/support/alloc.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;

class Pipe {
 public:
  Pipe() { EXPECT_EQ(::pipe(fds_), 0); }
  ~Pipe() {
    close();
    ::close(fds_[0]);
  }
  void write(std::string_view text) {
    ASSERT_EQ(::write(fds_[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  void close() {
    if (fds_[1] >= 0) ::close(fds_[1]);
    fds_[1] = -1;
  }
  int out() const { return fds_[0]; }

 private:
  int fds_[2];
};

std::string packet_text(std::int64_t counter, Index rows, Index frames, double rate = 100) {
  std::vector<float> x;
  for (Index k = 0; k < rows * frames; ++k) x.push_back(static_cast<float>(counter + k / rows));
  std::vector<std::byte> room(70000);
  WirePacket p;
  p.counter = counter;
  p.rate_hz = rate;
  const auto n = write_wire(p, FrameSpan<const float>{x.data(), rows, frames, rows}, room, true);
  return {reinterpret_cast<const char*>(room.data()), n};
}

// cut anywhere by the pipe, every packet is found
TEST(PipeSource, FindsPacketsHoweverTheyAreCut) {
  const KeyedRandom random(1, "pipe");
  std::string all;
  for (int k = 0; k < 200; ++k) all += packet_text(3 * k, 2, 3);
  Pipe pipe;
  std::thread writer([&] {
    for (std::size_t at = 0; at < all.size();) {
      const auto n = std::min<std::size_t>(
          all.size() - at, static_cast<std::size_t>(1 + random.below(150, static_cast<std::int64_t>(at))));
      pipe.write(all.substr(at, n));
      at += n;
    }
    pipe.close();
  });
  PipeSource source(pipe.out(), {}, "test");
  EXPECT_EQ(source.format().describe(), "{2} x f32 at 100 Hz");
  Packet p;
  std::int64_t next = 0;
  for (Source::Got got; (got = source.poll(p, 1'000'000'000)) != Source::Got::ended;) {
    if (got == Source::Got::nothing) continue;
    EXPECT_EQ(p.counter, next);
    EXPECT_EQ(p.x.as<float>().frame(2)[1], static_cast<float>(next + 2));
    next += 3;
  }
  writer.join();
  EXPECT_EQ(next, 600);
  EXPECT_EQ(source.counts().packets, 200);
  EXPECT_EQ(source.counts().malformed, 0);
}

TEST(PipeSource, SkipsWhatLiesBetweenPackets) {
  Pipe pipe;
  pipe.write(packet_text(0, 2, 1) + "PLIVx and more rubbish P" + packet_text(1, 2, 1) + "PLI" + packet_text(2, 2, 1));
  std::string damaged = packet_text(3, 2, 1);
  damaged[50] = static_cast<char>(damaged[50] ^ 1);
  pipe.write(damaged + packet_text(4, 2, 1) + packet_text(5, 3, 1) + packet_text(6, 2, 1).substr(0, 30));
  pipe.close();
  PipeSource source(pipe.out(), {}, "test");
  std::vector<std::int64_t> counters;
  Packet p;
  while (source.poll(p, 0) == Source::Got::packet) counters.push_back(p.counter);
  EXPECT_THAT(counters, ::testing::ElementsAre(0, 1, 2, 4));
  EXPECT_EQ(source.counts().malformed, 4) << "two stretches of rubbish, one damaged, one cut off";
  EXPECT_EQ(source.counts().foreign, 1);
  EXPECT_EQ(source.poll(p, 0), Source::Got::ended);
}

TEST(PipeSource, LinesAreFrames) {
  Pipe pipe;
  PipeSource::Params params;
  params.format = "lines";
  params.rate_hz = 50;
  params.packet = 4;
  pipe.write("1, 2,3\r\n4 5   6\n7;+8;9e0\n,nan,1.5\nnot a line\n1,2\n1,2,3,4\n 10\t11 ,12 \n-1,inf,0\n13,14");
  PipeSource source(pipe.out(), params, "test");
  EXPECT_EQ(source.format().size(), 3);
  std::vector<std::string> got;
  Packet p;
  std::int64_t counter = 0;
  const auto take = [&](Source::Got wanted) {
    for (Source::Got g; (g = source.poll(p, 0)) != wanted;) {
      ASSERT_EQ(g, Source::Got::packet);
      EXPECT_LE(p.x.frames, 4);
      EXPECT_EQ(p.counter, counter);
      counter += p.x.frames;
      for (Index k = 0; k < p.x.frames; ++k) {
        std::string row;
        for (Index r = 0; r < 3; ++r) {
          const float v = p.x.as<float>().frame(k)[r];
          row += (r ? " " : "") + (std::isnan(v) ? std::string("-") : std::to_string(static_cast<int>(v * 10)));
        }
        got.push_back(row);
      }
    }
  };
  take(Source::Got::nothing);
  EXPECT_THAT(got, ::testing::ElementsAre("10 20 30", "40 50 60", "70 80 90", "- - 15", "- - -", "- - -", "- - -",
                                          "100 110 120", "-10 - 0"));
  EXPECT_EQ(source.counts().malformed, 3) << "each is a frame that is missing";
  EXPECT_EQ(source.counts().infinite, 1);
  pipe.write(",15\n16,17,18");  // without a newline at the end
  pipe.close();
  take(Source::Got::ended);
  EXPECT_EQ(got.size(), 11u);
  EXPECT_EQ(got[9], "130 140 150");
  EXPECT_EQ(got[10], "160 170 180");
}

TEST(PipeSource, ALineWithoutEndIsSkipped) {
  Pipe pipe;
  PipeSource::Params params;
  params.format = "lines";
  params.rate_hz = 50;
  params.rows = 1;
  PipeSource source(pipe.out(), params, "test");
  std::thread writer([&] {
    const std::string piece(60000, '7');
    for (int i = 0; i < 60; ++i) pipe.write(piece);
    pipe.write("\n5\n");
    pipe.close();
  });
  std::vector<float> values;
  Packet p;
  for (Source::Got got; (got = source.poll(p, 1'000'000'000)) != Source::Got::ended;)
    if (got == Source::Got::packet)
      for (Index k = 0; k < p.x.frames; ++k) values.push_back(p.x.as<float>().frame(k)[0]);
  writer.join();
  ASSERT_EQ(values.size(), 2u);
  EXPECT_TRUE(std::isnan(values[0]));
  EXPECT_EQ(values[1], 5);
  EXPECT_EQ(source.counts().malformed, 1);
}

TEST(PipeSource, PollAllocatesNothing) {
  if (!testing::AllocationCounter::available()) GTEST_SKIP() << "allocations cannot be counted under a sanitizer";
  for (bool lines : {false, true}) {
    Pipe pipe;
    PipeSource::Params params;
    params.format = lines ? "lines" : "packets";
    params.rate_hz = 100;
    params.rows = 2;
    for (int k = 0; k < 20; ++k) pipe.write(lines ? "1.5,2\nx\n" : packet_text(k, 2, 1) + "x");
    pipe.close();
    PipeSource source(pipe.out(), params, "test");
    Packet p;
    testing::AllocationCounter counter;
    while (source.poll(p, 0) == Source::Got::packet) {
    }
    EXPECT_EQ(counter.count(), 0) << params.format;
    EXPECT_GT(source.counts().packets, 0);
  }
}

TEST(PipeSource, SaysWhatIsWrong) {
  PipeSource::Params lines;
  lines.format = "lines";
  Pipe pipe;
  EXPECT_THAT(message_of<ConfigError>([&] { PipeSource(pipe.out(), lines, "live: stdin"); }),
              HasSubstr("live: stdin.rate_hz"));
  lines.rate_hz = 10;
  lines.wait_s = 0.02;
  EXPECT_THAT(message_of<ConfigError>([&] { PipeSource(pipe.out(), lines, "live: stdin"); }),
              AllOf(HasSubstr("live: stdin.rows"), HasSubstr("within 0.02 s")));
  PipeSource::Params packets;
  packets.wait_s = 0.02;
  EXPECT_THAT(message_of<ConfigError>([&] { PipeSource(pipe.out(), packets, "live: stdin"); }),
              HasSubstr("found none"));
  pipe.write("1,2,3\n");
  EXPECT_THAT(message_of<DataError>([&] { PipeSource(pipe.out(), packets, "live: stdin"); }),
              HasSubstr("percept's packets (or format = \"lines\"), found something else than a packet"));
  pipe.close();
  EXPECT_THAT(message_of<ConfigError>([&] { PipeSource(pipe.out(), packets, "live: stdin"); }),
              HasSubstr("found the end"));
}

}  // namespace
}  // namespace percept
