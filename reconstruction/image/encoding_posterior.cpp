#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>

#include "core/error.h"
#include "core/registry.h"
#include "numerics/apply.h"
#include "numerics/linalg.h"
#include "reconstruction/image/encoding_fit.h"

namespace percept {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kEncodingPosteriorVersion = 1;
constexpr Index kSsimWindow = 11;

struct EncodingPosteriorParams : EncodingOptions {
  std::int64_t samples = 4;
  std::int64_t ssim_images = 150;
  double ssim_mse_weight = 10;
  std::int64_t ssim_iterations = 60;
  static constexpr auto fields() {
    using P = EncodingPosteriorParams;
    return std::tuple_cat(
        encoding_fields<P>(),
        std::tuple{
            field<P, std::vector<double>>(
                "delta", &P::delta, "", "Power of the decoder's likelihood, chosen with beta; 0: no decoder.", 0, 100),
            field<P, std::int64_t>("components", &P::components, "",
                                   "Principal components of the library that the decoder estimates.", 1, 1000),
            field("samples", &P::samples, "", "Images drawn from the posterior.", 1, 1000),
            field("ssim_images", &P::ssim_images, "", "Images by falling weight that make the expected SSIM.", 1,
                  100000),
            field("ssim_mse_weight", &P::ssim_mse_weight, "",
                  "Of the expected squared error against the expected SSIM (range 1).", 0, 1e6),
            field("ssim_iterations", &P::ssim_iterations, "",
                  "Most steps of the climb to the expected SSIM; 0: no ssim_optimal, which takes a second an image.", 0,
                  10000)});
  }
};
using Params = EncodingPosteriorParams;

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
    prior_ = deformed_library(stored.images, size_, fitted, seed);

    likelihood_ = read_encoding(model, prior_->features.rows(), where);
    rows_ = names_of(model.meta, "input_rows");
    quadratic_ = likelihood_.quadratic(prior_->features);
    beta_ = model.number("beta");
    delta_ = model.number("delta");
    if (delta_ > 0) {
      DecoderLikelihood d;
      d.response_mean = model.vector("decoder_response_mean");
      d.offset = model.vector("decoder_offset");
      d.gain = model.matrix("decoder_gain", d.offset.size(), d.response_mean.size());
      d.voxels = read_rows(model, "decoder_voxels", d.response_mean.size(), where);
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
  template <class T>
  void write(const VectorXd& weights, std::int64_t key, T* y) const {
    const Heaviest heavy = heaviest(weights, weights.size());
    const Moments moments = weighted_moments(prior_->images, heavy);
    const auto put = [&](const VectorXd& values) {
      for (const double v : values) *y++ = static_cast<T>(v);
    };
    put(moments.mean);
    put(moments.sd);
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

class EncodingPosteriorFitter final : public Fitter {
 public:
  explicit EncodingPosteriorFitter(Params p) : p_(std::move(p)) {}

  Model fit(const Data& data, Context& context) override {
    const Model* images = context.prior("image_library");
    if (!images)
      throw ConfigError(context.node + ".prior", "", "a prior of image_library: the images that are weighed");
    const ImageLibrary library = read_image_library(*images);
    const EncodingFit fitted = fit_encoding(data, library, p_, context);

    Model m;
    m.meta =
        model_meta("encoding_posterior", kEncodingPosteriorVersion, write_params(p_), data.x_format(), data.y_format());
    m.meta["input_rows"] = Value(data.x_format().row_names());
    m.meta["image_shape"] = Value(library.shape);
    m.meta["image_unit"] = data.y_format().parts.size() == 1 ? data.y_format().parts[0].unit : std::string("1");
    m.meta["seed"] = static_cast<std::int64_t>(context.seed);
    m.meta["frames"] = fitted.frames;
    m.meta["dropped_frames"] = fitted.dropped;
    store_images(m, library.images);
    store_encoding(m, fitted);
    m.set("delta", fitted.delta);
    if (fitted.delta > 0) {
      const DecoderLikelihood& decoding = *fitted.decoding;
      const MatrixXd whole = decoding.whiten * fitted.pca->components;
      store_rows(m, "decoder_voxels", decoding.voxels);
      m.set("decoder_response_mean", decoding.response_mean);
      m.set("decoder_gain", decoding.gain);
      m.set("decoder_offset", VectorXd(decoding.offset + whole * fitted.pca->mean));
      m.set("decoder_components", whole);
    }
    return m;
  }

 private:
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
        const Index row = k / 12;
        const double dy = static_cast<double>(row) - y, dx = static_cast<double>(k % 12) - x;
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
