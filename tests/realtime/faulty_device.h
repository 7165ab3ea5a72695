/// A device behind a bad network, and whole sessions of it: what arrived must be in the recording, whatever happened.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "io/session.h"
#include "numerics/random.h"
#include "tests/realtime/live_bench.h"
#include "tests/support/data.h"

namespace percept::live_test {

/// One packet of one frame as it arrives.
struct Arrival {
  std::int64_t counter = 0;
  double at_s = 0;  ///< since the device was switched on, on this machine's clock
  double device_s = std::numeric_limits<double>::quiet_NaN();
  std::int64_t frame = 0;  ///< of the recording: what it holds
  std::function<void(Eigen::VectorXd&)> change = {};
};

/// What a network does to packets.
struct Network {
  double lost = 0, twice = 0, disorder = 0;            ///< shares of the packets
  std::vector<std::pair<double, double>> bursts = {};  ///< from, to [s]: nothing of these arrives
  int displaced = 3;                                   ///< by how many packets one is late or comes again, at most
};

/// Frames 0 ... n - 1 of a device at 100 Hz through a network. The first and the last arrive.
inline std::vector<Arrival> through(const Network& network, std::int64_t n, std::uint64_t seed) {
  const KeyedRandom random(seed, "network");
  struct Sent {
    double order;
    Arrival a;
  };
  std::vector<Sent> wire;
  for (std::int64_t k = 0; k < n; ++k) {
    const bool end = k == 0 || k == n - 1;
    const double t = 0.01 * static_cast<double>(k + 1);
    const auto in_burst = [t](auto& b) { return t >= b.first && t < b.second; };
    if (!end &&
        (random.uniform(k, 1) < network.lost || std::any_of(network.bursts.begin(), network.bursts.end(), in_burst)))
      continue;
    const auto at = [&](double delay) {
      const double order = static_cast<double>(k) + delay;
      wire.push_back({order, {.counter = k, .at_s = 0.01 * (order + 1), .frame = k}});
    };
    // half a packet more, so that none comes at the same time as another
    const auto delay = [&](std::uint64_t draw) {
      return 0.5 + static_cast<double>(random.below(static_cast<std::int64_t>(network.displaced), k, draw));
    };
    at(!end && random.uniform(k, 2) < network.disorder ? delay(3) : 0);
    if (!end && random.uniform(k, 4) < network.twice) at(delay(5) + 0.25);
  }
  std::stable_sort(wire.begin(), wire.end(), [](auto& a, auto& b) { return a.order < b.order; });
  std::vector<Arrival> arrivals;
  for (auto& s : wire) arrivals.push_back(std::move(s.a));
  return arrivals;
}

/// Hands over what arrives as fast as it is taken, with the stamps of when it arrived: minutes pass in a moment, and end
/// now.
class FaultyDevice final : public Source {
 public:
  explicit FaultyDevice(std::vector<Arrival> arrivals, bool real_time = true)
      : arrivals_(std::move(arrivals)), real_time_(real_time) {
    std::int64_t frames = 0;
    for (auto& a : arrivals_) frames = std::max(frames, a.frame + 1);
    const Recording r = recording(frames);
    format_ = r.streams[0].format;
    format_.max_frames = 1;
    x_ = r.streams[0].matrix();
    start_ns_ = steady_ns() - static_cast<std::int64_t>(arrivals_.back().at_s * 1e9);
  }
  const std::vector<Arrival>& arrivals() const { return arrivals_; }
  std::int64_t received_ns(const Arrival& a) const { return start_ns_ + static_cast<std::int64_t>(a.at_s * 1e9); }
  Eigen::VectorXd sample(const Arrival& a) const {
    Eigen::VectorXd x = x_.col(a.frame);
    if (a.change) a.change(x);
    return x;
  }
  const SourceInfo& info() const override { return info_; }
  const StreamFormat& format() const override { return format_; }
  Got poll(Packet& packet, std::int64_t) noexcept override {
    if (stopped_ || at_ == arrivals_.size()) return Got::ended;
    const Arrival& a = arrivals_[at_++];
    frame_ = sample(a);
    packet = {};
    packet.x = ConstFrames(frame_.data(), Scalar::f64, frame_.size(), 1, frame_.size());
    packet.counter = a.counter;
    packet.received_ns = received_ns(a);
    packet.device_s = a.device_s;
    if (!std::isnan(a.device_s)) packet.clock = {.device_s = a.device_s, .local_ns = packet.received_ns, .error_s = -1};
    return Got::packet;
  }
  void stop() noexcept override { stopped_ = true; }
  bool real_time() const override { return real_time_; }
  SourceCounts counts() const override { return {.packets = static_cast<std::int64_t>(at_.load())}; }

 private:
  SourceInfo info_{.name = "spikes", .kind = "test", .device = "a test", .clock = "none"};
  StreamFormat format_;
  Eigen::MatrixXd x_;
  Eigen::VectorXd frame_;
  std::vector<Arrival> arrivals_;
  std::int64_t start_ns_ = 0;
  std::atomic<std::size_t> at_{0};
  bool real_time_;
  std::atomic<bool> stopped_{false};
};

/// A recorded session of such a device through the loop.
class FaultySession {
 public:
  using Change = std::function<void(LiveLoop::Setup&)>;
  FaultySession(std::vector<Arrival> arrivals, Index hold_packets, const Change& change = {}, bool real_time = true)
      : file_(testing::temporary_folder() / "live.session") {
    auto device = std::make_unique<FaultyDevice>(std::move(arrivals), real_time);
    device_ = device.get();
    std::vector<std::unique_ptr<Source>> sources;
    sources.push_back(std::move(device));
    bench_ = std::make_unique<LoopBench>(std::move(sources),
                                         LiveOptions{.precision = Scalar::f64, .hold_packets = hold_packets});
    Recorder recorder(file_, Value::object({{"name", "faults"}}), {{"spikes", bench_->runner.format("spikes")}},
                      {{"decoded", bench_->runner.format("decoded")}}, 1);
    bench_->setup.recorder = &recorder;
    bench_->setup.loop.wait_s = 60;  // time passes in a moment
    bench_->setup.guard.max_age_s = 0;
    if (change) change(bench_->setup);
    LiveLoop& loop = bench_->make();
    loop.run();
    report = loop.report();
    EXPECT_EQ(recorder.close(report), "");
    EXPECT_EQ(recorder.counts().lost_records, 0);
    counts = report.at("inputs").at("spikes");
    recorded = io::open_session(file_);
  }
  std::int64_t count(const char* key) const { return counts.at(key).as_integer(); }
  const std::vector<Kept::State>& states() const { return bench_->states; }
  const FaultyDevice& device() const { return *device_; }
  const std::filesystem::path& file() const { return file_; }

  /// Every packet that arrived is there as it came, each frame of the recording is one of them or missing, the counts
  /// say which, and the session runs again bit for bit.
  void expect_nothing_lost() const {
    const auto& arrivals = device_->arrivals();
    std::size_t at = 0;
    io::scan_session(file_, [&](const io::SessionRecordView& r) {
      if (r.kind != io::SessionKind::packet) return;
      ASSERT_LT(at, arrivals.size());
      io::SessionPacket p;
      std::memcpy(&p, r.payload.data(), sizeof p);
      const Eigen::VectorXd x = device_->sample(arrivals[at]);
      ASSERT_EQ(p.number, static_cast<std::int64_t>(at));
      EXPECT_EQ(p.counter, arrivals[at].counter);
      EXPECT_EQ(p.received_ns, device_->received_ns(arrivals[at]));
      EXPECT_EQ(std::bit_cast<std::uint64_t>(p.device_s), std::bit_cast<std::uint64_t>(arrivals[at].device_s));
      ASSERT_EQ(p.rows, x.size());
      EXPECT_EQ(std::memcmp(r.payload.data() + sizeof p, x.data(), static_cast<std::size_t>(x.size()) * 8), 0) << at;
      ++at;
    });
    EXPECT_EQ(at, arrivals.size());
    EXPECT_EQ(count("packets") + count("duplicate_packets") + count("late_packets") + count("refused_packets"),
              static_cast<std::int64_t>(arrivals.size()));
    EXPECT_EQ(count("received_packets"), static_cast<std::int64_t>(arrivals.size()));

    const Value& live = recorded.meta.at("live");
    EXPECT_TRUE(live.at("complete").as_bool());
    const Eigen::MatrixXd stream = recorded.streams[0].matrix();
    EXPECT_EQ(stream.cols(), count("frames") + count("missing_frames"));
    std::int64_t whole = 0;
    for (Index k = 0; k < stream.cols(); ++k) whole += !stream.col(k).array().isNaN().all();
    EXPECT_EQ(whole, count("frames"));
    EXPECT_EQ(report.at("decoded_frames").as_integer(), stream.cols());

    ASSERT_TRUE(recorded.partition);
    Taken again;
    RunOptions options;
    options.precision = Scalar::f64;
    run_offline(registry(), recorded, decoder(), options, {{"decoded", again.sink()}});
    const Eigen::MatrixXd decoded = recorded.stream("live_decoded", "test").matrix();
    ASSERT_EQ(again.bytes.size(), static_cast<std::size_t>(decoded.size()) * 8);
    EXPECT_EQ(std::memcmp(again.bytes.data(), decoded.data(), again.bytes.size()), 0);
  }

  Value report, counts;
  Recording recorded;

 private:
  std::filesystem::path file_;
  FaultyDevice* device_ = nullptr;
  std::unique_ptr<LoopBench> bench_;
};

}  // namespace percept::live_test
