#include "realtime/live_page.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "realtime/page/assets.h"

namespace percept {

namespace {
constexpr std::size_t kLargestCommand = 4096;  ///< bytes of a request's body
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

/// Takes as long for a wrong text as for a right one.
bool same_text(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
  return difference == 0;
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

std::string state_event(const LiveState& s, bool emergency) {
  std::string e = fmt::format("event: state\ndata: {{\"frames\":{},\"t\":", s.frames);
  append_number(e, s.time_s);
  e += ",\"age\":";
  append_number(e, s.age_s);
  e += fmt::format(",\"hold\":{},\"emergency\":{},\"v\":",
                   s.hold == Hold::none ? "null" : "\"" + std::string(text_of(s.hold)) + "\"", emergency);
  append_list(e, s.value, static_cast<std::size_t>(s.rows));
  e += ",\"sd\":";
  append_list(e, s.sd, static_cast<std::size_t>(s.rows));
  e += ",\"c01\":";
  append_number(e, s.covariance_01);
  e += "}\n\n";
  return e;
}
}  // namespace

struct LivePage::Impl {
  Impl(LiveLoop& l, const Value& a, const Params& p) : loop(l), about(a), params(p) {}

  LiveLoop& loop;
  Value about;
  Params params;
  std::string token = random_token(), host;  // host: as the Host header has to name it
  httplib::Server server;
  std::thread listening;
  std::atomic<int> viewers{0};
  std::atomic<bool> stopped{false};
  std::atomic<std::int64_t> refused{0};

  // One thread takes the loop's signal and hands it to every viewer: the newest piece, by number.
  std::mutex signal_mutex;
  std::vector<std::pair<std::int64_t, std::string>> signals;
  std::int64_t signal_number = 0;
  std::thread signal_thread;

  void collect() {
    SignalFrame frame;
    while (!stopped) {
      std::vector<std::string> pieces(static_cast<std::size_t>(LiveState::kMostInputs));
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
      ++refused;
      response.status = status;
      response.set_content(why, "text/plain; charset=utf-8");
    };
    if (!same_text(request.get_header_value("Origin"), "http://" + host))
      return refuse(403, "a command comes from the session's own page");
    if (request.get_header_value("Content-Type") != "application/json") return refuse(415, "a command is JSON");
    try {
      const Value v = parse_json(request.body, "command");
      const std::string& what = v.at("do").as_string();
      if (what == "emergency") loop.emergency(true);
      else if (what == "release") loop.emergency(false);
      else if (what == "stop") loop.stop();
      else if (what == "mask" || what == "unmask") {
        const auto input = v.at("input").as_integer(), row = v.at("row").as_integer();
        if (input < 0 || input > LiveState::kMostInputs || !loop.mask(static_cast<int>(input), row, what == "mask"))
          return refuse(400, "there is no such channel");
      } else return refuse(400, "a command is one of emergency, release, stop, mask, unmask");
      response.set_content("{}", "application/json");
    } catch (const Error& e) {
      refuse(400, e.what());
    }
  }

  void set_up(const std::string& prefix) {
    server.set_payload_max_length(kLargestCommand);
    server.set_read_timeout(2, 0);
    server.set_write_timeout(1, 0);
    server.set_keep_alive_max_count(100);
    server.set_keep_alive_timeout(2);
    server.set_tcp_nodelay(true);
    // not shared with another program, which the library would allow
    server.set_socket_options([](socket_t socket) {
      const int yes = 1;
      ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    const auto threads = static_cast<std::size_t>(params.viewers) + 4;
    server.new_task_queue = [threads] { return new httplib::ThreadPool(threads); };
    server.set_default_headers({{"Content-Security-Policy",
                                 "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src "
                                 "data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
                                {"X-Content-Type-Options", "nosniff"},
                                {"Referrer-Policy", "no-referrer"},
                                {"Cross-Origin-Resource-Policy", "same-origin"},
                                {"Cache-Control", "no-store"}});
    server.set_pre_routing_handler([this, prefix](const httplib::Request& request, httplib::Response& response) {
      const std::string_view path = request.path;
      const bool known = path.size() >= prefix.size() && same_text(path.substr(0, prefix.size()), prefix);
      // another name for this machine is somebody else's page that points here
      if (known && same_text(request.get_header_value("Host"), host))
        return httplib::Server::HandlerResponse::Unhandled;
      ++refused;
      response.status = known ? 403 : 404;
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
        ++refused;
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
  i.host = fmt::format("{}:{}", params.bind == "0.0.0.0" ? "127.0.0.1" : params.bind, port);
  url_ = "http://" + i.host + prefix;
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
