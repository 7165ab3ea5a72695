#include "realtime/redis_source.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <optional>
#include <thread>

#include "core/error.h"
#include "realtime/redis_connection.h"

namespace percept {

namespace {
constexpr std::size_t kLongestLabel = 4096;      ///< bytes of a sync label that are read
constexpr std::size_t kLongestEntry = 16 << 20;  ///< bytes of samples
constexpr std::size_t kMostFields = 256;
constexpr std::int64_t kPause = 200'000'000;  ///< between two attempts to connect [ns]

std::string_view find(RedisFields fields, std::string_view key) {
  for (auto& [k, v] : fields)
    if (k == key) return v;
  return {};
}

template <class T>
T bytes_as(std::string_view bytes, std::size_t at = 0) {
  T v;
  std::memcpy(&v, bytes.data() + at, sizeof v);
  return v;
}

bool is_text_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789.+-eE") == text.npos;
}

/// Decimal text, or eight bytes as numpy's uint64 gives them.
std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t v = 0;
  if (text.find_first_not_of("0123456789") == text.npos && !text.empty()) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
    if (error != std::errc()) return std::nullopt;
    return v;
  }
  if (text.size() != 8) return std::nullopt;
  v = bytes_as<std::int64_t>(text);
  return v >= 0 ? std::optional(v) : std::nullopt;
}

/// Seconds from eight bytes of nanoseconds, from text in nanoseconds, or from text in seconds with a point.
double seconds(std::string_view text) {
  const double nothing = std::numeric_limits<double>::quiet_NaN();
  if (is_text_number(text)) {
    double v = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(v)) return nothing;
    return text.find('.') == text.npos ? v * 1e-9 : v;
  }
  if (text.size() != 8) return nothing;
  return static_cast<double>(bytes_as<std::uint64_t>(text)) * 1e-9;
}

std::size_t sample_size(const std::string& type) {
  return type.ends_with("64") ? 8 : type.ends_with("32") ? 4 : type.ends_with("16") ? 2 : 1;
}

/// Samples as frames; infinities become NaN and are counted.
template <class From, class To>
std::int64_t unpack_samples(std::string_view bytes, bool by_channel, double scale, FrameSpan<To> out) {
  std::int64_t infinite = 0;
  for (Index k = 0; k < out.frames; ++k)
    for (Index r = 0; r < out.rows; ++r) {
      const Index at = by_channel ? r * out.frames + k : k * out.rows + r;
      const auto v = bytes_as<From>(bytes, static_cast<std::size_t>(at) * sizeof(From));
      out.frame(k)[r] = static_cast<To>(static_cast<double>(v) * scale);
      if (std::isinf(out.frame(k)[r])) {
        out.frame(k)[r] = std::numeric_limits<To>::quiet_NaN();
        ++infinite;
      }
    }
  return infinite;
}
template <class To>
std::int64_t unpack_as_type(const std::string& type, std::string_view bytes, bool by_channel, double scale,
                            FrameSpan<To> out) {
  if (type == "int8") return unpack_samples<std::int8_t>(bytes, by_channel, scale, out);
  if (type == "uint8") return unpack_samples<std::uint8_t>(bytes, by_channel, scale, out);
  if (type == "int16") return unpack_samples<std::int16_t>(bytes, by_channel, scale, out);
  if (type == "uint16") return unpack_samples<std::uint16_t>(bytes, by_channel, scale, out);
  if (type == "int32") return unpack_samples<std::int32_t>(bytes, by_channel, scale, out);
  if (type == "uint32") return unpack_samples<std::uint32_t>(bytes, by_channel, scale, out);
  if (type == "float32") return unpack_samples<float>(bytes, by_channel, scale, out);
  return unpack_samples<double>(bytes, by_channel, scale, out);
}
}  // namespace

RedisIntake::RedisIntake(const RedisParams& p, const std::string& where)
    : params_(p), where_(where), sample_bytes_(sample_size(p.type)) {
  if (p.counter.empty()) by_ = By::entries;
  else if (p.counter == "i") by_ = By::i;
  else if (p.counter == "timestamps") by_ = By::timestamps;
  else if (p.counter.starts_with("sync.") && p.counter.size() > 5) by_ = By::sync, sync_label_ = p.counter.substr(5);
  else throw ConfigError(where + ".counter", "\"" + p.counter + "\"", "timestamps, i, sync.NAME, or nothing");
}

Index RedisIntake::rows_of(RedisFields fields) const {
  const std::size_t size = find(fields, params_.samples).size(),
                    row = sample_bytes_ * static_cast<std::size_t>(params_.frames);
  return size <= kLongestEntry && size % row == 0 ? static_cast<Index>(size / row) : 0;
}

void RedisIntake::prepare(Index rows) {
  const bool wide = params_.type == "float64" || params_.type.ends_with("int32");
  format_ = time_format(rows, params_.rate_hz, wide ? Scalar::f64 : Scalar::f32, params_.name);
  format_.max_frames = params_.frames;
  room_.resize(static_cast<std::size_t>(rows * params_.frames) * bytes_of(format_.scalar));
}

bool RedisIntake::read_counter(RedisFields fields, std::int64_t& frame) {
  std::int64_t ticks = 0;
  switch (by_) {
    case By::entries:
      frame = entries_ * params_.frames;
      break;
    case By::i: {
      const auto i = whole_number(find(fields, "i"));
      if (!i || __builtin_mul_overflow(*i, params_.frames, &frame)) return false;
      break;
    }
    case By::timestamps: {
      const auto text = find(fields, "timestamps");
      const auto n = static_cast<std::size_t>(params_.frames);
      if (text.size() == 8 * n) {
        const auto t = bytes_as<std::uint64_t>(text);
        if (t > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return false;
        ticks = static_cast<std::int64_t>(t);
      } else if (text.size() == 4 * n) {
        const auto t = bytes_as<std::uint32_t>(text);
        // a counter of 32 bits wraps after a day or two: the nearest to the last one is meant
        ticks = ticked_ ? last_ticks_ + static_cast<std::int32_t>(t - static_cast<std::uint32_t>(last_ticks_))
                        : static_cast<std::int64_t>(t);
      } else {
        return false;
      }
      break;
    }
    case By::sync: {
      const auto text = find(fields, "sync");
      if (text.empty() || text.size() > kLongestLabel) return false;
      try {
        const Value labels = parse_json(text, "sync");
        const Value* v = labels.find(sync_label_);
        if (!v || !v->is_integer()) return false;
        ticks = v->as_integer();
      } catch (const Error&) {
        return false;
      }
      break;
    }
  }
  if (by_ == By::timestamps || by_ == By::sync) {
    last_ticks_ = ticks;
    ticked_ = true;
    frame = ticks / params_.ticks - (ticks % params_.ticks < 0);
  }
  ++entries_;
  return true;
}

bool RedisIntake::take(RedisFields fields, std::int64_t received_ns, Packet& packet) {
  const std::string_view samples = find(fields, params_.samples);
  if (samples.empty()) {
    count_malformed();
    return false;
  }
  if (samples.size() != sample_bytes_ * static_cast<std::size_t>(format_.size() * params_.frames)) {
    foreign_.fetch_add(1, std::memory_order_relaxed);
    foreign_bytes_.store(static_cast<std::int64_t>(samples.size()), std::memory_order_relaxed);
    ++entries_;
    return false;
  }
  std::int64_t counter = 0;
  if (!read_counter(fields, counter)) {
    count_malformed();
    return false;
  }
  const MutableFrames out(room_.data(), format_.scalar, format_.size(), params_.frames, format_.size());
  const bool by_channel = params_.order == "channels";
  const auto infinite = format_.scalar == Scalar::f32
                            ? unpack_as_type(params_.type, samples, by_channel, params_.scale, out.as<float>())
                            : unpack_as_type(params_.type, samples, by_channel, params_.scale, out.as<double>());
  infinite_.fetch_add(infinite, std::memory_order_relaxed);
  foreign_bytes_.store(0, std::memory_order_relaxed);
  packet = {};
  packet.x = out;
  packet.counter = counter;
  packet.received_ns = received_ns;
  packet.device_s = seconds(find(fields, params_.time));
  packet.clock = {
      .device_s = std::isnan(packet.device_s)
                      ? (static_cast<double>(counter) + static_cast<double>(params_.frames)) / params_.rate_hz
                      : packet.device_s,
      .local_ns = received_ns,
      .error_s = -1};
  packets_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

SourceCounts RedisIntake::counts() const {
  SourceCounts c;
  c.packets = packets_.load(std::memory_order_relaxed);
  c.malformed = malformed_.load(std::memory_order_relaxed);
  c.foreign = foreign_.load(std::memory_order_relaxed);
  c.infinite = infinite_.load(std::memory_order_relaxed);
  return c;
}

std::string RedisIntake::trouble() const {
  const auto bytes = foreign_bytes_.load(std::memory_order_relaxed);
  if (bytes == 0) return {};
  return fmt::format("entries now hold {} bytes of {}, announced were {} x {} of {}", bytes, params_.samples,
                     format_.size(), params_.frames, params_.type);
}

namespace {
bool is_text(const redisReply* r) { return r && (r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS); }
bool is_array(const redisReply* r) { return r && r->type == REDIS_REPLY_ARRAY; }
std::string_view text(const redisReply* r) { return {r->str, static_cast<std::size_t>(r->len)}; }

bool read_entries(const redisReply* list, const std::function<void()>& malformed,
                  const std::function<void(std::string_view, RedisFields)>& take) {
  if (!is_array(list)) return false;
  std::vector<std::pair<std::string_view, std::string_view>> fields;
  for (std::size_t i = 0; i < list->elements; ++i) {
    const redisReply* entry = list->element[i];
    if (!is_array(entry) || entry->elements != 2 || !is_text(entry->element[0])) {
      malformed();
      continue;
    }
    const redisReply* pairs = entry->element[1];
    // nil: it was deleted meanwhile
    bool good = is_array(pairs) && pairs->elements % 2 == 0 && pairs->elements <= 2 * kMostFields;
    fields.clear();
    for (std::size_t k = 0; good && k < pairs->elements; k += 2) {
      good = is_text(pairs->element[k]) && is_text(pairs->element[k + 1]);
      if (good) fields.emplace_back(text(pairs->element[k]), text(pairs->element[k + 1]));
    }
    if (!good) fields.clear();
    if (!good) malformed();
    take(text(entry->element[0]), fields);
  }
  return true;
}
}  // namespace

bool read_redis_reply(const redisReply& reply, bool by_stream, const std::function<void()>& malformed,
                      const std::function<void(std::string_view, RedisFields)>& take) {
  if (!by_stream) return read_entries(&reply, malformed, take);
  if (!is_array(&reply)) return false;
  for (std::size_t i = 0; i < reply.elements; ++i) {
    const redisReply* stream = reply.element[i];
    if (!is_array(stream) || stream->elements != 2 || !read_entries(stream->element[1], malformed, take)) return false;
  }
  return true;
}

struct RedisSource::Impl {
  Impl(const Params& given, const std::string& place)
      : p(given), where(place), intake(given, place),
        connection({.host = given.host, .socket = given.socket, .port = given.port}) {}

  Params p;
  std::string where;
  RedisIntake intake;
  SourceInfo info;
  RedisConnection connection;
  std::string last_id;
  // entries of the last reply that wait to be handed over: copies, since a reply is a tree
  struct Entry {
    std::string id;
    std::vector<std::pair<std::string, std::string>> fields;
  };
  std::vector<Entry> waiting;
  std::size_t next = 0;
  std::int64_t received_ns = 0, not_before_ns = 0;
  bool was_connected = false;
  std::atomic<bool> stopped{false};
  std::atomic<std::int64_t> reconnects{0};
  mutable std::mutex mutex;  ///< of trouble; never taken on the real-time thread
  std::string trouble;

  void say(const std::string& text_of_trouble) {
    std::lock_guard lock(mutex);
    trouble = text_of_trouble;
  }

  bool connect(double timeout_s) {
    if (!connection.connect(timeout_s)) {
      say(fmt::format("{}: {}", info.device, connection.error()));
      return false;
    }
    if (was_connected) reconnects.fetch_add(1, std::memory_order_relaxed);
    was_connected = true;
    say("");
    return true;
  }

  /// nullptr when the connection broke or the server answered with an error: trouble says so. The answer may come a
  /// second after what was asked to wait for timeout_ns.
  RedisConnection::Reply ask(std::initializer_list<std::string_view> words, std::int64_t timeout_ns) {
    auto reply = connection.ask(words, timeout_ns + 1'000'000'000);
    if (!reply) say(fmt::format("{}: {}", info.device, connection.error()));
    return reply;
  }

  void keep(std::string_view id, RedisFields fields) {
    last_id = id;
    if (fields.empty()) return;
    Entry& e = waiting.emplace_back();
    e.id = id;
    e.fields.assign(fields.begin(), fields.end());
  }

  /// Waits for entries; false: none came.
  bool read_more(std::int64_t timeout_ns) {
    waiting.clear();
    next = 0;
    if (!connection.connected()) {
      const std::int64_t now = steady_ns();
      if (now < not_before_ns) {
        std::this_thread::sleep_for(std::chrono::nanoseconds(std::min(timeout_ns, not_before_ns - now)));
        return false;
      }
      if (!connect(std::max(1e-3, static_cast<double>(timeout_ns) * 1e-9))) {
        not_before_ns = steady_ns() + kPause;
        return false;
      }
    }
    // BLOCK 0 is for ever
    const std::string block = fmt::format("{}", std::max<std::int64_t>(1, timeout_ns / 1'000'000));
    const auto reply = ask({"XREAD", "COUNT", "64", "BLOCK", block, "STREAMS", p.stream, last_id}, timeout_ns);
    received_ns = steady_ns();
    if (!reply) {
      not_before_ns = steady_ns() + kPause;
      return false;
    }
    if (reply->type == REDIS_REPLY_NIL) return false;
    if (!read_redis_reply(
            *reply, true, [this] { intake.count_malformed(); },
            [this](std::string_view id, RedisFields fields) { keep(id, fields); }))
      intake.count_malformed();
    return !waiting.empty();
  }
};

RedisSource::RedisSource(const Params& p, const std::string& where) : impl_(std::make_unique<Impl>(p, where)) {
  auto& im = *impl_;
  if (p.stream.empty()) throw ConfigError(where + ".stream", "", "the key of a stream");
  if (!(p.rate_hz > 0))
    throw ConfigError(where + ".rate_hz", fmt::format("{}", p.rate_hz),
                      "a rate above 0 Hz: an entry does not state it");
  im.info = {.name = p.name,
             .kind = "redis",
             .device = RedisAddress{p.host, p.socket, p.port}.text() + " " + p.stream,
             .clock = p.counter.empty() ? "entries" : p.counter};
  const std::int64_t until = steady_ns() + static_cast<std::int64_t>(p.wait_s * 1e9);
  while (!im.connect(1)) {
    if (steady_ns() >= until)
      throw ConfigError(where, "", fmt::format("a Redis server within {} s, found {}", p.wait_s, trouble()));
    std::this_thread::sleep_for(std::chrono::nanoseconds(kPause));
  }
  // $ would mean "from this call on" at every call: the id of the newest entry says the same once
  im.last_id = p.from;
  Index rows = p.rows;
  const auto newest = im.ask({"XREVRANGE", p.stream, "+", "-", "COUNT", "1"}, 1'000'000'000);
  if (!newest) throw ConfigError(where, "", fmt::format("a stream that can be read, found {}", trouble()));
  if (p.from == "$") im.last_id = "0";
  read_redis_reply(
      *newest, false, [] {},
      [&](std::string_view id, RedisFields fields) {
        if (p.from == "$") im.last_id = id;
        if (rows == 0) rows = im.intake.rows_of(fields);
      });
  while (rows == 0) {
    if (im.read_more(50'000'000))
      for (auto& entry : im.waiting) {
        const std::vector<std::pair<std::string_view, std::string_view>> fields(entry.fields.begin(),
                                                                                entry.fields.end());
        rows = im.intake.rows_of(fields);
        if (rows > 0) break;
        im.intake.count_malformed();
        ++im.next;
      }
    if (rows > 0) break;
    if (steady_ns() >= until)
      throw ConfigError(where + ".rows", "0",
                        fmt::format("rows, or an entry of {} within {} s whose field {} has whole rows of {} x {}",
                                    p.stream, p.wait_s, p.samples, p.frames, p.type));
  }
  im.intake.prepare(rows);
}

RedisSource::~RedisSource() = default;
const SourceInfo& RedisSource::info() const { return impl_->info; }
const StreamFormat& RedisSource::format() const { return impl_->intake.format(); }

Source::Got RedisSource::poll(Packet& packet, std::int64_t timeout_ns) noexcept try {
  auto& im = *impl_;
  if (im.stopped.load(std::memory_order_relaxed)) return Got::ended;
  if (im.next >= im.waiting.size() && !im.read_more(timeout_ns)) return Got::nothing;
  while (im.next < im.waiting.size()) {
    auto& entry = im.waiting[im.next++];
    std::array<std::pair<std::string_view, std::string_view>, kMostFields> fields;
    std::size_t n = 0;
    for (auto& f : entry.fields) fields[n++] = f;
    if (im.intake.take(RedisFields(fields.data(), n), im.received_ns, packet)) return Got::packet;
  }
  return Got::nothing;
} catch (const std::exception& e) {
  impl_->say(e.what());  // out of memory
  return Got::nothing;
}

void RedisSource::stop() noexcept { impl_->stopped = true; }

SourceCounts RedisSource::counts() const {
  SourceCounts counts = impl_->intake.counts();
  counts.reconnects = impl_->reconnects.load(std::memory_order_relaxed);
  return counts;
}

std::string RedisSource::trouble() const {
  {
    std::lock_guard lock(impl_->mutex);
    if (!impl_->trouble.empty()) return impl_->trouble;
  }
  return impl_->intake.trouble();
}

}  // namespace percept
