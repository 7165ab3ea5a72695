#include "core/stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>
#include <mutex>
#include <unordered_map>

namespace percept {

const char* name_of(Scalar s) { return s == Scalar::f32 ? "f32" : "f64"; }
const char* name_of(Axis a) { return a == Axis::time ? "time" : "item"; }

Index Part::size() const {
  Index n = 1;
  for (Index s : shape) n *= s;
  return n;
}

Index StreamFormat::size() const {
  Index n = 0;
  for (auto& p : parts) n += p.size();
  return n;
}
const Part* StreamFormat::find_part(std::string_view name) const {
  for (auto& p : parts)
    if (p.name == name) return &p;
  return nullptr;
}
Index StreamFormat::part_offset(std::string_view name) const {
  Index at = 0;
  for (auto& p : parts) {
    if (p.name == name) return at;
    at += p.size();
  }
  return -1;
}
std::vector<std::string> StreamFormat::row_names() const {
  std::vector<std::string> names;
  for (auto& p : parts) {
    const Index n = p.size();
    if (static_cast<Index>(p.rows.size()) == n)
      for (auto& c : p.rows) names.push_back(c.name);
    else
      for (Index i = 0; i < n; ++i) names.push_back(fmt::format("{}[{}]", p.name, i));
  }
  return names;
}
std::string StreamFormat::describe() const {
  std::string shape;
  for (auto& p : parts) {
    if (!shape.empty()) shape += " + ";
    if (parts.size() > 1) shape += p.name + " ";
    shape += fmt::format("{{{}}}", fmt::join(p.shape, ", "));
  }
  return axis == Axis::time ? fmt::format("{} x {} at {:.6g} Hz", shape, name_of(scalar), rate_hz)
                            : fmt::format("{} x {}, items", shape, name_of(scalar));
}

StreamFormat time_format(Index rows, double rate_hz, Scalar scalar, const std::string& part) {
  StreamFormat f;
  f.axis = Axis::time;
  f.scalar = scalar;
  f.rate_hz = rate_hz;
  f.parts.push_back({.name = part, .shape = {rows}, .unit = "1", .rows = {}, .levels = {}});
  return f;
}
StreamFormat item_format(std::vector<Index> shape, Scalar scalar, const std::string& part) {
  StreamFormat f;
  f.axis = Axis::item;
  f.scalar = scalar;
  f.parts.push_back({.name = part, .shape = std::move(shape), .unit = "1", .rows = {}, .levels = {}});
  return f;
}

namespace {
template <class A, class B>
void copy_as(FrameSpan<const A> from, FrameSpan<B> to) {
  if constexpr (std::is_same_v<A, B>)
    if (from.stride == from.rows && to.stride == to.rows) {
      if (from.frames) std::memcpy(to.data, from.data, static_cast<std::size_t>(from.rows * from.frames) * sizeof(A));
      return;
    }
  for (Index k = 0; k < from.frames; ++k) {
    const A* a = from.frame(k);
    B* b = to.frame(k);
    if constexpr (std::is_same_v<A, B>) std::memcpy(b, a, static_cast<std::size_t>(from.rows) * sizeof(A));
    else
      for (Index r = 0; r < from.rows; ++r) b[r] = static_cast<B>(a[r]);
  }
}
}  // namespace

void copy_frames(ConstFrames from, MutableFrames to) noexcept {
  const bool a = from.scalar == Scalar::f32, b = to.scalar == Scalar::f32;
  if (a && b) copy_as(from.as<float>(), to.as<float>());
  else if (a) copy_as(from.as<float>(), to.as<double>());
  else if (b) copy_as(from.as<double>(), to.as<float>());
  else copy_as(from.as<double>(), to.as<double>());
}

void fill_missing(MutableFrames f) noexcept {
  const auto fill = [](auto span) {
    using T = std::remove_pointer_t<decltype(span.data)>;
    for (Index k = 0; k < span.frames; ++k) std::fill_n(span.frame(k), span.rows, std::numeric_limits<T>::quiet_NaN());
  };
  if (f.scalar == Scalar::f32) fill(f.as<float>());
  else fill(f.as<double>());
}

Eigen::MatrixXd to_matrix(ConstFrames frames) {
  Eigen::MatrixXd m(frames.rows, frames.frames);
  copy_frames(frames, MutableFrames(m.data(), Scalar::f64, m.rows(), m.cols(), m.rows()));
  return m;
}

namespace {
struct Labels {
  std::mutex mutex;
  std::deque<std::string> texts{""};
  std::unordered_map<std::string, std::int32_t> ids{{"", 0}};
};
Labels& labels() {
  static Labels all;
  return all;
}
}  // namespace

Label Label::of(std::string_view text) {
  auto& all = labels();
  std::lock_guard lock(all.mutex);
  auto [at, fresh] = all.ids.try_emplace(std::string(text), static_cast<std::int32_t>(all.texts.size()));
  if (fresh) all.texts.emplace_back(text);
  Label l;
  l.id_ = at->second;
  return l;
}
Label Label::from_id(std::int32_t id) {
  auto& all = labels();
  std::lock_guard lock(all.mutex);
  Label l;
  if (id > 0 && static_cast<std::size_t>(id) < all.texts.size()) l.id_ = id;
  return l;
}
const std::string& Label::text() const {
  auto& all = labels();
  std::lock_guard lock(all.mutex);
  return all.texts[static_cast<std::size_t>(id_)];
}

}  // namespace percept
