#include "core/error.h"
#include "io/idx.h"
#include "io/open.h"
#include "tests/io/helpers.h"

namespace percept::io_test {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string big_endian(std::uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8), static_cast<char>(v)};
}
std::string header(char type, const std::vector<std::uint32_t>& shape) {
  std::string h{0, 0, type, static_cast<char>(shape.size())};
  for (const auto s : shape) h += big_endian(s);
  return h;
}

TEST(Idx, ImagesAndScale) {
  std::string bytes;
  for (int i = 0; i < 12; ++i) bytes += static_cast<char>(20 * i);
  const auto file = file_with("x-ubyte", header(8, {2, 2, 3}) + bytes);
  EXPECT_THAT(io::read_idx_info(file).frame_shape(), ElementsAre(2, 3));
  const auto source = io::open_idx(file, 0.5);
  Eigen::MatrixXd expected(6, 2);
  for (Index i = 0; i < 12; ++i) expected.data()[i] = 10.0 * static_cast<double>(i);
  EXPECT_EQ(in_blocks(*source, 6, 1), expected);
  EXPECT_EQ(in_blocks(*source, 6, 2), expected);
}

TEST(Idx, OtherTypesAreBigEndian) {
  const auto labels = io::open_idx(file_with("y", header(0x0C, {2}) + big_endian(7) + big_endian(0xFFFFFFFE)));
  EXPECT_EQ(in_blocks(*labels, 1, 2), (Eigen::MatrixXd(1, 2) << 7, -2).finished());
  const auto reals = io::open_idx(file_with("z", header(0x0D, {1, 1}) + big_endian(0x3FC00000)));
  EXPECT_EQ(in_blocks(*reals, 1, 1)(0, 0), 1.5);
}

TEST(Idx, OpensByItsName) {
  const auto file = file_with("t10k-images-idx3-ubyte", header(8, {2, 1, 3}) + "abcdef");
  const Stream s = io::open_stream(file);
  EXPECT_THAT(s.format.parts.at(0).shape, ElementsAre(1, 3));
  EXPECT_EQ(s.format.axis, Axis::item);
  EXPECT_EQ(s.matrix()(2, 1), 'f');
  EXPECT_EQ(io::describe_file(file).at("contents").as_array().at(0).at("max").as_number(), 'f');
  EXPECT_NO_THROW(io::check_file(file));
  EXPECT_THAT(message_of([&] {
                io::open_stream(file, Value::object({{"transpose", true}}));
              }),
              HasSubstr("input.transpose = true: expected nothing: the first axis of IDX is frames"));
}

TEST(Idx, WrongFilesAreRefused) {
  const auto error = [](const std::string& bytes) {
    const auto file = file_with("x-ubyte", bytes);
    return message_of([&] { io::open_idx(file); });
  };
  EXPECT_THAT(error(""), HasSubstr("expected an IDX file, found an empty file"));
  EXPECT_THAT(error("hello, this is text"), HasSubstr("expected an IDX file, found another kind of file"));
  EXPECT_THAT(error(header(8, {})), HasSubstr("header: expected an array of 1 to 8 axes, found 0"));
  EXPECT_THAT(error(header(8, {0, 3})), HasSubstr("shape: expected at least one frame of at least one number"));
  EXPECT_THAT(error(header(8, {3, 3}) + "12345678"), HasSubstr("byte 12: expected 9 bytes, found 8 (truncated?)"));
  EXPECT_THAT(error(header(8, {3, 3}) + "1234567890"), HasSubstr("size: expected 21 bytes for shape (3, 3), found 22"));
  EXPECT_THAT(error(header(8, {4000000000, 4000000000, 4000000000}) + "1"),
              HasSubstr("found a file that holds at most 17 bytes (truncated?)"));
}

}  // namespace
}  // namespace percept::io_test
