/// Functional images as streams of voxels: a 4-D NIfTI with its mask, atlas and sidecar; CIFTI (io/cifti.h) and GIFTI
/// (io/gifti.h) come through here too.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/recording.h"
#include "io/nifti.h"
#include "io/volume.h"

namespace percept::io {

/// Header and sidecar may differ by this.
constexpr double kSameTime_s = 1e-3;

/// What a BIDS sidecar says of the timing of an image. Times in s.
struct FmriTiming {
  double repetition_time_s = 0;  ///< 0: not said
  std::vector<double> slice_s;   ///< SliceTiming: start of each slice after that of the volume; empty: not said
};

/// RepetitionTime and SliceTiming of a sidecar. Throws DataError naming the sidecar when a value cannot be.
FmriTiming timing_of_sidecar(const Value& sidecar, const std::string& file);

/// The timing of an image, from tr_s (above 0), header and sidecar. Throws DataError: no repetition time, one that the
/// header contradicts by more than 1 ms, one beyond 100 s; slice times that are not one a slice or not within it.
FmriTiming image_timing(const std::filesystem::path& file, const NiftiHeader& header, const FmriTiming& sidecar,
                        const std::string& sidecar_file, double tr_s = 0);

struct FmriOptions {
  std::filesystem::path mask;        ///< voxels that are not 0; "": all
  std::filesystem::path atlas;       ///< regions by number; without a mask, voxels that are not 0
  std::filesystem::path labels;      ///< .tsv with the columns index and name, as BIDS has it; "": beside the atlas
  std::vector<std::string> regions;  ///< only these of the atlas; of CIFTI, structures or parcels
  std::filesystem::path surface;     ///< of GIFTI: positions of the vertices
  double tr_s = 0;                   ///< stands above header and sidecar
  bool items = false;                ///< volumes are items (one map a trial), not a time series
  bool allow_missing = false;        ///< NaN are missing values, not an error
  std::optional<Value> sidecar;      ///< of BIDS; nothing: FILE.json beside the image, where there is one
  std::string sidecar_file;          ///< its name in messages
};

struct FmriSeries {
  Stream stream;  ///< rows "x_y_z" (voxel index), kind the region, position in m (RAS+); a volume stands for its middle
  Table voxel;    ///< x, y, z of each row, and region where there is an atlas; of CIFTI and GIFTI see there
  Value meta;     ///< grid, affine, orientation, repetition_time_s, slice_timing_s, sidecar, note
  std::vector<std::filesystem::path> files;  ///< mask, atlas, labels and sidecar that were read
};

/// A NIfTI, CIFTI or GIFTI file.
/// Throws DataError: a mask or atlas of another grid, with NaN or without a voxel; a repetition time that is missing,
/// contradictory (header and sidecar differ by more than 1 ms) or beyond 100 s; slice times that do not fit.
/// ConfigError (naming `where`) for a region that the atlas does not have.
FmriSeries open_fmri(const std::filesystem::path& file, const FmriOptions& options, const std::string& where = "input");

/// A named region of an atlas.
struct Region {
  double index = 0;
  std::string name;
};
/// Columns index (or value) and name (or label) of a table, as BIDS names them. Throws DataError.
std::vector<Region> read_region_names(const std::filesystem::path& file);

/// .gii or .gii.gz
bool is_gifti_name(const std::filesystem::path& file);

/// Dimensions, voxel size, repetition time, units, slice timing, orientation, scaling, type, for `percept info`; of CIFTI
/// its two axes.
Value describe_nifti(const std::filesystem::path& file);

/// Grey values 0..255, row by row from the top.
struct Picture {
  Index width = 0, height = 0;
  std::vector<unsigned char> pixels;
};
/// The middle axial slice of the first volume: front up, the person's left on the left; square pixels. Dark to light
/// is the 2nd to the 98th percentile; NaN is dark.
Picture middle_slice(const std::filesystem::path& file);

}  // namespace percept::io
