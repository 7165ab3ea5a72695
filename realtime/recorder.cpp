#include "realtime/recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include "core/error.h"
#include "core/log.h"
#include "io/format_value.h"
#include "io/session.h"

namespace percept {
namespace fs = std::filesystem;
using io::SessionKind;

namespace {
constexpr std::uint64_t kAlign = 8;
constexpr std::size_t kMostBuffered = std::size_t{32} << 20;  ///< bytes that may wait for the disk outside the rings

std::uint64_t padded(std::uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

io::SessionEvent to_file(const Event& e) noexcept {
  return {.onset_s = e.onset_s,
          .duration_s = e.duration_s,
          .value = e.value,
          .id = e.id,
          .label = e.label.id(),
          .row = e.row};
}
template <class T>
std::span<const std::byte> bytes_of_one(const T& v) {
  return std::as_bytes(std::span(&v, 1));
}
}  // namespace

Value to_value(const RecorderCounts& c) {
  Value v = Value::object({{"records", c.records},
                           {"bytes", c.bytes},
                           {"lost_records", c.lost_records},
                           {"lost_bytes", c.lost_bytes},
                           {"longest_sync_s", c.longest_sync_s}});
  if (!c.trouble.empty()) v["trouble"] = c.trouble;
  return v;
}

/// Records of one thread on their way to the recorder's: a ring of bytes, each record in one piece.
class Recorder::Lane {
 public:
  struct Entry {
    std::uint32_t bytes = 0;
    std::uint16_t kind = 0, wrap = 0;  ///< wrap: the next entry is at the start of the ring
  };
  static_assert(sizeof(Entry) == kAlign);
  struct Lost {
    std::atomic<std::int64_t> records{0}, bytes{0}, packets{0}, frames{0}, steps{0}, outputs{0}, events{0};
  };

  explicit Lane(std::size_t bytes) : ring_(std::bit_ceil(std::max<std::size_t>(bytes, 4096))) {}

  /// Room for a record; nullptr when there is none, which is counted.
  std::byte* reserve(SessionKind kind, std::size_t bytes) noexcept {
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed), size = ring_.size();
    const std::uint64_t need = sizeof(Entry) + padded(bytes), left = size - (tail & (size - 1));
    const std::uint64_t skip = left < need ? left : 0;
    if (tail + skip + need - head_.load(std::memory_order_acquire) > size) {
      add(lost.records, 1);
      add(lost.bytes, static_cast<std::int64_t>(bytes));
      return nullptr;
    }
    if (skip) put(tail, {.bytes = 0, .kind = 0, .wrap = 1});
    put(tail + skip, {.bytes = static_cast<std::uint32_t>(bytes), .kind = static_cast<std::uint16_t>(kind), .wrap = 0});
    next_ = tail + skip + need;
    return ring_.data() + ((tail + skip) & (size - 1)) + sizeof(Entry);
  }
  void commit() noexcept { tail_.store(next_, std::memory_order_release); }

  // --- the recorder's thread ---
  std::uint64_t filled() const noexcept { return tail_.load(std::memory_order_acquire); }
  /// The oldest record before `limit`.
  bool front(std::uint64_t limit, SessionKind& kind, std::span<const std::byte>& payload) noexcept {
    std::uint64_t head = head_.load(std::memory_order_relaxed);
    const std::uint64_t size = ring_.size();
    if (head == limit) return false;
    Entry e = get(head);
    if (e.wrap) {
      head += size - (head & (size - 1));
      e = get(head);
    }
    kind = static_cast<SessionKind>(e.kind);
    payload = {ring_.data() + (head & (size - 1)) + sizeof(Entry), e.bytes};
    after_ = head + sizeof(Entry) + padded(e.bytes);
    return true;
  }
  void pop() noexcept { head_.store(after_, std::memory_order_release); }

  static void add(std::atomic<std::int64_t>& to, std::int64_t n) noexcept {
    to.store(to.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }

  Lost lost;               ///< written by the lane's thread alone
  io::SessionLoss told{};  ///< of the recorder's thread

 private:
  void put(std::uint64_t at, Entry e) noexcept { std::memcpy(ring_.data() + (at & (ring_.size() - 1)), &e, sizeof e); }
  Entry get(std::uint64_t at) const noexcept {
    Entry e;
    std::memcpy(&e, ring_.data() + (at & (ring_.size() - 1)), sizeof e);
    return e;
  }
  std::vector<std::byte> ring_;
  std::uint64_t next_ = 0, after_ = 0;
  alignas(64) std::atomic<std::uint64_t> head_{0};
  alignas(64) std::atomic<std::uint64_t> tail_{0};
};

struct Recorder::File {
  explicit File(const fs::path& path) : writer(path) {}
  io::SessionWriter writer;
  std::set<std::int32_t> labels;
  std::int64_t waiting = 0, waiting_packets = 0;  ///< records in the writer's buffer, and packets among them
};

Recorder::Recorder(const fs::path& file, const Value& about, const std::vector<StreamInfo>& inputs,
                   const std::vector<StreamInfo>& outputs, int lanes, RecorderOptions options)
    : path_(file), options_(options), file_(std::make_unique<File>(file)) {
  Value head = about.is_table() ? about : Value::table();
  head["percept_session"] = io::kSessionVersion;
  const auto list = [](const std::vector<StreamInfo>& streams) {
    Value all = Value::array();
    for (auto& s : streams) all.push_back(Value::object({{"name", s.name}, {"format", io::format_to_value(s.format)}}));
    return all;
  };
  head["inputs"] = list(inputs);
  head["outputs"] = list(outputs);
  const std::string text = to_json(head);
  file_->writer.add(SessionKind::head, 0, std::as_bytes(std::span(text)));
  file_->waiting = 1;
  if (!write()) throw DataError(file.string(), "", "a file that can be written", trouble_);
  for (int i = 0; i < lanes; ++i) lanes_.push_back(std::make_unique<Lane>(options_.lane_bytes));
  thread_ = std::thread([this] { run(); });
  sync_thread_ = std::thread([this] { run_sync(); });
}

Recorder::~Recorder() { close(Value()); }

void Recorder::packet(int lane, std::int64_t number, int input, const Packet& p, std::int64_t corrected_ns) noexcept {
  Lane& to = *lanes_[static_cast<std::size_t>(lane)];
  const std::size_t scalar = bytes_of(p.x.scalar), frame = static_cast<std::size_t>(p.x.rows) * scalar;
  const auto frames = static_cast<std::size_t>(p.x.frames);
  std::byte* room = to.reserve(SessionKind::packet, sizeof(io::SessionPacket) + frame * frames);
  if (!room) {
    Lane::add(to.lost.packets, 1);
    Lane::add(to.lost.frames, p.x.frames);
    return;
  }
  const io::SessionPacket head{.number = number,
                               .counter = p.counter,
                               .device_s = p.device_s,
                               .received_ns = p.received_ns,
                               .corrected_ns = corrected_ns,
                               .input = input,
                               .rows = static_cast<std::int32_t>(p.x.rows),
                               .frames = static_cast<std::int32_t>(p.x.frames),
                               .scalar = static_cast<std::uint8_t>(p.x.scalar == Scalar::f32 ? 0 : 1),
                               .events = static_cast<std::uint8_t>(std::min<std::size_t>(p.events.size(), 255))};
  std::memcpy(room, &head, sizeof head);
  room += sizeof head;
  const auto* data = static_cast<const std::byte*>(p.x.data);
  if (p.x.stride == p.x.rows) {
    if (frames > 0) std::memcpy(room, data, frame * frames);
  } else {
    for (std::size_t k = 0; k < frames; ++k)
      std::memcpy(room + k * frame, data + k * static_cast<std::size_t>(p.x.stride) * scalar, frame);
  }
  to.commit();
}

void Recorder::fate(int lane, std::int64_t number, Fate fate) noexcept {
  Lane& to = *lanes_[static_cast<std::size_t>(lane)];
  const io::SessionFate f{.number = number, .fate = static_cast<std::int32_t>(fate)};
  std::byte* room = to.reserve(SessionKind::fate, sizeof f);
  if (!room) return;
  std::memcpy(room, &f, sizeof f);
  to.commit();
}

void Recorder::step(int lane, const LiveStep& s) noexcept {
  Lane& to = *lanes_[static_cast<std::size_t>(lane)];
  const io::SessionStep head{.first_frame = s.first_frame,
                             .packet = s.packet,
                             .input = s.input,
                             .frames = static_cast<std::int32_t>(s.frames),
                             .offset = static_cast<std::int32_t>(s.offset),
                             .events = static_cast<std::int32_t>(s.events.size())};
  std::byte* room = to.reserve(SessionKind::step, sizeof head + s.events.size() * sizeof(io::SessionEvent));
  if (!room) return Lane::add(to.lost.steps, 1);
  std::memcpy(room, &head, sizeof head);
  room += sizeof head;
  for (auto& e : s.events) {
    const io::SessionEvent event = to_file(e);
    std::memcpy(room, &event, sizeof event);
    room += sizeof event;
  }
  to.commit();
}

void Recorder::event(int lane, const Event& e) noexcept {
  Lane& to = *lanes_[static_cast<std::size_t>(lane)];
  const io::SessionEvent event = to_file(e);
  std::byte* room = to.reserve(SessionKind::event, sizeof event);
  if (!room) return Lane::add(to.lost.events, 1);
  std::memcpy(room, &event, sizeof event);
  to.commit();
}

void Recorder::output(int lane, int output, const Block& block, std::int64_t received_ns, std::int64_t corrected_ns,
                      bool held) noexcept {
  Lane& to = *lanes_[static_cast<std::size_t>(lane)];
  const std::size_t scalar = bytes_of(block.x.scalar), frame = static_cast<std::size_t>(block.x.rows) * scalar;
  const auto frames = static_cast<std::size_t>(block.x.frames);
  std::byte* room = to.reserve(SessionKind::output, sizeof(io::SessionOutput) + frame * frames);
  if (!room) return Lane::add(to.lost.outputs, 1);
  const io::SessionOutput head{.first_frame = block.first_frame,
                               .emitted_ns = steady_ns(),
                               .received_ns = received_ns,
                               .corrected_ns = corrected_ns,
                               .output = output,
                               .rows = static_cast<std::int32_t>(block.x.rows),
                               .frames = static_cast<std::int32_t>(block.x.frames),
                               .scalar = static_cast<std::uint8_t>(block.x.scalar == Scalar::f32 ? 0 : 1),
                               .held = static_cast<std::uint8_t>(held ? 1 : 0)};
  std::memcpy(room, &head, sizeof head);
  copy_frames(block.x, MutableFrames(room + sizeof head, block.x.scalar, block.x.rows, block.x.frames, block.x.rows));
  to.commit();
}

void Recorder::clock(int lane, int input, const ClockModel& model, std::int64_t now_ns) noexcept {
  Lane& to = *lanes_[static_cast<std::size_t>(lane)];
  const ClockLine& line = model.line();
  const double device_s = line.to_device(static_cast<double>(now_ns) * 1e-9);
  const io::SessionClock c{.at_ns = now_ns,
                           .device_s = line.device_s,
                           .local_s = line.local_s,
                           .drift = line.drift,
                           .residual_s = model.residual_s(),
                           .uncertainty_s = model.uncertainty_s(device_s),
                           .input = input,
                           .jumps = static_cast<std::int32_t>(model.jumps())};
  std::byte* room = to.reserve(SessionKind::clock, sizeof c);
  if (!room) return;
  std::memcpy(room, &c, sizeof c);
  to.commit();
}

void Recorder::model(std::int64_t swap, const std::string& node, const std::string& folder) {
  std::lock_guard lock(mutex_);
  models_.push_back(to_json(Value::object({{"swap", swap}, {"node", node}, {"model", folder}})));
}

void Recorder::raise(const RealTimeParams& params) noexcept {
  raise_thread(thread_, params);
  raise_thread(sync_thread_, params);
}

RecorderCounts Recorder::counts() const {
  RecorderCounts c;
  for (auto& lane : lanes_) {
    c.lost_records += lane->lost.records.load(std::memory_order_relaxed);
    c.lost_bytes += lane->lost.bytes.load(std::memory_order_relaxed);
  }
  c.bytes = bytes_.load(std::memory_order_relaxed);
  c.longest_sync_s = static_cast<double>(longest_sync_ns_.load(std::memory_order_relaxed)) * 1e-9;
  std::lock_guard lock(mutex_);
  c.records = records_;
  c.trouble = trouble_;
  return c;
}

void Recorder::tell_labels(const std::byte* payload, std::size_t bytes, std::size_t first_event) {
  for (std::size_t at = first_event; at + sizeof(io::SessionEvent) <= bytes; at += sizeof(io::SessionEvent)) {
    io::SessionEvent e;
    std::memcpy(&e, payload + at, sizeof e);
    if (e.label == 0 || !file_->labels.insert(e.label).second) continue;
    const std::string& text = Label::from_id(e.label).text();
    const std::array<std::int32_t, 2> number{e.label, 0};
    file_->writer.add(SessionKind::label, 0, bytes_of_one(number), std::as_bytes(std::span(text)));
    ++file_->waiting;
  }
}

/// Everything that the rings hold now, into the writer's buffer. A model that was announced before a swap in one of them
/// comes before it: the rings' ends are looked at first.
void Recorder::drain() {
  std::vector<std::uint64_t> limits;
  for (auto& lane : lanes_) limits.push_back(lane->filled());
  auto& writer = file_->writer;
  std::vector<std::string> models;
  {
    std::lock_guard lock(mutex_);
    models.swap(models_);
  }
  for (auto& m : models) {
    writer.add(SessionKind::model, 0, std::as_bytes(std::span(m)));
    ++file_->waiting;
  }
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = *lanes_[i];
    const auto number = static_cast<std::uint16_t>(i);
    // told before what follows it, so that a reader knows that there may be holes
    const io::SessionLoss now{
        lane.lost.records.load(std::memory_order_relaxed), lane.lost.bytes.load(std::memory_order_relaxed),
        lane.lost.packets.load(std::memory_order_relaxed), lane.lost.frames.load(std::memory_order_relaxed),
        lane.lost.steps.load(std::memory_order_relaxed),   lane.lost.outputs.load(std::memory_order_relaxed),
        lane.lost.events.load(std::memory_order_relaxed)};
    if (now.records != lane.told.records) {
      const io::SessionLoss more{now.records - lane.told.records, now.bytes - lane.told.bytes,
                                 now.packets - lane.told.packets, now.frames - lane.told.frames,
                                 now.steps - lane.told.steps,     now.outputs - lane.told.outputs,
                                 now.events - lane.told.events};
      writer.add(SessionKind::loss, number, bytes_of_one(more));
      ++file_->waiting;
      lane.told = now;
    }
    SessionKind kind{};
    std::span<const std::byte> payload;
    while (writer.buffered() < kMostBuffered && lane.front(limits[i], kind, payload)) {
      if (kind == SessionKind::event) tell_labels(payload.data(), payload.size(), 0);
      if (kind == SessionKind::step) tell_labels(payload.data(), payload.size(), sizeof(io::SessionStep));
      writer.add(kind, number, payload);
      ++file_->waiting;
      file_->waiting_packets += kind == SessionKind::packet;
      lane.pop();
    }
  }
}

bool Recorder::write() {
  const int error = file_->writer.write();
  std::lock_guard lock(mutex_);
  if (error) {
    const std::string why = std::strerror(error);
    if (trouble_ != why) log::error(fmt::format("{}: nothing is being recorded: {}", path_.string(), why));
    trouble_ = why;
    return false;
  }
  if (!trouble_.empty()) log::info(fmt::format("{}: recording goes on", path_.string()));
  trouble_.clear();
  records_ += file_->waiting;
  file_->waiting = file_->waiting_packets = 0;
  bytes_.store(static_cast<std::int64_t>(file_->writer.bytes()), std::memory_order_relaxed);
  return true;
}

void Recorder::run() {
  const auto pause_ns = static_cast<std::int64_t>(options_.write_s * 1e9);
  for (;;) {
    const std::uint32_t seen = wakeup_.now();
    if (stop_.load(std::memory_order_acquire)) return;
    wakeup_.wait(seen, pause_ns);
    if (file_->writer.buffered() < kMostBuffered) drain();
    write();
  }
}

void Recorder::run_sync() {
  const auto pause_ns = static_cast<std::int64_t>(options_.sync_s * 1e9);
  std::int64_t safe_ns = steady_ns(), synced = 0;  // what was written until then is on the disk; bytes
  for (;;) {
    const std::uint32_t seen = wakeup_.now();
    if (stop_.load(std::memory_order_acquire)) return;
    wakeup_.wait(seen, pause_ns);
    const std::int64_t begin_ns = steady_ns(), bytes = bytes_.load(std::memory_order_relaxed);
    if (bytes > synced) {
      file_->writer.sync();
      const std::int64_t took = steady_ns() - safe_ns;
      if (took > longest_sync_ns_.load(std::memory_order_relaxed))
        longest_sync_ns_.store(took, std::memory_order_relaxed);
    }
    synced = bytes;
    safe_ns = begin_ns;
  }
}

std::string Recorder::close(const Value& counts) {
  if (closed_) return {};
  closed_ = true;
  stop_.store(true, std::memory_order_release);
  wakeup_.notify();
  thread_.join();
  sync_thread_.join();
  for (bool more = true; more;) {
    drain();
    if (!write()) break;
    more = std::any_of(lanes_.begin(), lanes_.end(), [](auto& lane) {
      SessionKind kind{};
      std::span<const std::byte> payload;
      return lane->front(lane->filled(), kind, payload);
    });
  }
  if (counts.is_table() && file_->writer.buffered() == 0) {
    const std::string text = to_json(counts);
    file_->writer.add(SessionKind::end, 0, std::as_bytes(std::span(text)));
    ++file_->waiting;
    write();
  }
  file_->writer.sync();
  if (file_->writer.buffered() == 0) return {};
  for (auto& lane : lanes_) {
    SessionKind kind{};
    std::span<const std::byte> payload;
    for (; lane->front(lane->filled(), kind, payload); lane->pop()) {
      ++file_->waiting;
      file_->waiting_packets += kind == SessionKind::packet;
    }
  }
  std::lock_guard lock(mutex_);
  return fmt::format("the last {} records, {} packets among them, could not be written: {}", file_->waiting,
                     file_->waiting_packets, trouble_);
}

}  // namespace percept
