/// Fitting a pipeline's decoder on what a live session has collected.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/pipeline.h"
#include "realtime/calibrator.h"

namespace percept::cli {

/// How the stages below `from` are fitted while they run: as percept fit does, on a recording with the streams `from` and
/// `target`.
struct CalibrationPlan {
  std::string from;    ///< input or node whose frames are collected
  std::string target;  ///< stream that the stages are fitted to
  double lag_s = 0;    ///< of it
  Calibrator::Fit fit;
};

/// nodes: of the session, with their inputs named. Stages whose model the pipeline names (`model = "..."`) keep it.
/// Throws ConfigError naming `where` when a stage that is fitted has another target than the others, or something
/// besides `from` above it that is fitted or comes from outside.
CalibrationPlan plan_calibration(const Pipeline& pipeline, const std::vector<NodeSpec>& nodes, const std::string& from,
                                 const std::string& where, std::function<bool()> cancelled);

}  // namespace percept::cli
