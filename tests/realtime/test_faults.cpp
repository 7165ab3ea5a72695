/// Faults of devices and networks as whole sessions: through the loop, the decoder and the recorder. Those of the program
/// as a process (full disk, stopped, killed) are in tests/cli/test_live_faults.cpp, a stalled browser in test_live_page.cpp.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "realtime/udp_source.h"
#include "tests/realtime/faulty_device.h"
#include "tests/realtime/network.h"

namespace percept {
namespace {

using namespace live_test;

/// The frames that arrived at all, and how many came again.
struct Account {
  explicit Account(const std::vector<Arrival>& arrivals) {
    std::int64_t furthest = -1;
    for (auto& a : arrivals) {
      if (!came.insert(a.counter).second) ++again;
      else if (a.counter < furthest) ++behind;
      furthest = std::max(furthest, a.counter);
    }
  }
  std::set<std::int64_t> came;
  std::int64_t again = 0, behind = 0;  ///< behind: new, but came after one that is further on
};

TEST(Faults, LossBurstsDuplicatesAndDisorderAreCountedExactly) {
  const std::int64_t n = 1500;
  const std::vector<std::pair<double, double>> half_seconds{{3.0, 3.5}, {9.0, 9.5}};
  const std::vector<Network> networks{{.lost = 0.01},
                                      {.bursts = half_seconds},
                                      {.twice = 0.05},
                                      {.disorder = 0.1},
                                      {.lost = 0.01, .twice = 0.05, .disorder = 0.1, .bursts = half_seconds}};
  for (std::size_t i = 0; i < networks.size(); ++i) {
    SCOPED_TRACE(i);
    const auto arrivals = through(networks[i], n, i);
    const Account account(arrivals);
    const std::int64_t lost = n - static_cast<std::int64_t>(account.came.size());
    ASSERT_EQ(lost > 0, networks[i].lost > 0 || !networks[i].bursts.empty());
    ASSERT_EQ(account.again > 0, networks[i].twice > 0);
    ASSERT_EQ(account.behind > 0, networks[i].disorder > 0);
    // whoever is waited for comes within three packets: nothing is late
    const FaultySession waits(arrivals, 8, {}, i % 2 == 0);
    waits.expect_nothing_lost();
    EXPECT_EQ(waits.count("missing_frames"), lost);
    EXPECT_EQ(waits.count("frames"), n - lost);
    EXPECT_EQ(waits.count("duplicate_packets"), account.again);
    EXPECT_EQ(waits.count("reordered_packets"), account.behind);
    EXPECT_EQ(waits.count("late_packets"), 0);
    // nobody is waited for: who is behind is late, and his frame had been given as missing
    const FaultySession hurries(arrivals, 0);
    hurries.expect_nothing_lost();
    EXPECT_EQ(hurries.count("late_packets"), account.behind);
    EXPECT_EQ(hurries.count("missing_frames"), lost + account.behind);
    EXPECT_EQ(hurries.count("duplicate_packets"), account.again);
    for (Index k = 0; k < 500; ++k) {
      const bool missing = waits.recorded.streams[0].matrix().col(k).array().isNaN().all();
      EXPECT_EQ(missing, !account.came.contains(k)) << k;
    }
  }
}

// a burst without data: predict-only steps, so the uncertainty grows, and shrinks again
TEST(Faults, TheCovarianceGrowsWhileDataAreMissing) {
  const FaultySession session(through({.bursts = {{3.0, 3.5}}}, 600, 1), 0);
  const Stream& decoded = session.recorded.stream("live_decoded", "test");
  const Index rows = decoded.format.parts[0].size();
  const Eigen::VectorXd variance = decoded.matrix().row(rows);
  EXPECT_GT(variance[348], variance[300]);
  EXPECT_GT(variance[300], 1.01 * variance[298]);
  EXPECT_NEAR(variance[450], variance[298], 1e-6 * variance[298]);
}

/// Stamps of a device whose clock is off and runs slow by `drift`; each packet is delayed by 1 ms on average.
void stamp(std::vector<Arrival>& arrivals, double drift, const std::function<double(double)>& step = {}) {
  const KeyedRandom random(3, "delays");
  for (auto& a : arrivals) {
    const double sent_s = 0.01 * static_cast<double>(a.counter + 1);
    a.device_s = 500 + sent_s / (1 + drift) + (step ? step(sent_s) : 0);
    a.at_s = sent_s - 1e-3 * std::log(1 - random.uniform(a.counter));
  }
}
/// By how much the corrected time of each packet differs from when it was sent [s].
std::vector<double> correction_errors(const FaultySession& session, const std::filesystem::path& file) {
  std::vector<double> errors;
  const auto& arrivals = session.device().arrivals();
  const std::int64_t start_ns = session.device().received_ns({.at_s = 0});
  io::scan_session(file, [&](const io::SessionRecordView& r) {
    if (r.kind != io::SessionKind::packet) return;
    io::SessionPacket p;
    std::memcpy(&p, r.payload.data(), sizeof p);
    const double sent_s = 0.01 * static_cast<double>(arrivals[errors.size()].counter + 1);
    errors.push_back(static_cast<double>(p.corrected_ns - start_ns) * 1e-9 - sent_s);
  });
  return errors;
}

// bounds as in test_clock.cpp: the least of 100 delays is late by 10 us; the first seconds know no drift (200 us a second)
TEST(Faults, ADriftingClockIsFollowed) {
  for (double ppm : {-200.0, 200.0}) {
    auto arrivals = through({.lost = 0.01}, 6500, 5);
    stamp(arrivals, ppm * 1e-6);
    const FaultySession session(arrivals, 0);
    session.expect_nothing_lost();
    const Value& clock = session.counts.at("clock");
    EXPECT_NEAR(clock.at("drift").as_number(), ppm * 1e-6, 1e-6);
    EXPECT_EQ(clock.at("jumps").as_integer(), 0);
    const auto errors = correction_errors(session, session.file());
    for (std::size_t k = 0; k < errors.size(); ++k) EXPECT_LT(std::abs(errors[k]), k < 500 ? 2e-3 : 2e-4) << k;
    // the correction can be undone: each line stands in the recording before the packets it was used for
    std::optional<io::SessionClock> line;
    std::int64_t corrected = 0;
    io::scan_session(session.file(), [&](const io::SessionRecordView& r) {
      if (r.kind == io::SessionKind::clock) std::memcpy(&line.emplace(), r.payload.data(), sizeof *line);
      if (r.kind != io::SessionKind::packet) return;
      ASSERT_TRUE(line);
      io::SessionPacket p;
      std::memcpy(&p, r.payload.data(), sizeof p);
      const ClockLine back{line->device_s, line->local_s, line->drift};
      EXPECT_NEAR(back.to_device(static_cast<double>(p.corrected_ns) * 1e-9), p.device_s, 1e-8);
      ++corrected;
    });
    EXPECT_EQ(corrected, static_cast<std::int64_t>(arrivals.size()));
    EXPECT_NEAR(line->drift, ppm * 1e-6, 1e-6);
  }
}

TEST(Faults, AStepOfTheDevicesClockCostsNoData) {
  for (double by : {-1.0, 1.0}) {
    auto arrivals = through({}, 3000, 6);
    stamp(arrivals, 50e-6, [by](double sent_s) { return sent_s > 15 ? by : 0; });
    const FaultySession session(arrivals, 0);
    session.expect_nothing_lost();
    EXPECT_EQ(session.count("frames"), 3000);
    EXPECT_EQ(session.count("missing_frames"), 0);
    EXPECT_EQ(session.counts.at("clock").at("jumps").as_integer(), 1) << by;
    const auto errors = correction_errors(session, session.file());
    for (std::size_t k = 0; k < errors.size(); ++k)
      if (k < 1495 || k > 1650) {
        EXPECT_LT(std::abs(errors[k]), 2e-3) << k;
      }
    EXPECT_EQ(session.report.at("decoded_frames").as_integer(), 3000);
  }
}

// a clock that is set back in real time: its data look a second old, so the output is held until the step is told from a
// delay, and goes on by itself
TEST(Faults, AClockThatIsSetBackHoldsTheOutputForAMoment) {
  std::vector<Scripted::Act> acts(300);
  const std::int64_t start = steady_ns();
  for (std::size_t k = 0; k < acts.size(); ++k) {
    acts[k].wait_ms = 10;
    acts[k].device_s = [start, back = k >= 100](std::int64_t now_ns) {
      return static_cast<double>(now_ns - start) * 1e-9 - (back ? 1 : 0);
    };
    acts[k].clock_from_stamp = true;
  }
  LoopBench bench(one(acts));
  bench.setup.guard.max_age_s = 0.3;
  LiveLoop& loop = bench.make();
  loop.run();
  EXPECT_EQ(loop.report().at("inputs").at("spikes").at("clock").at("jumps").as_integer(), 1);
  EXPECT_EQ(loop.report().at("inputs").at("spikes").at("frames").as_integer(), 300);
  const auto held = [](auto& s) { return s.hold == Hold::old_data; };
  EXPECT_TRUE(std::any_of(bench.states.begin(), bench.states.end(), held));
  EXPECT_EQ(bench.states.back().hold, Hold::none);
}

// silent for two seconds, then it counts from the beginning: followed after 0.1 s, and the time in between is missing
TEST(Faults, ASourceThatDiesAndReturnsIsFollowed) {
  auto arrivals = through({}, 400, 7);
  for (std::int64_t k = 0; k < 400; ++k)
    arrivals.push_back({.counter = k, .at_s = 4 + 2 + 0.01 * static_cast<double>(k + 1), .frame = 400 + k});
  const FaultySession session(arrivals, 0);
  session.expect_nothing_lost();
  EXPECT_EQ(session.count("restarts"), 1);
  // 0.1 s are ten frames, told from stragglers by the eleventh
  EXPECT_EQ(session.count("refused_packets"), 10);
  EXPECT_EQ(session.count("missing_frames"), 200 + 10);
  EXPECT_EQ(session.count("frames"), 400 + 390);
  EXPECT_EQ(session.recorded.streams[0].matrix().rightCols(390), recording(800).streams[0].matrix().rightCols(390));
}

TEST(Faults, MissingAndSaturatedChannelsAreMaskedAndKeptAsTheyCame) {
  auto arrivals = through({.lost = 0.01}, 600, 8);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (auto& a : arrivals)
    if (a.counter >= 100 && a.counter < 200) a.change = [nan](Eigen::VectorXd& x) { x(1) = nan; };
    else if (a.counter >= 300 && a.counter < 400) a.change = [](Eigen::VectorXd& x) { x(3) = 1e7; };
    else if (a.counter == 450) a.change = [nan](Eigen::VectorXd& x) { x.setConstant(nan); };
    else if (a.counter >= 500) a.change = [](Eigen::VectorXd& x) { x(0) = 0.5; };
  const FaultySession session(arrivals, 0, [](LiveLoop::Setup& s) {
    s.health.missing_s = 0.1;
    s.health.amplitude_limit = 1000;
    s.health.flat_s = 0.2;
    s.health.recover_s = 0.05;
  });
  const Value bad = session.counts.at("bad_channels");
  ASSERT_EQ(bad.size(), 1u);
  EXPECT_EQ(bad.as_table()[0].second.as_string(), "flat");
  std::map<std::pair<std::string, int>, int> told;
  for (auto& e : session.recorded.events)
    if (e.label.text() == "mask" || e.label.text() == "unmask") ++told[{e.label.text(), e.row}];
  EXPECT_EQ(told, (std::map<std::pair<std::string, int>, int>{
                      {{"mask", 1}, 1}, {{"unmask", 1}, 1}, {{"mask", 3}, 1}, {{"unmask", 3}, 1}, {{"mask", 0}, 1}}));
  // a bad channel must not take the state along
  for (auto& s : session.states())
    for (double v : s.value) EXPECT_LT(std::abs(v), 1e3);
  const Eigen::MatrixXd stream = session.recorded.streams[0].matrix();
  const auto came = [&](std::int64_t counter) {
    return std::find_if(arrivals.begin(), arrivals.end(), [&](auto& a) { return a.counter == counter; });
  };
  for (std::int64_t counter : {150, 350, 550})
    if (const auto a = came(counter); a != arrivals.end()) {
      const Eigen::VectorXd x = session.device().sample(*a);
      EXPECT_EQ(std::memcmp(x.data(), stream.col(counter).data(), 40), 0) << counter;
    }
}

// another rate, then other channels, from the same address: refused and counted, said in a sentence, and the output is held
// meanwhile; what fits is taken again at once
TEST(Faults, ADeviceThatChangesItsFormatIsRefusedUntilItFitsAgain) {
  UdpSource::Params params;
  params.rows = 5;
  params.rate_hz = 100;
  params.name = "spikes";
  auto source = std::make_unique<UdpSource>(params, "test");
  testing::UdpSender device(source->port());
  std::vector<std::unique_ptr<Source>> sources;
  sources.push_back(std::move(source));
  LoopBench bench(std::move(sources));
  bench.setup.guard.max_age_s = 0.1;
  LiveLoop& loop = bench.make();
  std::thread thread([&] { loop.run(); });
  const auto wait_for = [&](const std::function<bool(const Value&)>& holds) {
    for (int k = 0; k < 1000; ++k) {
      if (holds(loop.report())) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  };
  const auto foreign = [](std::int64_t n) {
    return [n](const Value& r) { return r.at("inputs").at("spikes").at("foreign").as_integer() == n; };
  };
  std::int64_t counter = 0;
  for (int k = 0; k < 30; ++k) device.send_frames(counter++, 5, 1, 100);
  EXPECT_TRUE(wait_for([](const Value& r) { return r.at("decoded_frames").as_integer() == 30; }));
  for (int k = 0; k < 20; ++k) device.send_frames(counter++, 5, 1, 200);
  EXPECT_TRUE(wait_for(foreign(20)));
  EXPECT_THAT(loop.report().at("inputs").at("spikes").at("trouble").as_string(),
              ::testing::HasSubstr("now sends 5 rows at 200 Hz, announced were 5 at 100 Hz"));
  for (int k = 0; k < 20; ++k) device.send_frames(counter++, 7, 1, 100);
  EXPECT_TRUE(wait_for(foreign(40)));
  EXPECT_TRUE(wait_for([](const Value& r) { return !r.at("hold").is_null(); }));
  EXPECT_EQ(loop.report().at("hold").as_string(), text_of(Hold::old_data));
  for (int k = 0; k < 30; ++k) device.send_frames(counter++, 5, 1, 100);
  EXPECT_TRUE(wait_for([](const Value& r) { return r.at("decoded_frames").as_integer() == 100; }));
  loop.stop();
  thread.join();
  const Value input = loop.report().at("inputs").at("spikes");
  EXPECT_EQ(input.at("frames").as_integer(), 60);
  EXPECT_EQ(input.at("missing_frames").as_integer(), 40);
  EXPECT_FALSE(input.contains("trouble"));
}

}  // namespace
}  // namespace percept
