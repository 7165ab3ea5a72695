/// GIFTI: surfaces and what lies on them, as XML with arrays in base64 (.gii, also packed as .gii.gz).
///
/// GIFTI Surface Data Format 1.0 (2011); https://www.nitrc.org/projects/gifti.
#pragma once

#include <Eigen/Core>
#include <filesystem>
#include <string>

#include "io/fmri.h"

namespace percept::io {

struct Surface {
  Eigen::Matrix3Xd vertices;                                 ///< mm, as the file has them
  Eigen::Matrix<std::int32_t, 3, Eigen::Dynamic> triangles;  ///< each three vertices, counted from 0
  std::string structure;                                     ///< "CORTEX_LEFT"; "" where the file does not say
};

/// Throws DataError: no XML of GIFTI, an array that is not as long as it says or in no encoding of the standard,
/// another number of pointsets or triangle lists than one, a vertex that is no number or is not there.
Surface read_surface(const std::filesystem::path& file);

/// Values on the vertices of a surface (.func.gii, .shape.gii): one array a frame, or one array of vertices x frames.
/// Arrays with the intent of a time series have a clock, others are items. GIFTI states no unit of time: the repetition
/// time comes from the sidecar or from tr_s. Rows are vertices ("v17"), their kind is the structure; `surface` gives
/// them positions. The file is held in memory.
/// Throws DataError as above; a surface of another number of vertices; NaN unless allow_missing.
FmriSeries open_gifti(const std::filesystem::path& file, const FmriOptions& options, const std::string& where);

/// Version, structure, arrays (intent, type, shape, encoding), and of a surface vertices, triangles and extent.
/// With `whole` every array is decoded and checked.
Value describe_gifti(const std::filesystem::path& file, bool whole);

}  // namespace percept::io
