/// Any HDF5 file that somebody else wrote: its numeric data sets as streams.
/// libhdf5 crashes on broken files, so a child process walks a foreign file first; its death is a DataError here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/recording.h"

namespace percept::io {

struct Hdf5Dataset {
  std::string path;             ///< "/group/name"
  std::vector<Index> shape;     ///< {} is one number
  std::string type;             ///< "f32", "i16", "u8", "text", "compound", ...
  bool readable = false;        ///< numbers, one or two dimensions
  Scalar scalar = Scalar::f64;  ///< f32 where it holds every value exactly
};

/// Every data set, sorted by path. Throws DataError.
std::vector<Hdf5Dataset> list_hdf5(const std::filesystem::path& file);

/// One 1-D or 2-D numeric data set block by block. The first axis is frames; with `transpose` the last is
/// (files written by MATLAB have their axes in this order). Throws DataError, which lists the data sets there are.
std::shared_ptr<const SampleSource> open_hdf5(const std::filesystem::path& file, const std::string& dataset,
                                              bool transpose = false);

/// True when the file starts as HDF5 does (also behind a user block, as .mat v7.3 has).
bool is_hdf5(const std::filesystem::path& file);

/// Lets a child process (percept-probe) read the whole file: structure and data. Its crash, time-out or complaint is a
/// DataError. A file that passed is not walked again while its size and time of change stay. `timeout_s` grows by a
/// second for each 20 MB. The helper is looked for at PERCEPT_PROBE, beside the program and beside the library.
void probe_foreign_hdf5(const std::filesystem::path& file, double timeout_s = 60);
/// The same for a .mat file of any version, read as io/mat.h reads it.
void probe_foreign_mat(const std::filesystem::path& file, double timeout_s = 60);

}  // namespace percept::io
