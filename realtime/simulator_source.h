/// The simulated population as a device (data/simulator.h), for an open or a closed loop.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <vector>

#include "data/simulator.h"
#include "realtime/source.h"

namespace percept {

struct SimulatorOptions {
  double speed = 1;  ///< 2: twice as fast; 0: as fast as it is taken
};

/// Counts of ReachSimulator bin by bin. A bin is given when it is over; frame k is the same at any speed and in any loop
/// that intends the same. Ends after duration_s.
class SimulatorSource final : public Source {
 public:
  using Params = data::ReachSimulator::Params;
  /// The velocity that the simulated user intends in a bin [m/s]: in a closed loop, the user who sees the cursor.
  /// t_s: the bin's time. Called by poll(), on its thread, right before the bin is given: at speed 0 in lockstep with
  /// what is decoded from the bins before.
  using Intent = std::function<std::array<double, 2>(std::int64_t frame, double t_s)>;

  /// Throws ConfigError as ReachSimulator does.
  explicit SimulatorSource(const Params& params, const SimulatorOptions& options = {},
                           const std::string& where = "simulator");
  /// Without one the simulated hand reaches as it does in a recording. Before the first poll().
  void drive(Intent intent) { intent_ = std::move(intent); }
  double speed() const { return options_.speed; }
  const data::ReachSimulator& simulator() const { return simulator_; }

  const SourceInfo& info() const override { return info_; }
  const StreamFormat& format() const override { return format_; }
  void start() override { start_ns_ = steady_ns(); }
  Got poll(Packet& packet, std::int64_t timeout_ns) noexcept override;
  void stop() noexcept override { stopped_ = true; }
  bool real_time() const override { return true; }
  SourceCounts counts() const override;

 private:
  data::ReachSimulator simulator_;
  SimulatorOptions options_;
  Intent intent_;
  SourceInfo info_;
  StreamFormat format_;
  std::vector<Event> events_;
  std::size_t next_event_ = 0;
  std::vector<double> counts_;
  std::int64_t at_ = 0, start_ns_ = 0;
  std::atomic<bool> stopped_{false};
  std::atomic<std::int64_t> packets_{0};
};

}  // namespace percept
