#include "realtime/queue.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace percept {

namespace {
constexpr std::size_t kEventsPerBlock = 256;
}

QueuePolicy queue_policy(std::string_view name, const std::string& where) {
  if (name == "block") return QueuePolicy::block;
  if (name == "drop_oldest") return QueuePolicy::drop_oldest;
  if (name == "newest") return QueuePolicy::newest;
  throw ConfigError(where + ".queue", fmt::format("\"{}\"", name), "block, drop_oldest or newest");
}

BlockQueue::BlockQueue(const StreamFormat& format, QueuePolicy policy, Index blocks, const std::string& where)
    : format_(format), policy_(policy),
      waiting_(static_cast<std::size_t>(policy == QueuePolicy::newest ? 1 : std::max<Index>(1, blocks))),
      free_(waiting_.size() + 2), events_((waiting_.size() + 2) * kEventsPerBlock) {
  if (blocks < 1) throw ConfigError(where + ".queue_blocks", fmt::format("{}", blocks), "at least one block");
  items_.resize(waiting_.size() + 2);
  for (std::size_t i = 0; i < items_.size(); ++i) {
    items_[i].bytes.resize(static_cast<std::size_t>(format.size() * format.max_frames) * bytes_of(format.scalar));
    if (format.axis == Axis::item) items_[i].keys.resize(static_cast<std::size_t>(format.max_frames));
    free_.push(static_cast<int>(i));
  }
  taken_events_.resize((waiting_.size() + 2) * kEventsPerBlock);
}

MutableFrames BlockQueue::room_of(Item& item) noexcept {
  return {item.bytes.data(), format_.scalar, format_.size(), item.frames, format_.size()};
}

bool BlockQueue::wait_for_taker() noexcept {
  const auto seen = popped_.load(std::memory_order_acquire);
  if (stopped()) return false;
  // the taker may have made room between the caller's look and ours
  if (tail_.load(std::memory_order_relaxed) - head_.load(std::memory_order_acquire) < waiting_.size()) return true;
  popped_.wait(seen, std::memory_order_acquire);
  return !stopped();
}

void BlockQueue::push(const Block& block, double time_s) noexcept {
  const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
  // before anything is taken from free_: what the taker gave back before it moved on is seen then
  (void)head_.load(std::memory_order_acquire);
  if (own_ < 0) {
    own_ = *free_.front();
    free_.pop();
  }
  Item& item = items_[static_cast<std::size_t>(own_)];
  item.frames = block.x.frames;
  item.first_frame = block.first_frame;
  item.missing = block.missing;
  item.time_s = time_s;
  copy_frames(block.x, room_of(item));
  std::copy(block.keys.begin(), block.keys.end(), item.keys.begin());
  for (auto& event : block.events)
    if (!events_.push({tail, event})) lost_events_.add();
  blocks_.add();
  frames_.add(item.frames);

  int dropped = -1;
  for (bool waited = false;;) {
    std::uint64_t head = head_.load(std::memory_order_acquire);
    if (tail - head < waiting_.size()) break;
    if (policy_ == QueuePolicy::block || holds_.load(std::memory_order_relaxed)) {
      if (!waited) waits_.add();
      waited = true;
      if (!wait_for_taker()) return;
      continue;
    }
    const int oldest = waiting_[head % waiting_.size()].load(std::memory_order_relaxed);
    if (!head_.compare_exchange_strong(head, head + 1, std::memory_order_acq_rel)) continue;  // just taken
    lost_blocks_.add();
    lost_frames_.add(items_[static_cast<std::size_t>(oldest)].frames);
    dropped = oldest;
    break;
  }
  waiting_[tail % waiting_.size()].store(own_, std::memory_order_relaxed);
  tail_.store(tail + 1, std::memory_order_release);
  own_ = dropped;
  pushed_.fetch_add(1, std::memory_order_release);
  pushed_.notify_one();
}

void BlockQueue::close() noexcept {
  closed_.store(true, std::memory_order_release);
  pushed_.fetch_add(1, std::memory_order_release);
  pushed_.notify_one();
}

void BlockQueue::stop() noexcept {
  stopped_.store(true, std::memory_order_release);
  pushed_.fetch_add(1, std::memory_order_release);
  pushed_.notify_one();
  popped_.fetch_add(1, std::memory_order_release);
  popped_.notify_one();
}

bool BlockQueue::next(Taken& taken) noexcept {
  if (taken_ >= 0) free_.push(taken_);
  taken_ = -1;
  std::uint64_t head;
  for (;;) {
    const auto seen = pushed_.load(std::memory_order_acquire);
    const bool closed = closed_.load(std::memory_order_acquire);  // before the look at tail_: nothing comes after it
    if (stopped()) return false;
    head = head_.load(std::memory_order_acquire);
    if (head == tail_.load(std::memory_order_acquire)) {
      if (closed) return false;
      pushed_.wait(seen, std::memory_order_acquire);
      continue;
    }
    const int oldest = waiting_[head % waiting_.size()].load(std::memory_order_relaxed);
    if (!head_.compare_exchange_strong(head, head + 1, std::memory_order_acq_rel)) continue;  // it was dropped
    taken_ = oldest;
    break;
  }
  std::size_t n_events = 0, n_lost = 0;
  for (const QueuedEvent* e = events_.front(); e && e->block <= head; e = events_.front()) {
    taken_events_[n_events++] = e->event;
    if (e->block < head) n_lost = n_events;
    events_.pop();
  }
  popped_.fetch_add(1, std::memory_order_release);
  popped_.notify_one();

  Item& item = items_[static_cast<std::size_t>(taken_)];
  const std::span<const Event> events(taken_events_.data(), n_events);
  taken.lost_frames = format_.axis == Axis::time ? item.first_frame - next_frame_ : 0;
  taken.lost_events = events.first(n_lost);
  taken.block = {};
  taken.block.x = room_of(item);
  taken.block.first_frame = item.first_frame;
  taken.block.missing = item.missing;
  if (format_.axis == Axis::item) taken.block.keys = {item.keys.data(), static_cast<std::size_t>(item.frames)};
  taken.block.events = events.subspan(n_lost);
  taken.time_s = item.time_s;
  next_frame_ = item.first_frame + item.frames;
  return true;
}

QueueCounts BlockQueue::counts() const noexcept {
  return {.blocks = blocks_.value(),
          .frames = frames_.value(),
          .lost_blocks = lost_blocks_.value(),
          .lost_frames = lost_frames_.value(),
          .waits = waits_.value()};
}

}  // namespace percept
