#include "evaluation/item_trust.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "evaluation/audit.h"
#include "evaluation/image_bytes.h"
#include "evaluation/item_metrics.h"
#include "evaluation/report/html.h"
#include "numerics/random.h"

namespace percept::evaluation {

using Eigen::MatrixXd;

namespace {

constexpr Index kResamples = 1000, kPairings = 1000;

/// Ranks from 1, ties sharing the mean of theirs.
std::vector<double> ranks(const std::vector<double>& v) {
  std::vector<std::size_t> order(v.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return v[a] < v[b]; });
  std::vector<double> rank(v.size());
  for (std::size_t i = 0; i < order.size();) {
    std::size_t end = i + 1;
    while (end < order.size() && v[order[end]] == v[order[i]]) ++end;
    for (std::size_t k = i; k < end; ++k) rank[order[k]] = (static_cast<double>(i + end - 1)) / 2 + 1;
    i = end;
  }
  return rank;
}

/// The rows of a part of the node's frame; no rows when it gives no such part.
MatrixXd part_of(const Pooled& p, const char* name) {
  const Part* part = p.frame_format.find_part(name);
  return part ? MatrixXd(p.frames.middleRows(p.frame_format.part_offset(name), part->size())) : MatrixXd();
}

ItemTrust::Told told(const std::vector<double>& doubt, const std::vector<double>& error, std::uint64_t seed) {
  ItemTrust::Told t;
  t.rank_correlation = rank_correlation(doubt, error);
  const auto n = std::ssize(doubt);
  BootstrapOptions options;
  options.block_frames = 1;
  options.resamples = kResamples;
  options.seed = seed;
  options.purpose = "item trust";
  std::vector<double> a, b;
  t.interval = bootstrap_blocks(
                   n, {0}, 1,
                   [&](std::span<const FrameBlock> blocks, std::span<double> value) {
                     a.clear();
                     b.clear();
                     for (auto& [at, length] : blocks)
                       for (Index k = at; k < at + length; ++k) {
                         a.push_back(doubt[static_cast<std::size_t>(k)]);
                         b.push_back(error[static_cast<std::size_t>(k)]);
                       }
                     value[0] = rank_correlation(a, b);
                   },
                   options)
                   .headline;
  const KeyedRandom random(seed, "item trust pairing");
  std::vector<double> null;
  for (Index i = 0; i < kPairings; ++i) {
    const auto order = random_order(random, n, i);
    b.resize(doubt.size());
    for (std::size_t k = 0; k < b.size(); ++k) b[k] = error[static_cast<std::size_t>(order[k])];
    null.push_back(rank_correlation(doubt, b));
  }
  t.p = permutation_p(t.rank_correlation, null, false);
  return t;
}

}  // namespace

double rank_correlation(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> x, y;
  for (std::size_t k = 0; k < a.size(); ++k)
    if (!std::isnan(a[k]) && !std::isnan(b[k])) {
      x.push_back(a[k]);
      y.push_back(b[k]);
    }
  if (x.size() < 3) return kUndefined;
  const auto rx = ranks(x), ry = ranks(y);
  const double middle = (static_cast<double>(x.size()) + 1) / 2;
  double xx = 0, yy = 0, xy = 0;
  for (std::size_t k = 0; k < rx.size(); ++k) {
    xx += (rx[k] - middle) * (rx[k] - middle);
    yy += (ry[k] - middle) * (ry[k] - middle);
    xy += (rx[k] - middle) * (ry[k] - middle);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : kUndefined;
}

ItemTrust item_trust(const Pooled& p, std::uint64_t seed) {
  ItemTrust trust;
  trust.error_to_spread = kUndefined;
  const Index n = p.truth.cols(), values = p.truth.rows();
  const MatrixXd error2 = (p.truth - p.decoded).array().square();
  auto& error = trust.values["rmse"];
  for (Index k = 0; k < n; ++k) error.push_back(std::sqrt(error2.col(k).mean()));
  if (p.shape.size() > 1) {
    const auto rank = identification_ranks(p.truth, p.decoded);
    trust.values["identification_rank"].assign(rank.begin(), rank.end());
  }
  const MatrixXd sd = part_of(p, "sd");
  if (sd.rows() == values && values > 0) {
    auto& spread = trust.values["spread"];
    for (Index k = 0; k < n; ++k) spread.push_back(sd.col(k).mean());
    trust.told["spread"] = told(spread, error, seed);
    // value by value: what stands beside what
    std::vector<std::pair<double, double>> pairs;
    double variance = 0, squares = 0;
    for (Index i = 0; i < sd.size(); ++i)
      if (const double s = sd.data()[i], e = error2.data()[i]; std::isfinite(s) && std::isfinite(e)) {
        pairs.emplace_back(s, e);
        variance += s * s;
        squares += e;
      }
    if (variance > 0) trust.error_to_spread = squares / variance;
    std::sort(pairs.begin(), pairs.end());
    constexpr std::size_t kParts = 10;
    for (std::size_t part = 0; part < kParts && pairs.size() >= kParts; ++part) {
      const std::size_t first = part * pairs.size() / kParts, end = (part + 1) * pairs.size() / kParts;
      double s = 0, e = 0;
      for (std::size_t i = first; i < end; ++i) {
        s += pairs[i].first;
        e += pairs[i].second;
      }
      const auto count = static_cast<double>(end - first);
      trust.reliability.emplace_back(s / count, std::sqrt(e / count));
    }
  }
  const MatrixXd flag = part_of(p, "hallucination");
  if (flag.rows() == 1) {
    auto& doubt = trust.values["hallucination"];
    doubt.assign(flag.data(), flag.data() + flag.size());
    trust.told["hallucination"] = told(doubt, error, seed);
  }
  return trust;
}

Value to_value(const ItemTrust& trust) {
  auto number = [](double v) { return std::isfinite(v) ? Value(v) : Value(); };
  Value v = Value::table();
  for (auto& [name, t] : trust.told)
    v[name] = Value::object({{"rank_correlation", number(t.rank_correlation)},
                             {"low", number(t.interval.low)},
                             {"high", number(t.interval.high)},
                             {"p", t.p}});
  v["error_to_spread"] = number(trust.error_to_spread);
  Value sd = Value::array(), rmse = Value::array();
  for (auto& [s, e] : trust.reliability) {
    sd.push_back(s);
    rmse.push_back(e);
  }
  v["reliability"] = Value::object({{"sd", sd}, {"rmse", rmse}});
  return v;
}

Value mosaic(const std::string& name, const Pooled& p) {
  constexpr Index kMost = 120;
  const Index n = std::min<Index>(kMost, p.truth.cols());
  // one range for all, so that rows can be compared; a spread has its own
  double low = 0, high = 1;
  for (Index i = 0; i < p.truth.size(); ++i)
    if (const double v = p.truth.data()[i]; std::isfinite(v)) {
      low = std::min(low, v);
      high = std::max(high, v);
    }
  auto row = [&](const char* title, const MatrixXd& m, double from, double to) {
    return Value::object({{"name", title}, {"pixels", base64(to_bytes(m.leftCols(n), ToBytes(from, to)))}});
  };
  const auto& s = p.shape;
  Value rows = Value::array({row("true", p.truth, low, high), row("decoded", p.decoded, low, high)});
  if (const MatrixXd sd = part_of(p, "sd"); sd.rows() == p.truth.rows() && sd.array().isFinite().any())
    rows.push_back(row("spread", sd, 0, sd.array().isFinite().select(sd, 0.0).maxCoeff()));
  return Value::object({{"name", name},
                        {"shape", Value::array({s[s.size() - 2], s[s.size() - 1]})},
                        {"channels", p.truth.rows() / (s[s.size() - 2] * s[s.size() - 1])},
                        {"count", n},
                        {"of", p.truth.cols()},
                        {"keys", Value(std::vector<std::int64_t>(p.axis.keys.begin(), p.axis.keys.begin() + n))},
                        {"rows", rows}});
}

}  // namespace percept::evaluation
