#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "core/error.h"
#include "numerics/apply.h"
#include "numerics/ridge.h"
#include "preprocessing/rows.h"

namespace percept {
namespace {
constexpr int kSelectVersion = 1;

struct SelectPredictedParams {
  std::int64_t keep = 500;
  std::vector<double> alpha = {1.0, 10.0, 100.0, 1000.0};
  std::int64_t inner_folds = 0;
  static constexpr auto fields() {
    return std::tuple{
        field("keep", &SelectPredictedParams::keep, "rows",
              "How many rows are kept, all where there are no more: those that the target predicts best on training "
              "frames left out.",
              1, 100000000),
        field("alpha", &SelectPredictedParams::alpha, "1",
              "Penalty of the ridge map from target to row; of several the best for each row.", 0.0, 1e15),
        field("inner_folds", &SelectPredictedParams::inner_folds, "1",
              "Folds of the training frames that are left out in turn: contiguous stretches, or whole groups; 0 leaves "
              "one frame out.",
              0.0, 1000.0)};
  }
};

/// Gives the rows that its model names.
class SelectPredicted final : public Typed<SelectPredicted> {
 public:
  using Params = SelectPredictedParams;
  SelectPredicted(const Params&, const Model& model)
      : model_((require_model(model, "select_predicted", kSelectVersion), model)) {}

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_frames(in, context, "select_predicted");
    // where each row of the model lies on this edge
    const auto order = row_order(model_.input_rows(), named_rows(in), context);
    const auto channels = channels_of(in);
    const Eigen::VectorXd kept = model_.vector("kept");
    kept_.clear();
    Part part{.name = in.parts.size() == 1 ? in.parts[0].name : "x",
              .shape = {kept.size()},
              .unit = common_unit(channels),
              .rows = {},
              .levels = {}};
    for (const double k : kept) {
      if (!(k >= 0 && k < static_cast<double>(order.size())))
        throw DataError(context.node, "kept", fmt::format("rows below {}", order.size()), fmt::format("{}", k));
      kept_.push_back(order[static_cast<std::size_t>(k)]);
      part.rows.push_back(channels[static_cast<std::size_t>(kept_.back())]);
    }
    StreamFormat out = in;
    out.parts = {std::move(part)};
    return out;
  }
  template <class T>
  Index run(const Block& b, FrameSpan<const T> in, Output& o, FrameSpan<T> out) noexcept {
    return take_rows(kept_, b, in, o, out);
  }
  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  Model model_;
  std::vector<Index> kept_;
};

class SelectPredictedFitter final : public Fitter {
 public:
  explicit SelectPredictedFitter(SelectPredictedParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    TrainingMatrix t = data.gather();
    // a row that is not there in every training frame is not chosen; a frame without a target tells nothing
    std::vector<Index> frames, rows;
    for (Index k = 0; k < t.x.cols(); ++k)
      if (t.y.col(k).allFinite()) frames.push_back(k);
    Eigen::MatrixXd x = t.x(Eigen::all, frames), y = t.y(Eigen::all, frames);
    for (Index r = 0; r < x.rows(); ++r)
      if (x.row(r).allFinite() && x.row(r).maxCoeff() > x.row(r).minCoeff()) rows.push_back(r);
    if (rows.empty())
      throw DataError(context.node, "training frames", "a row that varies and is never missing", "none");
    const bool categories = data.y_format().parts.size() == 1 && !data.y_format().parts[0].levels.empty();
    if (categories) y = indicators(y, context);
    std::vector<std::int32_t> folds;
    if (p_.inner_folds > 0) {
      std::vector<std::int32_t> groups;
      for (const Index k : frames) groups.push_back(t.groups.empty() ? 0 : t.groups[static_cast<std::size_t>(k)]);
      folds = inner_folds(groups, static_cast<Index>(frames.size()), p_.inner_folds);
    }
    std::vector<double> alpha = p_.alpha;
    if (alpha.size() == 1) alpha.push_back(alpha[0]);  // the errors left out are wanted for one, too
    const Eigen::MatrixXd voxels = x(rows, Eigen::all);
    const RidgeFit fit = fit_ridge(y, voxels, {alpha, true, true, folds}, context.node);
    Eigen::VectorXd r2 = Eigen::VectorXd::Constant(x.rows(), -std::numeric_limits<double>::infinity());
    const Eigen::VectorXd mean = voxels.rowwise().mean();
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto k = static_cast<Index>(i);
      const double variance = (voxels.row(k).array() - mean(k)).square().mean();
      r2(rows[i]) = 1 - fit.error.col(k).minCoeff() / variance;
    }
    std::sort(rows.begin(), rows.end(), [&](Index a, Index b) { return r2(a) > r2(b) || (r2(a) == r2(b) && a < b); });
    rows.resize(std::min<std::size_t>(rows.size(), static_cast<std::size_t>(p_.keep)));
    const double least = r2(rows.back());
    std::sort(rows.begin(), rows.end());
    Model m;
    m.meta = model_meta("select_predicted", kSelectVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["least_r2"] = least;
    Eigen::VectorXd kept(static_cast<Index>(rows.size()));
    for (std::size_t i = 0; i < rows.size(); ++i) kept(static_cast<Index>(i)) = static_cast<double>(rows[i]);
    m.set("kept", Eigen::MatrixXd(kept));
    m.set("r2", Eigen::MatrixXd(r2.cwiseMax(-1e300)));
    return m;
  }

 private:
  /// One row a category that occurs, 1 where a frame is of it.
  static Eigen::MatrixXd indicators(const Eigen::MatrixXd& y, const Context& context) {
    const std::set<double> seen(y.data(), y.data() + y.size());
    if (seen.size() < 2)
      throw DataError(context.node, "target", "at least two categories in the training frames",
                      fmt::format("{}", seen.size()));
    Eigen::MatrixXd one = Eigen::MatrixXd::Zero(static_cast<Index>(seen.size()), y.cols());
    for (Index k = 0; k < y.cols(); ++k) one(std::distance(seen.begin(), seen.find(y(0, k))), k) = 1;
    return one;
  }
  SelectPredictedParams p_;
};
}  // namespace

StageInfo info_select_predicted() {
  auto i = trained_info<SelectPredicted, SelectPredictedFitter>(
      "select_predicted", "preprocessing",
      "Keeps the rows that the target predicts best: voxel selection. A ridge map from the target (of categories, one "
      "indicator each) to every row is judged on training frames left out, by 1 - squared error / variance. Rows that "
      "are constant or ever missing in the training frames are not kept.");
  i.version = kSelectVersion;
  i.paper = "Naselaris, Kay, Nishimoto, Gallant, NeuroImage 56 (2011) 400";
  i.needs_target = true;
  i.real_time = true;
  i.samples = [] {
    Sample s;
    auto model = std::make_shared<Model>();
    model->meta = model_meta("select_predicted", kSelectVersion, write_params(SelectPredictedParams{}), s.format);
    model->set("kept", Eigen::MatrixXd(Eigen::Vector3d(0, 2, 3)));
    model->set("r2", Eigen::MatrixXd(Eigen::VectorXd::LinSpaced(5, 0.1, 0.5)));
    s.model = model;
    return both_scalars(s);
  };
  return i;
}

}  // namespace percept
