#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "numerics/apply.h"
#include "numerics/linalg.h"
#include "preprocessing/rows.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kImputeVersion = 1;

struct ImputeParams {
  double most_missing = 0.5;
  double regularisation = 0.001;
  static constexpr auto fields() {
    return std::tuple{
        field("most_missing", &ImputeParams::most_missing, "1",
              "A frame in which a larger share of the rows is missing stays as it is, and so does one without any row.",
              0.0, 1.0),
        field("regularisation", &ImputeParams::regularisation, "1",
              "Share of each row's own variance that is added to it: rows that are told apart badly then say little of "
              "each other.",
              0.0, 1e6)};
  }
};

/// E[x_M | x_O] under a normal distribution with the mean m and covariance of the training frames: with its inverse P,
/// m_M - P_MM^-1 P_MO (x_O - m_O), so that a frame costs a solve of the size of what is missing.
class ImputeStage final : public Typed<ImputeStage> {
 public:
  using Params = ImputeParams;
  ImputeStage(const Params& p, const Model& model)
      : p_(p), model_((require_model(model, "impute", kImputeVersion), model)) {
    const VectorXd mean = model_.vector("mean"), sd = model_.vector("sd", mean.size());
    if (!mean.allFinite() || !(sd.array() >= 0).all() || !sd.allFinite())
      throw DataError("model of impute", "mean, sd", "finite values, sd not below 0", "others");
    if (!is_spd(model_.matrix("precision", mean.size(), mean.size())))
      throw DataError("model of impute", "precision", "a positive definite matrix", "another");
  }

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_frames(in, context, "impute");
    const Index n = in.size();
    const auto at = row_order(model_.input_rows(), named_rows(in), context);
    mean_.resize(n);
    sd_.resize(n);
    precision_.resize(n, n);
    mean_(at) = model_.vector("mean", n);
    sd_(at) = model_.vector("sd", n);
    precision_(at, at) = model_.matrix("precision", n, n);
    most_ = std::min(n - 1, static_cast<Index>(std::floor(p_.most_missing * static_cast<double>(n) + 1e-9)));
    centred_.resize(n);
    gone_.resize(static_cast<std::size_t>(n));
    factor_.resize(most_, most_);
    solved_.resize(most_);
    filled_ = &context.counter("filled");
    left_ = &context.counter("left_missing");
    return in;
  }

  template <class T>
  Index run(const Block& b, FrameSpan<const T> in, Output& o, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      T* y = out.frame(t);
      std::copy_n(x, in.rows, y);
      Index missing = 0;
      for (Index r = 0; r < in.rows; ++r)
        if (!std::isfinite(x[r])) gone_[static_cast<std::size_t>(missing++)] = r;
      if (missing == 0) continue;
      if (missing > most_ || !fill(x, missing, in.rows)) {
        left_->add(missing);
        continue;
      }
      filled_->add(missing);
      for (Index i = 0; i < missing; ++i) {
        const Index r = gone_[static_cast<std::size_t>(i)];
        y[r] = static_cast<T>(mean_(r) + sd_(r) * solved_(i));
      }
    }
    if (o.keys) std::copy(b.keys.begin(), b.keys.end(), o.keys);
    return in.frames;
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  /// solved_: the missing rows in standard deviations from their mean.
  template <class T>
  bool fill(const T* x, Index missing, Index rows) noexcept {
    for (Index r = 0; r < rows; ++r)
      centred_(r) = std::isfinite(x[r]) && sd_(r) > 0 ? (static_cast<double>(x[r]) - mean_(r)) / sd_(r) : 0;
    for (Index i = 0; i < missing; ++i) {
      const Index r = gone_[static_cast<std::size_t>(i)];
      double sum = 0;
      for (Index c = 0; c < rows; ++c) sum -= precision_(c, r) * centred_(c);
      for (Index j = 0; j <= i; ++j) {  // Cholesky factor of P_MM row by row, and the forward solve along with it
        double entry = precision_(gone_[static_cast<std::size_t>(j)], r);
        for (Index k = 0; k < j; ++k) entry -= factor_(i, k) * factor_(j, k);
        if (j < i) {
          factor_(i, j) = entry / factor_(j, j);
          sum -= factor_(i, j) * solved_(j);
        } else {
          if (!(entry > 0)) return false;
          factor_(i, i) = std::sqrt(entry);
        }
      }
      solved_(i) = sum / factor_(i, i);
    }
    for (Index i = missing - 1; i >= 0; --i) {
      for (Index k = i + 1; k < missing; ++k) solved_(i) -= factor_(k, i) * solved_(k);
      solved_(i) /= factor_(i, i);
      if (!std::isfinite(solved_(i))) return false;
    }
    return true;
  }

  Params p_;
  Model model_;
  Index most_ = 0;
  VectorXd mean_, sd_, centred_, solved_;
  MatrixXd precision_;       ///< of the rows in standard deviations
  MatrixXd factor_;          ///< room for the factor of P_MM
  std::vector<Index> gone_;  ///< rows that are missing in a frame: the first few
  Counter *filled_ = nullptr, *left_ = nullptr;
};

class ImputeFitter final : public Fitter {
 public:
  explicit ImputeFitter(ImputeParams p) : p_(p) {}

  Model fit(const Data& data, Context& context) override {
    TrainingMatrix t = data.gather();
    std::vector<Index> whole;
    for (Index k = 0; k < t.x.cols(); ++k)
      if (t.x.col(k).allFinite()) whole.push_back(k);
    const auto frames = static_cast<Index>(whole.size());
    if (frames < 2)
      throw DataError(context.node, "training frames", "at least 2 without missing values",
                      fmt::format("{} of {}", frames, t.x.cols()));
    if (const Index dropped = t.x.cols() - frames; dropped > 0)
      context.warn(fmt::format("{} training frames with missing values left out", dropped));
    MatrixXd x = t.x(Eigen::all, whole);
    const VectorXd mean = x.rowwise().mean();
    x.colwise() -= mean;
    VectorXd sd = (x.rowwise().squaredNorm() / static_cast<double>(frames)).cwiseSqrt();
    for (Index r = 0; r < sd.size(); ++r) {
      if (!(sd(r) > 1e-12 * std::abs(mean(r)))) sd(r) = 0;  // constant: it is what it always was
      x.row(r) *= sd(r) > 0 ? 1 / sd(r) : 0;
    }
    // correlations, with a diagonal that keeps them positive definite even with fewer frames than rows
    MatrixXd correlation = gram(x) / static_cast<double>(frames);
    for (Index r = 0; r < sd.size(); ++r) correlation(r, r) = 1 + p_.regularisation;
    Model m;
    m.meta = model_meta("impute", kImputeVersion, write_params(p_), data.x_format());
    m.meta["frames"] = frames;
    m.set("mean", mean);
    m.set("sd", sd);
    m.set("precision", spd_inverse(correlation, context.node, "correlation of the rows", "; set regularisation"));
    return m;
  }

 private:
  ImputeParams p_;
};

}  // namespace

StageInfo info_impute() {
  auto i = trained_info<ImputeStage, ImputeFitter>(
      "impute", "preprocessing",
      "Fills missing rows with what the other rows of the frame let one expect: the conditional mean of a normal "
      "distribution with the mean and covariance of the training frames. Put before a map that needs whole frames, it "
      "lets a bad row be masked while the map runs. The counter filled says how many values are of its making.");
  i.version = kImputeVersion;
  i.paper = "Little, Rubin, Statistical Analysis with Missing Data, 2nd ed., 2002, chapter 11";
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    for (const double most : {0.5, 1.0}) {
      Sample s;
      s.params = Value::object({{"most_missing", most}});
      auto model = std::make_shared<Model>();
      model->meta = model_meta("impute", kImputeVersion, write_params(ImputeParams{}), s.format);
      const Index n = s.format.size();
      MatrixXd precision = 2 * MatrixXd::Identity(n, n);
      for (Index r = 1; r < n; ++r) precision(r, r - 1) = precision(r - 1, r) = -0.9;
      model->set("mean", VectorXd(VectorXd::LinSpaced(n, -1, 1)));
      model->set("sd", VectorXd(VectorXd::LinSpaced(n, 0.5, 2)));
      model->set("precision", precision);
      s.model = std::move(model);
      for (auto& each : both_scalars(s)) all.push_back(std::move(each));
    }
    return all;
  };
  return i;
}

}  // namespace percept
