#include "filters/poisson_bayes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "filters/posterior.h"
#include "numerics/apply.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kPoissonBayesVersion = 1;

struct PoissonBayesParams {
  std::int64_t cells = 32;
  double smoothing = 0.04;
  std::string position_prior = "uniform";
  std::string movement = "random_walk";
  double movement_sd = 0;
  double jump = 0.001;
  std::string estimate = "mean";
  static constexpr auto fields() {
    return std::tuple{
        field("cells", &PoissonBayesParams::cells, "", "Cells of the grid along the longer side.", 2, 500),
        field("smoothing", &PoissonBayesParams::smoothing, "1",
              "Standard deviation of the Gaussian over rate maps and occupancy, as a share of the longer side.", 0.0,
              1.0),
        choice("position_prior", &PoissonBayesParams::position_prior,
               "Where the animal may be before any spike: uniform over visited cells, or occupancy (as in training).",
               "uniform|occupancy"),
        choice("movement", &PoissonBayesParams::movement,
               "none: every bin alone; random_walk: the belief of the bin before, spread, is the prior.",
               "none|random_walk"),
        field("movement_sd", &PoissonBayesParams::movement_sd, "",
              "Standard deviation of the walk after one second along each axis, in the unit of position; 0: from the "
              "training steps.",
              0.0, 1e9),
        field("jump", &PoissonBayesParams::jump, "1", "Share of the belief that a bin spreads over every visited cell.",
              0.0, 1.0),
        choice("estimate", &PoissonBayesParams::estimate,
               "What the part mean holds: the posterior's mean, or map, the likeliest cell.", "mean|map")};
  }
};

PlaceModel place_model(const Model& m) {
  PlaceModel p;
  p.grid.origin = m.vector("origin");
  p.grid.cell = m.number("cell");
  const VectorXd cells = m.vector("cells", p.grid.origin.size());
  for (Index a = 0; a < cells.size(); ++a) {
    if (!(cells(a) >= 1 && cells(a) <= 1e6))
      throw DataError("poisson_bayes", "cells", "1 to 1e6", fmt::format("{}", cells(a)));
    p.grid.cells.push_back(static_cast<Index>(cells(a)));
  }
  p.prior = m.vector("prior");
  p.expected = m.matrix("expected");
  return p;
}

class PoissonBayesStage final : public Typed<PoissonBayesStage> {
 public:
  using Params = PoissonBayesParams;
  PoissonBayesStage(const Params& p, const Model& model)
      : params_(p), model_((require_model(model, "poisson_bayes", kPoissonBayesVersion), model)),
        filter_(place_model(model), p.movement == "none" ? 0.0 : model.number("walk_sd"), p.jump, "poisson_bayes"),
        zero_(VectorXd::Zero(filter_.axes())), frame_(filter_.units()) {}

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    require_time(in, context, "poisson_bayes");
    require_rate(model_, in, context);
    order_ = row_order(names_of(model_.meta, "input_rows"), named_rows(in), context);
    missing_ = &context.counter("missing");
    negative_ = &context.counter("negative_counts");
    filter_.reset();
    StreamFormat out = in;
    out.parts = posterior_parts(model_, filter_.axes(), true);
    return out;
  }

  template <class T>
  Index run(const Block&, FrameSpan<const T> in, Output&, FrameSpan<T> out) noexcept {
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      for (Index u = 0; u < filter_.units(); ++u) {
        frame_(u) = static_cast<double>(x[order_[static_cast<std::size_t>(u)]]);
        if (frame_(u) < 0) negative_->add();
      }
      if (!filter_.step(frame_.data())) {
        missing_->add();
        if (params_.movement == "none") {  // nothing was seen and nothing is remembered
          std::fill_n(out.frame(t), out.rows, std::numeric_limits<T>::quiet_NaN());
          continue;
        }
      }
      write_posterior(params_.estimate == "map" ? filter_.likeliest() : filter_.mean(), zero_, filter_.covariance(),
                      out.frame(t));
    }
    return in.frames;
  }

  void reset() noexcept override { filter_.reset(); }
  void visit_state(StateVisitor& visitor) noexcept override { filter_.visit_state(visitor); }
  Traits traits() const override {
    return {
        .causal = true, .real_time = true, .memory_frames = params_.movement == "none" ? Index{0} : Traits::kDecaying};
  }

 private:
  Params params_;
  Model model_;
  PoissonBayes filter_;
  VectorXd zero_, frame_;
  std::vector<Index> order_;
  Counter *missing_ = nullptr, *negative_ = nullptr;
};

class PoissonBayesFitter final : public Fitter {
 public:
  explicit PoissonBayesFitter(PoissonBayesParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    const Index d = data.y_format().size(), n = data.x_format().size();
    if (d < 1 || d > 2)
      throw DataError(context.node, "target", "a position of one or two coordinates", fmt::format("{} rows", d));
    TrainingMatrix frames = data.gather();
    const Index dropped = drop_missing(frames);
    if (dropped > 0) context.warn(fmt::format("{} training frames with missing values left out", dropped));
    const Index count = frames.x.cols();
    if (count < 2)
      throw DataError(context.node, "training frames", "at least 2 without missing values", std::to_string(count));
    const auto names = data.x_format().row_names();
    for (Index u = 0; u < n; ++u) {
      if (frames.x.row(u).minCoeff() < 0)
        throw DataError(context.node, fmt::format("channel '{}'", names[static_cast<std::size_t>(u)]),
                        "spike counts, 0 or more", fmt::format("{}", frames.x.row(u).minCoeff()));
      if (frames.x.row(u).sum() == 0)
        context.warn(fmt::format("channel '{}' has no spikes in the training frames: it will say nothing",
                                 names[static_cast<std::size_t>(u)]));
    }

    PositionGrid grid;
    const VectorXd low = frames.y.rowwise().minCoeff(), high = frames.y.rowwise().maxCoeff();
    const double side = (high - low).maxCoeff();
    if (!(side > 0)) throw DataError(context.node, "target", "positions that differ", "one position only");
    grid.cell = side / static_cast<double>(p_.cells - 1);
    grid.origin = low;
    for (Index a = 0; a < d; ++a)
      grid.cells.push_back(1 + static_cast<Index>(std::ceil((high(a) - low(a)) / grid.cell - 0.5)));
    const double sd = p_.smoothing * side / grid.cell;

    VectorXd occupancy = VectorXd::Zero(grid.size()), work(grid.size());
    MatrixXd spikes = MatrixXd::Zero(grid.size(), n);
    for (Index t = 0; t < count; ++t) {
      const Index c = grid.cell_of(frames.y.col(t).data());
      occupancy(c) += 1;
      spikes.row(c) += frames.x.col(t).transpose();
    }
    // a cell is in the support when a visited one is within one standard deviation
    VectorXd alone = VectorXd::Zero(grid.size());
    alone(0) = 1;
    smooth_on_grid(grid, sd, alone, work);
    const double near = std::exp(-0.5) * (1 - 1e-9) * alone(0);
    smooth_on_grid(grid, sd, occupancy, work);
    VectorXd prior = (occupancy.array() >= near)
                         .select(p_.position_prior == "occupancy" ? occupancy : VectorXd::Ones(grid.size()), 0.0);
    prior /= prior.sum();
    constexpr double pseudo = 0.1;  // of a frame
    MatrixXd expected = MatrixXd::Ones(n, grid.size());
    for (Index u = 0; u < n; ++u) {
      VectorXd map = spikes.col(u);
      smooth_on_grid(grid, sd, map, work);
      // a tenth of a frame at a unit's mean count keeps a cell without spikes from excluding what one spike says
      const double mean = std::max(frames.x.row(u).sum(), 0.5) / static_cast<double>(count);
      for (Index c = 0; c < grid.size(); ++c)
        expected(u, c) = (map(c) + pseudo * near * mean) / (occupancy(c) + pseudo * near);
    }

    double steps = 0;
    Index pairs = 0;
    for (std::size_t s = 0; s < frames.segment_starts.size(); ++s) {
      const Index last = s + 1 < frames.segment_starts.size() ? frames.segment_starts[s + 1] : count;
      for (Index t = frames.segment_starts[s] + 1; t < last; ++t) {
        steps += (frames.y.col(t) - frames.y.col(t - 1)).squaredNorm() / static_cast<double>(d);
        ++pairs;
      }
    }
    double walk_sd = p_.movement_sd / std::sqrt(data.x_format().rate_hz);
    if (p_.movement_sd == 0) walk_sd = pairs ? std::sqrt(steps / static_cast<double>(pairs)) : 0.0;
    if (p_.movement != "none" && !(walk_sd > 0))
      throw DataError(context.node, "target", "steps from frame to frame (or set movement_sd)", "none");

    Model m;
    m.meta = model_meta("poisson_bayes", kPoissonBayesVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["frames"] = count;
    m.meta["dropped_frames"] = dropped;
    m.set("origin", grid.origin);
    m.set("cell", grid.cell);
    VectorXd cells(d);
    for (Index a = 0; a < d; ++a) cells(a) = static_cast<double>(grid.cells[static_cast<std::size_t>(a)]);
    m.set("cells", cells);
    m.set("prior", prior);
    m.set("expected", expected);
    m.set("walk_sd", walk_sd);
    return m;
  }

 private:
  PoissonBayesParams p_;
};

/// Five units with fields along a path between (0, 0) and (1, 1).
Sample place_sample(const Value& params) {
  const KeyedRandom random(3, "sample");
  const auto rate = [](Index unit, double at) {
    return 0.1 + 3 * std::exp(-8 * std::pow(at - 0.25 * static_cast<double>(unit), 2));
  };
  const auto place = [](std::int64_t frame) { return 0.5 + 0.5 * std::sin(0.05 * static_cast<double>(frame)); };
  const Index frames = 400;
  TrainingMatrix data{MatrixXd(5, frames), MatrixXd(2, frames), {}, {}, {}};
  for (Index t = 0; t < frames; ++t) {
    for (Index u = 0; u < 5; ++u)
      data.x(u, t) = static_cast<double>(random.poisson(rate(u, place(t)), t, static_cast<std::uint64_t>(u)));
    data.y(0, t) = data.y(1, t) = place(t);
  }
  StreamFormat target = time_format(2, 100.0, Scalar::f64, "position");
  target.parts[0].rows.resize(2);
  target.parts[0].rows[0].name = "x";
  target.parts[0].rows[1].name = "y";
  Context context;
  Sample sample;
  sample.params = params;
  sample.model = std::make_shared<Model>(PoissonBayesFitter(read_params<PoissonBayesParams>(params, "sample"))
                                             .fit(MemoryData(sample.format, target, std::move(data)), context));
  sample.fill = [=](std::int64_t frame, std::span<double> values) {
    for (std::size_t u = 0; u < values.size(); ++u)
      values[u] = static_cast<double>(random.poisson(rate(static_cast<Index>(u), place(frame)), 1000 + frame, u));
  };
  return sample;
}

}  // namespace

StageInfo info_poisson_bayes() {
  auto i =
      trained_info<PoissonBayesStage, PoissonBayesFitter>("poisson_bayes", "filters",
                                                          "Position from spike counts: Bayes' rule over a grid with "
                                                          "independent Poisson units, and a random walk as prior.");
  i.version = kPoissonBayesVersion;
  i.paper =
      "Zhang, Ginzburg, McNaughton, Sejnowski, J. Neurophysiol. 79 (1998) 1017; Brown, Frank, Tang, Quirk, Wilson, "
      "J. Neurosci. 18 (1998) 7411";
  i.needs_target = true;
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    for (const auto& params :
         {Value::object({{"cells", 12}}), Value::object({{"cells", 12}, {"movement", "none"}, {"estimate", "map"}}),
          Value::object({{"cells", 12}, {"position_prior", "occupancy"}, {"movement_sd", 0.5}})})
      add_samples(all, place_sample(params));
    return all;
  };
  return i;
}

}  // namespace percept
