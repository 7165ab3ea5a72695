#include "evaluation/brain_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "io/volume.h"
#include "numerics/linalg.h"
#include "numerics/random.h"

namespace percept::evaluation {

SharedVariance shared_variance(const Eigen::MatrixXd& activity, const Eigen::MatrixXd& decoded, std::uint64_t seed) {
  const Index items = activity.cols();
  if (items != decoded.cols() || items < 3)
    throw DataError("shared_variance", "items", "at least 3 of activity, and as many decoded",
                    fmt::format("{} and {}", items, decoded.cols()));
  Eigen::MatrixXd x = activity.colwise() - activity.rowwise().mean();
  const Eigen::MatrixXd y = decoded.colwise() - decoded.rowwise().mean();
  const Eigen::MatrixXd alike = gram(y.transpose());  // of items, so that the values are gone through once
  if (!(alike.trace() > 0)) throw DataError("shared_variance", "decoded values", "values that vary", "a constant");
  const Eigen::VectorXd size = x.rowwise().norm();
  for (Index v = 0; v < x.rows(); ++v) {
    const bool varies = size(v) > 1e-12 * activity.row(v).cwiseAbs().maxCoeff();  // false when one is NaN
    x.row(v) /= varies ? size(v) : std::numeric_limits<double>::quiet_NaN();
  }
  const auto shares = [&](const Eigen::MatrixXd& of_items) -> Eigen::VectorXd {
    return product(x, of_items).cwiseProduct(x).rowwise().sum() / alike.trace();
  };
  SharedVariance out{shares(alike), 0};

  constexpr int kPairings = 20;
  const KeyedRandom random(seed, "shared_variance");
  std::vector<double> by_chance;
  std::vector<Index> order(static_cast<std::size_t>(items));
  for (int pairing = 0; pairing < kPairings; ++pairing) {
    std::vector<std::pair<double, Index>> drawn;
    for (Index k = 0; k < items; ++k) drawn.emplace_back(random.uniform(pairing, static_cast<std::uint64_t>(k)), k);
    std::sort(drawn.begin(), drawn.end());
    for (Index k = 0; k < items; ++k) order[static_cast<std::size_t>(k)] = drawn[static_cast<std::size_t>(k)].second;
    for (const double s : shares(alike(order, order)))
      if (std::isfinite(s)) by_chance.push_back(s);
  }
  if (!by_chance.empty()) {
    const auto at = by_chance.begin() + static_cast<std::ptrdiff_t>(by_chance.size() - 1 - by_chance.size() / 20);
    std::nth_element(by_chance.begin(), at, by_chance.end());
    out.chance = *at;
  }
  return out;
}

std::optional<BrainPlace> brain_place(const Recording& recording, const StreamFormat& voxels) {
  const Value* anatomy = recording.meta.find("anatomy");
  const Table* table = recording.table("voxel");
  if (!anatomy || !anatomy->is_string() || !table) return std::nullopt;
  BrainPlace place;
  place.anatomy = anatomy->as_string();
  place.voxel.resize(static_cast<std::size_t>(voxels.size()));
  const char* axes[] = {"x", "y", "z"};
  for (std::size_t a = 0; a < 3; ++a) {
    const Column* column = table->find(axes[a]);
    if (!column || column->is_text() || column->numbers.size() != place.voxel.size()) return std::nullopt;
    for (std::size_t k = 0; k < place.voxel.size(); ++k) place.voxel[k][a] = std::llround(column->numbers[k]);
  }
  return place;
}

void write_brain_map(const std::filesystem::path& file, const BrainPlace& place, const Eigen::VectorXd& values) {
  io::Volume volume = io::read_volume(place.anatomy);
  volume.values.setZero();
  const auto& size = volume.grid.size;
  for (std::size_t k = 0; k < place.voxel.size(); ++k) {
    const auto& [x, y, z] = place.voxel[k];
    if (x < 0 || x >= size[0] || y < 0 || y >= size[1] || z < 0 || z >= size[2])
      throw DataError(
          "table voxel", fmt::format("row {}", k + 1),
          fmt::format("a voxel of {}, {} x {} x {}", place.anatomy.filename().string(), size[0], size[1], size[2]),
          fmt::format("({}, {}, {})", x, y, z));
    const double value = values(static_cast<Index>(k));
    volume.values(x + size[0] * (y + size[1] * z)) = std::isfinite(value) ? value : 0;
  }
  io::write_volume(file, volume);
}

}  // namespace percept::evaluation
