#include "realtime/sequencer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <vector>

#include "numerics/random.h"
#include "tests/support/alloc.h"

namespace percept {
namespace {

using ::testing::ElementsAre;

constexpr Index kRows = 2;
constexpr double kRate = 100;

StreamFormat two_rows(Index max_frames = 16) {
  StreamFormat f = time_format(kRows, kRate);
  f.start_s = 2;
  f.max_frames = max_frames;
  return f;
}

/// Checks that every index comes once and in order, and keeps what came: frame k holds k + 1000 in a packet, or NaN.
struct InOrder final : Sequencer::Taker {
  std::vector<double> values;
  std::vector<std::int64_t> serials;  ///< of each block of frames
  std::vector<Event> events;
  bool in_order = true;
  void missing(std::int64_t first, std::int64_t n) noexcept override {
    in_order = in_order && first == static_cast<std::int64_t>(values.size()) && n > 0;
    values.insert(values.end(), static_cast<std::size_t>(n), std::numeric_limits<double>::quiet_NaN());
  }
  void frames(std::int64_t first, ConstFrames x, std::span<const Event> with, std::int64_t serial,
              Index) noexcept override {
    in_order = in_order && first == static_cast<std::int64_t>(values.size()) && x.frames > 0;
    for (Index k = 0; k < x.frames; ++k) values.push_back(x.as<double>().frame(k)[0]);
    serials.push_back(serial);
    events.insert(events.end(), with.begin(), with.end());
  }
};

/// A device that counts from 1000.
class CountingDevice {
 public:
  explicit CountingDevice(Sequencer::Options options = {.max_gap = 6000}) : sequencer(two_rows(), options) {}
  Fate send(std::int64_t counter, Index frames, std::span<const Event> events = {}, std::int64_t received_ns = 0) {
    std::vector<double> x;
    for (Index k = 0; k < frames * kRows; ++k)
      x.push_back(static_cast<double>(counter) + static_cast<double>(k / kRows));
    Packet p;
    p.x = ConstFrames(x.data(), Scalar::f64, kRows, frames, kRows);
    p.counter = counter;
    p.events = events;
    p.received_ns = received_ns;
    return sequencer.push(p, serial++, taken);
  }
  /// Values without the holes, and the number of holes.
  std::vector<double> present() const {
    std::vector<double> all;
    std::copy_if(taken.values.begin(), taken.values.end(), std::back_inserter(all), [](double v) { return v == v; });
    return all;
  }
  Sequencer sequencer;
  InOrder taken;
  std::int64_t serial = 0;
};

TEST(Sequencer, TellsDuplicatesFromLatePackets) {
  CountingDevice d;
  EXPECT_EQ(d.send(1000, 4), Fate::used);
  EXPECT_EQ(d.send(1000, 4), Fate::duplicate);
  EXPECT_EQ(d.send(1008, 4), Fate::used);  // 1004 to 1007 are missing
  EXPECT_EQ(d.send(1004, 4), Fate::late);
  EXPECT_EQ(d.send(1004, 4), Fate::duplicate) << "now it has come";
  EXPECT_EQ(d.send(1008, 2), Fate::duplicate);
  EXPECT_EQ(d.send(1020, 2), Fate::used);
  EXPECT_EQ(d.send(1014, 2), Fate::late) << "from the middle of a hole";
  EXPECT_EQ(d.send(1012, 2), Fate::late);
  EXPECT_EQ(d.send(1014, 2), Fate::duplicate);
  EXPECT_EQ(d.send(1016, 4), Fate::late);
  const auto c = d.sequencer.counts();
  EXPECT_EQ(c.packets, 3);
  EXPECT_EQ(c.frames, 10);
  EXPECT_EQ(c.gaps, 2);
  EXPECT_EQ(c.missing_frames, 12);
  EXPECT_EQ(c.duplicate_packets, 4);
  EXPECT_EQ(c.late_packets, 4);
  EXPECT_EQ(c.reordered_packets, 0);
  EXPECT_TRUE(d.taken.in_order);
  EXPECT_EQ(d.taken.values.size(), 22u);
}

TEST(Sequencer, APacketThatIsHeldWaitsForItsElders) {
  CountingDevice d({.max_gap = 6000, .hold = 3});
  EXPECT_EQ(d.send(1000, 2), Fate::used);
  EXPECT_EQ(d.send(1006, 2), Fate::held);
  EXPECT_EQ(d.send(1004, 2), Fate::held);
  EXPECT_EQ(d.send(1004, 2), Fate::duplicate) << "it waits already";
  EXPECT_EQ(d.taken.values.size(), 2u);
  EXPECT_EQ(d.send(1002, 2), Fate::used);
  EXPECT_THAT(d.taken.values, ElementsAre(1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007));
  EXPECT_THAT(d.taken.serials, ElementsAre(0, 4, 2, 1));
  const auto c = d.sequencer.counts();
  EXPECT_EQ(c.packets, 4);
  EXPECT_EQ(c.reordered_packets, 2);
  EXPECT_EQ(c.duplicate_packets, 1);
  EXPECT_EQ(c.gaps, 0);
}

TEST(Sequencer, WhatDoesNotComeWhileOthersWaitIsMissing) {
  CountingDevice d({.max_gap = 6000, .hold = 2});
  d.send(1000, 2);
  d.send(1004, 2);  // 1002 never comes
  d.send(1006, 2);
  EXPECT_EQ(d.sequencer.held(), 2);
  EXPECT_EQ(d.send(1008, 2), Fate::used) << "no room to wait: the hole is given up";
  EXPECT_EQ(d.sequencer.held(), 0);
  EXPECT_TRUE(d.taken.in_order);
  EXPECT_EQ(d.taken.values.size(), 10u);
  EXPECT_EQ(d.sequencer.counts().missing_frames, 2);
  EXPECT_EQ(d.send(1002, 2), Fate::late);
  d.send(1014, 2);
  d.sequencer.release(d.taken);
  EXPECT_EQ(d.taken.values.size(), 16u);
  EXPECT_EQ(d.sequencer.counts().missing_frames, 6);
  EXPECT_EQ(d.sequencer.counts().gaps, 2);
}

TEST(Sequencer, FramesMayBeGivenUpBeforeAnythingComesBehindThem) {
  CountingDevice d;
  d.send(1000, 2);
  d.sequencer.give_up(1, d.taken);
  d.sequencer.give_up(2, d.taken);
  EXPECT_EQ(d.sequencer.counts().gaps, 1) << "one silence is one gap";
  EXPECT_EQ(d.sequencer.counts().missing_frames, 3);
  EXPECT_EQ(d.send(1002, 3), Fate::late);
  EXPECT_EQ(d.send(1005, 1), Fate::used);
  EXPECT_EQ(d.taken.values.size(), 6u);
}

TEST(Sequencer, EventsOfADeviceThatOnlyCountsGetTheirTime) {
  CountingDevice d;
  const Event e{.onset_s = 0.005, .label = Label::of("go")};
  d.send(1000, 2);
  std::vector<double> x(4, 1.0);
  Packet p;
  p.x = ConstFrames(x.data(), Scalar::f64, kRows, 2, kRows);
  p.counter = 1004;
  p.events = {&e, 1};
  p.events_from_packet = true;
  d.sequencer.push(p, 1, d.taken);
  ASSERT_EQ(d.taken.events.size(), 1u);
  EXPECT_NEAR(d.taken.events[0].onset_s, 2 + 4 / kRate + 0.005, 1e-12);
}

TEST(Sequencer, ImpossiblePacketsAreRefusedAndHarmless) {
  CountingDevice d({.max_gap = 6000, .hold = 2});
  d.send(1000, 2);
  for (std::int64_t counter :
       {std::int64_t{1002 + 6001}, std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min()})
    EXPECT_EQ(d.send(counter, 2), Fate::refused) << counter;
  EXPECT_EQ(d.send(1002, 0), Fate::refused);
  EXPECT_EQ(d.sequencer.counts().refused_packets, 4);
  EXPECT_EQ(d.send(1002, 20), Fate::used) << "larger than announced: nothing is held, all is used";
  EXPECT_EQ(d.send(1024, 20), Fate::used);
  EXPECT_EQ(d.sequencer.counts().missing_frames, 2);
  EXPECT_TRUE(d.taken.in_order);
}

// the device is silent for 2 s and counts from 5 again: after three packets in 0.1 s or more the input goes on, and the
// frames in between are missing
TEST(Sequencer, ADeviceThatBeginsAnewIsFollowed) {
  for (const bool ahead : {false, true}) {
    CountingDevice d;
    std::int64_t now = 1'000'000'000;
    const auto send = [&](std::int64_t counter) {
      now += 20'000'000;  // two frames
      return d.send(counter, 2, {}, now);
    };
    for (int k = 0; k < 50; ++k) EXPECT_EQ(send(1000 + 2 * k), Fate::used);
    now += 2'000'000'000;
    const std::int64_t anew = ahead ? 5'000'000 : 5;
    int dropped = 0;
    Fate fate = Fate::refused;
    std::int64_t counter = anew;
    for (; fate != Fate::used && dropped < 100; counter += 2) {
      fate = send(counter);
      dropped += fate != Fate::used;
    }
    // 0.1 s is ten frames: the sixth packet is that far behind the first
    EXPECT_EQ(dropped, 5) << ahead;
    for (int k = 0; k < 20; ++k, counter += 2) EXPECT_EQ(send(counter), Fate::used);
    const auto c = d.sequencer.counts();
    EXPECT_EQ(c.restarts, 1);
    EXPECT_EQ(c.refused_packets, 5) << "they were of the new count: neither late nor duplicates";
    EXPECT_EQ(c.late_packets + c.duplicate_packets, 0);
    EXPECT_EQ(c.packets, 50 + 21);
    // silence of 2 s and five packets of 20 ms
    EXPECT_EQ(c.missing_frames, 200 + 10);
    EXPECT_TRUE(d.taken.in_order);
    EXPECT_EQ(d.taken.values.size(), 100u + 210 + 42);
    EXPECT_EQ(d.sequencer.first_counter(), anew + 10 - 310);
  }
}

// a burst of old packets that comes at once is old, however long it is
TEST(Sequencer, ABurstOfOldPacketsIsNotANewBeginning) {
  CountingDevice d;
  std::int64_t now = 1'000'000'000;
  for (int k = 0; k < 100; ++k) d.send(1000 + 2 * k, 2, {}, now += 20'000'000);
  for (int k = 20; k < 80; ++k) EXPECT_EQ(d.send(1000 + 2 * k, 2, {}, now += 10'000), Fate::duplicate);
  EXPECT_EQ(d.sequencer.counts().restarts, 0);
  EXPECT_EQ(d.send(1200, 2, {}, now += 20'000'000), Fate::used);
}

// Any mixture of loss, bursts, duplicates and disorder: an independent account of what was sent and what came
TEST(Sequencer, CountsAreExactWhateverTheNetworkDoes) {
  const KeyedRandom random(4, "network");
  std::map<Index, std::int64_t> late, reordered;
  for (Index hold : {0, 1, 6}) {
    for (std::int64_t trial = 0; trial < 40; ++trial) {
      struct Sent {
        std::int64_t counter;
        Index frames;
        double order;
      };
      std::vector<Sent> wire;
      std::int64_t counter = 1000;
      for (std::int64_t k = 0; k < 300; ++k) {
        const std::int64_t key = trial * 1000 + k;
        const Index frames = 1 + random.below(5, key, 1);
        const bool lost = random.uniform(key, 2) < 0.05 || (k > 120 && k < 150);
        // the first comes first: it says where counting begins
        const double delay = k == 0 ? -1 : random.uniform(key, 3) < 0.1 ? 6 * random.uniform(key, 4) : 0;
        if (!lost || k == 0) wire.push_back({counter, frames, static_cast<double>(k) + delay});
        if (k > 0 && !lost && random.uniform(key, 5) < 0.08)
          wire.push_back({counter, frames, static_cast<double>(k) + 8 * random.uniform(key, 6)});
        counter += frames;
      }
      std::stable_sort(wire.begin(), wire.end(), [](auto& a, auto& b) { return a.order < b.order; });

      CountingDevice d({.max_gap = 6000, .hold = hold});
      // account: what of a packet had come before, by frame
      std::map<std::int64_t, bool> came;
      std::int64_t duplicates = 0;
      for (auto& p : wire) {
        bool fresh = false;
        for (std::int64_t f = p.counter; f < p.counter + p.frames; ++f) fresh |= came.emplace(f, true).second;
        duplicates += !fresh;
        d.send(p.counter, p.frames);
      }
      d.sequencer.release(d.taken);
      const auto c = d.sequencer.counts();
      EXPECT_EQ(c.duplicate_packets, duplicates);
      EXPECT_EQ(c.refused_packets, 0);
      EXPECT_EQ(c.repeated_frames, 0);
      EXPECT_EQ(c.packets + c.duplicate_packets + c.late_packets, static_cast<std::int64_t>(wire.size()));
      EXPECT_TRUE(d.taken.in_order);
      const auto total = static_cast<std::int64_t>(d.taken.values.size());
      EXPECT_EQ(c.frames + c.missing_frames, total);
      std::int64_t frames = 0;
      for (std::int64_t k = 0; k < total; ++k) {
        const double v = d.taken.values[static_cast<std::size_t>(k)];
        if (v == v) {
          EXPECT_EQ(v, static_cast<double>(1000 + k));
          ++frames;
        }
      }
      EXPECT_EQ(frames, c.frames);
      reordered[hold] += c.reordered_packets;
      late[hold] += c.late_packets;
    }
  }
  // the more room there is to wait, the less of what comes out of order is late
  EXPECT_EQ(reordered[0], 0);
  EXPECT_GT(reordered[1], 0);
  EXPECT_GT(reordered[6], reordered[1]);
  EXPECT_GT(late[0], late[1]);
  EXPECT_GT(late[1], late[6]);
}

TEST(Sequencer, AllocatesNothing) {
  if (!testing::AllocationCounter::available()) GTEST_SKIP() << "allocations cannot be counted under a sanitizer";
  struct Nobody final : Sequencer::Taker {
    void missing(std::int64_t, std::int64_t) noexcept override {}
    void frames(std::int64_t, ConstFrames, std::span<const Event>, std::int64_t, Index) noexcept override {}
  } nobody;
  Sequencer sequencer(two_rows(), {.max_gap = 1000, .hold = 4});
  std::vector<double> x(8, 1.0);
  const Event e{.onset_s = 1};
  testing::AllocationCounter counter;
  for (std::int64_t k = 0; k < 500; ++k) {
    Packet p;
    p.x = ConstFrames(x.data(), Scalar::f64, kRows, 4, kRows);
    p.counter = 4 * (k % 7 == 3 ? k + 2 : k % 11 == 5 ? k - 3 : k);
    p.events = {&e, 1};
    p.events_from_packet = k % 2;
    sequencer.push(p, k, nobody);
  }
  sequencer.release(nobody);
  EXPECT_EQ(counter.count(), 0);
}

}  // namespace
}  // namespace percept
