#include "realtime/live_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include "core/error.h"
#include "tests/realtime/live_bench.h"
#include "tests/support/errors.h"

namespace percept {
namespace {

using namespace live_test;
using ::testing::HasSubstr;
using testing::message_of;

/// A loop that waits for its device, and its page.
class Page : public ::testing::Test {
 protected:
  Page() : bench(one(acts())), loop(bench.make()) {
    page = std::make_unique<LivePage>(loop, about(), LivePage::Params{.viewers = 2}, "live.page");
    const std::string url = page->url();
    host = url.substr(7, url.find('/', 7) - 7);
    path = url.substr(url.find('/', 7));
    thread = std::thread([this] { loop.run(); });
  }
  ~Page() override {
    loop.stop();
    thread.join();
    page.reset();
  }
  static std::vector<Scripted::Act> acts() {
    std::vector<Scripted::Act> all(50);
    for (auto& a : all) a.wait_ms = 5;
    all.push_back({.packet = false, .wait_ms = 3'600'000});
    return all;
  }
  static Value about() {
    return parse_json(R"({"name": "test", "node": "decoded", "rows": ["x", "y"], "units": ["", ""],
                          "inputs": [{"name": "spikes", "rate_hz": 100, "rows": ["a", "b", "c", "d", "e"]}]})",
                      "about");
  }
  httplib::Client client() {
    httplib::Client c("127.0.0.1", std::stoi(host.substr(host.find(':') + 1)));
    c.set_read_timeout(20);
    return c;
  }
  int status(const std::string& target, const httplib::Headers& headers = {}) {
    const auto r = client().Get(target.c_str(), headers);
    return r ? r->status : -1;
  }
  int command(const std::string& body, const std::string& origin, const char* type = "application/json") {
    const auto r = client().Post((path + "command").c_str(), {{"Origin", origin}}, body, type);
    return r ? r->status : -1;
  }
  /// The stream until `enough` says so.
  std::string stream(const std::function<bool(const std::string&)>& enough, int* code = nullptr) {
    std::string all;
    client().Get((path + "stream").c_str(),
                 [&](const httplib::Response& r) {
                   if (code) *code = r.status;
                   return true;
                 },
                 [&](const char* data, std::size_t n) {
                   all.append(data, n);
                   return !enough(all) && all.size() < (1 << 22);
                 });
    return all;
  }

  LoopBench bench;
  LiveLoop& loop;
  std::unique_ptr<LivePage> page;
  std::string host, path;
  std::thread thread;
};

TEST_F(Page, IsGivenToThoseWhoHaveItsAddress) {
  EXPECT_EQ(path.size(), 34u) << "128 random bits";
  for (const char* file : {"", "page.css", "page.js", "uplot.css", "uplot.js", "about"}) {
    const auto r = client().Get((path + file).c_str());
    ASSERT_TRUE(r);
    EXPECT_EQ(r->status, 200) << file;
    EXPECT_GT(r->body.size(), 100u);
    EXPECT_THAT(r->get_header_value("Content-Security-Policy"), HasSubstr("default-src 'none'"));
    EXPECT_EQ(r->get_header_value("Cache-Control"), "no-store");
  }
  EXPECT_EQ(page->refused(), 0);
  EXPECT_EQ(status("/"), 404);
  EXPECT_EQ(status("/about"), 404);
  std::string other = path;
  other[5] = other[5] == '0' ? '1' : '0';
  EXPECT_EQ(status(other + "about"), 404);
  EXPECT_EQ(status(path.substr(0, 33)), 404);
  EXPECT_EQ(status(path + "nothing"), 404);
  EXPECT_EQ(status(path + "../../etc/passwd"), 404);
  // somebody's page whose name was made to point to this machine
  EXPECT_EQ(status(path + "about", {{"Host", "evil.example"}}), 403);
  EXPECT_GE(page->refused(), 5);
}

TEST_F(Page, CommandsComeFromThePageAlone) {
  const std::string own = "http://" + host;
  EXPECT_EQ(command(R"({"do":"emergency"})", "http://evil.example"), 403);
  EXPECT_EQ(command(R"({"do":"emergency"})", ""), 403);
  EXPECT_EQ(command(R"({"do":"emergency"})", own, "text/plain"), 415);
  EXPECT_FALSE(loop.emergency());
  EXPECT_EQ(command(R"({"do":"emergency"})", own), 200);
  EXPECT_TRUE(loop.emergency());
  EXPECT_EQ(command(R"({"do":"release"})", own), 200);
  EXPECT_FALSE(loop.emergency());
  EXPECT_EQ(command(R"({"do":"mask","input":0,"row":3})", own), 200);
  for (const char* wrong : {"", "{", "[]", "{}", R"({"do":3})", R"({"do":"reboot"})", R"({"do":"mask"})",
                            R"({"do":"mask","input":0,"row":5})", R"({"do":"mask","input":-1,"row":0})",
                            R"({"do":"mask","input":4294967296,"row":0})", R"({"do":"start"})",
                            R"({"do":"recalibrate"})", R"({"do":"mask","input":0,"row":"a"})"})
    EXPECT_EQ(command(wrong, own), 400) << wrong;
  EXPECT_EQ(command("{\"do\":\"" + std::string(5000, 'x') + "\"}", own), 413);
  EXPECT_EQ(command(std::string(4000, '['), own), 400);
  EXPECT_TRUE(loop.running());
  EXPECT_EQ(command(R"({"do":"stop"})", own), 200);
  for (int k = 0; k < 200 && !loop.finished(); ++k) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(loop.finished());
}

TEST_F(Page, StreamsStatesSignalAndCounts) {
  const std::string text = stream([](const std::string& s) {
    return s.find("event: report") != s.npos && s.find("event: signal") != s.npos && s.find("\"frames\":50") != s.npos;
  });
  const auto event = [&](const char* name) {
    const std::string head = std::string("event: ") + name + "\ndata: ";
    const auto at = text.rfind(head) + head.size();
    return parse_json(text.substr(at, text.find("\n\n", at) - at), name);
  };
  const Value state = event("state");
  EXPECT_EQ(state.at("v").size(), bench.states.back().value.size());
  EXPECT_TRUE(state.at("hold").is_null() || state.at("hold").is_string());
  EXPECT_EQ(event("signal").at("frames").as_array().at(0).size(), 5u);
  const Value report = event("report");
  EXPECT_EQ(report.at("channels").as_array().at(0).size(), 5u);
  EXPECT_TRUE(report.at("report").at("inputs").contains("spikes"));
}

// what a node of spike counts gives goes to those who look, frame by frame, beside the inputs
TEST(PageRaster, ShowsTheFramesOfItsNode) {
  std::vector<Scripted::Act> acts(20);
  for (auto& a : acts) a.wait_ms = 5;
  LoopBench bench(one(acts), {.precision = Scalar::f64});
  bench.setup.raster = "scaled";
  LiveLoop& loop = bench.make();
  std::vector<SignalFrame> seen;
  loop.watch_signal(true);
  loop.run();
  for (SignalFrame frame; loop.next_signal(frame);)
    if (frame.input == SignalFrame::kRaster) seen.push_back(frame);
  Outputs truth = offline(recording(20), Scalar::f64, decoder());
  ASSERT_EQ(seen.size(), 20u);
  for (std::size_t k = 0; k < 20; ++k) {
    ASSERT_EQ(seen[k].rows, 5);
    for (Index row = 0; row < 5; ++row)
      EXPECT_EQ(seen[k].x[static_cast<std::size_t>(row)],
                static_cast<float>(truth.at("scaled").value(static_cast<std::int64_t>(k), row, 5)));
  }
}

// a browser that reads nothing is dropped, one too many is told so, and the loop knows of neither
TEST_F(Page, NeitherStalledNorTooManyBrowsersDisturb) {
  std::vector<int> stalled;
  const int port = std::stoi(host.substr(host.find(':') + 1));
  for (int k = 0; k < 2; ++k) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    const int little = 2048;
    ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(static_cast<std::uint16_t>(port));
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    const std::string request = "GET " + path + "stream HTTP/1.1\r\nHost: " + host + "\r\n\r\n";
    ASSERT_EQ(::send(fd, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
    stalled.push_back(fd);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  int code = 0;
  stream([](const std::string&) { return true; }, &code);
  EXPECT_EQ(code, 503);
  for (int k = 0; k < 400 && loop.state().frames < 50; ++k) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(loop.state().frames, 50);
  // garbage and half a request
  for (const char* rubbish :
       {"\0\0\0\0", "GET", "GET / HTTP/9\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"}) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(static_cast<std::uint16_t>(port));
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    ::send(fd, rubbish, std::strlen(rubbish), MSG_NOSIGNAL);
    ::close(fd);
  }
  for (int fd : stalled) ::close(fd);
  // their places are free again
  code = 0;
  for (int k = 0; k < 50 && code != 200; ++k) {
    stream([](const std::string& s) { return s.find("event: state") != s.npos; }, &code);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  EXPECT_EQ(code, 200);
  EXPECT_TRUE(loop.running());
}

/// A connection to the page without a browser.
class RawConnection {
 public:
  explicit RawConnection(const std::string& host) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(static_cast<std::uint16_t>(std::stoi(host.substr(host.find(':') + 1))));
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
  }
  ~RawConnection() { ::close(fd_); }
  RawConnection(const RawConnection&) = delete;
  RawConnection& operator=(const RawConnection&) = delete;
  void send(std::string_view bytes) { ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  void end() { ::shutdown(fd_, SHUT_WR); }
  /// All that comes until the page closes it, or within so many milliseconds; closed: it did.
  std::string take(int patience_ms, bool* closed = nullptr) {
    std::string all;
    char room[4096];
    const std::int64_t until = steady_ns() + patience_ms * std::int64_t{1'000'000};
    while (steady_ns() < until) {
      const ssize_t n = ::recv(fd_, room, sizeof room, MSG_DONTWAIT);
      if (n > 0) all.append(room, static_cast<std::size_t>(n));
      if (closed) *closed = n == 0 || (n < 0 && errno == ECONNRESET);
      if (n == 0 || (n < 0 && errno == ECONNRESET)) break;
      if (n < 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return all;
  }

 private:
  int fd_;
};

TEST_F(Page, HostileRequestsAreRefusedCountedAndHarmless) {
  const std::string ask = "GET " + path + "about HTTP/1.1\r\n", me = "Host: " + host + "\r\n";
  const std::string post = "POST " + path + "command HTTP/1.1\r\n" + me + "Origin: http://" + host +
                           "\r\nContent-Type: application/json\r\n";
  std::string noise(1000, 0), headers;
  const KeyedRandom random(1, "noise");
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<char>(random.below(256, static_cast<int>(i)));
  for (int i = 0; i < 10000; ++i) headers += "a" + std::to_string(i) + ": b\r\n";
  const std::vector<std::string> hostile{
      noise,
      std::string(200000, 'A'),
      "GET",
      "GET / HTTP/9.9\r\n\r\n",
      "\r\n\r\n\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + noise,
      "CONNECT evil.example:80 HTTP/1.1\r\n" + me + "\r\n",
      "TRACE / HTTP/1.1\r\n" + me + "\r\n",
      "GET http://evil.example/ HTTP/1.1\r\n" + me + "\r\n",
      "GET /%00%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n" + me + "\r\n",
      "GET /" + std::string(100000, 'x') + " HTTP/1.1\r\n" + me + "\r\n",
      ask + "\r\n",                                  // no host
      ask + "Host: evil.example\r\n" + me + "\r\n",  // two of them
      ask + me + "X: " + std::string(100000, 'x') + "\r\n\r\n",
      ask + me + headers + "\r\n",
      ask + me + "no colon at all\r\n" + std::string(20000, '\0'),
      post + "Content-Length: -1\r\n\r\n{}",
      post + "Content-Length: 99999999999999999999\r\n\r\n{}",
      post + "Content-Length: 20\r\n\r\n{",  // cut off
      post + "Content-Length: 100000\r\n\r\n" + std::string(100000, '['),
      post + "Content-Length: 5\r\n\r\n[[[[[",
      post + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
      post + "Transfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n0\r\n\r\n",
      post + "Content-Encoding: gzip\r\nContent-Length: 10\r\n\r\n" + noise.substr(0, 10),
      post + "Content-Length: 2\r\n\r\n" + noise.substr(0, 2),
      "GET " + path.substr(0, path.size() - 2) + "x/stream HTTP/1.1\r\n" + me +
          "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AA==\r\n\r\n" +
          std::string("\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff", 10)};
  for (std::size_t i = 0; i < hostile.size(); ++i) {
    SCOPED_TRACE(i);
    const std::int64_t before = page->refused();
    RawConnection connection(host);
    connection.send(hostile[i]);
    connection.end();
    bool closed = false;
    const std::string answer = connection.take(10000, &closed);
    EXPECT_TRUE(closed);
    EXPECT_EQ(answer.find(" 200 "), answer.npos) << answer.substr(0, 200);
    for (int k = 0; k < 500 && page->refused() == before; ++k)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    EXPECT_GT(page->refused(), before);
  }
  // with the token too much is asked for: an answer, but no harm
  for (const char* range : {"bytes=0-18446744073709551615", "bytes=-1", "bytes=9-1,2-3,x", "lines=1"}) {
    RawConnection connection(host);
    connection.send(ask + me + "Range: " + range + "\r\n\r\n");
    bool closed = false;
    connection.take(10000, &closed);
    EXPECT_TRUE(closed) << range;
  }
  EXPECT_FALSE(loop.emergency());
  EXPECT_TRUE(loop.running());
  EXPECT_EQ(status(path + "about"), 200);
}

// twenty that send a byte now and then: each has a second for its request, and a command comes through meanwhile
TEST_F(Page, SlowRequestsHoldNobodyForLong) {
  std::vector<std::unique_ptr<RawConnection>> slow;
  for (int i = 0; i < 20; ++i) {
    slow.push_back(std::make_unique<RawConnection>(host));
    slow.back()->send("GET /");
  }
  std::atomic<bool> over{false};
  std::thread drip([&] {
    while (!over) {
      for (auto& s : slow) s->send("x");
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  });
  EXPECT_EQ(command(R"({"do":"emergency"})", "http://" + host), 200);
  EXPECT_TRUE(loop.emergency());
  for (auto& s : slow) {
    bool closed = false;
    s->take(20000, &closed);
    EXPECT_TRUE(closed);
  }
  over = true;
  drip.join();
  for (int k = 0; k < 500 && page->refused() < 20; ++k) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_GE(page->refused(), 20);
  EXPECT_TRUE(loop.running());
}

// many that say nothing: some are answered, some wait, all others are closed at once; a second later there is room again
TEST_F(Page, ConnectionsBeyondTheLimitAreClosed) {
  std::vector<std::unique_ptr<RawConnection>> many;
  for (int i = 0; i < 500 && page->refused() == 0; ++i) many.push_back(std::make_unique<RawConnection>(host));
  EXPECT_GT(page->refused(), 0);
  EXPECT_GT(many.size(), 32u) << "so many may wait, beside those that are answered";
  many.clear();
  // the closed ones make room as soon as a thread has looked at them
  int got = -1;
  for (int i = 0; i < 100 && got != 200; ++i) {
    got = status(path + "about");
    if (got != 200) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  EXPECT_EQ(got, 200);
  EXPECT_TRUE(loop.running());
}

TEST_F(Page, SaysWhenThePortIsTaken) {
  const LivePage::Params taken{.port = std::stoi(host.substr(host.find(':') + 1))};
  EXPECT_THAT(message_of<ConfigError>([&] { LivePage(loop, about(), taken, "live.page"); }),
              HasSubstr("live.page.port"));
}

}  // namespace
}  // namespace percept
