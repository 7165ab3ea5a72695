#include "reconstruction/image/encoding_fit.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "core/error.h"
#include "numerics/apply.h"
#include "numerics/linalg.h"
#include "numerics/ridge.h"
#include "reconstruction/image/receptive_fields.h"

namespace percept {

using Eigen::MatrixXd;
using Eigen::MatrixXf;
using Eigen::VectorXd;

std::pair<Index, Index> image_size(const std::vector<Index>& shape, const std::string& where) {
  if (shape.size() == 2) return {shape[0], shape[1]};
  if (shape.size() == 3 && shape[0] == 1) return {shape[1], shape[2]};
  throw DataError(where, "image_shape", "{height, width} or {1, height, width}",
                  fmt::format("{{{}}}", fmt::join(shape, ", ")));
}

std::shared_ptr<const PriorImages> deformed_library(const MatrixXd& images, const std::pair<Index, Index>& size,
                                                    const EncodingOptions& p, std::uint64_t seed) {
  struct Last {
    MatrixXd images;
    std::pair<Index, Index> size;
    std::vector<double> how;
    std::uint64_t seed = 0;
    std::shared_ptr<const PriorImages> made;
  };
  static std::mutex mutex;
  static Last last;
  const std::vector<double> how{p.contrast_sd_px,
                                p.contrast_power,
                                p.pool_sd_px,
                                static_cast<double>(p.stride),
                                static_cast<double>(p.deformed_copies),
                                p.deformation};
  const std::lock_guard lock(mutex);
  const bool known = last.made && last.size == size && last.how == how && last.seed == seed &&
                     last.images.rows() == images.rows() && last.images.cols() == images.cols() &&
                     last.images == images;
  if (!known) {
    const Deformation deform(size.first, size.second, DeformOptions{}.times(p.deformation));
    auto made = std::make_shared<const PriorImages>(
        prior_images(images, ContrastFeatures(size.first, size.second, p.contrast()), p.deformed_copies, deform,
                     KeyedRandom(seed, "encoding_posterior deformation")));
    last = {images, size, how, seed, std::move(made)};
  }
  return last.made;
}

namespace {

/// Items have no order in time: every k-th is left out together, so that a fold holds some of each kind. On the time
/// axis, contiguous stretches; whole groups where there are several.
std::vector<std::int32_t> posterior_folds(const TrainingMatrix& t, Axis axis, Index folds) {
  const bool grouped = !t.groups.empty() && std::any_of(t.groups.begin(), t.groups.end(),
                                                        [&](std::int32_t g) { return g != t.groups.front(); });
  if (axis == Axis::time || grouped) return inner_folds(t.groups, t.x.cols(), folds);
  std::vector<std::int32_t> out;
  for (Index i = 0; i < t.x.cols(); ++i) out.push_back(static_cast<std::int32_t>(i % folds));
  return out;
}

struct Learnt {
  EncodingLikelihood encoding;
  std::optional<DecoderLikelihood> decoding;
};

Eigen::SparseMatrix<double> neighbours_of(const StreamFormat& x, double mm) {
  MatrixXd at(3, x.size());
  Index row = 0;
  for (const Part& part : x.parts) {
    if (static_cast<Index>(part.rows.size()) != part.size()) return {};
    for (const Channel& c : part.rows) {
      if (!c.position) return {};
      at.col(row++) = Eigen::Map<const Eigen::Vector3d>(c.position->data());
    }
  }
  return voxel_neighbours(at, mm / 1000);
}

}  // namespace

EncodingFit fit_encoding(const Data& data, const ImageLibrary& library, const EncodingOptions& p, Context& context) {
  const auto size = image_size(library.shape, "prior of " + context.node);
  if (data.y_format().size() != library.images.rows())
    throw DataError(context.node, "target", fmt::format("images of {} values, as in the prior", library.images.rows()),
                    fmt::format("{} values", data.y_format().size()));
  TrainingMatrix t = data.gather();
  const Index dropped = drop_missing(t), frames = t.x.cols();
  if (dropped > 0) context.warn(fmt::format("{} training frames with missing values left out", dropped));
  if (frames < std::max<Index>(2 * p.inner_folds, 6))
    throw DataError(context.node, "training frames", fmt::format("at least {}", std::max<Index>(2 * p.inner_folds, 6)),
                    std::to_string(frames));
  const auto names = data.x_format().row_names();
  for (Index i = 0; i < t.x.rows(); ++i)
    if (t.x.row(i).minCoeff() == t.x.row(i).maxCoeff())
      throw DataError(context.node, fmt::format("row '{}'", names[static_cast<std::size_t>(i)]),
                      "values that vary over the training frames", fmt::format("the constant {}", t.x(i, 0)));

  const ContrastFeatures features(size.first, size.second, p.contrast());
  const auto made = deformed_library(library.images, size, p, context.seed);
  const PriorImages& prior = *made;
  const MatrixXd seen = features.each(t.y);
  const MatrixXd fields = receptive_fields(features.rows(), features.columns(), static_cast<double>(p.stride),
                                           p.field_sd_px, p.field_step_px);
  const auto neighbours = neighbours_of(data.x_format(), p.neighbour_mm);
  const bool decodes = std::any_of(p.delta.begin(), p.delta.end(), [](double d) { return d > 0; });
  std::optional<Pca> pca;
  MatrixXd coordinates, of_library;
  if (decodes) {
    pca = fit_pca(library.images, p.components, context.node);
    coordinates = product(pca->components, t.y.colwise() - pca->mean);
    of_library = product(pca->components, prior.images.cast<double>().colwise() - pca->mean);
  }
  const auto learn = [&](const std::vector<Index>& rows) {
    Learnt out;
    const MatrixXd x = t.x(Eigen::all, rows);
    const FieldEncoder encoder = fit_field_encoder(seen(Eigen::all, rows), x, fields, neighbours,
                                                   {.neighbour_weight = p.neighbour_weight}, context.node);
    out.encoding = encoding_likelihood(encoder, p.voxels, p.independence, context.node);
    if (decodes) {
      const VectorXd sd = (x.colwise() - encoder.response_mean).rowwise().norm();
      const VectorXd weights = encoder.explained.cwiseMax(0.0).cwiseSqrt().cwiseQuotient(sd);
      out.decoding = fit_decoder_likelihood(x, weights, coordinates(Eigen::all, rows), context.node);
    }
    return out;
  };

  const auto folds = posterior_folds(t, data.x_format().axis, p.inner_folds);
  const std::int32_t count = *std::max_element(folds.begin(), folds.end()) + 1;
  MatrixXd error = MatrixXd::Zero(static_cast<Index>(p.beta.size()), static_cast<Index>(p.delta.size()));
  for (std::int32_t fold = 0; fold < count && error.size() > 1; ++fold) {
    context.check_cancel();
    if (context.progress) context.progress(static_cast<double>(fold) / (count + 1), "inner folds");
    std::vector<Index> kept, held;
    for (Index i = 0; i < frames; ++i) (folds[static_cast<std::size_t>(i)] == fold ? held : kept).push_back(i);
    const Learnt part = learn(kept);
    const VectorXd quadratic = part.encoding.quadratic(prior.features);
    MatrixXd placed;
    if (decodes) placed = product(part.decoding->whiten, of_library);
    // one column of weights for each frame and pair of powers, so that the library is read once a fold
    MatrixXf weights(prior.features.cols(), std::ssize(held) * error.size());
    Index column = 0;
    for (const Index i : held) {
      const VectorXd encoded =
          prior.features.transpose() * part.encoding.linear(VectorXd(t.x.col(i))(part.encoding.voxels)) - quadratic;
      VectorXd decoded = VectorXd::Zero(encoded.size());
      if (decodes) {
        const VectorXd at = part.decoding->decode(VectorXd(t.x.col(i))(part.decoding->voxels));
        decoded = -(placed.colwise() - at).colwise().squaredNorm().transpose() / 2;
      }
      for (const double delta : p.delta)
        for (const double beta : p.beta)
          weights.col(column++) = normalised(beta * encoded + delta * decoded).cast<float>();
    }
    const MatrixXf means = prior.images * weights;
    for (Index k = 0; k < means.cols(); ++k)
      error(k % error.size()) +=
          (means.col(k).cast<double>() - t.y.col(held[static_cast<std::size_t>(k / error.size())])).squaredNorm();
  }
  Index b = 0, d = 0;
  error.minCoeff(&b, &d);
  std::vector<Index> all(static_cast<std::size_t>(frames));
  for (Index i = 0; i < frames; ++i) all[static_cast<std::size_t>(i)] = i;
  Learnt learnt = learn(all);

  EncodingFit out;
  out.encoding = std::move(learnt.encoding);
  out.decoding = std::move(learnt.decoding);
  out.pca = std::move(pca);
  out.beta = p.beta[static_cast<std::size_t>(b)];
  out.delta = p.delta[static_cast<std::size_t>(d)];
  out.frames = frames;
  out.dropped = dropped;
  return out;
}

void store_rows(Model& model, const char* name, const std::vector<Index>& rows) {
  VectorXd v(static_cast<Index>(rows.size()));
  for (Index k = 0; k < v.size(); ++k) v(k) = static_cast<double>(rows[static_cast<std::size_t>(k)]);
  model.set(name, v);
}

std::vector<Index> read_rows(const Model& model, const char* name, Index count, const std::string& where) {
  const VectorXd stored = model.vector(name, count);
  const auto rows = static_cast<double>(model.meta.at("input_rows").as_array().size());
  std::vector<Index> out;
  for (const double v : stored) {
    if (!(v >= 0 && v < rows) || v != std::floor(v))
      throw DataError(where, name, fmt::format("rows 0 to {}", rows - 1), fmt::format("{}", v));
    out.push_back(static_cast<Index>(v));
  }
  return out;
}

void store_encoding(Model& model, const EncodingFit& fit) {
  store_rows(model, "voxels", fit.encoding.voxels);
  model.set("response_mean", fit.encoding.response_mean);
  model.set("gain", fit.encoding.gain);
  model.set("information", fit.encoding.information);
  model.set("centre", fit.encoding.centre);
  model.set("beta", fit.beta);
}

EncodingLikelihood read_encoding(const Model& model, Index n, const std::string& where) {
  EncodingLikelihood e;
  e.response_mean = model.vector("response_mean");
  const Index used = e.response_mean.size();
  e.gain = model.matrix("gain", n, used);
  e.information = model.matrix("information", n, n);
  e.centre = model.vector("centre", n);
  e.voxels = read_rows(model, "voxels", used, where);
  return e;
}

}  // namespace percept
