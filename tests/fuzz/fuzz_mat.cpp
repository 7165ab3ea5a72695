/// Version 5 in this process, 7.3 through percept-probe, as percept itself does.
#include <matio.h>

#include "io/hdf5_handle.h"
#include "io/mat.h"
#include "tests/fuzz/fuzz.h"

std::vector<std::string> percept::fuzz::seeds() {
  std::vector<std::string> all;
  for (const mat_ft version : {MAT_FT_MAT5, MAT_FT_MAT73})
    for (const matio_compression packed : {MAT_COMPRESSION_NONE, MAT_COMPRESSION_ZLIB}) {
      const std::string path = std::filesystem::temp_directory_path() / ("fuzz-seed-" + std::to_string(getpid()));
      mat_t* mat = Mat_CreateVer(path.c_str(), nullptr, version);
      double d[4] = {1, 2, 3, 4};
      std::int16_t i[2] = {5, 6};
      std::size_t two[2] = {2, 2}, one[2] = {1, 2};
      const char* fields[] = {"a"};
      matvar_t* variables[] = {Mat_VarCreate("X", MAT_C_DOUBLE, MAT_T_DOUBLE, 2, two, d, 0),
                               Mat_VarCreate("n", MAT_C_INT16, MAT_T_INT16, 2, one, i, 0),
                               Mat_VarCreateStruct("s", 2, one, fields, 1)};
      for (matvar_t* v : variables) {
        Mat_VarWrite(mat, v, packed);
        Mat_VarFree(v);
      }
      Mat_Close(mat);
      std::ifstream in(path, std::ios::binary);
      all.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
      std::filesystem::remove(path);
    }
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace percept;
  const fuzz::MemoryFile file(data, bytes);
  const bool is_73 = bytes > 128 && (data[124] == 2 || data[125] == 2);
  fuzz::try_reading([&] {
    if (!is_73) return io::walk_mat(file.path());
    for (const auto& v : io::list_mat(file.path()))
      if (v.readable) io::read_mat(file.path(), v.name);
  });
  return 0;
}
