#include "numerics/random.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

namespace percept {
namespace {

/// The 64 bits of words i, i + 1.
std::uint64_t pair(const std::array<std::uint32_t, 4>& w, int i) { return (std::uint64_t{w[i + 1]} << 32) | w[i]; }

/// The upper 53 bits as a number in [0, 1).
double unit(std::uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }

std::array<std::uint32_t, 4> words(const std::array<std::uint32_t, 2>& key, std::int64_t frame, std::uint64_t draw) {
  const auto f = static_cast<std::uint64_t>(frame);
  return philox({static_cast<std::uint32_t>(f), static_cast<std::uint32_t>(f >> 32), static_cast<std::uint32_t>(draw),
                 static_cast<std::uint32_t>(draw >> 32)},
                key);
}

}  // namespace

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) noexcept {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * counter[0], p1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

KeyedRandom::KeyedRandom(std::uint64_t seed, std::string_view purpose) noexcept {
  std::uint64_t name = 14695981039346656037u;  // FNV-1a
  for (const char c : purpose) name = (name ^ static_cast<unsigned char>(c)) * 1099511628211u;
  // a keyed bijection of the seed, so that neighbouring seeds share no key bits
  const auto mixed = philox({static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32), 0, 0},
                            {static_cast<std::uint32_t>(name), static_cast<std::uint32_t>(name >> 32)});
  key_ = {mixed[0], mixed[1]};
}

double KeyedRandom::uniform(std::int64_t key, std::uint64_t draw) const noexcept {
  return unit(pair(words(key_, key, draw), 0));
}

double KeyedRandom::normal(std::int64_t key, std::uint64_t draw) const noexcept {
  const auto w = words(key_, key, draw);
  const double radius = std::sqrt(-2.0 * std::log(1.0 - unit(pair(w, 0))));
  return radius * std::cos(2.0 * std::numbers::pi * unit(pair(w, 2)));
}

void KeyedRandom::normals(std::int64_t key, std::uint64_t first, std::span<float> out) const noexcept {
  constexpr float kTurn = 2 * std::numbers::pi_v<float> * 0x1p-24f;
  for (std::size_t i = 0; i < out.size(); i += 4) {
    const auto w = words(key_, key, first + i / 4);
    float four[4];
    for (std::size_t k = 0; k < 4; k += 2) {
      // (0, 1] from all 32 bits, and a turn from 24, which a float holds exactly
      const float radius = std::sqrt(-2.0f * std::log((static_cast<float>(w[k]) + 1.0f) * 0x1p-32f));
      const float angle = kTurn * static_cast<float>(w[k + 1] >> 8);
      four[k] = radius * std::cos(angle);
      four[k + 1] = radius * std::sin(angle);
    }
    std::copy_n(four, std::min<std::size_t>(4, out.size() - i), out.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

std::int64_t KeyedRandom::below(std::int64_t n, std::int64_t key, std::uint64_t draw) const noexcept {
  if (n <= 1) return 0;
  // upper half of the 128-bit product, by 32-bit pieces
  const std::uint64_t bits = pair(words(key_, key, draw), 0), m = static_cast<std::uint64_t>(n);
  const std::uint64_t low = (bits & 0xffffffffu) * (m & 0xffffffffu), a = (bits >> 32) * (m & 0xffffffffu);
  const std::uint64_t b = (bits & 0xffffffffu) * (m >> 32);
  const std::uint64_t middle = (low >> 32) + (a & 0xffffffffu) + (b & 0xffffffffu);
  return static_cast<std::int64_t>((bits >> 32) * (m >> 32) + (a >> 32) + (b >> 32) + (middle >> 32));
}

std::int64_t KeyedRandom::poisson(double mean, std::int64_t key, std::uint64_t draw) const noexcept {
  if (!(mean > 0)) return 0;
  if (mean >= 30) return std::max<std::int64_t>(0, std::llround(mean + std::sqrt(mean) * normal(key, draw)));
  const double u = uniform(key, draw);
  double term = std::exp(-mean), sum = term;
  std::int64_t k = 0;
  while (u >= sum && k < 1000) {
    term *= mean / static_cast<double>(++k);
    sum += term;
  }
  return k;
}

std::vector<Eigen::Index> random_order(const KeyedRandom& random, Eigen::Index n, std::int64_t frame) {
  std::vector<Eigen::Index> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), Eigen::Index{0});
  for (Eigen::Index i = 0; i + 1 < n; ++i)
    std::swap(order[static_cast<std::size_t>(i)],
              order[static_cast<std::size_t>(i + random.below(n - i, frame, static_cast<std::uint64_t>(i)))]);
  return order;
}

}  // namespace percept
