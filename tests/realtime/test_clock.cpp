#include "realtime/clock.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "numerics/random.h"
#include "tests/support/alloc.h"

namespace percept {
namespace {

/// A device that is off by offset_s and runs slow by drift, whose packets arrive after an exponential delay.
struct DriftingDevice {
  double offset_s = 1234.5, drift = 0, delay_s = 1e-3;
  KeyedRandom random{7, "clock test"};
  double local(double device) const { return offset_s + device * (1 + drift); }
  double delay(std::int64_t k) const { return -delay_s * std::log(1 - random.uniform(k)); }
  ClockSample arrival(std::int64_t k, double device, double more = 0) const {
    return {.device_s = device,
            .local_ns = static_cast<std::int64_t>(std::llround((local(device) + delay(k) + more) * 1e9)),
            .error_s = -1};
  }
};

/// Packets of 20 ms.
void send_packets(ClockModel& model, const DriftingDevice& device, std::int64_t from, std::int64_t to,
                  double more = 0) {
  for (std::int64_t k = from; k < to; ++k) model.observe(device.arrival(k, 0.02 * static_cast<double>(k), more));
}

TEST(ClockModel, KnowsNothingAtFirst) {
  ClockModel model;
  EXPECT_FALSE(model.known());
  model.observe({.device_s = 1, .local_ns = 0, .error_s = -1});
  model.observe({.device_s = NAN, .local_ns = 5, .error_s = -1});
  EXPECT_FALSE(model.known());
  EXPECT_FALSE(model.holding(1'000'000'000'000));
}

// 60 windows of 50 delays each: the least of 50 exponential delays of 1 ms is 20 us on average and spreads as much, so
// the line is late by about 20 us and the drift is known to 20 us / (17 s sqrt(60)) = 0.15 ppm; bounds are six times that
TEST(ClockModel, FindsOffsetAndDriftThroughDelays) {
  for (double ppm : {-200.0, 0.0, 200.0}) {
    DriftingDevice device{.drift = ppm * 1e-6};
    ClockModel model;
    send_packets(model, device, 0, 50 * 60 + 1);
    const double at = 60;
    EXPECT_NEAR(model.line().drift, ppm * 1e-6, 1e-6) << ppm;
    EXPECT_NEAR(model.line().to_local(at), device.local(at), 1.2e-4) << ppm;
    EXPECT_GT(model.residual_s(), 1e-6);
    EXPECT_LT(model.residual_s(), 1e-4);
    EXPECT_EQ(model.jumps(), 0);
  }
}

TEST(ClockModel, UndoesItsCorrection) {
  DriftingDevice device{.drift = 150e-6};
  ClockModel model;
  send_packets(model, device, 0, 2000);
  for (double t : {0.0, 17.3, 40.0, 3600.0}) EXPECT_NEAR(model.line().to_device(model.line().to_local(t)), t, 1e-9);
}

// drift is known to 1 ppm at worst (above), so ten minutes on the line is off by 0.6 ms at most, and says how much
TEST(ClockModel, HoldsOverWithoutSamples) {
  DriftingDevice device{.drift = 200e-6};
  ClockModel model;
  send_packets(model, device, 0, 50 * 60 + 1);
  const auto local_ns = [&](double t) { return static_cast<std::int64_t>(device.local(t) * 1e9); };
  EXPECT_FALSE(model.holding(local_ns(60.5)));
  EXPECT_TRUE(model.holding(local_ns(64)));
  EXPECT_NEAR(model.line().to_local(660), device.local(660), 6e-4);
  EXPECT_GT(model.uncertainty_s(660), 5 * model.uncertainty_s(60));
  EXPECT_LT(std::abs(model.line().to_local(660) - device.local(660)), 6 * model.uncertainty_s(660));
}

// after a step both ways the corrected time is right again within a window, and drift is not lost
TEST(ClockModel, FollowsStepsOfTheDevice) {
  for (double step : {-1.0, 1.0}) {
    DriftingDevice device{.drift = 100e-6};
    ClockModel model;
    send_packets(model, device, 0, 1500);
    device.offset_s += step;
    std::int64_t k = 1500;
    // a stamp that is early is believed at once; a late one may be a delay for a window of a second
    const std::int64_t patience = step < 0 ? 2 : 52;
    for (; k < 1500 + patience; ++k) model.observe(device.arrival(k, 0.02 * static_cast<double>(k)));
    EXPECT_EQ(model.jumps(), 1) << step;
    EXPECT_NEAR(model.last_jump_s(), step, 5e-3);
    send_packets(model, device, k, 1700);
    EXPECT_EQ(model.jumps(), 1);
    const double now = 0.02 * 1700;
    EXPECT_NEAR(model.line().to_local(now), device.local(now), 1e-3) << step;
    EXPECT_NEAR(model.line().drift, 100e-6, 20e-6) << step;
  }
}

// packets that waited two seconds and come at once, and a network that is slow for less than a window, are no step
TEST(ClockModel, ADelayIsNotAStep) {
  DriftingDevice device;
  ClockModel model;
  send_packets(model, device, 0, 500);
  for (std::int64_t k = 500; k < 600; ++k) {
    const double t = 0.02 * static_cast<double>(k);
    ClockSample late = device.arrival(k, t);
    late.local_ns = static_cast<std::int64_t>((device.local(12) + 1e-6 * static_cast<double>(k)) * 1e9);
    model.observe(late);
  }
  send_packets(model, device, 600, 630, 0.3);
  send_packets(model, device, 630, 700);
  EXPECT_EQ(model.jumps(), 0);
  EXPECT_NEAR(model.line().to_local(14), device.local(14), 5e-4);
}

// what measured both ways is believed by its stated error: here one good sample among poor ones in each window
TEST(ClockModel, TakesMeasurementsWithTheirErrors) {
  DriftingDevice device{.drift = 50e-6};
  ClockModel model;
  for (std::int64_t k = 0; k < 300; ++k) {
    const double t = 0.2 * static_cast<double>(k), error = k % 5 == 2 ? 1e-5 : 5e-3;
    const double local = device.local(t) + error * device.random.normal(k, 3);
    model.observe({.device_s = t, .local_ns = static_cast<std::int64_t>(local * 1e9), .error_s = error});
  }
  EXPECT_NEAR(model.line().drift, 50e-6, 1e-6);
  EXPECT_NEAR(model.line().to_local(60), device.local(60), 3e-5);
}

TEST(ClockModel, AllocatesNothing) {
  if (!testing::AllocationCounter::available()) GTEST_SKIP() << "allocations cannot be counted under a sanitizer";
  DriftingDevice device{.drift = 50e-6};
  ClockModel model;
  testing::AllocationCounter counter;
  send_packets(model, device, 0, 5000);
  EXPECT_EQ(counter.count(), 0);
  EXPECT_GT(model.version(), 50);
}

}  // namespace
}  // namespace percept
