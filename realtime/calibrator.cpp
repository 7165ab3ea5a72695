#include "realtime/calibrator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "core/log.h"

namespace percept {

namespace {
constexpr double kRing_s = 30;  ///< what the rings hold
constexpr std::int64_t kWait_ns = 50'000'000;
}  // namespace

class Calibrator::Ring {
 public:
  Ring(Index rows, double rate_hz)
      : rows_(static_cast<std::size_t>(rows)), room_(static_cast<std::size_t>(std::ceil(rate_hz * kRing_s)) + 64),
        values_(rows_ * room_), numbers_(room_) {}
  template <class T>
  void push(std::int64_t number, const T* x) noexcept {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_.load(std::memory_order_acquire) == room_) {
      lost_.store(lost_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
      return;
    }
    const std::size_t at = tail % room_;
    for (std::size_t i = 0; i < rows_; ++i) values_[at * rows_ + i] = static_cast<double>(x[i]);
    numbers_[at] = number;
    tail_.store(tail + 1, std::memory_order_release);
  }
  /// Calls take(number, values) for what is there.
  template <class F>
  void drain(F&& take) {
    const std::size_t tail = tail_.load(std::memory_order_acquire);
    for (std::size_t head = head_.load(std::memory_order_relaxed); head != tail; ++head) {
      take(numbers_[head % room_], values_.data() + (head % room_) * rows_);
      head_.store(head + 1, std::memory_order_release);
    }
  }
  std::int64_t lost() const noexcept { return lost_.load(std::memory_order_relaxed); }

 private:
  std::size_t rows_, room_;
  std::vector<double> values_;
  std::vector<std::int64_t> numbers_;
  alignas(64) std::atomic<std::size_t> head_{0};
  alignas(64) std::atomic<std::size_t> tail_{0};
  std::atomic<std::int64_t> lost_{0};
};

Calibrator::Calibrator(Setup setup)
    : setup_(std::move(setup)), frames_(std::make_unique<Ring>(setup_.frames.size(), setup_.frames.rate_hz)),
      intentions_(std::make_unique<Ring>(setup_.target.size(), setup_.target.rate_hz)) {
  thread_ = std::thread([this] { run(); });
}

Calibrator::~Calibrator() { stop(); }

void Calibrator::stop() {
  stop_.store(true, std::memory_order_release);
  asked_wakeup_.notify();
  if (thread_.joinable()) thread_.join();
}

void Calibrator::frames(const Block& block) noexcept {
  const auto push = [&](auto span) {
    for (Index k = 0; k < span.frames; ++k) frames_->push(block.first_frame + k, span.frame(k));
  };
  if (block.x.scalar == Scalar::f32) push(block.x.as<float>());
  else push(block.x.as<double>());
}

void Calibrator::intended(std::int64_t frame, const double* rows) noexcept { intentions_->push(frame, rows); }

bool Calibrator::ask() noexcept {
  if (!idle()) return false;
  asked_.store(asked_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  asked_wakeup_.notify();
  return true;
}

void Calibrator::settle() noexcept {
  if (!setup_.lockstep) return;
  for (;;) {
    const std::uint32_t seen = done_wakeup_.now();
    if (asked_.load(std::memory_order_relaxed) == done_.load(std::memory_order_acquire) ||
        stop_.load(std::memory_order_acquire))
      return;
    done_wakeup_.wait(seen, kWait_ns);
  }
}

void Calibrator::run() {
  while (!stop_.load(std::memory_order_acquire)) {
    const std::uint32_t seen = asked_wakeup_.now();
    // what was pushed before it was asked for is seen from here on
    const std::int32_t asked = asked_.load(std::memory_order_acquire);
    collect();
    if (asked != done_.load(std::memory_order_relaxed)) {
      work();
      done_.store(asked, std::memory_order_release);
      done_wakeup_.notify();
      continue;
    }
    asked_wakeup_.wait(seen, kWait_ns);
  }
  done_wakeup_.notify();
}

void Calibrator::collect() {
  const auto take = [&](Ring& ring, Kept& kept, const StreamFormat& format) {
    const Index rows = format.size();
    ring.drain([&](std::int64_t number, const double* x) {
      const std::int64_t next = kept.first + kept.count(rows);
      // what was lost in between is missing; what is very far is a new beginning
      if (kept.values.empty() || number < next ||
          static_cast<double>(number - next) > setup_.params.window_s * format.rate_hz) {
        kept.values.clear();
        kept.first = number;
      } else {
        kept.values.insert(kept.values.end(), static_cast<std::size_t>((number - next) * rows),
                           std::numeric_limits<double>::quiet_NaN());
      }
      kept.values.insert(kept.values.end(), x, x + rows);
    });
    const double newest_s = format.time_of(kept.first + kept.count(rows) - 1);
    const double from_s = std::max(newest_s - setup_.params.window_s, keep_from_s_.load(std::memory_order_acquire));
    const std::int64_t old =
        std::clamp<std::int64_t>(from_s > -1e299 ? format.frame_from(from_s) - kept.first : 0, 0, kept.count(rows));
    kept.values.erase(kept.values.begin(), kept.values.begin() + static_cast<std::ptrdiff_t>(old * rows));
    kept.first += old;
  };
  take(*frames_, x_, setup_.frames);
  take(*intentions_, y_, setup_.target);
}

Stream Calibrator::stream(const std::string& name, const StreamFormat& format, const Kept& kept, double shift_s) {
  Stream s;
  s.name = name;
  s.format = format;
  s.format.start_s = format.time_of(kept.first) + shift_s;
  s.format.scalar = Scalar::f64;
  s.samples = std::make_shared<MemorySource>(
      Eigen::Map<const Eigen::MatrixXd>(kept.values.data(), format.size(), kept.count(format.size())));
  return s;
}

void Calibrator::work() {
  const std::int64_t began_ns = steady_ns();
  try {
    Recording r;
    r.name = "calibration";
    r.streams.push_back(stream(setup_.from, setup_.frames, x_, 0));
    r.streams.push_back(stream(setup_.target_name, setup_.target, y_, setup_.lag_s));
    const std::int64_t n = y_.count(setup_.target.size());
    if (n < 2 || r.streams[0].frames() < 2) throw DataError("calibration", "frames", "some", "none yet");
    auto models = setup_.fit(r);
    const double from_s = r.streams[1].format.start_s - setup_.lag_s;
    const double to_s = from_s + static_cast<double>(n) / setup_.target.rate_hz;
    const double seconds = static_cast<double>(steady_ns() - began_ns) * 1e-9;
    const std::int32_t number = fits_.load(std::memory_order_relaxed) + 1;
    Value told = Value::array();
    for (auto& m : models) {
      if (!m.model) throw DataError("calibration", m.node, "a model", "none");
      auto own = std::make_shared<Model>(*m.model);
      own->meta["calibration"] = Value::object(
          {{"fit", static_cast<std::int64_t>(number)}, {"from_s", from_s}, {"to_s", to_s}, {"frames", n}});
      m.model = std::move(own);
    }
    setup_.runner->swap(models, [&](std::int64_t swap, const LiveRunner::NewModel& m) {
      if (setup_.recorder) {
        const auto place = std::filesystem::path("swaps") / fmt::format("{}", swap) / m.node;
        m.model->save(setup_.folder / place);
        setup_.recorder->model(swap, m.node, place.string());
      }
      told.push_back(Value::object({{"swap", swap},
                                    {"node", m.node},
                                    {"digest", m.model->digest()},
                                    {"from_s", from_s},
                                    {"to_s", to_s},
                                    {"frames", n},
                                    {"seconds", seconds}}));
    });
    fits_.store(number, std::memory_order_release);
    std::lock_guard lock(mutex_);
    for (auto& t : told.as_array()) models_.push_back(t);
    trouble_.clear();
  } catch (const std::exception& e) {
    // the decoder that is in use stays
    std::lock_guard lock(mutex_);
    if (trouble_ != e.what()) log::warn(fmt::format("calibration: no new model: {}", e.what()));
    trouble_ = e.what();
    ++failed_;
  }
}

Value Calibrator::report() const {
  std::lock_guard lock(mutex_);
  Value r = Value::object({{"fits", static_cast<std::int64_t>(fits())},
                           {"failed", failed_},
                           {"lost_frames", frames_->lost() + intentions_->lost()}});
  if (!trouble_.empty()) r["trouble"] = trouble_;
  r["models"] = models_;
  return r;
}

}  // namespace percept
