#include "io/store.h"

#include <gmock/gmock.h>
#include <hdf5.h>

#include <bit>
#include <chrono>
#include <random>
#include <thread>

#include "io/hdf5.h"
#include "tests/io/helpers.h"

/// libhdf5 loses a few hundred bytes when it refuses a damaged file; that is not ours to mend.
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }

namespace percept::io {
namespace {
namespace fs = std::filesystem;
using io_test::bytes_of_file;
using io_test::file_with;
using io_test::message_of;
using ::testing::HasSubstr;

Eigen::MatrixXd noise(Index rows, Index frames, int seed) {
  std::srand(static_cast<unsigned>(seed));
  return Eigen::MatrixXd::Random(rows, frames);
}

/// Everything a recording can hold.
Recording full_recording(Index frames = 5000) {
  Recording r;
  r.name = "sub-01";
  r.meta["subject"] = "Übung";
  r.meta["warnings"] = Value(std::vector<std::string>{"one", "two"});
  r.meta["rate"] = 0.1;
  Eigen::MatrixXd activity = noise(7, frames, 3);
  activity(2, 11) = std::nan("");
  activity(3, 0) = -0.0;
  r.streams.push_back(memory_stream("activity", activity, 1000.0 / 3, -0.25, {"a", "b", "c", "d", "e", "f", "g"}, "V"));
  r.streams[0].format.parts[0].rows[1].position = {0.01, -0.02, 1.0 / 3};
  r.streams[0].format.parts[0].rows[2].good = false;
  r.streams.push_back(memory_stream("narrow", noise(3, 100, 4).cast<float>().cast<double>(), 20));
  r.streams[1].format.scalar = Scalar::f32;
  Stream items;
  items.name = "images";
  items.format = item_format({2, 3});
  items.format.parts.push_back({.name = "class", .shape = {1}, .unit = "1", .rows = {}, .levels = {"cat", "dog"}});
  items.samples = std::make_shared<MemorySource>(noise(7, 9, 5));
  items.keys = {-4, -1, 0, 2, 3, 10, 11, 12, std::int64_t{1} << 60};
  r.streams.push_back(items);
  Stream empty = memory_stream("empty", Eigen::MatrixXd(2, 0), 10);
  r.streams.push_back(empty);
  r.tables.push_back({"item", {{"age", {31, std::nan(""), 7}, {}}, {"site", {}, {"A", "", "tab\tand \xff byte"}}}});
  r.tables.push_back({"nothing", {}});
  r.events.push_back(
      {.onset_s = 0.1, .duration_s = 0.2, .value = 3, .id = 0, .label = Label::of("go"), .row = 2, .origin = -1});
  r.events.push_back({.onset_s = 0.1,
                      .duration_s = 0,
                      .value = std::nan(""),
                      .id = 1,
                      .label = Label::of(""),
                      .row = -1,
                      .origin = 4});
  r.events.push_back(
      {.onset_s = 1.0 / 3, .duration_s = 0, .value = 0, .id = 2, .label = Label::of("go"), .row = -1, .origin = -1});
  return r;
}

bool same_bits(double a, double b) { return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b); }

/// All of both recordings, bit by bit.
void expect_equal(const Recording& a, const Recording& b) {
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.meta, b.meta);
  ASSERT_EQ(a.streams.size(), b.streams.size());
  for (std::size_t i = 0; i < a.streams.size(); ++i) {
    SCOPED_TRACE(a.streams[i].name);
    EXPECT_EQ(a.streams[i].name, b.streams[i].name);
    EXPECT_EQ(a.streams[i].format, b.streams[i].format);
    EXPECT_EQ(a.streams[i].keys, b.streams[i].keys);
    const Eigen::MatrixXd x = a.streams[i].matrix(), y = b.streams[i].matrix();
    ASSERT_EQ(x.rows(), y.rows());
    ASSERT_EQ(x.cols(), y.cols());
    for (Index k = 0; k < x.size(); ++k) ASSERT_TRUE(same_bits(x.data()[k], y.data()[k])) << k;
  }
  ASSERT_EQ(a.tables.size(), b.tables.size());
  for (std::size_t i = 0; i < a.tables.size(); ++i) {
    EXPECT_EQ(a.tables[i].name, b.tables[i].name);
    ASSERT_EQ(a.tables[i].columns.size(), b.tables[i].columns.size());
    for (std::size_t c = 0; c < a.tables[i].columns.size(); ++c) {
      const Column &x = a.tables[i].columns[c], &y = b.tables[i].columns[c];
      EXPECT_EQ(x.name, y.name);
      EXPECT_EQ(x.text, y.text);
      ASSERT_EQ(x.numbers.size(), y.numbers.size());
      for (std::size_t k = 0; k < x.numbers.size(); ++k) EXPECT_TRUE(same_bits(x.numbers[k], y.numbers[k]));
    }
  }
  ASSERT_EQ(a.events.size(), b.events.size());
  for (std::size_t i = 0; i < a.events.size(); ++i) {
    Event x = a.events[i], y = b.events[i];
    EXPECT_TRUE(same_bits(x.value, y.value));
    x.value = y.value = 0;
    EXPECT_EQ(x, y);
  }
}

TEST(Store, GivesBackEveryBit) {
  const auto file = testing::temporary_folder() / "r.percept";
  const Recording r = full_recording();
  write_store(file, r);
  expect_equal(r, open_store(file));
}

TEST(Store, ARecordingWithNothingInIt) {
  const auto file = testing::temporary_folder() / "r.percept";
  write_store(file, Recording{});
  expect_equal(Recording{}, open_store(file));
}

TEST(Store, BlocksEqualTheWhole) {
  const auto file = testing::temporary_folder() / "r.percept";
  const Recording r = full_recording(20000);
  write_store(file, r);
  const Recording back = open_store(file);
  const Eigen::MatrixXd whole = r.streams[0].matrix();
  for (const Index n : {1, 37, 10007, 20000})
    EXPECT_TRUE(io_test::same(io_test::in_blocks(*back.streams[0].samples, 7, n), whole)) << n;
  Eigen::MatrixXf apart = Eigen::MatrixXf::Constant(9, 3, -1);
  back.streams[0].samples->read(4999, MutableFrames(apart.data() + 1, Scalar::f32, 7, 3, 9));
  EXPECT_EQ(apart.middleRows(1, 7), whole.middleCols(4999, 3).cast<float>());
  EXPECT_EQ(apart.row(0).maxCoeff(), -1);
  EXPECT_EQ(apart.row(8).maxCoeff(), -1);
  EXPECT_THAT(message_of([&] { io_test::in_blocks(*back.streams[0].samples, 6, 5); }),
              HasSubstr("expected 7 rows in a range inside [0, 20000)"));
  EXPECT_THAT(
      message_of([&] { back.streams[0].samples->read(19998, MutableFrames(apart.data(), Scalar::f32, 7, 3, 9)); }),
      HasSubstr("[19998, 20001)"));
}

TEST(Store, ManyThreadsReadAtOnce) {
  const auto file = testing::temporary_folder() / "r.percept";
  const Recording r = full_recording();
  write_store(file, r);
  const Recording back = open_store(file);
  std::vector<Eigen::MatrixXd> got(4);
  {
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < got.size(); ++t)
      threads.emplace_back(
          [&, t] { got[t] = io_test::in_blocks(*back.streams[0].samples, 7, 101 + static_cast<Index>(t)); });
  }
  for (const auto& m : got) EXPECT_TRUE(io_test::same(m, r.streams[0].matrix()));
}

TEST(Store, TheSameContentGivesTheSameBytesHoweverItWasCut) {
  const auto folder = testing::temporary_folder();
  const Eigen::MatrixXd m = noise(5, 30000, 8);
  std::vector<std::string> bytes;
  for (const Index n : {30000, 1, 999, 30000}) {
    const auto file = folder / "r.percept";
    StoreWriter out(file);
    const int s = out.add_stream("x", time_format(5, 100));
    for (Index k = 0; k < m.cols(); k += n) {
      const Index some = std::min(n, m.cols() - k);
      out.append(s, ConstFrames(m.data() + 5 * k, Scalar::f64, 5, some, 5));
    }
    out.add_events(full_recording(20).events);
    out.commit();
    bytes.push_back(bytes_of_file(file));
  }
  EXPECT_GT(bytes[0].size(), 5U * 30000 * 8);
  for (const auto& b : bytes) EXPECT_TRUE(b == bytes[0]);
  write_store(folder / "a.percept", full_recording());
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // times are kept in seconds
  write_store(folder / "b.percept", full_recording());
  EXPECT_TRUE(bytes_of_file(folder / "a.percept") == bytes_of_file(folder / "b.percept"));
}

TEST(Store, AppearsOnlyWhenCommitted) {
  const auto folder = testing::temporary_folder();
  const auto file = folder / "r.percept";
  {
    StoreWriter out(file);
    const int s = out.add_stream("x", time_format(2, 100));
    const Eigen::MatrixXd m = noise(2, 100000, 9);
    out.append(s, ConstFrames(m.data(), Scalar::f64, 2, m.cols(), 2));
    EXPECT_FALSE(fs::exists(file));
  }
  EXPECT_TRUE(fs::is_empty(folder));
  write_store(file, full_recording());
  const std::string before = bytes_of_file(file);
  {
    StoreWriter out(file);
    out.set_name("another");
  }
  EXPECT_TRUE(bytes_of_file(file) == before);
}

TEST(Store, RefusesWhatCannotBeReadBack) {
  StoreWriter out(testing::temporary_folder() / "r.percept");
  const Eigen::MatrixXd m = noise(2, 4, 1);
  const ConstFrames frames(m.data(), Scalar::f64, 2, 4, 2);
  const int time = out.add_stream("t", time_format(2, 100)), item = out.add_stream("i", item_format({2}));
  const std::vector<std::int64_t> rising{1, 2, 3, 4}, falling{1, 2, 2, 4};
  EXPECT_THAT(message_of([&] { out.add_stream("t", time_format(1, 1)); }),
              HasSubstr("expected names that differ, found 't' twice"));
  EXPECT_THAT(message_of([&] { out.add_stream("z", time_format(1, 0)); }), HasSubstr("a finite rate above 0"));
  EXPECT_THAT(message_of([&] { out.add_stream("z", time_format(0, 1)); }), HasSubstr("shapes of at least 1"));
  EXPECT_THAT(message_of([&] { out.append(time, frames, rising); }),
              HasSubstr("expected no keys on the time axis, found 4"));
  EXPECT_THAT(message_of([&] { out.append(item, frames); }), HasSubstr("expected 4 keys, one a frame, found 0"));
  EXPECT_THAT(message_of([&] { out.append(item, frames, falling); }),
              HasSubstr("expected rising keys (above 2), found 2"));
  EXPECT_THAT(message_of([&] { out.append(time, frames.part(0, 1)); }),
              HasSubstr("expected frames of 2 rows, found 1"));
  EXPECT_THAT(message_of([&] { out.append(7, frames); }), HasSubstr("expected a number below 2, found 7"));
  EXPECT_THAT(message_of([&] {
                out.add_table({"t", {{"a", {1}, {}}, {"b", {1, 2}, {}}}});
              }),
              HasSubstr("t.b: expected 1 rows"));
  EXPECT_THAT(message_of([&] {
                Event late, early;
                late.onset_s = 2;
                early.onset_s = 1;
                out.add_events({&late, 1});
                out.add_events({&early, 1});
              }),
              HasSubstr("expected rising onsets (from 2 s), found 1 s"));
  EXPECT_THAT(message_of([] { StoreWriter("/proc/none/r.percept"); }), HasSubstr("/proc/none"));
}

TEST(Store, NamesWhatIsWrong) {
  EXPECT_THAT(message_of([] { open_store("/nowhere/r.percept"); }), HasSubstr("found No such file"));
  EXPECT_THAT(message_of([] { open_store("/tmp"); }), HasSubstr("found a directory"));
  EXPECT_THAT(message_of([] { open_store(file_with("r.percept", "1,2")); }), HasSubstr("found another kind of file"));
  const auto old = testing::temporary_folder() / "old.percept";
  H5Fclose(H5Fcreate(old.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
  EXPECT_THAT(message_of([&] { open_store(old); }),
              HasSubstr("expected a store of percept (HDF5 with superblock 3), found HDF5 with superblock 0"));
  const auto other = testing::temporary_folder() / "other.percept";
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
  H5Fclose(H5Fcreate(other.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access));
  EXPECT_THAT(message_of([&] { open_store(other); }), HasSubstr("index: expected an array"));
  const auto newer = testing::temporary_folder() / "newer.percept";
  {
    const hid_t f = H5Fcreate(newer.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
    const std::string index = R"({"percept_store": 99})";
    const hsize_t size[2] = {index.size(), 1};
    const hid_t plist = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(2, size, nullptr);
    H5Pset_chunk(plist, 2, size);
    const hid_t set = H5Dcreate2(f, "index", H5T_NATIVE_UINT8, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    H5Dwrite(set, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, index.data());
    H5Dclose(set);
    H5Pclose(plist);
    H5Sclose(space);
    H5Fclose(f);
  }
  H5Pclose(access);
  EXPECT_THAT(message_of([&] { open_store(newer); }),
              HasSubstr("version: expected a store of version 1 to 1, found 99"));
}

/// Bytes changed all over: an error, or the same content.
TEST(Store, DamageIsAnErrorNeverACrashNorOtherNumbers) {
  const auto file = testing::temporary_folder() / "r.percept";
  const Recording r = full_recording(400);
  write_store(file, r);
  const std::string whole = bytes_of_file(file);
  std::mt19937 random(11);
  int refused = 0, equal = 0;
  const auto damaged = testing::temporary_folder() / "d.percept";
  for (int i = 0; i < 1500; ++i) {
    std::string bytes = whole;
    if (i % 20 == 0) bytes.resize(random() % bytes.size());
    else if (i % 3 == 0) bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
    else
      bytes[random() % std::min<std::size_t>(bytes.size(), i % 3 == 1 ? 4096 : bytes.size())] =
          static_cast<char>(random());
    std::ofstream(damaged, std::ios::binary | std::ios::trunc) << bytes;
    try {
      const Recording back = open_store(damaged);
      expect_equal(r, back);
      ++equal;
    } catch (const DataError& e) {
      EXPECT_THAT(e.what(), HasSubstr("d.percept"));
      ++refused;
    }
    if (HasFailure()) FAIL() << "at " << i;
  }
  EXPECT_GT(refused, 500);
  EXPECT_GT(equal, 10);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
long peak_kb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stol(line.substr(6));
  return 0;
}

TEST(Store, MemoryIsBoundedByTheBlock) {
  const auto file = testing::temporary_folder() / "big.percept";
  const Eigen::MatrixXd block = noise(64, 1000, 2);
  std::ofstream("/proc/self/clear_refs") << "5";  // begins a new peak
  const long before = peak_kb();
  {
    StoreWriter out(file);
    const int s = out.add_stream("x", time_format(64, 1000));
    for (int i = 0; i < 250; ++i) out.append(s, ConstFrames(block.data(), Scalar::f64, 64, 1000, 64));
    out.commit();
  }
  EXPECT_GT(fs::file_size(file), 120'000'000U);
  const Recording r = open_store(file);
  Eigen::MatrixXd got(64, 1000);
  for (int i = 0; i < 250; ++i) {
    r.streams[0].samples->read(1000 * i, MutableFrames(got.data(), Scalar::f64, 64, 1000, 64));
    ASSERT_EQ(got, block);
  }
  EXPECT_LT(peak_kb() - before, 16 * 1024);
  fs::remove(file);
}
#endif

}  // namespace
}  // namespace percept::io
