#include "io/npy.h"

#include <gmock/gmock.h>

#include <cstring>

#include "tests/io/helpers.h"

namespace percept::io {
namespace {
using io_test::file_with;
using io_test::message_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <class T>
std::string raw(std::initializer_list<T> values) {
  std::string s(values.size() * sizeof(T), '\0');
  std::memcpy(s.data(), values.begin(), s.size());
  return s;
}

/// As NumPy writes it.
std::filesystem::path npy(const std::string& descr, const std::string& order, const std::string& shape,
                          const std::string& data, int version = 1) {
  std::string h = "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }";
  h.resize(117, ' ');
  h += '\n';
  std::string start = "\x93NUMPY";
  start += {static_cast<char>(version), 0, static_cast<char>(h.size()), 0};
  if (version > 1) start += std::string(2, '\0');
  return file_with("x.npy", start + h + data);
}
std::string npy_refusal(const std::filesystem::path& file) {
  return message_of([&] { read_npy(file); });
}

TEST(Npy, ReadsEveryType) {
  const Eigen::MatrixXd want = Eigen::RowVector3d(0, 1, 3);
  EXPECT_EQ(read_npy(npy("'<f8'", "False", "(3,)", raw<double>({0, 1, 3}))), want);
  EXPECT_EQ(read_npy(npy("'<f4'", "False", "(3,)", raw<float>({0, 1, 3}), 2)), want);
  EXPECT_EQ(read_npy(npy("'|i1'", "False", "(3,)", raw<std::int8_t>({0, 1, 3}), 3)), want);
  EXPECT_EQ(read_npy(npy("'|u1'", "False", "(3,)", raw<std::uint8_t>({0, 1, 3}))), want);
  EXPECT_EQ(read_npy(npy("'<i2'", "False", "(3,)", raw<std::int16_t>({0, 1, 3}))), want);
  EXPECT_EQ(read_npy(npy("'<u2'", "False", "(3,)", raw<std::uint16_t>({0, 1, 3}))), want);
  EXPECT_EQ(read_npy(npy("'<i4'", "False", "(3,)", raw<std::int32_t>({0, 1, 3}))), want);
  EXPECT_EQ(read_npy(npy("'<u4'", "False", "(3,)", raw<std::uint32_t>({0, 1, 3}))), want);
  EXPECT_EQ(read_npy(npy("'<i8'", "False", "(3L,)", raw<std::int64_t>({0, 1, 3}))), want);
  EXPECT_EQ(read_npy(npy("'<u8'", "False", "(3,)", raw<std::uint64_t>({0, 1, 3}))), want);
  EXPECT_EQ(read_npy(npy("'>i2'", "False", "(3,)", std::string("\0\0\0\1\0\3", 6))), want);
  EXPECT_EQ(read_npy(npy("'>f4'", "False", "(1,)", std::string("\x40\x40\0\0", 4)))(0, 0), 3);
  EXPECT_EQ(read_npy(npy("'|b1'", "False", "(2,)", std::string("\0\1", 2))), Eigen::RowVector2d(0, 1));
  // halves: 0, 1, 3, the smallest, the largest, minus infinity
  const Eigen::MatrixXd half =
      read_npy(npy("'<f2'", "False", "(6,)", raw<std::uint16_t>({0, 0x3c00, 0x4200, 1, 0x7bff, 0xfc00})));
  EXPECT_EQ(half, (Eigen::MatrixXd(1, 6) << 0, 1, 3, 0x1p-24, 65504, -HUGE_VAL).finished());
  EXPECT_TRUE(std::isnan(read_npy(npy("'<f2'", "False", "(1,)", raw<std::uint16_t>({0x7e00})))(0, 0)));
}

TEST(Npy, FramesAreTheFirstAxisInBothOrders) {
  // a[i, j, k] = 100 i + 10 j + k, shape (2, 3, 2)
  std::string c, f;
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 3; ++j)
      for (int k = 0; k < 2; ++k) c += raw<double>({100.0 * i + 10 * j + k});
  for (int k = 0; k < 2; ++k)
    for (int j = 0; j < 3; ++j)
      for (int i = 0; i < 2; ++i) f += raw<double>({100.0 * i + 10 * j + k});
  const auto cf = npy("'<f8'", "False", "(2, 3, 2)", c), ff = npy("'<f8'", "True", "(2, 3, 2)", f);
  EXPECT_EQ(read_npy(cf), read_npy(ff));
  EXPECT_EQ(read_npy(cf).col(1), (Eigen::VectorXd(6) << 100, 101, 110, 111, 120, 121).finished());
  EXPECT_THAT(read_npy_info(ff).frame_shape(), ElementsAre(3, 2));
  for (const auto& file : {cf, ff}) EXPECT_EQ(io_test::in_blocks(*open_npy(file), 6, 1), read_npy(cf));
}

TEST(Npy, ComplexNumbersGetALastAxis) {
  const auto c = npy("'<c16'", "False", "(2, 2)", raw<double>({1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_THAT(read_npy_info(c).frame_shape(), ElementsAre(2, 2));
  EXPECT_EQ(read_npy(c).col(1), Eigen::Vector4d(5, 6, 7, 8));
  const auto f = npy("'<c16'", "True", "(2, 2)", raw<double>({1, 2, 5, 6, 3, 4, 7, 8}));
  EXPECT_EQ(read_npy(f), read_npy(c));
}

TEST(Npy, ReadsARealFile) {
  std::filesystem::path brain, video;
  PERCEPT_NEED_DATA(brain, "calcium/human_sc_fc/bct_sample_data_138.npy");
  PERCEPT_NEED_DATA(video, "video/carphone_pristine_8fps_32x64x64x3_u1.npy");
  EXPECT_EQ(read_npy(brain).size(), 138 * 138);
  const NpyInfo info = read_npy_info(video);
  EXPECT_THAT(info.shape, ElementsAre(32, 64, 64, 3));
  EXPECT_EQ(info.scalar(), Scalar::f32);
  const Eigen::MatrixXd m = read_npy(video);
  EXPECT_EQ(m.rows(), 64 * 64 * 3);
  const std::string bytes = io_test::bytes_of_file(video);
  EXPECT_EQ(m(m.rows() - 1, 31), static_cast<unsigned char>(bytes.back()));
  EXPECT_EQ(io_test::in_blocks(*open_npy(video), m.rows(), 7), m);
}

TEST(Npy, NamesWhatIsWrong) {
  const std::string eight = raw<double>({1});
  EXPECT_THAT(npy_refusal(npy("'|O'", "False", "(1,)", eight)),
              HasSubstr("objects, which only pickle can read: never done, because it runs code"));
  EXPECT_THAT(npy_refusal(npy("'<U4'", "False", "(1,)", eight)), HasSubstr("header: expected descr: numbers"));
  EXPECT_THAT(npy_refusal(npy("[('a', '<f4')]", "False", "(1,)", eight)), HasSubstr("found a structured type"));
  EXPECT_THAT(npy_refusal(npy("'<f8'", "False", "(2,)", eight)),
              HasSubstr("size: expected the data of shape (2) and type f8, found a file of"));
  EXPECT_THAT(npy_refusal(npy("'<f8'", "False", "(1,)", eight + "x")), HasSubstr("for shape (1) and type f8"));
  EXPECT_THAT(npy_refusal(npy("'<f8'", "False", "(0, 3)", "")),
              HasSubstr("shape: expected at least one frame of at least one number, found (0, 3)"));
  EXPECT_THAT(npy_refusal(npy("'<f8'", "False", "(4611686018427387904, 4611686018427387904)", eight)),
              HasSubstr("truncated"));
  EXPECT_THAT(npy_refusal(npy("'<f8'", "False", "(-1,)", eight)), HasSubstr("whole numbers of at least 0"));
  EXPECT_THAT(npy_refusal(npy("'<f8'", "Maybe", "(1,)", eight)), HasSubstr("True or False"));
  EXPECT_THAT(npy_refusal(npy("'<f8', 'x': 1", "False", "(1,)", eight)), HasSubstr("found 'x'"));
  EXPECT_THAT(npy_refusal(npy("'<f8'", "False", "(1,)", eight, 7)),
              HasSubstr("version: expected 1.0, 2.0 or 3.0, found 7.0"));
  EXPECT_THAT(npy_refusal(npy("'<i8'", "False", "(1,)", raw<std::int64_t>({(std::int64_t{1} << 53) + 1}))),
              HasSubstr("2^53"));
  EXPECT_THAT(npy_refusal(npy("'<u8'", "False", "(1,)", raw<std::uint64_t>({~std::uint64_t{0}}))), HasSubstr("2^53"));
  EXPECT_THAT(npy_refusal(file_with("x.npy", "")), HasSubstr("expected a NumPy .npy file, found an empty file"));
  EXPECT_THAT(npy_refusal(file_with("x.npy", "1,2,3,4,5,6")), HasSubstr("found another kind of file"));
  EXPECT_THAT(npy_refusal("/nowhere/x.npy"), HasSubstr("found No such file"));
  EXPECT_THAT(npy_refusal("/tmp"), HasSubstr("found a directory"));
  const std::string whole = io_test::bytes_of_file(npy("'<f8'", "False", "(1,)", eight));
  for (std::size_t n = 0; n < whole.size(); ++n)
    EXPECT_NE(npy_refusal(file_with("cut.npy", whole.substr(0, n))), "") << n;
}

TEST(Npy, WrittenFramesComeBackBitByBit) {
  const auto file = testing::temporary_folder() / "w.npy";
  std::srand(2);
  const Eigen::MatrixXd m = Eigen::MatrixXd::Random(6, 300);
  write_npy(file, ConstFrames(m.data(), Scalar::f64, 6, 300, 6), {2, 3});
  EXPECT_THAT(read_npy_info(file).shape, ElementsAre(300, 2, 3));
  EXPECT_EQ(read_npy_info(file).data_offset % 64, 0U);
  EXPECT_EQ(read_npy(file), m);
  const Eigen::MatrixXf f = m.cast<float>();
  write_npy(file, ConstFrames(f.data(), Scalar::f32, 4, 300, 6));  // four of six rows
  EXPECT_EQ(read_npy(file), f.cast<double>().topRows(4));
  EXPECT_THAT(message_of([&] { write_npy(file, ConstFrames(f.data(), Scalar::f32, 6, 300, 6), {4}); }),
              HasSubstr("expected 6 numbers in a frame, found 4"));
}

}  // namespace
}  // namespace percept::io
