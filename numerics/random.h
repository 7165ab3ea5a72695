/// Random numbers keyed by what they are for, never by the order in which they are asked:
/// the same (seed, name, key, draw) gives the same number on every thread, block size and machine.
/// Philox 4x32-10: Salmon, Moraes, Dror, Shaw, SC 2011.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <Eigen/Core>

namespace percept {

/// 128 keyed random bits.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) noexcept;

/// The numbers of one purpose: random(seed, "node name").
class KeyedRandom {
 public:
  KeyedRandom(std::uint64_t seed, std::string_view purpose) noexcept;
  /// Uniform in [0, 1).
  double uniform(std::int64_t key, std::uint64_t draw = 0) const noexcept;
  /// Standard normal (Box-Muller).
  double normal(std::int64_t key, std::uint64_t draw = 0) const noexcept;
  /// Many standard normals in single precision, four a draw: out[4 i ... 4 i + 3] belong to draw first + i. The first
  /// numbers do not depend on how many are asked for. Not the numbers of normal().
  void normals(std::int64_t key, std::uint64_t first, std::span<float> out) const noexcept;
  /// Uniform integer in [0, n).
  std::int64_t below(std::int64_t n, std::int64_t key, std::uint64_t draw = 0) const noexcept;
  /// Poisson with this mean (inversion below 30, rounded normal above).
  std::int64_t poisson(double mean, std::int64_t key, std::uint64_t draw = 0) const noexcept;

 private:
  std::array<std::uint32_t, 2> key_;
};

/// 0 ... n - 1 in a random order, keyed by `frame`.
std::vector<Eigen::Index> random_order(const KeyedRandom& random, Eigen::Index n, std::int64_t frame);

}  // namespace percept
