/// What fitters of image networks have in common: parameters of a training, and images in memory, in order, put into the
/// numbers that a network works on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/model.h"
#include "core/params.h"
#include "core/stream.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/networks.h"

namespace percept::diffusion {

struct StepParams {
  std::int64_t steps = 2000, batch = 32;
  double learning_rate = 3e-3;
  std::int64_t warm_up = 50;
  std::string schedule = "cosine";
  double weight_decay = 0, weight_average = 0.99, clip = 1, dropout = 0;
  std::int64_t shift = 0;
  bool flip = false;
  std::int64_t deformed_copies = 0;
  double deformation = 1;
  double validation = 0.05;
  std::int64_t report = 100, seed = 0;
};
template <class P>
constexpr auto step_fields() {
  return std::tuple{
      field<P, double>("dropout", &P::dropout, "1", "Share of values left out inside a block in a training step.", 0.0,
                       0.95),
      field<P, std::int64_t>("steps", &P::steps, "1", "Training steps.", 1, 100000000),
      field<P, std::int64_t>("batch", &P::batch, "images", "Images in a training step.", 1, 1000000),
      field<P, double>("learning_rate", &P::learning_rate, "1", "Step size of AdamW.", 1e-9, 1e3),
      field<P, std::int64_t>("warm_up", &P::warm_up, "steps",
                             "The learning rate rises to its value over so many steps.", 0, 100000000),
      choice<P>("schedule", &P::schedule,
                "The learning rate falls to zero along half a cosine over all steps, or stays (constant).",
                "cosine|constant"),
      field<P, double>("weight_decay", &P::weight_decay, "1", "Weight decay of AdamW.", 0.0, 1e3),
      field<P, double>(
          "weight_average", &P::weight_average, "1",
          "What is kept is a running mean of the weights that decays by this in each step; 0: the weights.", 0.0,
          0.999999),
      field<P, double>("clip", &P::clip, "1", "A longer gradient is cut to this length; 0: never.", 0.0, 1e9),
      field<P, std::int64_t>("shift", &P::shift, "pixels", "Images are moved by chance, up to so many pixels each way.",
                             0, 1000),
      field<P, bool>("flip", &P::flip, "", "Images are mirrored left to right by chance."),
      field<P, std::int64_t>("deformed_copies", &P::deformed_copies, "1",
                             "Deformed copies of each image, which are learnt from too.", 0, 1000),
      field<P, double>("deformation", &P::deformation, "1",
                       "Their size; 1 is that of a digit written again by the same hand.", 0.0, 100.0),
      field<P, double>("validation", &P::validation, "1",
                       "Share of the images, drawn by chance, that is not learnt from and decides which weights are "
                       "kept; 0: none, and the last are kept.",
                       0.0, 0.9),
      field<P, std::int64_t>("report", &P::report, "steps", "Between two points of the loss curves.", 1, 1000000),
      field<P, std::int64_t>("seed", &P::seed, "", "Of weights, order and noise, together with the run's seed.", 0,
                             1e15)};
}

/// Of a network of levels, each of which halves the image.
struct LevelsParams {
  std::int64_t patch = 2, channels = 32, blocks = 2;
  std::vector<std::int64_t> multipliers = {1, 2};
};
template <class P>
constexpr auto levels_fields() {
  return std::tuple{
      field<P, std::int64_t>("patch", &P::patch, "pixels",
                             "So many pixels each way become channels of one: the network is then cheaper and sees "
                             "further.",
                             1, 16),
      field<P, std::int64_t>("channels", &P::channels, "channels",
                             "Of the first level of the network; a multiple of 8.", 8, 1024),
      field<P, std::vector<std::int64_t>>(
          "multipliers", &P::multipliers, "1",
          "Channels of each level as a multiple of the first's; between two levels the image is halved.", 1, 16),
      field<P, std::int64_t>("blocks", &P::blocks, "1", "Residual blocks of a level, down and up.", 1, 16)};
}

/// Throws ConfigError naming `from` unless a frame is one image.
void require_image(const StreamFormat& in, const Context& context);

/// Images and targets in an order drawn by chance, those that are fitted with their deformed copies first, the held-out
/// ones, which are not deformed, at the end.
class TrainingImages {
 public:
  /// data: as require_image wants them. targets: values of the target of each image that are kept, or 0. Images with
  /// missing values are left out, with a warning. Throws DataError when fewer than two are left to fit.
  TrainingImages(const Data& data, Index targets, const StepParams& params, const KeyedRandom& random,
                 Context& context);
  /// Mean 0 in every channel and standard deviation kSigmaData over all, by the images that are fitted; puts image_mean
  /// and image_sd into the model. Throws DataError when they are all one value.
  void standardise(Index channels, Model& model, const Context& context);
  /// Mean 0 and standard deviation 1 of each row of the target; puts embedding_mean and embedding_sd into the model.
  void standardise_targets(Model& model);
  /// The target as whole numbers from 0. Throws DataError for others.
  void targets_are_classes(Index classes, const Context& context);

  Index fitted() const { return fitted_; }
  Index held() const { return count_ - fitted_; }
  ImageSet training() const { return part(0, fitted_); }
  ImageSet held_out() const { return part(fitted_, count_ - fitted_); }
  /// Puts into the model's meta how many there were, and how the training went.
  void describe(Model& model, const TrainedWeights& trained, const StepParams& params) const;

 private:
  void deform(const std::vector<Index>& shape, const StepParams& params, const KeyedRandom& random);
  ImageSet part(Index first, Index n) const;
  Index size_, targets_, count_ = 0, missing_ = 0, fitted_ = 0;
  std::vector<float> values_, target_values_;
  std::vector<std::int64_t> classes_;
};

/// Fills in what the parameters say, seed, threads, checkpoint (in a file of this name) and progress.
void settle(StepTask& task, const StepParams& params, const KeyedRandom& random, const std::string& checkpoint,
            Context& context);

}  // namespace percept::diffusion
