#include "io/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "io/format_value.h"
#include "io/open.h"
#include "tests/io/helpers.h"

namespace percept::io_test {
namespace {

namespace fs = std::filesystem;
using io::SessionKind;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

template <class T>
std::span<const std::byte> bytes(const T& v) {
  return std::as_bytes(std::span(&v, 1));
}

/// A session of one input "x" (two rows, 100 Hz) and one output "y" (one row). Frame k holds k and -k.
class Scribe {
 public:
  explicit Scribe(const fs::path& file, bool with_head = true) : writer(file) {
    StreamFormat in = time_format(2, 100.0, Scalar::f64, "x"), out = time_format(1, 100.0, Scalar::f32, "y");
    in.start_s = 3;
    const auto stream = [](const char* name, const StreamFormat& f) {
      return Value::array({Value::object({{"name", name}, {"format", io::format_to_value(f)}})});
    };
    if (with_head)
      text(SessionKind::head, to_json(Value::object({{"percept_session", 1},
                                                     {"name", "monday"},
                                                     {"inputs", stream("x", in)},
                                                     {"outputs", stream("y", out)}})));
  }
  void text(SessionKind kind, const std::string& json) { writer.add(kind, 0, std::as_bytes(std::span(json))); }
  void packet(std::int64_t number, std::int64_t first, int frames) {
    std::vector<double> x;
    for (int k = 0; k < frames; ++k)
      for (double sign : {1.0, -1.0}) x.push_back(sign * static_cast<double>(first + k));
    io::SessionPacket p;
    p.number = number;
    p.counter = 1000 + first;
    p.device_s = kUnknown;
    p.rows = 2;
    p.frames = frames;
    p.scalar = 1;
    writer.add(SessionKind::packet, 0, bytes(p), std::as_bytes(std::span(x)));
  }
  void step(std::int64_t packet, std::int64_t first, int frames, int offset = 0,
            const std::vector<io::SessionEvent>& events = {}) {
    io::SessionStep s;
    s.first_frame = first;
    s.packet = packet;
    s.frames = frames;
    s.offset = offset;
    s.events = static_cast<std::int32_t>(events.size());
    writer.add(SessionKind::step, 0, bytes(s), std::as_bytes(std::span(events)));
  }
  void label(std::int32_t number, const std::string& name) {
    std::string b(8, '\0');
    std::memcpy(b.data(), &number, 4);
    text(SessionKind::label, b + name);
  }
  void event(double onset_s, std::int32_t label, double value = 0, int row = -1, std::int64_t id = 0) {
    writer.add(SessionKind::event, 0, bytes(io::SessionEvent{onset_s, 0, value, id, label, row}));
  }
  void output(std::int64_t first, const std::vector<float>& y) {
    io::SessionOutput o;
    o.first_frame = first;
    o.rows = 1;
    o.frames = static_cast<std::int32_t>(y.size());
    writer.add(SessionKind::output, 1, bytes(o), std::as_bytes(std::span(y)));
  }
  void end() {
    text(SessionKind::end, to_json(Value::object({{"finished", true}})));
    EXPECT_EQ(writer.write(), 0);
  }
  io::SessionWriter writer;
};

fs::path session_file() { return testing::temporary_folder() / "s.session"; }

/// Packets of one size, one in pieces, a duplicate, one that waited, and a gap.
fs::path whole_session() {
  const fs::path file = session_file();
  Scribe s(file);
  s.label(1, "go");
  s.label(2, "gap");
  for (int k = 0; k < 20; ++k) {
    s.packet(k, 3 * k, 3);
    s.step(k, 3 * k, 3);
    s.output(3 * k, {0.5f, static_cast<float>(k), 2});
  }
  s.packet(20, 57, 3);
  s.writer.add(SessionKind::fate, 0, bytes(io::SessionFate{20, 2, 0}));
  s.packet(21, 60, 4);
  s.step(21, 60, 3, 0, {{3.61, 0, 7, 5, 1, 2}});
  s.step(21, 63, 1, 3);
  s.packet(22, 70, 1);  // waits
  s.writer.add(SessionKind::fate, 0, bytes(io::SessionFate{22, 1, 0}));
  s.packet(23, 66, 2);
  s.event(3.64, 2, 2);
  s.step(-1, 64, 2);
  s.step(23, 66, 2);
  s.event(3.68, 2, 2);
  s.step(-1, 68, 2);
  s.step(22, 70, 1);
  s.writer.add(SessionKind::clock, 0, bytes(io::SessionClock{2'000'000'000, 1, 2, 1e-4, 1e-5, 2e-5, 0, 1}));
  s.end();
  return file;
}

TEST(Session, IsARecordingOfWhatCameInAndWentOut) {
  const fs::path file = whole_session();
  const Recording r = io::open_session(file);
  EXPECT_EQ(r.name, "monday");
  ASSERT_EQ(r.streams.size(), 2u);
  EXPECT_EQ(r.streams[0].name, "x");
  EXPECT_EQ(r.streams[0].format.start_s, 3);
  Eigen::MatrixXd truth(2, 71);
  for (Index k = 0; k < 71; ++k) {
    const bool missing = k == 64 || k == 65 || k == 68 || k == 69;
    truth.col(k) << (missing ? kUnknown : static_cast<double>(k)), (missing ? kUnknown : -static_cast<double>(k));
  }
  for (Index n : {1, 2, 7, 71}) {
    const Eigen::MatrixXd x = in_blocks(*r.streams[0].samples, 2, n);
    ASSERT_EQ(x.cols(), 71);
    for (Index k = 0; k < 71; ++k)
      for (Index row = 0; row < 2; ++row)
        EXPECT_TRUE(x(row, k) == truth(row, k) || (std::isnan(x(row, k)) && std::isnan(truth(row, k)))) << k;
  }
  EXPECT_EQ(r.streams[1].name, "live_y");
  const Eigen::MatrixXd y = r.streams[1].matrix();
  ASSERT_EQ(y.cols(), 60);
  for (Index k = 0; k < 20; ++k) EXPECT_EQ(y(0, 3 * k + 1), static_cast<double>(k));

  ASSERT_EQ(r.events.size(), 3u);
  EXPECT_EQ(r.events[0].label.text(), "go");
  EXPECT_EQ(r.events[0].row, 2);
  EXPECT_EQ(r.events[1].label.text(), "gap");
  ASSERT_TRUE(r.table("clock_x"));
  EXPECT_EQ(r.table("clock_x")->find("drift")->numbers.at(0), 1e-4);
  const Value& live = r.meta.at("live");
  EXPECT_TRUE(live.at("complete").as_bool());
  EXPECT_EQ(live.at("packets").as_integer(), 24);
  EXPECT_EQ(live.at("not_used_at_once").at("duplicate").as_integer(), 1);
  EXPECT_TRUE(r.warnings().empty());
}

TEST(Session, StatesItsPartition) {
  const Recording r = io::open_session(whole_session());
  ASSERT_TRUE(r.partition);
  EXPECT_THAT(r.partition->inputs, ::testing::ElementsAre("x"));
  std::vector<std::pair<Index, std::int64_t>> steps;
  for (auto& s : r.partition->steps) steps.emplace_back(s.frames, s.repeat);
  EXPECT_THAT(steps, ::testing::ElementsAre(std::pair(3, 21), std::pair(1, 1), std::pair(2, 3), std::pair(1, 1)));
  ASSERT_EQ(r.partition->actions.size(), 1u);
  EXPECT_EQ(r.partition->actions[0].step, 20);
  EXPECT_EQ(r.partition->actions[0].event.label.text(), "go");
  EXPECT_TRUE(r.partition->finished);
  EXPECT_EQ(r.partition->largest(), 3);
}

// wherever it is cut, what is whole before the cut can be used, and nothing else
TEST(Session, CutAnywhereItGivesItsWholeRecords) {
  const fs::path file = whole_session();
  const std::string all = bytes_of_file(file);
  std::vector<std::uint64_t> ends{16};
  io::scan_session(file,
                   [&](const io::SessionRecordView& r) { ends.push_back((r.offset + r.payload.size() + 7) / 8 * 8); });
  ASSERT_EQ(ends.back(), all.size());
  std::int64_t frames = -1;
  for (std::size_t cut = 16; cut <= all.size(); cut += 1 + cut % 3) {
    const fs::path part = file_with("part.session", all.substr(0, cut));
    const auto good = *(std::upper_bound(ends.begin(), ends.end(), cut) - 1);
    const auto scan = io::scan_session(part, [](const io::SessionRecordView&) {});
    EXPECT_EQ(scan.good_bytes, good);
    EXPECT_EQ(scan.cut_bytes, cut - good);
    if (cut < ends[1]) {
      EXPECT_THAT(message_of<DataError>([&] { io::open_session(part); }), HasSubstr("expected a head, found none"));
      continue;
    }
    const Recording r = io::open_session(part);
    EXPECT_GE(r.streams[0].frames(), frames) << "more bytes never give fewer frames";
    frames = r.streams[0].frames();
    r.streams[0].matrix();
    EXPECT_EQ(r.meta.at("live").at("complete").as_bool(), cut == all.size());
    EXPECT_EQ(r.warnings().empty(), cut == all.size()) << "also one that is cut between two records says so";
    if (cut % 50 == 0) {
      EXPECT_EQ(io::repair_session(part), cut - good);
      EXPECT_EQ(fs::file_size(part), good);
      EXPECT_EQ(io::repair_session(part), 0u);
    }
  }
  EXPECT_EQ(frames, 71);
}

TEST(Session, ADamagedByteEndsWhatCanBeUsed) {
  const fs::path file = whole_session();
  const std::string all = bytes_of_file(file);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> records;  // start of its head, end without padding
  io::scan_session(
      file, [&](const io::SessionRecordView& r) { records.emplace_back(r.offset - 16, r.offset + r.payload.size()); });
  for (std::size_t at = 16; at < all.size(); at += 11) {
    const auto hit =
        std::find_if(records.begin(), records.end(), [&](auto& r) { return at >= r.first && at < r.second; });
    if (hit == records.end()) continue;  // padding carries nothing
    std::string damaged = all;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x20);
    const auto scan = io::scan_session(file_with("d.session", damaged), [](const io::SessionRecordView&) {});
    EXPECT_EQ(scan.good_bytes, hit->first) << "byte " << at;
  }
  const fs::path damaged = file_with("d.session", all.substr(0, all.size() - 20) + "x" + all.substr(all.size() - 19));
  EXPECT_THAT(message_of<DataError>([&] { io::check_file(damaged); }),
              AllOf(HasSubstr("expected a whole record"), HasSubstr("can be used")));
  io::check_file(file);
}

// records that are whole and say what cannot be are refused with their number
TEST(Session, RefusesWhatCannotBe) {
  const auto refusal = [](const std::function<void(Scribe&)>& write, bool head = true) {
    const fs::path file = session_file();
    Scribe s(file, head);
    write(s);
    s.writer.write();
    return message_of<DataError>([&] { io::open_session(file); });
  };
  EXPECT_THAT(refusal([](Scribe& s) { s.packet(0, 0, 1); }, false),
              HasSubstr("record 0: expected a head as the first"));
  EXPECT_THAT(refusal([](Scribe& s) { s.text(SessionKind::head, "{"); }, false), HasSubstr("s.session"));
  EXPECT_THAT(refusal([](Scribe& s) { s.text(SessionKind::head, "{}"); }, false), HasSubstr("percept_session"));
  EXPECT_THAT(refusal([](Scribe& s) { s.text(SessionKind::head, R"({"percept_session": 9})"); }, false),
              HasSubstr("a session of version 1 to 1, found 9"));
  EXPECT_THAT(refusal([](Scribe& s) { s.text(SessionKind::head, "{}"); }), HasSubstr("one head, found another"));
  EXPECT_THAT(refusal([](Scribe& s) { s.step(0, 0, 1); }), HasSubstr("packet 0 before its step"));
  EXPECT_THAT(refusal([](Scribe& s) { s.step(-1, 5, 1); }), HasSubstr("frame 0 next, found 5"));
  EXPECT_THAT(refusal([](Scribe& s) { s.step(-1, 0, 0); }), HasSubstr("a step with frames"));
  EXPECT_THAT(refusal([](Scribe& s) {
                s.packet(0, 0, 2);
                s.step(0, 0, 3);
              }),
              HasSubstr("packet 0 before its step"));
  EXPECT_THAT(refusal([](Scribe& s) { s.output(4, {1}); }), HasSubstr("frame 0 of y next, found 4"));
  EXPECT_THAT(refusal([](Scribe& s) { s.event(kUnknown, 0); }), HasSubstr("an event with an onset"));
  EXPECT_THAT(refusal([](Scribe& s) { s.text(SessionKind::fate, "short"); }), HasSubstr("16 bytes, found 5"));
  EXPECT_THAT(refusal([](Scribe& s) {
                io::SessionPacket p;
                p.input = 3;
                s.writer.add(SessionKind::packet, 0, bytes(p));
              }),
              HasSubstr("an input from 0 to 0, found 3"));
  EXPECT_THAT(message_of<DataError>([] { io::open_session(file_with("x.session", "something else")); }),
              HasSubstr("a live session of percept"));
  const fs::path file = whole_session();
  EXPECT_THAT(message_of<DataError>([&] { io::SessionWriter again(file); }), HasSubstr("a new file"));
}

// what the recorder could not write is said, and frames keep their place; such a session cannot be repeated
TEST(Session, LossesAreGaps) {
  const fs::path file = session_file();
  {
    Scribe s(file);
    s.packet(0, 0, 2);
    s.step(0, 0, 2);
    io::SessionLoss loss;
    loss.records = 4;
    loss.packets = 2;
    loss.frames = 4;
    loss.steps = 2;
    s.writer.add(SessionKind::loss, 0, bytes(loss));
    s.packet(3, 6, 2);
    s.step(3, 6, 2);
    s.output(6, {1, 2});
    s.end();
  }
  const Recording r = io::open_session(file);
  EXPECT_EQ(r.streams[0].frames(), 8);
  EXPECT_TRUE(r.streams[0].matrix().middleCols(2, 4).array().isNaN().all());
  EXPECT_EQ(r.streams[0].matrix()(0, 6), 6);
  EXPECT_EQ(r.streams[1].frames(), 8);
  EXPECT_FALSE(r.partition);
  EXPECT_FALSE(r.meta.at("live").at("complete").as_bool());
  EXPECT_THAT(r.warnings().at(0), HasSubstr("the recorder lost 4 records (2 packets with 4 frames"));
}

// a full disk, in a process of its own: the limit would hold for every file of this one
TEST(Session, AFullDiskLeavesOnlyWholeRecords) {
  const fs::path file = session_file();
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{3000, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    Scribe s(file);
    if (s.writer.write() != 0) ::_exit(2);
    int failed = 0;
    for (int k = 0; k < 30; ++k) {
      s.packet(k, 3 * k, 3);
      s.step(k, 3 * k, 3);
      failed += s.writer.write() == EFBIG;
    }
    const std::size_t waiting = s.writer.buffered();
    const rlimit more{1 << 20, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &more);
    if (failed == 0 || waiting == 0) ::_exit(3);
    if (s.writer.write() != 0 || s.writer.buffered() != 0) ::_exit(4);  // there is room again
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(io::scan_session(file, [](const io::SessionRecordView&) {}).cut_bytes, 0u);
  EXPECT_EQ(io::open_session(file).streams[0].frames(), 90);
}

TEST(Session, OpensLikeAnyFile) {
  const fs::path file = whole_session();
  EXPECT_EQ(io::open_recording(file).streams.size(), 2u);
  EXPECT_EQ(io::open_stream(file, Value::object({{"variable", "x"}})).frames(), 71);
  const Value d = io::describe_file(file);
  EXPECT_EQ(d.at("kind").as_string(), "live session");
  EXPECT_EQ(d.at("contents").as_array().at(0).at("missing").as_integer(), 8);
}

}  // namespace
}  // namespace percept::io_test
