#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "core/files.h"
#include "decoders/network_training.h"
#include "numerics/training.h"

namespace percept {
namespace {

std::vector<float> values_of(const at::Tensor& t) {
  const at::Tensor flat = t.contiguous();
  return {flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel()};
}

/// Weights in one array, so that the optimiser is one loop and a checkpoint a few arrays. `views` of it are what the
/// network computes with, and their gradients views of `gradient`.
class Weights {
 public:
  void add(std::string name, std::vector<std::int64_t> shape, double bound) {
    names_.push_back(std::move(name));
    shapes_.push_back(std::move(shape));
    bounds_.push_back(bound);
  }
  /// Uniform in +-bound, as LibTorch does by itself.
  void start(at::Generator& random) {
    std::int64_t n = 0;
    for (auto& shape : shapes_) n += c10::multiply_integers(shape);
    values.resize(static_cast<std::size_t>(n));
    gradient.resize(values.size());
    std::int64_t at = 0;
    for (std::size_t i = 0; i < shapes_.size(); ++i) {
      views_.push_back(at::from_blob(values.data() + at, shapes_[i], at::kFloat));
      views_.back().uniform_(-bounds_[i], bounds_[i], random).set_requires_grad(true);
      views_.back().mutable_grad() = at::from_blob(gradient.data() + at, shapes_[i], at::kFloat);
      at += c10::multiply_integers(shapes_[i]);
    }
  }
  const at::Tensor& operator[](std::size_t i) const { return views_[i]; }
  std::size_t size() const { return views_.size(); }
  std::vector<NetworkArray> arrays() const {
    std::vector<NetworkArray> all;
    for (std::size_t i = 0; i < size(); ++i)
      all.push_back({names_[i], shapes_[i][0], shapes_[i].size() > 1 ? shapes_[i][1] : 1, values_of(views_[i])});
    return all;
  }

  std::vector<float> values, gradient;

 private:
  std::vector<std::string> names_;
  std::vector<std::vector<std::int64_t>> shapes_;
  std::vector<double> bounds_;
  std::vector<at::Tensor> views_;
};

/// Frames of a step. Dense: frames x rows. Recurrent: time x chunks x rows.
struct Batch {
  at::Tensor x, y, counts;  ///< counts: 1 where the error counts, 0 in the warm-up and past the end of a chunk
};

/// Every random number comes from a generator of its own: LibTorch's default one belongs to the whole process.
class Network {
 public:
  Network(const NetworkTask& task, at::Generator random) : task_(task), random_(std::move(random)) {
    if (task.cell.empty()) {
      std::vector<std::int64_t> sizes{task.inputs};
      sizes.insert(sizes.end(), task.hidden.begin(), task.hidden.end());
      sizes.push_back(task.outputs);
      for (std::size_t i = 0; i + 1 < sizes.size(); ++i)
        linear("weights." + std::to_string(i), "bias." + std::to_string(i), sizes[i], sizes[i + 1]);
    } else {
      if (task.input_units > 0) linear("input.weights", "input.bias", task.inputs, task.input_units);
      const std::int64_t in = task.input_units > 0 ? task.input_units : task.inputs, h = task.units;
      const std::int64_t gates = task.cell == "gru" ? 3 * h : 4 * h;
      const double bound = 1 / std::sqrt(static_cast<double>(h));
      weights.add("cell.weights_x", {gates, in}, bound);
      weights.add("cell.weights_h", {gates, h}, bound);
      weights.add("cell.bias_x", {gates}, bound);
      weights.add("cell.bias_h", {gates}, bound);
      linear("output.weights", "output.bias", h, task.outputs);
    }
    weights.start(random_);
  }

  at::Tensor forward(at::Tensor x, bool training) {
    if (training && task_.input_noise > 0) x = x + task_.input_noise * at::randn(x.sizes(), random_, at::kFloat);
    if (training && task_.input_dropout > 0) {
      std::vector<std::int64_t> shape = x.sizes().vec();
      if (!task_.cell.empty()) shape[0] = 1;
      x = x * kept(shape, task_.input_dropout);
    }
    const std::size_t last = weights.size() - 2;
    if (task_.cell.empty()) {
      for (std::size_t i = 0; i < last; i += 2) {
        x = at::linear(x, weights[i], weights[i + 1]);
        x = task_.activation == "tanh" ? at::tanh(x) : task_.activation == "relu" ? at::relu(x) : at::gelu(x);
        x = drop(x, training);
      }
    } else {
      std::size_t i = 0;
      if (task_.input_units > 0) {
        x = drop(at::tanh(at::linear(x, weights[0], weights[1])), training);
        i = 2;
      }
      const std::array<at::Tensor, 4> cell{weights[i], weights[i + 1], weights[i + 2], weights[i + 3]};
      const at::Tensor zero = at::zeros({1, x.size(1), task_.units}, at::kFloat);
      x = task_.cell == "gru" ? std::get<0>(at::gru(x, zero, cell, true, 1, 0, training, false, false))
                              : std::get<0>(at::lstm(x, {zero, zero}, cell, true, 1, 0, training, false, false));
      x = drop(x, training);
    }
    return at::linear(x, weights[last], weights[last + 1]);
  }

  Weights weights;

 private:
  void linear(const std::string& w, const std::string& b, std::int64_t in, std::int64_t out) {
    const double bound = 1 / std::sqrt(static_cast<double>(in));
    weights.add(w, {out, in}, bound);
    weights.add(b, {out}, bound);
  }
  at::Tensor kept(at::IntArrayRef shape, double dropout) {
    return at::empty(shape, at::kFloat).bernoulli_(1 - dropout, random_).div_(1 - dropout);
  }
  at::Tensor drop(const at::Tensor& x, bool training) {
    return training && task_.dropout > 0 ? x * kept(x.sizes(), task_.dropout) : x;
  }

  const NetworkTask& task_;
  at::Generator random_;
};

/// Cuts frames into what a step takes: single frames, or chunks of neighbours with a warm-up before them.
class Frames {
 public:
  Frames(const NetworkTask& task, const NetworkFrames& frames) : task_(task), starts_(frames.segment_starts) {
    const auto n = static_cast<std::int64_t>(frames.x.size()) / task.inputs;
    // LibTorch only reads them
    x_ = at::from_blob(const_cast<float*>(frames.x.data()), {n, task.inputs}, at::kFloat);
    y_ = at::from_blob(const_cast<float*>(frames.y.data()), {n, task.outputs}, at::kFloat);
    cut(0);
  }
  std::int64_t frames() const { return x_.size(0); }
  /// Pieces that are drawn: frames or chunks.
  std::int64_t pieces() const { return task_.cell.empty() ? frames() : static_cast<std::int64_t>(chunks_.size()); }
  /// Chunks of which the first in each segment is shorter by `offset`; every frame counts in one of them.
  void cut(std::int64_t offset) {
    if (task_.cell.empty()) return;
    chunks_.clear();
    for (std::size_t s = 0; s < starts_.size(); ++s) {
      const std::int64_t begin = starts_[s], end = s + 1 < starts_.size() ? starts_[s + 1] : frames();
      for (std::int64_t at = begin - offset; at < end; at += task_.chunk) {
        const std::int64_t first = std::max(begin, at), last = std::min(end, at + task_.chunk);
        if (first < last) chunks_.push_back({std::max(begin, first - task_.warm_up), first, last});
      }
    }
  }
  Batch batch(const at::Tensor& pieces) const {
    if (task_.cell.empty()) return {x_.index_select(0, pieces), y_.index_select(0, pieces), {}};
    const std::int64_t n = pieces.numel(), *piece = pieces.data_ptr<std::int64_t>();
    std::int64_t length = 0;
    for (std::int64_t k = 0; k < n; ++k) length = std::max(length, chunk(piece[k]).end - chunk(piece[k]).begin);
    const at::Tensor index = at::empty({length, n}, at::kLong), counts = at::empty({length, n, 1}, at::kFloat);
    for (std::int64_t t = 0; t < length; ++t)
      for (std::int64_t k = 0; k < n; ++k) {
        const Chunk& c = chunk(piece[k]);
        const std::int64_t frame = c.begin + t;
        index.data_ptr<std::int64_t>()[t * n + k] = std::min(frame, c.end - 1);
        counts.data_ptr<float>()[t * n + k] = frame >= c.first && frame < c.end ? 1.0F : 0.0F;
      }
    const at::Tensor flat = index.view({-1});
    return {x_.index_select(0, flat).view({length, n, task_.inputs}),
            y_.index_select(0, flat).view({length, n, task_.outputs}), counts};
  }
  /// What the network gives for every frame, in order, without dropout and noise.
  at::Tensor output(Network& network) const {
    const at::NoGradGuard no_grad;
    if (task_.cell.empty()) return network.forward(x_, false);
    const at::Tensor out = at::empty({frames(), task_.outputs}, at::kFloat);
    for (std::int64_t first = 0; first < pieces(); first += kTogether) {
      const std::int64_t last = std::min(pieces(), first + kTogether);
      const at::Tensor y = network.forward(batch(at::arange(first, last, at::kLong)).x, false);
      for (std::int64_t k = first; k < last; ++k) {
        const Chunk& c = chunk(k);
        out.slice(0, c.first, c.end).copy_(y.select(1, k - first).slice(0, c.first - c.begin, c.end - c.begin));
      }
    }
    return out;
  }
  double loss(const at::Tensor& output) const { return at::mse_loss(output, y_).item<float>(); }

 private:
  static constexpr std::int64_t kTogether = 256;  ///< chunks run side by side when nothing is learnt: bounds the memory
  struct Chunk {
    std::int64_t begin, first, end;  ///< runs from begin, counts from first
  };
  const Chunk& chunk(std::int64_t k) const { return chunks_[static_cast<std::size_t>(k)]; }

  const NetworkTask& task_;
  std::vector<std::int64_t> starts_;
  at::Tensor x_, y_;
  std::vector<Chunk> chunks_;
};

/// Everything that a training changes.
struct Training {
  AdamW optimiser;          ///< its running mean is what is kept
  std::vector<float> best;  ///< the mean at the best epoch
  std::int64_t best_epoch = 0;
  double best_loss = 0;
  std::vector<double> training_losses, held_losses;

  explicit Training(std::span<float> weights) : optimiser(weights), best(weights.begin(), weights.end()) {}
  std::int64_t epoch() const { return static_cast<std::int64_t>(training_losses.size()); }
};

// --- checkpoints -------------------------------------------------------------------------------------------

/// Digest of everything that decides the result.
std::string fingerprint(const NetworkTask& task) {
  Sha256 digest;
  const auto add = [&](const auto& v) { digest.add(v.data(), v.size() * sizeof v[0]); };
  const auto number = [&](auto v) { digest.add(&v, sizeof v); };
  for (const NetworkFrames* f : {&task.training, &task.held}) {
    number(f->x.size());
    add(f->x);
    add(f->y);
    number(f->segment_starts.size());
    add(f->segment_starts);
  }
  for (const auto& word : {task.cell, task.activation}) digest.add(word.c_str(), word.size() + 1);
  number(task.hidden.size());
  add(task.hidden);
  for (const auto v : {task.inputs, task.outputs, task.input_units, task.units, task.chunk, task.warm_up, task.epochs,
                       task.batch, task.patience, std::int64_t{task.cosine}})
    number(v);
  for (const auto v :
       {task.dropout, task.input_noise, task.input_dropout, task.learning_rate, task.weight_decay, task.weight_average})
    number(v);
  number(task.seed);
  return digest.hex();
}

TrainingCheckpoint::Contents contents(Training& now) {
  return {{{"weights", now.optimiser.weights},
           {"moment", now.optimiser.moment},
           {"square", now.optimiser.square},
           {"average", now.optimiser.average},
           {"best", now.best}},
          {{"best_loss", {&now.best_loss, 1}}},
          {{"step", {&now.optimiser.step, 1}}, {"best_epoch", {&now.best_epoch, 1}}},
          {{"training_losses", &now.training_losses}, {"held_losses", &now.held_losses}}};
}

// --- the loop ----------------------------------------------------------------------------------------------

class TorchNetworkTraining final : public NetworkTraining {
 public:
  TrainedNetwork train(const NetworkTask& task) override {
    at::set_num_threads(std::max(1, task.threads));
    auto random = at::make_generator<at::CPUGeneratorImpl>(task.seed);
    Network network(task, random);
    Frames frames(task, task.training);
    const Frames held_frames(task, task.held);
    const bool held = held_frames.frames() > 0;
    Training now(network.weights.values);
    TrainingCheckpoint checkpoint(task.checkpoint, task.checkpoint.empty() ? "" : fingerprint(task));
    checkpoint.load(contents(now));

    while (now.epoch() < task.epochs && !(held && task.patience > 0 && now.epoch() - now.best_epoch >= task.patience)) {
      const std::int64_t epoch = now.epoch() + 1;
      // numbers of an epoch depend on nothing before it, so that a checkpoint needs no state of the generator
      random.set_current_seed(task.seed + 0x9E3779B97F4A7C15ULL * static_cast<std::uint64_t>(epoch));
      const double training_loss = run_epoch(task, network, frames, now, random, epoch);
      double loss = training_loss;
      if (held) {
        std::swap_ranges(network.weights.values.begin(), network.weights.values.end(), now.optimiser.average.begin());
        loss = held_frames.loss(held_frames.output(network));
        std::swap_ranges(network.weights.values.begin(), network.weights.values.end(), now.optimiser.average.begin());
      }
      if (!std::isfinite(loss))
        throw Error(task.where + ": the held-out loss is not finite after epoch " + std::to_string(epoch) +
                    ": expected a finite one (are all values finite? is learning_rate too high?)");
      if (epoch == 1 || !held || loss < now.best_loss) {
        now.best = now.optimiser.average;
        now.best_loss = loss;
        now.best_epoch = epoch;
      }
      now.training_losses.push_back(training_loss);
      if (held) now.held_losses.push_back(loss);
      checkpoint.save_now_and_then(contents(now));
      try {
        if (task.on_epoch) task.on_epoch(epoch, loss);
      } catch (...) {
        checkpoint.save(contents(now));
        throw;
      }
    }
    checkpoint.save(contents(now));
    network.weights.values = now.best;
    TrainedNetwork result;
    result.arrays = network.weights.arrays();
    if (held) result.held_output = values_of(held_frames.output(network));
    result.best_epoch = now.best_epoch;
    result.training_losses = now.training_losses;
    result.held_losses = now.held_losses;
    return result;
  }

 private:
  /// The mean loss of the epoch's steps.
  static double run_epoch(const NetworkTask& task, Network& network, Frames& frames, Training& now,
                          at::Generator& random, std::int64_t epoch) {
    if (!task.cell.empty()) frames.cut(at::randint(task.chunk, {1}, random, at::kLong).item<std::int64_t>());
    const std::int64_t pieces = frames.pieces(), steps = (pieces + task.batch - 1) / task.batch;
    const at::Tensor order = at::randperm(pieces, random, at::kLong);
    double sum = 0;
    for (std::int64_t step = 0; step < steps; ++step) {
      const Batch b = frames.batch(order.slice(0, step * task.batch, std::min(pieces, (step + 1) * task.batch)));
      std::fill(network.weights.gradient.begin(), network.weights.gradient.end(), 0.0F);
      const at::Tensor error = network.forward(b.x, true) - b.y;
      const at::Tensor loss = b.counts.defined() ? (error * error * b.counts).sum() / (b.counts.sum() * task.outputs)
                                                 : (error * error).mean();
      const double value = loss.item<float>();
      if (!std::isfinite(value))
        throw Error(task.where + ": the loss is " + (std::isnan(value) ? "NaN" : "infinite") + " at epoch " +
                    std::to_string(epoch) + ", step " + std::to_string(step + 1) + " of " + std::to_string(steps) +
                    ": expected a finite one (are all values finite? is learning_rate too high?)");
      loss.backward();
      const double done = (static_cast<double>(epoch - 1) + static_cast<double>(step) / static_cast<double>(steps)) /
                          static_cast<double>(task.epochs);
      const double rate =
          task.cosine ? task.learning_rate * 0.5 * (1 + std::cos(std::numbers::pi * done)) : task.learning_rate;
      now.optimiser.update(network.weights.gradient, 1, rate, task.weight_decay, task.weight_average);
      sum += value / static_cast<double>(steps);
    }
    return sum;
  }
};

}  // namespace

NetworkTraining& torch_network_training() {
  static TorchNetworkTraining one;
  return one;
}

}  // namespace percept
