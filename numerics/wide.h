/// Inner loops in the widest registers that the processor has. Every number comes from the same operations in the same
/// order whatever they are (no fused multiply-add), so that results are the same bits on every processor and for any cut
/// of the work. None allocates.
#pragma once

#include <Eigen/Core>

#include "core/stream.h"

namespace percept::wide {

/// out = W x; w: rows x columns, column after column. Sums run over the columns in order.
void product(const double* w, Index rows, Index columns, const double* x, double* out) noexcept;

/// sum_i a_i b_i
double dot(const double* a, const double* b, Index n) noexcept;
/// sum_i a_i
double sum(const double* a, Index n) noexcept;

/// The least of a, n > 0, none NaN.
double least(const double* a, Index n) noexcept;

/// x_i = scale e^y, y = factor (x_i - shift), to 3e-16 of it for y <= 709; 0 where y < -708; NaN stays NaN.
void exponential(double* x, Index n, double scale, double factor = 1, double shift = 0) noexcept;

/// Points lie in packs of so many: pack after pack, in it input after input.
constexpr Index kPack = 16;
constexpr Index packs(Index points) { return (points + kPack - 1) / kPack; }
/// points: inputs x n, n > 0. The last pack is filled up with the last point.
Eigen::VectorXd packed(const Eigen::MatrixXd& points);

/// So many frames at once pay for reading the points.
constexpr Index kTogether = 16;

/// Square distances of frames to all points: out[f packs kPack + point] = sum_i (points_i - x_i)², over the inputs in
/// order. points: see kPack. x: frame after frame.
void distances2(const double* points, Index packs, Index inputs, const double* x, Index frames, double* out) noexcept;
/// The same of one frame, inputs that are NaN left out.
void known_distances2(const double* points, Index packs, Index inputs, const double* x, double* out) noexcept;

/// Recursive filters of kPack rows side by side: sections (b0 + b1/z + b2/z²) / (1 + a1/z + a2/z²) one after the other, each
/// y = b0 x + d1, d1 = b1 x + d2 - a1 y, d2 = b2 x - a2 y (transposed direct form II). coefficients: b0, b1, b2, a1, a2 of
/// each section. delays: d1 and d2 of each section, a pack each. x: a pack a frame, filtered in place.
void second_order_sections(const double* coefficients, Index sections, double* delays, double* x,
                           Index frames) noexcept;

/// The loops for registers of so many bytes (16: SSE2, or whatever a processor has; 32: AVX2; 64: AVX-512), for tests: the
/// functions above take the widest. Null where the processor has no such registers.
struct Loops {
  decltype(&wide::product) product;
  decltype(&wide::dot) dot;
  decltype(&wide::sum) sum;
  decltype(&wide::least) least;
  decltype(&wide::exponential) exponential;
  decltype(&wide::distances2) distances2;
  decltype(&wide::known_distances2) known_distances2;
  decltype(&wide::second_order_sections) second_order_sections;
};
const Loops* loops_of(int register_bytes) noexcept;

}  // namespace percept::wide
