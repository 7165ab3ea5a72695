/// The edge between two threads of a live graph: a fixed ring of blocks, filled by one thread and emptied by another.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/context.h"
#include "core/stream.h"

namespace percept {

/// What becomes of a block that finds no room.
enum class QueuePolicy : std::uint8_t {
  block,        ///< it waits: the pushing thread is held
  drop_oldest,  ///< the block that waits longest is lost
  newest        ///< one block may wait, and a newer one takes its place
};
/// The policy of that name. Throws ConfigError naming `where` when there is none.
QueuePolicy queue_policy(std::string_view name, const std::string& where);

/// A ring between exactly two threads, without locks.
template <class T>
class SpscRing {
 public:
  explicit SpscRing(std::size_t room) : items_(room + 1) {}
  /// False when there is no room.
  bool push(const T& item) noexcept {
    const std::size_t at = tail_.load(std::memory_order_relaxed), next = (at + 1) % items_.size();
    if (next == head_.load(std::memory_order_acquire)) return false;
    items_[at] = item;
    tail_.store(next, std::memory_order_release);
    return true;
  }
  /// The oldest item; nullptr when there is none.
  const T* front() const noexcept {
    const std::size_t at = head_.load(std::memory_order_relaxed);
    return at == tail_.load(std::memory_order_acquire) ? nullptr : &items_[at];
  }
  /// Takes the oldest item off; there is one.
  void pop() noexcept {
    head_.store((head_.load(std::memory_order_relaxed) + 1) % items_.size(), std::memory_order_release);
  }

 private:
  std::vector<T> items_;
  alignas(64) std::atomic<std::size_t> head_{0};
  alignas(64) std::atomic<std::size_t> tail_{0};
};

/// What a queue did so far.
struct QueueCounts {
  std::int64_t blocks = 0, frames = 0;            ///< put in
  std::int64_t lost_blocks = 0, lost_frames = 0;  ///< of these: gave way to newer ones and were never run
  std::int64_t waits = 0;                         ///< blocks that held the pushing thread until there was room
};

/// Blocks of one edge from a pushing to a taking thread. All room is allocated by the constructor.
/// Frames of the time axis that were lost are told to the taker as a number, so that frame k stays frame k. Events are
/// never lost with a block: they come with the frames that are missing.
class BlockQueue {
 public:
  /// blocks: how many may wait (newest: one). Throws ConfigError naming `where` unless it is at least one.
  BlockQueue(const StreamFormat& format, QueuePolicy policy, Index blocks, const std::string& where);

  // --- the pushing thread ---------------------------------------------------------------------------------------
  /// Copies the block, which holds at most format.max_frames frames. time_s: recording time, handed on.
  /// Allocates nothing and takes no lock; waits only under `block` or after wait_for_room().
  void push(const Block& block, double time_s) noexcept;
  /// Nothing more will come.
  void close() noexcept;

  // --- the taking thread ----------------------------------------------------------------------------------------
  struct Taken {
    std::int64_t lost_frames = 0;        ///< frames of the time axis that are missing before the block
    std::span<const Event> lost_events;  ///< events that came with them
    Block block;
    double time_s = 0;
  };
  /// The block that waits longest; waits for one. What it points to stays until the next call.
  /// False once the queue is closed and empty, or stopped.
  bool next(Taken& taken) noexcept;

  // --- any thread -----------------------------------------------------------------------------------------------
  /// From now on a full queue holds the pushing thread, whatever the policy, and nothing more is lost.
  void wait_for_room() noexcept { holds_.store(true, std::memory_order_relaxed); }
  /// Ends every wait; what is in the queue is not wanted any more.
  void stop() noexcept;
  bool stopped() const noexcept { return stopped_.load(std::memory_order_acquire); }
  QueueCounts counts() const noexcept;
  /// Events that found no room: more than 256 for every block that may wait.
  std::int64_t lost_events() const noexcept { return lost_events_.value(); }

 private:
  struct Item {
    std::vector<std::byte> bytes;
    std::vector<std::int64_t> keys;
    Index frames = 0;
    std::int64_t first_frame = 0;
    bool missing = false;
    double time_s = 0;
  };
  struct QueuedEvent {
    std::uint64_t block = 0;  ///< number of the block it came with
    Event event{};
  };
  MutableFrames room_of(Item& item) noexcept;
  /// False when stopped.
  bool wait_for_taker() noexcept;

  StreamFormat format_;
  QueuePolicy policy_;
  // An item is in one place at a time: waiting, with the taker, with the pusher, or free. There are two more than may
  // wait, so the pusher always finds a free one.
  std::vector<Item> items_;
  std::vector<std::atomic<int>> waiting_;           ///< the item of block number n at n % size
  alignas(64) std::atomic<std::uint64_t> head_{0};  ///< the block that waits longest; the pusher moves it to drop one
  alignas(64) std::atomic<std::uint64_t> tail_{0};  ///< the next block
  SpscRing<int> free_;
  SpscRing<QueuedEvent> events_;
  int own_ = -1;    ///< the pusher's item, or -1
  int taken_ = -1;  ///< the taker's item, or -1
  std::int64_t next_frame_ = 0;
  std::vector<Event> taken_events_;
  // counted up at each change, to wait on
  std::atomic<std::uint32_t> pushed_{0}, popped_{0};
  std::atomic<bool> holds_{false}, closed_{false}, stopped_{false};
  Counter blocks_, frames_, lost_blocks_, lost_frames_, waits_, lost_events_;
};

}  // namespace percept
