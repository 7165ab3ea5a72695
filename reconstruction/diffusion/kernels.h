/// The inner loops of a U-net that LibTorch has no fast form of for images whose channels lie beside each other (its
/// group normalisation there is ten times slower than a convolution). Each works on one image: pixels x channels,
/// channels fastest. Internal to the LibTorch module.
#pragma once

#include <cstdint>

namespace percept::diffusion::kernels {

struct Field {
  std::int64_t pixels, channels, groups;
};

/// y = f(gain x̂ + offset), x̂ = x with mean 0 and variance 1 over each group of channels (Wu, He, ECCV 2018), f = SiLU or
/// nothing. gain, offset: one a channel. moments: mean and 1 / standard deviation of each group, for the gradient.
void norm(const float* x, const float* gain, const float* offset, Field field, bool silu, float* moments, float* y);
/// Gradients of norm() from that of y. d_gain, d_offset: written.
void norm_gradient(const float* x, const float* gain, const float* offset, Field field, bool silu, const float* moments,
                   const float* d_y, float* d_x, float* d_gain, float* d_offset);

/// Rows of numbers are padded to this length.
constexpr std::int64_t padded(std::int64_t n) { return (n + 15) / 16 * 16; }

/// Self-attention of one head over all pixels: y = softmax(q kᵀ / sqrt(size)) v. q, k, v: `size` values every `stride`;
/// y every `y_stride`. weights: the softmax, pixels x padded(pixels). work: size x padded(pixels).
void attend(const float* q, const float* k, const float* v, std::int64_t pixels, std::int64_t size, std::int64_t stride,
            float* y, std::int64_t y_stride, float* weights, float* work);
/// Gradients of attend(); d_q, d_k, d_v lie as q, k, v do. work: (size + pixels) x padded(pixels).
void attend_gradient(const float* q, const float* k, const float* v, std::int64_t pixels, std::int64_t size,
                     std::int64_t stride, const float* d_y, std::int64_t y_stride, const float* weights, float* d_q,
                     float* d_k, float* d_v, float* work);

}  // namespace percept::diffusion::kernels
