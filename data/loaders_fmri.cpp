/// Functional MRI.
#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "data/loader.h"

namespace percept::data {

namespace {

std::vector<double> column_of(const Eigen::MatrixXd& m, Index row = 0) {
  std::vector<double> values(static_cast<std::size_t>(m.cols()));
  for (Index k = 0; k < m.cols(); ++k) values[static_cast<std::size_t>(k)] = m(row, k);
  return values;
}

Stream matrix_items(const std::string& name, std::vector<Index> shape, Eigen::MatrixXd m) {
  return items(name, std::move(shape), std::make_shared<MemorySource>(std::move(m)));
}

// --- vangerven69 ----------------------------------------------------------------------------------------------------

constexpr Index kDigitVoxels = 3092, kDigits = 100, kDigitPrior = 2000, kDigitRois = 13;
constexpr double kDigitVoxel_m = 2e-3;  ///< of the placeholder affine diag(2, 2, 2) mm

/// {6, 6, ..., 9, 9, ...}: the first half and the second.
std::vector<double> sixes_then_nines(Index n) {
  std::vector<double> label(static_cast<std::size_t>(n), 6);
  std::fill(label.begin() + n / 2, label.end(), 9);
  return label;
}

void load_vangerven69(const Files& files, const NoParams&, Recording& r) {
  Eigen::MatrixXd fmri = files.npy("fmri_100x3092_f4.npy", kDigitVoxels, kDigits);
  Eigen::MatrixXd image = files.npy("stim_100x28x28_u1.npy", 784, kDigits) / 255;
  Eigen::MatrixXd prior = files.npy("prior_2000x28x28_u1.npy", 784, kDigitPrior) / 255;
  const Eigen::MatrixXd label = files.npy("label_100_u1.npy", 1, kDigits), test = files.npy("test_idx_i4.npy", 1, -1),
                        xyz = files.npy("voxel_xyz_3092x3_i2.npy", 3, kDigitVoxels),
                        roi = files.npy("roi_13x3092_u1.npy", kDigitVoxels, kDigitRois);
  const std::vector<std::string> names = files.lines("roi_names.txt");
  if (static_cast<Index>(names.size()) != kDigitRois)
    throw DataError(files.set.name + "/roi_names.txt", "lines", fmt::format("{}", kDigitRois),
                    fmt::format("{}", names.size()));

  Table voxel{"voxel",
              {numbers("x", column_of(xyz, 0)), numbers("y", column_of(xyz, 1)), numbers("z", column_of(xyz, 2))}};
  for (Index c = 0; c < kDigitRois; ++c)
    voxel.columns.push_back(numbers(names[static_cast<std::size_t>(c)], column_of(roi.col(c).transpose())));
  Stream activity = matrix_items("fmri", {kDigitVoxels}, std::move(fmri));
  for (Index v = 0; v < kDigitVoxels; ++v) {
    Channel c;
    c.name = fmt::format("v{:04}", v + 1);
    for (Index k = 1; k < kDigitRois; ++k)  // 0 is "primary", which holds all of them
      if (roi(v, k) != 0) c.kind += (c.kind.empty() ? "" : "+") + names[static_cast<std::size_t>(k)];
    if (c.kind.empty()) c.kind = names[0];
    c.position = std::array{kDigitVoxel_m * xyz(0, v), kDigitVoxel_m * xyz(1, v), kDigitVoxel_m * xyz(2, v)};
    activity.format.parts[0].rows.push_back(std::move(c));
  }

  std::vector<double> digit, level;
  std::vector<std::string> split(static_cast<std::size_t>(kDigits), "train");
  for (Index k = 0; k < kDigits; ++k) {
    level.push_back(label(0, k) - 1);  // 1 is a six, 2 a nine
    digit.push_back(level.back() == 0 ? 6 : 9);
  }
  for (Index k = 0; k < test.cols(); ++k) split.at(static_cast<std::size_t>(test(0, k))) = "test";
  r.streams.push_back(std::move(activity));
  r.streams.push_back(matrix_items("image", {28, 28}, std::move(image)));
  r.streams.push_back(categories("label", level, {"6", "9"}));
  r.streams.push_back(matrix_items("prior", {28, 28}, std::move(prior)));
  r.tables.push_back({"item", {numbers("label", digit), texts("split", split)}});
  r.tables.push_back({"prior", {numbers("label", sixes_then_nines(kDigitPrior))}});
  r.tables.push_back(std::move(voxel));
  r.meta["anatomy"] = files("anat_110x110x37.nii.gz").string();
  r.meta["roi_labels"] = files("roi_labels_110x110x37.nii.gz").string();
}

// --- miyawaki_figures -----------------------------------------------------------------------------------------------

void load_miyawaki(const Files& files, const NoParams&, Recording& r) {
  constexpr Index kTrials = 120, kVoxels = 967;
  Stream activity = matrix_items("fmri", {kVoxels}, files.npy("fmri_120x967_f4.npy", kVoxels, kTrials));
  for (Index v = 0; v < kVoxels; ++v)
    activity.format.parts[0].rows.push_back(
        {.name = fmt::format("v{:03}", v + 1), .kind = "V1", .unit = "", .position = {}, .good = true});
  std::vector<std::string> split(static_cast<std::size_t>(kTrials), "train");
  const Eigen::MatrixXd test = files.npy("upstream_test_idx_i4.npy", 1, -1);
  for (Index k = 0; k < test.cols(); ++k) split.at(static_cast<std::size_t>(test(0, k))) = "test";
  r.streams.push_back(std::move(activity));
  r.streams.push_back(matrix_items("image", {10, 10}, files.npy("stim_120x10x10_u1.npy", 100, kTrials)));
  r.tables.push_back(
      {"item",
       {numbers("session", column_of(files.npy("session_120_u1.npy", 1, kTrials))),
        numbers("condition", column_of(files.npy("condition_120_u1.npy", 1, kTrials))),
        numbers("stimulus", column_of(files.npy("stim_id_120_u1.npy", 1, kTrials))), texts("split", split)}});
}

}  // namespace

std::vector<Loader> fmri_loaders() {
  return {loader("vangerven69", load_vangerven69), loader("miyawaki_figures", load_miyawaki)};
}

}  // namespace percept::data
