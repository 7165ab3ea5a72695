/// What a diffusion model is to everything that samples from it: a denoiser. A noisy image is x = x0 + sigma n with n
/// standard normal, whatever the network was trained to predict; adapters (adapters.h) make that of the usual networks.
///
/// A batch is values x items, one item contiguous with its last index fastest, so that LibTorch sees {items, shape...}
/// without a copy. Objects here hold work space: one object a thread.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/stream.h"

namespace percept::diffusion {

using Batch = Eigen::MatrixXf;

/// Given an output of a map, fills v (same size) with the derivative of some loss in that output.
using Cotangent = std::function<void(const Batch& output, Batch& v)>;

/// D(x, sigma) = E[x0 | x], x = x0 + sigma n. Its score is (D - x) / sigma² (Karras et al., NeurIPS 2022, eq. 3).
class Denoiser {
 public:
  virtual ~Denoiser() = default;
  /// Of one item, last index fastest: {28, 28}, {3, 64, 64}.
  virtual std::vector<Index> shape() const = 0;
  Index size() const;
  /// x0 = D(x, sigma), one column an item. What one item gives does not depend on the others, except for rounding.
  virtual void denoise(const Batch& x, double sigma, Batch& x0) = 0;
  virtual bool has_gradient() const { return false; }
  /// x0 = D(x, sigma), v from cotangent(x0, v), gradient = (dD/dx)ᵀ v. cotangent may itself call this object's network.
  /// Throws Error where there is no gradient.
  virtual void pull_back(const Batch& x, double sigma, Batch& x0, const Cotangent& cotangent, Batch& gradient);
  /// How many network evaluations one denoise() costs an item.
  virtual int evaluations() const { return 1; }
};

/// What a network may be told about the items of a batch: classes, an embedding, both or nothing. Either has one entry
/// (column) an item, or fewer: then each stands for as many neighbouring items (so that samples or particles of one
/// item share its condition); their number divides that of the items.
struct Condition {
  std::vector<std::int64_t> classes;  ///< empty: without
  Batch embedding;                    ///< values x items; no columns: without
  bool empty() const { return classes.empty() && embedding.cols() == 0; }
};

/// A raw network y = F(x, t | condition), where x, y have the same shape. What t and y mean is the adapter's affair.
class Network {
 public:
  virtual ~Network() = default;
  virtual std::vector<Index> shape() const = 0;
  Index size() const;
  /// Classes it was trained with, and values of its embedding; 0: takes none. It also takes an empty condition.
  virtual Index classes() const { return 0; }
  virtual Index embedding() const { return 0; }
  virtual void forward(const Batch& x, double t, const Condition& condition, Batch& y) = 0;
  virtual bool has_gradient() const { return false; }
  /// y = F(x, t), v from cotangent(y, v), gradient = (dF/dx)ᵀ v. cotangent may call this object again.
  virtual void pull_back(const Batch& x, double t, const Condition& condition, Batch& y, const Cotangent& cotangent,
                         Batch& gradient);
};

/// Between images and the latents in which a latent diffusion model works (Rombach et al., CVPR 2022). Latents are
/// scaled to about unit variance inside encode() and decode().
class Autoencoder {
 public:
  virtual ~Autoencoder() = default;
  virtual std::vector<Index> image_shape() const = 0;
  virtual std::vector<Index> latent_shape() const = 0;
  virtual void encode(const Batch& image, Batch& latent) = 0;
  virtual void decode(const Batch& latent, Batch& image) = 0;
  virtual bool has_gradient() const { return false; }
  /// image = decode(latent), v from cotangent(image, v), gradient = (d decode / d latent)ᵀ v.
  virtual void pull_back(const Batch& latent, Batch& image, const Cotangent& cotangent, Batch& gradient);
};

/// Product of a shape.
Index elements(const std::vector<Index>& shape);

}  // namespace percept::diffusion
