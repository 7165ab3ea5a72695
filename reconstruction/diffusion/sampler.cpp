#include "reconstruction/diffusion/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "reconstruction/diffusion/schedule.h"

namespace percept::diffusion {
namespace {

/// Each column `times` times, side by side.
Batch repeat_columns(const Batch& x, Index times) {
  Batch all(x.rows(), x.cols() * times);
  for (Index i = 0; i < all.cols(); ++i) all.col(i) = x.col(i / times);
  return all;
}

std::vector<double> levels_of(const LevelParams& p, const std::string& where) {
  // the offset of one is what latent diffusion was published with
  if (p.schedule == "vp_linear") return VpNoise::linear().leading(p.steps, 0, where);
  if (p.schedule == "vp_scaled_linear") return VpNoise::scaled_linear().leading(p.steps, 1, where);
  return karras_levels(p.steps, p.sigma_max, p.sigma_min, p.rho, where);
}

}  // namespace

Sampler::Sampler(const LevelParams& params, const std::string& where) : levels_(levels_of(params, where)) {}

void Sampler::set_levels(std::vector<double> levels, const std::string& where) {
  bool good = levels.size() >= 2 && std::isfinite(levels.front());
  for (std::size_t i = 1; good && i < levels.size(); ++i) good = levels[i] < levels[i - 1] && levels[i] >= 0;
  if (!good)
    throw ConfigError(where + ".levels", fmt::format("{}", fmt::join(levels, ", ")),
                      "two or more falling levels, none below zero");
  levels_ = std::move(levels);
}

Run::Run(const Sampler& sampler, const Task& task)
    : sampler_(sampler), task_(task), size_(task.denoiser->size()), per_item_(sampler.columns(task.samples)),
      columns_(items() * per_item_) {
  const std::string where = place();
  if (items() == 0) throw ConfigError(where + ".keys", "", "a key for each item");
  if (task.samples < 1) throw ConfigError(where + ".samples", std::to_string(task.samples), "at least 1");
  const Measurement* m = task.measurement;
  const Needs needs = sampler.needs(m ? m->sd : 0);
  if (needs.measurement != (m != nullptr))
    throw ConfigError(where, "", m ? "no measurement: it draws from the prior" : "a measurement");
  if (needs.denoiser_gradient && !task.denoiser->has_gradient())
    throw ConfigError(where, "", "a denoiser with a gradient");
  if (m) {
    if (const std::string l = m->op->capabilities().lacking(needs.op); !l.empty())
      throw ConfigError(where, "", fmt::format("an operator with {} (it has {})", l, m->op->capabilities().text()));
    if (m->op->inputs() != size_)
      throw ConfigError(where, fmt::format("an operator on {} values", m->op->inputs()),
                        fmt::format("one on the {} values of the denoiser", size_));
    if (m->y.rows() != m->op->outputs() || m->y.cols() != items())
      throw ConfigError(where, fmt::format("measurements {} x {}", m->y.rows(), m->y.cols()),
                        fmt::format("{} values of {} items", m->op->outputs(), items()));
    if (!(m->sd >= 0) || !std::isfinite(m->sd))
      throw ConfigError(where + ".sd", fmt::format("{}", m->sd), "a noise of the measurement of 0 or more");
    y_ = repeat_columns(m->y, per_item_);
    require_finite(y_, "the measurement");
  }
  for (Index k = 0; k < per_item_; ++k) random_.emplace_back(task.seed, fmt::format("diffusion sample {}", k));

  const Start& s = task.start;
  if (s.from == Start::From::noise) {
    normal(start_);
    start_ *= static_cast<float>(sampler.level(0));
    return;
  }
  if (s.x.rows() != size_ || s.x.cols() != items())
    throw ConfigError(where + ".start", fmt::format("{} x {}", s.x.rows(), s.x.cols()),
                      fmt::format("{} values of {} items", size_, items()));
  start_ = repeat_columns(s.x, per_item_);
  require_finite(start_, "the start");
  if (s.from == Start::From::state) return;
  if (!(s.strength >= 0 && s.strength <= 1))
    throw ConfigError(where + ".strength", fmt::format("{}", s.strength), "a value in [0, 1]");
  // .8 of 50 steps are 40, whatever the rounding of the product
  const auto done = static_cast<Index>(std::floor(s.strength * static_cast<double>(sampler.steps()) + 1e-9));
  first_ = sampler.steps() - done;
  if (done == 0) return;
  const Index noised = s.noised_one_above ? std::max<Index>(0, first_ - 1) : first_;
  Batch z;
  normal(z);
  start_ += static_cast<float>(sampler.level(noised)) * z;
}

Batch Run::centre() const {
  if (task_.start.from != Start::From::image) return Batch::Zero(size_, columns_);
  return repeat_columns(task_.start.x, per_item_);
}

std::string Run::place() const { return task_.where + ": " + sampler_.name(); }

std::string Run::item(Index column) const {
  const std::int64_t key = task_.keys[static_cast<std::size_t>(column / per_item_)];
  if (sigma_ == 0) return fmt::format("item {}", key);
  return fmt::format("item {}, step {} of {} (sigma {:.4g})", key, step_ + 1, sampler_.steps(), sigma_);
}

void Run::require_finite(const Batch& x, const char* what) const {
  if (x.allFinite()) return;
  Index column = 0;
  while (x.col(column).allFinite()) ++column;
  throw Error(fmt::format("{}: {}: {} has values that are not finite", place(), item(column), what));
}

void Run::denoise(const Batch& x, double sigma, Batch& x0) {
  sigma_ = sigma;
  require_finite(x, "the state (is a step too large?)");
  task_.denoiser->denoise(x, sigma, x0);
  evaluations_ += task_.denoiser->evaluations() * x.cols() / items();
  require_finite(x0, "the denoiser's prediction");
}

void Run::pull_back(const Batch& x, double sigma, Batch& x0, const Cotangent& cotangent, Batch& gradient) {
  sigma_ = sigma;
  require_finite(x, "the state (is a step too large?)");
  task_.denoiser->pull_back(
      x, sigma, x0,
      [&](const Batch& out, Batch& v) {
        require_finite(out, "the denoiser's prediction");
        cotangent(out, v);
      },
      gradient);
  const Index n = task_.denoiser->evaluations() * x.cols() / items();
  evaluations_ += n;
  gradients_ += n;
  require_finite(gradient, "the denoiser's gradient");
}

Operator& Run::op(Index columns) {
  operator_calls_ += columns / items();
  return *task_.measurement->op;
}
void Run::apply(const Batch& x, Batch& y) { op(x.cols()).apply(x, y); }
void Run::operator_pull_back(const Batch& x, const Batch& v, Batch& gradient) {
  op(x.cols()).pull_back(x, v, gradient);
}
void Run::pseudo_inverse(const Batch& y, Batch& x) { op(y.cols()).pseudo_inverse(y, x); }
void Run::prox(const Batch& z, double rho, Batch& x) { op(z.cols()).prox(z, y_, rho, x); }
void Run::to_range(const Batch& x, Batch& c) { op(x.cols()).to_range(x, c); }
void Run::from_range(const Batch& c, Batch& x) { op(c.cols()).from_range(c, x); }
void Run::seen(Batch& c) { op(y_.cols()).seen(y_, c); }

void Run::normal(Batch& z) { normal(z, size_); }

void Run::normal(Batch& z, Index rows) {
  z.resize(rows, columns_);
  for (Index i = 0; i < columns_; ++i)
    random_[static_cast<std::size_t>(i % per_item_)].normals(task_.keys[static_cast<std::size_t>(i / per_item_)],
                                                             drawn_, {z.col(i).data(), static_cast<std::size_t>(rows)});
  drawn_ += static_cast<std::uint64_t>(rows + 3) / 4;
}

void Run::uniform(Eigen::VectorXd& u) {
  u.resize(columns_);
  for (Index i = 0; i < columns_; ++i)
    u(i) = random_[static_cast<std::size_t>(i % per_item_)].uniform(task_.keys[static_cast<std::size_t>(i / per_item_)],
                                                                    drawn_);
  ++drawn_;
}

void Run::observe(Index i, const Batch& x, const Batch& x0) {
  step_ = i + 1;
  if (task_.observer && !hushed_) task_.observer({i, sampler_.steps(), sampler_.level(i), x, x0, evaluations_});
}

Draws Run::finish(Batch x) {
  require_finite(x, "the result");
  Draws d{{}, evaluations_, gradients_, operator_calls_};
  if (x.cols() == items() * task_.samples) {
    d.x = std::move(x);
  } else {
    d.x.resize(size_, items() * task_.samples);
    for (Index k = 0; k < items(); ++k)
      d.x.middleCols(k * task_.samples, task_.samples) = x.middleCols(k * per_item_, task_.samples);
  }
  return d;
}

Draws draw(const Sampler& sampler, const Task& task) {
  Run run(sampler, task);
  Batch x = run.start();
  if (run.first() < sampler.steps()) sampler.walk(run, x);
  return run.finish(std::move(x));
}

const SamplerInfo& sampler_at(std::string_view name, const std::string& where) {
  std::vector<std::string> known;
  for (auto& i : samplers()) {
    if (i.name == name) return i;
    known.push_back(i.name);
  }
  throw ConfigError(where + ".sampler", fmt::format("\"{}\"", name),
                    fmt::format("one of {}{}", fmt::join(known, ", "), did_you_mean(name, known)));
}

std::unique_ptr<Sampler> make_sampler(std::string_view name, const Value& params, const std::string& where) {
  return sampler_at(name, where).make(params, where);
}

std::string needs_text(const Needs& needs) {
  std::vector<std::string> words;
  if (needs.measurement) words.push_back("a measurement");
  if (needs.denoiser_gradient) words.push_back("a denoiser with a gradient");
  if (const std::string c = needs.op.text(); c != "nothing") words.push_back("an operator with " + c);
  return words.empty() ? "a denoiser" : fmt::format("{}", fmt::join(words, ", "));
}

void TrajectorySpread::operator()(const Step& step) {
  if (step.i < step.steps - last_) return;
  const Eigen::MatrixXd x0 = step.x0.cast<double>();
  if (seen_ == 0) {
    mean_ = x0;
    squares_.setZero(x0.rows(), x0.cols());
    seen_ = 1;
    return;
  }
  const Eigen::MatrixXd off = x0 - mean_;
  mean_ += off / static_cast<double>(++seen_);
  squares_.array() += off.array() * (x0 - mean_).array();
}

Eigen::VectorXd TrajectorySpread::score() const {
  if (seen_ == 0) return {};
  return squares_.colwise().mean().transpose() / static_cast<double>(seen_);
}

}  // namespace percept::diffusion
