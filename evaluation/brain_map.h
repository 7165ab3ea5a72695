/// Which voxels carry a reconstruction, and where they are.
#pragma once

#include <Eigen/Core>
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/recording.h"

namespace percept::evaluation {

/// Of each voxel the share of its variance that goes with what was decoded: over values y_k the sum of cov(x, y_k)² by
/// var(x) times the sum of var(y_k). cov(x, y) / var(y) is the pattern of Haufe et al., NeuroImage 87 (2014) 96, eq. 7:
/// unlike a weight, which is also large where a voxel only cancels the noise of others, it is large where the voxel holds
/// what is decoded, however the decoder works. activity: voxels x items, decoded: values x items, at least 3 items, in
/// which nothing is missing. NaN for a voxel that has a missing value or does not vary.
struct SharedVariance {
  Eigen::VectorXd share;  ///< of each voxel, 0 to 1
  double chance = 0;      ///< what one voxel in twenty exceeds when activity and what was decoded are paired at random
};
/// Throws DataError when the sizes differ, there are too few items, or nothing that was decoded varies.
SharedVariance shared_variance(const Eigen::MatrixXd& activity, const Eigen::MatrixXd& decoded, std::uint64_t seed);

/// Where the rows of a stream of voxels are in an anatomical image.
struct BrainPlace {
  std::filesystem::path anatomy;
  std::vector<std::array<Index, 3>> voxel;  ///< of each row, in the grid of the image
};
/// Of a recording with meta.anatomy and a table "voxel" (x, y, z) with a row for each row of the stream; else nothing.
std::optional<BrainPlace> brain_place(const Recording& recording, const StreamFormat& voxels);

/// Writes the values as an image on the grid of the anatomy, zero where there is no voxel or no value. Throws DataError
/// when a voxel lies outside.
void write_brain_map(const std::filesystem::path& file, const BrainPlace& place, const Eigen::VectorXd& values);

}  // namespace percept::evaluation
