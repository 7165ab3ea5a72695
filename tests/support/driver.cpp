#include "tests/support/driver.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "core/error.h"
#include "tests/support/alloc.h"

namespace percept::testing {

namespace {
constexpr double kUnwritten = -0x1.23456p+99;  // exact in f32 too
constexpr Index kGuardFrames = 4;              // room for a stage that gives more than it promised

std::uint64_t mix(std::uint64_t seed, std::uint64_t position) {  // splitmix64
  std::uint64_t z = seed * 0x9e3779b97f4a7c15ull + position + 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

bool same(double a, double b) { return (std::isnan(a) && std::isnan(b)) || std::memcmp(&a, &b, sizeof a) == 0; }
}  // namespace

StageInput input_of(const Sample& sample, Scalar scalar, Index frames) {
  if (frames < 0) frames = sample.frames;
  StageInput in;
  in.format = sample.format;
  in.format.scalar = scalar;
  in.frames.resize(in.format.size(), frames);
  in.events = sample.events;
  for (Index k = 0; k < frames; ++k) {
    const std::span<double> column(in.frames.col(k).data(), static_cast<std::size_t>(in.frames.rows()));
    if (sample.fill) {
      sample.fill(k, column);
    } else {
      std::mt19937_64 random(mix(20, static_cast<std::uint64_t>(k)));
      std::normal_distribution<double> normal;
      for (double& v : column) v = normal(random);
    }
    if (in.format.axis == Axis::item) in.keys.push_back(5 + 3 * k);
  }
  return in;
}

Eigen::MatrixXd Collected::matrix() const { return Eigen::Map<const Eigen::MatrixXd>(values.data(), rows(), frames()); }

std::string difference(const Collected& a, const Collected& b, Index first_a, Index first_event_a) {
  if (a.rows() != b.rows()) return fmt::format("{} rows and {} rows", a.rows(), b.rows());
  const Index n = std::min(a.frames() - first_a, b.frames());
  for (Index k = 0; k < n; ++k)
    for (Index r = 0; r < a.rows(); ++r)
      if (const double u = a.frame(first_a + k)[r], v = b.frame(k)[r]; !same(u, v))
        return fmt::format("frame {} row {}: {} and {} (differ by {:.3g})", first_a + k, r, u, v, u - v);
  if (a.frames() - first_a != b.frames())
    return fmt::format("{} frames and {} frames", a.frames() - first_a, b.frames());
  for (std::size_t k = 0; k < b.keys.size(); ++k)
    if (const auto u = a.keys[static_cast<std::size_t>(first_a) + k]; u != b.keys[k])
      return fmt::format("frame {}: key {} and key {}", first_a + static_cast<Index>(k), u, b.keys[k]);
  const auto events = a.events.size() - static_cast<std::size_t>(first_event_a);
  if (events != b.events.size()) return fmt::format("{} events and {} events", events, b.events.size());
  for (std::size_t k = 0; k < events; ++k)
    if (!(a.events[static_cast<std::size_t>(first_event_a) + k] == b.events[k]))
      return fmt::format("event {} differs", static_cast<std::size_t>(first_event_a) + k);
  return "";
}

StageDriver::StageDriver(Stage& stage, const StageInput& input, Partition partition, Layout layout, Context context)
    : stage_(stage), input_(input), partition_(partition), layout_(layout), in_(input.format) {
  const Index total = input.frames.cols();
  if (in_.size() != input.frames.rows())
    throw Error(fmt::format("stage driver: expected {} rows of samples, found {}", in_.size(), input.frames.rows()));
  if (partition_.block <= 0) partition_.block = std::max<Index>(total, 1);
  in_.max_frames = partition_.block;
  out_.format = stage_.prepare(in_, context);

  if (in_.axis == Axis::item) {
    keys_ = input.keys;
    for (Index k = static_cast<Index>(keys_.size()); k < total; ++k) keys_.push_back(k);
  }
  Index earliest = 1;
  for (std::size_t i = 0; i < input.events.size(); ++i) {
    const double at = std::floor((input.events[i].onset_s - in_.start_s) * in_.rate_hz + 1e-9) + 1;
    if (at > static_cast<double>(total)) break;
    const auto late = partition_.late > 0 ? mix(7, i) % static_cast<std::uint64_t>(partition_.late + 1) : 0;
    earliest = std::clamp(static_cast<Index>(at) + static_cast<Index>(late), earliest, total);
    delivery_.push_back(earliest);
  }

  const auto scalars = [&](Index frames, Index rows, Index gap) {
    return static_cast<std::size_t>(frames * (rows + gap));
  };
  const std::size_t slack = static_cast<std::size_t>(layout_.offset) + 1;
  x_.resize((scalars(in_.max_frames, in_.size(), layout_.input_gap) + slack) * bytes_of(in_.scalar));
  const Index room = std::max<Index>(out_.format.max_frames, 1) + kGuardFrames;
  y_.resize((scalars(room, out_.rows(), layout_.output_gap) + slack) * bytes_of(out_.format.scalar));
  out_keys_.resize(static_cast<std::size_t>(room));
  block_events_.reserve(input.events.size());
  out_events_.resize(1024 + static_cast<std::size_t>(in_.max_frames * std::min<Index>(in_.size(), 64)));
}

void StageDriver::breach(const std::string& text) {
  if (breaches_.size() < 8 && std::find(breaches_.begin(), breaches_.end(), text) == breaches_.end())
    breaches_.push_back(text);
}

template <class T>
void StageDriver::fill_output() {
  auto* y = reinterpret_cast<T*>(y_.data());
  std::fill(y, y + y_.size() / sizeof(T), static_cast<T>(kUnwritten));
}

Output StageDriver::room() {
  const auto& f = out_.format;
  if (f.scalar == Scalar::f32) fill_output<float>();
  else fill_output<double>();
  std::fill(out_keys_.begin(), out_keys_.end(), std::numeric_limits<std::int64_t>::min());
  Output out;
  const auto offset = static_cast<std::size_t>(layout_.offset) * bytes_of(f.scalar);
  out.y = MutableFrames(y_.data() + offset, f.scalar, f.size(), f.max_frames, f.size() + layout_.output_gap);
  out.keys = f.axis == Axis::item ? out_keys_.data() : nullptr;
  out.events = out_events_.data();
  out.event_room = static_cast<Index>(out_events_.size());
  return out;
}

template <class T>
void StageDriver::collect(Index n, const Output& out) {
  const auto y = out.y.template as<T>();
  const T* begin = reinterpret_cast<const T*>(y_.data());
  const T* end = begin + y_.size() / sizeof(T);
  const T* next = begin;  // first scalar not yet looked at: everything between the frames must be untouched
  for (Index k = 0; k < n; ++k) {
    const T* frame = y.frame(k);
    if (std::any_of(next, frame, [](T v) { return v != static_cast<T>(kUnwritten); }))
      breach("writes outside its rows");
    for (Index r = 0; r < y.rows; ++r) {
      if (frame[r] == static_cast<T>(kUnwritten)) breach(fmt::format("leaves row {} of {} unwritten", r, y.rows));
      out_.values.push_back(static_cast<double>(frame[r]));
    }
    next = frame + y.rows;
  }
  // more frames than were returned may be written, but not more than were promised
  next = std::max(next, std::min<const T*>(end, y.frame(y.frames)));
  if (std::any_of(next, end, [](T v) { return v != static_cast<T>(kUnwritten); })) breach("writes past its room");
}

void StageDriver::take(Index n, const Output& out) {
  const auto& f = out_.format;
  if (n < 0 || n > f.max_frames) {
    breach(fmt::format("gives {} frames where max_frames = {} was promised", n, f.max_frames));
    n = std::clamp<Index>(n, 0, f.max_frames + kGuardFrames);
  }
  if (f.scalar == Scalar::f32) collect<float>(n, out);
  else collect<double>(n, out);
  for (Index k = 0; k < n; ++k) {
    if (f.axis == Axis::item) {
      const auto key = out_keys_[static_cast<std::size_t>(k)];
      if (key == std::numeric_limits<std::int64_t>::min()) breach("gives an item without a key");
      out_.keys.push_back(key);
    }
    out_.given.push_back(given_);
  }
  if (out.n_events < 0 || out.n_events > out.event_room) return breach("miscounts its events");
  if (out.lost_events) breach(fmt::format("emits more than {} events in one block", out.event_room));
  out_.events.insert(out_.events.end(), out_events_.begin(), out_events_.begin() + out.n_events);
}

Index StageDriver::push(Index first, Index frames) {
  if (first < 0 || frames < 0 || frames > in_.max_frames || first + frames > input_.frames.cols())
    throw Error(fmt::format("stage driver: no block of {} frames at {}", frames, first));
  given_ = first + frames;
  block_events_.clear();
  for (std::size_t i = 0; i < delivery_.size(); ++i)
    if (delivery_[i] > first && delivery_[i] <= given_) block_events_.push_back(input_.events[i]);

  std::fill(x_.begin(), x_.end(), std::byte{0xff});  // NaN in the gaps: what is read there poisons the result
  const MutableFrames x(x_.data() + static_cast<std::size_t>(layout_.offset) * bytes_of(in_.scalar), in_.scalar,
                        in_.size(), frames, in_.size() + layout_.input_gap);
  copy_frames(ConstFrames(input_.frames.data() + first * input_.frames.rows(), Scalar::f64, input_.frames.rows(),
                          frames, input_.frames.rows()),
              x);
  Block block;
  block.x = x;
  block.first_frame = first;
  if (in_.axis == Axis::item)
    block.keys = std::span(keys_).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(frames));
  block.events = block_events_;
  Output out = room();
  const AllocationCounter counter;
  const Index n = stage_.process(block, out);
  allocations_ += counter.count();
  take(n, out);
  out_.before_flush = out_.frames();
  return n;
}

void StageDriver::run(Index first, Index last) {
  if (last < 0) last = input_.frames.cols();
  while (first < last) {
    Index n = partition_.block;
    if (partition_.random)
      n = 1 +
          static_cast<Index>(mix(partition_.random, static_cast<std::uint64_t>(first)) % static_cast<std::uint64_t>(n));
    n = std::min(n, last - first);
    push(first, n);
    first += n;
  }
}

void StageDriver::flush() {
  const Index most = 100000 + 100 * input_.frames.cols();  // far more than any stage can hold back
  for (Index n = 1, total = 0; n > 0; total += n) {
    Output out = room();
    const AllocationCounter counter;
    n = stage_.flush(out);
    allocations_ += counter.count();
    take(n, out);
    if (total > most) return breach("flush() does not end");
  }
}

void StageDriver::clear() {
  Collected fresh;
  fresh.format = std::move(out_.format);
  out_ = std::move(fresh);
  breaches_.clear();
  allocations_ = 0;
  given_ = 0;
}

Collected run_stage(Stage& stage, const StageInput& input, Partition partition, Layout layout, Context context) {
  StageDriver driver(stage, input, partition, layout, std::move(context));
  driver.run();
  driver.flush();
  if (!driver.breaches().empty()) throw Error("stage breaks its promise: " + driver.breaches().front());
  return driver.output();
}

}  // namespace percept::testing
