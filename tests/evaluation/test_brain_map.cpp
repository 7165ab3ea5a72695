/// Which voxels carry a reconstruction: numbers from paper, chance, the image on the anatomy.
#include <gmock/gmock.h>

#include <cmath>

#include "core/error.h"
#include "evaluation/brain_map.h"
#include "io/volume.h"
#include "numerics/random.h"
#include "tests/support/data.h"
#include "tests/support/errors.h"

namespace percept::evaluation {
namespace {

using Eigen::MatrixXd;
using Eigen::RowVectorXd;
using Eigen::VectorXd;
using testing::message_of;

const RowVectorXd kSignal = (RowVectorXd(4) << 1, -1, 1, -1).finished();
const RowVectorXd kNoise = (RowVectorXd(4) << 1, 1, -1, -1).finished();

// The example of Haufe et al.: one voxel is signal + noise, the other noise alone. Their difference is the signal, with
// weights 1 and -1, but the second voxel carries none of it.
TEST(SharedVariance, AVoxelThatOnlyCancelsNoiseCarriesNothing) {
  MatrixXd x(4, 4);
  x << kSignal + kNoise, kNoise, 3 * kSignal + RowVectorXd::Constant(4, 7), RowVectorXd::Constant(4, 0.1);
  const auto found = shared_variance(x, RowVectorXd(x.row(0) - x.row(1)), 1);
  EXPECT_NEAR(found.share(0), 0.5, 1e-12);
  EXPECT_NEAR(found.share(1), 0, 1e-12);
  EXPECT_NEAR(found.share(2), 1, 1e-12);
  EXPECT_TRUE(std::isnan(found.share(3)));
}

// values of variance 1 and 4, the first of which is the voxel
TEST(SharedVariance, ValuesCountByTheirVariance) {
  MatrixXd x(2, 4), y(2, 4);
  y << kSignal, 2 * kNoise;
  x << kSignal, kSignal;
  x(1, 2) = std::nan("");
  const auto found = shared_variance(x, y, 1);
  EXPECT_NEAR(found.share(0), 0.2, 1e-12);
  EXPECT_TRUE(std::isnan(found.share(1)));
}

// of 4000 voxels of noise one in twenty is above; five standard deviations of that count are .017, and the limit itself
// is of 20 pairings
TEST(SharedVariance, OneVoxelInTwentyExceedsChance) {
  const KeyedRandom random(3, "test");
  MatrixXd x(4000, 30), y(5, 30);
  for (Index k = 0; k < 30; ++k) {
    for (Index i = 0; i < x.rows(); ++i) x(i, k) = random.normal(k, static_cast<std::uint64_t>(i));
    for (Index i = 0; i < y.rows(); ++i) y(i, k) = random.normal(100 + k, static_cast<std::uint64_t>(i));
  }
  const auto found = shared_variance(x, y, 1);
  EXPECT_NEAR(static_cast<double>((found.share.array() > found.chance).count()) / 4000, 0.05, 0.02);
  EXPECT_EQ(found.chance, shared_variance(x, y, 1).chance);
}

TEST(SharedVariance, RefusesWhatCannotBeCompared) {
  const MatrixXd x = MatrixXd::Random(2, 4);
  EXPECT_EQ(message_of<DataError>([&] { shared_variance(x, MatrixXd::Random(2, 5), 1); }),
            "shared_variance: items: expected at least 3 of activity, and as many decoded, found 4 and 5");
  EXPECT_EQ(message_of<DataError>([&] { shared_variance(x, MatrixXd::Ones(2, 4), 1); }),
            "shared_variance: decoded values: expected values that vary, found a constant");
}

Recording placed(const std::filesystem::path& anatomy, std::vector<double> z) {
  Recording r;
  r.meta["anatomy"] = anatomy.string();
  r.tables.push_back({"voxel", {{"x", {0, 2}, {}}, {"y", {1, 0}, {}}, {"z", std::move(z), {}}}});
  return r;
}

TEST(BrainMap, LiesOnTheGridOfTheAnatomy) {
  const auto folder = testing::temporary_folder();
  io::Volume anatomy;
  anatomy.grid.size = {3, 2, 2};
  anatomy.grid.affine(0, 3) = -5;
  anatomy.values = VectorXd::LinSpaced(12, 1, 12);
  io::write_volume(folder / "anatomy.nii.gz", anatomy);
  const StreamFormat two = item_format({2});
  const auto place = brain_place(placed(folder / "anatomy.nii.gz", {0, 1}), two);
  ASSERT_TRUE(place);
  write_brain_map(folder / "map.nii.gz", *place, Eigen::Vector2d(0.25, std::nan("")));
  const io::Volume map = io::read_volume(folder / "map.nii.gz");
  EXPECT_EQ(map.grid.affine, anatomy.grid.affine);
  VectorXd expected = VectorXd::Zero(12);
  expected(3) = 0.25;  // (0, 1, 0); (2, 0, 1) has no value
  EXPECT_EQ(map.values, expected);

  const auto outside = brain_place(placed(folder / "anatomy.nii.gz", {0, 2}), two);
  EXPECT_EQ(message_of<DataError>([&] { write_brain_map(folder / "map.nii.gz", *outside, Eigen::Vector2d(1, 1)); }),
            "table voxel: row 2: expected a voxel of anatomy.nii.gz, 3 x 2 x 2, found (2, 0, 2)");
  EXPECT_FALSE(brain_place(placed(folder / "anatomy.nii.gz", {0, 1}), item_format({3})));  // of other rows
  EXPECT_FALSE(brain_place(Recording(), two));
}

}  // namespace
}  // namespace percept::evaluation
