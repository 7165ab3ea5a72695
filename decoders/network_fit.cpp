#include "decoders/network_fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/module.h"
#include "numerics/apply.h"
#include "numerics/linalg.h"
#include "numerics/random.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

/// Outputs of the stage for frames in memory, which starts anew at each segment.
MatrixXd run_over(Stage& stage, const Data& data, const TrainingMatrix& t, Index outputs, Context context) {
  StreamFormat in = data.x_format();
  in.scalar = Scalar::f64;
  in.max_frames = std::max<Index>(1, t.x.cols());
  context.counters = nullptr;
  stage.prepare(in, context);
  MatrixXd y(outputs, t.x.cols());
  for (std::size_t s = 0; s < t.segment_starts.size(); ++s) {
    const Index begin = t.segment_starts[s],
                end = s + 1 < t.segment_starts.size() ? t.segment_starts[s + 1] : t.x.cols();
    Block block;
    block.x = ConstFrames(t.x.data() + begin * t.x.rows(), Scalar::f64, t.x.rows(), end - begin, t.x.rows());
    Output out;
    out.y = MutableFrames(y.data() + begin * outputs, Scalar::f64, outputs, end - begin, outputs);
    stage.reset();
    stage.process(block, out);
  }
  return y;
}

/// Segments of frames [first, last), counted from `first`.
std::vector<std::int64_t> starts_within(const std::vector<Index>& starts, Index first, Index last) {
  std::vector<std::int64_t> within{0};
  for (const Index s : starts)
    if (s > first && s < last) within.push_back(s - first);
  return within;
}

/// Puts the arrays of several networks below each other.
void set_arrays(Model& m, const std::vector<TrainedNetwork>& networks) {
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  for (std::size_t i = 0; i < networks[0].arrays.size(); ++i) {
    const NetworkArray& first = networks[0].arrays[i];
    Eigen::MatrixXf all(first.rows * static_cast<Index>(networks.size()), first.cols);
    for (std::size_t k = 0; k < networks.size(); ++k)
      all.middleRows(static_cast<Index>(k) * first.rows, first.rows) =
          Eigen::Map<const RowMajor>(networks[k].arrays[i].values.data(), first.rows, first.cols);
    m.set_f32(first.name, all);
  }
}

}  // namespace

Model fit_networks(const NetworkParams& p, NetworkTask task, Value meta,
                   const std::function<std::unique_ptr<Stage>(const Model&)>& make, const Data& data,
                   Context& context) {
  const bool holdout = p.covariance == "holdout";
  if (holdout && p.validation == 0)
    throw ConfigError(context.node + ".validation", "0", "a share above 0 with covariance = \"holdout\"");
  auto& training = torch_interface<NetworkTraining>();
  TrainingMatrix t = data.gather();
  const Index dropped = drop_missing(t), frames = t.x.cols(), d = t.y.rows();
  if (dropped > 0) context.warn(fmt::format("{} training frames with missing values left out", dropped));
  if (t.segment_starts.empty()) t.segment_starts = {0};
  const Index held =
      p.validation > 0 ? std::max<Index>(d + 1, std::llround(p.validation * static_cast<double>(frames))) : 0;
  const Index fitted = frames - held;
  if (fitted < 2)
    throw DataError(context.node, "training frames",
                    fmt::format("at least {}, {} of them for validation", held + 2, held), std::to_string(frames));

  // scales from the frames that are fitted, not from those held out
  const VectorXd x_mean = t.x.leftCols(fitted).rowwise().mean(), y_mean = t.y.leftCols(fitted).rowwise().mean();
  const auto spread = [&](const MatrixXd& m, const VectorXd& mean) -> VectorXd {
    return ((m.leftCols(fitted).colwise() - mean).rowwise().squaredNorm() / static_cast<double>(fitted)).cwiseSqrt();
  };
  VectorXd x_sd = spread(t.x, x_mean);
  const VectorXd y_sd = spread(t.y, y_mean);
  for (Index i = 0; i < x_sd.size(); ++i)
    if (!(x_sd(i) > 1e-12 * std::abs(x_mean(i)))) x_sd(i) = 1;  // a row without spread says nothing
  const auto names = data.y_format().row_names();
  for (Index k = 0; k < d; ++k)
    if (!(y_sd(k) > 1e-12 * std::abs(y_mean(k))))
      throw DataError(context.node, fmt::format("target '{}'", names[static_cast<std::size_t>(k)]),
                      "values that vary over the training frames", fmt::format("the constant {}", y_mean(k)));
  const Eigen::MatrixXf x = (x_sd.cwiseInverse().asDiagonal() * (t.x.colwise() - x_mean)).cast<float>();
  const Eigen::MatrixXf y = (y_sd.cwiseInverse().asDiagonal() * (t.y.colwise() - y_mean)).cast<float>();
  const auto part = [](const Eigen::MatrixXf& m, Index first, Index n) {
    return std::span(m.data() + first * m.rows(), static_cast<std::size_t>(n * m.rows()));
  };

  task.inputs = x.rows();
  task.outputs = d;
  task.training = {part(x, 0, fitted), part(y, 0, fitted), starts_within(t.segment_starts, 0, fitted)};
  task.held = {part(x, fitted, held), part(y, fitted, held), starts_within(t.segment_starts, fitted, frames)};
  task.dropout = p.dropout;
  task.input_noise = p.input_noise;
  task.input_dropout = p.input_dropout;
  task.learning_rate = p.learning_rate;
  task.cosine = p.schedule == "cosine";
  task.weight_decay = p.weight_decay;
  task.weight_average = p.weight_average;
  task.epochs = p.epochs;
  task.patience = p.patience;
  task.threads = context.threads;
  task.where = context.node;

  Value trained = Value::array(), curves = Value::array();
  std::vector<TrainedNetwork> networks;
  const KeyedRandom seeds(context.seed, meta.get("stage", ""));
  for (std::int64_t k = 0; k < p.networks; ++k) {
    task.seed = static_cast<std::uint64_t>(seeds.below(std::int64_t{1} << 62, p.seed, static_cast<std::uint64_t>(k)));
    if (!context.checkpoint.empty()) task.checkpoint = context.checkpoint / fmt::format("network_{}.safetensors", k);
    task.on_epoch = [&](std::int64_t epoch, double loss) {
      context.check_cancel();
      if (!context.progress) return;
      const double done = static_cast<double>(k) + static_cast<double>(epoch) / static_cast<double>(p.epochs);
      context.progress(done / static_cast<double>(p.networks),
                       fmt::format("network {} of {}, epoch {}: loss {:.4g}", k + 1, p.networks, epoch, loss));
    };
    networks.push_back(training.train(task));
    const TrainedNetwork& one = networks.back();
    const auto& losses = held > 0 ? one.held_losses : one.training_losses;
    trained.push_back(Value::object({{"epochs", static_cast<std::int64_t>(losses.size())},
                                     {"best_epoch", one.best_epoch},
                                     {"loss", losses[static_cast<std::size_t>(one.best_epoch - 1)]}}));
    curves.push_back(Value::object({{"training", one.training_losses}, {"held_out", one.held_losses}}));
  }

  Model m;
  m.meta = std::move(meta);
  m.meta["frames"] = fitted;
  m.meta["validation_frames"] = held;
  m.meta["dropped_frames"] = dropped;
  m.meta["networks"] = p.networks;
  m.meta["training"] = std::move(trained);
  m.meta["loss_curve"] = std::move(curves);
  set_arrays(m, networks);
  m.set("x_mean", x_mean);
  m.set("x_sd", x_sd);
  m.set("y_mean", y_mean);
  m.set("y_sd", y_sd);
  if (holdout) {
    // what comes before the held-out frames runs too: a recurrent network then knows what it knows live
    const MatrixXd error = (t.y - run_over(*make(m), data, t, d, context)).rightCols(held);
    const MatrixXd q = gram(error) / static_cast<double>(held);
    if (!is_spd(q))
      throw DataError(context.node, "covariance of the validation error",
                      "a positive definite matrix (or covariance = \"none\")",
                      "one that is singular: outputs are explained exactly, or depend on each other");
    m.set("Q", q);
  }
  return m;
}

NetworkModel::NetworkModel(const Model& from, const std::string& stage, int version)
    : model((require_model(from, stage, version), from)), networks(from.meta.get("networks", 1)),
      x_mean(from.vector("x_mean")), x_sd(from.vector("x_sd", x_mean.size())), rows(names_of(from.meta, "input_rows")) {
  if (networks < 1) throw DataError("model of " + stage, "networks", "at least 1", std::to_string(networks));
  if (rows.empty()) rows.resize(static_cast<std::size_t>(x_mean.size()));
  if (static_cast<Index>(rows.size()) != x_mean.size())
    throw DataError("model of " + stage, "input_rows", fmt::format("{} names", x_mean.size()),
                    fmt::format("{}", rows.size()));
}

std::vector<MatrixXd> NetworkModel::arrays(const std::string& name, Index of_rows, Index cols) const {
  const MatrixXd all = model.matrix(name, of_rows < 0 ? -1 : of_rows * networks, cols);
  if (all.rows() % networks != 0)
    throw DataError("model of " + model.meta.get("stage", ""), name, fmt::format("rows of {} networks", networks),
                    std::to_string(all.rows()));
  if (!all.allFinite())
    throw DataError("model of " + model.meta.get("stage", ""), name, "finite values", "NaN or infinity");
  const Index n = all.rows() / networks;
  std::vector<MatrixXd> each;
  for (Index k = 0; k < networks; ++k) each.emplace_back(all.middleRows(k * n, n));
  return each;
}

void NetworkModel::set_outputs(Index n) {
  y_mean = model.vector("y_mean", n);
  y_sd = model.vector("y_sd", n);
  if (!(x_sd.array() > 0).all() || !(y_sd.array() > 0).all())
    throw DataError("model of " + model.meta.get("stage", ""), "x_sd, y_sd", "values above zero", "zero or less");
  if (model.has("Q")) covariance = model.matrix("Q", n, n);
}

StreamFormat NetworkModel::prepare(const StreamFormat& in, Context& context) {
  order = row_order(rows, named_rows(in), context);
  if (in.axis == Axis::time) {
    require_time(in, context, model.meta.get("stage", "").c_str());
    require_rate(model, in, context);
  }
  StreamFormat out = in;
  out.parts = posterior_parts(model, y_mean.size(), covariance.size() > 0);
  return out;
}

}  // namespace percept
