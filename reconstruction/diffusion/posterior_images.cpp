#include "reconstruction/diffusion/posterior_images.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "core/error.h"
#include "core/value.h"
#include "numerics/random.h"
#include "reconstruction/image/library_posterior.h"

namespace percept::diffusion {

namespace {

std::unique_ptr<Sampler> prior_sampler(const std::vector<double>& levels, const std::string& where) {
  auto flow = make_sampler("gradient_estimation", Value::table(), where);
  flow->set_levels(levels, where);
  return flow;
}

}  // namespace

PosteriorImages::PosteriorImages(const DrawingParams& p, const ImagePrior& prior, std::unique_ptr<Operator> measured,
                                 double sd, const Context& context)
    : operator_(std::move(measured)), denoiser_(prior.denoiser(context.threads)) {
  const double scale = prior.scale();
  Value how = Value::object({{"sigma_max", 80 * scale}, {"sigma_min", 0.002 * scale}});
  if (p.levels > 0) how["steps"] = p.levels;
  if (p.sampler == "daps") {
    if (operator_->capabilities().spectral) how["move"] = "exact";
    how["data_sd"] = scale * kSigmaData;
  } else if (p.sampler == "pcn") {
    if (p.moves == 0 && p.pool == 0)
      throw ConfigError(context.node + ".moves", "0", "moves of a chain, or a pool that is weighed");
    weighed_ = p.moves == 0;
    if (!weighed_) how["moves"] = p.moves;
    how["kept"] = p.kept;
    if (p.pool > 0) how["step"] = 0.5;
  }
  sampler_ = make_sampler(p.sampler, how, context.node);
  measured_ = {operator_.get(), Batch(operator_->outputs(), 1), sd};
  task_.denoiser = denoiser_.get();
  task_.measurement = &measured_;
  task_.samples = p.samples;
  task_.seed = context.seed;
  task_.where = context.node;
  samples_ = p.samples;
  kept_ = weighed_ ? 1 : std::min(p.kept, p.samples);
  if (p.sampler == "pcn" && p.pool > 0) {
    pool_ = pool_of(p, prior);
    operator_->apply(pool_->images, pool_measured_);
  }
  if (weighed_) {
    sampler_ = prior_sampler(sampler_->levels(), context.node);
    task_.measurement = nullptr;
  }
}

std::shared_ptr<const PosteriorImages::Pool> PosteriorImages::pool_of(const DrawingParams& p,
                                                                      const ImagePrior& prior) const {
  // all folds of an experiment have the same prior: the last pool that was made is kept
  struct Last {
    std::string prior;
    std::vector<double> levels;
    Index images = 0;
    std::uint64_t seed = 0;
    std::shared_ptr<const Pool> made;
  };
  static std::mutex mutex;
  static Last last;
  const std::lock_guard lock(mutex);
  const std::string digest = prior.digest();
  if (last.made && last.prior == digest && last.levels == sampler_->levels() && last.images == p.pool &&
      last.seed == task_.seed)
    return last.made;
  auto made = std::make_shared<Pool>();
  const KeyedRandom random(task_.seed, "diffusion pool");
  made->noise.resize(denoiser_->size(), p.pool);
  for (Index k = 0; k < p.pool; ++k)
    random.normals(k, 0, {made->noise.col(k).data(), static_cast<std::size_t>(made->noise.rows())});
  made->noise *= static_cast<float>(sampler_->level(0));
  made->images.resizeLike(made->noise);
  const auto flow = prior_sampler(sampler_->levels(), task_.where);
  constexpr Index kTogether = 32;  // bounds the memory
  for (Index first = 0; first < p.pool; first += kTogether) {
    const Index n = std::min(kTogether, p.pool - first);
    Task task;
    task.denoiser = denoiser_.get();
    task.where = task_.where;
    for (Index k = 0; k < n; ++k) task.keys.push_back(first + k);
    task.start.from = Start::From::state;
    task.start.x = made->noise.middleCols(first, n);
    made->images.middleCols(first, n) = diffusion::draw(*flow, task).x;
  }
  last = {digest, sampler_->levels(), p.pool, task_.seed, made};
  return made;
}

Eigen::VectorXd PosteriorImages::weights_of_pool(const Eigen::VectorXd& y) const {
  return normalised((pool_measured_.colwise() - y.cast<float>()).cast<double>().colwise().squaredNorm().transpose() /
                    (-2 * measured_.sd * measured_.sd));
}

Eigen::MatrixXd PosteriorImages::chains(std::int64_t key, const Eigen::VectorXd& y, const Eigen::VectorXd& weights) {
  // each chain is an item of its own, since items begin where they are told to
  const Index chains = (samples_ + kept_ - 1) / kept_;
  const KeyedRandom random(task_.seed, "diffusion pool choice");
  const double luck = random.uniform(key, 0);
  task_.keys.clear();
  task_.start.from = Start::From::state;
  task_.start.x.resize(denoiser_->size(), chains);
  measured_.y.resize(y.size(), chains);
  double before = 0;
  Index at = 0;
  for (Index c = 0; c < chains; ++c) {
    // systematic resampling (Kitagawa, J. Computational and Graphical Statistics 5 (1996) 1)
    const double place = (static_cast<double>(c) + luck) / static_cast<double>(chains);
    while (at + 1 < weights.size() && before + weights(at) < place) before += weights(at++);
    task_.keys.push_back(key * chains + c);
    task_.start.x.col(c) = pool_->noise.col(at);
    measured_.y.col(c) = y.cast<float>();
  }
  task_.samples = kept_;
  const Eigen::MatrixXd drawn = diffusion::draw(*sampler_, task_).x.cast<double>();
  return drawn.leftCols(samples_);
}

std::vector<Part> PosteriorImages::parts(Index samples, const std::vector<Index>& image, const std::string& unit) {
  const auto part = [&](const char* name) { return Part{name, image, unit, {}, {}}; };
  Part drawn = part("samples");
  drawn.shape.insert(drawn.shape.begin(), samples);
  return {part("mean"), part("sd"), drawn, Part{"trajectory_variance", {1}, "1", {}, {}}};
}

void PosteriorImages::summarise(const Eigen::MatrixXd& drawn, double trajectory_variance, Eigen::VectorXd& out) {
  const Index d = drawn.rows();
  const Eigen::VectorXd mean = drawn.rowwise().mean();
  out.resize(2 * d + drawn.size() + 1);
  out.head(d) = mean;
  out.segment(d, d) =
      ((drawn.colwise() - mean).rowwise().squaredNorm() / static_cast<double>(drawn.cols() - 1)).cwiseSqrt();
  out.segment(2 * d, drawn.size()) = drawn.reshaped();
  out(out.size() - 1) = trajectory_variance;
}

const Eigen::VectorXd& PosteriorImages::draw(std::int64_t key, const Eigen::VectorXd& y) {
  TrajectorySpread spread(std::max<Index>(2, sampler_->steps() / 4));
  task_.observer = [&](const Step& step) { spread(step); };
  Eigen::MatrixXd drawn;
  Eigen::VectorXd weights;
  if (pool_) {
    weights = weights_of_pool(y);
    if (!(weights.sum() > 0)) throw Error(fmt::format("{}: no image of the pool explains the response", task_.where));
    drawn = chains(key, y, weights);
  } else {
    task_.keys = {key};
    measured_.y.col(0) = y.cast<float>();
    drawn = diffusion::draw(*sampler_, task_).x.cast<double>();
  }
  task_.observer = {};
  summarise(drawn, spread.score().mean(), out_);
  if (weighed_) {
    const Moments of_pool = weighted_moments(pool_->images, heaviest(weights, weights.size()));
    out_.head(drawn.rows()) = of_pool.mean;
    out_.segment(drawn.rows(), drawn.rows()) = of_pool.sd;
  }
  return out_;
}

}  // namespace percept::diffusion
