#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>

#include "core/error.h"
#include "core/registry.h"
#include "numerics/apply.h"
#include "numerics/linalg.h"
#include "numerics/pca.h"
#include "numerics/ridge.h"
#include "reconstruction/image/decoder_likelihood.h"
#include "reconstruction/image/encoding_likelihood.h"
#include "reconstruction/image/image_library.h"
#include "reconstruction/image/library_posterior.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::MatrixXf;
using Eigen::VectorXd;

constexpr int kEncodingPosteriorVersion = 1;
constexpr Index kSsimWindow = 11;

struct EncodingPosteriorParams {
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
  std::int64_t samples = 4;
  std::int64_t ssim_images = 150;
  double ssim_mse_weight = 10;
  std::int64_t ssim_iterations = 60;
  static constexpr auto fields() {
    using P = EncodingPosteriorParams;
    return std::tuple{
        field("contrast_sd_px", &P::contrast_sd_px, "px", "Gaussian window in which local contrast is measured.", 0.1,
              100),
        field("contrast_power", &P::contrast_power, "", "Power of contrast; below one it saturates.", 0.01, 4),
        field("pool_sd_px", &P::pool_sd_px, "px", "Gaussian over which contrast is averaged.", 0.1, 100),
        field("stride", &P::stride, "px", "One feature for so many pixels, in both directions.", 1, 64),
        field("field_sd_px", &P::field_sd_px, "px", "Sizes of receptive fields, beside the whole image.", 0.1, 1000),
        field("field_step_px", &P::field_step_px, "px", "Distance between the centres of receptive fields.", 0.5, 1000),
        field("neighbour_mm", &P::neighbour_mm, "mm",
              "A voxel's field is chosen together with its neighbours', whose weight falls with a Gaussian of this sd. "
              "Without positions of all rows each voxel is alone.",
              0.01, 100),
        field("neighbour_weight", &P::neighbour_weight, "", "Of a neighbour at no distance beside the voxel itself.", 0,
              100),
        field("voxels", &P::voxels, "", "How many voxels count: those best explained on frames left out.", 1, 5000),
        field("independence", &P::independence, "", "Share of independent noise in the correlation of the noise.", 0.01,
              1),
        field("beta", &P::beta, "",
              "Power of the encoding likelihood; of several the one with the least squared error on inner folds.", 0,
              100),
        field("delta", &P::delta, "", "Power of the decoder's likelihood, chosen with beta; 0: no decoder.", 0, 100),
        field("components", &P::components, "", "Principal components of the library that the decoder estimates.", 1,
              1000),
        field("inner_folds", &P::inner_folds, "", "Folds for the choice of beta and delta.", 2, 1000),
        field("deformed_copies", &P::deformed_copies, "", "Deformed copies of each image of the library.", 0, 1000),
        field("deformation", &P::deformation, "", "Their size; 1 is that of a digit written again by the same hand.", 0,
              100),
        field("samples", &P::samples, "", "Images drawn from the posterior.", 1, 1000),
        field("ssim_images", &P::ssim_images, "", "Images by falling weight that make the expected SSIM.", 1, 100000),
        field("ssim_mse_weight", &P::ssim_mse_weight, "",
              "Of the expected squared error against the expected SSIM (range 1).", 0, 1e6),
        field("ssim_iterations", &P::ssim_iterations, "",
              "Most steps of the climb to the expected SSIM; 0: no ssim_optimal, which takes a second an image.", 0,
              10000)};
  }
  ContrastOptions contrast() const { return {contrast_sd_px, contrast_power, pool_sd_px, static_cast<Index>(stride)}; }
};
using Params = EncodingPosteriorParams;

/// Height and width of {h, w} or {1, h, w}.
std::pair<Index, Index> image_size(const std::vector<Index>& shape, const std::string& where) {
  if (shape.size() == 2) return {shape[0], shape[1]};
  if (shape.size() == 3 && shape[0] == 1) return {shape[1], shape[2]};
  throw DataError(where, "image_shape", "{height, width} or {1, height, width}",
                  fmt::format("{{{}}}", fmt::join(shape, ", ")));
}

/// The library with its deformed copies, and its features. All folds of an experiment, and the fits and stages of each,
/// have the same one: the last that was made is kept.
std::shared_ptr<const PriorImages> library_of(const MatrixXd& images, const std::pair<Index, Index>& size,
                                              const Params& p, std::uint64_t seed) {
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

class EncodingPosteriorStage final : public Typed<EncodingPosteriorStage> {
 public:
  using Params = EncodingPosteriorParams;
  EncodingPosteriorStage(const Params& p, const Model& model)
      : p_(p), model_((require_model(model, "encoding_posterior", kEncodingPosteriorVersion), model)) {
    const std::string where = "model of encoding_posterior";
    const auto fitted = read_params<Params>(model.meta.at("params"), where + ": params");
    ImageLibrary stored = read_images(model, where);
    shape_ = stored.shape;
    size_ = image_size(shape_, where);
    const auto seed = static_cast<std::uint64_t>(model.meta.at("seed").as_integer());
    prior_ = library_of(stored.images, size_, fitted, seed);

    likelihood_.response_mean = model.vector("response_mean");
    const Index used = likelihood_.response_mean.size(), n = prior_->features.rows();
    likelihood_.gain = model.matrix("gain", n, used);
    likelihood_.information = model.matrix("information", n, n);
    likelihood_.centre = model.vector("centre", n);
    rows_ = names_of(model.meta, "input_rows");
    likelihood_.voxels = indices(model, "voxels", used);
    quadratic_ = likelihood_.quadratic(prior_->features);
    beta_ = model.number("beta");
    delta_ = model.number("delta");
    if (delta_ > 0) {
      DecoderLikelihood d;
      d.response_mean = model.vector("decoder_response_mean");
      d.offset = model.vector("decoder_offset");
      d.gain = model.matrix("decoder_gain", d.offset.size(), d.response_mean.size());
      d.voxels = indices(model, "decoder_voxels", d.response_mean.size());
      const MatrixXd to_decoded = model.matrix("decoder_components", d.offset.size(), prior_->images.rows());
      coordinates_ = product(to_decoded, prior_->images.cast<double>());
      decoder_ = std::move(d);
    }
  }

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    order_ = row_order(rows_, named_rows(in), context);
    if (in.axis == Axis::time) require_rate(model_, in, context);
    if (p_.ssim_iterations > 0 && std::min(size_.first, size_.second) >= kSsimWindow)
      ssim_.emplace(size_.first, size_.second);
    missing_ = &context.counter("missing");
    random_ = KeyedRandom(context.seed, context.node + " samples");
    StreamFormat out = in;
    const std::string unit = model_.meta.get("image_unit", std::string("1"));
    const auto image = [&](const char* name) { return Part{name, shape_, unit, {}, {}}; };
    Part samples = image("samples");
    samples.shape.insert(samples.shape.begin(), p_.samples);
    out.parts = {image("mean"), image("sd"), samples};
    if (ssim_) out.parts.push_back(image("ssim_optimal"));
    out.parts.push_back(Part{"effective_images", {1}, "1", {}, {}});
    out.parts.push_back(Part{"entropy", {1}, "bit", {}, {}});
    return out;
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out) noexcept {
    const auto value = [&](const T* x, Index row) {
      return static_cast<double>(x[order_[static_cast<std::size_t>(row)]]);
    };
    const auto collect = [&](const T* x, const std::vector<Index>& rows) {
      VectorXd y(static_cast<Index>(rows.size()));
      for (Index k = 0; k < y.size(); ++k) y(k) = value(x, rows[static_cast<std::size_t>(k)]);
      return y;
    };
    for (Index t = 0; t < in.frames; ++t) {
      T* y = out.frame(t);
      const VectorXd response = collect(in.frame(t), likelihood_.voxels);
      const VectorXd decoded = decoder_ ? collect(in.frame(t), decoder_->voxels) : VectorXd();
      if (!response.allFinite() || !decoded.allFinite()) {
        missing_->add();
        std::fill_n(y, out.rows, std::numeric_limits<T>::quiet_NaN());
        continue;
      }
      VectorXd log = beta_ * (prior_->features.transpose() * likelihood_.linear(response) - quadratic_);
      if (decoder_)
        log -= delta_ / 2 * (coordinates_.colwise() - decoder_->decode(decoded)).colwise().squaredNorm().transpose();
      const std::int64_t key = block.keys.empty() ? block.first_frame + t : block.keys[static_cast<std::size_t>(t)];
      const VectorXd weights = normalised(log);
      if (!(weights.sum() > 0)) {  // a response so far out that no likelihood can be told from another
        missing_->add();
        std::fill_n(y, out.rows, std::numeric_limits<T>::quiet_NaN());
        continue;
      }
      write(weights, key, y);
    }
    if (output.keys) std::copy(block.keys.begin(), block.keys.end(), output.keys);
    return in.frames;
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .per_frame = true}; }

 private:
  std::vector<Index> indices(const Model& model, const char* name, Index count) const {
    const VectorXd stored = model.vector(name, count);
    const auto rows = static_cast<double>(model.meta.at("input_rows").as_array().size());
    std::vector<Index> out;
    for (const double v : stored) {
      if (!(v >= 0 && v < rows) || v != std::floor(v))
        throw DataError("model of encoding_posterior", name, fmt::format("rows 0 to {}", rows - 1),
                        fmt::format("{}", v));
      out.push_back(static_cast<Index>(v));
    }
    return out;
  }

  template <class T>
  void write(const VectorXd& weights, std::int64_t key, T* y) const {
    const Index pixels = prior_->images.rows();
    const Heaviest heavy = heaviest(weights, weights.size());
    VectorXd mean = VectorXd::Zero(pixels), square = mean;
    for (std::size_t k = 0; k < heavy.index.size(); ++k)
      mean += heavy.weight(static_cast<Index>(k)) * prior_->images.col(heavy.index[k]).cast<double>();
    for (std::size_t k = 0; k < heavy.index.size(); ++k)
      square.array() += heavy.weight(static_cast<Index>(k)) *
                        (prior_->images.col(heavy.index[k]).cast<double>() - mean).array().square();
    const auto put = [&](const VectorXd& values) {
      for (const double v : values) *y++ = static_cast<T>(v);
    };
    put(mean);
    put(square.cwiseSqrt());
    for (Index s = 0; s < p_.samples; ++s) {
      double left = random_.uniform(key, static_cast<std::uint64_t>(s));
      std::size_t k = 0;
      for (; k + 1 < heavy.index.size() && left >= heavy.weight(static_cast<Index>(k)); ++k)
        left -= heavy.weight(static_cast<Index>(k));
      put(prior_->images.col(heavy.index[k]).cast<double>());
    }
    if (ssim_) {
      const Heaviest few = heaviest(weights, p_.ssim_images);
      put(ssim_optimal(*ssim_, prior_->images(Eigen::all, few.index).template cast<double>(), few.weight,
                       p_.ssim_mse_weight, static_cast<int>(p_.ssim_iterations)));
    }
    put(VectorXd::Constant(1, 1 / heavy.weight.squaredNorm()));
    put(VectorXd::Constant(1, -(heavy.weight.array() * heavy.weight.array().log()).sum() / std::log(2.0)));
  }

  Params p_;
  Model model_;
  std::vector<Index> shape_;
  std::pair<Index, Index> size_;
  std::shared_ptr<const PriorImages> prior_;
  EncodingLikelihood likelihood_;
  std::optional<DecoderLikelihood> decoder_;
  MatrixXd coordinates_;  ///< what the decoder would give for each image of the library, in its units
  VectorXd quadratic_;
  double beta_ = 0, delta_ = 0;
  std::vector<std::string> rows_;
  std::vector<Index> order_;
  std::optional<Ssim> ssim_;
  KeyedRandom random_{0, ""};
  Counter* missing_ = nullptr;
};

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

class EncodingPosteriorFitter final : public Fitter {
 public:
  explicit EncodingPosteriorFitter(Params p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    const Model* images = context.prior("image_library");
    if (!images)
      throw ConfigError(context.node + ".prior", "", "a prior of image_library: the images that are weighed");
    const ImageLibrary library = read_image_library(*images);
    const auto size = image_size(library.shape, "prior of " + context.node);
    if (data.y_format().size() != library.images.rows())
      throw DataError(context.node, "target",
                      fmt::format("images of {} values, as in the prior", library.images.rows()),
                      fmt::format("{} values", data.y_format().size()));
    TrainingMatrix t = data.gather();
    const Index dropped = drop_missing(t), frames = t.x.cols();
    if (dropped > 0) context.warn(fmt::format("{} training frames with missing values left out", dropped));
    if (frames < std::max<Index>(2 * p_.inner_folds, 6))
      throw DataError(context.node, "training frames",
                      fmt::format("at least {}", std::max<Index>(2 * p_.inner_folds, 6)), std::to_string(frames));
    const auto names = data.x_format().row_names();
    for (Index i = 0; i < t.x.rows(); ++i)
      if (t.x.row(i).minCoeff() == t.x.row(i).maxCoeff())
        throw DataError(context.node, fmt::format("row '{}'", names[static_cast<std::size_t>(i)]),
                        "values that vary over the training frames", fmt::format("the constant {}", t.x(i, 0)));

    const ContrastFeatures features(size.first, size.second, p_.contrast());
    const auto made = library_of(library.images, size, p_, context.seed);
    const PriorImages& prior = *made;
    const MatrixXd seen = features.each(t.y);
    const MatrixXd fields = receptive_fields(features.rows(), features.columns(), static_cast<double>(p_.stride),
                                             p_.field_sd_px, p_.field_step_px);
    const auto neighbours = neighbours_of(data.x_format());
    const bool decodes = std::any_of(p_.delta.begin(), p_.delta.end(), [](double d) { return d > 0; });
    std::optional<Pca> pca;
    MatrixXd coordinates, of_library;
    if (decodes) {
      pca = fit_pca(library.images, p_.components, context.node);
      coordinates = product(pca->components, t.y.colwise() - pca->mean);
      of_library = product(pca->components, prior.images.cast<double>().colwise() - pca->mean);
    }
    const auto learn = [&](const std::vector<Index>& rows) {
      Learnt out;
      const MatrixXd x = t.x(Eigen::all, rows);
      const FieldEncoder encoder = fit_field_encoder(seen(Eigen::all, rows), x, fields, neighbours,
                                                     {.neighbour_weight = p_.neighbour_weight}, context.node);
      out.encoding = encoding_likelihood(encoder, p_.voxels, p_.independence, context.node);
      if (decodes) {
        const VectorXd sd = (x.colwise() - encoder.response_mean).rowwise().norm();
        const VectorXd weights = encoder.explained.cwiseMax(0.0).cwiseSqrt().cwiseQuotient(sd);
        out.decoding = fit_decoder_likelihood(x, weights, coordinates(Eigen::all, rows), context.node);
      }
      return out;
    };

    const auto folds = posterior_folds(t, data.x_format().axis, p_.inner_folds);
    const std::int32_t count = *std::max_element(folds.begin(), folds.end()) + 1;
    MatrixXd error = MatrixXd::Zero(static_cast<Index>(p_.beta.size()), static_cast<Index>(p_.delta.size()));
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
        for (const double delta : p_.delta)
          for (const double beta : p_.beta)
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
    const Learnt learnt = learn(all);

    Model m;
    m.meta =
        model_meta("encoding_posterior", kEncodingPosteriorVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["input_rows"] = Value(names);
    m.meta["image_shape"] = Value(library.shape);
    m.meta["image_unit"] = data.y_format().parts.size() == 1 ? data.y_format().parts[0].unit : std::string("1");
    m.meta["seed"] = static_cast<std::int64_t>(context.seed);
    m.meta["frames"] = frames;
    m.meta["dropped_frames"] = dropped;
    store_images(m, library.images);
    const auto store_rows = [&](const char* name, const std::vector<Index>& rows) {
      VectorXd v(static_cast<Index>(rows.size()));
      for (Index k = 0; k < v.size(); ++k) v(k) = static_cast<double>(rows[static_cast<std::size_t>(k)]);
      m.set(name, v);
    };
    store_rows("voxels", learnt.encoding.voxels);
    m.set("response_mean", learnt.encoding.response_mean);
    m.set("gain", learnt.encoding.gain);
    m.set("information", learnt.encoding.information);
    m.set("centre", learnt.encoding.centre);
    m.set("beta", p_.beta[static_cast<std::size_t>(b)]);
    const double delta = p_.delta[static_cast<std::size_t>(d)];
    m.set("delta", delta);
    if (delta > 0) {
      const DecoderLikelihood& decoding = *learnt.decoding;
      const MatrixXd whole = decoding.whiten * pca->components;
      store_rows("decoder_voxels", decoding.voxels);
      m.set("decoder_response_mean", decoding.response_mean);
      m.set("decoder_gain", decoding.gain);
      m.set("decoder_offset", VectorXd(decoding.offset + whole * pca->mean));
      m.set("decoder_components", whole);
    }
    return m;
  }

 private:
  struct Learnt {
    EncodingLikelihood encoding;
    std::optional<DecoderLikelihood> decoding;
  };

  Eigen::SparseMatrix<double> neighbours_of(const StreamFormat& x) const {
    MatrixXd at(3, x.size());
    Index row = 0;
    for (const Part& part : x.parts) {
      if (static_cast<Index>(part.rows.size()) != part.size()) return {};
      for (const Channel& c : part.rows) {
        if (!c.position) return {};
        at.col(row++) = Eigen::Map<const Eigen::Vector3d>(c.position->data());
      }
    }
    return voxel_neighbours(at, p_.neighbour_mm / 1000);
  }

  Params p_;
};

}  // namespace

StageInfo info_encoding_posterior() {
  auto i = trained_info<EncodingPosteriorStage, EncodingPosteriorFitter>(
      "encoding_posterior", "reconstruction",
      "Every image of a prior library, and deformed copies of it, is weighed by how well an encoding model with "
      "receptive fields explains the response. Gives mean (least expected squared error), sd, samples, ssim_optimal "
      "(highest expected SSIM less ssim_mse_weight times squared error; absent in images below 11 pixels), and how "
      "many "
      "images share the weight: effective_images, entropy. A frame with a missing row that is used is missing.");
  i.version = kEncodingPosteriorVersion;
  i.paper = "Naselaris, Prenger, Kay, Oliver, Gallant, Neuron 63 (2009) 902";
  i.needs_target = true;
  i.priors = {"image_library"};
  i.needs_prior = true;
  i.samples = [] {
    const Params params = [] {
      Params p;
      p.voxels = 6;
      p.field_step_px = 6;
      p.deformed_copies = 1;
      p.inner_folds = 2;
      p.samples = 2;
      p.beta = {0.1, 0.5};
      p.delta = {0.0};
      p.components = 3;
      p.ssim_iterations = 5;
      return p;
    }();
    constexpr Index kPixels = 144, kImages = 12, kFrames = 24, kRows = 8;
    const KeyedRandom random(1, "encoding_posterior sample");
    const auto blob = [&](std::int64_t key) {
      VectorXd image(kPixels);
      const double y = 3 + 6 * random.uniform(key, 0), x = 3 + 6 * random.uniform(key, 1);
      for (Index k = 0; k < kPixels; ++k) {
        const double dy = static_cast<double>(k / 12) - y, dx = static_cast<double>(k % 12) - x;
        image(k) = std::exp(-(dy * dy + dx * dx) / 4);
      }
      return image;
    };
    auto library = std::make_shared<Model>();
    const StreamFormat images = item_format({12, 12}, Scalar::f64, "image");
    library->meta = model_meta("image_library", 1, Value::table(), images);
    library->meta["image_shape"] = Value(images.parts[0].shape);
    MatrixXd all(kPixels, kImages);
    for (Index k = 0; k < kImages; ++k) all.col(k) = blob(100 + k);
    store_images(*library, all);
    TrainingMatrix data{MatrixXd(kRows, kFrames), MatrixXd(kPixels, kFrames), {}, {}, {}};
    for (Index t = 0; t < kFrames; ++t) {
      data.y.col(t) = blob(t);
      for (Index r = 0; r < kRows; ++r)
        data.x(r, t) = data.y(18 * r + 5, t) + 0.2 * random.normal(t, static_cast<std::uint64_t>(10 + r));
    }
    std::vector<Sample> samples;
    for (const double delta : {0.0, 0.5}) {
      Params p = params;
      p.delta = {delta};
      Context context;
      context.priors = {{"library", "image_library", library}};
      Sample sample;
      sample.format = item_format({kRows});
      sample.params = write_params(p);
      sample.frames = 60;
      sample.model =
          std::make_shared<Model>(EncodingPosteriorFitter(p).fit(MemoryData(sample.format, images, data), context));
      samples.push_back(sample);
      sample.format.scalar = Scalar::f32;
      samples.push_back(sample);
    }
    return samples;
  };
  return i;
}

}  // namespace percept
