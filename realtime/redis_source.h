/// Redis streams in the layout of BRAND (Ali et al., J. Neural Eng. 21 (2024) 026046): every entry has binary samples, a
/// time `ts` [ns of the monotonic clock], and labels that say where in the device's count it belongs.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "core/params.h"
#include "realtime/source.h"

struct redisReply;

namespace percept {

struct RedisParams {
  std::string host = "127.0.0.1", socket, stream, name = "activity", samples = "samples", type = "int16",
              order = "channels", counter, time = "ts", from = "$";
  std::int64_t port = 6379, rows = 0, frames = 1, ticks = 1;
  double rate_hz = 0, scale = 1, wait_s = 10;
  static constexpr auto fields() {
    return std::tuple{
        field("host", &RedisParams::host, "", "Where the server is."),
        field("port", &RedisParams::port, "", "Its port.", 1, 65535),
        field("socket", &RedisParams::socket, "", "Its Unix socket, instead of host and port."),
        field("stream", &RedisParams::stream, "", "Key of the stream."),
        field("name", &RedisParams::name, "", "Name of percept's stream."),
        field("field", &RedisParams::samples, "", "Field of an entry that holds the samples."),
        choice("type", &RedisParams::type, "Of one sample, little-endian.",
               "int8|uint8|int16|uint16|int32|uint32|float32|float64"),
        field("rows", &RedisParams::rows, "1", "Channels; 0: as many as the newest or next entry has.", 0, 1 << 20),
        field("frames", &RedisParams::frames, "frames", "Samples of a channel in an entry (samp_per_stream).", 1,
              65536),
        choice("order", &RedisParams::order,
               "Of the samples: channel after channel, as BRAND's adapters write, or frame after frame.",
               "channels|frames"),
        field("rate_hz", &RedisParams::rate_hz, "Hz", "Samples of a channel a second; an entry does not say.", 0, 1e6),
        field("counter", &RedisParams::counter, "",
              "What counts: timestamps (clock of the device), i (entries), sync.NAME (a label); empty: entries as they "
              "come, so that a lost one is not seen."),
        field("ticks", &RedisParams::ticks, "1", "Ticks of timestamps or sync.NAME in one frame.", 1, 1e9),
        field("time", &RedisParams::time, "", "Field with the time of an entry."),
        field("scale", &RedisParams::scale, "", "What a sample is multiplied with to get the unit.", -1e12, 1e12),
        field("from", &RedisParams::from, "", "Id to read from: $ for what comes new, 0 for all there is."),
        field("wait_s", &RedisParams::wait_s, "s", "How long the server and an entry are waited for.", 0, 1e6)};
  }
};

using RedisFields = std::span<const std::pair<std::string_view, std::string_view>>;

/// From the fields of an entry to a packet. What an entry says is never trusted.
class RedisIntake {
 public:
  /// Throws ConfigError for a counter that does not exist.
  RedisIntake(const RedisParams& params, const std::string& where);

  /// Rows that the samples of an entry make; 0 when it has none, or none that fit.
  Index rows_of(RedisFields fields) const;
  void prepare(Index rows);
  const StreamFormat& format() const { return format_; }
  /// False when the entry is malformed or foreign: counted.
  bool take(RedisFields fields, std::int64_t received_ns, Packet& packet);
  /// An entry that cannot be read: its frames are missing where entries are counted.
  void count_malformed() {
    malformed_.fetch_add(1, std::memory_order_relaxed);
    ++entries_;
  }
  SourceCounts counts() const;
  std::string trouble() const;

 private:
  bool read_counter(RedisFields fields, std::int64_t& frame);

  RedisParams params_;
  std::string where_;
  enum class By { entries, i, timestamps, sync } by_ = By::entries;
  std::string sync_label_;
  StreamFormat format_;
  std::size_t sample_bytes_ = 2;
  std::vector<std::byte> room_;
  std::int64_t entries_ = 0, last_ticks_ = 0;
  bool ticked_ = false;
  std::atomic<std::int64_t> packets_{0}, malformed_{0}, foreign_{0}, infinite_{0}, foreign_bytes_{0};
};

/// Walks the reply to XREAD or XREVRANGE: calls take(id, fields) for each entry that is one, malformed() for each that is
/// not. False when it is no such reply at all.
bool read_redis_reply(const redisReply& reply, bool by_stream, const std::function<void()>& malformed,
                      const std::function<void(std::string_view id, RedisFields fields)>& take);

/// The one stream of a server. Reconnects by itself and goes on behind the last entry it has seen, so that what came in
/// between is not lost as long as the server keeps it.
class RedisSource final : public Source {
 public:
  using Params = RedisParams;
  /// Connects, and waits for an entry when the rows are not given. Throws ConfigError.
  RedisSource(const Params& params, const std::string& where);
  ~RedisSource() override;

  const SourceInfo& info() const override;
  const StreamFormat& format() const override;
  Got poll(Packet& packet, std::int64_t timeout_ns) noexcept override;
  void stop() noexcept override;
  bool real_time() const override { return false; }  // hiredis allocates
  SourceCounts counts() const override;
  std::string trouble() const override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace percept
