/// The loop that trains the networks here. Internal to the LibTorch module; no LibTorch header here.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "numerics/training.h"
#include "reconstruction/diffusion/layers_torch.h"
#include "reconstruction/diffusion/networks.h"

namespace percept::diffusion {

/// A training of `weights` on items: a network says what the loss of some items is, this does the rest.
class StepTraining {
 public:
  /// `items` are trained on, and as a digest `what` all that decides the result beside the task.
  StepTraining(const StepTask& task, Weights& weights, std::int64_t items, std::string what);
  virtual ~StepTraining();
  TrainedWeights run();

 protected:
  /// Loss of these items (whole numbers), and backward() from it. Every random number from `random`.
  virtual double learn(const at::Tensor& items, at::Generator& random) = 0;
  virtual bool has_held() const = 0;
  /// The same numbers each time.
  virtual double held_loss() = 0;

  const StepTask& task_;

 private:
  struct State;
  double step(TrainingCheckpoint& checkpoint);
  void report();
  at::Tensor order(std::int64_t first, std::int64_t n);

  std::unique_ptr<State> state_;
};

/// LibTorch's number of threads belongs to the thread that asks; it is put back at the end.
class Threads {
 public:
  explicit Threads(int n);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

/// A seed for each step of a training.
std::uint64_t seed_of(std::uint64_t seed, std::int64_t step);

/// Tensors over numbers that LibTorch only reads.
at::Tensor view(std::span<const float> values, const std::vector<std::int64_t>& shape);
at::Tensor view(std::span<const std::int64_t> values);

/// Adds images and what goes with them to a digest.
std::string digest_of(const std::string& shape, const std::vector<ImageSet>& sets, const std::vector<double>& numbers);

/// Images moved and mirrored by chance, as the task says; what comes in from outside is the pixel at the margin.
at::Tensor moved(const at::Tensor& images, const StepTask& task, at::Generator& random);

}  // namespace percept::diffusion
