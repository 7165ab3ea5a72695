#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/registry.h"
#include "numerics/apply.h"
#include "reconstruction/diffusion/draw_frames.h"
#include "reconstruction/diffusion/image_autoencoder.h"
#include "reconstruction/diffusion/image_prior.h"
#include "reconstruction/diffusion/posterior_images.h"
#include "reconstruction/diffusion/sampler.h"

namespace percept {
namespace {

using namespace diffusion;

constexpr const char* kLatentDiffusion = "latent_diffusion";
constexpr int kLatentDiffusionVersion = 1;
constexpr const char *kAutoencoderName = "autoencoder", *kLatentPriorName = "prior";

struct LatentDiffusionParams {
  std::vector<std::string> inputs = {"latent", "embedding", "image"};
  double image_weight = 0.5, strength = 0.8, guidance = 2;
  std::string sampler = "ddim";
  std::int64_t levels = 50, samples = 5;
  static constexpr auto fields() {
    using P = LatentDiffusionParams;
    return std::tuple{
        field(
            "inputs", &P::inputs, "",
            "What each part of `from` is, in order. latent: the low-level latent; image: an image of the structure, in "
            "pixels; embedding: what the prior is told; off: it is not looked at, as if it had not been decoded."),
        field("image_weight", &P::image_weight, "1",
              "Where both are there: share of the image's latent in the mean of it and the latent, from which the run "
              "begins.",
              0.0, 1.0),
        field("strength", &P::strength, "1",
              "Share of the levels that is done: 0 gives what the run begins from, 1 a new image. Without latent and "
              "image all of them are.",
              0.0, 1.0),
        field("guidance", &P::guidance, "1",
              "Towards the embedding: 0 leaves it out, 1 is as trained, more pushes harder.", 0.0, 100.0),
        choice("sampler", &P::sampler, "Takes the noise away.", "ddim|euler|heun|gradient_estimation"),
        field("levels", &P::levels, "1", "Noise levels of a whole run, from noise to image.", 1, 100000),
        field("samples", &P::samples, "images", "Images drawn for each frame.", 2, 10000)};
  }
};

class LatentDiffusionStage final : public Typed<LatentDiffusionStage> {
 public:
  using Params = LatentDiffusionParams;
  LatentDiffusionStage(const Params& params, const Model& model)
      : params_(params), prior_(read_prior((require_model(model, kLatentDiffusion, kLatentDiffusionVersion), model),
                                           kWhere, kLatentPriorName)),
        autoencoder_(read_prior(model, kWhere, kAutoencoderName, ImageAutoencoder::kStage)) {
    require_fit(prior_, autoencoder_, kWhere);
    input_values_ = model.meta.at("input_values").as_integer();
  }

  static void require_fit(const ImagePrior& prior, const ImageAutoencoder& autoencoder, const std::string& where) {
    if (prior.shape().image != autoencoder.latent_shape())
      throw ConfigError(where, fmt::format("a diffusion_prior of {{{}}}", fmt::join(prior.shape().image, ", ")),
                        fmt::format("one of the latents of the image_autoencoder, {{{}}} (through = \"...\" of its "
                                    "[[prior]])",
                                    fmt::join(autoencoder.latent_shape(), ", ")));
  }

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    find_parts(in, context);
    autoencoder_.open(context.threads);
    const double scale = prior_.scale();
    sampler_ = make_sampler(
        params_.sampler,
        Value::object({{"steps", params_.levels}, {"sigma_max", 80 * scale}, {"sigma_min", 0.002 * scale}}),
        context.node);
    network_ = prior_.network(context.threads);
    task_.seed = context.seed;
    task_.where = context.node;
    task_.samples = params_.samples;
    if (begins()) {
      task_.start.from = Start::From::image;
      task_.start.strength = params_.strength;
    }
    missing_ = &context.counter("missing");
    failed_ = &context.counter("failed");
    StreamFormat out = in;
    out.parts = PosteriorImages::parts(params_.samples, autoencoder_.image_shape(), "1");
    if (begins()) out.parts.push_back(Part{"initial", autoencoder_.image_shape(), "1", {}, {}});
    given_.resize(in.size());
    return out;
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out) noexcept {
    const auto complete = [&](Index k) {
      given_ = in.eigen().col(k).template cast<float>();
      return finite(latent_) && finite(image_) && finite(embedding_);
    };
    return draw_frames(block, in, output, out, *missing_, *failed_, complete,
                       [&](std::int64_t key) -> const Eigen::VectorXd& { return image_of(key); });
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .per_frame = true}; }

 private:
  static constexpr const char* kWhere = "model of latent_diffusion";
  struct Place {
    Index offset = -1, size = 0;
    bool there() const { return offset >= 0; }
  };
  bool begins() const { return latent_.there() || image_.there(); }
  bool finite(const Place& p) const { return !p.there() || given_.segment(p.offset, p.size).allFinite(); }
  Batch at(const Place& p) const { return given_.segment(p.offset, p.size); }

  void find_parts(const StreamFormat& in, const Context& context) {
    require(in.size() == input_values_, context, "from", in.describe(),
            fmt::format("the {} values that it was fitted with", input_values_));
    require(params_.inputs.size() == in.parts.size(), context, "inputs",
            fmt::format("[{}]", fmt::join(params_.inputs, ", ")),
            fmt::format("a word for each part that comes in: {}", in.describe()));
    latent_ = image_ = embedding_ = {};
    Index offset = 0;
    for (std::size_t i = 0; i < in.parts.size(); offset += in.parts[i++].size()) {
      const auto& part = in.parts[i];
      const auto& word = params_.inputs[i];
      if (word == "off") continue;
      require(word == "latent" || word == "image" || word == "embedding", context, "inputs", "\"" + word + "\"",
              "latent, image, embedding or off");
      Place& place = word == "latent" ? latent_ : word == "image" ? image_ : embedding_;
      require(!place.there(), context, "inputs", "\"" + word + "\" twice", "each word but off once");
      const auto shape = word == "latent"  ? autoencoder_.latent_shape()
                         : word == "image" ? autoencoder_.image_shape()
                                           : std::vector<Index>{prior_.shape().embedding};
      require(word != "embedding" || prior_.shape().embedding > 0, context, "inputs", "\"embedding\"",
              "a diffusion_prior that was trained with condition = \"target\" and an embedding");
      require(part.size() == elements(shape) && (word == "embedding" || part.shape == shape), context, "from",
              fmt::format("'{}' of {{{}}}", part.name, fmt::join(part.shape, ", ")),
              fmt::format("{} of {{{}}}", word, fmt::join(shape, ", ")));
      place = {offset, part.size()};
    }
    require(begins() || embedding_.there(), context, "inputs", "all of them off", "at least one of them on");
  }

  const Eigen::VectorXd& image_of(std::int64_t key) {
    Batch initial;
    if (begins()) {
      // a decoded latent is seldom one of an image: the way through the pixels makes it one (as the authors do)
      Batch z;
      if (latent_.there()) {
        autoencoder_.decode(at(latent_), initial);
        autoencoder_.encode(initial, task_.start.x);
      }
      if (image_.there()) {
        autoencoder_.encode(at(image_), z);
        const auto w = static_cast<float>(latent_.there() ? params_.image_weight : 1);
        if (latent_.there()) task_.start.x = (1 - w) * task_.start.x + w * z;
        else task_.start.x = z;
      }
      autoencoder_.decode(task_.start.x, initial);
    }
    Condition told;
    if (embedding_.there()) told.embedding = at(embedding_);
    const auto denoiser = prior_.denoiser(network_, told, params_.guidance);
    task_.denoiser = denoiser.get();
    task_.keys = {key};
    TrajectorySpread spread(std::max<Index>(2, sampler_->steps() / 4));
    task_.observer = [&](const Step& step) { spread(step); };
    const Draws drawn = draw(*sampler_, task_);
    task_.observer = {};
    Batch images;
    autoencoder_.decode(drawn.x, images);
    const Eigen::VectorXd score = spread.score();
    PosteriorImages::summarise(images.cast<double>(), score.size() > 0 ? score.mean() : 0, out_);
    if (begins()) {
      out_.conservativeResize(out_.size() + initial.rows());
      out_.tail(initial.rows()) = initial.col(0).cast<double>();
    }
    if (!out_.allFinite()) throw Error(task_.where + ": an image is not finite");
    return out_;
  }

  Params params_;
  ImagePrior prior_;
  ImageAutoencoder autoencoder_;
  std::shared_ptr<Network> network_;
  std::unique_ptr<Sampler> sampler_;
  Task task_;
  Place latent_, image_, embedding_;
  Index input_values_ = 0;
  Eigen::VectorXf given_;
  Eigen::VectorXd out_;
  Counter *missing_ = nullptr, *failed_ = nullptr;
};

/// Nothing is learnt: the priors are put together.
class LatentDiffusionFitter final : public Fitter {
 public:
  explicit LatentDiffusionFitter(LatentDiffusionParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    const Model* prior = context.prior(ImagePrior::kStage);
    const Model* autoencoder = context.prior(ImageAutoencoder::kStage);
    if (!prior || !autoencoder)
      throw ConfigError(context.node + ".prior", "",
                        "a prior of image_autoencoder, and one of diffusion_prior trained on its latents");
    LatentDiffusionStage::require_fit(ImagePrior(*prior), ImageAutoencoder(*autoencoder), context.node + ".prior");
    Model m;
    m.meta = model_meta(kLatentDiffusion, kLatentDiffusionVersion, write_params(p_), data.x_format());
    m.meta["input_values"] = data.x_format().size();
    store_prior(m, *prior, kLatentPriorName);
    store_prior(m, *autoencoder, kAutoencoderName);
    return m;
  }

 private:
  LatentDiffusionParams p_;
};

std::vector<Sample> latent_diffusion_samples() {
  VaeShape images;
  images.image = {10, 9};
  images.channels = 8;
  images.latent = 2;
  UnetShape latents;
  latents.image = images.latent_shape();
  latents.patch = 1;
  latents.channels = 8;
  latents.blocks = 1;
  latents.embedding = 3;
  Context context;
  context.priors = {{"latents", ImageAutoencoder::kStage, std::make_shared<Model>(untrained_autoencoder(images))},
                    {"prior", ImagePrior::kStage, std::make_shared<Model>(untrained_prior(latents))}};
  const Part latent{"latent", images.latent_shape(), "1", {}, {}}, image{"image", images.image, "1", {}, {}},
      embedding{"embedding", {3}, "1", {}, {}};
  std::vector<Sample> samples;
  const auto add = [&](std::vector<Part> parts, std::vector<std::string> inputs, double strength) {
    LatentDiffusionParams p;
    p.inputs = std::move(inputs);
    p.levels = 4;
    p.samples = 2;
    p.strength = strength;
    Sample sample;
    sample.format = item_format({1});
    sample.format.parts = std::move(parts);
    sample.frames = 8;
    sample.params = write_params(p);
    sample.model =
        std::make_shared<Model>(LatentDiffusionFitter(p).fit(MemoryData(sample.format, {}, TrainingMatrix{}), context));
    samples.push_back(std::move(sample));
  };
  add({latent, embedding, image}, {"latent", "embedding", "image"}, 0.5);
  add({latent, embedding}, {"off", "embedding"}, 1);
  return samples;
}

}  // namespace

StageInfo info_latent_diffusion() {
  auto i = trained_info<LatentDiffusionStage, LatentDiffusionFitter>(
      kLatentDiffusion, "reconstruction",
      "What several decoders say of one image, put together: a latent diffusion model begins from a decoded low-level "
      "latent, an image of the structure, or both, and is told a decoded embedding. Each input can be switched off, to "
      "see what it adds. Gives mean, sd, samples, trajectory_variance (of the latents) and initial, what the run "
      "begins "
      "from. A frame with a missing value is missing.");
  i.version = kLatentDiffusionVersion;
  i.paper =
      "Takagi, Nishimoto, CVPR 2023 and arXiv 2306.11536; Rombach et al., CVPR 2022; Ho, Salimans, arXiv 2207.12598; "
      "Meng et al., ICLR 2022";
  i.needs_torch = true;
  i.priors = {ImagePrior::kStage, ImageAutoencoder::kStage};
  i.needs_prior = true;
  i.samples = latent_diffusion_samples;
  return i;
}

}  // namespace percept
