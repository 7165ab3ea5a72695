#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "core/module.h"
#include "core/registry.h"
#include "numerics/apply.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/draw_frames.h"
#include "reconstruction/diffusion/image_prior.h"
#include "reconstruction/diffusion/networks.h"
#include "reconstruction/diffusion/sampler.h"

namespace percept {
namespace {

using namespace diffusion;

struct DiffusionPriorParams {
  std::int64_t patch = 2, channels = 32, blocks = 2;
  std::vector<std::int64_t> multipliers = {1, 2}, attention = {};
  double dropout = 0;
  std::int64_t steps = 2000, batch = 32;
  double learning_rate = 3e-3;
  std::int64_t warm_up = 50;
  std::string schedule = "cosine";
  double weight_decay = 0, weight_average = 0.99, clip = 1;
  std::int64_t shift = 0;
  bool flip = false;
  double condition_dropout = 0.1, validation = 0.05;
  std::int64_t report = 100, seed = 0;
  std::string condition = "none", sampler = "euler";
  std::int64_t levels = 20;
  double strength = 0.5;
  static constexpr auto fields() {
    using P = DiffusionPriorParams;
    return std::tuple{
        field("patch", &P::patch, "pixels",
              "So many pixels each way become channels of one: the network is then cheaper and sees further.", 1, 16),
        field("channels", &P::channels, "channels", "Of the first level of the network; a multiple of 8.", 8, 1024),
        field("multipliers", &P::multipliers, "1",
              "Channels of each level as a multiple of the first's; between two levels the image is halved.", 1, 16),
        field("blocks", &P::blocks, "1", "Residual blocks of a level, down and up.", 1, 16),
        field("attention", &P::attention, "level", "Levels, from 0, whose blocks are followed by self-attention.", 0,
              7),
        field("dropout", &P::dropout, "1", "Share of values left out inside a block in a training step.", 0.0, 0.95),
        field("steps", &P::steps, "1", "Training steps.", 1, 100000000),
        field("batch", &P::batch, "images", "Images in a training step.", 1, 1000000),
        field("learning_rate", &P::learning_rate, "1", "Step size of AdamW.", 1e-9, 1e3),
        field("warm_up", &P::warm_up, "steps", "The learning rate rises to its value over so many steps.", 0,
              100000000),
        choice("schedule", &P::schedule,
               "The learning rate falls to zero along half a cosine over all steps, or stays (constant).",
               "cosine|constant"),
        field("weight_decay", &P::weight_decay, "1", "Weight decay of AdamW.", 0.0, 1e3),
        field("weight_average", &P::weight_average, "1",
              "What is kept is a running mean of the weights that decays by this in each step; 0: the weights.", 0.0,
              0.999999),
        field("clip", &P::clip, "1", "A longer gradient is cut to this length; 0: never.", 0.0, 1e9),
        field("shift", &P::shift, "pixels", "Images are moved by chance, up to so many pixels each way.", 0, 1000),
        field("flip", &P::flip, "", "Images are mirrored left to right by chance."),
        field("condition_dropout", &P::condition_dropout, "1",
              "With a condition: share of images that are learnt from without it, for classifier-free guidance.", 0.0,
              1.0),
        field("validation", &P::validation, "1",
              "Share of the images, drawn by chance, that is not learnt from and decides which weights are kept; 0: "
              "none, and the last are kept.",
              0.0, 0.9),
        field("report", &P::report, "steps", "Between two points of the loss curves.", 1, 1000000),
        field("seed", &P::seed, "", "Of weights, order and noise, together with the run's seed.", 0, 1e15),
        choice("condition", &P::condition,
               "What it also learns to be told, beside the images: nothing, or the target, which is a category or an "
               "embedding.",
               "none|target"),
        choice("sampler", &P::sampler, "Applied: the sampler that takes the noise away.",
               "euler|heun|gradient_estimation|ddim"),
        field("levels", &P::levels, "1", "Applied: noise levels of a whole run, from noise to image.", 1, 100000),
        field("strength", &P::strength, "1",
              "Applied: share of the levels that is done. 0 gives the image back, 1 makes a new one.", 0.0, 1.0)};
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

void require_image(const StreamFormat& in, const Context& context) {
  const bool image = in.parts.size() == 1 && (in.parts[0].shape.size() == 2 || in.parts[0].shape.size() == 3);
  require(image, context, "from", in.describe(), "one image a frame, {height, width} or {channels, height, width}");
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

/// Images and targets, as floats, in memory.
struct Images {
  std::vector<float> values, targets;
  Index count = 0, missing = 0;
};

Images collect(const Data& data, Index size, Index targets) {
  Images all;
  data.pass([&](const TrainingBlock& block) {
    const Eigen::MatrixXd x = to_matrix(block.x), y = targets > 0 ? to_matrix(block.y) : Eigen::MatrixXd();
    for (Index k = 0; k < x.cols(); ++k) {
      if (!x.col(k).allFinite() || (targets > 0 && !y.col(k).allFinite())) {
        ++all.missing;
        continue;
      }
      ++all.count;
      for (Index i = 0; i < size; ++i) all.values.push_back(static_cast<float>(x(i, k)));
      for (Index i = 0; i < targets; ++i) all.targets.push_back(static_cast<float>(y(i, k)));
    }
  });
  return all;
}

/// Those images in this order; the held-out ones, drawn by chance, at the end.
void put_in_order(std::vector<float>& values, const std::vector<Index>& order, Index size) {
  std::vector<float> moved;
  moved.reserve(values.size());
  for (const Index k : order) moved.insert(moved.end(), values.begin() + k * size, values.begin() + (k + 1) * size);
  values = std::move(moved);
}

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
    const Index size = shape.size(), targets = p_.condition == "target" ? data.y_format().size() : 0;
    if (p_.condition == "target" && targets == 0)
      throw ConfigError(context.node + ".condition", "\"target\"", "a target, or labels of the images");
    const bool classes = targets == 1 && !target[0].levels.empty();
    if (classes) shape.classes = static_cast<Index>(target[0].levels.size());
    else shape.embedding = targets;

    Images images = collect(data, size, targets);
    if (images.missing > 0)
      context.warn(fmt::format("{} training images with missing values left out", images.missing));
    const auto held =
        p_.validation > 0 ? std::max<Index>(1, std::llround(p_.validation * static_cast<double>(images.count))) : 0;
    const Index fitted = images.count - held;
    if (fitted < 2)
      throw DataError(context.node, "training images", fmt::format("at least {}, {} of them held out", held + 2, held),
                      std::to_string(images.count));
    const KeyedRandom random(context.seed, ImagePrior::kStage);
    std::vector<std::pair<double, Index>> drawn;
    for (Index k = 0; k < images.count; ++k)
      drawn.emplace_back(random.uniform(p_.seed, static_cast<std::uint64_t>(k) + 1), k);
    std::sort(drawn.begin(), drawn.end());
    std::vector<Index> order;
    for (const auto& [number, k] : drawn) order.push_back(k);
    put_in_order(images.values, order, size);
    put_in_order(images.targets, order, targets);

    Model m;
    m.meta = model_meta(ImagePrior::kStage, ImagePrior::kVersion, write_params(p_), data.x_format());
    m.meta["network"] = to_value(shape);
    standardise_images(images.values, shape, fitted, m, context);
    std::vector<std::int64_t> labels;
    if (classes) {
      m.meta["classes"] = Value(target[0].levels);
      labels = labels_of(images.targets, shape.classes, context);
    } else if (targets > 0) {
      standardise_embedding(images.targets, targets, fitted, m);
    }
    const auto part = [&](Index first, Index n) {
      const auto cut = [&](const auto& all, Index each) {
        return std::span(all.data() + (all.empty() ? 0 : first * each),
                         all.empty() ? 0 : static_cast<std::size_t>(n * each));
      };
      return ImageSet{cut(images.values, size), cut(labels, 1),
                      classes ? std::span<const float>() : std::span<const float>(cut(images.targets, targets))};
    };
    task.training = part(0, fitted);
    task.held = part(fitted, held);
    settle(task, random, context);
    TrainedWeights trained = torch_interface<DiffusionNetworks>().train(task);

    for (auto& [name, array] : trained.arrays) m.tensors()[name] = std::move(array);
    m.meta["images"] = fitted;
    m.meta["validation_images"] = held;
    m.meta["dropped_images"] = images.missing;
    const auto& losses = held > 0 ? trained.held_losses : trained.training_losses;
    m.meta["training"] = Value::array({Value::object(
        {{"steps", p_.steps},
         {"best_step", trained.best_step},
         {"loss", losses[static_cast<std::size_t>((trained.best_step + p_.report - 1) / p_.report - 1)]}})});
    std::vector<std::int64_t> reported;
    for (std::size_t k = 1; k <= trained.training_losses.size(); ++k)
      reported.push_back(std::min(p_.steps, static_cast<std::int64_t>(k) * p_.report));
    m.meta["loss_curve"] = Value::array({Value::object(
        {{"training", trained.training_losses}, {"held_out", trained.held_losses}, {"steps", reported}})});
    return m;
  }

 private:
  /// Mean 0 in every channel and standard deviation kSigmaData over all, by the images that are fitted.
  static void standardise_images(std::vector<float>& values, const UnetShape& shape, Index fitted, Model& m,
                                 const Context& context) {
    const Index channels = shape.image_channels(), pixels = shape.height() * shape.width();
    const Eigen::Map<const Eigen::MatrixXf> all(values.data(), pixels, static_cast<Index>(values.size()) / pixels);
    Eigen::VectorXd mean = Eigen::VectorXd::Zero(channels);
    for (Index k = 0; k < fitted * channels; ++k) mean(k % channels) += all.col(k).cast<double>().mean();
    mean /= static_cast<double>(fitted);
    double squares = 0;
    for (Index k = 0; k < fitted * channels; ++k)
      squares += (all.col(k).cast<double>().array() - mean(k % channels)).square().mean();
    const double sd = std::sqrt(squares / static_cast<double>(fitted * channels));
    if (!(sd > 1e-12 * mean.cwiseAbs().maxCoeff()))
      throw DataError(context.node, "training images", "images that differ, or have a pattern", "one constant value");
    Eigen::Map<Eigen::MatrixXf> out(values.data(), all.rows(), all.cols());
    for (Index k = 0; k < out.cols(); ++k)
      out.col(k) = (out.col(k).array() - static_cast<float>(mean(k % channels))) * static_cast<float>(kSigmaData / sd);
    m.set("image_mean", mean);
    m.set("image_sd", sd);
  }

  static void standardise_embedding(std::vector<float>& values, Index size, Index fitted, Model& m) {
    Eigen::Map<Eigen::MatrixXf> all(values.data(), size, static_cast<Index>(values.size()) / size);
    const Eigen::MatrixXd known = all.leftCols(fitted).cast<double>();
    const Eigen::VectorXd mean = known.rowwise().mean();
    Eigen::VectorXd sd = ((known.colwise() - mean).rowwise().squaredNorm() / static_cast<double>(fitted)).cwiseSqrt();
    for (Index i = 0; i < size; ++i)
      if (!(sd(i) > 1e-6 * std::abs(mean(i)))) sd(i) = 1;  // a row without spread says nothing
    all = sd.cwiseInverse().cast<float>().asDiagonal() * (all.colwise() - mean.cast<float>());
    m.set("embedding_mean", mean);
    m.set("embedding_sd", sd);
  }

  static std::vector<std::int64_t> labels_of(const std::vector<float>& values, Index classes, const Context& context) {
    std::vector<std::int64_t> labels;
    for (const float v : values) {
      if (v != std::floor(v) || v < 0 || v >= static_cast<float>(classes))
        throw DataError(context.node, "target", fmt::format("categories from 0 to {}", classes - 1),
                        fmt::format("{}", v));
      labels.push_back(static_cast<std::int64_t>(v));
    }
    return labels;
  }

  void settle(UnetTask& task, const KeyedRandom& random, Context& context) const {
    task.steps = p_.steps;
    task.batch = p_.batch;
    task.learning_rate = p_.learning_rate;
    task.warm_up = p_.warm_up;
    task.cosine = p_.schedule == "cosine";
    task.weight_decay = p_.weight_decay;
    task.weight_average = p_.weight_average;
    task.clip = p_.clip;
    task.dropout = p_.dropout;
    task.condition_dropout = p_.condition_dropout;
    task.shift = p_.shift;
    task.flip = p_.flip;
    task.report = p_.report;
    task.seed = static_cast<std::uint64_t>(random.below(std::int64_t{1} << 62, p_.seed));
    task.threads = context.threads;
    task.where = context.node;
    if (!context.checkpoint.empty()) task.checkpoint = context.checkpoint / "unet.safetensors";
    task.on_step = [this, &context, begun = std::chrono::steady_clock::now(), first = std::int64_t{-1}](
                       std::int64_t step, double loss) mutable {
      context.check_cancel();
      if (!context.progress) return;
      if (first < 0) first = step - 1;  // it may have gone on from a checkpoint
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
      const double left = seconds / static_cast<double>(step - first) * static_cast<double>(p_.steps - step);
      context.progress(static_cast<double>(step) / static_cast<double>(p_.steps),
                       fmt::format("step {} of {}: loss {:.3f}, {:.0f} s left", step, p_.steps, loss, left));
    };
  }

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
