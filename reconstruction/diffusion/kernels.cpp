#include "reconstruction/diffusion/kernels.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

// One build runs on every x86-64; the loader takes the version that fits the processor.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define PERCEPT_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PERCEPT_EACH_PROCESSOR
#endif

namespace percept::diffusion::kernels {
namespace {

/// e^x to 2e-7, in a form that compilers vectorise: 2^n times a polynomial on |r| <= ln 2 / 2.
inline float exponential(float x) {
  constexpr float kShift = 12582912.0F;  // 1.5 x 2^23: adding it leaves the rounded number in the low bits
  x = std::min(std::max(x, -87.0F), 88.0F);
  const float shifted = x * 1.44269504F + kShift;
  const float n = shifted - kShift;
  const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1;
  const auto bits = (std::bit_cast<std::int32_t>(shifted) - 0x4B400000 + 127) << 23;
  return p * std::bit_cast<float>(bits);
}

constexpr float kSmall = 1e-5F;  ///< added to a variance

}  // namespace

PERCEPT_EACH_PROCESSOR
void norm(const float* x, const float* gain, const float* offset, Field f, bool silu, float* moments, float* y) {
  const std::int64_t c = f.channels, each = c / f.groups;
  std::vector<float> space(static_cast<std::size_t>(2 * c));
  float* __restrict a = space.data(), * __restrict b = a + c;
  const float share = 1.0F / static_cast<float>(f.pixels * each);
  for (std::int64_t p = 0; p < f.pixels; ++p) {
    const float* __restrict in = x + p * c;
    for (std::int64_t i = 0; i < c; ++i) a[i] += in[i];
  }
  for (std::int64_t g = 0; g < f.groups; ++g) {
    float sum = 0;
    for (std::int64_t i = 0; i < each; ++i) sum += a[g * each + i];
    moments[2 * g] = sum * share;
    for (std::int64_t i = 0; i < each; ++i) a[g * each + i] = moments[2 * g];
  }
  for (std::int64_t p = 0; p < f.pixels; ++p) {
    const float* __restrict in = x + p * c;
    for (std::int64_t i = 0; i < c; ++i) {
      const float away = in[i] - a[i];
      b[i] += away * away;
    }
  }
  for (std::int64_t g = 0; g < f.groups; ++g) {
    float sum = 0;
    for (std::int64_t i = 0; i < each; ++i) sum += b[g * each + i];
    moments[2 * g + 1] = 1 / std::sqrt(sum * share + kSmall);
    for (std::int64_t i = g * each; i < (g + 1) * each; ++i) {
      a[i] = gain[i] * moments[2 * g + 1];
      b[i] = offset[i] - a[i] * moments[2 * g];
    }
  }
  for (std::int64_t p = 0; p < f.pixels; ++p) {
    const float* __restrict in = x + p * c;
    float* __restrict out = y + p * c;
    if (silu)
      for (std::int64_t i = 0; i < c; ++i) {
        const float z = a[i] * in[i] + b[i];
        out[i] = z / (1 + exponential(-z));
      }
    else
      for (std::int64_t i = 0; i < c; ++i) out[i] = a[i] * in[i] + b[i];
  }
}

PERCEPT_EACH_PROCESSOR
void norm_gradient(const float* x, const float* gain, const float* offset, Field f, bool silu, const float* moments,
                   const float* d_y, float* d_x, float* __restrict d_gain, float* __restrict d_offset) {
  const std::int64_t c = f.channels, each = c / f.groups;
  std::vector<float> space(static_cast<std::size_t>(4 * c));
  float* __restrict mean = space.data(), * __restrict scale = mean + c, * __restrict a = scale + c, * __restrict b = a + c;
  for (std::int64_t i = 0; i < c; ++i) {
    mean[i] = moments[2 * (i / each)];
    scale[i] = moments[2 * (i / each) + 1];
    a[i] = gain[i] * scale[i];
    b[i] = offset[i] - a[i] * mean[i];
  }
  std::fill_n(d_gain, c, 0.0F);
  std::fill_n(d_offset, c, 0.0F);
  for (std::int64_t p = 0; p < f.pixels; ++p) {
    const float* __restrict in = x + p * c, * __restrict from = d_y + p * c;
    float* __restrict to = d_x + p * c;
    if (silu)
      for (std::int64_t i = 0; i < c; ++i) {
        const float z = a[i] * in[i] + b[i], s = 1 / (1 + exponential(-z));
        const float d = from[i] * s * (1 + z * (1 - s));
        to[i] = d;
        d_offset[i] += d;
        d_gain[i] += d * ((in[i] - mean[i]) * scale[i]);
      }
    else
      for (std::int64_t i = 0; i < c; ++i) {
        const float d = from[i];
        to[i] = d;
        d_offset[i] += d;
        d_gain[i] += d * ((in[i] - mean[i]) * scale[i]);
      }
  }
  // d_x = a d - (mean of gain d) scale - (mean of gain d x̂) scale x̂, means over the group
  const float share = 1.0F / static_cast<float>(f.pixels * each);
  for (std::int64_t g = 0; g < f.groups; ++g) {
    float straight = 0, along = 0;
    for (std::int64_t i = g * each; i < (g + 1) * each; ++i) {
      straight += gain[i] * d_offset[i];
      along += gain[i] * d_gain[i];
    }
    const float s = moments[2 * g + 1], slope = -along * share * s * s;
    for (std::int64_t i = g * each; i < (g + 1) * each; ++i) {
      scale[i] = slope;
      b[i] = -straight * share * s - slope * mean[i];
    }
  }
  for (std::int64_t p = 0; p < f.pixels; ++p) {
    const float* __restrict in = x + p * c;
    float* __restrict to = d_x + p * c;
    for (std::int64_t i = 0; i < c; ++i) to[i] = a[i] * to[i] + (scale[i] * in[i] + b[i]);
  }
}

namespace {

/// Numbers worked on side by side, wherever they lie.
constexpr std::int64_t kLane = 16;
using Lane [[gnu::vector_size(kLane * sizeof(float)), gnu::aligned(alignof(float)), gnu::may_alias]] = float;
inline const Lane& lane(const float* x) { return *reinterpret_cast<const Lane*>(x); }
inline Lane& lane(float* x) { return *reinterpret_cast<Lane*>(x); }

/// Of n numbers, a multiple of kLane.
inline float greatest(const float* x, std::int64_t n) {
  Lane most = lane(x);
  for (std::int64_t j = kLane; j < n; j += kLane) most = lane(x + j) > most ? lane(x + j) : most;
  float one = most[0];
  for (std::int64_t l = 1; l < kLane; ++l) one = std::max(one, most[l]);
  return one;
}
inline float total(const float* x, std::int64_t n) {
  Lane sum{};
  for (std::int64_t j = 0; j < n; j += kLane) sum += lane(x + j);
  float all = 0;
  for (std::int64_t l = 0; l < kLane; ++l) all += sum[l];
  return all;
}

/// rows x size values every `stride`, turned: size x padded(rows), zero beyond them.
inline void turn(const float* x, std::int64_t rows, std::int64_t size, std::int64_t stride, float scale, float* y) {
  const std::int64_t wide = padded(rows);
  std::fill_n(y, size * wide, 0.0F);
  for (std::int64_t j = 0; j < rows; ++j)
    for (std::int64_t d = 0; d < size; ++d) y[d * wide + j] = x[j * stride + d] * scale;
}

/// y = xᵀ m, m: size x wide.
inline void products(const float* x, const float* m, std::int64_t size, std::int64_t wide, float* y) {
  for (std::int64_t first = 0; first < wide; first += kLane) {
    Lane sum{};
    for (std::int64_t d = 0; d < size; ++d) sum += x[d] * lane(m + d * wide + first);
    lane(y + first) = sum;
  }
}

/// y = sum over j of w[j step] row j of x, for `size` values a row.
inline void mixture(const float* w, std::int64_t step, const float* x, std::int64_t rows, std::int64_t size,
                    std::int64_t stride, float* y) {
  std::int64_t first = 0;
  for (; first + kLane <= size; first += kLane) {
    Lane sum{};
    for (std::int64_t j = 0; j < rows; ++j) sum += w[j * step] * lane(x + j * stride + first);
    lane(y + first) = sum;
  }
  for (; first < size; ++first) {
    float sum = 0;
    for (std::int64_t j = 0; j < rows; ++j) sum += w[j * step] * x[j * stride + first];
    y[first] = sum;
  }
}

}  // namespace

PERCEPT_EACH_PROCESSOR
void attend(const float* q, const float* k, const float* v, std::int64_t n, std::int64_t size, std::int64_t stride,
            float* y, std::int64_t y_stride, float* weights, float* work) {
  const std::int64_t wide = padded(n);
  turn(k, n, size, stride, 1 / std::sqrt(static_cast<float>(size)), work);
  for (std::int64_t i = 0; i < n; ++i) {
    float* __restrict w = weights + i * wide;
    products(q + i * stride, work, size, wide, w);
    std::fill(w + n, w + wide, -1e30F);
    const float most = greatest(w, wide);
    for (std::int64_t j = 0; j < wide; ++j) w[j] = exponential(w[j] - most);
    const float share = 1 / total(w, wide);
    for (std::int64_t j = 0; j < wide; ++j) w[j] *= share;
    mixture(w, 1, v, n, size, stride, y + i * y_stride);
  }
}

PERCEPT_EACH_PROCESSOR
void attend_gradient(const float* q, const float* k, const float* v, std::int64_t n, std::int64_t size,
                     std::int64_t stride, const float* d_y, std::int64_t y_stride, const float* weights, float* d_q,
                     float* d_k, float* d_v, float* work) {
  const std::int64_t wide = padded(n);
  const float scale = 1 / std::sqrt(static_cast<float>(size));
  float* d_scores = work + size * wide;
  turn(v, n, size, stride, 1, work);
  for (std::int64_t i = 0; i < n; ++i) {
    const float* __restrict w = weights + i * wide;
    float* __restrict d = d_scores + i * wide;
    products(d_y + i * y_stride, work, size, wide, d);
    Lane both{};
    for (std::int64_t j = 0; j < wide; j += kLane) both += lane(w + j) * lane(d + j);
    float sum = 0;
    for (std::int64_t l = 0; l < kLane; ++l) sum += both[l];
    for (std::int64_t j = 0; j < wide; ++j) d[j] = w[j] * (d[j] - sum) * scale;
    mixture(d, 1, k, n, size, stride, d_q + i * stride);
  }
  for (std::int64_t j = 0; j < n; ++j) {
    mixture(d_scores + j, wide, q, n, size, stride, d_k + j * stride);
    mixture(weights + j, wide, d_y, n, size, y_stride, d_v + j * stride);
  }
}

}  // namespace percept::diffusion::kernels
