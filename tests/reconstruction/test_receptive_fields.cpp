#include <gmock/gmock.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "reconstruction/image/receptive_fields.h"
#include "tests/support/errors.h"
#include "tests/support/random.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using testing::normals;

/// Features of a 6 x 6 grid in 40 frames; voxel v answers to the features about place v of a 3 x 3 raster.
struct Simulated {
  MatrixXd features = normals(36, 40, "features"), responses;
  MatrixXd fields = receptive_fields(6, 6, 1, {1.0}, 2.5);  // the whole, and 3 x 3 places
  explicit Simulated(double noise, Index voxels = 9) {
    responses = noise * normals(voxels, 40, "noise");
    for (Index v = 0; v < voxels; ++v) {
      const VectorXd weights = fields.row(1 + v % 9).transpose().cwiseProduct(normals(36, 1, "weights"));
      responses.row(v) += weights.transpose() * features;
      responses.row(v).array() += 5 + static_cast<double>(v);
    }
  }
};

TEST(ReceptiveFields, LieOnARasterCentredInTheImage) {
  const MatrixXd fields = receptive_fields(6, 6, 1, {1.0}, 2.5);
  ASSERT_EQ(fields.rows(), 10);
  EXPECT_EQ(fields.row(0), Eigen::RowVectorXd::Ones(36));
  // places 0, 2.5 and 5 in both directions
  EXPECT_DOUBLE_EQ(fields(1, 0), 1);
  EXPECT_NEAR(fields(5, 2 * 6 + 3), std::exp(-(0.25 + 0.25) / 2), 1e-15);
  EXPECT_DOUBLE_EQ(fields(9, 35), 1);
  EXPECT_EQ(receptive_fields(6, 6, 2, {2.0}, 5), fields);  // in pixels, all is scaled
}

TEST(ReceptiveFields, NeighboursByDistance) {
  MatrixXd at = MatrixXd::Zero(3, 3);
  at(0, 1) = 0.002;
  at(1, 2) = 0.1;
  const MatrixXd w = voxel_neighbours(at, 0.002);
  EXPECT_NEAR(w(0, 1), std::exp(-0.5), 1e-15);
  EXPECT_EQ(w(0, 1), w(1, 0));
  EXPECT_EQ(w.diagonal(), VectorXd::Zero(3));
  EXPECT_EQ(w.col(2), VectorXd::Zero(3));
}

// Ridge regression of 39 frames, with the penalty of each feature divided by its field, predicts the fortieth.
TEST(FieldEncoder, LeftOutEqualsFittingWithoutTheFrame) {
  const Simulated s(1.0);
  const FieldEncoder e = fit_field_encoder(s.features, s.responses, s.fields, {}, {}, "encoder");
  const VectorXd variance = (s.features.colwise() - s.features.rowwise().mean()).rowwise().squaredNorm() / 40;
  for (Index v = 0; v < 9; ++v) {
    const VectorXd field = s.fields.row(e.field[static_cast<std::size_t>(v)]);
    const double scale = field.dot(variance);
    const auto ridge = [&](const std::vector<Index>& frames) {
      MatrixXd x(37, static_cast<Index>(frames.size()));
      x.topRows(36) = s.features(Eigen::all, frames);
      x.row(36).setOnes();
      MatrixXd a = x * x.transpose();
      a.diagonal().head(36) += e.penalty(v) * scale * field.cwiseInverse();
      return VectorXd(a.ldlt().solve(x * s.responses(v, frames).transpose()));
    };
    double left = 0, without_images = 0;
    for (Index t = 0; t < 40; ++t) {
      std::vector<Index> others;
      for (Index k = 0; k < 40; ++k)
        if (k != t) others.push_back(k);
      const VectorXd b = ridge(others);
      const double residual = s.responses(v, t) - b.head(36).dot(s.features.col(t)) - b(36);
      EXPECT_NEAR(e.left_out(v, t), residual, 1e-8) << v << " " << t;
      left += residual * residual;
      without_images += std::pow(s.responses(v, t) - s.responses(v, others).mean(), 2);
    }
    EXPECT_NEAR(e.explained(v), 1 - left / without_images, 1e-8) << v;
    std::vector<Index> all(40);
    std::iota(all.begin(), all.end(), 0);
    const VectorXd b = ridge(all);
    EXPECT_LT((e.weights.row(v).transpose() - b.head(36)).cwiseAbs().maxCoeff(), 1e-8);
    EXPECT_NEAR(e.response_mean(v) - e.weights.row(v) * e.feature_mean, b(36), 1e-8);
  }
}

// y without its mean ~ N(0, s² (K + penalty)) with s² at its best, in 39 dimensions.
TEST(FieldEncoder, EvidenceIsTheMarginalLikelihood) {
  const Simulated s(1.0, 2);
  const FieldEncoderOptions options{.penalties = {1, 10}};
  const FieldEncoder e = fit_field_encoder(s.features, s.responses, s.fields, {}, options, "encoder");
  const Eigen::HouseholderQR<MatrixXd> qr(MatrixXd::Ones(40, 1));
  const MatrixXd q = MatrixXd(qr.householderQ()).rightCols(39);
  const MatrixXd x = s.features.colwise() - s.features.rowwise().mean();
  const auto likelihood = [&](const MatrixXd& covariance, const VectorXd& y) {
    const double power = y.dot(covariance.ldlt().solve(y)) / 39;
    return -39 * std::log(power) / 2 - std::log(covariance.determinant()) / 2;
  };
  for (Index k = 0; k < s.fields.rows(); ++k) {
    MatrixXd kernel = x.transpose() * s.fields.row(k).asDiagonal() * x;
    kernel *= 40 / kernel.trace();
    for (Index v = 0; v < 2; ++v) {
      const VectorXd y = q.transpose() * s.responses.row(v).transpose();
      double mean = 0;
      for (const double penalty : options.penalties)
        mean += std::exp(likelihood(q.transpose() * kernel * q + penalty * MatrixXd::Identity(39, 39), y) -
                         likelihood(MatrixXd::Identity(39, 39), y)) /
                2;
      EXPECT_NEAR(e.evidence(k, v), std::log(mean), 1e-8) << k << " " << v;
    }
  }
}

TEST(FieldEncoder, FindsTheFieldOfEachVoxel) {
  const Simulated s(0.2);
  const FieldEncoder e = fit_field_encoder(s.features, s.responses, s.fields, {}, {}, "encoder");
  for (Index v = 0; v < 9; ++v) EXPECT_EQ(e.field[static_cast<std::size_t>(v)], 1 + v);
  EXPECT_GT(e.explained.minCoeff(), 0.5);
}

TEST(FieldEncoder, AVoxelOfNoiseTakesTheFieldOfItsNeighbour) {
  Simulated s(0.2, 2);
  s.responses.row(1) = normals(1, 40, "another noise");
  const FieldEncoder alone = fit_field_encoder(s.features, s.responses, s.fields, {}, {}, "encoder");
  ASSERT_NE(alone.field[1], alone.field[0]);
  MatrixXd at = MatrixXd::Zero(3, 2);
  at(0, 1) = 0.001;
  const FieldEncoder together =
      fit_field_encoder(s.features, s.responses, s.fields, voxel_neighbours(at, 0.002), {}, "encoder");
  EXPECT_EQ(together.field[0], alone.field[0]);
  EXPECT_EQ(together.field[1], alone.field[0]);
  EXPECT_EQ(together.evidence, alone.evidence);  // a voxel's own
}

// Features at the edge of digits never vary: a field there must not be scaled up to a kernel of rounding errors.
TEST(FieldEncoder, FieldsThatSeeNothingAreLeftOut) {
  Simulated s(0.2);
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 6; ++j) s.features.row(i * 6 + j).setConstant(0.1);
  s.fields.row(1).setZero();
  s.fields(1, 0) = 1;
  const FieldEncoder e = fit_field_encoder(s.features, s.responses, s.fields, {}, {}, "encoder");
  EXPECT_EQ(e.evidence(1, 0), -HUGE_VAL);
  EXPECT_TRUE(e.weights.allFinite());
  EXPECT_EQ(std::count(e.field.begin(), e.field.end(), 1), 0);
}

TEST(FieldEncoder, RefusesWhatCannotBeFitted) {
  Simulated s(1.0);
  const auto fit = [&](const MatrixXd& x, const MatrixXd& y) { fit_field_encoder(x, y, s.fields, {}, {}, "encoder"); };
  EXPECT_EQ(testing::message_of<DataError>([&] { fit(s.features.leftCols(2), s.responses.leftCols(2)); }),
            "encoder: training frames: expected at least 3, found 2");
  EXPECT_EQ(testing::message_of<DataError>([&] { fit(MatrixXd::Ones(36, 40), s.responses); }),
            "encoder: features of the training images: expected some that vary, found constant ones only");
  FieldEncoderOptions none;
  none.penalties.clear();
  EXPECT_EQ(testing::message_of<ConfigError>(
                [&] { fit_field_encoder(s.features, s.responses, s.fields, {}, none, "encoder"); }),
            "encoder = no penalty: expected at least one to choose from");
  s.responses.row(4).setConstant(2);
  EXPECT_EQ(testing::message_of<DataError>([&] { fit(s.features, s.responses); }),
            "encoder: voxel 4: expected responses that vary over the training frames, found the constant 2");
}

}  // namespace
}  // namespace percept
