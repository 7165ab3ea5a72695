#include "realtime/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace percept {
namespace {

using Bytes = std::vector<std::byte>;

template <class T>
void append(Bytes& to, T v) {
  const auto at = to.size();
  to.resize(at + sizeof v);
  std::memcpy(to.data() + at, &v, sizeof v);
}

/// A packet byte by byte as realtime/wire.h says, without the code under test.
Bytes by_hand(std::uint8_t type, std::uint32_t rows, std::uint32_t frames, const Bytes& numbers) {
  Bytes b;
  for (char c : std::string("PLIV")) b.push_back(static_cast<std::byte>(c));
  append<std::uint8_t>(b, 1);
  append<std::uint8_t>(b, 0);
  append<std::uint8_t>(b, type);
  append<std::uint8_t>(b, 0);
  append<std::uint32_t>(b, rows);
  append<std::uint32_t>(b, frames);
  append<std::int64_t>(b, -7);
  append<double>(b, 12.5);
  append<double>(b, 1000);
  append<float>(b, 0.25f);
  append<std::uint32_t>(b, 0);
  b.insert(b.end(), numbers.begin(), numbers.end());
  return b;
}

TEST(Wire, ReadsWhatIsWrittenDown) {
  Bytes numbers;
  for (std::int16_t v : {1, -2, 300, 32767, -32768, 0}) append(numbers, v);
  const Bytes b = by_hand(2, 3, 2, numbers);
  WirePacket p;
  ASSERT_EQ(read_wire(b, p), WireError::none);
  EXPECT_EQ(p.rows, 3);
  EXPECT_EQ(p.frames, 2);
  EXPECT_EQ(p.counter, -7);
  EXPECT_EQ(p.device_s, 12.5);
  EXPECT_EQ(p.rate_hz, 1000);
  EXPECT_EQ(p.bytes(), b.size());
  std::array<float, 6> x{};
  EXPECT_EQ(unpack_wire(p, FrameSpan<float>{x.data(), 3, 2, 3}), 0);
  EXPECT_THAT(x, ::testing::ElementsAre(0.25f, -0.5f, 75, 8191.75f, -8192, 0));
  std::array<double, 6> wide{};
  unpack_wire(p, FrameSpan<double>{wide.data(), 3, 2, 3});
  EXPECT_EQ(wide[3], 8191.75);
}

TEST(Wire, EveryTypeIsUnpackedAndInfinitiesAreMissing) {
  const double inf = std::numeric_limits<double>::infinity();
  for (std::uint8_t type = 0; type < 4; ++type) {
    Bytes numbers;
    for (double v : {1.0, -3.0, inf, std::nan("")}) {
      const std::int32_t whole = std::isfinite(v) ? static_cast<std::int32_t>(v) : 5;
      if (type == 0) append(numbers, static_cast<float>(v));
      else if (type == 1) append(numbers, v);
      else if (type == 2) append(numbers, static_cast<std::int16_t>(whole));
      else append(numbers, whole);
    }
    const Bytes b = by_hand(type, 2, 2, numbers);  // the packet points into it
    WirePacket p;
    ASSERT_EQ(read_wire(b, p), WireError::none) << int{type};
    std::array<double, 4> x{};
    EXPECT_EQ(unpack_wire(p, FrameSpan<double>{x.data(), 2, 2, 2}), type < 2 ? 1 : 0);
    EXPECT_EQ(x[0], type < 2 ? 1 : 0.25);  // only integers are scaled
    EXPECT_EQ(std::isnan(x[2]), type < 2);
    EXPECT_EQ(std::isnan(x[3]), type < 2);
  }
}

TEST(Wire, WritesWhatItReads) {
  std::vector<double> x{1, 2, 3, 4, 5, 6, 7, 8};
  Bytes room(1000);
  for (bool checked : {false, true}) {
    WirePacket p;
    p.counter = 99;
    p.rate_hz = 50;
    // two rows of frames that lie four apart
    const auto n = write_wire(p, FrameSpan<const double>{x.data(), 2, 2, 4}, room, checked);
    EXPECT_EQ(n, 48u + 32);
    WirePacket q;
    ASSERT_EQ(read_wire(std::span(room).first(n), q), WireError::none);
    EXPECT_TRUE(std::isnan(q.device_s));
    std::array<double, 4> y{};
    unpack_wire(q, FrameSpan<double>{y.data(), 2, 2, 2});
    EXPECT_THAT(y, ::testing::ElementsAre(1, 2, 5, 6));
    room[60] ^= std::byte{1};
    EXPECT_EQ(read_wire(std::span(room).first(n), q), checked ? WireError::checksum : WireError::none);
    EXPECT_EQ(write_wire(p, FrameSpan<const double>{x.data(), 2, 2, 4}, std::span(room).first(79), checked), 0u);
  }
}

TEST(Wire, EventsGoTheSameWay) {
  Bytes room(400);
  WirePacket p;
  p.counter = 20;
  p.rate_hz = 50;
  p.offset_s = 0.004;
  p.duration_s = 1;
  p.value = std::nan("");
  p.label = "target_3";
  const auto n = write_wire_event(p, room, true);
  WirePacket q;
  ASSERT_EQ(read_wire(std::span(room).first(n), q), WireError::none);
  EXPECT_EQ(q.kind, WirePacket::Kind::event);
  EXPECT_EQ(q.counter, 20);
  EXPECT_EQ(q.offset_s, 0.004);
  EXPECT_EQ(q.label, "target_3");
  const std::string longer(300, 'x');
  p.label = longer;
  ASSERT_EQ(read_wire(std::span(room).first(write_wire_event(p, room, false)), q), WireError::none);
  EXPECT_EQ(q.label.size(), WirePacket::kLongestLabel);
}

TEST(Wire, RefusesWhatCannotBe) {
  Bytes numbers(12);
  const Bytes good = by_hand(2, 3, 2, numbers);
  WirePacket p;
  const auto changed = [&](std::size_t at, auto v) {
    Bytes b = good;
    std::memcpy(b.data() + at, &v, sizeof v);
    return read_wire(b, p);
  };
  ASSERT_EQ(read_wire(good, p), WireError::none);
  EXPECT_EQ(read_wire(std::span(good).first(0), p), WireError::cut);
  EXPECT_EQ(read_wire(std::span(good).first(47), p), WireError::cut);
  EXPECT_EQ(read_wire(std::span(good).first(good.size() - 1), p), WireError::cut);
  Bytes longer = good;
  longer.push_back({});
  EXPECT_EQ(read_wire(longer, p), WireError::size);
  EXPECT_EQ(changed(0, 'X'), WireError::magic);
  EXPECT_EQ(changed(4, std::uint8_t{2}), WireError::version);
  EXPECT_EQ(changed(5, std::uint8_t{2}), WireError::field);
  EXPECT_EQ(changed(6, std::uint8_t{4}), WireError::field);
  EXPECT_EQ(changed(7, std::uint8_t{1}), WireError::field);
  EXPECT_EQ(changed(8, std::uint32_t{0}), WireError::field);
  EXPECT_EQ(changed(12, std::uint32_t{0}), WireError::field);
  EXPECT_EQ(changed(8, std::uint32_t{0xffffffff}), WireError::size);
  EXPECT_EQ(changed(12, std::uint32_t{0xffffffff}), WireError::size);
  EXPECT_EQ(changed(12, std::uint32_t{3}), WireError::cut);
  EXPECT_EQ(changed(24, std::numeric_limits<double>::infinity()), WireError::field);
  for (double rate : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()})
    EXPECT_EQ(changed(32, rate), WireError::field) << rate;
  EXPECT_EQ(changed(40, std::nanf("")), WireError::field);
  EXPECT_EQ(changed(44, std::uint32_t{123}), WireError::checksum);
  for (auto error :
       {WireError::cut, WireError::magic, WireError::version, WireError::field, WireError::size, WireError::checksum})
    EXPECT_GT(std::string(text_of(error)).size(), 10u);
}

// the checksum is zlib's CRC-32 of everything but its own four bytes
TEST(Wire, TheChecksumIsTheOneThatIsDocumented) {
  Bytes b = by_hand(2, 3, 2, Bytes(12));
  Bytes rest(b.begin(), b.begin() + 44);
  rest.insert(rest.end(), b.begin() + 48, b.end());
  const auto sum =
      static_cast<std::uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(rest.data()), static_cast<uInt>(rest.size())));
  std::memcpy(b.data() + 44, &sum, 4);
  WirePacket p;
  EXPECT_EQ(read_wire(b, p), WireError::none);
}

}  // namespace
}  // namespace percept
