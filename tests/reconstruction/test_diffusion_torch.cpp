/// What needs the LibTorch module: networks of diffusion models. One process, since opening the module takes a second.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numbers>

#include "core/error.h"
#include "core/files.h"
#include "core/module.h"
#include "core/threads.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/kernels.h"
#include "reconstruction/diffusion/networks.h"
#include "tests/support/data.h"

namespace percept::diffusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<float> normals(Index n, const char* name) {
  const KeyedRandom random(1, name);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (Index i = 0; i < n; ++i)
    v[static_cast<std::size_t>(i)] = static_cast<float>(random.normal(0, static_cast<std::uint64_t>(i)));
  return v;
}

// --- kernels, against loops in double ----------------------------------------------------------------------

std::vector<double> slow_norm(const std::vector<float>& x, const std::vector<float>& gain,
                              const std::vector<float>& offset, kernels::Field f, bool silu) {
  std::vector<double> y(x.size());
  const Index each = f.channels / f.groups;
  for (Index g = 0; g < f.groups; ++g) {
    double sum = 0, squares = 0;
    const auto over = [&](const std::function<void(std::size_t, std::size_t)>& visit) {
      for (Index p = 0; p < f.pixels; ++p)
        for (Index i = g * each; i < (g + 1) * each; ++i)
          visit(static_cast<std::size_t>(p * f.channels + i), static_cast<std::size_t>(i));
    };
    const auto n = static_cast<double>(f.pixels * each);
    over([&](std::size_t at, std::size_t) { sum += static_cast<double>(x[at]) / n; });
    over([&](std::size_t at, std::size_t) { squares += std::pow(static_cast<double>(x[at]) - sum, 2) / n; });
    over([&](std::size_t at, std::size_t i) {
      const double z = static_cast<double>(gain[i]) * (static_cast<double>(x[at]) - sum) / std::sqrt(squares + 1e-5) +
                       static_cast<double>(offset[i]);
      y[at] = silu ? z / (1 + std::exp(-z)) : z;
    });
  }
  return y;
}

/// softmax(q kᵀ / sqrt(size)) v of one head; rows of q, k and v lie beside each other.
std::vector<double> slow_attention(const std::vector<float>& x, Index pixels, Index size) {
  std::vector<double> y(static_cast<std::size_t>(pixels * size));
  const auto at = [&](Index pixel, Index part, Index d) {
    return static_cast<double>(x[static_cast<std::size_t>((pixel * 3 + part) * size + d)]);
  };
  for (Index i = 0; i < pixels; ++i) {
    std::vector<double> w(static_cast<std::size_t>(pixels));
    double sum = 0;
    for (Index j = 0; j < pixels; ++j) {
      double score = 0;
      for (Index d = 0; d < size; ++d) score += at(i, 0, d) * at(j, 1, d);
      sum += w[static_cast<std::size_t>(j)] = std::exp(score / std::sqrt(static_cast<double>(size)));
    }
    for (Index j = 0; j < pixels; ++j)
      for (Index d = 0; d < size; ++d)
        y[static_cast<std::size_t>(i * size + d)] += w[static_cast<std::size_t>(j)] / sum * at(j, 2, d);
  }
  return y;
}

/// d of sum(weight y) in x[at], by a step in double's place: y is computed in double.
double slope(std::vector<float> x, std::size_t at, const std::vector<float>& weight,
             const std::function<std::vector<double>(const std::vector<float>&)>& y) {
  const float step = 1e-2F;
  const auto value = [&](float by) {
    std::vector<float> moved = x;
    moved[at] += by;
    const auto out = y(moved);
    double sum = 0;
    for (std::size_t i = 0; i < out.size(); ++i) sum += static_cast<double>(weight[i]) * out[i];
    return std::pair(sum, static_cast<double>(moved[at]));
  };
  const auto [up, high] = value(step);
  const auto [down, low] = value(-step);
  return (up - down) / (high - low);
}

TEST(Kernels, NormalisationIsTheFormulaWrittenOut) {
  for (const bool silu : {false, true})
    for (const kernels::Field f : {kernels::Field{49, 32, 8}, kernels::Field{6, 24, 8}}) {
      std::vector<float> x = normals(f.pixels * f.channels, "x"), gain = normals(f.channels, "gain"),
                         offset = normals(f.channels, "offset"), y(x.size()), moments(2 * 8);
      for (float& v : x) v = 3 * v + 5;
      kernels::norm(x.data(), gain.data(), offset.data(), f, silu, moments.data(), y.data());
      const auto expected = slow_norm(x, gain, offset, f, silu);
      for (std::size_t i = 0; i < y.size(); ++i)
        ASSERT_NEAR(y[i], expected[i], 3e-6 * (1 + std::abs(expected[i]))) << i;

      const std::vector<float> d_y = normals(f.pixels * f.channels, "d_y");
      std::vector<float> d_x(x.size()), d_gain(gain.size()), d_offset(gain.size());
      kernels::norm_gradient(x.data(), gain.data(), offset.data(), f, silu, moments.data(), d_y.data(), d_x.data(),
                             d_gain.data(), d_offset.data());
      for (std::size_t i = 0; i < x.size(); i += 5)
        EXPECT_NEAR(d_x[i], slope(x, i, d_y, [&](auto& v) { return slow_norm(v, gain, offset, f, silu); }), 1e-4) << i;
      for (std::size_t i = 0; i < gain.size(); ++i) {
        EXPECT_NEAR(d_gain[i], slope(gain, i, d_y, [&](auto& v) { return slow_norm(x, v, offset, f, silu); }), 1e-3)
            << i;
        EXPECT_NEAR(d_offset[i], slope(offset, i, d_y, [&](auto& v) { return slow_norm(x, gain, v, f, silu); }), 1e-3)
            << i;
      }
    }
}

TEST(Kernels, AttentionIsTheFormulaWrittenOut) {
  for (const auto& [pixels, size] : {std::pair<Index, Index>{49, 32}, {16, 16}, {5, 24}, {33, 7}}) {
    const std::vector<float> x = normals(pixels * 3 * size, "x"), d_y = normals(pixels * size, "d_y");
    const Index wide = kernels::padded(pixels);
    std::vector<float> y(d_y.size()), weights(static_cast<std::size_t>(pixels * wide)),
        work(static_cast<std::size_t>((size + pixels) * wide)), d_x(x.size());
    kernels::attend(x.data(), x.data() + size, x.data() + 2 * size, pixels, size, 3 * size, y.data(), size,
                    weights.data(), work.data());
    const auto expected = slow_attention(x, pixels, size);
    for (std::size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], expected[i], 2e-6) << i;
    kernels::attend_gradient(x.data(), x.data() + size, x.data() + 2 * size, pixels, size, 3 * size, d_y.data(), size,
                             weights.data(), d_x.data(), d_x.data() + size, d_x.data() + 2 * size, work.data());
    for (std::size_t i = 0; i < x.size(); i += 7)
      EXPECT_NEAR(d_x[i], slope(x, i, d_y, [&](auto& v) { return slow_attention(v, pixels, size); }), 2e-4) << i;
  }
}

// --- the network, against loops in double ------------------------------------------------------------------

/// An image of channels x height x width.
struct Plane {
  Index c = 0, h = 0, w = 0;
  std::vector<double> v;
  Plane(Index channels, Index height, Index width)
      : c(channels), h(height), w(width), v(static_cast<std::size_t>(channels * height * width)) {}
  double& at(Index k, Index i, Index j) { return v[static_cast<std::size_t>((k * h + i) * w + j)]; }
  double at(Index k, Index i, Index j) const {
    return i < 0 || j < 0 || i >= h || j >= w ? 0 : v[static_cast<std::size_t>((k * h + i) * w + j)];
  }
};
using Arrays = std::map<std::string, Tensor>;

class SlowUnet {
 public:
  SlowUnet(const UnetShape& shape, const Arrays& arrays) : shape_(shape), plan_(shape), arrays_(arrays) {}

  std::vector<double> forward(const float* image, double noise, int label, const std::vector<float>& embedding) {
    std::vector<double> features;
    for (int part = 0; part < 2; ++part)
      for (Index i = 0; i < kNoiseFeatures / 2; ++i) {
        const double turns = std::pow(2.0, -3 + 7.0 * static_cast<double>(i) / (kNoiseFeatures / 2.0 - 1));
        const double angle = 2 * std::numbers::pi * noise * turns;
        features.push_back(part == 0 ? std::cos(angle) : std::sin(angle));
      }
    std::vector<double> inside = linear("noise.1", silu(linear("noise.0", features)));
    const auto add = [&](const std::vector<double>& more) {
      for (std::size_t i = 0; i < inside.size(); ++i) inside[i] += more[i];
    };
    if (shape_.classes > 0) {
      std::vector<double> row;
      for (std::size_t i = 0; i < inside.size(); ++i)
        row.push_back(
            value("class.weights", static_cast<std::size_t>(label < 0 ? shape_.classes : label) * inside.size() + i));
      add(row);
    }
    if (shape_.embedding > 0) {
      std::vector<double> row;
      for (std::size_t i = 0; i < inside.size(); ++i) row.push_back(value("embedding.none", i));
      add(embedding.empty() ? row : linear("embedding", {embedding.begin(), embedding.end()}));
    }
    inside = silu(inside);
    gains_ = linear("gain", inside);
    offsets_ = linear("offset", inside);
    used_ = 0;

    const Index p = shape_.patch, h = (shape_.height() + p - 1) / p, w = (shape_.width() + p - 1) / p;
    Plane x(shape_.image_channels() * p * p, h, w);
    for (Index k = 0; k < shape_.image_channels(); ++k)
      for (Index i = 0; i < shape_.height(); ++i)
        for (Index j = 0; j < shape_.width(); ++j)
          x.at((k * p + i % p) * p + j % p, i / p, j / p) =
              static_cast<double>(image[(k * shape_.height() + i) * shape_.width() + j]);
    x = convolve("input", x);
    std::vector<Plane> kept;
    const auto follow = [&](const std::vector<UnetStep>& steps, bool keep) {
      for (const UnetStep& s : steps) {
        if (s.kind == UnetStep::Kind::halve) x = convolve(s.name, x, 2);
        if (s.kind == UnetStep::Kind::twice) {
          Plane big(x.c, kept.back().h, kept.back().w);
          for (Index k = 0; k < big.c; ++k)
            for (Index i = 0; i < big.h; ++i)
              for (Index j = 0; j < big.w; ++j) big.at(k, i, j) = x.at(k, i / 2, j / 2);
          x = big;
        }
        if (s.kind == UnetStep::Kind::joined_block) {
          Plane both(x.c + kept.back().c, x.h, x.w);
          std::copy(x.v.begin(), x.v.end(), both.v.begin());
          std::copy(kept.back().v.begin(), kept.back().v.end(),
                    both.v.begin() + static_cast<std::ptrdiff_t>(x.v.size()));
          kept.pop_back();
          x = both;
        }
        if (s.block.out > 0) x = block(s.block, x);
        if (s.block.out > 0 && keep) kept.push_back(x);
      }
    };
    follow(plan_.down, true);
    follow(plan_.middle, false);
    follow(plan_.up, false);
    x = convolve("output", normalise(x, gain("output.norm"), offset("output.norm"), true));
    std::vector<double> y;
    for (Index k = 0; k < shape_.image_channels(); ++k)
      for (Index i = 0; i < shape_.height(); ++i)
        for (Index j = 0; j < shape_.width(); ++j) y.push_back(x.at((k * p + i % p) * p + j % p, i / p, j / p));
    return y;
  }

 private:
  double value(const std::string& name, std::size_t at) const {
    return static_cast<double>(reinterpret_cast<const float*>(arrays_.at(name).data.data())[at]);
  }
  std::vector<double> all(const std::string& name) const {
    std::vector<double> v;
    for (std::size_t i = 0; i < arrays_.at(name).elements(); ++i) v.push_back(value(name, i));
    return v;
  }
  std::vector<double> gain(const std::string& name) const { return all(name + ".gain"); }
  std::vector<double> offset(const std::string& name) const { return all(name + ".offset"); }
  static std::vector<double> silu(std::vector<double> v) {
    for (double& x : v) x /= 1 + std::exp(-x);
    return v;
  }
  std::vector<double> linear(const std::string& name, const std::vector<double>& x) const {
    std::vector<double> y = all(name + ".bias");
    for (std::size_t o = 0; o < y.size(); ++o)
      for (std::size_t i = 0; i < x.size(); ++i) y[o] += value(name + ".weights", o * x.size() + i) * x[i];
    return y;
  }
  Plane convolve(const std::string& name, const Plane& x, Index stride = 1) const {
    const auto& shape = arrays_.at(name + ".weights").shape;
    const Index side = shape[2], margin = side / 2;
    Plane y(shape[0], (x.h + stride - 1) / stride, (x.w + stride - 1) / stride);
    std::size_t weight = 0;
    for (Index o = 0; o < y.c; ++o)
      for (Index k = 0; k < x.c; ++k)
        for (Index a = 0; a < side; ++a)
          for (Index b = 0; b < side; ++b, ++weight)
            for (Index i = 0; i < y.h; ++i)
              for (Index j = 0; j < y.w; ++j)
                y.at(o, i, j) +=
                    value(name + ".weights", weight) * x.at(k, i * stride + a - margin, j * stride + b - margin);
    for (Index o = 0; o < y.c; ++o)
      for (Index i = 0; i < y.h * y.w; ++i)
        y.v[static_cast<std::size_t>(o * y.h * y.w + i)] += value(name + ".bias", static_cast<std::size_t>(o));
    return y;
  }
  static Plane normalise(Plane x, const std::vector<double>& gain, const std::vector<double>& offset, bool with_silu) {
    const auto n = static_cast<std::size_t>(x.c / kGroups * x.h * x.w), pixels = static_cast<std::size_t>(x.h * x.w);
    for (std::size_t g = 0; g < kGroups; ++g) {
      double mean = 0, square = 0;
      for (std::size_t i = g * n; i < (g + 1) * n; ++i) mean += x.v[i] / static_cast<double>(n);
      for (std::size_t i = g * n; i < (g + 1) * n; ++i) square += std::pow(x.v[i] - mean, 2) / static_cast<double>(n);
      for (std::size_t i = g * n; i < (g + 1) * n; ++i)
        x.v[i] = gain[i / pixels] * (x.v[i] - mean) / std::sqrt(square + 1e-5) + offset[i / pixels];
    }
    if (with_silu) x.v = silu(x.v);
    return x;
  }
  Plane block(const UnetBlock& b, const Plane& x) {
    Plane h = convolve(b.name + ".in", normalise(x, gain(b.name + ".norm"), offset(b.name + ".norm"), true));
    const auto from = static_cast<std::ptrdiff_t>(used_), to = from + b.out;
    used_ += static_cast<std::size_t>(b.out);
    h = convolve(b.name + ".out", normalise(h, {gains_.begin() + from, gains_.begin() + to},
                                            {offsets_.begin() + from, offsets_.begin() + to}, true));
    const Plane past = b.in == b.out ? x : convolve(b.name + ".past", x);
    for (std::size_t i = 0; i < h.v.size(); ++i) h.v[i] += past.v[i];
    if (!b.attention) return h;
    const std::string name = b.name + ".attention";
    const Plane q = convolve(name + ".in", normalise(h, gain(name + ".norm"), offset(name + ".norm"), false));
    const Index heads = (b.out + 31) / 32, size = b.out / heads, pixels = h.h * h.w;
    Plane a(b.out, h.h, h.w);
    for (Index head = 0; head < heads; ++head) {
      std::vector<float> rows(static_cast<std::size_t>(pixels * 3 * size));
      for (Index i = 0; i < pixels; ++i)
        for (Index part = 0; part < 3; ++part)
          for (Index d = 0; d < size; ++d)
            rows[static_cast<std::size_t>((i * 3 + part) * size + d)] =
                static_cast<float>(q.v[static_cast<std::size_t>((part * b.out + head * size + d) * pixels + i)]);
      const auto y = slow_attention(rows, pixels, size);
      for (Index i = 0; i < pixels; ++i)
        for (Index d = 0; d < size; ++d)
          a.v[static_cast<std::size_t>((head * size + d) * pixels + i)] = y[static_cast<std::size_t>(i * size + d)];
    }
    a = convolve(name + ".out", a);
    for (std::size_t i = 0; i < h.v.size(); ++i) h.v[i] += a.v[i];
    return h;
  }

  UnetShape shape_;
  UnetPlan plan_;
  const Arrays& arrays_;
  std::vector<double> gains_, offsets_;
  std::size_t used_ = 0;
};

Arrays random_arrays(const UnetShape& shape) {
  Arrays all;
  const UnetPlan plan(shape);
  for (const WeightArray& a : plan.weights.arrays()) {
    Tensor& t = all[a.name];
    t.type = Tensor::Type::f32;
    t.shape.assign(a.shape.begin(), a.shape.end());
    std::vector<float> v = normals(a.size(), a.name.c_str());
    const double spread = a.bound > 0 ? a.bound : 0.1;
    for (float& x : v) x = static_cast<float>(a.start + spread * static_cast<double>(x));
    t.data.resize(v.size() * sizeof(float));
    std::memcpy(t.data.data(), v.data(), t.data.size());
  }
  return all;
}

UnetShape shape_of(std::vector<Index> image, Index patch, std::vector<Index> attention = {}) {
  UnetShape s;
  s.image = std::move(image);
  s.patch = patch;
  s.channels = 8;
  s.blocks = 1;
  s.attention = std::move(attention);
  return s;
}

DiffusionNetworks& networks() { return torch_interface<DiffusionNetworks>(); }

TEST(DiffusionTorch, TheNetworkIsTheFormulaWrittenOut) {
  std::vector<UnetShape> shapes{shape_of({8, 8}, 2), shape_of({10, 10}, 2, {1}), shape_of({3, 7, 5}, 2, {0}),
                                shape_of({1, 5, 9}, 1)};
  shapes[1].multipliers = {1, 5};
  shapes[2].blocks = 2;
  shapes[2].classes = 3;
  shapes[3].multipliers = {1, 2, 3};
  shapes[3].embedding = 4;
  for (const UnetShape& shape : shapes) {
    const Arrays arrays = random_arrays(shape);
    SlowUnet slow(shape, arrays);
    const Index n = shape.size();
    const auto runner = networks().run(shape, arrays, 1);
    const std::vector<float> x = normals(4 * n, "x"), embedding = normals(2 * shape.embedding, "embedding");
    std::vector<float> y(x.size());
    for (const bool told : {false, true}) {
      // two entries for four images: each tells of two neighbours
      const std::vector<std::int64_t> classes{2, 0};
      UnetRunner::Told what;
      if (told && shape.classes > 0) what.classes = classes;
      if (told && shape.embedding > 0) what.embedding = embedding;
      runner->forward(x.data(), 4, 0.37, what, y.data());
      double size = 0;
      for (Index k = 0; k < 4; ++k) {
        std::vector<float> e;
        if (told && shape.embedding > 0)
          e.assign(embedding.begin() + k / 2 * shape.embedding, embedding.begin() + (k / 2 + 1) * shape.embedding);
        const auto expected = slow.forward(x.data() + k * n, 0.37,
                                           told ? static_cast<int>(classes[static_cast<std::size_t>(k / 2)]) : -1, e);
        for (Index i = 0; i < n; ++i) {
          const double v = expected[static_cast<std::size_t>(i)];
          size = std::max(size, std::abs(v));
          ASSERT_NEAR(y[static_cast<std::size_t>(k * n + i)], v, 2e-5 * (1 + std::abs(v)))
              << to_json(to_value(shape)) << " image " << k;
        }
      }
      EXPECT_GT(size, 0.1);
    }
  }
}

TEST(DiffusionTorch, PullBackIsTheSlopeOfTheNetwork) {
  const UnetShape shape = shape_of({10, 6}, 2, {1});
  const Arrays arrays = random_arrays(shape);
  SlowUnet slow(shape, arrays);
  const auto runner = networks().run(shape, arrays, 1);
  const Index n = shape.size();
  const std::vector<float> x = normals(2 * n, "x"), v = normals(2 * n, "v");
  std::vector<float> y(x.size()), inner(x.size()), gradient(x.size());
  const auto cotangent = [&] {
    runner->forward(x.data(), 2, -0.2, {}, inner.data());  // it may be used meanwhile
    return v.data();
  };
  runner->pull_back(x.data(), 2, -0.2, {}, y.data(), cotangent, gradient.data());
  EXPECT_EQ(y, inner);
  for (Index k = 0; k < 2; ++k) {
    const std::vector<float> one(x.begin() + k * n, x.begin() + (k + 1) * n),
        weight(v.begin() + k * n, v.begin() + (k + 1) * n);
    for (Index i = 0; i < n; i += 7)
      EXPECT_NEAR(gradient[static_cast<std::size_t>(k * n + i)],
                  slope(one, static_cast<std::size_t>(i), weight,
                        [&](auto& at) { return slow.forward(at.data(), -0.2, -1, {}); }),
                  2e-3)
          << k << " " << i;
  }
}

// --- training ----------------------------------------------------------------------------------------------

/// Images of +pattern and -pattern, whose best denoiser is known: pattern tanh(x·pattern / sigma²).
struct Signs {
  Index side = 4;
  std::vector<float> pattern, values;
  std::vector<std::int64_t> classes;
  explicit Signs(Index images) {
    for (Index i = 0; i < side * side; ++i) pattern.push_back(i % 2 == (i / side) % 2 ? 0.5F : -0.5F);
    for (Index k = 0; k < images; ++k) {
      classes.push_back(k % 2);
      for (const float p : pattern) values.push_back(k % 2 == 1 ? p : -p);
    }
  }
  /// Mean squared distance of the trained denoiser from the best one, in units of the images' variance. sign: of the
  /// images, where the network is told it; 0: both, and it is not told.
  double error(const UnetShape& shape, const Arrays& arrays, double sigma, double sign,
               const UnetRunner::Told& told) const {
    constexpr Index kImages = 200;
    const std::size_t n = pattern.size();
    const double total = std::sqrt(sigma * sigma + 0.25);
    std::vector<float> x = normals(kImages * static_cast<Index>(n), "noise"), in(x.size()), y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double plus = sign != 0 ? sign : (i / n) % 2 == 1 ? 1 : -1;
      x[i] = static_cast<float>(plus * static_cast<double>(pattern[i % n]) + sigma * static_cast<double>(x[i]));
      in[i] = static_cast<float>(static_cast<double>(x[i]) / total);
    }
    networks().run(shape, arrays, 1)->forward(in.data(), kImages, std::log(sigma) / 4, told, y.data());
    double sum = 0;
    for (std::size_t first = 0; first < x.size(); first += n) {
      double along = 0;
      for (std::size_t i = 0; i < n; ++i) along += static_cast<double>(x[first + i] * pattern[i]);
      const double best = sign != 0 ? sign : std::tanh(along / (sigma * sigma));
      for (std::size_t i = 0; i < n; ++i) {
        const double d = 0.25 / (total * total) * static_cast<double>(x[first + i]) +
                         sigma * 0.5 / total * static_cast<double>(y[first + i]);
        sum += std::pow(d - best * static_cast<double>(pattern[i]), 2);
      }
    }
    return sum / (static_cast<double>(x.size()) * 0.25);
  }
};

UnetTask small_task(const Signs& signs) {
  UnetTask task;
  task.shape = shape_of({signs.side, signs.side}, 1);
  task.training.values = signs.values;
  task.steps = 300;
  task.batch = 32;
  task.learning_rate = 1e-2;
  task.weight_average = 0.95;
  task.report = 20;
  task.where = "prior";
  return task;
}

TEST(DiffusionTorch, LearnsTheBestDenoiser) {
  const Signs signs(64);
  UnetTask task = small_task(signs);
  task.held.values = std::span(signs.values).first(16 * 16);
  const TrainedWeights trained = networks().train(task);
  // doing nothing with the input has an error of 1 at high noise
  for (const double sigma : {0.1, 0.5, 2.0})
    EXPECT_LT(signs.error(task.shape, trained.arrays, sigma, 0, {}), 0.05) << sigma;
  ASSERT_EQ(trained.training_losses.size(), 15u);
  ASSERT_EQ(trained.held_losses.size(), 15u);
  EXPECT_LT(trained.training_losses.back(), 0.25 * trained.training_losses.front());
  EXPECT_EQ(trained.held_losses[static_cast<std::size_t>(trained.best_step / 20 - 1)],
            *std::min_element(trained.held_losses.begin(), trained.held_losses.end()));
}

TEST(DiffusionTorch, LearnsWhatItIsTold) {
  const Signs signs(64);
  UnetTask task = small_task(signs);
  task.shape.classes = 2;
  task.training.classes = signs.classes;
  task.condition_dropout = 0.3;
  const TrainedWeights trained = networks().train(task);
  // so noisy that the image says little: told nothing, the best denoiser is 0.67 off
  for (const std::int64_t label : {0, 1})
    EXPECT_LT(signs.error(task.shape, trained.arrays, 3, label == 1 ? 1 : -1, {{&label, 1}, {}}), 0.05) << label;
  EXPECT_LT(signs.error(task.shape, trained.arrays, 3, 0, {}), 0.1);

  task.shape.classes = 0;
  task.shape.embedding = 1;
  std::vector<float> embedding;
  for (const std::int64_t c : signs.classes) embedding.push_back(static_cast<float>(2 * c - 1));
  task.training.classes = {};
  task.training.embedding = embedding;
  const TrainedWeights told = networks().train(task);
  for (const float e : {-1.0F, 1.0F}) EXPECT_LT(signs.error(task.shape, told.arrays, 3, e, {{}, {&e, 1}}), 0.05) << e;
  EXPECT_LT(signs.error(task.shape, told.arrays, 3, 0, {}), 0.1);
}

bool same(const Arrays& a, const Arrays& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](auto& x, auto& y) { return x.first == y.first && x.second.data == y.second.data; });
}

// the same bits as without an interruption, wherever it was
TEST(DiffusionTorch, AnInterruptedTrainingGoesOnFromItsCheckpoint) {
  const Signs signs(50);
  UnetTask task = small_task(signs);
  task.steps = 12;
  task.batch = 20;
  task.report = 5;
  task.dropout = 0.1;
  task.shift = 1;
  task.flip = true;
  task.held.values = std::span(signs.values).first(4 * 16);
  const TrainedWeights whole = networks().train(task);
  EXPECT_TRUE(same(whole.arrays, networks().train(task).arrays));
  task.checkpoint = testing::temporary_folder() / "diffusion" / "unet.safetensors";
  int steps = 0, stop = 0;
  task.on_step = [&](std::int64_t, double) {
    if (++steps == stop) throw Interrupted();
  };
  for (stop = 1; stop <= 4; ++stop) {
    steps = 0;
    EXPECT_THROW(networks().train(task), Interrupted);
  }
  // 1 + 2 + 3 + 4 of the 12 steps are done
  steps = stop = 0;
  const TrainedWeights resumed = networks().train(task);
  EXPECT_EQ(steps, 2);
  EXPECT_TRUE(same(whole.arrays, resumed.arrays));
  EXPECT_EQ(whole.training_losses, resumed.training_losses);
  EXPECT_EQ(whole.held_losses, resumed.held_losses);
  EXPECT_EQ(whole.best_step, resumed.best_step);
  // another task does not take it
  steps = 0;
  task.seed = 1;
  EXPECT_FALSE(same(whole.arrays, networks().train(task).arrays));
  EXPECT_EQ(steps, 12);
}

TEST(DiffusionTorch, NumbersOfOthersAreLeftAlone) {
  const Signs signs(40);
  UnetTask task = small_task(signs);
  task.steps = 3;
  const TrainedWeights alone = networks().train(task);
  task.seed = 9;
  networks().train(task);
  task.seed = 0;
  EXPECT_TRUE(same(alone.arrays, networks().train(task).arrays));
}

TEST(DiffusionTorch, ALossThatIsNotFiniteStopsWithItsStep) {
  Signs signs(40);
  UnetTask task = small_task(signs);
  task.steps = 40;
  task.report = 10;
  task.where = "file.toml:3: prior";
  const auto message = [&]() -> std::string {
    task.training.values = signs.values;
    try {
      networks().train(task);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message(), "");
  signs.values[5 * 16 + 3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(message(), AllOf(HasSubstr("file.toml:3: prior: the loss is NaN at step "),
                               HasSubstr(" of 40: expected a finite one (are all values finite?")));
  signs.values[5 * 16 + 3] = 0;

  // the decay alone multiplies the weights by -99 in each step
  task.learning_rate = 1;
  task.warm_up = 0;
  task.weight_decay = 100;
  task.checkpoint = testing::temporary_folder() / "diffusion" / "diverging.safetensors";
  EXPECT_THAT(message(), HasSubstr("is learning_rate too high?"));
  const Arrays kept = read_safetensors(task.checkpoint);
  const auto* weights = reinterpret_cast<const float*>(kept.at("weights").data.data());
  for (std::size_t i = 0; i < kept.at("weights").elements(); ++i) ASSERT_TRUE(std::isfinite(weights[i]));
}

}  // namespace
}  // namespace percept::diffusion
