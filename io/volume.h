/// Where an image is, through ITK, and whole volumes: masks, atlases, anatomy, maps to look at. A file is checked by
/// io/nifti.h before ITK sees it.
#pragma once

#include <Eigen/Core>
#include <array>
#include <filesystem>
#include <string>

#include "io/nifti.h"

namespace percept::io {

/// Where voxels are: what two images have to share to be laid over each other.
struct Grid {
  std::array<Index, 3> size{1, 1, 1};
  Eigen::Matrix4d affine = Eigen::Matrix4d::Identity();  ///< voxel index to mm in RAS+; ITK's own world is LPS+
  Index voxels() const { return size[0] * size[1] * size[2]; }
};

/// Throws DataError naming both files unless sizes agree and no corner lies farther apart than a hundredth of a voxel.
void require_same_grid(const std::string& file, const Grid& found, const std::string& reference, const Grid& expected);

/// The grid as ITK reads it, turned from its LPS+ into RAS+. That of the header (NiftiHeader::affine) instead where ITK
/// has none or another: it is NIfTI-2, which ITK 5.2 does not read, no space is stated, the axes have shear, or sform
/// and qform differ and ITK takes the latter.
/// Throws DataError when ITK and our own reading disagree about the size.
Grid read_grid(const std::filesystem::path& file, const NiftiHeader& header);

struct Volume {
  Grid grid;
  Eigen::VectorXd values;  ///< x fastest; scaled as the header says; NaN where the file has it
};

/// A 3-D image (or a 4-D one of a single volume) from .nii or .nii.gz. Throws DataError.
Volume read_volume(const std::filesystem::path& file);

/// Writes .nii or .nii.gz of 4-byte reals; it appears under its name once it is whole. Throws DataError, also for an
/// affine with shear, which ITK's images cannot have.
void write_volume(const std::filesystem::path& file, const Volume& volume);

}  // namespace percept::io
