#include "reconstruction/diffusion/steps_torch.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "numerics/training.h"

namespace percept::diffusion {

Threads::Threads(int n) : before_(at::get_num_threads()) {
  if (n != before_) at::set_num_threads(std::max(1, n));
}
Threads::~Threads() {
  if (at::get_num_threads() != before_) at::set_num_threads(before_);
}

std::uint64_t seed_of(std::uint64_t seed, std::int64_t step) {
  std::uint64_t z = seed + 0x9E3779B97F4A7C15ULL * static_cast<std::uint64_t>(step + 1);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

at::Tensor view(std::span<const float> values, const std::vector<std::int64_t>& shape) {
  return at::from_blob(const_cast<float*>(values.data()), shape, at::kFloat);
}
at::Tensor view(std::span<const std::int64_t> values) {
  return at::from_blob(const_cast<std::int64_t*>(values.data()), {static_cast<std::int64_t>(values.size())}, at::kLong);
}

std::string digest_of(const std::string& shape, const std::vector<ImageSet>& sets, const std::vector<double>& numbers) {
  Sha256 all;
  all.add(shape.data(), shape.size());
  for (const ImageSet& set : sets) {
    const std::size_t images = set.values.size();
    all.add(&images, sizeof images);
    all.add(set.values.data(), set.values.size_bytes());
    all.add(set.classes.data(), set.classes.size_bytes());
    all.add(set.embedding.data(), set.embedding.size_bytes());
  }
  all.add(numbers.data(), numbers.size() * sizeof(double));
  return all.hex();
}

at::Tensor moved(const at::Tensor& x, const StepTask& task, at::Generator& random) {
  if (task.shift == 0 && !task.flip) return x;
  const std::int64_t n = x.size(0), channels = x.size(1), h = x.size(2), w = x.size(3);
  const at::Tensor by = at::randint(-task.shift, task.shift + 1, {n, 2}, random, at::kLong);
  const at::Tensor mirrored = at::randint(0, 2, {n}, random, at::kLong);
  at::Tensor y = at::empty_like(x);
  for (std::int64_t k = 0; k < n; ++k) {
    const std::int64_t down = by.data_ptr<std::int64_t>()[2 * k], right = by.data_ptr<std::int64_t>()[2 * k + 1];
    const bool mirror = task.flip && mirrored.data_ptr<std::int64_t>()[k] == 1;
    for (std::int64_t c = 0; c < channels; ++c) {
      const float* from = x.data_ptr<float>() + (k * channels + c) * h * w;
      float* to = y.data_ptr<float>() + (k * channels + c) * h * w;
      for (std::int64_t i = 0; i < h; ++i)
        for (std::int64_t j = 0; j < w; ++j) {
          const std::int64_t column = mirror ? w - 1 - j : j;
          to[i * w + j] = from[std::clamp<std::int64_t>(i - down, 0, h - 1) * w +
                               std::clamp<std::int64_t>(column - right, 0, w - 1)];
        }
    }
  }
  return y;
}

/// Numbers of a step depend on nothing before it, so that a checkpoint needs no state of the generator.
struct StepTraining::State {
  Weights& weights;
  std::int64_t items;
  std::string what;
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(0);
  std::vector<float> values, gradient, best;
  AdamW optimiser;
  double best_loss = 0, sum = 0;  ///< sum: of the losses since the last report
  std::int64_t best_step = 0;
  std::vector<double> training_losses, held_losses;
  at::Tensor order;  ///< of the items in this round
  std::int64_t round = -1;

  State(Weights& w, std::int64_t n, std::string digest, std::uint64_t seed)
      : weights(w), items(n), what(std::move(digest)), values(static_cast<std::size_t>(w.size())),
        gradient(values.size()), optimiser(started(seed)) {
    best = values;
  }
  std::span<float> started(std::uint64_t seed) {
    weights.bind(values.data(), gradient.data());
    random.set_current_seed(seed_of(seed, -1));
    weights.start(random);
    return values;
  }
  TrainingCheckpoint::Contents contents() {
    return {{{"weights", values},
             {"moment", optimiser.moment},
             {"square", optimiser.square},
             {"average", optimiser.average},
             {"best", best}},
            {{"best_loss", {&best_loss, 1}}, {"loss_sum", {&sum, 1}}},
            {{"step", {&optimiser.step, 1}}, {"best_step", {&best_step, 1}}},
            {{"training_losses", &training_losses}, {"held_losses", &held_losses}}};
  }
};

namespace {

/// Of what decides the result: what is learnt from, and how.
std::string task_digest(const StepTask& t, const std::string& what) {
  Sha256 all;
  all.add(what.data(), what.size());
  const auto number = [&](auto v) { all.add(&v, sizeof v); };
  for (const std::int64_t v :
       {t.steps, t.batch, t.warm_up, t.shift, t.report, std::int64_t{t.cosine}, std::int64_t{t.flip}})
    number(v);
  for (const double v : {t.learning_rate, t.weight_decay, t.weight_average, t.clip, t.dropout}) number(v);
  number(t.seed);
  return all.hex();
}

void require_finite(const StepTask& task, const char* what, double value, std::int64_t step) {
  if (std::isfinite(value)) return;
  throw Error(task.where + ": the " + what + " is " + (std::isnan(value) ? "NaN" : "infinite") + " at step " +
              std::to_string(step) + " of " + std::to_string(task.steps) +
              ": expected a finite one (are all values finite? is learning_rate too high?)");
}

}  // namespace

StepTraining::StepTraining(const StepTask& task, Weights& weights, std::int64_t items, std::string what)
    : task_(task), state_(std::make_unique<State>(weights, items, std::move(what), task.seed)) {}
StepTraining::~StepTraining() = default;

TrainedWeights StepTraining::run() {
  State& s = *state_;
  const Threads threads(task_.threads);
  TrainingCheckpoint checkpoint(task_.checkpoint, task_.checkpoint.empty() ? "" : task_digest(task_, s.what));
  checkpoint.load(s.contents());
  while (s.optimiser.step < task_.steps) {
    const double loss = step(checkpoint);
    s.sum += loss;
    if (s.optimiser.step % task_.report == 0 || s.optimiser.step == task_.steps) report();
    try {
      if (task_.on_step) task_.on_step(s.optimiser.step, loss);
    } catch (...) {
      checkpoint.save(s.contents());
      throw;
    }
  }
  checkpoint.save(s.contents());
  s.values = s.best;
  return {s.weights.save(), s.best_step, s.training_losses, s.held_losses};
}

double StepTraining::step(TrainingCheckpoint& checkpoint) {
  State& s = *state_;
  const std::int64_t done = s.optimiser.step, n = std::min(task_.batch, s.items);
  s.random.set_current_seed(seed_of(task_.seed, done));
  std::fill(s.gradient.begin(), s.gradient.end(), 0.0F);
  const double loss = learn(order(done * n, n), s.random);
  require_finite(task_, "loss", loss, done + 1);
  const double length = norm_of(s.gradient);
  require_finite(task_, "length of the gradient", length, done + 1);
  checkpoint.save_now_and_then(s.contents(), 10);  // only now it is known that these weights are good
  const double scale = task_.clip > 0 && length > task_.clip ? task_.clip / length : 1;
  double rate = task_.learning_rate;
  if (task_.warm_up > 0) rate *= std::min(1.0, static_cast<double>(done + 1) / static_cast<double>(task_.warm_up));
  if (task_.cosine)
    rate *= 0.5 * (1 + std::cos(std::numbers::pi * static_cast<double>(done) / static_cast<double>(task_.steps)));
  s.optimiser.update(s.gradient, static_cast<float>(scale), rate, task_.weight_decay, task_.weight_average);
  return loss;
}

void StepTraining::report() {
  State& s = *state_;
  const std::int64_t now = s.optimiser.step;
  s.training_losses.push_back(
      s.sum / static_cast<double>(now - static_cast<std::int64_t>(s.training_losses.size()) * task_.report));
  s.sum = 0;
  double loss = s.training_losses.back();
  if (has_held()) {
    std::swap_ranges(s.values.begin(), s.values.end(), s.optimiser.average.begin());
    loss = held_loss();
    std::swap_ranges(s.values.begin(), s.values.end(), s.optimiser.average.begin());
    require_finite(task_, "held-out loss", loss, now);
    s.held_losses.push_back(loss);
  }
  if (!has_held() || s.best_step == 0 || loss < s.best_loss) {
    s.best = s.optimiser.average;
    s.best_loss = loss;
    s.best_step = now;
  }
}

/// Those at `first` and after of all items, in a new order each time they are through.
at::Tensor StepTraining::order(std::int64_t first, std::int64_t n) {
  State& s = *state_;
  at::Tensor chosen = at::empty({n}, at::kLong);
  for (std::int64_t k = 0; k < n; ++k) {
    const std::int64_t round = (first + k) / s.items;
    if (round != s.round) {
      auto random = at::make_generator<at::CPUGeneratorImpl>(seed_of(~task_.seed, round));
      s.order = at::randperm(s.items, random, at::kLong);
      s.round = round;
    }
    chosen.data_ptr<std::int64_t>()[k] = s.order.data_ptr<std::int64_t>()[(first + k) % s.items];
  }
  return chosen;
}

}  // namespace percept::diffusion
