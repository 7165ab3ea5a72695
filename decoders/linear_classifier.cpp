#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/error.h"
#include "filters/posterior.h"
#include "numerics/apply.h"
#include "numerics/linalg.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kClassifierVersion = 1;

struct ClassifierParams {
  double shrinkage = -1;
  std::string frequency = "training";
  static constexpr auto fields() {
    return std::tuple{
        field("shrinkage", &ClassifierParams::shrinkage, "",
              "Share of a multiple of the identity in the covariance within categories: 0 none, 1 nothing else (the "
              "nearest mean); -1: Ledoit and Wolf's estimate.",
              -1.0, 1.0),
        choice("frequency", &ClassifierParams::frequency,
               "How often categories are expected: as in the training frames (training), or all the same (equal).",
               "training|equal")};
  }
};

/// Scores are linear in the frame; the category is the highest, the probabilities are their softmax.
class ClassifierStage final : public Typed<ClassifierStage> {
 public:
  using Params = ClassifierParams;
  ClassifierStage(const Params&, const Model& model)
      : model_((require_model(model, "linear_classifier", kClassifierVersion), model)),
        weights_(model.matrix("weights")), offset_(model.vector("offset", weights_.rows())),
        x_mean_(model.vector("x_mean", weights_.cols())), category_(model.vector("category", weights_.rows())),
        names_(names_of(model.meta, "categories")), levels_(names_of(model.meta, "levels")), score_(weights_.rows()),
        frame_(weights_.cols()) {
    if (static_cast<Index>(names_.size()) != weights_.rows())
      throw DataError("linear_classifier", "categories", fmt::format("{}", weights_.rows()),
                      fmt::format("{}", names_.size()));
    model_.tensors().clear();
  }

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    order_ = row_order(names_of(model_.meta, "input_rows"), named_rows(in), context);
    if (in.axis == Axis::time) {
      require_time(in, context, "linear_classifier");
      require_rate(model_, in, context);
    }
    missing_ = &context.counter("missing");
    Part category{.name = "category", .shape = {1}, .unit = "1", .rows = {}, .levels = levels_};
    category.rows.push_back({.name = "category", .kind = "category", .unit = "", .position = {}});
    Part probability{.name = "probability", .shape = {weights_.rows()}, .unit = "1", .rows = {}, .levels = {}};
    for (auto& name : names_) probability.rows.push_back({.name = name, .kind = "", .unit = "", .position = {}});
    StreamFormat out = in;
    out.parts = {std::move(category), std::move(probability)};
    return out;
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out) noexcept {
    const Index n = weights_.cols(), k = weights_.rows();
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      T* y = out.frame(t);
      bool gone = false;
      for (Index i = 0; i < n; ++i) {
        frame_(i) = static_cast<double>(x[order_[static_cast<std::size_t>(i)]]) - x_mean_(i);
        gone = gone || !std::isfinite(frame_(i));
      }
      if (gone) {
        missing_->add();
        std::fill_n(y, 1 + k, std::numeric_limits<T>::quiet_NaN());
        continue;
      }
      column_product(weights_, frame_.data(), score_.data());
      Index best = 0;
      for (Index c = 0; c < k; ++c) {
        score_(c) += offset_(c);
        if (score_(c) > score_(best)) best = c;
      }
      const double most = score_(best);
      double sum = 0;
      for (Index c = 0; c < k; ++c) sum += score_(c) = std::exp(score_(c) - most);
      y[0] = static_cast<T>(category_(best));
      for (Index c = 0; c < k; ++c) y[1 + c] = static_cast<T>(score_(c) / sum);
    }
    if (output.keys) std::copy(block.keys.begin(), block.keys.end(), output.keys);
    return in.frames;
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  Model model_;                          ///< without arrays
  MatrixXd weights_;                     ///< categories x rows
  VectorXd offset_, x_mean_, category_;  ///< score = offset + weights (x - x_mean); the number of each category
  std::vector<std::string> names_, levels_;
  VectorXd score_, frame_;
  std::vector<Index> order_;
  Counter* missing_ = nullptr;
};

/// Ledoit and Wolf's share of the identity for residuals r (rows x frames) of mean zero, J. Multivariate Analysis 88
/// (2004) 365: the error of the covariance's entries, against how far it is from a multiple of the identity.
double ledoit_wolf(const MatrixXd& r, double mean_variance) {
  const auto n = static_cast<double>(r.cols()), p = static_cast<double>(r.rows());
  const MatrixXd g = r.rows() < r.cols() ? gram(r) : gram(r.transpose());
  const double squared = g.squaredNorm() / (n * n);  // of the covariance
  const double distance = squared - p * mean_variance * mean_variance;
  const double fourth = r.colwise().squaredNorm().array().square().sum();
  const double error = (fourth / n - squared) / n;
  return distance > 0 ? std::clamp(error / distance, 0.0, 1.0) : 1.0;
}

class ClassifierFitter final : public Fitter {
 public:
  explicit ClassifierFitter(ClassifierParams p) : p_(std::move(p)) {
    if (p_.shrinkage < 0 && p_.shrinkage != -1)
      throw ConfigError("shrinkage", fmt::format("{}", p_.shrinkage), "-1, or 0 to 1");
  }

  Model fit(const Data& data, Context& context) override {
    if (data.y_format().size() != 1)
      throw DataError(context.node, "target", "one category a frame",
                      fmt::format("{} outputs", data.y_format().size()));
    TrainingMatrix t = data.gather();
    const Index dropped = drop_missing(t), n = t.x.cols(), rows = t.x.rows();
    if (dropped > 0) context.warn(fmt::format("{} training frames with missing values left out", dropped));
    std::map<double, std::vector<Index>> members;
    for (Index k = 0; k < n; ++k) members[t.y(0, k)].push_back(k);
    const auto categories = static_cast<Index>(members.size());
    if (categories < 2 || n <= categories)
      throw DataError(context.node, "training frames", "at least two categories, and more frames than categories",
                      fmt::format("{} of {}", n, categories));
    const auto& target = data.y_format().parts[0];
    MatrixXd means(rows, categories), residual = t.x;
    VectorXd prior(categories), number(categories);
    std::vector<std::string> names;
    Index c = 0;
    for (auto& [value, frames] : members) {
      means.col(c) = t.x(Eigen::all, frames).rowwise().mean();
      for (const Index k : frames) residual.col(k) -= means.col(c);
      prior(c) = p_.frequency == "equal" ? 1.0 : static_cast<double>(frames.size());
      number(c) = value;
      const auto level = static_cast<std::size_t>(value);
      const bool named = value >= 0 && value == std::floor(value) && level < target.levels.size();
      names.push_back(named ? target.levels[level] : fmt::format("{}", value));
      ++c;
    }
    const VectorXd x_mean = t.x.rowwise().mean();
    means.colwise() -= x_mean;
    const double variance = residual.squaredNorm() / static_cast<double>(n * rows);
    if (!(variance > 0))
      throw DataError(context.node, "training frames", "rows that vary within categories", "constant rows");
    const double share = p_.shrinkage < 0 ? ledoit_wolf(residual, variance) : p_.shrinkage;
    const MatrixXd weights = divided(means, residual, share, variance, context.node);

    Model m;
    m.meta = model_meta("linear_classifier", kClassifierVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["categories"] = Value(names);
    m.meta["levels"] = Value(target.levels);
    m.meta["frames"] = n;
    m.meta["dropped_frames"] = dropped;
    m.meta["shrinkage"] = share;
    VectorXd offset(categories);
    for (Index k = 0; k < categories; ++k)
      offset(k) = std::log(prior(k) / prior.sum()) - 0.5 * weights.row(k).dot(means.col(k));
    m.set("weights", weights);
    m.set("offset", offset);
    m.set("x_mean", x_mean);
    m.set("category", number);
    return m;
  }

 private:
  /// meansᵀ C⁻¹ with C = (1 - share) R Rᵀ / n + share variance I; through the smaller of rows and frames.
  static MatrixXd divided(const MatrixXd& means, const MatrixXd& r, double share, double variance,
                          const std::string& where) {
    const double ridge = share * variance, scale = (1 - share) / static_cast<double>(r.cols());
    const char* hint = "; raise shrinkage";
    if (r.rows() <= r.cols() || ridge == 0) {
      MatrixXd c = scale * gram(r);
      c.diagonal().array() += ridge;
      return solve_normal(means.transpose(), c, ridge > 0 ? c.rows() : r.cols() - means.cols(), where, hint);
    }
    if (scale == 0) return means.transpose() / ridge;
    MatrixXd inner = gram(r.transpose());
    inner.diagonal().array() += ridge / scale;
    const MatrixXd seen = product(means.transpose(), r);
    return (means.transpose() - cross(solve_normal(seen, inner, inner.rows(), where, hint), r)) / ridge;
  }
  ClassifierParams p_;
};

}  // namespace

StageInfo info_linear_classifier() {
  auto i = trained_info<ClassifierStage, ClassifierFitter>(
      "linear_classifier", "decoders",
      "Linear discriminant analysis with a shrunk covariance: category (the likeliest) and probability of each. Put a "
      "zscore before it, since it shrinks all rows to one variance. A frame with a missing row is missing.");
  i.version = kClassifierVersion;
  i.paper = "Fisher, Annals of Eugenics 7 (1936) 179; Ledoit, Wolf, J. Multivariate Analysis 88 (2004) 365";
  i.needs_target = true;
  i.real_time = true;
  i.samples = [] {
    const KeyedRandom random(1, "sample");
    const Index n = 60;
    std::vector<Sample> all;
    for (const auto& format : {time_format(5, 100.0), item_format({5})}) {
      TrainingMatrix data{MatrixXd(5, n), MatrixXd(1, n), {}, {}, {}};
      for (Index t = 0; t < n; ++t) {
        data.y(0, t) = static_cast<double>(t % 3);
        for (Index k = 0; k < 5; ++k)
          data.x(k, t) = (t % 3 == k ? 2.0 : 0.0) + random.normal(t, static_cast<std::uint64_t>(k));
      }
      StreamFormat target = item_format({1}, Scalar::f64, "category");
      target.parts[0].levels = {"a", "b", "c"};
      Context context;
      Sample s;
      s.format = format;
      s.model = std::make_shared<Model>(ClassifierFitter({}).fit(MemoryData(format, target, std::move(data)), context));
      add_samples(all, s);
    }
    return all;
  };
  return i;
}

}  // namespace percept
