/// What trainings of networks have in common and that needs no LibTorch: the optimiser, which works on all weights as one
/// array, and checkpoints.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace percept {

/// Weights of a network, and what AdamW (Loshchilov, Hutter, ICLR 2019) keeps beside them.
struct AdamW {
  std::span<float> weights;
  std::vector<float> moment, square;
  std::vector<float> average;  ///< running mean of the weights
  std::int64_t step = 0;       ///< steps done

  explicit AdamW(std::span<float> weights);
  /// One step along the gradient times `scale`. weight_average: decay of the running mean; 0: it is the weights.
  void update(std::span<const float> gradient, float scale, double rate, double weight_decay, double weight_average);
};

/// Length of a gradient.
double norm_of(std::span<const float> gradient);

/// A file from which an interrupted training goes on: named arrays, written aside and renamed.
class TrainingCheckpoint {
 public:
  /// What a training keeps in it. A series may have any length, the others keep theirs.
  struct Contents {
    std::vector<std::pair<std::string, std::span<float>>> floats;
    std::vector<std::pair<std::string, std::span<double>>> doubles;
    std::vector<std::pair<std::string, std::span<std::int64_t>>> integers;
    std::vector<std::pair<std::string, std::vector<double>*>> series;
  };
  /// task: digest of everything that decides the result. An empty path: no file, and nothing happens.
  TrainingCheckpoint(std::filesystem::path file, const std::string& task);
  /// False, and nothing is read, where there is no file or it is of another task. Throws DataError naming file and array.
  bool load(const Contents& contents) const;
  void save(const Contents& contents);
  /// Writing may take longer than what is done in between, so not each time: at most every `seconds`.
  void save_now_and_then(const Contents& contents, double seconds = 2);

 private:
  std::filesystem::path file_;
  std::vector<std::int64_t> task_;
  std::chrono::steady_clock::time_point saved_{};
};

}  // namespace percept
