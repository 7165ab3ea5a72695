/// The report of a run: one HTML file that needs nothing else, no network included.
#pragma once

#include <Eigen/Core>
#include <string>
#include <vector>

#include "core/value.h"

namespace percept::evaluation {

/// Renders a report. Every section is left out when its key is missing; only `title` is needed. Unknown keys are
/// ignored. Every string is shown as text, never as markup. Numbers are rounded for reading; the exact ones are in the
/// run's JSON. Throws DataError naming the place when a value has the wrong type.
///
///     title, description          text
///     created                     text, when
///     warnings                    [text]: shown first and large ("processed upstream with a leak: ...")
///     data                        {name, title, licence, citation, url, note, recordings: [{name, frames, ...}]}
///     split                       [to_value(SplitSpec, ...)] of split.h
///     scores                      [{
///       name                        of the [[score]]; may be ""
///       split                       name
///       model                       what was scored: "kalman"
///       metrics                     [to_value(Score, Bootstrap) of bootstrap.h]
///       controls                    [{name: "time alone", kind: "control" | "removed" | "null", doc, metrics,
///                                     or "absent": why there is none}]
///       p                           {value, metric, permutations, method}, or missing
///     }]
///     trajectories                [trajectory() below]
///     images                      [mosaic() of item_trust.h]: rows of images under each other, on canvases
///     trust                       [{name, ...to_value(ItemTrust) of item_trust.h, spread: [one an item], error}]
///     calibration                 [{name, ...to_value(Calibration)}]; without a covariance {name, calibrated, verdict}
///     priors                      [{name, use, version, images, sources: [{name, images}], labels?, params, digest}]
///     search                      [{split, fold, search: {metric, method, lower_is_better, folds,
///                                   rows: [{params: {"node.key": v}, value, folds, frames, chosen: bool, failed: why,
///                                   given_up: why}]}}]: shown best first
///     models                      [{node, use, frames, digest, params: {...}, counters: {name: count}, seconds}]
///     counters                    {"node.name": count}: missing frames, repaired covariances, lost events
///     losses                      [{name, x, x_label, series: [{name, values}]}]
///     graph                       [{name, use, from: [text], shape, rate_hz, latency_s, memory_frames, scalar, fit, reset}]
///     provenance                  any table, shown as it is nested: versions, digests, seeds, seconds, peak_rss_bytes
///     rerun                       text: the command that repeats the run
std::string render_report(const Value& report);

/// One entry of `trajectories`: truth and decoded over time, error and the 90 % band of each output.
struct TrajectoryOptions {
  std::string name;                               ///< "kalman, official"
  double rate_hz = 0, start_s = 0;                ///< rate 0: items, the x axis is the position
  std::vector<std::string> outputs;               ///< names; empty: "output 1", ...
  std::string unit;                               ///< of the target
  std::vector<Eigen::Index> starts = {0};         ///< first column of each segment; drawn apart
  std::vector<double> segment_times = {};         ///< time of the first frame of each segment [s]; empty: one clock
  Eigen::Index path_first = -1, path_frames = 0;  ///< window of the 2-D path; -1: chosen where most movement is
};
/// truth, decoded: outputs x frames; covariance: outputs^2 x frames, or empty (no band). NaN is a hole in the line.
/// More than 20000 frames: every series is reduced to the smallest and largest value of each of 10000 stretches, and
/// the entry says so; the path keeps full resolution in its window.
Value trajectory(const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded, const Eigen::MatrixXd& covariance,
                 const TrajectoryOptions& options);

/// The section of `scores` alone, beside their controls.
std::string score_tables(const Value& report);

/// Four significant digits, an exponent only where needed, a true minus sign; whole numbers without decimals.
std::string readable(double v);

}  // namespace percept::evaluation
