/// Images in memory as networks learn from them.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "reconstruction/diffusion/image_training.h"
#include "reconstruction/image/deform.h"

namespace percept::image_training_test {
namespace {

using namespace diffusion;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr Index kSide = 9, kPixels = kSide * kSide, kChannels = 2, kImages = 20;

/// Two channels of one pattern, the second three times the first; the corner says which image it is.
MemoryData images() {
  TrainingMatrix t;
  t.x = MatrixXd::Zero(kChannels * kPixels, kImages);
  t.y.resize(1, kImages);
  for (Index k = 0; k < kImages; ++k) {
    VectorXd pattern = VectorXd::Zero(kPixels);
    for (Index i = 2; i < 7; ++i) pattern(i * kSide + 4) = static_cast<double>(k + 1);
    t.x.col(k) << pattern, 3 * pattern;
    t.y(0, k) = static_cast<double>(k + 1);
  }
  return {item_format({kChannels, kSide, kSide}, Scalar::f64, "image"), item_format({1}), std::move(t)};
}

/// The largest value of the first channel says which image it was: a copy keeps the range of its image.
double highest(std::span<const float> values, Index k) {
  return *std::max_element(values.begin() + k * kChannels * kPixels,
                           values.begin() + k * kChannels * kPixels + kPixels);
}

TEST(TrainingImages, DeformedCopiesComeBetweenTheImagesThatAreFittedAndThoseHeldOut) {
  const MemoryData data = images();
  const KeyedRandom random(1, "images");
  Context context;
  StepParams p;
  p.validation = 0.2;
  const TrainingImages plain(data, 1, p, random, context);
  p.deformed_copies = 3;
  const TrainingImages more(data, 1, p, random, context);
  ASSERT_EQ(plain.fitted(), 16);
  ASSERT_EQ(more.fitted(), 64);
  EXPECT_EQ(more.held(), plain.held());
  EXPECT_TRUE(std::ranges::equal(more.held_out().values, plain.held_out().values));
  EXPECT_TRUE(std::ranges::equal(more.held_out().embedding, plain.held_out().embedding));
  const auto values = more.training().values;
  EXPECT_TRUE(std::ranges::equal(values.first(plain.training().values.size()), plain.training().values));
  std::set<std::vector<float>> different;
  for (Index k = 0; k < 64; ++k) {
    EXPECT_EQ(more.training().embedding[static_cast<std::size_t>(k)],
              plain.training().embedding[static_cast<std::size_t>(k % 16)])
        << "a copy has the target of its image";
    const auto image = values.subspan(static_cast<std::size_t>(k * kChannels * kPixels), kChannels * kPixels);
    EXPECT_LE(highest(values, k), more.training().embedding[static_cast<std::size_t>(k)] * 1.00001);
    EXPECT_GT(highest(values, k), 0.3 * more.training().embedding[static_cast<std::size_t>(k)]);
    for (Index i = 0; i < kPixels; ++i)
      ASSERT_NEAR(image[static_cast<std::size_t>(kPixels + i)], 3 * image[static_cast<std::size_t>(i)], 1e-4)
          << "channels are deformed alike";
    different.insert({image.begin(), image.end()});
  }
  EXPECT_EQ(different.size(), 64u);
}

TEST(TrainingImages, TheSizeOfADeformationCanBeChosen) {
  const MemoryData data = images();
  const KeyedRandom random(1, "images");
  Context context;
  const auto distance = [&](double deformation) {
    StepParams p;
    p.deformed_copies = 1;
    p.deformation = deformation;
    const TrainingImages made(data, 0, p, random, context);
    const auto values = made.training().values;
    const auto half = static_cast<Index>(values.size() / 2);
    const Eigen::Map<const Eigen::VectorXf> image(values.data(), half), copy(values.data() + half, half);
    return static_cast<double>((image - copy).norm() / image.norm());
  };
  EXPECT_LT(distance(0), 1e-6);
  EXPECT_GT(distance(1), 0.1);
  EXPECT_GT(distance(2), 1.3 * distance(1));
}

}  // namespace
}  // namespace percept::image_training_test
