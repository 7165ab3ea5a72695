/// Samplers: from noise, or from an image, to images that a denoiser finds likely and that agree with a measurement.
///
///     const auto sampler = make_sampler("daps", Value::object({{"steps", 50}}), "digits.toml: recon");
///     const Draws draws = draw(*sampler, {.denoiser = &denoiser, .measurement = &measured, .keys = {5}, .samples = 8});
///
/// Random numbers are keyed by (seed, item key, sample, draw): what an item gives does not depend on which others are in
/// its batch. A number that is not finite ends a run with an Error that says where.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/params.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/denoiser.h"
#include "reconstruction/diffusion/operator.h"

namespace percept::diffusion {

/// y = A(x) + sd n, one column an item; see operator.h.
struct Measurement {
  Operator* op = nullptr;
  Batch y;
  double sd = 0;
};

/// What an observer is told at each level, once the image was predicted.
struct Step {
  Index i = 0, steps = 0;
  double sigma = 0;
  const Batch& x;         ///< the noisy state, one column a draw: the samples of an item are neighbours
  const Batch& x0;        ///< the image that is predicted from it, before it meets the measurement
  Index evaluations = 0;  ///< so far, as in Draws
};
/// May throw, which ends the run.
using Observer = std::function<void(const Step&)>;

/// Where a run begins. Of an image, `strength` is the share of the steps that is done: a run of n steps begins n strength
/// steps before the end, with the image noised to that level (Meng et al., SDEdit, ICLR 2022).
struct Start {
  enum class From { noise, image, state } from = From::noise;
  Batch x;              ///< image: noise is added; state: it is taken as it is, at the first level. One column an item.
  double strength = 1;  ///< of an image, in [0, 1]
  /// The image is noised to the level before the one where the run begins, which is what the first code of latent
  /// diffusion does (step 40 of 50, then on from step 39); false: to that level itself.
  bool noised_one_above = false;
};

/// What is to be drawn.
struct Task {
  Denoiser* denoiser = nullptr;
  const Measurement* measurement = nullptr;  ///< of a posterior sampler
  std::vector<std::int64_t> keys = {};       ///< one an item
  Index samples = 1;                         ///< draws of each item
  std::uint64_t seed = 0;
  Start start = {};
  Observer observer = {};
  std::string where = "diffusion";  ///< for messages
};

/// What was drawn, and what it cost an item (all its draws together).
struct Draws {
  Batch x;                   ///< values x (items · samples); the samples of an item are neighbours
  Index evaluations = 0;     ///< of the network
  Index gradients = 0;       ///< of these, how many also went backwards
  Index operator_calls = 0;  ///< of the operator in any of its forms
};

class Run;

/// What a sampler asks for beyond denoise() and apply().
struct Needs {
  bool measurement = false;
  bool denoiser_gradient = false;
  Capabilities op = {};
};

/// Every sampler's levels: parameters that its own are added to.
struct LevelParams {
  std::int64_t steps = 20;
  std::string schedule = "karras";
  double sigma_max = 80, sigma_min = 0.002, rho = 7;
};
template <class P>
constexpr auto level_fields() {
  return std::tuple{
      field<P, std::int64_t>("steps", &P::steps, "1", "Noise levels; the last step ends at no noise.", 1.0, 1e5),
      choice<P>("schedule", &P::schedule,
                "Levels: karras (evenly spaced in the rho-th root from sigma_max to sigma_min), or those of networks "
                "trained on 1000 times, vp_linear (DDPM) and vp_scaled_linear (latent diffusion), which have their own "
                "range.",
                "karras|vp_linear|vp_scaled_linear"),
      field<P, double>("sigma_max", &P::sigma_max, "1", "Highest noise, in units of the image values.", 1e-6, 1e6),
      field<P, double>("sigma_min", &P::sigma_min, "1", "Lowest noise above zero.", 1e-9, 1e6),
      field<P, double>("rho", &P::rho, "1", "Larger: more of the steps at low noise.", 0.1, 100.0)};
}

/// Walks a batch down its levels. Holds no state of a run: one sampler may serve many.
class Sampler {
 public:
  virtual ~Sampler() = default;
  virtual std::string name() const = 0;
  /// May depend on the noise of the measurement.
  virtual Needs needs(double measurement_sd) const { return (void)measurement_sd, Needs{}; }
  /// How many columns an item takes for so many draws: an ensemble may need more, a chain gives several.
  virtual Index columns(Index samples) const { return samples; }
  /// From x at level run.first() to x at the last level: as many columns, or one a draw.
  virtual void walk(Run& run, Batch& x) const = 0;

  /// Falling, n + 1 for n steps.
  const std::vector<double>& levels() const { return levels_; }
  Index steps() const { return static_cast<Index>(levels_.size()) - 1; }
  double level(Index i) const { return levels_[static_cast<std::size_t>(i)]; }
  /// Levels of one's own. Throws ConfigError unless there are two or more, finite, falling and not below zero.
  void set_levels(std::vector<double> levels, const std::string& where);

 protected:
  Sampler(const LevelParams& params, const std::string& where);

 private:
  std::vector<double> levels_;
};

/// One run of a sampler: what it works with, counted and checked. Made by draw().
class Run {
 public:
  Run(const Sampler& sampler, const Task& task);

  Index first() const { return first_; }  ///< step to begin with
  Index columns() const { return columns_; }
  Index items() const { return static_cast<Index>(task_.keys.size()); }
  Index samples() const { return task_.samples; }
  Index size() const { return size_; }
  const Batch& start() const { return start_; }
  /// What start() is without its noise: the image that the run begins from, else zero.
  Batch centre() const;

  void denoise(const Batch& x, double sigma, Batch& x0);
  void pull_back(const Batch& x, double sigma, Batch& x0, const Cotangent& cotangent, Batch& gradient);

  /// The measurement, one column a draw, and its operator.
  const Batch& y() const { return y_; }
  double sd() const { return task_.measurement->sd; }
  double norm() const { return task_.measurement->op->norm(); }
  const Eigen::VectorXf& singular_values() const { return task_.measurement->op->singular_values(); }
  void apply(const Batch& x, Batch& y);
  void operator_pull_back(const Batch& x, const Batch& v, Batch& gradient);
  void pseudo_inverse(const Batch& y, Batch& x);
  void prox(const Batch& z, double rho, Batch& x);
  void to_range(const Batch& x, Batch& c);
  void from_range(const Batch& c, Batch& x);
  void seen(Batch& c);

  /// The next standard normal numbers of every column.
  void normal(Batch& z);
  void normal(Batch& z, Index rows);
  /// The next number in [0, 1) of every column.
  void uniform(Eigen::VectorXd& u);

  /// Tells the observer, unless hushed.
  void observe(Index i, const Batch& x, const Batch& x0);
  bool observed() const { return static_cast<bool>(task_.observer); }
  void hush(bool quiet) { hushed_ = quiet; }
  /// Throws Error when a number is not finite, naming `what` and the item.
  void require_finite(const Batch& x, const char* what) const;
  Draws finish(Batch x);

 private:
  std::string place() const;
  Operator& op(Index columns);
  std::string item(Index column) const;

  const Sampler& sampler_;
  const Task& task_;
  Index size_, per_item_, columns_, first_ = 0;
  Batch start_, y_;
  std::vector<KeyedRandom> random_;  ///< one a sample
  std::uint64_t drawn_ = 0;
  Index step_ = 0;
  double sigma_ = 0;
  bool hushed_ = false;
  Index evaluations_ = 0, gradients_ = 0, operator_calls_ = 0;
};

/// Runs the sampler. Throws ConfigError when the task lacks what it needs or sizes do not fit, before anything is
/// computed, and Error when a number is not finite.
Draws draw(const Sampler& sampler, const Task& task);

/// A row of the table of samplers.
struct SamplerInfo {
  std::string name;  ///< the word after `sampler =`
  std::string doc;   ///< one line
  std::string paper;
  bool posterior = false;  ///< takes a measurement
  std::vector<ParamInfo> params;
  std::function<std::unique_ptr<Sampler>(const Value& params, const std::string& where)> make;
};
/// The usual row of a sampler S made of (S::Params, where).
template <class S>
SamplerInfo sampler_info(std::string name, std::string doc, std::string paper, bool posterior) {
  return {std::move(name),
          std::move(doc),
          std::move(paper),
          posterior,
          describe_params<typename S::Params>(),
          [](const Value& params, const std::string& where) -> std::unique_ptr<Sampler> {
            return std::make_unique<S>(read_params<typename S::Params>(params, where), where);
          }};
}

/// Every sampler.
const std::vector<SamplerInfo>& samplers();
/// Throws ConfigError with a "did you mean".
const SamplerInfo& sampler_at(std::string_view name, const std::string& where);
std::unique_ptr<Sampler> make_sampler(std::string_view name, const Value& params, const std::string& where);
/// What a sampler of default parameters asks for, in words, of noisy and of noise-free measurements: "a measurement, an
/// operator with singular values".
std::string needs_text(const Needs& needs);

/// Adds up, over the last `steps` levels of a run, the variance of the predicted image: large where the prediction still
/// jumps between alternatives, which marks hallucinations (Aithal, Maini, Lipton, Kolter, NeurIPS 2024).
class TrajectorySpread {
 public:
  explicit TrajectorySpread(Index steps) : last_(steps) {}
  void operator()(const Step& step);
  /// Mean over values of the variance over the levels seen, one a column; empty before any.
  Eigen::VectorXd score() const;

 private:
  Index last_, seen_ = 0;
  Eigen::MatrixXd mean_, squares_;
};

}  // namespace percept::diffusion
