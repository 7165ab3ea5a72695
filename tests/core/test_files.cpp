/// Files that are never half-written, digests, counters, events, labels, recordings.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <thread>

#include "core/context.h"
#include "core/files.h"
#include "core/recording.h"
#include "core/spool.h"
#include "tests/core/support.h"
#include "tests/support/data.h"

namespace percept::testing {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

std::size_t entries(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(Sha256, KnownAnswers) {  // FIPS 180-4 examples
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  Sha256 million;
  const std::string thousand(1000, 'a');
  for (int i = 0; i < 1000; ++i) million.add(thousand.data(), thousand.size());
  EXPECT_EQ(million.hex(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, OfAFileIsThatOfItsBytes) {
  const auto file = temporary_folder() / "x";
  std::string text(3000001, 'q');
  text[2000000] = '\0';
  write_atomic(file, text);
  EXPECT_EQ(sha256_file(file), sha256(text));
  EXPECT_THROW(sha256_file(file.string() + "none"), DataError);
}

TEST(AtomicFile, ReplacesAndLeavesNothingBeside) {
  const auto folder = temporary_folder();
  write_atomic(folder / "deep" / "x.txt", "one");
  write_atomic(folder / "deep" / "x.txt", "two");
  EXPECT_EQ(read_file(folder / "deep" / "x.txt"), "two");
  EXPECT_EQ(entries(folder / "deep"), 1u);
}

TEST(AtomicFile, WithoutCommitNothingAppearsAndTheOldOneStays) {
  const auto folder = temporary_folder();
  write_atomic(folder / "x.txt", "old");
  {
    AtomicPath out(folder / "x.txt");
    std::ofstream(out.path()) << "half";
    EXPECT_EQ(read_file(folder / "x.txt"), "old");
  }
  EXPECT_EQ(read_file(folder / "x.txt"), "old");
  EXPECT_EQ(entries(folder), 1u);
}

TEST(AtomicFile, AFolderThatIsNotEmptyIsExchangedWhole) {
  const auto folder = temporary_folder();
  for (const char* name : {"a", "b"}) {
    AtomicPath out(folder / "result/");
    fs::create_directories(out.path());
    std::ofstream(out.path() / name) << name;
    out.commit();
  }
  EXPECT_FALSE(fs::exists(folder / "result" / "a"));
  EXPECT_EQ(read_file(folder / "result" / "b"), "b");
  EXPECT_EQ(entries(folder), 1u);
}

TEST(AtomicFile, OnlyTemporariesOfDeadProcessesOfThisMachineAreRemoved) {
  const auto folder = temporary_folder();
  char host[256] = {};
  ASSERT_EQ(::gethostname(host, sizeof host - 1), 0);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  const std::string dead = ".x." + std::string(host) + "." + std::to_string(child) + ".0.part";
  const std::string living = ".x." + std::string(host) + "." + std::to_string(::getpid()) + ".999.part";
  const std::string elsewhere = ".x.another-" + std::string(host) + "." + std::to_string(child) + ".0.part";
  const std::string other = ".y." + std::string(host) + "." + std::to_string(child) + ".0.part";
  for (const auto& name : {dead, living, elsewhere, other}) std::ofstream(folder / name) << "half";
  write_atomic(folder / "x", "whole");
  EXPECT_FALSE(fs::exists(folder / dead));
  for (const auto& name : {living, elsewhere, other}) EXPECT_TRUE(fs::exists(folder / name)) << name;
}

TEST(AtomicFile, APlaceThatCannotBeWrittenIsNamed) {
  const auto folder = temporary_folder();
  write_atomic(folder / "file", "x");
  EXPECT_THAT(message_of<DataError>([&] { write_atomic(folder / "file" / "y", "x"); }),
              HasSubstr((folder / "file").string()));
}

TEST(ReadFile, RefusesWhatIsTooLargeOrNoFile) {
  const auto folder = temporary_folder();
  write_atomic(folder / "x", "12345");
  EXPECT_EQ(read_file(folder / "x", 5), "12345");
  EXPECT_EQ(message_of<DataError>([&] { read_file(folder / "x", 4); }),
            (folder / "x").string() + ": size: expected at most 4 bytes, found 5 bytes");
  EXPECT_EQ(message_of<DataError>([] { read_file("/dev/null"); }),
            "/dev/null: expected a regular file, found a device or pipe");
}

TEST(Counters, AreCountedFromSeveralThreadsAndKeepTheirPlace) {
  Counters all;
  Counter& first = all.get("a", "x");
  for (int i = 0; i < 100; ++i) all.get("b" + std::to_string(i), "y");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 10000; ++i) all.get("a", "x").add();
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(first.value(), 40000);
  EXPECT_EQ(all.nonzero(), (std::vector<std::pair<std::string, std::int64_t>>{{"a.x", 40000}}));
}

TEST(Context, StopsWhenAskedTo) {
  Context c;
  EXPECT_NO_THROW(c.check_cancel());
  c.cancelled = [] { return true; };
  EXPECT_THROW(c.check_cancel(), Interrupted);
}

TEST(Label, OneTextIsOneIdFromAnyThread) {
  EXPECT_EQ(Label().text(), "");
  EXPECT_EQ(Label::of(""), Label());
  std::vector<std::int32_t> ids(8);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < ids.size(); ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) ids[t] = Label::of("label " + std::to_string(i)).id();
    });
  for (auto& t : threads) t.join();
  for (auto id : ids) EXPECT_EQ(id, ids[0]);
  EXPECT_EQ(Label::of("label 7").text(), "label 7");
  EXPECT_FALSE(Label::of("label 7") == Label::of("label 8"));
}

TEST(Output, CountsTheEventsThatDoNotFit) {
  std::vector<Event> room(2);
  Output o;
  o.events = room.data();
  o.event_room = 2;
  for (int i = 0; i < 5; ++i) o.emit(event_at(i, i));
  EXPECT_EQ(o.n_events, 2);
  EXPECT_EQ(o.lost_events, 3);
  EXPECT_EQ(room[1].id, 1);
}

TEST(StreamFormat, TimesPartsAndNames) {
  StreamFormat f = time_format(2, 250, Scalar::f32, "mean");
  f.start_s = -0.4;
  f.parts.push_back({.name = "covariance", .shape = {2, 2}, .unit = "1", .rows = {}, .levels = {}});
  EXPECT_EQ(f.size(), 6);
  EXPECT_EQ(f.part_offset("covariance"), 2);
  EXPECT_EQ(f.part_offset("none"), -1);
  EXPECT_EQ(f.nearest_frame(f.time_of(1234)), 1234);
  EXPECT_EQ(f.nearest_frame(-0.413), -3);
  EXPECT_EQ(f.describe(), "mean {2} + covariance {2, 2} x f32 at 250 Hz");
  EXPECT_EQ(item_format({3, 4}).describe(), "{3, 4} x f64, items");
  EXPECT_EQ(f.row_names()[5], "covariance[3]");
}

TEST(Recording, SlicesKeepTheClockAndSelectionsTheKeys) {
  const Eigen::MatrixXd x = noise(3, 50);
  const Stream s = memory_stream("x", x, 10, 1.0, {"a", "b", "c"}, "V");
  const Stream part = slice(s, 20, 10);
  EXPECT_EQ(part.matrix(), x.middleCols(20, 10));
  EXPECT_EQ(part.format.start_s, 3.0);
  EXPECT_EQ(part.format.row_names(), (std::vector<std::string>{"a", "b", "c"}));
  Eigen::MatrixXd beyond(3, 11);
  EXPECT_THROW(part.samples->read(0, MutableFrames(beyond.data(), Scalar::f64, 3, 11, 3)), DataError);
  EXPECT_THROW(s.samples->read(-1, MutableFrames(beyond.data(), Scalar::f64, 3, 11, 3)), DataError);

  Stream items = s;
  items.format = item_format({3});
  for (std::int64_t k = 0; k < 50; ++k) items.keys.push_back(3 * k + 1);
  const Stream some = select(items, {4, 7, 40});
  EXPECT_EQ(some.keys, (std::vector<std::int64_t>{13, 22, 121}));
  EXPECT_EQ(some.matrix().col(1), x.col(7));
  EXPECT_EQ(slice(items, 5, 2).keys, (std::vector<std::int64_t>{16, 19}));

  Recording r;
  r.streams = {s};
  EXPECT_EQ(message_of<ConfigError>([&] { r.stream("y", "a.toml: fir.from"); }),
            "a.toml: fir.from = \"y\": expected one of the recording's streams: x (did you mean 'x'?)");
}

TEST(Spool, GivesBackWhatItGotAboveAndBelowItsMemory) {
  const Eigen::MatrixXf x = noise(5, 1000).cast<float>();
  for (std::size_t memory : {std::size_t{0}, std::size_t{500}, std::size_t{1} << 20}) {
    Spool spool(5, Scalar::f32, "", memory);
    Index at = 0;
    for (Index n : {0, 1, 3, 90, 400, 506}) {
      spool.append(ConstFrames(x.data() + at * 5, Scalar::f32, 5, n, 5));
      at += n;
    }
    ASSERT_EQ(spool.frames(), 1000);
    Eigen::MatrixXf same(5, 1000);
    spool.read(0, MutableFrames(same.data(), Scalar::f32, 5, 1000, 5));
    EXPECT_EQ(same, x) << memory;
    Eigen::MatrixXd wide = Eigen::MatrixXd::Constant(7, 100, -1);  // converted, as rows of a wider frame
    spool.read(777, MutableFrames(wide.data() + 1, Scalar::f64, 5, 100, 7));
    EXPECT_EQ(wide.middleRows(1, 5), x.middleCols(777, 100).cast<double>()) << memory;
    EXPECT_TRUE((wide.row(0).array() == -1).all() && (wide.row(6).array() == -1).all());
    EXPECT_THROW(spool.read(901, MutableFrames(wide.data(), Scalar::f64, 5, 100, 7)), DataError);
    EXPECT_THROW(spool.read(-1, MutableFrames(wide.data(), Scalar::f64, 5, 1, 7)), DataError);
  }
}

TEST(Spool, AFolderThatIsNotThereIsNamedAndNoFileIsLeft) {
  const Eigen::VectorXd x = Eigen::VectorXd::Ones(4);
  Spool bad(4, Scalar::f64, "/nowhere/at/all", 8);
  EXPECT_THAT(message_of<DataError>([&] { bad.append(ConstFrames(x.data(), Scalar::f64, 4, 1, 4)); }),
              HasSubstr("/nowhere/at/all: temporary file: expected a folder that can be written"));
  const auto folder = temporary_folder();
  Spool good(4, Scalar::f64, folder.string(), 8);
  good.append(ConstFrames(x.data(), Scalar::f64, 4, 1, 4));
  EXPECT_EQ(entries(folder), 0u);  // unlinked at once: gone with the process, however it ends
}

}  // namespace
}  // namespace percept::testing
