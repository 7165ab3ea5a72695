#include "core/recording.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <set>

#include "core/error.h"

namespace percept {

void MemorySource::read(std::int64_t first, MutableFrames out) const {
  if (first < 0 || first + out.frames > m_.cols() || out.rows != m_.rows())
    throw DataError("memory", "frames", fmt::format("a range inside [0, {})", m_.cols()),
                    fmt::format("[{}, {})", first, first + out.frames));
  copy_frames(ConstFrames(m_.data() + first * m_.rows(), Scalar::f64, m_.rows(), out.frames, m_.rows()), out);
}

Index LivePartition::largest() const {
  Index most = 0;
  for (auto& s : steps) most = std::max(most, s.frames);
  return most;
}

Eigen::MatrixXd Stream::matrix() const {
  Eigen::MatrixXd m(format.size(), frames());
  if (m.size()) samples->read(0, MutableFrames(m.data(), Scalar::f64, m.rows(), m.cols(), m.rows()));
  return m;
}

Stream memory_stream(std::string name, Eigen::MatrixXd m, double rate_hz, double start_s,
                     std::vector<std::string> row_names, const std::string& unit) {
  Stream s;
  s.name = name;
  s.format = time_format(m.rows(), rate_hz, Scalar::f64, name);
  s.format.start_s = start_s;
  s.format.parts[0].unit = unit;
  for (auto& r : row_names)
    s.format.parts[0].rows.push_back({.name = r, .kind = "", .unit = unit, .position = {}, .good = true});
  s.samples = std::make_shared<MemorySource>(std::move(m));
  return s;
}

namespace {
struct SliceSource final : SampleSource {
  std::shared_ptr<const SampleSource> whole;
  std::int64_t first = 0, n = 0;
  std::int64_t frames() const override { return n; }
  void read(std::int64_t at, MutableFrames out) const override {
    if (at < 0 || at + out.frames > n)
      throw DataError("slice", "frames", fmt::format("a range inside [0, {})", n),
                      fmt::format("[{}, {})", at, at + out.frames));
    whole->read(first + at, out);
  }
};
struct SelectSource final : SampleSource {
  std::shared_ptr<const SampleSource> whole;
  std::vector<std::int64_t> positions;
  std::int64_t frames() const override { return static_cast<std::int64_t>(positions.size()); }
  void read(std::int64_t at, MutableFrames out) const override {
    for (Index k = 0; k < out.frames; ++k) whole->read(positions.at(static_cast<std::size_t>(at + k)), out.slice(k, 1));
  }
};
}  // namespace

Stream slice(const Stream& stream, std::int64_t first, std::int64_t n) {
  auto source = std::make_shared<SliceSource>();
  source->whole = stream.samples;
  source->first = first;
  source->n = n;
  Stream s = stream;
  s.samples = std::move(source);
  if (s.format.axis == Axis::time) s.format.start_s = stream.format.time_of(first);
  else s.keys.assign(stream.keys.begin() + first, stream.keys.begin() + first + n);
  return s;
}

Stream select(const Stream& stream, std::vector<std::int64_t> positions) {
  Stream s = stream;
  s.keys.clear();
  for (auto p : positions) s.keys.push_back(stream.keys.at(static_cast<std::size_t>(p)));
  auto source = std::make_shared<SelectSource>();
  source->whole = stream.samples;
  source->positions = std::move(positions);
  s.samples = std::move(source);
  return s;
}

std::vector<std::string> levels_of(const Column& column) {
  std::set<std::string> levels(column.text.begin(), column.text.end());
  levels.erase("");
  return {levels.begin(), levels.end()};
}

std::vector<double> codes_of(const Column& column) {
  if (!column.is_text()) return column.numbers;
  const auto levels = levels_of(column);
  std::vector<double> codes;
  for (auto& cell : column.text)
    codes.push_back(cell.empty()
                        ? std::numeric_limits<double>::quiet_NaN()
                        : static_cast<double>(std::lower_bound(levels.begin(), levels.end(), cell) - levels.begin()));
  return codes;
}

const Column* Table::find(std::string_view column) const {
  for (auto& c : columns)
    if (c.name == column) return &c;
  return nullptr;
}

const Stream* Recording::find(std::string_view stream) const {
  for (auto& s : streams)
    if (s.name == stream) return &s;
  return nullptr;
}
const Stream& Recording::stream(std::string_view name, const std::string& where) const {
  if (auto* s = find(name)) return *s;
  std::vector<std::string> names;
  for (auto& s : streams) names.push_back(s.name);
  throw ConfigError(
      where, fmt::format("\"{}\"", name),
      fmt::format("one of the recording's streams: {}{}", fmt::join(names, ", "), did_you_mean(name, names)));
}
const Table* Recording::table(std::string_view name) const {
  for (auto& t : tables)
    if (t.name == name) return &t;
  return nullptr;
}
std::vector<std::string> Recording::warnings() const {
  std::vector<std::string> all;
  if (auto* w = meta.find("warnings"))
    for (auto& item : w->as_array()) all.push_back(item.as_string());
  return all;
}

void require_label(const std::vector<Event>& events, const std::string& label, const std::string& where) {
  std::vector<std::string> labels;
  for (auto& e : events) {
    if (e.label == Label::of(label)) return;
    if (std::find(labels.begin(), labels.end(), e.label.text()) == labels.end()) labels.push_back(e.label.text());
  }
  throw ConfigError(where, "\"" + label + "\"",
                    labels.empty() ? "the label of events: the recording has none"
                                   : fmt::format("the label of events of the recording: {}{}", fmt::join(labels, ", "),
                                                 did_you_mean(label, labels)));
}

}  // namespace percept
