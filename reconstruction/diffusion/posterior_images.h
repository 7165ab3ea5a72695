/// What stages that draw images from a posterior have in common: parameters, the parts they give, and the drawing.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <memory>
#include <string>

#include "core/context.h"
#include "core/params.h"
#include "core/stream.h"
#include "reconstruction/diffusion/image_prior.h"
#include "reconstruction/diffusion/sampler.h"

namespace percept::diffusion {

struct DrawingParams {
  std::string sampler = "daps";
  std::int64_t levels = 0, samples = 8, moves = 40, kept = 2;
};
/// samplers: those of the stage, "a|b".
template <class P>
constexpr auto drawing_fields(const char* samplers) {
  return std::tuple{
      choice<P>(
          "sampler", &P::sampler,
          "The posterior sampler that draws images. pcn is exact for the prior that its few levels make; the others "
          "take less time and an approximation.",
          samplers),
      field<P, std::int64_t>("levels", &P::levels, "1",
                             "Noise levels of a run, from noise to image; 0: the sampler's default.", 0, 100000),
      field<P, std::int64_t>("samples", &P::samples, "images", "Images drawn for each frame.", 2, 10000),
      field<P, std::int64_t>("moves", &P::moves, "1",
                             "pcn: runs that a chain tries; in the first half it finds its step.", 1, 1000000),
      field<P, std::int64_t>("kept", &P::kept, "1", "pcn: samples that are taken from one chain.", 1, 10000)};
}

/// Draws the images of one frame at a time, so that what a frame gives does not depend on its neighbours.
class PosteriorImages {
 public:
  /// The denoiser opens LibTorch. measured: what y of draw() is a measurement of, in unit noise times sd.
  PosteriorImages(const DrawingParams& params, const ImagePrior& prior, std::unique_ptr<Operator> measured, double sd,
                  const Context& context);

  /// mean, sd, samples {samples, image...} and trajectory_variance {1}: how much the predicted image still changed over
  /// the last quarter of the levels, as a mean over values and samples (TrajectorySpread).
  static std::vector<Part> parts(const DrawingParams& params, const ImagePrior& prior, const std::string& unit);

  /// The parts one after the other. Throws Error when a number is not finite.
  const Eigen::VectorXd& draw(std::int64_t key, const Eigen::VectorXd& y);

 private:
  std::unique_ptr<Operator> operator_;
  std::shared_ptr<Denoiser> denoiser_;
  std::unique_ptr<Sampler> sampler_;
  Measurement measured_;
  Task task_;
  Eigen::VectorXd out_;
};

}  // namespace percept::diffusion
