#include "realtime/live_page.h"

#include <fmt/format.h>
#include <httplib.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "core/error.h"
#include "realtime/page/assets.h"
#include "realtime/page_request.h"

namespace percept {

namespace {
constexpr std::size_t kLargestCommand = 4096;       ///< bytes of a request's body
constexpr std::size_t kLargestRequest = 65536;      ///< and of all of it
constexpr std::int64_t kRequestNs = 1'000'000'000;  ///< within which it has to be there, and each answer to be taken
constexpr std::size_t kMostWaiting = 32;            ///< connections that may wait for a thread
constexpr auto kFrame = std::chrono::milliseconds(20);
constexpr int kSignalEvery = 3, kReportEvery = 50;  ///< frames

std::string random_token() {
  std::array<unsigned char, 16> bytes{};
  for (std::size_t done = 0; done < bytes.size();) {
    const auto n = ::getrandom(bytes.data() + done, bytes.size() - done, 0);
    if (n < 0) throw Error("no random numbers can be had for the page's address");
    done += static_cast<std::size_t>(n);
  }
  std::string text;
  for (auto b : bytes) text += fmt::format("{:02x}", b);
  return text;
}

/// A number for the page: JSON has no NaN.
void append_number(std::string& to, double x) {
  if (std::isfinite(x)) fmt::format_to(std::back_inserter(to), "{:.6g}", x);
  else to += "null";
}
template <class List>
void append_list(std::string& to, const List& list, std::size_t n) {
  to += '[';
  for (std::size_t i = 0; i < n; ++i) {
    if (i) to += ',';
    append_number(to, static_cast<double>(list[i]));
  }
  to += ']';
}

const char* name_of(Task::Phase phase) {
  switch (phase) {
    case Task::Phase::waiting:
      return "waiting";
    case Task::Phase::pause:
      return "pause";
    case Task::Phase::reach:
      return "reach";
    case Task::Phase::done:
      return "done";
  }
  return "";
}

void append_task(std::string& e, const ClosedLoopState& t) {
  const auto number = [&](const char* key, double x) {
    fmt::format_to(std::back_inserter(e), ",\"{}\":", key);
    append_number(e, x);
  };
  fmt::format_to(std::back_inserter(e), ",\"task\":{{\"phase\":\"{}\"", name_of(t.phase));
  number("x", t.x);
  number("y", t.y);
  number("held", t.held_s);
  number("assist", t.assist);
  number("bits", t.bit_rate);
  number("last", t.last_time_s);
  fmt::format_to(std::back_inserter(e), ",\"calibrating\":{},\"fits\":{},\"acquired\":{},\"late\":{},\"wrong\":{}",
                 t.calibrating, t.fits, t.acquired, t.late, t.wrong);
  if (t.target) {
    e += ",\"target\":{\"square\":";
    e += t.shown.square ? "true" : "false";
    number("x", t.shown.x);
    number("y", t.shown.y);
    number("half", t.shown.half);
    e += '}';
  }
  e += '}';
}

std::string state_event(const LiveState& s, bool emergency) {
  std::string e = fmt::format("event: state\ndata: {{\"frames\":{},\"t\":", s.frames);
  append_number(e, s.time_s);
  e += ",\"age\":";
  append_number(e, s.age_s);
  e += fmt::format(",\"clicks\":{}", s.clicks);
  e += fmt::format(",\"hold\":{},\"emergency\":{},\"v\":",
                   s.hold == Hold::none ? "null" : "\"" + std::string(text_of(s.hold)) + "\"", emergency);
  append_list(e, s.value, static_cast<std::size_t>(s.rows));
  e += ",\"sd\":";
  append_list(e, s.sd, static_cast<std::size_t>(s.rows));
  e += ",\"c01\":";
  append_number(e, s.covariance_01);
  if (s.task.there) append_task(e, s.task);
  e += "}\n\n";
  return e;
}
/// One connection. The time for a whole request is limited, however slowly its bytes come, and so is its size.
class PageConnection final : public httplib::Stream {
 public:
  explicit PageConnection(int socket) : socket_(socket), until_ns_(steady_ns() + kRequestNs) {}
  bool is_readable() const override { return ready(POLLIN, until_ns_); }
  bool is_writable() const override { return ready(POLLOUT, steady_ns() + kRequestNs); }
  ssize_t read(char* to, std::size_t size) override {
    if (read_ >= kLargestRequest || !ready(POLLIN, until_ns_)) return -1;
    const ssize_t n = ::recv(socket_, to, std::min(size, kLargestRequest - read_), 0);
    if (n > 0) read_ += static_cast<std::size_t>(n);
    return n;
  }
  ssize_t write(const char* from, std::size_t size) override {
    const std::int64_t until_ns = steady_ns() + kRequestNs;
    for (std::size_t done = 0; done < size;) {
      if (!ready(POLLOUT, until_ns)) return -1;
      const ssize_t n = ::send(socket_, from + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n > 0) done += static_cast<std::size_t>(n);
      else if (errno != EAGAIN && errno != EINTR) return -1;
    }
    return static_cast<ssize_t>(size);
  }
  // nobody asks who it is: all of them are strangers until they name the token
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return socket_; }
  bool asked() const { return read_ > 0; }

 private:
  bool ready(short what, std::int64_t until_ns) const {
    for (;;) {
      const std::int64_t left = until_ns - steady_ns();
      if (left <= 0) return false;
      pollfd fd{socket_, what, 0};
      const int n = ::poll(&fd, 1, static_cast<int>(left / 1'000'000) + 1);
      if (n > 0) return true;
      if (n < 0 && errno != EINTR) return false;
    }
  }
  int socket_;
  std::int64_t until_ns_;
  std::size_t read_ = 0;
};

thread_local bool no_thread_is_free = false;

/// A fixed number of threads, and a limit to what waits for one: the connection beyond it is closed at once.
class PageThreads final : public httplib::TaskQueue {
 public:
  explicit PageThreads(std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) threads_.emplace_back([this] { run(); });
  }
  void enqueue(std::function<void()> task) override {
    {
      std::lock_guard lock(mutex_);
      if (waiting_.size() < kMostWaiting) {
        waiting_.push_back(std::move(task));
        some_.notify_one();
        return;
      }
    }
    no_thread_is_free = true;
    task();
    no_thread_is_free = false;
  }
  void shutdown() override {
    {
      std::lock_guard lock(mutex_);
      over_ = true;
    }
    some_.notify_all();
    for (auto& t : threads_) t.join();
  }

 private:
  void run() {
    for (;;) {
      std::unique_lock lock(mutex_);
      some_.wait(lock, [this] { return over_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      const auto task = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      task();
    }
  }
  std::mutex mutex_;
  std::condition_variable some_;
  std::deque<std::function<void()>> waiting_;
  bool over_ = false;
  std::vector<std::thread> threads_;
};

/// httplib's server on such connections: one request each.
class PageServer final : public httplib::Server {
 public:
  explicit PageServer(std::atomic<std::int64_t>& refused) : refused_(refused) {
    set_logger([this](const httplib::Request&, const httplib::Response& response) {
      if (response.status >= 400) ++refused_;
    });
  }
  /// Once it is bound: the library's five that may wait to be accepted are so few that a sixth tries again for a second.
  void let_wait() const { ::listen(svr_sock_, 64); }

 private:
  bool process_and_close_socket(socket_t socket) override {
    bool good = false;
    if (no_thread_is_free) {
      ++refused_;
    } else {
      PageConnection connection(socket);
      bool closed = false;
      good = process_request(connection, true, closed, nullptr);
      // half a request, or none in time: nothing was answered
      if (!good && connection.asked()) ++refused_;
    }
    ::shutdown(socket, SHUT_RDWR);
    ::close(socket);
    return good;
  }
  std::atomic<std::int64_t>& refused_;
};
}  // namespace

struct LivePage::Impl {
  Impl(LiveLoop& l, const Value& a, const Params& p) : loop(l), about(a), params(p) {}

  LiveLoop& loop;
  Value about;
  Params params;
  std::string token = random_token();
  std::optional<PageGate> gate;  ///< once the port is known
  std::atomic<std::int64_t> refused{0};
  PageServer server{refused};
  std::thread listening;
  std::atomic<int> viewers{0};
  std::atomic<bool> stopped{false};

  // One thread takes the loop's signal and hands it to every viewer: the newest piece, by number.
  std::mutex signal_mutex;
  std::vector<std::pair<std::int64_t, std::string>> signals;
  std::int64_t signal_number = 0;
  std::thread signal_thread;

  void collect() {
    SignalFrame frame;
    while (!stopped) {
      std::vector<std::string> pieces(static_cast<std::size_t>(SignalFrame::kRaster + 1));
      while (loop.next_signal(frame)) {
        auto& piece = pieces[static_cast<std::size_t>(frame.input)];
        piece += piece.empty() ? "" : ",";
        append_list(piece, frame.x, static_cast<std::size_t>(frame.rows));
      }
      {
        std::lock_guard lock(signal_mutex);
        for (std::size_t i = 0; i < pieces.size(); ++i)
          if (!pieces[i].empty())
            signals.emplace_back(
                ++signal_number,
                fmt::format("event: signal\ndata: {{\"input\":{},\"frames\":[{}]}}\n\n", i, pieces[i]));
        if (signals.size() > 64) signals.erase(signals.begin(), signals.end() - 64);
      }
      std::this_thread::sleep_for(kFrame * kSignalEvery);
    }
  }

  std::string report_event() {
    Value channels = Value::array();
    const auto& inputs = about.at("inputs").as_array();
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      Value states = Value::array();
      const ChannelHealth& health = loop.health(static_cast<int>(i));
      for (Index row = 0; row < health.rows(); ++row) states.push_back(name_of(health.state(row)));
      channels.push_back(std::move(states));
    }
    Value bins = Value::array();
    for (auto& [edge_s, n] : loop.latency_bins()) bins.push_back(Value::array({edge_s, n}));
    return "event: report\ndata: " +
           to_json(Value::object({{"report", loop.report()}, {"channels", channels}, {"latency_bins", bins}})) + "\n\n";
  }

  bool stream(httplib::DataSink& sink) {
    std::int64_t seen = 0;
    for (int k = 0;; ++k) {
      const bool over = loop.finished() || stopped;
      std::string out = state_event(loop.state(), loop.emergency());
      if (k % kSignalEvery == 0) {
        std::lock_guard lock(signal_mutex);
        for (auto& [number, text] : signals)
          if (number > seen) {
            seen = number;
            out += text;
          }
      }
      if (k % kReportEvery == 0 || over) out += report_event();  // the last thing told is how it ended
      if (!sink.write(out.data(), out.size())) return false;
      if (over) break;
      std::this_thread::sleep_for(kFrame);
    }
    sink.done();
    return true;
  }

  void command(const httplib::Request& request, httplib::Response& response) {
    const auto refuse = [&](int status, const std::string& why) {
      response.status = status;
      response.set_content(why, "text/plain; charset=utf-8");
    };
    if (!gate->is_own(request.get_header_value("Origin")))
      return refuse(403, "a command comes from the session's own page");
    if (request.get_header_value("Content-Type") != "application/json") return refuse(415, "a command is JSON");
    try {
      const PageCommand c = read_page_command(request.body);
      using What = PageCommand::What;
      switch (c.what) {
        case What::emergency:
        case What::release:
          loop.emergency(c.what == What::emergency);
          break;
        case What::stop:
          loop.stop();
          break;
        case What::mask:
        case What::unmask:
          if (!loop.mask(c.input, c.row, c.what == What::mask)) return refuse(400, "there is no such channel");
          break;
        case What::start:
        case What::pause:
          if (!loop.start_task(c.what == What::start)) return refuse(400, "there is no task");
          break;
        case What::recalibrate:
          if (!loop.recalibrate()) return refuse(400, "the pipeline has no [live.calibration]");
      }
      response.set_content("{}", "application/json");
    } catch (const Error& e) {
      refuse(400, e.what());
    }
  }

  void set_up(const std::string& prefix) {
    server.set_payload_max_length(kLargestCommand);
    server.set_tcp_nodelay(true);
    // not shared with another program, which the library would allow
    server.set_socket_options([](socket_t socket) {
      const int yes = 1;
      ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    const auto threads = static_cast<std::size_t>(params.viewers) + 8;
    server.new_task_queue = [threads] { return new PageThreads(threads); };
    server.set_default_headers({{"Content-Security-Policy",
                                 "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src "
                                 "data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
                                {"X-Content-Type-Options", "nosniff"},
                                {"Referrer-Policy", "no-referrer"},
                                {"Cross-Origin-Resource-Policy", "same-origin"},
                                {"Cache-Control", "no-store"}});
    server.set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
      const int status = gate->refuses(request.path, request.get_header_value("Host"));
      if (status == 0) return httplib::Server::HandlerResponse::Unhandled;
      response.status = status;
      response.set_content("This is not the address of the session: take the one that percept printed.\n",
                           "text/plain; charset=utf-8");
      return httplib::Server::HandlerResponse::Handled;
    });
    const auto file = [&](const char* name, std::string_view text, const char* type) {
      server.Get(prefix + name, [text, type](const httplib::Request&, httplib::Response& response) {
        response.set_content(text.data(), text.size(), type);
      });
    };
    file("", live_page::page_html, "text/html; charset=utf-8");
    file("page.css", live_page::page_css, "text/css; charset=utf-8");
    file("page.js", live_page::page_js, "text/javascript; charset=utf-8");
    file("uplot.css", live_page::uplot_css, "text/css; charset=utf-8");
    file("uplot.js", live_page::uplot_js, "text/javascript; charset=utf-8");
    server.Get(prefix + "about", [this](const httplib::Request&, httplib::Response& response) {
      response.set_content(to_json(about), "application/json");
    });
    server.Get(prefix + "stream", [this](const httplib::Request&, httplib::Response& response) {
      if (viewers.fetch_add(1) >= params.viewers) {
        --viewers;
        response.status = 503;
        response.set_content("as many browsers as may look do", "text/plain; charset=utf-8");
        return;
      }
      response.set_chunked_content_provider(
          "text/event-stream", [this](std::size_t, httplib::DataSink& sink) { return stream(sink); },
          [this](bool) { --viewers; });
    });
    server.Post(prefix + "command",
                [this](const httplib::Request& request, httplib::Response& response) { command(request, response); });
  }
};

LivePage::LivePage(LiveLoop& loop, const Value& about, const Params& params, const std::string& where)
    : impl_(std::make_unique<Impl>(loop, about, params)) {
  Impl& i = *impl_;
  const std::string prefix = "/" + i.token + "/";
  i.set_up(prefix);
  int port = static_cast<int>(params.port);
  if (port == 0) port = i.server.bind_to_any_port(params.bind.c_str());
  else if (!i.server.bind_to_port(params.bind.c_str(), port)) port = -1;
  if (port < 0)
    throw ConfigError(where + ".port", fmt::format("{}", params.port),
                      fmt::format("a free port of {}, an address of this machine", params.bind));
  i.server.let_wait();
  const std::string host = fmt::format("{}:{}", params.bind == "0.0.0.0" ? "127.0.0.1" : params.bind, port);
  i.gate.emplace(prefix, host);
  url_ = "http://" + host + prefix;
  loop.watch_signal(true);
  i.signal_thread = std::thread([&i] { i.collect(); });
  i.listening = std::thread([&i] { i.server.listen_after_bind(); });
  while (!i.server.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

LivePage::~LivePage() {
  impl_->stopped = true;
  impl_->loop.watch_signal(false);
  // those who look are told the end; who does not read in time is not waited for
  for (int k = 0; k < 50 && impl_->viewers > 0; ++k) std::this_thread::sleep_for(kFrame);
  impl_->server.stop();
  impl_->listening.join();
  impl_->signal_thread.join();
}

std::int64_t LivePage::refused() const noexcept { return impl_->refused.load(); }

}  // namespace percept
