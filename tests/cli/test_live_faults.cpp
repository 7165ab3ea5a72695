/// Faults of the machine under a live session, which runs as a process: a full disk, a reader that goes away, a program that
/// is stopped or killed. Those of devices and networks are in tests/realtime/test_faults.cpp.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <mutex>

#include "io/session.h"
#include "realtime/clock.h"
#include "realtime/output_guard.h"
#include "tests/cli/program.h"
#include "tests/realtime/network.h"

namespace percept::cli_test {
namespace {

using ::testing::HasSubstr;

/// The workbench at 100 Hz with its pipeline fitted.
fs::path fast_bench() {
  const fs::path folder = workbench();
  std::string text = read_file(folder / "base.toml");
  for (std::size_t at = 0; (at = text.find("rate_hz = 10\n", at)) != text.npos; ++at) text.insert(at + 12, "0");
  write(folder / "base.toml", text);
  const Result fit = percept(folder, {"fit", "base.toml"});
  EXPECT_EQ(fit.code, 0) << fit.error;
  return folder;
}

/// A UDP port of this machine that is free, and a socket on it.
struct UdpPort {
  UdpPort() : fd(::socket(AF_INET, SOCK_DGRAM, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size);
    port = ntohs(at.sin_port);
  }
  ~UdpPort() { close(); }
  void close() {
    if (fd >= 0) ::close(std::exchange(fd, -1));
  }
  int fd = -1, port = 0;
};
int free_port() { return UdpPort().port; }

std::int64_t frames_in(const fs::path& session) {
  return fs::exists(session) && fs::file_size(session) > 200 ? io::open_session(session).streams[0].frames() : 0;
}
int hold_events(const Recording& r, Hold why) {
  int n = 0;
  for (auto& e : r.events) n += e.label.text() == "hold" && e.value == static_cast<double>(why);
  return n;
}

// no room any more: the states go out all the same, what is in the file is whole, and what is not is counted
TEST(LiveFaults, AFullDiskEndsTheRecordingNotTheSession) {
  const fs::path folder = fast_bench();
  const std::string output = "udp:port=" + std::to_string(free_port());
  Running session(folder, {"replay", "base.toml", "--record", "r", "--output", output, "--quiet"}, [] {
    const rlimit full{20000, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &full);
  });
  const Result end = session.wait();
  EXPECT_EQ(end.code, 3);
  EXPECT_THAT(end.error, HasSubstr("nothing is being recorded: File too large"));
  EXPECT_THAT(end.out, HasSubstr("200 states"));
  EXPECT_THAT(end.out, HasSubstr("200 states sent, 0 lost"));
  const Recording r = io::open_session(folder / "r" / "live.session");
  EXPECT_FALSE(r.meta.at("live").at("complete").as_bool());
  EXPECT_EQ(r.meta.at("live").at("cut_bytes").as_integer(), 0);
  const auto kept = r.meta.at("live").at("packets").as_integer();
  EXPECT_GT(kept, 10);
  EXPECT_LT(kept, 200);
  EXPECT_THAT(end.error, HasSubstr(std::to_string(200 - kept) + " packets among them, could not be written"));
  const Result again = percept(folder, {"rerun", "r", "--json"});
  EXPECT_EQ(again.code, 0) << again.error;
}

// room again while the session runs: nothing is missing
TEST(LiveFaults, ARecordingGoesOnWhenThereIsRoomAgain) {
  const fs::path folder = fast_bench();
  Running session(folder, {"replay", "base.toml", "--record", "r", "--quiet", "--json"}, [] {
    const rlimit full{20000, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &full);
  });
  EXPECT_TRUE(within(30, [&] { return session.errors().find("nothing is being recorded") != std::string::npos; }));
  const rlimit more{RLIM_INFINITY, RLIM_INFINITY};
  ASSERT_EQ(::prlimit(session.pid(), RLIMIT_FSIZE, &more, nullptr), 0);
  const Result end = session.wait();
  ASSERT_EQ(end.code, 0) << end.error;
  EXPECT_EQ(end.json().at("recorder").at("lost_records").as_integer(), 0);
  const Recording r = io::open_session(folder / "r" / "live.session");
  EXPECT_TRUE(r.meta.at("live").at("complete").as_bool());
  EXPECT_EQ(r.streams[0].frames(), 200);
  EXPECT_EQ(percept(folder, {"rerun", "r", "--json"}).json().at("identical").as_integer(), 200);
}

// who reads the states goes away after the first
TEST(LiveFaults, AReaderThatGoesAwayDoesNotEndTheSession) {
  const fs::path folder = fast_bench();
  const std::string command =
      "cd " + quoted(folder.string()) + " && " + quoted(PERCEPT_PROGRAM) +
      " replay base.toml --speed 4 --record r --output stdout --quiet 2>error | head -n 1 >first";
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_THAT(read_file(folder / "first"), HasSubstr("\"frame\""));
  const Recording r = io::open_session(folder / "r" / "live.session");
  EXPECT_TRUE(r.meta.at("live").at("complete").as_bool()) << read_file(folder / "error");
  EXPECT_EQ(r.streams[0].frames(), 200);
  const Value& output = r.meta.at("live").at("counts").at("outputs").as_array().at(0);
  EXPECT_EQ(output.at("sent").as_integer() + output.at("lost").as_integer(), 200);
  EXPECT_GT(output.at("lost").as_integer(), 100);
}

// stopped for two seconds: the system keeps what the device sends, all of it is decoded late, which is counted, and the
// output is held until the data are new again
TEST(LiveFaults, AStoppedProgramGoesOnAndHasLostNothing) {
  const fs::path folder = fast_bench(), file = folder / "r" / "live.session";
  const int port = free_port();
  Running session(folder, {"live", "base.toml", "--source", "udp:port=" + std::to_string(port) + ",rows=4,rate_hz=100",
                           "--record", "r", "--quiet", "--json"});
  ASSERT_TRUE(within(60, [&] { return fs::exists(file); }));
  testing::UdpSender device(port);
  const std::int64_t start = steady_ns();
  for (std::int64_t k = 0; k < 350; ++k) {
    std::this_thread::sleep_for(std::chrono::nanoseconds(start + k * 10'000'000 - steady_ns()));
    if (k == 50) session.signal(SIGSTOP);
    if (k == 250) session.signal(SIGCONT);
    device.send_frames(k, 4, 1, 100);
  }
  EXPECT_TRUE(within(20, [&] { return frames_in(file) == 350; }));
  session.signal(SIGINT);
  const Result end = session.wait();
  ASSERT_EQ(end.code, 0) << end.error;
  const Value v = end.json(), input = v.at("inputs").at("activity");
  EXPECT_EQ(input.at("frames").as_integer(), 350);
  EXPECT_EQ(input.at("missing_frames").as_integer() + input.at("lost_in_system").as_integer(), 0);
  // the time since a packet came counts, not since it was taken
  EXPECT_GT(v.at("latency").at("max_s").as_number(), 1.9);
  EXPECT_GT(v.at("deadline_misses").as_integer(), 190);
  const Recording r = io::open_session(file);
  EXPECT_TRUE(r.meta.at("live").at("complete").as_bool());
  EXPECT_GE(hold_events(r, Hold::old_data), 1);
  EXPECT_TRUE(v.at("held_frames").as_integer() > 100) << v.at("held_frames").as_integer();
  EXPECT_EQ(percept(folder, {"rerun", "r", "--json"}).json().at("identical").as_integer(), 350);
}

// killed: each state that was sent out a tenth of a second before is in the recording, with the packet behind it
TEST(LiveFaults, AKilledProgramKeepsAllButTheLastTenthOfASecond) {
  const fs::path folder = fast_bench(), file = folder / "r" / "live.session";
  const int port = free_port();
  UdpPort states;
  Running session(folder, {"live", "base.toml", "--source", "udp:port=" + std::to_string(port) + ",rows=4,rate_hz=100",
                           "--output", "udp:port=" + std::to_string(states.port), "--record", "r", "--quiet"});
  ASSERT_TRUE(within(60, [&] { return fs::exists(file); }));
  std::vector<std::int64_t> seen_ns;  // when the state of each frame had come back
  std::mutex mutex;
  std::atomic<bool> over{false};
  std::thread reader([&] {
    const timeval patience{0, 50'000};
    ::setsockopt(states.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    std::vector<std::byte> room(65536);
    WirePacket packet;
    while (!over) {
      const auto n = ::recv(states.fd, room.data(), room.size(), 0);
      if (n <= 0 || read_wire(std::span(room).first(static_cast<std::size_t>(n)), packet) != WireError::none ||
          packet.kind != WirePacket::Kind::frames)
        continue;
      std::lock_guard lock(mutex);
      seen_ns.resize(std::max(seen_ns.size(), static_cast<std::size_t>(packet.counter) + 1), steady_ns());
    }
  });
  testing::UdpSender device(port);
  const std::int64_t start = steady_ns();
  for (std::int64_t k = 0; k < 120; ++k) {
    std::this_thread::sleep_for(std::chrono::nanoseconds(start + k * 10'000'000 - steady_ns()));
    device.send_frames(k, 4, 1, 100);
  }
  session.signal(SIGKILL);
  const std::int64_t killed = steady_ns();
  EXPECT_EQ(session.wait().code, -1);
  over = true;
  reader.join();
  const auto safe = std::count_if(seen_ns.begin(), seen_ns.end(), [&](auto t) { return t < killed - 100'000'000; });
  ASSERT_GT(safe, 20);
  const Recording r = io::open_session(file);
  EXPECT_FALSE(r.meta.at("live").at("complete").as_bool());
  EXPECT_GE(r.streams[0].frames(), safe);
  for (Index k = 0; k < safe; ++k) EXPECT_EQ(r.streams[0].matrix()(0, k), static_cast<double>(k));
  const Result again = percept(folder, {"rerun", "r", "--json"});
  ASSERT_EQ(again.code, 0) << again.error;
  EXPECT_GE(again.json().at("identical").as_integer(), safe);
}

}  // namespace
}  // namespace percept::cli_test
