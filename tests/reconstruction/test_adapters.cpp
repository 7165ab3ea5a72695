/// Adapters of networks to denoisers: what they predict, and their gradients against finite differences.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "numerics/random.h"
#include "reconstruction/diffusion/adapters.h"
#include "tests/support/errors.h"

namespace percept::diffusion {
namespace {

using ::percept::testing::message_of;

/// Mixes values, bends, and knows its time and condition: y_i = tanh(x_i + x_(i+1) / 2) (1 + t²) + class + embedding_0.
class Bent final : public Network {
 public:
  std::vector<Index> shape() const override { return {2, 3}; }
  Index classes() const override { return 10; }
  Index embedding() const override { return 2; }
  void forward(const Batch& x, double t, const Condition& c, Batch& y) override {
    y = (1 + static_cast<float>(t * t)) * inner(x).array().tanh();
    if (!c.classes.empty()) y.array() += static_cast<float>(c.classes[0]);
    if (c.embedding.cols() > 0) y.array() += c.embedding(0, 0);
  }
  bool has_gradient() const override { return true; }
  void pull_back(const Batch& x, double t, const Condition& c, Batch& y, const Cotangent& cotangent,
                 Batch& gradient) override {
    Batch v;
    forward(x, t, c, y);
    cotangent(y, v);
    const Batch u = (1 + static_cast<float>(t * t)) * v.array() * (1 - inner(x).array().tanh().square());
    gradient = u;
    for (Index i = 0; i < 6; ++i) gradient.row((i + 1) % 6) += 0.5f * u.row(i);
  }

 private:
  static Batch inner(const Batch& x) {
    Batch z = x;
    for (Index i = 0; i < 6; ++i) z.row(i) += 0.5f * x.row((i + 1) % 6);
    return z;
  }
};

Batch noise(Index rows, Index items, const char* purpose) {
  const KeyedRandom random(3, purpose);
  Batch x(rows, items);
  for (Index k = 0; k < items; ++k)
    for (Index i = 0; i < rows; ++i) x(i, k) = static_cast<float>(random.normal(k, static_cast<std::uint64_t>(i)));
  return x;
}

/// d/dx of sum_k sin(D(x))_k · w_k by central differences, against pull_back.
void expect_gradient(Denoiser& d, double sigma) {
  ASSERT_TRUE(d.has_gradient());
  Batch x = noise(d.size(), 2, "x"), w = noise(d.size(), 2, "w"), x0, plain, gradient;
  d.pull_back(
      x, sigma, x0, [&](const Batch& out, Batch& v) { v = w.array() * out.array().cos(); }, gradient);
  d.denoise(x, sigma, plain);
  EXPECT_LT((x0 - plain).cwiseAbs().maxCoeff(), 1e-6f);
  const auto loss = [&] {
    d.denoise(x, sigma, plain);
    return (plain.cast<double>().array().sin() * w.cast<double>().array()).sum();
  };
  for (Index i = 0; i < x.size(); ++i) {
    const float kept = x.data()[i], step = 0.02f;
    x.data()[i] = kept + step;
    const double up = loss();
    x.data()[i] = kept - step;
    const double down = loss();
    x.data()[i] = kept;
    // single precision over a step of .02 leaves 1e-5, the third derivative 1e-3 of the slope
    EXPECT_NEAR(gradient.data()[i], (up - down) / (2 * step), 3e-3) << i;
  }
}

TEST(Edm, ScalingKeepsUnitVarianceInAndOut) {
  for (const double sigma : {0.01, 0.5, 3.0, 80.0}) {
    const double data = 0.5;
    const Scaling c = edm_scaling(sigma, data);
    // with x0 of variance data²: the input has unit variance, and so has the target (x0 - skip x) / out
    EXPECT_NEAR(c.in * c.in * (data * data + sigma * sigma), 1, 1e-12);
    const double target = (1 - c.skip) * (1 - c.skip) * data * data + c.skip * c.skip * sigma * sigma;
    EXPECT_NEAR(target / (c.out * c.out), 1, 1e-12);
    EXPECT_NEAR(c.time, std::log(sigma) / 4, 1e-12);
  }
}

TEST(Edm, DenoisesWithTheNetworkInItsScale) {
  EdmDenoiser d(std::make_shared<Bent>(), 0.5);
  const Batch x = noise(6, 3, "x");
  Batch x0, y;
  d.denoise(x, 2.0, x0);
  // sigma 2, sigma_data 1/2: skip = 1/17, out = 1 / sqrt(4.25), in = 1 / sqrt(4.25), time ln 2 / 4
  const float root = std::sqrt(4.25f);
  Bent().forward(x / root, std::log(2.0) / 4, {}, y);
  EXPECT_LT((x0 - (x / 17.f + y / root)).cwiseAbs().maxCoeff(), 1e-6f);
  expect_gradient(d, 0.7);
}

// The network is told x_t = x / sqrt(1 + sigma²); a = 1 / (1 + sigma²). With the exact noise and the exact v of an image
// of its own the image comes back.
TEST(Vp, NoiseAndVelocityGiveTheImageBack) {
  struct Knowing final : Network {
    Batch image, noise;
    bool velocity = false;
    std::vector<Index> shape() const override { return {6}; }
    void forward(const Batch& x, double t, const Condition&, Batch& y) override {
      const double sigma = VpNoise::linear().sigma(t), a = 1 / (1 + sigma * sigma);
      EXPECT_LT((x - static_cast<float>(std::sqrt(a)) * image - static_cast<float>(std::sqrt(1 - a)) * noise).norm(),
                1e-4);
      if (velocity) y = static_cast<float>(std::sqrt(a)) * noise - static_cast<float>(std::sqrt(1 - a)) * image;
      else y = noise;
    }
  };
  const auto network = std::make_shared<Knowing>();
  network->image = noise(6, 2, "image");
  network->noise = noise(6, 2, "noise");
  EpsilonDenoiser epsilon(network, VpNoise::linear());
  VDenoiser v(network, VpNoise::linear());
  for (const double sigma : {0.02, 0.9, 30.0}) {
    Batch x0;
    const Batch x = network->image + static_cast<float>(sigma) * network->noise;
    network->velocity = false;
    epsilon.denoise(x, sigma, x0);
    EXPECT_LT((x0 - network->image).norm(), 1e-6 * (1 + sigma) * 6);
    network->velocity = true;
    v.denoise(x, sigma, x0);
    EXPECT_LT((x0 - network->image).norm(), 1e-6 * (1 + sigma) * 6);
  }
  EpsilonDenoiser bent(std::make_shared<Bent>(), VpNoise(1e-3, 0.2, false, 10));
  expect_gradient(bent, 0.2);
  VDenoiser bent_v(std::make_shared<Bent>(), VpNoise(1e-3, 0.2, false, 10));
  expect_gradient(bent_v, 0.2);
}

TEST(Guidance, ExtrapolatesFromPlainToConditional) {
  const auto network = std::make_shared<Bent>();
  const auto with = std::make_shared<EdmDenoiser>(network, 0.5, Condition{{4}, {}});
  const auto plain = std::make_shared<EdmDenoiser>(network, 0.5);
  const Batch x = noise(6, 2, "x");
  Batch a, b, x0;
  with->denoise(x, 1.0, a);
  plain->denoise(x, 1.0, b);
  for (const double scale : {0.0, 1.0, 3.0}) {
    GuidedDenoiser d(with, plain, scale);
    EXPECT_EQ(d.evaluations(), 2);
    d.denoise(x, 1.0, x0);
    EXPECT_LT((x0 - (b + static_cast<float>(scale) * (a - b))).cwiseAbs().maxCoeff(), 1e-5f);
  }
  GuidedDenoiser d(std::make_shared<EdmDenoiser>(network, 1.0), plain, 3.0);
  expect_gradient(d, 0.7);
}

TEST(Edm, RefusesAConditionTheNetworkDoesNotKnow) {
  const auto network = std::make_shared<Bent>();
  EXPECT_EQ(message_of([&] { EdmDenoiser(network, 0.5, {{10}, {}}); }), "diffusion.class = 10: expected 0 to 9");
  EXPECT_EQ(message_of([&] {
              EdmDenoiser(network, 0.5, {{}, Batch::Zero(3, 1)});
            }),
            "diffusion.embedding = 3 values: expected 2 values");
  EXPECT_EQ(message_of([&] { EdmDenoiser(network, 0.0); }),
            "diffusion.sigma_data = 0.000000: expected a number above zero");
}

}  // namespace
}  // namespace percept::diffusion
