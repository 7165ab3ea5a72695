/// MATLAB .mat files of version 5 and 7.3, through matio.
/// Such a file is first walked by a child process (io/hdf5.h): the libraries crash on broken ones.
#pragma once

#include <Eigen/Core>
#include <filesystem>
#include <string>
#include <vector>

#include "core/stream.h"

namespace percept::io {

struct MatVariable {
  std::string name;
  std::string type;  ///< MATLAB's class: "double", "int16", "logical", "cell", "struct", ...
  std::vector<Index> shape;
  /// A real, full matrix of numbers with two dimensions.
  bool readable = false;
};

/// Every variable, in the order of the file. Throws DataError.
std::vector<MatVariable> list_mat(const std::filesystem::path& file);

/// A real 2-D numeric variable of any class as MATLAB shows it (rows x columns). `variable` may be empty when the file
/// has exactly one that can be read. Cells, structs, text, sparse and complex matrices are refused by name.
/// Throws DataError, which lists the variables when the name is not there.
Eigen::MatrixXd read_mat(const std::filesystem::path& file, const std::string& variable = "");

}  // namespace percept::io
