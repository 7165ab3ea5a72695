/// Racing: which candidates of a search are given up before every inner fold was tried (Maron, Moore, NIPS 6 (1994) 59;
/// compared fold by fold in pairs as in Moore, Lee, ICML 1994, 190).
///
/// After each fold the candidate with the best score of all frames so far leads. Another one is given up when
///   - its score of all frames so far is worse,
///   - it was worse than the leader on every fold so far, and
///   - a paired one-sided t-test of the differences fold by fold gives p < level.
/// On few folds the test is blunt (on two at level .01 the differences must be within 6 % of each other), so that only
/// what loses clearly and steadily goes. Undefined scores give nobody up. Nothing depends on the order of the
/// candidates or on when they were scored.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace percept::evaluation {

/// Probability that Student's t with so many degrees of freedom (>= 1) exceeds t.
double student_tail(double t, int degrees);
/// p of the paired one-sided t-test that the differences are above zero on average; 1 for fewer than two.
double paired_p(std::span<const double> differences);

/// How a candidate has done so far.
struct Standing {
  std::vector<double> folds;  ///< its score on each fold; NaN: undefined
  double pooled = 0;          ///< score of the frames of all these folds together
};
struct GivenUp {
  std::size_t candidate;  ///< position in the list
  std::size_t leader;
  double p;
};
/// Of candidates that were all scored on the same folds.
std::vector<GivenUp> give_up(const std::vector<Standing>& candidates, bool lower_is_better, double level);

}  // namespace percept::evaluation
