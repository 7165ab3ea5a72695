#include "reconstruction/diffusion/posterior_images.h"

#include <algorithm>

#include "core/value.h"

namespace percept::diffusion {

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
    how["moves"] = p.moves;
    how["kept"] = p.kept;
  }
  sampler_ = make_sampler(p.sampler, how, context.node);
  measured_ = {operator_.get(), Batch(operator_->outputs(), 1), sd};
  task_.denoiser = denoiser_.get();
  task_.measurement = &measured_;
  task_.samples = p.samples;
  task_.seed = context.seed;
  task_.where = context.node;
}

std::vector<Part> PosteriorImages::parts(const DrawingParams& p, const ImagePrior& prior, const std::string& unit) {
  const auto image = [&](const char* name) { return Part{name, prior.shape().image, unit, {}, {}}; };
  Part samples = image("samples");
  samples.shape.insert(samples.shape.begin(), p.samples);
  return {image("mean"), image("sd"), samples, Part{"trajectory_variance", {1}, "1", {}, {}}};
}

const Eigen::VectorXd& PosteriorImages::draw(std::int64_t key, const Eigen::VectorXd& y) {
  const Index d = denoiser_->size();
  TrajectorySpread spread(std::max<Index>(2, sampler_->steps() / 4));
  task_.keys = {key};
  task_.observer = [&](const Step& step) { spread(step); };
  measured_.y.col(0) = y.cast<float>();
  const Eigen::MatrixXd drawn = diffusion::draw(*sampler_, task_).x.cast<double>();
  task_.observer = {};
  const Eigen::VectorXd mean = drawn.rowwise().mean();
  out_.resize(2 * d + drawn.size() + 1);
  out_.head(d) = mean;
  out_.segment(d, d) =
      ((drawn.colwise() - mean).rowwise().squaredNorm() / static_cast<double>(drawn.cols() - 1)).cwiseSqrt();
  out_.segment(2 * d, drawn.size()) = drawn.reshaped();
  out_(out_.size() - 1) = spread.score().mean();
  return out_;
}

}  // namespace percept::diffusion
