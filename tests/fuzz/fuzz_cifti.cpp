#include "io/cifti.h"
#include "tests/fuzz/fuzz.h"
#include "tests/io/nifti_bytes.h"

std::vector<std::string> percept::fuzz::seeds() {
  const std::string series =
      R"(<MatrixIndicesMap AppliesToMatrixDimension="0" IndicesMapToDataType="CIFTI_INDEX_TYPE_SERIES" )"
      R"(NumberOfSeriesPoints="3" SeriesExponent="0" SeriesStart="0" SeriesStep="2" SeriesUnit="SECOND"/>)";
  const std::string models =
      R"(<MatrixIndicesMap AppliesToMatrixDimension="1" IndicesMapToDataType="CIFTI_INDEX_TYPE_BRAIN_MODELS"><Volume )"
      R"(VolumeDimensions="2,3,4"><TransformationMatrixVoxelIndicesIJKtoXYZ MeterExponent="-3">2 0 0 0 0 2 0 0 0 0 2 0 )"
      R"(0 0 0 1</TransformationMatrixVoxelIndicesIJKtoXYZ></Volume><BrainModel IndexOffset="0" IndexCount="2" )"
      R"(ModelType="CIFTI_MODEL_TYPE_SURFACE" BrainStructure="CIFTI_STRUCTURE_CORTEX_LEFT" SurfaceNumberOfVertices="5">)"
      R"(<VertexIndices>1 3</VertexIndices></BrainModel><BrainModel IndexOffset="2" IndexCount="1" )"
      R"(ModelType="CIFTI_MODEL_TYPE_VOXELS" BrainStructure="CIFTI_STRUCTURE_THALAMUS_LEFT"><VoxelIndicesIJK>0 1 2)"
      R"(</VoxelIndicesIJK></BrainModel></MatrixIndicesMap>)";
  const std::string parcels =
      R"(<MatrixIndicesMap AppliesToMatrixDimension="1" IndicesMapToDataType="CIFTI_INDEX_TYPE_PARCELS"><Parcel )"
      R"(Name="a"/><Parcel Name="b"/><Parcel Name="c"/></MatrixIndicesMap>)";
  std::vector<std::string> all;
  for (const auto& rows : {models, parcels}) {
    io_test::NiftiBytes n;
    n.version = 2;
    n.shape = {1, 1, 1, 1, 3, 3};
    n.intent = 3002;
    n.extension = "<CIFTI Version=\"2\"><Matrix>" + series + rows + "</Matrix></CIFTI>";
    n.samples(io_test::counted(9));
    all.push_back(n.bytes());
  }
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace percept;
  const fuzz::MemoryFile file(data, bytes);
  fuzz::try_reading([&] {
    const io::NiftiHeader h = io::read_nifti_header(file.path());
    if (!io::is_cifti(h)) return;
    io::describe_cifti(file.path(), h);
    io::FmriOptions any;
    any.allow_missing = true;
    const io::FmriSeries series = io::open_cifti(file.path(), h, any, "input");
    fuzz::read_source(*series.stream.samples, series.stream.format.size());
  });
  return 0;
}
