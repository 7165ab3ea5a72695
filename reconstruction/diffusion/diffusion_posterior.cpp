#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "core/error.h"
#include "core/registry.h"
#include "numerics/apply.h"
#include "numerics/linalg.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/draw_frames.h"
#include "reconstruction/diffusion/posterior_images.h"
#include "reconstruction/linear_measurement.h"

namespace percept {
namespace {

using namespace diffusion;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr const char* kDiffusionPosterior = "diffusion_posterior";
constexpr int kDiffusionPosteriorVersion = 1;

struct DiffusionPosteriorParams : DrawingParams {
  std::vector<double> alpha = {1.0, 10.0, 100.0, 1000.0, 10000.0};
  std::int64_t inner_folds = 5;
  std::string noise = "shrunk";
  static constexpr auto fields() {
    using P = DiffusionPosteriorParams;
    return std::tuple_cat(
        std::tuple{
            field("alpha", &P::alpha, "1",
                  "Ridge penalty of the regression of the rows on the images; of several the best on inner folds is "
                  "taken.",
                  0.0, 1e15),
            field("inner_folds", &P::inner_folds, "1",
                  "Folds for the choice of alpha and for the noise, which is measured on frames left out: contiguous "
                  "stretches, or whole groups.",
                  2.0, 1000.0),
            choice("noise", &P::noise,
                   "Noise of the rows: shrunk (correlated, shrunk towards independence) or diagonal (independent).",
                   "shrunk|diagonal"),
            choice<P>("sampler", &P::sampler,
                      "The posterior sampler that draws images. pcn is exact for the prior that its few levels make; "
                      "the others take less time and an approximation.",
                      "daps|ddnm|diffpir|dps|pcn")},
        drawing_fields<P>());
  }
};

/// What the rows of a frame say of the image, in as many independent numbers of unit noise as they hold:
/// z = seen (x - x_mean), z = A (image - y_mean) + n. Nothing is lost: what is left out is noise alone.
struct Whitened {
  MatrixXd seen, a;
};
Whitened whitened(const LinearMeasurement& m, const std::string& where) {
  MatrixXd whiten, g;
  if (m.noise.cols() == 1) {
    whiten = m.noise.col(0).cwiseSqrt().cwiseInverse().asDiagonal();
  } else {
    MatrixXd factor = m.noise;
    if (!cholesky_in_place(factor))
      throw DataError(where, "noise", "a positive definite covariance", "rows that depend on each other");
    whiten = factor.triangularView<Eigen::Lower>().solve(MatrixXd::Identity(factor.rows(), factor.rows()));
  }
  g = product(whiten, m.weights);
  const bool wide = g.rows() <= g.cols();
  const Eigensystem e = eigensystem(wide ? gram(g) : gram(g.transpose()));
  const Index n = e.values.size();
  const double most = e.values(n - 1);
  if (!(most > 0))
    throw DataError(where, "regression of the rows on the images", "rows that depend on the image", "no dependence");
  Index r = 0;
  while (r < n && e.values(n - 1 - r) > 1e-10 * most) ++r;
  const MatrixXd vectors = e.vectors.rightCols(r);
  if (wide) return {product(vectors.transpose(), whiten), product(vectors.transpose(), g)};
  const VectorXd s = e.values.tail(r).cwiseSqrt();
  return {s.cwiseInverse().asDiagonal() * product(product(g, vectors).transpose(), whiten),
          s.asDiagonal() * vectors.transpose()};
}

/// Images are drawn item by item, so that what one gives does not depend on its neighbours.
class DiffusionPosteriorStage final : public Typed<DiffusionPosteriorStage> {
 public:
  using Params = DiffusionPosteriorParams;
  DiffusionPosteriorStage(const Params& params, const Model& model)
      : params_(params), model_((require_model(model, kDiffusionPosterior, kDiffusionPosteriorVersion), model)),
        prior_(read_prior(model, std::string("model of ") + kDiffusionPosterior)), seen_(model.matrix("seen")),
        x_mean_(model.vector("x_mean", seen_.cols())), offset_(model.vector("offset", seen_.rows())),
        a_(model.matrix("a", seen_.rows(), prior_.shape().size())), rows_(names_of(model.meta, "input_rows")) {
    if (static_cast<Index>(rows_.size()) != seen_.cols())
      throw DataError(std::string("model of ") + kDiffusionPosterior, "input_rows",
                      fmt::format("{} names", seen_.cols()), fmt::format("{}", rows_.size()));
  }

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    order_ = row_order(rows_, named_rows(in), context);
    if (in.axis == Axis::time) require_rate(model_, in, context);
    images_.emplace(params_, prior_, std::make_unique<MatrixOperator>(a_), 1, context);
    frame_.resize(seen_.cols());
    missing_ = &context.counter("missing");
    failed_ = &context.counter("failed");
    StreamFormat out = in;
    out.parts =
        PosteriorImages::parts(params_.samples, prior_.shape().image, model_.meta.get("image_unit", std::string("1")));
    return out;
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out) noexcept {
    const auto complete = [&](Index k) {
      const T* x = in.frame(k);
      for (Index i = 0; i < frame_.size(); ++i)
        frame_(i) = static_cast<double>(x[order_[static_cast<std::size_t>(i)]]) - x_mean_(i);
      return frame_.allFinite();
    };
    return draw_frames(block, in, output, out, *missing_, *failed_, complete, [&](std::int64_t key) -> const VectorXd& {
      return images_->draw(key, seen_ * frame_ + offset_);
    });
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .per_frame = true}; }

 private:
  Params params_;
  Model model_;
  ImagePrior prior_;
  MatrixXd seen_;
  VectorXd x_mean_, offset_;
  MatrixXd a_;
  std::vector<std::string> rows_;
  std::vector<Index> order_;
  std::optional<PosteriorImages> images_;
  VectorXd frame_;
  Counter *missing_ = nullptr, *failed_ = nullptr;
};

class DiffusionPosteriorFitter final : public Fitter {
 public:
  explicit DiffusionPosteriorFitter(DiffusionPosteriorParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    const Model* given = context.prior(ImagePrior::kStage);
    if (!given) throw ConfigError(context.node + ".prior", "", "a prior of diffusion_prior: the images that are drawn");
    const ImagePrior prior(*given);
    const auto& target = data.y_format().parts;
    if (target.size() != 1 || target[0].shape != prior.shape().image)
      throw DataError(context.node, "target",
                      fmt::format("images of the prior's shape, {{{}}}", fmt::join(prior.shape().image, ", ")),
                      data.y_format().describe());
    const LinearMeasurement measured =
        fit_linear_measurement(data, {p_.alpha, p_.inner_folds, p_.noise == "shrunk"}, context);
    const Whitened w = whitened(measured, context.node);

    Model m;
    m.meta =
        model_meta(kDiffusionPosterior, kDiffusionPosteriorVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["input_rows"] = Value(named_rows(data.x_format()));
    m.meta["image_unit"] = target[0].unit;
    m.meta["frames"] = measured.frames;
    m.meta["dropped_frames"] = measured.dropped;
    m.meta["alpha"] = measured.alpha;
    m.meta["noise_shrinkage"] = measured.noise_weight;
    store_prior(m, *given);
    m.set("seen", w.seen);
    m.set("a", w.a);
    m.set("x_mean", measured.x_mean);
    m.set("offset", VectorXd(w.a * measured.y_mean));
    return m;
  }

 private:
  DiffusionPosteriorParams p_;
};

/// Rows that see images of a prior that was not trained: keyed weights.
std::vector<Sample> diffusion_posterior_samples() {
  const KeyedRandom random(1, "diffusion_posterior sample");
  constexpr Index kFrames = 60, kRows = 5;
  const StreamFormat images = item_format({4, 6}, Scalar::f64, "image");
  UnetShape network;
  network.image = images.parts[0].shape;
  network.channels = 8;
  network.blocks = 1;
  const auto prior = std::make_shared<Model>(untrained_prior(network));
  TrainingMatrix data{MatrixXd(kRows, kFrames), MatrixXd(images.size(), kFrames), {}, {}, {}};
  for (Index t = 0; t < kFrames; ++t) {
    for (Index k = 0; k < images.size(); ++k)
      data.y(k, t) = 0.2 + 0.8 * random.normal(t, static_cast<std::uint64_t>(k));
    for (Index i = 0; i < kRows; ++i)
      data.x(i, t) =
          data.y(3 * i, t) - data.y(3 * i + 2, t) + 0.5 * random.normal(t, static_cast<std::uint64_t>(50 + i));
  }
  std::vector<Sample> samples;
  for (const char* sampler : {"daps", "pcn"}) {
    DiffusionPosteriorParams p;
    p.sampler = sampler;
    p.noise = samples.size() % 2 == 0 ? "shrunk" : "diagonal";
    p.levels = 3;
    p.samples = 2;
    p.moves = 3;
    p.pool = 8;
    Context context;
    context.priors = {{"prior", ImagePrior::kStage, prior}};
    Sample sample;
    sample.format = item_format({kRows});
    sample.frames = 8;
    sample.params = write_params(p);
    sample.model =
        std::make_shared<Model>(DiffusionPosteriorFitter(p).fit(MemoryData(sample.format, images, data), context));
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace

StageInfo info_diffusion_posterior() {
  auto i = trained_info<DiffusionPosteriorStage, DiffusionPosteriorFitter>(
      kDiffusionPosterior, "reconstruction",
      "Rows, measured or decoded, are a linear measurement of the image with correlated noise, both learnt from "
      "training images; a posterior sampler draws images that a diffusion model finds likely and that agree with it. "
      "Gives mean, sd, samples and trajectory_variance, large where an image is made up. Of a decoder that gives mean "
      "and sd, take the mean (\"NODE.mean\"). A frame with a "
      "missing row is missing.");
  i.version = kDiffusionPosteriorVersion;
  i.paper =
      "Wang, Yu, Zhang, ICLR 2023 (ddnm); Zhu et al., CVPRW 2023 (diffpir); Chung et al., ICLR 2023 (dps); Zhang et "
      "al., CVPR 2025 (daps); Cotter, Roberts, Stuart, White, Statistical Science 28 (2013) 424 (pcn); Aithal, Maini, "
      "Lipton, Kolter, NeurIPS 2024 (trajectory_variance)";
  i.needs_target = true;
  i.cross_fit = true;
  i.needs_torch = true;
  i.priors = {ImagePrior::kStage};
  i.needs_prior = true;
  i.samples = diffusion_posterior_samples;
  return i;
}

}  // namespace percept
