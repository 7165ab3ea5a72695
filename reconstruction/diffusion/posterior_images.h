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
  std::int64_t levels = 0, samples = 8, pool = 512, moves = 16, kept = 2;
};
template <class P>
constexpr auto drawing_fields() {
  return std::tuple{
      field<P, std::int64_t>("levels", &P::levels, "1",
                             "Noise levels of a run, from noise to image; 0: the sampler's default.", 0, 100000),
      field<P, std::int64_t>("samples", &P::samples, "images", "Images drawn for each frame.", 2, 10000),
      field<P, std::int64_t>("pool", &P::pool, "images",
                             "pcn: images that are drawn from the prior once; by their likelihood some of them are "
                             "where the chains of a frame begin. 0: anywhere.",
                             0, 1000000),
      field<P, std::int64_t>("moves", &P::moves, "1",
                             "pcn: runs that a chain tries; in the first half it finds its step. 0: the pool itself is "
                             "the posterior, mean and sd are over all of it by weight, samples are drawn from it.",
                             0, 1000000),
      field<P, std::int64_t>("kept", &P::kept, "1", "pcn: samples that are taken from one chain.", 1, 10000)};
}

/// Draws the images of one frame at a time, so that what a frame gives does not depend on its neighbours.
class PosteriorImages {
 public:
  /// The denoiser opens LibTorch. measured: what y of draw() is a measurement of, in unit noise times sd. Throws
  /// ConfigError when there are neither moves nor a pool.
  PosteriorImages(const DrawingParams& params, const ImagePrior& prior, std::unique_ptr<Operator> measured, double sd,
                  const Context& context);

  /// mean, sd, samples {samples, image...} and trajectory_variance {1}: how much the predicted image still changed over
  /// the last quarter of the levels, as a mean over values and samples (TrajectorySpread).
  static std::vector<Part> parts(Index samples, const std::vector<Index>& image, const std::string& unit);
  /// Those parts one after the other, of images drawn (one a column).
  static void summarise(const Eigen::MatrixXd& drawn, double trajectory_variance, Eigen::VectorXd& out);

  /// The parts one after the other. Throws Error when a number is not finite.
  const Eigen::VectorXd& draw(std::int64_t key, const Eigen::VectorXd& y);

 private:
  /// Draws of the prior and the noise they were made of, best known as where a chain may begin.
  struct Pool {
    Batch noise, images;
  };
  std::shared_ptr<const Pool> pool_of(const DrawingParams& params, const ImagePrior& prior) const;
  Eigen::VectorXd weights_of_pool(const Eigen::VectorXd& y) const;
  Eigen::MatrixXd chains(std::int64_t key, const Eigen::VectorXd& y, const Eigen::VectorXd& weights);

  std::unique_ptr<Operator> operator_;
  std::shared_ptr<Denoiser> denoiser_;
  std::unique_ptr<Sampler> sampler_;
  Measurement measured_;
  Task task_;
  std::shared_ptr<const Pool> pool_;
  Batch pool_measured_;
  Index samples_ = 0, kept_ = 1;
  bool weighed_ = false;  ///< the pool is the posterior
  Eigen::VectorXd out_;
};

}  // namespace percept::diffusion
