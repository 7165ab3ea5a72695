/// NIfTI-1 and NIfTI-2 (.nii, .nii.gz): the header, checked before anything else reads the file, and 4-D images as a
/// stream of voxels x volumes.
///
/// ITK parses the header too and its geometry is used (io/volume.h), but samples are read from the file at the place
/// the header states: ITK does not stream packed files, keeps a whole volume for a few voxels, turns NaN into 0 (its
/// niftilib does), and knows neither NIfTI-2 nor CIFTI.
///
/// Cox et al., "A (sort of) new image data format standard: NIfTI-1" (2004); https://nifti.nimh.nih.gov.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/recording.h"
#include "io/element.h"

namespace percept::io {

struct NiftiExtension {
  int code = 0;  ///< 32 is CIFTI's XML
  std::uint64_t offset = 0, bytes = 0;
};

struct NiftiHeader {
  int version = 1;
  bool big_endian = false;
  std::vector<Index> shape;  ///< 1 to 7 axes, the first is fastest
  Element type = Element::i16;
  std::uint64_t data_offset = 0;
  double slope = 1, intercept = 0;  ///< value = slope * stored + intercept
  std::array<double, 8> pixdim{};   ///< [1..3] voxel size, [4] time step, in the file's units
  double mm_per_unit = 1;           ///< of space; 1 where the file states no unit
  double s_per_unit = 1;            ///< of the fourth axis; 1 where no unit is stated, 0 where it is no time (Hz, ppm)
  bool time_unit_stated = false;
  int qform_code = 0, sform_code = 0;
  std::array<double, 6> qform{};  ///< quaternion b, c, d and offset x, y, z
  std::array<std::array<double, 4>, 3> sform{};
  int slice_axis = -1;  ///< 0..2, -1 where the header does not say
  int slice_code = 0, slice_start = 0, slice_end = 0;
  double slice_duration = 0;  ///< in the unit of the fourth axis
  int intent = 0;
  std::string description;
  std::vector<NiftiExtension> extensions;

  std::int64_t voxels() const;  ///< of a volume
  std::int64_t volumes() const;
  /// {x, y, z}; missing axes are 1.
  std::array<Index, 3> grid() const;
  /// Voxel index to mm in RAS+ (right, anterior, superior): sform where its code is set, else qform, else voxel sizes
  /// only, as the standard says. Throws DataError where it cannot be inverted.
  Eigen::Matrix4d affine(const std::string& file) const;
  /// False where the header states no space (both codes 0): positions are then relative.
  bool has_space() const { return sform_code > 0 || qform_code > 0; }
  /// Time from volume to volume, 0 where the header states none.
  double repetition_time_s() const { return shape.size() > 3 ? pixdim[4] * s_per_unit : 0; }
};

/// Throws DataError for another kind of file, a pair of .hdr and .img, a type that is not one real number (complex,
/// RGB), sizes that are not those of the file, and any other field that cannot be. Of a packed file only the header is
/// read; that its content is as long as stated shows when it is read to its end.
NiftiHeader read_nifti_header(const std::filesystem::path& file);

/// Reads the content to its end and throws DataError when it is shorter than header and shape say, or longer by a
/// volume or more.
void check_nifti_length(const std::filesystem::path& file, const NiftiHeader& header);

/// "RAS", "LAS", "PIR", ...: where the first, second and third voxel axis point, to the nearest axis.
std::string orientation_of(const Eigen::Matrix4d& affine);

/// The volumes of an image as frames; rows are these voxels (linear index, x fastest, rising). `allow_missing`: NaN
/// are missing values; else the first one is a DataError when it is read, naming voxel and volume.
std::shared_ptr<const SampleSource> open_nifti_voxels(const std::filesystem::path& file, const NiftiHeader& header,
                                                      std::vector<std::int64_t> voxels, bool allow_missing);

}  // namespace percept::io
