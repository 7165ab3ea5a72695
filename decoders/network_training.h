/// Training of networks by LibTorch, as the module percept_nn offers it (core/module.h). No LibTorch header here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace percept {

/// Frames after each other, of `inputs` and `outputs` finite numbers near unit size.
struct NetworkFrames {
  std::span<const float> x, y;
  std::vector<std::int64_t> segment_starts = {0};  ///< rising; a recurrent network is never run across one
};

/// What to learn, and how.
struct NetworkTask {
  std::int64_t inputs = 0, outputs = 0;
  NetworkFrames training;
  NetworkFrames held;  ///< decide when to stop; may be empty

  std::string cell;                  ///< "": dense | gru | lstm
  std::vector<std::int64_t> hidden;  ///< dense: units of each hidden layer
  std::string activation = "tanh";   ///< dense: tanh | relu | gelu, after each hidden layer
  std::int64_t input_units = 0;      ///< recurrent: of a tanh layer before the cell; 0: none
  std::int64_t units = 0;            ///< recurrent: of the cell
  std::int64_t chunk = 1,
               warm_up = 0;     ///< recurrent: frames learnt from in one piece, and run before them without loss
  double dropout = 0;           ///< share of hidden units left out in a step
  double input_noise = 0;       ///< standard deviation added to the inputs in a step
  double input_dropout = 0;     ///< share of inputs left out of a frame (dense) or a whole chunk (recurrent)
  double learning_rate = 1e-3;  ///< of AdamW
  bool cosine = false;          ///< the rate falls to zero along half a cosine over all epochs
  double weight_decay = 0;      ///< of AdamW
  double weight_average = 0;    ///< decay of a running mean of the weights, which is what is kept; 0: none
  std::int64_t epochs = 1, batch = 64;  ///< batch: frames (dense) or chunks (recurrent)
  std::int64_t patience = 0;            ///< stop after so many epochs without a better held-out error; 0: never
  std::uint64_t seed = 0;
  int threads = 1;
  std::string where;                 ///< for messages
  std::filesystem::path checkpoint;  ///< file that a training goes on from and is saved to now and then; empty: none
  std::function<void(std::int64_t epoch, double loss)> on_epoch;  ///< may throw, which ends the training; may be empty
};

/// A named array: rows x cols, row after row. A vector has one column.
struct NetworkArray {
  std::string name;
  std::int64_t rows = 0, cols = 0;
  std::vector<float> values;
};

struct TrainedNetwork {
  /// Of the best epoch where there are held-out frames, else of the last.
  /// Dense: weights.0, bias.0, weights.1, ... with out = W in + b.
  /// Recurrent: where there is an input layer input.weights, input.bias; cell.weights_x, cell.weights_h, cell.bias_x,
  /// cell.bias_h with the gates below each other (gru: reset, update, new; lstm: input, forget, cell, output);
  /// output.weights, output.bias.
  std::vector<NetworkArray> arrays;
  std::vector<float> held_output;                    ///< what LibTorch gives for the held-out frames
  std::int64_t best_epoch = 0;                       ///< the one kept (from 1)
  std::vector<double> training_losses, held_losses;  ///< mean squared error of each epoch done; held: may be empty
};

class NetworkTraining {
 public:
  static constexpr const char* kInterface = "network_training";
  virtual ~NetworkTraining() = default;
  /// Minimises the mean squared error by AdamW (Loshchilov, Hutter, ICLR 2019). The same task gives the same bits, also
  /// when it was interrupted and goes on from its checkpoint; the checkpoint of another task is left aside.
  /// Throws Error naming epoch and step when the loss is not finite; the last good checkpoint is kept.
  virtual TrainedNetwork train(const NetworkTask& task) = 0;
};

}  // namespace percept
