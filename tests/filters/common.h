/// What the tests of filters/ share.
#pragma once

#include <Eigen/Dense>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/registry.h"
#include "filters/dkf.h"
#include "filters/kalman.h"
#include "filters/stages.h"
#include "tests/support/data.h"
#include "tests/support/driver.h"
#include "tests/support/errors.h"
#include "tests/support/random.h"

namespace percept::testing {

using Eigen::MatrixXd;
using Eigen::VectorXd;

inline MatrixXd spd(Index n, const char* purpose, double scale = 1) {
  const MatrixXd m = normals(n, 2 * n + 2, purpose);
  return scale / static_cast<double>(2 * n) * (m * m.transpose());
}

/// A stable state model of d outputs seen by n channels.
inline KalmanModel random_model(Index d, Index n, bool diagonal = false) {
  KalmanModel m;
  m.a = 0.9 * MatrixXd::Identity(d, d) + 0.05 * normals(d, d, "a") / std::sqrt(static_cast<double>(d));
  m.gamma = spd(d, "gamma", 0.2);
  m.c = normals(n, d, "c");
  m.r = diagonal ? MatrixXd(spd(n, "r", 4.0).diagonal()) : spd(n, "r", 4.0);
  m.v0 = spd(d, "v0", 1.0);
  return m;
}

/// The textbook filter with n x n inverses, for comparison. Rows with NaN are left out.
struct Textbook {
  KalmanModel m;
  VectorXd mean;
  MatrixXd covariance;
  bool started = false;

  explicit Textbook(KalmanModel model) : m(std::move(model)), mean(VectorXd::Zero(m.a.rows())), covariance(m.v0) {
    if (m.r.cols() == 1) m.r = MatrixXd(m.r.col(0).asDiagonal());
  }
  void step(const VectorXd& x) {
    if (started) {
      mean = (m.a * mean).eval();
      covariance = (m.a * covariance * m.a.transpose() + m.gamma).eval();
    }
    started = true;
    std::vector<Index> seen;
    for (Index i = 0; i < x.size(); ++i)
      if (std::isfinite(x(i))) seen.push_back(i);
    if (seen.empty()) return;
    const MatrixXd c = m.c(seen, Eigen::all), r = m.r(seen, seen);
    const MatrixXd gain = covariance * c.transpose() * (c * covariance * c.transpose() + r).inverse();
    mean += (gain * (x(seen) - c * mean)).eval();
    covariance = (covariance - gain * c * covariance).eval();
  }
};

inline StageInfo stage_row(const std::vector<StageInfo>& table, const std::string& name) {
  for (const StageInfo& i : table)
    if (i.name == name) return i;
  throw Error("no stage " + name);
}

/// A stream of named channels.
inline StreamFormat named_format(const std::vector<std::string>& names, double rate_hz, const std::string& unit = "1") {
  StreamFormat f = time_format(static_cast<Index>(names.size()), rate_hz);
  f.parts[0].unit = unit;
  f.parts[0].rows.resize(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) f.parts[0].rows[i].name = names[i];
  return f;
}

/// Fits a stage of the table by name.
inline Model fit_stage(const StageInfo& info, const Value& params, const StreamFormat& x, const StreamFormat& y,
                       TrainingMatrix data, Index block = 4096) {
  Context context;
  context.node = info.name;
  return info.make_fitter(params, info.name)->fit(MemoryData(x, y, std::move(data), block), context);
}

/// True and decoded rows x frames: sqrt(mean square error) / sqrt(mean square).
inline double nrmse(const MatrixXd& truth, const MatrixXd& decoded) { return (decoded - truth).norm() / truth.norm(); }
/// Mean absolute error of the direction of the first two rows [rad].
inline double maae(const MatrixXd& truth, const MatrixXd& decoded) {
  double sum = 0;
  for (Index t = 0; t < truth.cols(); ++t)
    sum += std::abs(
        std::remainder(std::atan2(decoded(1, t), decoded(0, t)) - std::atan2(truth(1, t), truth(0, t)), 2 * M_PI));
  return sum / static_cast<double>(truth.cols());
}

/// mu1, mu2, S11, S12, S22 per line -> what a stage of two outputs gives: 6 rows x frames.
inline MatrixXd posterior_rows(const MatrixXd& table) {
  MatrixXd m(6, table.rows());
  m << table.col(0).transpose(), table.col(1).transpose(), table.col(2).transpose(), table.col(3).transpose(),
      table.col(3).transpose(), table.col(4).transpose();
  return m;
}

}  // namespace percept::testing
