#include "numerics/pca.h"

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
constexpr int kPcaVersion = 1;

struct PcaParams {
  std::int64_t components = 0;
  double explained = 0.95;
  bool whiten = false;
  static constexpr auto fields() {
    return std::tuple{
        field("components", &PcaParams::components, "", "How many components; 0: as many as `explained` needs.", 0,
              1e6),
        field(
            "explained", &PcaParams::explained, "",
            "Least part of the training frames' variance that the components hold together; used when components = 0.",
            0.0, 1.0),
        field("whiten", &PcaParams::whiten, "",
              "Divide each component by its standard deviation in the training frames.")};
  }
};

/// y = W (x - mean), summed row by row. Where rows are missing (set M), the y whose picture W' y is nearest to the rows
/// that are there: (I - W_M W_M') y = W (x - mean), missing entries of x - mean being 0, since W W' = I.
class PcaStage final : public Typed<PcaStage> {
 public:
  using Params = PcaParams;
  PcaStage(Params p, const Model& model) : p_(p), model_(model) {}
  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_frames(in, context, "pca");
    const auto at = row_order(model_.input_rows(), named_rows(in), context);
    const Eigen::MatrixXd w = model_.matrix("components", -1, in.size());
    const Index k = w.rows();
    weights_.resize(k, in.size());
    mean_.resize(in.size());
    weights_(Eigen::all, at) = w;
    mean_(at) = model_.vector("mean", in.size());
    scale_ = Eigen::VectorXd::Ones(k);
    if (p_.whiten) {
      const auto variance = model_.vector("variance", k);
      require((variance.array() > 0).all(), context, "whiten", "true", "components that all have variance");
      scale_ = variance.cwiseSqrt().cwiseInverse();
    }
    centred_.resize(in.size());
    y_.resize(k);
    there_.resize(k, k);
    Part part{
        .name = "pca", .shape = {k}, .unit = p_.whiten ? "1" : common_unit(channels_of(in)), .rows = {}, .levels = {}};
    for (Index i = 0; i < k; ++i) {
      Channel c;
      c.name = fmt::format("pc{}", i + 1);
      part.rows.push_back(std::move(c));
    }
    StreamFormat out = in;
    out.parts = {std::move(part)};
    return out;
  }
  template <class T>
  Index run(const Block& b, FrameSpan<const T> in, Output& o, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      bool missing = false;
      for (Index r = 0; r < in.rows; ++r) {
        const bool gone = std::isnan(x[r]);
        centred_[r] = gone ? 0 : static_cast<double>(x[r]) - mean_[r];
        missing |= gone;
      }
      column_product(weights_, centred_.data(), y_.data());
      if (missing) leave_out(x);
      T* y = out.frame(t);
      for (Index i = 0; i < y_.size(); ++i) y[i] = static_cast<T>(y_[i] * scale_[i]);
    }
    if (o.keys) std::copy(b.keys.begin(), b.keys.end(), o.keys);
    return in.frames;
  }
  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  template <class T>
  void leave_out(const T* x) noexcept {
    const Index k = y_.size();
    there_.setIdentity();
    for (Index r = 0; r < weights_.cols(); ++r)
      if (std::isnan(x[r]))
        for (Index j = 0; j < k; ++j)
          for (Index i = j; i < k; ++i) there_(i, j) -= weights_(i, r) * weights_(j, r);
    bool enough = cholesky_in_place(there_);
    // pivots are between 0 and 1: what is left of each direction without the missing rows
    for (Index i = 0; i < k; ++i) enough = enough && there_(i, i) * there_(i, i) > kLeast;
    if (!enough) {
      y_.setConstant(std::numeric_limits<double>::quiet_NaN());
      return;
    }
    for (Index i = 0; i < k; ++i) {
      for (Index j = 0; j < i; ++j) y_[i] -= there_(i, j) * y_[j];
      y_[i] /= there_(i, i);
    }
    for (Index i = k - 1; i >= 0; --i) {
      for (Index j = i + 1; j < k; ++j) y_[i] -= there_(j, i) * y_[j];
      y_[i] /= there_(i, i);
    }
  }

  static constexpr double kLeast = 0.01;
  Params p_;
  Model model_;
  Eigen::MatrixXd weights_;  ///< components x rows
  Eigen::VectorXd mean_, scale_;
  Eigen::VectorXd centred_, y_;  ///< room for one frame
  Eigen::MatrixXd there_;        ///< room for I - W_M W_M'
};

class PcaFitter final : public Fitter {
 public:
  explicit PcaFitter(PcaParams p) : p_(p) {}
  Model fit(const Data& data, Context& context) override {
    const auto& format = data.x_format();
    const Index rows = format.size();
    Eigen::MatrixXd x = data.gather().x;
    // rows that were never there (masked) get no weight; then frames that miss any other row are left out
    std::vector<Index> used;
    const auto names = format.row_names();
    for (Index r = 0; r < rows; ++r) {
      if (x.row(r).array().isFinite().any()) used.push_back(r);
      else
        context.warn("row '" + names[static_cast<std::size_t>(r)] +
                     "' has no value in the training frames: it gets no weight");
    }
    std::vector<Index> whole;
    for (Index t = 0; t < x.cols(); ++t)
      if (std::all_of(used.begin(), used.end(), [&](Index r) { return std::isfinite(x(r, t)); })) whole.push_back(t);
    const auto n = static_cast<Index>(whole.size()), most = std::min<Index>(static_cast<Index>(used.size()), n - 1);
    if (most < 1)
      throw DataError(context.node, "training frames", "at least 2 without NaN",
                      fmt::format("{} of {}", used.empty() ? 0 : n, x.cols()));
    x = Eigen::MatrixXd(x(used, whole));
    Pca pca = fit_pca(x, p_.components > 0 ? static_cast<Index>(p_.components) : most, context.node);
    Index k = pca.components.rows();
    if (p_.components == 0) {
      const auto explained = pca.explained();
      double sum = 0;
      k = 0;
      // rounding must not ask for one component more than there are
      while (k < most && sum < p_.explained - 1e-12) sum += explained[k++];
      k = std::max<Index>(k, 1);
    }
    Model m;
    m.meta = model_meta("pca", kPcaVersion, write_params(p_), format);
    m.meta["explained"] = pca.explained().head(k).sum();
    Eigen::VectorXd mean = Eigen::VectorXd::Zero(rows);
    Eigen::MatrixXd components = Eigen::MatrixXd::Zero(k, rows);
    mean(used) = pca.mean;
    components(Eigen::all, used) = pca.components.topRows(k);
    m.set("mean", Eigen::MatrixXd(mean));
    m.set("components", components);
    m.set("variance", Eigen::MatrixXd(pca.variance.head(k)));
    return m;
  }

 private:
  PcaParams p_;
};
}  // namespace

StageInfo info_pca() {
  auto i = trained_info<PcaStage, PcaFitter>(
      "pca", "preprocessing",
      "Principal components of the training frames (those without NaN). A frame with NaN rows gets the components "
      "that fit its other rows best, or NaN when those hold less than a hundredth of some direction.");
  i.version = kPcaVersion;
  i.paper = "Pearson, On lines and planes of closest fit to systems of points in space, 1901";
  i.real_time = true;
  i.samples = [] {
    Sample s;
    auto model = std::make_shared<Model>();
    model->meta = model_meta("pca", kPcaVersion, write_params(PcaParams{}), s.format);
    Eigen::MatrixXd w(2, 5);
    w << 0.5, 0.5, 0.5, 0.5, 0, 0.5, -0.5, 0.5, -0.5, 0;
    model->set("mean", Eigen::MatrixXd(Eigen::VectorXd::LinSpaced(5, -1, 1)));
    model->set("components", w);
    model->set("variance", Eigen::MatrixXd(Eigen::Vector2d(2, 0.5)));
    s.model = model;
    auto all = both_scalars(s);
    s.params = Value::object({{"whiten", true}});
    for (auto& each : both_scalars(s)) all.push_back(each);
    return all;
  };
  return i;
}

}  // namespace percept
