#include "preprocessing/bins.h"

#include <fmt/format.h>

#include <cmath>

namespace percept {

void Bins::prepare(double bin_s, StreamFormat& format, const Context& context) {
  const double rate_hz = format.rate_hz, exact = bin_s * rate_hz;
  length = exact < 1e9 ? static_cast<Index>(std::llround(exact)) : 0;
  require(length >= 1 && std::abs(exact - static_cast<double>(length)) <= 1e-6 * exact, context, "bin_s",
          fmt::format("{} s", bin_s), fmt::format("a whole number of frames of {} s, below 1e9 of them", 1 / rate_hz));
  latency_s = static_cast<double>(length - 1) / 2 / rate_hz;
  format.rate_hz = rate_hz / static_cast<double>(length);
  format.start_s += latency_s;
  format.max_frames = (format.max_frames + length - 1) / length;
}

}  // namespace percept
