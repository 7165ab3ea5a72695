#include <limits>

#include "core/error.h"
#include "core/files.h"
#include "io/gifti.h"
#include "io/open.h"
#include "tests/io/gifti_text.h"
#include "tests/io/helpers.h"
#include "tests/io/nifti_bytes.h"

namespace percept::io_test {
namespace {
namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Frame t of four vertices has 10 t + vertex.
std::vector<float> frame_of(int t) {
  std::vector<float> v;
  for (int i = 0; i < 4; ++i) v.push_back(static_cast<float>(10 * t + i));
  return v;
}
Eigen::MatrixXd three_frames() {
  Eigen::MatrixXd m(4, 3);
  for (Index t = 0; t < 3; ++t)
    for (Index i = 0; i < 4; ++i) m(i, t) = static_cast<double>(10 * t + i);
  return m;
}
std::vector<GiftiText> series() {
  std::vector<GiftiText> arrays(3);
  for (int t = 0; t < 3; ++t) {
    auto& a = arrays[static_cast<std::size_t>(t)];
    a.shape = {4};
    a.data = base64(zlib_packed(bytes_of_numbers(frame_of(t))));
  }
  return arrays;
}
const Value kTwoSeconds = Value::object({{"tr_s", 2.0}});

std::string refusal(const std::vector<GiftiText>& arrays, const Value& options = kTwoSeconds) {
  const auto file = file_with("x.func.gii", gifti(arrays));
  return message_of([&] { io::open_stream(file, options); });
}
std::string refusal_of(const std::function<void(GiftiText&)>& spoil) {
  auto arrays = series();
  spoil(arrays[1]);
  return refusal(arrays);
}

TEST(Gifti, OneArrayAFrame) {
  const auto file = file_with(
      "x.func.gii", gifti(series(), "<MD><Name>AnatomicalStructurePrimary</Name><Value>CortexLeft</Value></MD>"));
  const Recording r = io::open_recording(file, kTwoSeconds);
  const Stream& s = r.streams[0];
  EXPECT_EQ(s.matrix(), three_frames());
  EXPECT_EQ(in_blocks(*s.samples, 4, 2), three_frames());
  EXPECT_EQ(s.format.rate_hz, 0.5);
  EXPECT_EQ(s.format.start_s, 1);
  EXPECT_EQ(s.format.scalar, Scalar::f32);
  EXPECT_THAT(s.format.row_names(), ElementsAre("v0", "v1", "v2", "v3"));
  EXPECT_EQ(s.format.parts[0].rows[0].kind, "CORTEX_LEFT");
  EXPECT_EQ(r.table("vertex")->find("vertex")->numbers.size(), 4u);
  // the time from a sidecar named as BIDS does
  write_atomic(file.parent_path() / "x.json", R"({"RepetitionTime": 2.5})");
  EXPECT_EQ(io::open_stream(file).format.rate_hz, 0.4);
  EXPECT_EQ(io::open_stream(file, Value::object({{"items", true}})).keys.size(), 3u);
}

TEST(Gifti, EveryEncodingOrderAndTypeIsTheSame) {
  std::vector<float> by_vertex, by_time;
  for (Index i = 0; i < 4; ++i)
    for (Index t = 0; t < 3; ++t) by_vertex.push_back(static_cast<float>(three_frames()(i, t)));
  for (int t = 0; t < 3; ++t)
    for (const float v : frame_of(t)) by_time.push_back(v);
  for (const bool big : {false, true})
    for (const bool column : {false, true})
      for (const std::string encoding : {"ASCII", "Base64Binary", "GZipBase64Binary"})
        for (const std::string type : {"FLOAT32", "FLOAT64", "UINT8"}) {
          GiftiText a;
          a.shape = {4, 3};
          a.encoding = encoding;
          a.endian = big ? "BigEndian" : "LittleEndian";
          a.order = column ? "ColumnMajorOrder" : "RowMajorOrder";
          a.type = type;
          const auto& values = column ? by_time : by_vertex;
          std::string bytes;
          if (type == "FLOAT32") bytes = bytes_of_numbers(values, big);
          if (type == "FLOAT64") bytes = bytes_of_numbers(std::vector<double>(values.begin(), values.end()), big);
          if (type == "UINT8") bytes = bytes_of_numbers(std::vector<std::uint8_t>(values.begin(), values.end()), big);
          if (encoding == "ASCII")
            for (const float v : values) a.data += std::to_string(v) + "\n";
          else a.data = base64(encoding[0] == 'G' ? zlib_packed(bytes) : bytes);
          SCOPED_TRACE(a.xml());
          const Stream s = io::open_stream(file_with("x.func.gii", gifti({a})), kTwoSeconds);
          EXPECT_EQ(s.matrix(), three_frames());
          EXPECT_EQ(s.format.scalar, type == "FLOAT64" ? Scalar::f64 : Scalar::f32);
        }
}

TEST(Gifti, ASurfaceGivesPositions) {
  const auto surface = file_with("x.surf.gii.gz", gzip(gifti(square())));
  const io::Surface s = io::read_surface(surface);
  EXPECT_EQ(s.structure, "CORTEX_RIGHT");
  EXPECT_EQ(s.vertices.col(3), Eigen::Vector3d(0, 2, -1));
  EXPECT_EQ(s.triangles.col(1), Eigen::Vector3i(0, 2, 3));
  auto map = series();
  for (auto& a : map) a.intent = "SHAPE";
  const Recording r =
      io::open_recording(file_with("x.shape.gii", gifti(map)), Value::object({{"surface", surface.string()}}));
  EXPECT_EQ(r.streams[0].format.axis, Axis::item) << "no time series";
  EXPECT_EQ(r.streams[0].format.parts[0].rows[3].position, (std::array{0.0, 2e-3, -1e-3}));
  EXPECT_TRUE(r.meta.at("input").contains("x.surf.gii.gz"));
  const Value d = io::describe_file(surface).at("gifti");
  EXPECT_EQ(d.at("vertices").as_integer(), 4);
  EXPECT_EQ(d.at("triangles").as_integer(), 2);
  EXPECT_EQ(to_json(d.at("to_mm")), "[2.0,2.0,0.0]");
  EXPECT_EQ(to_json(io::describe_gifti(file_with("y.func.gii", gifti(series())), false).at("arrays")),
            R"([{"intent":"TIME_SERIES","shape":[4],"type":"f32","encoding":"GZipBase64Binary","count":3}])");
}

TEST(Gifti, SurfacesThatCannotBeAreRefused) {
  const auto message = [](const std::vector<GiftiText>& arrays) {
    const auto file = file_with("x.surf.gii", gifti(arrays));
    const std::string text = message_of([&] { io::read_surface(file); });
    EXPECT_EQ(message_of([&] { io::check_file(file); }), text);
    return text;
  };
  auto s = square();
  s[1].data = "0 1 4\n0 2 3";
  EXPECT_THAT(message(s), HasSubstr("x.surf.gii: triangle 0: expected vertices from 0 to 3, found 4"));
  s[1].data = "0 1 2\n0 2";
  EXPECT_THAT(message(s), HasSubstr("DataArray 2: expected 6 numbers, found 5"));
  s[1].data = "0 1 2\n0 2 x";
  EXPECT_THAT(message(s), HasSubstr("number 6 of DataArray 2: expected a number, found 'x'"));
  s = square();
  s.push_back(s[0]);
  EXPECT_THAT(message(s), HasSubstr("DataArray: expected one of NIFTI_INTENT_POINTSET, found another"));
  s = square();
  s[0].data = base64(zlib_packed(
      bytes_of_numbers(std::vector<float>{0, 0, 0, 2, std::numeric_limits<float>::quiet_NaN(), 0, 2, 2, 0, 0, 2, -1})));
  EXPECT_THAT(message(s), HasSubstr("vertex 1: expected three finite numbers, found nan"));
  s = square();
  s[0].shape = {12};
  EXPECT_THAT(message(s), HasSubstr("DataArray 1: expected rows of three, found 12"));
  s = square();
  s.pop_back();
  EXPECT_THAT(message(s), HasSubstr("expected a surface: NIFTI_INTENT_POINTSET and NIFTI_INTENT_TRIANGLE, found no "
                                    "triangles"));
  EXPECT_THAT(refusal(square()),
              HasSubstr("DataArray: expected values on vertices, found a surface alone (percept info shows it)"));
  const auto small = file_with("x.surf.gii", gifti(square()));
  auto five = series();
  five.resize(1);
  five[0].shape = {5};
  five[0].encoding = "ASCII";
  five[0].data = "1 2 3 4 5";
  EXPECT_THAT(refusal(five, Value::object({{"tr_s", 2.0}, {"surface", small.string()}})),
              HasSubstr("x.surf.gii: vertices: expected 5, as "));
}

TEST(Gifti, WhatIsWrongIsNamed) {
  EXPECT_EQ(refusal(series()), "");
  EXPECT_THAT(refusal(series(), Value::table()),
              HasSubstr("x.func.gii: repetition time: expected RepetitionTime in a sidecar, or tr_s (GIFTI has no unit "
                        "of time), found none"));
  const auto of_text = [](const std::string& text) {
    const auto file = file_with("x.gii", text);
    return message_of([&] { io::open_stream(file); });
  };
  EXPECT_THAT(of_text("hello"), HasSubstr("expected GIFTI's XML, found"));
  EXPECT_THAT(of_text(""), HasSubstr("expected GIFTI's XML, found"));
  EXPECT_THAT(of_text("<svg/>"), HasSubstr("x.gii: expected GIFTI's XML, found other XML"));
  EXPECT_THAT(of_text(gifti(series()).substr(0, 400)), HasSubstr("byte 399: expected GIFTI's XML, found"));
  EXPECT_THAT(of_text("<GIFTI NumberOfDataArrays=\"2\"/>"),
              HasSubstr("DataArray: expected 2, as NumberOfDataArrays says, found 0"));
  EXPECT_THAT(of_text("<GIFTI/>"),
              HasSubstr("NumberOfDataArrays of GIFTI: expected a whole number from 0 on, found none"));
  EXPECT_THAT(refusal_of([](auto& a) { a.type = "RGB24"; }),
              HasSubstr("DataType of DataArray 2: expected one real number (NIFTI_TYPE_FLOAT32, ...), found RGB24"));
  EXPECT_THAT(refusal_of([](auto& a) { a.encoding = "ExternalFileBinary"; }),
              HasSubstr("Encoding of DataArray 2: expected ASCII, Base64Binary, GZipBase64Binary, found External"));
  EXPECT_THAT(refusal_of([](auto& a) { a.endian = "PDP"; }), HasSubstr("Endian of DataArray 2: expected LittleEndian"));
  EXPECT_THAT(refusal_of([](auto& a) { a.order = ""; }),
              HasSubstr("ArrayIndexingOrder of DataArray 2: expected a text, found none"));
  EXPECT_THAT(refusal_of([](auto& a) { a.shape = {-1}; }),
              HasSubstr("Dim0 of DataArray 2: expected a whole number from 0 on, found '-1'"));
  EXPECT_THAT(refusal_of([](auto& a) { a.shape = {0}; }), HasSubstr("Dim0 of DataArray 2: expected 1 to"));
  EXPECT_THAT(refusal_of([](auto& a) {
                a.shape = {2, 2, 1};
              }),
              HasSubstr("Dimensionality of DataArray 2: expected 1 or 2, found 3"));
  EXPECT_THAT(refusal_of([](auto& a) { a.shape = {5}; }),
              HasSubstr("DataArray 2: expected 4 vertices, as DataArray 1 has, found 5"));
  EXPECT_THAT(refusal_of([](auto& a) {
                a.shape = {4, 2};
              }),
              HasSubstr("DataArray 2: expected one array of vertices x frames, or one a frame, found 3 arrays"));
  // lengths that do not fit
  auto one = series();
  one.resize(1);
  const std::string bytes = bytes_of_numbers(frame_of(0));
  const auto with = [&](const std::string& encoding, const std::string& data, long vertices = 4) {
    one[0].encoding = encoding;
    one[0].data = data;
    one[0].shape = {vertices};
    return refusal(one);
  };
  EXPECT_THAT(with("Base64Binary", base64(bytes.substr(4))),
              HasSubstr("DataArray 1: expected 16 bytes for 4 x f32, found 12"));
  EXPECT_THAT(with("GZipBase64Binary", base64(zlib_packed(bytes.substr(4)))),
              HasSubstr("expected 16 bytes for 4 x f32, found 12"));
  EXPECT_THAT(with("GZipBase64Binary", base64(zlib_packed(bytes + bytes))),
              HasSubstr("expected 16 bytes for 4 x f32, found more"));
  EXPECT_THAT(with("GZipBase64Binary", base64(zlib_packed(bytes).substr(0, 9))),
              HasSubstr("a stream that ends early after"));
  EXPECT_THAT(with("GZipBase64Binary", base64(bytes)), HasSubstr("unknown compression method after 0 bytes"));
  EXPECT_THAT(with("GZipBase64Binary", base64(zlib_packed(bytes)), 1000000000),
              HasSubstr("expected 4000000000 bytes for 1000000000 x f32, found "))
      << "before anything is allocated";
  EXPECT_THAT(with("Base64Binary", "AAAA*AAA"),
              HasSubstr("character 4 of DataArray 1: expected base64, found code 42"));
  EXPECT_THAT(with("Base64Binary", "AA==AAAA"),
              HasSubstr("character 4 of DataArray 1: expected base64, found code 65"));
  EXPECT_THAT(with("Base64Binary", "AAAAA"),
              HasSubstr("DataArray 1: expected base64 in groups of four, found 1 at its end"));
  EXPECT_THAT(with("ASCII", "1 2 nan 4"),
              HasSubstr("vertex 2 of DataArray 1: expected a number (or allow_missing = true), found NaN"));
  EXPECT_THAT(refusal(series(), Value::object({{"tr_s", 2.0}, {"mask", "m.nii"}})),
              HasSubstr("input.mask = m.nii: expected nothing: it is for images of voxels"));
  EXPECT_THAT(refusal(series(), Value::object({{"rate_hz", 2.0}})), HasSubstr("input.rate_hz"));
}

// the numbers are those that nibabel reads
TEST(Gifti, RealFiles) {
  fs::path pial;
  PERCEPT_NEED_DATA(pial, "nifti/surf/fsaverage5_pial_left.gii.gz");
  const io::Surface s = io::read_surface(pial);
  EXPECT_EQ(s.structure, "CORTEX_LEFT");
  ASSERT_EQ(s.vertices.cols(), 10242);
  ASSERT_EQ(s.triangles.cols(), 20480);
  EXPECT_NEAR(s.vertices(0, 0), -38.73596, 1e-5);
  EXPECT_NEAR(s.vertices(2, 10241), -24.645117, 1e-5);
  EXPECT_EQ(s.triangles.col(0), Eigen::Vector3i(0, 2564, 2562));
  EXPECT_EQ(s.triangles.col(20479), Eigen::Vector3i(10161, 11, 9918));
  // a closed surface: Euler's characteristic is 2, and every edge has two triangles
  EXPECT_EQ(s.vertices.cols() - s.triangles.cols() * 3 / 2 + s.triangles.cols(), 2);
  const Stream sulc =
      io::open_stream(pial.parent_path() / "fsaverage5_sulc_left.gii.gz", Value::object({{"surface", pial.string()}}));
  const Eigen::MatrixXd m = sulc.matrix();
  ASSERT_EQ(m.rows(), 10242);
  ASSERT_EQ(m.cols(), 1);
  EXPECT_NEAR(m(0, 0), -0.78126884, 1e-7);
  EXPECT_NEAR(m.mean(), 0.029746694, 1e-6);
}

}  // namespace
}  // namespace percept::io_test
