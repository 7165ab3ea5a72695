#include "io/session.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <unordered_map>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "io/format_value.h"
#include "io/input_file.h"

namespace percept::io {
namespace fs = std::filesystem;

namespace {
static_assert(std::endian::native == std::endian::little, "numbers are written as they are");

constexpr char kSessionStart[] = "percept session\n";
constexpr std::size_t kSessionStartBytes = 16;
constexpr std::uint32_t kMark = 0x31434552;  // "REC1"
constexpr std::uint32_t kLargestRecord = 1u << 28;
constexpr std::uint64_t kWindow = 4 << 20;

struct RecordHead {
  std::uint32_t mark = kMark;
  std::uint16_t kind = 0, lane = 0;
  std::uint32_t bytes = 0, sum = 0;
};
static_assert(sizeof(RecordHead) == 16 && sizeof(SessionPacket) == 56 && sizeof(SessionFate) == 16 &&
              sizeof(SessionStep) == 32 && sizeof(SessionEvent) == 40 && sizeof(SessionOutput) == 48 &&
              sizeof(SessionClock) == 56 && sizeof(SessionLoss) == 56);

std::uint64_t padded(std::uint64_t bytes) { return (bytes + 7) / 8 * 8; }

uLong add_to_sum(uLong sum, const void* data, std::size_t bytes) {
  return crc32(sum, static_cast<const Bytef*>(data), static_cast<uInt>(bytes));
}
uLong sum_of_head(const RecordHead& h) {
  uLong sum = crc32(0, nullptr, 0);
  sum = add_to_sum(sum, &h.kind, sizeof h.kind);
  sum = add_to_sum(sum, &h.lane, sizeof h.lane);
  return add_to_sum(sum, &h.bytes, sizeof h.bytes);
}

[[noreturn]] void session_error(const fs::path& file, const std::string& field, const std::string& expected,
                                const std::string& found) {
  throw DataError(file.string(), field, expected, found);
}
}  // namespace

SessionWriter::SessionWriter(fs::path file) : path_(std::move(file)) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd_ < 0) session_error(path_, "", "a new file", std::strerror(errno));
  buffer_.reserve(1 << 20);
  buffer_.resize(kSessionStartBytes);
  std::memcpy(buffer_.data(), kSessionStart, kSessionStartBytes);
  if (const int error = write()) session_error(path_, "", "a file that can be written", std::strerror(error));
}

SessionWriter::~SessionWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void SessionWriter::add(SessionKind kind, std::uint16_t lane, std::span<const std::byte> payload,
                        std::span<const std::byte> more) {
  RecordHead head;
  head.kind = static_cast<std::uint16_t>(kind);
  head.lane = lane;
  head.bytes = static_cast<std::uint32_t>(payload.size() + more.size());
  uLong sum = add_to_sum(sum_of_head(head), payload.data(), payload.size());
  if (!more.empty()) sum = add_to_sum(sum, more.data(), more.size());
  head.sum = static_cast<std::uint32_t>(sum);
  const auto* bytes = reinterpret_cast<const std::byte*>(&head);
  buffer_.insert(buffer_.end(), bytes, bytes + sizeof head);
  buffer_.insert(buffer_.end(), payload.begin(), payload.end());
  buffer_.insert(buffer_.end(), more.begin(), more.end());
  buffer_.resize(padded(buffer_.size()));
}

int SessionWriter::write() {
  std::size_t done = 0;
  while (done < buffer_.size()) {
    // at its place, so that what is left of a failed write is written over
    const auto n = ::pwrite(fd_, buffer_.data() + done, buffer_.size() - done, static_cast<off_t>(written_ + done));
    if (n > 0) {
      done += static_cast<std::size_t>(n);
    } else if (n == 0 || errno != EINTR) {
      const int error = n == 0 ? ENOSPC : errno;
      // half a record is none; where it cannot be cut off, a reader stops at it
      if (done > 0) [[maybe_unused]]
        const int ignored = ::ftruncate(fd_, static_cast<off_t>(written_));
      return error;
    }
  }
  written_ += buffer_.size();
  buffer_.clear();
  return 0;
}

int SessionWriter::sync() { return ::fdatasync(fd_) == 0 ? 0 : errno; }

SessionScan scan_session(const fs::path& path, const std::function<void(const SessionRecordView&)>& take) {
  const InputFile file(path);
  char start[kSessionStartBytes] = {};
  file.read_some(0, start, sizeof start);
  if (std::memcmp(start, kSessionStart, sizeof start) != 0)
    session_error(path, "", "a live session of percept", "another kind of file");
  SessionScan scan;
  scan.good_bytes = kSessionStartBytes;
  std::vector<std::byte> window;
  std::uint64_t window_start = 0;
  // bytes [offset, offset + n) of the file, or as many as there are
  const auto look = [&](std::uint64_t offset, std::uint64_t n) -> std::span<const std::byte> {
    if (offset < window_start || offset + n > window_start + window.size()) {
      const std::uint64_t there = file.bytes() - std::min(offset, file.bytes());
      window.resize(static_cast<std::size_t>(std::min(std::max(n, kWindow), there)));
      window_start = offset;
      window.resize(file.read_some(offset, window.data(), window.size()));
    }
    const std::uint64_t from = offset - window_start;
    return std::span<const std::byte>(window).subspan(
        static_cast<std::size_t>(from), static_cast<std::size_t>(std::min<std::uint64_t>(n, window.size() - from)));
  };
  for (;;) {
    const std::uint64_t at = scan.good_bytes;
    RecordHead head;
    const auto first = look(at, sizeof head);
    if (first.size() < sizeof head) break;
    std::memcpy(&head, first.data(), sizeof head);
    if (head.mark != kMark || head.bytes > kLargestRecord || padded(head.bytes) > file.bytes() - at - sizeof head)
      break;
    const auto payload = look(at + sizeof head, head.bytes);
    if (payload.size() < head.bytes) break;
    if (static_cast<std::uint32_t>(add_to_sum(sum_of_head(head), payload.data(), payload.size())) != head.sum) break;
    take({static_cast<SessionKind>(head.kind), head.lane, at + sizeof head, payload});
    scan.good_bytes = at + sizeof head + padded(head.bytes);
    ++scan.records;
  }
  scan.cut_bytes = file.bytes() - scan.good_bytes;
  return scan;
}

std::uint64_t repair_session(const fs::path& file) {
  const auto scan = scan_session(file, [](const SessionRecordView&) {});
  if (scan.cut_bytes > 0) {
    std::error_code error;
    fs::resize_file(file, scan.good_bytes, error);
    if (error) session_error(file, "", "a file that can be cut", error.message());
  }
  return scan.cut_bytes;
}

namespace {

/// Frames that lie in the file at a regular distance: `count` pieces of `frames` frames.
struct Run {
  std::int64_t first = 0, frames = 0, count = 1;
  std::uint64_t offset = 0, stride = 0;  ///< of the first piece, from piece to piece
  bool missing = false;
  std::int64_t end() const { return first + frames * count; }
};

/// The frames of one stream, found by runs: a session of hours with packets of one size takes little memory.
class SessionSource final : public SampleSource {
 public:
  SessionSource(std::shared_ptr<const InputFile> file, Index rows, Scalar scalar)
      : file_(std::move(file)), rows_(rows), scalar_(scalar) {}

  void add(std::int64_t frames, std::uint64_t offset, bool missing) {
    const std::int64_t first = this->frames();
    if (!runs_.empty()) {
      Run& last = runs_.back();
      if (missing && last.missing) {
        last.frames += frames;
        return;
      }
      if (!missing && !last.missing && last.frames == frames) {
        const std::uint64_t stride = offset - (last.offset + last.stride * static_cast<std::uint64_t>(last.count - 1));
        if (offset > last.offset && (last.count == 1 || stride == last.stride)) {
          last.stride = stride;
          ++last.count;
          return;
        }
      }
    }
    runs_.push_back({first, frames, 1, offset, 0, missing});
  }

  std::int64_t frames() const override { return runs_.empty() ? 0 : runs_.back().end(); }

  void read(std::int64_t first, MutableFrames out) const override {
    if (first < 0 || first + out.frames > frames() || out.rows != rows_)
      session_error(file_->path(), "frames", fmt::format("{} rows in a range inside [0, {})", rows_, frames()),
                    fmt::format("{} rows in [{}, {})", out.rows, first, first + out.frames));
    auto run =
        std::upper_bound(runs_.begin(), runs_.end(), first, [](std::int64_t at, const Run& r) { return at < r.end(); });
    std::vector<std::byte> room;
    for (Index done = 0; done < out.frames; ++run) {
      const std::int64_t at = first + done;
      const Index n = static_cast<Index>(std::min<std::int64_t>(run->end() - at, out.frames - done));
      if (run->missing) fill_missing(out.slice(done, n));
      else read_run(*run, at - run->first, out.slice(done, n), room);
      done += n;
    }
  }

 private:
  void read_run(const Run& run, std::int64_t from, MutableFrames out, std::vector<std::byte>& room) const {
    const std::size_t frame = static_cast<std::size_t>(rows_) * bytes_of(scalar_);
    for (Index done = 0; done < out.frames;) {
      // as many pieces at once as fit a window
      const std::int64_t piece = (from + done) / run.frames, inside = (from + done) % run.frames;
      const std::int64_t last = (from + out.frames - 1) / run.frames;
      const std::int64_t pieces =
          run.stride == 0
              ? 1
              : std::clamp<std::int64_t>(static_cast<std::int64_t>(kWindow / run.stride), 1, last - piece + 1);
      const std::uint64_t offset = run.offset + run.stride * static_cast<std::uint64_t>(piece);
      room.resize(run.stride * static_cast<std::size_t>(pieces - 1) + frame * static_cast<std::size_t>(run.frames));
      file_->read(offset, room.data(), room.size());
      for (std::int64_t p = 0; p < pieces; ++p) {
        const std::int64_t skip = p == 0 ? inside : 0;
        const Index n = static_cast<Index>(std::min<std::int64_t>(run.frames - skip, out.frames - done));
        const std::byte* data =
            room.data() + run.stride * static_cast<std::size_t>(p) + frame * static_cast<std::size_t>(skip);
        copy_frames(ConstFrames(data, scalar_, rows_, n, rows_), out.slice(done, n));
        done += n;
        if (done == out.frames) return;
      }
    }
  }

  std::shared_ptr<const InputFile> file_;
  Index rows_;
  Scalar scalar_;
  std::vector<Run> runs_;
};

/// Builds the recording while records go by.
class SessionReader {
 public:
  explicit SessionReader(const fs::path& file) : path_(file), file_(std::make_shared<InputFile>(file)) {
    partition_->finished = false;  // until its end is read
  }

  void take(const SessionRecordView& r) {
    try {
      use(r);
    } catch (const DataError&) {
      throw;
    } catch (const Error& e) {
      refuse("what percept writes", e.what());
    }
    ++record_;
  }

 private:
  void use(const SessionRecordView& r) {
    if (!headed_ && r.kind != SessionKind::head) refuse("a head as the first record", "another record");
    switch (r.kind) {
      case SessionKind::head:
        return head(r);
      case SessionKind::packet:
        return packet(r);
      case SessionKind::fate: {
        const auto f = as<SessionFate>(r);
        // one that is held may still be used
        if (f.fate != 1) waiting_.erase(f.number);
        if (f.fate >= 0 && f.fate < 5) ++fates_[static_cast<std::size_t>(f.fate)];
        return;
      }
      case SessionKind::step:
        return step(r);
      case SessionKind::event:
        return event(as<SessionEvent>(r), r.lane);
      case SessionKind::label: {
        const auto number = as<std::int32_t>(r, 4);
        const auto text = r.payload.subspan(8);
        labels_[number] = Label::of({reinterpret_cast<const char*>(text.data()), text.size()});
        if (labels_.size() > 65536) refuse("at most 65536 labels", "more");
        return;
      }
      case SessionKind::output:
        return output(r);
      case SessionKind::clock:
        return clock(as<SessionClock>(r));
      case SessionKind::loss: {
        const auto l = as<SessionLoss>(r);
        for (auto field : {&SessionLoss::records, &SessionLoss::bytes, &SessionLoss::packets, &SessionLoss::frames,
                           &SessionLoss::steps, &SessionLoss::outputs, &SessionLoss::events})
          loss_.*field += std::max<std::int64_t>(0, l.*field);
        return;
      }
      case SessionKind::model: {
        const Value v = json(r);
        models_[v.at("swap").as_integer()] = {v.at("node").as_string(), v.at("model").as_string()};
        return;
      }
      case SessionKind::end:
        end_ = json(r);
        partition_->finished = end_.get("finished", false);
        return;
    }
    // a kind that a later percept may have added
  }

 public:
  Recording finish(const SessionScan& scan) {
    if (!headed_) refuse("a head", "none");
    Recording r;
    r.name = head_.get("name", "session");
    Value live = Value::object({{"head", head_}, {"packets", packets_}, {"frames", frames_}});
    live["complete"] = !end_.is_null() && loss_.records == 0;
    live["cut_bytes"] = static_cast<std::int64_t>(scan.cut_bytes);
    if (!end_.is_null()) live["counts"] = end_;
    Value fates = Value::table();
    for (std::size_t i = 1; i < fates_.size(); ++i) {
      static constexpr const char* kNames[] = {"used", "held", "duplicate", "late", "refused"};
      fates[kNames[i]] = fates_[i];
    }
    live["not_used_at_once"] = std::move(fates);
    live["lost"] = Value::object({{"records", loss_.records},
                                  {"bytes", loss_.bytes},
                                  {"packets", loss_.packets},
                                  {"frames", loss_.frames},
                                  {"steps", loss_.steps},
                                  {"outputs", loss_.outputs},
                                  {"events", loss_.events}});
    r.meta["live"] = std::move(live);
    Value warnings = Value::array();
    if (scan.cut_bytes > 0)
      warnings.push_back(
          fmt::format("the session was cut off: {} bytes behind its last whole record are left out", scan.cut_bytes));
    else if (end_.is_null())
      warnings.push_back("the session was cut off: it ends with a whole record, but not with its last");
    if (loss_.records > 0)
      warnings.push_back(
          fmt::format("the recorder lost {} records ({} packets with {} frames, {} blocks that were decoded): the disk "
                      "was full or too slow",
                      loss_.records, loss_.packets, loss_.frames, loss_.steps));
    if (warnings.size()) r.meta["warnings"] = std::move(warnings);

    for (auto& in : inputs_) r.streams.push_back({in.name, in.format, in.samples, {}});
    for (auto& out : outputs_) r.streams.push_back({"live_" + out.name, out.format, out.samples, {}});
    std::stable_sort(events_.begin(), events_.end(), [](auto& a, auto& b) { return a.onset_s < b.onset_s; });
    for (std::size_t i = 0; i < events_.size(); ++i) events_[i].id = static_cast<std::int64_t>(i);
    r.events = std::move(events_);
    for (auto& in : inputs_)
      if (!in.clock.empty()) {
        Table t{"clock_" + in.name, {}};
        const char* names[] = {"at_s", "device_s", "local_s", "drift", "residual_s", "uncertainty_s", "jumps"};
        for (std::size_t c = 0; c < 7; ++c) {
          Column column{names[c], {}, {}};
          for (auto& row : in.clock) column.numbers.push_back(row[c]);
          t.columns.push_back(std::move(column));
        }
        r.tables.push_back(std::move(t));
      }
    std::stable_sort(partition_->actions.begin(), partition_->actions.end(),
                     [](auto& a, auto& b) { return a.step < b.step; });
    // steps that were lost cannot be repeated
    if (loss_.steps == 0 && loss_.packets == 0) r.partition = partition_;
    return r;
  }

 private:
  struct Input {
    std::string name;
    StreamFormat format;
    std::shared_ptr<SessionSource> samples;
    std::vector<std::array<double, 7>> clock;
    std::int64_t steps = 0;
  };
  struct WaitingPacket {
    std::uint64_t offset = 0;  ///< of its frames
    std::int32_t input = 0, frames = 0;
    Scalar scalar{};
  };

  [[noreturn]] void refuse(const std::string& expected, const std::string& found) const {
    session_error(path_, fmt::format("record {}", record_), expected, found);
  }
  template <class T>
  T as(const SessionRecordView& r, std::size_t more = 0) const {
    if (r.payload.size() < sizeof(T) + more)
      refuse(fmt::format("{} bytes", sizeof(T) + more), fmt::format("{}", r.payload.size()));
    T v;
    std::memcpy(&v, r.payload.data(), sizeof v);
    return v;
  }
  Value json(const SessionRecordView& r) const {
    return parse_json({reinterpret_cast<const char*>(r.payload.data()), r.payload.size()}, path_.string());
  }
  template <class List>
  auto& at(List& list, std::int32_t i, const char* what) const {
    if (i < 0 || static_cast<std::size_t>(i) >= list.size())
      refuse(fmt::format("an {} from 0 to {}", what, static_cast<std::int64_t>(list.size()) - 1), fmt::format("{}", i));
    return list[static_cast<std::size_t>(i)];
  }

  void head(const SessionRecordView& r) {
    if (headed_) refuse("one head", "another");
    headed_ = true;
    head_ = json(r);
    {
      const auto version = head_.at("percept_session").as_integer();
      if (version < 1 || version > kSessionVersion)
        refuse(fmt::format("a session of version 1 to {}", kSessionVersion), fmt::format("{}", version));
      for (auto& [list, to] : {std::pair{"inputs", &inputs_}, {"outputs", &outputs_}})
        for (auto& v : head_.at(list).as_array()) {
          Input in;
          in.name = v.at("name").as_string();
          in.format = format_from_value(v.at("format"));
          if (in.format.axis != Axis::time) throw Error("streams with a clock were expected");
          in.samples = std::make_shared<SessionSource>(file_, in.format.size(), in.format.scalar);
          to->push_back(std::move(in));
        }
    }
    for (auto& in : inputs_) partition_->inputs.push_back(in.name);
  }

  void packet(const SessionRecordView& r) {
    const auto p = as<SessionPacket>(r);
    const auto& in = at(inputs_, p.input, "input");
    const Scalar scalar = p.scalar == 0 ? Scalar::f32 : Scalar::f64;
    ++packets_;
    if (p.frames < 0 || p.rows < 0 || p.scalar > 1) refuse("a packet with frames", "another");
    const std::uint64_t bytes =
        static_cast<std::uint64_t>(p.rows) * static_cast<std::uint64_t>(p.frames) * bytes_of(scalar);
    if (r.payload.size() != sizeof p + bytes)
      refuse(fmt::format("{} bytes", sizeof p + bytes), fmt::format("{}", r.payload.size()));
    frames_ += p.frames;
    if (p.rows == in.format.size() && scalar == in.format.scalar)
      waiting_[p.number] = {r.offset + sizeof p, p.input, p.frames, scalar};
  }

  void step(const SessionRecordView& r) {
    const auto s = as<SessionStep>(r);
    auto& in = at(inputs_, s.input, "input");
    if (s.frames < 1 || s.offset < 0 || s.events < 0 ||
        r.payload.size() != sizeof s + static_cast<std::size_t>(s.events) * sizeof(SessionEvent))
      refuse("a step with frames", "another");
    if (loss_.records > 0 && s.first_frame > in.samples->frames())
      in.samples->add(s.first_frame - in.samples->frames(), 0, true);  // steps were lost
    if (s.first_frame != in.samples->frames())
      refuse(fmt::format("frame {} next", in.samples->frames()), fmt::format("{}", s.first_frame));
    const auto found = waiting_.find(s.packet);
    if (s.packet < 0) {
      in.samples->add(s.frames, 0, true);
    } else if (found == waiting_.end() || found->second.input != s.input ||
               s.offset + static_cast<std::int64_t>(s.frames) > found->second.frames) {
      if (loss_.records == 0) refuse(fmt::format("packet {} before its step", s.packet), "none");
      in.samples->add(s.frames, 0, true);
    } else {
      const std::size_t frame = static_cast<std::size_t>(in.format.size()) * bytes_of(found->second.scalar);
      in.samples->add(s.frames, found->second.offset + frame * static_cast<std::size_t>(s.offset), false);
      if (s.offset + s.frames == found->second.frames) waiting_.erase(found);
    }
    if (s.frames > 1 << 24) refuse("a step of at most 2^24 frames", fmt::format("{}", s.frames));
    step_times_.emplace_back(in.format.time_of(s.first_frame), n_steps_);
    if (step_times_.size() > 4096) step_times_.pop_front();
    for (std::int32_t i = 0; i < s.events; ++i) {
      SessionEvent e;
      std::memcpy(&e, r.payload.data() + sizeof s + static_cast<std::size_t>(i) * sizeof e, sizeof e);
      const Event event = from_file(e);
      events_.push_back(event);
      partition_->actions.push_back({.step = n_steps_,
                                     .kind = LivePartition::Action::Kind::event,
                                     .input = s.input,
                                     .row = 0,
                                     .event = event,
                                     .node = {},
                                     .model = {}});
    }
    auto& steps = partition_->steps;
    if (!steps.empty() && steps.back().input == s.input && steps.back().frames == s.frames) ++steps.back().repeat;
    else steps.push_back({s.input, s.frames, 1});
    ++n_steps_;
  }

  Event from_file(const SessionEvent& e) const {
    Event event{.onset_s = e.onset_s, .duration_s = e.duration_s, .value = e.value, .id = e.id, .row = e.row};
    if (const auto label = labels_.find(e.label); label != labels_.end()) event.label = label->second;
    if (!std::isfinite(e.onset_s)) refuse("an event with an onset", fmt::format("{}", e.onset_s));
    return event;
  }

  void event(const SessionEvent& e, std::uint16_t) {
    const Event event = from_file(e);
    events_.push_back(event);
    const std::string& text = event.label.text();
    using Kind = LivePartition::Action::Kind;
    if (text == "mask" || text == "unmask") {
      // told before the step it holds for
      partition_->actions.push_back({.step = n_steps_,
                                     .kind = text == "mask" ? Kind::mask : Kind::unmask,
                                     .input = static_cast<int>(e.value >= 0 && e.value < 65536 ? e.value : 0),
                                     .row = e.row,
                                     .event = {},
                                     .node = {},
                                     .model = {}});
    } else if (text.starts_with("swap ")) {
      // told behind the step in which it was done, with that step's time
      const auto at = std::find_if(step_times_.rbegin(), step_times_.rend(),
                                   [&](auto& step) { return step.first == event.onset_s; });
      const auto model = models_.find(event.id);
      if (at == step_times_.rend() || model == models_.end()) return;
      partition_->actions.push_back({.step = at->second,
                                     .kind = Kind::swap,
                                     .input = 0,
                                     .row = 0,
                                     .event = {},
                                     .node = model->second.first,
                                     .model = (path_.parent_path() / model->second.second).string()});
    }
  }

  void output(const SessionRecordView& r) {
    const auto o = as<SessionOutput>(r);
    auto& out = at(outputs_, o.output, "output");
    const Scalar scalar = o.scalar == 0 ? Scalar::f32 : Scalar::f64;
    if (o.frames < 0 || o.scalar > 1 || o.rows != out.format.size() || scalar != out.format.scalar ||
        r.payload.size() !=
            sizeof o + static_cast<std::uint64_t>(o.rows) * static_cast<std::uint64_t>(o.frames) * bytes_of(scalar))
      refuse("an output of the announced format", "another");
    if (o.first_frame > out.samples->frames() && loss_.records > 0)
      out.samples->add(o.first_frame - out.samples->frames(), 0, true);
    if (o.first_frame != out.samples->frames())
      refuse(fmt::format("frame {} of {} next", out.samples->frames(), out.name), fmt::format("{}", o.first_frame));
    if (o.frames > 0) out.samples->add(o.frames, r.offset + sizeof o, false);
  }

  void clock(const SessionClock& c) {
    auto& in = at(inputs_, c.input, "input");
    in.clock.push_back({static_cast<double>(c.at_ns) * 1e-9, c.device_s, c.local_s, c.drift, c.residual_s,
                        c.uncertainty_s, static_cast<double>(c.jumps)});
  }

  fs::path path_;
  std::shared_ptr<const InputFile> file_;
  bool headed_ = false;
  Value head_, end_;
  std::vector<Input> inputs_, outputs_;
  std::unordered_map<std::int64_t, WaitingPacket> waiting_;
  std::map<std::int32_t, Label> labels_;
  std::map<std::int64_t, std::pair<std::string, std::string>> models_;
  std::deque<std::pair<double, std::int64_t>> step_times_;  ///< of the last steps
  std::vector<Event> events_;
  std::shared_ptr<LivePartition> partition_ = std::make_shared<LivePartition>();
  std::int64_t n_steps_ = 0, packets_ = 0, frames_ = 0, record_ = 0;
  std::array<std::int64_t, 5> fates_{};
  SessionLoss loss_;
};

}  // namespace

Recording open_session(const fs::path& file) {
  SessionReader reader(file);
  const SessionScan scan = scan_session(file, [&](const SessionRecordView& r) { reader.take(r); });
  return reader.finish(scan);
}

}  // namespace percept::io
