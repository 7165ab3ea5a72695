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
#include "reconstruction/diffusion/encoding_operator.h"
#include "reconstruction/diffusion/posterior_images.h"
#include "reconstruction/image/encoding_fit.h"

namespace percept {
namespace {

using namespace diffusion;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr const char* kEncodingDiffusion = "encoding_diffusion";
constexpr int kEncodingDiffusionVersion = 1;

struct EncodingDiffusionParams : EncodingOptions, DrawingParams {
  static constexpr auto fields() {
    using P = EncodingDiffusionParams;
    return std::tuple_cat(encoding_fields<P>(), drawing_fields<P>());
  }
  EncodingDiffusionParams() { sampler = "pcn"; }
};

class EncodingDiffusionStage final : public Typed<EncodingDiffusionStage> {
 public:
  using Params = EncodingDiffusionParams;
  EncodingDiffusionStage(const Params& params, const Model& model)
      : params_(params), model_((require_model(model, kEncodingDiffusion, kEncodingDiffusionVersion), model)),
        prior_(read_prior(model, kWhere)) {
    const auto fitted = read_params<Params>(model.meta.at("params"), std::string(kWhere) + ": params");
    const auto [height, width] = image_size(prior_.shape().image, kWhere);
    features_.emplace(height, width, fitted.contrast());
    likelihood_ = read_encoding(model, features_->size(), kWhere);
    rows_ = names_of(model.meta, "input_rows");
    low_ = model.number("lowest");
    high_ = model.number("highest");
    beta_ = model.number("beta");
    if (!(beta_ > 0) || !(high_ > low_))
      throw DataError(kWhere, "beta, lowest, highest", "beta above zero, a range of image values",
                      fmt::format("{}, {}, {}", beta_, low_, high_));
  }

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    order_ = row_order(rows_, named_rows(in), context);
    if (in.axis == Axis::time) require_rate(model_, in, context);
    auto seen = std::make_unique<EncodingOperator>(*features_, likelihood_.information, low_, high_);
    to_measurement_ = seen->measurement_of_linear();
    response_.resize(static_cast<Index>(likelihood_.voxels.size()));
    images_.emplace(params_, prior_, std::move(seen), 1 / std::sqrt(beta_), context);
    missing_ = &context.counter("missing");
    failed_ = &context.counter("failed");
    StreamFormat out = in;
    out.parts =
        PosteriorImages::parts(params_.samples, prior_.shape().image, model_.meta.get("image_unit", std::string("1")));
    return out;
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out) noexcept {
    const auto complete = [&](Index t) {
      for (Index k = 0; k < response_.size(); ++k) {
        const Index row = likelihood_.voxels[static_cast<std::size_t>(k)];
        response_(k) = static_cast<double>(in.frame(t)[order_[static_cast<std::size_t>(row)]]);
      }
      return response_.allFinite();
    };
    return draw_frames(block, in, output, out, *missing_, *failed_, complete, [&](std::int64_t key) -> const VectorXd& {
      return images_->draw(key, to_measurement_ * likelihood_.linear(response_));
    });
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .per_frame = true}; }

 private:
  static constexpr const char* kWhere = "model of encoding_diffusion";
  Params params_;
  Model model_;
  ImagePrior prior_;
  std::optional<ContrastFeatures> features_;
  EncodingLikelihood likelihood_;
  double low_ = 0, high_ = 1, beta_ = 1;
  std::vector<std::string> rows_;
  std::vector<Index> order_;
  MatrixXd to_measurement_;
  VectorXd response_;
  std::optional<PosteriorImages> images_;
  Counter *missing_ = nullptr, *failed_ = nullptr;
};

class EncodingDiffusionFitter final : public Fitter {
 public:
  explicit EncodingDiffusionFitter(EncodingDiffusionParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    const Model* drawn = context.prior(ImagePrior::kStage);
    const Model* images = context.prior("image_library");
    if (!drawn || !images)
      throw ConfigError(context.node + ".prior", "",
                        "a prior of diffusion_prior, whose images are drawn, and one of image_library, by which the "
                        "power of the likelihood is chosen");
    const ImagePrior prior(*drawn);
    const ImageLibrary library = read_image_library(*images);
    if (library.shape != prior.shape().image)
      throw ConfigError(context.node + ".prior", fmt::format("{{{}}}", fmt::join(library.shape, ", ")),
                        fmt::format("images of the same shape, {{{}}}", fmt::join(prior.shape().image, ", ")));
    const EncodingFit fitted = fit_encoding(data, library, p_, context);

    Model m;
    m.meta =
        model_meta(kEncodingDiffusion, kEncodingDiffusionVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["input_rows"] = Value(data.x_format().row_names());
    m.meta["image_unit"] = data.y_format().parts.size() == 1 ? data.y_format().parts[0].unit : std::string("1");
    m.meta["frames"] = fitted.frames;
    m.meta["dropped_frames"] = fitted.dropped;
    store_encoding(m, fitted);
    m.set("lowest", library.images.minCoeff());
    m.set("highest", library.images.maxCoeff());
    store_prior(m, *drawn);
    return m;
  }

 private:
  EncodingDiffusionParams p_;
};

/// Voxels that see blobs; the prior was not trained: keyed weights.
std::vector<Sample> encoding_diffusion_samples() {
  constexpr Index kSide = 12, kPixels = kSide * kSide, kImages = 12, kFrames = 24, kRows = 8;
  const KeyedRandom random(1, "encoding_diffusion sample");
  const auto blob = [&](std::int64_t key) {
    VectorXd image(kPixels);
    const double y = 3 + 6 * random.uniform(key, 0), x = 3 + 6 * random.uniform(key, 1);
    for (Index k = 0; k < kPixels; ++k) {
      const double dy = static_cast<double>(k / kSide) - y, dx = static_cast<double>(k % kSide) - x;
      image(k) = std::exp(-(dy * dy + dx * dx) / 4);
    }
    return image;
  };
  const StreamFormat images = item_format({kSide, kSide}, Scalar::f64, "image");
  auto library = std::make_shared<Model>();
  library->meta = model_meta("image_library", 1, Value::table(), images);
  library->meta["image_shape"] = Value(images.parts[0].shape);
  MatrixXd all(kPixels, kImages);
  for (Index k = 0; k < kImages; ++k) all.col(k) = blob(100 + k);
  store_images(*library, all);
  UnetShape network;
  network.image = images.parts[0].shape;
  network.channels = 8;
  network.blocks = 1;
  const auto prior = std::make_shared<Model>(untrained_prior(network));
  TrainingMatrix data{MatrixXd(kRows, kFrames), MatrixXd(kPixels, kFrames), {}, {}, {}};
  for (Index t = 0; t < kFrames; ++t) {
    data.y.col(t) = blob(t);
    for (Index r = 0; r < kRows; ++r)
      data.x(r, t) = data.y(18 * r + 5, t) + 0.2 * random.normal(t, static_cast<std::uint64_t>(10 + r));
  }
  std::vector<Sample> samples;
  struct How {
    std::int64_t pool, moves;
  };
  for (const How how : {How{0, 3}, How{8, 3}, How{8, 0}}) {
    EncodingDiffusionParams p;
    p.voxels = 6;
    p.field_step_px = 6;
    p.deformed_copies = 1;
    p.inner_folds = 2;
    p.beta = {0.5};
    p.levels = 3;
    p.moves = how.moves;
    p.pool = how.pool;
    p.samples = 2;
    Context context;
    context.priors = {{"library", "image_library", library}, {"prior", ImagePrior::kStage, prior}};
    Sample sample;
    sample.format = item_format({kRows});
    sample.frames = 8;
    sample.params = write_params(p);
    sample.model =
        std::make_shared<Model>(EncodingDiffusionFitter(p).fit(MemoryData(sample.format, images, data), context));
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace

StageInfo info_encoding_diffusion() {
  auto i = trained_info<EncodingDiffusionStage, EncodingDiffusionFitter>(
      kEncodingDiffusion, "reconstruction",
      "The encoding model of encoding_posterior, whose likelihood steers a sampler: images are drawn that a diffusion "
      "model finds likely and that explain the response. A library of images serves to choose the power of the "
      "likelihood on inner folds. Gives mean, sd, samples and trajectory_variance, large where an image is made up. A "
      "frame with a missing row that is used is missing.");
  i.version = kEncodingDiffusionVersion;
  i.paper =
      "Naselaris, Prenger, Kay, Oliver, Gallant, Neuron 63 (2009) 902; Cotter, Roberts, Stuart, White, Statistical "
      "Science 28 (2013) 424; Aithal, Maini, Lipton, Kolter, NeurIPS 2024 "
      "(trajectory_variance)";
  i.needs_target = true;
  i.needs_torch = true;
  i.priors = {ImagePrior::kStage, "image_library"};
  i.needs_prior = true;
  i.samples = encoding_diffusion_samples;
  return i;
}

}  // namespace percept
