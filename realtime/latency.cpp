#include "realtime/latency.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace percept {

void LatencyHistogram::add(std::int64_t ns) noexcept {
  const auto v = static_cast<std::uint64_t>(std::max<std::int64_t>(ns, 16));
  const auto octave = static_cast<std::size_t>(std::bit_width(v)) - 5;
  const std::size_t bin = octave * 16 + ((v >> octave) & 15);
  bins_[std::min(bin, bins_.size() - 1)].fetch_add(1, std::memory_order_relaxed);
  std::int64_t seen = max_ns_.load(std::memory_order_relaxed);
  while (ns > seen && !max_ns_.compare_exchange_weak(seen, ns, std::memory_order_relaxed)) {
  }
}

std::int64_t LatencyHistogram::count() const noexcept {
  std::int64_t n = 0;
  for (auto& b : bins_) n += b.load(std::memory_order_relaxed);
  return n;
}

double LatencyHistogram::quantile_s(double q) const noexcept {
  const auto rank = std::max(1.0, std::ceil(q * static_cast<double>(count())));
  std::int64_t below = 0;
  for (std::size_t i = 0; i < bins_.size(); ++i) {
    below += bins_[i].load(std::memory_order_relaxed);
    // the last bin has no upper edge
    if (static_cast<double>(below) >= rank && i + 1 < bins_.size())
      return std::min(static_cast<double>((17 + i % 16) << (i / 16)) * 1e-9, max_s());
  }
  return max_s();
}

double LatencyHistogram::max_s() const noexcept {
  return static_cast<double>(max_ns_.load(std::memory_order_relaxed)) * 1e-9;
}

std::vector<std::pair<double, std::int64_t>> LatencyHistogram::bins(std::size_t to_an_octave) const {
  std::vector<std::pair<double, std::int64_t>> all;
  const std::size_t step = 16 / to_an_octave;
  std::size_t used = 0;
  for (std::size_t i = 0; i < bins_.size(); i += step) {
    std::int64_t n = 0;
    for (std::size_t k = i; k < i + step; ++k) n += bins_[k].load(std::memory_order_relaxed);
    if (n == 0 && all.empty()) continue;
    const std::size_t last = i + step - 1;
    all.emplace_back(static_cast<double>((17 + last % 16) << (last / 16)) * 1e-9, n);
    if (n) used = all.size();
  }
  all.resize(used);
  return all;
}

void LatencyHistogram::clear() noexcept {
  for (auto& b : bins_) b.store(0, std::memory_order_relaxed);
  max_ns_.store(0, std::memory_order_relaxed);
}

}  // namespace percept
