#include <limits>

#include "core/error.h"
#include "core/files.h"
#include "io/cifti.h"
#include "io/open.h"
#include "tests/io/helpers.h"
#include "tests/io/nifti_bytes.h"

namespace percept::io_test {
namespace {
namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kSeries =
    R"(<MatrixIndicesMap AppliesToMatrixDimension="0" IndicesMapToDataType="CIFTI_INDEX_TYPE_SERIES" )"
    R"(NumberOfSeriesPoints="3" SeriesExponent="-3" SeriesStart="500" SeriesStep="720" SeriesUnit="SECOND"/>)";
const std::string kScalars =
    R"(<MatrixIndicesMap AppliesToMatrixDimension="0" IndicesMapToDataType="CIFTI_INDEX_TYPE_SCALARS">)"
    R"(<NamedMap><MapName>faces</MapName></NamedMap><NamedMap><MapName>houses</MapName></NamedMap>)"
    R"(<NamedMap><MapName>rest</MapName></NamedMap></MatrixIndicesMap>)";
/// Two vertices of five and two voxels of a grid of 2 mm; the second model stands first in the text.
const std::string kModels =
    R"(<MatrixIndicesMap AppliesToMatrixDimension="1" IndicesMapToDataType="CIFTI_INDEX_TYPE_BRAIN_MODELS">)"
    R"(<Volume VolumeDimensions="2,3,4"><TransformationMatrixVoxelIndicesIJKtoXYZ MeterExponent="-3">)"
    "2 0 0 -10\n0 2 0 -20\n0 0 2 -30\n0 0 0 1</TransformationMatrixVoxelIndicesIJKtoXYZ></Volume>"
    R"(<BrainModel IndexOffset="2" IndexCount="2" ModelType="CIFTI_MODEL_TYPE_VOXELS" )"
    R"(BrainStructure="CIFTI_STRUCTURE_THALAMUS_LEFT"><VoxelIndicesIJK>0 1 2)"
    "\n1 2 3</VoxelIndicesIJK></BrainModel>"
    R"(<BrainModel IndexOffset="0" IndexCount="2" ModelType="CIFTI_MODEL_TYPE_SURFACE" )"
    R"(BrainStructure="CIFTI_STRUCTURE_CORTEX_LEFT" SurfaceNumberOfVertices="5"><VertexIndices>1 3</VertexIndices>)"
    R"(</BrainModel></MatrixIndicesMap>)";
const std::string kParcels =
    R"(<MatrixIndicesMap AppliesToMatrixDimension="1" IndicesMapToDataType="CIFTI_INDEX_TYPE_PARCELS">)"
    R"(<Parcel Name="V1"><Vertices BrainStructure="CIFTI_STRUCTURE_CORTEX_LEFT">0 1</Vertices></Parcel>)"
    R"(<Parcel Name="V2"><Vertices BrainStructure="CIFTI_STRUCTURE_CORTEX_LEFT">2</Vertices>)"
    R"(<Vertices BrainStructure="CIFTI_STRUCTURE_CORTEX_RIGHT">2</Vertices></Parcel>)"
    R"(<Parcel Name="amygdala"><VoxelIndicesIJK>0 0 0</VoxelIndicesIJK></Parcel><Parcel Name="none"/>)"
    R"(</MatrixIndicesMap>)";

std::string xml(const std::string& along, const std::string& rows, const std::string& version = "2") {
  return "<?xml version=\"1.0\"?><CIFTI Version=\"" + version + "\"><Matrix>" + along + rows + "</Matrix></CIFTI>";
}
/// Row r at time t has 10 r + t; a row's times lie side by side.
NiftiBytes image(const std::string& along, const std::string& rows) {
  NiftiBytes n;
  n.version = 2;
  n.shape = {1, 1, 1, 1, 3, 4};
  n.datatype = 16;
  n.bitpix = 32;
  n.intent = 3002;
  n.extension = xml(along, rows);
  std::vector<float> values;
  for (int r = 0; r < 4; ++r)
    for (int t = 0; t < 3; ++t) values.push_back(static_cast<float>(10 * r + t));
  n.samples(values);
  return n;
}
Eigen::MatrixXd expected() {
  Eigen::MatrixXd m(4, 3);
  for (Index r = 0; r < 4; ++r)
    for (Index t = 0; t < 3; ++t) m(r, t) = static_cast<double>(10 * r + t);
  return m;
}
std::string replaced(std::string text, const std::string& old, const std::string& by) {
  const auto at = text.find(old);
  EXPECT_NE(at, text.npos) << old;
  return text.replace(at, old.size(), by);
}

TEST(Cifti, ADenseSeriesIsAStream) {
  for (const bool big : {false, true}) {
    NiftiBytes n = image(kSeries, kModels);
    n.big_endian = big;
    n.samples(std::vector<float>{0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32});
    const auto file = file_with("x.dtseries.nii", n.bytes());
    const Recording r = io::open_recording(file);
    const Stream& s = r.streams[0];
    EXPECT_EQ(s.matrix(), expected());
    for (const Index block : {1, 2, 3}) EXPECT_EQ(in_blocks(*s.samples, 4, block), expected());
    EXPECT_DOUBLE_EQ(s.format.rate_hz, 1 / 0.72);
    EXPECT_DOUBLE_EQ(s.format.start_s, 0.5 + 0.36);
    EXPECT_EQ(s.format.scalar, Scalar::f32);
    EXPECT_THAT(s.format.row_names(),
                ElementsAre("CORTEX_LEFT_1", "CORTEX_LEFT_3", "THALAMUS_LEFT_0_1_2", "THALAMUS_LEFT_1_2_3"));
    EXPECT_EQ(s.format.parts[0].rows[1].kind, "CORTEX_LEFT");
    EXPECT_FALSE(s.format.parts[0].rows[1].position) << "a vertex has none without its surface";
    const auto place = *s.format.parts[0].rows[3].position;
    EXPECT_NEAR(place[0], -0.008, 1e-12);
    EXPECT_NEAR(place[1], -0.016, 1e-12);
    EXPECT_NEAR(place[2], -0.024, 1e-12);
    const Table& t = *r.table("grayordinate");
    EXPECT_EQ(t.find("vertex")->numbers[1], 3);
    EXPECT_TRUE(std::isnan(t.find("vertex")->numbers[2]));
    EXPECT_EQ(t.find("z")->numbers[2], 2);
    EXPECT_TRUE(std::isnan(t.find("z")->numbers[0]));
  }
}

TEST(Cifti, StructuresAreRegionsAndTimesCanBeStated) {
  const auto file = file_with("x.dtseries.nii", image(kSeries, kModels).bytes());
  const Stream s = io::open_stream(file, Value::object({{"regions", Value::array({"THALAMUS_LEFT"})}, {"tr_s", 2.0}}));
  EXPECT_EQ(s.matrix(), expected().bottomRows(2));
  EXPECT_EQ(s.format.rate_hz, 0.5);
  EXPECT_EQ(io::open_stream(file, Value::object({{"items", true}})).keys.size(), 3u);
  EXPECT_THAT(message_of([&] {
                io::open_stream(file, Value::object({{"regions", Value::array({"CORTEX_LEFF"})}}));
              }),
              HasSubstr("input.regions = CORTEX_LEFF: expected one of CORTEX_LEFT, THALAMUS_LEFT (did you mean"));
  EXPECT_THAT(message_of([&] {
                io::open_stream(file, Value::object({{"mask", "m.nii"}}));
              }),
              HasSubstr("input.mask = m.nii: expected nothing: CIFTI names its structures (regions)"));
  // a sidecar is heard, and contradicts
  write_atomic(file.parent_path() / "x.json", R"({"RepetitionTime": 0.72})");
  EXPECT_TRUE(io::open_recording(file).meta.at("input").contains("x.json"));
  write_atomic(file.parent_path() / "x.json", R"({"RepetitionTime": 2})");
  EXPECT_THAT(message_of([&] { io::open_stream(file); }),
              HasSubstr("x.json: RepetitionTime: expected 0.72 s, as x.dtseries.nii says (or tr_s), found 2 s"));
}

TEST(Cifti, ParcelsAndMaps) {
  const Recording r = io::open_recording(file_with("x.ptseries.nii", image(kSeries, kParcels).bytes()));
  EXPECT_EQ(r.streams[0].matrix(), expected());
  EXPECT_THAT(r.streams[0].format.row_names(), ElementsAre("V1", "V2", "amygdala", "none"));
  EXPECT_THAT(r.table("parcel")->find("structure")->text, ElementsAre("CORTEX_LEFT", "several", "voxels", ""));
  const auto maps = file_with("x.dscalar.nii", image(kScalars, kModels).bytes());
  const Recording m = io::open_recording(maps, Value::object({{"regions", Value::array({"CORTEX_LEFT"})}}));
  EXPECT_EQ(m.streams[0].format.axis, Axis::item);
  EXPECT_EQ(m.streams[0].matrix(), expected().topRows(2));
  EXPECT_EQ(to_json(m.meta.at("fmri").at("fmri").at("maps")), R"(["faces","houses","rest"])");
}

TEST(Cifti, IsDescribed) {
  const auto file = file_with("x.dtseries.nii", image(kSeries, kModels).bytes());
  const Value d = io::describe_file(file).at("image");
  EXPECT_EQ(d.at("version").as_string(), "CIFTI-2");
  EXPECT_EQ(to_json(d.at("shape")), "[3,4]");
  EXPECT_DOUBLE_EQ(d.at("cifti").at("columns").at("step").as_number(), 0.72);
  EXPECT_EQ(to_json(d.at("cifti").at("rows").at("brain_models")),
            R"([{"structure":"CORTEX_LEFT","of":"vertices","count":2,"surface":5},)"
            R"({"structure":"THALAMUS_LEFT","of":"voxels","count":2}])");
  EXPECT_NO_THROW(io::check_file(file));
  EXPECT_THAT(message_of([&] { io::middle_slice(file); }),
              HasSubstr("expected an image of voxels, found CIFTI, which has no slices"));
}

TEST(Cifti, WhatIsWrongIsNamed) {
  const auto of = [](const NiftiBytes& n) {
    const auto file = file_with("x.dtseries.nii", n.bytes());
    return message_of([&] { io::open_stream(file).matrix(); });
  };
  const auto rows = [&](const std::string& old, const std::string& by) {
    return of(image(kSeries, replaced(kModels, old, by)));
  };
  const auto series = [&](const std::string& old, const std::string& by) {
    return of(image(replaced(kSeries, old, by), kModels));
  };
  EXPECT_EQ(of(image(kSeries, kModels)), "");
  EXPECT_THAT(series("Points=\"3\"", "Points=\"4\""),
              HasSubstr("SERIES of dimension 0: expected 3, as dim[5] of the header says, found 4"));
  EXPECT_THAT(series("720", "0"),
              HasSubstr("SeriesStep: expected a repetition time above 0 and up to 100 s (or tr_s), found 0 s"));
  EXPECT_THAT(series("SECOND", "HERTZ"), HasSubstr("SeriesUnit: expected SECOND (or tr_s), found HERTZ"));
  EXPECT_THAT(series("SeriesStep=\"720\"", ""),
              HasSubstr("SeriesStep of MatrixIndicesMap: expected 1 numbers, found 0"));
  EXPECT_THAT(series("Dimension=\"0\"", "Dimension=\"1\""),
              HasSubstr("maps of dimension 1: expected one, found another"));
  EXPECT_THAT(series("Dimension=\"0\"", "Dimension=\"2\""), HasSubstr("expected 0 or 1, found 2"));
  EXPECT_THAT(of(image("", kModels)), HasSubstr("maps of dimension 0: expected one, found none"));
  EXPECT_THAT(series("TYPE_SERIES", "TYPE_THINGS"),
              HasSubstr("IndicesMapToDataType: expected CIFTI_INDEX_TYPE_SERIES"));
  EXPECT_THAT(rows(">1 3<", ">1 5<"),
              HasSubstr("brain model CORTEX_LEFT: VertexIndices: expected vertices below 5, found 5"));
  EXPECT_THAT(rows(">1 3<", ">1<"), HasSubstr("CORTEX_LEFT: VertexIndices: expected 2 numbers, found 1"));
  EXPECT_THAT(rows(">1 3<", ">1 3 4<"), HasSubstr("VertexIndices: expected 2 numbers, found more"));
  EXPECT_THAT(rows(">1 3<", ">1 b<"), HasSubstr("expected a number, found 'b'"));
  EXPECT_THAT(rows("1 2 3<", "1 2 4<"),
              HasSubstr("brain model THALAMUS_LEFT: VoxelIndicesIJK: expected indices within 2 x 3 x 4, found 4"));
  EXPECT_THAT(rows("IndexOffset=\"2\"", "IndexOffset=\"3\""),
              HasSubstr("THALAMUS_LEFT: IndexOffset: expected 2, where the model before ends, found 3"));
  EXPECT_THAT(rows("TYPE_VOXELS", "TYPE_CLOUD"), HasSubstr("ModelType: expected CIFTI_MODEL_TYPE_SURFACE or"));
  EXPECT_THAT(rows("2,3,4", "2,0,4"), HasSubstr("VolumeDimensions of Volume: expected three whole numbers from 1 on"));
  EXPECT_THAT(rows("BrainStructure=\"CIFTI_STRUCTURE_CORTEX_LEFT\"", ""),
              HasSubstr("BrainStructure of BrainModel: expected a text, found none"));
  NiftiBytes n = image(kSeries, kModels);
  n.extension = xml(kSeries, kModels, "1.0");
  EXPECT_THAT(of(n), HasSubstr("Version of CIFTI: expected 2, found 1.0"));
  n.extension = "<CIFTI Version=\"2\"><Matrix>";
  EXPECT_THAT(of(n), HasSubstr("of the XML: expected CIFTI's XML, found"));
  n.extension = "";
  EXPECT_THAT(of(n), HasSubstr("extension: expected CIFTI's XML (code 32), found none"));
  n = image(kSeries, kModels);
  n.shape = {1, 1, 1, 3, 4};
  EXPECT_THAT(of(n), HasSubstr("shape: expected 1 x 1 x 1 x 1 x columns x rows, found 1 x 1 x 1 x 3 x 4"));
  EXPECT_THAT(of(image(replaced(kModels, "Dimension=\"1\"", "Dimension=\"0\""),
                       replaced(kScalars, "Dimension=\"0\"", "Dimension=\"1\""))),
              HasSubstr("BRAIN_MODELS of dimension 0: expected 3, as dim[5] of the header says, found 4"));
  n = image(kSeries, kModels);
  std::vector<float> values(12, 1);
  values[7] = std::numeric_limits<float>::quiet_NaN();
  n.samples(values);
  EXPECT_THAT(of(n),
              HasSubstr("THALAMUS_LEFT_0_1_2 of frame 1: expected a number (or allow_missing = true), found NaN"));
  const auto packed = file_with("x.dtseries.nii.gz", gzip(image(kSeries, kModels).bytes()));
  EXPECT_THAT(message_of([&] { io::open_stream(packed); }),
              HasSubstr("x.dtseries.nii.gz: expected a plain file, as CIFTI is (gunzip it), found a packed one"));
}

// the numbers are those that nibabel reads
TEST(Cifti, RealFiles) {
  fs::path file;
  PERCEPT_NEED_DATA(file, "nifti/cifti/rapidtide_cifti.ptseries.nii");
  const Stream s = io::open_stream(file);
  EXPECT_EQ(s.frames(), 1200);
  EXPECT_DOUBLE_EQ(s.format.rate_hz, 1 / 0.72);
  ASSERT_EQ(s.format.size(), 419);
  EXPECT_EQ(s.format.row_names()[0], "17Networks_LH_VisCent_ExStr_1");
  EXPECT_EQ(s.format.row_names()[418], "DIENCEPHALON_VENTRAL_RIGHT");
  const Eigen::MatrixXd m = s.matrix();
  EXPECT_NEAR(m(7, 5), 9992.824, 1e-3);
  EXPECT_NEAR(m(418, 1199), 10958.025, 1e-3);
  EXPECT_NEAR(m.mean(), 10387.858, 1e-2);
  const auto dense = file.parent_path() / "nibabel_row_major.dconn.nii";
  EXPECT_THAT(message_of([&] { io::open_stream(dense); }),
              HasSubstr("axes: expected SERIES, SCALARS or LABELS by BRAIN_MODELS or PARCELS, found BRAIN_MODELS by"));
}

}  // namespace
}  // namespace percept::io_test
