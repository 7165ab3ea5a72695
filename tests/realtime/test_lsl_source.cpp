#include "realtime/lsl_source.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <optional>

#include "core/error.h"
#include "realtime/pumped_source.h"
#include "tests/realtime/fake_lsl.h"
#include "tests/realtime/network.h"
#include "tests/support/data.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using ::testing::AllOf;
using testing::drain;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kSecond;
using testing::message_of;

std::shared_ptr<const LslLibrary> fake_library() {
  static const auto lsl = load_lsl({PERCEPT_FAKE_LSL});
  return lsl;
}
FakeLsl& fake() {
  fake_library();
  void* library = ::dlopen(PERCEPT_FAKE_LSL, RTLD_NOW | RTLD_NOLOAD);
  static auto* const state = reinterpret_cast<FakeLsl* (*)()>(::dlsym(library, "fake_lsl"))();
  return *state;
}

/// An outlet "eeg" with three channels at 100 Hz, and what it sends.
class LslSourceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::lock_guard lock(fake().mutex);
    fake().outlets.clear();
    fake().outlets.push_back({.name = "eeg",
                              .type = "EEG",
                              .source_id = "a",
                              .channels = 3,
                              .format = LslLibrary::kFloat32,
                              .generation = 0,
                              .rate = 100,
                              .labels = {"C3", "Cz", "C4", ""},
                              .samples = {}});
    fake().correction_s = 0;
    fake().correction_error = fake().open_error = 0;
    fake().refuse_inlets = false;
  }
  LslSource::Params params() const {
    LslSource::Params p;
    p.stream = "eeg";
    p.wait_s = 0.2;
    return p;
  }
  /// Sample k at start + k / 100.
  void send(int from, int to, double shift_s = 0) {
    std::lock_guard lock(fake().mutex);
    for (int k = from; k < to; ++k)
      fake().outlets[0].samples.push_back(
          {start_ + 0.01 * k + shift_s, {static_cast<double>(k), 0.5 * k, -1.0 * k}, ""});
  }
  /// (counter, frames) of what comes; values are checked.
  std::vector<std::pair<std::int64_t, Index>> take(LslSource& source, std::vector<Event>* events = nullptr) {
    std::vector<std::pair<std::int64_t, Index>> all;
    drain(
        source,
        [&](const Packet& p) {
          all.emplace_back(p.counter, p.x.frames);
          if (events) events->insert(events->end(), p.events.begin(), p.events.end());
          const Eigen::MatrixXd x = to_matrix(p.x);
          for (Index k = 0; k < p.x.frames; ++k) EXPECT_EQ(x(2, k), -2 * x(1, k));
          EXPECT_NEAR(p.device_s - start_, 0.01 * x(0, p.x.frames - 1), 1.5);
        },
        kSecond / 50);
    return all;
  }
  double start_ = 5000;
};

TEST_F(LslSourceTest, AnnouncesTheOutletAndCountsItsSamples) {
  LslSource source(params(), "test", fake_library());
  EXPECT_EQ(source.format().describe(), "{3} x f32 at 100 Hz");
  EXPECT_EQ(source.format().parts[0].rows[1].name, "Cz");
  EXPECT_EQ(source.info().name, "eeg");
  EXPECT_THAT(source.info().device, AllOf(HasSubstr("eeg (EEG, 3 x 100 Hz"), HasSubstr("on fake")));
  EXPECT_FALSE(source.real_time());
  send(0, 100);
  send(100, 101);
  const auto got = take(source);
  std::int64_t next = 0;
  for (auto& [counter, frames] : got) {
    EXPECT_EQ(counter, next);
    EXPECT_LE(frames, 64);
    next += frames;
  }
  EXPECT_EQ(next, 101);
  EXPECT_LE(got.size(), 3u) << "what has come is taken at once";
}

TEST_F(LslSourceTest, AJumpOfTheStampsIsAGapOfAsManyFrames) {
  LslSource source(params(), "test", fake_library());
  send(0, 10);
  send(40, 50);  // 30 are lost, in the middle of what is pulled at once
  EXPECT_THAT(take(source), ::testing::ElementsAre(std::pair(0, 10), std::pair(40, 10)));
  send(50, 60, 0.04);  // jitter is no gap
  send(150, 160);
  EXPECT_THAT(take(source), ::testing::ElementsAre(std::pair(50, 10), std::pair(150, 10)));
}

TEST_F(LslSourceTest, MarkersBecomeEventsInTheDatasTime) {
  {
    std::lock_guard lock(fake().mutex);
    fake().outlets.push_back({.name = "marks",
                              .type = "Markers",
                              .source_id = "m",
                              .channels = 1,
                              .format = LslLibrary::kString,
                              .generation = 0,
                              .rate = 0,
                              .labels = {},
                              .samples = {{start_ + 0.033, {}, "go"}, {start_ + 0.061, {}, "stop"}}});
  }
  auto p = params();
  p.markers = "marks";
  LslSource source(p, "test", fake_library());
  send(0, 10);
  std::vector<Event> events;
  take(source, &events);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_NEAR(events[0].onset_s, 0.033, 1e-9);
  EXPECT_EQ(events[0].label.text(), "go");
  EXPECT_NEAR(events[1].onset_s, 0.061, 1e-9);
  p.markers = "eeg";
  EXPECT_THAT(message_of<ConfigError>([&] { LslSource(p, "live: lsl", fake_library()); }),
              AllOf(HasSubstr("live: lsl.markers"), HasSubstr("an outlet of one text")));
}

TEST_F(LslSourceTest, MeasuresTheOutletsClockOnAThreadOfItsOwn) {
  fake().correction_s = 77.5;
  LslSource source(params(), "test", fake_library());
  source.start();
  for (int i = 0; i < 500; ++i) {
    std::lock_guard lock(fake().mutex);
    if (fake().measured > 0) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  send(0, 1);
  Packet p;
  ASSERT_EQ(source.poll(p, kSecond), Source::Got::packet);
  ASSERT_NE(p.clock.local_ns, 0);
  EXPECT_EQ(p.clock.error_s, 1e-4);
  // the remote time of the measurement and the same moment here: apart by the correction, up to the two clocks' origin
  const double here = static_cast<double>(p.clock.local_ns) * 1e-9;
  EXPECT_NEAR(here - p.clock.device_s, 77.5 + fake_library()->steady_offset_s, 1e-3);
  EXPECT_NEAR(here, static_cast<double>(steady_ns()) * 1e-9, 5);
}

TEST_F(LslSourceTest, AnOutletThatGoesAwayIsFoundAgain) {
  LslSource source(params(), "test", fake_library());
  send(0, 10);
  EXPECT_EQ(take(source).size(), 1u);
  FakeLsl::Outlet gone;
  {
    std::lock_guard lock(fake().mutex);
    gone = fake().outlets[0];
    fake().outlets.clear();
  }
  Packet p;
  EXPECT_EQ(source.poll(p, 0), Source::Got::nothing);
  EXPECT_THAT(source.trouble(), HasSubstr("went away"));
  {
    std::lock_guard lock(fake().mutex);
    gone.generation = 1;
    gone.channels = 4;
    fake().outlets = {gone};
  }
  EXPECT_EQ(source.poll(p, 0), Source::Got::nothing);
  EXPECT_THAT(source.trouble(),
              AllOf(HasSubstr("came back as"), HasSubstr("4 x 100 Hz"), HasSubstr("announced were 3")));
  EXPECT_EQ(source.counts().foreign, 1);
  {
    std::lock_guard lock(fake().mutex);
    fake().outlets[0].channels = 3;
  }
  send(25, 30);
  std::vector<std::pair<std::int64_t, Index>> got;
  for (int i = 0; i < 20 && got.empty(); ++i) got = take(source);
  EXPECT_THAT(got, ::testing::ElementsAre(std::pair(25, 5)));
  EXPECT_EQ(source.counts().reconnects, 1);
  EXPECT_EQ(source.trouble(), "");
}

TEST_F(LslSourceTest, RunsBehindAPumpAndLeavesNoInlet) {
  const int before = fake().open_inlets;
  {
    PumpedSource source(std::make_unique<LslSource>(params(), "test", fake_library()), 8);
    source.start();
    send(0, 500);
    std::int64_t next = 0;
    Packet p;
    while (next < 500 && source.poll(p, 5 * kSecond) == Source::Got::packet) {
      EXPECT_EQ(p.counter, next);
      next += p.x.frames;
    }
    EXPECT_EQ(next, 500);
  }
  EXPECT_EQ(fake().open_inlets, before);
}

TEST_F(LslSourceTest, SaysWhatIsWrong) {
  const auto refusal = [&](LslSource::Params p) {
    return message_of<ConfigError>([&] { LslSource(p, "live: lsl", fake_library()); });
  };
  auto p = params();
  p.stream = "";
  EXPECT_THAT(refusal(p), HasSubstr("stream, type, source_id or query"));
  p.stream = "other";
  EXPECT_THAT(refusal(p),
              HasSubstr("name='other': expected an outlet of Lab Streaming Layer within 0.2 s, found none"));
  p.stream = "a'b\"c";
  EXPECT_THAT(refusal(p), HasSubstr("one kind of quotes"));
  p = params();
  fake().open_error = -1;
  EXPECT_THAT(refusal(p), HasSubstr("an outlet that answers within 1 s, found error -1"));
  fake().open_error = 0;
  fake().refuse_inlets = true;
  EXPECT_THAT(refusal(p), HasSubstr("an outlet that can be opened"));
  fake().refuse_inlets = false;
  fake().outlets[0].rate = 0;
  EXPECT_THAT(refusal(p), HasSubstr("an outlet of numbers with a rate"));
  fake().outlets.push_back(fake().outlets[0]);
  EXPECT_THAT(refusal(p), HasSubstr("expected one outlet, found eeg (EEG"));
}

TEST(LslLibraryTest, SaysWhereToGetItAndWhatIsWrongWithAFile) {
  EXPECT_THAT(message_of<ConfigError>([] { load_lsl({"liblsl-that-nobody-has.so"}); }),
              AllOf(HasSubstr("pip install pylsl"), HasSubstr("PERCEPT_LIBLSL=FILE")));
  const auto folder = testing::temporary_folder();
  std::ofstream(folder / "text.so") << "no library";
  EXPECT_THAT(message_of<ConfigError>([&] { load_lsl({folder / "text.so"}); }),
              AllOf(HasSubstr("text.so"), HasSubstr("pip install pylsl")));
  EXPECT_THAT(message_of<ConfigError>([] { load_lsl({PERCEPT_NOT_LSL}); }), HasSubstr("it has no lsl_library_version"));
  EXPECT_TRUE(load_lsl({folder / "text.so", PERCEPT_FAKE_LSL})) << "the next one is tried";
}

TEST(LslLibraryTest, LooksWhereWheelsPutIt) {
  const auto folder = testing::temporary_folder();
  const auto lib = folder / "lib/python3.11/site-packages/pylsl/lib";
  std::filesystem::create_directories(lib);
  std::ofstream(lib / "liblsl.so.2") << "";
  std::ofstream(lib / "other.txt") << "";
  const auto set = [](const char* name, const std::string& value) {
    const char* old = std::getenv(name);
    const std::optional<std::string> kept = old ? std::optional<std::string>(old) : std::nullopt;
    ::setenv(name, value.c_str(), 1);
    return kept;
  };
  const auto back = [](const char* name, const std::optional<std::string>& value) {
    if (value) ::setenv(name, value->c_str(), 1);
    else ::unsetenv(name);
  };
  const auto a = set("PERCEPT_LIBLSL", "/a.so"), b = set("PYLSL_LIB", "/b.so"), c = set("VIRTUAL_ENV", folder.string());
  const auto all = lsl_candidates();
  back("PERCEPT_LIBLSL", a);
  back("PYLSL_LIB", b);
  back("VIRTUAL_ENV", c);
  ASSERT_GE(all.size(), 5u);
  EXPECT_EQ(all[0], "/a.so");
  EXPECT_EQ(all[1], "/b.so");
  EXPECT_EQ(all[2], lib / "liblsl.so.2");
  EXPECT_EQ(all.back(), "liblsl.so");
}

}  // namespace
}  // namespace percept
