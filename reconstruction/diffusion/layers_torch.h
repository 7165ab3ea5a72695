/// Layers of the networks here, in LibTorch. Images have the channels of a pixel beside each other, which is what
/// oneDNN's convolutions are fastest on. Internal to the LibTorch module; no LibTorch header here.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "core/model.h"
#include "reconstruction/diffusion/weights.h"

namespace at {
class Tensor;
struct Generator;
}  // namespace at

namespace percept::diffusion {

/// Arrays of a network as views of one array of numbers, which the caller owns, in the order of the list.
class Weights {
 public:
  explicit Weights(WeightList list);
  ~Weights();
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;
  Index size() const { return list_.size(); }
  /// Before anything else. gradient: where backward() adds, or nullptr.
  void bind(float* values, float* gradient);
  const at::Tensor& operator[](const std::string& name) const;
  /// Uniform numbers and constants as the list says.
  void start(at::Generator& random);
  void load(const std::map<std::string, Tensor>& arrays);
  std::map<std::string, Tensor> save() const;

 private:
  struct Views;
  WeightList list_;
  std::unique_ptr<Views> views_;
};

namespace layers {

/// A copy only where the channels of a pixel are not beside each other yet.
at::Tensor beside(const at::Tensor& x);
/// NAME.weights and NAME.bias; the margin is padded with zeros.
at::Tensor convolve(const Weights& weights, const std::string& name, const at::Tensor& x, std::int64_t stride = 1);
at::Tensor linear(const Weights& weights, const std::string& name, const at::Tensor& x);
/// Group normalisation with gain and offset (entries x channels, one entry for all images or one each), then SiLU.
at::Tensor normalise(const at::Tensor& x, const at::Tensor& gain, const at::Tensor& offset, bool silu);
/// The same with NAME.gain and NAME.offset.
at::Tensor normalise(const Weights& weights, const std::string& name, const at::Tensor& x, bool silu);
/// x + what self-attention over all pixels gives, with heads of about 32 channels.
at::Tensor attend(const Weights& weights, const std::string& name, const at::Tensor& x);
/// Leaves out a share of the values; 0: none.
at::Tensor drop(const at::Tensor& x, double share, at::Generator* random);

}  // namespace layers
}  // namespace percept::diffusion
