#include "reconstruction/diffusion/image_autoencoder.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "core/module.h"
#include "core/registry.h"
#include "numerics/apply.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/draw_frames.h"
#include "reconstruction/diffusion/image_prior.h"
#include "reconstruction/diffusion/image_training.h"
#include "reconstruction/diffusion/networks.h"

namespace percept {
namespace diffusion {

ImageAutoencoder::ImageAutoencoder(const Model& model) : model_((require_model(model, kStage, kVersion), model)) {
  const std::string where = std::string("model of ") + kStage;
  const Value* shape = model.meta.find("network");
  if (!shape) throw DataError(where, "network", "the shape of a network", "none");
  shape_ = vae_shape(*shape, where + ".network");
  require_weights(model, VaePlan(shape_).weights, where);
  const ImageUnits units = image_units(model, shape_.image_channels(), shape_.size(), where);
  offset_ = units.offset;
  scale_ = static_cast<float>(units.scale);
  latent_scale_ = static_cast<float>(model.number("latent_sd"));
  if (!(latent_scale_ > 0) || !std::isfinite(latent_scale_))
    throw DataError(where, "latent_sd", "a finite number above zero", fmt::format("{}", latent_scale_));
}
ImageAutoencoder::~ImageAutoencoder() = default;

void ImageAutoencoder::open(int threads) {
  runner_ = torch_interface<DiffusionNetworks>().run(shape_, model_.tensors(), threads);
}

void ImageAutoencoder::encode(const Batch& image, Batch& latent) {
  const Batch x = (image.colwise() - offset_) / scale_;
  latent.resize(elements(latent_shape()), image.cols());
  runner_->encode(x.data(), x.cols(), latent.data());
  latent /= latent_scale_;
}

void ImageAutoencoder::decode(const Batch& latent, Batch& image) {
  const Batch z = latent * latent_scale_;
  image.resize(shape_.size(), latent.cols());
  runner_->decode(z.data(), z.cols(), image.data());
  image = (scale_ * image).colwise() + offset_;
}

void ImageAutoencoder::pull_back(const Batch& latent, Batch& image, const Cotangent& cotangent, Batch& gradient) {
  const Batch z = latent * latent_scale_;
  image.resize(shape_.size(), latent.cols());
  gradient.resize(latent.rows(), latent.cols());
  Batch v(image.rows(), image.cols());
  runner_->pull_back(
      z.data(), z.cols(), image.data(),
      [&] {
        image = (scale_ * image).colwise() + offset_;
        cotangent(image, v);
        if (v.rows() != image.rows() || v.cols() != image.cols())
          throw Error(fmt::format("diffusion: a cotangent of {} x {} values, expected {} x {}", v.rows(), v.cols(),
                                  image.rows(), image.cols()));
        v *= scale_ * latent_scale_;
        return static_cast<const float*>(v.data());
      },
      gradient.data());
}

Model untrained_autoencoder(const VaeShape& shape) {
  Model m;
  m.meta = model_meta(ImageAutoencoder::kStage, ImageAutoencoder::kVersion, Value::table(), item_format(shape.image));
  m.meta["network"] = to_value(shape);
  set_untrained(m, VaePlan(shape).weights, "image_autoencoder sample");
  m.set("image_mean", Eigen::MatrixXd(Eigen::VectorXd::Constant(shape.image_channels(), 0.2)));
  m.set("image_sd", 0.8);
  m.set("latent_sd", 0.5);
  return m;
}

}  // namespace diffusion

namespace {

using namespace diffusion;

struct ImageAutoencoderParams : LevelsParams, StepParams {
  std::int64_t latent = 4;
  double kl_weight = 1e-3;
  std::string direction = "encode";
  ImageAutoencoderParams() { blocks = 1; }
  static constexpr auto fields() {
    using P = ImageAutoencoderParams;
    return std::tuple_cat(
        levels_fields<P>(),
        std::tuple{
            field("latent", &P::latent, "channels", "Of a latent.", 1, 256),
            field("kl_weight", &P::kl_weight, "1",
                  "Of a latent's divergence from a standard normal one, per value, against the squared error in units "
                  "of the variance. More: smoother latents, blurred images.",
                  0.0, 1e3)},
        step_fields<P>(),
        std::tuple{choice("direction", &P::direction,
                          "Applied: images become latents (encode), latents images (decode), or images what is left of "
                          "them on the way through (both).",
                          "encode|decode|both")});
  }
};

VaeShape vae_of(const ImageAutoencoderParams& p, const std::vector<Index>& image) {
  VaeShape s;
  s.image = image;
  s.patch = p.patch;
  s.channels = p.channels;
  s.multipliers.assign(p.multipliers.begin(), p.multipliers.end());
  s.blocks = p.blocks;
  s.latent = p.latent;
  return s;
}

class ImageAutoencoderStage final : public Typed<ImageAutoencoderStage> {
 public:
  using Params = ImageAutoencoderParams;
  ImageAutoencoderStage(const Params& params, const Model& model) : params_(params), autoencoder_(model) {}

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    const bool decodes = params_.direction == "decode";
    const auto expected = decodes ? autoencoder_.latent_shape() : autoencoder_.image_shape();
    require(in.parts.size() == 1 && in.parts[0].shape == expected, context, "from", in.describe(),
            fmt::format("{} of the shape it was trained on, {{{}}}", decodes ? "latents" : "images",
                        fmt::join(expected, ", ")));
    autoencoder_.open(context.threads);
    missing_ = &context.counter("missing");
    failed_ = &context.counter("failed");
    given_.resize(in.size(), 1);
    StreamFormat out = in;
    const bool latents = params_.direction == "encode";
    if (params_.direction != "both")
      out.parts = {Part{latents ? "latent" : "image",
                        latents ? autoencoder_.latent_shape() : autoencoder_.image_shape(),
                        "1",
                        {},
                        {}}};
    return out;
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out) noexcept {
    const auto complete = [&](Index k) {
      given_.col(0) = in.eigen().col(k).template cast<float>();
      return in.eigen().col(k).allFinite();
    };
    return draw_frames(block, in, output, out, *missing_, *failed_, complete, [&](std::int64_t) -> Eigen::VectorXf {
      Batch latent, image;
      if (params_.direction == "encode") {
        autoencoder_.encode(given_, latent);
        return latent.col(0);
      }
      if (params_.direction == "both") autoencoder_.encode(given_, latent);
      autoencoder_.decode(params_.direction == "both" ? latent : given_, image);
      return image.col(0);
    });
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .per_frame = true}; }

 private:
  Params params_;
  ImageAutoencoder autoencoder_;
  Batch given_;
  Counter *missing_ = nullptr, *failed_ = nullptr;
};

class ImageAutoencoderFitter final : public Fitter {
 public:
  explicit ImageAutoencoderFitter(ImageAutoencoderParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    require_image(data.x_format(), context);
    VaeTask task;
    task.shape = vae_of(p_, data.x_format().parts[0].shape);
    task.shape.check(context.node);
    const KeyedRandom random(context.seed, ImageAutoencoder::kStage);
    TrainingImages images(data, 0, p_, random, context);
    Model m;
    m.meta = model_meta(ImageAutoencoder::kStage, ImageAutoencoder::kVersion, write_params(p_), data.x_format());
    m.meta["network"] = to_value(task.shape);
    images.standardise(task.shape.image_channels(), m, context);
    task.training = images.training();
    task.held = images.held_out();
    task.kl_weight = p_.kl_weight;
    settle(task, p_, random, "autoencoder.safetensors", context);
    auto& networks = torch_interface<DiffusionNetworks>();
    TrainedWeights trained = networks.train(task);
    m.set("latent_sd", latent_sd(*networks.run(task.shape, trained.arrays, context.threads), task, context));
    for (auto& [name, array] : trained.arrays) m.tensors()[name] = std::move(array);
    images.describe(m, trained, p_);
    return m;
  }

 private:
  /// About zero, of the images that were fitted.
  static double latent_sd(VaeRunner& runner, const VaeTask& task, const Context& context) {
    const auto latents = task.shape.latent_shape();
    const Index size = task.shape.size(), count = static_cast<Index>(task.training.values.size()) / size;
    constexpr Index kTogether = 64;  // bounds the memory
    Batch z(elements(latents), kTogether);
    double squares = 0;
    for (Index first = 0; first < count; first += kTogether) {
      const Index n = std::min(kTogether, count - first);
      runner.encode(task.training.values.data() + first * size, n, z.data());
      squares += z.leftCols(n).cast<double>().squaredNorm();
    }
    const double sd = std::sqrt(squares / static_cast<double>(count * z.rows()));
    if (!(sd > 1e-6))
      throw DataError(context.node, "latents", "latents that tell images apart (is kl_weight too high?)",
                      "all of them zero");
    return sd;
  }

  ImageAutoencoderParams p_;
};

}  // namespace

StageInfo info_image_autoencoder() {
  auto i = trained_info<ImageAutoencoderStage, ImageAutoencoderFitter>(
      ImageAutoencoder::kStage, "reconstruction",
      "An autoencoder of images, trained by LibTorch: the latents in which a latent diffusion model works, and which "
      "can be decoded from activity (target = { from = \"image\", through = \"PRIOR\" }). Latents have about unit "
      "variance. A frame with a missing value is missing.");
  i.version = ImageAutoencoder::kVersion;
  i.paper = "Kingma, Welling, ICLR 2014; Rombach, Blattmann, Lorenz, Esser, Ommer, CVPR 2022";
  i.needs_torch = true;
  i.samples = [] {
    std::vector<Sample> samples;
    for (const char* direction : {"encode", "decode", "both"}) {
      ImageAutoencoderParams p;
      p.channels = 8;
      p.latent = 2;
      p.direction = direction;
      const VaeShape shape = vae_of(p, {10, 9});
      Sample sample;
      sample.format = item_format(std::string(direction) == "decode" ? shape.latent_shape() : shape.image);
      sample.frames = 12;
      sample.params = write_params(p);
      sample.model = std::make_shared<Model>(untrained_autoencoder(shape));
      samples.push_back(std::move(sample));
    }
    return samples;
  };
  return i;
}

}  // namespace percept
