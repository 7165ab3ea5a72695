/// What the trials of a task amount to.
#pragma once

#include <cstdint>
#include <span>

#include "core/value.h"
#include "realtime/task.h"

namespace percept {

/// A figure with the trials behind it and its 95 % interval over resampled trials (percentiles); NaN where undefined.
struct TaskFigure {
  double value = 0, low = 0, high = 0;
  std::int64_t n = 0;
};

/// Over the trials that count, were not aborted and had no help. Time: from the target being shown until it was entered
/// for the last time (dwell) or selected (click).
struct TaskFigures {
  TaskFigure success;          ///< share of the trials that ended with the target selected
  TaskFigure time_to_target;   ///< [s], of those
  TaskFigure path_efficiency;  ///< straight way from start to entry by the way taken, of those
  /// [bit/s] centre_out, fitts: sum of log2(D / W + 1) of the targets reached, by the time of all trials, holding
  /// included; D from where the cursor was, W the diameter (MacKenzie, Hum.-Comput. Interact. 7 (1992) 91).
  /// grid: log2(keys - 1) max(right - wrong, 0) / time, pauses included (Nuyujukian et al. 2015).
  TaskFigure bit_rate;
  /// [bit/s] fitts: mean over the conditions of log2(De / We + 1) / mean time, with the mean way De along the line from
  /// start to target, and We = 4.133 standard deviations of where the cursor was on that line when it selected
  /// (ISO 9241-9). Conditions with fewer than three trials are left out.
  TaskFigure throughput;
};
/// resamples: 0 leaves intervals NaN.
TaskFigures task_figures(std::span<const Trial> trials, const Task& task, std::int64_t resamples);

/// {use, trials, acquired, late, wrong, aborted, assisted, figures {name: {value, low, high, n}}}; with `each`, also
/// {each: {shown_s: [...], ...}}, one number a trial.
Value task_report(const Task& task, std::int64_t resamples, bool each);

}  // namespace percept
