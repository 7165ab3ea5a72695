/// The confound audit: what a score would have been without any brain in it.
/// Confound features are ridge-fitted on training frames and scored on test frames; a null distribution comes from
/// targets shifted in time. Matrices are outputs x frames or features x frames.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>
#include <vector>

#include "core/pipeline.h"
#include "core/stream.h"
#include "evaluation/metrics.h"

namespace percept::evaluation {

/// Features of each frame that know nothing of the brain.
struct Confounds {
  std::string name;  ///< "time", "trial", "past"
  std::string doc;   ///< what is in it, a sentence for the reader
  std::vector<std::string> features;
  Eigen::MatrixXd x;  ///< features x frames; no row: this confound does not exist here
  /// The last so many features go on and on, like a trial's number: a fit leaves them out where it does better without
  /// on held-out blocks. A control that is tested on later trials is else spoilt by them, and flatters the decoder.
  Index trends = 0;
};

/// Time alone: powers of time up to 3 and 8 sine/cosine pairs of the recording's length, scaled to [-1, 1].
Confounds time_confounds(std::int64_t frames);
/// Trial structure: target x bin within the trial (one indicator each; bins in at most 40 groups), trial number and its
/// square. A trial starts at each event of the label "trial" when there is one, else at each event that is about all
/// rows, and lasts its duration, or to the next start when that is 0. Its target is the label and value of the event
/// (at most 64 different ones; more: no target). No row when there are fewer than two trials.
Confounds trial_confounds(const std::vector<Event>& events, std::int64_t frames, double rate_hz, double start_s);

/// First frame of each trial that lies in the recording: at or after the events of the label "trial", rising.
std::vector<std::int64_t> trial_starts(const std::vector<Event>& events, std::int64_t frames, double rate_hz,
                                       double start_s);

/// The target's own past: its values in the five frames before. It is told the truth up to the frame before, which no
/// decoder is: what it reaches is how predictable the target is, and what is left of a decoder's score without it is
/// what the brain added to that. Where there are at least ten trials, each of the first five frames of a trial has
/// weights and an offset of its own, and so have all others: what was before a joint of glued trials says nothing of
/// what comes after it, and would blunt the weights of all frames.
Confounds past_confounds(const Eigen::MatrixXd& truth, const std::vector<std::int64_t>& trial_starts = {});

/// y = weight * x + offset, by ridge on standardised features; the strength (1e-4 ... 1e4 times the number of frames,
/// by tens) is the best on contiguous blocks of the training frames, five for each range, and so is having the trends or not.
struct ConfoundFit {
  Eigen::MatrixXd weight;     ///< outputs x features
  Eigen::VectorXd offset;     ///< outputs
  Eigen::VectorXd mean;       ///< of the outputs in training
  Eigen::VectorXd low, high;  ///< of each trend in training
  double ridge = 0;
  /// The mean where a feature is missing. A trend goes no further than it went in training.
  Eigen::MatrixXd predict(const Eigen::MatrixXd& x) const;
};
/// Sees the frames of `train` only; those with NaN in y are left out. Throws DataError when fewer than 10 are left.
ConfoundFit fit_confounds(const Confounds& confounds, const Eigen::MatrixXd& y, const std::vector<RowRange>& train);

/// (1 + number of null values at least as good as `score`) / (1 + number of null values). NaN in the null is as good.
double permutation_p(double score, const std::vector<double>& null, bool lower_is_better);

/// Different random circular shifts, each at least `min_shift` frames from no shift in both directions. Fewer than
/// `count` when there are not so many. Throws DataError when there is none.
std::vector<Index> circular_shifts(Index frames, Index min_shift, Index count, std::uint64_t seed);
/// Column k of the result is column k - shift of m, around the end.
Eigen::MatrixXd circular_shift(const Eigen::MatrixXd& m, Index shift);

struct ShiftNull {
  std::vector<double> values;  ///< headline of the metric, one a shift
  double p = 1;
  Index min_shift = 0;  ///< frames; 0 of items
  std::string method;   ///< a sentence for the reader, with the count
};
/// What was decoded against the truth shifted in time, on the test frames: min_shift 0 takes the decorrelation time of
/// both (decorrelation_frames), at most a quarter of the frames.
ShiftNull shift_null(const std::string& metric, const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded,
                     Index count, std::uint64_t seed, Index min_shift = 0);
/// What was decoded of items against true ones paired at random. shape: of one item.
ShiftNull pairing_null(const std::string& metric, const Eigen::MatrixXd& truth, const Eigen::MatrixXd& decoded,
                       const std::vector<Index>& shape, Index count, std::uint64_t seed);

}  // namespace percept::evaluation
