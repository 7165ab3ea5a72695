#include "reconstruction/image/image_library.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/registry.h"
#include "numerics/apply.h"
#include "numerics/linalg.h"
#include "numerics/random.h"

namespace percept {

using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {
constexpr int kImageLibraryVersion = 1;
}

void store_images(Model& model, const MatrixXd& images) {
  constexpr double kLevels = 255;
  const bool bytes = images.minCoeff() >= 0 && images.maxCoeff() <= 1 &&
                     ((images * kLevels).array() - (images * kLevels).array().round()).abs().maxCoeff() < 1e-4;
  if (bytes) {
    model.set_u8("images", (images * kLevels).array().round().cast<std::uint8_t>().matrix());
    model.set("image_scale", 1 / kLevels);
  } else {
    model.set_f32("images", images.cast<float>());
    model.set("image_scale", 1.0);
  }
}

ImageLibrary read_images(const Model& model, const std::string& where) {
  ImageLibrary library;
  library.images = model.matrix("images") * model.number("image_scale");
  Index size = 1;
  if (const Value* shape = model.meta.find("image_shape"))
    for (auto& n : shape->as_array()) {
      library.shape.push_back(n.as_integer());
      if (library.shape.back() < 1 || library.shape.back() > library.images.rows()) size = 0;
      size = std::min(size * library.shape.back(), library.images.rows() + 1);
    }
  if (library.shape.empty() || size != library.images.rows())
    throw DataError(where, "image_shape", fmt::format("a shape of {} values", library.images.rows()),
                    fmt::format("{{{}}}", fmt::join(library.shape, ", ")));
  return library;
}

ImageLibrary read_image_library(const Model& model) {
  require_model(model, "image_library", kImageLibraryVersion);
  return read_images(model, "model of image_library");
}

namespace {

struct ImageLibraryParams {
  std::int64_t nearest = 10;
  static constexpr auto fields() {
    return std::tuple{field("nearest", &ImageLibraryParams::nearest, "",
                            "How many of the library's images are averaged: those at the least distance.", 1, 1e6)};
  }
};

/// Distances are Euclidean, over the pixels, or over the features where the library has them.
class ImageLibraryStage final : public Typed<ImageLibraryStage> {
 public:
  using Params = ImageLibraryParams;
  ImageLibraryStage(const Params& p, const Model& model) : p_(p), library_(read_image_library(model)) {
    const Index n = library_.images.cols();
    if (model.has("components")) {
      components_ = model.matrix("components", -1, library_.images.rows());
      mean_ = model.vector("mean", library_.images.rows());
      places_ = product(components_, library_.images.colwise() - mean_);
    } else {
      places_ = library_.images;
    }
    squares_ = places_.colwise().squaredNorm();
    order_.resize(static_cast<std::size_t>(n));
    place_.resize(places_.rows());
    frame_.resize(library_.images.rows());
    distance_.resize(n);
    sum_.resize(library_.images.rows());
    sum2_.resize(library_.images.rows());
  }

  StreamFormat prepare(const StreamFormat& in, Context& context) override {
    const Index pixels = library_.images.rows(), features = places_.rows();
    require(in.size() == pixels || in.size() == features, context, "from", in.describe(),
            features == pixels
                ? fmt::format("images of {} values, as in the library", pixels)
                : fmt::format("images of {} values or {} features, as in the library", pixels, features));
    require(p_.nearest <= library_.images.cols(), context, "nearest", fmt::format("{}", p_.nearest),
            fmt::format("at most the {} images of the library", library_.images.cols()));
    missing_ = &context.counter("missing");
    StreamFormat out = in;
    Part mean{"mean", library_.shape, in.parts.size() == 1 ? in.parts[0].unit : "1", {}, {}};
    Part sd = mean;
    sd.name = "sd";
    out.parts = {mean, sd};
    return out;
  }

  template <class T>
  Index run(const Block& block, FrameSpan<const T> in, Output& output, FrameSpan<T> out) noexcept {
    const Index pixels = library_.images.rows(), n = library_.images.cols();
    const auto k = static_cast<std::size_t>(p_.nearest);
    for (Index t = 0; t < in.frames; ++t) {
      T* y = out.frame(t);
      if (!place(in.frame(t), in.rows)) {
        missing_->add();
        std::fill_n(y, 2 * pixels, std::numeric_limits<T>::quiet_NaN());
        continue;
      }
      for (Index i = 0; i < n; ++i) {
        distance_(i) = squares_(i) - 2 * places_.col(i).dot(place_);
        order_[static_cast<std::size_t>(i)] = i;
      }
      std::nth_element(
          order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(k - 1), order_.end(),
          [&](Index a, Index b) { return distance_(a) < distance_(b) || (distance_(a) == distance_(b) && a < b); });
      std::sort(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(k));  // one order of the sums
      sum_.setZero();
      sum2_.setZero();
      for (std::size_t i = 0; i < k; ++i) sum_ += library_.images.col(order_[i]);
      sum_ /= static_cast<double>(k);
      for (std::size_t i = 0; i < k; ++i) sum2_.array() += (library_.images.col(order_[i]) - sum_).array().square();
      for (Index i = 0; i < pixels; ++i) {
        y[i] = static_cast<T>(sum_(i));
        y[pixels + i] = static_cast<T>(std::sqrt(sum2_(i) / static_cast<double>(k)));
      }
    }
    if (output.keys) std::copy(block.keys.begin(), block.keys.end(), output.keys);
    return in.frames;
  }

  void reset() noexcept override {}
  Traits traits() const override { return {.causal = true, .real_time = true, .per_frame = true}; }

 private:
  /// Where a frame lies among the images; false when a value is missing.
  template <class T>
  bool place(const T* x, Index rows) noexcept {
    const bool features = components_.size() == 0 || rows != library_.images.rows();
    VectorXd& to = features ? place_ : frame_;
    for (Index i = 0; i < rows; ++i) {
      to(i) = static_cast<double>(x[i]);
      if (!std::isfinite(to(i))) return false;
    }
    if (!features) {
      frame_ -= mean_;
      column_product(components_, frame_.data(), place_.data());
    }
    return true;
  }

  Params p_;
  ImageLibrary library_;
  MatrixXd components_;  ///< features x pixels; empty: distances over the pixels
  VectorXd mean_;
  MatrixXd places_;  ///< of the images: features (or pixels) x images
  VectorXd squares_;
  std::vector<Index> order_;
  VectorXd place_, frame_, distance_, sum_, sum2_;
  Counter* missing_ = nullptr;
};

class ImageLibraryFitter final : public Fitter {
 public:
  explicit ImageLibraryFitter(ImageLibraryParams p) : p_(p) {}

  Model fit(const Data& data, Context& context) override {
    if (context.priors.empty()) return collect(data, context);
    const Model* images = context.prior("image_library");
    if (!images)
      throw ConfigError(context.node + ".prior", "", "a prior of image_library: the images that are looked through");
    Model m = *images;
    m.meta["params"] = write_params(p_);
    if (const Model* pca = context.prior("pca")) {
      const Index pixels = read_image_library(m).images.rows();
      MatrixXd components = pca->matrix("components", -1, pixels);
      if (const Value* params = pca->meta.find("params"); params && params->get("whiten", false))
        components = pca->vector("variance", components.rows()).cwiseSqrt().cwiseInverse().asDiagonal() * components;
      m.set("components", components);
      m.set("mean", pca->matrix("mean", pixels, 1));
    }
    return m;
  }

 private:
  /// A [[prior]]: its images are the library.
  Model collect(const Data& data, Context& context) const {
    const auto& format = data.x_format();
    if (format.parts.size() != 1)
      throw DataError(context.node, "images", "one part", fmt::format("{}", format.parts.size()));
    MatrixXd x = data.gather().x;
    std::vector<Index> whole;
    for (Index k = 0; k < x.cols(); ++k)
      if (x.col(k).allFinite()) whole.push_back(k);
    const auto left_out = x.cols() - static_cast<Index>(whole.size());
    if (whole.empty()) throw DataError(context.node, "images", "at least one without missing pixels", "none");
    if (left_out > 0) {
      context.warn(fmt::format("{} images with missing pixels left out", left_out));
      x = x(Eigen::all, whole).eval();
    }
    Model m;
    m.meta = model_meta("image_library", kImageLibraryVersion, write_params(p_), format);
    m.meta["image_shape"] = Value(format.parts[0].shape);
    m.meta["left_out"] = left_out;
    store_images(m, x);
    return m;
  }

  ImageLibraryParams p_;
};

}  // namespace

StageInfo info_image_library() {
  auto i = trained_info<ImageLibraryStage, ImageLibraryFitter>(
      "image_library", "reconstruction",
      "Mean and standard deviation of the library's images nearest to an image, or to features of one: a [[prior]] "
      "collects the library, the stage looks it through, over the pixels or over the components of a pca prior beside "
      "it. A frame with a missing value is missing.");
  i.version = kImageLibraryVersion;
  i.paper = "Cover, Hart, IEEE Trans. Information Theory 13 (1967) 21";
  i.priors = {"image_library", "pca"};
  i.needs_prior = true;
  i.real_time = true;
  i.samples = [] {
    const KeyedRandom random(1, "image_library sample");
    constexpr Index kImages = 30, kPixels = 6;
    MatrixXd images(kPixels, kImages);
    for (Index k = 0; k < kImages; ++k)
      for (Index j = 0; j < kPixels; ++j) images(j, k) = random.normal(k, static_cast<std::uint64_t>(j));
    StreamFormat format = item_format({2, 3}, Scalar::f64, "image");
    Context context;
    const MemoryData data(format, StreamFormat{}, {images, MatrixXd(0, kImages), {}, {}, {}});
    auto library = std::make_shared<Model>(ImageLibraryFitter({}).fit(data, context));
    auto featured = std::make_shared<Model>(*library);
    MatrixXd components = MatrixXd::Zero(2, kPixels);
    components(0, 0) = components(1, 3) = 1;
    featured->set("components", components);
    featured->set("mean", VectorXd(VectorXd::Zero(kPixels)));
    std::vector<Sample> all;
    for (const Scalar scalar : {Scalar::f64, Scalar::f32})
      for (const auto& [model, input] : {std::pair{library, format}, {featured, item_format({2})}}) {
        Sample sample;
        sample.format = input;
        sample.format.scalar = scalar;
        sample.params = Value::object({{"nearest", 3}});
        sample.model = model;
        all.push_back(std::move(sample));
      }
    return all;
  };
  return i;
}

}  // namespace percept
