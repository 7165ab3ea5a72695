/// Noise levels, and the published answers of schedulers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "reconstruction/diffusion/adapters.h"
#include "reconstruction/diffusion/sampler.h"
#include "reconstruction/diffusion/schedule.h"
#include "tests/support/errors.h"

namespace percept::diffusion {
namespace {

using ::percept::testing::message_of;
using ::testing::DoubleNear;
using ::testing::ElementsAre;

TEST(Levels, KarrasIsEvenInTheRoot) {
  EXPECT_THAT(karras_levels(3, 16, 1, 2, "a"), ElementsAre(16, DoubleNear(6.25, 1e-12), DoubleNear(1, 1e-12), 0));
  EXPECT_THAT(karras_levels(3, 4, 2, 1, "a"), ElementsAre(4, DoubleNear(3, 1e-12), DoubleNear(2, 1e-12), 0));
  EXPECT_THAT(karras_levels(1, 4, 2, 7, "a"), ElementsAre(DoubleNear(4, 1e-12), 0));
  EXPECT_EQ(message_of([] { karras_levels(5, 1, 2, 7, "a"); }),
            "a.sigma_min = 2: expected above 0 and below sigma_max = 1");
  EXPECT_EQ(message_of([] { karras_levels(0, 1, 0.1, 7, "a"); }), "a.steps = 0: expected 1 to 1000000");
}

TEST(Levels, VarianceOfVpIsTheProduct) {
  const VpNoise noise(0.1, 0.3, false, 3);  // a = .9, .9 · .8, .9 · .8 · .7
  EXPECT_NEAR(noise.sigma(0), std::sqrt(0.1 / 0.9), 1e-12);
  EXPECT_NEAR(noise.sigma(2), std::sqrt((1 - 0.504) / 0.504), 1e-12);
  for (const double t : {0.0, 0.25, 1.0, 1.9, 2.0}) EXPECT_NEAR(noise.time(noise.sigma(t)), t, 1e-12) << t;
  EXPECT_EQ(noise.time(1e-9), 0);
  EXPECT_EQ(noise.time(1e9), 2);
  const VpNoise scaled(0.04, 0.16, true, 2);  // its root goes from .2 to .4
  EXPECT_NEAR(scaled.sigma(1), std::sqrt((1 - 0.96 * 0.84) / (0.96 * 0.84)), 1e-12);
  EXPECT_EQ(message_of([] { VpNoise(0.2, 0.1, false); }),
            "diffusion.beta = 0.2 to 0.1: expected rising, above 0 and below 1");
}

TEST(Levels, LeadingTimesAreThoseOfDdim) {
  const VpNoise noise = VpNoise::linear();
  const auto levels = noise.leading(10, 1, "a");
  ASSERT_EQ(levels.size(), 11u);
  EXPECT_EQ(levels[0], noise.sigma(901));
  EXPECT_EQ(levels[9], noise.sigma(1));
  EXPECT_EQ(levels[10], 0);
  EXPECT_EQ(message_of([&] { noise.leading(1001, 0, "a"); }), "a.steps = 1001: expected 1 to 1000");
}

/// The model and the sample of the public scheduler tests of the library diffusers: noise x t / (t + 1), and
/// arange(768) / 768 as {3, 8, 8, 4} with the last axis, the items, taken to the front.
class Ramp final : public Network {
 public:
  std::vector<Index> shape() const override { return {3, 8, 8}; }
  void forward(const Batch& x, double t, const Condition&, Batch& y) override {
    y = static_cast<float>(t / (t + 1)) * x;
  }
};
Batch ramp() {
  Batch x(192, 4);
  for (Index i = 0; i < 192; ++i)
    for (Index k = 0; k < 4; ++k) x(i, k) = static_cast<float>(4 * i + k) / 768.0f;
  return x;
}

TEST(Golden, DdimOfTenSteps) {
  const VpNoise noise = VpNoise::linear();
  EpsilonDenoiser denoiser(std::make_shared<Ramp>(), noise);
  const auto ddim = make_sampler("ddim", Value::object({{"steps", 10}, {"schedule", "vp_linear"}, {"clip", 1.0}}), "a");
  const double sigma = ddim->level(0);
  EXPECT_EQ(sigma, noise.sigma(900));
  const Draws d =
      draw(*ddim, {.denoiser = &denoiser,
                   .keys = {0, 1, 2, 3},
                   .start = {Start::From::state, ramp() * static_cast<float>(std::sqrt(1 + sigma * sigma))}});
  EXPECT_NEAR(d.x.cast<double>().cwiseAbs().sum(), 172.0067, 1e-2);
  EXPECT_NEAR(d.x.cast<double>().cwiseAbs().mean(), 0.223967, 1e-5);
  EXPECT_EQ(d.evaluations, 10);
}

// That test puts what the network takes, the state divided by sqrt(1 + sigma²), in the state's place before every step,
// so here each step is a run of its own, of a denoiser that takes the state as it is.
TEST(Golden, EulerOfTenSteps) {
  const VpNoise noise(1e-4, 0.02, false, 1100);
  NetworkDenoiser denoiser(std::make_shared<Ramp>(), [&](double sigma) {
    return Scaling{1, -sigma, 1, noise.time(sigma)};
  });
  const auto levels = noise.linspace(10, "a");
  const auto euler = make_sampler("euler", Value::table(), "a");
  Batch x = ramp() * static_cast<float>(levels[0]);
  for (std::size_t i = 0; i + 1 < levels.size(); ++i) {
    euler->set_levels({levels[i], levels[i + 1]}, "a");
    x /= static_cast<float>(std::sqrt(1 + levels[i] * levels[i]));
    x = draw(*euler, {.denoiser = &denoiser, .keys = {0, 1, 2, 3}, .start = {Start::From::state, x}}).x;
  }
  EXPECT_NEAR(x.cast<double>().cwiseAbs().sum(), 10.0807, 1e-2);
  EXPECT_NEAR(x.cast<double>().cwiseAbs().mean(), 0.0131, 1e-3);
}

}  // namespace
}  // namespace percept::diffusion
