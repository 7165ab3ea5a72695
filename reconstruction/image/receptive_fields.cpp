#include "reconstruction/image/receptive_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "numerics/linalg.h"

namespace percept {

using Eigen::ArrayXd;
using Eigen::MatrixXd;
using Eigen::RowVectorXd;
using Eigen::VectorXd;

namespace {
/// Places `step` apart, as many as fit on [0, last], centred on it.
std::vector<double> places(double last, double step) {
  const auto n = static_cast<Index>(std::floor(last / step)) + 1;
  std::vector<double> at;
  for (Index k = 0; k < n; ++k)
    at.push_back(last / 2 + step * (static_cast<double>(k) - static_cast<double>(n - 1) / 2));
  return at;
}
}  // namespace

MatrixXd receptive_fields(Index rows, Index columns, double pitch_px, const std::vector<double>& sds_px,
                          double step_px) {
  const auto down = places(pitch_px * static_cast<double>(rows - 1), step_px);
  const auto across = places(pitch_px * static_cast<double>(columns - 1), step_px);
  MatrixXd fields(1 + static_cast<Index>(sds_px.size() * down.size() * across.size()), rows * columns);
  fields.row(0).setOnes();
  Index k = 1;
  for (const double sd : sds_px)
    for (const double y : down)
      for (const double x : across) {
        for (Index i = 0; i < rows; ++i)
          for (Index j = 0; j < columns; ++j) {
            const double dy = pitch_px * static_cast<double>(i) - y, dx = pitch_px * static_cast<double>(j) - x;
            fields(k, i * columns + j) = std::exp(-(dy * dy + dx * dx) / (2 * sd * sd));
          }
        ++k;
      }
  return fields;
}

Eigen::SparseMatrix<double> voxel_neighbours(const MatrixXd& positions_m, double sd_m) {
  const Index n = positions_m.cols();
  std::vector<Eigen::Triplet<double>> entries;
  for (Index a = 0; a < n; ++a)
    for (Index b = 0; b < a; ++b) {
      const double d2 = (positions_m.col(a) - positions_m.col(b)).squaredNorm() / (sd_m * sd_m);
      if (!(d2 < 16)) continue;
      const double w = std::exp(-d2 / 2);
      entries.emplace_back(a, b, w);
      entries.emplace_back(b, a, w);
    }
  Eigen::SparseMatrix<double> out(n, n);
  out.setFromTriplets(entries.begin(), entries.end());
  return out;
}

FieldEncoder fit_field_encoder(const MatrixXd& features, const MatrixXd& responses, const MatrixXd& fields,
                               const Eigen::SparseMatrix<double>& neighbours, const FieldEncoderOptions& options,
                               const std::string& where) {
  const Index n = features.cols(), voxels = responses.rows();
  if (n < 3) throw DataError(where, "training frames", "at least 3", std::to_string(n));
  const double frames = static_cast<double>(n), freedom = frames - 1;
  FieldEncoder out;
  out.feature_mean = features.rowwise().mean();
  out.response_mean = responses.rowwise().mean();
  const MatrixXd x = features.colwise() - out.feature_mean;
  const MatrixXd y = (responses.colwise() - out.response_mean).transpose();  // frames x voxels
  const RowVectorXd power = y.colwise().squaredNorm();
  for (Index v = 0; v < voxels; ++v)
    if (!(power(v) > 0))
      throw DataError(where, fmt::format("voxel {}", v), "responses that vary over the training frames",
                      fmt::format("the constant {}", responses(v, 0)));

  // a field that sees no feature vary says nothing, and its kernel could not be scaled
  std::vector<Index> seeing;
  std::vector<double> scale;
  const VectorXd variance = x.rowwise().squaredNorm() / frames;
  const double most = fields.cols() > 0 ? (fields * variance).maxCoeff() : 0;
  for (Index k = 0; k < fields.rows(); ++k)
    if (const double s = fields.row(k).dot(variance); s > 1e-6 * most && most > 0) {
      seeing.push_back(k);
      scale.push_back(s);
    }
  if (seeing.empty()) throw DataError(where, "features of the training images", "some that vary", "constant ones only");

  const auto penalties = static_cast<Index>(options.penalties.size());
  if (penalties == 0) throw ConfigError(where, "no penalty", "at least one to choose from");
  const Index count = static_cast<Index>(seeing.size());
  std::vector<Eigensystem> kernels;
  MatrixXd evidence(count, voxels);
  Eigen::Matrix<std::int16_t, Eigen::Dynamic, Eigen::Dynamic> best_penalty(count, voxels);
  const ArrayXd nothing = -freedom / 2 * power.transpose().array().log();
  for (Index k = 0; k < count; ++k) {
    const auto at = static_cast<std::size_t>(k);
    const MatrixXd weighted = (fields.row(seeing[at]).transpose() / scale[at]).asDiagonal() * x;
    kernels.push_back(eigensystem(product(x.transpose(), weighted)));
    Eigensystem& e = kernels.back();
    e.values = e.values.cwiseMax(0.0);
    const MatrixXd rotated = product(e.vectors.transpose(), y).cwiseAbs2();  // frames x voxels
    MatrixXd inverse(penalties, n);
    ArrayXd determinant(penalties);
    for (Index l = 0; l < penalties; ++l) {
      const double penalty = options.penalties[static_cast<std::size_t>(l)];
      inverse.row(l) = (e.values.array() + penalty).inverse();
      // the direction of the mean, whose eigenvalue is zero, is not part of the evidence
      determinant(l) = (e.values.array() + penalty).log().sum() - std::log(penalty);
    }
    const MatrixXd fit = product(inverse, rotated);  // y' (K + penalty)^-1 y of each penalty and voxel
    for (Index v = 0; v < voxels; ++v) {
      const ArrayXd log_evidence = -freedom / 2 * fit.col(v).array().log() - determinant / 2 - nothing(v);
      Index best = 0;
      const double top = log_evidence.maxCoeff(&best);
      evidence(k, v) = top + std::log((log_evidence - top).exp().mean());
      best_penalty(k, v) = static_cast<std::int16_t>(best);
    }
  }
  MatrixXd worth = evidence;
  if (neighbours.size() > 0) worth += options.neighbour_weight * (evidence * neighbours);

  out.weights.resize(voxels, features.rows());
  out.left_out.resize(voxels, n);
  out.explained.resize(voxels);
  out.field.resize(static_cast<std::size_t>(voxels));
  out.penalty.resize(voxels);
  out.evidence = MatrixXd::Constant(fields.rows(), voxels, -HUGE_VAL);
  for (Index k = 0; k < count; ++k) out.evidence.row(seeing[static_cast<std::size_t>(k)]) = evidence.row(k);

  // voxels that share field and penalty share their fit
  std::vector<std::vector<Index>> groups(static_cast<std::size_t>(count * penalties));
  for (Index v = 0; v < voxels; ++v) {
    Index k = 0;
    worth.col(v).maxCoeff(&k);
    const Index l = best_penalty(k, v);
    out.field[static_cast<std::size_t>(v)] = seeing[static_cast<std::size_t>(k)];
    out.penalty(v) = options.penalties[static_cast<std::size_t>(l)];
    groups[static_cast<std::size_t>(k * penalties + l)].push_back(v);
  }
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (groups[g].empty()) continue;
    const auto k = g / static_cast<std::size_t>(penalties);
    const double penalty = options.penalties[g % static_cast<std::size_t>(penalties)];
    const Eigensystem& e = kernels[k];
    const MatrixXd inverse =
        e.vectors * (e.values.array() + penalty).inverse().matrix().asDiagonal() * e.vectors.transpose();
    const MatrixXd dual = product(inverse, y(Eigen::all, groups[g]));  // frames x voxels
    const MatrixXd seen = (fields.row(seeing[k]).transpose() / scale[k]).asDiagonal() * x;
    const MatrixXd weights = product(seen, dual);
    // residual / (1 - leverage), with 1/n of the leverage from the mean
    const ArrayXd left = penalty * inverse.diagonal().array() - 1 / frames;
    for (std::size_t j = 0; j < groups[g].size(); ++j) {
      const Index v = groups[g][j], column = static_cast<Index>(j);
      out.weights.row(v) = weights.col(column).transpose();
      out.left_out.row(v) = (penalty * dual.col(column).array() / left).transpose();
      const double ratio = freedom / frames;  // frame i less the mean of the others is n / (n - 1) times its deviation
      out.explained(v) = 1 - out.left_out.row(v).squaredNorm() * ratio * ratio / power(v);
    }
  }
  return out;
}

}  // namespace percept
