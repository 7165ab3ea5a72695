#include "evaluation/item_metrics.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "evaluation/metrics.h"
#include "numerics/ssim.h"

namespace percept::evaluation {

using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

constexpr Index kGaussianSide = 11;

MetricInfo item_metric(const char* name, const char* unit, const char* doc, bool lower_is_better = false,
                       Index outputs = 0) {
  MetricInfo i;
  i.name = name;
  i.unit = unit;
  i.doc = doc;
  i.lower_is_better = lower_is_better;
  i.outputs = outputs;
  i.kind = MetricInfo::Kind::item;
  return i;
}

/// What one frame is scored by.
bool is_there(const MatrixXd& m, Index k) { return m.rows() > 0 && !m.col(k).array().isNaN().any(); }

/// Columns without their mean, scaled to length 1; a constant one becomes NaN.
MatrixXd normalised(const MatrixXd& m) {
  MatrixXd n = m.rowwise() - m.colwise().mean();
  for (Index k = 0; k < n.cols(); ++k) {
    const double length = n.col(k).norm();
    // what is left of a constant image is rounding
    if (length > 1e-12 * m.col(k).norm()) n.col(k) /= length;
    else n.col(k).setConstant(kUndefined);
  }
  return n;
}

bool is_constant(const VectorXd& v) { return v.minCoeff() == v.maxCoeff(); }

}  // namespace

/// Correlation of every decoded image with every true one, and which true ones are the same image.
class ItemLineup {
 public:
  ItemLineup(const MatrixXd& truth, const MatrixXd& decoded) {
    for (Index k = 0; k < truth.cols(); ++k)
      if (is_there(truth, k) && is_there(decoded, k)) there_.push_back(k);
    const MatrixXd t = normalised(truth), d = normalised(decoded);
    correlation_ = MatrixXd::Constant(truth.cols(), truth.cols(), kUndefined);
    correlation_(there_, there_) = d(Eigen::all, there_).transpose() * t(Eigen::all, there_);
    for (Index k = 0; k < truth.cols(); ++k) {
      Index first = 0;
      while (first < k && !std::equal(truth.col(k).begin(), truth.col(k).end(), truth.col(first).begin())) ++first;
      first_same_.push_back(first);
    }
  }
  /// Of the true images that differ from that of frame `own`: how many correlate less with decoded image k than its own
  /// does (ties count half), how many as much or more, and how many there are. NaN where a correlation is undefined.
  struct Place {
    double beaten = 0, better = 0, others = 0;
  };
  Place place(Index k, Index own) const {
    Place p;
    const double right = correlation_(k, own);
    for (Index j : there_) {
      if (first_same_[static_cast<std::size_t>(j)] == first_same_[static_cast<std::size_t>(own)]) continue;
      p.others += 1;
      const double behind = right - correlation_(k, j);
      const bool tie = std::abs(behind) < 1e-12;  // rounding
      if (std::isnan(behind)) p.beaten = kUndefined;
      else p.beaten += tie ? 0.5 : behind > 0 ? 1 : 0;
      p.better += tie || behind < 0 ? 1 : 0;
    }
    return p;
  }

 private:
  std::vector<Index> there_, first_same_;  ///< of each true image: the first that equals it
  MatrixXd correlation_;                   ///< decoded x true
};

namespace {

/// The number after "top1_", when the name is top1_Nway; else 0.
Index ways(const std::string& name) {
  Index n = 0;
  const std::string head = "top1_", tail = "way";
  if (!name.starts_with(head) || !name.ends_with(tail)) return 0;
  const char *first = name.data() + head.size(), *last = name.data() + name.size() - tail.size();
  const auto [end, error] = std::from_chars(first, last, n);
  return error == std::errc() && end == last && n >= 2 && n <= 100000 ? n : 0;
}

/// Chance that none of `drawn` distractors, drawn without replacement from `others`, is better.
double none_better(double better, double others, Index drawn) {
  double chance = 1;
  for (Index i = 0; i < drawn; ++i)
    chance *= std::max(0.0, others - better - static_cast<double>(i)) / (others - static_cast<double>(i));
  return chance;
}

/// The windows of a metric of structural similarity, on images of that shape.
Ssim windows_of(const MetricInfo& info, const std::vector<Index>& shape) {
  SsimOptions o;
  o.width = least_side(info);
  if (info.name != "ssim_gaussian") {
    o.window = SsimOptions::Window::uniform;
    o.unbiased = true;
  }
  return {shape[shape.size() - 2], shape[shape.size() - 1], o};
}

/// Of a frame of several planes (colours, time points): the mean over them.
double similarity(const Ssim& ssim, const VectorXd& a, const VectorXd& b) {
  const Index plane = ssim.height() * ssim.width();
  double sum = 0;
  for (Index at = 0; at < a.size(); at += plane) sum += ssim(a.segment(at, plane), b.segment(at, plane));
  const Index planes = a.size() / plane;
  return sum / static_cast<double>(planes);
}

}  // namespace

const std::vector<MetricInfo>& item_metrics() {
  static const std::vector<MetricInfo> table = {
      item_metric("pcc", "1", "Pearson correlation of the values of one true and one decoded item; mean over items."),
      item_metric("mse", "1", "Mean squared error over the values of an item; mean over items.", true),
      item_metric("psnr", "dB", "10 log10(1 / mse) of an item with values from 0 to 1; mean over items."),
      item_metric("ssim_gaussian", "1",
                  "Structural similarity (Wang 2004): Gaussian window of 11 pixels, standard deviation 1.5, range 1, "
                  "where the window fits; mean over images."),
      item_metric("ssim_uniform7", "1",
                  "Structural similarity with a uniform window of 7 pixels, sample covariances, range 1, where the "
                  "window fits (the default of scikit-image); mean over images."),
      item_metric("ssim_uniform11", "1",
                  "Structural similarity with a uniform window of 11 pixels, sample covariances, range 1, where the "
                  "window fits; mean over images."),
      item_metric("identification", "1",
                  "Of the other test items with another truth, the part whose truth correlates less with what was "
                  "decoded than its own does; ties count half, chance is .5; mean over items."),
      item_metric("accuracy", "1", "Part of the items whose decoded category is the true one.", false, 1),
  };
  return table;
}

std::optional<MetricInfo> top1_metric(const std::string& name) {
  const Index n = ways(name);
  if (n == 0) return std::nullopt;
  MetricInfo i = item_metric("", "1", "");
  i.name = name;
  i.doc = fmt::format(
      "Chance that the true item correlates best with what was decoded among it and {} other test items drawn at "
      "random; chance level {:.4g}; mean over items.",
      n - 1, 1.0 / static_cast<double>(n));
  return i;
}

Index least_side(const MetricInfo& info) {
  return info.name == "ssim_gaussian"    ? kGaussianSide
         : info.name == "ssim_uniform7"  ? 7
         : info.name == "ssim_uniform11" ? 11
                                         : 0;
}

struct ItemScorer::Impl {
  MetricInfo info;
  const MatrixXd &truth, &decoded;
  Index n_way = 0;  ///< 0: another metric
  std::optional<ItemLineup> lineup;
  std::optional<Ssim> ssim;

  /// NaN beside a reason where it does not exist.
  double value(Index k, Index own, std::string& reason) const {
    const VectorXd t = truth.col(own), d = decoded.col(k);
    const auto& name = info.name;
    if (name == "accuracy") return t == d ? 1 : 0;
    if (name == "mse" || name == "psnr") {
      const double mse = (t - d).squaredNorm() / static_cast<double>(t.size());
      if (name == "mse") return mse;
      if (mse == 0) reason = "it was decoded exactly";
      return -10 * std::log10(mse);
    }
    if (ssim) return similarity(*ssim, t, d);
    if (is_constant(t) || is_constant(d)) {
      reason = is_constant(t) ? "its truth is constant" : "what was decoded is constant";
      return kUndefined;
    }
    if (name == "pcc") {
      const VectorXd tc = t.array() - t.mean(), dc = d.array() - d.mean();
      return std::clamp(tc.dot(dc) / tc.norm() / dc.norm(), -1.0, 1.0);
    }
    const auto place = lineup->place(k, own);
    if (place.others < static_cast<double>(std::max<Index>(1, n_way - 1)))
      reason = fmt::format("there are only {} other different items", place.others);
    else if (std::isnan(place.beaten)) reason = "another item is constant";
    else return n_way ? none_better(place.better, place.others, n_way - 1) : place.beaten / place.others;
    return kUndefined;
  }
};

ItemScorer::ItemScorer(const MetricInfo& info, const MatrixXd& truth, const MatrixXd& decoded,
                       const std::vector<Index>& shape)
    : impl_(new Impl{info, truth, decoded, ways(info.name), {}, {}}) {
  require_shape(info, shape);
  if (info.name == "identification" || impl_->n_way) impl_->lineup.emplace(truth, decoded);
  if (least_side(info) > 0) impl_->ssim.emplace(windows_of(info, shape));
  if (info.name != "psnr" && !impl_->ssim) return;
  for (Index k = 0; k < truth.cols(); ++k)
    if (const auto t = truth.col(k); is_there(truth, k) && (t.minCoeff() < 0 || t.maxCoeff() > 1))
      throw DataError("truth", fmt::format("item {}", k), fmt::format("values from 0 to 1 for {}", info.name),
                      fmt::format("{:.4g} to {:.4g}", t.minCoeff(), t.maxCoeff()));
}
ItemScorer::~ItemScorer() = default;

ItemValues ItemScorer::values(std::span<const Index> order) const {
  const auto& truth = impl_->truth;
  ItemValues out;
  out.values = VectorXd::Constant(truth.cols(), kUndefined);
  for (Index k = 0; k < truth.cols(); ++k) {
    const Index own = order.empty() ? k : order[static_cast<std::size_t>(k)];
    if (!is_there(truth, own) || !is_there(impl_->decoded, k)) continue;
    std::string reason;
    if (const double v = impl_->value(k, own, reason); std::isfinite(v)) {
      out.values(k) = v;
    } else if (out.undefined < 0) {
      out.undefined = k;
      out.reason = reason.empty() ? "the numbers are too large for double precision" : reason;
    }
  }
  return out;
}

VectorXd identification_ranks(const MatrixXd& truth, const MatrixXd& decoded) {
  const ItemLineup lineup(truth, decoded);
  VectorXd ranks(truth.cols());
  for (Index k = 0; k < truth.cols(); ++k) {
    if (!is_there(truth, k) || !is_there(decoded, k)) {
      ranks(k) = kUndefined;
      continue;
    }
    const auto place = lineup.place(k, k);
    ranks(k) = 1 + place.others - place.beaten;
  }
  return ranks;
}

}  // namespace percept::evaluation
