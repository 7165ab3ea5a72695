#include "io/fmri.h"
#include "io/nifti.h"
#include "io/volume.h"
#include "tests/fuzz/fuzz.h"
#include "tests/io/nifti_bytes.h"

std::vector<std::string> percept::fuzz::seeds() {
  std::vector<std::string> all;
  for (const int version : {1, 2})
    for (const bool big : {false, true}) {
      io_test::NiftiBytes n;
      n.version = version;
      n.big_endian = big;
      n.qform_code = 1;
      n.slope = 0.5;
      n.samples(io_test::counted(48));
      all.push_back(n.bytes());
      n.extension = "<CIFTI/>";
      n.datatype = 16;
      n.bitpix = 32;
      n.shape = {2, 2, 2, 3};
      n.samples(std::vector<float>(24, 1.5F));
      all.push_back(n.bytes());
      all.push_back(io_test::gzip(n.bytes()));
    }
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace percept;
  const fuzz::MemoryFile file(data, bytes);
  fuzz::try_reading([&] {
    const io::NiftiHeader h = io::read_nifti_header(file.path());
    if (h.voxels() * h.volumes() < 1) std::abort();
    if (h.voxels() > 1 << 16) return;
    std::vector<std::int64_t> voxels{h.voxels() / 2};
    fuzz::read_source(*io::open_nifti_voxels(file.path(), h, voxels, true), 1);
    io::check_nifti_length(file.path(), h);
    io::describe_nifti(file.path());
    io::middle_slice(file.path());
    io::open_fmri(file.path(), {});
  });
  return 0;
}
