#include "numerics/fft.h"

#include <fftw3.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "core/error.h"

namespace percept {
namespace {

/// FFTW's planner is not thread-safe; running a plan is.
std::mutex& planner() {
  static std::mutex mutex;
  return mutex;
}

/// Of overlap-save: long enough that most of a transform gives outputs, short enough for the second-level cache.
Index block_length(Index taps) { return fast_fft_length(std::max<Index>(4 * taps, 1024)); }

}  // namespace

struct RealFft::Plans {
  Index length;
  double* signal;
  fftw_complex* spectrum;
  fftw_plan forward, backward;

  explicit Plans(Index n)
      : length(n), signal(fftw_alloc_real(static_cast<std::size_t>(n))),
        spectrum(fftw_alloc_complex(static_cast<std::size_t>(n / 2 + 1))) {
    const std::lock_guard lock(planner());
    const int size = static_cast<int>(n);
    forward = fftw_plan_dft_r2c_1d(size, signal, spectrum, FFTW_ESTIMATE | FFTW_PRESERVE_INPUT);
    backward = fftw_plan_dft_c2r_1d(size, spectrum, signal, FFTW_ESTIMATE);
  }
  ~Plans() {
    {
      const std::lock_guard lock(planner());
      fftw_destroy_plan(forward);
      fftw_destroy_plan(backward);
    }
    fftw_free(signal);
    fftw_free(spectrum);
  }
  Plans(const Plans&) = delete;
  Plans& operator=(const Plans&) = delete;
};

RealFft::RealFft(Index length) {
  if (length < 1 || length > std::numeric_limits<int>::max())
    throw Error(fmt::format("length of a Fourier transform: expected 1 to 2^31 - 1, found {}", length));
  plans_ = std::make_unique<Plans>(length);
}
RealFft::~RealFft() = default;
RealFft::RealFft(RealFft&&) noexcept = default;
RealFft& RealFft::operator=(RealFft&&) noexcept = default;

Index RealFft::length() const { return plans_->length; }
std::span<double> RealFft::signal() { return {plans_->signal, static_cast<std::size_t>(plans_->length)}; }
std::span<std::complex<double>> RealFft::spectrum() {
  // FFTW says that its complex type has the layout of the standard's
  return {reinterpret_cast<std::complex<double>*>(plans_->spectrum), static_cast<std::size_t>(plans_->length / 2 + 1)};
}
void RealFft::forward() noexcept { fftw_execute(plans_->forward); }
void RealFft::backward() noexcept {
  fftw_execute(plans_->backward);
  const double scale = 1.0 / static_cast<double>(plans_->length);
  for (double& v : signal()) v *= scale;
}

Index fast_fft_length(Index n) {
  for (Index length = std::max<Index>(n, 1);; ++length) {
    Index rest = length;
    for (const Index factor : {2, 3, 5})
      while (rest % factor == 0) rest /= factor;
    if (rest == 1) return length;
  }
}

LongConvolution::LongConvolution(const Eigen::VectorXd& taps)
    : taps_(taps.size()), fft_(block_length(std::max<Index>(taps.size(), 1))) {
  if (taps_ < 1) throw Error("taps of a convolution: expected at least one, found none");
  const auto signal = fft_.signal();
  std::copy(taps.begin(), taps.end(), signal.begin());
  std::fill(signal.begin() + taps_, signal.end(), 0.0);
  fft_.forward();
  const auto spectrum = fft_.spectrum();
  response_ = Eigen::Map<Eigen::VectorXcd>(spectrum.data(), static_cast<Index>(spectrum.size()));
}

void LongConvolution::run(std::span<const double> x, std::span<double> y) noexcept {
  const Index outputs = static_cast<Index>(y.size()), history = taps_ - 1, fresh = fft_.length() - history;
  const auto signal = fft_.signal();
  const auto spectrum = fft_.spectrum();
  Index clean_from = 0;  // outputs before it meet a missing value
  for (Index first = 0; first < outputs; first += fresh) {
    const Index n = std::min(fresh, outputs - first), given = n + history;
    for (Index k = 0; k < given; ++k) {
      const double v = x[static_cast<std::size_t>(first + k)];
      signal[static_cast<std::size_t>(k)] = std::isfinite(v) ? v : 0.0;
    }
    std::fill(signal.begin() + given, signal.end(), 0.0);
    fft_.forward();
    for (std::size_t k = 0; k < spectrum.size(); ++k) spectrum[k] *= response_[static_cast<Index>(k)];
    fft_.backward();
    // the first `history` values have wrapped around
    std::copy_n(signal.begin() + history, n, y.begin() + first);
  }
  for (Index k = 0; k < outputs + history; ++k)
    if (!std::isfinite(x[static_cast<std::size_t>(k)])) {
      // x[k] is the newest value of output k - history and the oldest of output k
      for (Index t = std::max(clean_from, k - history); t <= std::min(k, outputs - 1); ++t)
        y[static_cast<std::size_t>(t)] = std::numeric_limits<double>::quiet_NaN();
      clean_from = std::max(clean_from, k + 1);
    }
}

}  // namespace percept
