/// Functional MRI.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/error.h"
#include "data/loader.h"
#include "io/fmri.h"

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

// --- haxby_excerpt --------------------------------------------------------------------------------------------------

constexpr Index kHaxbyRuns = 12, kHaxbyVolumes = 121;
constexpr double kHaxbyTr_s = 2.5;

/// The six numbers of a line for each volume of the runs, one behind the other.
Eigen::MatrixXd haxby_motion(const Files& files) {
  Eigen::MatrixXd motion(6, kHaxbyRuns * kHaxbyVolumes);
  for (Index run = 0; run < kHaxbyRuns; ++run) {
    const std::string name = fmt::format("bold_moest_run{:03}.txt", run + 1);
    const auto lines = files.lines(name.c_str());
    if (static_cast<Index>(lines.size()) != kHaxbyVolumes)
      throw DataError(files.set.name + "/" + name, "lines", fmt::format("{}", kHaxbyVolumes),
                      fmt::format("{}", lines.size()));
    for (Index k = 0; k < kHaxbyVolumes; ++k) {
      std::istringstream line(lines[static_cast<std::size_t>(k)]);
      for (Index i = 0; i < 6; ++i)
        if (!(line >> motion(i, run * kHaxbyVolumes + k)))
          throw DataError(files.set.name + "/" + name, fmt::format("line {}", k + 1), "6 numbers", "fewer");
    }
  }
  return motion;
}

/// The mean of each block's volumes, less the mean of its run: from run to run the level of a voxel wanders by more than
/// an object moves it. That mean is of the run's own volumes alone, whatever was shown.
Eigen::MatrixXd haxby_blocks(const Eigen::MatrixXd& volumes, const std::vector<Event>& blocks) {
  const auto n = static_cast<Index>(blocks.size());
  Eigen::MatrixXd means(volumes.rows(), n);
  for (Index b = 0; b < n; ++b) {
    const Event& e = blocks[static_cast<std::size_t>(b)];
    const Index first = std::llround(e.onset_s / kHaxbyTr_s), length = std::llround(e.duration_s / kHaxbyTr_s);
    const Index run = first / kHaxbyVolumes * kHaxbyVolumes;
    means.col(b) =
        volumes.middleCols(first, length).rowwise().mean() - volumes.middleCols(run, kHaxbyVolumes).rowwise().mean();
  }
  return means;
}

void load_haxby(const Files& files, const NoParams&, Recording& r) {
  io::FmriOptions options;
  options.mask = files("mask.nii.gz");
  options.tr_s = kHaxbyTr_s;
  io::FmriSeries series = io::open_fmri(files("bold.nii.gz"), options);
  const std::int64_t volumes = series.stream.frames();
  const auto lines = files.lines("attributes_literal.txt");
  if (volumes != kHaxbyRuns * kHaxbyVolumes || static_cast<std::int64_t>(lines.size()) != volumes)
    throw DataError(files.set.name + "/attributes_literal.txt", "lines", fmt::format("{}, one a volume", volumes),
                    fmt::format("{}", lines.size()));
  std::vector<std::string> category, levels{"rest"}, block_category;
  std::vector<double> run, level, block_run, onset_s;
  for (std::size_t k = 0; k < lines.size(); ++k) {
    std::istringstream line(lines[k]);
    std::string word;
    double chunk = 0;
    line >> word >> chunk;
    const bool starts = k == 0 || word != category.back() || chunk + 1 != run.back();
    category.push_back(word);
    run.push_back(chunk + 1);
    const auto at = std::find(levels.begin(), levels.end(), word);
    level.push_back(static_cast<double>(at - levels.begin()));
    if (at == levels.end()) levels.push_back(word);
    if (word == "rest") continue;
    if (starts) {
      onset_s.push_back(kHaxbyTr_s * static_cast<double>(k));
      r.events.push_back(event(onset_s.back(), 0, word, chunk + 1));
      block_category.push_back(word);
      block_run.push_back(chunk + 1);
    }
    r.events.back().duration_s += kHaxbyTr_s;
  }
  // numbers in the order of the alphabet, rest first: they do not depend on which category came first
  std::vector<std::string> sorted(levels.begin() + 1, levels.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.insert(sorted.begin(), "rest");
  for (double& l : level)
    l = static_cast<double>(std::find(sorted.begin(), sorted.end(), levels[static_cast<std::size_t>(l)]) -
                            sorted.begin());

  const auto timed = [&](Stream s) {
    s.keys.clear();
    s.format.axis = Axis::time;
    s.format.rate_hz = series.stream.format.rate_hz;
    s.format.start_s = series.stream.format.start_s;
    return s;
  };
  Stream motion = timed(matrix_items("motion", {6}, haxby_motion(files)));
  for (const char* name : {"rx", "ry", "rz", "x", "y", "z"})
    motion.format.parts[0].rows.push_back({.name = name, .kind = "motion", .unit = "", .position = {}, .good = true});
  Stream label = timed(categories("category", level, std::move(sorted)));
  Stream block = matrix_items("block", {series.stream.format.size()}, haxby_blocks(series.stream.matrix(), r.events)),
         block_motion = matrix_items("block_motion", {6}, haxby_blocks(motion.matrix(), r.events));
  block.format.parts[0].rows = series.stream.format.parts[0].rows;
  block_motion.format.parts[0].rows = motion.format.parts[0].rows;
  r.streams.push_back(std::move(series.stream));
  r.streams.push_back(std::move(motion));
  r.streams.push_back(std::move(label));
  r.streams.push_back(std::move(block));
  r.streams.push_back(std::move(block_motion));
  r.tables.push_back({"volume", {numbers("run", std::move(run)), texts("category", std::move(category))}});
  r.tables.push_back({"block",
                      {numbers("run", std::move(block_run)), texts("category", std::move(block_category)),
                       numbers("onset_s", std::move(onset_s))}});
  r.tables.push_back(std::move(series.voxel));
  r.meta["fmri"]["fmri"] = std::move(series.meta);
}

}  // namespace

std::vector<Loader> fmri_loaders() {
  return {loader("vangerven69", load_vangerven69), loader("miyawaki_figures", load_miyawaki),
          loader("haxby_excerpt", load_haxby)};
}

}  // namespace percept::data
