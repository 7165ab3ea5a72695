/// A source on a thread of its own: for those that allocate, lock or wait longer than they should.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "realtime/queue.h"
#include "realtime/source.h"
#include "realtime/wakeup.h"

namespace percept {

/// Its packets come through a ring that is allocated up front. When the ring is full the thread waits, and what the
/// device sends meanwhile stays where it is: in the system's buffers, in Redis, in the inlet. So nothing is lost here.
class PumpedSource final : public Source {
 public:
  /// room: packets that may wait. shared: told of every packet, for one thread that waits for several sources; none: its
  /// own.
  PumpedSource(std::unique_ptr<Source> source, Index room, std::shared_ptr<Wakeup> shared = {});
  ~PumpedSource() override;

  const SourceInfo& info() const override { return source_->info(); }
  const StreamFormat& format() const override { return source_->format(); }
  void start() override;
  void raise(const RealTimeParams& params) noexcept override;
  Got poll(Packet& packet, std::int64_t timeout_ns) noexcept override;
  void stop() noexcept override;
  bool real_time() const override { return true; }
  SourceCounts counts() const override { return source_->counts(); }
  std::string trouble() const override { return source_->trouble(); }
  /// Of the thread, once it runs: who wants to give it a priority.
  std::thread& thread() { return thread_; }

 private:
  struct Item {
    std::vector<std::byte> bytes;
    std::vector<Event> events;
    Packet packet;
  };
  void run() noexcept;

  std::unique_ptr<Source> source_;
  std::shared_ptr<Wakeup> filled_;
  Wakeup emptied_;
  std::vector<Item> items_;
  // which items are filled, and which are free: one thread takes from each, the other puts there
  SpscRing<int> ready_, free_;
  int taken_ = -1;
  std::atomic<bool> stopped_{false}, ended_{false};
  std::thread thread_;
};

}  // namespace percept
