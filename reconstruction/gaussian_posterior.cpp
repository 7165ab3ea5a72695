#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/registry.h"
#include "numerics/apply.h"
#include "numerics/linalg.h"
#include "numerics/random.h"
#include "reconstruction/gaussian.h"
#include "reconstruction/image/image_library.h"
#include "reconstruction/linear_measurement.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kGaussianPosteriorVersion = 1;

struct GaussianPosteriorParams {
  std::vector<double> alpha = {1.0, 10.0, 100.0, 1000.0, 10000.0};
  std::int64_t inner_folds = 5;
  std::string noise = "shrunk";
  static constexpr auto fields() {
    return std::tuple{
        field("alpha", &GaussianPosteriorParams::alpha, "1",
              "Ridge penalty of the encoding model (target to brain); of several the best on inner folds is taken.",
              0.0, 1e15),
        field("inner_folds", &GaussianPosteriorParams::inner_folds, "1",
              "Folds for the choice of alpha and for the noise, which is measured on frames left out: contiguous "
              "stretches, or "
              "whole groups.",
              2.0, 1000.0),
        choice("noise", &GaussianPosteriorParams::noise,
               "Noise of the brain rows: shrunk (correlated, shrunk towards independence) or diagonal (independent).",
               "shrunk|diagonal")};
  }
};

class GaussianPosteriorStage final : public Typed<GaussianPosteriorStage> {
 public:
  using Params = GaussianPosteriorParams;
  GaussianPosteriorStage(const Params&, const Model& model)
      : model_((require_model(model, "gaussian_posterior", kGaussianPosteriorVersion), model)),
        gain_(model.matrix("gain")), x_mean_(model.vector("x_mean", gain_.cols())),
        y_mean_(model.vector("y_mean", gain_.rows())), sd_(model.vector("sd", gain_.rows())), mean_(gain_.rows()),
        frame_(gain_.cols()), rows_(names_of(model.meta, "input_rows")) {
    if (static_cast<Index>(rows_.size()) != gain_.cols())
      throw DataError("model of gaussian_posterior", "input_rows", fmt::format("{} names", gain_.cols()),
                      fmt::format("{}", rows_.size()));
    Index size = 1;
    if (const Value* shape = model.meta.find("output_shape"))
      for (auto& n : shape->as_array()) {
        shape_.push_back(n.as_integer());
        if (shape_.back() < 1 || shape_.back() > gain_.rows()) size = 0;
        size = std::min(size * shape_.back(), gain_.rows() + 1);
      }
    if (shape_.empty() || size != gain_.rows())
      throw DataError("model of gaussian_posterior", "output_shape", fmt::format("a shape of {} values", gain_.rows()),
                      fmt::format("{{{}}}", fmt::join(shape_, ", ")));
  }

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    order_ = row_order(rows_, named_rows(in), context);
    if (in.axis == Axis::time) {
      require_time(in, context, "gaussian_posterior");
      require_rate(model_, in, context);
    }
    missing_ = &context.counter("missing");
    StreamFormat out = in;
    Part mean = posterior_parts(model_, gain_.rows(), false)[0];
    mean.shape = shape_;
    Part sd = mean;
    sd.name = "sd";
    out.parts = {mean, sd};
    return out;
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out) noexcept {
    const Index n = gain_.cols(), d = gain_.rows();
    for (Index t = 0; t < in.frames; ++t) {
      const T* x = in.frame(t);
      T* y = out.frame(t);
      bool whole = true;
      for (Index i = 0; i < n; ++i) {
        frame_(i) = static_cast<double>(x[order_[static_cast<std::size_t>(i)]]) - x_mean_(i);
        whole = whole && std::isfinite(frame_(i));
      }
      if (!whole) {
        missing_->add();
        std::fill_n(y, 2 * d, std::numeric_limits<T>::quiet_NaN());
        continue;
      }
      column_product(gain_, frame_.data(), mean_.data());
      for (Index k = 0; k < d; ++k) {
        y[k] = static_cast<T>(mean_(k) + y_mean_(k));
        y[d + k] = static_cast<T>(sd_(k));
      }
    }
    if (output.keys) std::copy(block.keys.begin(), block.keys.end(), output.keys);
    return in.frames;
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  Model model_;
  MatrixXd gain_;  ///< outputs x brain rows
  VectorXd x_mean_, y_mean_, sd_, mean_, frame_;
  std::vector<std::string> rows_;  ///< names of the brain rows, "" where not known
  std::vector<Index> shape_, order_;
  Counter* missing_ = nullptr;
};

class GaussianPosteriorFitter final : public Fitter {
 public:
  explicit GaussianPosteriorFitter(GaussianPosteriorParams p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    MatrixXd y;
    const LinearMeasurement seen =
        fit_linear_measurement(data, {p_.alpha, p_.inner_folds, p_.noise == "shrunk"}, context, &y);
    // what targets are like: as the library's images where there is one, else as those of the training frames
    VectorXd prior_mean = seen.y_mean;
    const Model* library = context.prior("image_library");
    ShrunkCovariance prior;
    if (library) {
      MatrixXd images = read_image_library(*library).images;
      if (images.rows() != y.rows())
        throw ConfigError(context.node + ".prior", fmt::format("images of {} values", images.rows()),
                          fmt::format("images of the target's {}", y.rows()));
      prior_mean = images.rowwise().mean();
      prior = shrunk_covariance(images.colwise() - prior_mean);
    } else {
      prior = shrunk_covariance(y);
    }
    const GaussianPosterior posterior = gaussian_posterior(prior.covariance, seen.weights, seen.noise, context.node);

    Model m;
    m.meta =
        model_meta("gaussian_posterior", kGaussianPosteriorVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["output_shape"] =
        data.y_format().parts.size() == 1 ? Value(data.y_format().parts[0].shape) : Value(std::vector<Index>{y.rows()});
    m.meta["frames"] = seen.frames;
    m.meta["dropped_frames"] = seen.dropped;
    m.meta["alpha"] = seen.alpha;
    m.meta["prior_shrinkage"] = prior.weight;
    m.meta["noise_shrinkage"] = seen.noise_weight;
    m.set("gain", posterior.gain);
    m.set("sd", posterior.sd);
    // what the brain would do for the mean of the prior
    m.set("x_mean", VectorXd(seen.x_mean + seen.weights * (prior_mean - seen.y_mean)));
    m.set("y_mean", prior_mean);
    return m;
  }

 private:
  GaussianPosteriorParams p_;
};

/// Small images seen by noisy linear rows.
Sample gaussian_posterior_sample(const StreamFormat& format, const char* noise) {
  const KeyedRandom random(1, "gaussian_posterior sample");
  const Index frames = 120, rows = format.size();
  StreamFormat target = item_format({2, 3}, Scalar::f64, "image");
  target.axis = format.axis;
  target.rate_hz = format.rate_hz;
  TrainingMatrix data{MatrixXd(rows, frames), MatrixXd(6, frames), {}, {}, {}};
  for (Index t = 0; t < frames; ++t) {
    for (Index k = 0; k < 6; ++k) data.y(k, t) = 0.5 + 0.2 * random.normal(t, static_cast<std::uint64_t>(k));
    for (Index i = 0; i < rows; ++i)
      data.x(i, t) =
          3 * data.y(i % 6, t) - data.y((i + 1) % 6, t) + 0.3 * random.normal(t, static_cast<std::uint64_t>(6 + i));
  }
  Sample sample;
  sample.format = format;
  sample.params = Value::object({{"noise", noise}});
  GaussianPosteriorParams params;
  params.noise = noise;
  Context context;
  sample.model = std::make_shared<Model>(
      GaussianPosteriorFitter(params).fit(MemoryData(format, target, std::move(data)), context));
  return sample;
}

}  // namespace

StageInfo info_gaussian_posterior() {
  auto i = trained_info<GaussianPosteriorStage, GaussianPosteriorFitter>(
      "gaussian_posterior", "reconstruction",
      "Linear-Gaussian Bayes: a shrunk Gaussian prior over targets, fitted to those of the training frames or to the "
      "images of a prior, and a ridge encoding model give the posterior mean, in the target's shape, and the posterior "
      "standard deviation. A frame with a missing row is missing.");
  i.version = kGaussianPosteriorVersion;
  i.paper =
      "Schoenmakers, Barth, Heskes, van Gerven, NeuroImage 83 (2013) 951; Nishimoto et al., Current Biology 21 (2011) "
      "1641";
  i.needs_target = true;
  i.priors = {"image_library"};
  i.real_time = true;
  i.samples = [] {
    std::vector<Sample> all;
    for (const StreamFormat& format :
         {time_format(4, 50.0), item_format({9})})  // fewer and more rows than target values
      for (const char* noise : {"shrunk", "diagonal"}) {
        all.push_back(gaussian_posterior_sample(format, noise));
        all.push_back(all.back());
        all.back().format.scalar = Scalar::f32;
      }
    return all;
  };
  return i;
}

}  // namespace percept
