#include "realtime/outlets.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "realtime/clock.h"
#include "realtime/descriptor.h"
#include "realtime/lsl_library.h"
#include "realtime/queue.h"
#include "realtime/real_time.h"
#include "realtime/redis_connection.h"
#include "realtime/wakeup.h"
#include "realtime/wire.h"

namespace percept {

namespace {
constexpr std::int64_t kIdle = 50'000'000;          ///< how often a thread that waits looks whether it is to end [ns]
constexpr std::int64_t kFinish = 1'000'000'000;     ///< the most that finish() waits [ns]
constexpr std::int64_t kReconnect = 1'000'000'000;  ///< between two attempts [ns]
constexpr std::size_t kWaiting = 1024;              ///< states that may wait for a slow receiver

/// A state that owns its numbers.
struct HeldState {
  SentState state;
  std::vector<double> value, sd;
};

/// Hands states to a thread of its own, for receivers that a system call may wait for.
class PumpedOutlet : public Outlet {
 public:
  explicit PumpedOutlet(std::size_t rows) : items_(kWaiting), ready_(kWaiting), free_(kWaiting) {
    for (std::size_t i = 0; i < kWaiting; ++i) {
      items_[i].value.resize(rows);
      items_[i].sd.resize(rows);
      free_.push(static_cast<int>(i));
    }
  }
  bool send(const SentState& state) noexcept override {
    const int* free = free_.front();
    if (!free) {
      lost_.add();
      return false;
    }
    HeldState& item = items_[static_cast<std::size_t>(*free)];
    item.state = state;
    std::copy_n(state.value, item.value.size(), item.value.begin());
    std::copy_n(state.sd, item.sd.size(), item.sd.begin());
    item.state.value = item.value.data();
    item.state.sd = item.sd.data();
    ready_.push(*free);
    free_.pop();
    ++accepted_;
    filled_.notify();
    return true;
  }
  void finish() noexcept override {
    const std::int64_t until = steady_ns() + kFinish;
    while (done_.load(std::memory_order_acquire) < accepted_ && steady_ns() < until) ::usleep(1000);
    stop();
  }
  void raise(const RealTimeParams& params) noexcept override { raise_thread(thread_, params); }
  std::string trouble() const override {
    std::lock_guard lock(mutex_);
    return trouble_;
  }

 protected:
  /// Begins once the derived class is whole.
  void start() {
    thread_ = std::thread([this] { run(); });
  }
  /// Before the derived class goes.
  void stop() noexcept {
    stopped_.store(true, std::memory_order_relaxed);
    filled_.notify();
    if (thread_.joinable()) thread_.join();
  }
  /// On the thread: sends one state; false when it could not be sent.
  virtual bool give(const SentState& state) = 0;
  void say(const std::string& trouble) {
    std::lock_guard lock(mutex_);
    trouble_ = trouble;
  }

 private:
  void run() {
    while (!stopped_.load(std::memory_order_relaxed)) {
      const std::uint32_t seen = filled_.now();
      const int* ready = ready_.front();
      if (!ready) {
        filled_.wait(seen, kIdle);
        continue;
      }
      const int at = *ready;
      (give(items_[static_cast<std::size_t>(at)].state) ? sent_ : lost_).add();
      ready_.pop();
      free_.push(at);
      done_.fetch_add(1, std::memory_order_release);
    }
    for (; ready_.front(); ready_.pop()) lost_.add();
  }

  std::vector<HeldState> items_;
  SpscRing<int> ready_, free_;
  Wakeup filled_;
  std::int64_t accepted_ = 0;  ///< of the sending thread
  std::atomic<std::int64_t> done_{0};
  std::atomic<bool> stopped_{false};
  mutable std::mutex mutex_;  ///< of trouble; never taken by send()
  std::string trouble_;
  std::thread thread_;
};

/// Datagrams of percept's own packet: the rows of the state, the frame as its counter, the recording's time as the
/// device's. While the state is held an event "hold" comes before it, with the reason as its value.
class UdpOutlet final : public Outlet {
 public:
  struct Params {
    std::string host = "127.0.0.1";
    std::int64_t port = 0;
    static constexpr auto fields() {
      return std::tuple{field("host", &Params::host, "", "Address to send to."),
                        field("port", &Params::port, "", "UDP port to send to.", 1, 65535)};
    }
  };
  UdpOutlet(const Params& p, const OutletSettings& settings, const std::string& where)
      : socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)),
        device_(fmt::format("UDP port {} of {}", p.port, p.host)), rate_hz_(settings.rate_hz) {
    if (p.port == 0) throw ConfigError(where + ".port", "", "the UDP port to send to");
    at_.sin_family = AF_INET;
    at_.sin_port = htons(static_cast<std::uint16_t>(p.port));
    if (::inet_pton(AF_INET, p.host.c_str(), &at_.sin_addr) != 1)
      throw ConfigError(where + ".host", "\"" + p.host + "\"", "an IPv4 address, such as 127.0.0.1");
    if (socket_.get() < 0) throw ConfigError(where, "", fmt::format("a UDP socket, found: {}", std::strerror(errno)));
    room_.resize(WirePacket::kHead + 8 * settings.rows.size() + 256);
  }
  std::string device() const override { return device_; }
  bool send(const SentState& s) noexcept override {
    WirePacket p;
    p.counter = s.frame;
    p.device_s = s.time_s;
    p.rate_hz = rate_hz_;
    if (s.hold != hold_) {
      hold_ = s.hold;
      p.label = "hold";
      p.value = static_cast<double>(s.hold);
      put(write_wire_event(p, room_, true));
    }
    if (s.clicks > 0) {
      p.label = "click";
      p.value = static_cast<double>(s.clicks);
      put(write_wire_event(p, room_, true));
    }
    const auto rows = s.rows;
    const bool sent = put(write_wire(p, FrameSpan<const double>{s.value, rows, 1, rows}, room_, true));
    (sent ? sent_ : lost_).add();
    return sent;
  }

 private:
  bool put(std::size_t bytes) noexcept {
    return bytes > 0 && ::sendto(socket_.get(), room_.data(), bytes, MSG_NOSIGNAL,
                                 reinterpret_cast<const sockaddr*>(&at_), sizeof at_) == static_cast<ssize_t>(bytes);
  }
  Descriptor socket_;
  sockaddr_in at_{};
  std::string device_;
  double rate_hz_ = 0;
  Hold hold_ = Hold::none;
  std::vector<std::byte> room_;
};

/// A line of JSON for each state.
class StdoutOutlet final : public PumpedOutlet {
 public:
  explicit StdoutOutlet(const OutletSettings& settings) : PumpedOutlet(settings.rows.size()), rows_(settings.rows) {
    start();
  }
  ~StdoutOutlet() override { stop(); }
  std::string device() const override { return "standard output"; }

 private:
  bool give(const SentState& s) override {
    Value v = Value::object({{"frame", s.frame}, {"time_s", s.time_s}});
    const auto number = [](double x) { return std::isfinite(x) ? Value(x) : Value(); };
    Value sd = Value::table();
    for (Index i = 0; i < s.rows; ++i) {
      v[rows_[static_cast<std::size_t>(i)]] = number(s.value[i]);
      if (std::isfinite(s.sd[i])) sd[rows_[static_cast<std::size_t>(i)]] = s.sd[i];
    }
    if (sd.size()) v["sd"] = std::move(sd);
    if (s.hold != Hold::none) v["held"] = text_of(s.hold);
    if (s.clicks > 0) v["clicks"] = s.clicks;
    const std::string line = to_json(v) + "\n";
    for (std::size_t done = 0; done < line.size();) {
      const auto n = ::write(STDOUT_FILENO, line.data() + done, line.size() - done);
      if (n > 0) done += static_cast<std::size_t>(n);
      else if (errno != EINTR) {
        say(fmt::format("standard output: {}", std::strerror(errno)));
        return false;
      }
    }
    return true;
  }
  std::vector<std::string> rows_;
};

/// XADD in the layout that RedisSource reads and BRAND's nodes write: binary samples, ts in nanoseconds.
class RedisOutlet final : public PumpedOutlet {
 public:
  struct Params {
    std::string host = "127.0.0.1", socket, stream = "percept";
    std::int64_t port = 6379, keep = 100000;
    static constexpr auto fields() {
      return std::tuple{field("host", &Params::host, "", "Where the server is."),
                        field("port", &Params::port, "", "Its port.", 1, 65535),
                        field("socket", &Params::socket, "", "Its Unix socket, instead of host and port."),
                        field("stream", &Params::stream, "",
                              "Key of the stream: an entry for each state, with `samples` (float64), "
                              "`sd`, `ts` (when the packet behind it came, ns), `i` (frame), `held`, `clicks`."),
                        field("keep", &Params::keep, "entries", "About so many entries are kept; 0: all.", 0, 1e12)};
    }
  };
  RedisOutlet(const Params& p, const OutletSettings& settings, const std::string& where)
      : PumpedOutlet(settings.rows.size()), p_(p), address_{p.host, p.socket, p.port}, connection_(address_),
        keep_(fmt::format("{}", p.keep > 0 ? p.keep : std::numeric_limits<std::int64_t>::max())) {
    if (!connection_.connect(2))
      throw ConfigError(where, device(), fmt::format("a Redis server, found: {}", connection_.error()));
    start();
  }
  ~RedisOutlet() override { stop(); }
  std::string device() const override { return address_.text() + " " + p_.stream; }

 private:
  bool give(const SentState& s) override {
    if (!connection_.connected()) {
      if (steady_ns() < not_before_ns_) return false;
      not_before_ns_ = steady_ns() + kReconnect;
      if (!connection_.connect(0.5)) {
        say(connection_.error());
        return false;
      }
    }
    const auto bytes = [](const auto* numbers, std::size_t n) {
      return std::string_view(reinterpret_cast<const char*>(numbers), n * 8);
    };
    const auto rows = static_cast<std::size_t>(s.rows);
    const std::string frame = fmt::format("{}", s.frame), clicks = fmt::format("{}", s.clicks);
    const auto reply = connection_.ask(
        {"XADD", p_.stream, "MAXLEN", "~", keep_, "*", "ts", bytes(&s.received_ns, 1), "i", frame, "samples",
         bytes(s.value, rows), "sd", bytes(s.sd, rows), "held", text_of(s.hold), "clicks", clicks},
        1'000'000'000);
    say(reply ? "" : connection_.error());
    return reply != nullptr;
  }

  Params p_;
  RedisAddress address_;
  RedisConnection connection_;
  std::string keep_;
  std::int64_t not_before_ns_ = 0;
};

/// An outlet of Lab Streaming Layer: a channel for each row, then one that is 1 while the state is held; behind it the
/// clicks, where there is a click decoder.
class LslOutlet final : public PumpedOutlet {
 public:
  struct Params {
    std::string name = "percept", type = "decoded", source_id = "percept";
    static constexpr auto fields() {
      return std::tuple{field("name", &Params::name, "", "Name of the outlet."),
                        field("type", &Params::type, "", "Its type."),
                        field("source_id", &Params::source_id, "", "By which an inlet finds it again.")};
    }
  };
  LslOutlet(const Params& p, const OutletSettings& settings, const std::string&)
      : PumpedOutlet(settings.rows.size()), library_(load_lsl()), device_("Lab Streaming Layer: " + p.name),
        rows_(settings.rows.size()), sample_(rows_ + (settings.clicks ? 2 : 1)) {
    const LslLibrary& l = *library_;
    const auto info = l.create_streaminfo(p.name.c_str(), p.type.c_str(), static_cast<std::int32_t>(sample_.size()),
                                          settings.rate_hz, LslLibrary::kDouble64, p.source_id.c_str());
    const auto channels = l.append_child(l.get_desc(info), "channels");
    for (std::size_t i = 0; i < sample_.size(); ++i)
      l.append_child_value(l.append_child(channels, "channel"), "label",
                           i < rows_    ? settings.rows[i].c_str()
                           : i == rows_ ? "held"
                                        : "clicks");
    outlet_ = l.create_outlet(info, 0, 360);
    l.destroy_streaminfo(info);
    start();
  }
  ~LslOutlet() override {
    stop();
    if (outlet_) library_->destroy_outlet(outlet_);
  }
  std::string device() const override { return device_; }

 private:
  bool give(const SentState& s) override {
    std::copy_n(s.value, s.rows, sample_.begin());
    sample_[rows_] = s.hold == Hold::none ? 0 : 1;
    if (sample_.size() > rows_ + 1) sample_.back() = static_cast<double>(s.clicks);
    return library_->push_sample_dtp(outlet_, sample_.data(), 0, 1) == 0;
  }
  std::shared_ptr<const LslLibrary> library_;
  std::string device_;
  std::size_t rows_;
  std::vector<double> sample_;
  LslLibrary::Outlet outlet_ = nullptr;
};

struct OutletRow {
  DeviceKind kind;
  std::unique_ptr<Outlet> (*make)(const Value&, const OutletSettings&, const std::string&);
};
const std::vector<OutletRow>& outlet_rows() {
  static const std::vector<OutletRow> all{
      {{"udp", "Datagrams of percept's own packet.", describe_params<UdpOutlet::Params>()},
       [](const Value& v, const OutletSettings& s, const std::string& where) -> std::unique_ptr<Outlet> {
         return std::make_unique<UdpOutlet>(read_params<UdpOutlet::Params>(v, where), s, where);
       }},
      {{"stdout", "A line of JSON for each state on standard output.", describe_params<NoParams>()},
       [](const Value& v, const OutletSettings& s, const std::string& where) -> std::unique_ptr<Outlet> {
         read_params<NoParams>(v, where);
         return std::make_unique<StdoutOutlet>(s);
       }},
      {{"redis", "A stream of a Redis server, in the layout of BRAND.", describe_params<RedisOutlet::Params>()},
       [](const Value& v, const OutletSettings& s, const std::string& where) -> std::unique_ptr<Outlet> {
         return std::make_unique<RedisOutlet>(read_params<RedisOutlet::Params>(v, where), s, where);
       }},
      {{"lsl", "An outlet of Lab Streaming Layer.", describe_params<LslOutlet::Params>()},
       [](const Value& v, const OutletSettings& s, const std::string& where) -> std::unique_ptr<Outlet> {
         return std::make_unique<LslOutlet>(read_params<LslOutlet::Params>(v, where), s, where);
       }}};
  return all;
}
}  // namespace

const std::vector<DeviceKind>& outlet_kinds() {
  static const std::vector<DeviceKind> kinds = [] {
    std::vector<DeviceKind> all;
    for (auto& r : outlet_rows()) all.push_back(r.kind);
    return all;
  }();
  return kinds;
}

DeviceSpec parse_outlet(std::string_view text, const std::string& where) {
  return parse_device(text, outlet_kinds(), where);
}
DeviceSpec read_outlet(const Value& table, const std::string& where) {
  return read_device(table, outlet_kinds(), where);
}
std::unique_ptr<Outlet> make_outlet(const DeviceSpec& spec, const OutletSettings& settings, const std::string& where) {
  return outlet_rows()[kind_at(outlet_kinds(), spec.use, where)].make(spec.params, settings,
                                                                      fmt::format("{}: {}", where, spec.use));
}

}  // namespace percept
