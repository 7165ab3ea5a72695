/// Matrices of random numbers for tests.
#pragma once

#include <Eigen/Core>

#include "core/stream.h"
#include "numerics/random.h"

namespace percept::testing {

/// Independent standard normal numbers, the same for the same purpose and seed.
inline Eigen::MatrixXd normals(Index rows, Index columns, const char* purpose, std::uint64_t seed = 1) {
  const KeyedRandom random(seed, purpose);
  Eigen::MatrixXd m(rows, columns);
  for (Index j = 0; j < columns; ++j)
    for (Index i = 0; i < rows; ++i) m(i, j) = random.normal(j, static_cast<std::uint64_t>(i));
  return m;
}

}  // namespace percept::testing
