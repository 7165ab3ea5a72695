#include "realtime/lsl_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "core/error.h"
#include "realtime/labels.h"
#include "realtime/queue.h"

namespace percept {

namespace {
constexpr double kMeasureEvery = 5;  ///< [s]
constexpr double kMeasureLimit = 2;  ///< how long the library may take to measure the outlet's clock [s]
constexpr std::size_t kMostMarkers = 256;

std::string c_text(const char* s) { return s ? s : ""; }

/// A value of an XPath predicate in quotes; a quote inside cannot be had.
std::string equals(const char* key, const std::string& value, const std::string& where) {
  if (value.find('\'') != value.npos && value.find('"') != value.npos)
    throw ConfigError(where, value, "a text with one kind of quotes at most");
  const char quote = value.find('\'') == value.npos ? '\'' : '"';
  return fmt::format("{}={}{}{}", key, quote, value, quote);
}
}  // namespace

struct LslSource::Impl {
  /// An inlet, closed by whoever holds it last: the thread that measures may be in it.
  struct Inlet {
    std::shared_ptr<const LslLibrary> lsl;
    LslLibrary::Inlet handle = nullptr;
    std::atomic<double> correction_s{std::numeric_limits<double>::quiet_NaN()};
    ~Inlet() {
      if (handle) lsl->destroy_inlet(handle);
    }
  };
  using Info = std::shared_ptr<void>;

  Params p;
  std::string where, predicate;
  std::shared_ptr<const LslLibrary> lsl;
  SourceInfo info;
  StreamFormat format;
  bool wide = false;
  std::vector<std::byte> room;
  std::vector<double> stamps;
  mutable std::mutex mutex;  ///< of inlets and trouble; never taken on the real-time thread
  std::shared_ptr<Inlet> data, markers;
  std::string trouble;
  Labels labels{{}, true};
  std::vector<Event> events;
  Index begin = 0, waiting = 0;  ///< of what was pulled: frames that were not handed over
  // counting
  std::int64_t next = 0, last_received_ns = 0, pulled_ns = 0;
  double expected_s = std::numeric_limits<double>::quiet_NaN();
  // the thread that measures
  std::thread measuring;
  std::condition_variable end;
  SpscRing<ClockSample> samples{16};
  std::atomic<bool> stopped{false};
  std::atomic<std::int64_t> packets{0}, lost_events{0}, infinite{0}, foreign{0}, reconnects{0};

  void say(std::string s) {
    std::lock_guard lock(mutex);
    trouble = std::move(s);
  }
  std::shared_ptr<Inlet> inlet(bool of_markers) const {
    std::lock_guard lock(mutex);
    return of_markers ? markers : data;
  }

  /// The outlets that match within the time.
  std::vector<Info> resolve(const std::string& query, double timeout) const {
    LslLibrary::Info found[32] = {};
    const int n = lsl->resolve_bypred(found, 32, query.c_str(), 1, timeout);
    std::vector<Info> all;
    for (int i = 0; i < n && i < 32; ++i) all.emplace_back(found[i], lsl->destroy_streaminfo);
    return all;
  }

  std::string describe(const Info& of) const {
    return fmt::format("{} ({}, {} x {} Hz, source_id \"{}\" on {})", c_text(lsl->get_name(of.get())),
                       c_text(lsl->get_type(of.get())), lsl->get_channel_count(of.get()),
                       lsl->get_nominal_srate(of.get()), c_text(lsl->get_source_id(of.get())),
                       c_text(lsl->get_hostname(of.get())));
  }

  /// The one outlet; waits for it.
  Info find(const std::string& query, double wait_s) const {
    const std::int64_t until = steady_ns() + static_cast<std::int64_t>(wait_s * 1e9);
    for (;;) {
      const auto all = resolve(query, std::clamp(static_cast<double>(until - steady_ns()) * 1e-9, 0.05, 1.0));
      if (all.size() > 1) {
        std::string names;
        for (auto& i : all) names += (names.empty() ? "" : "; ") + describe(i);
        throw ConfigError(where, query, "one outlet, found " + names);
      }
      if (all.size() == 1) return all[0];
      if (steady_ns() >= until)
        throw ConfigError(where, query,
                          fmt::format("an outlet of Lab Streaming Layer within {} s, found none", wait_s));
    }
  }

  std::shared_ptr<Inlet> open(const Info& of, double wait_s) const {
    auto in = std::make_shared<Inlet>();
    in->lsl = lsl;
    in->handle = lsl->create_inlet(of.get(), static_cast<std::int32_t>(p.buffer_s), 0, 1);
    if (!in->handle) throw ConfigError(where, describe(of), "an outlet that can be opened");
    std::int32_t error = 0;
    lsl->open_stream(in->handle, wait_s, &error);
    if (error != 0)
      throw ConfigError(where, describe(of),
                        fmt::format("an outlet that answers within {} s, found error {}", wait_s, error));
    return in;
  }

  void read_channels(Inlet& in) {
    std::int32_t error = 0;
    const Info full(lsl->get_fullinfo(in.handle, p.wait_s, &error), [this](void* i) {
      if (i) lsl->destroy_streaminfo(i);
    });
    if (!full) return;  // the names are missing, the samples are not
    auto channel = lsl->child(lsl->child(lsl->get_desc(full.get()), "channels"), "channel");
    Part& part = format.parts[0];
    for (Index i = 0; i < part.shape[0]; ++i) {
      const bool there = channel && !lsl->empty(channel);
      const std::string label = there ? c_text(lsl->child_value_n(channel, "label")) : "";
      part.rows.push_back({.name = label.empty() ? fmt::format("channel_{}", i) : label,
                           .kind = there ? c_text(lsl->child_value_n(channel, "type")) : "",
                           .unit = there ? c_text(lsl->child_value_n(channel, "unit")) : "",
                           .position = {},
                           .good = true});
      if (there) channel = lsl->next_sibling(channel);
    }
  }

  void measure() noexcept {
    std::unique_lock lock(mutex);
    while (!stopped) {
      const auto now_data = data, now_markers = markers;
      lock.unlock();
      for (auto& in : {now_data, now_markers}) {
        if (!in || stopped) continue;
        double remote = 0, error_s = 0;
        std::int32_t error = 0;
        const double correction = lsl->time_correction_ex(in->handle, &remote, &error_s, kMeasureLimit, &error);
        if (error != 0 || !std::isfinite(correction)) continue;
        in->correction_s = correction;
        if (in == now_data)
          samples.push({.device_s = remote,
                        .local_ns = static_cast<std::int64_t>((remote + correction + lsl->steady_offset_s) * 1e9),
                        .error_s = std::max(error_s, 0.0)});
      }
      lock.lock();
      if (!stopped) end.wait_for(lock, std::chrono::duration<double>(kMeasureEvery));
    }
  }

  /// Looks for an outlet that went away and cannot come back by itself.
  bool reopen() {
    const auto all = resolve(predicate, 0.5);
    if (all.empty()) return false;
    if (lsl->get_channel_count(all[0].get()) != format.size() ||
        lsl->get_nominal_srate(all[0].get()) != format.rate_hz) {
      foreign.fetch_add(1, std::memory_order_relaxed);
      say(fmt::format("{} came back as {}, announced were {} x {} Hz", info.device, describe(all[0]), format.size(),
                      format.rate_hz));
      return false;
    }
    auto fresh = open(all[0], 2);
    {
      std::lock_guard lock(mutex);
      data = std::move(fresh);
      trouble.clear();
    }
    reconnects.fetch_add(1, std::memory_order_relaxed);
    end.notify_all();
    return true;
  }

  template <class T>
  Index pull(LslLibrary::Inlet handle, double timeout_s, std::int32_t& error) {
    T* values = reinterpret_cast<T*>(room.data());
    const auto rows = static_cast<std::int32_t>(format.size());
    const auto one = [&](T* to, double timeout) {
      if constexpr (std::is_same_v<T, float>) return lsl->pull_sample_f(handle, to, rows, timeout, &error);
      else return lsl->pull_sample_d(handle, to, rows, timeout, &error);
    };
    // pull_chunk with a timeout waits until its buffer is full: so one sample is waited for, and the rest is taken
    stamps[0] = one(values, timeout_s);
    if (error != 0 || stamps[0] == 0) return 0;
    const Index more = format.max_frames - 1;
    if (more == 0) return 1;
    const auto elements = static_cast<unsigned long>(more * rows);
    unsigned long n = 0;
    if constexpr (std::is_same_v<T, float>)
      n = lsl->pull_chunk_f(handle, values + rows, stamps.data() + 1, elements, static_cast<unsigned long>(more), 0,
                            &error);
    else
      n = lsl->pull_chunk_d(handle, values + rows, stamps.data() + 1, elements, static_cast<unsigned long>(more), 0,
                            &error);
    error = 0;  // what came is taken first
    for (T* v = values; v < values + rows + n; ++v)
      if (std::isinf(*v)) {
        *v = std::numeric_limits<T>::quiet_NaN();
        infinite.fetch_add(1, std::memory_order_relaxed);
      }
    return 1 + static_cast<Index>(n) / rows;
  }

  void take_markers(const Inlet& of, double first_s) {
    const auto in = inlet(true);
    if (!in) return;
    for (std::size_t i = 0; i < kMostMarkers; ++i) {
      char* value = nullptr;
      std::int32_t error = 0;
      const double stamp = lsl->pull_sample_str(in->handle, &value, 1, 0, &error);
      if (error != 0 || stamp == 0) return;
      const std::string label = c_text(value);
      if (value) lsl->destroy_string(value);
      // by the clocks of both outlets, once they are measured; else both are taken to be of one machine
      double apart = in->correction_s - of.correction_s;
      if (std::isnan(apart)) apart = 0;
      events.push_back({.onset_s = stamp - first_s + apart, .label = labels.of(label)});
    }
  }
};

LslSource::LslSource(const Params& p, const std::string& where, std::shared_ptr<const LslLibrary> library)
    : impl_(std::make_unique<Impl>()) {
  auto& im = *impl_;
  im.p = p;
  im.where = where;
  im.lsl = std::move(library);
  im.predicate = p.query;
  if (p.query.empty())
    for (auto& [key, value] : {std::pair{"name", p.stream}, {"type", p.type}, {"source_id", p.source_id}})
      if (!value.empty()) im.predicate += (im.predicate.empty() ? "" : " and ") + equals(key, value, where);
  if (im.predicate.empty()) throw ConfigError(where, "", "stream, type, source_id or query: which outlet is meant");
  const auto found = im.find(im.predicate, p.wait_s);
  const int channels = im.lsl->get_channel_count(found.get()), type = im.lsl->get_channel_format(found.get());
  const double rate = im.lsl->get_nominal_srate(found.get());
  if (type == LslLibrary::kString || channels < 1 || !(rate > 0) || std::isinf(rate))
    throw ConfigError(where, im.describe(found), "an outlet of numbers with a rate");
  im.wide = type == LslLibrary::kDouble64 || type == LslLibrary::kInt32 || type == LslLibrary::kInt64;
  const std::string name = p.name.empty() ? c_text(im.lsl->get_name(found.get())) : p.name;
  im.format = time_format(channels, rate, im.wide ? Scalar::f64 : Scalar::f32, name);
  im.format.max_frames = p.packet;
  im.info = {.name = name, .kind = "lsl", .device = im.describe(found), .clock = "stamps of the outlet [s]"};
  im.data = im.open(found, std::max(p.wait_s, 1.0));
  im.read_channels(*im.data);
  if (!p.markers.empty()) {
    const auto outlet = im.find(equals("name", p.markers, where + ".markers"), p.wait_s);
    if (im.lsl->get_channel_format(outlet.get()) != LslLibrary::kString || im.lsl->get_channel_count(outlet.get()) != 1)
      throw ConfigError(where + ".markers", im.describe(outlet), "an outlet of one text");
    im.markers = im.open(outlet, std::max(p.wait_s, 1.0));
  }
  im.room.resize(static_cast<std::size_t>(im.format.size() * p.packet) * bytes_of(im.format.scalar));
  im.stamps.resize(static_cast<std::size_t>(p.packet));
}

LslSource::~LslSource() {
  stop();
  if (impl_->measuring.joinable()) impl_->measuring.join();
}

const SourceInfo& LslSource::info() const { return impl_->info; }
const StreamFormat& LslSource::format() const { return impl_->format; }

void LslSource::start() {
  if (!impl_->measuring.joinable()) impl_->measuring = std::thread([im = impl_.get()] { im->measure(); });
}

Source::Got LslSource::poll(Packet& packet, std::int64_t timeout_ns) noexcept try {
  auto& im = *impl_;
  if (im.stopped) return Got::ended;
  auto in = im.inlet(false);
  if (!in && !im.reopen()) return Got::nothing;
  if (!in) in = im.inlet(false);
  if (im.waiting == 0) {
    std::int32_t error = 0;
    const double timeout_s = static_cast<double>(timeout_ns) * 1e-9;
    im.begin = 0;
    im.waiting = im.wide ? im.pull<double>(in->handle, timeout_s, error) : im.pull<float>(in->handle, timeout_s, error);
    if (error == LslLibrary::kLost) {
      std::lock_guard lock(im.mutex);
      im.data.reset();
      im.trouble = im.info.device + " went away";
      return Got::nothing;
    }
    im.pulled_ns = steady_ns();
  }
  if (im.waiting == 0) return Got::nothing;
  const double rate = im.format.rate_hz;
  const double* stamps = im.stamps.data() + im.begin;
  // as far as the stamps follow each other: what is behind a jump is a packet of its own
  Index n = 1;
  while (n < im.waiting && std::abs(stamps[n] - stamps[n - 1] - 1 / rate) <= im.p.gap_s) ++n;
  const double first_s = stamps[0], last_s = stamps[n - 1];
  packet = {};
  packet.received_ns = im.pulled_ns;
  const double ahead_s = first_s - im.expected_s;
  if (ahead_s > im.p.gap_s) {
    im.next += std::llround(ahead_s * rate);
  } else if (ahead_s < -im.p.gap_s && im.last_received_ns) {
    // the outlet began anew, on a clock of its own: only our own says how long that took
    const double silent_s = static_cast<double>(packet.received_ns - im.last_received_ns) * 1e-9;
    im.next += std::max<std::int64_t>(0, std::llround(silent_s * rate) - n);
  }
  // a smooth count between gaps: the stamps of an outlet jitter
  const bool followed = std::abs(ahead_s) <= im.p.gap_s;
  im.expected_s = (followed ? im.expected_s + 0.1 * ahead_s + static_cast<double>(n) / rate : last_s + 1 / rate);
  im.last_received_ns = packet.received_ns;

  packet.x = ConstFrames(im.room.data(), im.format.scalar, im.format.size(), im.begin + n, im.format.size())
                 .slice(im.begin, n);
  im.begin += n;
  im.waiting -= n;
  packet.counter = im.next;
  im.next += n;
  packet.device_s = last_s;
  if (const ClockSample* sample = im.samples.front()) {
    packet.clock = *sample;
    im.samples.pop();
  }
  im.events.clear();
  im.take_markers(*in, first_s);
  packet.events = im.events;
  packet.events_from_packet = true;
  im.packets.fetch_add(1, std::memory_order_relaxed);
  return Got::packet;
} catch (const std::exception& e) {
  impl_->say(e.what());
  return Got::nothing;
}

void LslSource::stop() noexcept {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopped = true;
  }
  impl_->end.notify_all();
}

SourceCounts LslSource::counts() const {
  SourceCounts c;
  c.packets = impl_->packets.load(std::memory_order_relaxed);
  c.foreign = impl_->foreign.load(std::memory_order_relaxed);
  c.infinite = impl_->infinite.load(std::memory_order_relaxed);
  c.reconnects = impl_->reconnects.load(std::memory_order_relaxed);
  return c;
}

std::string LslSource::trouble() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->trouble;
}

}  // namespace percept
