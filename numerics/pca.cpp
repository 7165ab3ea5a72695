#include "numerics/pca.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "numerics/linalg.h"

namespace percept {

using Eigen::MatrixXd;
using Eigen::VectorXd;

Pca fit_pca(const MatrixXd& x, Index k, const std::string& where) {
  const Index rows = x.rows(), n = x.cols(), most = std::min(rows, n - 1);
  if (n < 2) throw DataError(where, "training frames", "at least 2", std::to_string(n));
  if (k < 1 || k > most)
    throw ConfigError(where + ".components", std::to_string(k),
                      fmt::format("1 to {} ({} rows, {} training frames)", most, rows, n));
  if (!x.allFinite()) throw DataError(where, "training frames", "finite values", "NaN or infinity");
  Pca p;
  p.mean = x.rowwise().mean();
  const MatrixXd centred = x.colwise() - p.mean;
  const bool primal = rows <= n;
  const MatrixXd transposed = primal ? MatrixXd() : MatrixXd(centred.transpose());
  const Eigensystem e = eigensystem(gram(primal ? centred : transposed));
  p.total_variance = centred.squaredNorm() / static_cast<double>(n - 1);
  if (!(p.total_variance > 0)) throw DataError(where, "training frames", "rows that vary", "constant rows only");

  // eigenvalues rise; the last k are wanted, largest first
  const VectorXd values = e.values.tail(k).reverse().cwiseMax(0.0);
  MatrixXd vectors = e.vectors.rightCols(k).rowwise().reverse();
  if (!primal) {
    if (!(values(k - 1) > 1e-12 * values(0)))
      throw ConfigError(
          where + ".components", std::to_string(k),
          fmt::format("at most the {} components with any variance", (values.array() > 1e-12 * values(0)).count()));
    vectors = product(centred, vectors);
    vectors.colwise().normalize();
  }
  p.components = vectors.transpose();
  p.variance = values / static_cast<double>(n - 1);
  for (Index i = 0; i < k; ++i) {
    Index at = 0;
    p.components.row(i).cwiseAbs().maxCoeff(&at);
    if (p.components(i, at) < 0) p.components.row(i) *= -1.0;
  }
  return p;
}

}  // namespace percept
