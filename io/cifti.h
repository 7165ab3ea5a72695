/// CIFTI-2: the cortex by vertex and the rest by voxel ("grayordinates"), or parcels of them, over time or over maps.
/// A NIfTI-2 file whose last two axes are explained by XML in its header.
///
/// Glasser et al., NeuroImage 80 (2013) 105-124; https://www.nitrc.org/projects/cifti.
#pragma once

#include <filesystem>
#include <string>

#include "io/fmri.h"

namespace percept::io {

/// A NIfTI-2 header that has CIFTI's XML or one of its intents (3000 to 3099).
bool is_cifti(const NiftiHeader& header);

/// A series (.dtseries.nii, .ptseries.nii) as a stream with a clock, maps (.dscalar.nii, .pscalar.nii) as items. Rows
/// are "CORTEX_LEFT_17" (vertex), "THALAMUS_LEFT_40_61_38" (voxel, with its position) or a parcel's name; a row's kind
/// is its structure. The table has them as numbers. Of the options, regions are structures (or parcels) that are kept;
/// mask, atlas and labels are refused. A file keeps the times of a row side by side, so that a block of frames is a
/// read a row.
/// Throws DataError: XML that is not CIFTI-2's or does not fit the header's sizes, axes of another kind, vertices or
/// voxels outside of their surface or volume, a packed file; what open_fmri says of times and missing values.
FmriSeries open_cifti(const std::filesystem::path& file, const NiftiHeader& header, const FmriOptions& options,
                      const std::string& where);

/// The two axes: series (points, start, step), maps (names), brain models (structure, count) or parcels.
Value describe_cifti(const std::filesystem::path& file, const NiftiHeader& header);

}  // namespace percept::io
