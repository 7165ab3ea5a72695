/// NumPy's .npy, versions 1 to 3. The first axis is frames; a frame is the rest, last index fastest.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/recording.h"

namespace percept::io {

/// What the header says, checked against the file's length.
struct NpyInfo {
  std::string type;          ///< "f4", "i2", "u1", "b1", "c8", ...
  std::vector<Index> shape;  ///< of the array; {} is one number
  bool fortran_order = false;
  bool big_endian = false;
  std::uint64_t data_offset = 0;  ///< bytes before the first element
  Index item_bytes = 0;

  Index frames() const { return shape.empty() ? 1 : shape.front(); }
  /// Shape of one frame; complex numbers add a last axis of 2 (re, im). A 1-D array has frames of {1}.
  std::vector<Index> frame_shape() const;
  /// f32 where it holds every value exactly (f2, f4, c8, integers of up to 16 bits), else f64.
  Scalar scalar() const;
};

/// Throws DataError for anything but bool, i1..i8, u1..u8, f2, f4, f8, c8, c16 (objects would need pickle: never read),
/// and when the file is shorter or longer than its shape says.
NpyInfo read_npy_info(const std::filesystem::path& file);

/// Reads block by block; integers beyond 2^53 are refused, because double cannot hold them.
std::shared_ptr<const SampleSource> open_npy(const std::filesystem::path& file);

/// The whole array, size of a frame x frames.
Eigen::MatrixXd read_npy(const std::filesystem::path& file);

/// Writes frames as an array {frames, frame_shape...} of f4 or f8 (the scalar of `frames`), C order, little-endian.
/// An empty frame_shape means {rows}.
void write_npy(const std::filesystem::path& file, ConstFrames frames, const std::vector<Index>& frame_shape = {});

}  // namespace percept::io
