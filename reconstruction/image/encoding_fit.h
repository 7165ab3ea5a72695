/// Learning an encoding model of voxels from training frames, and how far its likelihood is to be trusted.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/context.h"
#include "core/model.h"
#include "core/params.h"
#include "numerics/pca.h"
#include "reconstruction/image/contrast.h"
#include "reconstruction/image/decoder_likelihood.h"
#include "reconstruction/image/encoding_likelihood.h"
#include "reconstruction/image/image_library.h"
#include "reconstruction/image/library_posterior.h"

namespace percept {

/// Parameters of stages that have one. Those of its decoder, delta and components, are no parameters of stages without.
struct EncodingOptions {
  double contrast_sd_px = 0.8;
  double contrast_power = 0.5;
  double pool_sd_px = 0.7;
  std::int64_t stride = 2;
  std::vector<double> field_sd_px = {2.5, 4.5};
  double field_step_px = 3;
  double neighbour_mm = 2;
  double neighbour_weight = 1;
  std::int64_t voxels = 600;
  double independence = 0.7;
  std::vector<double> beta = {0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25};
  std::vector<double> delta = {0.0};
  std::int64_t components = 30;
  std::int64_t inner_folds = 5;
  std::int64_t deformed_copies = 8;
  double deformation = 1;
  ContrastOptions contrast() const { return {contrast_sd_px, contrast_power, pool_sd_px, static_cast<Index>(stride)}; }
};
template <class P>
constexpr auto encoding_fields() {
  return std::tuple{
      field<P, double>("contrast_sd_px", &P::contrast_sd_px, "px",
                       "Gaussian window in which local contrast is measured.", 0.1, 100),
      field<P, double>("contrast_power", &P::contrast_power, "", "Power of contrast; below one it saturates.", 0.01, 4),
      field<P, double>("pool_sd_px", &P::pool_sd_px, "px", "Gaussian over which contrast is averaged.", 0.1, 100),
      field<P, std::int64_t>("stride", &P::stride, "px", "One feature for so many pixels, in both directions.", 1, 64),
      field<P, std::vector<double>>("field_sd_px", &P::field_sd_px, "px",
                                    "Sizes of receptive fields, beside the whole image.", 0.1, 1000),
      field<P, double>("field_step_px", &P::field_step_px, "px", "Distance between the centres of receptive fields.",
                       0.5, 1000),
      field<P, double>(
          "neighbour_mm", &P::neighbour_mm, "mm",
          "A voxel's field is chosen together with its neighbours', whose weight falls with a Gaussian of this sd. "
          "Without positions of all rows each voxel is alone.",
          0.01, 100),
      field<P, double>("neighbour_weight", &P::neighbour_weight, "",
                       "Of a neighbour at no distance beside the voxel itself.", 0, 100),
      field<P, std::int64_t>("voxels", &P::voxels, "",
                             "How many voxels count: those best explained on frames left out.", 1, 5000),
      field<P, double>("independence", &P::independence, "",
                       "Share of independent noise in the correlation of the noise.", 0.01, 1),
      field<P, std::vector<double>>(
          "beta", &P::beta, "",
          "Power of the encoding likelihood; of several the one with the least squared error on inner folds.", 0, 100),
      field<P, std::int64_t>("inner_folds", &P::inner_folds, "", "Folds for the choice of beta and delta.", 2, 1000),
      field<P, std::int64_t>("deformed_copies", &P::deformed_copies, "",
                             "Deformed copies of each image of the library.", 0, 1000),
      field<P, double>("deformation", &P::deformation, "",
                       "Their size; 1 is that of a digit written again by the same hand.", 0, 100)};
}

/// Height and width of {h, w} or {1, h, w}. Throws DataError naming `where`.
std::pair<Index, Index> image_size(const std::vector<Index>& shape, const std::string& where);

/// The library with its deformed copies, and its features. All folds of an experiment, and the fits and stages of each,
/// have the same one: the last that was made is kept.
std::shared_ptr<const PriorImages> deformed_library(const Eigen::MatrixXd& images, const std::pair<Index, Index>& size,
                                                    const EncodingOptions& options, std::uint64_t seed);

struct EncodingFit {
  EncodingLikelihood encoding;
  std::optional<DecoderLikelihood> decoding;  ///< where a delta above zero was tried
  std::optional<Pca> pca;                     ///< of the library, whose coordinates are decoded
  double beta = 0, delta = 0;                 ///< powers of the two likelihoods
  Index frames = 0, dropped = 0;
};

/// Of training responses and the images that made them. The powers are those with the least squared error of the mean
/// over the library on inner folds. Throws DataError naming the node: images of another size than the library's, too few
/// frames, a constant row, and as fit_field_encoder and encoding_likelihood do.
EncodingFit fit_encoding(const Data& data, const ImageLibrary& library, const EncodingOptions& options,
                         Context& context);

/// The encoding likelihood as arrays of a model whose meta.input_rows are the rows of a response, and back.
/// features: of an image. Throws DataError naming `where` when it is broken.
void store_encoding(Model& model, const EncodingFit& fit);
EncodingLikelihood read_encoding(const Model& model, Index features, const std::string& where);
/// A list of rows as an array of the model, and back.
void store_rows(Model& model, const char* name, const std::vector<Index>& rows);
std::vector<Index> read_rows(const Model& model, const char* name, Index count, const std::string& where);

}  // namespace percept
