#include "reconstruction/diffusion/denoiser.h"

#include "core/error.h"

namespace percept::diffusion {

Index elements(const std::vector<Index>& shape) {
  Index n = 1;
  for (const Index s : shape) n *= s;
  return n;
}

Index Denoiser::size() const { return elements(shape()); }
Index Network::size() const { return elements(shape()); }

void Denoiser::pull_back(const Batch&, double, Batch&, const Cotangent&, Batch&) {
  throw Error("diffusion: this denoiser gives no gradient");
}
void Network::pull_back(const Batch&, double, const Condition&, Batch&, const Cotangent&, Batch&) {
  throw Error("diffusion: this network gives no gradient");
}
void Autoencoder::pull_back(const Batch&, Batch&, const Cotangent&, Batch&) {
  throw Error("diffusion: this autoencoder gives no gradient");
}

}  // namespace percept::diffusion
