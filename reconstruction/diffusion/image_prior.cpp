#include "reconstruction/diffusion/image_prior.h"

#include <fmt/format.h>

#include <span>
#include <utility>

#include "core/error.h"
#include "core/module.h"
#include "numerics/apply.h"
#include "numerics/random.h"
#include "reconstruction/diffusion/adapters.h"
#include "reconstruction/diffusion/networks.h"

namespace percept::diffusion {
namespace {

class UnetNetwork final : public Network {
 public:
  UnetNetwork(UnetShape shape, std::unique_ptr<UnetRunner> runner, Eigen::VectorXf mean, Eigen::VectorXf sd)
      : shape_(std::move(shape)), runner_(std::move(runner)), mean_(std::move(mean)), sd_(std::move(sd)) {}
  std::vector<Index> shape() const override { return shape_.image; }
  Index classes() const override { return shape_.classes; }
  Index embedding() const override { return shape_.embedding; }
  void forward(const Batch& x, double t, const Condition& condition, Batch& y) override {
    require_sizes(x, condition);
    const Batch e = standardised(condition.embedding);
    y.resize(x.rows(), x.cols());
    runner_->forward(x.data(), x.cols(), t, {condition.classes, numbers(e)}, y.data());
  }
  bool has_gradient() const override { return true; }
  void pull_back(const Batch& x, double t, const Condition& condition, Batch& y, const Cotangent& cotangent,
                 Batch& gradient) override {
    require_sizes(x, condition);
    const Batch e = standardised(condition.embedding);
    y.resize(x.rows(), x.cols());
    gradient.resize(x.rows(), x.cols());
    Batch v(x.rows(), x.cols());
    const auto fill = [&] {
      cotangent(y, v);
      if (v.rows() != x.rows() || v.cols() != x.cols())
        throw Error(fmt::format("diffusion: a cotangent of {} x {} values, expected {} x {}", v.rows(), v.cols(),
                                x.rows(), x.cols()));
      return static_cast<const float*>(v.data());
    };
    runner_->pull_back(x.data(), x.cols(), t, {condition.classes, numbers(e)}, y.data(), fill, gradient.data());
  }

 private:
  static std::span<const float> numbers(const Batch& b) { return {b.data(), static_cast<std::size_t>(b.size())}; }
  Batch standardised(const Batch& e) const {
    if (e.cols() == 0) return {};
    return sd_.cwiseInverse().asDiagonal() * (e.colwise() - mean_);
  }
  void require_sizes(const Batch& x, const Condition& condition) const {
    if (x.rows() != size())
      throw Error(fmt::format("diffusion: images of {} values, the network has {}", x.rows(), size()));
    for (const Index n : {static_cast<Index>(condition.classes.size()), condition.embedding.cols()})
      if (n > 0 && x.cols() % n != 0)
        throw Error(fmt::format("diffusion: {} conditions for {} images: expected one each, or one for neighbours", n,
                                x.cols()));
  }

  UnetShape shape_;
  std::unique_ptr<UnetRunner> runner_;
  Eigen::VectorXf mean_, sd_;  ///< of the embedding
};

}  // namespace

RescaledDenoiser::RescaledDenoiser(std::shared_ptr<Denoiser> inner, Eigen::VectorXf offset, double scale)
    : inner_(std::move(inner)), offset_(std::move(offset)), scale_(static_cast<float>(scale)) {
  if (offset_.size() != inner_->size())
    throw ConfigError("diffusion.offset", fmt::format("{} values", offset_.size()),
                      fmt::format("one for each of {}", inner_->size()));
  if (!(scale > 0)) throw ConfigError("diffusion.scale", fmt::format("{}", scale), "a number above zero");
}

Batch RescaledDenoiser::numbers(const Batch& x) const { return (x.colwise() - offset_) / scale_; }
void RescaledDenoiser::images(const Batch& u, Batch& x) const { x = (scale_ * u).colwise() + offset_; }

void RescaledDenoiser::denoise(const Batch& x, double sigma, Batch& x0) {
  Batch u0;
  inner_->denoise(numbers(x), sigma / static_cast<double>(scale_), u0);
  images(u0, x0);
}

void RescaledDenoiser::pull_back(const Batch& x, double sigma, Batch& x0, const Cotangent& cotangent, Batch& gradient) {
  Batch u0;
  // in the derivative of images by images the scale falls out
  inner_->pull_back(
      numbers(x), sigma / static_cast<double>(scale_), u0,
      [&](const Batch& out, Batch& v) {
        images(out, x0);
        cotangent(x0, v);
      },
      gradient);
}

ImageUnits image_units(const Model& model, Index channels, Index size, const std::string& where) {
  const Eigen::VectorXd mean = model.vector("image_mean", channels);
  ImageUnits units{Eigen::VectorXf(size), model.number("image_sd") / kSigmaData};
  if (!mean.allFinite() || !(units.scale > 0) || !std::isfinite(units.scale))
    throw DataError(where, "image_mean, image_sd", "finite numbers, image_sd above zero",
                    fmt::format("{}, {}", mean(0), units.scale * kSigmaData));
  const Index pixels = size / channels;
  for (Index c = 0; c < channels; ++c)
    units.offset.segment(c * pixels, pixels).setConstant(static_cast<float>(mean(c)));
  return units;
}

ImagePrior::ImagePrior(const Model& model) : model_((require_model(model, kStage, kVersion), model)) {
  const std::string where = std::string("model of ") + kStage;
  const Value* shape = model.meta.find("network");
  if (!shape) throw DataError(where, "network", "the shape of a network", "none");
  shape_ = unet_shape(*shape, where + ".network");
  require_weights(model, UnetPlan(shape_).weights, where);
  ImageUnits units = image_units(model, shape_.image_channels(), shape_.size(), where);
  offset_ = std::move(units.offset);
  scale_ = units.scale;
  if (shape_.embedding > 0) {
    embedding_mean_ = model.vector("embedding_mean", shape_.embedding).cast<float>();
    embedding_sd_ = model.vector("embedding_sd", shape_.embedding).cast<float>();
    if (!(embedding_sd_.array() > 0).all()) throw DataError(where, "embedding_sd", "values above zero", "zero or less");
  }
}

std::shared_ptr<Network> ImagePrior::network(int threads) const {
  return std::make_shared<UnetNetwork>(shape_,
                                       torch_interface<DiffusionNetworks>().run(shape_, model_.tensors(), threads),
                                       embedding_mean_, embedding_sd_);
}

std::shared_ptr<Denoiser> ImagePrior::denoiser(int threads, const Condition& condition, double guidance) const {
  return denoiser(network(threads), condition, guidance);
}

std::shared_ptr<Denoiser> ImagePrior::denoiser(std::shared_ptr<Network> net, const Condition& condition,
                                               double guidance) const {
  std::shared_ptr<Denoiser> told = std::make_shared<EdmDenoiser>(net, kSigmaData, condition);
  if (!condition.empty() && guidance != 1)
    told = std::make_shared<GuidedDenoiser>(told, std::make_shared<EdmDenoiser>(net, kSigmaData), guidance);
  return std::make_shared<RescaledDenoiser>(std::move(told), offset_, scale_);
}

void store_prior(Model& model, const Model& prior, const std::string& name) {
  model.meta[name] = prior.meta;
  for (const auto& [array, values] : prior.tensors()) model.tensors()[name + "." + array] = values;
}

Model read_prior(const Model& model, const std::string& where, const std::string& name, const std::string& use) {
  Model prior;
  const Value* meta = model.meta.find(name);
  if (!meta) throw DataError(where, name, "a model of " + use, "none");
  prior.meta = *meta;
  const std::string begin = name + ".";
  for (const auto& [array, values] : model.tensors())
    if (array.rfind(begin, 0) == 0) prior.tensors()[array.substr(begin.size())] = values;
  return prior;
}

Model untrained_prior(const UnetShape& shape) {
  Model m;
  m.meta = model_meta(ImagePrior::kStage, ImagePrior::kVersion, Value::table(), item_format(shape.image));
  m.meta["network"] = to_value(shape);
  set_untrained(m, UnetPlan(shape).weights, "diffusion_prior sample");
  m.set("image_mean", Eigen::MatrixXd(Eigen::VectorXd::Constant(shape.image_channels(), 0.2)));
  m.set("image_sd", 0.8);
  if (shape.embedding > 0) {
    m.set("embedding_mean", Eigen::MatrixXd(Eigen::VectorXd::Zero(shape.embedding)));
    m.set("embedding_sd", Eigen::MatrixXd(Eigen::VectorXd::Ones(shape.embedding)));
  }
  return m;
}

void set_untrained(Model& model, const WeightList& weights, const std::string& key) {
  const KeyedRandom random(1, key);
  std::int64_t item = 0;
  for (const WeightArray& a : weights.arrays()) {
    Tensor& t = model.tensors()[a.name];
    t.type = Tensor::Type::f32;
    t.shape.assign(a.shape.begin(), a.shape.end());
    t.data.resize(static_cast<std::size_t>(a.size()) * sizeof(float));
    auto* values = reinterpret_cast<float*>(t.data.data());
    for (Index k = 0; k < a.size(); ++k)
      values[k] = static_cast<float>(a.start + 0.1 * random.normal(item, static_cast<std::uint64_t>(k)));
    ++item;
  }
}

}  // namespace percept::diffusion
