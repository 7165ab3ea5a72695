/// A loop on a device that the test scripts, with an outlet that keeps every state.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "realtime/live_loop.h"
#include "tests/realtime/live_graph.h"

namespace percept::live_test {

/// A device of five rows at 100 Hz whose packets are written by the test: one frame each, or silence, as long as
/// `script` says. Frame k holds the recording's frame k.
class Scripted final : public Source {
 public:
  struct Act {
    bool packet = true;  ///< else nothing comes for wait_ms
    std::int64_t wait_ms = 0;
    std::int64_t counter = -1;  ///< -1: the next one
    std::function<void(Eigen::VectorXd&)> change = {};
    std::function<void()> before = {};
    std::function<double(std::int64_t)> device_s = {};  ///< the device's stamp, from this machine's time
    bool clock_from_stamp = false;                      ///< all that is known of its clock is when the packet came
  };
  Scripted(std::vector<Act> acts, bool real_time = true) : acts_(std::move(acts)), real_time_(real_time) {
    format_ = recording().streams[0].format;
    format_.max_frames = 1;
    x_ = recording().streams[0].matrix();
  }
  const SourceInfo& info() const override { return info_; }
  const StreamFormat& format() const override { return format_; }
  Got poll(Packet& packet, std::int64_t timeout_ns) noexcept override {
    if (stopped_ || at_ == acts_.size()) return Got::ended;
    Act& act = acts_[at_];
    if (act.before) std::exchange(act.before, nullptr)();
    if (act.wait_ms > 0) {
      const std::int64_t slice = std::min<std::int64_t>(act.wait_ms, timeout_ns / 1'000'000);
      std::this_thread::sleep_for(std::chrono::milliseconds(std::max<std::int64_t>(slice, 1)));
      act.wait_ms -= std::max<std::int64_t>(slice, 1);
      return Got::nothing;
    }
    ++at_;
    if (!act.packet) return Got::nothing;
    if (act.counter >= 0) next_ = act.counter;
    frame_ = x_.col(next_);
    if (act.change) act.change(frame_);
    packet = {};
    packet.x = ConstFrames(frame_.data(), Scalar::f64, 5, 1, 5);
    packet.counter = next_++;
    if (act.device_s) {
      packet.device_s = act.device_s(steady_ns());
      packet.clock = {.device_s = packet.device_s - 60, .local_ns = steady_ns(), .error_s = 1e-4};
      if (act.clock_from_stamp) packet.clock = {.device_s = packet.device_s, .local_ns = steady_ns(), .error_s = -1};
    }
    return Got::packet;
  }
  void stop() noexcept override { stopped_ = true; }
  bool real_time() const override { return real_time_; }
  SourceCounts counts() const override { return {.packets = next_}; }

 private:
  SourceInfo info_{.name = "spikes", .kind = "test", .device = "a test", .clock = "none"};
  StreamFormat format_;
  Eigen::MatrixXd x_;
  Eigen::VectorXd frame_;
  std::vector<Act> acts_;
  std::size_t at_ = 0;
  std::atomic<std::int64_t> next_{0};
  bool real_time_;
  std::atomic<bool> stopped_{false};
};

/// Keeps every state.
class Kept final : public Outlet {
 public:
  struct State {
    std::int64_t frame = 0;
    std::vector<double> value;
    Hold hold{};
    std::int64_t received_ns = 0;
    Index clicks = 0;
  };
  explicit Kept(std::vector<State>& to) : to_(to) {}
  std::string device() const override { return "the test"; }
  bool send(const SentState& s) noexcept override {
    to_.push_back({s.frame, std::vector<double>(s.value, s.value + s.rows), s.hold, s.received_ns, s.clicks});
    sent_.add();
    return true;
  }

 private:
  std::vector<State>& to_;
};

inline std::vector<NodeSpec> decoder() {
  return {node("scaled", "zscore", {"spikes"}), node("decoded", "kalman", {"scaled"})};
}

struct LoopBench {
  explicit LoopBench(std::vector<std::unique_ptr<Source>> sources, LiveOptions options = {.precision = Scalar::f64},
                     std::vector<NodeSpec> specs = decoder())
      : runner(registry(), inputs_of(sources), std::move(specs), options) {
    setup.sources = std::move(sources);
    setup.runner = &runner;
    setup.node = "decoded";
    setup.real_time.enable = false;  // the test's thread goes on after it
    setup.outlets.push_back(std::make_unique<Kept>(states));
  }
  static std::vector<InputSpec> inputs_of(const std::vector<std::unique_ptr<Source>>& sources) {
    std::vector<InputSpec> all;
    for (auto& s : sources) all.push_back({s->info().name, s->format()});
    return all;
  }
  LiveLoop& make() {
    loop = std::make_unique<LiveLoop>(std::move(setup));
    return *loop;
  }
  LiveRunner runner;
  LiveLoop::Setup setup;
  std::vector<Kept::State> states;
  std::unique_ptr<LiveLoop> loop;
};
inline std::vector<std::unique_ptr<Source>> one(std::vector<Scripted::Act> acts, bool real_time = true) {
  std::vector<std::unique_ptr<Source>> all;
  all.push_back(std::make_unique<Scripted>(std::move(acts), real_time));
  return all;
}

}  // namespace percept::live_test
