#include "core/join.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"

namespace percept {

StreamFormat Join::prepare(const std::vector<StreamFormat>& in, const std::vector<std::string>& names, bool nearest,
                           const std::string& where) {
  axis_ = in[0].axis;
  scalar_ = in[0].scalar;
  StreamFormat out = in[0];
  out.parts.clear();
  double start = in[0].start_s;
  std::size_t latest = 0;
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (in[i].axis != axis_)
      throw ConfigError(where + ".from", "",
                        fmt::format("inputs of one axis, but '{}' carries {} and '{}' {}", names[0], in[0].describe(),
                                    names[i], in[i].describe()));
    if (axis_ == Axis::time && std::abs(in[i].rate_hz - in[0].rate_hz) > 1e-9 * in[0].rate_hz)
      throw ConfigError(where + ".from", "",
                        fmt::format("inputs of one rate, but '{}' has {} Hz and '{}' {} Hz", names[0], in[0].rate_hz,
                                    names[i], in[i].rate_hz));
    if (in[i].start_s > start) {
      start = in[i].start_s;
      latest = i;
    }
    out.max_frames = std::max(out.max_frames, in[i].max_frames);
    for (auto p : in[i].parts) {
      const auto same = [&](const Part& q) { return q.name == p.name; };
      if (std::any_of(out.parts.begin(), out.parts.end(), same)) p.name = names[i] + "." + p.name;
      if (std::any_of(out.parts.begin(), out.parts.end(), same)) p.name += fmt::format("#{}", i);
      out.parts.push_back(std::move(p));
    }
  }
  out.start_s = start;
  rings_.assign(in.size(), {});
  for (std::size_t i = 0; i < in.size(); ++i) {
    auto& r = rings_[i];
    r.rows = in[i].size();
    r.bytes_per_frame = r.rows * static_cast<Index>(bytes_of(scalar_));
    Index wait = 0;
    if (axis_ == Axis::time) {
      const double frames = (start - in[i].start_s) * in[i].rate_hz;
      r.skip = std::llround(frames);
      if (!nearest && std::abs(frames - static_cast<double>(r.skip)) > 1e-6)
        throw ConfigError(
            where + ".from", "",
            fmt::format(
                "inputs on one clock, but '{}' is {:.6g} s off the frames of '{}' (align = \"nearest\" allows it)",
                names[i], (frames - std::floor(frames)) / in[i].rate_hz, names[latest]));
      for (auto& other : in)
        wait = std::max<Index>(wait, std::llround(std::abs(in[i].start_s - other.start_s) * in[i].rate_hz));
    }
    r.to_skip = r.skip;
    r.grow(wait + 2 * out.max_frames);
  }
  dropped_ = 0;
  return out;
}

void Join::Ring::grow(Index n) {
  std::vector<std::byte> fresh(static_cast<std::size_t>(n * bytes_per_frame));
  std::vector<std::int64_t> fresh_keys(static_cast<std::size_t>(n));
  for (Index k = 0; k < count; ++k) {
    const Index at = (head + k) % capacity;
    std::memcpy(fresh.data() + k * bytes_per_frame, data.data() + at * bytes_per_frame,
                static_cast<std::size_t>(bytes_per_frame));
    fresh_keys[static_cast<std::size_t>(k)] = keys[static_cast<std::size_t>(at)];
  }
  data.swap(fresh);
  keys.swap(fresh_keys);
  capacity = n;
  head = 0;
}

void Join::take(std::size_t i, ConstFrames x, std::span<const std::int64_t> keys) {
  auto& r = rings_[i];
  Index first = 0;
  if (r.to_skip > 0) {
    first = std::min<Index>(static_cast<Index>(r.to_skip), x.frames);
    r.to_skip -= first;
  }
  const Index n = x.frames - first;
  // only a branch that waits for a whole recording gets here
  if (r.count + n > r.capacity) r.grow(std::max(r.count + n, 2 * r.capacity));
  for (Index k = 0; k < n;) {
    Index at = r.head + r.count + k;
    if (at >= r.capacity) at -= r.capacity;
    const Index piece = std::min(n - k, r.capacity - at);
    copy_frames(x.slice(first + k, piece),
                MutableFrames(r.data.data() + at * r.bytes_per_frame, scalar_, r.rows, piece, r.rows));
    if (!keys.empty()) std::copy_n(keys.begin() + first + k, piece, r.keys.begin() + at);
    k += piece;
  }
  r.count += n;
}

void Join::Ring::drop(Index n) {
  head += n;
  if (head >= capacity) head -= capacity;
  count -= n;
  if (count == 0) head = 0;  // stays in the part that is in the cache
}

void Join::Ring::move_to(MutableFrames out) {
  for (Index k = 0; k < out.frames;) {
    const Index piece = std::min(out.frames - k, capacity - head);
    copy_frames(ConstFrames(data.data() + head * bytes_per_frame, out.scalar, rows, piece, rows), out.slice(k, piece));
    drop(piece);
    k += piece;
  }
}

Index Join::give(MutableFrames out, std::int64_t* keys) {
  const auto held = [&] {
    return std::min_element(rings_.begin(), rings_.end(), [](auto& a, auto& b) { return a.count < b.count; })->count;
  };
  const auto move = [&](MutableFrames to) {
    Index row = 0;
    for (auto& r : rings_) {
      r.move_to(to.part(row, r.rows));
      row += r.rows;
    }
  };
  if (axis_ == Axis::time) {
    const Index n = std::min(out.frames, held());
    move(out.slice(0, n));
    return n;
  }
  Index given = 0;
  while (given < out.frames && held() > 0) {
    std::int64_t largest = rings_[0].keys[static_cast<std::size_t>(rings_[0].head)];
    for (auto& r : rings_) largest = std::max(largest, r.keys[static_cast<std::size_t>(r.head)]);
    bool level = true;
    for (auto& r : rings_)
      if (r.keys[static_cast<std::size_t>(r.head)] < largest) {
        r.drop(1);  // keys rise, so no partner will come
        ++dropped_;
        level = false;
      }
    if (!level) continue;
    keys[given] = largest;
    move(out.slice(given++, 1));
  }
  return given;
}

void Join::reset() {
  for (auto& r : rings_) {
    r.head = r.count = 0;
    r.to_skip = r.skip;
  }
  dropped_ = 0;
}

namespace {
template <class T>
void put(std::vector<std::byte>& out, const T& v) {
  auto* p = reinterpret_cast<const std::byte*>(&v);
  out.insert(out.end(), p, p + sizeof v);
}
template <class T>
T get(std::span<const std::byte>& in) {
  if (in.size() < sizeof(T)) throw Error("state of a join is cut short");
  T v;
  std::memcpy(&v, in.data(), sizeof v);
  in = in.subspan(sizeof v);
  return v;
}
}  // namespace

void Join::save(std::vector<std::byte>& out) const {
  for (auto& r : rings_) {
    put(out, r.to_skip);
    put(out, r.count);
    for (Index k = 0; k < r.count; ++k) {
      const Index at = (r.head + k) % r.capacity;
      put(out, r.keys[static_cast<std::size_t>(at)]);
      out.insert(out.end(), r.data.begin() + at * r.bytes_per_frame, r.data.begin() + (at + 1) * r.bytes_per_frame);
    }
  }
}

void Join::restore(std::span<const std::byte>& in) {
  for (auto& r : rings_) {
    r.to_skip = get<std::int64_t>(in);
    const auto count = get<Index>(in);
    r.head = 0;
    r.count = 0;
    const auto held = static_cast<Index>(in.size()) / (static_cast<Index>(sizeof(std::int64_t)) + r.bytes_per_frame);
    if (count < 0 || count > held) throw Error("state of a join has an impossible size");
    if (count > r.capacity) r.grow(count);
    for (Index k = 0; k < count; ++k) {
      r.keys[static_cast<std::size_t>(k)] = get<std::int64_t>(in);
      if (static_cast<Index>(in.size()) < r.bytes_per_frame) throw Error("state of a join is cut short");
      std::memcpy(r.data.data() + k * r.bytes_per_frame, in.data(), static_cast<std::size_t>(r.bytes_per_frame));
      in = in.subspan(static_cast<std::size_t>(r.bytes_per_frame));
    }
    r.count = count;
  }
}

}  // namespace percept
