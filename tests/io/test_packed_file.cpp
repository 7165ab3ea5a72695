#include <random>
#include <thread>

#include "core/error.h"
#include "io/packed_file.h"
#include "tests/io/helpers.h"
#include "tests/io/nifti_bytes.h"

namespace percept::io_test {
namespace {
using ::testing::HasSubstr;

/// Text that packs a little: words of a small alphabet.
std::string content(std::size_t n, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::string s(n, ' ');
  for (char& c : s) c = static_cast<char>('a' + random() % 12);
  return s;
}

std::string at(const io::PackedFile& file, std::uint64_t offset, std::size_t n) {
  std::string s(n, '\0');
  s.resize(file.read_some(offset, s.data(), n));
  return s;
}

TEST(PackedFile, PlainAndPackedReadTheSame) {
  const std::string all = content(100000);
  const io::PackedFile plain(file_with("a.bin", all)), packed(file_with("a.bin.gz", gzip(all)));
  EXPECT_FALSE(plain.packed());
  EXPECT_TRUE(packed.packed());
  for (auto* f : {&plain, &packed}) {
    EXPECT_EQ(at(*f, 0, all.size()), all);
    EXPECT_EQ(at(*f, 99990, 100), all.substr(99990));
    EXPECT_EQ(at(*f, 100000, 5), "");
    EXPECT_EQ(at(*f, UINT64_MAX - 3, 2), "");
    EXPECT_EQ(at(*f, 17, 3), all.substr(17, 3));
    EXPECT_EQ(f->bytes(), all.size());
    EXPECT_GE(f->most_bytes(), all.size());
  }
}

// Places to resume lie 4 MB apart: read in any order over several of them, from several members and threads.
TEST(PackedFile, ReadsAtAnyPlaceInAnyOrder) {
  const std::string first = content(9 << 20, 2), second = content(3 << 20, 3), all = first + second;
  // some writers pad with zeros, others put one member behind the other
  const auto path =
      file_with("two.gz", gzip(first, 1) + std::string(700, '\0') + gzip(second, 6) + std::string(9, '\0'));
  for (const bool whole_first : {true, false}) {
    const io::PackedFile file(path);
    if (whole_first) {
      EXPECT_EQ(file.bytes(), all.size());
    }
    std::mt19937 random(7);
    for (int i = 0; i < 20; ++i) {
      const std::size_t offset = random() % all.size(), n = random() % 200000;
      ASSERT_EQ(at(file, offset, n), all.substr(offset, n)) << i << " at " << offset;
    }
    ASSERT_EQ(at(file, first.size() - 5, 10), all.substr(first.size() - 5, 10));
    ASSERT_TRUE(at(file, 0, all.size()) == all);
  }
  const io::PackedFile file(path);
  std::vector<std::thread> threads;
  std::vector<int> wrong(3, 0);
  for (unsigned t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 10; ++i) {
        const std::size_t offset = random() % all.size();
        wrong[t] += at(file, offset, 1000) != all.substr(offset, 1000);
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_THAT(wrong, ::testing::Each(0));
}

TEST(PackedFile, DamageIsAnError) {
  const std::string all = content(300000), packed = gzip(all);
  const auto error = [&](const std::string& bytes) {
    const io::PackedFile file(file_with("x.gz", bytes));
    return message_of([&] { file.bytes(); });
  };
  EXPECT_THAT(error(packed.substr(0, packed.size() / 2)),
              HasSubstr("x.gz: gzip: expected a whole gzip stream, found the end of the file after "));
  EXPECT_THAT(error(packed.substr(0, packed.size() - 4)), HasSubstr("the end of the file after 300000 bytes"));
  std::string checksum = packed;
  checksum[packed.size() - 6] ^= 1;
  EXPECT_THAT(error(checksum), HasSubstr("incorrect data check after 300000 bytes"));
  EXPECT_THAT(error(packed + "trailing"), HasSubstr("incorrect header check after 300000 bytes"));
  EXPECT_THAT(error(std::string("\x1f\x8b")), HasSubstr("the end of the file after 0 bytes"));
  const io::PackedFile file(file_with("y.gz", packed));
  std::string some(100, '\0');
  EXPECT_THAT(message_of([&] { file.read(299950, some.data(), 100); }),
              HasSubstr("y.gz: byte 299950 of the content: expected 100 bytes, found 50 (truncated?)"));
}

}  // namespace
}  // namespace percept::io_test
