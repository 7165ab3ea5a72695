#include <fmt/format.h>

#include "core/error.h"
#include "core/module.h"
#include "core/registry.h"
#include "numerics/apply.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/draw_frames.h"
#include "reconstruction/diffusion/image_prior.h"
#include "reconstruction/diffusion/image_training.h"
#include "reconstruction/diffusion/networks.h"
#include "reconstruction/diffusion/sampler.h"

namespace percept {
namespace {

using namespace diffusion;

struct DiffusionPriorParams : LevelsParams, StepParams {
  std::vector<std::int64_t> attention = {};
  double condition_dropout = 0.1;
  std::string condition = "none", sampler = "euler";
  std::int64_t levels = 20;
  double strength = 0.5;
  static constexpr auto fields() {
    using P = DiffusionPriorParams;
    return std::tuple_cat(
        levels_fields<P>(),
        std::tuple{field("attention", &P::attention, "level",
                         "Levels, from 0, whose blocks are followed by self-attention.", 0, 7)},
        step_fields<P>(),
        std::tuple{
            field("condition_dropout", &P::condition_dropout, "1",
                  "With a condition: share of images that are learnt from without it, for classifier-free guidance.",
                  0.0, 1.0),
            choice("condition", &P::condition,
                   "What it also learns to be told, beside the images: nothing, or the target, which is a category or "
                   "an embedding.",
                   "none|target"),
            choice("sampler", &P::sampler, "Applied: the sampler that takes the noise away.",
                   "euler|heun|gradient_estimation|ddim"),
            field("levels", &P::levels, "1", "Applied: noise levels of a whole run, from noise to image.", 1, 100000),
            field("strength", &P::strength, "1",
                  "Applied: share of the levels that is done. 0 gives the image back, 1 makes a new one.", 0.0, 1.0)});
  }
};

UnetShape shape_of(const DiffusionPriorParams& p, const std::vector<Index>& image) {
  UnetShape s;
  s.image = image;
  s.patch = p.patch;
  s.channels = p.channels;
  s.multipliers.assign(p.multipliers.begin(), p.multipliers.end());
  s.blocks = p.blocks;
  s.attention.assign(p.attention.begin(), p.attention.end());
  return s;
}

/// What comes in is noised and denoised again (Meng et al., SDEdit, ICLR 2022), image by image, so that what one gives
/// does not depend on its neighbours.
class DiffusionPriorStage final : public Typed<DiffusionPriorStage> {
 public:
  using Params = DiffusionPriorParams;
  DiffusionPriorStage(const Params& params, const Model& model) : params_(params), prior_(model) {}

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_image(in, context);
    const auto& expected = prior_.shape().image;
    require(in.parts[0].shape == expected, context, "from", in.describe(),
            fmt::format("images of the shape it was trained on, {{{}}}", fmt::join(expected, ", ")));
    denoiser_ = prior_.denoiser(context.threads);
    const double scale = prior_.scale();
    sampler_ = make_sampler(
        params_.sampler,
        Value::object({{"steps", params_.levels}, {"sigma_max", 80 * scale}, {"sigma_min", 0.002 * scale}}),
        context.node);
    task_.denoiser = denoiser_.get();
    task_.seed = context.seed;
    task_.where = context.node;
    task_.start.from = Start::From::image;
    task_.start.strength = params_.strength;
    task_.start.x.resize(in.size(), 1);
    missing_ = &context.counter("missing");
    failed_ = &context.counter("failed");
    return in;
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out) noexcept {
    const auto complete = [&](Index k) {
      task_.start.x.col(0) = in.eigen().col(k).template cast<float>();
      return in.eigen().col(k).allFinite();
    };
    return draw_frames(block, in, output, out, *missing_, *failed_, complete, [&](std::int64_t key) -> Eigen::VectorXf {
      task_.keys = {key};
      return draw(*sampler_, task_).x.col(0);
    });
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .per_frame = true}; }

 private:
  Params params_;
  ImagePrior prior_;
  std::shared_ptr<Denoiser> denoiser_;
  std::unique_ptr<Sampler> sampler_;
  Task task_;
  Counter *missing_ = nullptr, *failed_ = nullptr;
};

class DiffusionPriorFitter final : public Fitter {
 public:
  explicit DiffusionPriorFitter(DiffusionPriorParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    require_image(data.x_format(), context);
    UnetTask task;
    UnetShape& shape = task.shape;
    shape = shape_of(p_, data.x_format().parts[0].shape);
    shape.check(context.node);
    const auto& target = data.y_format().parts;
    const Index targets = p_.condition == "target" ? data.y_format().size() : 0;
    if (p_.condition == "target" && targets == 0)
      throw ConfigError(context.node + ".condition", "\"target\"", "a target, or labels of the images");
    const bool classes = targets == 1 && !target[0].levels.empty();
    if (classes) shape.classes = static_cast<Index>(target[0].levels.size());
    else shape.embedding = targets;

    const KeyedRandom random(context.seed, ImagePrior::kStage);
    TrainingImages images(data, targets, p_, random, context);
    Model m;
    m.meta = model_meta(ImagePrior::kStage, ImagePrior::kVersion, write_params(p_), data.x_format());
    m.meta["network"] = to_value(shape);
    images.standardise(shape.image_channels(), m, context);
    if (classes) {
      m.meta["classes"] = Value(target[0].levels);
      images.targets_are_classes(shape.classes, context);
    } else if (targets > 0) {
      images.standardise_targets(m);
    }
    task.training = images.training();
    task.held = images.held_out();
    task.condition_dropout = p_.condition_dropout;
    settle(task, p_, random, "unet.safetensors", context);
    TrainedWeights trained = torch_interface<DiffusionNetworks>().train(task);
    for (auto& [name, array] : trained.arrays) m.tensors()[name] = std::move(array);
    images.describe(m, trained, p_);
    return m;
  }

 private:
  DiffusionPriorParams p_;
};

Sample diffusion_prior_sample(std::vector<Index> image, Value params) {
  const auto p = read_params<DiffusionPriorParams>(params, ImagePrior::kStage);
  Sample sample;
  sample.format = item_format(image);
  sample.frames = 12;
  sample.params = std::move(params);
  sample.model = std::make_shared<Model>(untrained_prior(shape_of(p, image)));
  return sample;
}

}  // namespace

StageInfo info_diffusion_prior() {
  auto i = trained_info<DiffusionPriorStage, DiffusionPriorFitter>(
      ImagePrior::kStage, "reconstruction",
      "A diffusion model of images, trained by LibTorch; samplers draw from it. Applied as a stage it noises each "
      "image and takes the noise away again, which makes it more like those it was trained on. It may also learn to be "
      "told "
      "something of an image: a category, or an embedding.");
  i.version = ImagePrior::kVersion;
  i.paper =
      "Karras, Aittala, Aila, Laine, NeurIPS 2022; Ho, Salimans, arXiv 2207.12598; applied: Meng et al., ICLR 2022";
  i.takes_target = true;
  i.needs_torch = true;
  i.samples = [] {
    const auto params = [](std::int64_t patch, std::vector<std::int64_t> attention, const char* sampler,
                           double strength) {
      return Value::object({{"channels", 8},
                            {"patch", patch},
                            {"blocks", 1},
                            {"attention", std::move(attention)},
                            {"sampler", sampler},
                            {"levels", 4},
                            {"strength", strength}});
    };
    return std::vector{diffusion_prior_sample({10, 10}, params(2, {1}, "euler", 0.5)),
                       diffusion_prior_sample({3, 7, 5}, params(1, {}, "heun", 1.0))};
  };
  return i;
}

}  // namespace percept
