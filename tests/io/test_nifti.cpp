#include <Eigen/LU>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/files.h"
#include "io/fmri.h"
#include "io/nifti.h"
#include "io/open.h"
#include "io/png.h"
#include "io/volume.h"
#include "tests/io/helpers.h"
#include "tests/io/nifti_bytes.h"

namespace percept::io_test {
namespace {
namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// A file with these samples i16 0, 1, 2, ... unless others are set.
NiftiBytes example() {
  NiftiBytes n;
  n.samples(counted(2 * 3 * 2 * 4));
  return n;
}

NiftiBytes mask_of(const std::vector<std::int16_t>& values) {
  NiftiBytes m;
  m.shape = {2, 3, 2};
  m.samples(values);
  return m;
}

std::string refusal(const std::string& bytes, const std::string& name = "x.nii") {
  const auto file = file_with(name, bytes);
  return message_of([&] { io::open_stream(file); });
}

// --- the header -----------------------------------------------------------------------------------------------------

TEST(Nifti, BothVersionsAndByteOrders) {
  for (const int version : {1, 2})
    for (const bool big : {false, true})
      for (const bool packed : {false, true}) {
        SCOPED_TRACE(version * 100 + big * 10 + packed);
        NiftiBytes n;
        n.version = version;
        n.big_endian = big;
        n.slope = 0.5;
        n.intercept = 3;
        n.samples(counted(48));
        const auto file = packed ? file_with("x.nii.gz", gzip(n.bytes())) : file_with("x.nii", n.bytes());
        const io::NiftiHeader h = io::read_nifti_header(file);
        EXPECT_EQ(h.version, version);
        EXPECT_EQ(h.big_endian, big);
        EXPECT_THAT(h.shape, ElementsAre(2, 3, 2, 4));
        EXPECT_EQ(h.repetition_time_s(), 2.5);
        const Stream s = io::open_stream(file);
        EXPECT_EQ(s.format.axis, Axis::time);
        EXPECT_EQ(s.format.rate_hz, 0.4);
        EXPECT_EQ(s.format.start_s, 1.25) << "a volume stands for the middle of its acquisition";
        Eigen::MatrixXd expected(12, 4);
        for (Index i = 0; i < 48; ++i) expected.data()[i] = 0.5 * static_cast<double>(i) + 3;
        EXPECT_EQ(in_blocks(*s.samples, 12, 1), expected);
        EXPECT_EQ(in_blocks(*s.samples, 12, 3), expected);
        // x fastest: row 7 is voxel (1, 0, 1)
        EXPECT_EQ(s.format.parts[0].rows[7].name, "1_0_1");
        const std::array expected_m{-0.008, -0.020, -0.026};
        const auto at = *s.format.parts[0].rows[7].position;
        for (std::size_t i = 0; i < 3; ++i) EXPECT_DOUBLE_EQ(at[i], expected_m[i]);
      }
}

template <class T>
void expect_type(int datatype, T low, T high) {
  NiftiBytes n;
  n.datatype = datatype;
  n.bitpix = 8 * sizeof(T);
  n.shape = {2, 1, 1, 1};
  for (const bool big : {false, true}) {
    n.big_endian = big;
    n.samples(std::vector<T>{low, high});
    const auto s = io::open_stream(file_with("t.nii", n.bytes()));
    const Eigen::MatrixXd m = s.matrix();
    EXPECT_EQ(m(0, 0), static_cast<double>(low)) << datatype;
    EXPECT_EQ(m(1, 0), static_cast<double>(high)) << datatype;
  }
}

TEST(Nifti, EveryRealType) {
  expect_type<std::uint8_t>(2, 0, 255);
  expect_type<std::int16_t>(4, -32768, 32767);
  expect_type<std::int32_t>(8, INT32_MIN, INT32_MAX);
  expect_type<float>(16, -1.5F, 3e30F);
  expect_type<double>(64, -1e-300, 1e300);
  expect_type<std::int8_t>(256, -128, 127);
  expect_type<std::uint16_t>(512, 0, 65535);
  expect_type<std::uint32_t>(768, 0, UINT32_MAX);
  expect_type<std::int64_t>(1024, -(std::int64_t{1} << 53), std::int64_t{1} << 53);
  expect_type<std::uint64_t>(1280, 0, std::uint64_t{1} << 53);
}

TEST(Nifti, UnitsOfTimeAndSpace) {
  const auto tr = [](int units, double step) {
    NiftiBytes n = example();
    n.units = units;
    n.pixdim[4] = step;
    return io::read_nifti_header(file_with("x.nii", n.bytes())).repetition_time_s();
  };
  EXPECT_EQ(tr(2 + 8, 2.5), 2.5);
  EXPECT_DOUBLE_EQ(tr(2 + 16, 2500), 2.5);
  EXPECT_DOUBLE_EQ(tr(2 + 24, 2.5e6), 2.5);
  EXPECT_EQ(tr(2, 2.5), 2.5);  // not stated: seconds
  NiftiBytes n = example();
  n.units = 3 + 8;  // micrometres
  EXPECT_DOUBLE_EQ(io::read_nifti_header(file_with("x.nii", n.bytes())).affine("x")(0, 0), 2e-3);
}

// x -> y, y -> -x about the third axis is the quaternion (sqrt 1/2, 0, 0, sqrt 1/2)
TEST(Nifti, QuaternionGivesTheAffine) {
  NiftiBytes n = example();
  n.sform_code = 0;
  n.qform_code = 1;
  n.quaternion = {0, 0, std::sqrt(0.5)};
  n.offset = {5, 6, 7};
  n.pixdim[0] = -1;  // the third axis is turned round
  const Eigen::Matrix4d m = io::read_nifti_header(file_with("q.nii", n.bytes())).affine("q");
  Eigen::Matrix4d expected;
  expected << 0, -3, 0, 5, 2, 0, 0, 6, 0, 0, -4, 7, 0, 0, 0, 1;
  EXPECT_LT((m - expected).cwiseAbs().maxCoeff(), 1e-6);
  EXPECT_EQ(io::orientation_of(m), "ALI");
}

TEST(Nifti, EveryVoxelAxisHasAnOrientationHoweverOblique) {
  Eigen::Matrix4d m = Eigen::Matrix4d::Identity();  // the second and the third axis both run to the front
  m.topLeftCorner<3, 3>() << 1, 0.1, 0.6, 0, 0.9, 0.8, 0, 0.42, 0;
  EXPECT_EQ(io::orientation_of(m), "RSA");
}

TEST(Nifti, NeitherFormIsVoxelSizesOnly) {
  NiftiBytes n = example();
  n.sform_code = 0;
  const auto h = io::read_nifti_header(file_with("n.nii", n.bytes()));
  EXPECT_FALSE(h.has_space());
  EXPECT_EQ(h.affine("n"), Eigen::Vector4d(2, 3, 4, 1).asDiagonal().toDenseMatrix());
  const Recording r = io::open_recording(file_with("n.nii", n.bytes()));
  EXPECT_EQ(r.meta.at("fmri").at("fmri").at("note").as_string(), "the header states no space: positions are relative");
}

/// What nibabel 5.0 says of real files: axes, affine (row by row), the middle voxel and the mean of all.
struct Known {
  const char* file;
  const char* axes;
  std::vector<double> affine;
  double middle, mean;
};

TEST(Nifti, RealFilesAreWhereAnotherReaderSaysThroughUsAndThroughItk) {
  const std::vector<Known> all{
      {"anat/nibabel_anatomical.nii", "LAS", {-2, 0, 0, 32, 0, 2, 0, -40, 0, 0, 2, -16}, 11881.0, 8401.066725794532},
      {"anat/nibabel_someones_epi.nii.gz",
       "RAS",
       {3, 0, 0, -78, 0, 2.86600947, -0.886560619, -76, 0, 0.886560619, 2.86600947, -64},
       81.54928779602051,
       45.679843720316306},
      {"anat/niivue_T1_head_104x150x133.nii.gz",
       "RAS",
       {1.59913659, -0.0187507626, 0.0492030382, -83.2398605, 0.0180964973, 1.59975314, 0.0215015132, -93.4928665,
        -0.049447529, -0.0209333654, 1.5990988, -138.181259},
       44.0,
       27.9836345671872},
      {"motion/niivue_pcasl_52x68x20x10.nii.gz",
       "RAS",
       {2.99688435, 0.134292543, 0.0509291291, -79.6963043, -0.134764373, 2.99640942, 0.116072893, -115.835571,
        -0.0228361487, -0.059120059, 5.99866056, -50.9585457},
       988.0,
       461.57718891402715},
      {"motion/nipy_functional_17x21x3x20.nii.gz",
       "LAS",
       {-4, 0, 0, 32, 0, 4, 0, -40, 0, 0, 8, 0},
       3937.251221358776,
       3637.408513675239},
      {"motion/nitime_fmri1_10x10x18x40.nii.gz",
       "LSP",
       {-2.08332801, -0.00436480111, -0.00192002184, 96.9955063, 0.000812872197, 0.424685985, -2.25170493, -30.8107147,
        -0.00462767575, 2.03958321, 0.468850255, -71.3971481},
       715.0,
       692.0674166666666},
      {"motion/sct_fmri_r_34x34x6x30.nii.gz",
       "LAS",
       {-1.91092503, 0, -0.497879773, 29.9548874, -0.00424680486, 1.90638614, 1.25875521, -34.5493927, -0.056497097,
        -0.143303633, 16.7453785, -23.8664627},
       713.25,
       323.19874807766246},
      {"parc/niworkflows_bold_parc_53x53x27.nii.gz",
       "LAS",
       {-4, 0, 0, 107.239685, 0, 3.99677753, 0.160527185, -75.2709351, 0, -0.160527185, 3.99677753, -15.4718285},
       2.0,
       27.108263122503065},
      {"stc/Siemens_Rest_fMRI_AP_7.nii.gz",
       "LAS",
       {-2.49909067, -0.0575849116, 0.0350764468, 106.247269, -0.0615139715, 2.47972679, -0.311722994, -73.2585449,
        0.0276117865, 0.312472641, 2.48024178, -81.5381699},
       6835.0,
       2647.9250575297724}};
  int through_itk = 0;
  for (auto& k : all) {
    SCOPED_TRACE(k.file);
    fs::path file;
    PERCEPT_NEED_DATA(file, std::string("nifti/") + k.file);
    const io::NiftiHeader h = io::read_nifti_header(file);
    const Eigen::Matrix<double, 3, 4, Eigen::RowMajor> expected =
        Eigen::Map<const Eigen::Matrix<double, 3, 4, Eigen::RowMajor>>(k.affine.data());
    EXPECT_LT((h.affine(k.file).topRows<3>() - expected).cwiseAbs().maxCoeff(), 1e-5);
    EXPECT_EQ(io::orientation_of(h.affine(k.file)), k.axes);
    const Stream s = io::open_stream(file);
    const Eigen::MatrixXd m = s.matrix();
    EXPECT_NEAR(m.mean(), k.mean, 1e-9 * std::abs(k.mean));
    const auto g = h.grid();
    EXPECT_NEAR(m(g[0] / 2 + g[0] * (g[1] / 2 + g[1] * (g[2] / 2)), m.cols() / 2), k.middle, 1e-4);
    // through ITK, whose world is LPS; its spacing and directions are four-byte numbers
    const io::Grid grid = io::read_grid(file, h);
    EXPECT_LT((grid.affine.topRows<3>() - expected).cwiseAbs().maxCoeff(), 1e-3);
    through_itk += grid.affine != h.affine(k.file);
    if (h.volumes() > 1) continue;
    EXPECT_EQ(io::read_volume(file).values, m.col(0));
  }
  EXPECT_GE(through_itk, 5) << "ITK's own reading was used, which differs in the last digits of oblique images";
}

TEST(Nifti, EveryRealFileIsWhole) {
  fs::path folder;
  PERCEPT_NEED_DATA(folder, "nifti/anat/nibabel_anatomical.nii");
  int n = 0;
  for (const char* part : {"anat", "motion", "parc", "stc"})
    for (auto& entry : fs::directory_iterator(folder.parent_path().parent_path() / part))
      if (const auto name = entry.path().filename().string(); name.ends_with(".nii") || name.ends_with(".nii.gz")) {
        EXPECT_NO_THROW(io::check_file(entry.path())) << name;
        ++n;
      }
  EXPECT_EQ(n, 35);
}

// --- refusals -------------------------------------------------------------------------------------------------------

TEST(Nifti, OtherFilesAreRefusedByName) {
  EXPECT_THAT(refusal(""), HasSubstr("expected a NIfTI file (.nii or .nii.gz with the magic \"n+1\" or \"n+2\"), found "
                                     "an empty file"));
  EXPECT_THAT(refusal("no image"), HasSubstr("found another kind of file"));
  EXPECT_THAT(refusal(std::string(1000, 'x')), HasSubstr("found another kind of file"));
  NiftiBytes n = example();
  n.magic = "ni1";
  EXPECT_THAT(refusal(n.bytes()), HasSubstr("found a header whose samples are in a second file (.hdr and .img)"));
  n.magic = "abc";
  EXPECT_THAT(refusal(n.bytes()), HasSubstr("found a header without that magic (ANALYZE 7.5?)"));
  EXPECT_THAT(refusal(gzip("short"), "x.nii.gz"), HasSubstr("found a packed file without a header"));
}

TEST(Nifti, SizesThatDoNotFitAreRefused) {
  NiftiBytes n = example();
  const std::string whole = n.bytes();
  EXPECT_THAT(refusal(whole.substr(0, whole.size() - 1)),
              HasSubstr("x.nii: size: expected the data of 2 x 3 x 2 x 4 x i16 from byte 352 on, found a file of 447 "
                        "bytes (truncated?)"));
  EXPECT_EQ(refusal(whole + std::string(23, '!')), "") << "some writers leave less than a volume behind";
  EXPECT_THAT(refusal(whole + std::string(24, '!')),
              HasSubstr("x.nii: size: expected 448 bytes for 2 x 3 x 2 x 4 x i16 from byte 352 on, found 472"));
  n.shape = {30000, 30000, 30000, 30000, 30000, 30000, 30000};
  EXPECT_THAT(refusal(n.bytes()), HasSubstr("(truncated?)"));
  EXPECT_THAT(refusal(gzip(n.bytes()), "x.nii.gz"), HasSubstr("found a packed file that holds at most "));
  n.version = 2;
  n.shape.assign(7, std::int64_t{1} << 40);
  EXPECT_THAT(refusal(n.bytes()), HasSubstr("(truncated?)"));
  n.shape = {2, -3, 2};
  EXPECT_THAT(refusal(n.bytes()), HasSubstr("dim[2]: expected at least 1, found -3"));
  n.shape = {2, 0, 2};
  EXPECT_THAT(refusal(n.bytes()), HasSubstr("dim[2]: expected at least 1, found 0"));
  n.shape.assign(0, 0);
  EXPECT_THAT(refusal(n.bytes()), HasSubstr("dim[0]: expected 1 to 7 axes, found 0"));
}

TEST(Nifti, ATruncatedPackedFileIsRefusedWhereItEnds) {
  const std::string packed = gzip(example().bytes());
  const auto cut = file_with("cut.nii.gz", packed.substr(0, packed.size() - 20));
  EXPECT_THAT(message_of([&] { io::open_stream(cut).matrix(); }),
              HasSubstr("cut.nii.gz: gzip: expected a whole gzip stream, found the end of the file after"));
  EXPECT_THAT(message_of([&] { io::check_file(cut); }), HasSubstr("cut.nii.gz: gzip: "));
  // a whole gzip stream of too few or too many bytes
  const std::string bytes = example().bytes();
  const auto shorter = file_with("short.nii.gz", gzip(bytes.substr(0, bytes.size() - 2)));
  EXPECT_THAT(message_of([&] { io::open_stream(shorter).matrix(); }),
              HasSubstr("expected 24 bytes, found 22 (truncated?)"));
  EXPECT_THAT(message_of([&] { io::check_file(shorter); }),
              HasSubstr("size: expected 448 bytes for 2 x 3 x 2 x 4 x i16 from byte 352 on, found 446"));
  EXPECT_THAT(message_of([&] { io::check_file(file_with("long.nii.gz", gzip(bytes + std::string(24, 'x')))); }),
              HasSubstr("found 472"));
}

TEST(Nifti, FieldsThatCannotBeAreRefused) {
  const auto with = [](auto change) {
    NiftiBytes n = example();
    change(n);
    return refusal(n.bytes());
  };
  EXPECT_THAT(with([](auto& n) { n.datatype = 128; }),
              HasSubstr("datatype: expected one real number a voxel (u8 to u64, i8 to i64, f32 or f64), found 128 (RGB "
                        "colours)"));
  EXPECT_THAT(with([](auto& n) { n.datatype = 32; }), HasSubstr("found 32 (complex numbers)"));
  EXPECT_THAT(with([](auto& n) { n.datatype = 77; }), HasSubstr("found 77"));
  EXPECT_THAT(with([](auto& n) { n.bitpix = 8; }), HasSubstr("bitpix: expected 16 for datatype 4, found 8"));
  EXPECT_THAT(with([](auto& n) { n.vox_offset = 100; }), HasSubstr("vox_offset: expected a whole number from 352 on"));
  EXPECT_THAT(with([](auto& n) { n.vox_offset = 352.5; }), HasSubstr("vox_offset: expected a whole number"));
  EXPECT_THAT(with([](auto& n) { n.vox_offset = 9e8; }), HasSubstr("from byte 900000000 on, found a file of"));
  EXPECT_THAT(with([](auto& n) { n.slope = kNaN; }), HasSubstr("scl_slope and scl_inter: expected finite numbers"));
  EXPECT_THAT(
      with([](auto& n) { n.sform.assign(12, 0); }),
      HasSubstr("sform: expected an affine that can be inverted (voxel sizes above 0), found a voxel of 0 mm^3"));
  EXPECT_THAT(with([](auto& n) { n.sform[3] = kNaN; }), HasSubstr("sform: expected an affine that can be inverted"));
  EXPECT_THAT(with([](auto& n) { n.pixdim[2] = kNaN; }),
              HasSubstr("pixdim[2]: expected a finite voxel size, found nan"));
  EXPECT_THAT(with([](auto& n) {
                n.extension = "hello";
                n.vox_offset = 360;
              }),
              HasSubstr("extension at byte 352: expected 8 to 8 bytes, found 16"));
}

TEST(Nifti, RepetitionTimeHasToBeOne) {
  const auto with = [](double tr, int units, const char* sidecar = nullptr) {
    NiftiBytes n = example();
    n.pixdim[4] = tr;
    n.units = units;
    const auto file = file_with("x.nii", n.bytes());
    if (sidecar) write_atomic(file.parent_path() / "x.json", sidecar);
    return message_of([&] { io::open_stream(file); });
  };
  EXPECT_THAT(with(0, 10), HasSubstr("x.nii: pixdim[4]: expected a repetition time above 0 s (or RepetitionTime in a "
                                     "sidecar, or tr_s), found 0"));
  EXPECT_THAT(with(-1, 10), HasSubstr("found -1"));
  EXPECT_THAT(with(kNaN, 10), HasSubstr("found nan"));
  EXPECT_THAT(with(2000, 10),
              HasSubstr("pixdim[4]: expected a repetition time of at most 100 s (or tr_s), found 2000 s "
                        "(milliseconds written as seconds?)"));
  EXPECT_THAT(with(2, 32), HasSubstr("xyzt_units: expected a unit of time for the fourth axis (or tr_s), found none of "
                                     "time"));
  EXPECT_THAT(with(2, 10, R"({"RepetitionTime": 2.2})"),
              HasSubstr("x.json: RepetitionTime: expected 2 s, as the header of x.nii says (or tr_s), found 2.2 s"));
  EXPECT_THAT(with(2, 10, R"({"RepetitionTime": 0})"), HasSubstr("RepetitionTime: expected seconds above 0, found 0"));
  EXPECT_THAT(with(2, 10, R"({"RepetitionTime": "2"})"),
              HasSubstr("RepetitionTime: expected seconds above 0, found \"2\""));
  EXPECT_THAT(with(2, 10, R"({"SliceTiming": [0, 1, 0.5]})"),
              HasSubstr("x.json: SliceTiming: expected 2 times, one a slice of x.nii, found 3"));
  EXPECT_THAT(with(2, 10, R"({"SliceTiming": [0, 1000]})"),
              HasSubstr("SliceTiming: expected times within the repetition time of 2 s, found 1000 s (milliseconds?)"));
  EXPECT_THAT(with(2, 10, R"({"SliceTiming": [0, -1]})"),
              HasSubstr("SliceTiming: expected seconds from 0 on, found -1"));
  EXPECT_THAT(with(2, 10, "[]"), HasSubstr("x.json: expected a JSON object, found array"));
  EXPECT_THAT(with(2, 10, "{"), HasSubstr("x.json"));
  // a sidecar fills in what the header lacks, tr_s stands above both
  NiftiBytes n = example();
  n.pixdim[4] = 0;
  const auto file = file_with("y.nii", n.bytes());
  write_atomic(file.parent_path() / "y.json", R"({"RepetitionTime": 2.2, "SliceTiming": [0, 1.1]})");
  const Recording r = io::open_recording(file);
  EXPECT_DOUBLE_EQ(r.streams[0].format.rate_hz, 1 / 2.2);
  EXPECT_EQ(r.meta.at("fmri").at("fmri").at("slice_timing_s").as_array().at(1).as_number(), 1.1);
  EXPECT_TRUE(r.meta.at("input").contains("y.json"));
  EXPECT_EQ(io::open_stream(file, Value::object({{"tr_s", 4.0}})).format.rate_hz, 0.25);
  EXPECT_EQ(io::open_stream(file, Value::object({{"items", true}})).format.axis, Axis::item);
}

// --- masks and atlases ----------------------------------------------------------------------------------------------

TEST(Nifti, MaskKeepsItsVoxels) {
  const auto bold = file_with("bold.nii", example().bytes());
  const auto mask = file_with("mask.nii.gz", gzip(mask_of({0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 1}).bytes()));
  for (const auto& file : {bold, file_with("bold.nii.gz", gzip(example().bytes()))}) {
    const Recording r = io::open_recording(file, Value::object({{"mask", mask.string()}}));
    const Stream& s = r.streams[0];
    Eigen::MatrixXd expected(3, 4);
    for (Index t = 0; t < 4; ++t) expected.col(t) = Eigen::Vector3d(2, 7, 11).array() + 12.0 * static_cast<double>(t);
    EXPECT_EQ(s.matrix(), expected);
    EXPECT_EQ(in_blocks(*s.samples, 3, 3), expected);
    EXPECT_THAT(s.format.row_names(), ElementsAre("0_1_0", "1_0_1", "1_2_1"));
    EXPECT_THAT(r.table("voxel")->find("z")->numbers, ElementsAre(0, 1, 1));
    EXPECT_TRUE(r.meta.at("input").contains("mask.nii.gz"));
  }
}

TEST(Nifti, WrongMasksAreRefused) {
  const auto bold = file_with("bold.nii", example().bytes());
  const auto with = [&](const NiftiBytes& m) {
    const auto mask = file_with("mask.nii", m.bytes());
    return message_of([&] { io::open_stream(bold, Value::object({{"mask", mask.string()}})); });
  };
  NiftiBytes m = mask_of(std::vector<std::int16_t>(12, 1));
  EXPECT_EQ(with(m), "");
  EXPECT_THAT(with(mask_of(std::vector<std::int16_t>(12, 0))),
              HasSubstr("mask.nii: mask: expected at least one voxel that is not 0, found an empty mask"));
  m.sform[3] += 0.5;
  EXPECT_THAT(with(m), HasSubstr("mask.nii: grid: expected 2 x 3 x 2 at (-10, -20, -30) mm, axes RAS, as "));
  EXPECT_THAT(with(m), HasSubstr("found 2 x 3 x 2 at (-9.5, -20, -30) mm, axes RAS, up to 0.25 voxels apart"));
  m = mask_of(std::vector<std::int16_t>(12, 1));
  m.shape = {3, 2, 2};
  EXPECT_THAT(with(m), HasSubstr("found 3 x 2 x 2 at"));
  m = mask_of({});
  m.datatype = 16;
  m.bitpix = 32;
  std::vector<float> values(12, 1.0F);
  values[5] = static_cast<float>(kNaN);
  m.samples(values);
  EXPECT_THAT(with(m), HasSubstr("mask.nii: voxel 5 of the mask: expected a number, found NaN"));
  EXPECT_THAT(message_of([&] {
                io::open_stream(bold, Value::object({{"mask", bold.string()}}));
              }),
              HasSubstr("bold.nii: shape: expected one volume, found 4 volumes"));
}

TEST(Nifti, AtlasNamesTheVoxels) {
  const auto bold = file_with("bold.nii", example().bytes());
  const auto atlas = file_with("atlas.nii.gz", gzip(mask_of({0, 0, 1, 1, 0, 0, 0, 7, 0, 0, 0, 2}).bytes()));
  const auto open = [&](Value options) {
    options["atlas"] = atlas.string();
    return io::open_recording(bold, options);
  };
  const auto kinds = [](const Recording& r) {
    std::vector<std::string> k;
    for (auto& c : r.streams[0].format.parts[0].rows) k.push_back(c.kind);
    return k;
  };
  EXPECT_THAT(kinds(open({})), ElementsAre("region_1", "region_1", "region_7", "region_2"));
  write_atomic(atlas.parent_path() / "atlas.tsv", "index\tname\n1\tV1\n2\tV2\n");
  EXPECT_THAT(kinds(open({})), ElementsAre("V1", "V1", "region_7", "V2"));
  const Recording two = open(Value::object({{"regions", Value::array({"V2", "region_7"})}}));
  EXPECT_THAT(kinds(two), ElementsAre("region_7", "V2"));
  EXPECT_THAT(two.table("voxel")->find("region")->text, ElementsAre("region_7", "V2"));
  EXPECT_TRUE(two.meta.at("input").contains("atlas.tsv"));
  const auto mask = file_with("mask.nii", mask_of({1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}).bytes());
  EXPECT_THAT(kinds(open(Value::object({{"mask", mask.string()}}))), ElementsAre("", "V1"));
  EXPECT_THAT(message_of([&] {
                open(Value::object({{"regions", Value::array({"V3"})}}));
              }),
              HasSubstr("input.regions = V3: expected one of V1, V2, region_7 (did you mean 'V1'?)"));
  EXPECT_THAT(message_of([&] {
                open(Value::object({{"regions", Value::array({"V2"})}, {"mask", mask.string()}}));
              }),
              HasSubstr("expected at least one that is kept, found none (mask and regions have no voxel in common?)"));
  EXPECT_THAT(message_of([&] {
                io::open_stream(bold, Value::object({{"regions", Value::array({"V2"})}}));
              }),
              HasSubstr("input.regions: expected an atlas beside it"));
  EXPECT_THAT(message_of([&] {
                io::open_stream(bold, Value::object({{"rate_hz", 1.0}}));
              }),
              HasSubstr("input.rate_hz: expected nothing (an image has tr_s, mask, atlas, ...) for bold.nii"));
  EXPECT_THAT(message_of([&] {
                io::open_stream(file_with("x.npy", ""), Value::object({{"mask", "m"}}));
              }),
              HasSubstr("input.mask: expected nothing (it is for .nii, .nii.gz and .gii) for x.npy"));
}

TEST(Nifti, MissingVoxelsAreAnErrorUnlessAllowed) {
  NiftiBytes n;
  n.datatype = 16;
  n.bitpix = 32;
  std::vector<float> values(48, 1.0F);
  values[12 + 7] = static_cast<float>(kNaN);  // voxel (1, 0, 1) of volume 1
  n.samples(values);
  const auto file = file_with("x.nii", n.bytes());
  EXPECT_THAT(message_of([&] { io::open_stream(file).matrix(); }),
              HasSubstr("x.nii: voxel (1, 0, 1) of volume 1: expected a number (leave such voxels out by a mask, or "
                        "allow_missing = true), found NaN"));
  const Eigen::MatrixXd m = io::open_stream(file, Value::object({{"allow_missing", true}})).matrix();
  EXPECT_TRUE(std::isnan(m(7, 1)));
  EXPECT_EQ(m.array().isNaN().count(), 1);
  const auto mask = file_with("mask.nii", mask_of({1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1}).bytes());
  EXPECT_EQ(io::open_stream(file, Value::object({{"mask", mask.string()}})).matrix(), Eigen::MatrixXd::Ones(11, 4));
}

// --- volumes --------------------------------------------------------------------------------------------------------

TEST(Volume, WrittenIsRead) {
  io::Volume v;
  v.grid.size = {4, 3, 2};
  v.grid.affine << 0, -2, 0, 11, 3, 0, 0, -12, 0, 0, 4, 13, 0, 0, 0, 1;
  v.values = Eigen::VectorXd::LinSpaced(24, -1, 1).cast<float>().cast<double>();
  v.values[3] = kNaN;
  for (const char* name : {"map.nii", "map.nii.gz"}) {
    const auto file = testing::temporary_folder() / name;
    io::write_volume(file, v);
    const io::Volume back = io::read_volume(file);
    EXPECT_EQ(back.grid.size, v.grid.size);
    EXPECT_LT((back.grid.affine - v.grid.affine).cwiseAbs().maxCoeff(), 1e-5);
    EXPECT_TRUE(same(back.values, v.values));
    // and our own header reads the same place
    EXPECT_LT((io::read_nifti_header(file).affine(name) - v.grid.affine).cwiseAbs().maxCoeff(), 1e-5);
    std::vector<std::string> left;
    for (auto& e : fs::directory_iterator(file.parent_path())) left.push_back(e.path().filename().string());
    EXPECT_THAT(left, ElementsAre(name));
  }
  io::Volume sheared = v;
  sheared.grid.affine(0, 0) = 1;
  EXPECT_THAT(message_of([&] { io::write_volume(testing::temporary_folder() / "s.nii", sheared); }),
              HasSubstr("s.nii: affine: expected axes at right angles, found shear"));
  v.values.resize(5);
  EXPECT_THAT(message_of([&] { io::write_volume(testing::temporary_folder() / "s.nii", v); }),
              HasSubstr("s.nii: values: expected 24, one a voxel, found 5"));
  EXPECT_THAT(message_of([&] { io::write_volume(testing::temporary_folder() / "s.img", v); }),
              HasSubstr("s.img: extension: expected .nii or .nii.gz, found .img"));
}

// --- pictures -------------------------------------------------------------------------------------------------------

TEST(Nifti, MiddleSliceIsTurnedToTheViewer) {
  NiftiBytes n;
  n.shape = {3, 2, 3};
  n.sform = {-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};  // the first axis runs to the left
  std::vector<std::int16_t> values(18, 0);
  values[6 + 0] = 100;         // voxel (0, 0, 1): rightmost, back
  values[6 + 2 + 3 * 1] = 50;  // voxel (2, 1, 1): leftmost, front
  n.samples(values);
  const io::Picture p = io::middle_slice(file_with("x.nii", n.bytes()));
  ASSERT_EQ(p.width, 3);
  ASSERT_EQ(p.height, 2);
  EXPECT_THAT(p.pixels, ElementsAre(127, 0, 0, 0, 0, 255));  // front is the upper row, left is left
  // voxels twice as long as wide are two pixels
  n.sform = {1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0};
  EXPECT_EQ(io::middle_slice(file_with("x.nii", n.bytes())).height, 4);
}

TEST(Png, IsWhatTheStandardSays) {
  const std::vector<unsigned char> pixels{0, 10, 20, 255, 1, 2};
  const std::string png = io::encode_png(2, 3, 1, pixels);
  EXPECT_THAT(png, StartsWith("\x89PNG\r\n\x1a\n"));
  const auto number = [&](std::size_t at) {
    std::uint32_t v = 0;
    for (std::size_t i = 0; i < 4; ++i) v = v << 8 | static_cast<unsigned char>(png[at + i]);
    return v;
  };
  EXPECT_EQ(number(8), 13u);
  EXPECT_EQ(png.substr(12, 4), "IHDR");
  EXPECT_EQ(number(16), 2u);
  EXPECT_EQ(number(20), 3u);
  EXPECT_EQ(png.substr(24, 5), std::string("\x08\0\0\0\0", 5));
  EXPECT_EQ(number(29), crc32(0, reinterpret_cast<const Bytef*>(png.data()) + 12, 17));
  const std::uint32_t length = number(33);
  EXPECT_EQ(png.substr(37, 4), "IDAT");
  unsigned char rows[9];
  uLongf n = sizeof rows;
  ASSERT_EQ(uncompress(rows, &n, reinterpret_cast<const Bytef*>(png.data()) + 41, length), Z_OK);
  ASSERT_EQ(n, 9u);
  std::vector<unsigned char> decoded;  // by the filter "up": each row is added to the one above
  for (std::size_t y = 0; y < 3; ++y) {
    EXPECT_EQ(rows[3 * y], 2);
    for (std::size_t x = 0; x < 2; ++x)
      decoded.push_back(static_cast<unsigned char>(rows[3 * y + 1 + x] + (y ? decoded[2 * (y - 1) + x] : 0)));
  }
  EXPECT_EQ(decoded, pixels);
  EXPECT_EQ(png.substr(png.size() - 12), std::string("\0\0\0\0IEND\xae\x42\x60\x82", 12));
  EXPECT_THAT(message_of([&] { io::encode_png(2, 2, 1, pixels); }),
              HasSubstr("png: expected 2 x 2 x 1 samples, found 6"));
}

TEST(Nifti, IsDescribed) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "nifti/stc/Siemens_ax_asc_35sl_6.nii.gz");
  const Value d = io::describe_file(file).at("image");
  EXPECT_EQ(to_json(d.at("shape")), "[64,64,35,2]");
  EXPECT_EQ(d.at("repetition_time").as_string(), "3 s");
  EXPECT_EQ(d.at("repetition_time_sidecar_s").as_number(), 3);
  EXPECT_EQ(d.at("slice_timing_s").size(), 35u);
  EXPECT_EQ(d.at("orientation").as_string(), "LAS");
  EXPECT_EQ(d.at("space").as_string(), "sform: scanner");
  EXPECT_NEAR(d.at("voxel_mm").as_array().at(2).as_number(), 3.6, 1e-5);
}

}  // namespace
}  // namespace percept::io_test
