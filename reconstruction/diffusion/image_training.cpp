#include "reconstruction/diffusion/image_training.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <span>
#include <utility>

#include "core/error.h"
#include "core/stage.h"
#include "numerics/apply.h"
#include "reconstruction/image/deform.h"

namespace percept::diffusion {
namespace {

void put_in_order(std::vector<float>& values, const std::vector<Index>& order, Index size) {
  std::vector<float> moved;
  moved.reserve(values.size());
  for (const Index k : order) moved.insert(moved.end(), values.begin() + k * size, values.begin() + (k + 1) * size);
  values = std::move(moved);
}

}  // namespace

void require_image(const StreamFormat& in, const Context& context) {
  const bool image = in.parts.size() == 1 && (in.parts[0].shape.size() == 2 || in.parts[0].shape.size() == 3);
  require(image, context, "from", in.describe(), "one image a frame, {height, width} or {channels, height, width}");
}

TrainingImages::TrainingImages(const Data& data, Index targets, const StepParams& params, const KeyedRandom& random,
                               Context& context)
    : size_(data.x_format().size()), targets_(targets) {
  data.pass([&](const TrainingBlock& block) {
    const Eigen::MatrixXd x = to_matrix(block.x), y = targets > 0 ? to_matrix(block.y) : Eigen::MatrixXd();
    for (Index k = 0; k < x.cols(); ++k) {
      if (!x.col(k).allFinite() || (targets > 0 && !y.col(k).allFinite())) {
        ++missing_;
        continue;
      }
      ++count_;
      for (Index i = 0; i < size_; ++i) values_.push_back(static_cast<float>(x(i, k)));
      for (Index i = 0; i < targets; ++i) target_values_.push_back(static_cast<float>(y(i, k)));
    }
  });
  if (missing_ > 0) context.warn(fmt::format("{} training images with missing values left out", missing_));
  const auto held =
      params.validation > 0 ? std::max<Index>(1, std::llround(params.validation * static_cast<double>(count_))) : 0;
  fitted_ = count_ - held;
  if (fitted_ < 2)
    throw DataError(context.node, "training images", fmt::format("at least {}, {} of them held out", held + 2, held),
                    std::to_string(count_));
  std::vector<std::pair<double, Index>> drawn;
  for (Index k = 0; k < count_; ++k)
    drawn.emplace_back(random.uniform(params.seed, static_cast<std::uint64_t>(k) + 1), k);
  std::sort(drawn.begin(), drawn.end());
  std::vector<Index> order;
  for (const auto& [number, k] : drawn) order.push_back(k);
  put_in_order(values_, order, size_);
  put_in_order(target_values_, order, targets);
  if (params.deformed_copies > 0) deform(data.x_format().parts[0].shape, params, random);
}

void TrainingImages::deform(const std::vector<Index>& shape, const StepParams& p, const KeyedRandom& random) {
  const Index height = shape[shape.size() - 2], width = shape.back(), pixels = height * width;
  const Deformation deformed(height, width, DeformOptions{}.times(p.deformation));
  const auto copy = [&](std::vector<float>& values, Index size, auto change) {
    std::vector<float> copies;
    copies.reserve(static_cast<std::size_t>(fitted_ * p.deformed_copies * size));
    for (Index c = 1; c <= p.deformed_copies; ++c)
      for (Index k = 0; k < fitted_; ++k) change(values.data() + k * size, k, c, copies);
    values.insert(values.begin() + fitted_ * size, copies.begin(), copies.end());
  };
  // the channels of an image are deformed alike
  copy(values_, size_, [&](const float* image, Index k, Index c, std::vector<float>& out) {
    for (const float* channel = image; channel < image + size_; channel += pixels) {
      const Eigen::VectorXd y =
          deformed(Eigen::Map<const Eigen::VectorXf>(channel, pixels).cast<double>(), random, k, c);
      for (const double v : y) out.push_back(static_cast<float>(v));
    }
  });
  copy(target_values_, targets_, [&](const float* target, Index, Index, std::vector<float>& out) {
    out.insert(out.end(), target, target + targets_);
  });
  count_ += fitted_ * p.deformed_copies;
  fitted_ *= 1 + p.deformed_copies;
}

void TrainingImages::standardise(Index channels, Model& m, const Context& context) {
  const Index pixels = size_ / channels;
  Eigen::Map<Eigen::MatrixXf> all(values_.data(), pixels, count_ * channels);
  Eigen::VectorXd mean = Eigen::VectorXd::Zero(channels);
  for (Index k = 0; k < fitted_ * channels; ++k) mean(k % channels) += all.col(k).cast<double>().mean();
  mean /= static_cast<double>(fitted_);
  double squares = 0;
  for (Index k = 0; k < fitted_ * channels; ++k)
    squares += (all.col(k).cast<double>().array() - mean(k % channels)).square().mean();
  const double sd = std::sqrt(squares / static_cast<double>(fitted_ * channels));
  if (!(sd > 1e-12 * mean.cwiseAbs().maxCoeff()))
    throw DataError(context.node, "training images", "images that differ, or have a pattern", "one constant value");
  for (Index k = 0; k < all.cols(); ++k)
    all.col(k) = (all.col(k).array() - static_cast<float>(mean(k % channels))) * static_cast<float>(kSigmaData / sd);
  m.set("image_mean", mean);
  m.set("image_sd", sd);
}

void TrainingImages::standardise_targets(Model& m) {
  Eigen::Map<Eigen::MatrixXf> all(target_values_.data(), targets_, count_);
  const Eigen::MatrixXd known = all.leftCols(fitted_).cast<double>();
  const Eigen::VectorXd mean = known.rowwise().mean();
  Eigen::VectorXd sd = ((known.colwise() - mean).rowwise().squaredNorm() / static_cast<double>(fitted_)).cwiseSqrt();
  for (Index i = 0; i < targets_; ++i)
    if (!(sd(i) > 1e-6 * std::abs(mean(i)))) sd(i) = 1;  // a row without spread says nothing
  all = sd.cwiseInverse().cast<float>().asDiagonal() * (all.colwise() - mean.cast<float>());
  m.set("embedding_mean", mean);
  m.set("embedding_sd", sd);
}

void TrainingImages::targets_are_classes(Index classes, const Context& context) {
  for (const float v : target_values_) {
    if (v != std::floor(v) || v < 0 || v >= static_cast<float>(classes))
      throw DataError(context.node, "target", fmt::format("categories from 0 to {}", classes - 1),
                      fmt::format("{}", v));
    classes_.push_back(static_cast<std::int64_t>(v));
  }
}

ImageSet TrainingImages::part(Index first, Index n) const {
  const auto cut = [&](const auto& all, Index each) {
    return std::span(all.data() + (all.empty() ? 0 : first * each),
                     all.empty() ? 0 : static_cast<std::size_t>(n * each));
  };
  return {cut(values_, size_), cut(classes_, 1),
          classes_.empty() ? std::span<const float>(cut(target_values_, targets_)) : std::span<const float>()};
}

void TrainingImages::describe(Model& m, const TrainedWeights& trained, const StepParams& p) const {
  m.meta["images"] = fitted_;
  m.meta["validation_images"] = held();
  m.meta["dropped_images"] = missing_;
  const auto& losses = held() > 0 ? trained.held_losses : trained.training_losses;
  m.meta["training"] = Value::array(
      {Value::object({{"steps", p.steps},
                      {"best_step", trained.best_step},
                      {"loss", losses[static_cast<std::size_t>((trained.best_step + p.report - 1) / p.report - 1)]}})});
  std::vector<std::int64_t> reported;
  for (std::size_t k = 1; k <= trained.training_losses.size(); ++k)
    reported.push_back(std::min(p.steps, static_cast<std::int64_t>(k) * p.report));
  m.meta["loss_curve"] = Value::array(
      {Value::object({{"training", trained.training_losses}, {"held_out", trained.held_losses}, {"steps", reported}})});
}

void settle(StepTask& task, const StepParams& p, const KeyedRandom& random, const std::string& checkpoint,
            Context& context) {
  task.steps = p.steps;
  task.batch = p.batch;
  task.learning_rate = p.learning_rate;
  task.warm_up = p.warm_up;
  task.cosine = p.schedule == "cosine";
  task.weight_decay = p.weight_decay;
  task.weight_average = p.weight_average;
  task.clip = p.clip;
  task.dropout = p.dropout;
  task.shift = p.shift;
  task.flip = p.flip;
  task.report = p.report;
  task.seed = static_cast<std::uint64_t>(random.below(std::int64_t{1} << 62, p.seed));
  task.threads = context.threads;
  task.where = context.node;
  if (!context.checkpoint.empty()) task.checkpoint = context.checkpoint / checkpoint;
  task.on_step = [steps = p.steps, &context, begun = std::chrono::steady_clock::now(), first = std::int64_t{-1}](
                     std::int64_t step, double loss) mutable {
    context.check_cancel();
    if (!context.progress) return;
    if (first < 0) first = step - 1;  // it may have gone on from a checkpoint
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    const double left = seconds / static_cast<double>(step - first) * static_cast<double>(steps - step);
    context.progress(static_cast<double>(step) / static_cast<double>(steps),
                     fmt::format("step {} of {}: loss {:.3f}, {:.0f} s left", step, steps, loss, left));
  };
}

}  // namespace percept::diffusion
