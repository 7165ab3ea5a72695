/// What a stage and a fitter are handed beside their data: names for messages, counters, seeds, progress.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/value.h"

namespace percept {

/// One counted thing of one node ("covariance_repaired"). Incrementing never blocks nor allocates.
class Counter {
 public:
  void add(std::int64_t n = 1) noexcept { n_.fetch_add(n, std::memory_order_relaxed); }
  std::int64_t value() const noexcept { return n_.load(std::memory_order_relaxed); }
  void set(std::int64_t n) noexcept { n_.store(n, std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> n_{0};
};

/// Named counters; references stay valid for the life of the object.
class Counters {
 public:
  /// The counter of that name, made when it is new. For prepare(), not for process().
  Counter& get(const std::string& node, const std::string& name);
  /// Every counter that is not zero, as "node.name" -> count.
  std::vector<std::pair<std::string, std::int64_t>> nonzero() const;

 private:
  struct Item {
    std::string name;
    Counter counter;
  };
  mutable std::mutex mutex_;
  std::deque<Item> items_;
};

/// Told how far a long task is. fraction in [0, 1].
using ProgressFn = std::function<void(double fraction, std::string_view what)>;

class Model;

/// A prior of the pipeline ([[prior]], core/pipeline.h) as the fitter of a stage that names it gets it.
struct PriorModel {
  std::string name, use;  ///< of the prior, and the stage that it is a model of
  std::shared_ptr<const Model> model;
};

/// Handed to prepare() and fit(). Cheap to copy; the pointers outlive the graph.
struct Context {
  std::string node = "stage";  ///< name of the node, for messages
  std::uint64_t seed = 0;      ///< random numbers are keyed by (seed, node, frame key, draw)
  int threads = 1;             ///< how many threads the stage may use inside
  Counters* counters = nullptr;
  const Value* tables = nullptr;     ///< the recording's tables (core/recording.h) as far as a stage may see them
  ProgressFn progress;               ///< may be empty
  std::function<bool()> cancelled;   ///< may be empty; a fitter asks now and then
  std::filesystem::path checkpoint;  ///< folder for resumable training; empty: none
  /// For fit(): the priors that the stage names, in its order. What the stage needs of one goes into its own model, so
  /// that a model is complete by itself.
  std::vector<PriorModel> priors;

  /// The first prior that is a model of that stage; nullptr when there is none.
  const Model* prior(std::string_view use) const;
  /// The node's counter, or a throw-away one when nobody counts.
  Counter& counter(const std::string& name) const;
  void warn(const std::string& message) const;
  void info(const std::string& message) const;
  /// Throws Interrupted when asked to stop.
  void check_cancel() const;
};

}  // namespace percept
