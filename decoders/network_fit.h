/// What networks have in common: parameters of the training, scales, validation, ensembles, covariance, the model's
/// arrays. Internal to decoders/.
#pragma once

#include <Eigen/Core>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "core/model.h"
#include "core/params.h"
#include "core/stage.h"
#include "decoders/network_training.h"

namespace percept {

/// Parameters of every network; a stage's own struct derives from it and adds its own with network_fields().
struct NetworkParams {
  double dropout = 0.0;
  double input_noise = 0.0;
  double input_dropout = 0.0;
  double learning_rate = 0.003;
  std::string schedule = "constant";
  double weight_decay = 0.01;
  double weight_average = 0.0;
  std::int64_t epochs = 100;
  double validation = 0.2;
  std::int64_t patience = 15;
  std::int64_t networks = 1;
  std::int64_t seed = 0;
  std::string covariance = "holdout";
  static constexpr auto fields() {
    return std::tuple{
        field("dropout", &NetworkParams::dropout, "1", "Share of hidden units left out in a training step.", 0.0, 0.95),
        field("input_noise", &NetworkParams::input_noise, "sd",
              "Noise added to the standardised inputs in a training step, in standard deviations.", 0.0, 100.0),
        field("input_dropout", &NetworkParams::input_dropout, "1",
              "Share of inputs left out in a training step: of each frame, in a recurrent network of a whole chunk.",
              0.0, 0.95),
        field("learning_rate", &NetworkParams::learning_rate, "1", "Step size of AdamW.", 1e-9, 1e6),
        choice("schedule", &NetworkParams::schedule,
               "The learning rate stays (constant), or falls to zero along half a cosine over all epochs.",
               "constant|cosine"),
        field("weight_decay", &NetworkParams::weight_decay, "1", "Weight decay of AdamW.", 0.0, 1e3),
        field(
            "weight_average", &NetworkParams::weight_average, "1",
            "Keep a running mean of the weights that decays by this in each training step; 0: the weights themselves.",
            0.0, 0.999999),
        field("epochs", &NetworkParams::epochs, "1", "Most passes over the training frames.", 1, 1000000),
        field(
            "validation", &NetworkParams::validation, "1",
            "Share of the training frames, the last ones, that decides when to stop and gives the covariance; 0: none.",
            0.0, 0.9),
        field("patience", &NetworkParams::patience, "epochs",
              "Stop after so many epochs without a better validation error, and keep the best; 0: do all.", 0, 1000000),
        field("networks", &NetworkParams::networks, "1",
              "So many networks of different seeds are trained, and their outputs averaged.", 1, 1000),
        field("seed", &NetworkParams::seed, "", "Of weights, order, dropout and noise, together with the run's seed.",
              0, 1e15),
        choice("covariance", &NetworkParams::covariance,
               "Constant covariance of the error on the validation frames (holdout), as a dkf node needs it, or none.",
               "holdout|none")};
  }
};

/// The fields of a stage's own struct, and those of every network.
template <class... F>
constexpr auto network_fields(F... own) {
  return std::tuple_cat(std::tuple{own...}, NetworkParams::fields());
}

/// Trains params.networks networks of the task's shape and puts them into one model: standardised inputs and outputs
/// (x_mean, x_sd, y_mean, y_sd), the arrays of TrainedNetwork with those of all networks below each other, meta
/// ("networks", "training", "loss_curve"), and the covariance Q of the stage's error on the held-out frames.
/// `meta` is the model's own (numerics/apply.h, model_meta), `make` makes the stage that gives the error.
Model fit_networks(const NetworkParams& params, NetworkTask task, Value meta,
                   const std::function<std::unique_ptr<Stage>(const Model&)>& make, const Data& data, Context& context);

/// What every network stage reads from its model.
struct NetworkModel {
  NetworkModel(const Model& model, const std::string& stage, int version);
  /// The array of each network. Throws DataError when rows or columns (>= 0) of one network differ.
  std::vector<Eigen::MatrixXd> arrays(const std::string& name, Index rows = -1, Index cols = -1) const;
  /// Reads what belongs to the outputs, once it is known how many there are.
  void set_outputs(Index n);
  /// The format of the output: a posterior. Finds the channels of the edge.
  StreamFormat prepare(const StreamFormat& in, Context& context);

  Model model;
  std::int64_t networks = 1;
  Eigen::VectorXd x_mean, x_sd, y_mean, y_sd;
  Eigen::MatrixXd covariance;     ///< empty with covariance = none
  std::vector<std::string> rows;  ///< names of the inputs, "" where not known
  std::vector<Index> order;       ///< where each input lies in a frame of the edge
};

}  // namespace percept
