#include "realtime/pumped_source.h"

#include <algorithm>

#include "realtime/real_time.h"

namespace percept {

namespace {
constexpr std::int64_t kLook = 50'000'000;  ///< how often a thread that waits looks whether it is to end [ns]
}  // namespace

PumpedSource::PumpedSource(std::unique_ptr<Source> source, Index room, std::shared_ptr<Wakeup> shared)
    : source_(std::move(source)), filled_(shared ? std::move(shared) : std::make_shared<Wakeup>()),
      items_(static_cast<std::size_t>(std::max<Index>(room, 2))), ready_(items_.size()), free_(items_.size()) {
  const StreamFormat& f = source_->format();
  for (std::size_t i = 0; i < items_.size(); ++i) {
    items_[i].bytes.resize(static_cast<std::size_t>(f.size() * f.max_frames) * bytes_of(f.scalar));
    free_.push(static_cast<int>(i));
  }
}

PumpedSource::~PumpedSource() {
  stop();
  if (thread_.joinable()) thread_.join();
}

void PumpedSource::start() {
  source_->start();
  thread_ = std::thread([this] { run(); });
}

void PumpedSource::raise(const RealTimeParams& params) noexcept {
  source_->raise(params);
  raise_thread(thread_, params);
}

void PumpedSource::run() noexcept {
  Packet packet;
  while (!stopped_.load(std::memory_order_relaxed)) {
    const std::uint32_t seen = emptied_.now();
    const int* free = free_.front();
    if (!free) {
      emptied_.wait(seen, kLook);
      continue;
    }
    const Got got = source_->poll(packet, kLook);
    if (got == Got::ended) break;
    if (got == Got::nothing) continue;
    const int at = *free;
    free_.pop();
    Item& item = items_[static_cast<std::size_t>(at)];
    item.packet = packet;
    const MutableFrames room(item.bytes.data(), packet.x.scalar, packet.x.rows, packet.x.frames, packet.x.rows);
    copy_frames(packet.x, room);
    item.packet.x = room;
    item.events.assign(packet.events.begin(), packet.events.end());
    item.packet.events = item.events;
    ready_.push(at);
    filled_->notify();
  }
  ended_.store(true, std::memory_order_release);
  filled_->notify();
}

Source::Got PumpedSource::poll(Packet& packet, std::int64_t timeout_ns) noexcept {
  if (taken_ >= 0) {
    free_.push(taken_);
    taken_ = -1;
    emptied_.notify();
  }
  for (bool waited = false;;) {
    const std::uint32_t seen = filled_->now();
    const bool ended = ended_.load(std::memory_order_acquire);  // before the look: nothing comes after it
    if (const int* ready = ready_.front()) {
      taken_ = *ready;
      ready_.pop();
      packet = items_[static_cast<std::size_t>(taken_)].packet;
      return Got::packet;
    }
    if (ended) return Got::ended;
    if (waited || timeout_ns <= 0) return Got::nothing;
    filled_->wait(seen, timeout_ns);
    waited = true;
  }
}

void PumpedSource::stop() noexcept {
  stopped_.store(true, std::memory_order_relaxed);
  source_->stop();
  emptied_.notify();
}

}  // namespace percept
