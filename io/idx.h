/// IDX, the format of the MNIST files: an array of numbers behind a big-endian header, plain or packed by gzip.
/// The first axis is frames; a frame is the rest, last index fastest.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "core/recording.h"
#include "io/element.h"

namespace percept::io {

/// What the header says; a count that cannot be in the file is refused.
struct IdxInfo {
  Element type = Element::u8;
  std::vector<Index> shape;  ///< of the array
  std::vector<Index> frame_shape() const;
};

IdxInfo read_idx_info(const std::filesystem::path& file);

/// The values times `scale`. The file's own bytes are held in memory, because images are asked for in any order.
/// Throws DataError, also when the file holds less or more than its header says.
std::shared_ptr<const SampleSource> open_idx(const std::filesystem::path& file, double scale = 1);

}  // namespace percept::io
