/// Fourier transforms of real signals by FFTW, and convolution with long kernels.
#pragma once

#include <Eigen/Core>
#include <complex>
#include <memory>
#include <span>

#include "core/stream.h"

namespace percept {

/// Transforms of one length between buffers of its own; one object a thread. Plans are FFTW's estimates, never timed:
/// a timed plan differs from run to run, and with it the last bits.
/// Frigo, Johnson, Proceedings of the IEEE 93 (2005) 216.
class RealFft {
 public:
  /// Throws Error for length < 1.
  explicit RealFft(Index length);
  ~RealFft();
  RealFft(RealFft&&) noexcept;
  RealFft& operator=(RealFft&&) noexcept;

  Index length() const;
  std::span<double> signal();                  ///< length values
  std::span<std::complex<double>> spectrum();  ///< length / 2 + 1 values, X[k] = sum_t x[t] exp(-2 pi i k t / length)
  void forward() noexcept;                     ///< signal -> spectrum; the signal stays
  void backward() noexcept;                    ///< spectrum -> signal, the inverse of forward(); the spectrum is lost

 private:
  struct Plans;
  std::unique_ptr<Plans> plans_;
};

/// The least length >= n that has no prime factor above 5.
Index fast_fft_length(Index n);

/// y[t] = sum_j taps[j] x[t - j] for a whole signal at once, by overlap-save: the cost of a value grows with the
/// logarithm of the number of taps. Equal to the direct sum to about 1e-15 of the largest value.
/// Oppenheim, Schafer, Discrete-Time Signal Processing, section 8.7.
class LongConvolution {
 public:
  /// Throws Error without taps.
  explicit LongConvolution(const Eigen::VectorXd& taps);
  /// x holds taps - 1 values of history before those to be answered: y.size() + taps - 1 in all.
  /// An output whose taps meet a value that is not finite is NaN. x and y do not overlap.
  void run(std::span<const double> x, std::span<double> y) noexcept;

 private:
  Index taps_ = 0;
  RealFft fft_;
  Eigen::VectorXcd response_;
};

}  // namespace percept
