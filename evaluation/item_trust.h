/// Does what a reconstruction says of its own doubt tell how far off it is? One number an item, and how they go together.
#pragma once

#include <Eigen/Core>
#include <map>
#include <string>
#include <vector>

#include "core/value.h"
#include "evaluation/bootstrap.h"
#include "evaluation/scoring.h"

namespace percept::evaluation {

/// Rank correlation of two series (Spearman: Pearson of the ranks, ties sharing the mean of theirs). Pairs with NaN are
/// left out; NaN with fewer than three, or when one is constant.
double rank_correlation(const std::vector<double>& a, const std::vector<double>& b);

struct ItemTrust {
  /// One number an item: "rmse" (error over the values of the item), "identification_rank" of images (1: its truth
  /// correlates best among all that were tested), and where the node gives the parts, "spread" (mean of "sd" over
  /// the values) and "hallucination" (the part of that name, one number).
  std::map<std::string, std::vector<double>> values;
  /// How well one measure of doubt ranks the errors.
  struct Told {
    double rank_correlation = 0;
    Interval interval;  ///< 95 %, items resampled
    double p = 1;       ///< of no connection: items paired at random, one-sided
  };
  std::map<std::string, Told> told;  ///< of "spread" and "hallucination"
  /// Over all values of all items: mean squared error divided by mean variance (1: the spread is as large as the error,
  /// above 1: too small); NaN without a spread.
  double error_to_spread = 0;
  /// Values by rising sd in ten equal parts: {mean sd, root of the mean squared error}.
  std::vector<std::pair<double, double>> reliability;
};

/// Of pooled items.
ItemTrust item_trust(const Pooled& pooled, std::uint64_t seed = 0);
/// {spread: {rank_correlation, low, high, p}, hallucination?: ..., error_to_spread, reliability: {sd: [], rmse: []}}
Value to_value(const ItemTrust& trust);

/// What a report shows of images: {name, shape: [rows, columns], channels, count, keys, rows: [{name, pixels: base64 of
/// bytes, image after image}]}: the truth, what was decoded, and the spread where there is one. At most 120 images.
Value mosaic(const std::string& name, const Pooled& pooled);

}  // namespace percept::evaluation
