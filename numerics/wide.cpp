#include "numerics/wide.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

// One build runs on every x86-64. The loops are written once, as functions that are always inlined, and compiled for each
// set of registers by the functions below that carry its name. (target_clones would leave the choice to the loader, before
// a sanitizer's runtime is there.)
#define PERCEPT_INLINE inline __attribute__((always_inline))
#if defined(__x86_64__)
#define PERCEPT_AVX2 __attribute__((target("avx2")))
#define PERCEPT_AVX512 __attribute__((target("avx2,avx512f")))
#endif

namespace percept::wide {
namespace {

// A few numbers beside each other, as many as a register of SSE2, AVX2 and AVX-512 holds.
typedef double Two __attribute__((vector_size(16)));
typedef double Four __attribute__((vector_size(32)));
typedef double Eight __attribute__((vector_size(64)));

template <class V>
constexpr Index kLanes = sizeof(V) / sizeof(double);

template <class V>
struct WordsOf {
  typedef std::int64_t type __attribute__((vector_size(sizeof(V))));
};

template <class V>
PERCEPT_INLINE V load(const double* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class V>
PERCEPT_INLINE void store(double* p, const V& v) {
  std::memcpy(p, &v, sizeof v);
}

/// kSums registers of rows: they fill the pipeline and do not change the order of any sum.
template <class V, int kSums>
PERCEPT_INLINE void product_rows(const double* w, Index rows, Index columns, const double* x, double* out) {
  V sums[kSums] = {};
  for (Index c = 0; c < columns; ++c, w += rows)
    for (int s = 0; s < kSums; ++s) sums[s] += load<V>(w + s * kLanes<V>) * x[c];
  for (int s = 0; s < kSums; ++s) store(out + s * kLanes<V>, sums[s]);
}

template <class V, int kSums>
PERCEPT_INLINE void any_product(const double* w, Index rows, Index columns, const double* x, double* out) {
  constexpr Index kStep = kSums * kLanes<V>;
  Index i = 0;
  for (; i + kStep <= rows; i += kStep) product_rows<V, kSums>(w + i, rows, columns, x, out + i);
  for (; i + kLanes<V> <= rows; i += kLanes<V>) product_rows<V, 1>(w + i, rows, columns, x, out + i);
  for (; i + 2 <= rows; i += 2) product_rows<Two, 1>(w + i, rows, columns, x, out + i);
  if (i == rows) return;
  double sum = 0;
  for (Index c = 0; c < columns; ++c) sum += w[c * rows + i] * x[c];
  out[i] = sum;
}

/// sum_i a_i, or a_i b_i. So many sums run beside each other, whatever the registers.
template <class V, bool kProducts>
PERCEPT_INLINE double any_sum(const double* a, const double* b, Index n) {
  constexpr Index kSums = 32, kRegisters = kSums / kLanes<V>;
  V sums[kRegisters] = {};
  Index i = 0;
  for (; i + kSums <= n; i += kSums)
    for (Index s = 0; s < kRegisters; ++s) {
      const Index at = i + s * kLanes<V>;
      if constexpr (kProducts) sums[s] += load<V>(a + at) * load<V>(b + at);
      else sums[s] += load<V>(a + at);
    }
  double each[kSums];
  for (Index s = 0; s < kRegisters; ++s) store(each + s * kLanes<V>, sums[s]);
  double sum = 0;
  for (const double part : each) sum += part;
  for (; i < n; ++i) sum += kProducts ? a[i] * b[i] : a[i];
  return sum;
}

/// e^x = 2^n e^r with |r| <= ln 2 / 2, where the series to r^13 / 13! is exact to the last digit.
template <class V>
PERCEPT_INLINE V exponential_of(const V& x) {
  using Words = typename WordsOf<V>::type;
  constexpr double kShift = 6755399441055744.0;  // 1.5 x 2^52: adding it leaves the rounded number in the low bits
  const V shifted = x * 1.4426950408889634 + kShift;
  const V n = shifted - kShift;
  const V r = (x - n * 0.693145751953125) - n * 1.42860682030941723212e-6;  // ln 2 in two parts, the first exact
  constexpr double kFactorials[] = {6227020800.0, 479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0,
                                    5040.0,       720.0,       120.0,      24.0,      6.0,      2.0};
  V p = r * (1 / kFactorials[0]);
  for (int k = 1; k < 12; ++k) p = (p + 1 / kFactorials[k]) * r;
  p = (p + 1) * r + 1;
  const Words power = (std::bit_cast<Words>(shifted) + 1023) << 52;
  return x < -708.0 ? V{} : p * std::bit_cast<V>(power);
}

template <class V>
PERCEPT_INLINE void any_exponential(double* x, Index n, double scale, double factor, double shift) {
  Index i = 0;
  for (; i + kLanes<V> <= n; i += kLanes<V>) store(x + i, exponential_of((load<V>(x + i) - shift) * factor) * scale);
  for (; i < n; ++i) x[i] = exponential_of((Two{x[i], 0} - shift) * factor)[0] * scale;
}

template <class V>
PERCEPT_INLINE double any_least(const double* a, Index n) {
  constexpr Index kRegisters = 4;
  double least = a[0];
  V each[kRegisters];
  for (V& v : each) v = V{} + least;
  Index i = 0;
  for (; i + kRegisters * kLanes<V> <= n; i += kRegisters * kLanes<V>)
    for (Index s = 0; s < kRegisters; ++s) {
      const V v = load<V>(a + i + s * kLanes<V>);
      each[s] = v < each[s] ? v : each[s];
    }
  for (const V& v : each)
    for (Index k = 0; k < kLanes<V>; ++k) least = std::min(least, v[k]);
  for (; i < n; ++i) least = std::min(least, a[i]);
  return least;
}

/// Of kFrames frames at a time, so that a point is read once for all of them.
template <class V, int kFrames>
PERCEPT_INLINE void pack_distances2(const double* points, Index inputs, const double* x, Index stride, double* out) {
  constexpr int kRegisters = kPack / kLanes<V>;
  V sums[kFrames][kRegisters] = {};
  for (Index i = 0; i < inputs; ++i, points += kPack)
    for (int f = 0; f < kFrames; ++f)
      for (int s = 0; s < kRegisters; ++s) {
        const V away = load<V>(points + s * kLanes<V>) - x[f * inputs + i];
        sums[f][s] += away * away;
      }
  for (int f = 0; f < kFrames; ++f)
    for (int s = 0; s < kRegisters; ++s) store(out + f * stride + s * kLanes<V>, sums[f][s]);
}

template <class V, int kFrames>
PERCEPT_INLINE void any_distances2(const double* points, Index packs, Index inputs, const double* x, Index frames,
                                   double* out) {
  const Index stride = packs * kPack;
  for (Index p = 0; p < packs; ++p, points += kPack * inputs, out += kPack) {
    Index f = 0;
    for (; f + kFrames <= frames; f += kFrames)
      pack_distances2<V, kFrames>(points, inputs, x + f * inputs, stride, out + f * stride);
    for (; f < frames; ++f) pack_distances2<V, 1>(points, inputs, x + f * inputs, stride, out + f * stride);
  }
}

template <class V>
PERCEPT_INLINE void any_known_distances2(const double* points, Index packs, Index inputs, const double* x,
                                         double* out) {
  constexpr int kRegisters = kPack / kLanes<V>;
  for (Index p = 0; p < packs; ++p, out += kPack) {
    V sums[kRegisters] = {};
    for (Index i = 0; i < inputs; ++i, points += kPack) {
      if (std::isnan(x[i])) continue;
      for (int s = 0; s < kRegisters; ++s) {
        const V away = load<V>(points + s * kLanes<V>) - x[i];
        sums[s] += away * away;
      }
    }
    for (int s = 0; s < kRegisters; ++s) store(out + s * kLanes<V>, sums[s]);
  }
}

/// Several sections of several registers of rows at a time: their delays stay in registers for all frames, and what each
/// has to wait for is hidden behind the others.
template <class V, int kRegisters, int kSections>
PERCEPT_INLINE void some_sections(const double* c, double* delays, double* x, Index frames) {
  V d1[kSections][kRegisters], d2[kSections][kRegisters];
#pragma GCC unroll 8
  for (int s = 0; s < kSections; ++s)
#pragma GCC unroll 8
    for (int r = 0; r < kRegisters; ++r) {
      d1[s][r] = load<V>(delays + 2 * s * kPack + r * kLanes<V>);
      d2[s][r] = load<V>(delays + (2 * s + 1) * kPack + r * kLanes<V>);
    }
  for (Index k = 0; k < frames; ++k, x += kPack) {
    V v[kRegisters];
#pragma GCC unroll 8
    for (int r = 0; r < kRegisters; ++r) v[r] = load<V>(x + r * kLanes<V>);
#pragma GCC unroll 8
    for (int s = 0; s < kSections; ++s)
#pragma GCC unroll 8
      for (int r = 0; r < kRegisters; ++r) {
        const V y = v[r] * c[5 * s] + d1[s][r];
        d1[s][r] = (v[r] * c[5 * s + 1] + d2[s][r]) - y * c[5 * s + 3];
        d2[s][r] = v[r] * c[5 * s + 2] - y * c[5 * s + 4];
        v[r] = y;
      }
#pragma GCC unroll 8
    for (int r = 0; r < kRegisters; ++r) store(x + r * kLanes<V>, v[r]);
  }
#pragma GCC unroll 8
  for (int s = 0; s < kSections; ++s)
#pragma GCC unroll 8
    for (int r = 0; r < kRegisters; ++r) {
      store(delays + 2 * s * kPack + r * kLanes<V>, d1[s][r]);
      store(delays + (2 * s + 1) * kPack + r * kLanes<V>, d2[s][r]);
    }
}

template <class V, int kRegisters, int kSections>
PERCEPT_INLINE void any_sections(const double* c, Index sections, double* delays, double* x, Index frames) {
  for (Index row = 0; row < kPack; row += kRegisters * kLanes<V>) {
    Index s = 0;
    for (; s + kSections <= sections; s += kSections)
      some_sections<V, kRegisters, kSections>(c + 5 * s, delays + 2 * s * kPack + row, x + row, frames);
    for (; s < sections; ++s) some_sections<V, kRegisters, 1>(c + 5 * s, delays + 2 * s * kPack + row, x + row, frames);
  }
}

// kSums, kFrames, kRows (in registers), kSections: what the registers hold
#define PERCEPT_LOOPS(name, target, V, kSums, kFrames, kRows, kSections)                                             \
  target void name##_product(const double* w, Index rows, Index columns, const double* x, double* out) noexcept {    \
    any_product<V, kSums>(w, rows, columns, x, out);                                                                 \
  }                                                                                                                  \
  target double name##_dot(const double* a, const double* b, Index n) noexcept { return any_sum<V, true>(a, b, n); } \
  target double name##_sum(const double* a, Index n) noexcept { return any_sum<V, false>(a, a, n); }                 \
  target double name##_least(const double* a, Index n) noexcept { return any_least<V>(a, n); }                       \
  target void name##_exponential(double* x, Index n, double scale, double factor, double shift) noexcept {           \
    any_exponential<V>(x, n, scale, factor, shift);                                                                  \
  }                                                                                                                  \
  target void name##_distances2(const double* points, Index packs, Index inputs, const double* x, Index frames,      \
                                double* out) noexcept {                                                              \
    any_distances2<V, kFrames>(points, packs, inputs, x, frames, out);                                               \
  }                                                                                                                  \
  target void name##_known_distances2(const double* points, Index packs, Index inputs, const double* x,              \
                                      double* out) noexcept {                                                        \
    any_known_distances2<V>(points, packs, inputs, x, out);                                                          \
  }                                                                                                                  \
  target void name##_second_order_sections(const double* c, Index sections, double* delays, double* x,               \
                                           Index frames) noexcept {                                                  \
    any_sections<V, kRows, kSections>(c, sections, delays, x, frames);                                               \
  }                                                                                                                  \
  constexpr Loops k_##name{name##_product,                                                                           \
                           name##_dot,                                                                               \
                           name##_sum,                                                                               \
                           name##_least,                                                                             \
                           name##_exponential,                                                                       \
                           name##_distances2,                                                                        \
                           name##_known_distances2,                                                                  \
                           name##_second_order_sections};

PERCEPT_LOOPS(plain, , Two, 8, 1, 4, 1)
#if defined(__x86_64__)
PERCEPT_LOOPS(avx2, PERCEPT_AVX2, Four, 8, 2, 2, 2)
PERCEPT_LOOPS(avx512, PERCEPT_AVX512, Eight, 8, 8, 2, 4)
#endif

const Loops& widest() noexcept {
  static const Loops& chosen = *(loops_of(64) ? loops_of(64) : loops_of(32) ? loops_of(32) : loops_of(16));
  return chosen;
}

}  // namespace

const Loops* loops_of(int register_bytes) noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (register_bytes == 64) return __builtin_cpu_supports("avx512f") ? &k_avx512 : nullptr;
  if (register_bytes == 32) return __builtin_cpu_supports("avx2") ? &k_avx2 : nullptr;
#endif
  return register_bytes == 16 ? &k_plain : nullptr;
}

Eigen::VectorXd packed(const Eigen::MatrixXd& points) {
  Eigen::VectorXd out(packs(points.cols()) * kPack * points.rows());
  double* to = out.data();
  for (Index p = 0; p < packs(points.cols()); ++p)
    for (Index i = 0; i < points.rows(); ++i)
      for (Index k = 0; k < kPack; ++k) *to++ = points(i, std::min(p * kPack + k, points.cols() - 1));
  return out;
}

void product(const double* w, Index rows, Index columns, const double* x, double* out) noexcept {
  if (rows < 8) any_product<Two, 2>(w, rows, columns, x, out);  // choosing would take longer
  else widest().product(w, rows, columns, x, out);
}
double dot(const double* a, const double* b, Index n) noexcept { return widest().dot(a, b, n); }
double sum(const double* a, Index n) noexcept { return widest().sum(a, n); }
double least(const double* a, Index n) noexcept { return widest().least(a, n); }
void exponential(double* x, Index n, double scale, double factor, double shift) noexcept {
  widest().exponential(x, n, scale, factor, shift);
}
void distances2(const double* points, Index packs, Index inputs, const double* x, Index frames, double* out) noexcept {
  widest().distances2(points, packs, inputs, x, frames, out);
}
void known_distances2(const double* points, Index packs, Index inputs, const double* x, double* out) noexcept {
  widest().known_distances2(points, packs, inputs, x, out);
}
void second_order_sections(const double* coefficients, Index sections, double* delays, double* x,
                           Index frames) noexcept {
  widest().second_order_sections(coefficients, sections, delays, x, frames);
}

}  // namespace percept::wide
