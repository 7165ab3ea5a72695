/// Training of dense networks by LibTorch, as the module percept_nn offers it (core/module.h). No LibTorch header here.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace percept {

/// One layer: out = W in + b.
struct DenseLayer {
  std::int64_t inputs = 0, outputs = 0;
  std::vector<float> weights;  ///< outputs x inputs, row after row
  std::vector<float> bias;     ///< of each output
};

/// What to learn: frames after each other, of `inputs` and `outputs` finite numbers near unit size.
struct NetworkTask {
  std::int64_t inputs = 0, outputs = 0;
  std::span<const float> x, y;                    ///< training frames
  std::span<const float> x_held, y_held;          ///< held-out frames that decide when to stop; may be empty
  std::vector<std::int64_t> hidden;               ///< units of each hidden layer
  std::string activation = "tanh";                ///< tanh | relu | gelu, after each hidden layer
  double dropout = 0;                             ///< share of hidden units left out in a step
  double input_noise = 0;                         ///< standard deviation added to the inputs in a step
  double learning_rate = 1e-3, weight_decay = 0;  ///< of AdamW
  std::int64_t epochs = 1, batch = 64;
  std::int64_t patience = 0;  ///< stop after so many epochs without a better held-out error; 0: never
  std::uint64_t seed = 0;
  int threads = 1;
  std::string where;                                              ///< for messages
  std::function<void(std::int64_t epoch, double loss)> on_epoch;  ///< may throw, which ends the training; may be empty
};

struct TrainedNetwork {
  std::vector<DenseLayer> layers;           ///< of the best epoch where there are held-out frames, else of the last
  std::vector<float> held_output;           ///< what LibTorch gives for x_held
  std::int64_t epochs = 0, best_epoch = 0;  ///< done; the one kept (from 1)
  double loss = 0;                          ///< mean squared error of the kept epoch: held out, else in training
};

class NetworkTraining {
 public:
  static constexpr const char* kInterface = "network_training";
  virtual ~NetworkTraining() = default;
  /// Minimises the mean squared error by AdamW (Loshchilov, Hutter, ICLR 2019). The same task gives the same bits.
  /// Throws Error naming epoch and step when the loss is not finite.
  virtual TrainedNetwork train(const NetworkTask& task) = 0;
};

}  // namespace percept
