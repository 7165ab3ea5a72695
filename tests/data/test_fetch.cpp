#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "core/files.h"
#include "data/fetch.h"
#include "tests/data/environment.h"
#include "tests/support/data.h"

namespace percept::data {
namespace {
namespace fs = std::filesystem;
using testing::Environment;
using ::testing::HasSubstr;

/// Answers on 127.0.0.1, one connection at a time, what the path asks for.
class Server {
 public:
  explicit Server(std::string content) : content_(std::move(content)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&at), size) != 0 || ::listen(listener_, 8) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&at), &size) != 0)
      throw std::runtime_error("no socket on 127.0.0.1");
    port_ = ntohs(at.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~Server() {
    stop_ = true;
    ::shutdown(listener_, SHUT_RDWR);
    ::close(listener_);
    thread_.join();
  }
  std::string url(const std::string& path) const { return "http://127.0.0.1:" + std::to_string(port_) + path; }
  int requests() const { return requests_; }

 private:
  void run() {
    for (;;) {
      const int c = ::accept(listener_, nullptr, nullptr);
      if (c < 0) return;
      char request[2048];
      const auto n = ::recv(c, request, sizeof request - 1, 0);
      ++requests_;
      answer(c, std::string(request, n > 0 ? static_cast<std::size_t>(n) : 0));
      ::close(c);
    }
  }
  void answer(int c, const std::string& request) {
    const auto says = [&](const std::string& path) { return request.starts_with("GET " + path + " "); };
    const auto head = [](const std::string& status, std::size_t bytes, const std::string& more = "") {
      return "HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(bytes) + "\r\nConnection: close\r\n" +
             more + "\r\n";
    };
    if (says("/good")) send(c, head("200 OK", content_.size()) + content_);
    if (says("/moved")) send(c, head("302 Found", 0, "Location: /good\r\n"));
    if (says("/short")) send(c, head("200 OK", content_.size()) + content_.substr(0, content_.size() / 2));
    if (says("/shorter")) send(c, head("200 OK", content_.size() / 2) + content_.substr(0, content_.size() / 2));
    if (says("/long")) send(c, head("200 OK", content_.size() + 5) + content_ + "extra");
    if (says("/wrong")) send(c, head("200 OK", content_.size()) + std::string(content_.size(), '?'));
    if (says("/gone")) send(c, head("404 Not Found", 4) + "gone");
    if (says("/slow")) {
      send(c, head("200 OK", content_.size()) + content_.substr(0, 10));
      for (int i = 0; i < 300 && !stop_; ++i) {
        char closed;
        if (::recv(c, &closed, 1, MSG_DONTWAIT) == 0) return;  // the client gave up
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
    }
  }
  static void send(int c, const std::string& text) { (void)!::send(c, text.data(), text.size(), MSG_NOSIGNAL); }

  std::string content_;
  int listener_ = -1, port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<int> requests_{0};
  std::thread thread_;
};

std::vector<std::string> files_below(const fs::path& folder) {
  std::vector<std::string> all;
  if (fs::exists(folder))
    for (auto& f : fs::recursive_directory_iterator(folder))
      if (f.is_regular_file()) all.push_back(f.path().filename().string());
  return all;
}

class Fetch : public ::testing::Test {
 protected:
  DataSet set(const std::string& url) const {
    DataSet s;
    s.name = "toy";
    s.source = "https://example.org/toy";
    s.files.push_back({"x.csv", "bci/toy/x.csv", url, sha256(content), content.size()});
    return s;
  }
  template <class E>
  std::string refused(const DataSet& s, const FetchOptions& options = {}) const {
    try {
      fetch(s, "x.csv", {}, options);
    } catch (const E& e) {
      EXPECT_TRUE(files_below(cache).empty()) << "a broken download left a file";
      return e.what();
    }
    ADD_FAILURE() << "not refused";
    return "";
  }

  const std::string content = std::string(20000, 'a') + "end\n";
  const std::string digests = "20004 bytes with sha256 " + sha256(content);
  const fs::path cache = testing::temporary_folder();
  const fs::path mirror = testing::temporary_folder();
  Environment no_mirror{"PERCEPT_DATA_MIRROR", ""};
  Environment xdg{"XDG_CACHE_HOME", cache};
  Server server{content};
};

TEST_F(Fetch, DownloadsOnceThenUsesTheCache) {
  double last = 0;
  const DataSet s = set(server.url("/good"));
  const fs::path p = fetch(s, "x.csv", [&](double f, std::string_view what) {
    EXPECT_GE(f, last);
    EXPECT_EQ(what, "x.csv");
    last = f;
  });
  EXPECT_EQ(p, cache / "percept" / "toy" / "x.csv");
  EXPECT_EQ(read_file(p), content);
  EXPECT_EQ(last, 1.0);
  EXPECT_EQ(fetch(s, "x.csv"), p);
  EXPECT_EQ(server.requests(), 1);
  EXPECT_EQ(files_below(cache).size(), 1u);
}

TEST_F(Fetch, FollowsRedirects) { EXPECT_EQ(read_file(fetch(set(server.url("/moved")), "x.csv")), content); }

TEST_F(Fetch, ReadsFileUrls) {
  write_atomic(mirror / "there.csv", content);
  EXPECT_EQ(read_file(fetch(set("file://" + (mirror / "there.csv").string()), "x.csv")), content);
}

TEST_F(Fetch, UsesTheMirrorInPlace) {
  Environment with_mirror("PERCEPT_DATA_MIRROR", mirror);
  write_atomic(mirror / "bci/toy/x.csv", content);
  EXPECT_EQ(fetch(set(server.url("/good")), "x.csv"), mirror / "bci/toy/x.csv");
  EXPECT_EQ(server.requests(), 0);
  EXPECT_TRUE(files_below(cache).empty());
}

TEST_F(Fetch, AMirrorWithoutTheFileIsPassedOver) {
  Environment with_mirror("PERCEPT_DATA_MIRROR", mirror);
  EXPECT_EQ(fetch(set(server.url("/good")), "x.csv"), cache / "percept" / "toy" / "x.csv");
}

TEST_F(Fetch, RefusesAChangedMirrorAndAChangedCache) {
  Environment with_mirror("PERCEPT_DATA_MIRROR", mirror);
  const fs::path file = mirror / "bci/toy/x.csv";
  write_atomic(file, "changed");
  EXPECT_EQ(refused<DataError>(set(server.url("/good"))),
            file.string() + ": content: expected " + digests + ", found 7 bytes with sha256 " + sha256("changed"));
  fs::remove(file);
  const fs::path cached = fetch(set(server.url("/good")), "x.csv");
  std::ofstream(cached, std::ios::app) << "more";
  EXPECT_THROW(fetch(set(server.url("/good")), "x.csv"), DataError);
  EXPECT_THROW(locate(set(""), "x.csv"), DataError);
}

TEST_F(Fetch, RefusesOtherBytes) {
  EXPECT_EQ(refused<DataError>(set(server.url("/wrong"))),
            "x.csv of toy from " + server.url("/wrong") + ": content: expected " + digests +
                ", found 20004 bytes with sha256 " + sha256(std::string(20004, '?')));
  EXPECT_THAT(refused<DataError>(set(server.url("/shorter"))), HasSubstr("found 10002 bytes"));
  EXPECT_THAT(refused<DataError>(set(server.url("/long"))), HasSubstr("found more bytes at http://127.0.0.1"));
}

TEST_F(Fetch, BrokenConnectionsSayWhatToDo) {
  const std::string gone = refused<Unavailable>(set(server.url("/gone")));
  EXPECT_THAT(gone, HasSubstr("x.csv of toy cannot be downloaded from " + server.url("/gone")));
  EXPECT_THAT(gone, HasSubstr("404"));
  EXPECT_THAT(gone, HasSubstr("set PERCEPT_DATA_MIRROR to a folder that holds bci/toy/x.csv"));
  EXPECT_THAT(refused<Unavailable>(set(server.url("/short"))), HasSubstr("remaining"));
  EXPECT_THAT(refused<Unavailable>(set("http://127.0.0.1:1/x.csv")), HasSubstr("connect"));
  EXPECT_THAT(refused<Unavailable>(set("file:///no/such/file")), HasSubstr("/no/such/file"));
}

TEST_F(Fetch, GivesASlowServerUp) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THAT(refused<Unavailable>(set(server.url("/slow")), {.connect_s = 2, .stall_s = 1}), HasSubstr("too slow"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST_F(Fetch, CanBeStopped) {
  EXPECT_THROW(fetch(set(server.url("/good")), "x.csv", [](double, std::string_view) { throw Interrupted(); }),
               Interrupted);
  EXPECT_TRUE(files_below(cache).empty());
}

TEST_F(Fetch, OnlySafeProtocols) {
  for (auto url : {"http://example.org/x.csv", "http://127.0.0.1:80@example.org/x.csv",
                   "http://127.0.0.1.example.org/x", "ftp://example.org/x.csv", "x.csv"})
    EXPECT_THAT(refused<DataError>(set(url)), HasSubstr("x.csv of toy: url: expected https://")) << url;
}

TEST_F(Fetch, AConversionWithoutMirrorSaysWhy) {
  DataSet s = set("");
  s.conversion = "the file is a copy of x.mat";
  EXPECT_EQ(refused<Unavailable>(s),
            "x.csv of toy cannot be downloaded, because the file is a copy of x.mat (source: https://example.org/toy): "
            "set PERCEPT_DATA_MIRROR to a folder that holds bci/toy/x.csv");
}

TEST_F(Fetch, CacheFollowsXdg) {
  EXPECT_EQ(cache_folder(), cache / "percept");
  Environment relative("XDG_CACHE_HOME", "somewhere");
  Environment home("HOME", "/home/someone");
  EXPECT_EQ(cache_folder(), "/home/someone/.cache/percept");
  Environment homeless("HOME", "");
  EXPECT_THROW(cache_folder(), Unavailable);
  EXPECT_EQ(locate(set(""), "x.csv"), std::nullopt);
}

}  // namespace
}  // namespace percept::data
