#include "realtime/sequencer.h"

#include <algorithm>
#include <cmath>

namespace percept {

namespace {
constexpr std::size_t kEventsHeld = 16;
// a device that began anew: so many packets in a row, over so long, and not faster than at twice the rate (what waited
// somewhere and comes at once does)
constexpr std::int64_t kRestartPackets = 3;
constexpr double kRestartSpan = 0.1;
}  // namespace

const char* name_of(Fate fate) {
  static constexpr const char* kNames[] = {"used", "held", "duplicate", "late", "refused"};
  return kNames[static_cast<int>(fate)];
}

SequenceCounts& SequenceCounts::operator+=(const SequenceCounts& o) {
  packets += o.packets;
  frames += o.frames;
  gaps += o.gaps;
  missing_frames += o.missing_frames;
  reordered_packets += o.reordered_packets;
  duplicate_packets += o.duplicate_packets;
  late_packets += o.late_packets;
  refused_packets += o.refused_packets;
  repeated_frames += o.repeated_frames;
  restarts += o.restarts;
  lost_events += o.lost_events;
  return *this;
}

Sequencer::Sequencer(const StreamFormat& format, Options options)
    : format_(format), options_(options), first_(options.first.value_or(0)), started_(options.first.has_value()),
      slots_(static_cast<std::size_t>(std::max<Index>(options.hold, 0))) {
  for (auto& slot : slots_) {
    slot.bytes.resize(static_cast<std::size_t>(format.size() * format.max_frames) * sizeof(double));
    slot.events.reserve(kEventsHeld);
  }
}

Fate Sequencer::push(const Packet& packet, std::int64_t serial, Taker& taker) noexcept {
  if (packet.x.rows != format_.size() || packet.x.frames <= 0) {
    refuse(packet);
    return Fate::refused;
  }
  if (!started_) {
    first_ = packet.counter;
    started_ = true;
  }
  std::int64_t at = 0, end = 0, ahead = 0;  // a counter is never trusted
  if (__builtin_sub_overflow(packet.counter, first_, &at) || __builtin_add_overflow(at, packet.x.frames, &end) ||
      __builtin_sub_overflow(at, next_, &ahead) || ahead > options_.max_gap)
    return drop(Fate::refused, packet, serial, taker);
  const auto known = [&] {
    const bool was_missing = take_from_missing(at, end);
    return drop(was_missing || at < forgotten_ ? Fate::late : Fate::duplicate, packet, serial, taker);
  };
  if (end <= next_) return known();

  if (n_held_ > 0)
    for (auto& slot : slots_)
      if (slot.taken && slot.at <= at && end <= slot.at + slot.frames)
        return drop(Fate::duplicate, packet, serial, taker);
  const bool reordered =
      std::any_of(slots_.begin(), slots_.end(), [at](const Slot& s) { return s.taken && s.at > at; });
  while (at > next_) {
    if (Slot* slot = free_slot(packet.x.frames)) {
      slot->taken = true;
      slot->frames = packet.x.frames;
      slot->scalar = packet.x.scalar;
      slot->at = at;
      slot->serial = serial;
      slot->reordered = reordered;
      copy_frames(packet.x, {slot->bytes.data(), slot->scalar, packet.x.rows, slot->frames, packet.x.rows});
      const auto events = in_recording_time(packet, at);
      slot->events.assign(events.begin(),
                          events.begin() + static_cast<std::ptrdiff_t>(std::min(events.size(), kEventsHeld)));
      lost_events_.add(static_cast<std::int64_t>(events.size() - slot->events.size()));
      ++n_held_;
      run_ = 0;
      return Fate::held;
    }
    const Slot* first = earliest();
    if (!first || first->at >= at) {
      declare_missing(at - next_, taker);
    } else {
      declare_missing(first->at - next_, taker);
      give_held(taker);
    }
  }
  if (end <= next_) return known();  // those that waited overlapped it
  if (reordered) reordered_.add();
  give(packet, at, serial, taker);
  give_held(taker);
  return Fate::used;
}

void Sequencer::give(const Packet& packet, std::int64_t at, std::int64_t serial, Taker& taker) noexcept {
  auto events = in_recording_time(packet, at);
  const Index repeated = static_cast<Index>(std::max<std::int64_t>(0, next_ - at));
  if (repeated > 0) {
    repeated_.add(repeated);
    const double known_s = format_.time_of(next_);
    while (!events.empty() && events.front().onset_s < known_s) {
      events = events.subspan(1);
      lost_events_.add();
    }
  }
  packets_.add();
  frames_.add(packet.x.frames - repeated);
  const std::int64_t first = next_;
  next_ = at + packet.x.frames;
  run_ = 0;
  if (packet.received_ns) last_used_ns_ = std::max(last_used_ns_, packet.received_ns);
  taker.frames(first, packet.x.slice(repeated, packet.x.frames - repeated), events, serial, repeated);
}

void Sequencer::give_held(Taker& taker) noexcept {
  while (n_held_ > 0) {
    Slot* slot = earliest();
    if (slot->at > next_) return;
    slot->taken = false;
    --n_held_;
    Packet packet;
    packet.x = ConstFrames(slot->bytes.data(), slot->scalar, format_.size(), slot->frames, format_.size());
    packet.events = slot->events;
    if (slot->at + slot->frames <= next_) {
      duplicates_.add();
      lost_events_.add(static_cast<std::int64_t>(slot->events.size()));
    } else {
      if (slot->reordered) reordered_.add();
      give(packet, slot->at, slot->serial, taker);
    }
  }
}

void Sequencer::release(Taker& taker) noexcept {
  while (n_held_ > 0) {
    declare_missing(earliest()->at - next_, taker);
    give_held(taker);
  }
}

void Sequencer::give_up(std::int64_t frames, Taker& taker) noexcept {
  if (const Slot* slot = earliest()) frames = std::min(frames, slot->at - next_);
  declare_missing(frames, taker);
  give_held(taker);
}

void Sequencer::refuse(const Packet& packet) noexcept {
  refused_.add();
  lost_events_.add(static_cast<std::int64_t>(packet.events.size()));
}

Fate Sequencer::drop(Fate fate, const Packet& packet, std::int64_t serial, Taker& taker) noexcept {
  if (run_ > 0 && packet.counter == run_next_) {
    ++run_;
  } else {
    run_ = 1;
    run_first_ = packet.counter;
    run_start_ns_ = packet.received_ns;
    run_late_ = run_duplicates_ = 0;
  }
  if (__builtin_add_overflow(packet.counter, packet.x.frames, &run_next_)) run_ = 0;
  if (restarts(packet)) {
    release(taker);
    // how long nothing that could be used came: the packets of this run are in it
    const double silent_s = last_used_ns_ ? static_cast<double>(packet.received_ns - last_used_ns_) * 1e-9 : 0;
    const auto fill =
        std::clamp<std::int64_t>(std::llround(silent_s * format_.rate_hz) - packet.x.frames, 0, options_.max_gap);
    if (!__builtin_sub_overflow(packet.counter, next_ + fill, &first_)) {
      // those before were of the new count, not late
      late_.add(-run_late_);
      duplicates_.add(-run_duplicates_);
      refused_.add(run_late_ + run_duplicates_);
      restarts_.add();
      declare_missing(fill, taker);
      give(packet, next_, serial, taker);
      return Fate::used;
    }
  }
  lost_events_.add(static_cast<std::int64_t>(packet.events.size()));
  switch (fate) {
    case Fate::late:
      late_.add();
      ++run_late_;
      break;
    case Fate::duplicate:
      duplicates_.add();
      ++run_duplicates_;
      break;
    default:
      refused_.add();
  }
  return fate;
}

bool Sequencer::restarts(const Packet& packet) noexcept {
  if (run_ < kRestartPackets || run_start_ns_ == 0) return false;
  const double counted_s = static_cast<double>(packet.counter - run_first_) / format_.rate_hz;
  const double waited_s = static_cast<double>(packet.received_ns - run_start_ns_) * 1e-9;
  return counted_s >= kRestartSpan && waited_s >= 0.5 * counted_s;
}

void Sequencer::declare_missing(std::int64_t frames, Taker& taker) noexcept {
  if (frames <= 0) return;
  Range& last = missing_[(next_range_ + kRanges - 1) % kRanges];
  if (last.end == next_ && last.begin < last.end) {
    last.end += frames;
  } else {
    gaps_.add();
    remember({next_, next_ + frames});
  }
  missing_frames_.add(frames);
  const std::int64_t first = next_;
  next_ += frames;
  taker.missing(first, frames);
}

void Sequencer::remember(Range range) noexcept {
  Range& place = missing_[next_range_];
  forgotten_ = std::max(forgotten_, place.end);
  place = range;
  next_range_ = (next_range_ + 1) % kRanges;
}

bool Sequencer::take_from_missing(std::int64_t begin, std::int64_t end) noexcept {
  bool found = false;
  for (auto& range : missing_) {
    const std::int64_t from = std::max(begin, range.begin), to = std::min(end, range.end);
    if (from >= to) continue;
    found = true;
    const Range rest{to, range.end};
    const bool before = range.begin < from;
    if (before) range.end = from;
    else range = rest.begin < rest.end ? rest : Range{};
    if (before && rest.begin < rest.end) remember(rest);
  }
  return found;
}

Sequencer::Slot* Sequencer::earliest() noexcept {
  Slot* first = nullptr;
  for (auto& slot : slots_)
    if (slot.taken && (!first || slot.at < first->at)) first = &slot;
  return first;
}

Sequencer::Slot* Sequencer::free_slot(Index frames) noexcept {
  if (frames > format_.max_frames) return nullptr;
  for (auto& slot : slots_)
    if (!slot.taken) return &slot;
  return nullptr;
}

std::span<const Event> Sequencer::in_recording_time(const Packet& packet, std::int64_t at) noexcept {
  if (!packet.events_from_packet) return packet.events;
  const std::size_t n = std::min(packet.events.size(), events_.size());
  lost_events_.add(static_cast<std::int64_t>(packet.events.size() - n));
  for (std::size_t i = 0; i < n; ++i) {
    events_[i] = packet.events[i];
    events_[i].onset_s += format_.time_of(at);
  }
  return {events_.data(), n};
}

SequenceCounts Sequencer::counts() const {
  return {.packets = packets_.value(),
          .frames = frames_.value(),
          .gaps = gaps_.value(),
          .missing_frames = missing_frames_.value(),
          .reordered_packets = reordered_.value(),
          .duplicate_packets = duplicates_.value(),
          .late_packets = late_.value(),
          .refused_packets = refused_.value(),
          .repeated_frames = repeated_.value(),
          .restarts = restarts_.value(),
          .lost_events = lost_events_.value()};
}

}  // namespace percept
